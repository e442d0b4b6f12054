/* kernels/ref/gemm_ref.c - definition of the product with float weights. The sum is kept in double
 * and rounded once, so that this serves as the yardstick of the error bounds. */
#include "kernels/kernel_decls.h"

void sfq_gemm_ref(const sfq_gemm_args *a, size_t n_begin, size_t n_end)
{
    const size_t bytes = sfq_dtype_info(a->dtype)->bytes;
    for (size_t n = n_begin; n < n_end; n++) {
        const char *w = (const char *)a->w + n * a->ldw * bytes;
        for (size_t m = 0; m < a->m; m++) {
            double sum = 0.0;
            for (size_t k = 0; k < a->k; k++) {
                float value;
                sfq_to_f32(&value, w + k * bytes, a->dtype, 1);
                sum += (double)value * (double)a->x[m * a->ldx + k];
            }
            a->y[m * a->ldy + n] = a->bias ? (float)sum + a->bias[n] : (float)sum;
        }
    }
}
