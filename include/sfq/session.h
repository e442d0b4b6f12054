/* sfq/session.h - computing with an open model: one timeline of a language model (KV cache and
 * logits), text generation, classification, embeddings, evaluation and benchmarks.
 *
 * For one prompt a compressed model gives one result, bit by bit: alone or in a batch, at any
 * thread count, however the prompt is cut into calls. */
#ifndef SFQ_SESSION_H
#define SFQ_SESSION_H

#include <sfq/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- a timeline ---------------------------------------------------------------------------- */

typedef struct sfq_session sfq_session;

/* capacity: positions that the KV cache holds (<= max_positions, LIMIT otherwise); 0: the model's
 * max_positions but at most 2048. Language models only (UNSUPPORTED otherwise). The model must
 * outlive the session. */
SFQ_API sfq_status sfq_session_open(sfq_session **out, sfq_model *model, int capacity,
                                    sfq_error *err);
SFQ_API void sfq_session_close(sfq_session **session);
/* Bytes that a session of this capacity takes, without opening it; 0 without a language
 * model or with a capacity beyond its positions. */
SFQ_API uint64_t sfq_session_memory(const sfq_model *model, int capacity);
/* Appends count tokens and computes the logits after the last one. */
SFQ_API sfq_status sfq_session_feed(sfq_session *session, const int32_t *ids, size_t count,
                                    sfq_error *err);
SFQ_API int sfq_session_position(const sfq_session *session);
/* Forgets everything from `position` on. */
SFQ_API sfq_status sfq_session_rewind(sfq_session *session, int position, sfq_error *err);
/* Logits [vocab] after the last token fed; valid until the next call on the session. NULL before
 * the first token and after a rewind that forgot something. */
SFQ_API const float *sfq_session_logits(const sfq_session *session);

typedef struct sfq_sampling {
    size_t struct_size;
    float temperature; /* 0: greedy, ties to the lowest id */
    int top_k;         /* 0: off */
    float top_p;       /* 1: off */
    uint64_t seed;
} sfq_sampling;

SFQ_API void sfq_sampling_default(sfq_sampling *sampling);
/* The token for position `position` of the timeline: depends on logits, options, seed, position. */
SFQ_API sfq_status sfq_session_sample(const sfq_session *session, const sfq_sampling *sampling,
                                      int32_t *token, sfq_error *err);

/* ---- text in, text out --------------------------------------------------------------------- */

typedef struct sfq_generate_options {
    size_t struct_size;
    int max_tokens;
    sfq_sampling sampling;
    const char *const *stop; /* texts that end the answer; they are not part of it */
    size_t stop_count;
    bool ignore_eos;
    int capacity; /* of the KV cache; 0: prompt + max_tokens, at most max_positions */
    sfq_hooks hooks;
    /* Called with each piece of whole UTF-8 characters as soon as it is certain; false stops. */
    bool (*on_text)(void *ud, const char *text, size_t bytes);
    void *on_text_ud;
    const int32_t *prompt_ids; /* [prompt_count] the prompt as tokens, instead of a text; or NULL */
    size_t prompt_count;
} sfq_generate_options;

typedef struct sfq_generation {
    char *text; /* sfq_generation_clear frees */
    size_t text_bytes;
    int32_t *tokens; /* generated ids, an end token not included */
    size_t token_count;
    size_t prompt_tokens;
    const char *finish; /* "stop" (end token), "text" (stop text), "length", "cancelled" */
    double prefill_seconds;
    double decode_seconds;
} sfq_generation;

SFQ_API void sfq_generate_options_default(sfq_generate_options *options);
SFQ_API sfq_status sfq_generate(sfq_model *model, const char *prompt, size_t bytes,
                                const sfq_generate_options *options, sfq_generation *out,
                                sfq_error *err);
SFQ_API void sfq_generation_clear(sfq_generation *generation);

/* The same, piece by piece: the caller asks for the next one. */
typedef struct sfq_generator sfq_generator;

/* Reads the prompt. Stop texts and what the hooks need must live as long as the generator, and so
 * must the model; on_text is not called. Prompts as in sfq_generate. */
SFQ_API sfq_status sfq_generator_open(sfq_generator **out, sfq_model *model, const char *prompt,
                                      size_t bytes, const sfq_generate_options *options,
                                      sfq_error *err);
/* *text [*bytes]: the next whole UTF-8 characters that are certain; they live until the next call.
 * 0 bytes: the text has ended. A call that was INTERRUPTED may be made again. */
SFQ_API sfq_status sfq_generator_next(sfq_generator *generator, const char **text, size_t *bytes,
                                      sfq_error *err);
