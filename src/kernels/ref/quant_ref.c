/* kernels/ref/quant_ref.c - definition of activation quantization: one scale per row and segment.
 *
 * The maximum is taken over the bit patterns of |x|, in which NaN orders above infinity, so a row
 * that is not finite gets a scale that is not finite on every ISA and cannot pass unseen. A scale
 * too small for a finite reciprocal counts as a segment of zeros. */
#include "kernels/kernel_decls.h"

#include "base/ck.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

static float abs_max(const float *x, size_t n)
{
    uint32_t max = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffffu;
        max = bits > max ? bits : max;
    }
    float result;
    memcpy(&result, &max, sizeof result);
    return result;
}

static int16_t quantize(float x, float inverse, float limit)
{
    float v = x * inverse;
    v = v > -limit ? v : -limit; /* NaN becomes -limit */
    v = v < limit ? v : limit;
    return (int16_t)rintf(v);
}

void sfq_quant_rows_ref(const sfq_quant_rows_args *a, size_t m_begin, size_t m_end)
{
    const int limit = (1 << (a->bits - 1)) - 1;
    assert(a->bits >= 8 && a->bits <= 14);
    /* no sum of 8-bit code times activation code may leave int32 */
    assert((uint64_t)255 * (uint64_t)limit * a->segment_k < (uint64_t)1 << 31);
    for (size_t m = m_begin; m < m_end; m++) {
        const float *x = a->x + m * a->ldx;
        int16_t *codes = a->codes + m * a->k_padded;
        memset(codes, 0, a->k_padded * sizeof *codes);
        for (size_t s = 0; s < a->segments; s++) {
            size_t begin = s * a->segment_k, end = sfq_min_size(begin + a->segment_k, a->k);
            float scale = abs_max(x + begin, end - begin) / (float)limit;
            int32_t sum = 0;
            if (scale < FLT_MIN)
                scale = 0.0f;
            for (size_t k = begin; scale != 0.0f && k < end; k++) {
                codes[k] = quantize(x[k], 1.0f / scale, (float)limit);
                sum += codes[k];
            }
            a->scales[m * a->segments + s] = scale;
            a->sums[m * a->segments + s] = sum;
        }
    }
}
