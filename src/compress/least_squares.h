/* compress/least_squares.h - output matrices refitted after their inputs were cut: ridge regression
 * towards the weights at hand (M4). */
#ifndef SFQ_COMPRESS_LEAST_SQUARES_H
#define SFQ_COMPRESS_LEAST_SQUARES_H

#include "compress/ridge.h"

/* What is added to the diagonal of a constant input, as a share of its own. */
#define SFQ_CONSTANT_DAMPING 1e-6

/* How much of a change g [count] of a matrix is taken: all, unless it would change it by more than
 * its norm (given squared); 0 where there is no change, or it is no number. */
double sfq_least_squares_length(const double *g, size_t count, double norm_squared);

typedef struct sfq_least_squares {
    const double *gram; /* [K, K] second moments of the inputs; its lower triangle is read */
    const float *w;     /* [N, K] */
    const bool *keep;   /* [K] */
    size_t n, k;
    size_t constants; /* how many of the last inputs are constants, all of them kept (a bias) */
    double ridge;     /* as sfq_ridge.damping */
} sfq_least_squares;

/* out [N, kept]: what makes the mean square error of the outputs least. NUMERIC where gram, w or
 * what comes out is not finite; MEMORY. */
sfq_status sfq_least_squares_refit(sfq_pool *pool, const sfq_least_squares *in, float *out,
                                   sfq_error *err);

#endif
