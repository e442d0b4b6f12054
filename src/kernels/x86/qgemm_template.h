/* kernels/x86/qgemm_template.h - packed integer weights times quantized activations, for levels
 * with 256-bit registers. qgemm_avx2.c and qgemm_avxvnni.c define the few steps that differ and
 * include it; all in here is static, so each file compiles its own with its own instructions.
 *
 *   QGEMM_NAME(a, panel_begin, panel_end)  the kernel
 *   QGEMM_BYTE_BITS             widest codes that go through bytes when the activations fit them
 *   QGEMM_ROW_BYTES             one token on codes of these widths (qrow.h)
 *   QGEMM_BYTES_MANY            several (qbytes_*.h); `next`: the codes behind these
 *   QGEMM_PARTS                 if wider codes go through bytes, too, the activations in parts
 *                               (qparts_avx2.h)
 *   QGEMM_SPLIT, QGEMM_PLANES   if the level has them: activations to two planes of bytes, and
 *                               products with these
 *
 * The general multiply: 8-bit codes widened to 16 bits, vpmaddwd with a broadcast pair of int16
 * activations, vpaddd. It cannot saturate, needs no sign trick, and takes activations of up to 14
 * bits at the same speed. A vector holds 8 outputs x 2 inputs; 6 tokens x 16 outputs fill 12 of the
 * 16 registers.
 *
 * A panel is worked through in chunks of CHUNK_K inputs. Few tokens: 8-bit codes are widened as
 * they are loaded, straight from the file. Many tokens: the chunk is widened once into scratch.
 * While the first tokens are multiplied, the next chunk goes to L2. Integer sums are exact: none of
 * this can be seen in the result; the float chain over segments is the same in all cases. */
#ifndef SFQ_KERNELS_X86_QGEMM_TEMPLATE_H
#define SFQ_KERNELS_X86_QGEMM_TEMPLATE_H

#include "base/ck.h"
#include "kernels/kernel_decls.h"
#include "kernels/x86/qrow.h"
#include "kernels/x86/unpack_avx2.h"
#include "kernels/x86/vec_avx2.h"

#include "kernels/x86/act_template.h"

#include <assert.h>
#include <string.h>

enum {
    CHUNK_K = 512, /* 16 KB of widened codes: half of a small L1 */
    CHUNK_BLOCKS = CHUNK_K / SFQ_BLOCK_K,
    TOKENS = 96, /* of a pass: their codes stay in a small L2 */
    TILE_M = 6,
    TILES = 12,                /* a multiple of the tokens of every tile, here and in qbytes_*.c */
    HALF = 32,                 /* bytes of a row in a register */
    WIDEN_FROM = 17,           /* tokens from which widening once is cheaper */
    NARROW_BYTES = 400 * 1024, /* 48 rows of 8192 inputs: with their codes in a small L2 */
    PARTS = 32 * 1024,         /* of a pass */
    PARTS_SHARE = 8,           /* of the quads of a pass: at most one in so many has a rest */
    PAST_CACHES = 1 << 20      /* bytes of outputs from which they are stored past the caches */
};

typedef struct qgemm_scratch {
    int16_t wide[CHUNK_BLOCKS * SFQ_BLOCK_WEIGHTS];
    uint8_t bytes[CHUNK_BLOCKS * SFQ_BLOCK_WEIGHTS];
    int32_t acc[TOKENS][SFQ_PANEL_N];
    float sum[TOKENS][SFQ_PANEL_N];
    int8_t narrow[NARROW_BYTES]; /* activations as bytes, [rows][1 or 2][k_padded] */
#ifdef QGEMM_PARTS
    sfq_part parts[PARTS];                /* of all rows, one after the other */
    const sfq_part *parts_of[TOKENS + 1]; /* where those of each row begin */
    const sfq_part *part_at[TOKENS];      /* the first that is not yet added to a panel */
#endif
} qgemm_scratch;

_Static_assert(sizeof(qgemm_scratch) <= SFQ_QGEMM_SCRATCH, "scratch");

/* Half h of row r as words: inputs 0 and 1 of 8 outputs, and inputs 2 and 3. */
SFQ_INLINE void widen_half(__m256i out[2], const uint8_t *codes, size_t r, size_t h)
{
    const __m256i v = sfq_avx2_row(codes + h * HALF, r);
    const __m128i lanes = _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1);
    const __m256i first = _mm256_broadcastsi128_si256(lanes);
    /* Indices 0, 1, 4, 5, .. become 2, 3, 6, 7, ..; -1, for a zero, stays. */
    const __m256i second = _mm256_or_si256(first, _mm256_set1_epi16(2));
    out[0] = _mm256_shuffle_epi8(v, first);
    out[1] = _mm256_shuffle_epi8(v, second);
}

