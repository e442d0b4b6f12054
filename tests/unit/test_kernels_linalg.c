/* Products, weighted sums, Cholesky, solve and inverse against plain loops in double; the same bits
 * at any thread count; calls from several threads at once. */
#include "kernels/linalg.h"

#include "base/rng.h"

#include "unit/unit.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

static sfq_error err;

enum { POOLS = 4 };
static const int pool_threads[POOLS] = {1, 2, 3, 7};
static sfq_pool *pools[POOLS];

static int open_pools(void **state)
{
    (void)state;
    for (int i = 0; i < POOLS; i++)
        assert_ok(sfq_pool_open(&pools[i], pool_threads[i], &err));
    return 0;
}

static int close_pools(void **state)
{
    (void)state;
    for (int i = 0; i < POOLS; i++)
        sfq_pool_close(&pools[i]);
    return 0;
}

static void *room(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    assert_non_null(p);
    return p;
}

static float *random_floats(size_t count, uint64_t stream)
{
    float *x = room(count, sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)sfq_rng_normal(7, stream, i);
    return x;
}

/* ---- products ---- */

static const float GUARD = 12345.0F;

typedef struct shape {
    size_t m, n, k;
} shape;

/* A product with rows that are `gap` longer than they must be. c holds `start` and guards. */
static sfq_linalg_product product(shape s, bool ta, bool tb, bool add, size_t gap)
{
    sfq_linalg_product p = {.m = s.m, .n = s.n, .k = s.k, .add = add};
    p.transpose_a = ta;
    p.transpose_b = tb;
    p.lda = (ta ? s.m : s.k) + gap;
    p.ldb = (tb ? s.k : s.n) + gap;
    p.ldc = s.n + gap;
    p.a = random_floats((ta ? s.k : s.m) * p.lda, 1);
    p.b = random_floats((tb ? s.n : s.k) * p.ldb, 2);
    p.c = random_floats(s.m * p.ldc, 3);
    for (size_t i = 0; i < s.m; i++)
        for (size_t j = s.n; j < p.ldc; j++)
            p.c[i * p.ldc + j] = GUARD;
    return p;
}

static void product_free(sfq_linalg_product *p)
{
    free((void *)(uintptr_t)p->a);
    free((void *)(uintptr_t)p->b);
    free(p->c);
}

/* Each element within the rounding errors of a float sum of its k terms (Higham 2002, eq. 3.5). */
static void check_product(const sfq_linalg_product *p, const float *before)
{
    for (size_t i = 0; i < p->m; i++) {
        for (size_t j = 0; j < p->n; j++) {
            double sum = p->add ? (double)before[i * p->ldc + j] : 0.0, size = fabs(sum);
            for (size_t k = 0; k < p->k; k++) {
                double a = (double)(p->transpose_a ? p->a[k * p->lda + i] : p->a[i * p->lda + k]);
                double b = (double)(p->transpose_b ? p->b[j * p->ldb + k] : p->b[k * p->ldb + j]);
                sum += a * b;
                size += fabs(a * b);
            }
            double bound = size * (double)(p->k + 1) * (double)FLT_EPSILON;
            assert_near((double)p->c[i * p->ldc + j], sum, bound);
        }
        for (size_t j = p->n; j < p->ldc; j++)
            assert_true(p->c[i * p->ldc + j] == GUARD);
    }
}

static void run_products(shape s, size_t gap)
{
    for (int variant = 0; variant < 8; variant++) {
        sfq_linalg_product p =
            product(s, (variant & 1) != 0, (variant & 2) != 0, (variant & 4) != 0, gap);
        size_t bytes = s.m * p.ldc * sizeof(float);
        float *before = room(bytes, 1), *first = room(bytes, 1);
        memcpy(before, p.c, bytes);
        sfq_linalg_gemm(NULL, &p);
        check_product(&p, before);
        memcpy(first, p.c, bytes);
        for (int i = 0; i < POOLS; i++) {
            memcpy(p.c, before, bytes);
            sfq_linalg_gemm(pools[i], &p);
            assert_memory_equal(p.c, first, bytes);
        }
        free(before);
        free(first);
        product_free(&p);
    }
}

