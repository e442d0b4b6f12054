/* kernels/x86/norm_avx2.c - RMSNorm and LayerNorm. Sums run over four vectors of 8 lanes and are
 * folded in one order, which depends on C alone. */
#include "kernels/kernel_decls.h"
#include "kernels/x86/avx2.h"

#include <math.h>

/* Vector i/8 of x, lanes beyond n zero. */
SFQ_INLINE __m256 load8(const float *x, size_t i, size_t n)
{
    return n - i >= 8 ? _mm256_loadu_ps(x + i) : _mm256_maskload_ps(x + i, sfq_avx2_mask(n - i));
}

SFQ_INLINE float sum_of(const __m256 acc[4])
{
    return sfq_avx2_sum(
        _mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3])));
}

static float sum_plain(const float *x, size_t n)
{
    __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                     _mm256_setzero_ps()};
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        SFQ_UNROLL
        for (size_t j = 0; j < 4; j++)
            acc[j] = _mm256_add_ps(acc[j], _mm256_loadu_ps(x + i + 8 * j));
    }
    for (; i < n; i += 8)
        acc[0] = _mm256_add_ps(acc[0], load8(x, i, n));
    return sum_of(acc);
}

/* sum of (x - shift)^2 */
static float sum_squares(const float *x, float shift, size_t n)
{
    const __m256 s = _mm256_set1_ps(shift);
    __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                     _mm256_setzero_ps()};
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        SFQ_UNROLL
        for (size_t j = 0; j < 4; j++) {
            __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i + 8 * j), s);
            acc[j] = _mm256_fmadd_ps(v, v, acc[j]);
        }
    }
    for (; i < n; i += 8) {
        __m256 inside = _mm256_castsi256_ps(sfq_avx2_mask(n - i));
        __m256 v = _mm256_and_ps(_mm256_sub_ps(load8(x, i, n), s), inside);
        acc[0] = _mm256_fmadd_ps(v, v, acc[0]);
    }
    return sum_of(acc);
}

void sfq_rmsnorm_avx2(float *y, const float *x, const float *gain, float eps, size_t c)
{
    const float mean = sum_squares(x, 0.0f, c) / (float)c;
    const __m256 inverse = _mm256_set1_ps(1.0f / sqrtf(mean + eps));
    for (size_t i = 0; i < c; i += 8) {
        __m256 v = _mm256_mul_ps(load8(x, i, c), inverse);
        v = _mm256_mul_ps(v, load8(gain, i, c));
        if (c - i >= 8)
            _mm256_storeu_ps(y + i, v);
        else
            _mm256_maskstore_ps(y + i, sfq_avx2_mask(c - i), v);
    }
}

void sfq_layernorm_avx2(float *y, const float *x, const float *gain, const float *bias, float eps,
                        size_t c)
{
    const float mean = sum_plain(x, c) / (float)c;
    const float var = sum_squares(x, mean, c) / (float)c;
    const __m256 m = _mm256_set1_ps(mean), inverse = _mm256_set1_ps(1.0f / sqrtf(var + eps));
    for (size_t i = 0; i < c; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_sub_ps(load8(x, i, c), m), inverse);
        v = _mm256_mul_ps(v, load8(gain, i, c));
        if (bias)
            v = _mm256_add_ps(v, load8(bias, i, c));
        if (c - i >= 8)
            _mm256_storeu_ps(y + i, v);
        else
            _mm256_maskstore_ps(y + i, sfq_avx2_mask(c - i), v);
    }
}
