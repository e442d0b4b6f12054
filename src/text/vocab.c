/* text/vocab.c - owns the two hash tables of a vocabulary. Linear probing at a load of at most one
 * half; the hash is XXH3. */
#include "text/vocab.h"

#include "base/ck.h"
#include "base/mem.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#define BYTES_MAX ((size_t)1 << 30)

static size_t hash_text(const char *text, size_t len)
{
    return (size_t)XXH3_64bits(text, len);
}

static size_t hash_id(int32_t id)
{
    uint64_t x = (uint64_t)(uint32_t)id * 0x9E3779B97F4A7C15u;
    return (size_t)(x >> 24);
}

sfq_status sfq_vocab_open(sfq_vocab *vocab, size_t count, const char *file, sfq_error *err)
{
    *vocab = (sfq_vocab){.bytes = SFQ_BUF_INIT(BYTES_MAX)};
    if (count > SFQ_VOCAB_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, NULL,
                           "%s: %zu tokens in the vocabulary, at most %d are supported", file,
                           count, SFQ_VOCAB_MAX);
    size_t slots = 16;
    while (slots < 2 * count)
        slots *= 2;
    vocab->tokens = SFQ_NEW_ARRAY(sfq_token, count);
    vocab->by_text = SFQ_NEW_ARRAY(uint32_t, slots);
    vocab->by_id = SFQ_NEW_ARRAY(uint32_t, slots);
    vocab->cap = count;
    vocab->mask = slots - 1;
    if (!vocab->tokens || !vocab->by_text || !vocab->by_id)
        return sfq_fail_memory(err, slots * sizeof(uint32_t), "vocabulary");
    return SFQ_OK;
}

void sfq_vocab_close(sfq_vocab *vocab)
{
    sfq_buf_free(&vocab->bytes);
    sfq_mem_free(vocab->tokens);
    sfq_mem_free(vocab->by_text);
    sfq_mem_free(vocab->by_id);
    *vocab = (sfq_vocab){0};
}

/* the slot that holds the text, or the free one where it belongs */
static size_t text_slot(const sfq_vocab *vocab, const char *text, size_t len)
{
    size_t slot = hash_text(text, len) & vocab->mask;
    for (; vocab->by_text[slot] != 0; slot = (slot + 1) & vocab->mask) {
        const sfq_token *token = &vocab->tokens[vocab->by_text[slot] - 1];
        if (token->len == len && memcmp(vocab->bytes.data + token->at, text, len) == 0)
            break;
    }
    return slot;
}

static size_t id_slot(const sfq_vocab *vocab, int32_t id)
{
    size_t slot = hash_id(id) & vocab->mask;
    while (vocab->by_id[slot] != 0 && vocab->tokens[vocab->by_id[slot] - 1].id != id)
        slot = (slot + 1) & vocab->mask;
    return slot;
}

sfq_status sfq_vocab_add(sfq_vocab *vocab, const char *text, size_t len, int64_t id, bool again,
                         const char *file, sfq_error *err)
{
    if (id < 0 || id >= INT32_MAX)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, text,
                           "%s: token \"%.60s\" has id %" PRId64 ", expected 0 to %d", file, text,
                           id, INT32_MAX - 1);
    if (len > SFQ_TOKEN_BYTES_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, NULL,
                           "%s: the token of id %" PRId64
                           " has %zu bytes, at most %d are supported",
                           file, id, len, SFQ_TOKEN_BYTES_MAX);
    if (vocab->count == vocab->cap)
        return sfq_fail(err, SFQ_E_INTERNAL, "%s: vocabulary is larger than announced", file);
    size_t at_text = text_slot(vocab, text, len);
    size_t at_id = id_slot(vocab, (int32_t)id);
    if (vocab->by_id[at_id] != 0) {
        const sfq_token *other = &vocab->tokens[vocab->by_id[at_id] - 1];
        return sfq_fail_at(err, SFQ_E_FORMAT, file, text,
                           "%s: tokens \"%.60s\" and \"%.60s\" both have id %" PRId64, file,
                           vocab->bytes.data + other->at, text, id);
    }
    if (vocab->by_text[at_text] != 0 && !again)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, text, "%s: token \"%.60s\" occurs twice", file,
                           text);
    sfq_token *token = &vocab->tokens[vocab->count];
    *token = (sfq_token){(uint32_t)vocab->bytes.len, (uint32_t)len, (int32_t)id};
    SFQ_TRY(sfq_buf_add(&vocab->bytes, text, len, err));
    SFQ_TRY(sfq_buf_add(&vocab->bytes, "", 1, err));
    vocab->count++;
    vocab->by_text[at_text] = (uint32_t)vocab->count;
    vocab->by_id[at_id] = (uint32_t)vocab->count;
    if ((int32_t)id >= vocab->end)
        vocab->end = (int32_t)id + 1;
    return SFQ_OK;
}

