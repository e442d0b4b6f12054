/* compress/scale.h - the scale of one fusion cluster: the value, as the file stores it, that makes
 * the weighted squared error of the cluster's codes least, and the codes themselves. */
#ifndef SFQ_COMPRESS_SCALE_H
#define SFQ_COMPRESS_SCALE_H

#include "tensor/dtype.h"

/* A cluster: count weights, and what an error at each costs (NULL: 1 everywhere). */
typedef struct sfq_scale_input {
    const float *w;     /* [count], finite */
    const float *omega; /* [count] >= 0, or NULL */
    size_t count;
    int bits;        /* 2..8 */
    sfq_dtype dtype; /* of the scale in the file: SFQ_F16 or SFQ_F32 */
} sfq_scale_input;

/* Floats of scratch that a search over `count` weights needs. */
size_t sfq_scale_scratch(size_t count);

/* The best scale found; never 0, never subnormal in F32; 1 for a cluster of zeros. It depends on
 * the input alone. *error: the weighted squared error with it, may be NULL. */
float sfq_scale_search(const sfq_scale_input *in, float *scratch, double *error);

/* codes[i] = clamp(rint(w / scale), -2^(bits-1), 2^(bits-1)-1) + 2^(bits-1), nearest even. */
void sfq_scale_codes(uint8_t *codes, const float *w, size_t count, float scale, int bits);

/* sum omega (w - scale * (code - 2^(bits-1)))^2 */
double sfq_scale_error(const sfq_scale_input *in, float scale);

/* Whether F16 holds the scales of a cluster with this largest magnitude without overflow and
 * without the coarse steps below 2^-14. */
bool sfq_scale_fits_f16(float max_abs, int bits);

#endif
