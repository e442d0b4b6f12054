/* tests/kernels/check_gemm.c - float weights of every dtype against ref within an error bound of
 * the data (docs/KERNELS.md derives it), and the law of invariance: one output depends on its own
 * row of x and w, on K and on `many`. */
#include "check.h"

#include <math.h>
#include <string.h>

typedef struct gemm_case {
    sfq_gemm_args a;
    const float *w32; /* [N, ldw] the values of w */
} gemm_case;

static void *narrow(float *w, size_t n, sfq_dtype dtype)
{
    if (dtype == SFQ_F32)
        return check_copy(w, n * sizeof *w);
    uint16_t *out = CHECK_ARRAY(uint16_t, n);
    for (size_t i = 0; i < n; i++)
        out[i] = dtype == SFQ_F16 ? sfq_f32_to_f16(w[i]) : sfq_f32_to_bf16(w[i]);
    sfq_to_f32(w, out, dtype, n);
    return out;
}

static void put_value(void *w, float value, sfq_dtype dtype)
{
    uint16_t half = dtype == SFQ_F16 ? sfq_f32_to_f16(value) : sfq_f32_to_bf16(value);
    memcpy(w, dtype == SFQ_F32 ? (const void *)&value : &half, sfq_dtype_info(dtype)->bytes);
}

static gemm_case make_case(size_t m, size_t n, size_t k, sfq_dtype dtype, int flavour)
{
    gemm_case c = {.a = {.dtype = dtype, .m = m, .n = n, .k = k, .many = m > 8}};
    c.a.ldw = k + check_between(0, 3);
    c.a.ldx = k + check_between(0, 3);
    c.a.ldy = n + check_between(0, 3);
    const size_t w_count = (n - 1) * c.a.ldw + k, x_count = (m - 1) * c.a.ldx + k;
    float *w = CHECK_ARRAY(float, w_count);
    float *x = CHECK_ARRAY(float, x_count);
    float *bias = CHECK_ARRAY(float, n);
    check_floats(w, w_count, flavour);
    for (size_t i = 0; flavour == CHECK_WILD && i < w_count; i += check_between(1, 9))
        w[i] = check_normal() * 1e-5f; /* subnormal in F16 */
    check_floats(x, x_count, flavour);
    check_floats(bias, n, CHECK_PLAIN);
    c.a.w = narrow(w, w_count, dtype);
    c.w32 = w;
    c.a.x = x;
    c.a.bias = check_between(0, 1) ? bias : NULL;
    c.a.scratch = check_aligned(SFQ_QGEMM_SCRATCH);
    return c;
}

static float *output(const sfq_gemm_args *a)
{
    return CHECK_ARRAY(float, (a->m - 1) * a->ldy + a->n);
}

/* How far one output may be from ref. On tiles of bf16 an activation is three terms and an F16
 * weight two; the product of the low ones is dropped, 2^-22. A step of 32 inputs adds a chain of 16
 * for each product of terms to the sum. Terms and sums below 2^-126 count as 0 there. */
static double error_bound(const sfq_kernels *k, const gemm_case *c, size_t m, size_t n)
{
    const sfq_gemm_args *a = &c->a;
    const bool tiles = k->isa == SFQ_ISA_AMX && a->dtype != SFQ_F32 && a->many;
    double size = a->bias ? fabs((double)a->bias[n]) : 0.0, terms = 0.0;
    for (size_t i = 0; i < a->k; i++) {
        double w = (double)c->w32[n * a->ldw + i], x = (double)a->x[m * a->ldx + i];
        size += fabs(w * x);
        terms += fabs(w) + fabs(x) + 1.0;
    }
    if (!tiles)
        return CHECK_EPS * ((double)a->k / 8 + 16) * size + 1e-40;
    double products = a->dtype == SFQ_F16 ? 5 : 3, steps = fmin(ceil((double)a->k / 32), 16);
    double sums = products * steps + 20 + (double)a->k / 512;
    return (CHECK_EPS * sums + (a->dtype == SFQ_F16 ? 0x1p-22 : 0)) * size + 0x1p-123 * terms;
}

static void against_ref(const sfq_kernels *k, const gemm_case *c)
{
    sfq_gemm_args want = c->a, got = c->a;
    want.y = output(&want);
    got.y = output(&got);
    check_ref()->gemm(&want, 0, want.n);
    k->gemm(&got, 0, got.n);
    for (size_t m = 0; m < got.m; m++) {
        for (size_t n = 0; n < got.n; n++) {
            double bound = error_bound(k, c, m, n);
            check_near((double)got.y[m * got.ldy + n], (double)want.y[m * got.ldy + n], bound,
                       "gemm", m * got.ldy + n);
        }
        if (m + 1 < got.m)
            check_untouched(got.y + m * got.ldy + got.n, (got.ldy - got.n) * sizeof(float),
                            "padding of y");
    }
}

