/* kernels/x86/quant_avx512.c - activation quantization, 16 values at a time. Same bits as ref:
 * division and product are correctly rounded, the maximum is one of bit patterns, the conversion
 * rounds to nearest even. */
#include "base/ck.h"
#include "kernels/kernel_decls.h"
#include "kernels/x86/vec_avx512.h"

#include <assert.h>
#include <float.h>
#include <string.h>

SFQ_INLINE __m512i magnitude(__m512 x)
{
    return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

/* The largest |x| by bit pattern, in which NaN orders above infinity. */
static float abs_max(const float *x, size_t n)
{
    __m512i max0 = _mm512_setzero_si512(), max1 = max0;
    size_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        max0 = _mm512_max_epi32(max0, magnitude(v_load(x + i)));
        max1 = _mm512_max_epi32(max1, magnitude(v_load(x + i + VL)));
    }
    for (; i < n; i += VL)
        max0 = _mm512_max_epi32(max0, magnitude(v_load_some(x + i, n - i)));
    const int32_t most = _mm512_reduce_max_epi32(_mm512_max_epi32(max0, max1));
    float max;
    memcpy(&max, &most, sizeof max);
    return max;
}

/* Codes of x[0..n). Returns the sum. */
static int32_t quantize(int16_t *codes, const float *x, size_t n, float scale, float limit)
{
    const __m512 inverse = v_set1(1.0f / scale), hi = v_set1(limit), lo = v_set1(-limit);
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += VL) {
        const __mmask16 inside = v_mask(n - i);
        vec v = v_mul(_mm512_maskz_loadu_ps(inside, x + i), inverse);
        v = v_min(v_max(v, lo), hi); /* max gives lo for NaN */
        __m512i code = _mm512_maskz_cvtps_epi32(inside, v);
        sum = _mm512_add_epi32(sum, code);
        _mm512_mask_cvtepi32_storeu_epi16(codes + i, inside, code);
    }
    return _mm512_reduce_add_epi32(sum);
}

void sfq_quant_rows_avx512(const sfq_quant_rows_args *a, size_t m_begin, size_t m_end)
{
    const int limit = (1 << (a->bits - 1)) - 1;
    assert(a->bits >= 8 && a->bits <= 14);
    /* no sum of 8-bit code times activation code may leave int32 */
    assert((uint64_t)255 * (uint64_t)limit * a->segment_k < (uint64_t)1 << 31);
    for (size_t m = m_begin; m < m_end; m++) {
        const float *x = a->x + m * a->ldx;
        int16_t *codes = a->codes + m * a->k_padded;
        memset(codes + a->k, 0, (a->k_padded - a->k) * sizeof *codes);
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
