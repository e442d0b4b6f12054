/* text/decoder.c - runs the chain of decoders over the texts of the tokens: each step reads one
 * list of texts and writes the next. */
#include "text/decoder.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>

#define TEXT_MAX ((size_t)1 << 32)
static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

sfq_status sfq_texts_end(sfq_texts *texts, sfq_error *err)
{
    if (texts->count == texts->cap) {
        size_t cap = texts->cap == 0 ? 64 : 2 * texts->cap;
        size_t *ends = sfq_mem_resize(texts->ends, cap, sizeof(*ends));
        if (!ends)
            return sfq_fail_memory(err, cap * sizeof(*ends), "decoder");
        texts->ends = ends;
        texts->cap = cap;
    }
    texts->ends[texts->count++] = texts->data.len;
    return SFQ_OK;
}

void sfq_texts_free(sfq_texts *texts)
{
    sfq_buf_free(&texts->data);
    sfq_mem_free(texts->ends);
    *texts = (sfq_texts){0};
}

static const char *text_at(const sfq_texts *texts, size_t i, size_t *n)
{
    size_t begin = i == 0 ? 0 : texts->ends[i - 1];
    *n = texts->ends[i] - begin;
    return texts->data.data ? texts->data.data + begin : "";
}

static sfq_status add(sfq_texts *to, const char *s, size_t n, sfq_error *err)
{
    return sfq_buf_add(&to->data, s, n, err);
}

/* ---- replacing ---- */

/* s with every `from` replaced; an empty `from` stands between all characters, as in Rust. */
static sfq_status add_replaced(sfq_buf *out, const char *s, size_t n, const char *from,
                               const char *to, sfq_error *err)
{
    size_t from_len = strlen(from), to_len = strlen(to), last = 0, len;
    const char *hit;
    if (from_len == 0) {
        for (size_t i = 0; i < n; i += len) {
            SFQ_TRY(sfq_buf_add(out, to, to_len, err));
            sfq_utf8_next(s + i, n - i, &len);
            SFQ_TRY(sfq_buf_add(out, s + i, len, err));
        }
        return sfq_buf_add(out, to, to_len, err);
    }
    while ((hit = memmem(s + last, n - last, from, from_len)) != NULL) {
        size_t at = (size_t)(hit - s);
        SFQ_TRY(sfq_buf_add(out, s + last, at - last, err));
        SFQ_TRY(sfq_buf_add(out, to, to_len, err));
        last = at + from_len;
    }
    return sfq_buf_add(out, s + last, n - last, err);
}

