/* text/load_bpe.c - reads the "model" object of a BPE tokenizer.json and proves it: both parts and
 * the result of every merge are tokens, so that encoding never meets an unknown id. */
#include "text/bpe.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <string.h>

static size_t hash_pair(uint32_t left, uint32_t right)
{
    uint64_t x = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (size_t)(x ^ x >> 29);
}

const sfq_merge *sfq_bpe_find_merge(const sfq_bpe *bpe, uint32_t left, uint32_t right)
{
    size_t slot = hash_pair(left, right) & bpe->mask;
    for (; bpe->merges[slot].rank != UINT32_MAX; slot = (slot + 1) & bpe->mask)
        if (bpe->merges[slot].left == left && bpe->merges[slot].right == right)
            return &bpe->merges[slot];
    return NULL;
}

static uint64_t joint_key(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right | (uint64_t)1 << 63; /* never 0, the free slot */
}

bool sfq_bpe_can_join(const sfq_bpe *bpe, uint32_t left, uint32_t right)
{
    if (left < 128 && right < 128)
        return bpe->ascii_joints[left][right >> 6] >> (right & 63) & 1;
    uint64_t key = joint_key(left, right);
    size_t slot = hash_pair(left, right) & bpe->joint_mask;
    for (; bpe->joints[slot] != 0; slot = (slot + 1) & bpe->joint_mask)
        if (bpe->joints[slot] == key)
            return true;
    return false;
}

/* Characters side by side in the token of a merge. Doubles the table at half load. */
static sfq_status add_joint(sfq_bpe *bpe, size_t *count, uint32_t left, uint32_t right,
                            sfq_error *err)
{
    if (sfq_bpe_can_join(bpe, left, right))
        return SFQ_OK;
    if (left < 128 && right < 128) {
        bpe->ascii_joints[left][right >> 6] |= (uint64_t)1 << (right & 63);
        return SFQ_OK;
    }
    if (2 * (*count + 1) > bpe->joint_mask) {
        sfq_bpe bigger = *bpe;
        bigger.joint_mask = 2 * bpe->joint_mask + 1;
        bigger.joints = SFQ_NEW_ARRAY(uint64_t, bigger.joint_mask + 1);
        if (!bigger.joints)
            return sfq_fail_memory(err, (bigger.joint_mask + 1) * sizeof(uint64_t), "merges");
        for (size_t i = 0; i <= bpe->joint_mask; i++) {
            if (bpe->joints[i] == 0)
                continue;
            uint64_t key = bpe->joints[i] & ~((uint64_t)1 << 63);
            size_t slot = hash_pair((uint32_t)(key >> 32), (uint32_t)key) & bigger.joint_mask;
            while (bigger.joints[slot] != 0)
                slot = (slot + 1) & bigger.joint_mask;
            bigger.joints[slot] = bpe->joints[i];
        }
        sfq_mem_free(bpe->joints);
        *bpe = bigger;
    }
    size_t slot = hash_pair(left, right) & bpe->joint_mask;
    while (bpe->joints[slot] != 0)
        slot = (slot + 1) & bpe->joint_mask;
    bpe->joints[slot] = joint_key(left, right);
    ++*count;
    return SFQ_OK;
}

static sfq_status add_joints(sfq_bpe *bpe, size_t *count, const char *token, size_t len,
                             sfq_error *err)
{
    if (len == 0 || sfq_utf8_valid_prefix(token, len) != len)
        return SFQ_OK;
    size_t step;
    uint32_t last = sfq_utf8_next(token, len, &step);
    for (size_t i = step; i < len; i += step) {
        uint32_t next = sfq_utf8_next(token + i, len - i, &step);
        SFQ_TRY(add_joint(bpe, count, last, next, err));
        last = next;
    }
    return SFQ_OK;
}

