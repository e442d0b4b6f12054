/* kernels/x86/gemm_amx.c - 16-bit weights times many tokens on tiles of bf16.
 *
 * A tile multiply takes pairs of bf16 and adds in float. A value is a sum of bf16 terms: a BF16
 * weight is one; an F16 weight is exactly two (11 bits of significand, 8 in the high term, 3 in the
 * low one, both normal numbers of bf16's wider range); an activation is exactly three of 8 bits. Of
 * the products of terms the smallest, low x low, is dropped. docs/KERNELS.md has the bound. F32
 * weights would take six products or more: they stay with AVX-512.
 *
 * Products of few rows (decode) are AVX-512's, too: there the bandwidth of memory is the bound, and
 * weights that go through terms and tiles do not reach it.
 *
 * Activations are the rows of the left tile, weights the columns of the right one. TDPBF16PS
 * computes an element of the result from one row and one column alone, in an order that the manual
 * fixes (two chains of 16 fused multiply-adds from 0, for both halves of the pairs; their sum is
 * added to the element). Thus the order of one output's sum: K in chunks of CHUNK_K anchored at 0;
 * in a chunk, steps of 32 inputs, in a step the products low x high, middle x high, middle x low,
 * high x low, high x high (activation x weight; BF16: those with high); chunk sums are added in
 * ascending order to 0, then the bias. It depends on K alone.
 *
 * A part is 32 outputs and one chunk of inputs. While the tiles multiply one part with all tokens,
 * two blocks of 16 at a time, the weights of the next part are turned into tiles and sums of the
 * blocks before go to y, a bit of it after every step: the tile unit works on by itself. */
#include "base/ck.h"
#include "kernels/kernel_decls.h"
#include "kernels/x86/avx2.h"

#include <assert.h>

enum {
    STEP_K = 32, /* inputs of a tile multiply */
    CHUNK_STEPS = 16,
    CHUNK_K = CHUNK_STEPS * STEP_K,
    PART_N = 32, /* outputs of a part: two tiles of 16 */
    TILE = 1024,
    W_STEP = 4 * TILE, /* tiles of a step: [term][16 outputs] */
    X_TERMS = 3,
    X_STEP = X_TERMS * TILE,
    X_BLOCK = CHUNK_STEPS * X_STEP,
    TOKENS_MAX = 256,
    X_BYTES = TOKENS_MAX / 16 * X_BLOCK /* packed activations of a pass */
};

/* Tile registers: sums of 2 x 2 tiles (activations x weights), two of activations, two of weights.
 * GCC wants their numbers as literals. */
#define SUM00 0
#define SUM01 1
#define SUM10 2
#define SUM11 3
#define X0 4
#define X1 5
#define W0 6
#define W1 7

/* GCC does not know that a tile load reads memory: what was stored before must be there. */
#define STORES_DONE() __asm__ volatile("" ::: "memory")

typedef struct gemm_scratch {
    uint8_t w[2][CHUNK_STEPS * W_STEP]; /* two parts of weights */
    float sums[32][PART_N];             /* two blocks on their way to y */
    uint8_t x[X_BYTES];                 /* [chunk][block of tokens][step][term] tiles */
} gemm_scratch;

_Static_assert(sizeof(gemm_scratch) <= SFQ_QGEMM_SCRATCH, "scratch");

typedef struct tile_config {
    uint8_t palette, start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* A pass of tokens and inputs. */
typedef struct gemm_pass {
    const sfq_gemm_args *a;
    gemm_scratch *s;
    size_t n_end;
    size_t m, tokens; /* first token, tokens */
    size_t k, k_end;  /* inputs of the pass */
    size_t blocks;    /* of 16 tokens */
} gemm_pass;

/* One group of outputs and one chunk of inputs. */
typedef struct gemm_part {
    size_t n, rows; /* rows of w; 0: none */
    size_t k, steps;
} gemm_part;

static gemm_part part_at(const gemm_pass *p, size_t n, size_t k)
{
    gemm_part part = {.n = n, .k = k};
    part.rows = n < p->n_end ? sfq_min_size(PART_N, p->n_end - n) : 0;
    part.steps = (sfq_min_size(CHUNK_K, p->k_end - k) + STEP_K - 1) / STEP_K;
    return part;
}

/* The part behind this one in a walk over groups of outputs, in each over its chunks. */
static gemm_part next_part(const gemm_pass *p, const gemm_part *at)
{
    if (at->k + CHUNK_K < p->k_end)
        return part_at(p, at->n, at->k + CHUNK_K);
    return part_at(p, at->n + PART_N, p->k);
}

static void configure_tiles(void)
{
    tile_config c = {.palette = 1};
    for (int i = SUM00; i <= W1; i++) {
        c.rows[i] = 16;
        c.row_bytes[i] = 64;
    }
    STORES_DONE();
    _tile_loadconfig(&c);
}

/* Rows become columns. */
SFQ_INLINE void transpose(__m512i r[16])
{
    __m512i t[16];
    SFQ_UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    SFQ_UNROLL
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    SFQ_UNROLL
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    SFQ_UNROLL
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* ---- terms ---------------------------------------------------------------------------------- */

/* The upper halves of 2 x 16 elements, side by side: 4 of `a`, 4 of `b`, 4 of `a`, ... So the place
 * of pair i of two registers' pairs in one is place_of(i), and a step's inputs are all in that
 * order: activations by this, weights by the tile row that a pair goes to. */
SFQ_INLINE __m512i upper_halves(__m512i a, __m512i b)
{
    return _mm512_packus_epi32(_mm512_srli_epi32(a, 16), _mm512_srli_epi32(b, 16));
}

SFQ_INLINE size_t place_of(size_t i)
{
    return i % 8 / 2 * 4 + i / 8 * 2 + i % 2;
}

SFQ_INLINE __m512 cut(__m512i x)
{
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000)));
}

