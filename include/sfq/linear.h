/* sfq/linear.h - one packed matrix outside any model: made of floats, applied, decoded. For
 * frameworks that keep the rest of a model themselves and own the memory of codes and scales; the
 * layout is that of an artifact (docs/FORMAT.md), so both can be taken from there.
 *
 * What comes out does not depend on the thread count or on how rows are divided among calls. */
#ifndef SFQ_LINEAR_H
#define SFQ_LINEAR_H

#include <sfq/common.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Threads, kernels and scratch memory, for any number of matrices. Calls with the same workers wait
 * for each other; hooks must not make one. After fork() the child needs workers of its own. */
typedef struct sfq_workers sfq_workers;

/* threads 0: min(affinity, cgroup quota, physical cores); else 1..256. */
SFQ_API sfq_status sfq_workers_open(sfq_workers **out, int threads, sfq_error *err);
SFQ_API void sfq_workers_close(sfq_workers **workers);
/* Other threads for the calls to come; on failure those that there are stay. */
SFQ_API sfq_status sfq_workers_set_threads(sfq_workers *workers, int threads, sfq_error *err);

/* How W [n, k] is packed. */
typedef struct sfq_linear_layout {
    size_t panels, k_blocks; /* codes: bytes [panels, k_blocks, 128 * bits] */
    size_t segments, share;  /* scales: [panels, segments, 16 / share] */
    size_t segment_k;        /* inputs of a segment; the last has what is left */
    size_t code_bytes;
    size_t scale_count;
} sfq_linear_layout;

/* bits 2..8. ARGUMENT, and LIMIT where a size overflows. */
SFQ_API sfq_status sfq_linear_layout_get(size_t n, size_t k, int bits, sfq_linear_layout *out,
                                         sfq_error *err);

/* A packed matrix in the caller's memory. */
typedef struct sfq_linear_weight {
    size_t n, k; /* outputs, inputs */
    int bits;
    int activation_bits;  /* 8..14: to which the input is rounded, per row and segment */
    const uint8_t *codes; /* [code_bytes], 64-byte aligned */
    const float *scales;  /* [scale_count], finite */
    const float *bias;    /* [n] or NULL */
} sfq_linear_weight;

/* Fuses and quantizes w [n, k]: scales that make the squared error least, codes to nearest. energy
 * [k] (or NULL: all alike) is the mean square of each input and weighs the errors. Every scale is
 * exact in F16 where *f16 comes back true, in F32 otherwise. NUMERIC where w is not finite;
 * INTERRUPTED. hooks may be NULL. */
SFQ_API sfq_status sfq_linear_pack(sfq_workers *workers, const float *w, size_t n, size_t k,
                                   int bits, const float *energy, const sfq_hooks *hooks,
                                   uint8_t *codes, float *scales, bool *f16, sfq_error *err);
/* y [m, n] = x [m, k] W^T + bias, in integers. x must be finite, and apart from y. */
SFQ_API sfq_status sfq_linear_apply(sfq_workers *workers, const sfq_linear_weight *weight,
                                    const float *x, size_t m, float *y, sfq_error *err);
/* w [n, k]: what the codes stand for. */
SFQ_API sfq_status sfq_linear_unpack(sfq_workers *workers, const sfq_linear_weight *weight,
                                     float *w, sfq_error *err);
/* The same of some rows, as a table is looked up: out [count, k]. DATA where a row is not in
 * 0..n-1. */
SFQ_API sfq_status sfq_linear_rows(sfq_workers *workers, const sfq_linear_weight *weight,
                                   const int64_t *rows, size_t count, float *out, sfq_error *err);

#ifdef __cplusplus
}
#endif
#endif
