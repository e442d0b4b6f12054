/* model/arch.c - from config.json to numbers and flags. One table row per architecture class that
 * is built; everything that Transformers would compute differently from the block is refused here
 * by the name of the feature, so that no later code has to guess. */
#include "model/arch.h"

#include "base/ck.h"
#include "base/mem.h"
#include "model/pooling.h"

#include <math.h>
#include <string.h>

typedef struct sfq_family_row {
    const char *model_type, *architecture;
    sfq_family family;
    sfq_model_head head;
} sfq_family_row;

static const sfq_family_row sfq_families[] = {
    {"llama", "LlamaForCausalLM", SFQ_FAMILY_LLAMA, SFQ_MODEL_HEAD_LM},
    {"mistral", "MistralForCausalLM", SFQ_FAMILY_LLAMA, SFQ_MODEL_HEAD_LM},
    {"smollm3", "SmolLM3ForCausalLM", SFQ_FAMILY_LLAMA, SFQ_MODEL_HEAD_LM},
    {"qwen2", "Qwen2ForCausalLM", SFQ_FAMILY_QWEN2, SFQ_MODEL_HEAD_LM},
    {"qwen3", "Qwen3ForCausalLM", SFQ_FAMILY_QWEN3, SFQ_MODEL_HEAD_LM},
    {"gpt2", "GPT2LMHeadModel", SFQ_FAMILY_GPT2, SFQ_MODEL_HEAD_LM},
    {"bert", "BertForSequenceClassification", SFQ_FAMILY_BERT, SFQ_MODEL_HEAD_CLASSIFIER},
    {"bert", "BertModel", SFQ_FAMILY_BERT, SFQ_MODEL_HEAD_EMBEDDING},
    {"distilbert", "DistilBertForSequenceClassification", SFQ_FAMILY_DISTILBERT,
     SFQ_MODEL_HEAD_CLASSIFIER},
    {"distilbert", "DistilBertModel", SFQ_FAMILY_DISTILBERT, SFQ_MODEL_HEAD_EMBEDDING},
};

static const struct {
    const char *name;
    sfq_activation kind;
} sfq_activations[] = {
    {"silu", SFQ_ACT_SILU},
    {"swish", SFQ_ACT_SILU},
    {"gelu", SFQ_ACT_GELU},
    {"gelu_new", SFQ_ACT_GELU_TANH},
    {"gelu_fast", SFQ_ACT_GELU_TANH},
    {"gelu_pytorch_tanh", SFQ_ACT_GELU_TANH},
    {"relu", SFQ_ACT_RELU},
    {"tanh", SFQ_ACT_TANH},
    {"quick_gelu", SFQ_ACT_QUICK_GELU},
};

/* Switches that, when true, change what the model computes. */
static const struct {
    const char *model_type; /* NULL: all */
    const char *key;
    const char *feature;
} sfq_refused[] = {
    {"bert", "is_decoder", "is_decoder (causal encoders)"},
    {NULL, "add_cross_attention", "cross attention (add_cross_attention)"},
    {NULL, "is_encoder_decoder", "encoder-decoder models (is_encoder_decoder)"},
    {"gpt2", "scale_attn_by_inverse_layer_idx", "scale_attn_by_inverse_layer_idx"},
};

enum { SFQ_MAX_WIDTH = 1 << 22 };

static sfq_status sfq_unsupported(sfq_error *err, const sfq_hf_config *c, const char *feature,
                                  const char *value)
{
    return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL, "%s: %s%s%s is not supported",
                       c->path, feature, value ? " " : "", value ? value : "");
}

static sfq_status sfq_pick_family(sfq_arch *a, const sfq_hf_config *c, sfq_error *err)
{
    if (!c->architecture || c->architecture[0] == '\0')
        return sfq_unsupported(err, c, "a config without \"architectures\"", NULL);
    for (size_t i = 0; i < sizeof(sfq_families) / sizeof(sfq_families[0]); i++) {
        const sfq_family_row *row = &sfq_families[i];
        if (strcmp(row->architecture, c->architecture) != 0)
            continue;
        if (!c->model_type || strcmp(row->model_type, c->model_type) != 0)
            return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                               "%s: architecture %s needs model_type \"%s\", found \"%s\"", c->path,
                               c->architecture, row->model_type,
                               c->model_type ? c->model_type : "");
        a->family = row->family;
        a->family_name = row->model_type;
        a->architecture = c->architecture;
        a->head = row->head;
        return SFQ_OK;
    }
    return sfq_unsupported(err, c, "architecture", c->architecture);
}

