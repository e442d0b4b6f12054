/* runtime/stream.c - incremental detokenization. What a token adds is the difference between two
 * decodings of the same window of tokens, because decoders look at neighbours (leading spaces,
 * characters spread over byte tokens). U+FFFD at the end of a decoding may be a character that is
 * not complete yet, so it waits; not for ever, since a model may write nothing else. The window
 * moves on now and then, or long answers would cost the square of their length; it keeps some
 * tokens of context and never begins within a character. */
#include "runtime/stream.h"

#include "base/ck.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>

enum {
    CONTEXT_TOKENS = 16, /* kept when the window moves */
    WINDOW_TOKENS = 128, /* it moves at this size */
    OPEN_TOKENS = 64     /* more of them waiting are no character */
};

static const char REPLACEMENT[] = "\xef\xbf\xbd";
#define MAX_TEXT ((size_t)1 << 30)

/* ---- decoding -------------------------------------------------------------------------------- */

static sfq_status decode(const sfq_stream *s, size_t from, size_t to, char **text, size_t *bytes,
                         sfq_error *err)
{
    return sfq_tokenizer_decode(s->tokenizer, s->ids + from, to - from, true, text, bytes, err);
}

static bool ends_open(const char *text, size_t bytes)
{
    return bytes >= 3 && memcmp(text + bytes - 3, REPLACEMENT, 3) == 0;
}

static bool begins_open(const char *text, size_t bytes)
{
    return bytes >= 3 && memcmp(text, REPLACEMENT, 3) == 0;
}

/* Starts a window that ends at `count` with everything in it seen: at least CONTEXT_TOKENS long,
 * and further back while it would begin within a character. */
static sfq_status anchor(sfq_stream *s, sfq_error *err)
{
    size_t from = s->count - sfq_min_size(CONTEXT_TOKENS, s->count);
    size_t least = from - sfq_min_size(CONTEXT_TOKENS, from);
    char *text = NULL;
    size_t bytes = 0;
    for (;; from--) {
        SFQ_TRY(decode(s, from, s->count, &text, &bytes, err));
        if (!begins_open(text, bytes) || from == least)
            break;
        sfq_mem_free(text);
    }
    s->window = from;
    s->settled = s->count;
    sfq_buf_clear(&s->seen);
    sfq_status status = sfq_buf_add(&s->seen, text, bytes, err);
    sfq_mem_free(text);
    return status;
}

/* Adds to `text` what the window's decoding has beyond `seen`; all: an open end, too. */
static sfq_status take(sfq_stream *s, bool all, sfq_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    SFQ_TRY(decode(s, s->window, s->count, &text, &bytes, err));
    sfq_status status = SFQ_OK;
    size_t known = s->seen.len;
    if (bytes < known || (known > 0 && memcmp(text, s->seen.data, known) != 0)) {
        /* A later byte made earlier ones invalid (byte fallback): what was shown stays, decoding
         * goes on behind it. */
        sfq_mem_free(text);
        s->window = s->settled;
        sfq_buf_clear(&s->seen);
        known = 0;
        SFQ_TRY(decode(s, s->window, s->count, &text, &bytes, err));
    }
    size_t end = bytes;
    while (!all && end > known && ends_open(text, end))
        end -= 3;
    end = sfq_max_size(end, known);
    SFQ_DO(sfq_buf_add(&s->text, text + known, end - known, err));
    SFQ_DO(sfq_buf_add(&s->seen, text + known, end - known, err));
    if (end == bytes)
        s->settled = s->count;
done:
    sfq_mem_free(text);
    return status;
}

/* ---- stop texts ------------------------------------------------------------------------------ */

