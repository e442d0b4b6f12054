/* text/pretokenizer.c - runs the chain of pre-tokenizers. A step finds matches, the splitter turns
 * matches and the text between them into pieces as its behavior says (one piece is held back, which
 * is all that merging with a neighbour needs), and each piece goes to the next step. */
#include "text/pretokenizer.h"

#include "base/utf8.h"
#include "text/unicode.h"

#include <string.h>

typedef struct run {
    const sfq_pretokenizer *pre;
    sfq_pre_scratch *scratch;
    sfq_word_fn word;
    void *ctx;
    sfq_error *err;
} run;

static sfq_status run_step(run *r, size_t k, const char *s, size_t n, size_t head);

typedef struct splitter {
    run *r;
    size_t k; /* the step that splits */
    const char *s;
    size_t head;
    sfq_behavior behavior;
    bool invert;
    bool byte_level;   /* pieces are rewritten on their way out */
    size_t begin, end; /* the piece held back */
    bool held, held_match;
    size_t done; /* everything before was offered */
} splitter;

static sfq_status send(splitter *sp, size_t begin, size_t end)
{
    if (begin == end)
        return SFQ_OK;
    size_t head = sp->head > begin ? (sp->head < end ? sp->head : end) - begin : 0;
    const char *piece = sp->s + begin;
    size_t n = end - begin;
    if (sp->byte_level) {
        sfq_buf *out = &sp->r->scratch->piece[sp->k];
        sfq_buf_clear(out);
        SFQ_TRY(sfq_byte_level_put(out, piece, head, sp->r->err));
        size_t new_head = out->len;
        SFQ_TRY(sfq_byte_level_put(out, piece + head, n - head, sp->r->err));
        return run_step(sp->r, sp->k + 1, out->data, out->len, new_head);
    }
    return run_step(sp->r, sp->k + 1, piece, n, head);
}

static sfq_status hold(splitter *sp, size_t begin, size_t end, bool match)
{
    bool had = sp->held;
    size_t old_begin = sp->begin, old_end = sp->end;
    sp->begin = begin;
    sp->end = end;
    sp->held = true;
    sp->held_match = match;
    return had ? send(sp, old_begin, old_end) : SFQ_OK;
}

/* The next stretch of the text, a match of the pattern or not. */
static sfq_status offer(splitter *sp, size_t begin, size_t end, bool match)
{
    sp->done = end;
    match = match != sp->invert;
    switch (sp->behavior) {
    case SFQ_REMOVED:
        return match ? SFQ_OK : send(sp, begin, end);
    case SFQ_ISOLATED:
        return send(sp, begin, end);
    case SFQ_CONTIGUOUS:
        if (sp->held && sp->held_match == match) {
            sp->end = end;
            return SFQ_OK;
        }
        break;
    case SFQ_MERGED_WITH_PREVIOUS:
        if (sp->held && match && !sp->held_match) {
            sp->end = end;
            sp->held_match = true;
            return SFQ_OK;
        }
        break;
    case SFQ_MERGED_WITH_NEXT:
        if (sp->held && !match && sp->held_match) {
            sp->end = end;
            sp->held_match = false;
            return SFQ_OK;
        }
        break;
    }
    return hold(sp, begin, end, match);
}

static sfq_status offer_match(splitter *sp, size_t begin, size_t end)
{
    if (sp->done < begin)
        SFQ_TRY(offer(sp, sp->done, begin, false));
    return offer(sp, begin, end, true);
}

static sfq_status finish(splitter *sp, size_t n)
{
    if (sp->done < n)
        SFQ_TRY(offer(sp, sp->done, n, false));
    return sp->held ? send(sp, sp->begin, sp->end) : SFQ_OK;
}

/* ---- patterns ---- */

static sfq_status split_regex(splitter *sp, const sfq_regex *regex, size_t n)
{
    sfq_regex_walk walk = sfq_regex_begin(regex, sp->r->scratch->regex[sp->k], sp->s, n);
    for (;;) {
        bool found;
        size_t begin, end;
        SFQ_TRY(sfq_regex_next(&walk, &found, &begin, &end, sp->r->err));
        if (!found)
            return finish(sp, n);
        SFQ_TRY(offer_match(sp, begin, end));
    }
}

