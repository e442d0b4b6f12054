/* base/buf.h - a growable byte buffer that is told its maximum when it is made. */
#ifndef SFQ_BASE_BUF_H
#define SFQ_BASE_BUF_H

#include "base/status.h"

typedef struct sfq_buf {
    char *data; /* NUL after the last byte once anything was added */
    size_t len;
    size_t cap;
    size_t max;
} sfq_buf;

#define SFQ_BUF_INIT(maximum) ((sfq_buf){.max = (maximum)})

void sfq_buf_free(sfq_buf *b);
void sfq_buf_clear(sfq_buf *b); /* len = 0, memory kept */
/* MEMORY or LIMIT on failure; the content is unchanged then. */
sfq_status sfq_buf_add(sfq_buf *b, const void *data, size_t n, sfq_error *err);
sfq_status sfq_buf_addf(sfq_buf *b, sfq_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Room for n more bytes at data+len, to be claimed by len += k. */
sfq_status sfq_buf_reserve(sfq_buf *b, size_t n, sfq_error *err);
/* Hands the memory to the caller (sfq_mem_free) and empties the buffer; never NULL after an add. */
char *sfq_buf_take(sfq_buf *b);

#endif