/* Two activations in every 32-bit lane. */
SFQ_INLINE __m256i pair(const int16_t *a)
{
    int32_t two;
    memcpy(&two, a, sizeof two);
    return _mm256_set1_epi32(two);
}

/* acc[mr][16] = or += codes of `quads` rows times the activations of mr tokens. `next`, if there:
 * as many rows that are needed later, fetched meanwhile. */
SFQ_INLINE void tile(int32_t (*acc)[SFQ_PANEL_N], const void *w, const int16_t *a, size_t lda,
                     size_t quads, bool add, const uint8_t *next, const bool wide, const size_t mr)
{
    __m256i sum[TILE_M][2];
    SFQ_UNROLL
    for (size_t i = 0; i < mr; i++) {
        const __m256i *in = (const __m256i *)(const void *)acc[i];
        sum[i][0] = add ? _mm256_load_si256(in) : _mm256_setzero_si256();
        sum[i][1] = add ? _mm256_load_si256(in + 1) : _mm256_setzero_si256();
    }
    for (size_t q = 0; q < quads; q++) {
        __m256i v[2][2]; /* outputs 0..7 and 8..15; pairs of inputs */
        if (next)
            _mm_prefetch((const char *)next + q * SFQ_ROW_BYTES, _MM_HINT_T1);
        if (!wide) {
            widen_half(v[0], w, q, 0);
            widen_half(v[1], w, q, 1);
        }
        SFQ_UNROLL
        for (size_t p = 0; p < 2; p++) {
            if (wide) {
                v[0][p] = _mm256_load_si256((const __m256i *)w + 4 * q + 2 * p);
                v[1][p] = _mm256_load_si256((const __m256i *)w + 4 * q + 2 * p + 1);
            }
            SFQ_UNROLL
            for (size_t i = 0; i < mr; i++) {
                const __m256i x = pair(a + i * lda + 4 * q + 2 * p);
                SFQ_ADD_EPI32(sum[i][0], _mm256_madd_epi16(v[0][p], x));
                SFQ_ADD_EPI32(sum[i][1], _mm256_madd_epi16(v[1][p], x));
            }
        }
    }
    SFQ_UNROLL
    for (size_t i = 0; i < mr; i++) {
        __m256i *out = (__m256i *)(void *)acc[i];
        _mm256_store_si256(out, sum[i][0]);
        _mm256_store_si256(out + 1, sum[i][1]);
    }
}

#define TILE(mr)                                                           \
    case mr:                                                               \
        if (wide)                                                          \
            tile(acc + m, w, a + m * lda, lda, quads, add, at, true, mr);  \
        else                                                               \
            tile(acc + m, w, a + m * lda, lda, quads, add, at, false, mr); \
        break

static void tiles(int32_t (*acc)[SFQ_PANEL_N], const void *w, const int16_t *a, size_t lda,
                  size_t rows, size_t quads, bool add, const uint8_t *next, bool wide)
{
    for (size_t m = 0, taken; m < rows; m += taken) {
        const uint8_t *at = m == 0 ? next : NULL;
        taken = sfq_min_size(TILE_M, rows - m);
        switch (taken) {
            TILE(1);
            TILE(2);
            TILE(3);
            TILE(4);
            TILE(5);
            TILE(6);
        }
    }
}

/* Where the activations of a pass are read from. */
typedef enum qgemm_form { FORM_WORDS, FORM_BYTES, FORM_PLANES } qgemm_form;

#ifdef QGEMM_PARTS

/* The rests of activations in blocks [first, end) times a panel's 8-bit codes. */
static void add_parts(qgemm_scratch *t, const uint8_t *panel, size_t first, size_t end, size_t rows)
{
    if (first == 0)
        memcpy(t->part_at, t->parts_of, rows * sizeof t->part_at[0]);
    for (size_t i = 0; i < rows; i++)
        t->part_at[i] = sfq_add_parts_avx2(t->acc[i], panel, end * SFQ_BLOCK_ROWS, t->part_at[i],
                                           t->parts_of[i + 1]);
}

/* The activations of rows m0.. to bytes and rests, unless they are too wide or the rests so many
 * that words are quicker. */
