/* kernels/peak.c - the list of peaks, and which of them a host has. */
#include "kernels/peak.h"

const sfq_peak sfq_peaks[] = {
    {SFQ_ISA_REF, "f32", sfq_peak_f32_ref},
    {SFQ_ISA_AVX2, "f32", sfq_peak_f32_avx2},
    {SFQ_ISA_AVX2, "int8", sfq_peak_int8_avx2},
    {SFQ_ISA_AVX2, "int7", sfq_peak_int7_avx2},
    {SFQ_ISA_AVX2, "int4", sfq_peak_int4_avx2},
    {SFQ_ISA_AVXVNNI, "int8", sfq_peak_int8_avxvnni},
    {SFQ_ISA_AVX512, "f32", sfq_peak_f32_avx512},
    {SFQ_ISA_AVX512, "int8", sfq_peak_int8_avx512},
    {SFQ_ISA_AVX512, "int4", sfq_peak_int4_avx512},
    {SFQ_ISA_AVX512VNNI, "int8", sfq_peak_int8_avx512vnni},
    {SFQ_ISA_AMX, "int8", sfq_peak_int8_amx},
    {SFQ_ISA_AMX, "bf16", sfq_peak_bf16_amx},
};
const size_t sfq_peak_count = sizeof sfq_peaks / sizeof *sfq_peaks;

enum { SUMS = 8 };

/* What the compiler makes of plain C: multiply, then add. */
uint64_t sfq_peak_f32_ref(size_t rounds)
{
    float sum[SUMS] = {0}, a = 1.0f, b = 1e-3f;
    for (size_t r = 0; r < rounds; r++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
        for (int i = 0; i < SUMS; i++)
            sum[i] += a * b;
    }
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "x"(sum[i]));
    return (uint64_t)rounds * SUMS;
}

bool sfq_peak_usable(const sfq_peak *peak, sfq_isa max)
{
    if (peak->isa > max || peak->isa > sfq_isa_detect())
        return false;
    if (peak->isa == SFQ_ISA_AVXVNNI)
        return sfq_isa_has_avxvnni();
    return peak->isa != SFQ_ISA_AMX || sfq_isa_request_tiles();
}
