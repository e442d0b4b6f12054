/* kernels/ref/unpack_ref.c - one output's weights out of a packed panel (embedding look-up):
 * (code - zero point) * scale of its cluster. */
#include "kernels/kernel_decls.h"

void sfq_unpack_row_ref(float *y, const uint8_t *panel, int bits, const float *panel_scales,
                        const sfq_cluster *c, size_t row_in_panel)
{
    const int zero_point = 1 << (bits - 1);
    const size_t per_panel = SFQ_PANEL_N / c->share;
    uint8_t block[SFQ_BLOCK_WEIGHTS];
    for (size_t k = 0; k < c->k; k++) {
        size_t in_block = k % SFQ_BLOCK_K;
        if (in_block == 0)
            sfq_block_unpack(block, panel + k / SFQ_BLOCK_K * sfq_block_bytes(bits), bits);
        int code = block[in_block / 4 * SFQ_ROW_BYTES + row_in_panel * 4 + in_block % 4];
        float scale = panel_scales[k / c->segment_k * per_panel + row_in_panel / c->share];
        y[k] = (float)(code - zero_point) * scale;
    }
}
