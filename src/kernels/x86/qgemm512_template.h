/* kernels/x86/qgemm512_template.h - packed integer weights times activations packed as bytes, for
 * levels with 512-bit registers. qgemm_avx512vnni.c and qgemm_amx.c include it and define
 * multiply_pair; all in here is static.
 *
 * Order of work: passes of up to PASS_ROWS rows, groups of panels, segments, pairs of panels. A
 * pair's bytes (32 KB) stay in L1 while the rows go by, and weights are read from memory once for
 * 512 rows. Where all activations of a pass, of half the rows at need, fit L2, a group is one pair;
 * else it is GROUP_PANELS, and one segment's activations (512 KB a plane) stay in L2 while the
 * group goes by. 8-bit blocks are used where they lie in the file; others are unpacked for each
 * pass. The float chains wait in scratch for their next segment. */
#ifndef SFQ_KERNELS_X86_QGEMM512_TEMPLATE_H
#define SFQ_KERNELS_X86_QGEMM512_TEMPLATE_H

#include "base/ck.h"
#include "kernels/x86/vec_avx512.h"

#include "kernels/x86/act_template.h"
#include "kernels/x86/unpack_avx512.h"

#include <assert.h>
#include <string.h>

enum {
    PASS_ROWS = SFQ_QGEMM_ROWS,
    GROUP_PANELS = 32,
    SEGMENT_BLOCKS = SFQ_SEGMENT_MAX / SFQ_BLOCK_K,
    TILE_ROWS = 16,          /* rows of a group of packed activations */
    AHEAD = 2048,            /* bytes to prefetch ahead of a stream */
    PAST_CACHES = 1 << 20,   /* bytes of outputs from which they are stored past the caches */
    L2_ACTIVATIONS = 5 << 18 /* 1.25 of 2 MB */
};

typedef struct qgemm_scratch {
    uint8_t bytes[2][SEGMENT_BLOCKS * SFQ_BLOCK_WEIGHTS];
    int32_t tile[4][TILE_ROWS][SFQ_PANEL_N];
    float sum[GROUP_PANELS / 2][PASS_ROWS][2 * SFQ_PANEL_N];
} qgemm_scratch;

_Static_assert(sizeof(qgemm_scratch) <= SFQ_QGEMM_SCRATCH, "scratch");
_Static_assert(PASS_ROWS % TILE_ROWS == 0, "passes of whole groups");

/* The step of the float chains that one segment of a pair of panels brings, row i counted from the
 * pass's first. All that differs between first, middle and last segments and the panels of a pair
 * lies in pointers, steps and masks, so that a row is straight code: a chain begins from a row of
 * zeros, and where no bias is due -0 is added, which changes nothing. */
typedef struct qgemm_chain {
    __m512 scale[2], bias[2];
    __m512i shift;         /* bits - 1: the zero point is a power of two */
    const float *in;       /* [rows, in_step], 32 outputs */
    float *out;            /* [rows, out_step] */
    const float *a_scales; /* [rows, segments] */
    const int32_t *a_sums;
    int32_t *raw; /* [rows, raw_step] or NULL */
    size_t in_step, out_step, segments, raw_step;
    __mmask16 outputs[2]; /* none where the pair has but one panel */
    bool activated;
    sfq_activation act;
    bool past_caches; /* whole lines of `out` that need not be read first */
} qgemm_chain;

static const float chain_start[2 * SFQ_PANEL_N];

static __mmask16 first_lanes(size_t n)
{
    return (__mmask16)(n < SFQ_PANEL_N ? (1u << n) - 1 : 0xffffu);
}

static void chain_open(qgemm_chain *c, const sfq_qgemm_args *g, size_t panel, size_t count,
                       size_t segment, size_t m0, float *sum)
{
    const bool last = segment + 1 == g->segments;
    const size_t per_panel = SFQ_PANEL_N / g->share, n = panel * SFQ_PANEL_N;
    const int share_bits = __builtin_ctzl(g->share); /* 1, 2, 4, 8 or 16 */
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i spread = _mm512_srlv_epi32(lanes, _mm512_set1_epi32(share_bits));
    *c = (qgemm_chain){.in = sum, .out = sum, .segments = g->segments};
    c->in_step = c->out_step = (size_t)2 * SFQ_PANEL_N;
    c->shift = _mm512_set1_epi32(g->bits - 1);
    c->a_scales = g->a_scales + m0 * g->segments + segment;
    c->a_sums = g->a_sums + m0 * g->segments + segment;
    for (size_t j = 0; j < 2; j++) {
        const size_t left = j < count ? g->n - n - j * SFQ_PANEL_N : 0;
        const __mmask16 stored = first_lanes(left > 0 ? per_panel : 0);
        const float *scales = g->scales + ((panel + j) * g->segments + segment) * per_panel;
        c->scale[j] = _mm512_permutexvar_ps(spread, _mm512_maskz_loadu_ps(stored, scales));
        c->outputs[j] = first_lanes(left);
        c->bias[j] = _mm512_set1_ps(-0.0f);
        if (last && g->bias)
            c->bias[j] = _mm512_maskz_loadu_ps(c->outputs[j], g->bias + n + j * SFQ_PANEL_N);
    }
    if (segment == 0) {
        c->in = chain_start;
        c->in_step = 0;
    }
    if (last && g->y) {
        c->out = g->y + m0 * g->ldy + n;
        c->out_step = g->ldy;
        c->past_caches = g->m * g->n * sizeof(float) >= PAST_CACHES && count == 2 &&
                         c->outputs[1] == 0xffff &&
                         ((uintptr_t)c->out | g->ldy * sizeof(float)) % 64 == 0;
    }
    c->activated = last && g->activated;
    c->act = g->act;
    if (g->raw) {
        c->raw = g->raw + (m0 * g->segments + segment) * g->n + n;
        c->raw_step = g->segments * g->n;
    }
}

