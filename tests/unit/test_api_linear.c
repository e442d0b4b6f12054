/* unit/test_api_linear.c - a packed matrix on its own: what is packed decodes to near what it was,
 * the product is that of the decoded matrix within the rounding of the input, and neither threads
 * nor a cut of the rows change a bit. */
#include "unit.h"

#include "base/rng.h"

#include <math.h>
#include <sfq/sfq.h>

static sfq_error err;

/* One shape with everything that goes with it. */
typedef struct matrix {
    size_t n, k, m;
    sfq_linear_layout layout;
    sfq_linear_weight weight;
    uint8_t *codes;
    float *w, *back, *scales, *bias, *x, *y;
} matrix;

static float *floats(size_t count)
{
    float *p = malloc((count > 0 ? count : 1) * sizeof(float));
    assert_non_null(p);
    return p;
}

static void fill(float *x, size_t count, uint64_t stream, float scale)
{
    for (size_t i = 0; i < count; i++)
        x[i] = scale * (float)(sfq_rng_uniform(7, stream, i) - 0.5);
}

static void matrix_make(matrix *a, sfq_workers *workers, size_t n, size_t k, size_t m, int bits)
{
    bool f16 = false;
    *a = (matrix){.n = n, .k = k, .m = m};
    assert_ok(sfq_linear_layout_get(n, k, bits, &a->layout, &err));
    a->codes = aligned_alloc(64, a->layout.code_bytes);
    a->scales = floats(a->layout.scale_count);
    a->w = floats(n * k);
    a->back = floats(n * k);
    a->bias = floats(n);
    a->x = floats(m * k);
    a->y = floats(m * n);
    fill(a->w, n * k, 1, 0.2F);
    fill(a->bias, n, 2, 1);
    fill(a->x, m * k, 3, 4);
    assert_ok(
        sfq_linear_pack(workers, a->w, n, k, bits, NULL, NULL, a->codes, a->scales, &f16, &err));
    assert_true(f16);
    a->weight = (sfq_linear_weight){.n = n,
                                    .k = k,
                                    .bits = bits,
                                    .activation_bits = 12,
                                    .codes = a->codes,
                                    .scales = a->scales,
                                    .bias = a->bias};
    assert_ok(sfq_linear_unpack(workers, &a->weight, a->back, &err));
}

static void matrix_free(matrix *a)
{
    free(a->codes);
    free(a->scales);
    free(a->w);
    free(a->back);
    free(a->bias);
    free(a->x);
    free(a->y);
}

static double rms_error(const float *a, const float *b, size_t count)
{
    double error = 0, energy = 0;
    for (size_t i = 0; i < count; i++) {
        error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        energy += (double)b[i] * (double)b[i];
    }
    return sqrt(error / energy);
}

/* The product of the decoded matrix in double. */
static void plain_product(const matrix *a, float *y)
{
    for (size_t m = 0; m < a->m; m++)
        for (size_t n = 0; n < a->n; n++) {
            double sum = (double)a->bias[n];
            for (size_t k = 0; k < a->k; k++)
                sum += (double)a->x[m * a->k + k] * (double)a->back[n * a->k + k];
            y[m * a->n + n] = (float)sum;
        }
}

static void test_apply(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 1},    {16, 64, 3},    {17, 65, 1},
                                       {96, 333, 5}, {40, 1500, 37}, {250, 2100, 2}};
    sfq_workers *workers = NULL;
    assert_ok(sfq_workers_open(&workers, 2, &err));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int bits = 4; bits <= 8; bits += 2) {
            matrix a;
            matrix_make(&a, workers, shapes[i][0], shapes[i][1], shapes[i][2], bits);
            assert_true(rms_error(a.back, a.w, a.n * a.k) < 1.2 / (1 << bits));
            float *want = floats(a.m * a.n);
            plain_product(&a, want);
            assert_ok(sfq_linear_apply(workers, &a.weight, a.x, a.m, a.y, &err));
            assert_true(rms_error(a.y, want, a.m * a.n) < 1e-3);
            free(want);
            matrix_free(&a);
        }
    sfq_workers_close(&workers);
    assert_null(workers);
}

/* 5,000 rows go through in blocks; one at a time and with other threads: the same bits. */
static void test_one_result(void **state)
{
    (void)state;
    matrix a;
    sfq_workers *workers = NULL, *one = NULL;
    assert_ok(sfq_workers_open(&workers, 3, &err));
    assert_ok(sfq_workers_open(&one, 1, &err));
    matrix_make(&a, workers, 48, 200, 5000, 6);
    assert_ok(sfq_linear_apply(workers, &a.weight, a.x, a.m, a.y, &err));
    float *y = floats(a.m * a.n);
    for (size_t m = 0; m < a.m; m += m % 7 == 0 && m < 300 ? 1 : 33) {
        size_t rows = m % 7 == 0 && m < 300 ? 1 : a.m - m < 33 ? a.m - m : 33;
        assert_ok(sfq_linear_apply(one, &a.weight, a.x + m * a.k, rows, y + m * a.n, &err));
    }
    assert_memory_equal(y, a.y, a.m * a.n * sizeof(float));
    assert_ok(sfq_linear_apply(one, &a.weight, NULL, 0, NULL, &err));
    assert_ok(sfq_workers_set_threads(one, 2, &err));
    assert_fails(SFQ_E_ARGUMENT, "threads", sfq_workers_set_threads(one, -1, &err));
    memset(y, 0, a.m * a.n * sizeof(float));
    assert_ok(sfq_linear_apply(one, &a.weight, a.x, a.m, y, &err));
    assert_memory_equal(y, a.y, a.m * a.n * sizeof(float));
    free(y);
    matrix_free(&a);
    sfq_workers_close(&workers);
    sfq_workers_close(&one);
}

