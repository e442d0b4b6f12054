/* runtime/generate.h - text in, text out. */
#ifndef SFQ_RUNTIME_GENERATE_H
#define SFQ_RUNTIME_GENERATE_H

#include "runtime/engine.h"

/* As the public sfq_generator_*; options are copied, what they point to is not. */
sfq_status sfq_engine_generator(sfq_generator **out, sfq_engine *engine, const char *prompt,
                                size_t bytes, const sfq_generate_options *options, sfq_error *err);
sfq_status sfq_generator_step(sfq_generator *g, const char **piece, size_t *bytes, sfq_error *err);
/* On failure *out is partly filled, for sfq_generation_clear. */
sfq_status sfq_generator_copy(const sfq_generator *g, sfq_generation *out, sfq_error *err);
void sfq_generator_free(sfq_generator **generator);

/* options must not be NULL. On failure *out is empty. */
sfq_status sfq_engine_generate(sfq_engine *engine, const char *prompt, size_t bytes,
                               const sfq_generate_options *options, sfq_generation *out,
                               sfq_error *err);

#endif
