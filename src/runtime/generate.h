/* runtime/generate.h - text in, text out. */
#ifndef SFQ_RUNTIME_GENERATE_H
#define SFQ_RUNTIME_GENERATE_H

#include "runtime/engine.h"

/* options must not be NULL. On failure *out is empty. */
sfq_status sfq_engine_generate(sfq_engine *engine, const char *prompt, size_t bytes,
                               const sfq_generate_options *options, sfq_generation *out,
                               sfq_error *err);

#endif