static sfq_status sfq_check_features(const sfq_arch *a, const sfq_hf_config *c, sfq_error *err)
{
    static const bool no = false;
    for (size_t i = 0; i < sizeof(sfq_refused) / sizeof(sfq_refused[0]); i++) {
        const char *type = sfq_refused[i].model_type;
        bool value;
        if (type && strcmp(type, a->family_name) != 0)
            continue;
        SFQ_TRY(sfq_json_bool(c->root, c->path, sfq_refused[i].key, &no, &value, err));
        if (value)
            return sfq_unsupported(err, c, sfq_refused[i].feature, NULL);
    }
    const char *position = NULL;
    if (a->family == SFQ_FAMILY_BERT)
        SFQ_TRY(
            sfq_json_string(c->root, c->path, "position_embedding_type", false, &position, err));
    if (position && strcmp(position, "absolute") != 0)
        return sfq_unsupported(err, c, "position_embedding_type", position);
    if (c->problem_type && strcmp(c->problem_type, "multi_label_classification") == 0)
        return sfq_unsupported(err, c, "problem_type", c->problem_type);
    if (!a->learned_positions && c->rope.partial_rotary_factor != 1.0)
        return sfq_unsupported(err, c, "partial_rotary_factor other than 1", NULL);
    return SFQ_OK;
}

static sfq_status sfq_pick_activation(sfq_arch *a, const sfq_hf_config *c, sfq_error *err)
{
    for (size_t i = 0; c->activation && i < sizeof(sfq_activations) / sizeof(sfq_activations[0]);
         i++)
        if (strcmp(sfq_activations[i].name, c->activation) == 0) {
            a->activation = sfq_activations[i].kind;
            return SFQ_OK;
        }
    return sfq_unsupported(err, c, "activation", c->activation ? c->activation : "(none named)");
}

/* What the modelling files of Transformers hard-code per family. */
static void sfq_set_flags(sfq_arch *a, const sfq_hf_config *c)
{
    bool encoder = a->family == SFQ_FAMILY_BERT || a->family == SFQ_FAMILY_DISTILBERT;
    bool gpt2 = a->family == SFQ_FAMILY_GPT2;
    bool llama = !encoder && !gpt2;
    bool mistral = strcmp(a->family_name, "mistral") == 0;
    a->causal = !encoder;
    a->pre_norm = !encoder;
    a->rms_norm = llama;
    a->gated = llama;
    a->qk_norm = a->family == SFQ_FAMILY_QWEN3;
    a->learned_positions = !llama;
    a->tied_head = a->head == SFQ_MODEL_HEAD_LM && c->tie_embeddings;
    a->pooler_tanh = a->family == SFQ_FAMILY_BERT;
    if (!llama) {
        a->bias_qkv = a->bias_o = a->bias_mlp = true;
    } else if (a->family == SFQ_FAMILY_QWEN2) {
        a->bias_qkv = true;
    } else if (!mistral) {
        a->bias_qkv = a->bias_o = c->attention_bias;
        a->bias_mlp = a->family == SFQ_FAMILY_LLAMA && c->mlp_bias;
    }
}

static sfq_status sfq_set_numbers(sfq_arch *a, const sfq_hf_config *c, sfq_error *err)
{
    if (c->layers < 1 || c->layers > SFQ_MAX_LAYERS || c->hidden < 1 || c->hidden > SFQ_MAX_WIDTH ||
        c->head_dim < 1 || c->vocab < 1 || c->vocab > INT32_MAX || c->max_positions < 1 ||
        c->max_positions > INT32_MAX || c->type_vocab < 0 || c->type_vocab > SFQ_MAX_WIDTH)
        return sfq_fail_at(err, SFQ_E_LIMIT, c->path, NULL,
                           "%s: layers, hidden size, vocabulary or positions out of range",
                           c->path);
    if (c->head_dim > SFQ_MAX_HEAD_DIM)
        return sfq_unsupported(err, c, "a head dimension above 512", NULL);
    a->layers = (int)c->layers;
    a->hidden = (int)c->hidden;
    a->head_dim = (int)c->head_dim;
    a->vocab = (int)c->vocab;
    a->max_positions = (int)c->max_positions;
    a->type_vocab = a->family == SFQ_FAMILY_BERT ? (int)c->type_vocab : 0;
    /* DistilBERT and the published eps of its LayerNorms: fixed in its modelling file. */
    a->norm_eps = a->family == SFQ_FAMILY_DISTILBERT ? 1e-12f : (float)c->norm_eps;
    static const bool yes = true;
    bool scaled = true;
    if (a->family == SFQ_FAMILY_GPT2)
        SFQ_TRY(sfq_json_bool(c->root, c->path, "scale_attn_weights", &yes, &scaled, err));
    a->attn_scale = scaled ? (float)(1.0 / sqrt((double)a->head_dim)) : 1.0f;
    a->rope = c->rope;
    a->rope_dims = a->learned_positions ? 0 : a->head_dim;
    if (a->rope_dims % 2 != 0)
        return sfq_unsupported(err, c, "RoPE over an odd head dimension", NULL);
    if (a->rope.original_max_positions <= 0)
        a->rope.original_max_positions = (double)a->max_positions;
    if (a->head == SFQ_MODEL_HEAD_CLASSIFIER) {
        a->labels = c->label_count > 0 ? c->label_count : 2; /* Transformers' default */
        if (a->labels == 1 || (c->problem_type && strcmp(c->problem_type, "regression") == 0))
            a->head = SFQ_MODEL_HEAD_REGRESSION;
    }
    a->bos = c->bos;
    a->eos_count = c->eos_count;
    memcpy(a->eos, c->eos, sizeof(a->eos));
    return SFQ_OK;
}