static void test_rows(void **state)
{
    (void)state;
    static const int64_t rows[4] = {49, 0, 17, 17};
    int64_t beyond[2] = {3, 50};
    matrix a;
    sfq_workers *workers = NULL;
    assert_ok(sfq_workers_open(&workers, 2, &err));
    matrix_make(&a, workers, 50, 130, 1, 5);
    float *out = floats(4 * a.k);
    assert_ok(sfq_linear_rows(workers, &a.weight, rows, 4, out, &err));
    for (size_t i = 0; i < 4; i++)
        assert_memory_equal(out + i * a.k, a.back + (size_t)rows[i] * a.k, a.k * sizeof(float));
    assert_ok(sfq_linear_rows(workers, &a.weight, NULL, 0, NULL, &err));
    assert_fails(SFQ_E_DATA, "row 50", sfq_linear_rows(workers, &a.weight, beyond, 2, out, &err));
    beyond[1] = -1;
    assert_fails(SFQ_E_DATA, "row -1", sfq_linear_rows(workers, &a.weight, beyond, 2, out, &err));
    free(out);
    matrix_free(&a);
    sfq_workers_close(&workers);
}

/* Inputs that count more get the smaller error. */
static void test_energy(void **state)
{
    (void)state;
    enum { N = 16, K = 512 };
    matrix a;
    float energy[K];
    bool f16 = false;
    double before = 0, after = 0;
    sfq_workers *workers = NULL;
    assert_ok(sfq_workers_open(&workers, 1, &err));
    matrix_make(&a, workers, N, K, 1, 3);
    for (size_t k = 0; k < K; k++)
        energy[k] = k % 16 == 0 ? 100.0F : 0.01F;
    for (size_t i = 0; i < (size_t)N * K; i++)
        before += (double)energy[i % K] * pow((double)a.w[i] - (double)a.back[i], 2);
    assert_ok(sfq_linear_pack(workers, a.w, N, K, 3, energy, NULL, a.codes, a.scales, &f16, &err));
    assert_ok(sfq_linear_unpack(workers, &a.weight, a.back, &err));
    for (size_t i = 0; i < (size_t)N * K; i++)
        after += (double)energy[i % K] * pow((double)a.w[i] - (double)a.back[i], 2);
    assert_true(after < before);
    matrix_free(&a);
    sfq_workers_close(&workers);
}

static bool always(void *ud)
{
    (void)ud;
    return true;
}

static void test_refused(void **state)
{
    (void)state;
    matrix a;
    bool f16 = false;
    sfq_linear_layout layout;
    sfq_workers *w = NULL;
    sfq_hooks hooks = {.cancelled = always};
    assert_fails(SFQ_E_ARGUMENT, "threads", sfq_workers_open(&w, 257, &err));
    assert_null(w);
    assert_ok(sfq_workers_open(&w, 1, &err));
    matrix_make(&a, w, 16, 64, 1, 8);
    assert_fails(SFQ_E_ARGUMENT, "bits", sfq_linear_layout_get(16, 64, 9, &layout, &err));
    assert_fails(SFQ_E_ARGUMENT, "empty", sfq_linear_layout_get(0, 64, 8, &layout, &err));
    assert_fails(SFQ_E_LIMIT, "large", sfq_linear_layout_get(SIZE_MAX / 4, 64, 8, &layout, &err));
    assert_fails(SFQ_E_INTERRUPTED, "",
                 sfq_linear_pack(w, a.w, 16, 64, 8, NULL, &hooks, a.codes, a.scales, &f16, &err));
    a.w[70] = NAN;
    assert_fails(SFQ_E_NUMERIC, "NaN",
                 sfq_linear_pack(w, a.w, 16, 64, 8, NULL, NULL, a.codes, a.scales, &f16, &err));
    a.weight.codes = a.codes + 1;
    assert_fails(SFQ_E_ARGUMENT, "aligned", sfq_linear_apply(w, &a.weight, a.x, 1, a.y, &err));
    a.weight.codes = a.codes;
    a.weight.activation_bits = 15;
    assert_fails(SFQ_E_ARGUMENT, "8..14", sfq_linear_apply(w, &a.weight, a.x, 1, a.y, &err));
    a.weight.activation_bits = 8;
    a.weight.scales = NULL;
    assert_fails(SFQ_E_ARGUMENT, "scales", sfq_linear_unpack(w, &a.weight, a.back, &err));
    assert_fails(SFQ_E_ARGUMENT, "workers", sfq_linear_unpack(NULL, &a.weight, a.back, &err));
    matrix_free(&a);
    sfq_workers_close(&w);
    sfq_workers_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apply),   cmocka_unit_test(test_one_result),
        cmocka_unit_test(test_rows),    cmocka_unit_test(test_energy),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
