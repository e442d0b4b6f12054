/* text/tokenizer.h - tokenizer.json of the `tokenizers` library, read and run: added tokens,
 * normalizer, pre-tokenizer, model (BPE, WordPiece, Unigram), post-processor, decoder. Every
 * component is either exactly that library's or refused by name (UNSUPPORTED). */
#ifndef SFQ_TEXT_TOKENIZER_H
#define SFQ_TEXT_TOKENIZER_H

#include "base/status.h"

typedef struct sfq_tokenizer sfq_tokenizer;

typedef struct sfq_encoding {
    int32_t *ids;   /* [count], sfq_encoding_clear frees */
    int32_t *types; /* [count] token type ids of the post-processor */
    size_t count;
    size_t special_count; /* how many of them the post-processor added */
} sfq_encoding;

/* DIR/tokenizer.json. */
sfq_status sfq_tokenizer_open(sfq_tokenizer **out, const char *dir, sfq_error *err);
/* From memory; `file` only names. */
sfq_status sfq_tokenizer_parse(sfq_tokenizer **out, const char *file, const char *json,
                               size_t bytes, sfq_error *err);
void sfq_tokenizer_close(sfq_tokenizer **tokenizer);

/* Thread-safe. text must be UTF-8 (DATA names the offset). pair NULL: single sequence. max_tokens
 * 0: no truncation; else pairs are cut longest first so that the whole (specials included) fits. */
sfq_status sfq_tokenizer_encode(const sfq_tokenizer *tokenizer, const char *text, size_t bytes,
                                const char *pair, size_t pair_bytes, bool special,
                                size_t max_tokens, sfq_encoding *out, sfq_error *err);
void sfq_encoding_clear(sfq_encoding *encoding);

/* The decoder's text of ids, NUL-terminated, sfq_mem_free. Ids outside the vocabulary are
 * skipped. */
sfq_status sfq_tokenizer_decode(const sfq_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                bool skip_special, char **text, size_t *bytes, sfq_error *err);
int32_t sfq_tokenizer_vocab_end(const sfq_tokenizer *tokenizer);               /* highest id + 1 */
int32_t sfq_tokenizer_find(const sfq_tokenizer *tokenizer, const char *token); /* -1 */
/* FORMAT when an id reaches beyond vocab; path is tokenizer.json's, for the message. */
sfq_status sfq_tokenizer_fits(const sfq_tokenizer *tokenizer, const char *path, int64_t vocab,
                              sfq_error *err);
bool sfq_tokenizer_is_special(const sfq_tokenizer *tokenizer, int32_t id);

#endif
