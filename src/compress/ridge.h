/* compress/ridge.h - second moments of activations, damped until they can be factored. */
#ifndef SFQ_COMPRESS_RIDGE_H
#define SFQ_COMPRESS_RIDGE_H

#include "kernels/linalg.h"

typedef struct sfq_ridge {
    double *h;        /* [K, K] its lower triangle is the sum; its upper one is scratch */
    double *diagonal; /* [K] scratch */
    size_t k;
    size_t features;         /* the first columns; those behind are constants (for a bias) */
    double damping;          /* added to the features' diagonal, as a share of its mean */
    double constant_damping; /* added to that of each constant, as a share of its own */
} sfq_ridge;

/* Cholesky factor of the damped sum in the place of its lower triangle; where that fails, with ten
 * times the damping, and so on. False: h is not finite, or damping does not help. A sum of zeros is
 * damped as if it were one of ones. */
bool sfq_ridge_factor(sfq_pool *pool, const sfq_ridge *r);

#endif
