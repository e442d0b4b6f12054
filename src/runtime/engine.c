/* runtime/engine.c - opening a model: every part in the order in which each proves the next one's
 * premises, and whether the machine has the memory before any of it is taken. Weights are mapped,
 * not read: what must fit is the engine's own memory; weights that do not fit beside it are only
 * slow, which the log says. */
#include "runtime/engine.h"

#include "base/ck.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "runtime/batch.h"
#include "runtime/tokenize.h"

#include <stdio.h>
#include <string.h>

/* ---- memory ---------------------------------------------------------------------------------- */

static uint64_t module_copies(const sfq_engine *e, const sfq_module *m)
{
    const sfq_packed_spec *spec = m->packed ? sfq_artifact_find(e->artifact, m->name) : NULL;
    const sfq_tensor *bias = m->bias ? sfq_module_bias(m, e->ck) : NULL;
    const sfq_tensor *weight = sfq_module_weight(m, e->ck);
    uint64_t bytes = bias != NULL ? sizeof(float) * bias->count : 0;
    if (spec != NULL)
        return bytes + sizeof(float) * sfq_cluster_scales(&spec->cluster);
    if (weight == NULL)
        return bytes;
    if (!sfq_role_is_matrix(m->role))
        return bytes + sizeof(float) * weight->count;
    bool aligned = (uintptr_t)weight->data % sfq_dtype_info(weight->dtype)->bytes == 0;
    return bytes + (m->transposed || !aligned ? weight->bytes : 0);
}

uint64_t sfq_engine_copies(const sfq_engine *e)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < e->modules->count; i++)
        bytes += module_copies(e, &e->modules->items[i]);
    for (size_t i = 0; i < sfq_checkpoint_count(e->ck); i++) {
        const sfq_tensor *t = sfq_checkpoint_at(e->ck, i); /* codes of a foreign writer */
        if (t->dtype == SFQ_U8 && (uintptr_t)t->data % 64 != 0)
            bytes += t->bytes;
    }
    return bytes;
}

static sfq_status check_memory(const sfq_engine *e, bool copied, const sfq_hooks *hooks,
                               sfq_error *err)
{
    uint64_t available = sfq_memory_available();
    uint64_t weights = sfq_checkpoint_bytes(e->ck);
    uint64_t own = sfq_cap_add(sfq_engine_copies(e), copied ? weights : 0);
    if (own > available)
        return sfq_fail_at(err, SFQ_E_MEMORY, e->path, NULL,
                           "%s: opening needs %.1f MB of memory, %.1f MB are available", e->path,
                           (double)own / 1e6, (double)available / 1e6);
    if (weights > available)
        sfq_hooks_log(hooks, SFQ_LOG_WARNING,
                      "the weights take %.1f MB, %.1f MB of memory are available: they will be "
                      "read from disk again and again",
                      (double)weights / 1e6, (double)available / 1e6);
    return SFQ_OK;
}

sfq_status sfq_engine_need_memory(const sfq_engine *engine, uint64_t bytes, const char *what,
                                  sfq_error *err)
{
    uint64_t available = sfq_memory_available();
    if (bytes <= available)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_MEMORY, engine->path, NULL,
                       "%s needs %.1f MB of memory, %.1f MB are available; ask for fewer tokens "
                       "or sequences at a time",
                       what, (double)bytes / 1e6, (double)available / 1e6);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static sfq_status open_description(sfq_engine *e, const char *model, const sfq_hooks *hooks,
                                   sfq_error *err)
{
    SFQ_TRY(sfq_model_dir_resolve(&e->path, model, err));
    SFQ_TRY(sfq_hf_config_open(&e->config, e->path, err));
    SFQ_TRY(sfq_artifact_read(&e->artifact, e->config, err));
    SFQ_TRY(sfq_arch_open(&e->arch, e->config, e->artifact, e->path, err));
    SFQ_TRY(sfq_checkpoint_open(&e->ck, e->path, hooks, err));
    return sfq_modules_open(&e->modules, e->arch, e->ck, e->artifact, err);
}

