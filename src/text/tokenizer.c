/* text/tokenizer.c - the tokenizer as a whole: opening, and the way of a text through it.
 *
 *   text -> added tokens (not normalized) -> normalizer -> added tokens (normalized)
 *        -> pre-tokenizer -> model -> truncation -> post-processor
 *
 * A tokenizer does not change once it is open; all working memory belongs to the call, so any
 * number of threads may encode at once. */
#include "text/tokenizer.h"

#include "base/ck.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/postprocessor.h"
#include "text/pretokenizer.h"

#include <string.h>

#define FILE_MAX ((size_t)512 << 20)
#define TEXT_MAX ((size_t)1 << 30)
#define DECODED_MAX ((size_t)1 << 32)

struct sfq_tokenizer {
    sfq_word_model model;
    sfq_normalizer normalizer;
    sfq_pretokenizer pre;
    sfq_added_tokens added;
    sfq_postprocessor post;
    sfq_decoder decoder;
    int32_t end; /* highest id + 1 */
};

/* ---- open ---- */

static bool known_id(const void *ctx, int32_t id)
{
    const sfq_tokenizer *t = ctx;
    size_t len;
    return sfq_added_by_id(&t->added, id) || sfq_vocab_text(&t->model.vocab, id, &len);
}

static sfq_status load(sfq_tokenizer *t, const json_t *root, const char *file, sfq_error *err)
{
    const char *version;
    if (!json_is_object(root))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL, "%s: not a JSON object", file);
    SFQ_TRY(sfq_json_string(root, file, "version", false, &version, err));
    if (version && strcmp(version, "1.0") != 0)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, file, "version",
                           "%s: version \"%.20s\", expected \"1.0\"", file, version);
    SFQ_TRY(sfq_word_model_load(&t->model, sfq_json_get(root, "model"), file, err));
    SFQ_TRY(sfq_normalizer_load(&t->normalizer, sfq_json_get(root, "normalizer"), file, err));
    SFQ_TRY(sfq_added_load(&t->added, sfq_json_get(root, "added_tokens"), &t->model.vocab,
                           &t->normalizer, file, err));
    SFQ_TRY(sfq_pretokenizer_load(&t->pre, sfq_json_get(root, "pre_tokenizer"), file, err));
    SFQ_TRY(sfq_postprocessor_load(&t->post, sfq_json_get(root, "post_processor"), known_id, t,
                                   file, err));
    t->end = t->model.vocab.end;
    if (t->added.count > 0 && t->added.tokens[t->added.count - 1].id >= t->end)
        t->end = t->added.tokens[t->added.count - 1].id + 1;
    return sfq_decoder_load(&t->decoder, sfq_json_get(root, "decoder"), file, err);
}

static sfq_status open_json(sfq_tokenizer **out, const json_t *root, const char *file,
                            sfq_error *err)
{
    *out = SFQ_NEW(sfq_tokenizer);
    if (!*out)
        return sfq_fail_memory(err, sizeof(sfq_tokenizer), "tokenizer");
    sfq_status status = load(*out, root, file, err);
    if (status != SFQ_OK) {
        sfq_error_locate(err, file, NULL);
        sfq_tokenizer_close(out);
    }
    return status;
}

sfq_status sfq_tokenizer_parse(sfq_tokenizer **out, const char *file, const char *json,
                               size_t bytes, sfq_error *err)
{
    json_t *root = NULL;
    *out = NULL;
    SFQ_TRY(sfq_json_parse(&root, file, json, bytes, 0, err));
    sfq_status status = open_json(out, root, file, err);
    json_decref(root);
    return status;
}

sfq_status sfq_tokenizer_open(sfq_tokenizer **out, const char *dir, sfq_error *err)
{
    json_t *root = NULL;
    sfq_status status = SFQ_OK;
    *out = NULL;
    char *path = sfq_path_join(dir, "tokenizer.json");
    if (!path)
        return sfq_fail_memory(err, strlen(dir), "path");
    SFQ_DO(sfq_json_read(&root, path, FILE_MAX, err));
    SFQ_DO(open_json(out, root, path, err));
done:
    json_decref(root);
    sfq_mem_free(path);
    return status;
}

void sfq_tokenizer_close(sfq_tokenizer **tokenizer)
{
    sfq_tokenizer *t = *tokenizer;
    if (!t)
        return;
    sfq_word_model_close(&t->model);
    sfq_normalizer_close(&t->normalizer);
    sfq_pretokenizer_close(&t->pre);
    sfq_added_close(&t->added);
    sfq_postprocessor_close(&t->post);
    sfq_decoder_close(&t->decoder);
    sfq_mem_free(t);
    *tokenizer = NULL;
}

/* ---- encode ---- */

/* The working memory of one encode call. */
typedef struct work {
    const sfq_tokenizer *t;
    sfq_norm_scratch norm;
    sfq_pre_scratch pre;
    sfq_model_scratch model;
    sfq_ids *out;
    size_t head; /* of the normalized stretch */
} work;

