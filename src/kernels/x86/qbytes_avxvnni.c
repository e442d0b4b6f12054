/* kernels/x86/qbytes_avxvnni.c - codes of 2..8 bits times activations within +-127, on bytes.
 *
 * vpdpbusd adds four products of an unsigned and a signed byte to a 32-bit lane: a row of a block,
 * [16 outputs][4 inputs], is two of its operands as it lies in memory, and a lane is one output.
 * The form without saturation is exact: four products are at most 4 * 255 * 128 in size.
 *
 * 6 tokens x 16 outputs fill 12 registers.
 *
 * Wider activations are a = 256 hi + lo, two products each: 3 tokens x 16 outputs x 2 planes. */
#include "kernels/x86/qbytes_avxvnni.h"
#include "kernels/x86/unpack_avx2.h"

enum { HALF = 32, AHEAD = 2048, TILE_M = 6, PLANES_M = 3 };

/* acc[mr][16] += `rows` rows of bytes times the activations of mr tokens. `stream`: the codes come
 * from memory and are read for the first time. */
SFQ_INLINE void tile(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *w, const int8_t *a, size_t lda,
                     size_t rows, const bool stream, const int mr)
{
    __m256i sum[TILE_M][2];
    SFQ_UNROLL
    for (int i = 0; i < mr; i++) {
        const __m256i *in = (const __m256i *)(const void *)acc[i];
        sum[i][0] = _mm256_load_si256(in);
        sum[i][1] = _mm256_load_si256(in + 1);
    }
    for (size_t r = 0; r < rows; r++) {
        const __m256i lo = sfq_avx2_row(w, r), hi = sfq_avx2_row(w + HALF, r);
        if (stream)
            _mm_prefetch((const char *)w + r * SFQ_ROW_BYTES + AHEAD, _MM_HINT_T0);
        SFQ_UNROLL
        for (int i = 0; i < mr; i++) {
            const __m256i x = sfq_avx2_quad(a + (size_t)i * lda, r);
            SFQ_DPBUSD_YMM(sum[i][0], lo, x);
            SFQ_DPBUSD_YMM(sum[i][1], hi, x);
        }
    }
    SFQ_UNROLL
    for (int i = 0; i < mr; i++) {
        __m256i *out = (__m256i *)(void *)acc[i];
        _mm256_store_si256(out, sum[i][0]);
        _mm256_store_si256(out + 1, sum[i][1]);
    }
}

void sfq_gemm_bytes_avxvnni(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, int bits,
                            const int8_t *a, size_t lda, size_t rows, size_t blocks)
{
    const size_t count = blocks * SFQ_BLOCK_ROWS;
    size_t m = 0;
    if (bits == 8 && rows >= TILE_M) {
        tile(acc, codes, a, lda, count, true, TILE_M);
        m = TILE_M;
    }
    for (; m + TILE_M <= rows; m += TILE_M)
        tile(acc + m, codes, a + m * lda, lda, count, false, TILE_M);
    for (; m + 2 <= rows; m += 2)
        tile(acc + m, codes, a + m * lda, lda, count, true, 2);
    if (m < rows)
        tile(acc + m, codes, a + m * lda, lda, count, true, 1);
}

void sfq_split_codes_avxvnni(int8_t *out, const int16_t *a, size_t k)
{
    const __m256i low = _mm256_set1_epi16(255), bias = _mm256_set1_epi16(128);
    for (size_t i = 0; i < k; i += 16, out += 32) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(a + i));
        __m256i lo = _mm256_sub_epi16(_mm256_and_si256(_mm256_add_epi16(v, bias), low), bias);
        __m256i hi = _mm256_srai_epi16(_mm256_add_epi16(v, bias), 8);
        /* of each 128-bit half: 8 lo | 8 hi -> quads lo, hi, lo, hi */
        __m256i both = _mm256_shuffle_epi32(_mm256_packs_epi16(lo, hi), _MM_SHUFFLE(3, 1, 2, 0));
        _mm256_store_si256((__m256i *)(void *)out, both);
    }
}

/* acc[mr][16] += `rows` rows of bytes times both planes of mr tokens. */
SFQ_INLINE void planes_tile(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *w, const int8_t *a,
                            size_t lda, size_t rows, const bool stream, const int mr)
{
    __m256i sum[PLANES_M][4]; /* lo x outputs 0..7, lo x 8..15, hi x 0..7, hi x 8..15 */
    SFQ_UNROLL
    for (int i = 0; i < mr; i++)
        sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = _mm256_setzero_si256();
    for (size_t r = 0; r < rows; r++) {
        const __m256i w0 = sfq_avx2_row(w, r), w1 = sfq_avx2_row(w + HALF, r);
        if (stream)
            _mm_prefetch((const char *)w + r * SFQ_ROW_BYTES + AHEAD, _MM_HINT_T0);
        SFQ_UNROLL
        for (int i = 0; i < mr; i++) {
            const int8_t *token = a + (size_t)i * lda;
            SFQ_UNROLL
            for (size_t h = 0; h < 2; h++) {
                const __m256i x = sfq_avx2_quad(token, 2 * r + h);
                SFQ_DPBUSD_YMM(sum[i][2 * h], w0, x);
                SFQ_DPBUSD_YMM(sum[i][2 * h + 1], w1, x);
            }
        }
    }
    SFQ_UNROLL
    for (int i = 0; i < mr; i++) {
        __m256i *out = (__m256i *)(void *)acc[i];
        SFQ_UNROLL
        for (int j = 0; j < 2; j++) {
            __m256i y = _mm256_add_epi32(sum[i][j], _mm256_slli_epi32(sum[i][2 + j], 8));
            _mm256_store_si256(out + j, _mm256_add_epi32(out[j], y));
        }
    }
}

void sfq_gemm_planes_avxvnni(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, const int8_t *a,
                             size_t lda, size_t rows, size_t blocks)
{
    const size_t count = blocks * SFQ_BLOCK_ROWS;
    size_t m = 0;
    if (rows >= PLANES_M) {
        planes_tile(acc, codes, a, lda, count, true, PLANES_M);
        m = PLANES_M;
    }
    for (; m + PLANES_M <= rows; m += PLANES_M)
        planes_tile(acc + m, codes, a + m * lda, lda, count, false, PLANES_M);
    if (rows - m == 2)
        planes_tile(acc + m, codes, a + m * lda, lda, count, true, 2);
    else if (rows - m == 1)
        planes_tile(acc + m, codes, a + m * lda, lda, count, true, 1);
}
