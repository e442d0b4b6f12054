/* kernels/linalg.h - float linear algebra for gradients and least squares, spread over a pool. A
 * result depends neither on the thread count nor on the instruction set: all give the same bits
 * (tile.h). Inference does not use it. Matrices are row-major. From inside a pool task only with
 * pool NULL: all of it then runs on the calling thread. MEMORY never: nothing is allocated, but
 * each thread that takes part needs 600 KB of stack. */
#ifndef SFQ_KERNELS_LINALG_H
#define SFQ_KERNELS_LINALG_H

#include "base/pool.h"

/* c [M, N] = op(a) op(b) + (add ? c : 0). op(a) is [M, K]: a [M, lda], or a [K, lda] transposed.
 * op(b) is [K, N]: b [K, ldb], or b [N, ldb] transposed. M, N or K 0 is allowed (K 0: c is 0, or
 * stays). */
typedef struct sfq_linalg_product {
    const float *a, *b;
    size_t lda, ldb;
    bool transpose_a, transpose_b;
    size_t m, n, k;
    float *c;
    size_t ldc;
    bool add;
} sfq_linalg_product;

void sfq_linalg_gemm(sfq_pool *pool, const sfq_linalg_product *p);

/* h [K, K], the lower triangle (i >= j) += sum over t of weight[t] a_t a_t^T; g [K, N] += sum over
 * t of weight[t] a_t z_t^T. a [T, lda], z [T, ldz], weight [T] or NULL (all 1). Products are float
 * inside fixed blocks of rows; their sum is double, in the order of the rows. h or g may be NULL.
 */
typedef struct sfq_linalg_sums {
    double *h, *g;
    const float *a, *z, *weight;
    size_t lda, ldz;
    size_t t, k, n;
} sfq_linalg_sums;

void sfq_linalg_sum(sfq_pool *pool, const sfq_linalg_sums *s);

/* Cholesky factor L of the lower triangle of h [K, K], in place; the upper triangle is neither read
 * nor written. False: not positive definite, or not finite. */
bool sfq_linalg_cholesky(sfq_pool *pool, double *h, size_t k);
/* x = (L L^T)^-1 x for x [K, N] in place. */
void sfq_linalg_solve(sfq_pool *pool, const double *factor, size_t k, double *x, size_t n);
/* inverse [K, K] = (L L^T)^-1, both triangles. */
void sfq_linalg_inverse(sfq_pool *pool, const double *factor, size_t k, double *inverse);
/* c [M, N] += a^T b in double; a [K, M], b [K, N], rows without gaps. */
void sfq_linalg_add_product(sfq_pool *pool, double *c, const double *a, const double *b, size_t m,
                            size_t n, size_t k);

#endif
