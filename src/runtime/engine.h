/* runtime/engine.h - everything of an open model in one place: directory, config, weights, tokenizer,
 * kernels, threads. Behind sfq_model of the public API. */
#ifndef SFQ_RUNTIME_ENGINE_H
#define SFQ_RUNTIME_ENGINE_H

#include "model/forward.h"
#include "text/tokenizer.h"

#include <sfq/session.h>

typedef struct sfq_engine {
    char *path;
    sfq_hf_config *config;
    sfq_artifact_info *artifact; /* NULL: dense */
    sfq_checkpoint *ck;
    sfq_arch *arch;
    sfq_modules *modules;
    sfq_net *net;              /* NULL when opened header_only */
    sfq_tokenizer *tokenizer;  /* NULL: header_only, or opened without one */
    sfq_pool *pool;
    const sfq_kernels *kernels;
    sfq_exec *exec;
    double load_seconds;
} sfq_engine;

/* A tokenizer whose ids reach beyond the word table is FORMAT. */
sfq_status sfq_engine_open(sfq_engine **out, const char *model, const sfq_model_options *options,
                           sfq_error *err);
void sfq_engine_close(sfq_engine **engine);
sfq_status sfq_engine_info(const sfq_engine *engine, sfq_model_info *out, sfq_error *err);
sfq_status sfq_engine_layer(const sfq_engine *engine, int layer, sfq_layer_info *out,
                            sfq_error *err);

#endif
