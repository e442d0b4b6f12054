/* model/rope.c - rotary position embeddings (Su et al. 2021, "RoFormer") with the four kinds of
 * frequencies that Transformers 5 calls default, linear, llama3 and yarn (Peng et al. 2023,
 * "YaRN"). Every step is rounded to float where torch rounds: an inverse frequency that differs in
 * its last bit turns into a visible angle at positions beyond 100,000. */
#include "model/arch.h"

#include <math.h>

static const double sfq_pi = 3.14159265358979323846;

/* Eq. 17 of YaRN solved for the dimension that turns `rotations` times over the trained context. */
static double sfq_yarn_dim(double rotations, double dim, double theta, double positions)
{
    return dim * log(positions / (rotations * 2.0 * sfq_pi)) / (2.0 * log(theta));
}

static double sfq_yarn_mscale(double scale, double mscale)
{
    return scale <= 1.0 ? 1.0 : 0.1 * mscale * log(scale) + 1.0;
}

static float sfq_yarn_factor(const sfq_rope_config *r)
{
    if (r->attention_factor > 0)
        return (float)r->attention_factor;
    if (r->mscale != 0 && r->mscale_all_dim != 0)
        return (float)(sfq_yarn_mscale(r->factor, r->mscale) /
                       sfq_yarn_mscale(r->factor, r->mscale_all_dim));
    return (float)sfq_yarn_mscale(r->factor, 1.0);
}

static void sfq_yarn_frequencies(const sfq_rope_config *r, size_t dims, const float *theta_power,
                                 float *inv_freq)
{
    double low = sfq_yarn_dim(r->beta_fast, (double)dims, r->theta, r->original_max_positions);
    double high = sfq_yarn_dim(r->beta_slow, (double)dims, r->theta, r->original_max_positions);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < (double)(dims - 1) ? high : (double)(dims - 1);
    if (low == high)
        high += 0.001;
    for (size_t i = 0; i < dims / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float keep = 1.0f - ramp; /* share of the unscaled frequency */
        float inter = 1.0f / ((float)r->factor * theta_power[i]);
        float extra = 1.0f / theta_power[i];
        inv_freq[i] = inter * (1.0f - keep) + extra * keep;
    }
}

static float sfq_llama3_frequency(const sfq_rope_config *r, float f)
{
    float factor = (float)r->factor;
    double low_wavelen = r->original_max_positions / r->low_freq_factor;
    double high_wavelen = r->original_max_positions / r->high_freq_factor;
    /* torch divides a number by a tensor as reciprocal times number */
    float wavelen = (1.0f / f) * (float)(2.0 * sfq_pi);
    if (wavelen < (float)high_wavelen)
        return f;
    if (wavelen > (float)low_wavelen)
        return f / factor;
    float turns = (1.0f / wavelen) * (float)r->original_max_positions;
    float smooth =
        (turns - (float)r->low_freq_factor) / (float)(r->high_freq_factor - r->low_freq_factor);
    return (1.0f - smooth) * f / factor + smooth * f;
}

void sfq_rope_frequencies(const sfq_arch *arch, float *inv_freq, float *factor)
{
    const sfq_rope_config *r = &arch->rope;
    size_t dims = (size_t)arch->rope_dims;
    *factor = 1.0f;
    /* inv_freq holds theta^(2i/dims) first */
    for (size_t i = 0; i < dims / 2; i++)
        inv_freq[i] = (float)pow((double)(float)r->theta, (double)((float)(2 * i) / (float)dims));
    if (r->kind == SFQ_ROPE_YARN) {
        *factor = sfq_yarn_factor(r);
        sfq_yarn_frequencies(r, dims, inv_freq, inv_freq);
        return;
    }
    for (size_t i = 0; i < dims / 2; i++) {
        float f = 1.0f / inv_freq[i];
        if (r->kind == SFQ_ROPE_LINEAR)
            f /= (float)r->factor;
        else if (r->kind == SFQ_ROPE_LLAMA3)
            f = sfq_llama3_frequency(r, f);
        inv_freq[i] = f;
    }
}

void sfq_rope_angles(const float *inv_freq, float factor, size_t half, size_t position, float *cos,
                     float *sin)
{
    float at = (float)position;
    for (size_t i = 0; i < half; i++) {
        float angle = at * inv_freq[i];
        cos[i] = cosf(angle) * factor;
        sin[i] = sinf(angle) * factor;
    }
}