SFQ_INLINE __m512i chain_zero(const qgemm_chain *c, size_t i)
{
    return _mm512_sllv_epi32(_mm512_set1_epi32(c->a_sums[i * c->segments]), c->shift);
}

/* Apart from chain_row, whose code stays small: few chains end in an activation. */
static __attribute__((noinline)) void chain_activate(sfq_activation act, vec *y, size_t count)
{
    for (size_t j = 0; j < count; j++)
        y[j] = activate(act, y[j]);
}

/* Row i: the sums of `count` panels less the zero point, one step, out. */
SFQ_INLINE void chain_row(const qgemm_chain *c, size_t i, const __m512i *acc, const size_t count)
{
    const __m512i zero = chain_zero(c, i);
    const __m512 scale_a = _mm512_set1_ps(c->a_scales[i * c->segments]);
    const float *in = c->in + i * c->in_step;
    float *out = c->out + i * c->out_step;
    __m512 y[2];
    SFQ_UNROLL
    for (size_t j = 0; j < count; j++) {
        const __m512 sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(acc[j], zero));
        y[j] = _mm512_loadu_ps(in + j * SFQ_PANEL_N);
        y[j] = _mm512_fmadd_ps(sum, _mm512_mul_ps(c->scale[j], scale_a), y[j]);
        y[j] = _mm512_add_ps(y[j], c->bias[j]);
    }
    if (c->activated)
        chain_activate(c->act, y, count);
    if (c->past_caches) {
        SFQ_UNROLL
        for (size_t j = 0; j < count; j++)
            _mm512_stream_ps(out + j * SFQ_PANEL_N, y[j]);
        return;
    }
    SFQ_UNROLL
    for (size_t j = 0; j < count; j++)
        _mm512_mask_storeu_ps(out + j * SFQ_PANEL_N, c->outputs[j], y[j]);
}

/* The exact sums of row i for the checks. */
static void chain_raw(const qgemm_chain *c, size_t i, const __m512i *acc, size_t count)
{
    for (size_t j = 0; j < count; j++)
        _mm512_mask_storeu_epi32(c->raw + i * c->raw_step + j * SFQ_PANEL_N, c->outputs[j],
                                 _mm512_sub_epi32(acc[j], chain_zero(c, i)));
}

/* The bytes of row m from a block on: lo plane at `at`, hi plane `plane` behind it, next block
 * `block` behind it. */
typedef struct qgemm_lines {
    const int8_t *at;
    size_t plane, block;
} qgemm_lines;

SFQ_INLINE qgemm_lines lines_of(const sfq_qgemm_args *g, size_t m, size_t first_block)
{
    const size_t first = m / TILE_ROWS * TILE_ROWS, height = sfq_min_size(TILE_ROWS, g->m - first);
    qgemm_lines a = {.plane = height * SFQ_BLOCK_K, .block = g->a_planes * height * SFQ_BLOCK_K};
    a.at = g->a_bytes + first * g->a_planes * g->k_padded + first_block * a.block +
           (m - first) * SFQ_BLOCK_K;
    return a;
}

/* One segment of `count` panels. */
typedef struct qgemm_pair {
    size_t count, first_block, blocks;
    const uint8_t *w[2];      /* 8-bit blocks */
    const uint8_t *coming[2]; /* packed blocks of the pair behind this one: may be prefetched */
    qgemm_chain chain;
} qgemm_pair;

typedef struct qgemm_pass {
    const sfq_qgemm_args *g;
    qgemm_scratch *t;
    size_t m0, rows;
    size_t begin, end; /* the group's panels */
    size_t last;       /* end of the call's */
    void *state;       /* what multiply_pair keeps between pairs */
} qgemm_pass;

