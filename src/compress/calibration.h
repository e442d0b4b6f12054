/* compress/calibration.h - the sequences that a run may look at (DESIGN.md section 8): chosen from
 * the train split of a task, from text, or sampled from the language model itself; curated; one
 * fifth held out. The dev split of a task is never opened here. */
#ifndef SFQ_COMPRESS_CALIBRATION_H
#define SFQ_COMPRESS_CALIBRATION_H

#include "compress/source.h"
#include "model/forward.h"

/* Sequences [0, tune) are for statistics, gradients and least squares. Sequences [tune, count) are
 * held out: they decide early stop and roll-back and enter nothing else. */
typedef struct sfq_calibration {
    size_t count, tune;
    size_t *offset;      /* [count+1] */
    int32_t *ids;        /* [offset[count]] */
    int32_t *types;      /* the same, or NULL */
    char origin[8];      /* "task", "text", "self" */
    double fraction;     /* of the train split's sequences, of the text's tokens; 0 for "self" */
    uint64_t scanned;    /* sequences that were looked at to choose these */
    uint64_t available;  /* sequences (task) or tokens (text) that there are */
    uint64_t duplicates; /* that were left out among the scanned */
    bool late;           /* the deadline cut choosing or sampling short; not saved */
} sfq_calibration;

/* Chooses. `net` is the original model (for losses and sampling). Options used: task, data,
 * text_files, calib_fraction, calib_tokens, calib_length, pick, seed. DATA for data that cannot
 * serve (no examples, fewer than 5 sequences, text shorter than one sequence ...); ARGUMENT for an
 * encoder without data. Progress as stage `index` of `stages`. Once sfq_clock_seconds() is past
 * `deadline` (INFINITY: never) no more candidates are weighed and no more text is sampled than 5
 * sequences need. */
sfq_status sfq_calibration_make(sfq_calibration **out, const sfq_source *source, const sfq_net *net,
                                const sfq_kernels *kernels, const sfq_compress_options *options,
                                int index, int stages, double deadline, sfq_error *err);
void sfq_calibration_close(sfq_calibration **calibration);
uint64_t sfq_calibration_tokens(const sfq_calibration *calibration);
/* About how many, from above, before anything is run: sequences and tokens. Data is opened for it
 * and a sample is tokenized, so what cannot serve fails here already. */
sfq_status sfq_calibration_estimate(const sfq_source *source, const sfq_compress_options *options,
                                    uint64_t *sequences, uint64_t *tokens, sfq_error *err);
/* Memory of choosing so many; data that is mapped is not in it. */
uint64_t sfq_calibration_bytes(const sfq_source *source, const sfq_net *net,
                               const sfq_compress_options *options, uint64_t sequences,
                               uint64_t tokens);

/* To and from one file of the journal; load proves ids, offsets and sizes against the model. */
sfq_status sfq_calibration_save(const sfq_calibration *calibration, sfq_outdir *dir,
                                const char *name, sfq_error *err);
sfq_status sfq_calibration_load(sfq_calibration **out, const char *path, const sfq_arch *arch,
                                sfq_error *err);

/* The part of the texts that calibration never sees (the last twentieth of the last file, at most
 * 256 KiB, cut at characters and where possible at lines), as a file of the directory: perplexity
 * before and after is measured on it. */
sfq_status sfq_calibration_put_test(const sfq_compress_options *options, sfq_outdir *dir,
                                    const char *name, sfq_error *err);

/* ---- batches ---- */

/* A batch that owns its tokens, grown as needed and reused. */
typedef struct sfq_token_batch {
    sfq_batch batch; /* points into the three below; kv NULL */
    size_t *offset;
    int32_t *ids, *types;
    size_t sequences, sequence_capacity, token_capacity;
    bool typed;
} sfq_token_batch;

void sfq_token_batch_clear(sfq_token_batch *b); /* empties, keeps memory */
void sfq_token_batch_free(sfq_token_batch *b);
/* Its memory after holding at most so many sequences and tokens at once. */
uint64_t sfq_token_batch_bytes(size_t sequences, size_t tokens);
/* Adds a sequence; types may be NULL (then 0). */
sfq_status sfq_token_batch_add(sfq_token_batch *b, const int32_t *ids, const int32_t *types,
                               size_t n, sfq_error *err);
/* Adds sequence i of the calibration set. */
sfq_status sfq_token_batch_take(sfq_token_batch *b, const sfq_calibration *c, size_t i,
                                sfq_error *err);

/* ---- augmentation without labels: fresh inputs near the data, for the teacher to answer ---- */

typedef struct sfq_augment {
    double replace; /* probability that a token becomes another token of the set (by frequency) */
    double drop;    /* probability that a token is left out */
    double swap;    /* pairs: probability that the two texts change places */
    double mix;     /* pairs: probability that the second text is another sequence's */
    uint64_t seed;
} sfq_augment;

typedef struct sfq_augmenter sfq_augmenter;
/* Frequencies of the tune part; special tokens (of the tokenizer's post-processor: those that stand
 * at the same place of every sequence or are marked special) are never changed. */
sfq_status sfq_augmenter_open(sfq_augmenter **out, const sfq_calibration *c,
                              const sfq_source *source, const sfq_augment *how, sfq_error *err);
void sfq_augmenter_close(sfq_augmenter **augmenter);
/* Variant `round` of sequence i (i < tune) into the batch: depends on (seed, i, round) alone. */
sfq_status sfq_augmenter_add(const sfq_augmenter *a, sfq_token_batch *b, size_t i, uint64_t round,
                             sfq_error *err);

#endif
