/* text/bpe.c - runs byte pair encoding on one word.
 *
 * A word is a doubly linked list of symbols; a priority queue of mergeable pairs, ordered by rank
 * and then position (bpe_queue.h), gives the next merge, so a word of n symbols costs O(n log n) at
 * worst. Two things make ordinary text fast without changing any result: a word is cut where no
 * merge can cross (the two characters stand side by side in no token that a merge makes), and the
 * ids of short pieces are remembered in a small direct-mapped cache that lives as long as one
 * encode call. */
#include "text/bpe.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/bpe_queue.h"

#include <string.h>
#include <xxhash.h>

#define NONE UINT32_MAX
#define WORD_MAX ((size_t)1 << 30) /* bytes; positions fit 32 bits */
#define CACHE_SLOTS 8192
#define CACHE_WORD 64     /* longest piece remembered, in bytes */
#define CACHE_AFTER 256   /* pieces before the cache is worth its memory */
#define CACHE_FILL 262144 /* ids or bytes after which it starts anew */

typedef struct symbol {
    uint32_t id; /* NONE: merged into its left neighbour */
    uint32_t prev, next;
} symbol;

typedef struct cached {
    uint64_t hash;
    uint32_t text, len;  /* in cache_text; len 0: free */
    uint32_t ids, count; /* in cache_ids */
} cached;

struct sfq_bpe_scratch {
    symbol *symbols;
    size_t count, cap;
    sfq_bpe_queue queue;
    sfq_buf affixed; /* one character with prefix or suffix */
    cached *cache;
    sfq_buf cache_text;
    sfq_ids cache_ids;
    size_t pieces;
};

sfq_status sfq_bpe_scratch_open(sfq_bpe_scratch **out, sfq_error *err)
{
    *out = SFQ_NEW(sfq_bpe_scratch);
    if (!*out)
        return sfq_fail_memory(err, sizeof(sfq_bpe_scratch), "BPE scratch");
    (*out)->affixed = SFQ_BUF_INIT(2 * SFQ_TOKEN_BYTES_MAX + 8);
    (*out)->cache_text = SFQ_BUF_INIT(2 * CACHE_FILL);
    return SFQ_OK;
}

void sfq_bpe_scratch_close(sfq_bpe_scratch **scratch)
{
    if (!*scratch)
        return;
    sfq_mem_free((*scratch)->symbols);
    sfq_bpe_queue_free(&(*scratch)->queue);
    sfq_buf_free(&(*scratch)->affixed);
    sfq_mem_free((*scratch)->cache);
    sfq_buf_free(&(*scratch)->cache_text);
    sfq_ids_free(&(*scratch)->cache_ids);
    sfq_mem_free(*scratch);
    *scratch = NULL;
}

/* ---- symbols ---- */

static sfq_status add_symbol(sfq_bpe_scratch *s, int32_t id, sfq_error *err)
{
    if (s->count == s->cap) {
        size_t cap = s->cap == 0 ? 64 : 2 * s->cap;
        symbol *symbols = sfq_mem_resize(s->symbols, cap, sizeof(symbol));
        if (!symbols)
            return sfq_fail_memory(err, cap * sizeof(symbol), "BPE symbols");
        s->symbols = symbols;
        s->cap = cap;
    }
    uint32_t at = (uint32_t)s->count++;
    s->symbols[at] = (symbol){(uint32_t)id, at == 0 ? NONE : at - 1, NONE};
    if (at > 0)
        s->symbols[at - 1].next = at;
    return SFQ_OK;
}

/* The id of one character of the word, with the affixes that its place asks for. */
static sfq_status character_id(const sfq_bpe *bpe, sfq_bpe_scratch *s, const char *at, size_t n,
                               bool first, bool last, int32_t *id, sfq_error *err)
{
    bool prefix = bpe->prefix && !first, suffix = bpe->suffix && last;
    sfq_buf_clear(&s->affixed);
    if (!prefix && !suffix) {
        size_t len;
        uint32_t c = n <= 2 ? sfq_utf8_next(at, n, &len) : 512;
        *id = c < 512 ? bpe->chars[c] : sfq_vocab_find(bpe->vocab, at, n);
        return SFQ_OK;
    }
    if (prefix)
        SFQ_TRY(sfq_buf_add(&s->affixed, bpe->prefix, bpe->prefix_len, err));
    SFQ_TRY(sfq_buf_add(&s->affixed, at, n, err));
    if (suffix)
        SFQ_TRY(sfq_buf_add(&s->affixed, bpe->suffix, bpe->suffix_len, err));
    *id = sfq_vocab_find(bpe->vocab, s->affixed.data, s->affixed.len);
    return SFQ_OK;
}