static const char *const cleanups[][2] = {{" .", "."},     {" ?", "?"},           {" !", "!"},
                                          {" ,", ","},     {" ' ", "'"},          {" n't", "n't"},
                                          {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"},
                                          {" 've", "'ve"}, {" 're", "'re"}};

/* Undoes the spaces that tokenization put around punctuation and English contractions. */
static sfq_status clean_up(sfq_buf *text, sfq_buf *spare, sfq_error *err)
{
    for (size_t i = 0; i < sizeof(cleanups) / sizeof(*cleanups); i++) {
        const char *from = cleanups[i][0];
        if (text->len == 0 || !memmem(text->data, text->len, from, strlen(from)))
            continue;
        sfq_buf_clear(spare);
        SFQ_TRY(add_replaced(spare, text->data, text->len, from, cleanups[i][1], err));
        sfq_buf swap = *text;
        *text = *spare;
        *spare = swap;
    }
    return SFQ_OK;
}

/* ---- bytes to text ---- */

/* How many bytes one replacement character stands for: the longest beginning of a well-formed
 * sequence (Unicode, "maximal subpart"), at least one. */
static size_t broken_length(const unsigned char *s, size_t n)
{
    size_t want = s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3 : 2;
    unsigned char low = 0x80, high = 0xBF;
    if (s[0] < 0xC2 || s[0] > 0xF4)
        return 1;
    low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : low;
    high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : high;
    size_t i = 1;
    for (; i < n && i < want; i++) {
        if (s[i] < low || s[i] > high)
            break;
        low = 0x80;
        high = 0xBF;
    }
    return i;
}

static sfq_status add_lossy(sfq_texts *to, const char *s, size_t n, sfq_error *err)
{
    while (n > 0) {
        size_t good = sfq_utf8_valid_prefix(s, n);
        SFQ_TRY(add(to, s, good, err));
        s += good;
        n -= good;
        if (n == 0)
            break;
        size_t bad = broken_length((const unsigned char *)s, n);
        SFQ_TRY(add(to, replacement, 3, err));
        s += bad;
        n -= bad;
    }
    return SFQ_OK;
}

/* All tokens become one: characters of the byte alphabet as bytes; a token with any other
 * character as it is. */
static sfq_status byte_level(const sfq_texts *from, sfq_texts *to, sfq_error *err)
{
    sfq_buf bytes = SFQ_BUF_INIT(TEXT_MAX);
    sfq_status status = SFQ_OK;
    for (size_t i = 0; i < from->count; i++) {
        size_t n, len, before = bytes.len;
        const char *s = text_at(from, i, &n);
        SFQ_DO(sfq_buf_reserve(&bytes, n, err));
        for (size_t k = 0; k < n; k += len) {
            int byte = sfq_char_byte(sfq_utf8_next(s + k, n - k, &len));
            if (byte < 0) {
                bytes.len = before;
                SFQ_DO(sfq_buf_add(&bytes, s, n, err));
                break;
            }
            bytes.data[bytes.len++] = (char)(unsigned char)byte;
        }
    }
    SFQ_DO(add_lossy(to, bytes.data ? bytes.data : "", bytes.len, err));
    status = sfq_texts_end(to, err);
done:
    sfq_buf_free(&bytes);
    return status;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that a token <0xXX> names, or -1. Rust's parser takes a sign, so "<0x+A>" is 10. */
static int byte_of(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    int low = hex_digit(s[4]), high = s[3] == '+' ? 0 : hex_digit(s[3]);
    return low < 0 || high < 0 ? -1 : 16 * high + low;
}

/* A run of byte tokens: its text when it is UTF-8, else one replacement character per byte. */
static sfq_status flush_bytes(sfq_texts *to, sfq_buf *bytes, sfq_error *err)
{
    if (bytes->len == 0)
        return SFQ_OK;
    if (sfq_utf8_valid_prefix(bytes->data, bytes->len) == bytes->len) {
        SFQ_TRY(add(to, bytes->data, bytes->len, err));
        SFQ_TRY(sfq_texts_end(to, err));
    } else {
        for (size_t i = 0; i < bytes->len; i++) {
            SFQ_TRY(add(to, replacement, 3, err));
            SFQ_TRY(sfq_texts_end(to, err));
        }
    }
    sfq_buf_clear(bytes);
    return SFQ_OK;
}

static sfq_status byte_fallback(const sfq_texts *from, sfq_texts *to, sfq_error *err)
{
    sfq_buf bytes = SFQ_BUF_INIT(TEXT_MAX);
    sfq_status status = SFQ_OK;
    for (size_t i = 0; i < from->count; i++) {
        size_t n;
        const char *s = text_at(from, i, &n);
        int byte = byte_of(s, n);
        if (byte >= 0) {
            char one = (char)(unsigned char)byte;
            SFQ_DO(sfq_buf_add(&bytes, &one, 1, err));
            continue;
        }
        SFQ_DO(flush_bytes(to, &bytes, err));
        SFQ_DO(add(to, s, n, err));
        SFQ_DO(sfq_texts_end(to, err));
    }
    status = flush_bytes(to, &bytes, err);
done:
    sfq_buf_free(&bytes);
    return status;
}

/* ---- steps that treat each token by itself ---- */

static sfq_status wordpiece(const sfq_decode_step *step, size_t i, const char *s, size_t n,
                            sfq_buf work[2], sfq_error *err)
{
    size_t prefix = strlen(step->literal);
    if (i > 0 && n >= prefix && memcmp(s, step->literal, prefix) == 0) {
        s += prefix;
        n -= prefix;
    } else if (i > 0) {
        SFQ_TRY(sfq_buf_add(&work[0], " ", 1, err));
    }
    SFQ_TRY(sfq_buf_add(&work[0], s, n, err));
    return step->cleanup ? clean_up(&work[0], &work[1], err) : SFQ_OK;
}

static sfq_status ctc(const sfq_decode_step *step, const char *s, size_t n, sfq_buf work[2],
                      sfq_error *err)
{
    SFQ_TRY(add_replaced(&work[0], s, n, step->literal, "", err));
    if (!step->cleanup)
        return SFQ_OK;
    SFQ_TRY(clean_up(&work[0], &work[1], err));
    sfq_buf_clear(&work[1]);
    SFQ_TRY(add_replaced(&work[1], work[0].data ? work[0].data : "", work[0].len, step->content,
                         " ", err));
    sfq_buf swap = work[0];
    work[0] = work[1];
    work[1] = swap;
    return SFQ_OK;
}

static sfq_status strip(const sfq_decode_step *step, const char *s, size_t n, sfq_buf *out,
                        sfq_error *err)
{
    size_t len = strlen(step->literal), begin = 0, end = n;
    for (size_t k = 0; k < step->start && n - begin >= len; k++) {
        if (memcmp(s + begin, step->literal, len) != 0)
            break;
        begin += len;
    }
    for (size_t k = 0; k < step->stop && end - begin >= len; k++) {
        if (memcmp(s + end - len, step->literal, len) != 0)
            break;
        end -= len;
    }
    return sfq_buf_add(out, s + begin, end - begin, err);
}

static sfq_status replace(const sfq_decode_step *step, sfq_regex_scratch *scratch, const char *s,
                          size_t n, sfq_buf *out, sfq_error *err)
{
    if (step->literal)
        return add_replaced(out, s, n, step->literal, step->content, err);
    sfq_regex_walk walk = sfq_regex_begin(step->regex, scratch, s, n);
    size_t last = 0, start, end;
    bool found = n > 0;
    while (found) {
        SFQ_TRY(sfq_regex_next(&walk, &found, &start, &end, err));
        if (!found)
            break;
        SFQ_TRY(sfq_buf_add(out, s + last, start - last, err));
        SFQ_TRY(sfq_buf_add(out, step->content, strlen(step->content), err));
        last = end;
    }
    return sfq_buf_add(out, s + last, n - last, err);
}

static sfq_status one_token(const sfq_decode_step *step, sfq_regex_scratch *scratch, size_t i,
                            size_t count, const char *s, size_t n, sfq_buf work[2], sfq_error *err)
{
    switch (step->kind) {
    case SFQ_DECODE_BPE:
        return add_replaced(&work[0], s, n, step->literal, i + 1 == count ? "" : " ", err);
    case SFQ_DECODE_CTC:
        return ctc(step, s, n, work, err);
    case SFQ_DECODE_METASPACE:
        return add_replaced(&work[0], s, n, step->literal, i == 0 && step->prefix_space ? "" : " ",
                            err);
    case SFQ_DECODE_REPLACE:
        return replace(step, scratch, s, n, &work[0], err);
    case SFQ_DECODE_STRIP:
        return strip(step, s, n, &work[0], err);
    case SFQ_DECODE_WORDPIECE:
        return wordpiece(step, i, s, n, work, err);
    default:
        return sfq_fail(err, SFQ_E_INTERNAL, "decoder step %d", (int)step->kind);
    }
}

static sfq_status each_token(const sfq_decode_step *step, const sfq_texts *from, sfq_texts *to,
                             sfq_error *err)
{
    sfq_buf work[2] = {SFQ_BUF_INIT(TEXT_MAX), SFQ_BUF_INIT(TEXT_MAX)};
    sfq_regex_scratch *scratch = NULL;
    sfq_status status = SFQ_OK;
    const char *last = NULL;
    size_t last_n = 0;
    if (step->regex)
        SFQ_DO(sfq_regex_scratch_open(&scratch, step->regex, err));
    for (size_t i = 0; i < from->count; i++) {
        size_t n;
        const char *s = text_at(from, i, &n);
        bool repeated = last && last_n == n && memcmp(last, s, n) == 0;
        last = s;
        last_n = n;
        if (step->kind == SFQ_DECODE_CTC && repeated)
            continue;
        sfq_buf_clear(&work[0]);
        sfq_buf_clear(&work[1]);
        SFQ_DO(one_token(step, scratch, i, from->count, s, n, work, err));
        if (step->kind == SFQ_DECODE_CTC && work[0].len == 0)
            continue;
        SFQ_DO(add(to, work[0].data ? work[0].data : "", work[0].len, err));
        SFQ_DO(sfq_texts_end(to, err));
    }
done:
    sfq_buf_free(&work[0]);
    sfq_buf_free(&work[1]);
    sfq_regex_scratch_close(&scratch);
    return status;
}

/* ---- the chain ---- */

static sfq_status join(const sfq_texts *texts, const char *between, sfq_buf *out, sfq_error *err)
{
    for (size_t i = 0; i < texts->count; i++) {
        size_t n;
        const char *s = text_at(texts, i, &n);
        if (i > 0)
            SFQ_TRY(sfq_buf_add(out, between, strlen(between), err));
        SFQ_TRY(sfq_buf_add(out, s, n, err));
    }
    return SFQ_OK;
}

static sfq_status run_step(const sfq_decode_step *step, const sfq_texts *from, sfq_texts *to,
                           sfq_error *err)
{
    switch (step->kind) {
    case SFQ_DECODE_BYTE_LEVEL:
        return byte_level(from, to, err);
    case SFQ_DECODE_BYTE_FALLBACK:
        return byte_fallback(from, to, err);
    case SFQ_DECODE_FUSE:
        SFQ_TRY(join(from, "", &to->data, err));
        return sfq_texts_end(to, err);
    default:
        return each_token(step, from, to, err);
    }
}

sfq_status sfq_decoder_run(const sfq_decoder *decoder, sfq_texts *texts, sfq_buf *out,
                           sfq_error *err)
{
    sfq_texts next = {.data = SFQ_BUF_INIT(TEXT_MAX)};
    sfq_status status = SFQ_OK;
    for (size_t i = 0; i < decoder->count; i++) {
        SFQ_DO(run_step(&decoder->steps[i], texts, &next, err));
        sfq_texts done = *texts;
        *texts = next;
        next = done;
        sfq_buf_clear(&next.data);
        next.count = 0;
    }
    status = join(texts, decoder->none ? " " : "", out, err);
done:
    sfq_texts_free(&next);
    return status;
}
