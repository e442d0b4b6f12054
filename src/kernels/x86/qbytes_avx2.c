/* kernels/x86/qbytes_avx2.c - codes of 2..7 bits times activations within +-127, on bytes; 8 bits
 * where no pair of activations adds up to more than 128 (qparts_avx2.c).
 *
 * vpmaddubsw adds pairs of products into 16 bits. As many rows as SFQ_RUN_b may be added there
 * before they must be widened to 32 bits by vpmaddwd with ones; the bounds are exact, so the sums
 * are the same integers as everywhere else. A 32-bit lane is one output: nothing is folded at the
 * end.
 *
 * 6 tokens x 16 outputs of 16-bit sums fill 12 registers; the 32-bit sums lie in L1. */
#include "kernels/x86/qbytes_avx2.h"

#include "base/ck.h"
#include "kernels/x86/unpack_avx2.h"

/* For -128 too, which the high plane of one row has (qrow_avx2.c). */
#define CHECK_RUN(bits)                                                             \
    _Static_assert(SFQ_ROWS_##bits % SFQ_RUN_##bits == 0 &&                         \
                       SFQ_RUN_##bits * 2 * ((1 << (bits)) - 1) * 128 <= INT16_MAX, \
                   "sum in 16 bits")
CHECK_RUN(2);
CHECK_RUN(3);
CHECK_RUN(4);
CHECK_RUN(5);
CHECK_RUN(6);
CHECK_RUN(7);

enum { HALF = 32, LINE = 64, TILE_M = 6, SHORT_M = 4 };

bool sfq_narrow_codes_avx2(int8_t *out, const int16_t *a, size_t k)
{
    __m256i largest = _mm256_setzero_si256();
    for (size_t i = 0; i < k; i += HALF)
        _mm256_store_si256((__m256i *)(void *)(out + i), sfq_avx2_narrow(a + i, &largest));
    return sfq_avx2_are_bytes(largest);
}

/* One row: products of mr tokens, set in sum or added to it. */
SFQ_INLINE void tile_row(__m256i (*sum)[2], const uint8_t *w, const int8_t *a, size_t lda, size_t r,
                         const bool set, const int mr)
{
    const __m256i lo = sfq_avx2_row(w, r), hi = sfq_avx2_row(w + HALF, r);
    SFQ_UNROLL
    for (int i = 0; i < mr; i++) {
        const __m256i x = sfq_avx2_quad(a + (size_t)i * lda, r);
        const __m256i y0 = _mm256_maddubs_epi16(lo, x), y1 = _mm256_maddubs_epi16(hi, x);
        if (set) {
            sum[i][0] = y0;
            sum[i][1] = y1;
        } else {
            SFQ_ADD_EPI16(sum[i][0], y0);
            SFQ_ADD_EPI16(sum[i][1], y1);
        }
    }
}

/* Packed codes that are needed later, `step` bytes for each row of these; at NULL: none. */
typedef struct later {
    const uint8_t *at;
    size_t step;
} later;

/* While rows [r, end) are multiplied. */
SFQ_INLINE void fetch(later next, size_t r, size_t end)
{
    if (next.at)
        for (size_t at = r * next.step; at < end * next.step; at += LINE)
            _mm_prefetch((const char *)next.at + at, _MM_HINT_T1);
}

/* mr tokens x 16 outputs: 16-bit sums of `run` rows in registers, then added to acc. */
SFQ_INLINE void tile(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *w, const int8_t *a, size_t lda,
                     size_t rows, later next, const size_t run, const int mr)
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (size_t r0 = 0; r0 < rows; r0 += run) {
        __m256i sum[TILE_M][2];
        fetch(next, r0, r0 + run);
        tile_row(sum, w, a, lda, r0, true, mr);
        for (size_t r = r0 + 1; r < r0 + run; r++)
            tile_row(sum, w, a, lda, r, false, mr);
        SFQ_UNROLL
        for (int i = 0; i < mr; i++) {
            __m256i *out = (__m256i *)(void *)acc[i];
            out[0] = _mm256_add_epi32(out[0], _mm256_madd_epi16(sum[i][0], ones));
            out[1] = _mm256_add_epi32(out[1], _mm256_madd_epi16(sum[i][1], ones));
        }
    }
}

