/* kernels/ref/rope_ref.c - definition of the rotary embedding in the half-split form of Llama (Su
 * et al. 2021, eq. 34, with pair (i, i + rot/2) in place of (2i, 2i + 1)). */
#include "kernels/kernel_decls.h"

void sfq_rope_ref(float *x, const float *cos, const float *sin, size_t rot)
{
    const size_t half = rot / 2;
    for (size_t i = 0; i < half; i++) {
        double a = (double)x[i], b = (double)x[i + half];
        x[i] = (float)(a * (double)cos[i] - b * (double)sin[i]);
        x[i + half] = (float)(b * (double)cos[i] + a * (double)sin[i]);
    }
}