/* Earliest stop text in text[from..); cuts the answer before it. */
static void find_stop(sfq_stream *s, size_t from)
{
    size_t best = s->text.len;
    for (size_t i = 0; i < s->stop_count; i++) {
        size_t n = strlen(s->stop[i]);
        size_t back = sfq_min_size(from, n - 1);
        const char *begin = s->text.data + (from - back);
        const char *hit = memmem(begin, s->text.len - (from - back), s->stop[i], n);
        if (hit != NULL && (size_t)(hit - s->text.data) < best) {
            best = (size_t)(hit - s->text.data);
            s->stopped = true;
        }
    }
    if (s->stopped) {
        s->text.len = best;
        s->text.data[best] = 0;
    }
}

/* How many bytes at the end of the answer may be the beginning of a stop text. */
static size_t held_back(const sfq_stream *s)
{
    size_t most = 0;
    for (size_t i = 0; i < s->stop_count; i++) {
        size_t n = sfq_min_size(strlen(s->stop[i]) - 1, s->text.len - s->shown);
        for (; n > most; n--)
            if (memcmp(s->text.data + s->text.len - n, s->stop[i], n) == 0)
                most = n;
    }
    return most;
}

static sfq_status show(sfq_stream *s, bool all, const char **piece, size_t *bytes, sfq_error *err)
{
    size_t before = s->text.len;
    bool overdue = s->count - s->settled > OPEN_TOKENS;
    SFQ_TRY(take(s, all || overdue, err));
    if (s->text.len > before)
        find_stop(s, before);
    size_t end = s->text.len;
    if (!all && !s->stopped)
        end -= held_back(s);
    *piece = s->text.data != NULL ? s->text.data + s->shown : "";
    *bytes = end - s->shown;
    s->shown = end;
    return SFQ_OK;
}

/* ---- the stream ------------------------------------------------------------------------------ */

sfq_status sfq_stream_open(sfq_stream *s, const sfq_tokenizer *tokenizer, const int32_t *prompt,
                           size_t prompt_count, size_t capacity, const char *const *stop,
                           size_t stop_count, sfq_error *err)
{
    *s = (sfq_stream){.tokenizer = tokenizer,
                      .stop = stop,
                      .stop_count = stop_count,
                      .seen = SFQ_BUF_INIT(MAX_TEXT),
                      .text = SFQ_BUF_INIT(MAX_TEXT)};
    for (size_t i = 0; i < stop_count; i++) {
        size_t n = stop[i] != NULL ? strlen(stop[i]) : 0;
        if (n == 0 || sfq_utf8_valid_prefix(stop[i], n) < n)
            return sfq_fail(err, SFQ_E_ARGUMENT, "stop text %zu is empty or no UTF-8", i + 1);
    }
    size_t tail = sfq_min_size(prompt_count, (size_t)2 * CONTEXT_TOKENS);
    s->capacity = tail + capacity;
    s->ids = SFQ_NEW_ARRAY(int32_t, s->capacity);
    if (s->ids == NULL)
        return sfq_fail_memory(err, s->capacity * sizeof(*s->ids), "generated tokens");
    if (tail > 0)
        memcpy(s->ids, prompt + (prompt_count - tail), tail * sizeof(*s->ids));
    s->count = tail;
    return anchor(s, err);
}

void sfq_stream_close(sfq_stream *s)
{
    sfq_mem_free(s->ids);
    sfq_buf_free(&s->seen);
    sfq_buf_free(&s->text);
    *s = (sfq_stream){0};
}

sfq_status sfq_stream_add(sfq_stream *s, int32_t id, const char **piece, size_t *bytes,
                          sfq_error *err)
{
    if (s->count == s->capacity)
        return sfq_fail(err, SFQ_E_INTERNAL, "more tokens than the stream was opened for");
    s->ids[s->count++] = id;
    SFQ_TRY(show(s, false, piece, bytes, err));
    if (s->settled == s->count && s->count - s->window >= WINDOW_TOKENS)
        return anchor(s, err);
    return SFQ_OK;
}

sfq_status sfq_stream_finish(sfq_stream *s, const char **piece, size_t *bytes, sfq_error *err)
{
    *piece = "";
    *bytes = 0;
    if (s->stopped)
        return SFQ_OK;
    return show(s, true, piece, bytes, err);
}
