/* kernels/x86/gemm_avx2.c - float weights on 256-bit vectors; lanes are folded
 * ((0+1)+(2+3)) + ((4+5)+(6+7)). */
#include "kernels/x86/avx2.h"
#include "tensor/dtype.h"

#define GEMM_NAME sfq_gemm_avx2
#define VEC __m256
enum { LANES = 8, GEMM_TILE_M = 3, GEMM_WIDEN_FROM = 25 };

SFQ_INLINE __m256 vec_zero(void)
{
    return _mm256_setzero_ps();
}

SFQ_INLINE __m256 vec_load(const float *x)
{
    return _mm256_loadu_ps(x);
}

SFQ_INLINE __m256 vec_load_tail(const float *x, size_t n)
{
    return _mm256_maskload_ps(x, sfq_avx2_mask(n));
}

SFQ_INLINE void vec_store(float *x, __m256 v)
{
    _mm256_store_ps(x, v);
}

SFQ_INLINE __m256 vec_fmadd(__m256 a, __m256 b, __m256 c)
{
    return _mm256_fmadd_ps(a, b, c);
}

SFQ_INLINE __m256 vec_widen16(const void *w, const sfq_dtype dtype)
{
    __m128i half = _mm_loadu_si128(w);
    if (dtype == SFQ_F16)
        return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

SFQ_INLINE void vec_sum4(float *out, const __m256 v[4])
{
    _mm_storeu_ps(out, sfq_avx2_sum4(v[0], v[1], v[2], v[3]));
}

#include "kernels/x86/gemm_template.h"