static bool part_rows(const sfq_qgemm_args *g, qgemm_scratch *t, size_t m0, size_t rows)
{
    const size_t quads = g->k_padded / 4, most = sfq_min_size(PARTS, rows * quads / PARTS_SHARE);
    size_t used = 0;
    t->parts_of[0] = t->parts;
    for (size_t i = 0, count; i < rows; i++, used += count) {
        if (used + quads > PARTS ||
            !sfq_part_codes_avx2(t->narrow + i * g->k_padded, t->parts + used, &count,
                                 g->a + (m0 + i) * g->k_padded, g->k_padded) ||
            used + count > most)
            return false;
        t->parts_of[i + 1] = t->parts + used + count;
    }
    return true;
}

#endif

/* Integer sums of one segment of a panel for the rows in t->narrow, into t->acc. */
static void segment_sums_bytes(const sfq_qgemm_args *g, qgemm_scratch *t, const uint8_t *panel,
                               size_t s, size_t rows, qgemm_form form)
{
    const size_t segment_blocks = g->segment_k / SFQ_BLOCK_K;
    const size_t first = s * segment_blocks;
    const size_t end = sfq_min_size(first + segment_blocks, g->k_blocks);
    memset(t->acc, 0, rows * sizeof t->acc[0]);
    for (size_t b = first, count; b < end; b += count) {
        count = sfq_min_size(CHUNK_BLOCKS, end - b);
        const uint8_t *codes = panel + b * sfq_block_bytes(g->bits);
        if (g->bits != 8) {
            sfq_unpack_blocks_avx2(t->bytes, codes, g->bits, count);
            codes = t->bytes;
        }
#ifdef QGEMM_PLANES
        if (form == FORM_PLANES) {
            QGEMM_PLANES(t->acc, codes, t->narrow + 2 * b * SFQ_BLOCK_K, 2 * g->k_padded, rows,
                         count);
            continue;
        }
#else
        (void)form;
#endif
        QGEMM_BYTES_MANY(t->acc, codes, g->bits, t->narrow + b * SFQ_BLOCK_K, g->k_padded, rows,
                         count, panel + (b + count) * sfq_block_bytes(g->bits));
    }
#ifdef QGEMM_PARTS
    if (g->bits == 8)
        add_parts(t, panel, first, end, rows);
#endif
}

/* The same from words, for rows m0... */
static void segment_sums(const sfq_qgemm_args *g, qgemm_scratch *t, const uint8_t *panel, size_t s,
                         size_t m0, size_t rows)
{
    const size_t segment_blocks = g->segment_k / SFQ_BLOCK_K;
    const size_t first = s * segment_blocks;
    const size_t end = sfq_min_size(first + segment_blocks, g->k_blocks);
    const bool wide = rows >= WIDEN_FROM;
    for (size_t b = first, count; b < end; b += count) {
        const uint8_t *src = panel + b * sfq_block_bytes(g->bits);
        const void *w = src;
        count = sfq_min_size(CHUNK_BLOCKS, end - b);
        const uint8_t *next = src + count * sfq_block_bytes(g->bits);
        if (g->bits != 8) {
            sfq_unpack_blocks_avx2(t->bytes, src, g->bits, count);
            w = src = t->bytes;
        }
        if (wide) {
            __m256i *out = (__m256i *)(void *)t->wide;
            for (size_t r = 0; r < count * SFQ_BLOCK_ROWS; r++)
                for (size_t h = 0; h < 2; h++) {
                    __m256i v[2];
                    widen_half(v, src, r, h);
                    _mm256_store_si256(out + 4 * r + h, v[0]);
                    _mm256_store_si256(out + 4 * r + 2 + h, v[1]);
                }
            w = t->wide;
        }
        tiles(t->acc, w, g->a + m0 * g->k_padded + b * SFQ_BLOCK_K, g->k_padded, rows,
              count * SFQ_BLOCK_ROWS, b != first, next, wide);
    }
}

/* One step of the float chain of a panel's 16 outputs, in two halves: what is the same for all
 * rows. */
typedef struct epilogue {
    __m256 scale[2], bias[2];
    __m256i stored[2]; /* lanes that are outputs of the matrix */
    size_t panel, segment;
    bool last, biased, whole, past_caches;
} epilogue;

/* The scales of a panel and segment, one for `share` outputs (1, 2, 4, 8 or 16), spread to
 * `half`. */
SFQ_INLINE __m256 spread_scales(const float *scales, size_t share, size_t half)
{
    const int bits = __builtin_ctzl(share);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i index = _mm256_srlv_epi32(lanes, _mm256_set1_epi32(bits));
    const size_t count = sfq_max_size(1, 8 / share);
    __m256 few = _mm256_maskload_ps(scales + half * (8 / share), sfq_avx2_mask(count));
    return _mm256_permutevar8x32_ps(few, index);
}