/* What was handed out so far; finish is "cancelled" before the end. */
SFQ_API sfq_status sfq_generator_result(const sfq_generator *generator, sfq_generation *out,
                                        sfq_error *err);
SFQ_API void sfq_generator_close(sfq_generator **generator);

typedef struct sfq_text_pair {
    const char *text;
    size_t text_bytes;
    const char *pair; /* NULL: none */
    size_t pair_bytes;
} sfq_text_pair;

/* scores [count, labels]: softmax probabilities of a classifier, the raw values of a regression
 * head. Pairs are truncated longest first to the model's positions. Ragged, no padding. */
SFQ_API sfq_status sfq_classify(sfq_model *model, const sfq_text_pair *inputs, size_t count,
                                float *scores, sfq_error *err);
/* vectors [count, width]: mean over the tokens' last hidden states, L2-normalised where the model
 * directory says so (sentence-transformers modules.json). */
SFQ_API sfq_status sfq_embed(sfq_model *model, const sfq_text_pair *inputs, size_t count,
                             float *vectors, sfq_error *err);
SFQ_API int sfq_model_width(const sfq_model *model);

/* ---- tokens in, numbers out ---------------------------------------------------------------- */

/* Sequences of token ids, one after the other, nothing padded; T = offset[count]. */
typedef struct sfq_tokens {
    size_t count;
    const size_t *offset; /* [count + 1], the first is 0 */
    const int32_t *ids;   /* [T] */
    const int32_t *types; /* [T] token types (0 and 1 for the texts of a pair), or NULL: all 0 */
} sfq_tokens;

/* The tokens that sfq_classify and sfq_embed read: with special tokens, pairs truncated longest
 * first to the model's positions; for a language model nothing is truncated. *out is freed with
 * sfq_tokens_clear. DATA for an input that is no UTF-8 or gives no tokens. */
SFQ_API sfq_status sfq_encode(const sfq_model *model, const sfq_text_pair *inputs, size_t count,
                              sfq_tokens *out, sfq_error *err);
SFQ_API void sfq_tokens_clear(sfq_tokens *tokens);

typedef enum sfq_output {
    SFQ_OUTPUT_HIDDEN = 0,   /* [T, width] hidden states behind the last layer and norm */
    SFQ_OUTPUT_LOGITS = 1,   /* language models [T, vocab]; classifiers, regression [count, labels],
                                raw */
    SFQ_OUTPUT_LAST = 2,     /* language models: [count, vocab] after each sequence's last token */
    SFQ_OUTPUT_SCORES = 3,   /* as sfq_classify: [count, labels] */
    SFQ_OUTPUT_EMBEDDING = 4 /* as sfq_embed: [count, width] */
} sfq_output;

/* Rows and columns of what sfq_compute writes. */
SFQ_API sfq_status sfq_compute_shape(const sfq_model *model, const sfq_tokens *tokens,
                                     sfq_output output, size_t *rows, size_t *columns,
                                     sfq_error *err);
/* out [rows, columns]. hooks (NULL: none) are asked between batches of about 2048 tokens. Codes:
 * UNSUPPORTED where the model has no such output, DATA for ids outside the vocabulary, LIMIT for a
 * sequence beyond the model's positions, NUMERIC, INTERRUPTED, MEMORY. */
SFQ_API sfq_status sfq_compute(sfq_model *model, const sfq_tokens *tokens, sfq_output output,
                               const sfq_hooks *hooks, float *out, sfq_error *err);

/* ---- evaluation ---------------------------------------------------------------------------- */

typedef struct sfq_eval_options {
    size_t struct_size;
    const char *task;  /* "sst2", ...; NULL with text */
    const char *data;  /* directory with SPLIT.tsv|jsonl|csv */
    const char *split; /* default "dev" */
    const char *const *text_files;
    size_t text_count;
    int context;         /* tokens per chunk; 0: min(model's positions, 2048) */
    int batch;           /* sequences per batch; 0: chosen. Never changes a result. */
    uint64_t max_tokens; /* text: stop after so many scored tokens; 0: all */
    sfq_model *against;  /* reference for KL, same-top-1 and flips; NULL: none */
    sfq_hooks hooks;
} sfq_eval_options;

typedef struct sfq_metric {
    const char *name; /* "accuracy", "f1", "matthews", "pearson", "spearman" */
    double value;     /* 0..1, correlations -1..1 */
} sfq_metric;

