/* text/postprocessor.h - the post-processor of tokenizer.json: which special tokens stand around
 * one sequence or a pair, and the token types. */
#ifndef SFQ_TEXT_POSTPROCESSOR_H
#define SFQ_TEXT_POSTPROCESSOR_H

#include "base/status.h"
#include "text/vocab.h"

#include <jansson.h>

typedef struct sfq_post_piece {
    int sequence; /* 0: A, 1: B, -1: special tokens */
    int32_t type;
    int32_t *ids; /* [count] of the special tokens */
    size_t count;
} sfq_post_piece;

typedef struct sfq_post_template {
    sfq_post_piece *pieces; /* [count] */
    size_t count;
    size_t special; /* ids that it adds */
} sfq_post_template;

typedef struct sfq_postprocessor {
    sfq_post_template single, pair;

} sfq_postprocessor;

typedef bool (*sfq_known_id_fn)(const void *ctx, int32_t id);

/* known: does the tokenizer have a token of this id? FORMAT where a special token is none. */
sfq_status sfq_postprocessor_load(sfq_postprocessor *post, const json_t *json,
                                  sfq_known_id_fn known, const void *ctx, const char *file,
                                  sfq_error *err);
void sfq_postprocessor_close(sfq_postprocessor *post);

#endif
