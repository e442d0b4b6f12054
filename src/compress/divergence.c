/* compress/divergence.c - Kullback and Leibler 1951, "On information and sufficiency"; with a
 * temperature: Hinton et al. 2015, "Distilling the knowledge in a neural network", section 2. */
#include "compress/divergence.h"

#include <math.h>

static double highest(const float *z, size_t n)
{
    float most = z[0];
    for (size_t i = 1; i < n; i++)
        most = z[i] > most ? z[i] : most;
    return (double)most;
}

/* sum p_t (log p_t - log p_s) = sum p_t (z_t - z_s) - log Z_t + log Z_s, so that equal logits give
 * 0 exactly. */
double sfq_divergence_logits(const float *teacher, const float *student, size_t n,
                             double temperature, double weight, float *gradient)
{
    const double t_high = highest(teacher, n), s_high = highest(student, n);
    const double cold = 1 / temperature;
    double t_sum = 0, s_sum = 0, gap = 0;
    for (size_t i = 0; i < n; i++) {
        double zt = ((double)teacher[i] - t_high) * cold;
        double zs = ((double)student[i] - s_high) * cold;
        double p = exp(zt);
        t_sum += p;
        s_sum += exp(zs);
        gap += p * (zt - zs);
    }
    const float t_log = (float)(t_high * cold + log(t_sum));
    const float s_log = (float)(s_high * cold + log(s_sum));
    for (size_t i = 0; gradient != NULL && i < n; i++)
        gradient[i] = (float)weight * (expf(student[i] * (float)cold - s_log) -
                                       expf(teacher[i] * (float)cold - t_log));
    return gap / t_sum + log(s_sum / t_sum);
}

size_t sfq_divergence_width(const sfq_arch *arch)
{
    return (size_t)(arch->head == SFQ_MODEL_HEAD_EMBEDDING ? arch->hidden : arch->labels);
}

/* sum (s - t)^2 times scale. */
static double squares(const float *teacher, const float *student, size_t n, double scale,
                      double weight, float *gradient)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)student[i] - (double)teacher[i];
        sum += d * d;
        if (gradient != NULL)
            gradient[i] = (float)(2 * weight * scale * d);
    }
    return sum * scale;
}

static double length_scale(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum > 0 ? 1 / sum : 1;
}

double sfq_divergence_answers(const sfq_arch *arch, const float *teacher, const float *student,
                              size_t count, double temperature, float *gradient)
{
    const size_t n = sfq_divergence_width(arch);
    const double mean = 1 / (double)count, t = temperature;
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const float *a = teacher + i * n, *b = student + i * n;
        float *d = gradient != NULL ? gradient + i * n : NULL;
        if (arch->head == SFQ_MODEL_HEAD_CLASSIFIER)
            sum += t * t * sfq_divergence_logits(a, b, n, t, mean * t, d);
        else if (arch->head == SFQ_MODEL_HEAD_REGRESSION)
            sum += squares(a, b, n, 1 / (double)n, mean, d);
        else
            sum += squares(a, b, n, length_scale(a, n), mean, d);
    }
    return sum * mean;
}
