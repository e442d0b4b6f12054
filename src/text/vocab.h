/* text/vocab.h - the tokens of a model: text to id and id to text, both by open-addressed hash
 * tables, so that neither gaps in the ids nor their size cost memory. Built once, then read by any
 * number of threads. */
#ifndef SFQ_TEXT_VOCAB_H
#define SFQ_TEXT_VOCAB_H

#include "base/buf.h"
#include "base/status.h"

#include <jansson.h>

#define SFQ_TOKEN_BYTES_MAX 65536 /* bytes of one token; longer ones are a LIMIT */
#define SFQ_VOCAB_MAX 4000000     /* tokens of one vocabulary */

typedef struct sfq_token {
    uint32_t at; /* offset of the text in sfq_vocab.bytes */
    uint32_t len;
    int32_t id;
} sfq_token;

typedef struct sfq_vocab {
    sfq_buf bytes;
    sfq_token *tokens; /* [count], order of the file */
    size_t count;
    size_t cap;
    uint32_t *by_text; /* [mask + 1]: index into tokens + 1; 0: free */
    uint32_t *by_id;   /* [mask + 1]: the same */
    size_t mask;
    int32_t end; /* highest id + 1 */
} sfq_vocab;

/* room for `count` tokens; LIMIT above SFQ_VOCAB_MAX */
sfq_status sfq_vocab_open(sfq_vocab *vocab, size_t count, const char *file, sfq_error *err);
void sfq_vocab_close(sfq_vocab *vocab);
/* FORMAT when the id is negative, too large or taken; the text must be new unless `again`, which
 * makes a later token of the same text win for text to id (Unigram lists allow that). */
sfq_status sfq_vocab_add(sfq_vocab *vocab, const char *text, size_t len, int64_t id, bool again,
                         const char *file, sfq_error *err);
/* {"text": id, ...}, the form of BPE, WordPiece and WordLevel */
sfq_status sfq_vocab_load(sfq_vocab *vocab, const json_t *object, const char *file, sfq_error *err);
int32_t sfq_vocab_find(const sfq_vocab *vocab, const char *text, size_t len); /* -1: unknown */
/* NULL: no token has that id. The text is NUL-terminated. */
const char *sfq_vocab_text(const sfq_vocab *vocab, int32_t id, size_t *len);
/* The id of "<0xXX>", the token of one raw byte; -1 without one. */
int32_t sfq_vocab_find_byte(const sfq_vocab *vocab, unsigned byte);
/* With byte_fallback: FORMAT when a token looks like <0x..> and is none. */
sfq_status sfq_vocab_check_bytes(const sfq_vocab *vocab, const char *file, sfq_error *err);

/* ids in the making */
typedef struct sfq_ids {
    int32_t *v;
    size_t count;
    size_t cap;
} sfq_ids;

sfq_status sfq_ids_grow(sfq_ids *ids, size_t more, sfq_error *err);
void sfq_ids_free(sfq_ids *ids);

static inline sfq_status sfq_ids_add(sfq_ids *ids, int32_t id, sfq_error *err)
{
    if (ids->count == ids->cap)
        SFQ_TRY(sfq_ids_grow(ids, 1, err));
    ids->v[ids->count++] = id;
    return SFQ_OK;
}

#endif
