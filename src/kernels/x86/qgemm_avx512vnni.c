/* kernels/x86/qgemm_avx512vnni.c - the packed multiply on AVX-512 VNNI: vpdpbusd adds four products
 * of an unsigned and a signed byte to each of 16 lanes; a row of a block, [16 outputs][4 inputs],
 * is one operand as it lies in memory, and a lane is one output. Exact: four products are at
 * most 4 * 255 * 128 in size. Wider activations are a = 256 hi + lo, two products each.
 *
 * One row: blocks are unpacked in registers and multiplied at once, straight from the stream or
 * from four (qrow.h). Several: 8 rows (4 of two planes) x 2 panels in 16 registers. */
#include "kernels/x86/qgemm512_template.h"
#include "kernels/x86/qrow.h"

enum {
    TILE_M = 8,
    STREAMS = SFQ_QROW_STREAMS /* places from which one row reads at a time */
};

/* Four activations in every lane. */
SFQ_INLINE __m512i quad(const int8_t *a)
{
    int32_t four;
    memcpy(&four, a, sizeof four);
    return _mm512_set1_epi32(four);
}

SFQ_INLINE __m512i join_planes(__m512i lo, __m512i hi)
{
    return _mm512_add_epi32(lo, _mm512_slli_epi32(hi, 8));
}

/* ---- several rows ---------------------------------------------------------------------------- */

/* Rows m0 + i .. + mr, which lie in one group, times np panels. */
SFQ_INLINE size_t tile(const qgemm_pass *q, const qgemm_pair *pair, size_t i, const bool stream,
                       const size_t mr, const size_t np, const size_t planes)
{
    const qgemm_lines a = lines_of(q->g, q->m0 + i, pair->first_block);
    const int8_t *line = a.at;
    __m512i sum[2][2][TILE_M];
    SFQ_UNROLL
    for (size_t h = 0; h < planes; h++)
        SFQ_UNROLL
    for (size_t j = 0; j < np; j++)
        SFQ_UNROLL
    for (size_t m = 0; m < mr; m++)
        sum[h][j][m] = _mm512_setzero_si512();
    for (size_t r = 0; r < pair->blocks * SFQ_BLOCK_ROWS; r++) {
        __m512i w[2];
        SFQ_UNROLL
        for (size_t j = 0; j < np; j++) {
            w[j] = sfq_avx512_row(pair->w[j], r);
            if (stream)
                _mm_prefetch((const char *)pair->w[j] + r * SFQ_ROW_BYTES + AHEAD, _MM_HINT_T0);
        }
        SFQ_UNROLL
        for (size_t h = 0; h < planes; h++) {
            SFQ_UNROLL
            for (size_t m = 0; m < mr; m++) {
                const __m512i x = quad(line + h * a.plane + m * SFQ_BLOCK_K);
                SFQ_UNROLL
                for (size_t j = 0; j < np; j++)
                    SFQ_DPBUSD_ZMM(sum[h][j][m], w[j], x);
            }
        }
        line += r % SFQ_BLOCK_ROWS == SFQ_BLOCK_ROWS - 1 ? a.block - (SFQ_BLOCK_K - 4) : 4;
    }
    SFQ_UNROLL
    for (size_t m = 0; m < mr; m++) {
        __m512i acc[2];
        SFQ_UNROLL
        for (size_t j = 0; j < np; j++)
            acc[j] = planes == 2 ? join_planes(sum[0][j][m], sum[1][j][m]) : sum[0][j][m];
        chain_row(&pair->chain, i + m, acc, np);
        if (pair->chain.raw)
            chain_raw(&pair->chain, i + m, acc, np);
    }
    return mr;
}

/* The next rows from m0 + i on, at most `left`; how many were taken. */
SFQ_INLINE size_t tile_rows(const qgemm_pass *q, const qgemm_pair *pair, size_t i, size_t left,
                            const size_t np, const size_t planes)
{
    if (left >= 8 && planes == 1 && i > 0)
        return tile(q, pair, i, false, 8, np, planes);
    if (left >= 8 && planes == 1)
        return tile(q, pair, i, true, 8, np, planes);
    if (left >= 4)
        return tile(q, pair, i, i == 0, 4, np, planes);
    if (left >= 2)
        return tile(q, pair, i, i == 0, 2, np, planes);
    return tile(q, pair, i, i == 0, 1, np, planes);
}

static void multiply_pair(const qgemm_pass *q, const qgemm_pair *pair)
{
    for (size_t i = 0, taken; i < q->rows; i += taken) {
        const size_t left = sfq_min_size(q->rows - i, TILE_ROWS - i % TILE_ROWS);
        if (q->g->a_planes == 2)
            taken = pair->count == 2 ? tile_rows(q, pair, i, left, 2, 2)
                                     : tile_rows(q, pair, i, left, 1, 2);
        else
            taken = pair->count == 2 ? tile_rows(q, pair, i, left, 2, 1)
                                     : tile_rows(q, pair, i, left, 1, 1);
    }
}

/* ---- one row --------------------------------------------------------------------------------- */

/* One group of rows times its activations, on two or four sums in turn, to hide the latency. */
SFQ_INLINE void dot_rows(__m512i sum[4], const __m512i *rows, const int8_t *a, size_t plane,
                         const size_t count, const size_t planes)
{
    SFQ_UNROLL
    for (size_t r = 0; r < count; r++) {
        if (planes == 1) {
            sum[r % 4] = _mm512_dpbusd_epi32(sum[r % 4], rows[r], quad(a + 4 * r));
        } else {
            sum[r % 2] = _mm512_dpbusd_epi32(sum[r % 2], rows[r], quad(a + 4 * r));
            sum[2 + r % 2] = _mm512_dpbusd_epi32(sum[2 + r % 2], rows[r], quad(a + plane + 4 * r));
        }
    }
}

