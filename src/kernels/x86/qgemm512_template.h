/* kernels/x86/qgemm512_template.h - packed integer weights times activations packed as bytes, for
 * levels with 512-bit registers. qgemm_avx512vnni.c and qgemm_amx.c include it and define
 * multiply_pair; all in here is static.
 *
 * Order of work: passes of up to PASS_ROWS rows, groups of up to GROUP_PANELS panels, segments,
 * pairs of panels. So one segment's activations (512 KB) stay in L2 while the group goes by, a
 * pair's bytes (32 KB) stay in L1 while the rows go by, and weights are read from memory once for
 * 512 rows. 8-bit blocks are used where they lie in the file; others are unpacked for each pass.
 * The float chains wait in scratch for their next segment. */
#ifndef SFQ_KERNELS_X86_QGEMM512_TEMPLATE_H
#define SFQ_KERNELS_X86_QGEMM512_TEMPLATE_H

#include "base/ck.h"
#include "kernels/kernel_decls.h"
#include "kernels/x86/unpack_avx512.h"

#include <assert.h>
#include <string.h>

enum {
    PASS_ROWS = SFQ_QGEMM_ROWS,
    GROUP_PANELS = 16,
    SEGMENT_BLOCKS = SFQ_SEGMENT_MAX / SFQ_BLOCK_K,
    TILE_ROWS = 16, /* rows of a group of packed activations */
    AHEAD = 2048    /* bytes to prefetch ahead of a stream */
};

typedef struct qgemm_scratch {
    uint8_t bytes[2][SEGMENT_BLOCKS * SFQ_BLOCK_WEIGHTS];
    int32_t tile[2][4][TILE_ROWS][SFQ_PANEL_N];
    float sum[GROUP_PANELS][PASS_ROWS][SFQ_PANEL_N];
} qgemm_scratch;

_Static_assert(sizeof(qgemm_scratch) <= SFQ_QGEMM_SCRATCH, "scratch");
_Static_assert(PASS_ROWS % TILE_ROWS == 0, "passes of whole groups");

/* The step of the float chain that one panel and segment bring, for rows from m0 on. */
typedef struct qgemm_chain {
    const sfq_qgemm_args *g;
    size_t panel, segment, m0;
    float *sum; /* [rows][16] */
    __m512 scale, bias;
    __mmask16 outputs;
} qgemm_chain;

static void chain_open(qgemm_chain *c, const sfq_qgemm_args *g, size_t panel, size_t segment,
                       size_t m0, float *sum)
{
    const float *scales = g->scales + (panel * g->segments + segment) * (SFQ_PANEL_N / g->share);
    const size_t left = g->n - panel * SFQ_PANEL_N;
    float spread[SFQ_PANEL_N];
    for (size_t j = 0; j < SFQ_PANEL_N; j++)
        spread[j] = scales[j / g->share];
    *c = (qgemm_chain){.g = g, .panel = panel, .segment = segment, .m0 = m0, .sum = sum};
    c->outputs = left < SFQ_PANEL_N ? (__mmask16)((1u << left) - 1) : 0xffff;
    c->scale = _mm512_loadu_ps(spread);
    if (g->bias)
        c->bias = _mm512_maskz_loadu_ps(c->outputs, g->bias + panel * SFQ_PANEL_N);
}

/* Row m0 + i: subtract the zero point, then one step; after the last segment out. */
SFQ_INLINE void chain_row(const qgemm_chain *c, size_t i, __m512i acc)
{
    const sfq_qgemm_args *g = c->g;
    const size_t m = c->m0 + i, at = m * g->segments + c->segment;
    const size_t n = c->panel * SFQ_PANEL_N;
    float *sum = c->sum + i * SFQ_PANEL_N;
    acc = _mm512_sub_epi32(acc, _mm512_set1_epi32((1 << (g->bits - 1)) * g->a_sums[at]));
    if (g->raw)
        _mm512_mask_storeu_epi32(g->raw + at * g->n + n, c->outputs, acc);
    const __m512 scale = _mm512_mul_ps(c->scale, _mm512_set1_ps(g->a_scales[at]));
    __m512 y = c->segment == 0 ? _mm512_setzero_ps() : _mm512_load_ps(sum);
    y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc), scale, y);
    if (c->segment + 1 < g->segments) {
        _mm512_store_ps(sum, y);
        return;
    }
    if (g->bias)
        y = _mm512_add_ps(y, c->bias);
    if (g->y)
        _mm512_mask_storeu_ps(g->y + m * g->ldy + n, c->outputs, y);
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
    qgemm_chain chain[2];
} qgemm_pair;

typedef struct qgemm_pass {
    const sfq_qgemm_args *g;
    qgemm_scratch *t;
    size_t m0, rows;
    size_t begin, end; /* the group's panels */
    void *state;       /* what multiply_pair keeps between pairs */
} qgemm_pass;

/* The pair times all rows of the pass: one step of their chains, at once or with the next pairs. */
static void multiply_pair(const qgemm_pass *q, const qgemm_pair *pair);

#define UNPACK_GROUPS(bits)                                                               \
    for (size_t i = 0; i < blocks * (SFQ_BLOCK_ROWS / SFQ_ROWS_##bits); i++) {            \
        __m512i rows[SFQ_ROWS_##bits];                                                    \
        for (size_t r = 0; r < SFQ_STORED_##bits; r++)                                    \
            _mm_prefetch((const char *)src + r * SFQ_ROW_BYTES + AHEAD, _MM_HINT_T0);     \
        sfq_avx512_unpack##bits(rows, src);                                               \
        SFQ_UNROLL                                                                        \
        for (size_t r = 0; r < SFQ_ROWS_##bits; r++)                                      \
            _mm512_store_si512(dst + (i * SFQ_ROWS_##bits + r) * SFQ_ROW_BYTES, rows[r]); \
        src += (size_t)SFQ_STORED_##bits * SFQ_ROW_BYTES;                                 \
    }                                                                                     \
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

/* The packed blocks that work turns to after panel p of segment s. */
static const uint8_t *blocks_behind(const qgemm_pass *q, size_t p, size_t s)
{
    const sfq_qgemm_args *g = q->g;
    if (p + 2 < q->end)
        p += 2;
    else if (s + 1 < g->segments)
        p = q->begin + (p - q->begin) % 2, s++;
    else
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
        chain_open(&pair->chain[j], g, p + j, s, q->m0, q->t->sum[p + j - q->begin][0]);
    }
}

/* All panels [begin, end) times all rows; segments of at most SFQ_SEGMENT_MAX. */
static void qgemm_passes(const sfq_qgemm_args *g, size_t begin, size_t end, void *state)
{
    qgemm_pass q = {.g = g, .t = g->scratch, .state = state};
    qgemm_pair pair;
    assert(((uintptr_t)g->scratch & 63) == 0 && g->segment_k <= SFQ_SEGMENT_MAX);
    for (q.m0 = 0; q.m0 < g->m; q.m0 += PASS_ROWS) {
        q.rows = sfq_min_size(PASS_ROWS, g->m - q.m0);
        for (q.begin = begin; q.begin < end; q.begin = q.end) {
            q.end = sfq_min_size(end, q.begin + GROUP_PANELS);
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
