/* runtime/eval.h - accuracy on tasks, perplexity on text, and the distance between two models, by
 * the protocol of DESIGN.md section 7. */
#ifndef SFQ_RUNTIME_EVAL_H
#define SFQ_RUNTIME_EVAL_H

#include "runtime/engine.h"

sfq_status sfq_engine_evaluate(sfq_engine *engine, sfq_engine *against,
                               const sfq_eval_options *options, sfq_eval_result *out,
                               sfq_error *err);

#endif
