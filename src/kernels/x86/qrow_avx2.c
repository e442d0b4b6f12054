/* kernels/x86/qrow_avx2.c - one row on AVX2.
 *
 * Codes of 2..7 bits: vpmaddubsw adds pairs of products into 16 bits, as many rows as SFQ_RUN_b
 * (qbytes_avx2.h) before vpmaddwd with ones widens them. Wide activations are a = high * 2^shift
 * + low: high ones down to -128, which the runs have room for too. Codes of 8 bits: widened to
 * 16 bits while they are loaded, vpmaddwd with a quad of int16. */
#include "kernels/x86/qbytes_avx2.h"
#include "kernels/x86/qrow.h"
#include "kernels/x86/unpack_avx2.h"

SFQ_INLINE void dot_codes(__m256i *total, __m256i *run, __m256i codes, __m256i x, const bool first,
                          const bool last)
{
    const __m256i y = _mm256_maddubs_epi16(codes, x);
    if (first)
        *run = y;
    else
        SFQ_ADD_EPI16(*run, y);
    if (last)
        SFQ_ADD_EPI32(*total, _mm256_madd_epi16(*run, _mm256_set1_epi16(1)));
}

/* Short: the processors' own prefetchers go on where this begins, and four streams of longer ones
 * hinder them (Zen 3, 8 bits: 29 GB/s with 2 KB, 33 with 256 or 512 bytes). The narrowest codes are
 * read between longer work. */
#define QROW_AHEAD(bits) ((bits) < 4 ? 2048 : 512)
#define QROW_NAME sfq_qrow_bytes_avx2
#define QROW_NO_8
#include "kernels/x86/qrow_template.h"

int sfq_qrow_split_avx2(int8_t *out, const int16_t *a, size_t k)
{
    const __m256i *in = (const __m256i *)(const void *)a;
    __m256i largest = _mm256_setzero_si256();
    for (size_t i = 0; i < k / 16; i++)
        largest = _mm256_max_epu16(largest, _mm256_abs_epi16(_mm256_loadu_si256(in + i)));
    int shift = 0;
    for (int most = 127; shift < 6; shift++, most = 2 * most + 1) {
        const __m256i beyond = _mm256_subs_epu16(largest, _mm256_set1_epi16((short)most));
        if (_mm256_testz_si256(beyond, beyond))
            break;
    }
    const __m256i low = _mm256_set1_epi16((short)((1 << shift) - 1));
    for (size_t i = 0; i < k / 16; i += 2) {
        const __m256i u = _mm256_loadu_si256(in + i), v = _mm256_loadu_si256(in + i + 1);
        const __m256i high =
            _mm256_packs_epi16(_mm256_srai_epi16(u, shift), _mm256_srai_epi16(v, shift));
        const __m256i rest = _mm256_packs_epi16(_mm256_and_si256(u, low), _mm256_and_si256(v, low));
        _mm256_store_si256((__m256i *)(void *)(out + 16 * i), _mm256_permute4x64_epi64(high, 0xd8));
        _mm256_store_si256((__m256i *)(void *)(out + k + 16 * i),
                           _mm256_permute4x64_epi64(rest, 0xd8));
    }
    return shift;
}

/* ---- 8 bits ---------------------------------------------------------------------------------- */

/* One block of one stream: sum[i] holds outputs 4i..4i+3, two partial sums each. */
SFQ_INLINE void dot_block(__m256i sum[4], const uint8_t *codes, const int16_t *a)
{
    __m256i s0 = sum[0], s1 = sum[1], s2 = sum[2], s3 = sum[3];
    SFQ_UNROLL
    for (size_t r = 0; r < SFQ_BLOCK_ROWS; r++) {
        const uint8_t *row = codes + r * SFQ_ROW_BYTES;
        const __m128i *in = (const __m128i *)(const void *)row;
        const __m256i x =
            _mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)(const void *)(a + 4 * r)));
        _mm_prefetch((const char *)row + QROW_AHEAD(8), _MM_HINT_T0);
        SFQ_ADD_EPI32(s0, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(in)), x));
        SFQ_ADD_EPI32(s1, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(in + 1)), x));
        SFQ_ADD_EPI32(s2, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(in + 2)), x));
        SFQ_ADD_EPI32(s3, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(in + 3)), x));
    }
    sum[0] = s0, sum[1] = s1, sum[2] = s2, sum[3] = s3;
}

SFQ_INLINE void words_streams(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, size_t stride,
                              const int16_t *a, size_t blocks, const size_t streams)
{
    __m256i sum[STREAMS][4];
    for (size_t j = 0; j < streams; j++)
        sum[j][0] = sum[j][1] = sum[j][2] = sum[j][3] = _mm256_setzero_si256();
    for (size_t b = 0; b < blocks; b++)
        for (size_t j = 0; j < streams; j++)
            dot_block(sum[j], codes + j * stride + b * SFQ_BLOCK_WEIGHTS, a + b * SFQ_BLOCK_K);
    for (size_t j = 0; j < streams; j++) {
        __m256i *out = (__m256i *)(void *)acc[j];
        _mm256_storeu_si256(out, sfq_avx2_fold(sum[j][0], sum[j][1]));
        _mm256_storeu_si256(out + 1, sfq_avx2_fold(sum[j][2], sum[j][3]));
    }
}

void sfq_qrow_words_avx2(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, size_t stride,
                         size_t streams, const int16_t *a, size_t blocks)
{
    if (streams == STREAMS)
        words_streams(acc, codes, stride, a, blocks, STREAMS);
    else
        words_streams(acc, codes, 0, a, blocks, 1);
}