static void products(void **state)
{
    (void)state;
    static const shape shapes[] = {{1, 1, 1},     {1, 17, 3},    {7, 1, 64},     {16, 16, 16},
                                   {33, 65, 129}, {100, 7, 257}, {5, 530, 31},   {97, 101, 1},
                                   {1, 1, 1000},  {300, 11, 20}, {260, 300, 70}, {65, 520, 300}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        run_products(shapes[i], 0);
        run_products(shapes[i], 3);
    }
}

static void empty_products(void **state)
{
    (void)state;
    static const shape shapes[] = {{0, 5, 5}, {5, 0, 5}, {5, 6, 0}, {0, 0, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        run_products(shapes[i], 2);
}

/* What is not a number in one row of a and one column of b stays there. */
static void nan_stays_in_place(void **state)
{
    (void)state;
    sfq_linalg_product p = product((shape){70, 90, 40}, false, true, false, 0);
    ((float *)(uintptr_t)p.a)[3 * p.lda + 5] = NAN;
    ((float *)(uintptr_t)p.b)[80 * p.ldb + 39] = INFINITY;
    sfq_linalg_gemm(pools[1], &p);
    for (size_t i = 0; i < p.m; i++)
        for (size_t j = 0; j < p.n; j++)
            assert_int_equal(isfinite(p.c[i * p.ldc + j]) != 0, i != 3 && j != 80);
    product_free(&p);
}

/* ---- many callers at once ---- */

typedef struct caller {
    const sfq_linalg_product *p;
    const float *expected;
    _Atomic int *wrong;
} caller;

enum { CALLERS = 6, CALLS = 4000 };

static void *call_often(void *arg)
{
    const caller *one = arg;
    sfq_linalg_product p = *one->p;
    size_t bytes = p.m * p.ldc * sizeof(float);
    p.c = malloc(bytes);
    if (p.c == NULL)
        atomic_fetch_add(one->wrong, 1);
    for (int i = 0; i < CALLS && p.c != NULL; i++) {
        sfq_linalg_gemm(NULL, &p);
        if (memcmp(p.c, one->expected, bytes) != 0)
            atomic_fetch_add(one->wrong, 1);
    }
    free(p.c);
    return NULL;
}

/* Products keep no state that callers share. (A BLAS may: Debian's serial OpenBLAS in this place
 * failed more often than not.) */
static void callers_at_once(void **state)
{
    (void)state;
    sfq_linalg_product p = product((shape){96, 96, 96}, false, true, false, 0);
    sfq_linalg_gemm(NULL, &p);
    _Atomic int wrong = 0;
    pthread_t thread[CALLERS];
    caller one = {.p = &p, .expected = p.c, .wrong = &wrong};
    for (int i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, call_often, &one), 0);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(wrong, 0);
    product_free(&p);
}

/* ---- weighted sums ---- */

typedef struct sums {
    sfq_linalg_sums s;
    float *a, *z, *weight;
} sums;

static sums make_sums(size_t t, size_t k, size_t n, bool weighted)
{
    sums x = {.a = random_floats(t * (k + 2), 4), .z = random_floats(t * (n + 5), 5)};
    x.weight = random_floats(t, 6);
    for (size_t i = 0; i < t; i++)
        x.weight[i] = fabsf(x.weight[i]);
    x.s = (sfq_linalg_sums){.a = x.a,
                            .z = x.z,
                            .weight = weighted ? x.weight : NULL,
                            .lda = k + 2,
                            .ldz = n + 5,
                            .t = t,
                            .k = k,
                            .n = n};
    return x;
}

static void free_sums(sums *x)
{
    free(x->a);
    free(x->z);
    free(x->weight);
}

static double *random_doubles(size_t count, uint64_t stream)
{
    double *x = room(count, sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = sfq_rng_normal(7, stream, i);
    return x;
}

/* got - before against sum_t weight x_i y_j */
static void check_sum(const sfq_linalg_sums *s, double got, double before, const float *x,
                      size_t ldx, const float *y, size_t ldy)
{
    double sum = 0, size = 0;
    for (size_t t = 0; t < s->t; t++) {
        double term = (double)x[t * ldx] * (double)y[t * ldy];
        term *= s->weight != NULL ? (double)s->weight[t] : 1.0;
        sum += term;
        size += fabs(term);
    }
    /* float errors of one block of at most 256 rows */
    assert_near(got, before + sum, size * 256 * (double)FLT_EPSILON + 1e-14 * fabs(before));
}

static void run_sums(size_t t, size_t k, size_t n, bool weighted, bool want_h, bool want_g)
{
    sums x = make_sums(t, k, n, weighted);
    sfq_linalg_sums s = x.s;
    double *h0 = random_doubles(k * k, 8), *g0 = random_doubles(k * n, 9);
    double *h = random_doubles(k * k, 8), *g = random_doubles(k * n, 9);
    s.h = want_h ? h : NULL;
    s.g = want_g ? g : NULL;
    sfq_linalg_sum(NULL, &s);
    for (size_t i = 0; i < k; i++) {
        for (size_t j = 0; j < k; j++)
            if (j > i || !want_h)
                assert_true(h[i * k + j] == h0[i * k + j]);
            else
                check_sum(&s, h[i * k + j], h0[i * k + j], s.a + i, s.lda, s.a + j, s.lda);
        for (size_t j = 0; j < n; j++)
            if (!want_g)
                assert_true(g[i * n + j] == g0[i * n + j]);
            else
                check_sum(&s, g[i * n + j], g0[i * n + j], s.a + i, s.lda, s.z + j, s.ldz);
    }
    for (int p = 0; p < POOLS; p++) {
        double *h2 = random_doubles(k * k, 8), *g2 = random_doubles(k * n, 9);
        s.h = want_h ? h2 : NULL;
        s.g = want_g ? g2 : NULL;
        sfq_linalg_sum(pools[p], &s);
        assert_memory_equal(h, h2, k * k * sizeof(double));
        assert_memory_equal(g, g2, k * n * sizeof(double));
        free(h2);
        free(g2);
    }
    free(h0);
    free(g0);
    free(h);
    free(g);
    free_sums(&x);
}

static void weighted_sums(void **state)
{
    (void)state;
    run_sums(1, 1, 1, true, true, true);
    run_sums(700, 33, 17, true, true, true);
    run_sums(257, 70, 5, false, true, true);
    run_sums(40, 300, 3, true, true, false);
    run_sums(40, 65, 270, true, false, true);
    run_sums(0, 9, 9, false, true, true);
    run_sums(600, 5, 0, false, true, true);
    run_sums(30, 280, 290, true, true, true);
}

/* A float sum over all rows would lose the ones: 2^25 + 1 is no float. */
static void sums_are_double(void **state)
{
    (void)state;
    enum { T = 5000 };
    sums x = make_sums(T, 1, 1, false);
    for (size_t t = 0; t < T; t++)
        x.a[t * x.s.lda] = x.z[t * x.s.ldz] = t == 0 ? 8192.0F : t < T - 100 ? 0.0F : 1.0F;
    double h = 0, g = 0;
    x.s.h = &h;
    x.s.g = &g;
    sfq_linalg_sum(pools[2], &x.s);
    assert_true(h == 8192.0 * 8192.0 + 100.0 && g == h);
    free_sums(&x);
}

/* ---- Cholesky ---- */

/* Lower triangle of a random SPD matrix; NaN above the diagonal, which nobody may read. */
static double *random_spd(size_t k)
{
    double *b = random_doubles(k * (k + 3), 10), *h = room(k * k, sizeof *h);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++) {
            double sum = i == j ? 0.1 : 0.0;
            for (size_t l = 0; l < k + 3; l++)
                sum += b[i * (k + 3) + l] * b[j * (k + 3) + l];
            h[i * k + j] = j > i ? (double)NAN : sum;
        }
    free(b);
    return h;
}

static double lower(const double *h, size_t k, size_t i, size_t j)
{
    return i >= j ? h[i * k + j] : h[j * k + i];
}

static void check_factor(const double *l, const double *h, size_t k)
{
    double bound = 4.0 * (double)k * (double)k * DBL_EPSILON * 10.0;
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++) {
            if (j > i) {
                assert_true(isnan(l[i * k + j]));
                continue;
            }
            double sum = 0;
            for (size_t c = 0; c <= j; c++)
                sum += l[i * k + c] * l[j * k + c];
            assert_near(sum, h[i * k + j], bound * (1.0 + fabs(h[i * k + j])));
        }
}

