/* kernels/x86/act_avx2.c - activation functions and sums with vectors of 8. */
#include "kernels/x86/vec_avx2.h"

#include "kernels/x86/act_template.h"

void sfq_act_avx2(sfq_activation kind, float *x, size_t n)
{
    act_dispatch(kind, x, NULL, n);
}

void sfq_act_mul_avx2(sfq_activation kind, float *gate, const float *up, size_t n)
{
    act_dispatch(kind, gate, up, n);
}

void sfq_add_avx2(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + VL <= n; i += VL)
        v_store(y + i, v_add(v_load(y + i), v_load(x + i)));
    for (; i < n; i++)
        y[i] += x[i];
}
