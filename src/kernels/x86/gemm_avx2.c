/* kernels/x86/gemm_avx2.c - float weights as they lie in the file, row-major, in dot-product form.
 *
 * The order of one output's sum: K is cut into chunks of CHUNK_K anchored at 0; in a chunk, lane j
 * of one vector takes the products k = j mod 8 in ascending order by fused multiply-add; the 8
 * lanes are folded in one order; chunk sums are added in ascending order to 0, then the bias. So it
 * depends on K alone. Tiles only choose which outputs share loads.
 *
 * Few tokens: 16-bit weights are widened in registers. Many tokens: WIDE_N rows of a chunk are
 * widened once into scratch and all tokens run over them. */
#include "base/ck.h"
#include "kernels/kernel_decls.h"
#include "kernels/x86/avx2.h"

#include <assert.h>
#include <string.h>

enum {
    CHUNK_K = 1024,
    WIDE_N = 32,
    WIDE_STRIDE = CHUNK_K + 16, /* rows 4 KB apart would share cache sets */
    WIDEN_FROM = 25,            /* tokens from which widening once is cheaper */
    TOKENS = 48                 /* their chunk of x stays in L2 */
};

_Static_assert(WIDE_N *WIDE_STRIDE * sizeof(float) <= SFQ_QGEMM_SCRATCH, "scratch");

/* One pass: outputs n.. of w (dtype, ld elements between rows) x tokens, over k inputs. */
typedef struct gemm_pass {
    const char *w;
    size_t ldw, rows; /* rows of w */
    const float *x;
    size_t ldx, m;
    float *y;
    size_t ldy;
    size_t k;
    bool first; /* set y, else add to it */
} gemm_pass;

SFQ_INLINE __m256 widen(const void *w, const sfq_dtype dtype)
{
    if (dtype == SFQ_F32)
        return _mm256_loadu_ps(w);
    __m128i half = _mm_loadu_si128(w);
    if (dtype == SFQ_F16)
        return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* The first n < 8 elements, zeros behind. */
SFQ_INLINE __m256 widen_tail(const void *w, const sfq_dtype dtype, size_t n)
{
    if (dtype == SFQ_F32)
        return _mm256_maskload_ps(w, sfq_avx2_mask(n));
    uint16_t half[8] = {0};
    memcpy(half, w, n * sizeof *half);
    return widen(half, dtype);
}

SFQ_INLINE size_t element_bytes(const sfq_dtype dtype)
{
    return dtype == SFQ_F32 ? 4 : 2;
}

/* sums[mr][nr] of the products over p->k inputs, for tokens m.. and weight rows n.. (rows beyond
 * the last repeat the last; their results are dropped). */
SFQ_INLINE void tile(float sums[3][8], const gemm_pass *p, size_t m, size_t n,
                     const sfq_dtype dtype, const int mr, const int nr)
{
    const size_t bytes = element_bytes(dtype), whole = p->k / 8 * 8;
    const float *x[3] = {NULL};
    const char *w[8] = {NULL};
    __m256 acc[3][8];
    SFQ_UNROLL
    for (int i = 0; i < mr; i++) {
        x[i] = p->x + (m + (size_t)i) * p->ldx;
        SFQ_UNROLL
        for (int j = 0; j < nr; j++)
            acc[i][j] = _mm256_setzero_ps();
    }
    SFQ_UNROLL
    for (int j = 0; j < nr; j++)
        w[j] = p->w + sfq_min_size(n + (size_t)j, p->rows - 1) * p->ldw * bytes;
    for (size_t k = 0; k < whole; k += 8) {
        __m256 a[3];
        SFQ_UNROLL
        for (int i = 0; i < mr; i++)
            a[i] = _mm256_loadu_ps(x[i] + k);
        SFQ_UNROLL
        for (int j = 0; j < nr; j++) {
            __m256 b = widen(w[j] + k * bytes, dtype);
            SFQ_UNROLL
            for (int i = 0; i < mr; i++)
                acc[i][j] = _mm256_fmadd_ps(a[i], b, acc[i][j]);
        }
    }
    if (whole < p->k) {
        const __m256i mask = sfq_avx2_mask(p->k - whole);
        SFQ_UNROLL
        for (int j = 0; j < nr; j++) {
            __m256 b = widen_tail(w[j] + whole * bytes, dtype, p->k - whole);
            SFQ_UNROLL
            for (int i = 0; i < mr; i++)
                acc[i][j] = _mm256_fmadd_ps(_mm256_maskload_ps(x[i] + whole, mask), b, acc[i][j]);
        }
    }
    SFQ_UNROLL
    for (int i = 0; i < mr; i++) {
        SFQ_UNROLL
        for (int j = 0; j < nr; j += 4)
            _mm_storeu_ps(sums[i] + j,
                          sfq_avx2_sum4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]));
    }
}

