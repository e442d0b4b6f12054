/* kernels/linalg.c - products, weighted sums and Cholesky over tiles. A tile is one call of a
 * serial BLAS, so its bits are its own; tiles go to whatever thread is free.
 *
 * The BLAS is BLIS: its serial build may be called from many threads at once. Debian's serial
 * OpenBLAS may not (it takes its packing buffer from a list without a lock; the test
 * callers_at_once fails with it). LAPACK would bring a BLAS of its own choice along, so the blocked
 * Cholesky is here: three calls a block. */
#include "kernels/linalg.h"

#include "base/ck.h"

#include <blis.h>
#include <cblas.h>
#include <math.h>
#include <string.h>

enum {
    GEMM_TILE = 256,  /* outputs of a product's tile at most, either way; */
    GEMM_LARGE = 512, /* where that still leaves GEMM_MANY tiles */
    GEMM_MANY = 64,
    GEMM_ROUND = 16,
    SUM_ROWS = 512,   /* rows whose products are summed in float */
    SUM_TILE = 128,   /* of h and g; a tile is on the stack */
    FACTOR_TILE = 128 /* columns of a step of Cholesky, columns of a solve */
};

static size_t tiles(size_t n, size_t tile)
{
    return (n + tile - 1) / tile;
}

/* ---- products ---- */

typedef struct gemm_job {
    const sfq_linalg_product *p;
    size_t rows, columns; /* of a tile */
    size_t across;        /* tiles along N */
} gemm_job;

static enum CBLAS_TRANSPOSE op(bool transpose)
{
    return transpose ? CblasTrans : CblasNoTrans;
}

static void gemm_tile(const gemm_job *job, size_t i, size_t j)
{
    const sfq_linalg_product *p = job->p;
    size_t m = sfq_min_size(job->rows, p->m - i), n = sfq_min_size(job->columns, p->n - j);
    float *c = p->c + i * p->ldc + j;
    if (p->k == 0) {
        for (size_t r = 0; r < m && !p->add; r++)
            memset(c + r * p->ldc, 0, n * sizeof *c);
        return;
    }
    cblas_sgemm(CblasRowMajor, op(p->transpose_a), op(p->transpose_b), (int)m, (int)n, (int)p->k,
                1.0F, p->a + (p->transpose_a ? i : i * p->lda), (int)p->lda,
                p->b + (p->transpose_b ? j * p->ldb : j), (int)p->ldb, p->add ? 1.0F : 0.0F, c,
                (int)p->ldc);
}

static void gemm_task(void *ctx, size_t begin, size_t end, int worker)
{
    const gemm_job *job = ctx;
    (void)worker;
    for (size_t item = begin; item < end; item++)
        gemm_tile(job, item / job->across * job->rows, item % job->across * job->columns);
}

/* n in even pieces of at most `most`: a small rest would be slow, and a thread's share uneven. */
static size_t even_piece(size_t n, size_t most)
{
    return sfq_round_up(tiles(n, tiles(n, most)), GEMM_ROUND);
}

/* Measured on one thread against one call for all, 2000 rows: tiles of 256 reach 0.85 to 0.95 of
 * its rate, of 512 0.9 to 1; smaller ones lose by packing the same operands again. */
void sfq_linalg_gemm(sfq_pool *pool, const sfq_linalg_product *p)
{
    if (p->m == 0 || p->n == 0)
        return;
    bool many = p->m / GEMM_LARGE * (p->n / GEMM_LARGE) >= GEMM_MANY;
    gemm_job job = {.p = p};
    job.rows = even_piece(p->m, many ? GEMM_LARGE : GEMM_TILE);
    job.columns = even_piece(p->n, many ? GEMM_LARGE : GEMM_TILE);
    job.across = tiles(p->n, job.columns);
    sfq_pool_run_dynamic(pool, tiles(p->m, job.rows) * job.across, 1, gemm_task, &job);
}

/* ---- sums ---- */

typedef struct sum_job {
    const sfq_linalg_sums *s;
    size_t row, t;         /* the block of rows */
    size_t across;         /* tiles along K, then along N */
    const float *a;        /* its rows of a, */
    const float *weighted; /* [t, K] and the same times their weights */
} sum_job;

size_t sfq_linalg_sum_floats(size_t k, size_t n)
{
    (void)n;
    return SUM_ROWS * k;
}

static void weigh_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sum_job *job = ctx;
    const sfq_linalg_sums *s = job->s;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        const float w = s->weight != NULL ? s->weight[job->row + i] : 1.0F;
        const float *a = job->a + i * s->lda;
        float *to = s->scratch + i * s->k;
        for (size_t j = 0; j < s->k; j++)
            to[j] = w * a[j];
    }
}

/* to [m, n] of row length ld += (rows i.. of weighted^T) b; lower: only what is not above the
 * diagonal */
static void add_tile(const sum_job *job, size_t i, const float *b, size_t ldb, size_t n, double *to,
                     size_t ld, bool lower)
{
    float tile[SUM_TILE * SUM_TILE];
    size_t m = sfq_min_size(SUM_TILE, job->s->k - i);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)n, (int)job->t, 1.0F,
                job->weighted + i, (int)job->s->k, b, (int)ldb, 0.0F, tile, SUM_TILE);
    for (size_t r = 0; r < m; r++)
        for (size_t c = 0; c < (lower ? r + 1 : n); c++)
            to[r * ld + c] += (double)tile[r * SUM_TILE + c];
}

