/* compress/train_state.h - training that was cut off: one file with everything that decides what
 * comes next, replaced at once. Not an artifact and not to be moved between machines. */
#ifndef SFQ_COMPRESS_TRAIN_STATE_H
#define SFQ_COMPRESS_TRAIN_STATE_H

#include "base/status.h"

typedef struct sfq_train_state {
    uint64_t at;      /* steps done */
    uint64_t judged;  /* steps after which the held-out loss was last measured */
    uint64_t best_at; /* steps after which it was least */
    uint64_t since;   /* measurements since then */
    double before, best;
} sfq_train_state;

typedef struct sfq_train_block {
    void *data;
    size_t bytes;
} sfq_train_block;

/* `request` stands for everything else that decides the result. */
sfq_status sfq_train_state_save(const char *path, uint64_t request, const sfq_train_state *state,
                                const sfq_train_block *blocks, size_t count, sfq_error *err);
/* *why is NULL when state and blocks were filled, "" when there is no file, else what is wrong with
 * it; then nothing was changed. Only running out of memory is a failure. */
sfq_status sfq_train_state_load(const char *path, uint64_t request, sfq_train_state *state,
                                const sfq_train_block *blocks, size_t count, const char **why,
                                sfq_error *err);

#endif
