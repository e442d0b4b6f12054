/* kernels/x86/unpack_avx2.c - packed blocks to 8-bit blocks, 32 byte columns at a time: the fields
 * of pack.c by and/shift/or on whole half rows. Shifts work on 16-bit lanes, so every shifted value
 * is masked to its field. */
#include "kernels/x86/unpack_avx2.h"
#include "kernels/kernel_decls.h"
#include "kernels/x86/avx2.h"

enum { HALF = 32 };

SFQ_INLINE __m256i row(const uint8_t *stored, size_t r)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(stored + r * SFQ_ROW_BYTES));
}

SFQ_INLINE void put(uint8_t *dst, size_t r, __m256i value)
{
    _mm256_store_si256((__m256i *)(void *)(dst + r * SFQ_ROW_BYTES), value);
}

/* (v >> shift) & mask in every byte */
SFQ_INLINE __m256i field(__m256i v, int shift, int mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(v, shift), _mm256_set1_epi8((char)mask));
}

/* (v & mask) << shift in every byte; the result must fit the byte */
SFQ_INLINE __m256i lift(__m256i v, int mask, int shift)
{
    return _mm256_slli_epi16(_mm256_and_si256(v, _mm256_set1_epi8((char)mask)), shift);
}

SFQ_INLINE __m256i or3(__m256i a, __m256i b, __m256i c)
{
    return _mm256_or_si256(_mm256_or_si256(a, b), c);
}

SFQ_INLINE void unpack7(uint8_t *dst, const uint8_t *src)
{
    __m256i last = _mm256_setzero_si256();
    SFQ_UNROLL
    for (int i = 0; i < 7; i++) {
        __m256i v = row(src, (size_t)i);
        put(dst, (size_t)i, _mm256_and_si256(v, _mm256_set1_epi8(127)));
        last = _mm256_or_si256(last, field(v, 7 - i, 1 << i));
    }
    put(dst, 7, last);
}

SFQ_INLINE void unpack6(uint8_t *dst, const uint8_t *src)
{
    __m256i a = row(src, 0), b = row(src, 1), c = row(src, 2);
    put(dst, 0, field(a, 0, 63));
    put(dst, 1, field(b, 0, 63));
    put(dst, 2, field(c, 0, 63));
    put(dst, 3, or3(field(a, 6, 0x03), field(b, 4, 0x0c), field(c, 2, 0x30)));
}

SFQ_INLINE void unpack5(uint8_t *dst, const uint8_t *src)
{
    __m256i top[5];
    SFQ_UNROLL
    for (size_t i = 0; i < 5; i++) {
        __m256i v = row(src, i);
        put(dst, i, field(v, 0, 31));
        top[i] = field(v, 5, 7);
    }
    put(dst, 5, _mm256_or_si256(top[0], lift(top[3], 3, 3)));
    put(dst, 6, _mm256_or_si256(top[1], lift(top[4], 3, 3)));
    put(dst, 7, or3(top[2], lift(top[3], 4, 1), lift(top[4], 4, 2)));
}

SFQ_INLINE void unpack4(uint8_t *dst, const uint8_t *src)
{
    SFQ_UNROLL
    for (size_t i = 0; i < 8; i++) {
        __m256i v = row(src, i);
        put(dst, i, field(v, 0, 15));
        put(dst, i + 8, field(v, 4, 15));
    }
}

SFQ_INLINE void unpack3(uint8_t *dst, const uint8_t *src)
{
    __m256i top[3];
    SFQ_UNROLL
    for (size_t i = 0; i < 3; i++) {
        __m256i v = row(src, i);
        put(dst, i, field(v, 0, 7));
        put(dst, i + 3, field(v, 3, 7));
        top[i] = field(v, 6, 3);
    }
    put(dst, 6, _mm256_or_si256(top[0], lift(top[2], 1, 2)));
    put(dst, 7, _mm256_or_si256(top[1], lift(top[2], 2, 1)));
}

SFQ_INLINE void unpack2(uint8_t *dst, const uint8_t *src)
{
    SFQ_UNROLL
    for (size_t i = 0; i < 4; i++) {
        __m256i v = row(src, i);
        put(dst, i, field(v, 0, 3));
        put(dst, i + 4, field(v, 2, 3));
        put(dst, i + 8, field(v, 4, 3));
        put(dst, i + 12, field(v, 6, 3));
    }
}

SFQ_INLINE void copy8(uint8_t *dst, const uint8_t *src)
{
    SFQ_UNROLL
    for (size_t i = 0; i < SFQ_BLOCK_ROWS; i++)
        put(dst, i, row(src, i));
}

/* All groups of all blocks: `rows` unpacked from `stored` rows by fn. Blocks follow one another
 * without gaps on both sides, so a run of blocks is a run of groups. */
#define EACH_GROUP(fn, rows, stored)                                  \
    for (size_t g = 0; g < blocks * (SFQ_BLOCK_ROWS / (rows)); g++) { \
        for (size_t h = 0; h < SFQ_ROW_BYTES; h += HALF)              \
            fn(dst + h, src + h);                                     \
        dst += (size_t)(rows)*SFQ_ROW_BYTES;                          \
        src += (size_t)(stored)*SFQ_ROW_BYTES;                        \
    }

void sfq_unpack_blocks_avx2(uint8_t *dst, const uint8_t *src, int bits, size_t blocks)
{
    switch (bits) {
    case 2:
        EACH_GROUP(unpack2, 16, 4);
        break;
    case 3:
        EACH_GROUP(unpack3, 8, 3);
        break;
    case 4:
        EACH_GROUP(unpack4, 16, 8);
        break;
    case 5:
        EACH_GROUP(unpack5, 8, 5);
        break;
    case 6:
        EACH_GROUP(unpack6, 4, 3);
        break;
    case 7:
        EACH_GROUP(unpack7, 8, 7);
        break;
    default:
        EACH_GROUP(copy8, 16, 16);
        break;
    }
}

void sfq_unpack_row_avx2(float *y, const uint8_t *panel, int bits, const float *panel_scales,
                         const sfq_cluster *c, size_t row_in_panel)
{
    const int zero_point = 1 << (bits - 1);
    const size_t per_panel = SFQ_PANEL_N / c->share;
    _Alignas(32) uint8_t block[SFQ_BLOCK_WEIGHTS];
    for (size_t k0 = 0; k0 < c->k; k0 += SFQ_BLOCK_K) {
        size_t count = c->k - k0 < SFQ_BLOCK_K ? c->k - k0 : SFQ_BLOCK_K;
        float scale = panel_scales[k0 / c->segment_k * per_panel + row_in_panel / c->share];
        const uint8_t *code = block + row_in_panel * 4;
        sfq_unpack_blocks_avx2(block, panel + k0 / SFQ_BLOCK_K * sfq_block_bytes(bits), bits, 1);
        for (size_t i = 0; i < count; i++)
            y[k0 + i] = (float)(code[i / 4 * SFQ_ROW_BYTES + i % 4] - zero_point) * scale;
    }
}
