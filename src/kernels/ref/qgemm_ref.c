/* kernels/ref/qgemm_ref.c - definition of the product of packed integer weights and quantized
 * activations: exact int32 sums per segment, then one chain of fused multiply-adds per output. */
#include "kernels/kernel_decls.h"

#include "base/ck.h"

#include <math.h>

/* sum_k code[n, k] * a[k] over one unpacked block, added to acc of all 16 outputs */
static void block_dot(int32_t acc[SFQ_PANEL_N], const uint8_t *block, const int16_t *a)
{
    for (size_t k = 0; k < SFQ_BLOCK_K; k++)
        for (size_t j = 0; j < SFQ_PANEL_N; j++)
            acc[j] += block[k / 4 * SFQ_ROW_BYTES + j * 4 + k % 4] * a[k];
}

static void panel_row(const sfq_qgemm_args *g, size_t p, size_t m)
{
    const size_t segment_blocks = g->segment_k / SFQ_BLOCK_K;
    const size_t outputs = sfq_min_size(SFQ_PANEL_N, g->n - p * SFQ_PANEL_N);
    const uint8_t *panel = g->codes + p * g->panel_bytes;
    const int16_t *a = g->a + m * g->k_padded;
    const int32_t zero_point = 1 << (g->bits - 1);
    float y[SFQ_PANEL_N] = {0};
    uint8_t block[SFQ_BLOCK_WEIGHTS];
    for (size_t s = 0; s < g->segments; s++) {
        int32_t acc[SFQ_PANEL_N] = {0};
        size_t end = sfq_min_size((s + 1) * segment_blocks, g->k_blocks);
        for (size_t b = s * segment_blocks; b < end; b++) {
            sfq_block_unpack(block, panel + b * sfq_block_bytes(g->bits), g->bits);
            block_dot(acc, block, a + b * SFQ_BLOCK_K);
        }
        const float *scales = g->scales + (p * g->segments + s) * (SFQ_PANEL_N / g->share);
        for (size_t j = 0; j < outputs; j++) {
            int32_t sum = acc[j] - zero_point * g->a_sums[m * g->segments + s];
            if (g->raw)
                g->raw[(m * g->segments + s) * g->n + p * SFQ_PANEL_N + j] = sum;
            y[j] = fmaf((float)sum, scales[j / g->share] * g->a_scales[m * g->segments + s], y[j]);
        }
    }
    for (size_t j = 0; g->y && j < outputs; j++) {
        size_t n = p * SFQ_PANEL_N + j;
        g->y[m * g->ldy + n] = g->bias ? y[j] + g->bias[n] : y[j];
    }
    if (g->activated)
        sfq_act_ref(g->act, g->y + m * g->ldy + p * SFQ_PANEL_N, outputs);
}

void sfq_qgemm_ref(const sfq_qgemm_args *a, size_t panel_begin, size_t panel_end)
{
    for (size_t p = panel_begin; p < panel_end; p++)
        for (size_t m = 0; m < a->m; m++)
            panel_row(a, p, m);
}
