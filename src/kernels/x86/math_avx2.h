/* kernels/x86/math_avx2.h - exp, tanh and erf on 8 floats. Argument reduction and polynomials;
 * the coefficients are our own weighted least-maximum fits, with the fit's error beside each. The
 * error of the results against the exact functions is held by tests/kernels/check_act.c. NaN stays
 * NaN. Only files with the suffix _avx2.c include it. */
#ifndef SFQ_KERNELS_X86_MATH_AVX2_H
#define SFQ_KERNELS_X86_MATH_AVX2_H

#include "kernels/x86/avx2.h"

/* c[0] + c[1] x + ... by Horner's rule */
SFQ_INLINE __m256 sfq_avx2_poly(__m256 x, const float *c, const int count)
{
    __m256 p = _mm256_set1_ps(c[count - 1]);
    SFQ_UNROLL
    for (int i = count - 2; i >= 0; i--)
        p = _mm256_fmadd_ps(p, x, _mm256_set1_ps(c[i]));
    return p;
}

/* 2^n for integers |n| <= 126 */
SFQ_INLINE __m256 sfq_avx2_pow2(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* e^x = 2^n e^r with |r| <= ln2/2. Below about -104 it gives 0, above about 88.7 infinity. The
 * power is applied in two halves, so that results near both ends of the range are rounded once. */
SFQ_INLINE __m256 sfq_avx2_exp(__m256 x)
{
    /* (e^r - 1 - r) / r^2 on |r| < 0.347, 5e-11 */
    static const float c[6] = {0.5f,           0.166666669f,   0.0416662681f,
                               0.00833326404f, 0.00139462030f, 0.000199185601f};
    x = _mm256_min_ps(_mm256_set1_ps(90.0f), x);
    x = _mm256_max_ps(_mm256_set1_ps(-106.0f), x);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x); /* ln2, leading 15 bits */
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);     /* the rest of ln2 */
    __m256 p = _mm256_fmadd_ps(_mm256_mul_ps(r, r), sfq_avx2_poly(r, c, 6), r);
    p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    p = _mm256_mul_ps(p, sfq_avx2_pow2(half));
    return _mm256_mul_ps(p, sfq_avx2_pow2(_mm256_sub_epi32(whole, half)));
}

SFQ_INLINE __m256 sfq_avx2_abs(__m256 x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

/* with the sign of s in place of the sign of x (x >= 0) */
SFQ_INLINE __m256 sfq_avx2_copysign(__m256 x, __m256 s)
{
    return _mm256_or_ps(x, _mm256_and_ps(_mm256_set1_ps(-0.0f), s));
}

/* x + x^3 P(x^2) below 0.625, 1 - 2 / (e^2|x| + 1) above */
SFQ_INLINE __m256 sfq_avx2_tanh(__m256 x)
{
    /* (tanh x - x) / x^3 in x^2 < 0.39, 2e-10 */
    static const float c[6] = {-0.333333309f, 0.133332098f,    -0.0539472093f,
                               0.0217029958f, -0.00818274731f, 0.00214760633f};
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 size = sfq_avx2_abs(x), square = _mm256_mul_ps(x, x);
    __m256 cube = _mm256_mul_ps(square, size);
    __m256 small = _mm256_fmadd_ps(cube, sfq_avx2_poly(square, c, 6), size);
    __m256 e = sfq_avx2_exp(_mm256_add_ps(size, size));
    __m256 quotient = _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one));
    __m256 large = _mm256_sub_ps(one, quotient);
    __m256 near_zero = _mm256_cmp_ps(size, _mm256_set1_ps(0.625f), _CMP_LT_OQ);
    return sfq_avx2_copysign(_mm256_blendv_ps(large, small, near_zero), x);
}

/* 1 + erf(z): 1 + z P(z^2) below 1; above, erfc(|z|) = e^-R(|z|) is taken itself or from 2, so that
 * nothing cancels for z < -1. Beyond 4.25 erfc counts as 0 (it is below 2e-9). */
SFQ_INLINE __m256 sfq_avx2_one_plus_erf(__m256 z)
{
    /* erf z / z in z^2 < 1, 3e-11 */
    static const float p[8] = {1.12837917f,    -0.376126385f,    0.112837827f,    -0.0268654458f,
                               0.00522107489f, -0.000848471159f, 0.000112705455f, -9.68013938e-06f};
    /* -ln erfc z on 1..4.3, 8e-9 */
    static const float r[10] = {-0.000424891033f, 1.13071850f,    0.630859150f,     0.111169130f,
                                -0.0271853777f,   0.00510645813f, -0.000698755951f, 6.47987455e-05f,
                                -3.59531694e-06f, 8.87546232e-08f};
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 size = sfq_avx2_abs(z), square = _mm256_mul_ps(z, z);
    __m256 small = _mm256_fmadd_ps(z, sfq_avx2_poly(square, p, 8), one);
    __m256 bounded = _mm256_min_ps(_mm256_set1_ps(4.3f), size);
    __m256 minus = _mm256_sub_ps(_mm256_setzero_ps(), sfq_avx2_poly(bounded, r, 10));
    __m256 tail = sfq_avx2_exp(minus);
    tail = _mm256_andnot_ps(_mm256_cmp_ps(size, _mm256_set1_ps(4.25f), _CMP_GT_OQ), tail);
    __m256 large = _mm256_blendv_ps(_mm256_sub_ps(_mm256_set1_ps(2.0f), tail), tail, z);
    return _mm256_blendv_ps(large, small, _mm256_cmp_ps(size, one, _CMP_LT_OQ));
}

#endif
