/* runtime/eval_parts.h - the two halves of evaluation, for eval.c. */
#ifndef SFQ_RUNTIME_EVAL_PARTS_H
#define SFQ_RUNTIME_EVAL_PARTS_H

#include "runtime/engine.h"

sfq_status sfq_eval_texts(sfq_engine *engine, sfq_engine *against, const sfq_eval_options *options,
                          sfq_eval_result *out, sfq_error *err);
sfq_status sfq_eval_task(sfq_engine *engine, sfq_engine *against, const sfq_eval_options *options,
                         sfq_eval_result *out, sfq_error *err);

#endif
