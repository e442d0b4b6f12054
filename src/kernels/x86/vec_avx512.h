/* kernels/x86/vec_avx512.h - vectors of 16 floats under the names that the templates use. */
#ifndef SFQ_KERNELS_X86_VEC_AVX512_H
#define SFQ_KERNELS_X86_VEC_AVX512_H

#include "kernels/x86/avx2.h"

typedef __m512 vec;
typedef __mmask16 vec_mask;
enum { VL = 16 };

SFQ_INLINE __mmask16 v_mask(size_t left)
{
    return (__mmask16)(left >= VL ? 0xffffu : (1u << left) - 1u);
}

SFQ_INLINE vec v_zero(void)
{
    return _mm512_setzero_ps();
}

SFQ_INLINE vec v_set1(float x)
{
    return _mm512_set1_ps(x);
}

SFQ_INLINE vec v_load(const float *x)
{
    return _mm512_loadu_ps(x);
}

SFQ_INLINE vec v_load_some(const float *x, size_t left)
{
    return _mm512_maskz_loadu_ps(v_mask(left), x);
}

SFQ_INLINE void v_store(float *x, vec v)
{
    _mm512_storeu_ps(x, v);
}

SFQ_INLINE void v_store_some(float *x, vec v, size_t left)
{
    _mm512_mask_storeu_ps(x, v_mask(left), v);
}

#define v_fma _mm512_fmadd_ps
#define v_fnma _mm512_fnmadd_ps
#define v_mul _mm512_mul_ps
#define v_add _mm512_add_ps
#define v_sub _mm512_sub_ps
#define v_max _mm512_max_ps
#define v_min _mm512_min_ps
#define v_div _mm512_div_ps
#define v_and _mm512_and_ps
#define v_andnot _mm512_andnot_ps
#define v_or _mm512_or_ps
#define v_first _mm512_cvtss_f32

SFQ_INLINE float v_sum_of(vec v)
{
    return sfq_avx2_sum(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}

SFQ_INLINE float v_max_of(vec v)
{
    return sfq_avx2_max(_mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}

SFQ_INLINE vec v_round(vec x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

SFQ_INLINE vec_mask v_less(vec a, vec b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

SFQ_INLINE vec v_choose(vec_mask yes, vec a, vec b)
{
    return _mm512_mask_blend_ps(yes, b, a);
}

/* table[i mod 16] in each lane, of the float i + 1.5 * 2^23 */
SFQ_INLINE vec v_pick(const float *table, vec i)
{
    return _mm512_permutexvar_ps(_mm512_castps_si512(i), _mm512_loadu_ps(table));
}

/* x * 2^n for whole n, rounded once */
SFQ_INLINE vec v_times_power2(vec x, vec n)
{
    return _mm512_scalef_ps(x, n);
}

#endif
