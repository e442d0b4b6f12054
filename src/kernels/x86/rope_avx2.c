/* kernels/x86/rope_avx2.c - rotary embedding, 8 pairs at a time; the tail is masked. */
#include "kernels/kernel_decls.h"
#include "kernels/x86/avx2.h"

void sfq_rope_avx2(float *x, const float *cos, const float *sin, size_t rot)
{
    const size_t half = rot / 2;
    for (size_t i = 0; i < half; i += 8) {
        __m256i mask = sfq_avx2_mask(half - i);
        __m256 a = _mm256_maskload_ps(x + i, mask), b = _mm256_maskload_ps(x + half + i, mask);
        __m256 c = _mm256_maskload_ps(cos + i, mask), s = _mm256_maskload_ps(sin + i, mask);
        __m256 first = _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s));
        __m256 second = _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s));
        _mm256_maskstore_ps(x + i, mask, first);
        _mm256_maskstore_ps(x + half + i, mask, second);
    }
}