sfq_status sfq_vocab_load(sfq_vocab *vocab, const json_t *object, const char *file, sfq_error *err)
{
    if (!json_is_object(object))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.vocab",
                           "%s: model.vocab is missing or not an object", file);
    SFQ_TRY(sfq_vocab_open(vocab, json_object_size(object), file, err));
    /* jansson's iterators take a non-const object although they only read it */
    json_t *entries = (json_t *)(uintptr_t)object;
    const char *key;
    json_t *value;
    json_object_foreach(entries, key, value)
    {
        if (!json_is_integer(value))
            return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.vocab",
                               "%s: model.vocab: the id of \"%.60s\" is not an integer", file, key);
        SFQ_TRY(
            sfq_vocab_add(vocab, key, strlen(key), json_integer_value(value), false, file, err));
    }
    return SFQ_OK;
}

int32_t sfq_vocab_find(const sfq_vocab *vocab, const char *text, size_t len)
{
    size_t slot = text_slot(vocab, text, len);
    return vocab->by_text[slot] == 0 ? -1 : vocab->tokens[vocab->by_text[slot] - 1].id;
}

const char *sfq_vocab_text(const sfq_vocab *vocab, int32_t id, size_t *len)
{
    size_t slot = id_slot(vocab, id);
    if (vocab->by_id[slot] == 0)
        return NULL;
    const sfq_token *token = &vocab->tokens[vocab->by_id[slot] - 1];
    *len = token->len;
    return vocab->bytes.data + token->at;
}

int32_t sfq_vocab_find_byte(const sfq_vocab *vocab, unsigned byte)
{
    static const char digits[] = "0123456789ABCDEF";
    char text[6] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
    return sfq_vocab_find(vocab, text, sizeof(text));
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

sfq_status sfq_vocab_check_bytes(const sfq_vocab *vocab, const char *file, sfq_error *err)
{
    for (size_t i = 0; i < vocab->count; i++) {
        const sfq_token *token = &vocab->tokens[i];
        const char *text = vocab->bytes.data + token->at;
        if (token->len == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>' &&
            !(is_hex(text[3]) && is_hex(text[4])))
            return sfq_fail_at(err, SFQ_E_FORMAT, file, text,
                               "%s: model.byte_fallback is set and token \"%s\" names no byte, "
                               "expected <0x00> to <0xFF>",
                               file, text);
    }
    return SFQ_OK;
}

sfq_status sfq_ids_grow(sfq_ids *ids, size_t more, sfq_error *err)
{
    size_t need;
    if (!sfq_ck_add(ids->count, more, &need))
        return sfq_fail_memory(err, SIZE_MAX, "token ids");
    if (need <= ids->cap)
        return SFQ_OK;
    size_t cap = ids->cap == 0 ? 64 : ids->cap;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : 2 * cap;
    int32_t *v = sfq_mem_resize(ids->v, cap, sizeof(int32_t));
    if (!v)
        return sfq_fail_memory(err, cap * sizeof(int32_t), "token ids");
    ids->v = v;
    ids->cap = cap;
    return SFQ_OK;
}

void sfq_ids_free(sfq_ids *ids)
{
    sfq_mem_free(ids->v);
    *ids = (sfq_ids){0};
}