/* The pair times all rows of the pass: one step of their chains, at once or with the next pairs. */
static void multiply_pair(const qgemm_pass *q, const qgemm_pair *pair);

/* A row of the group is there. */
#define STORE(r, side, codes, nth) _mm512_store_si512(dst + (r)*SFQ_ROW_BYTES, codes)

#define UNPACK_GROUPS(bits)                                                           \
    for (size_t i = 0; i < blocks * (SFQ_BLOCK_ROWS / SFQ_ROWS_##bits); i++) {        \
        for (size_t r = 0; r < SFQ_STORED_##bits; r++)                                \
            _mm_prefetch((const char *)src + r * SFQ_ROW_BYTES + AHEAD, _MM_HINT_T0); \
        SFQ_EACH_##bits(src, STORE);                                                  \
        dst += (size_t)SFQ_ROWS_##bits * SFQ_ROW_BYTES;                               \
        src += (size_t)SFQ_STORED_##bits * SFQ_ROW_BYTES;                             \
    }                                                                                 \
    break

static void unpack_blocks(uint8_t *dst, const uint8_t *src, int bits, size_t blocks)
{
    switch (bits) {
    case 2:
        UNPACK_GROUPS(2);
    case 3:
        UNPACK_GROUPS(3);
    case 4:
        UNPACK_GROUPS(4);
    case 5:
        UNPACK_GROUPS(5);
    case 6:
        UNPACK_GROUPS(6);
    default:
        UNPACK_GROUPS(7);
    }
}

/* The packed blocks that work turns to after panel p of segment s. Behind a matrix's last ones lie,
 * in our files, the next matrix's; behind those of a call that ends before come another thread's,
 * and p's are named again. */
static const uint8_t *blocks_behind(const qgemm_pass *q, size_t p, size_t s)
{
    const sfq_qgemm_args *g = q->g;
    if (p + 2 < q->end)
        p += 2;
    else if (s + 1 < g->segments)
        p = q->begin + (p - q->begin) % 2, s++;
    else if (p + 2 < q->last || q->last * SFQ_PANEL_N >= g->n)
        p += 2, s = 0;
    return g->codes + p * g->panel_bytes +
           s * (g->segment_k / SFQ_BLOCK_K) * sfq_block_bytes(g->bits);
}

static void pair_open(qgemm_pair *pair, const qgemm_pass *q, size_t p, size_t s)
{
    const sfq_qgemm_args *g = q->g;
    const size_t segment_blocks = g->segment_k / SFQ_BLOCK_K;
    pair->count = sfq_min_size(2, q->end - p);
    pair->first_block = s * segment_blocks;
    pair->blocks = sfq_min_size(segment_blocks, g->k_blocks - pair->first_block);
    for (size_t j = 0; j < pair->count; j++) {
        pair->w[j] =
            g->codes + (p + j) * g->panel_bytes + pair->first_block * sfq_block_bytes(g->bits);
        if (g->bits != 8) {
            unpack_blocks(q->t->bytes[j], pair->w[j], g->bits, pair->blocks);
            pair->w[j] = q->t->bytes[j];
        }
        pair->coming[j] = blocks_behind(q, p + j, s);
    }
    chain_open(&pair->chain, g, p, pair->count, s, q->m0, q->t->sum[(p - q->begin) / 2][0]);
}

/* All panels [begin, end) times all rows; segments of at most SFQ_SEGMENT_MAX. */
static void qgemm_passes(const sfq_qgemm_args *g, size_t begin, size_t end, void *state)
{
    qgemm_pass q = {.g = g, .t = g->scratch, .last = end, .state = state};
    qgemm_pair pair;
    assert(((uintptr_t)g->scratch & 63) == 0 && g->segment_k <= SFQ_SEGMENT_MAX);
    const size_t row_bytes = g->a_planes * g->k_padded;
    size_t most = PASS_ROWS;
    if (most * row_bytes > L2_ACTIVATIONS && most / 2 * row_bytes <= L2_ACTIVATIONS)
        most /= 2;
    for (q.m0 = 0; q.m0 < g->m; q.m0 += most) {
        q.rows = sfq_min_size(most, g->m - q.m0);
        const bool fits = q.rows * row_bytes <= L2_ACTIVATIONS;
        for (q.begin = begin; q.begin < end; q.begin = q.end) {
            q.end = sfq_min_size(end, q.begin + (fits ? 2 : GROUP_PANELS));
            for (size_t s = 0; s < g->segments; s++) {
                for (size_t p = q.begin; p < q.end; p += 2) {
                    pair_open(&pair, &q, p, s);
                    multiply_pair(&q, &pair);
                }
            }
        }
    }
}

#endif
