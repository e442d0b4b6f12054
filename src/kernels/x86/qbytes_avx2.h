/* kernels/x86/qbytes_avx2.h - codes of 2..7 bits times activations that fit bytes, and of
 * 8 bits times such of which no pair adds up to more than 128 in size. */
#ifndef SFQ_KERNELS_X86_QBYTES_AVX2_H
#define SFQ_KERNELS_X86_QBYTES_AVX2_H

#include "kernels/kernels.h"

/* Rows whose products of pairs may be added in 16 bits before they are widened; divides the rows
 * of a group. */
enum { SFQ_RUN_2 = 16, SFQ_RUN_3 = 8, SFQ_RUN_4 = 8, SFQ_RUN_5 = 4, SFQ_RUN_6 = 2, SFQ_RUN_7 = 1 };

/* int16 codes to bytes; false, and nothing of use in out, when one of them leaves -127..127. k is a
 * multiple of 64; out 32-byte aligned. */
bool sfq_narrow_codes_avx2(int8_t *out, const int16_t *a, size_t k);
/* acc[rows][16] += sums of code * activation over `blocks` blocks that were unpacked to bytes.
 * Row m of the activations is a + m*lda. next: packed blocks that are needed later, as many. */
void sfq_gemm_bytes_avx2(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, int bits,
                         const int8_t *a, size_t lda, size_t rows, size_t blocks,
                         const uint8_t *next);

#endif
