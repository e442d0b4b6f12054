/* kernels/x86/qgemm_avx2.c - the packed multiply on AVX2. Codes below 8 bits
 * with activations within +-127 go through bytes instead (qbytes_avx2.c), twice as many products at
 * a time. */
#include "kernels/x86/qbytes_avx2.h"

#define QGEMM_NAME sfq_qgemm_avx2
#define QGEMM_BYTE_BITS 7
#define QGEMM_ROW_BYTES sfq_qrow_bytes_avx2
#define QGEMM_BYTES_MANY sfq_gemm_bytes_avx2
#include "kernels/x86/qgemm_template.h"
