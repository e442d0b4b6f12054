/* kernels/x86/qparts_avx2.h - activations within +-127 in two parts, for 8-bit codes on bytes. */
#ifndef SFQ_KERNELS_X86_QPARTS_AVX2_H
#define SFQ_KERNELS_X86_QPARTS_AVX2_H

#include "kernels/kernels.h"

/* What is left of one row's inputs 4 * quad .. 4 * quad + 3. */
typedef struct sfq_part {
    uint32_t quad;
    int32_t rest; /* four bytes */
} sfq_part;

/* int16 codes [k] to bytes: out + rest = a, where no pair of inputs 2i, 2i + 1 of out adds up to
 * more than 128 in size; the rests in ascending order to parts, k/4 at most, their number to
 * *count. false, and nothing of use anywhere, when a code leaves -127..127. k is a multiple of
 * 64; out 32-byte aligned. */
bool sfq_part_codes_avx2(int8_t *out, sfq_part *parts, size_t *count, const int16_t *a, size_t k);
/* acc[16] += 8-bit codes * rests of the parts below `end`; returns the first one not below. Row
 * `quad` of the codes belongs to a part. */
const sfq_part *sfq_add_parts_avx2(int32_t acc[SFQ_PANEL_N], const uint8_t *codes, size_t end,
                                   const sfq_part *at, const sfq_part *last);

#endif