typedef struct sfq_eval_result {
    const char *task;   /* NULL for text */
    const char *metric; /* the task's main metric; "perplexity" for text */
    double value;
    sfq_metric metrics[4];
    int metric_count;
    uint64_t n; /* examples */
    double perplexity, nll;
    uint64_t tokens; /* scored */
    bool compared;   /* the four below are set; false for values and vectors, which are no
                      * distributions */
    double kl_mean, kl_p999, same_top1;
    uint64_t flips; /* answers whose top label/token changed */
    const char *isa;
    int activation_bits;
    double seconds;
} sfq_eval_result;

SFQ_API void sfq_eval_options_default(sfq_eval_options *options);
/* Codes: as opening, DATA and NOT_FOUND for the data, UNSUPPORTED where head and task disagree. */
SFQ_API sfq_status sfq_evaluate(sfq_model *model, const sfq_eval_options *options,
                                sfq_eval_result *out, sfq_error *err);

/* ---- benchmarks ---------------------------------------------------------------------------- */

typedef struct sfq_bench_options {
    size_t struct_size;
    int prompt_tokens;   /* 512 */
    int generate_tokens; /* 128 */
    int batch;           /* 1 */
    int rounds;          /* interleaved rounds over all models; the median is reported. 3 */
    int threads;         /* as sfq_model_options */
    sfq_hooks hooks;
    int kv_bits; /* as sfq_model_options */
    bool huge_pages;
} sfq_bench_options;

typedef struct sfq_bench_result {
    double load_seconds;              /* of a shape: making its weights */
    double prefill_tokens_per_second; /* encoders: tokens of whole batches per second */
    double decode_tokens_per_second;  /* 0 for encoders */
    double latency_seconds;           /* of the whole prompt; encoders: of the whole batch */
    uint64_t peak_rss_bytes;          /* beside the models that were already open */
    double bytes_per_token;      /* weights and KV read per decoded token (encoders: per token) */
    double read_bandwidth_share; /* of the bandwidth probed beside each round; beyond 1: caches */
    double multiply_share;       /* of the probed peak of the model's number type, in prefill */
    double products_per_mac; /* 1..2: activations of more than 8 bits take two byte products; 16-bit
                              * weights on AMX five (F16) or three (BF16) of bf16 */
    const char *multiply_peak_isa, *multiply_peak_type; /* which peak; static, NULL: none */
    double bits;                                        /* per original parameter */
    uint64_t bytes;
} sfq_bench_result;

/* A model of random weights, made in memory: as compress would leave it, for timing. */
typedef struct sfq_bench_shape {
    const char *shape;  /* llama-1b, llama-3b, llama-7b, llama-13b, llama-30b, bert-base, minilm, or
                          the path of a config.json */
    int bits;           /* 2..8; 16: the dense F16 original */
    int embedding_bits; /* 2..8 for word, position and type tables and heads; 0: 8 */
    double prune;       /* share of heads and neurons that is gone, evenly over the layers; 0..1 */
    uint64_t seed;
    int activation_bits; /* 8..14; 0: as compress chooses */
} sfq_bench_shape;

#define SFQ_PROBE_PEAKS 16

typedef struct sfq_probe_peak {
    const char *isa;  /* "amx", ...: the level of instructions; static */
    const char *type; /* "int8", "int7", "int4" (pairs, rows of byte products added in
                         16 bits), "bf16", "f32"; static */
    double macs_per_second;
} sfq_probe_peak;

typedef struct sfq_probe_result {
    double read_bytes_per_second;          /* all threads together, the best of the ways to read */
    double read_bytes_per_second_one;      /* one thread */
    double macs_per_second;                /* the highest F32 peak */
    sfq_probe_peak peaks[SFQ_PROBE_PEAKS]; /* [peak_count] of the levels that the host has */
    int peak_count;
} sfq_probe_result;

SFQ_API void sfq_bench_options_default(sfq_bench_options *options);
/* paths[0] is the model under test, the others are compared with it, interleaved. results [count].
 * *isa and *threads report what was used. */
SFQ_API sfq_status sfq_bench(const char *const *paths, size_t count,
                             const sfq_bench_options *options, sfq_bench_result *results,
                             const char **isa, int *threads, sfq_error *err);
/* The same with shapes. MEMORY, before anything is made, where they do not fit together. */
SFQ_API sfq_status sfq_bench_shapes(const sfq_bench_shape *shapes, size_t count,
                                    const sfq_bench_options *options, sfq_bench_result *results,
                                    const char **isa, int *threads, sfq_error *err);
/* What the machine can do at `threads`: read memory, multiply and add. */
SFQ_API sfq_status sfq_probe(int threads, sfq_probe_result *out, sfq_error *err);

#ifdef __cplusplus
}
#endif
#endif
