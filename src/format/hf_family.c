/* format/hf_family.c - the table of families: how each spells its keys and what an absent key means.
 * The values are those of the configuration classes of Transformers 5; a test with Transformers as
 * oracle compares them. */
#include "format/hf_parts.h"

#include <string.h>

#define LLAMA_KEYS                                                                             \
    .hidden = "hidden_size", .layers = "num_hidden_layers", .heads = "num_attention_heads",    \
    .ffn = "intermediate_size", .positions = "max_position_embeddings", .eps = "rms_norm_eps", \
    .activation = "hidden_act"

static const sfq_hf_family families[] = {
    {.model_type = "llama",
     LLAMA_KEYS,
     .positions_default = 2048,
     .eps_default = 1e-6,
     .activation_default = "silu",
     .theta_default = 1e4,
     .bos_default = 1,
     .eos_default = 2,
     .pad_default = -1,
     .has_attention_bias = true,
     .has_mlp_bias = true,
     .heads_divide_hidden = true},
    {.model_type = "mistral",
     LLAMA_KEYS,
     .kv_default = 8,
     .positions_default = 131072,
     .eps_default = 1e-6,
     .activation_default = "silu",
     .theta_default = 1e4,
     .bos_default = 1,
     .eos_default = 2,
     .pad_default = -1,
     .window = SFQ_WINDOW_ALL,
     .window_default = 4096},
    {.model_type = "smollm3",
     LLAMA_KEYS,
     .kv_default = 4,
     .positions_default = 32768,
     .eps_default = 1e-6,
     .activation_default = "silu",
     .theta_default = 2e6,
     .bos_default = 128000,
     .eos_default = 128001,
     .pad_default = 128004,
     .window = SFQ_WINDOW_NOPE,
     .tie_default = true,
     .has_attention_bias = true,
     .has_mlp_bias = true},
    {.model_type = "qwen2",
     LLAMA_KEYS,
     .kv_default = 32,
     .positions_default = 32768,
     .eps_default = 1e-6,
     .activation_default = "silu",
     .theta_default = 1e4,
     .bos_default = -1,
     .eos_default = -1,
     .pad_default = -1,
     .window = SFQ_WINDOW_FROM,
     .window_default = 4096},
    {.model_type = "qwen3",
     LLAMA_KEYS,
     .kv_default = 32,
     .head_dim_default = 128,
     .positions_default = 32768,
     .eps_default = 1e-6,
     .activation_default = "silu",
     .theta_default = 1e4,
     .bos_default = -1,
     .eos_default = -1,
     .pad_default = -1,
     .window = SFQ_WINDOW_FROM,
     .window_default = 4096,
     .has_attention_bias = true},
    {.model_type = "gpt2",
     .hidden = "n_embd",
     .layers = "n_layer",
     .heads = "n_head",
     .ffn = "n_inner",
     .positions = "n_positions",
     .eps = "layer_norm_epsilon",
     .activation = "activation_function",
     .kv_default = -1,
     .head_dim_default = -1,
     .positions_default = 1024,
     .eps_default = 1e-5,
     .activation_default = "gelu_new",
     .bos_default = 50256,
     .eos_default = 50256,
     .pad_default = -1,
     .tie_default = true,
     .ffn_optional = true},
    {.model_type = "bert",
     .hidden = "hidden_size",
     .layers = "num_hidden_layers",
     .heads = "num_attention_heads",
     .ffn = "intermediate_size",
     .positions = "max_position_embeddings",
     .eps = "layer_norm_eps",
     .activation = "hidden_act",
     .kv_default = -1,
     .head_dim_default = -1,
     .positions_default = 512,
     .type_vocab_default = 2,
     .eps_default = 1e-12,
     .activation_default = "gelu",
     .bos_default = -1,
     .eos_default = -1,
     .pad_default = 0,
     .tie_default = true},
    {.model_type = "distilbert",
     .hidden = "dim",
     .layers = "n_layers",
     .heads = "n_heads",
     .ffn = "hidden_dim",
     .positions = "max_position_embeddings",
     .activation = "activation",
     .kv_default = -1,
     .head_dim_default = -1,
     .positions_default = 512,
     .eps_default = 1e-12,
     .activation_default = "gelu",
     .bos_default = -1,
     .eos_default = -1,
     .pad_default = 0,
     .tie_default = true},
};

const sfq_hf_family *sfq_hf_family_find(const char *model_type)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(families[i].model_type, model_type) == 0)
            return &families[i];
    return NULL;
}

/* A switch, the value that is built, and for which family (NULL: all). */
typedef struct feature {
    const char *model_type, *key;
    bool built;
} feature;

static const feature features[] = {
    {NULL, "is_encoder_decoder", false},
    {NULL, "add_cross_attention", false},
    {"bert", "is_decoder", false},
    {"gpt2", "scale_attn_weights", true},
    {"gpt2", "scale_attn_by_inverse_layer_idx", false},
};

sfq_status sfq_hf_refuse_features(const sfq_hf_config *c, sfq_error *err)
{
    const char *positions = "absolute";
    const json_t *pruned = sfq_json_get(c->root, "pruned_heads");
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        const feature *f = &features[i];
        bool value;
        if (f->model_type && strcmp(f->model_type, c->model_type) != 0)
            continue;
        SFQ_TRY(sfq_json_bool(c->root, c->path, f->key, &f->built, &value, err));
        if (value != f->built)
            return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                               "%s: %s = %s is not supported for %s", c->path, f->key,
                               value ? "true" : "false", c->model_type);
    }
    if (strcmp(c->model_type, "bert") == 0)
        SFQ_TRY(sfq_hf_string(c, c->root, "position_embedding_type", &positions, err));
    if (strcmp(positions, "absolute") != 0)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                           "%s: position_embedding_type \"%s\" is not supported", c->path,
                           positions);
    if (pruned && json_object_size(pruned) > 0)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                           "%s: pruned_heads is not supported (Transformers 5 dropped it; use "
                           "per_layer_config)",
                           c->path);
    return SFQ_OK;
}