static void sum_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sum_job *job = ctx;
    const sfq_linalg_sums *s = job->s;
    size_t down = tiles(s->k, SUM_TILE);
    (void)worker;
    for (size_t item = begin; item < end; item++) {
        size_t i = item / job->across, j = item % job->across;
        if (j < down && (j > i || s->h == NULL))
            continue;
        if (j < down) {
            size_t n = sfq_min_size(SUM_TILE, s->k - j * SUM_TILE);
            add_tile(job, i * SUM_TILE, job->a + j * SUM_TILE, s->lda, n,
                     s->h + i * SUM_TILE * s->k + j * SUM_TILE, s->k, i == j);
        } else if (s->g != NULL) {
            size_t at = (j - down) * SUM_TILE;
            add_tile(job, i * SUM_TILE, s->z + job->row * s->ldz + at, s->ldz,
                     sfq_min_size(SUM_TILE, s->n - at), s->g + i * SUM_TILE * s->n + at, s->n,
                     false);
        }
    }
}

void sfq_linalg_sum(sfq_pool *pool, const sfq_linalg_sums *s)
{
    size_t down = tiles(s->k, SUM_TILE);
    size_t across = down + (s->g != NULL ? tiles(s->n, SUM_TILE) : 0);
    for (size_t row = 0; row < s->t; row += SUM_ROWS) {
        sum_job job = {.s = s,
                       .row = row,
                       .t = sfq_min_size(SUM_ROWS, s->t - row),
                       .across = across,
                       .a = s->a + row * s->lda,
                       .weighted = s->scratch};
        sfq_pool_run(pool, job.t, 1, weigh_task, &job);
        sfq_pool_run_dynamic(pool, down * across, 1, sum_task, &job);
    }
}

/* ---- Cholesky: right-looking, a block of columns at a time ---- */

typedef struct factor_job {
    double *h;
    size_t k, at, width; /* columns [at, at + width) are being finished */
    size_t below, down;  /* rows under the block, tiles of them */
} factor_job;

static bool factor_block(double *h, size_t k, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        double d = h[j * k + j];
        for (size_t p = 0; p < j; p++)
            d -= h[j * k + p] * h[j * k + p];
        if (!(d > 0) || !isfinite(d))
            return false;
        h[j * k + j] = sqrt(d);
        for (size_t i = j + 1; i < n; i++) {
            double v = h[i * k + j];
            for (size_t p = 0; p < j; p++)
                v -= h[i * k + p] * h[j * k + p];
            h[i * k + j] = v / h[j * k + j];
        }
    }
    return true;
}

static void panel_task(void *ctx, size_t begin, size_t end, int worker)
{
    const factor_job *job = ctx;
    const double *diagonal = job->h + job->at * job->k + job->at;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t row = job->at + job->width + i * FACTOR_TILE;
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit,
                    (int)sfq_min_size(FACTOR_TILE, job->k - row), (int)job->width, 1.0, diagonal,
                    (int)job->k, job->h + row * job->k + job->at, (int)job->k);
    }
}

/* Tiles of the lower triangle. */
static void update_task(void *ctx, size_t begin, size_t end, int worker)
{
    const factor_job *job = ctx;
    const size_t k = job->k, first = job->at + job->width;
    (void)worker;
    for (size_t item = begin; item < end; item++) {
        size_t i = item / job->down, j = item % job->down;
        if (j > i)
            continue;
        size_t row = first + i * FACTOR_TILE, column = first + j * FACTOR_TILE;
        int m = (int)sfq_min_size(FACTOR_TILE, k - row);
        const double *a = job->h + row * k + job->at, *b = job->h + column * k + job->at;
        if (i == j)
            cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, m, (int)job->width, -1.0, a,
                        (int)k, 1.0, job->h + row * k + column, (int)k);
        else
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, FACTOR_TILE, (int)job->width,
                        -1.0, a, (int)k, b, (int)k, 1.0, job->h + row * k + column, (int)k);
    }
}

bool sfq_linalg_cholesky(sfq_pool *pool, double *h, size_t k)
{
    for (size_t at = 0; at < k; at += FACTOR_TILE) {
        factor_job job = {.h = h, .k = k, .at = at, .width = sfq_min_size(FACTOR_TILE, k - at)};
        job.below = k - at - job.width;
        job.down = tiles(job.below, FACTOR_TILE);
        if (!factor_block(h + at * k + at, k, job.width))
            return false;
        sfq_pool_run_dynamic(pool, job.down, 1, panel_task, &job);
        sfq_pool_run_dynamic(pool, job.down * job.down, 1, update_task, &job);
    }
    return true;
}

typedef struct solve_job {
    const double *factor;
    double *x;
    size_t k, n;
} solve_job;

static void solve_task(void *ctx, size_t begin, size_t end, int worker)
{
    const solve_job *job = ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t column = i * FACTOR_TILE;
        int n = (int)sfq_min_size(FACTOR_TILE, job->n - column);
        double *x = job->x + column;
        cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, (int)job->k,
                    n, 1.0, job->factor, (int)job->k, x, (int)job->n);
        cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, (int)job->k, n,
                    1.0, job->factor, (int)job->k, x, (int)job->n);
    }
}

void sfq_linalg_solve(sfq_pool *pool, const double *factor, size_t k, double *x, size_t n)
{
    solve_job job = {factor, x, k, n};
    if (k > 0)
        sfq_pool_run_dynamic(pool, tiles(n, FACTOR_TILE), 1, solve_task, &job);
}

void sfq_linalg_inverse(sfq_pool *pool, const double *factor, size_t k, double *inverse)
{
    memset(inverse, 0, k * k * sizeof *inverse);
    for (size_t i = 0; i < k; i++)
        inverse[i * k + i] = 1;
    sfq_linalg_solve(pool, factor, k, inverse, k);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < i; j++)
            inverse[j * k + i] = inverse[i * k + j];
}

const char *sfq_linalg_core(void)
{
    return bli_arch_string(bli_arch_query_id());
}
