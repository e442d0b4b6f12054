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
    const char *model;  /* directory or Hub id */
    const char *output; /* directory; must not exist unless force */
    const char *recipe; /* "sfq" */
    double prune;       /* share of the prunable blocks to remove, 0 to below 1 (0.40) */
    int bits;           /* 2..8, matrices of the blocks and poolers */
    int embedding_bits; /* 2..8, embedding tables and language-model heads */
    int steps;          /* recalibration steps at most, -1 (default): from the calibration size;
                                0: none */
    const char *const *keep; /* regexes: these tensors stay dense */
    size_t keep_count;
    const sfq_bits_rule *bits_for; /* the last rule that matches wins, above bits */
    size_t bits_for_count;
    const char *task; /* with data: calibrate on the train split, measure on the dev split; own
                         data needs no labels, without them in the dev split nothing is measured */
    const char *data;
    const char *const *text_files; /* calibrate on text, measure on a part of it set aside */
    size_t text_count;
    double calib_fraction; /* of the train split or the text; 0 (default): DESIGN's quota */
    uint64_t calib_tokens; /* text: this many tokens instead; 0: by the fraction */
    int calib_length;      /* tokens of a text sequence, 16..4096 (256) */
    const char *pick;      /* "curated" (default) or "random": how calibration is chosen */
    const char *saliency;  /* "fisher" (default), "taylor", "magnitude", "error" */
    int rounds;            /* of pruning, 1..16; 0 (default): the recipe's */
    bool uniform;          /* the same widths in every layer */
    double minutes;        /* ceiling on the whole run (30); 0: none */
    double max_drop;       /* points; negative: no guard */
    uint64_t seed;
    int threads;
    bool force;
    bool keep_stages; /* leave OUTPUT.pruned, .reconstructed, .distilled, .fused: the model as the
                         stages that the run has made it */
    sfq_hooks hooks;
    int activation_bits; /* 8..14: to which the inputs of matrices are rounded at run time; 0
                            (default): 12 for language models' down from 5 bits on and heads from
                            7 on, encoders' v from 6 on; 8 for the others */
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

/* Writes the artifact. An interrupted run leaves OUTPUT.work, from which the same request goes on.
 * On any failure the output path is as it was before. GUARD: the artifact is
 * kept as OUTPUT.rejected and *out is filled. Codes: as opening a model, and ARGUMENT, DATA,
 * EXISTS, NO_SPACE, INTERRUPTED, GUARD. */
SFQ_API sfq_status sfq_compress(const sfq_compress_options *options, sfq_compress_result *out,
                                sfq_error *err);

/* ---- export ---- */

typedef struct sfq_export_options {
    size_t struct_size;
    const char *model;  /* directory or Hub id, compressed or not */
    const char *output; /* directory; must not exist unless force */
    const char *format; /* "dense" (default) */
    int threads;
    bool force;
    sfq_hooks hooks;
} sfq_export_options;

typedef struct sfq_export_result {
    char output[512];
    uint64_t bytes;           /* of the weight file */
    uint64_t parameters;      /* stored, padding included */
    int heads, kv_heads, ffn; /* the uniform widths of the result */
    bool padded;              /* some layers were narrower and got zero units */
} sfq_export_result;

SFQ_API void sfq_export_options_default(sfq_export_options *options);

/* Writes a plain 16-bit Hugging Face checkpoint that stock Transformers loads and that computes
 * what the model does (its weights as they are decoded; activations are floats there). Checksums
 * are verified first. On any failure the output path is as it was before. Codes: as opening a
 * model, and ARGUMENT, CHECKSUM, EXISTS, NO_SPACE, INTERRUPTED. */
SFQ_API sfq_status sfq_export(const sfq_export_options *options, sfq_export_result *out,
                              sfq_error *err);

#ifdef __cplusplus
}
#endif
#endif
