/* text/pretokenizer.h - the pre-tokenizer of tokenizer.json: a chain of steps that cut a text into
 * words (and may rewrite them). Each step hands its pieces straight to the next one, depth first,
 * so nothing but the current piece is held. */
#ifndef SFQ_TEXT_PRETOKENIZER_H
#define SFQ_TEXT_PRETOKENIZER_H

#include "base/buf.h"
#include "base/status.h"
#include "text/normalizer.h"
#include "text/regex.h"

#include <jansson.h>

typedef enum sfq_pre_kind {
    SFQ_PRE_BERT,
    SFQ_PRE_BYTE_LEVEL,
    SFQ_PRE_CHAR,
    SFQ_PRE_DIGITS,
    SFQ_PRE_FIXED_LENGTH,
    SFQ_PRE_METASPACE,
    SFQ_PRE_PUNCTUATION,
    SFQ_PRE_SPLIT,
    SFQ_PRE_WHITESPACE,
    SFQ_PRE_WHITESPACE_SPLIT
} sfq_pre_kind;

/* What becomes of the matches (delimiters) of a split. */
typedef enum sfq_behavior {
    SFQ_REMOVED,
    SFQ_ISOLATED,
    SFQ_MERGED_WITH_PREVIOUS,
    SFQ_MERGED_WITH_NEXT,
    SFQ_CONTIGUOUS
} sfq_behavior;

typedef enum sfq_prepend_scheme {
    SFQ_PREPEND_ALWAYS,
    SFQ_PREPEND_FIRST,
    SFQ_PREPEND_NEVER
} sfq_prepend_scheme;

typedef struct sfq_pre_step {
    sfq_pre_kind kind;
    sfq_behavior behavior;
    bool invert;         /* Split: the text between matches is the delimiter */
    char *literal;       /* Split: or NULL with a regex */
    sfq_regex *regex;    /* Split; ByteLevel with use_regex */
    bool prefix_space;   /* ByteLevel */
    bool individual;     /* Digits */
    bool split;          /* Metaspace */
    uint32_t character;  /* CharDelimiterSplit, Metaspace */
    char replacement[8]; /* Metaspace: the character as UTF-8 */
    sfq_prepend_scheme scheme;
    size_t length; /* FixedLength */
} sfq_pre_step;

typedef struct sfq_pretokenizer {
    sfq_pre_step *steps; /* [count]; none: the text is one word */
    size_t count;
} sfq_pretokenizer;

typedef struct sfq_pre_scratch {
    sfq_buf text[SFQ_TEXT_STEPS_MAX];  /* a step's rewritten input */
    sfq_buf piece[SFQ_TEXT_STEPS_MAX]; /* ByteLevel: one rewritten piece */
    sfq_regex_scratch *regex[SFQ_TEXT_STEPS_MAX];
} sfq_pre_scratch;

typedef sfq_status (*sfq_word_fn)(void *ctx, const char *word, size_t n, sfq_error *err);

sfq_status sfq_pretokenizer_load(sfq_pretokenizer *pre, const json_t *json, const char *file,
                                 sfq_error *err);
void sfq_pretokenizer_close(sfq_pretokenizer *pre);
sfq_status sfq_pre_scratch_open(sfq_pre_scratch *scratch, const sfq_pretokenizer *pre,
                                sfq_error *err);
void sfq_pre_scratch_close(sfq_pre_scratch *scratch);
/* Calls word() for every word (n > 0), left to right. head: how many bytes at the beginning of s
 * stem from the first character of the whole input. */
sfq_status sfq_pretokenizer_run(const sfq_pretokenizer *pre, sfq_pre_scratch *scratch,
                                const char *s, size_t n, size_t head, sfq_word_fn word, void *ctx,
                                sfq_error *err);

#endif