/* A directory without tokenizer.json opens (it can be timed); a damaged one does not. */
static sfq_status open_tokenizer(sfq_engine *e, sfq_error *err)
{
    char *path = sfq_path_join(e->path, "tokenizer.json");
    if (path == NULL)
        return sfq_fail_memory(err, strlen(e->path), "path of the tokenizer");
    bool present = sfq_file_exists(path);
    sfq_status status = SFQ_OK;
    if (present)
        status = sfq_tokenizer_open(&e->tokenizer, e->path, err);
    if (status == SFQ_OK && present)
        status = sfq_tokenizer_fits(e->tokenizer, path, e->arch->vocab, err);
    sfq_mem_free(path);
    return status;
}

/* A dense model computes what Transformers does to 1e-4, which keys and values of 16 bits do not
 * allow (docs/KERNELS.md). */
static sfq_status choose_kv(sfq_engine *e, int bits, sfq_error *err)
{
    if (bits != 0 && bits != 8 && bits != 16 && bits != 32)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "kv_bits is %d, expected 8, 16, 32, or 0 for the default", bits);
    if (bits != 0 && !e->arch->causal)
        return sfq_fail_at(err, SFQ_E_ARGUMENT, e->path, NULL,
                           "%s keeps no keys and values (%s): leave kv_bits at its default",
                           e->path, e->arch->architecture);
    if (bits == 0)
        bits = e->artifact != NULL && e->arch->causal ? 16 : 32;
    e->kv = bits == 8 ? SFQ_I8 : bits == 16 ? SFQ_F16 : SFQ_F32;
    return SFQ_OK;
}

