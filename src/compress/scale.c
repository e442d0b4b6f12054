/* compress/scale.c - the search for a cluster's scale.
 *
 * Codes are full-range symmetric: q in [-2^(b-1), 2^(b-1)-1], and the scale is signed, so that the
 * long side of the range can serve whichever sign the cluster leans to. For a scale s the best
 * codes are q = clamp(rint(w/s)); for codes q the best scale is the least-squares one,
 *     s = sum omega w q / sum omega q^2,
 * (M9 of the method notes; the alternation is Lloyd's, "Least squares quantization in PCM", 1982).
 * The error over s is rough - each s rounds every weight anew - so a grid finds the valley and the
 * alternation its bottom. The grid counts t = max|w| / s, the steps that the largest weight is
 * long: steps of t move the small weights' rounding by less than one code.
 *
 * A candidate is judged as it will be stored (rounded to F16 or F32). The inner loop works on 16
 * independent lanes that are added in one fixed order: the result does not depend on the vector
 * width that the compiler has. */
#include "compress/scale.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { LANES = 16, MAX_REFITS = 12 };

/* Adding and subtracting 1.5 * 2^23 rounds |x| < 2^22 to the nearest integer, ties to even. */
#define ROUNDER 12582912.0F

/* Grid over t, both ends relative to 2^(bits-1): heavier tails and fewer bits clip more. */
typedef struct grid_shape {
    float first, last, step;
} grid_shape;

static const grid_shape grids[9] = {
    [2] = {0.45F, 4.0F, 0.125F},    [3] = {0.70F, 3.0F, 0.25F},   [4] = {0.80F, 2.2F, 0.375F},
    [5] = {0.90F, 1.7F, 0.5F},      [6] = {0.9375F, 1.35F, 0.5F}, [7] = {0.96875F, 1.15F, 0.5F},
    [8] = {0.984375F, 1.07F, 0.5F},
};

typedef struct cluster_view {
    const float *w;     /* [padded], scaled by a power of two so that max|w| is in [1, 2) */
    const float *omega; /* [padded] or NULL */
    size_t padded;      /* multiple of LANES; padding is 0 */
    float lo, hi;
    sfq_dtype dtype;
    int exponent; /* w = true weight * 2^-exponent */
} cluster_view;

typedef struct fit {
    double error, wq, qq; /* sums of omega * (w - s q)^2, omega w q, omega q^2 */
} fit;

typedef struct best_scale {
    double error;
    float scale;
} best_scale;

size_t sfq_scale_scratch(size_t count)
{
    return 2 * ((count + LANES - 1) / LANES * LANES);
}

static double add_lanes(const float lanes[LANES])
{
    double sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += (double)lanes[i];
    return sum;
}

/* One pass over the cluster. `weighted` is a constant where this is inlined, so that the loop
 * without weights does not multiply by them. */
static inline __attribute__((always_inline)) void fit_with(fit *out, const cluster_view *v,
                                                           float scale, const bool weighted)
{
    const float inverse = 1.0F / scale;
    const float lo = v->lo;
    const float hi = v->hi;
    float error[LANES] = {0};
    float wq[LANES] = {0};
    float qq[LANES] = {0};
    for (size_t i = 0; i < v->padded; i += LANES) {
        const float *w = v->w + i;
        const float *omega = weighted ? v->omega + i : NULL;
        for (int j = 0; j < LANES; j++) {
            float q = w[j] * inverse;
            q = q < lo ? lo : q;
            q = q > hi ? hi : q;
            q = (q + ROUNDER) - ROUNDER;
            float e = w[j] - scale * q;
            error[j] += weighted ? omega[j] * (e * e) : e * e;
            wq[j] += weighted ? omega[j] * (w[j] * q) : w[j] * q;
            qq[j] += weighted ? omega[j] * (q * q) : q * q;
        }
    }
    *out = (fit){add_lanes(error), add_lanes(wq), add_lanes(qq)};
}

static void fit_scale(fit *out, const cluster_view *v, float scale)
{
    if (v->omega != NULL)
        fit_with(out, v, scale, true);
    else
        fit_with(out, v, scale, false);
}

/* The scale of the true weights as the file holds it; 0 when it cannot be held. */
static float stored_scale(const cluster_view *v, float scale)
{
    float s = ldexpf(scale, v->exponent);
    if (v->dtype == SFQ_F16)
        s = sfq_f16_to_f32(sfq_f32_to_f16(s));
    return isfinite(s) && fabsf(s) >= FLT_MIN ? s : 0.0F;
}

/* Judges one candidate; true when it beat the best. */
static bool judge(best_scale *best, fit *f, const cluster_view *v, float scale)
{
    float stored = stored_scale(v, scale);
    if (stored == 0.0F)
        return false;
    fit_scale(f, v, ldexpf(stored, -v->exponent));
    if (!(f->error < best->error))
        return false;
    *best = (best_scale){f->error, stored};
    return true;
}

