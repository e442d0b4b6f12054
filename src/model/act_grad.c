/* model/act_grad.c - derivatives of the activation functions. Computed in float on 16 values at a
 * time, in loops of that length, which compilers turn into vectors. Values and derivatives are
 * within 1e-6 of the exact ones, relative to the larger of 1 and |x|; an element's result does not
 * depend on where it lies. */
#include "model/grad_parts.h"

#include "base/ck.h"

#include <string.h>

enum { LANES = 16 };

/* f(x) and f'(x) of 16 values. */
typedef struct act_lanes {
    float value[LANES], slope[LANES];
} act_lanes;

/* x = e^x for x <= 0: 2^n times a polynomial on |r| <= ln 2 / 2 (Cody and Waite 1980, chapter 6;
 * coefficients of the Taylor series, whose rest is below 2e-8). Below e^-87 it is 0 or nearly. */
static void exp_lanes(float x[restrict LANES])
{
    const float shifter = 12582912.0F; /* 1.5 * 2^23: adding it rounds to an integer */
    float rounded[LANES], power[LANES];
    uint32_t bits[LANES];
    for (size_t i = 0; i < LANES; i++) {
        float v = x[i] < -87.0F ? -87.0F : x[i];
        rounded[i] = v * 1.44269504F + shifter;
        float n = rounded[i] - shifter;
        float r = v - n * 0.693359375F + n * 2.12194440e-4F;
        float p = 1.98412698e-4F;
        p = p * r + 1.38888889e-3F;
        p = p * r + 8.33333333e-3F;
        p = p * r + 4.16666667e-2F;
        p = p * r + 1.66666667e-1F;
        p = p * r + 0.5F;
        x[i] = (p * r) * r + r + 1.0F;
    }
    memcpy(bits, rounded, sizeof(bits));
    for (size_t i = 0; i < LANES; i++)
        bits[i] = (bits[i] + 127U) << 23; /* the integer's low bits end the mantissa */
    memcpy(power, bits, sizeof(power));
    for (size_t i = 0; i < LANES; i++)
        x[i] *= power[i];
}

/* f = x s(u), f' = s + x s (1 - s) u' with the logistic s; e = e^-|u|, so nothing cancels. */
static void sigmoid_lanes(act_lanes *restrict out, const float x[restrict LANES],
                          const float u[restrict LANES], const float du[restrict LANES])
{
    float e[LANES];
    for (size_t i = 0; i < LANES; i++)
        e[i] = u[i] > 0.0F ? -u[i] : u[i];
    exp_lanes(e);
    for (size_t i = 0; i < LANES; i++) {
        float inverse = 1.0F / (1.0F + e[i]);
        float s = u[i] > 0.0F ? inverse : e[i] * inverse;
        out->value[i] = x[i] * s;
        out->slope[i] = s + x[i] * du[i] * (e[i] * inverse * inverse);
    }
}

/* x sigma(b x): SiLU with b = 1, quick GELU with b = 1.702 */
static void silu_lanes(act_lanes *restrict out, const float x[restrict LANES], float b)
{
    float u[LANES], du[LANES];
    for (size_t i = 0; i < LANES; i++) {
        u[i] = b * x[i];
        du[i] = b;
    }
    sigmoid_lanes(out, x, u, du);
}

/* (1 + tanh v) / 2 = sigma(2 v), v = sqrt(2/pi) (x + 0.044715 x^3). From |x| = 12 on the tails are
 * gone; there the cube must not overflow. */
static void gelu_tanh_lanes(act_lanes *restrict out, const float x[restrict LANES])
{
    float u[LANES], du[LANES];
    for (size_t i = 0; i < LANES; i++) {
        float v = x[i] > 12.0F ? 12.0F : x[i];
        v = v < -12.0F ? -12.0F : v;
        u[i] = v * (1.59576912F + 0.0713548163F * (v * v));
        du[i] = 1.59576912F + 0.214064449F * (v * v);
    }
    sigmoid_lanes(out, x, u, du);
}

/* f = x P(x), f' = P + x p(x) with the normal distribution P and its density p. The tail is
 * Abramowitz and Stegun 1964, 7.1.26: error below 1.5e-7. */