SFQ_INLINE epilogue epilogue_begin(const sfq_qgemm_args *g, size_t p, size_t s)
{
    const float *scales = g->scales + (p * g->segments + s) * (SFQ_PANEL_N / g->share);
    const size_t n = p * SFQ_PANEL_N, outputs = sfq_min_size(SFQ_PANEL_N, g->n - n);
    epilogue e = {.panel = p, .segment = s, .last = s + 1 == g->segments};
    e.biased = e.last && g->bias;
    e.whole = outputs == SFQ_PANEL_N;
    e.past_caches = g->m > 1 && e.whole && e.last && g->m * g->n * sizeof(float) >= PAST_CACHES &&
                    ((uintptr_t)g->y | g->ldy * sizeof(float)) % 64 == 0;
    SFQ_UNROLL
    for (size_t h = 0; h < 2; h++) {
        e.stored[h] = sfq_avx2_mask(outputs > 8 * h ? outputs - 8 * h : 0);
        e.scale[h] = spread_scales(scales, g->share, h);
        e.bias[h] =
            e.biased ? _mm256_maskload_ps(g->bias + n + 8 * h, e.stored[h]) : _mm256_setzero_ps();
    }
    return e;
}

/* Apart from epilogue_row, whose code stays small: few chains end in an activation. */
static __attribute__((noinline)) void epilogue_activate(sfq_activation act, __m256 y[2])
{
    y[0] = activate(act, y[0]);
    y[1] = activate(act, y[1]);
}

/* Row m: subtract the zero point, then one step of the float chain; after the last segment out. */
SFQ_INLINE void epilogue_row(const epilogue *e, const sfq_qgemm_args *g, size_t m,
                             const int32_t *acc, float *sum)
{
    const size_t at = m * g->segments + e->segment;
    const __m256i zero = _mm256_set1_epi32((1 << (g->bits - 1)) * g->a_sums[at]);
    const __m256 scale_a = _mm256_set1_ps(g->a_scales[at]);
    __m256 y[2];
    SFQ_UNROLL
    for (size_t h = 0; h < 2; h++) {
        const __m256i *in = (const __m256i *)(const void *)(acc + 8 * h);
        const __m256i v = _mm256_sub_epi32(_mm256_load_si256(in), zero);
        y[h] = e->segment == 0 ? _mm256_setzero_ps() : _mm256_load_ps(sum + 8 * h);
        y[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(v), _mm256_mul_ps(e->scale[h], scale_a), y[h]);
        if (e->biased)
            y[h] = _mm256_add_ps(y[h], e->bias[h]);
        if (g->raw)
            _mm256_maskstore_epi32(g->raw + at * g->n + e->panel * SFQ_PANEL_N + 8 * h,
                                   e->stored[h], v);
    }
    if (!e->last || !g->y) {
        _mm256_store_ps(sum, y[0]);
        _mm256_store_ps(sum + 8, y[1]);
        return;
    }
    float *out = g->y + m * g->ldy + e->panel * SFQ_PANEL_N;
    if (g->activated)
        epilogue_activate(g->act, y);
    if (e->past_caches) {
        _mm256_stream_ps(out, y[0]);
        _mm256_stream_ps(out + 8, y[1]);
    } else if (e->whole) {
        _mm256_storeu_ps(out, y[0]);
        _mm256_storeu_ps(out + 8, y[1]);
    } else {
        _mm256_maskstore_ps(out, e->stored[0], y[0]);
        _mm256_maskstore_ps(out + 8, e->stored[1], y[1]);
    }
}

/* Narrows the activations of rows m0.. when the byte path can take them. */
static bool narrow_rows(const sfq_qgemm_args *g, qgemm_scratch *t, size_t m0, size_t rows)
{
    if (g->bits > QGEMM_BYTE_BITS)
#ifdef QGEMM_PARTS
        return part_rows(g, t, m0, rows);
#else
        return false;
#endif
    for (size_t i = 0; i < rows; i++)
        if (!sfq_narrow_codes_avx2(t->narrow + i * g->k_padded, g->a + (m0 + i) * g->k_padded,
                                   g->k_padded))
            return false;
    return true;
}

/* `room` rows, less those that would leave a tile of any kind unfilled. */
static size_t whole_tiles(size_t room)
{
    return room > TILES ? room / TILES * TILES : room;
}

