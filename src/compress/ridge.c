/* compress/ridge.c - the factor is made in place, so before each trial the sum is put back from the
 * upper triangle, which the factoring leaves alone. */
#include "compress/ridge.h"

#include <math.h>

enum { TRIALS = 9 };

#define LEAST_DAMPING 1e-8

static void keep_sum(const sfq_ridge *r)
{
    for (size_t i = 0; i < r->k; i++) {
        r->diagonal[i] = r->h[i * r->k + i];
        for (size_t j = 0; j < i; j++)
            r->h[j * r->k + i] = r->h[i * r->k + j];
    }
}

static double share(double damping)
{
    return damping > LEAST_DAMPING ? damping : LEAST_DAMPING;
}

static void put_sum(const sfq_ridge *r, double times)
{
    double mean = 0;
    for (size_t i = 0; i < r->features; i++)
        mean += r->diagonal[i] / (double)r->features;
    for (size_t i = 0; i < r->k; i++) {
        const double own = i < r->features ? mean : r->diagonal[i];
        const double damping = share(i < r->features ? r->damping : r->constant_damping);
        for (size_t j = 0; j < i; j++)
            r->h[i * r->k + j] = r->h[j * r->k + i];
        r->h[i * r->k + i] = r->diagonal[i] + times * damping * (own > 0 ? own : 1);
    }
}

bool sfq_ridge_factor(sfq_pool *pool, const sfq_ridge *r)
{
    double times = 1;
    keep_sum(r);
    for (size_t i = 0; i < r->k; i++)
        if (!isfinite(r->diagonal[i]))
            return false;
    for (int trial = 0; trial < TRIALS; trial++, times *= 10) {
        put_sum(r, times);
        if (sfq_linalg_cholesky(pool, r->h, r->k))
            return true;
    }
    return false;
}