/* The bytes of an unknown character (affixes included), when all of them are tokens. */
static sfq_status add_bytes(const sfq_bpe *bpe, sfq_bpe_scratch *s, const char *at, size_t n,
                            bool *done, sfq_error *err)
{
    const char *text = s->affixed.len > 0 ? s->affixed.data : at;
    size_t len = s->affixed.len > 0 ? s->affixed.len : n;
    *done = false;
    for (size_t i = 0; i < len; i++)
        if (bpe->bytes[(unsigned char)text[i]] < 0)
            return SFQ_OK;
    for (size_t i = 0; i < len; i++)
        SFQ_TRY(add_symbol(s, bpe->bytes[(unsigned char)text[i]], err));
    *done = true;
    return SFQ_OK;
}

/* The list of symbols before any merge. An unknown character waits in `unknown` until the next
 * known one, which is where tokenizers puts it (byte tokens overtake it). */
static sfq_status split_symbols(const sfq_bpe *bpe, sfq_bpe_scratch *s, const char *word, size_t n,
                                sfq_error *err)
{
    bool unknown = false;
    size_t len;
    s->count = 0;
    for (size_t i = 0; i < n; i += len) {
        int32_t id;
        sfq_utf8_next(word + i, n - i, &len);
        SFQ_TRY(character_id(bpe, s, word + i, len, i == 0, i + len == n, &id, err));
        if (id >= 0) {
            if (unknown)
                SFQ_TRY(add_symbol(s, bpe->unk, err));
            unknown = false;
            SFQ_TRY(add_symbol(s, id, err));
            continue;
        }
        bool done = false;
        if (bpe->byte_fallback)
            SFQ_TRY(add_bytes(bpe, s, word + i, len, &done, err));
        if (done || bpe->unk == SFQ_BPE_NO_UNK)
            continue;
        if (bpe->unk == SFQ_BPE_LOST_UNK)
            return sfq_fail(err, SFQ_E_FORMAT,
                            "the text holds \"%.*s\", which is no token, and the model's unk_token "
                            "is not in its vocabulary",
                            (int)len, word + i);
        if (unknown && !bpe->fuse_unk)
            SFQ_TRY(add_symbol(s, bpe->unk, err));
        unknown = true;
    }
    return unknown ? add_symbol(s, bpe->unk, err) : SFQ_OK;
}

/* ---- merging ---- */

static sfq_status push(sfq_bpe_scratch *s, const sfq_bpe *bpe, uint32_t at, sfq_error *err)
{
    const symbol *left = &s->symbols[at];
    const sfq_merge *merge = sfq_bpe_find_merge(bpe, left->id, s->symbols[left->next].id);
    return merge ? sfq_bpe_queue_push(&s->queue, merge->rank, at, err) : SFQ_OK;
}

/* Merges until nothing is left to merge. */
static sfq_status merge_all(const sfq_bpe *bpe, sfq_bpe_scratch *s, sfq_error *err)
{
    uint64_t top;
    SFQ_TRY(sfq_bpe_queue_begin(&s->queue, s->count, bpe->rank_count, err));
    for (uint32_t i = 0; i + 1 < s->count; i++)
        SFQ_TRY(push(s, bpe, i, err));
    while (sfq_bpe_queue_pop(&s->queue, &top)) {
        symbol *left = &s->symbols[(uint32_t)top];
        if (left->id == NONE || left->next == NONE)
            continue;
        symbol *right = &s->symbols[left->next];
        const sfq_merge *merge = sfq_bpe_find_merge(bpe, left->id, right->id);
        if (!merge || merge->id != bpe->rank_ids[top >> 32])
            continue; /* the entry is older than its symbols */
        left->id = (uint32_t)merge->id;
        left->next = right->next;
        right->id = NONE;
        if (left->next != NONE)
            s->symbols[left->next].prev = (uint32_t)top;
        if (left->prev != NONE)
            SFQ_TRY(push(s, bpe, left->prev, err));
        if (left->next != NONE)
            SFQ_TRY(push(s, bpe, (uint32_t)top, err));
    }
    return SFQ_OK;
}

static sfq_status encode_piece(const sfq_bpe *bpe, sfq_bpe_scratch *s, const char *word, size_t n,
                               sfq_ids *out, sfq_error *err)
{
    SFQ_TRY(split_symbols(bpe, s, word, n, err));
    SFQ_TRY(merge_all(bpe, s, err));
    for (size_t i = 0; i < s->count; i++)
        if (s->symbols[i].id != NONE)
            SFQ_TRY(sfq_ids_add(out, (int32_t)s->symbols[i].id, err));
    return SFQ_OK;
}