/* Readies a pass over rows m0..: how many (at most TOKENS) and in which form. */
static qgemm_form pass_begin(const sfq_qgemm_args *g, qgemm_scratch *t, size_t m0, size_t *rows)
{
    const size_t left = sfq_min_size(TOKENS, g->m - m0), room = sizeof t->narrow / g->k_padded;
    *rows = sfq_min_size(left, whole_tiles(room));
    if (*rows > 0 && narrow_rows(g, t, m0, *rows))
        return FORM_BYTES;
#ifdef QGEMM_PLANES
    *rows = sfq_min_size(left, whole_tiles(room / 2));
    for (size_t i = 0; i < *rows; i++)
        QGEMM_SPLIT(t->narrow + 2 * i * g->k_padded, g->a + (m0 + i) * g->k_padded, g->k_padded);
    if (*rows > 0)
        return FORM_PLANES;
#endif
    *rows = left;
    return FORM_WORDS;
}

/* All rows times panels [begin, end). */
static void qgemm_rows(const sfq_qgemm_args *a, size_t begin, size_t end)
{
    qgemm_scratch *t = a->scratch;
    for (size_t m0 = 0, rows; m0 < a->m; m0 += rows) {
        const qgemm_form form = pass_begin(a, t, m0, &rows);
        for (size_t p = begin; p < end; p++) {
            const uint8_t *panel = a->codes + p * a->panel_bytes;
            for (size_t s = 0; s < a->segments; s++) {
                if (form == FORM_WORDS)
                    segment_sums(a, t, panel, s, m0, rows);
                else
                    segment_sums_bytes(a, t, panel, s, rows, form);
                const epilogue e = epilogue_begin(a, p, s);
                for (size_t i = 0; i < rows; i++)
                    epilogue_row(&e, a, m0 + i, t->acc[i], t->sum[i]);
            }
        }
    }
}

/* ---- one row --------------------------------------------------------------------------------- */

/* The row times panels p, p + step, ..: `streams` of them. */
static void row_panels(const sfq_qgemm_args *g, size_t p, size_t step, size_t streams, int shift)
{
    qgemm_scratch *t = g->scratch;
    const size_t segment_blocks = g->segment_k / SFQ_BLOCK_K, stride = step * g->panel_bytes;
    for (size_t s = 0; s < g->segments; s++) {
        const size_t first = s * segment_blocks, k = first * SFQ_BLOCK_K;
        const size_t blocks = sfq_min_size(segment_blocks, g->k_blocks - first);
        const uint8_t *codes = g->codes + p * g->panel_bytes + first * sfq_block_bytes(g->bits);
        for (size_t j = 0; j < streams; j++)
            _mm_prefetch((const char *)(g->scales + ((p + j * step) * g->segments + s) *
                                                        (SFQ_PANEL_N / g->share)),
                         _MM_HINT_T0);
        if (g->bits <= QGEMM_BYTE_BITS) {
            const sfq_qrow_bytes a = {t->narrow + k, g->k_padded, shift};
            QGEMM_ROW_BYTES(t->acc, codes, stride, streams, g->bits, &a, blocks);
        } else {
            sfq_qrow_words_avx2(t->acc, codes, stride, streams, g->a + k, blocks);
        }
        for (size_t j = 0; j < streams; j++) {
            const epilogue e = epilogue_begin(g, p + j * step, s);
            epilogue_row(&e, g, 0, t->acc[j], t->sum[j]);
        }
    }
}

/* One row times panels [begin, end), a quarter of them to each stream where there are four. */
static void qgemm_row(const sfq_qgemm_args *g, size_t begin, size_t end)
{
    qgemm_scratch *t = g->scratch;
    const size_t step = sfq_qrow_step(g, begin, end);
    const int shift =
        g->bits <= QGEMM_BYTE_BITS ? sfq_qrow_split_avx2(t->narrow, g->a, g->k_padded) : 0;
    for (size_t p = begin; p < begin + step; p++)
        row_panels(g, p, step, SFQ_QROW_STREAMS, shift);
    for (size_t p = begin + SFQ_QROW_STREAMS * step; p < end; p++)
        row_panels(g, p, 0, 1, shift);
}

void QGEMM_NAME(const sfq_qgemm_args *a, size_t panel_begin, size_t panel_end)
{
    assert(((uintptr_t)a->scratch & 63) == 0);
    if (a->m == 1 && 2 * a->k_padded <= NARROW_BYTES) {
        qgemm_row(a, panel_begin, panel_end);
        return;
    }
    qgemm_rows(a, panel_begin, panel_end);
    _mm_sfence(); /* behind stores past the caches */
}

#endif
