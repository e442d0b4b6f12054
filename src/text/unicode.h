/* text/unicode.h - character classes, case and normalization forms as tokenizers has them. */
#ifndef SFQ_TEXT_UNICODE_H
#define SFQ_TEXT_UNICODE_H

#include "base/buf.h"
#include "base/status.h"

typedef struct sfq_uni_range {
    uint32_t first, last;
} sfq_uni_range;

typedef struct sfq_uni_new {
    uint32_t first, last;
    char category[3]; /* general category, "Lu" */
} sfq_uni_new;

/* unicode_tables.c */
extern const sfq_uni_range sfq_uni_punctuation[], sfq_uni_numeric[], sfq_uni_word[],
    sfq_uni_alphabetic[], sfq_uni_other[], sfq_uni_mark[], sfq_uni_nonspacing[], sfq_uni_opaque[],
    sfq_uni_lower[];
extern const size_t sfq_uni_punctuation_count, sfq_uni_numeric_count, sfq_uni_word_count,
    sfq_uni_alphabetic_count, sfq_uni_other_count, sfq_uni_mark_count, sfq_uni_nonspacing_count,
    sfq_uni_opaque_count, sfq_uni_lower_count;
extern const sfq_uni_new sfq_uni_news[];
extern const size_t sfq_uni_news_count;

bool sfq_uni_is_space(uint32_t c);                     /* White_Space */
bool sfq_uni_is_punctuation(uint32_t c);               /* Punctuation, BertPreTokenizer */
bool sfq_uni_is_numeric(uint32_t c);                   /* Digits */
bool sfq_uni_is_word(uint32_t c);                      /* Whitespace, single_word */
bool sfq_uni_is_other(uint32_t c);                     /* BertNormalizer.clean_text removes it */
bool sfq_uni_is_mark(uint32_t c);                      /* StripAccents removes it */
bool sfq_uni_is_nonspacing(uint32_t c);                /* BertNormalizer.strip_accents removes it */
bool sfq_uni_is_new_mark(uint32_t c);                  /* a mark assigned after Unicode 14 */
bool sfq_uni_is_chinese(uint32_t c);                   /* BertNormalizer.handle_chinese_chars */
size_t sfq_uni_lowercase(uint32_t c, uint32_t out[2]); /* characters written, 1 or 2 */

typedef enum sfq_uni_form { SFQ_NFC, SFQ_NFD, SFQ_NFKC, SFQ_NFKD } sfq_uni_form;

/* Appends the text in the given form. Linear in n but for the sort of a run of marks. */
sfq_status sfq_uni_normalize(sfq_uni_form form, const char *s, size_t n, sfq_buf *out,
                             sfq_error *err);

#endif
