/* kernels/kernel_decls.h - prototypes of all kernels, made from the list and from the types of the
 * table's members, so that a declaration cannot differ from its contract. */
#ifndef SFQ_KERNELS_KERNEL_DECLS_H
#define SFQ_KERNELS_KERNEL_DECLS_H

#include "kernels/kernels.h"

#define SFQ_KERNEL_TYPE(op) __typeof__(*((const sfq_kernels *)0)->op)
#define SFQ_KERNEL(op, at_ref, at_avx2, at_avxvnni, at_avx512, at_avx512vnni, at_amx) \
    SFQ_KERNEL_TYPE(op) sfq_##op##_##at_ref;                                          \
    SFQ_KERNEL_TYPE(op) sfq_##op##_##at_avx2;                                         \
    SFQ_KERNEL_TYPE(op) sfq_##op##_##at_avxvnni;                                      \
    SFQ_KERNEL_TYPE(op) sfq_##op##_##at_avx512;                                       \
    SFQ_KERNEL_TYPE(op) sfq_##op##_##at_avx512vnni;                                   \
    SFQ_KERNEL_TYPE(op) sfq_##op##_##at_amx;
#include "kernels/kernel_list.inc"
#undef SFQ_KERNEL

#endif
