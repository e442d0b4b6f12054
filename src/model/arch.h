/* model/arch.h - what a checkpoint is, as numbers and flags: the only thing the block looks at.
 * Every width lives per layer; a dense model is the uniform case and a width may be 0 (a dropped
 * sublayer). Families differ in this struct and in their table of tensor names (names.h), nowhere
 * else. */
#ifndef SFQ_MODEL_ARCH_H
#define SFQ_MODEL_ARCH_H

#include "format/artifact.h"
#include "kernels/kernels.h"

typedef enum sfq_family {
    SFQ_FAMILY_LLAMA = 0, /* llama, mistral, smollm3: same names, flags differ */
    SFQ_FAMILY_QWEN2,
    SFQ_FAMILY_QWEN3,
    SFQ_FAMILY_GPT2,
    SFQ_FAMILY_BERT,
    SFQ_FAMILY_DISTILBERT,
    SFQ_FAMILY_COUNT
} sfq_family;

typedef enum sfq_model_head {
    SFQ_MODEL_HEAD_LM = 0,
    SFQ_MODEL_HEAD_CLASSIFIER,
    SFQ_MODEL_HEAD_REGRESSION, /* values (problem_type regression or num_labels 1) */
    SFQ_MODEL_HEAD_EMBEDDING   /* no head: mean-pooled hidden states */
} sfq_model_head;

typedef struct sfq_layer_arch {
    int heads, kv_heads, ffn; /* kept by this layer; heads 0: no attention, ffn 0: no MLP */
    int window;               /* sliding window in tokens; 0: none */
    bool rope;
} sfq_layer_arch;

typedef struct sfq_arch {
    sfq_family family;
    const char *family_name;  /* "llama", "mistral", "bert", ... static */
    const char *architecture; /* "LlamaForCausalLM"; points into the config */
    sfq_model_head head;
    int layers;
    int hidden;   /* C */
    int head_dim; /* D */
    int vocab;    /* V, rows of the word table */
    int max_positions;
    int type_vocab; /* 0: no token types */
    int labels;
    bool causal;
    bool pre_norm; /* else the norm follows the residual sum (BERT) */
    bool rms_norm; /* else LayerNorm */
    bool gated;    /* SwiGLU-like MLP */
    bool qk_norm;  /* RMSNorm on each head's q and k before RoPE */
    bool learned_positions;
    bool bias_qkv, bias_o, bias_mlp; /* biases of the block's matrices */
    bool tied_head;
    bool pooler_tanh; /* BERT pooler: tanh; DistilBERT pre_classifier: relu */
    sfq_activation activation;
    float norm_eps;
    float attn_scale; /* 1/sqrt(D) */
    sfq_rope_config rope;
    int rope_dims;         /* rotated leading dims of a head; 0 without RoPE */
    sfq_layer_arch *layer; /* [layers] */
    int32_t bos;
    int32_t eos[SFQ_MAX_EOS];
    int eos_count;
    bool normalize_embedding; /* sentence-transformers Normalize module */
} sfq_arch;

/* From config and, for artifacts, its per-layer table. dir is read for sentence-transformers'
 * modules.json and 1_Pooling/config.json (only mean pooling is built; dir NULL: that). UNSUPPORTED
 * names the feature. */
sfq_status sfq_arch_open(sfq_arch **out, const sfq_hf_config *config,
                         const sfq_artifact_info *artifact, const char *dir, sfq_error *err);
void sfq_arch_close(sfq_arch **arch);

/* Inverse frequencies [rope_dims/2] and the factor on cos and sin, as Transformers computes
 * them. */
void sfq_rope_frequencies(const sfq_arch *arch, float *inv_freq, float *factor);
/* cos/sin of one position, each [dims/2]. */
void sfq_rope_angles(const float *inv_freq, float factor, size_t half, size_t position, float *cos,
                     float *sin);

#endif
