/* compress/adamw.h - AdamW over a list of flat arrays: Loshchilov and Hutter 2019, "Decoupled
 * weight decay regularization", algorithm 2, with the gradient's norm bounded first (Pascanu et al.
 * 2013, "On the difficulty of training recurrent neural networks"). Work is cut into fixed pieces,
 * so results do not depend on the thread count. */
#ifndef SFQ_COMPRESS_ADAMW_H
#define SFQ_COMPRESS_ADAMW_H

#include "base/pool.h"

typedef struct sfq_adamw_array {
    float *value;          /* [count] */
    const float *gradient; /* [count] */
    /* [count]; NULL: 1. What is trained is value / unit: a value that is a scale moves by shares of
     * itself, whatever its size. */
    const float *unit;
    size_t count;
    bool decay;
} sfq_adamw_array;

typedef struct sfq_adamw_options {
    double beta1, beta2, eps;
    double decay; /* of arrays that say so */
    double clip;  /* the norm of all gradients at most; 0: any */
} sfq_adamw_options;

typedef struct sfq_adamw sfq_adamw;

/* The arrays are borrowed, their list is copied. */
sfq_status sfq_adamw_open(sfq_adamw **out, const sfq_adamw_array *arrays, size_t count,
                          const sfq_adamw_options *options, sfq_pool *pool, sfq_error *err);
void sfq_adamw_close(sfq_adamw **adamw);
uint64_t sfq_adamw_bytes(uint64_t floats, size_t arrays);

/* Step number `step` (from 1) at rate lr. False: the gradients' norm is not finite, and nothing was
 * changed. */
bool sfq_adamw_step(sfq_adamw *adamw, uint64_t step, double lr);

/* Both moments, [2, total]: all there is to save. */
float *sfq_adamw_moments(sfq_adamw *adamw);

#endif