/* The two halves of merge number i: "a b" or ["a", "b"]. */
static sfq_status merge_parts(const json_t *item, size_t i, const char *file, const char **a,
                              size_t *a_len, const char **b, size_t *b_len, sfq_error *err)
{
    if (json_is_string(item)) {
        const char *text = json_string_value(item);
        const char *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' '))
            return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.merges",
                               "%s: model.merges[%zu] is \"%.60s\", expected two parts with one "
                               "space between",
                               file, i, text);
        *a = text;
        *a_len = (size_t)(space - text);
        *b = space + 1;
        *b_len = strlen(space + 1);
        return SFQ_OK;
    }
    if (!json_is_array(item) || json_array_size(item) != 2 ||
        !json_is_string(json_array_get(item, 0)) || !json_is_string(json_array_get(item, 1)))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.merges",
                           "%s: model.merges[%zu] has %zu parts, expected 2 strings", file, i,
                           json_array_size(item));
    *a = json_string_value(json_array_get(item, 0));
    *a_len = json_string_length(json_array_get(item, 0));
    *b = json_string_value(json_array_get(item, 1));
    *b_len = json_string_length(json_array_get(item, 1));
    return SFQ_OK;
}

static sfq_status merge_unknown(const char *file, size_t i, const char *what, const char *text,
                                size_t len, sfq_error *err)
{
    return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.merges",
                       "%s: model.merges[%zu]: %s \"%.*s\" is not in the vocabulary", file, i, what,
                       (int)(len < 60 ? len : 60), text);
}

/* Does the id stand for something else than the characters of its text? */
static bool is_odd(const sfq_bpe *bpe, int32_t id)
{
    if (id == bpe->unk)
        return true;
    size_t len;
    const char *text = sfq_vocab_text(bpe->vocab, id, &len);
    return bpe->byte_fallback && len == 6 && memcmp(text, "<0x", 3) == 0;
}

static sfq_status add_merge(sfq_bpe *bpe, sfq_buf *joined, const json_t *item, size_t i,
                            size_t *joints, const char *file, sfq_error *err)
{
    const char *a = "", *b = "";
    size_t a_len = 0, b_len = 0;
    SFQ_TRY(merge_parts(item, i, file, &a, &a_len, &b, &b_len, err));
    int32_t left = sfq_vocab_find(bpe->vocab, a, a_len);
    int32_t right = sfq_vocab_find(bpe->vocab, b, b_len);
    if (left < 0)
        return merge_unknown(file, i, "part", a, a_len, err);
    if (right < 0)
        return merge_unknown(file, i, "part", b, b_len, err);
    if (b_len < bpe->prefix_len)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.merges",
                           "%s: model.merges[%zu]: \"%.60s\" is shorter than "
                           "continuing_subword_prefix \"%.60s\"",
                           file, i, b, bpe->prefix);
    sfq_buf_clear(joined);
    SFQ_TRY(sfq_buf_add(joined, a, a_len, err));
    SFQ_TRY(sfq_buf_add(joined, b + bpe->prefix_len, b_len - bpe->prefix_len, err));
    int32_t id = sfq_vocab_find(bpe->vocab, joined->data ? joined->data : "", joined->len);
    if (id < 0)
        return merge_unknown(file, i, "result", joined->data ? joined->data : "", joined->len, err);
    size_t slot = hash_pair((uint32_t)left, (uint32_t)right) & bpe->mask;
    while (bpe->merges[slot].rank != UINT32_MAX && !(bpe->merges[slot].left == (uint32_t)left &&
                                                     bpe->merges[slot].right == (uint32_t)right))
        slot = (slot + 1) & bpe->mask;
    bpe->merges[slot] = (sfq_merge){(uint32_t)left, (uint32_t)right, (uint32_t)i, id};
    bpe->rank_ids[i] = id;
    if (is_odd(bpe, left) || is_odd(bpe, right))
        bpe->chunked = false;
    return add_joints(bpe, joints, joined->data ? joined->data : "", joined->len, err);
}