/* The grid for one sign, then codes and scale in turn until nothing improves. */
static void search_sign(best_scale *best, const cluster_view *v, float max_abs, int bits,
                        float sign)
{
    const float half = (float)(1 << (bits - 1));
    const grid_shape g = grids[bits];
    best_scale mine = {HUGE_VAL, 0};
    fit at_best = {0};
    fit f;
    int first = (int)ceilf((g.first - 1.0F) * half / g.step);
    int last = (int)floorf((g.last - 1.0F) * half / g.step);
    for (int i = first; i <= last; i++)
        if (judge(&mine, &f, v, sign * (max_abs / (half + (float)i * g.step))))
            at_best = f;
    /* half the range: exact where the weights are multiples of max/2^(b-2) of both signs */
    if (judge(&mine, &f, v, sign * (max_abs / (half / 2))))
        at_best = f;
    for (int i = 0; i < MAX_REFITS && mine.scale != 0.0F && at_best.qq > 0; i++) {
        float refit = (float)(at_best.wq / at_best.qq);
        if (refit == 0.0F || !judge(&mine, &f, v, refit))
            break;
        at_best = f;
    }
    if (mine.error < best->error)
        *best = mine;
}

/* Copies the cluster into scratch, scaled by a power of two (exact, and no sum can overflow). */
static void make_view(cluster_view *v, const sfq_scale_input *in, float *scratch, float max_abs)
{
    size_t padded = sfq_scale_scratch(in->count) / 2;
    *v = (cluster_view){.w = scratch,
                        .padded = padded,
                        .lo = -(float)(1 << (in->bits - 1)),
                        .hi = (float)((1 << (in->bits - 1)) - 1),
                        .dtype = in->dtype,
                        .exponent = ilogbf(max_abs)};
    /* two factors: 2^-exponent alone may not be a float */
    float a = ldexpf(1.0F, -v->exponent / 2);
    float b = ldexpf(1.0F, -v->exponent - -v->exponent / 2);
    for (size_t i = 0; i < in->count; i++)
        scratch[i] = in->w[i] * a * b;
    memset(scratch + in->count, 0, (padded - in->count) * sizeof *scratch);
    if (in->omega == NULL)
        return;
    float *omega = scratch + padded;
    memcpy(omega, in->omega, in->count * sizeof *omega);
    memset(omega + in->count, 0, (padded - in->count) * sizeof *omega);
    v->omega = omega;
}

static float max_magnitude(const float *w, size_t count)
{
    float m = 0;
    for (size_t i = 0; i < count; i++) {
        float a = fabsf(w[i]);
        m = a > m ? a : m;
    }
    return m;
}

float sfq_scale_search(const sfq_scale_input *in, float *scratch, double *error)
{
    float max_abs = max_magnitude(in->w, in->count);
    best_scale best = {HUGE_VAL, 0};
    if (max_abs > 0) {
        cluster_view v;
        make_view(&v, in, scratch, max_abs);
        float m = ldexpf(max_abs, -v.exponent);
        search_sign(&best, &v, m, in->bits, 1.0F);
        search_sign(&best, &v, m, in->bits, -1.0F);
    }
    /* zeros, or weights so small that no scale can be stored: they become zeros */
    float scale = best.scale != 0.0F ? best.scale : 1.0F;
    if (error != NULL)
        *error = sfq_scale_error(in, scale);
    return scale;
}

void sfq_scale_codes(uint8_t *codes, const float *w, size_t count, float scale, int bits)
{
    const float lo = -(float)(1 << (bits - 1));
    const float hi = (float)((1 << (bits - 1)) - 1);
    for (size_t i = 0; i < count; i++) {
        float q = w[i] / scale;
        q = q < lo ? lo : q;
        q = q > hi ? hi : q;
        q = (q + ROUNDER) - ROUNDER;
        codes[i] = (uint8_t)(int)(q - lo);
    }
}

double sfq_scale_error(const sfq_scale_input *in, float scale)
{
    const int zero = 1 << (in->bits - 1);
    double sum = 0;
    for (size_t i = 0; i < in->count; i++) {
        uint8_t code;
        sfq_scale_codes(&code, in->w + i, 1, scale, in->bits);
        double e = (double)in->w[i] - (double)(scale * (float)(code - zero));
        sum += (in->omega != NULL ? (double)in->omega[i] : 1.0) * e * e;
    }
    return sum;
}

bool sfq_scale_fits_f16(float max_abs, int bits)
{
    const float half = (float)(1 << (bits - 1));
    if (max_abs == 0.0F)
        return true;
    return max_abs / half >= 0x1p-14F && max_abs / (half - 1.0F) <= 65504.0F;
}
