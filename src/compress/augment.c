/* compress/augment.c - inputs near the calibration data, for the original model to answer: tokens
 * replaced or left out, the texts of a pair exchanged or mixed with another's. Distillation needs
 * no labels, so a variant may mean something else than its original (Jiao et al. 2020, "TinyBERT:
 * distilling BERT for natural language understanding", augments in the same way; here a token is
 * drawn by how often the data has it, without a second model).
 *
 * The frame of a sequence stays: the special tokens at its ends and between two texts, and whatever
 * begins or ends all sequences alike. Other special tokens ([UNK]) are never changed either. */
#include "base/ck.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compress/calibration_parts.h"

#include <string.h>

/* A sequence: frame | first text | frame | second text | frame. */
typedef struct sfq_outline {
    uint32_t a0, a1, b0, b1; /* b0 == b1: one text, which may hold special tokens */
} sfq_outline;

struct sfq_augmenter {
    const sfq_calibration *c;
    sfq_augment how;
    size_t limit;           /* tokens of a pair that is mixed */
    unsigned char *special; /* [V] SPECIAL, FRAME */
    size_t vocab;
    sfq_outline *outline; /* [tune] */
    size_t *pairs;        /* [pair_count] sequences of two texts */
    size_t pair_count;
    int32_t *pool; /* [pool_count] all tokens of texts: a draw is by frequency */
    size_t pool_count;
};

enum { SPECIAL = 1, FRAME = 2 };
/* What a random number is for; the key is of (seed, sequence, round). */
enum { FOR_SWAP = 1, FOR_MIX, FOR_PARTNER, FOR_DROP, FOR_REPLACE, FOR_TOKEN };

/* ---- what the sequences look like ---- */

static bool is_frame(const sfq_augmenter *a, int32_t id)
{
    return (a->special[id] & FRAME) != 0;
}

/* Marks special tokens, and among them those that begin or end a sequence. */
static sfq_status mark_special(sfq_augmenter *a, const sfq_source *source, sfq_error *err)
{
    const sfq_calibration *c = a->c;
    sfq_tokenizer *tokenizer = NULL;
    sfq_error missing;
    sfq_status status = sfq_calib_tokenizer(&tokenizer, source, &missing);
    if (status != SFQ_OK && status != SFQ_E_NOT_FOUND) {
        if (err != NULL)
            *err = missing;
        return status;
    }
    for (size_t id = 0; tokenizer != NULL && id < a->vocab; id++)
        a->special[id] = sfq_tokenizer_is_special(tokenizer, (int32_t)id) ? SPECIAL : 0;
    if (source->arch->bos >= 0 && source->arch->bos < source->arch->vocab)
        a->special[source->arch->bos] = SPECIAL;
    for (size_t i = 0; i < c->tune; i++) {
        size_t first = c->offset[i], last = c->offset[i + 1] - 1;
        if (a->special[c->ids[first]] != 0)
            a->special[c->ids[first]] |= FRAME;
        if (a->special[c->ids[last]] != 0)
            a->special[c->ids[last]] |= FRAME;
    }
    sfq_tokenizer_close(&tokenizer);
    return SFQ_OK;
}

/* Tokens that all sequences begin with (from the end: end with). */
static size_t common_ends(const sfq_calibration *c, bool from_end)
{
    size_t common = c->offset[1];
    for (size_t i = 1; i < c->tune; i++) {
        size_t length = c->offset[i + 1] - c->offset[i];
        common = sfq_min_size(common, length);
        for (size_t t = 0; t < common; t++) {
            size_t x = from_end ? c->offset[1] - 1 - t : t;
            size_t y = from_end ? c->offset[i + 1] - 1 - t : c->offset[i] + t;
            if (c->ids[x] != c->ids[y])
                common = t;
        }
    }
    return common;
}

/* One stretch of frame inside makes two texts of it. */
static sfq_outline read_outline(const sfq_augmenter *a, size_t i, size_t lead, size_t tail,
                                bool pairs)
{
    const int32_t *ids = a->c->ids + a->c->offset[i];
    uint32_t n = (uint32_t)(a->c->offset[i + 1] - a->c->offset[i]);
    uint32_t lo = lead < n ? (uint32_t)lead : n;
    uint32_t hi = tail < n - lo ? n - (uint32_t)tail : lo;
    while (lo < hi && is_frame(a, ids[lo]))
        lo++;
    while (hi > lo && is_frame(a, ids[hi - 1]))
        hi--;
    uint32_t a1 = lo, b0;
    while (a1 < hi && !is_frame(a, ids[a1]))
        a1++;
    for (b0 = a1; b0 < hi && is_frame(a, ids[b0]);)
        b0++;
    for (uint32_t t = b0; t < hi; t++)
        pairs = pairs && !is_frame(a, ids[t]);
    if (!pairs || b0 == hi)
        return (sfq_outline){lo, hi, hi, hi};
    return (sfq_outline){lo, a1, b0, hi};
}