/* 32 activations to three terms, exactly: 8 bits are cut off each time. What is not finite gives a
 * middle term of NaN. */
SFQ_INLINE void split_x(uint8_t *out, __m512 x0, __m512 x1)
{
    __m512i b0 = _mm512_castps_si512(x0), b1 = _mm512_castps_si512(x1);
    SFQ_UNROLL
    for (int term = 0; term < X_TERMS; term++) {
        _mm512_store_si512(out + term * TILE, upper_halves(b0, b1));
        x0 = _mm512_sub_ps(x0, cut(b0));
        x1 = _mm512_sub_ps(x1, cut(b1));
        b0 = _mm512_castps_si512(x0);
        b1 = _mm512_castps_si512(x1);
    }
}

/* 32 F16 weights to two terms, exactly: the high one is rounded to nearest, so at most 3 bits are
 * left for the low one. What is not finite gives a low term of NaN. */
SFQ_INLINE void split_f16(uint8_t *high, uint8_t *low, __m512i w)
{
    const __m512i half = _mm512_set1_epi32(0x8000);
    __m512 w0 = _mm512_cvtph_ps(_mm512_castsi512_si256(w));
    __m512 w1 = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(w, 1));
    __m512i b0 = _mm512_add_epi32(_mm512_castps_si512(w0), half);
    __m512i b1 = _mm512_add_epi32(_mm512_castps_si512(w1), half);
    __m512 l0 = _mm512_sub_ps(w0, cut(b0)), l1 = _mm512_sub_ps(w1, cut(b1));
    _mm512_store_si512(high, upper_halves(b0, b1));
    _mm512_store_si512(low, upper_halves(_mm512_castps_si512(l0), _mm512_castps_si512(l1)));
}

/* ---- tiles of weights ----------------------------------------------------------------------- */

/* Weights that become tiles while others are multiplied. */
typedef struct gemm_stage {
    gemm_part part;
    const uint16_t *w, *then; /* the part's first weight, that of the part behind it */
    uint8_t *out;
    size_t unit, units; /* of 16 outputs x a step: made, in all */
} gemm_stage;

static void stage_part(const gemm_pass *p, gemm_stage *stage, gemm_part part, uint8_t *out)
{
    const sfq_gemm_args *a = p->a;
    gemm_part then = next_part(p, &part);
    *stage = (gemm_stage){.part = part, .out = out, .units = part.rows ? 2 * part.steps : 0};
    if (then.rows == 0)
        then = part;
    if (part.rows == 0)
        return;
    stage->w = (const uint16_t *)a->w + part.n * a->ldw + part.k;
    stage->then = (const uint16_t *)a->w + then.n * a->ldw + then.k;
}

/* One unit: [16 outputs][16 pairs] to [16 pairs][16 outputs] of each term. Splitting F16 moves the
 * outputs to place_of: their rows are taken in the order that makes up for it. */
