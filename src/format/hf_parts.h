/* format/hf_parts.h - what the files behind hf_config.h share (inside format/ only): the
 * spelling and the defaults of each family's config.json. */
#ifndef SFQ_FORMAT_HF_PARTS_H
#define SFQ_FORMAT_HF_PARTS_H

#include "format/hf_config.h"

typedef enum sfq_hf_window {
    SFQ_WINDOW_NONE = 0, /* the family has no sliding window; stray keys mean nothing */
    SFQ_WINDOW_ALL,      /* Mistral: every layer */
    SFQ_WINDOW_FROM,     /* Qwen: use_sliding_window, layers from max_window_layers on */
    SFQ_WINDOW_NOPE      /* SmolLM3: use_sliding_window, the layers without RoPE */
} sfq_hf_window;

/* Keys that a family spells its own way, and what Transformers' configuration class of that family
 * takes for a key that is absent. */
typedef struct sfq_hf_family {
    const char *model_type;
    const char *hidden, *layers, *heads, *ffn, *positions, *eps, *activation; /* keys */
    int64_t kv_default;       /* absent num_key_value_heads; 0: heads, -1: the family has none */
    int64_t head_dim_default; /* absent head_dim; 0: hidden/heads, -1: the key means nothing */
    int64_t positions_default;
    int64_t type_vocab_default;
    double eps_default;
    const char *activation_default;
    double theta_default; /* 0: no RoPE */
    int32_t bos_default, eos_default, pad_default;
    sfq_hf_window window;
    int64_t window_default; /* absent sliding_window */
    bool tie_default;
    bool has_attention_bias, has_mlp_bias; /* the keys mean something */
    bool ffn_optional;                     /* null: 4 * hidden */
    bool heads_divide_hidden;              /* demanded even with an explicit head_dim */
} sfq_hf_family;

/* NULL for a model_type that is not in the table. */
const sfq_hf_family *sfq_hf_family_find(const char *model_type);

/* config->rope from rope_parameters (v5), or rope_scaling and rope_theta (v4). */
sfq_status sfq_hf_read_rope(sfq_hf_config *c, const sfq_hf_family *f, sfq_error *err);
/* sliding_window, layer_sliding, layer_no_rope. */
sfq_status sfq_hf_read_layers(sfq_hf_config *c, const sfq_hf_family *f, sfq_error *err);
/* labels, label_count, problem_type. */
sfq_status sfq_hf_read_labels(sfq_hf_config *c, sfq_error *err);
/* bos, eos, pad, with DIR/generation_config.json where it is; dir NULL: config.json alone. */
sfq_status sfq_hf_read_ids(sfq_hf_config *c, const sfq_hf_family *f, const char *dir,
                           sfq_error *err);
/* A size: absent is an error without def; FORMAT below min, LIMIT above max. */
sfq_status sfq_hf_dim(const sfq_hf_config *c, const char *key, int64_t min, int64_t max,
                      const int64_t *def, int64_t *out, sfq_error *err);
/* A string of obj; *out is left as it is where the key is absent or null. */
sfq_status sfq_hf_string(const sfq_hf_config *c, const json_t *obj, const char *key,
                         const char **out, sfq_error *err);
/* A JSON text of the model's directory, bounded. */
sfq_status sfq_hf_read_json(json_t **out, const char *path, sfq_error *err);

#endif