static bool is_pair(const sfq_outline *o)
{
    return o->b0 < o->b1;
}

static void read_outlines(sfq_augmenter *a, bool pairs)
{
    const sfq_calibration *c = a->c;
    size_t lead = c->tune > 1 ? common_ends(c, false) : 0;
    size_t tail = c->tune > 1 ? common_ends(c, true) : 0;
    for (size_t i = 0; i < c->tune; i++) {
        const sfq_outline *o = &a->outline[i];
        const int32_t *ids = c->ids + c->offset[i];
        a->outline[i] = read_outline(a, i, lead, tail, pairs);
        if (is_pair(o))
            a->pairs[a->pair_count++] = i;
        for (uint32_t t = o->a0; t < o->b1; t++)
            if (a->special[ids[t]] == 0)
                a->pool[a->pool_count++] = ids[t];
    }
}

/* ---- opening ---- */

static bool is_probability(double p)
{
    return p >= 0 && p <= 1;
}

sfq_status sfq_augmenter_open(sfq_augmenter **out, const sfq_calibration *c,
                              const sfq_source *source, const sfq_augment *how, sfq_error *err)
{
    *out = NULL;
    if (!is_probability(how->replace) || !is_probability(how->drop) || !is_probability(how->swap) ||
        !is_probability(how->mix))
        return sfq_fail(err, SFQ_E_ARGUMENT, "augmentation: a probability outside 0..1");
    const sfq_arch *arch = source->arch;
    sfq_augmenter *a = SFQ_NEW(sfq_augmenter);
    if (a == NULL)
        return sfq_fail_memory(err, sizeof(*a), "augmentation");
    sfq_status status = SFQ_OK;
    a->c = c;
    a->how = *how;
    a->vocab = (size_t)arch->vocab;
    a->limit = sfq_min_size((size_t)arch->max_positions, SFQ_CALIB_CAP);
    a->special = SFQ_NEW_ARRAY(unsigned char, a->vocab);
    a->outline = SFQ_NEW_ARRAY(sfq_outline, c->tune);
    a->pairs = SFQ_NEW_ARRAY(size_t, c->tune);
    a->pool = SFQ_NEW_ARRAY(int32_t, c->offset[c->tune]);
    if (a->special == NULL || a->outline == NULL || a->pairs == NULL || a->pool == NULL) {
        status = sfq_fail_memory(err, c->offset[c->tune] * sizeof(int32_t), "augmentation");
        goto done;
    }
    SFQ_DO(mark_special(a, source, err));
    read_outlines(a, arch->head != SFQ_MODEL_HEAD_LM);
    *out = a;
    a = NULL;
done:
    sfq_augmenter_close(&a);
    return status;
}

void sfq_augmenter_close(sfq_augmenter **augmenter)
{
    sfq_augmenter *a = *augmenter;
    if (a == NULL)
        return;
    sfq_mem_free(a->special);
    sfq_mem_free(a->outline);
    sfq_mem_free(a->pairs);
    sfq_mem_free(a->pool);
    sfq_mem_free(a);
    *augmenter = NULL;
}

/* ---- one variant ---- */

typedef struct sfq_variant {
    const sfq_augmenter *a;
    uint64_t key;
    int32_t *ids, *types; /* types NULL: the set has none */
    size_t count;
    uint64_t place; /* counts the tokens that were looked at: each has its random numbers */
} sfq_variant;

static double uniform(const sfq_variant *v, uint64_t purpose, uint64_t counter)
{
    return sfq_rng_uniform(v->key, purpose, counter);
}

/* Another token of the data than id, by frequency; id itself where none is found soon. */
static int32_t replacement(const sfq_variant *v, int32_t id)
{
    enum { TRIES = 8 };
    for (uint64_t k = 0; k < TRIES; k++) {
        uint64_t at = sfq_rng_u64(v->key, FOR_TOKEN, v->place * TRIES + k) % v->a->pool_count;
        if (v->a->pool[at] != id)
            return v->a->pool[at];
    }
    return id;
}

static void put(sfq_variant *v, int32_t id, int32_t type)
{
    v->ids[v->count] = id;
    if (v->types != NULL)
        v->types[v->count] = type;
    v->count++;
}

static const int32_t *types_at(const sfq_augmenter *a, size_t at)
{
    return a->c->types != NULL ? a->c->types + at : NULL;
}

/* Tokens [begin, end) of the set as they are. */
static void put_frame(sfq_variant *v, size_t begin, size_t end)
{
    const sfq_calibration *c = v->a->c;
    for (size_t t = begin; t < end; t++)
        put(v, c->ids[t], c->types != NULL ? c->types[t] : 0);
}

