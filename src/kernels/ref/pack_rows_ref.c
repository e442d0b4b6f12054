/* kernels/ref/pack_rows_ref.c - definition of the byte form of quantized activations. */
#include "kernels/kernel_decls.h"

#include "base/ck.h"

void sfq_pack_rows_ref(const sfq_pack_rows_args *a, size_t m_begin, size_t m_end)
{
    for (size_t m = m_begin; m < m_end; m++) {
        const int16_t *codes = a->codes + (m - m_begin) * a->blocks * SFQ_BLOCK_K;
        const size_t first = m / 16 * 16, height = sfq_min_size(16, a->m - first);
        int8_t *group = a->bytes + first * a->planes * a->k_blocks * SFQ_BLOCK_K;
        for (size_t k = 0; k < a->blocks * SFQ_BLOCK_K; k++) {
            const size_t block = a->first_block + k / SFQ_BLOCK_K;
            int8_t *tile = group + block * a->planes * height * SFQ_BLOCK_K;
            size_t at = (m - first) * SFQ_BLOCK_K + k % SFQ_BLOCK_K;
            int lo = codes[k] & 255;
            lo = lo < 128 ? lo : lo - 256;
            tile[at] = (int8_t)lo;
            if (a->planes == 2)
                tile[at + height * SFQ_BLOCK_K] = (int8_t)((codes[k] - lo) / 256);
        }
    }
}
