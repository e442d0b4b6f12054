/* kernels/x86/unpack_avx512.h - the fields of pack.c on AVX-512 registers: a whole row, 64 byte
 * columns, at a time. Only files with AVX-512 suffixes include it. */
#ifndef SFQ_KERNELS_X86_UNPACK_AVX512_H
#define SFQ_KERNELS_X86_UNPACK_AVX512_H

#include "kernels/x86/avx2.h"
#include "tensor/cluster.h"

SFQ_INLINE __m512i sfq_avx512_row(const uint8_t *stored, size_t r)
{
    return _mm512_loadu_si512(stored + r * SFQ_ROW_BYTES);
}

/* Shifts by the compilers' own operators: they disagree on the sign of the intrinsics' count. */
typedef uint16_t sfq_avx512_u16 __attribute__((vector_size(64)));

SFQ_INLINE __m512i sfq_avx512_field(__m512i v, int shift, int mask)
{
    return _mm512_and_si512((__m512i)((sfq_avx512_u16)v >> shift), _mm512_set1_epi8((char)mask));
}

SFQ_INLINE __m512i sfq_avx512_lift(__m512i v, int mask, int shift)
{
    const __m512i low = _mm512_and_si512(v, _mm512_set1_epi8((char)mask));
    return (__m512i)((sfq_avx512_u16)low << shift);
}

SFQ_INLINE __m512i sfq_avx512_or(__m512i a, __m512i b)
{
    return _mm512_or_si512(a, b);
}

SFQ_INLINE __m512i sfq_avx512_or3(__m512i a, __m512i b, __m512i c)
{
    return _mm512_ternarylogic_epi64(a, b, c, 0xfe);
}

#define UNPACK_VECTOR __m512i
#define UNPACK_SIDES 1
#define UNPACK(name) sfq_avx512_##name
#include "kernels/x86/unpack_template.h"

#endif
