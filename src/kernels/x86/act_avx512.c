/* kernels/x86/act_avx512.c - activation functions with vectors of 16. */
#include "kernels/x86/vec_avx512.h"

#include "kernels/x86/act_template.h"

void sfq_act_avx512(sfq_activation kind, float *x, size_t n)
{
    act_dispatch(kind, x, NULL, n);
}

void sfq_act_mul_avx512(sfq_activation kind, float *gate, const float *up, size_t n)
{
    act_dispatch(kind, gate, up, n);
}