/* The residual h x - b in the size of its terms. */
static void check_solution(const double *h, const double *x, const double *b, size_t k, size_t n)
{
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0, size = fabs(b[i * n + j]);
            for (size_t c = 0; c < k; c++) {
                double term = lower(h, k, i, c) * x[c * n + j];
                sum += term;
                size += fabs(term);
            }
            assert_near(sum, b[i * n + j], size * (double)(3 * k + 10) * DBL_EPSILON * 10.0);
        }
}

static void run_solve(const double *h, const double *l, size_t k, size_t n)
{
    size_t bytes = k * n * sizeof(double);
    double *b = random_doubles(k * n, 11), *x = room(bytes, 1), *again = room(bytes, 1);
    memcpy(x, b, bytes);
    sfq_linalg_solve(NULL, l, k, x, n);
    check_solution(h, x, b, k, n);
    for (int i = 0; i < POOLS; i++) {
        memcpy(again, b, bytes);
        sfq_linalg_solve(pools[i], l, k, again, n);
        assert_memory_equal(x, again, bytes);
    }
    free(b);
    free(x);
    free(again);
}

static void factor_solve_invert(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 5, 63, 64, 65, 130, 257};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t k = sizes[s];
        double *h = random_spd(k), *l = room(k * k, sizeof *l), *unit = room(k * k, sizeof *unit);
        memcpy(l, h, k * k * sizeof *l);
        assert_true(sfq_linalg_cholesky(NULL, l, k));
        check_factor(l, h, k);
        run_solve(h, l, k, 1);
        run_solve(h, l, k, 77);
        run_solve(h, l, k, 0);
        for (int i = 0; i < POOLS; i++) {
            double *again = room(k * k, sizeof *again);
            memcpy(again, h, k * k * sizeof *again);
            assert_true(sfq_linalg_cholesky(pools[i], again, k));
            assert_memory_equal(l, again, k * k * sizeof *l);
            free(again);
        }
        double *inverse = room(k * k, sizeof *inverse);
        sfq_linalg_inverse(NULL, l, k, inverse);
        for (size_t i = 0; i < k; i++) {
            unit[i * k + i] = 1.0;
            for (size_t j = 0; j < k; j++)
                assert_true(inverse[i * k + j] == inverse[j * k + i]);
        }
        check_solution(h, inverse, unit, k, k);
        free(inverse);
        free(h);
        free(l);
        free(unit);
    }
    assert_true(sfq_linalg_cholesky(NULL, NULL, 0));
}

/* The pivot that is zero, negative or no number is found wherever it is. */
static void not_positive_definite(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 3, 64, 150};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < 4; kind++)
            for (size_t place = 0; place < 2; place++) {
                size_t k = sizes[s], at = place ? k - 1 : k / 2;
                double *h = random_spd(k);
                double *pivot = &h[at * k + at];
                if (kind == 0)
                    *pivot = -1.0;
                else if (kind == 1)
                    *pivot = 0.0;
                else if (kind == 2)
                    *pivot = (double)NAN;
                else
                    h[at * k] = (double)INFINITY;
                assert_false(sfq_linalg_cholesky(NULL, h, k));
                free(h);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(empty_products),
        cmocka_unit_test(nan_stays_in_place),
        cmocka_unit_test(callers_at_once),
        cmocka_unit_test(weighted_sums),
        cmocka_unit_test(sums_are_double),
        cmocka_unit_test(factor_solve_invert),
        cmocka_unit_test(not_positive_definite),
    };
    return cmocka_run_group_tests(tests, open_pools, close_pools);
}
