/* kernels/x86/qgemm_avxvnni.c - the packed multiply on AVX-VNNI: vpdpbusd for codes of all widths
 * (qbytes_avxvnni.c), on two planes of bytes where the activations are wider. vpdpwssd is not used:
 * it runs at half the rate on Golden Cove, no faster than vpmaddwd and vpaddd. */
#include "kernels/x86/qbytes_avx2.h"
#include "kernels/x86/qbytes_avxvnni.h"

#define QGEMM_NAME sfq_qgemm_avxvnni
#define QGEMM_BYTE_BITS 8
#define QGEMM_ROW_BYTES sfq_qrow_bytes_avxvnni
#define QGEMM_BYTES_MANY(acc, codes, bits, a, lda, rows, blocks, next) \
    sfq_gemm_bytes_avxvnni(acc, codes, bits, a, lda, rows, blocks)
#define QGEMM_SPLIT sfq_split_codes_avxvnni
#define QGEMM_PLANES sfq_gemm_planes_avxvnni
#include "kernels/x86/qgemm_template.h"
