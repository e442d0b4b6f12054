/* kernels/ref/norm_ref.c - definitions of RMSNorm (Zhang and Sennrich 2019, eq. 4) and LayerNorm
 * (Ba et al. 2016, eq. 3); sums in double, one rounding at the end. */
#include "kernels/kernel_decls.h"

#include <math.h>

void sfq_rmsnorm_ref(float *y, const float *x, const float *gain, float eps, size_t c)
{
    double squares = 0.0;
    for (size_t i = 0; i < c; i++)
        squares += (double)x[i] * (double)x[i];
    double inverse = 1.0 / sqrt(squares / (double)c + (double)eps);
    for (size_t i = 0; i < c; i++)
        y[i] = (float)((double)x[i] * inverse * (double)gain[i]);
}

void sfq_layernorm_ref(float *y, const float *x, const float *gain, const float *bias, float eps,
                       size_t c)
{
    double mean = 0.0, var = 0.0;
    for (size_t i = 0; i < c; i++)
        mean += (double)x[i];
    mean /= (double)c;
    for (size_t i = 0; i < c; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean);
    double inverse = 1.0 / sqrt(var / (double)c + (double)eps);
    for (size_t i = 0; i < c; i++) {
        double normal = ((double)x[i] - mean) * inverse * (double)gain[i];
        y[i] = (float)(bias ? normal + (double)bias[i] : normal);
    }
}
