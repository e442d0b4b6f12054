/* runtime/sampler.h - from logits to a token: a function of logits, options, seed and position, and
 * of nothing that happened before. */
#ifndef SFQ_RUNTIME_SAMPLER_H
#define SFQ_RUNTIME_SAMPLER_H

#include "base/status.h"

#include <sfq/session.h>

typedef struct sfq_candidate {
    double weight; /* exp(logit / temperature - the largest): not normalised */
    int32_t id;
} sfq_candidate;

/* Ties go to the lowest id. NUMERIC when a logit is NaN. */
sfq_status sfq_sample_greedy(const float *logits, size_t vocab, int32_t *token, sfq_error *err);
/* Temperature, then the top_k largest, then the least set of these whose share reaches top_p, then
 * one draw. scratch [vocab]. Options are checked by sfq_sampling_check. */
sfq_status sfq_sample(const float *logits, size_t vocab, const sfq_sampling *sampling, int position,
                      sfq_candidate *scratch, int32_t *token, sfq_error *err);
/* ARGUMENT names the option that is out of range. */
sfq_status sfq_sampling_check(const sfq_sampling *sampling, sfq_error *err);

#endif
