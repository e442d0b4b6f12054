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

/* vpmaddwd + vpaddd: exact for 8-bit codes under activations of up to 14 bits. */
uint64_t sfq_peak_int8_avx2(size_t rounds)
{
    __m256i sum[SUMS], a = _mm256_set1_epi16(77), b = _mm256_set1_epi16(-5);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+x"(a), "+x"(b));
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(a, b));
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "x"(sum[i]));
    return (uint64_t)rounds * SUMS * 16;
}

/* vpmaddubsw + vpmaddwd + vpaddd: exact for pairs of products that fit 16 bits. */
uint64_t sfq_peak_int7_avx2(size_t rounds)
{
    __m256i sum[SUMS], a = _mm256_set1_epi8(77), b = _mm256_set1_epi8(-5);
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+x"(a), "+x"(b));
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "x"(sum[i]));
    return (uint64_t)rounds * SUMS * 32;
}

/* vpmaddubsw + vpaddw */
uint64_t sfq_peak_int4_avx2(size_t rounds)
{
    __m256i sum[SUMS], a = _mm256_set1_epi8(7), b = _mm256_set1_epi8(-5);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_epi16((short)i);
    for (size_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+x"(a), "+x"(b));
            sum[i] = _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(a, b));
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "x"(sum[i]));
    return (uint64_t)rounds * SUMS * 32;
}
