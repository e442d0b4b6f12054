/* runtime/compare.h - how far one model's answers are from another's: one row of logits against one
 * row of the reference's. All in double, log-sum-exp around the largest logit, natural log. */
#ifndef SFQ_RUNTIME_COMPARE_H
#define SFQ_RUNTIME_COMPARE_H

#include "base/status.h"

#include <sfq/session.h>

/* log(sum(exp(x))) */
double sfq_log_sum_exp(const float *x, size_t n);
/* Index of the largest, ties to the lowest. */
size_t sfq_argmax(const float *x, size_t n);
/* KL(reference || other) of the two softmax distributions; at least 0. */
double sfq_kl_divergence(const float *reference, const float *other, size_t n);
/* The q-quantile (0..1) with linear interpolation between order statistics (the default of NumPy).
 * Sorts values. n > 0. */
double sfq_quantile(double *values, size_t n, double q);

/* Sums up what was gathered per token or example: kl [n] (sorted afterwards), same [n]. NUMERIC for
 * a distance that is not a number. */
sfq_status sfq_compare_finish(double *kl, const unsigned char *same, size_t n, sfq_eval_result *out,
                              sfq_error *err);

#endif
