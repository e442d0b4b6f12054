/* text/unicode.c - looks characters up in the class tables and applies normalization forms.
 *
 * utf8proc knows the decompositions, combining classes and compositions; the order of marks is
 * sorted here, because its own bubble sort is quadratic in a run of marks. Characters that got
 * their decomposition or class after the Unicode version of tokenizers' normalizer ("opaque") end a
 * segment and pass as they are, which is what an unknown starter does. */
#include "text/unicode.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

static bool in_ranges(const sfq_uni_range *ranges, size_t count, uint32_t c)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > ranges[middle].last)
            low = middle + 1;
        else if (c < ranges[middle].first)
            high = middle;
        else
            return true;
    }
    return false;
}

bool sfq_uni_is_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool sfq_uni_is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    return in_ranges(sfq_uni_punctuation, sfq_uni_punctuation_count, c);
}

bool sfq_uni_is_numeric(uint32_t c)
{
    if (c < 0x80)
        return c >= '0' && c <= '9';
    return in_ranges(sfq_uni_numeric, sfq_uni_numeric_count, c);
}

bool sfq_uni_is_word(uint32_t c)
{
    if (c < 0x80)
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               c == '_';
    return in_ranges(sfq_uni_word, sfq_uni_word_count, c);
}

bool sfq_uni_is_other(uint32_t c)
{
    return !(c >= 32 && c < 127) && in_ranges(sfq_uni_other, sfq_uni_other_count, c);
}

bool sfq_uni_is_mark(uint32_t c)
{
    return c >= 0x300 && in_ranges(sfq_uni_mark, sfq_uni_mark_count, c);
}

bool sfq_uni_is_nonspacing(uint32_t c)
{
    return c >= 0x300 && in_ranges(sfq_uni_nonspacing, sfq_uni_nonspacing_count, c);
}

bool sfq_uni_is_new_mark(uint32_t c)
{
    for (size_t i = 0; i < sfq_uni_news_count && sfq_uni_news[i].first <= c; i++)
        if (c <= sfq_uni_news[i].last)
            return sfq_uni_news[i].category[0] == 'M';
    return false;
}

bool sfq_uni_is_chinese(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B81F) ||
           (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
           (c >= 0x2F800 && c <= 0x2FA1F);
}

size_t sfq_uni_lowercase(uint32_t c, uint32_t out[2])
{
    out[0] = c;
    if (c < 0x80) {
        if (c >= 'A' && c <= 'Z')
            out[0] = c + 32;
        return 1;
    }
    if (c == 0x130) { /* the one character of SpecialCasing whose lower case is two */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    for (size_t i = 0; i < sfq_uni_lower_count && c >= sfq_uni_lower[0].first; i++)
        if (sfq_uni_lower[i].first == c) {
            out[0] = sfq_uni_lower[i].last;
            return 1;
        }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

/* ---- normalization forms ---- */

typedef struct points {
    utf8proc_int32_t *v;
    utf8proc_int32_t *spare; /* for the sort */
    size_t count, cap;
} points;

static sfq_status reserve(points *p, size_t more, sfq_error *err)
{
    if (p->cap - p->count >= more)
        return SFQ_OK;
    size_t cap = 2 * p->cap + more + 256;
    utf8proc_int32_t *v = sfq_mem_resize(p->v, cap, sizeof(*v));
    if (!v)
        return sfq_fail_memory(err, cap * sizeof(*v), "normalization");
    p->v = v;
    utf8proc_int32_t *spare = sfq_mem_resize(p->spare, cap, sizeof(*spare));
    if (!spare)
        return sfq_fail_memory(err, cap * sizeof(*spare), "normalization");
    p->spare = spare;
    p->cap = cap;
    return SFQ_OK;
}

static unsigned combining_class(utf8proc_int32_t c)
{
    return c < 0x300 ? 0 : (unsigned)utf8proc_get_property(c)->combining_class & 0xFF;
}

/* Stable sort of one run of marks by combining class: insertion where short, else counting. */
static void sort_marks(utf8proc_int32_t *v, utf8proc_int32_t *spare, size_t n)
{
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t c = v[i];
            size_t j = i;
            for (; j > 0 && combining_class(v[j - 1]) > combining_class(c); j--)
                v[j] = v[j - 1];
            v[j] = c;
        }
        return;
    }
    size_t starts[257] = {0};
    for (size_t i = 0; i < n; i++)
        starts[combining_class(v[i]) + 1]++;
    for (size_t k = 1; k < 257; k++)
        starts[k] += starts[k - 1];
    for (size_t i = 0; i < n; i++)
        spare[starts[combining_class(v[i])]++] = v[i];
    memcpy(v, spare, n * sizeof(*v));
}