static void invariance(const sfq_kernels *k, const gemm_case *c)
{
    sfq_gemm_args whole = c->a, split = c->a;
    whole.y = output(&whole);
    split.y = output(&split);
    k->gemm(&whole, 0, whole.n);
    size_t cut = check_between(0, whole.n);
    for (size_t m = 0; m < whole.m; m++) {
        sfq_gemm_args row = split;
        row.m = 1;
        row.x += m * row.ldx;
        row.y += m * row.ldy;
        if (cut < row.n)
            k->gemm(&row, cut, row.n);
        check_untouched(row.y, cut * sizeof(float), "outputs before n_begin");
        if (cut > 0)
            k->gemm(&row, 0, cut);
        check_same(row.y, whole.y + m * whole.ldy, whole.n * sizeof(float), "row alone");
    }
    for (size_t m = 0; m < whole.m; m += 2) { /* batches of two, at every place of a tile */
        sfq_gemm_args two = split;
        two.m = whole.m - m < 2 ? 1 : 2;
        two.x += m * two.ldx;
        two.y += m * two.ldy;
        k->gemm(&two, 0, two.n);
        for (size_t i = 0; i < two.m; i++)
            check_same(two.y + i * two.ldy, whole.y + (m + i) * whole.ldy, whole.n * sizeof(float),
                       "rows in twos");
    }
}

/* What is not finite stays so, and stays with the outputs that read it. */
static void not_finite(const sfq_kernels *k, size_t m, sfq_dtype dtype)
{
    static const float values[] = {INFINITY, -INFINITY, NAN};
    gemm_case c = make_case(m, 40, 77, dtype, CHECK_PLAIN);
    sfq_gemm_args clean = c.a, spoilt = c.a;
    const size_t row = check_between(0, m - 1), k0 = check_between(0, 76),
                 n0 = check_between(0, 39);
    const float value = values[check_between(0, 2)];
    const size_t bytes = sfq_dtype_info(dtype)->bytes;
    clean.y = output(&clean);
    k->gemm(&clean, 0, clean.n);
    float *x = check_copy(c.a.x, ((m - 1) * c.a.ldx + c.a.k) * sizeof *x);
    char *w = check_copy(c.a.w, ((c.a.n - 1) * c.a.ldw + c.a.k) * bytes);
    x[row * c.a.ldx + k0] = value;
    put_value(w + (n0 * c.a.ldw + k0) * bytes, value, dtype);
    spoilt.x = x;
    spoilt.w = w;
    spoilt.y = output(&spoilt);
    k->gemm(&spoilt, 0, spoilt.n);
    for (size_t i = 0; i < m; i++) {
        for (size_t n = 0; n < spoilt.n; n++) {
            const float *y = spoilt.y + i * spoilt.ldy + n;
            if (i == row || n == n0)
                CHECK(!isfinite(*y), "gemm of %g is %g at row %zu, output %zu", (double)value,
                      (double)*y, i, n);
            else
                check_same(y, clean.y + i * clean.ldy + n, sizeof *y, "beside what is not finite");
        }
    }
    check_reset();
}

static void check_case(const sfq_kernels *k, size_t m, size_t n, size_t kk, sfq_dtype dtype,
                       int flavour)
{
    gemm_case c = make_case(m, n, kk, dtype, flavour);
    against_ref(k, &c);
    invariance(k, &c);
    check_reset();
}

void check_gemm(const sfq_kernels *k)
{
    for (int turn = 0; turn < 180; turn++) {
        size_t m = check_between(1, turn % 4 == 0 ? 70 : 9);
        size_t n = check_between(1, turn % 5 == 0 ? 70 : 14);
        size_t kk = check_between(1, turn % 6 == 0 ? 2600 : 90);
        check_case(k, m, n, kk, (sfq_dtype)(turn % 3), turn % 2);
    }
    for (int turn = 0; turn < 24; turn++) /* many rows, and inputs of several passes */
        check_case(k, turn % 2 ? check_between(9, 300) : check_between(33, 50),
                   check_between(1, 40),
                   turn % 2 ? check_between(1, 90) : check_between(3000, 3700),
                   (sfq_dtype)(turn % 3), turn % 5 == 0);
    for (int turn = 0; turn < 36; turn++)
        not_finite(k, turn % 2 ? 3 : 21, (sfq_dtype)(turn % 3));
}

typedef struct gemm_bench {
    const sfq_kernels *k;
    sfq_gemm_args a;
} gemm_bench;

static void run_gemm(void *ctx)
{
    gemm_bench *b = ctx;
    b->k->gemm(&b->a, 0, b->a.n);
}

static void bench_shape(const sfq_kernels *k, sfq_dtype dtype, size_t m, size_t n, size_t kk)
{
    char what[64];
    gemm_bench b = {.k = k, .a = make_case(m, n, kk, dtype, CHECK_PLAIN).a};
    b.a.y = output(&b.a);
    snprintf(what, sizeof what, "%s M=%zu N=%zu K=%zu", sfq_dtype_info(dtype)->name, m, n, kk);
    check_report(what, check_seconds(run_gemm, &b), (double)(m * n * kk),
                 m == 1 ? (double)(n * kk * sfq_dtype_info(dtype)->bytes) : 0.0);
    check_reset();
}

void bench_gemm(const sfq_kernels *k)
{
    static const size_t rows[] = {1, 2, 4, 8, 16, 64, 512};
    const bool slow = k->isa == SFQ_ISA_REF;
    for (int dtype = SFQ_F32; dtype <= SFQ_BF16; dtype++)
        for (size_t i = 0; i < (slow ? 1 : sizeof rows / sizeof *rows); i++)
            bench_shape(k, (sfq_dtype)dtype, rows[i], slow ? 256 : 2048, 2048);
    if (!slow)
        bench_shape(k, SFQ_F16, 1, 32768, 2048); /* beyond the caches */
}
