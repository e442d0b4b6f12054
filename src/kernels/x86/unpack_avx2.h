/* kernels/x86/unpack_avx2.h - the fields of pack.c on AVX2 registers, half a row
 * (32 byte columns) each. Only files with the suffixes _avx2.c and _avxvnni.c include it. */
#ifndef SFQ_KERNELS_X86_UNPACK_AVX2_H
#define SFQ_KERNELS_X86_UNPACK_AVX2_H

#include "kernels/x86/avx2.h"
#include "tensor/cluster.h"

#include <string.h>

/* `blocks` packed blocks of 2..8 bits to 8-bit blocks, 1024 bytes each. dst 32-byte aligned. */
void sfq_unpack_blocks_avx2(uint8_t *dst, const uint8_t *src, int bits, size_t blocks);

SFQ_INLINE __m256i sfq_avx2_row(const uint8_t *stored, size_t r)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(stored + r * SFQ_ROW_BYTES));
}

/* The four activations of row r in every 32-bit lane. */
SFQ_INLINE __m256i sfq_avx2_quad(const int8_t *a, size_t r)
{
    int32_t four;
    memcpy(&four, a + 4 * r, sizeof four);
    return _mm256_set1_epi32(four);
}

/* (v >> shift) & mask in every byte */
SFQ_INLINE __m256i sfq_avx2_field(__m256i v, int shift, int mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(v, shift), _mm256_set1_epi8((char)mask));
}

/* (v & mask) << shift in every byte; the result must fit the byte */
SFQ_INLINE __m256i sfq_avx2_lift(__m256i v, int mask, int shift)
{
    return _mm256_slli_epi16(_mm256_and_si256(v, _mm256_set1_epi8((char)mask)), shift);
}

SFQ_INLINE __m256i sfq_avx2_or3(__m256i a, __m256i b, __m256i c)
{
    return _mm256_or_si256(_mm256_or_si256(a, b), c);
}

SFQ_INLINE __m256i sfq_avx2_or(__m256i a, __m256i b)
{
    return _mm256_or_si256(a, b);
}

#define UNPACK_VECTOR __m256i
#define UNPACK_SIDES 2
#define UNPACK(name) sfq_avx2_##name
#include "kernels/x86/unpack_template.h"

#endif
