/* format/hf_config.h - config.json as Transformers v4 and v5 write it, brought to one spelling. It
 * checks types and ranges; what a family makes of the numbers is model/arch's business. */
#ifndef SFQ_FORMAT_HF_CONFIG_H
#define SFQ_FORMAT_HF_CONFIG_H

#include "base/json.h"

#define SFQ_MAX_LAYERS 1024
#define SFQ_MAX_LABELS 4096
#define SFQ_MAX_EOS 16

typedef enum sfq_rope_kind {
    SFQ_ROPE_DEFAULT = 0,
    SFQ_ROPE_LINEAR,
    SFQ_ROPE_LLAMA3,
    SFQ_ROPE_YARN
} sfq_rope_kind;

typedef struct sfq_rope_config {
    sfq_rope_kind kind;
    double theta;
    double factor;                            /* linear, llama3, yarn */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double original_max_positions;            /* llama3, yarn; 0: max_positions */
    double beta_fast, beta_slow;              /* yarn: 32, 1 */
    double attention_factor;                  /* yarn; 0: computed */
    double mscale, mscale_all_dim;            /* yarn; 0: absent */
    bool truncate;                            /* yarn: true */
    double partial_rotary_factor;             /* 1 */
} sfq_rope_config;

typedef struct sfq_hf_config {
    json_t *root;             /* owns every string below */
    const char *path;         /* of config.json, for messages; owned */
    const char *model_type;   /* "llama" */
    const char *architecture; /* architectures[0] */
    int64_t hidden, layers, heads, kv_heads /* = heads when absent */,
        head_dim /* hidden/heads when absent or null (divisibility proved) */, ffn, vocab;
    int64_t max_positions;
    int64_t type_vocab; /* 0 when absent */
    double norm_eps;
    const char *activation; /* "silu", "gelu", "gelu_new", ... NULL when absent */
    bool tie_embeddings;
    bool attention_bias, mlp_bias; /* false when absent */
    sfq_rope_config rope;
    int64_t sliding_window; /* 0: none (null, use_sliding_window false) */
    uint8_t *
        layer_sliding; /* [layers] 1: this layer uses the window (layer_types, max_window_layers) */
    uint8_t *layer_no_rope;   /* [layers] 1: no RoPE here (SmolLM3 no_rope_layers) */
    const char **labels;      /* [label_count] by id from id2label, or LABEL_i */
    int label_count;          /* num_labels; 0 when the config names none */
    const char *problem_type; /* "regression", ... or NULL */
    int32_t bos;              /* -1: none */
    int32_t eos[SFQ_MAX_EOS]; /* from generation_config.json, else config.json */
    int eos_count;
    int32_t pad;                /* -1: none */
    const json_t *quantization; /* "quantization_config", NULL when absent */
} sfq_hf_config;

/* Reads DIR/config.json and, where it exists, DIR/generation_config.json. FORMAT for what is
 * damaged, UNSUPPORTED for what is known but not built (its feature named), NOT_FOUND. */
sfq_status sfq_hf_config_open(sfq_hf_config **out, const char *dir, sfq_error *err);
/* A config.json without a model around it: nothing beside it is read. text NULL: the file at path;
 * else this is its text, and path only names it in messages. */
sfq_status sfq_hf_config_alone(sfq_hf_config **out, const char *path, const char *text,
                               sfq_error *err);
void sfq_hf_config_close(sfq_hf_config **config);

#endif
