/* kernels/x86/qbytes_avxvnni.h - codes of 2..8 bits times activations that fit one byte
 * or two. */
#ifndef SFQ_KERNELS_X86_QBYTES_AVXVNNI_H
#define SFQ_KERNELS_X86_QBYTES_AVXVNNI_H

#include "kernels/kernels.h"

/* acc[rows][16] += sums of code * activation over `blocks` blocks that were unpacked to bytes.
 * Row m of the activations is a + m*lda. */
void sfq_gemm_bytes_avxvnni(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, int bits,
                            const int8_t *a, size_t lda, size_t rows, size_t blocks);

/* Activations of up to 15 bits as a = 256 hi + lo with lo in -128..127: quads of lo and of hi by
 * turns, 2k bytes. k is a multiple of 64; out 32-byte aligned. */
void sfq_split_codes_avxvnni(int8_t *out, const int16_t *a, size_t k);
/* sfq_gemm_bytes for activations that were split; codes as bytes. The sums wrap on the way where
 * their halves leave 32 bits; the total does not. */
void sfq_gemm_planes_avxvnni(int32_t (*acc)[SFQ_PANEL_N], const uint8_t *codes, const int8_t *a,
                             size_t lda, size_t rows, size_t blocks);

#endif
