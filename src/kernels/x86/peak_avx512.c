/* kernels/x86/peak_avx512.c - peaks of 512-bit vectors. Operands pass an empty asm: the compiler
 * must not compute a product once and add it many times. Every loop over the sums is unrolled, or
 * GCC keeps them in memory. */
#include "kernels/peak.h"

#include <immintrin.h>

enum { SUMS = 24 };

uint64_t sfq_peak_f32_avx512(size_t rounds)
{
    __m512 sum[SUMS], a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(1e-3f);
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_set1_ps((float)i);
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm512_fmadd_ps(a, b, sum[i]);
    }
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "v"(sum[i]));
    return (uint64_t)rounds * SUMS * 16;
}

/* vpmaddwd + vpaddd: exact for 8-bit codes under activations of up to 14 bits. */
uint64_t sfq_peak_int8_avx512(size_t rounds)
{
    __m512i sum[SUMS], a = _mm512_set1_epi16(77), b = _mm512_set1_epi16(-5);
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+v"(a), "+v"(b));
            sum[i] = _mm512_add_epi32(sum[i], _mm512_madd_epi16(a, b));
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "v"(sum[i]));
    return (uint64_t)rounds * SUMS * 32;
}

/* vpmaddubsw + vpaddw */
uint64_t sfq_peak_int4_avx512(size_t rounds)
{
    __m512i sum[SUMS], a = _mm512_set1_epi8(7), b = _mm512_set1_epi8(-5);
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_set1_epi16((short)i);
    for (size_t r = 0; r < rounds; r++) {
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+v"(a), "+v"(b));
            sum[i] = _mm512_add_epi16(sum[i], _mm512_maddubs_epi16(a, b));
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "v"(sum[i]));
    return (uint64_t)rounds * SUMS * 64;
}
