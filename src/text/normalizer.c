/* text/normalizer.c - runs the steps of a normalizer over one stretch of text, from buffer to
 * buffer. Beside the text one number travels: head, how many bytes at its beginning stem from the
 * very first character of the input (Metaspace asks for it). */
#include "text/normalizer.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/unicode.h"

#include <string.h>

#define GROWTH_MAX 32 /* NFKD makes 33 bytes of 3; nothing honest makes more */
#define TEXT_MAX ((size_t)1 << 31)

/* ---- the byte-level alphabet ---- */

uint32_t sfq_byte_char(unsigned byte)
{
    if ((byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE)
        return byte;
    if (byte <= ' ')
        return 0x100 + byte;
    return byte == 0xAD ? 0x143 : 0x121 + byte - 0x7F; /* 7F..A0 follow the 33 below '!' */
}

int sfq_char_byte(uint32_t c)
{
    if ((c >= '!' && c <= '~') || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF))
        return (int)c;
    if (c >= 0x100 && c <= 0x120)
        return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142)
        return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

sfq_status sfq_byte_level_put(sfq_buf *out, const char *s, size_t n, sfq_error *err)
{
    SFQ_TRY(sfq_buf_reserve(out, 2 * n, err));
    for (size_t i = 0; i < n; i++)
        out->len += sfq_utf8_put(sfq_byte_char((unsigned char)s[i]), out->data + out->len);
    return SFQ_OK;
}

/* ---- one pass over the characters ---- */

typedef struct pass {
    const char *s;
    size_t n;
    size_t head;     /* of the input */
    size_t new_head; /* of the output */
    sfq_buf *out;
    sfq_error *err;
} pass;

/* out has room for 12 more bytes whenever this is called in a pass. */
static inline void emit(pass *p, size_t from, uint32_t c)
{
    p->out->len += sfq_utf8_put(c, p->out->data + p->out->len);
    if (from < p->head)
        p->new_head = p->out->len;
}

static sfq_status bert_clean(pass *p)
{
    size_t len;
    for (size_t i = 0; i < p->n; i += len) {
        uint32_t c = sfq_utf8_next(p->s + i, p->n - i, &len);
        SFQ_TRY(sfq_buf_reserve(p->out, 12, p->err));
        if (!sfq_uni_is_other(c))
            emit(p, i, sfq_uni_is_space(c) ? ' ' : c);
    }
    return SFQ_OK;
}

static sfq_status bert_chinese(pass *p)
{
    size_t len;
    for (size_t i = 0; i < p->n; i += len) {
        uint32_t c = sfq_utf8_next(p->s + i, p->n - i, &len);
        SFQ_TRY(sfq_buf_reserve(p->out, 12, p->err));
        bool chinese = sfq_uni_is_chinese(c);
        if (chinese)
            emit(p, i, ' ');
        emit(p, i, c);
        if (chinese)
            emit(p, i, ' ');
    }
    return SFQ_OK;
}

static sfq_status drop(pass *p, bool (*unwanted)(uint32_t))
{
    size_t len;
    for (size_t i = 0; i < p->n; i += len) {
        uint32_t c = sfq_utf8_next(p->s + i, p->n - i, &len);
        SFQ_TRY(sfq_buf_reserve(p->out, 12, p->err));
        if (!unwanted(c))
            emit(p, i, c);
    }
    return SFQ_OK;
}

static sfq_status lowercase(pass *p)
{
    size_t len;
    for (size_t i = 0; i < p->n; i += len) {
        uint32_t lower[2];
        size_t count = sfq_uni_lowercase(sfq_utf8_next(p->s + i, p->n - i, &len), lower);
        SFQ_TRY(sfq_buf_reserve(p->out, 12, p->err));
        for (size_t k = 0; k < count; k++)
            emit(p, i, lower[k]);
    }
    return SFQ_OK;
}