static sfq_status load_merges(sfq_bpe *bpe, const json_t *merges, const char *file, sfq_error *err)
{
    if (!json_is_array(merges))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "model.merges",
                           "%s: model.merges is missing or not an array", file);
    size_t count = json_array_size(merges);
    if (count > SFQ_VOCAB_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, "model.merges",
                           "%s: %zu merges, at most %d are supported", file, count, SFQ_VOCAB_MAX);
    size_t slots = 16;
    while (slots < 2 * count)
        slots *= 2;
    bpe->merges = SFQ_NEW_ARRAY(sfq_merge, slots);
    bpe->rank_ids = SFQ_NEW_ARRAY(int32_t, count);
    bpe->joints = SFQ_NEW_ARRAY(uint64_t, 1024);
    if (!bpe->merges || !bpe->rank_ids || !bpe->joints)
        return sfq_fail_memory(err, slots * sizeof(sfq_merge), "merges");
    bpe->mask = slots - 1;
    bpe->rank_count = count;
    bpe->joint_mask = 1023;
    for (size_t i = 0; i < slots; i++)
        bpe->merges[i].rank = UINT32_MAX;
    sfq_buf joined = SFQ_BUF_INIT(2 * SFQ_TOKEN_BYTES_MAX + 2);
    sfq_status status = SFQ_OK;
    size_t joints = 0;
    for (size_t i = 0; i < count && status == SFQ_OK; i++)
        status = add_merge(bpe, &joined, json_array_get(merges, i), i, &joints, file, err);
    sfq_buf_free(&joined);
    return status;
}

static sfq_status copy_affix(const json_t *model, const char *key, const char *file, char **text,
                             size_t *len, sfq_error *err)
{
    const char *value;
    SFQ_TRY(sfq_json_string(model, file, key, false, &value, err));
    if (!value)
        return SFQ_OK;
    *len = strlen(value);
    if (*len > SFQ_TOKEN_BYTES_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, key, "%s: model.%s has %zu bytes, at most %d",
                           file, key, *len, SFQ_TOKEN_BYTES_MAX);
    *text = sfq_mem_strdup(value);
    return *text ? SFQ_OK : sfq_fail_memory(err, *len, key);
}

sfq_status sfq_bpe_load(sfq_bpe *bpe, const sfq_vocab *vocab, const json_t *model, const char *file,
                        sfq_error *err)
{
    static const bool no = false;
    static const double zero = 0.0;
    *bpe = (sfq_bpe){.vocab = vocab, .unk = SFQ_BPE_NO_UNK};
    double dropout;
    SFQ_TRY(sfq_json_real(model, file, "dropout", 0.0, 1.0, &zero, &dropout, err));
    if (dropout > 0.0)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, file, "model.dropout",
                           "%s: model.dropout is %g: random tokenization is not supported; set it "
                           "to null",
                           file, dropout);
    SFQ_TRY(sfq_json_bool(model, file, "byte_fallback", &no, &bpe->byte_fallback, err));
    SFQ_TRY(sfq_json_bool(model, file, "fuse_unk", &no, &bpe->fuse_unk, err));
    SFQ_TRY(sfq_json_bool(model, file, "ignore_merges", &no, &bpe->ignore_merges, err));
    SFQ_TRY(
        copy_affix(model, "continuing_subword_prefix", file, &bpe->prefix, &bpe->prefix_len, err));
    SFQ_TRY(copy_affix(model, "end_of_word_suffix", file, &bpe->suffix, &bpe->suffix_len, err));
    const char *unk;
    SFQ_TRY(sfq_json_string(model, file, "unk_token", false, &unk, err));
    if (unk) {
        bpe->unk = sfq_vocab_find(vocab, unk, strlen(unk));
        if (bpe->unk < 0)
            bpe->unk = SFQ_BPE_LOST_UNK; /* an error only once a text needs it */
    }
    if (bpe->byte_fallback)
        SFQ_TRY(sfq_vocab_check_bytes(vocab, file, err));
    for (unsigned b = 0; b < 256; b++)
        bpe->bytes[b] = sfq_vocab_find_byte(vocab, b);
    for (uint32_t c = 0; c < 512; c++) {
        char text[4];
        size_t n = sfq_utf8_put(c, text);
        bpe->chars[c] = sfq_vocab_find(vocab, text, n);
    }
    /* load_merges clears it when a merge takes the unknown token or a raw byte */
    bpe->chunked = !bpe->prefix && !bpe->suffix;
    return load_merges(bpe, sfq_json_get(model, "merges"), file, err);
}

void sfq_bpe_close(sfq_bpe *bpe)
{
    sfq_mem_free(bpe->merges);
    sfq_mem_free(bpe->rank_ids);
    sfq_mem_free(bpe->joints);
    sfq_mem_free(bpe->prefix);
    sfq_mem_free(bpe->suffix);
    *bpe = (sfq_bpe){.unk = SFQ_BPE_NO_UNK};
}