static void close_work(work *w)
{
    sfq_norm_scratch_close(&w->norm);
    sfq_pre_scratch_close(&w->pre);
    sfq_model_scratch_close(&w->model);
    sfq_mem_free(w);
}

static sfq_status open_work(work **out, const sfq_tokenizer *t, sfq_error *err)
{
    work *w = SFQ_NEW(work);
    *out = w;
    if (!w)
        return sfq_fail_memory(err, sizeof(work), "encoding");
    w->t = t;
    sfq_status status = sfq_norm_scratch_open(&w->norm, &t->normalizer, err);
    if (status == SFQ_OK)
        status = sfq_pre_scratch_open(&w->pre, &t->pre, err);
    if (status == SFQ_OK)
        status = sfq_model_scratch_open(&w->model, &t->model, err);
    if (status != SFQ_OK) {
        close_work(w);
        *out = NULL;
    }
    return status;
}

static sfq_status encode_word(void *ctx, const char *word, size_t n, sfq_error *err)
{
    work *w = ctx;
    return sfq_word_model_encode(&w->t->model, &w->model, word, n, w->out, err);
}

/* A stretch of normalized text, or an added token found in it. */
static sfq_status normalized_stretch(void *ctx, const sfq_added_token *token, const char *s,
                                     size_t begin, size_t end, sfq_error *err)
{
    work *w = ctx;
    if (token)
        return sfq_ids_add(w->out, token->id, err);
    size_t head = w->head > begin ? sfq_min_size(w->head, end) - begin : 0;
    return sfq_pretokenizer_run(&w->t->pre, &w->pre, s + begin, end - begin, head, encode_word, w,
                                err);
}

/* A stretch of raw text, or an added token found in it. */
static sfq_status raw_stretch(void *ctx, const sfq_added_token *token, const char *s, size_t begin,
                              size_t end, sfq_error *err)
{
    work *w = ctx;
    const char *text;
    size_t n;
    if (token)
        return sfq_ids_add(w->out, token->id, err);
    w->head = 0;
    if (begin == 0)
        sfq_utf8_next(s, end, &w->head);
    SFQ_TRY(sfq_normalizer_run(&w->t->normalizer, &w->norm, s + begin, end - begin, &w->head, &text,
                               &n, err));
    return sfq_added_split(&w->t->added, w->t->added.normalized, text, n, normalized_stretch, w,
                           err);
}

static sfq_status encode_one(const sfq_tokenizer *t, const char *text, size_t n, sfq_ids *out,
                             sfq_error *err)
{
    size_t good = sfq_utf8_valid_prefix(text, n);
    if (good != n)
        return sfq_fail(err, SFQ_E_DATA, "text is not UTF-8: byte 0x%02X at offset %zu",
                        (unsigned)(unsigned char)text[good], good);
    if (n > TEXT_MAX)
        return sfq_fail(err, SFQ_E_LIMIT, "a text of %zu bytes, at most %zu are supported", n,
                        TEXT_MAX);
    work *w;
    SFQ_TRY(open_work(&w, t, err));
    w->out = out;
    sfq_status status = sfq_added_split(&t->added, t->added.raw, text, n, raw_stretch, w, err);
    close_work(w);
    return status;
}

/* Lengths after truncation to `room` ids: the longer sequence is cut first, then both to halves,
 * the odd one going to the longer (tokenizers' longest_first). */
static void truncate_pair(size_t *a, size_t *b, size_t room)
{
    if (*a + *b <= room)
        return;
    bool swapped = *a > *b;
    size_t shorter = swapped ? *b : *a;
    size_t longer = shorter;
    if (shorter <= room)
        longer = sfq_max_size(shorter, room - shorter);
    if (shorter + longer > room) {
        shorter = room / 2;
        longer = shorter + room % 2;
    }
    *a = swapped ? longer : shorter;
    *b = swapped ? shorter : longer;
}

static sfq_status truncate_both(sfq_ids *a, sfq_ids *b, size_t special, size_t max_tokens,
                                sfq_error *err)
{
    if (max_tokens == 0)
        return SFQ_OK;
    if (special > max_tokens)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "at most %zu tokens are asked for, the special tokens alone are %zu",
                        max_tokens, special);
    size_t room = max_tokens - special;
    if (b)
        truncate_pair(&a->count, &b->count, room);
    else
        a->count = sfq_min_size(a->count, room);
    return SFQ_OK;
}

