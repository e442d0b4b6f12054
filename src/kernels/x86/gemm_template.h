/* kernels/x86/gemm_template.h - float weights as they lie in the file, row-major, in dot-product
 * form, for one width of vectors. gemm_avx2.c and gemm_avx512.c define the few steps that differ
 * and include it; all in here is static.
 *
 *   GEMM_NAME(a, n_begin, n_end)  the kernel
 *   VEC, LANES                    a vector of floats and their number
 *   GEMM_TILE_M                   tokens that share the loads of 4 outputs: 12 sums of 16
 *                                 registers, 24 of 32
 *   GEMM_WIDEN_FROM               tokens from which widening once is cheaper
 *   vec_zero, vec_load, vec_load_tail, vec_store, vec_fmadd, vec_widen16, vec_sum4
 *
 * The order of one output's sum: K is cut into chunks of CHUNK_K anchored at 0; in a chunk, lane j
 * of one vector takes the products k = j mod LANES in ascending order by fused multiply-add; the
 * lanes are folded in one order; chunk sums are added in ascending order to 0, then the bias. So it
 * depends on K alone. Tiles only choose which outputs share loads.
 *
 * One token: four rows, each from its own quarter of them, in the order in which they lie in
 * memory, so that it is read as four long streams. Few tokens: 16-bit weights are widened in
 * registers. Many tokens: for a block of them and one chunk of inputs WIDE_N rows at a time are
 * widened into scratch, and the block runs over them. */
#ifndef SFQ_KERNELS_X86_GEMM_TEMPLATE_H
#define SFQ_KERNELS_X86_GEMM_TEMPLATE_H

#include "base/ck.h"
#include "kernels/kernel_decls.h"

#include <assert.h>
#include <string.h>

enum {
    CHUNK_K = 1024,
    STREAMS = 4,
    AHEAD = 2048, /* bytes to prefetch in each of them */
    WIDE_N = 32,
    WIDE_STRIDE = CHUNK_K + 16, /* rows 4 KB apart would share cache sets */
    TOKENS = 96                 /* their chunk of x stays in an L2 of 512 KB */
};

_Static_assert(WIDE_N *WIDE_STRIDE * sizeof(float) <= SFQ_QGEMM_SCRATCH, "scratch");

/* One pass: outputs n.. of w (dtype, ld elements between rows) x tokens, over k inputs. */
typedef struct gemm_pass {
    const char *w;
    size_t ldw, rows; /* rows of w */
    size_t far;       /* rows from one of a tile to the next */
    const float *x;
    size_t ldx, m;
    float *y;
    size_t ldy;
    size_t k;
    bool first; /* set y, else add to it */
} gemm_pass;

SFQ_INLINE size_t element_bytes(const sfq_dtype dtype)
{
    return dtype == SFQ_F32 ? 4 : 2;
}

SFQ_INLINE VEC widen(const void *w, const sfq_dtype dtype)
{
    return dtype == SFQ_F32 ? vec_load(w) : vec_widen16(w, dtype);
}

/* The first n < LANES elements, zeros behind. */
SFQ_INLINE VEC widen_tail(const void *w, const sfq_dtype dtype, size_t n)
{
    if (dtype == SFQ_F32)
        return vec_load_tail(w, n);
    uint16_t half[LANES] = {0};
    memcpy(half, w, n * sizeof *half);
    return vec_widen16(half, dtype);
}

/* sums[mr][nr] of the products over p->k inputs, for tokens m.. and weight rows n.. (rows beyond
 * the last repeat the last; their results are dropped). */
SFQ_INLINE void tile(float sums[GEMM_TILE_M][8], const gemm_pass *p, size_t m, size_t n,
                     const sfq_dtype dtype, const int mr, const int nr)
{
    const size_t bytes = element_bytes(dtype), whole = p->k / LANES * LANES;
    const float *x[GEMM_TILE_M] = {NULL};
    const char *w[8] = {NULL};
    VEC acc[GEMM_TILE_M][8];
    SFQ_UNROLL
    for (int i = 0; i < mr; i++) {
        x[i] = p->x + (m + (size_t)i) * p->ldx;
        SFQ_UNROLL
        for (int j = 0; j < nr; j++)
            acc[i][j] = vec_zero();
    }
    SFQ_UNROLL
    for (int j = 0; j < nr; j++)
        w[j] = p->w + sfq_min_size(n + (size_t)j * p->far, p->rows - 1) * p->ldw * bytes;
    for (size_t k = 0; k < whole; k += LANES) {
        VEC a[GEMM_TILE_M];
        SFQ_UNROLL
        for (int i = 0; i < mr; i++)
            a[i] = vec_load(x[i] + k);
        SFQ_UNROLL
        for (int j = 0; j < nr; j++) {
            if (mr == 1)
                _mm_prefetch(w[j] + k * bytes + AHEAD, _MM_HINT_T0);
            VEC b = widen(w[j] + k * bytes, dtype);
            SFQ_UNROLL
            for (int i = 0; i < mr; i++)
                acc[i][j] = vec_fmadd(a[i], b, acc[i][j]);
        }
    }
    if (whole < p->k) {
        SFQ_UNROLL
        for (int j = 0; j < nr; j++) {
            VEC b = widen_tail(w[j] + whole * bytes, dtype, p->k - whole);
            SFQ_UNROLL
            for (int i = 0; i < mr; i++)
                acc[i][j] = vec_fmadd(vec_load_tail(x[i] + whole, p->k - whole), b, acc[i][j]);
        }
    }
    SFQ_UNROLL
    for (int i = 0; i < mr; i++) {
        SFQ_UNROLL
        for (int j = 0; j < nr; j += 4)
            vec_sum4(sums[i] + j, acc[i] + j);
    }
}

