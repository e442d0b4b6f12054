/* runtime/info.c - the numbers that describe a model: what is stored, what it was, what a token
 * costs. They come from the list of modules and the files, so they need no weights in memory. */
#include "runtime/engine.h"

/* Elements of a module as its matrix counts, padding not included. */
static uint64_t module_parameters(const sfq_module *m)
{
    uint64_t bias = m->bias ? (sfq_role_is_matrix(m->role) ? m->n : m->k) : 0;
    return (uint64_t)m->n * m->k + bias;
}

/* As stored: codes and scales with their padding, or the dense matrix; biases are not counted. */
static uint64_t matrix_bytes(const sfq_engine *e, const sfq_module *m, sfq_error *err,
                             sfq_status *status)
{
    const sfq_tensor *codes = NULL, *scales = NULL;
    bool aligned = false;
    if (!m->packed) {
        const sfq_tensor *weight = sfq_module_weight(m, e->ck);
        return weight != NULL ? weight->bytes : 0;
    }
    const sfq_packed_spec *spec = sfq_artifact_find(e->artifact, m->name);
    *status = sfq_packed_bind(spec, e->ck, &codes, &scales, &aligned, err);
    return *status == SFQ_OK ? codes->bytes + scales->bytes : 0;
}

/* A matrix runs once per token in the layers and at the output of a language model (whose tied
 * output is the word table). Tables are looked up; poolers and classifiers run per sequence. */
static uint64_t module_macs(const sfq_engine *e, const sfq_module *m)
{
    bool tied = e->arch->head == SFQ_MODEL_HEAD_LM && e->arch->tied_head &&
                m->role == SFQ_ROLE_WORD_EMBEDDING;
    bool runs = sfq_role_is_block(m->role) || m->role == SFQ_ROLE_LM_HEAD || tied;
    return runs ? (uint64_t)m->n * m->k : 0;
}

static sfq_head_kind head_kind(sfq_model_head head)
{
    switch (head) {
    case SFQ_MODEL_HEAD_CLASSIFIER:
        return SFQ_HEAD_CLASSIFIER;
    case SFQ_MODEL_HEAD_REGRESSION:
        return SFQ_HEAD_REGRESSION;
    case SFQ_MODEL_HEAD_EMBEDDING:
        return SFQ_HEAD_EMBEDDING;
    case SFQ_MODEL_HEAD_LM:
        break;
    }
    return SFQ_HEAD_LM;
}

static void describe(const sfq_engine *e, sfq_model_info *out)
{
    const sfq_arch *arch = e->arch;
    out->path = e->path;
    out->architecture = arch->architecture;
    out->family = arch->family_name;
    out->head = head_kind(arch->head);
    out->compressed = e->artifact != NULL;
    out->layers = arch->layers;
    out->vocab = arch->vocab;
    out->max_positions = arch->max_positions;
    out->bos_token = arch->bos;
    out->labels = arch->labels;
}

sfq_status sfq_engine_info(const sfq_engine *engine, sfq_model_info *out, sfq_error *err)
{
    uint64_t scales = 0, quantized = 0;
    int activation = 0;
    *out = (sfq_model_info){0};
    describe(engine, out);
    for (size_t i = 0; i < engine->modules->count; i++) {
        const sfq_module *m = &engine->modules->items[i];
        const sfq_packed_spec *spec =
            m->packed ? sfq_artifact_find(engine->artifact, m->name) : NULL;
        out->parameters += module_parameters(m);
        out->macs_per_token += module_macs(engine, m);
        if (spec == NULL)
            continue;
        scales += sfq_cluster_scales_true(&spec->cluster);
        quantized += (uint64_t)m->n * m->k;
        activation = spec->activation_bits > activation ? spec->activation_bits : activation;
    }
    if (out->parameters == 0)
        return sfq_fail_at(err, SFQ_E_FORMAT, engine->path, NULL, "%s has no parameters",
                           engine->path);
    out->bytes = sfq_checkpoint_bytes(engine->ck);
    out->original_parameters =
        engine->artifact != NULL ? engine->artifact->original_parameters : out->parameters;
    out->original_bytes = 2 * out->original_parameters;
    out->bits_per_parameter = 8.0 * (double)out->bytes / (double)out->original_parameters;
    out->reduction = 1.0 - (double)out->bytes / (double)out->original_bytes;
    out->scale_overhead = quantized > 0 ? (double)scales / (double)quantized : 0.0;
    out->activation_bits = activation > 0 ? activation : 32;
    return SFQ_OK;
}

sfq_status sfq_engine_layer(const sfq_engine *engine, int layer, sfq_layer_info *out,
                            sfq_error *err)
{
    const sfq_arch *arch = engine->arch;
    uint64_t bytes = 0, weights = 0;
    sfq_status status = SFQ_OK;
    if (layer < 0 || layer >= arch->layers)
        return sfq_fail(err, SFQ_E_ARGUMENT, "layer %d is outside 0..%d", layer, arch->layers - 1);
    for (size_t i = 0; i < engine->modules->count; i++) {
        const sfq_module *m = &engine->modules->items[i];
        if (m->layer != layer || !sfq_role_is_matrix(m->role))
            continue;
        weights += (uint64_t)m->n * m->k;
        bytes += matrix_bytes(engine, m, err, &status);
        if (status != SFQ_OK)
            return status;
    }
    out->heads = arch->layer[layer].heads;
    out->kv_heads = arch->layer[layer].kv_heads;
    out->ffn = arch->layer[layer].ffn;
    out->bits = weights > 0 ? 8.0 * (double)bytes / (double)weights : 0.0;
    return SFQ_OK;
}
