/* kernels/x86/qparts_avx2.c - codes of 8 bits times activations within +-127, on bytes.
 *
 * vpmaddubsw multiplies twice as many bytes as vpmaddwd does words, but adds its pairs in 16 bits,
 * and 255 * (127 + 127) does not fit these. 255 * 128 does; and a pair of different signs never
 * exceeds what one of it makes alone. So a row of activations is made two parts: one in which no
 * pair adds up to more than 128 in size, which goes the way of 7-bit codes (qbytes_avx2.c), and a
 * sparse rest, the second activation of each pair that does. A row is scaled to its largest value,
 * so few pairs do: of normally distributed values one in 40 (768 inputs) to 100 (4096), of those
 * with outliers fewer. All of it is exact. */
#include "kernels/x86/qparts_avx2.h"
#include "kernels/x86/unpack_avx2.h"

enum { HALF = 32, PAIR_MAX = 128 };

_Static_assert(255 * PAIR_MAX <= INT16_MAX, "sum in 16 bits");

bool sfq_part_codes_avx2(int8_t *out, sfq_part *parts, size_t *count, const int16_t *a, size_t k)
{
    const __m256i second = _mm256_set1_epi16((short)0xff00), zero = _mm256_setzero_si256();
    __m256i largest = zero;
    size_t used = 0;
    for (size_t i = 0; i < k; i += HALF) {
        const __m256i x = sfq_avx2_narrow(a + i, &largest);
        const __m256i pairs = _mm256_abs_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), x));
        const __m256i over = _mm256_cmpgt_epi16(pairs, _mm256_set1_epi16(PAIR_MAX));
        const __m256i rest = _mm256_and_si256(x, _mm256_and_si256(over, second));
        _mm256_store_si256((__m256i *)(void *)(out + i), _mm256_sub_epi8(x, rest));
        const __m256i none = _mm256_cmpeq_epi32(rest, zero);
        unsigned set = ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(none)) & 0xff;
        if (set == 0)
            continue;
        int32_t lanes[8];
        _mm256_storeu_si256((__m256i *)(void *)lanes, rest);
        for (; set != 0; set &= set - 1) {
            const unsigned lane = (unsigned)__builtin_ctz(set);
            parts[used++] = (sfq_part){(uint32_t)(i / 4 + lane), lanes[lane]};
        }
    }
    *count = used;
    return sfq_avx2_are_bytes(largest);
}

const sfq_part *sfq_add_parts_avx2(int32_t acc[SFQ_PANEL_N], const uint8_t *codes, size_t end,
                                   const sfq_part *at, const sfq_part *last)
{
    if (at == last || at->quad >= end)
        return at;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i *out = (__m256i *)(void *)acc;
    __m256i sum0 = _mm256_load_si256(out), sum1 = _mm256_load_si256(out + 1);
    for (; at < last && at->quad < end; at++) {
        const __m256i x = _mm256_set1_epi32(at->rest);
        const __m256i lo = sfq_avx2_row(codes, at->quad);
        const __m256i hi = sfq_avx2_row(codes + HALF, at->quad);
        SFQ_ADD_EPI32(sum0, _mm256_madd_epi16(_mm256_maddubs_epi16(lo, x), ones));
        SFQ_ADD_EPI32(sum1, _mm256_madd_epi16(_mm256_maddubs_epi16(hi, x), ones));
    }
    _mm256_store_si256(out, sum0);
    _mm256_store_si256(out + 1, sum1);
    return at;
}