SFQ_INLINE void put(const gemm_pass *p, size_t m, size_t n, float sums[GEMM_TILE_M][8], int mr,
                    int nr)
{
    for (int i = 0; i < mr; i++) {
        float *y = p->y + (m + (size_t)i) * p->ldy;
        for (size_t j = 0, at = n; j < (size_t)nr && at < p->rows; j++, at += p->far)
            y[at] = (p->first ? 0.0f : y[at]) + sums[i][j];
    }
}

/* mr tokens of the 4 rows n.. */
SFQ_INLINE void tokens(const gemm_pass *p, size_t m, size_t n, const sfq_dtype dtype, const int mr)
{
    float sums[GEMM_TILE_M][8];
    tile(sums, p, m, n, dtype, mr, 4);
    put(p, m, n, sums, mr, 4);
}

SFQ_INLINE void tiles(const gemm_pass *p, const sfq_dtype dtype)
{
    if (p->far > 1) {
        tokens(p, 0, 0, dtype, 1);
        return;
    }
    for (size_t n = 0; n < p->rows; n += 4) {
        size_t m = 0;
        for (; m + GEMM_TILE_M <= p->m; m += GEMM_TILE_M)
            tokens(p, m, n, dtype, GEMM_TILE_M);
        SFQ_UNROLL
        for (int left = 1; left < GEMM_TILE_M; left++)
            if (p->m - m == (size_t)left)
                tokens(p, m, n, dtype, left);
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
        for (; k + LANES <= p->k; k += LANES)
            vec_store(out + k, widen(w + k * element_bytes(dtype), dtype));
        if (k < p->k)
            vec_store(out + k, widen_tail(w + k * element_bytes(dtype), dtype, p->k - k));
    }
}

static void wide_pass(gemm_pass p, void *scratch, sfq_dtype dtype)
{
    if (dtype == SFQ_F16)
        widen_rows(scratch, &p, SFQ_F16);
    else if (dtype == SFQ_BF16)
        widen_rows(scratch, &p, SFQ_BF16);
    if (dtype != SFQ_F32) {
        p.w = scratch;
        p.ldw = WIDE_STRIDE;
    }
    run_pass(&p, SFQ_F32);
}

static gemm_pass pass_at(const sfq_gemm_args *a, size_t m, size_t n, size_t k)
{
    const size_t bytes = element_bytes(a->dtype);
    return (gemm_pass){.w = (const char *)a->w + (n * a->ldw + k) * bytes,
                       .ldw = a->ldw,
                       .x = a->x + m * a->ldx + k,
                       .ldx = a->ldx,
                       .m = a->m - m,
                       .y = a->y + m * a->ldy + n,
                       .ldy = a->ldy,
                       .far = 1,
                       .k = sfq_min_size(CHUNK_K, a->k - k),
                       .first = k == 0};
}

/* A block's chunk of x stays in L2 while the rows of w pass. */
static void many_tokens(const sfq_gemm_args *a, size_t n_begin, size_t n_end)
{
    for (size_t m = 0; m < a->m; m += TOKENS) {
        for (size_t k = 0; k < a->k; k += CHUNK_K) {
            for (size_t n = n_begin; n < n_end; n += WIDE_N) {
                gemm_pass p = pass_at(a, m, n, k);
                p.m = sfq_min_size(TOKENS, p.m);
                p.rows = sfq_min_size(WIDE_N, n_end - n);
                wide_pass(p, a->scratch, a->dtype);
            }
        }
    }
}

static void few_tokens(const sfq_gemm_args *a, size_t n_begin, size_t n_end)
{
    for (size_t n = n_begin; n < n_end; n += WIDE_N) {
        for (size_t k = 0; k < a->k; k += CHUNK_K) {
            gemm_pass p = pass_at(a, 0, n, k);
            p.rows = sfq_min_size(WIDE_N, n_end - n);
            run_pass(&p, a->dtype);
        }
    }
}

static void one_token(const sfq_gemm_args *a, size_t n_begin, size_t n_end)
{
    const size_t far = (n_end - n_begin + STREAMS - 1) / STREAMS;
    for (size_t n = n_begin; n < n_begin + far; n++) {
        for (size_t k = 0; k < a->k; k += CHUNK_K) {
            gemm_pass p = pass_at(a, 0, n, k);
            p.rows = n_end - n;
            p.far = far;
            run_pass(&p, a->dtype);
        }
    }
}

void GEMM_NAME(const sfq_gemm_args *a, size_t n_begin, size_t n_end)
{
    assert(((uintptr_t)a->scratch & 63) == 0);
    if (a->m >= GEMM_WIDEN_FROM)
        many_tokens(a, n_begin, n_end);
    else if (a->m > 1 || n_end - n_begin <= STREAMS)
        few_tokens(a, n_begin, n_end);
    else
        one_token(a, n_begin, n_end);
    for (size_t m = 0; a->bias && m < a->m; m++)
        for (size_t n = n_begin; n < n_end; n++)
            a->y[m * a->ldy + n] += a->bias[n];
}

#endif
