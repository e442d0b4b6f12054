/* kernels/x86/act_template.h - activation functions, one source for vectors of 8 and 16. Tails go
 * through the same vector code under a mask: an element's result does not depend on where it lies.
 * act_ISA.c includes vec_ISA.h before. */
#ifndef SFQ_KERNELS_X86_ACT_TEMPLATE_H
#define SFQ_KERNELS_X86_ACT_TEMPLATE_H

#include "kernels/kernel_decls.h"
#include "kernels/x86/math_template.h"

/* x / (1 + e^-bx) */
SFQ_INLINE vec sigmoid_times(vec x, float b)
{
    return v_div(x, v_add(v_set1(1.0f), v_exp(v_mul(x, v_set1(-b)))));
}

/* x/2 (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3) (Hendrycks and Gimpel
 * 2016) */
SFQ_INLINE vec gelu_tanh(vec x)
{
    const vec c1 = v_set1(-1.59576912f), c3 = v_set1(-0.0713548163f);
    vec u = v_mul(x, v_fma(v_mul(x, x), c3, c1));
    return v_div(x, v_add(v_set1(1.0f), v_exp(u)));
}

SFQ_INLINE vec activate(const sfq_activation kind, vec x)
{
    switch (kind) {
    case SFQ_ACT_SILU:
        return sigmoid_times(x, 1.0f);
    case SFQ_ACT_GELU:
        return v_gelu(x);
    case SFQ_ACT_GELU_TANH:
        return gelu_tanh(x);
    case SFQ_ACT_RELU:
        return v_max(v_zero(), x); /* gives x for NaN */
    case SFQ_ACT_TANH:
        return v_tanh(x);
    default:
        return sigmoid_times(x, 1.702f);
    }
}

SFQ_INLINE void act_run(const sfq_activation kind, float *x, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        vec v = activate(kind, v_load(x + i));
        v_store(x + i, up ? v_mul(v, v_load(up + i)) : v);
    }
    if (i < n) {
        vec v = activate(kind, v_load_some(x + i, n - i));
        v_store_some(x + i, up ? v_mul(v, v_load_some(up + i, n - i)) : v, n - i);
    }
}

/* one loop per kind, chosen outside of it */
SFQ_INLINE void act_dispatch(sfq_activation kind, float *x, const float *up, size_t n)
{
    switch (kind) {
    case SFQ_ACT_SILU:
        act_run(SFQ_ACT_SILU, x, up, n);
        break;
    case SFQ_ACT_GELU:
        act_run(SFQ_ACT_GELU, x, up, n);
        break;
    case SFQ_ACT_GELU_TANH:
        act_run(SFQ_ACT_GELU_TANH, x, up, n);
        break;
    case SFQ_ACT_RELU:
        act_run(SFQ_ACT_RELU, x, up, n);
        break;
    case SFQ_ACT_TANH:
        act_run(SFQ_ACT_TANH, x, up, n);
        break;
    default:
        act_run(SFQ_ACT_QUICK_GELU, x, up, n);
        break;
    }
}

#endif