/* ---- the cache ---- */

static sfq_status remember(sfq_bpe_scratch *s, cached *slot, uint64_t hash, const char *word,
                           size_t n, const int32_t *ids, size_t count, sfq_error *err)
{
    if (s->cache_text.len + n > CACHE_FILL || s->cache_ids.count + count > CACHE_FILL) {
        memset(s->cache, 0, CACHE_SLOTS * sizeof(cached));
        sfq_buf_clear(&s->cache_text);
        s->cache_ids.count = 0;
    }
    cached entry = {hash, (uint32_t)s->cache_text.len, (uint32_t)n, (uint32_t)s->cache_ids.count,
                    (uint32_t)count};
    SFQ_TRY(sfq_buf_add(&s->cache_text, word, n, err));
    SFQ_TRY(sfq_ids_grow(&s->cache_ids, count, err));
    for (size_t i = 0; i < count; i++)
        s->cache_ids.v[s->cache_ids.count++] = ids[i];
    *slot = entry;
    return SFQ_OK;
}

static sfq_status encode_cached(const sfq_bpe *bpe, sfq_bpe_scratch *s, const char *word, size_t n,
                                sfq_ids *out, sfq_error *err)
{
    if (n > CACHE_WORD || ++s->pieces < CACHE_AFTER)
        return encode_piece(bpe, s, word, n, out, err);
    if (!s->cache) {
        s->cache = SFQ_NEW_ARRAY(cached, CACHE_SLOTS);
        if (!s->cache)
            return sfq_fail_memory(err, CACHE_SLOTS * sizeof(cached), "BPE word cache");
    }
    uint64_t hash = XXH3_64bits(word, n);
    cached *slot = &s->cache[hash % CACHE_SLOTS];
    if (slot->hash == hash && slot->len == n &&
        memcmp(s->cache_text.data + slot->text, word, n) == 0) {
        SFQ_TRY(sfq_ids_grow(out, slot->count, err));
        for (uint32_t i = 0; i < slot->count; i++)
            out->v[out->count++] = s->cache_ids.v[slot->ids + i];
        return SFQ_OK;
    }
    size_t before = out->count;
    SFQ_TRY(encode_piece(bpe, s, word, n, out, err));
    return remember(s, slot, hash, word, n, out->v + before, out->count - before, err);
}

/* ---- words ---- */

static bool is_known(const sfq_bpe *bpe, uint32_t c)
{
    char text[4];
    size_t n = sfq_utf8_put(c, text);
    return c < 512 ? bpe->chars[c] >= 0 : sfq_vocab_find(bpe->vocab, text, n) >= 0;
}

/* Encodes piece by piece, cutting between characters that are tokens and that no merge can join.
 * (Next to an unknown character no cut is made: it may vanish or fuse with its neighbour.) */
static sfq_status encode_chunks(const sfq_bpe *bpe, sfq_bpe_scratch *s, const char *word, size_t n,
                                sfq_ids *out, sfq_error *err)
{
    size_t begin = 0, len;
    uint32_t last = sfq_utf8_next(word, n, &len);
    for (size_t i = len; i < n; i += len) {
        uint32_t next = sfq_utf8_next(word + i, n - i, &len);
        if (!sfq_bpe_can_join(bpe, last, next) && is_known(bpe, last) && is_known(bpe, next)) {
            SFQ_TRY(encode_cached(bpe, s, word + begin, i - begin, out, err));
            begin = i;
        }
        last = next;
    }
    return encode_cached(bpe, s, word + begin, n - begin, out, err);
}

sfq_status sfq_bpe_encode(const sfq_bpe *bpe, sfq_bpe_scratch *scratch, const char *word, size_t n,
                          sfq_ids *out, sfq_error *err)
{
    if (n > WORD_MAX)
        return sfq_fail(err, SFQ_E_LIMIT, "a word of %zu bytes, at most %zu are supported", n,
                        WORD_MAX);
    if (bpe->ignore_merges) {
        int32_t id = sfq_vocab_find(bpe->vocab, word, n);
        if (id >= 0)
            return sfq_ids_add(out, id, err);
    }
    if (bpe->chunked && n > CACHE_WORD)
        return encode_chunks(bpe, scratch, word, n, out, err);
    return encode_cached(bpe, scratch, word, n, out, err);
}
