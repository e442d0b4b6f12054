/* kernels/x86/unpack_avx2.h - unpacking of whole blocks, shared by the AVX2 kernels. */
#ifndef SFQ_KERNELS_X86_UNPACK_AVX2_H
#define SFQ_KERNELS_X86_UNPACK_AVX2_H

#include <stddef.h>
#include <stdint.h>

/* `blocks` packed blocks of 2..8 bits to 8-bit blocks, 1024 bytes each. dst 32-byte aligned. */
void sfq_unpack_blocks_avx2(uint8_t *dst, const uint8_t *src, int bits, size_t blocks);

#endif