static bool nmt_drops(uint32_t c)
{
    return (c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F ||
           c == 0x9F;
}

static bool nmt_blanks(uint32_t c)
{
    return c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xFEFF || c == 0xFFFD;
}

static sfq_status nmt(pass *p)
{
    size_t len;
    for (size_t i = 0; i < p->n; i += len) {
        uint32_t c = sfq_utf8_next(p->s + i, p->n - i, &len);
        SFQ_TRY(sfq_buf_reserve(p->out, 12, p->err));
        if (!nmt_drops(c))
            emit(p, i, nmt_blanks(c) ? ' ' : c);
    }
    return SFQ_OK;
}

static sfq_status byte_level(pass *p)
{
    SFQ_TRY(sfq_byte_level_put(p->out, p->s, p->head, p->err));
    p->new_head = p->out->len;
    return sfq_byte_level_put(p->out, p->s + p->head, p->n - p->head, p->err);
}

static sfq_status form(pass *p, sfq_uni_form kind)
{
    SFQ_TRY(sfq_uni_normalize(kind, p->s, p->n, p->out, p->err));
    /* what the head becomes by itself, if that is how the output begins; else one character */
    size_t whole = p->out->len;
    SFQ_TRY(sfq_uni_normalize(kind, p->s, p->head, p->out, p->err));
    size_t alone = p->out->len - whole;
    if (alone <= whole && memcmp(p->out->data, p->out->data + whole, alone) == 0)
        p->new_head = alone;
    else if (whole > 0)
        sfq_utf8_next(p->out->data, whole, &p->new_head);
    p->out->len = whole;
    return SFQ_OK;
}

static sfq_status strip(pass *p, bool left, bool right)
{
    size_t begin = 0, end = p->n, len;
    while (left && begin < p->n &&
           sfq_uni_is_space(sfq_utf8_next(p->s + begin, p->n - begin, &len)))
        begin += len;
    while (right && end > begin) {
        size_t last = end - 1;
        while (last > begin && ((unsigned char)p->s[last] & 0xC0) == 0x80)
            last--;
        if (!sfq_uni_is_space(sfq_utf8_next(p->s + last, end - last, &len)))
            break;
        end = last;
    }
    p->new_head = p->head > begin ? (p->head < end ? p->head : end) - begin : 0;
    return sfq_buf_add(p->out, p->s + begin, end - begin, p->err);
}

static sfq_status prepend(pass *p, const char *text)
{
    if (p->n == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_buf_add(p->out, text, strlen(text), p->err));
    p->new_head = p->head > 0 ? p->out->len + p->head : 0;
    return sfq_buf_add(p->out, p->s, p->n, p->err);
}

static sfq_status copy(pass *p, size_t from, size_t to)
{
    size_t at = p->out->len;
    SFQ_TRY(sfq_buf_add(p->out, p->s + from, to - from, p->err));
    if (from < p->head)
        p->new_head = at + (to < p->head ? to : p->head) - from;
    return SFQ_OK;
}

static sfq_status put_content(pass *p, const char *content, size_t match_end)
{
    SFQ_TRY(sfq_buf_add(p->out, content, strlen(content), p->err));
    if (p->head > 0 && match_end <= p->head)
        p->new_head = p->out->len;
    return SFQ_OK;
}

static sfq_status replace_literal(pass *p, const char *literal, const char *content)
{
    size_t len = strlen(literal), last = 0;
    const char *hit;
    while ((hit = memmem(p->s + last, p->n - last, literal, len)) != NULL) {
        size_t at = (size_t)(hit - p->s);
        SFQ_TRY(copy(p, last, at));
        SFQ_TRY(put_content(p, content, at + len));
        last = at + len;
    }
    return copy(p, last, p->n);
}

static sfq_status replace_regex(pass *p, const sfq_regex *regex, sfq_regex_scratch *scratch,
                                const char *content)
{
    sfq_regex_walk walk = sfq_regex_begin(regex, scratch, p->s, p->n);
    size_t last = 0, start, end;
    bool found;
    if (p->n == 0)
        return SFQ_OK;
    for (;;) {
        SFQ_TRY(sfq_regex_next(&walk, &found, &start, &end, p->err));
        if (!found)
            return copy(p, last, p->n);
        SFQ_TRY(copy(p, last, start));
        SFQ_TRY(put_content(p, content, end));
        last = end;
    }
}

static sfq_status precompiled(pass *p, const sfq_precompiled *map)
{
    size_t first;
    SFQ_TRY(sfq_precompiled_run(map, p->s, p->n, p->out, &first, p->err));
    p->new_head = p->head > 0 ? first : 0;
    return SFQ_OK;
}

/* ---- steps ---- */

/* The output of one pass becomes the input of the next. */
static void swap(sfq_norm_scratch *scratch, pass *p)
{
    sfq_buf done = scratch->a;
    scratch->a = scratch->b;
    scratch->b = done;
    p->s = done.data ? done.data : "";
    p->n = done.len;
    p->head = p->new_head;
    p->new_head = 0;
    sfq_buf_clear(&scratch->a);
}

static sfq_status run_bert(const sfq_norm_step *step, sfq_norm_scratch *scratch, pass *p)
{
    if (step->clean_text) {
        SFQ_TRY(bert_clean(p));
        swap(scratch, p);
    }
    if (step->chinese) {
        SFQ_TRY(bert_chinese(p));
        swap(scratch, p);
    }
    if (step->strip_accents) {
        SFQ_TRY(form(p, SFQ_NFD));
        swap(scratch, p);
        SFQ_TRY(drop(p, sfq_uni_is_nonspacing));
        swap(scratch, p);
    }
    if (step->lowercase) {
        SFQ_TRY(lowercase(p));
        swap(scratch, p);
    }
    return SFQ_OK;
}

static sfq_status run_step(const sfq_norm_step *step, sfq_regex_scratch *regex, pass *p)
{
    switch (step->kind) {
    case SFQ_NORM_BYTE_LEVEL:
        return byte_level(p);
    case SFQ_NORM_LOWERCASE:
        return lowercase(p);
    case SFQ_NORM_FORM:
        return form(p, (sfq_uni_form)step->form);
    case SFQ_NORM_NMT:
        return nmt(p);
    case SFQ_NORM_PRECOMPILED:
        return precompiled(p, &step->map);
    case SFQ_NORM_PREPEND:
        return prepend(p, step->content);
    case SFQ_NORM_REPLACE:
        return step->regex ? replace_regex(p, step->regex, regex, step->content)
                           : replace_literal(p, step->literal, step->content);
    case SFQ_NORM_STRIP:
        return strip(p, step->left, step->right);
    case SFQ_NORM_STRIP_ACCENTS:
        return drop(p, sfq_uni_is_mark);
    case SFQ_NORM_BERT:
        break;
    }
    return sfq_fail(p->err, SFQ_E_INTERNAL, "normalizer step %d", (int)step->kind);
}

sfq_status sfq_normalizer_run(const sfq_normalizer *normalizer, sfq_norm_scratch *scratch,
                              const char *s, size_t n, size_t *head, const char **out,
                              size_t *out_n, sfq_error *err)
{
    size_t max = n > TEXT_MAX / GROWTH_MAX ? TEXT_MAX : GROWTH_MAX * n + 4096;
    scratch->a.max = scratch->b.max = max;
    sfq_buf_clear(&scratch->a);
    pass p = {.s = s, .n = n, .head = *head, .err = err};
    for (size_t i = 0; i < normalizer->count; i++) {
        p.out = &scratch->a;
        if (normalizer->steps[i].kind == SFQ_NORM_BERT) {
            SFQ_TRY(run_bert(&normalizer->steps[i], scratch, &p));
            continue;
        }
        SFQ_TRY(run_step(&normalizer->steps[i], scratch->regex[i], &p));
        swap(scratch, &p);
    }
    *out = p.s;
    *out_n = p.n;
    *head = p.head;
    return SFQ_OK;
}

sfq_status sfq_norm_scratch_open(sfq_norm_scratch *scratch, const sfq_normalizer *normalizer,
                                 sfq_error *err)
{
    *scratch = (sfq_norm_scratch){0};
    for (size_t i = 0; i < normalizer->count; i++)
        if (normalizer->steps[i].regex)
            SFQ_TRY(sfq_regex_scratch_open(&scratch->regex[i], normalizer->steps[i].regex, err));
    return SFQ_OK;
}

void sfq_norm_scratch_close(sfq_norm_scratch *scratch)
{
    sfq_buf_free(&scratch->a);
    sfq_buf_free(&scratch->b);
    for (size_t i = 0; i < SFQ_TEXT_STEPS_MAX; i++)
        sfq_regex_scratch_close(&scratch->regex[i]);
}