/* The same for short runs (run 1 or 2), which would wear out L1: 4 tokens, 32-bit sums in
 * registers. */
SFQ_INLINE void short_tile(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *w, const int8_t *a,
                           size_t lda, size_t rows, later next, const size_t run, const int mr)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total[SHORT_M][2];
    SFQ_UNROLL
    for (int i = 0; i < mr; i++)
        total[i][0] = total[i][1] = _mm256_setzero_si256();
    for (size_t r0 = 0; r0 < rows; r0 += SFQ_BLOCK_ROWS) {
        fetch(next, r0, r0 + SFQ_BLOCK_ROWS);
        for (size_t r = r0; r < r0 + SFQ_BLOCK_ROWS; r += run) {
            SFQ_UNROLL
            for (int i = 0; i < mr; i++) {
                const int8_t *token = a + (size_t)i * lda;
                SFQ_UNROLL
                for (int h = 0; h < 2; h++) {
                    const uint8_t *half = w + h * HALF;
                    __m256i sum =
                        _mm256_maddubs_epi16(sfq_avx2_row(half, r), sfq_avx2_quad(token, r));
                    if (run == 2)
                        sum = _mm256_add_epi16(sum,
                                               _mm256_maddubs_epi16(sfq_avx2_row(half, r + 1),
                                                                    sfq_avx2_quad(token, r + 1)));
                    SFQ_ADD_EPI32(total[i][h], _mm256_madd_epi16(sum, ones));
                }
            }
        }
    }
    SFQ_UNROLL
    for (int i = 0; i < mr; i++) {
        __m256i *out = (__m256i *)(void *)acc[i];
        out[0] = _mm256_add_epi32(out[0], total[i][0]);
        out[1] = _mm256_add_epi32(out[1], total[i][1]);
    }
}

#define TILE(mr)                                                                          \
    case mr:                                                                              \
        if (run > 2)                                                                      \
            tile(acc, w, a, lda, rows, next, run, mr);                                    \
        else                                                                              \
            short_tile(acc, w, a, lda, rows, next, run, (mr) < SHORT_M ? (mr) : SHORT_M); \
        break

/* All tokens: as many at a time as runs of this length allow. */
SFQ_INLINE void tiles(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *w, const int8_t *a, size_t lda,
                      size_t tokens, size_t rows, later next, const size_t run)
{
    const size_t most = run > 2 ? TILE_M : SHORT_M;
    for (size_t taken; tokens > 0; tokens -= taken, acc += taken, a += taken * lda) {
        taken = sfq_min_size(most, tokens);
        switch (taken) {
            TILE(1);
            TILE(2);
            TILE(3);
            TILE(4);
            TILE(5);
            TILE(6);
        }
        next.at = NULL;
    }
}

void sfq_gemm_bytes_avx2(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, int bits,
                         const int8_t *a, size_t lda, size_t rows, size_t blocks,
                         const uint8_t *next)
{
    const size_t count = blocks * SFQ_BLOCK_ROWS;
    const later behind = {next, sfq_block_bytes(bits) / SFQ_BLOCK_ROWS};
    switch (bits) {
    case 2:
        tiles(acc, codes, a, lda, rows, count, behind, SFQ_RUN_2);
        break;
    case 3:
    case 4:
        tiles(acc, codes, a, lda, rows, count, behind, SFQ_RUN_4);
        break;
    case 5:
        tiles(acc, codes, a, lda, rows, count, behind, SFQ_RUN_5);
        break;
    case 6:
        tiles(acc, codes, a, lda, rows, count, behind, SFQ_RUN_6);
        break;
    default:
        tiles(acc, codes, a, lda, rows, count, behind, SFQ_RUN_7);
        break;
    }
}