static void gelu_lanes(act_lanes *restrict out, const float x[restrict LANES])
{
    float e[LANES];
    for (size_t i = 0; i < LANES; i++)
        e[i] = -0.5F * x[i] * x[i];
    exp_lanes(e);
    for (size_t i = 0; i < LANES; i++) {
        float z = (x[i] < 0.0F ? -x[i] : x[i]) * 0.707106781F;
        float t = 1.0F / (1.0F + 0.3275911F * z);
        float p = 1.061405429F;
        p = p * t - 1.453152027F;
        p = p * t + 1.421413741F;
        p = p * t - 0.284496736F;
        p = p * t + 0.254829592F;
        float tail = 0.5F * (p * t) * e[i];
        float whole = x[i] < 0.0F ? tail : 1.0F - tail;
        out->value[i] = x[i] * whole;
        out->slope[i] = whole + x[i] * 0.398942280F * e[i];
    }
}

static void relu_lanes(act_lanes *restrict out, const float x[restrict LANES])
{
    for (size_t i = 0; i < LANES; i++) {
        out->value[i] = x[i] < 0.0F ? 0.0F : x[i];
        out->slope[i] = x[i] > 0.0F ? 1.0F : x[i] * 0.0F; /* what is no number stays so */
    }
}

/* |tanh x| = (1 - e) / (1 + e), 1 - tanh^2 x = 4 e / (1 + e)^2 with e = e^-2|x| */
static void tanh_lanes(act_lanes *restrict out, const float x[restrict LANES])
{
    float e[LANES];
    for (size_t i = 0; i < LANES; i++)
        e[i] = x[i] > 0.0F ? -2.0F * x[i] : 2.0F * x[i];
    exp_lanes(e);
    for (size_t i = 0; i < LANES; i++) {
        float inverse = 1.0F / (1.0F + e[i]);
        float size = (1.0F - e[i]) * inverse;
        out->value[i] = x[i] < 0.0F ? -size : size;
        out->slope[i] = 4.0F * e[i] * inverse * inverse;
    }
}

static void act_lanes_run(sfq_activation kind, act_lanes *restrict out,
                          const float x[restrict LANES])
{
    switch (kind) {
    case SFQ_ACT_SILU:
        silu_lanes(out, x, 1.0F);
        break;
    case SFQ_ACT_GELU:
        gelu_lanes(out, x);
        break;
    case SFQ_ACT_GELU_TANH:
        gelu_tanh_lanes(out, x);
        break;
    case SFQ_ACT_RELU:
        relu_lanes(out, x);
        break;
    case SFQ_ACT_TANH:
        tanh_lanes(out, x);
        break;
    default:
        silu_lanes(out, x, 1.702F);
        break;
    }
}

/* f at up to 16 values; behind a tail zeros are taken. */
static void act_at(sfq_activation kind, act_lanes *f, const float *x, size_t n)
{
    float tail[LANES] = {0};
    if (n < LANES) {
        memcpy(tail, x, n * sizeof(float));
        x = tail;
    }
    act_lanes_run(kind, f, x);
}

void sfq_act_grad(sfq_activation kind, float *d, const float *pre, size_t n)
{
    act_lanes f;
    for (size_t i = 0; i < n; i += LANES) {
        size_t m = sfq_min_size(LANES, n - i);
        act_at(kind, &f, pre + i, m);
        for (size_t j = 0; j < m; j++)
            d[i + j] *= f.slope[j];
    }
}

void sfq_act_mul_grad(sfq_activation kind, const float *gate, const float *up, const float *d_h,
                      float *d_gate, float *d_up, size_t n)
{
    act_lanes f;
    for (size_t i = 0; i < n; i += LANES) {
        size_t m = sfq_min_size(LANES, n - i);
        act_at(kind, &f, gate + i, m);
        for (size_t j = 0; j < m; j++) {
            float d = d_h[i + j], times = up[i + j]; /* d_gate or d_up may be d_h */
            d_gate[i + j] = d * times * f.slope[j];
            d_up[i + j] = d * f.value[j];
        }
    }
}
