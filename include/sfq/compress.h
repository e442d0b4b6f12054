/* sfq/compress.h - from a checkpoint to an sfq artifact: plan it, do it, read what was done. */
#ifndef SFQ_COMPRESS_H
#define SFQ_COMPRESS_H

#include <sfq/common.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sfq_bits_rule {
    const char *regex; /* PCRE2 over the tensor's name, anywhere in it */
    int bits;          /* 2..8; 16 keeps the tensor dense */
} sfq_bits_rule;

typedef struct sfq_compress_options {
    size_t struct_size;
    const char *model;       /* directory or Hub id */
    const char *output;      /* directory; must not exist unless force */
    const char *recipe;      /* "sfq" */
    double prune;            /* share of the prunable blocks; this version needs 0 (default 0.40) */
    int bits;                /* 2..8, matrices of the blocks and poolers */
    int embedding_bits;      /* 2..8, embedding tables and language-model heads */
    int steps;               /* recalibration steps, -1 (default): from the calibration size;
                                this version needs 0 */
    const char *const *keep; /* regexes: these tensors stay dense */
    size_t keep_count;
    const sfq_bits_rule *bits_for; /* the last rule that matches wins, above bits */
    size_t bits_for_count;
    const char *task; /* with data: measure baseline and compressed on the dev split */
    const char *data;
    const char *const *text_files; /* the same on text */
    size_t text_count;
    double max_drop; /* points; negative: no guard */
    uint64_t seed;
    int threads;
    bool force;
    sfq_hooks hooks;
} sfq_compress_options;

typedef struct sfq_stage_report {
    const char *name;
    double seconds;
    double loss; /* held-out KL; NaN where nothing was measured */
    int steps;
} sfq_stage_report;

typedef struct sfq_compress_result {
    char output[512]; /* where the artifact is; NAME.rejected when the guard tripped */
    char recipe[16];
    uint64_t original_bytes, bytes; /* planned ones after sfq_compress_plan */
    double reduction, scale_overhead;
    int pruned_heads, pruned_neurons;
    double pruned_fraction;
    uint64_t calibration_sequences, calibration_tokens;
    double calibration_fraction;
    sfq_stage_report stages[12];
    int stage_count;
    bool measured; /* the five below are set */
    char metric[24];
    double baseline, compressed, drop;
    double seconds;
    char stopped_by[16];                         /* "done" or "time" */
    uint64_t plan_memory_bytes, plan_disk_bytes; /* estimated before starting */
    double plan_seconds;
} sfq_compress_result;

SFQ_API void sfq_compress_options_default(sfq_compress_options *options);

/* Sizes, memory, disk and time without doing it. */
SFQ_API sfq_status sfq_compress_plan(const sfq_compress_options *options, sfq_compress_result *out,
                                     sfq_error *err);

/* Writes the artifact; on any failure the output path is as it was before. GUARD: the artifact is
 * kept as OUTPUT.rejected and *out is filled. Codes: as opening a model, and ARGUMENT, DATA,
 * EXISTS, NO_SPACE, INTERRUPTED, GUARD. */
SFQ_API sfq_status sfq_compress(const sfq_compress_options *options, sfq_compress_result *out,
                                sfq_error *err);

#ifdef __cplusplus
}
#endif
#endif