SFQ_INLINE void stage_unit(const gemm_pass *p, gemm_stage *stage, const sfq_dtype dtype)
{
    const size_t at = stage->unit / 2, row = stage->unit % 2 * 16, k = stage->part.k + at * STEP_K;
    const size_t left = p->k_end - k, ldw = p->a->ldw;
    const __mmask32 inside = left < STEP_K ? (1u << left) - 1 : 0xffffffff;
    uint8_t *high = stage->out + at * W_STEP + row / 16 * TILE, *low = high + 2 * TILE;
    __m512i r[16];
    SFQ_UNROLL
    for (size_t i = 0; i < 16; i++) {
        const size_t j = row + (dtype == SFQ_F16 ? place_of(i) : i);
        r[i] = _mm512_setzero_si512();
        if (j < stage->part.rows) {
            r[i] = _mm512_maskz_loadu_epi16(inside, stage->w + j * ldw + at * STEP_K);
            _mm_prefetch((const char *)(stage->then + j * ldw + at * STEP_K), _MM_HINT_T1);
        }
    }
    transpose(r);
    SFQ_UNROLL
    for (size_t i = 0; i < 16; i++) {
        if (dtype == SFQ_F16)
            split_f16(high + place_of(i) * 64, low + place_of(i) * 64, r[i]);
        else
            _mm512_store_si512(high + place_of(i) * 64, r[i]);
    }
    stage->unit++;
}

/* ---- tiles of activations ------------------------------------------------------------------- */

/* One step of a block of 16 tokens; tokens and inputs that are not there count as 0. */
static void pack_step(uint8_t *out, const gemm_pass *p, size_t m, size_t k)
{
    const size_t n = sfq_min_size(p->k_end - k, STEP_K), end = p->m + p->tokens;
    const uint32_t inside = n < STEP_K ? (1u << n) - 1 : 0xffffffff;
    const __mmask16 k0 = (__mmask16)inside, k1 = (__mmask16)(inside >> 16);
    for (size_t i = 0; i < 16; i++, out += 64) {
        __m512 x0 = _mm512_setzero_ps(), x1 = x0;
        if (m + i < end) {
            const float *x = p->a->x + (m + i) * p->a->ldx + k;
            x0 = _mm512_maskz_loadu_ps(k0, x);
            x1 = _mm512_maskz_loadu_ps(k1, x + 16);
        }
        split_x(out, x0, x1);
    }
}

static void pack_x(const gemm_pass *p)
{
    uint8_t *out = p->s->x;
    for (size_t chunk = p->k; chunk < p->k_end; chunk += CHUNK_K) {
        const size_t end = sfq_min_size(chunk + CHUNK_K, p->k_end);
        for (size_t b = 0; b < p->blocks; b++, out += X_BLOCK)
            for (size_t k = chunk; k < end; k += STEP_K)
                pack_step(out + (k - chunk) / STEP_K * X_STEP, p, p->m + 16 * b, k);
    }
}

/* ---- products ------------------------------------------------------------------------------- */

SFQ_INLINE void load_w(const uint8_t *w)
{
    _tile_loadd(W0, w, 64);
    _tile_loadd(W1, w + TILE, 64);
}

SFQ_INLINE void load_x(const uint8_t *x, const bool two)
{
    _tile_stream_loadd(X0, x, 64);
    if (two)
        _tile_stream_loadd(X1, x + X_BLOCK, 64);
}

SFQ_INLINE void multiply(const bool two)
{
    _tile_dpbf16ps(SUM00, X0, W0);
    _tile_dpbf16ps(SUM01, X0, W1);
    if (two) {
        _tile_dpbf16ps(SUM10, X1, W0);
        _tile_dpbf16ps(SUM11, X1, W1);
    }
}

/* One step of 32 outputs and one or two blocks of tokens: small products first. */
SFQ_INLINE void step(const uint8_t *w, const uint8_t *x, const sfq_dtype dtype, const bool two)
{
    STORES_DONE();
    load_w(w);
    load_x(x + 2 * TILE, two);
    multiply(two);
    load_x(x + TILE, two);
    multiply(two);
    if (dtype == SFQ_F16) {
        load_w(w + 2 * TILE);
        multiply(two);
        load_x(x, two);
        multiply(two);
        load_w(w);
    } else {
        load_x(x, two);
    }
    multiply(two);
}

/* Sums of two blocks that go to y. */
typedef struct gemm_put {
    gemm_part part;
    size_t m, row, rows; /* first token, rows that are put, rows in all */
} gemm_put;

/* Adds one token's sums to y, and the bias behind the last part. */
SFQ_INLINE void put_row(const gemm_pass *p, gemm_put *put)
{
    const sfq_gemm_args *a = p->a;
    const gemm_part *part = &put->part;
    const uint32_t inside = part->rows < PART_N ? (1u << part->rows) - 1 : 0xffffffff;
    const __mmask16 k0 = (__mmask16)inside, k1 = (__mmask16)(inside >> 16);
    const float *sums = p->s->sums[put->row];
    float *y = a->y + (put->m + put->row) * a->ldy + part->n;
    __m512 s0 = _mm512_load_ps(sums), s1 = _mm512_load_ps(sums + 16);
    if (part->k > 0) {
        s0 = _mm512_add_ps(_mm512_maskz_loadu_ps(k0, y), s0);
        s1 = _mm512_add_ps(_mm512_maskz_loadu_ps(k1, y + 16), s1);
    }
    if (a->bias && part->k + CHUNK_K >= a->k) {
        s0 = _mm512_add_ps(s0, _mm512_maskz_loadu_ps(k0, a->bias + part->n));
        s1 = _mm512_add_ps(s1, _mm512_maskz_loadu_ps(k1, a->bias + part->n + 16));
    }
    _mm512_mask_storeu_ps(y, k0, s0);
    _mm512_mask_storeu_ps(y + 16, k1, s1);
    put->row++;
}

