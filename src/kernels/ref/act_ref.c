/* kernels/ref/act_ref.c - definitions of the activation functions and of the elementwise
 * operations beside them. Computed in double and rounded once. */
#include "kernels/kernel_decls.h"

#include <math.h>

#define SQRT_2_OVER_PI 0.79788456080286535588
#define SQRT_1_2 0.70710678118654752440

static double activate(sfq_activation kind, double x)
{
    switch (kind) {
    case SFQ_ACT_SILU:
        return x / (1.0 + exp(-x));
    case SFQ_ACT_GELU: /* erfc keeps what 1 + erf would cancel */
        return 0.5 * x * erfc(-x * SQRT_1_2);
    case SFQ_ACT_GELU_TANH: /* (1 + tanh u) / 2 = 1 / (1 + e^-2u) */
        return x / (1.0 + exp(-2.0 * SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)));
    case SFQ_ACT_RELU:
        return x < 0.0 ? 0.0 : x;
    case SFQ_ACT_TANH:
        return tanh(x);
    default: /* SFQ_ACT_QUICK_GELU */
        return x / (1.0 + exp(-1.702 * x));
    }
}

void sfq_act_ref(sfq_activation kind, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)activate(kind, (double)x[i]);
}

void sfq_act_mul_ref(sfq_activation kind, float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gate[i] = (float)activate(kind, (double)gate[i]) * up[i];
}

void sfq_add_ref(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}
