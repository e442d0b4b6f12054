/* kernels/x86/peak_avx512vnni.c - vpdpbusd on 512-bit vectors. Every loop over the sums is
 * unrolled, or GCC keeps them in memory. */
#include "kernels/peak.h"

#include <immintrin.h>

enum { SUMS = 24 };

uint64_t sfq_peak_int8_avx512vnni(size_t rounds)
{
    __m512i sum[SUMS], a = _mm512_set1_epi8(77), b = _mm512_set1_epi8(-5);
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm512_dpbusd_epi32(sum[i], a, b);
    }
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "v"(sum[i]));
    return (uint64_t)rounds * SUMS * 64;
}
