/* kernels/linalg.c - float products on the caller's thread, Cholesky in double.
 *
 * Debian's serial OpenBLAS takes its packing buffer from a list without a lock: two calls at the
 * same moment can get the same buffer and write wrong numbers. So one call at a time, for the whole
 * process. */
#include "kernels/linalg.h"

#include "base/ck.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <pthread.h>

enum { SUM_ROWS = 256, SUM_TILE = 256 };

static pthread_mutex_t blas_lock = PTHREAD_MUTEX_INITIALIZER;

static CBLAS_TRANSPOSE op(bool transpose)
{
    return transpose ? CblasTrans : CblasNoTrans;
}

void sfq_linalg_gemm(sfq_pool *pool, const sfq_linalg_product *p)
{
    (void)pool;
    if (p->m == 0 || p->n == 0)
        return;
    if (p->k == 0) {
        for (size_t i = 0; i < p->m && !p->add; i++)
            for (size_t j = 0; j < p->n; j++)
                p->c[i * p->ldc + j] = 0;
        return;
    }
    pthread_mutex_lock(&blas_lock);
    cblas_sgemm(CblasRowMajor, op(p->transpose_a), op(p->transpose_b), (int)p->m, (int)p->n,
                (int)p->k, 1.0F, p->a, (int)p->lda, p->b, (int)p->ldb, p->add ? 1.0F : 0.0F, p->c,
                (int)p->ldc);
    pthread_mutex_unlock(&blas_lock);
}

size_t sfq_linalg_sum_floats(size_t k, size_t n)
{
    (void)n;
    return SUM_ROWS * k + SUM_TILE * SUM_TILE;
}

/* to [rows, cols] += the product of two blocks of rows */
static void add_tile(const float *a, size_t lda, const float *b, size_t ldb, size_t t, double *to,
                     size_t ld, size_t rows, size_t cols, float *tile)
{
    sfq_linalg_gemm(NULL, &(sfq_linalg_product){.a = a,
                                                .lda = lda,
                                                .transpose_a = true,
                                                .b = b,
                                                .ldb = ldb,
                                                .m = rows,
                                                .n = cols,
                                                .k = t,
                                                .c = tile,
                                                .ldc = SUM_TILE});
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            to[i * ld + j] += (double)tile[i * SUM_TILE + j];
}

/* The upper halves of tiles on the diagonal stay as they are. */
static void add_diagonal(const float *a, size_t lda, const float *b, size_t ldb, size_t t,
                         double *to, size_t ld, size_t rows, float *tile)
{
    sfq_linalg_gemm(NULL, &(sfq_linalg_product){.a = a,
                                                .lda = lda,
                                                .transpose_a = true,
                                                .b = b,
                                                .ldb = ldb,
                                                .m = rows,
                                                .n = rows,
                                                .k = t,
                                                .c = tile,
                                                .ldc = SUM_TILE});
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j <= i; j++)
            to[i * ld + j] += (double)tile[i * SUM_TILE + j];
}

static void sum_block(const sfq_linalg_sums *s, size_t row, size_t t)
{
    float *weighted = s->scratch, *tile = s->scratch + SUM_ROWS * s->k;
    const float *a = s->a + row * s->lda;
    for (size_t i = 0; i < t; i++)
        for (size_t j = 0; j < s->k; j++)
            weighted[i * s->k + j] = a[i * s->lda + j] * (s->weight ? s->weight[row + i] : 1.0F);
    for (size_t i = 0; i < s->k; i += SUM_TILE) {
        size_t rows = sfq_min_size(SUM_TILE, s->k - i);
        for (size_t j = 0; s->h && j < i; j += SUM_TILE)
            add_tile(weighted + i, s->k, a + j, s->lda, t, s->h + i * s->k + j, s->k, rows,
                     SUM_TILE, tile);
        if (s->h)
            add_diagonal(weighted + i, s->k, a + i, s->lda, t, s->h + i * s->k + i, s->k, rows,
                         tile);
        for (size_t j = 0; s->g && j < s->n; j += SUM_TILE)
            add_tile(weighted + i, s->k, s->z + row * s->ldz + j, s->ldz, t, s->g + i * s->n + j,
                     s->n, rows, sfq_min_size(SUM_TILE, s->n - j), tile);
    }
}

void sfq_linalg_sum(sfq_pool *pool, const sfq_linalg_sums *s)
{
    (void)pool;
    for (size_t row = 0; row < s->t; row += SUM_ROWS)
        sum_block(s, row, sfq_min_size(SUM_ROWS, s->t - row));
}

/* LAPACK counts in columns: our lower triangle is its upper one. */
bool sfq_linalg_cholesky(double *h, size_t k)
{
    if (k == 0)
        return true;
    pthread_mutex_lock(&blas_lock);
    bool ok = LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', (int)k, h, (int)k) == 0;
    pthread_mutex_unlock(&blas_lock);
    for (size_t i = 0; i < k && ok; i++) /* a NaN passes through dpotrf */
        ok = isfinite(h[i * k + i]) && h[i * k + i] > 0;
    return ok;
}

void sfq_linalg_solve(sfq_pool *pool, const double *factor, size_t k, double *x, size_t n)
{
    (void)pool;
    if (k == 0 || n == 0)
        return;
    pthread_mutex_lock(&blas_lock);
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, (int)k, (int)n,
                1.0, factor, (int)k, x, (int)n);
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, (int)k, (int)n, 1.0,
                factor, (int)k, x, (int)n);
    pthread_mutex_unlock(&blas_lock);
}

bool sfq_linalg_inverse(double *factor, size_t k)
{
    if (k == 0)
        return true;
    pthread_mutex_lock(&blas_lock);
    bool ok = LAPACKE_dpotri_work(LAPACK_COL_MAJOR, 'U', (int)k, factor, (int)k) == 0;
    pthread_mutex_unlock(&blas_lock);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < i; j++)
            factor[j * k + i] = factor[i * k + j];
    return ok;
}

const char *sfq_linalg_core(void)
{
    return openblas_get_corename();
}
