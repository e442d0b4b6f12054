/* text/decoder.h - the decoder of tokenizer.json: from the texts of tokens to readable text. */
#ifndef SFQ_TEXT_DECODER_H
#define SFQ_TEXT_DECODER_H

#include "base/buf.h"
#include "base/status.h"
#include "text/normalizer.h"

#include <jansson.h>

typedef enum sfq_decode_kind {
    SFQ_DECODE_BPE,
    SFQ_DECODE_BYTE_FALLBACK,
    SFQ_DECODE_BYTE_LEVEL,
    SFQ_DECODE_CTC,
    SFQ_DECODE_FUSE,
    SFQ_DECODE_METASPACE,
    SFQ_DECODE_REPLACE,
    SFQ_DECODE_STRIP,
    SFQ_DECODE_WORDPIECE
} sfq_decode_kind;

typedef struct sfq_decode_step {
    sfq_decode_kind kind;
    char *literal;    /* suffix, prefix, pad token, pattern, stripped or replaced character */
    char *content;    /* Replace: what to put; CTC: word delimiter */
    sfq_regex *regex; /* Replace */
    bool cleanup;
    bool prefix_space;  /* Metaspace: the first token loses its replacement characters */
    size_t start, stop; /* Strip */
} sfq_decode_step;

typedef struct sfq_decoder {
    sfq_decode_step *steps; /* [count] */
    size_t count;
    bool none; /* no decoder at all: tokens are joined by spaces */
} sfq_decoder;

/* Token texts in one buffer: token i is data[ends[i-1], ends[i]). */
typedef struct sfq_texts {
    sfq_buf data;
    size_t *ends; /* [count] */
    size_t count, cap;
} sfq_texts;

/* Closes the token whose bytes were added to data. */
sfq_status sfq_texts_end(sfq_texts *texts, sfq_error *err);
void sfq_texts_free(sfq_texts *texts);

sfq_status sfq_decoder_load(sfq_decoder *decoder, const json_t *json, const char *file,
                            sfq_error *err);
void sfq_decoder_close(sfq_decoder *decoder);
/* Runs the chain in place and appends the joined result to out. */
sfq_status sfq_decoder_run(const sfq_decoder *decoder, sfq_texts *texts, sfq_buf *out,
                           sfq_error *err);

#endif
