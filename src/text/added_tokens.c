/* text/added_tokens.c - which tokens are added under which ids, and how they cut a text.
 *
 * The ids are those that tokenizers gives: the model's id for a text the model knows, else the next
 * number from the size of the model's vocabulary on; the "id" in the file is not used. A second
 * mention of a text changes its flags; a second text under one id replaces the first. */
#include "text/added_tokens.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

typedef struct loader {
    sfq_added_tokens *to;
    const sfq_vocab *vocab;
    const sfq_normalizer *normalizer;
    sfq_norm_scratch scratch;
    const char *file;
    int64_t next_id;
    sfq_error *err;
} loader;

static sfq_status load_flags(loader *l, const json_t *json, sfq_added_token *token)
{
    struct {
        const char *key;
        bool *to;
    } flags[] = {{"single_word", &token->single_word},
                 {"lstrip", &token->lstrip},
                 {"rstrip", &token->rstrip},
                 {"normalized", &token->normalized},
                 {"special", &token->special}};
    for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
        SFQ_TRY(sfq_json_bool(json, l->file, flags[i].key, NULL, flags[i].to, l->err));
    return SFQ_OK;
}

static sfq_status normalize(loader *l, sfq_added_token *token)
{
    const char *text;
    size_t n, head = 0, len = strlen(token->content);
    if (!token->normalized || l->normalizer->count == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_normalizer_run(l->normalizer, &l->scratch, token->content, len, &head, &text, &n,
                               l->err));
    if (n == len && memcmp(text, token->content, n) == 0)
        return SFQ_OK;
    token->normal = sfq_mem_strndup(text, n);
    return token->normal ? SFQ_OK : sfq_fail_memory(l->err, n, "added token");
}

/* The slot of a token in the making: a new one, or that of its first mention. */
static sfq_status place(loader *l, const char *content, size_t len, sfq_added_token **out)
{
    sfq_added_tokens *added = l->to;
    int32_t index = sfq_vocab_find(&added->contents, content, len);
    if (index >= 0) {
        *out = &added->tokens[index];
        sfq_mem_free((*out)->normal);
        (*out)->normal = NULL;
        return SFQ_OK;
    }
    index = (int32_t)added->count;
    SFQ_TRY(sfq_vocab_add(&added->contents, content, len, index, false, l->file, l->err));
    *out = &added->tokens[added->count++];
    (*out)->id = sfq_vocab_find(l->vocab, content, len);
    if ((*out)->id < 0) {
        if (l->next_id >= INT32_MAX)
            return sfq_fail_at(l->err, SFQ_E_FORMAT, l->file, "added_tokens",
                               "%s: no id is left for added token \"%.60s\"", l->file, content);
        (*out)->id = (int32_t)l->next_id++;
    }
    (*out)->content = sfq_mem_strndup(content, len);
    return (*out)->content ? SFQ_OK : sfq_fail_memory(l->err, len, "added token");
}

static sfq_status load_token(loader *l, const json_t *json, size_t order)
{
    const char *content;
    int64_t id;
    sfq_added_token *token;
    SFQ_TRY(sfq_json_string(json, l->file, "content", true, &content, l->err));
    SFQ_TRY(sfq_json_int(json, l->file, "id", 0, INT32_MAX - 1, NULL, &id, l->err));
    if (content[0] == '\0')
        return SFQ_OK;
    SFQ_TRY(place(l, content, strlen(content), &token));
    token->order = order;
    SFQ_TRY(load_flags(l, json, token));
    return normalize(l, token);
}

static int by_id(const void *a, const void *b)
{
    const sfq_added_token *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static void free_token(sfq_added_token *token)
{
    sfq_mem_free(token->content);
    sfq_mem_free(token->normal);
}

/* Sorts by id and keeps the last of those that share one. */
static sfq_status settle(loader *l)
{
    sfq_added_tokens *added = l->to;
    added->content_ids = SFQ_NEW_ARRAY(int32_t, added->count);
    if (!added->content_ids)
        return sfq_fail_memory(l->err, added->count * sizeof(int32_t), "added tokens");
    for (size_t i = 0; i < added->count; i++) {
        const sfq_added_token *token = &added->tokens[i];
        added->content_ids[i] = token->id;
        int32_t shown =
            sfq_vocab_find(&added->contents, token->normal ? token->normal : token->content,
                           strlen(token->normal ? token->normal : token->content));
        added->tokens[i].hidden = shown >= 0 && added->tokens[shown].special;
    }
    qsort(added->tokens, added->count, sizeof(*added->tokens), by_id);
    size_t kept = 0;
    for (size_t i = 0; i < added->count; i++) {
        if (i + 1 < added->count && added->tokens[i + 1].id == added->tokens[i].id)
            free_token(&added->tokens[i]);
        else
            added->tokens[kept++] = added->tokens[i];
    }
    added->count = kept;
    return SFQ_OK;
}

static sfq_status build(loader *l, bool normalized, sfq_matcher **out)
{
    const sfq_added_tokens *added = l->to;
    size_t bytes = 0, count = 0;
    for (size_t i = 0; i < added->count; i++) {
        const sfq_added_token *token = &added->tokens[i];
        if (token->normalized != normalized)
            continue;
        bytes += strlen(token->normal ? token->normal : token->content);
        count++;
    }
    if (count == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_matcher_open(out, bytes, l->err));
    for (size_t i = 0; i < added->count; i++) {
        const sfq_added_token *token = &added->tokens[i];
        const char *text = token->normal ? token->normal : token->content;
        if (token->normalized == normalized &&
            !sfq_matcher_add(*out, text, strlen(text), (uint32_t)i))
            return sfq_fail_at(l->err, SFQ_E_FORMAT, l->file, "added_tokens",
                               "%s: added token \"%.60s\" is normalized to \"%.60s\", which is %s",
                               l->file, token->content, text,
                               text[0] == '\0' ? "empty" : "the form of another one");
    }
    return sfq_matcher_finish(*out, l->err);
}

sfq_status sfq_added_load(sfq_added_tokens *added, const json_t *list, const sfq_vocab *vocab,
                          const sfq_normalizer *normalizer, const char *file, sfq_error *err)
{
    *added = (sfq_added_tokens){0};
    if (list && !json_is_array(list))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "added_tokens",
                           "%s: added_tokens is not an array", file);
    size_t count = json_array_size(list);
    loader l = {.to = added,
                .vocab = vocab,
                .normalizer = normalizer,
                .file = file,
                .err = err,
                .next_id = (int64_t)vocab->count};
    SFQ_TRY(sfq_vocab_open(&added->contents, count, file, err));
    added->tokens = SFQ_NEW_ARRAY(sfq_added_token, count);
    if (!added->tokens)
        return sfq_fail_memory(err, count * sizeof(sfq_added_token), "added tokens");
    sfq_status status = sfq_norm_scratch_open(&l.scratch, normalizer, err);
    for (size_t i = 0; i < count && status == SFQ_OK; i++)
        status = load_token(&l, json_array_get(list, i), i);
    sfq_norm_scratch_close(&l.scratch);
    SFQ_TRY(status);
    SFQ_TRY(settle(&l));
    SFQ_TRY(build(&l, false, &added->raw));
    return build(&l, true, &added->normalized);
}

