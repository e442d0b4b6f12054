/* kernels/x86/qgemv_avx2.h - one token against codes of 2..7 bits, on bytes. */
#ifndef SFQ_KERNELS_X86_QGEMV_AVX2_H
#define SFQ_KERNELS_X86_QGEMV_AVX2_H

#include "kernels/kernels.h"

/* int16 codes to bytes; false, and nothing of use in out, when one of them leaves -127..127. k is a
 * multiple of 64; out 32-byte aligned. */
bool sfq_narrow_codes_avx2(int8_t *out, const int16_t *a, size_t k);
/* acc[16] = sums of code * activation over `blocks` blocks of a panel; bits 2..7. */
void sfq_gemv_blocks_avx2(int32_t acc[SFQ_PANEL_N], const uint8_t *codes, int bits, const int8_t *a,
                          size_t blocks);

#endif
