/* text/load_steps.h - a part of tokenizer.json that is one step or a Sequence of steps: normalizer,
 * pre_tokenizer, decoder. */
#ifndef SFQ_TEXT_LOAD_STEPS_H
#define SFQ_TEXT_LOAD_STEPS_H

#include "base/json.h"

#define SFQ_TEXT_STEPS_MAX 64 /* steps of one sequence of normalizers, pre-tokenizers or decoders */

typedef struct sfq_step_list {
    const char *part;   /* its key in tokenizer.json */
    const char *items;  /* the key of a Sequence's array */
    const char *plural; /* of a step, for messages */
    const char *file;   /* for messages */
    /* Appends the step of this type; *known = false where there is none. */
    sfq_status (*load)(void *ctx, const json_t *json, const char *type, bool *known);
    void *ctx;
    size_t count; /* steps loaded */
} sfq_step_list;

/* Calls load for each step in order, Sequences within Sequences included. FORMAT, LIMIT beyond
 * SFQ_TEXT_STEPS_MAX, UNSUPPORTED for a type that is not known. */
sfq_status sfq_steps_load(sfq_step_list *list, const json_t *json, sfq_error *err);

#endif
