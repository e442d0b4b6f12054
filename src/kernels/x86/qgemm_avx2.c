/* kernels/x86/qgemm_avx2.c - the packed multiply on AVX2. Activations within +-127 go through bytes
 * (qbytes_avx2.c), twice as many products at a time; under 8-bit codes in two parts
 * (qparts_avx2.c). */
#include "kernels/x86/qbytes_avx2.h"
#include "kernels/x86/qparts_avx2.h"

#define QGEMM_NAME sfq_qgemm_avx2
#define QGEMM_BYTE_BITS 7
#define QGEMM_ROW_BYTES sfq_qrow_bytes_avx2
#define QGEMM_BYTES_MANY sfq_gemm_bytes_avx2
#define QGEMM_PARTS
#include "kernels/x86/qgemm_template.h"
