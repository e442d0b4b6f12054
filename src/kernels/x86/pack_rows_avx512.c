/* kernels/x86/pack_rows_avx512.c - quantized activations as bytes. A row of a tile is 64 bytes: two
 * registers of codes give one line of each plane. */
#include "kernels/kernel_decls.h"

#include "base/ck.h"
#include "kernels/x86/avx2.h"

SFQ_INLINE void store_line(int8_t *dst, __m512i first, __m512i second)
{
    _mm256_storeu_si256((__m256i *)(void *)dst, _mm512_cvtepi16_epi8(first));
    _mm256_storeu_si256((__m256i *)(void *)(dst + 32), _mm512_cvtepi16_epi8(second));
}

/* One row: a line of every tile. The low byte of a code, taken as signed, is its low plane. */
static void pack_row(int8_t *dst, const int16_t *codes, size_t blocks, size_t planes, size_t height)
{
    const __m512i half = _mm512_set1_epi16(128);
    for (size_t b = 0; b < blocks; b++, codes += SFQ_BLOCK_K) {
        const __m512i v0 = _mm512_loadu_si512(codes), v1 = _mm512_loadu_si512(codes + 32);
        store_line(dst, v0, v1);
        if (planes == 2)
            store_line(dst + height * SFQ_BLOCK_K, _mm512_srai_epi16(_mm512_add_epi16(v0, half), 8),
                       _mm512_srai_epi16(_mm512_add_epi16(v1, half), 8));
        dst += planes * height * SFQ_BLOCK_K;
    }
}

void sfq_pack_rows_avx512(const sfq_pack_rows_args *a, size_t m_begin, size_t m_end)
{
    for (size_t m = m_begin; m < m_end; m++) {
        const size_t first = m / 16 * 16, height = sfq_min_size(16, a->m - first);
        const size_t block = a->planes * height * SFQ_BLOCK_K;
        int8_t *group = a->bytes + first * a->planes * a->k_blocks * SFQ_BLOCK_K;
        pack_row(group + a->first_block * block + (m - first) * SFQ_BLOCK_K,
                 a->codes + (m - m_begin) * a->blocks * SFQ_BLOCK_K, a->blocks, a->planes, height);
    }
}