static sfq_status split_literal(splitter *sp, const char *literal, size_t n)
{
    size_t len = strlen(literal);
    const char *hit;
    while ((hit = memmem(sp->s + sp->done, n - sp->done, literal, len)) != NULL) {
        size_t at = (size_t)(hit - sp->s);
        SFQ_TRY(offer_match(sp, at, at + len));
    }
    return finish(sp, n);
}

static bool step_matches(const sfq_pre_step *step, uint32_t c)
{
    switch (step->kind) {
    case SFQ_PRE_DIGITS:
        return sfq_uni_is_numeric(c);
    case SFQ_PRE_PUNCTUATION:
        return sfq_uni_is_punctuation(c);
    case SFQ_PRE_WHITESPACE_SPLIT:
        return sfq_uni_is_space(c);
    default:
        return c == step->character;
    }
}

static sfq_status split_characters(splitter *sp, const sfq_pre_step *step, size_t n)
{
    size_t len;
    for (size_t i = 0; i < n; i += len)
        if (step_matches(step, sfq_utf8_next(sp->s + i, n - i, &len)))
            SFQ_TRY(offer_match(sp, i, i + len));
    return finish(sp, n);
}

/* Spaces go, punctuation stands alone. */
static sfq_status split_bert(splitter *sp, size_t n)
{
    size_t begin = 0, len;
    for (size_t i = 0; i < n; i += len) {
        uint32_t c = sfq_utf8_next(sp->s + i, n - i, &len);
        bool space = sfq_uni_is_space(c);
        if (!space && !sfq_uni_is_punctuation(c))
            continue;
        SFQ_TRY(send(sp, begin, i));
        if (!space)
            SFQ_TRY(send(sp, i, i + len));
        begin = i + len;
    }
    return send(sp, begin, n);
}

/* Runs of word characters and runs of what is neither word nor space: \w+|[^\w\s]+ */
static sfq_status split_whitespace(splitter *sp, size_t n)
{
    size_t begin = 0, len;
    int last = 0; /* 0 space, 1 word, 2 other */
    for (size_t i = 0; i < n; i += len) {
        uint32_t c = sfq_utf8_next(sp->s + i, n - i, &len);
        int kind = sfq_uni_is_word(c) ? 1 : sfq_uni_is_space(c) ? 0 : 2;
        if (kind == last)
            continue;
        if (last != 0)
            SFQ_TRY(send(sp, begin, i));
        begin = i;
        last = kind;
    }
    return last != 0 ? send(sp, begin, n) : SFQ_OK;
}

static sfq_status split_length(splitter *sp, size_t length, size_t n)
{
    size_t begin = 0, len, count = 0;
    for (size_t i = 0; i < n; i += len) {
        if (count == length) {
            SFQ_TRY(send(sp, begin, i));
            begin = i;
            count = 0;
        }
        sfq_utf8_next(sp->s + i, n - i, &len);
        count++;
    }
    return send(sp, begin, n);
}

/* ---- steps that rewrite ---- */

static sfq_status run_byte_level(splitter *sp, const sfq_pre_step *step, size_t n)
{
    sp->byte_level = true;
    sp->behavior = SFQ_ISOLATED;
    if (step->prefix_space && sp->s[0] != ' ') {
        sfq_buf *text = &sp->r->scratch->text[sp->k];
        sfq_buf_clear(text);
        SFQ_TRY(sfq_buf_add(text, " ", 1, sp->r->err));
        SFQ_TRY(sfq_buf_add(text, sp->s, n, sp->r->err));
        sp->s = text->data;
        sp->head += sp->head > 0 ? 1 : 0;
        n++;
    }
    return step->regex ? split_regex(sp, step->regex, n) : send(sp, 0, n);
}

