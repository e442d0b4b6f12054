/* text/normalizer.h - the normalizer of tokenizer.json, as a flat list of steps. */
#ifndef SFQ_TEXT_NORMALIZER_H
#define SFQ_TEXT_NORMALIZER_H

#include "base/buf.h"
#include "base/status.h"
#include "text/load_steps.h"
#include "text/precompiled.h"
#include "text/regex.h"

#include <jansson.h>

typedef enum sfq_norm_kind {
    SFQ_NORM_BERT,
    SFQ_NORM_BYTE_LEVEL,
    SFQ_NORM_LOWERCASE,
    SFQ_NORM_FORM, /* NFC, NFD, NFKC, NFKD */
    SFQ_NORM_NMT,
    SFQ_NORM_PRECOMPILED,
    SFQ_NORM_PREPEND,
    SFQ_NORM_REPLACE,
    SFQ_NORM_STRIP,
    SFQ_NORM_STRIP_ACCENTS
} sfq_norm_kind;

typedef struct sfq_norm_step {
    sfq_norm_kind kind;
    int form;                                           /* sfq_uni_form */
    bool clean_text, chinese, strip_accents, lowercase; /* BertNormalizer */
    bool left, right;                                   /* Strip */
    char *literal; /* Replace: what to look for, or NULL with a regex */
    sfq_regex *regex;
    char *content; /* Replace: what to put; Prepend: what to put before */
    sfq_precompiled map;
} sfq_norm_step;

typedef struct sfq_normalizer {
    sfq_norm_step *steps; /* [count]; none: the text stays as it is */
    size_t count;
} sfq_normalizer;

typedef struct sfq_norm_scratch {
    sfq_buf a, b;
    sfq_regex_scratch *regex[SFQ_TEXT_STEPS_MAX];
} sfq_norm_scratch;

/* json NULL or null: no step. UNSUPPORTED names a type that is not known. */
sfq_status sfq_normalizer_load(sfq_normalizer *normalizer, const json_t *json, const char *file,
                               sfq_error *err);
void sfq_normalizer_close(sfq_normalizer *normalizer);

sfq_status sfq_norm_scratch_open(sfq_norm_scratch *scratch, const sfq_normalizer *normalizer,
                                 sfq_error *err);
void sfq_norm_scratch_close(sfq_norm_scratch *scratch);
/* *out points into s or scratch until the next run. head (see pretokenizer.h) goes along. LIMIT
 * where the text grows more than 32 fold. */
sfq_status sfq_normalizer_run(const sfq_normalizer *normalizer, sfq_norm_scratch *scratch,
                              const char *s, size_t n, size_t *head, const char **out,
                              size_t *out_n, sfq_error *err);

/* The character that stands for a byte in byte-level vocabularies (GPT-2's table). */
uint32_t sfq_byte_char(unsigned byte);
int sfq_char_byte(uint32_t c); /* -1: stands for none */
/* Appends the byte-level form of n bytes. */
sfq_status sfq_byte_level_put(sfq_buf *out, const char *s, size_t n, sfq_error *err);

#endif