static sfq_status open_computing(sfq_engine *e, const sfq_model_options *o, sfq_error *err)
{
    sfq_isa cap = SFQ_ISA_COUNT;
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    e->kernels = sfq_kernels_get(cap);
    if (e->shape == NULL) {
        SFQ_TRY(open_tokenizer(e, err));
        SFQ_TRY(check_memory(e, o->huge_pages, &o->hooks, err));
        SFQ_TRY(sfq_pool_open(&e->pool, o->threads, err));
        if (o->huge_pages)
            SFQ_TRY(sfq_checkpoint_copy(e->ck, e->pool, &o->hooks, err));
    }
    SFQ_TRY(sfq_net_open(&e->net, e->arch, e->modules, e->ck, e->artifact, &o->hooks, err));
    SFQ_TRY(sfq_exec_open(&e->exec, e->net, e->kernels, e->pool, err));
    sfq_exec_free_order(e->exec);
    sfq_exec_set_kv(e->exec, e->kv);
    return SFQ_OK;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

/* "llama-1b@8", "llama-7b@8-40%" */
static sfq_status name_shape(sfq_engine *e, const sfq_bench_shape *o, sfq_error *err)
{
    size_t bytes = strlen(o->shape) + 32;
    e->path = sfq_mem_raw(bytes);
    if (e->path == NULL)
        return sfq_fail_memory(err, bytes, "the name of the shape");
    if (o->prune > 0)
        snprintf(e->path, bytes, "%s@%d-%.4g%%", o->shape, o->bits, 100 * o->prune);
    else
        snprintf(e->path, bytes, "%s@%d", o->shape, o->bits);
    return SFQ_OK;
}

static sfq_status make_weights(sfq_engine *e, const sfq_model_options *o, sfq_error *err)
{
    uint64_t need = sfq_shape_bytes(e->shape), available = sfq_memory_available();
    if (need > available)
        return sfq_fail_at(err, SFQ_E_MEMORY, e->path, NULL,
                           "%s: its weights take %.1f MB, %.1f MB of memory are available; take a "
                           "smaller shape or fewer bits",
                           e->path, (double)need / 1e6, (double)available / 1e6);
    SFQ_TRY(sfq_pool_open(&e->pool, o->threads, err));
    SFQ_TRY(sfq_shape_fill(e->shape, e->pool, &o->hooks, &e->ck, e->path, err));
    return sfq_modules_open(&e->modules, e->arch, e->ck, e->artifact, err);
}

sfq_status sfq_engine_open_shape(sfq_engine **out, const sfq_bench_shape *shape,
                                 const sfq_model_options *o, sfq_error *err)
{
    double begin = sfq_clock_seconds();
    sfq_status status = SFQ_OK;
    *out = NULL;
    sfq_engine *e = SFQ_NEW(sfq_engine);
    if (e == NULL)
        return sfq_fail_memory(err, sizeof(*e), "model");
    SFQ_DO(sfq_shape_open(&e->shape, shape, err));
    e->config = e->shape->config;
    e->arch = e->shape->arch;
    e->artifact = e->shape->artifact;
    SFQ_DO(name_shape(e, shape, err));
    SFQ_DO(choose_kv(e, o->kv_bits, err));
    if (!o->header_only) {
        SFQ_DO(make_weights(e, o, err));
        SFQ_DO(open_computing(e, o, err));
    }
    e->load_seconds = sfq_clock_seconds() - begin;
    *out = e;
    e = NULL;
done:
    sfq_engine_close(&e);
    return status;
}

/* ---- directories ----------------------------------------------------------------------------- */

sfq_status sfq_engine_open(sfq_engine **out, const char *model, const sfq_model_options *options,
                           sfq_error *err)
{
    static const sfq_model_options defaults = {.struct_size = sizeof(defaults)};
    const sfq_model_options *o = options != NULL ? options : &defaults;
    double begin = sfq_clock_seconds();
    sfq_status status = SFQ_OK;
    *out = NULL;
    sfq_engine *e = SFQ_NEW(sfq_engine);
    if (e == NULL)
        return sfq_fail_memory(err, sizeof(*e), "model");
    SFQ_DO(open_description(e, model, &o->hooks, err));
    SFQ_DO(choose_kv(e, o->kv_bits, err));
    if (o->verify)
        SFQ_DO(sfq_checkpoint_verify(e->ck, &o->hooks, err));
    if (!o->header_only)
        SFQ_DO(open_computing(e, o, err));
    e->load_seconds = sfq_clock_seconds() - begin;
    *out = e;
    e = NULL;
done:
    sfq_engine_close(&e);
    return status;
}

void sfq_engine_close(sfq_engine **engine)
{
    if (engine == NULL || *engine == NULL)
        return;
    sfq_engine *e = *engine;
    sfq_exec_close(&e->exec);
    sfq_pool_close(&e->pool);
    sfq_net_close(&e->net);
    sfq_tokenizer_close(&e->tokenizer);
    sfq_modules_close(&e->modules);
    sfq_checkpoint_close(&e->ck);
    if (e->shape == NULL) {
        sfq_arch_close(&e->arch);
        sfq_artifact_free(&e->artifact);
        sfq_hf_config_close(&e->config);
    }
    sfq_shape_close(&e->shape);
    sfq_mem_free(e->path);
    sfq_mem_free(e);
    *engine = NULL;
}

/* ---- what a call may ask of it --------------------------------------------------------------- */

sfq_status sfq_engine_need(const sfq_engine *engine, unsigned needs, sfq_error *err)
{
    const char *path = engine->path;
    if (engine->net == NULL)
        return sfq_fail_at(err, SFQ_E_ARGUMENT, path, NULL,
                           "the model was opened for its description only (header_only)");
    if ((needs & SFQ_NEED_TOKENIZER) != 0 && engine->tokenizer == NULL)
        return sfq_fail_at(err, SFQ_E_NOT_FOUND, path, NULL,
                           "%s has no tokenizer.json, so it cannot read text", path);
    if ((needs & SFQ_NEED_LM) != 0 && engine->arch->head != SFQ_MODEL_HEAD_LM)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, path, NULL, "%s is no language model (%s)", path,
                           engine->arch->architecture);
    return SFQ_OK;
}