static void order_marks(points *p)
{
    for (size_t i = 0; i < p->count;) {
        size_t end = i;
        while (end < p->count && combining_class(p->v[end]) != 0)
            end++;
        if (end - i > 1)
            sort_marks(p->v + i, p->spare + i, end - i);
        i = end > i ? end : i + 1;
    }
}

/* The finished segment: order, compose, append. */
static sfq_status flush(points *p, bool compose, sfq_buf *out, sfq_error *err)
{
    if (p->count == 0)
        return SFQ_OK;
    order_marks(p);
    if (compose)
        p->count = (size_t)utf8proc_normalize_utf32(p->v, (utf8proc_ssize_t)p->count,
                                                    UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    SFQ_TRY(sfq_buf_reserve(out, 4 * p->count, err));
    for (size_t i = 0; i < p->count; i++)
        out->len += sfq_utf8_put((uint32_t)p->v[i], out->data + out->len);
    p->count = 0;
    return SFQ_OK;
}

static sfq_status decompose(points *p, uint32_t c, bool compat, sfq_error *err)
{
    SFQ_TRY(reserve(p, 32, err));
    if (c < 0x80) {
        p->v[p->count++] = (utf8proc_int32_t)c;
        return SFQ_OK;
    }
    utf8proc_option_t options = UTF8PROC_DECOMPOSE;
    if (compat)
        options |= UTF8PROC_COMPAT;
    int boundary = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, p->v + p->count, 32, options, &boundary);
    if (n < 0 || n > 32)
        return sfq_fail(err, SFQ_E_INTERNAL, "utf8proc cannot decompose U+%04X", c);
    p->count += (size_t)n;
    return SFQ_OK;
}

/* Text below U+0300 is NFC already, ASCII is any form. */
static bool is_plain(const char *s, size_t n, unsigned char limit)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= limit)
            return false;
    return true;
}

sfq_status sfq_uni_normalize(sfq_uni_form form, const char *s, size_t n, sfq_buf *out,
                             sfq_error *err)
{
    if (is_plain(s, n, form == SFQ_NFC ? 0xCC : 0x80))
        return sfq_buf_add(out, s, n, err);
    bool compat = form == SFQ_NFKC || form == SFQ_NFKD;
    bool compose = form == SFQ_NFC || form == SFQ_NFKC;
    points p = {0};
    sfq_status status = SFQ_OK;
    size_t len;
    for (size_t i = 0; i < n; i += len) {
        uint32_t c = sfq_utf8_next(s + i, n - i, &len);
        if (c >= 0x300 && in_ranges(sfq_uni_opaque, sfq_uni_opaque_count, c)) {
            SFQ_DO(flush(&p, compose, out, err));
            SFQ_DO(sfq_buf_add(out, s + i, len, err));
            continue;
        }
        /* a segment may end before a plain ASCII character: nothing combines across */
        if (c < 0x80 && p.count > 4096)
            SFQ_DO(flush(&p, compose, out, err));
        SFQ_DO(decompose(&p, c, compat, err));
    }
    status = flush(&p, compose, out, err);
done:
    sfq_mem_free(p.v);
    sfq_mem_free(p.spare);
    return status;
}
