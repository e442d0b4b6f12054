/* kernels/x86/gemm_avx512.c - float weights on 512-bit vectors. Lanes are folded in fours,
 * (0+2)+(1+3), and the four sums (s0+s2)+(s1+s3). */
#include "kernels/x86/avx2.h"
#include "tensor/dtype.h"

#define GEMM_NAME sfq_gemm_avx512
#define VEC __m512
enum { LANES = 16, GEMM_TILE_M = 6, GEMM_WIDEN_FROM = 25 };

SFQ_INLINE __m512 vec_zero(void)
{
    return _mm512_setzero_ps();
}

SFQ_INLINE __m512 vec_load(const float *x)
{
    return _mm512_loadu_ps(x);
}

SFQ_INLINE __m512 vec_load_tail(const float *x, size_t n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), x);
}

SFQ_INLINE void vec_store(float *x, __m512 v)
{
    _mm512_store_ps(x, v);
}

SFQ_INLINE __m512 vec_fmadd(__m512 a, __m512 b, __m512 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

SFQ_INLINE __m512 vec_widen16(const void *w, const sfq_dtype dtype)
{
    __m256i half = _mm256_loadu_si256(w);
    if (dtype == SFQ_F16)
        return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

SFQ_INLINE __m512 fold2(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

SFQ_INLINE void vec_sum4(float *out, const __m512 v[4])
{
    __m512 ab = fold2(v[0], v[1]), cd = fold2(v[2], v[3]); /* a02 b02 a13 b13 in every quarter */
    __m512 s = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

#include "kernels/x86/gemm_template.h"