static sfq_status sfq_check_layer(const sfq_arch *a, const sfq_hf_config *c,
                                  const sfq_layer_dims *d, int i, sfq_error *err)
{
    bool attention = d->heads > 0;
    if (d->heads < 0 || d->kv_heads < 0 || d->ffn < 0 || d->heads > SFQ_MAX_WIDTH / a->head_dim ||
        d->ffn > SFQ_MAX_WIDTH)
        return sfq_fail_at(err, SFQ_E_LIMIT, c->path, NULL, "%s: layer %d: a width out of range",
                           c->path, i);
    if (attention != (d->kv_heads > 0) || (attention && d->heads % d->kv_heads != 0))
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: layer %d: %lld heads do not share %lld KV heads evenly", c->path, i,
                           (long long)d->heads, (long long)d->kv_heads);
    if (a->learned_positions && d->heads != d->kv_heads)
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: layer %d: %s has as many KV heads as heads (found %lld and %lld)",
                           c->path, i, a->family_name, (long long)d->kv_heads, (long long)d->heads);
    return SFQ_OK;
}

static sfq_status sfq_set_layers(sfq_arch *a, const sfq_hf_config *c,
                                 const sfq_artifact_info *artifact, sfq_error *err)
{
    size_t count = (size_t)a->layers;
    sfq_status status = SFQ_OK;
    sfq_layer_dims *dims = SFQ_NEW_ARRAY(sfq_layer_dims, count);
    a->layer = SFQ_NEW_ARRAY(sfq_layer_arch, count);
    if (!dims || !a->layer) {
        status = sfq_fail_memory(err, count * sizeof(*dims), "layer widths");
        goto done;
    }
    SFQ_DO(sfq_hf_layer_dims(dims, c, artifact, err));
    for (int i = 0; i < a->layers; i++) {
        SFQ_DO(sfq_check_layer(a, c, &dims[i], i, err));
        bool sliding = a->causal && c->layer_sliding && c->layer_sliding[i];
        int64_t window = sliding && c->sliding_window < INT32_MAX ? c->sliding_window : 0;
        a->layer[i] = (sfq_layer_arch){.heads = (int)dims[i].heads,
                                       .kv_heads = (int)dims[i].kv_heads,
                                       .ffn = (int)dims[i].ffn,
                                       .window = (int)window,
                                       .rope = a->rope_dims > 0 &&
                                               !(c->layer_no_rope && c->layer_no_rope[i])};
    }
done:
    sfq_mem_free(dims);
    return status;
}

sfq_status sfq_arch_open(sfq_arch **out, const sfq_hf_config *config,
                         const sfq_artifact_info *artifact, const char *dir, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    *out = NULL;
    sfq_arch *a = SFQ_NEW(sfq_arch);
    if (!a)
        return sfq_fail_memory(err, sizeof(*a), "architecture");
    SFQ_DO(sfq_pick_family(a, config, err));
    sfq_set_flags(a, config);
    SFQ_DO(sfq_check_features(a, config, err));
    SFQ_DO(sfq_pick_activation(a, config, err));
    SFQ_DO(sfq_set_numbers(a, config, err));
    SFQ_DO(sfq_set_layers(a, config, artifact, err));
    if (a->head == SFQ_MODEL_HEAD_EMBEDDING && dir)
        SFQ_DO(sfq_pooling_read(dir, &a->normalize_embedding, err));
    *out = a;
    a = NULL;
done:
    sfq_arch_close(&a);
    return status;
}

void sfq_arch_close(sfq_arch **arch)
{
    if (!arch || !*arch)
        return;
    sfq_mem_free((*arch)->layer);
    sfq_mem_free(*arch);
    *arch = NULL;
}
