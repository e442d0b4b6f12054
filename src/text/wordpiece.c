/* text/wordpiece.c - WordPiece and WordLevel, as tokenizers runs them. WordPiece takes the longest
 * token that the rest of the word starts with, tokens after the first under the continuing prefix;
 * a word that cannot be covered, or has too many characters, is one unknown token. The length of
 * the longest token and max_input_chars_per_word bound the work per word. */
#include "text/wordpiece.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

static sfq_status load_unk(sfq_wordpiece *model, const json_t *json, const char *file,
                           sfq_error *err)
{
    const char *unk;
    SFQ_TRY(sfq_json_string(json, file, "unk_token", true, &unk, err));
    model->unk = sfq_vocab_find(model->vocab, unk, strlen(unk));
    return SFQ_OK;
}

static sfq_status add_unk(const sfq_wordpiece *model, const char *word, size_t n, sfq_ids *out,
                          sfq_error *err)
{
    if (model->unk < 0)
        return sfq_fail(err, SFQ_E_FORMAT,
                        "the text holds \"%.*s\", which the vocabulary cannot spell, and the "
                        "model's unk_token is not in its vocabulary",
                        (int)(n < 60 ? n : 60), word);
    return sfq_ids_add(out, model->unk, err);
}

sfq_status sfq_wordpiece_load(sfq_wordpiece *model, const sfq_vocab *vocab, const json_t *json,
                              const char *file, sfq_error *err)
{
    *model = (sfq_wordpiece){.vocab = vocab, .unk = -1};
    SFQ_TRY(load_unk(model, json, file, err));
    const char *prefix;
    int64_t max_chars;
    SFQ_TRY(sfq_json_string(json, file, "continuing_subword_prefix", true, &prefix, err));
    SFQ_TRY(
        sfq_json_int(json, file, "max_input_chars_per_word", 0, 1 << 20, NULL, &max_chars, err));
    model->prefix_len = strlen(prefix);
    model->max_chars = (size_t)max_chars;
    if (model->prefix_len > SFQ_TOKEN_BYTES_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, "model.continuing_subword_prefix",
                           "%s: model.continuing_subword_prefix has %zu bytes, at most %d", file,
                           model->prefix_len, SFQ_TOKEN_BYTES_MAX);
    for (size_t i = 0; i < vocab->count; i++)
        if (vocab->tokens[i].len > model->longest)
            model->longest = vocab->tokens[i].len;
    model->prefix = sfq_mem_strdup(prefix);
    return model->prefix ? SFQ_OK : sfq_fail_memory(err, model->prefix_len, "WordPiece prefix");
}

void sfq_wordpiece_close(sfq_wordpiece *model)
{
    sfq_mem_free(model->prefix);
    *model = (sfq_wordpiece){.unk = -1};
}

static size_t count_chars(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xC0) != 0x80;
    return count;
}

sfq_status sfq_wordpiece_encode(const sfq_wordpiece *model, sfq_buf *scratch, const char *word,
                                size_t n, sfq_ids *out, sfq_error *err)
{
    if (count_chars(word, n) > model->max_chars)
        return add_unk(model, word, n, out, err);
    /* the word behind the prefix: the candidate at `start` is prefix + word[start, end) */
    sfq_buf_clear(scratch);
    SFQ_TRY(sfq_buf_reserve(scratch, model->prefix_len + n, err));
    size_t before = out->count, start = 0;
    while (start < n) {
        size_t prefix = start > 0 ? model->prefix_len : 0;
        size_t len = prefix + n - start;
        if (len > model->longest)
            len = model->longest;
        if (len > prefix) {
            memcpy(scratch->data, model->prefix, prefix);
            memcpy(scratch->data + prefix, word + start, len - prefix);
        }
        int32_t id = -1;
        for (; len > prefix; len--) {
            bool boundary = start + len - prefix == n ||
                            ((unsigned char)word[start + len - prefix] & 0xC0) != 0x80;
            if (boundary && (id = sfq_vocab_find(model->vocab, scratch->data, len)) >= 0)
                break;
        }
        if (id < 0) {
            out->count = before;
            return add_unk(model, word, n, out, err);
        }
        SFQ_TRY(sfq_ids_add(out, id, err));
        start += len - prefix;
    }
    return SFQ_OK;
}

sfq_status sfq_wordlevel_load(sfq_wordpiece *model, const sfq_vocab *vocab, const json_t *json,
                              const char *file, sfq_error *err)
{
    *model = (sfq_wordpiece){.vocab = vocab, .unk = -1};
    return load_unk(model, json, file, err);
}

sfq_status sfq_wordlevel_encode(const sfq_wordpiece *model, const char *word, size_t n,
                                sfq_ids *out, sfq_error *err)
{
    int32_t id = sfq_vocab_find(model->vocab, word, n);
    return id >= 0 ? sfq_ids_add(out, id, err) : add_unk(model, word, n, out, err);
}
