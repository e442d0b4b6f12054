/* tests/kernels/check.h - what the kernel checks share: random data, buffers that end at an
 * unmapped page, comparison against bounds computed from the data, timing. */
#ifndef CHECK_H
#define CHECK_H

#include "kernels/kernel_decls.h"

#include <stdio.h>

#define CHECK_EPS 5.9604645e-8 /* 2^-24: rounding of one float operation */

/* ---- random data ---- */
uint64_t check_u64(void);
size_t check_between(size_t lo, size_t hi); /* inclusive */
float check_normal(void);
/* n floats: a case picks plain normals, or normals with zeros, huge, tiny and equal values */
enum { CHECK_PLAIN, CHECK_WILD, CHECK_FLAVOURS };
void check_floats(float *x, size_t n, int flavour);

/* ---- memory: zero-length safe, last byte directly before an unmapped page; all freed by reset.
 * New memory is filled with a pattern, so that what is not written shows. ---- */
void *check_guarded(size_t bytes);
#define CHECK_ARRAY(T, n) ((T *)check_guarded(sizeof(T) * (n)))
void *check_copy(const void *src, size_t bytes);
void *check_aligned(size_t bytes); /* 64-byte aligned, for scratch */
void check_reset(void);

/* ---- verdicts ---- */
void check_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
#define CHECK(cond, ...)             \
    do {                             \
        if (!(cond))                 \
            check_fail(__VA_ARGS__); \
    } while (0)
/* |got - want| <= bound */
void check_near(double got, double want, double bound, const char *what, size_t at);
void check_same(const void *a, const void *b, size_t bytes, const char *what);
/* bytes from..to of p still hold the fill pattern */
void check_untouched(const void *p, size_t bytes, const char *what);

/* ---- timing ---- */
typedef void (*check_run_fn)(void *ctx);
double check_seconds(check_run_fn fn, void *ctx); /* of one run, best of several */
/* one line: name of the case, and the work of one run */
void check_report(const char *what, double seconds, double macs, double bytes);

/* ---- the list: one check and one benchmark per row of kernel_list.inc ---- */
const sfq_kernels *check_ref(void);
#define SFQ_KERNEL(op, ...)                \
    void check_##op(const sfq_kernels *k); \
    void bench_##op(const sfq_kernels *k);
#include "kernels/kernel_list.inc"
#undef SFQ_KERNEL
void check_packing(void); /* pack.c, which has one implementation */

#endif
