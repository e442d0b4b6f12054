/* text/added_tokens.h - the tokens that tokenizer.json adds to the model's: found in the text
 * before anything else happens (or after normalization, where they say so) and never cut. */
#ifndef SFQ_TEXT_ADDED_TOKENS_H
#define SFQ_TEXT_ADDED_TOKENS_H

#include "text/normalizer.h"
#include "text/vocab.h"

typedef struct sfq_added_token {
    char *content;
    char *normal; /* normalized content where that differs, else NULL */
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    bool hidden;  /* decode with skip_special leaves it out */
    size_t order; /* of the last mention in the file */
} sfq_added_token;

typedef struct sfq_matcher sfq_matcher; /* matcher.c */

typedef struct sfq_added_tokens {
    sfq_added_token *tokens; /* [count], ascending ids */
    size_t count;
    sfq_vocab contents; /* content to id; an id may belong to several */
    int32_t *content_ids;
    sfq_matcher *raw;        /* tokens with normalized = false; NULL: none */
    sfq_matcher *normalized; /* the others */
} sfq_added_tokens;

sfq_status sfq_added_load(sfq_added_tokens *added, const json_t *list, const sfq_vocab *vocab,
                          const sfq_normalizer *normalizer, const char *file, sfq_error *err);
void sfq_added_close(sfq_added_tokens *added);
const sfq_added_token *sfq_added_by_id(const sfq_added_tokens *added, int32_t id); /* or NULL */
int32_t sfq_added_find(const sfq_added_tokens *added, const char *content, size_t len); /* -1 */

/* A stretch of text: an added token, or (token NULL) text between. */
typedef sfq_status (*sfq_stretch_fn)(void *ctx, const sfq_added_token *token, const char *s,
                                     size_t begin, size_t end, sfq_error *err);

/* Cuts s at the tokens of the matcher (may be NULL), left to right. */
sfq_status sfq_added_split(const sfq_added_tokens *added, const sfq_matcher *matcher, const char *s,
                           size_t n, sfq_stretch_fn stretch, void *ctx, sfq_error *err);

/* ---- matcher.c: leftmost-longest search for many strings, linear in the text ---- */

sfq_status sfq_matcher_open(sfq_matcher **out, size_t bytes, sfq_error *err); /* of all strings */
void sfq_matcher_close(sfq_matcher **matcher);
/* false: the string is there already (or empty) */
bool sfq_matcher_add(sfq_matcher *matcher, const char *text, size_t len, uint32_t value);
sfq_status sfq_matcher_finish(sfq_matcher *matcher, sfq_error *err); /* after the last add */

typedef struct sfq_hit {
    size_t at;
    uint32_t len, value;
} sfq_hit;

typedef struct sfq_hits {
    sfq_hit *v; /* from the end of the text to its beginning */
    size_t count, cap;
} sfq_hits;

/* The longest string at every position where one begins. */
sfq_status sfq_matcher_find(const sfq_matcher *matcher, const char *s, size_t n, sfq_hits *hits,
                            sfq_error *err);

#endif