#define KEEP(r, side, codes, nth) rows[r] = (codes)

#define DOT_GROUPS(bits)                                                                        \
    for (size_t b = 0; b < blocks; b++, a.at += a.block) {                                      \
        for (size_t i = 0; i < SFQ_BLOCK_ROWS; i += SFQ_ROWS_##bits) {                          \
            SFQ_UNROLL                                                                          \
            for (size_t j = 0; j < streams; j++) {                                              \
                const uint8_t *group = codes + j * stride;                                      \
                __m512i rows[SFQ_ROWS_##bits];                                                  \
                for (size_t r = 0; r < SFQ_STORED_##bits; r++)                                  \
                    _mm_prefetch((const char *)group + r * SFQ_ROW_BYTES + AHEAD, _MM_HINT_T0); \
                SFQ_EACH_##bits(group, KEEP);                                                   \
                dot_rows(sum[j], rows, a.at + 4 * i, a.plane, SFQ_ROWS_##bits, planes);         \
            }                                                                                   \
            codes += (size_t)SFQ_STORED_##bits * SFQ_ROW_BYTES;                                 \
        }                                                                                       \
    }                                                                                           \
    break

/* acc[j]: sums of 16 outputs over `blocks` packed blocks of stream j, `stride` bytes apart. */
SFQ_INLINE void dot_blocks(__m512i acc[STREAMS], const uint8_t *codes, size_t stride, int bits,
                           qgemm_lines a, size_t blocks, const size_t streams, const size_t planes)
{
    __m512i sum[STREAMS][4];
    SFQ_UNROLL
    for (size_t j = 0; j < streams; j++)
        sum[j][0] = sum[j][1] = sum[j][2] = sum[j][3] = _mm512_setzero_si512();
    switch (bits) {
    case 2:
        DOT_GROUPS(2);
    case 3:
        DOT_GROUPS(3);
    case 4:
        DOT_GROUPS(4);
    case 5:
        DOT_GROUPS(5);
    case 6:
        DOT_GROUPS(6);
    case 7:
        DOT_GROUPS(7);
    default:
        DOT_GROUPS(8);
    }
    SFQ_UNROLL
    for (size_t j = 0; j < streams; j++) {
        const __m512i lo = _mm512_add_epi32(sum[j][0], sum[j][1]);
        const __m512i hi = _mm512_add_epi32(sum[j][2], sum[j][3]);
        acc[j] = planes == 2 ? join_planes(lo, hi) : _mm512_add_epi32(lo, hi);
    }
}

/* Row m times panels p, p + step, ..: `streams` of them. */
SFQ_INLINE void multiply_panels(const sfq_qgemm_args *g, size_t m, size_t p, size_t step,
                                const size_t streams)
{
    const size_t segment_blocks = g->segment_k / SFQ_BLOCK_K, stride = step * g->panel_bytes;
    float(*sum)[2 * SFQ_PANEL_N] = ((qgemm_scratch *)g->scratch)->sum[0];
    qgemm_chain chain;
    for (size_t s = 0; s < g->segments; s++) {
        const size_t first = s * segment_blocks;
        const size_t blocks = sfq_min_size(segment_blocks, g->k_blocks - first);
        const uint8_t *codes = g->codes + p * g->panel_bytes + first * sfq_block_bytes(g->bits);
        const qgemm_lines a = lines_of(g, m, first);
        __m512i acc[STREAMS];
        if (g->a_planes == 2)
            dot_blocks(acc, codes, stride, g->bits, a, blocks, streams, 2);
        else
            dot_blocks(acc, codes, stride, g->bits, a, blocks, streams, 1);
        for (size_t j = 0; j < streams; j++) {
            chain_open(&chain, g, p + j * step, 1, s, m, sum[j]);
            chain_row(&chain, 0, acc + j, 1);
            if (chain.raw)
                chain_raw(&chain, 0, acc + j, 1);
        }
    }
}

static void four_streams(const sfq_qgemm_args *g, size_t m, size_t p, size_t step)
{
    multiply_panels(g, m, p, step, STREAMS);
}

static void one_stream(const sfq_qgemm_args *g, size_t m, size_t p)
{
    multiply_panels(g, m, p, 0, 1);
}

/* Row m times panels [begin, end): a quarter of them to each stream where there are four. */
static void multiply_row(const sfq_qgemm_args *g, size_t m, size_t begin, size_t end)
{
    const size_t step = sfq_qrow_step(g, begin, end);
    for (size_t p = begin; p < begin + step; p++)
        four_streams(g, m, p, step);
    for (size_t p = begin + STREAMS * step; p < end; p++)
        one_stream(g, m, p);
}

void sfq_qgemm_avx512vnni(const sfq_qgemm_args *a, size_t panel_begin, size_t panel_end)
{
    if (a->m > 1 && a->segment_k <= SFQ_SEGMENT_MAX) {
        qgemm_passes(a, panel_begin, panel_end, NULL);
        _mm_sfence(); /* behind stores past the caches */
        return;
    }
    for (size_t m = 0; m < a->m; m++)
        multiply_row(a, m, panel_begin, panel_end);
}
