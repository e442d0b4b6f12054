/* kernels/x86/unpack_avx2.h - the fields of pack.c on AVX2 registers: one group of rows, 32 byte
 * columns at a time, by and/shift/or. Shifts work on 16-bit lanes, so every shifted value is masked
 * to its field. Only files with the suffix _avx2.c include it. */
#ifndef SFQ_KERNELS_X86_UNPACK_AVX2_H
#define SFQ_KERNELS_X86_UNPACK_AVX2_H

#include "kernels/x86/avx2.h"
#include "tensor/cluster.h"

/* `blocks` packed blocks of 2..8 bits to 8-bit blocks, 1024 bytes each. dst 32-byte aligned. */
void sfq_unpack_blocks_avx2(uint8_t *dst, const uint8_t *src, int bits, size_t blocks);

/* Rows of a group as unpacked and as stored. */
enum {
    SFQ_ROWS_2 = 16,
    SFQ_STORED_2 = 4,
    SFQ_ROWS_3 = 8,
    SFQ_STORED_3 = 3,
    SFQ_ROWS_4 = 16,
    SFQ_STORED_4 = 8,
    SFQ_ROWS_5 = 8,
    SFQ_STORED_5 = 5,
    SFQ_ROWS_6 = 4,
    SFQ_STORED_6 = 3,
    SFQ_ROWS_7 = 8,
    SFQ_STORED_7 = 7
};

SFQ_INLINE __m256i sfq_avx2_row(const uint8_t *stored, size_t r)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(stored + r * SFQ_ROW_BYTES));
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

SFQ_INLINE void sfq_avx2_unpack7(__m256i *out, const uint8_t *src)
{
    __m256i last = _mm256_setzero_si256();
    SFQ_UNROLL
    for (int i = 0; i < 7; i++) {
        __m256i v = sfq_avx2_row(src, (size_t)i);
        out[i] = _mm256_and_si256(v, _mm256_set1_epi8(127));
        last = _mm256_or_si256(last, sfq_avx2_field(v, 7 - i, 1 << i));
    }
    out[7] = last;
}

SFQ_INLINE void sfq_avx2_unpack6(__m256i *out, const uint8_t *src)
{
    __m256i a = sfq_avx2_row(src, 0), b = sfq_avx2_row(src, 1), c = sfq_avx2_row(src, 2);
    out[0] = sfq_avx2_field(a, 0, 63);
    out[1] = sfq_avx2_field(b, 0, 63);
    out[2] = sfq_avx2_field(c, 0, 63);
    out[3] = sfq_avx2_or3(sfq_avx2_field(a, 6, 0x03), sfq_avx2_field(b, 4, 0x0c),
                          sfq_avx2_field(c, 2, 0x30));
}

SFQ_INLINE void sfq_avx2_unpack5(__m256i *out, const uint8_t *src)
{
    __m256i top[5];
    SFQ_UNROLL
    for (size_t i = 0; i < 5; i++) {
        __m256i v = sfq_avx2_row(src, i);
        out[i] = sfq_avx2_field(v, 0, 31);
        top[i] = sfq_avx2_field(v, 5, 7);
    }
    out[5] = _mm256_or_si256(top[0], sfq_avx2_lift(top[3], 3, 3));
    out[6] = _mm256_or_si256(top[1], sfq_avx2_lift(top[4], 3, 3));
    out[7] = sfq_avx2_or3(top[2], sfq_avx2_lift(top[3], 4, 1), sfq_avx2_lift(top[4], 4, 2));
}

SFQ_INLINE void sfq_avx2_unpack4(__m256i *out, const uint8_t *src)
{
    SFQ_UNROLL
    for (size_t i = 0; i < 8; i++) {
        __m256i v = sfq_avx2_row(src, i);
        out[i] = sfq_avx2_field(v, 0, 15);
        out[i + 8] = sfq_avx2_field(v, 4, 15);
    }
}

SFQ_INLINE void sfq_avx2_unpack3(__m256i *out, const uint8_t *src)
{
    __m256i top[3];
    SFQ_UNROLL
    for (size_t i = 0; i < 3; i++) {
        __m256i v = sfq_avx2_row(src, i);
        out[i] = sfq_avx2_field(v, 0, 7);
        out[i + 3] = sfq_avx2_field(v, 3, 7);
        top[i] = sfq_avx2_field(v, 6, 3);
    }
    out[6] = _mm256_or_si256(top[0], sfq_avx2_lift(top[2], 1, 2));
    out[7] = _mm256_or_si256(top[1], sfq_avx2_lift(top[2], 2, 1));
}

SFQ_INLINE void sfq_avx2_unpack2(__m256i *out, const uint8_t *src)
{
    SFQ_UNROLL
    for (size_t i = 0; i < 4; i++) {
        __m256i v = sfq_avx2_row(src, i);
        out[i] = sfq_avx2_field(v, 0, 3);
        out[i + 4] = sfq_avx2_field(v, 2, 3);
        out[i + 8] = sfq_avx2_field(v, 4, 3);
        out[i + 12] = sfq_avx2_field(v, 6, 3);
    }
}

#endif
