/* sfq/model.h - a model that is open: a dense Hugging Face directory or an sfq artifact, behind one
 * handle. Weights stay in the page cache (mmap) wherever the file allows. A model is immutable once
 * open; calls that only read it may come from several threads, calls that compute (session.h)
 * share its thread pool and must not overlap. */
#ifndef SFQ_MODEL_H
#define SFQ_MODEL_H

#include <sfq/common.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sfq_model sfq_model;

typedef struct sfq_model_options {
    size_t struct_size;
    int threads;      /* 0: min(affinity, cgroup quota, physical cores); else 1..256 */
    bool verify;      /* check the artifact's checksums while opening */
    bool header_only; /* describe only: no tokenizer, no weights bound; computing calls refuse */
    sfq_hooks hooks;
    /* How a language model keeps keys and values: 32 or 16 (floats) or 8 (integers with a scale for
     * each token and head). 0: 16 for a compressed model, 32 for a dense one. ARGUMENT for models
     * that keep none. */
    int kv_bits;
    /* Copy the weights to private memory in huge pages: reading them, and so decode, is up to 1.6
     * times faster; opening takes longer and other processes do not share them. */
    bool huge_pages;
} sfq_model_options;

SFQ_API void sfq_model_options_default(sfq_model_options *options);

/* Opens `path`: a directory, or a Hub id ("org/name") in the local Hugging Face cache
 * (HF_HUB_CACHE, HF_HOME, ~/.cache/huggingface). On failure *out is NULL.
 * Codes: NOT_FOUND, IO, FORMAT, LIMIT, CHECKSUM, NUMERIC, UNSUPPORTED, MEMORY. */
SFQ_API sfq_status sfq_model_open(sfq_model **out, const char *path,
                                  const sfq_model_options *options, sfq_error *err);
SFQ_API void sfq_model_close(sfq_model **model);

typedef enum sfq_head_kind {
    SFQ_HEAD_LM = 0,
    SFQ_HEAD_CLASSIFIER = 1, /* label and scores */
    SFQ_HEAD_REGRESSION = 2, /* one value */
    SFQ_HEAD_EMBEDDING = 3   /* mean-pooled vector */
} sfq_head_kind;

/* "language model", "classifier", "regression", "embedding"; "?" for anything else. */
SFQ_API const char *sfq_head_kind_name(sfq_head_kind head);

typedef struct sfq_layer_info {
    int heads; /* query heads that this layer keeps */
    int kv_heads;
    int ffn;     /* FFN width */
    double bits; /* stored bits per weight of the layer's matrices, padding and scales counted */
} sfq_layer_info;

typedef struct sfq_model_info {
    const char *path;         /* the directory that was opened */
    const char *architecture; /* "LlamaForCausalLM" */
    const char *family;       /* "llama" */
    sfq_head_kind head;
    bool compressed;           /* an sfq artifact */
    uint64_t parameters;       /* as stored now, tied ones once */
    uint64_t bytes;            /* all weight files */
    double bits_per_parameter; /* 8 * bytes / original_parameters */
    uint64_t original_parameters;
    uint64_t original_bytes; /* 2 * original_parameters */
    double reduction;        /* 1 - bytes / original_bytes */
    double scale_overhead;   /* scales / quantized weights without padding; 0 for dense */
    uint64_t macs_per_token; /* multiply-adds in the matrices for one token */
    int activation_bits;     /* widest integer activations in use; 32 for dense (float) */
    int layers;
    int vocab;
    int max_positions;
    int bos_token; /* -1: none */
    int labels;    /* classifier outputs */
} sfq_model_info;

/* Strings live as long as the model. */
SFQ_API sfq_status sfq_model_info_get(const sfq_model *model, sfq_model_info *out, sfq_error *err);
SFQ_API sfq_status sfq_model_layer_get(const sfq_model *model, int layer, sfq_layer_info *out,
                                       sfq_error *err);
/* The name of label `index`, NULL outside 0..labels-1. */
SFQ_API const char *sfq_model_label(const sfq_model *model, int index);

/* Reads every byte of the weight files: checksums of an artifact (CHECKSUM names the tensor),
 * finite numbers in float tensors (NUMERIC). */
SFQ_API sfq_status sfq_model_verify(const sfq_model *model, const sfq_hooks *hooks, sfq_error *err);

/* text[0..bytes) must be UTF-8 (DATA names the offset). *ids is freed with sfq_release.
 * special: add the post-processor's special tokens. Truncation and padding of the file are
 * ignored. pair may be NULL. */
SFQ_API sfq_status sfq_model_tokenize(const sfq_model *model, const char *text, size_t bytes,
                                      const char *pair, size_t pair_bytes, bool special,
                                      int32_t **ids, size_t *count, sfq_error *err);
/* The same without opening a model: `path` (directory or Hub id) needs a tokenizer.json only. */
SFQ_API sfq_status sfq_tokenize(const char *path, const char *text, size_t bytes, const char *pair,
                                size_t pair_bytes, bool special, int32_t **ids, size_t *count,
                                sfq_error *err);
/* *text is NUL-terminated UTF-8, freed with sfq_release. Invalid bytes become U+FFFD; ids that the
 * tokenizer does not know add nothing. */
SFQ_API sfq_status sfq_model_detokenize(const sfq_model *model, const int32_t *ids, size_t count,
                                        bool skip_special, char **text, size_t *bytes,
                                        sfq_error *err);

#ifdef __cplusplus
}
#endif
#endif
