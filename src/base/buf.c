/* base/buf.c - a byte buffer that grows by doubling up to the maximum it was made with; one byte
 * more than the content is always allocated, for the NUL. */
#include "base/buf.h"

#include "base/ck.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { BUF_FIRST = 256 };

void sfq_buf_free(sfq_buf *b)
{
    sfq_mem_free(b->data);
    *b = SFQ_BUF_INIT(b->max);
}

void sfq_buf_clear(sfq_buf *b)
{
    b->len = 0;
    if (b->data != NULL)
        b->data[0] = 0;
}

sfq_status sfq_buf_reserve(sfq_buf *b, size_t n, sfq_error *err)
{
    size_t need;
    if (!sfq_ck_add(b->len, n, &need) || need > b->max)
        return sfq_fail(err, SFQ_E_LIMIT, "%zu + %zu bytes pass the limit of %zu", b->len, n,
                        b->max);
    if (need < b->cap)
        return SFQ_OK;
    if (!sfq_ck_add(need, 1, &need))
        return sfq_fail_memory(err, need, "a buffer");
    size_t cap = sfq_max_size(need, BUF_FIRST);
    if (b->cap <= b->max / 2)
        cap = sfq_max_size(cap, 2 * b->cap);
    char *data = sfq_mem_resize(b->data, cap, 1);
    if (data == NULL)
        return sfq_fail_memory(err, cap, "a buffer");
    if (b->data == NULL)
        data[0] = 0;
    b->data = data;
    b->cap = cap;
    return SFQ_OK;
}

sfq_status sfq_buf_add(sfq_buf *b, const void *data, size_t n, sfq_error *err)
{
    SFQ_TRY(sfq_buf_reserve(b, n, err));
    if (n > 0)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = 0;
    return SFQ_OK;
}

sfq_status sfq_buf_addf(sfq_buf *b, sfq_error *err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "text cannot be formatted");
    SFQ_TRY(sfq_buf_reserve(b, (size_t)n, err));
    va_start(args, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, args);
    va_end(args);
    b->len += (size_t)n;
    return SFQ_OK;
}

char *sfq_buf_take(sfq_buf *b)
{
    char *data = b->data;
    *b = SFQ_BUF_INIT(b->max);
    return data;
}
