/* kernels/x86/quant_avx2.c - activation quantization, 8 values at a time. Same bits as ref:
 * division and product are correctly rounded, the maximum is one of bit patterns, the conversion
 * rounds to nearest even. */
#include "base/ck.h"
#include "kernels/kernel_decls.h"
#include "kernels/x86/avx2.h"

#include <assert.h>
#include <float.h>
#include <string.h>

SFQ_INLINE __m256 load_tail(const float *x, size_t left)
{
    return left >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, sfq_avx2_mask(left));
}

SFQ_INLINE __m256i magnitude(__m256 x)
{
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}

/* The largest |x| by bit pattern, in which NaN orders above infinity. */
static float abs_max(const float *x, size_t n)
{
    __m256i max0 = _mm256_setzero_si256(), max1 = max0;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        max0 = _mm256_max_epi32(max0, magnitude(_mm256_loadu_ps(x + i)));
        max1 = _mm256_max_epi32(max1, magnitude(_mm256_loadu_ps(x + i + 8)));
    }
    for (; i < n; i += 8)
        max0 = _mm256_max_epi32(max0, magnitude(load_tail(x + i, n - i)));
    max0 = _mm256_max_epi32(max0, max1);
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(max0), _mm256_extracti128_si256(max0, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

/* Codes of x[0..n); written in whole groups of 8, which padding makes room for. Returns the sum. */
static int32_t quantize(int16_t *codes, const float *x, size_t n, float scale, float limit)
{
    const __m256 inverse = _mm256_set1_ps(1.0f / scale);
    const __m256 hi = _mm256_set1_ps(limit), lo = _mm256_set1_ps(-limit);
    __m256i sum = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load_tail(x + i, n - i), inverse);
        v = _mm256_min_ps(_mm256_max_ps(v, lo), hi); /* max gives lo for NaN */
        __m256i code = _mm256_cvtps_epi32(v);
        if (n - i < 8) /* 0 * infinite scale is NaN: padding must stay 0 */
            code = _mm256_and_si256(code, sfq_avx2_mask(n - i));
        sum = _mm256_add_epi32(sum, code);
        __m128i low = _mm256_castsi256_si128(code), high = _mm256_extracti128_si256(code, 1);
        _mm_storeu_si128((__m128i *)(void *)(codes + i), _mm_packs_epi32(low, high));
    }
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

void sfq_quant_rows_avx2(const sfq_quant_rows_args *a, size_t m_begin, size_t m_end)
{
    const int limit = (1 << (a->bits - 1)) - 1;
    assert(a->bits >= 8 && a->bits <= 14);
    /* no sum of 8-bit code times activation code may leave int32 */
    assert((uint64_t)255 * (uint64_t)limit * a->segment_k < (uint64_t)1 << 31);
    for (size_t m = m_begin; m < m_end; m++) {
        const float *x = a->x + m * a->ldx;
        int16_t *codes = a->codes + m * a->k_padded;
        memset(codes + a->k / 8 * 8, 0, (a->k_padded - a->k / 8 * 8) * sizeof *codes);
        for (size_t s = 0; s < a->segments; s++) {
            size_t begin = s * a->segment_k, n = sfq_min_size(a->segment_k, a->k - begin);
            float scale = abs_max(x + begin, n) / (float)limit;
            int32_t sum = 0;
            if (scale < FLT_MIN) {
                scale = 0.0f;
                memset(codes + begin, 0, n * sizeof *codes);
            } else {
                sum = quantize(codes + begin, x + begin, n, scale, (float)limit);
            }
            a->scales[m * a->segments + s] = scale;
            a->sums[m * a->segments + s] = sum;
        }
    }
}
