/* runtime/engine.h - everything of an open model in one place: directory, config, weights,
 * tokenizer, kernels, threads. Behind sfq_model of the public API. */
#ifndef SFQ_RUNTIME_ENGINE_H
#define SFQ_RUNTIME_ENGINE_H

#include "model/forward.h"
#include "runtime/shape.h"
#include "text/tokenizer.h"

#include <sfq/session.h>

typedef struct sfq_engine {
    char *path;             /* of the directory; of a shape its name and bits */
    sfq_shape_model *shape; /* owns config, artifact and arch of a shape; else NULL */
    sfq_hf_config *config;
    sfq_artifact_info *artifact; /* NULL: dense */
    sfq_checkpoint *ck;
    sfq_arch *arch;
    sfq_modules *modules;
    sfq_net *net;             /* NULL when opened header_only */
    sfq_tokenizer *tokenizer; /* NULL: header_only, or a directory without one */
    sfq_pool *pool;
    const sfq_kernels *kernels;
    sfq_exec *exec;
    sfq_dtype kv; /* how keys and values are kept, known without weights too */
    double load_seconds;
} sfq_engine;

/* A tokenizer whose ids reach beyond the word table is FORMAT. options NULL: the defaults. */
sfq_status sfq_engine_open(sfq_engine **out, const char *model, const sfq_model_options *options,
                           sfq_error *err);
/* The same for a shape with random weights. header_only: config, arch and shape alone. MEMORY names
 * the bytes that are missing, before any are taken. */
sfq_status sfq_engine_open_shape(sfq_engine **out, const sfq_bench_shape *shape,
                                 const sfq_model_options *options, sfq_error *err);
void sfq_engine_close(sfq_engine **engine);
sfq_status sfq_engine_info(const sfq_engine *engine, sfq_model_info *out, sfq_error *err);
sfq_status sfq_engine_layer(const sfq_engine *engine, int layer, sfq_layer_info *out,
                            sfq_error *err);

/* What a call needs beside the weights. ARGUMENT for header_only, NOT_FOUND without tokenizer,
 * UNSUPPORTED for another head. */
enum { SFQ_NEED_WEIGHTS = 0, SFQ_NEED_TOKENIZER = 1, SFQ_NEED_LM = 2 };
sfq_status sfq_engine_need(const sfq_engine *engine, unsigned needs, sfq_error *err);
/* Bytes of file data that the net copies: GPT-2's transposed matrices, what a foreign writer did
 * not align, and what becomes float: scales, norms, biases. */
uint64_t sfq_engine_copies(const sfq_engine *engine);
/* MEMORY when `bytes` more than are available. */
sfq_status sfq_engine_need_memory(const sfq_engine *engine, uint64_t bytes, const char *what,
                                  sfq_error *err);

#endif