static sfq_status apply_template(const sfq_post_template *form, const sfq_ids *sequences[2],
                                 bool special, sfq_encoding *out, sfq_error *err)
{
    size_t total = 0;
    for (size_t i = 0; i < form->count; i++) {
        const sfq_post_piece *piece = &form->pieces[i];
        size_t more = piece->sequence >= 0 ? sequences[piece->sequence]->count
                      : special            ? piece->count
                                           : 0;
        if (!sfq_ck_add(total, more, &total))
            return sfq_fail_memory(err, SIZE_MAX, "encoding");
    }
    out->ids = SFQ_NEW_ARRAY(int32_t, total);
    out->types = SFQ_NEW_ARRAY(int32_t, total);
    if (!out->ids || !out->types)
        return sfq_fail_memory(err, total * sizeof(int32_t), "encoding");
    for (size_t i = 0; i < form->count; i++) {
        const sfq_post_piece *piece = &form->pieces[i];
        bool own = piece->sequence >= 0;
        const int32_t *ids = own ? sequences[piece->sequence]->v : piece->ids;
        size_t count = own ? sequences[piece->sequence]->count : special ? piece->count : 0;
        for (size_t k = 0; k < count; k++, out->count++) {
            out->ids[out->count] = ids[k];
            out->types[out->count] = piece->type;
        }
        out->special_count += own ? 0 : count;
    }
    return SFQ_OK;
}

sfq_status sfq_tokenizer_encode(const sfq_tokenizer *tokenizer, const char *text, size_t bytes,
                                const char *pair, size_t pair_bytes, bool special,
                                size_t max_tokens, sfq_encoding *out, sfq_error *err)
{
    sfq_ids a = {0}, b = {0};
    const sfq_ids *sequences[2] = {&a, &b};
    const sfq_post_template *form = pair ? &tokenizer->post.pair : &tokenizer->post.single;
    sfq_status status = SFQ_OK;
    *out = (sfq_encoding){0};
    SFQ_DO(encode_one(tokenizer, text, bytes, &a, err));
    if (pair)
        SFQ_DO(encode_one(tokenizer, pair, pair_bytes, &b, err));
    SFQ_DO(truncate_both(&a, pair ? &b : NULL, special ? form->special : 0, max_tokens, err));
    SFQ_DO(apply_template(form, sequences, special, out, err));
done:
    sfq_ids_free(&a);
    sfq_ids_free(&b);
    if (status != SFQ_OK)
        sfq_encoding_clear(out);
    return status;
}

void sfq_encoding_clear(sfq_encoding *encoding)
{
    sfq_mem_free(encoding->ids);
    sfq_mem_free(encoding->types);
    *encoding = (sfq_encoding){0};
}

/* ---- decode and questions ---- */

static sfq_status token_texts(const sfq_tokenizer *t, const int32_t *ids, size_t count,
                              bool skip_special, sfq_texts *texts, sfq_error *err)
{
    for (size_t i = 0; i < count; i++) {
        size_t len = 0;
        const sfq_added_token *added = sfq_added_by_id(&t->added, ids[i]);
        const char *text = added ? (added->normal ? added->normal : added->content)
                                 : sfq_vocab_text(&t->model.vocab, ids[i], &len);
        if (!text || (added && skip_special && added->hidden))
            continue;
        SFQ_TRY(sfq_buf_add(&texts->data, text, added ? strlen(text) : len, err));
        SFQ_TRY(sfq_texts_end(texts, err));
    }
    return SFQ_OK;
}

sfq_status sfq_tokenizer_decode(const sfq_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                bool skip_special, char **text, size_t *bytes, sfq_error *err)
{
    sfq_texts texts = {.data = SFQ_BUF_INIT(DECODED_MAX)};
    sfq_buf out = SFQ_BUF_INIT(DECODED_MAX);
    sfq_status status = SFQ_OK;
    *text = NULL;
    *bytes = 0;
    SFQ_DO(token_texts(tokenizer, ids, count, skip_special, &texts, err));
    SFQ_DO(sfq_decoder_run(&tokenizer->decoder, &texts, &out, err));
    SFQ_DO(sfq_buf_add(&out, "", 0, err));
    *bytes = out.len;
    *text = sfq_buf_take(&out);
done:
    sfq_texts_free(&texts);
    sfq_buf_free(&out);
    return status;
}

int32_t sfq_tokenizer_vocab_end(const sfq_tokenizer *tokenizer)
{
    return tokenizer->end;
}

int32_t sfq_tokenizer_find(const sfq_tokenizer *tokenizer, const char *token)
{
    int32_t id = sfq_added_find(&tokenizer->added, token, strlen(token));
    return id >= 0 ? id : sfq_vocab_find(&tokenizer->model.vocab, token, strlen(token));
}

bool sfq_tokenizer_is_special(const sfq_tokenizer *tokenizer, int32_t id)
{
    const sfq_added_token *token = sfq_added_by_id(&tokenizer->added, id);
    return token && token->special;
}

sfq_status sfq_tokenizer_fits(const sfq_tokenizer *tokenizer, const char *path, int64_t vocab,
                              sfq_error *err)
{
    int32_t end = sfq_tokenizer_vocab_end(tokenizer);
    if (end <= vocab)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_FORMAT, path, NULL,
                       "%s: ids reach %d, but the word table has %lld rows; the tokenizer belongs "
                       "to another model",
                       path, (int)end - 1, (long long)vocab);
}
