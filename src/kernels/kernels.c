/* kernels/kernels.c - the ladder: one constant table per level that is built, and the choice among
 * them. Which implementation stands in which table is decided in kernel_list.inc alone. */
#include "kernels/kernel_decls.h"

#include <stdlib.h>
#include <string.h>

static const char *const isa_names[SFQ_ISA_COUNT] = {
    [SFQ_ISA_REF] = "ref",
    [SFQ_ISA_AVX2] = "avx2",
    [SFQ_ISA_AVXVNNI] = "avxvnni",
    [SFQ_ISA_AVX512] = "avx512",
    [SFQ_ISA_AVX512VNNI] = "avx512vnni",
    [SFQ_ISA_AMX] = "amx",
};

static const sfq_kernels table_ref = {
    .isa = SFQ_ISA_REF,
    .isa_name = "ref",
#define SFQ_KERNEL(op, at_ref, at_avx2, at_avxvnni, at_avx512, at_avx512vnni, at_amx) \
    .op = sfq_##op##_##at_ref,
#include "kernels/kernel_list.inc"
#undef SFQ_KERNEL
};

static const sfq_kernels table_avx2 = {
    .isa = SFQ_ISA_AVX2,
    .isa_name = "avx2",
#define SFQ_KERNEL(op, at_ref, at_avx2, at_avxvnni, at_avx512, at_avx512vnni, at_amx) \
    .op = sfq_##op##_##at_avx2,
#include "kernels/kernel_list.inc"
#undef SFQ_KERNEL
};

static const sfq_kernels table_avxvnni = {
    .isa = SFQ_ISA_AVXVNNI,
    .isa_name = "avxvnni",
#define SFQ_KERNEL(op, at_ref, at_avx2, at_avxvnni, at_avx512, at_avx512vnni, at_amx) \
    .op = sfq_##op##_##at_avxvnni,
#include "kernels/kernel_list.inc"
#undef SFQ_KERNEL
};

static const sfq_kernels table_avx512 = {
    .isa = SFQ_ISA_AVX512,
    .isa_name = "avx512",
#define SFQ_KERNEL(op, at_ref, at_avx2, at_avxvnni, at_avx512, at_avx512vnni, at_amx) \
    .op = sfq_##op##_##at_avx512,
#include "kernels/kernel_list.inc"
#undef SFQ_KERNEL
};

static const sfq_kernels table_avx512vnni = {
    .isa = SFQ_ISA_AVX512VNNI,
    .isa_name = "avx512vnni",
    .bytes = true,
#define SFQ_KERNEL(op, at_ref, at_avx2, at_avxvnni, at_avx512, at_avx512vnni, at_amx) \
    .op = sfq_##op##_##at_avx512vnni,
#include "kernels/kernel_list.inc"
#undef SFQ_KERNEL
};

static const sfq_kernels table_amx = {
    .isa = SFQ_ISA_AMX,
    .isa_name = "amx",
    .bytes = true,
#define SFQ_KERNEL(op, at_ref, at_avx2, at_avxvnni, at_avx512, at_avx512vnni, at_amx) \
    .op = sfq_##op##_##at_amx,
#include "kernels/kernel_list.inc"
#undef SFQ_KERNEL
};

const sfq_kernels *sfq_kernels_get(sfq_isa max)
{
    sfq_isa host = sfq_isa_detect();
    switch (host < max ? host : max) {
    case SFQ_ISA_REF:
        return &table_ref;
    case SFQ_ISA_AVX2:
        return &table_avx2;
    case SFQ_ISA_AVXVNNI:
        return sfq_isa_has_avxvnni() ? &table_avxvnni : &table_avx2;
    case SFQ_ISA_AVX512:
        return &table_avx512;
    case SFQ_ISA_AVX512VNNI:
        return &table_avx512vnni;
    default:
        return sfq_isa_request_tiles() ? &table_amx : &table_avx512vnni;
    }
}

const char *sfq_isa_name(sfq_isa isa)
{
    return (unsigned)isa < SFQ_ISA_COUNT ? isa_names[isa] : "unknown";
}

sfq_status sfq_isa_from_env(sfq_isa *out, sfq_error *err)
{
    const char *name = getenv("SFQ_MAX_ISA");
    *out = SFQ_ISA_COUNT;
    if (!name)
        return SFQ_OK;
    for (int i = 0; i < SFQ_ISA_COUNT; i++) {
        if (strcmp(name, isa_names[i]) == 0) {
            *out = (sfq_isa)i;
            return SFQ_OK;
        }
    }
    return sfq_fail(err, SFQ_E_ARGUMENT,
                    "SFQ_MAX_ISA is \"%.40s\", expected one of ref, avx2, avxvnni, avx512, "
                    "avx512vnni, amx",
                    name);
}
