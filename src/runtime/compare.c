/* runtime/compare.c - see compare.h. Sums run in index order, so threads cannot change them. */
#include "runtime/compare.h"

#include <math.h>
#include <stdlib.h>

size_t sfq_argmax(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

double sfq_log_sum_exp(const float *x, size_t n)
{
    double largest = (double)x[sfq_argmax(x, n)], sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - largest);
    return largest + log(sum);
}

double sfq_kl_divergence(const float *reference, const float *other, size_t n)
{
    double lr = sfq_log_sum_exp(reference, n), lo = sfq_log_sum_exp(other, n), sum = 0;
    for (size_t i = 0; i < n; i++) {
        double log_r = (double)reference[i] - lr, log_o = (double)other[i] - lo;
        double share = exp(log_r);
        if (share != 0) /* 0 log 0 = 0, also where a logit is -inf */
            sum += share * (log_r - log_o);
    }
    return sum > 0 || isnan(sum) ? sum : 0; /* rounding may leave -1e-17 for equal rows */
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double sfq_quantile(double *values, size_t n, double q)
{
    qsort(values, n, sizeof(*values), compare_doubles);
    double at = q * (double)(n - 1);
    size_t below = (size_t)at;
    if (below + 1 >= n)
        return values[n - 1];
    return values[below] + (at - (double)below) * (values[below + 1] - values[below]);
}

sfq_status sfq_compare_finish(double *kl, const unsigned char *same, size_t n, sfq_eval_result *out,
                              sfq_error *err)
{
    double sum = 0;
    uint64_t equal = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(kl[i]))
            return sfq_fail(err, SFQ_E_NUMERIC,
                            "answer %zu of the reference is not a number; `sfq inspect --verify` "
                            "looks for the tensor",
                            i + 1);
        sum += kl[i];
        equal += same[i];
    }
    out->compared = true;
    out->kl_mean = sum / (double)n;
    out->kl_p999 = sfq_quantile(kl, n, 0.999);
    out->same_top1 = (double)equal / (double)n;
    out->flips = n - equal;
    return SFQ_OK;
}
