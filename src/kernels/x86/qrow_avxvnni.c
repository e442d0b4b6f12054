/* kernels/x86/qrow_avxvnni.c - one row on AVX-VNNI: a row of a block, [16 outputs][4 inputs], is
 * two operands of vpdpbusd as it lies in memory. */
#include "kernels/x86/qrow.h"
#include "kernels/x86/unpack_avx2.h"

/* Nothing has to be widened on the way: no runs. */
enum {
    SFQ_RUN_2 = 1,
    SFQ_RUN_3 = 1,
    SFQ_RUN_4 = 1,
    SFQ_RUN_5 = 1,
    SFQ_RUN_6 = 1,
    SFQ_RUN_7 = 1,
    SFQ_RUN_8 = 1
};

SFQ_INLINE void dot_codes(__m256i *total, __m256i *run, __m256i codes, __m256i x, const bool first,
                          const bool last)
{
    (void)run, (void)first, (void)last;
    SFQ_DPBUSD_YMM(*total, codes, x);
}

#define QROW_AHEAD(bits) 2048
#define QROW_NAME sfq_qrow_bytes_avxvnni
#include "kernels/x86/qrow_template.h"
