/* text/wordpiece.h - WordPiece (greedy longest match first) and WordLevel (whole words only). */
#ifndef SFQ_TEXT_WORDPIECE_H
#define SFQ_TEXT_WORDPIECE_H

#include "text/vocab.h"

typedef struct sfq_wordpiece {
    const sfq_vocab *vocab;
    char *prefix; /* continuing_subword_prefix */
    size_t prefix_len;
    size_t max_chars;
    size_t longest; /* bytes of the longest token */
    int32_t unk;    /* -1: named and missing, an error once it is needed */
} sfq_wordpiece;

sfq_status sfq_wordpiece_load(sfq_wordpiece *model, const sfq_vocab *vocab, const json_t *json,
                              const char *file, sfq_error *err);
void sfq_wordpiece_close(sfq_wordpiece *model);
/* Appends the ids of one word. `scratch` is the caller's, any content. */
sfq_status sfq_wordpiece_encode(const sfq_wordpiece *model, sfq_buf *scratch, const char *word,
                                size_t n, sfq_ids *out, sfq_error *err);

/* WordLevel: only vocab and unk are used. */
sfq_status sfq_wordlevel_load(sfq_wordpiece *model, const sfq_vocab *vocab, const json_t *json,
                              const char *file, sfq_error *err);
sfq_status sfq_wordlevel_encode(const sfq_wordpiece *model, const char *word, size_t n,
                                sfq_ids *out, sfq_error *err);

#endif
