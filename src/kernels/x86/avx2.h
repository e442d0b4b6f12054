/* kernels/x86/avx2.h - small helpers of the AVX2 kernels: tails by masked vectors, so that an
 * element goes through the same operations wherever it lies, and sums in one fixed order. For
 * files with AVX2 or higher suffixes. */
#ifndef SFQ_KERNELS_X86_AVX2_H
#define SFQ_KERNELS_X86_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SFQ_INLINE static inline __attribute__((always_inline))

/* Loops over registers must be unrolled whole, whatever the optimization level. Clang counts a loop
 * that another pass has already dissolved as a failure, and says so. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed"
#define SFQ_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SFQ_UNROLL _Pragma("GCC unroll 16")
#endif

/* Keeps the steps of a chain where they are written: without it GCC 12 moves the products of a tile
 * before its sums, runs out of registers, and spills half of the accumulators. Clang 14 spills with
 * it and not without. */
#if defined(__clang__)
#define SFQ_PIN(v) ((void)0)
#else
#define SFQ_PIN(v) __asm__ volatile("" : "+x"(v))
#endif

/* sum += x, and sum += the four products of unsigned w and signed x of each lane, in the
 * register of the sum. From the intrinsics GCC 12 makes a tile's sums anew each time and copies
 * them back: the copies take as many of a core's slots as the products do. */
#define SFQ_ADD_EPI16(sum, x) __asm__ volatile("vpaddw %1, %0, %0" : "+x"(sum) : "x"(x))
#define SFQ_ADD_EPI32(sum, x) __asm__ volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(x))
#define SFQ_DPBUSD_YMM(sum, w, x) \
    __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x))
#define SFQ_DPBUSD_ZMM(sum, w, x) \
    __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x))

/* The first n of 8 lanes (n >= 8: all). */
SFQ_INLINE __m256i sfq_avx2_mask(size_t n)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8), lanes);
}

/* 32 int16 codes to bytes; *largest keeps the largest sizes, for sfq_avx2_are_bytes. */
SFQ_INLINE __m256i sfq_avx2_narrow(const int16_t *a, __m256i *largest)
{
    const __m256i lo = _mm256_loadu_si256((const __m256i *)(const void *)a);
    const __m256i hi = _mm256_loadu_si256((const __m256i *)(const void *)(a + 16));
    *largest = _mm256_max_epu16(*largest, _mm256_abs_epi16(lo));
    *largest = _mm256_max_epu16(*largest, _mm256_abs_epi16(hi));
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(lo, hi), 0xd8);
}

/* Whether no size in 16 lanes is above 127. */
SFQ_INLINE bool sfq_avx2_are_bytes(__m256i largest)
{
    const __m256i beyond = _mm256_subs_epu16(largest, _mm256_set1_epi16(127));
    return _mm256_testz_si256(beyond, beyond);
}

/* [o0 o0' o1 o1' | o2 ..], [o4 ..] -> o0..o7: adds the two partial sums of every output */
SFQ_INLINE __m256i sfq_avx2_fold(__m256i a, __m256i b)
{
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
}

/* ((l0+l1)+(l2+l3)) + ((l4+l5)+(l6+l7)) of each of four vectors. */
SFQ_INLINE __m128 sfq_avx2_sum4(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

SFQ_INLINE float sfq_avx2_sum(__m256 a)
{
    return _mm_cvtss_f32(sfq_avx2_sum4(a, a, a, a));
}

SFQ_INLINE float sfq_avx2_max(__m256 a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    m = _mm_max_ss(m, _mm_shuffle_ps(m, m, 1));
    return _mm_cvtss_f32(m);
}

#endif