static sfq_status run_metaspace(splitter *sp, const sfq_pre_step *step, size_t n)
{
    sfq_buf *text = &sp->r->scratch->text[sp->k];
    size_t len = strlen(step->replacement), head = 0;
    sfq_buf_clear(text);
    bool starts = sp->s[0] == ' ' || (n >= len && memcmp(sp->s, step->replacement, len) == 0);
    if (!starts &&
        (step->scheme == SFQ_PREPEND_ALWAYS || (step->scheme == SFQ_PREPEND_FIRST && sp->head > 0)))
        SFQ_TRY(sfq_buf_add(text, step->replacement, len, sp->r->err));
    for (size_t i = 0; i < n;) {
        const char *space = memchr(sp->s + i, ' ', n - i);
        size_t end = space ? (size_t)(space - sp->s) : n;
        if (i < sp->head)
            head = text->len + (end < sp->head ? end : sp->head) - i;
        SFQ_TRY(sfq_buf_add(text, sp->s + i, end - i, sp->r->err));
        if (space)
            SFQ_TRY(sfq_buf_add(text, step->replacement, len, sp->r->err));
        if (space && end < sp->head)
            head = text->len;
        i = end + (space ? 1 : 0);
    }
    sp->s = text->data;
    sp->head = head;
    return step->split ? split_literal(sp, step->replacement, text->len) : send(sp, 0, text->len);
}

static sfq_status run_step(run *r, size_t k, const char *s, size_t n, size_t head)
{
    if (n == 0)
        return SFQ_OK;
    if (k == r->pre->count)
        return r->word(r->ctx, s, n, r->err);
    const sfq_pre_step *step = &r->pre->steps[k];
    splitter sp = {
        .r = r, .k = k, .s = s, .head = head, .behavior = step->behavior, .invert = step->invert};
    switch (step->kind) {
    case SFQ_PRE_BERT:
        return split_bert(&sp, n);
    case SFQ_PRE_BYTE_LEVEL:
        return run_byte_level(&sp, step, n);
    case SFQ_PRE_FIXED_LENGTH:
        return split_length(&sp, step->length, n);
    case SFQ_PRE_METASPACE:
        return run_metaspace(&sp, step, n);
    case SFQ_PRE_SPLIT:
        return step->regex ? split_regex(&sp, step->regex, n)
                           : split_literal(&sp, step->literal, n);
    case SFQ_PRE_WHITESPACE:
        return split_whitespace(&sp, n);
    case SFQ_PRE_CHAR:
    case SFQ_PRE_DIGITS:
    case SFQ_PRE_PUNCTUATION:
    case SFQ_PRE_WHITESPACE_SPLIT:
        return split_characters(&sp, step, n);
    }
    return sfq_fail(r->err, SFQ_E_INTERNAL, "pre-tokenizer step %d", (int)step->kind);
}

sfq_status sfq_pretokenizer_run(const sfq_pretokenizer *pre, sfq_pre_scratch *scratch,
                                const char *s, size_t n, size_t head, sfq_word_fn word, void *ctx,
                                sfq_error *err)
{
    run r = {pre, scratch, word, ctx, err};
    return run_step(&r, 0, s, n, head);
}

sfq_status sfq_pre_scratch_open(sfq_pre_scratch *scratch, const sfq_pretokenizer *pre,
                                sfq_error *err)
{
    *scratch = (sfq_pre_scratch){0};
    for (size_t i = 0; i < pre->count; i++) {
        scratch->text[i] = scratch->piece[i] = SFQ_BUF_INIT((size_t)1 << 32);
        if (pre->steps[i].regex)
            SFQ_TRY(sfq_regex_scratch_open(&scratch->regex[i], pre->steps[i].regex, err));
    }
    return SFQ_OK;
}

void sfq_pre_scratch_close(sfq_pre_scratch *scratch)
{
    for (size_t i = 0; i < SFQ_TEXT_STEPS_MAX; i++) {
        sfq_buf_free(&scratch->text[i]);
        sfq_buf_free(&scratch->piece[i]);
        sfq_regex_scratch_close(&scratch->regex[i]);
    }
}
