/* kernels/x86/peak_avx2.c - peaks of 256-bit vectors. Operands pass an empty asm: the compiler
 * must not compute a product once and add it many times. Every loop over the sums is unrolled, or
 * GCC keeps them in memory. */
#include "kernels/peak.h"

#include <immintrin.h>

enum { SUMS = 12 };

uint64_t sfq_peak_f32_avx2(size_t rounds)
{
    __m256 sum[SUMS], a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(1e-3f);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_ps((float)i);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm256_fmadd_ps(a, b, sum[i]);
    }
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "x"(sum[i]));
    return (uint64_t)rounds * SUMS * 8;
}

/* Integer sums, each += PRODUCT of a and b by ADD. */
#define INTEGER_PEAK(name, left, right, ADD, PRODUCT, macs)                                    \
    uint64_t name(size_t rounds)                                                               \
    {                                                                                          \
        __m256i sum[SUMS], a = _mm256_set1_epi16(left), b = _mm256_set1_epi16(right);          \
        _Pragma("GCC unroll 12") for (int i = 0; i < SUMS; i++) sum[i] = _mm256_set1_epi32(i); \
        for (size_t r = 0; r < rounds; r++) {                                                  \
            _Pragma("GCC unroll 12") for (int i = 0; i < SUMS; i++)                            \
            {                                                                                  \
                __asm__ volatile("" : "+x"(a), "+x"(b));                                       \
                sum[i] = ADD(sum[i], PRODUCT(a, b));                                           \
            }                                                                                  \
        }                                                                                      \
        _Pragma("GCC unroll 12") for (int i = 0; i < SUMS;                                     \
                                      i++) __asm__ volatile("" : : "x"(sum[i]));               \
        return (uint64_t)rounds * SUMS * (macs);                                               \
    }

static inline __m256i byte_pairs(__m256i a, __m256i b)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
}

/* vpmaddwd + vpaddd: exact for 8-bit codes under activations of up to 14 bits. */
INTEGER_PEAK(sfq_peak_int8_avx2, 77, -5, _mm256_add_epi32, _mm256_madd_epi16, 16)
/* vpmaddubsw + vpmaddwd + vpaddd: exact for pairs of products that fit 16 bits. */
INTEGER_PEAK(sfq_peak_int7_avx2, 0x4d4d, -5, _mm256_add_epi32, byte_pairs, 32)
/* vpmaddubsw + vpaddw */
INTEGER_PEAK(sfq_peak_int4_avx2, 0x0707, -5, _mm256_add_epi16, _mm256_maddubs_epi16, 32)
