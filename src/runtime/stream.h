/* runtime/stream.h - from generated tokens to text that may be shown: whole characters only, and
 * nothing that may yet turn out to be the beginning of a stop text. */
#ifndef SFQ_RUNTIME_STREAM_H
#define SFQ_RUNTIME_STREAM_H

#include "base/buf.h"
#include "text/tokenizer.h"

typedef struct sfq_stream {
    const sfq_tokenizer *tokenizer;
    const char *const *stop;
    size_t stop_count;
    int32_t *ids; /* prompt's tail and everything generated since */
    size_t count, capacity;
    size_t window;  /* decoding starts at ids[window] */
    size_t settled; /* ids[0..settled) are in `text` to the last byte */
    sfq_buf seen;   /* what the window decodes to as far as it is in `text` */
    sfq_buf text;   /* the answer so far */
    size_t shown;   /* bytes of text that were handed out */
    bool stopped;   /* a stop text was found; text ends before it */
} sfq_stream;

/* The prompt gives the first word its context (a leading space). Stop texts must be UTF-8 and not
 * empty (ARGUMENT). capacity: tokens that will be added at most. */
sfq_status sfq_stream_open(sfq_stream *s, const sfq_tokenizer *tokenizer, const int32_t *prompt,
                           size_t prompt_count, size_t capacity, const char *const *stop,
                           size_t stop_count, sfq_error *err);
void sfq_stream_close(sfq_stream *s);
/* Adds a token. *piece [*bytes] is what may be shown now; it lives until the next call. */
sfq_status sfq_stream_add(sfq_stream *s, int32_t id, const char **piece, size_t *bytes,
                          sfq_error *err);
/* No token follows: everything held back may be shown, incomplete characters as U+FFFD. */
sfq_status sfq_stream_finish(sfq_stream *s, const char **piece, size_t *bytes, sfq_error *err);

#endif
