/* runtime/classify.h - labels and vectors of texts. */
#ifndef SFQ_RUNTIME_CLASSIFY_H
#define SFQ_RUNTIME_CLASSIFY_H

#include "runtime/engine.h"

/* Raw outputs of the head (before softmax): out [count, labels]. UNSUPPORTED without a head. */
sfq_status sfq_engine_label_logits(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                                   size_t max_sequences, const sfq_hooks *hooks, float *out,
                                   sfq_error *err);
/* Probabilities of a classifier, raw values of a regression head. */
sfq_status sfq_engine_classify(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                               float *scores, sfq_error *err);
/* Mean-pooled vectors: out [count, C]. */
sfq_status sfq_engine_embed(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                            size_t max_sequences, const sfq_hooks *hooks, float *out,
                            sfq_error *err);

#endif