SFQ_INLINE void put_rows(const gemm_pass *p, gemm_put *put, size_t most)
{
    for (const size_t end = sfq_min_size(put->rows, put->row + most); put->row < end;)
        put_row(p, put);
}

/* A part times the blocks b and b + 1, if there are two. `share`: units of the next part over steps
 * of this one. */
SFQ_INLINE void multiply_pair(const gemm_pass *p, const gemm_part *part, const uint8_t *w,
                              const uint8_t *x, size_t b, gemm_stage *stage, gemm_put *put,
                              const sfq_dtype dtype)
{
    const size_t slots = part->steps * ((p->blocks + 1) / 2), rows = 32 / part->steps + 1;
    const bool two = b + 1 < p->blocks;
    size_t due = b / 2 * part->steps * stage->units;
    _tile_zero(SUM00);
    _tile_zero(SUM01);
    _tile_zero(SUM10);
    _tile_zero(SUM11);
    for (size_t i = 0; i < part->steps; i++, w += W_STEP, x += X_STEP) {
        if (two)
            step(w, x, dtype, true);
        else
            step(w, x, dtype, false);
        put_rows(p, put, rows);
        for (due += stage->units; (stage->unit + 1) * slots <= due;)
            stage_unit(p, stage, dtype);
    }
    put_rows(p, put, put->rows);
    float *sums = p->s->sums[0];
    _tile_stored(SUM00, sums, sizeof *p->s->sums);
    _tile_stored(SUM01, sums + 16, sizeof *p->s->sums);
    _tile_stored(SUM10, sums + 16 * PART_N, sizeof *p->s->sums);
    _tile_stored(SUM11, sums + 16 * PART_N + 16, sizeof *p->s->sums);
    STORES_DONE();
    *put = (gemm_put){.part = *part, .m = p->m + 16 * b};
    put->rows = sfq_min_size(32, p->tokens - 16 * b);
}

SFQ_INLINE void run_pass(const gemm_pass *p, size_t n, const sfq_dtype dtype)
{
    gemm_scratch *s = p->s;
    gemm_part part = part_at(p, n, p->k);
    gemm_stage stage;
    gemm_put put = {.rows = 0};
    stage_part(p, &stage, part, s->w[0]);
    while (stage.unit < stage.units)
        stage_unit(p, &stage, dtype);
    for (size_t buffer = 0; part.rows > 0; buffer ^= 1, part = stage.part) {
        const uint8_t *x = s->x + (part.k - p->k) / CHUNK_K * p->blocks * X_BLOCK;
        stage_part(p, &stage, next_part(p, &part), s->w[buffer ^ 1]);
        for (size_t b = 0; b < p->blocks; b += 2)
            multiply_pair(p, &part, s->w[buffer], x + b * X_BLOCK, b, &stage, &put, dtype);
    }
    put_rows(p, &put, put.rows);
}

/* As many chunks of activations as the scratch has room for, then all outputs over them. */
static void run_tokens(gemm_pass p, size_t n_begin)
{
    const sfq_gemm_args *a = p.a;
    const size_t pass_k = X_BYTES / X_BLOCK / p.blocks * CHUNK_K;
    for (p.k = 0; p.k < a->k; p.k = p.k_end) {
        p.k_end = sfq_min_size(p.k + pass_k, a->k);
        pack_x(&p);
        if (a->dtype == SFQ_F16)
            run_pass(&p, n_begin, SFQ_F16);
        else
            run_pass(&p, n_begin, SFQ_BF16);
    }
}

void sfq_gemm_amx(const sfq_gemm_args *a, size_t n_begin, size_t n_end)
{
    assert(((uintptr_t)a->scratch & 63) == 0);
    if (a->dtype == SFQ_F32 || !a->many) {
        sfq_gemm_avx512(a, n_begin, n_end);
        return;
    }
    configure_tiles();
    for (size_t m = 0; m < a->m; m += TOKENS_MAX) {
        gemm_pass p = {.a = a, .s = a->scratch, .n_end = n_end, .m = m};
        p.tokens = sfq_min_size(TOKENS_MAX, a->m - m);
        p.blocks = (p.tokens + 15) / 16;
        run_tokens(p, n_begin);
    }
    _tile_release();
}