/* The n tokens of a text from `begin`, some of them left out or replaced, but never all left out.
 * types: of each token, or NULL: all `type`. */
static void put_text(sfq_variant *v, size_t begin, size_t n, const int32_t *types, int32_t type)
{
    const sfq_augmenter *a = v->a;
    size_t before = v->count;
    for (size_t t = 0; t < n; t++, v->place++) {
        int32_t id = a->c->ids[begin + t];
        bool fixed = a->special[id] != 0;
        bool last = t + 1 == n && v->count == before;
        if (!fixed && !last && uniform(v, FOR_DROP, v->place) < a->how.drop)
            continue;
        if (!fixed && uniform(v, FOR_REPLACE, v->place) < a->how.replace)
            id = replacement(v, id);
        put(v, id, types != NULL ? types[t] : type);
    }
}

/* Which text stands where. */
typedef struct sfq_texts2 {
    size_t begin[2], n[2];
} sfq_texts2;

/* The longer one gives way, as when a pair is tokenized. */
static void fit(sfq_texts2 *x, size_t room)
{
    while (x->n[0] + x->n[1] > room) {
        size_t longer = x->n[1] >= x->n[0];
        size_t over = x->n[0] + x->n[1] - room, lead = x->n[longer] - x->n[!longer];
        x->n[longer] -= sfq_max_size(1, sfq_min_size(over, lead));
    }
}

/* The second text of another pair, or of this one. */
static size_t partner_of(const sfq_variant *v, size_t i)
{
    const sfq_augmenter *a = v->a;
    if (a->pair_count < 2 || !(uniform(v, FOR_MIX, 0) < a->how.mix))
        return i;
    size_t at = (size_t)(uniform(v, FOR_PARTNER, 0) * (double)(a->pair_count - 1));
    size_t last = a->pairs[a->pair_count - 1];
    return a->pairs[at] != i ? a->pairs[at] : last;
}

static void put_pair(sfq_variant *v, size_t i)
{
    const sfq_augmenter *a = v->a;
    const size_t *offset = a->c->offset;
    const sfq_outline *o = &a->outline[i];
    size_t j = partner_of(v, i), base = offset[i], end = offset[i + 1];
    const sfq_outline *p = &a->outline[j];
    size_t swap = uniform(v, FOR_SWAP, 0) < a->how.swap;
    sfq_texts2 x;
    x.begin[swap] = base + o->a0;
    x.n[swap] = o->a1 - o->a0;
    x.begin[!swap] = offset[j] + p->b0;
    x.n[!swap] = p->b1 - p->b0;
    size_t frame = end - base - (o->a1 - o->a0) - (o->b1 - o->b0);
    fit(&x, sfq_max_size(end - base, a->limit) - frame);
    const int32_t *types = types_at(a, base);
    put_frame(v, base, base + o->a0);
    put_text(v, x.begin[0], x.n[0], NULL, types != NULL ? types[o->a0] : 0);
    put_frame(v, base + o->a1, base + o->b0);
    put_text(v, x.begin[1], x.n[1], NULL, types != NULL ? types[o->b0] : 0);
    put_frame(v, base + o->b1, end);
}

static void put_single(sfq_variant *v, size_t i)
{
    const sfq_augmenter *a = v->a;
    const sfq_outline *o = &a->outline[i];
    size_t base = a->c->offset[i];
    put_frame(v, base, base + o->a0);
    put_text(v, base + o->a0, o->a1 - o->a0, types_at(a, base + o->a0), 0);
    put_frame(v, base + o->a1, a->c->offset[i + 1]);
}

sfq_status sfq_augmenter_add(const sfq_augmenter *a, sfq_token_batch *b, size_t i, uint64_t round,
                             sfq_error *err)
{
    size_t length = a->c->offset[i + 1] - a->c->offset[i];
    size_t room = sfq_max_size(length, a->limit);
    uint64_t stream = (uint64_t)SFQ_CALIB_STREAM_AUGMENT << 32 | (uint32_t)i;
    sfq_variant v = {.a = a, .key = sfq_rng_u64(a->how.seed, stream, round)};
    int32_t *memory = sfq_mem_raw(2 * room * sizeof(*memory));
    if (memory == NULL)
        return sfq_fail_memory(err, 2 * room * sizeof(*memory), "a variant");
    v.ids = memory;
    v.types = a->c->types != NULL ? memory + room : NULL;
    if (is_pair(&a->outline[i]))
        put_pair(&v, i);
    else
        put_single(&v, i);
    sfq_status status = sfq_token_batch_add(b, v.ids, v.types, v.count, err);
    sfq_mem_free(memory);
    return status;
}
