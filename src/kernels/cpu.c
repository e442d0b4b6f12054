/* kernels/cpu.c - what this processor and this operating system offer, as the highest level of the
 * ladder. A level is a cluster of cpuid bits plus the register state that the OS saves (XCR0); AMX
 * also needs the kernel's word that it hands out tile state. Detection requests nothing: tile state
 * enlarges every signal frame, so it is asked for when a table that uses it is given away. */
#include "kernels/kernels.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    XCR0_YMM = 1 << 1 | 1 << 2,
    XCR0_ZMM = XCR0_YMM | 1 << 5 | 1 << 6 | 1 << 7,
    XCR0_TILES = 1 << 17 | 1 << 18,
    ARCH_GET_XCOMP_SUPPORT = 0x1021, /* Linux 5.16, asm/prctl.h: features it can grant */
    ARCH_REQ_XCOMP_PERM = 0x1023,
    XFEATURE_TILE_DATA = 18
};

typedef struct cpu_bits {
    unsigned leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax;
    unsigned xcr0;
} cpu_bits;

static unsigned read_xcr0(void)
{
    unsigned lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

static cpu_bits read_cpu(void)
{
    cpu_bits c = {0};
    unsigned a, b, ecx, d;
    if (__get_cpuid(1, &a, &b, &ecx, &d))
        c.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &a, &b, &ecx, &d)) {
        unsigned last_subleaf = a;
        c.leaf7_ebx = b;
        c.leaf7_ecx = ecx;
        c.leaf7_edx = d;
        if (last_subleaf >= 1 && __get_cpuid_count(7, 1, &a, &b, &ecx, &d))
            c.leaf7_1_eax = a;
    }
    if (c.leaf1_ecx & bit_OSXSAVE)
        c.xcr0 = read_xcr0();
    return c;
}

static bool all_set(unsigned word, unsigned bits)
{
    return (word & bits) == bits;
}

static bool has_avx2(const cpu_bits *c)
{
    return all_set(c->leaf1_ecx, bit_AVX | bit_FMA | bit_F16C) &&
           all_set(c->leaf7_ebx, bit_AVX2 | bit_BMI2) && all_set(c->xcr0, XCR0_YMM);
}

static bool has_avxvnni(const cpu_bits *c)
{
    return has_avx2(c) && all_set(c->leaf7_1_eax, 1u << 4);
}

static bool has_avx512(const cpu_bits *c)
{
    return all_set(c->leaf7_ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) &&
           all_set(c->xcr0, XCR0_ZMM);
}

static bool has_avx512vnni(const cpu_bits *c)
{
    return all_set(c->leaf7_ecx, bit_AVX512VNNI);
}

static bool has_amx(const cpu_bits *c)
{
    unsigned long granted = 0;
    return all_set(c->leaf7_edx, 1u << 22 | 1u << 24 | 1u << 25) && /* bf16, tile, int8 */
           all_set(c->xcr0, XCR0_TILES) &&
           syscall(SYS_arch_prctl, ARCH_GET_XCOMP_SUPPORT, &granted) == 0 &&
           all_set((unsigned)granted, XCR0_TILES);
}

sfq_isa sfq_isa_detect(void)
{
    cpu_bits c = read_cpu();
    if (!has_avx2(&c))
        return SFQ_ISA_REF;
    if (!has_avx512(&c))
        return has_avxvnni(&c) ? SFQ_ISA_AVXVNNI : SFQ_ISA_AVX2;
    if (!has_avx512vnni(&c))
        return SFQ_ISA_AVX512;
    return has_amx(&c) ? SFQ_ISA_AMX : SFQ_ISA_AVX512VNNI;
}

bool sfq_isa_has_avxvnni(void)
{
    cpu_bits c = read_cpu();
    return has_avxvnni(&c);
}

bool sfq_isa_request_tiles(void)
{
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) == 0;
}
