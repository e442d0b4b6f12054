/* kernels/x86/peak_avxvnni.c - vpdpbusd on 256-bit vectors. Every loop over the sums is unrolled,
 * or GCC keeps them in memory. */
#include "kernels/peak.h"

#include <immintrin.h>

enum { SUMS = 12 };

uint64_t sfq_peak_int8_avxvnni(size_t rounds)
{
    __m256i sum[SUMS], a = _mm256_set1_epi8(77), b = _mm256_set1_epi8(-5);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm256_dpbusd_avx_epi32(sum[i], a, b);
    }
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "x"(sum[i]));
    return (uint64_t)rounds * SUMS * 32;
}