void sfq_added_close(sfq_added_tokens *added)
{
    for (size_t i = 0; i < added->count; i++)
        free_token(&added->tokens[i]);
    sfq_mem_free(added->tokens);
    sfq_mem_free(added->content_ids);
    sfq_vocab_close(&added->contents);
    sfq_matcher_close(&added->raw);
    sfq_matcher_close(&added->normalized);
    *added = (sfq_added_tokens){0};
}

const sfq_added_token *sfq_added_by_id(const sfq_added_tokens *added, int32_t id)
{
    size_t low = 0, high = added->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (added->tokens[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < added->count && added->tokens[low].id == id ? &added->tokens[low] : NULL;
}

int32_t sfq_added_find(const sfq_added_tokens *added, const char *content, size_t len)
{
    int32_t index = sfq_vocab_find(&added->contents, content, len);
    return index < 0 ? -1 : added->content_ids[index];
}

/* ---- cutting ---- */

static bool word_before(const char *s, size_t at)
{
    size_t begin = at - 1, len;
    while (begin > 0 && ((unsigned char)s[begin] & 0xC0) == 0x80)
        begin--;
    return sfq_uni_is_word(sfq_utf8_next(s + begin, at - begin, &len));
}

static bool word_after(const char *s, size_t n, size_t at)
{
    size_t len;
    return sfq_uni_is_word(sfq_utf8_next(s + at, n - at, &len));
}

/* Where the white space that ends at `at` begins, not below `floor`. */
static size_t spaces_before(const char *s, size_t at, size_t floor)
{
    while (at > floor) {
        size_t begin = at - 1, len;
        while (begin > floor && ((unsigned char)s[begin] & 0xC0) == 0x80)
            begin--;
        if (!sfq_uni_is_space(sfq_utf8_next(s + begin, at - begin, &len)))
            break;
        at = begin;
    }
    return at;
}

static size_t spaces_after(const char *s, size_t n, size_t at)
{
    size_t len;
    while (at < n && sfq_uni_is_space(sfq_utf8_next(s + at, n - at, &len)))
        at += len;
    return at;
}

static sfq_status cut(const sfq_added_tokens *added, const sfq_hits *hits, const char *s, size_t n,
                      sfq_stretch_fn stretch, void *ctx, sfq_error *err)
{
    size_t done = 0, next = 0;       /* text handed on; where the next match may begin */
    size_t run_from = 0, run_to = 0; /* white space known from the last rstrip */
    for (size_t i = hits->count; i > 0; i--) {
        const sfq_hit *hit = &hits->v[i - 1];
        const sfq_added_token *token = &added->tokens[hit->value];
        size_t begin = hit->at, end = hit->at + hit->len;
        if (begin < next)
            continue;
        next = end;
        if (token->single_word &&
            ((begin > 0 && word_before(s, begin)) || (end < n && word_after(s, n, end))))
            continue;
        if (token->lstrip)
            begin = begin > done ? spaces_before(s, begin, done) : done;
        if (token->rstrip) {
            if (end < run_from || end >= run_to) {
                run_from = end;
                run_to = spaces_after(s, n, end);
            }
            end = run_to > end ? run_to : end;
        }
        if (done < begin)
            SFQ_TRY(stretch(ctx, NULL, s, done, begin, err));
        SFQ_TRY(stretch(ctx, token, s, begin, end, err));
        done = end;
    }
    return done != n ? stretch(ctx, NULL, s, done, n, err) : SFQ_OK;
}

sfq_status sfq_added_split(const sfq_added_tokens *added, const sfq_matcher *matcher, const char *s,
                           size_t n, sfq_stretch_fn stretch, void *ctx, sfq_error *err)
{
    sfq_hits hits = {0};
    sfq_status status = SFQ_OK;
    if (matcher)
        status = sfq_matcher_find(matcher, s, n, &hits, err);
    if (status == SFQ_OK)
        status = cut(added, &hits, s, n, stretch, ctx, err);
    sfq_mem_free(hits.v);
    return status;
}
