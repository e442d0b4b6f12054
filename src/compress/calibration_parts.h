/* compress/calibration_parts.h - what the files of calibration share: the run that gathers
 * candidates and the pick among them. For calibration*.c, curate.c and difficulty.c only. */
#ifndef SFQ_COMPRESS_CALIBRATION_PARTS_H
#define SFQ_COMPRESS_CALIBRATION_PARTS_H

#include "compress/calibration.h"
#include "text/tokenizer.h"

enum {
    SFQ_CALIB_MIN = 5,     /* sequences: 4 to tune on, 1 held out */
    SFQ_CALIB_SCAN = 4,    /* at most so many times the quota is looked at */
    SFQ_CALIB_FLOOR = 512, /* sequences of a task */
    SFQ_CALIB_FLOOR_TOKENS = 65536,
    SFQ_CALIB_LENGTH = 256, /* tokens of a text sequence */
    SFQ_CALIB_MIN_LENGTH = 16,
    SFQ_CALIB_CAP = 512 /* tokens of a task's sequence */
};

#define SFQ_CALIB_SHARE 0.005 /* of the train split or the text */

/* Streams of random numbers under the caller's seed. */
enum {
    SFQ_CALIB_STREAM_SCAN = 0xca11b001, /* what is looked at */
    SFQ_CALIB_STREAM_PICK,              /* what is taken, and which of it is held out */
    SFQ_CALIB_STREAM_SELF,              /* tokens of the model's own text */
    SFQ_CALIB_STREAM_AUGMENT
};

/* Sequences to choose from. Two that say the same (up to case and punctuation, in either order of a
 * pair) have the same key. */
typedef struct sfq_candidates {
    sfq_token_batch tokens;
    uint64_t *key; /* [tokens.sequences] */
    size_t key_capacity;
} sfq_candidates;

typedef struct sfq_calib_run {
    const sfq_source *source;
    const sfq_net *net;
    const sfq_kernels *kernels;
    const sfq_compress_options *options;
    int index, stages;
    sfq_tokenizer *tokenizer;
    bool curated;
    size_t length; /* no sequence is longer */
    sfq_candidates from;
    uint64_t budget; /* sequences, or tokens of text */
    bool by_tokens;
    uint64_t available;   /* sequences, or tokens of text */
    uint64_t done, total; /* for progress, in `unit` */
    const char *unit;
    double deadline; /* sfq_clock_seconds() */
    bool late;       /* it cut something short */
} sfq_calib_run;

static inline size_t sfq_candidates_count(const sfq_candidates *c)
{
    return c->tokens.sequences;
}

static inline size_t sfq_candidates_length(const sfq_candidates *c, size_t i)
{
    return c->tokens.offset[i + 1] - c->tokens.offset[i];
}

/* ---- calibration.c ---- */

sfq_status sfq_candidates_add(sfq_candidates *c, const int32_t *ids, const int32_t *types, size_t n,
                              uint64_t key, sfq_error *err);
void sfq_candidates_free(sfq_candidates *c);
/* `more` sequences are done; asks the hooks. */
sfq_status sfq_calib_progress(sfq_calib_run *run, uint64_t more, sfq_error *err);
/* Whether the deadline is past; then run->late says so, too. */
bool sfq_calib_late(sfq_calib_run *run);
/* The source's tokenizer, which the model has a row for every id of. */
sfq_status sfq_calib_tokenizer(sfq_tokenizer **out, const sfq_source *source, sfq_error *err);
/* Zeroed, offsets too. */
sfq_status sfq_calibration_alloc(sfq_calibration **out, size_t count, size_t tokens, bool typed,
                                 sfq_error *err);
/* Rounded down, so a share is never passed; what is 100 but for rounding is 100. */
uint64_t sfq_calib_share(double share, uint64_t available);
/* Whether the original model is asked how hard each candidate is. */
bool sfq_calib_scores(const sfq_calib_run *run);
/* Sequences of `available` that the options ask for; ARGUMENT for fewer than 5. */
sfq_status sfq_calib_quota(const sfq_compress_options *options, uint64_t available,
                           uint64_t *sequences, sfq_error *err);

/* ---- calibration_task.c: the train split ---- */

/* What stands in run->from afterwards is in random order. */
sfq_status sfq_calib_task(sfq_calib_run *run, sfq_error *err);
sfq_status sfq_calib_task_estimate(const sfq_source *source, const sfq_compress_options *options,
                                   uint64_t *sequences, uint64_t *tokens, sfq_error *err);

/* ---- calibration_text.c: text files ---- */

sfq_status sfq_calib_text(sfq_calib_run *run, sfq_error *err);
sfq_status sfq_calib_text_estimate(const sfq_source *source, const sfq_compress_options *options,
                                   uint64_t *sequences, uint64_t *tokens, sfq_error *err);
/* Of a sequence: as asked for, within the model's positions, and such that `tokens` make 5. */
sfq_status sfq_calib_length(const sfq_calib_run *run, uint64_t tokens, size_t *length,
                            sfq_error *err);

/* ---- calibration_self.c: what the language model writes itself ---- */

sfq_status sfq_calib_self(sfq_calib_run *run, sfq_error *err);
sfq_status sfq_calib_self_estimate(const sfq_source *source, const sfq_compress_options *options,
                                   uint64_t *sequences, uint64_t *tokens, sfq_error *err);

uint64_t sfq_calib_self_bytes(const sfq_source *source, const sfq_net *net, size_t length);

/* ---- difficulty.c: the original model's own uncertainty ---- */

/* out [candidates]: entropy of a classifier's answer, mean cross-entropy of a language model's
 * tokens, in nats. Incomplete once run->late is set. NUMERIC for what is not finite. */
sfq_status sfq_calib_difficulty(sfq_calib_run *run, double *out, sfq_error *err);
uint64_t sfq_calib_difficulty_bytes(const sfq_source *source, const sfq_net *net);

/* ---- curate.c: which of the candidates ---- */

typedef struct sfq_pick {
    size_t *index; /* [count] of candidates: first those to tune on, then those held out */
    size_t count, tune;
    size_t cut; /* tokens that candidate index[0] keeps, to end at the budget; 0: all */
    uint64_t duplicates;
} sfq_pick;

/* difficulty [candidates] may be NULL. DATA for fewer than 5 sequences. */
sfq_status sfq_pick_make(sfq_pick *out, const sfq_calib_run *run, const double *difficulty,
                         sfq_error *err);
void sfq_pick_free(sfq_pick *pick);

#endif
