/* kernels/x86/qrow_avxvnni.c - one row on AVX-VNNI: a row of a block, [16 outputs][4 inputs], is
 * two operands of vpdpbusd as it lies in memory. */
#include "kernels/x86/qrow.h"
#include "kernels/x86/unpack_avx2.h"

/* Nothing has to be widened on the way. */
enum {
    SFQ_RUN_2 = 0,
    SFQ_RUN_3 = 0,
    SFQ_RUN_4 = 0,
    SFQ_RUN_5 = 0,
    SFQ_RUN_6 = 0,
    SFQ_RUN_7 = 0,
    SFQ_RUN_8 = 0
};

SFQ_INLINE __m256i dot_rows(__m256i sum, const __m256i *rows, const int8_t *a, const size_t count,
                            const size_t run)
{
    (void)run;
    SFQ_UNROLL
    for (size_t r = 0; r < count; r++)
        SFQ_DPBUSD_YMM(sum, rows[r], sfq_avx2_quad(a, r));
    return sum;
}

#define QROW_NAME sfq_qrow_bytes_avxvnni
#include "kernels/x86/qrow_template.h"
