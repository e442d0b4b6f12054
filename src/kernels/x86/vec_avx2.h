/* kernels/x86/vec_avx2.h - vectors of 8 floats under the names that the templates use. */
#ifndef SFQ_KERNELS_X86_VEC_AVX2_H
#define SFQ_KERNELS_X86_VEC_AVX2_H

#include "kernels/x86/avx2.h"

typedef __m256 vec;
typedef __m256 vec_mask; /* a lane's sign bit says yes */
enum { VL = 8 };

SFQ_INLINE vec v_zero(void)
{
    return _mm256_setzero_ps();
}

SFQ_INLINE vec v_set1(float x)
{
    return _mm256_set1_ps(x);
}

SFQ_INLINE vec v_load(const float *x)
{
    return _mm256_loadu_ps(x);
}

SFQ_INLINE vec v_load_some(const float *x, size_t left)
{
    return left >= VL ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, sfq_avx2_mask(left));
}

SFQ_INLINE void v_store(float *x, vec v)
{
    _mm256_storeu_ps(x, v);
}

SFQ_INLINE void v_store_some(float *x, vec v, size_t left)
{
    if (left >= VL)
        _mm256_storeu_ps(x, v);
    else
        _mm256_maskstore_ps(x, sfq_avx2_mask(left), v);
}

#define v_fma _mm256_fmadd_ps
#define v_fnma _mm256_fnmadd_ps
#define v_mul _mm256_mul_ps
#define v_add _mm256_add_ps
#define v_sub _mm256_sub_ps
#define v_max _mm256_max_ps
#define v_min _mm256_min_ps
#define v_div _mm256_div_ps
#define v_and _mm256_and_ps
#define v_andnot _mm256_andnot_ps
#define v_or _mm256_or_ps
#define v_sum_of sfq_avx2_sum
#define v_max_of sfq_avx2_max
#define v_first _mm256_cvtss_f32

SFQ_INLINE vec v_round(vec x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

SFQ_INLINE vec_mask v_less(vec a, vec b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}

SFQ_INLINE vec v_choose(vec_mask yes, vec a, vec b)
{
    return _mm256_blendv_ps(b, a, yes);
}

/* table[i mod 16] in each lane, of the float i + 1.5 * 2^23 */
SFQ_INLINE vec v_pick(const float *table, vec i)
{
    const __m256i index = _mm256_castps_si256(i);
    const vec low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
    const vec high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}

/* 2^n for integers |n| <= 126 */
SFQ_INLINE vec v_power2(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* x * 2^n for whole n, |n| <= 252, in two halves, so that results near both ends of the range are
 * rounded once. */
SFQ_INLINE vec v_times_power2(vec x, vec n)
{
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    x = _mm256_mul_ps(x, v_power2(half));
    return _mm256_mul_ps(x, v_power2(_mm256_sub_epi32(whole, half)));
}

#endif
