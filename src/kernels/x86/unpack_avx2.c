/* kernels/x86/unpack_avx2.c - packed blocks to 8-bit blocks in memory, and single rows from
 * them. */
#include "kernels/x86/unpack_avx2.h"
#include "kernels/kernel_decls.h"

#include <string.h>

/* A row of the group is there: half a line of the block in memory. */
#define STORE(r, side, codes, nth) \
    _mm256_store_si256((__m256i *)(void *)(dst + (r)*SFQ_ROW_BYTES) + (side), codes)

/* All groups of all blocks. Blocks follow one another without gaps on both sides, so a run of
 * blocks is a run of groups. */
#define UNPACK_GROUPS(bits)                                                    \
    for (size_t g = 0; g < blocks * (SFQ_BLOCK_ROWS / SFQ_ROWS_##bits); g++) { \
        SFQ_EACH_##bits(src, STORE);                                           \
        dst += (size_t)SFQ_ROWS_##bits * SFQ_ROW_BYTES;                        \
        src += (size_t)SFQ_STORED_##bits * SFQ_ROW_BYTES;                      \
    }

void sfq_unpack_blocks_avx2(uint8_t *dst, const uint8_t *src, int bits, size_t blocks)
{
    switch (bits) {
    case 2:
        UNPACK_GROUPS(2)
        break;
    case 3:
        UNPACK_GROUPS(3)
        break;
    case 4:
        UNPACK_GROUPS(4)
        break;
    case 5:
        UNPACK_GROUPS(5)
        break;
    case 6:
        UNPACK_GROUPS(6)
        break;
    case 7:
        UNPACK_GROUPS(7)
        break;
    default:
        memcpy(dst, src, blocks * SFQ_BLOCK_WEIGHTS);
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