SFQ_INLINE void put(const gemm_pass *p, size_t m, size_t n, float sums[3][8], int mr, int nr)
{
    const size_t count = sfq_min_size((size_t)nr, p->rows - n);
    for (int i = 0; i < mr; i++) {
        float *y = p->y + (m + (size_t)i) * p->ldy + n;
        for (size_t j = 0; j < count; j++)
            y[j] = (p->first ? 0.0f : y[j]) + sums[i][j];
    }
}

SFQ_INLINE void tiles(const gemm_pass *p, const sfq_dtype dtype)
{
    float sums[3][8];
    if (p->m == 1) {
        for (size_t n = 0; n < p->rows; n += 8) {
            tile(sums, p, 0, n, dtype, 1, 8);
            put(p, 0, n, sums, 1, 8);
        }
        return;
    }
    for (size_t n = 0; n < p->rows; n += 4) {
        size_t m = 0;
        for (; m + 3 <= p->m; m += 3) {
            tile(sums, p, m, n, dtype, 3, 4);
            put(p, m, n, sums, 3, 4);
        }
        if (p->m - m == 2) {
            tile(sums, p, m, n, dtype, 2, 4);
            put(p, m, n, sums, 2, 4);
        } else if (p->m - m == 1) {
            tile(sums, p, m, n, dtype, 1, 4);
            put(p, m, n, sums, 1, 4);
        }
    }
}

static void run_pass(const gemm_pass *p, sfq_dtype dtype)
{
    switch (dtype) {
    case SFQ_F32:
        tiles(p, SFQ_F32);
        break;
    case SFQ_F16:
        tiles(p, SFQ_F16);
        break;
    default:
        tiles(p, SFQ_BF16);
        break;
    }
}

SFQ_INLINE void widen_rows(float *out, const gemm_pass *p, const sfq_dtype dtype)
{
    for (size_t n = 0; n < p->rows; n++, out += WIDE_STRIDE) {
        const char *w = p->w + n * p->ldw * element_bytes(dtype);
        size_t k = 0;
        for (; k + 8 <= p->k; k += 8)
            _mm256_store_ps(out + k, widen(w + k * element_bytes(dtype), dtype));
        if (k < p->k)
            _mm256_store_ps(out + k, widen_tail(w + k * element_bytes(dtype), dtype, p->k - k));
    }
}

/* WIDE_N rows and one chunk over all tokens. */
static void many_tokens(const sfq_gemm_args *a, gemm_pass p)
{
    sfq_dtype dtype = a->dtype;
    if (dtype != SFQ_F32) {
        if (dtype == SFQ_F16)
            widen_rows(a->scratch, &p, SFQ_F16);
        else
            widen_rows(a->scratch, &p, SFQ_BF16);
        p.w = a->scratch;
        p.ldw = WIDE_STRIDE;
        dtype = SFQ_F32;
    }
    const float *x = p.x;
    float *y = p.y;
    for (size_t m = 0; m < a->m; m += TOKENS) {
        p.m = sfq_min_size(TOKENS, a->m - m);
        p.x = x + m * p.ldx;
        p.y = y + m * p.ldy;
        run_pass(&p, dtype);
    }
}

void sfq_gemm_avx2(const sfq_gemm_args *a, size_t n_begin, size_t n_end)
{
    const size_t bytes = element_bytes(a->dtype);
    assert(((uintptr_t)a->scratch & 63) == 0);
    for (size_t n = n_begin; n < n_end; n += WIDE_N) {
        gemm_pass p = {.ldw = a->ldw, .ldx = a->ldx, .m = a->m, .ldy = a->ldy, .y = a->y + n};
        p.rows = sfq_min_size(WIDE_N, n_end - n);
        for (size_t k = 0; k < a->k; k += CHUNK_K) {
            p.k = sfq_min_size(CHUNK_K, a->k - k);
            p.first = k == 0;
            p.w = (const char *)a->w + (n * a->ldw + k) * bytes;
            p.x = a->x + k;
            if (a->m >= WIDEN_FROM)
                many_tokens(a, p);
            else
                run_pass(&p, a->dtype);
        }
        for (size_t m = 0; a->bias && m < a->m; m++)
            for (size_t j = 0; j < p.rows; j++)
                p.y[m * p.ldy + j] += a->bias[n + j];
    }
}
