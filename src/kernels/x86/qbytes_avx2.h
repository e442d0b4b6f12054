/* kernels/x86/qbytes_avx2.h - codes of 2..7 bits times activations that fit bytes. */
#ifndef SFQ_KERNELS_X86_QBYTES_AVX2_H
#define SFQ_KERNELS_X86_QBYTES_AVX2_H

#include "kernels/kernels.h"

/* int16 codes to bytes; false, and nothing of use in out, when one of them leaves -127..127. k is a
 * multiple of 64; out 32-byte aligned. */
bool sfq_narrow_codes_avx2(int8_t *out, const int16_t *a, size_t k);
/* One token: acc[16] = sums of code * activation over `blocks` packed blocks of a panel. */
void sfq_gemv_packed_avx2(int32_t acc[SFQ_PANEL_N], const uint8_t *codes, int bits, const int8_t *a,
                          size_t blocks);
/* Several tokens: acc[rows][16] += the same over `blocks` blocks that were unpacked to bytes. Row m
 * of the activations is a + m*lda. */
void sfq_gemm_bytes_avx2(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, int bits,
                         const int8_t *a, size_t lda, size_t rows, size_t blocks);

#endif
