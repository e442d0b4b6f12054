/* kernels/peak.h - how many multiply-adds a core can do: loops of nothing but the instructions that
 * matrix kernels live on, over registers, with enough independent sums that only the units bound
 * them. The roof that a kernel's share is taken of; no product is ever used. */
#ifndef SFQ_KERNELS_PEAK_H
#define SFQ_KERNELS_PEAK_H

#include "kernels/kernels.h"

typedef struct sfq_peak {
    sfq_isa isa;
    /* "int8": sums of 32 bits, exact for 8-bit codes; "int7": byte products of which two are added
     * in 16 bits; "int4": those of several rows, which codes of few bits allow; "f32"; "bf16":
     * products of bfloat16, F32 sums */
    const char *type;
    uint64_t (*run)(size_t rounds); /* does and returns that many multiply-adds */
} sfq_peak;

extern const sfq_peak sfq_peaks[];
extern const size_t sfq_peak_count;
/* Whether this host has the instructions, capped by `max`; asks for tile state where they need
 * it. */
bool sfq_peak_usable(const sfq_peak *peak, sfq_isa max);

uint64_t sfq_peak_f32_ref(size_t rounds);
uint64_t sfq_peak_f32_avx2(size_t rounds);
uint64_t sfq_peak_int8_avx2(size_t rounds);
uint64_t sfq_peak_int7_avx2(size_t rounds);
uint64_t sfq_peak_int4_avx2(size_t rounds);
uint64_t sfq_peak_int8_avxvnni(size_t rounds);
uint64_t sfq_peak_f32_avx512(size_t rounds);
uint64_t sfq_peak_int8_avx512(size_t rounds);
uint64_t sfq_peak_int4_avx512(size_t rounds);
uint64_t sfq_peak_int8_avx512vnni(size_t rounds);
uint64_t sfq_peak_int8_amx(size_t rounds);
uint64_t sfq_peak_bf16_amx(size_t rounds);

#endif
