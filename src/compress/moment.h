/* compress/moment.h - what a pre-norm model's linears read, as a second moment that needs no data:
 * the normalised rows of the word table stand for the normalised hidden states. */
#ifndef SFQ_COMPRESS_MOMENT_H
#define SFQ_COMPRESS_MOMENT_H

#include "compress/source.h"

/* C = T P T^t, T upper triangular with a diagonal of ones, P diagonal and positive. */
typedef struct sfq_moment {
    size_t k;
    float *ratio;  /* T_ij for i < j at [j (j - 1) / 2 + i] */
    double *pivot; /* [K] */
} sfq_moment;

/* Whether the word table has rows enough: below two for each input they say nothing about too many
 * directions. */
bool sfq_moment_possible(const sfq_arch *arch);

/* Of the word table, before the gain of a norm. *out NULL: the table has no moment that could be
 * factored (all rows alike). INTERRUPTED by the hooks. */
sfq_status sfq_moment_make(sfq_moment **out, const sfq_source *source, const sfq_hooks *hooks,
                           sfq_error *err);
void sfq_moment_close(sfq_moment **moment);

/* Of a symmetric c [K, stride], of which i >= j is read; it is damped first, and destroyed. */
sfq_status sfq_moment_factor(sfq_moment **out, double *c, size_t k, sfq_pool *pool,
                             const sfq_hooks *hooks, sfq_error *err);
size_t sfq_moment_stride(size_t k);

/* Peak of memory and multiply-adds that making it for a table [V, K] takes. */
uint64_t sfq_moment_bytes(size_t k);
double sfq_moment_work(size_t v, size_t k);

#endif
