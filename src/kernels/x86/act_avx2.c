/* kernels/x86/act_avx2.c - activation functions and elementwise operations. Tails go through the
 * same vector code under a mask: an element's result does not depend on where it lies. */
#include "kernels/kernel_decls.h"
#include "kernels/x86/math_avx2.h"

/* x / (1 + e^-bx) */
SFQ_INLINE __m256 sigmoid_times(__m256 x, float b)
{
    __m256 e = sfq_avx2_exp(_mm256_mul_ps(x, _mm256_set1_ps(-b)));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

/* x/2 (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3) (Hendrycks and Gimpel
 * 2016) */
SFQ_INLINE __m256 gelu_tanh(__m256 x)
{
    const __m256 c1 = _mm256_set1_ps(-1.59576912f), c3 = _mm256_set1_ps(-0.0713548163f);
    __m256 u = _mm256_mul_ps(x, _mm256_fmadd_ps(_mm256_mul_ps(x, x), c3, c1));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), sfq_avx2_exp(u)));
}

SFQ_INLINE __m256 gelu(__m256 x)
{
    __m256 z = _mm256_mul_ps(x, _mm256_set1_ps(0.707106781f));
    __m256 half = _mm256_mul_ps(x, _mm256_set1_ps(0.5f));
    return _mm256_mul_ps(half, sfq_avx2_one_plus_erf(z));
}

SFQ_INLINE __m256 activate(const sfq_activation kind, __m256 x)
{
    switch (kind) {
    case SFQ_ACT_SILU:
        return sigmoid_times(x, 1.0f);
    case SFQ_ACT_GELU:
        return gelu(x);
    case SFQ_ACT_GELU_TANH:
        return gelu_tanh(x);
    case SFQ_ACT_RELU:
        return _mm256_max_ps(_mm256_setzero_ps(), x); /* gives x for NaN */
    case SFQ_ACT_TANH:
        return sfq_avx2_tanh(x);
    default:
        return sigmoid_times(x, 1.702f);
    }
}

SFQ_INLINE void run(const sfq_activation kind, float *x, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = activate(kind, _mm256_loadu_ps(x + i));
        _mm256_storeu_ps(x + i, up ? _mm256_mul_ps(v, _mm256_loadu_ps(up + i)) : v);
    }
    if (i < n) {
        __m256i mask = sfq_avx2_mask(n - i);
        __m256 v = activate(kind, _mm256_maskload_ps(x + i, mask));
        v = up ? _mm256_mul_ps(v, _mm256_maskload_ps(up + i, mask)) : v;
        _mm256_maskstore_ps(x + i, mask, v);
    }
}

/* one loop per kind, chosen outside of it */
SFQ_INLINE void dispatch(sfq_activation kind, float *x, const float *up, size_t n)
{
    switch (kind) {
    case SFQ_ACT_SILU:
        run(SFQ_ACT_SILU, x, up, n);
        break;
    case SFQ_ACT_GELU:
        run(SFQ_ACT_GELU, x, up, n);
        break;
    case SFQ_ACT_GELU_TANH:
        run(SFQ_ACT_GELU_TANH, x, up, n);
        break;
    case SFQ_ACT_RELU:
        run(SFQ_ACT_RELU, x, up, n);
        break;
    case SFQ_ACT_TANH:
        run(SFQ_ACT_TANH, x, up, n);
        break;
    default:
        run(SFQ_ACT_QUICK_GELU, x, up, n);
        break;
    }
}

void sfq_act_avx2(sfq_activation kind, float *x, size_t n)
{
    dispatch(kind, x, NULL, n);
}

void sfq_act_mul_avx2(sfq_activation kind, float *gate, const float *up, size_t n)
{
    dispatch(kind, gate, up, n);
}

void sfq_add_avx2(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    for (; i < n; i++)
        y[i] += x[i];
}
