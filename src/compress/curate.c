/* compress/curate.c - which of the candidates are taken, and which of these are held out.
 *
 * Sequences that say the same count once. The rest falls into strata of like length and like
 * difficulty, and every stratum gives its share, so that the set is spread as the data is. Within a
 * stratum the sequence with the most tokens that nothing taken so far has comes first (lexical
 * coverage, as in ZipCal, arXiv 2603.16105; greedy for a submodular goal, Nemhauser et al. 1978,
 * evaluated lazily, Minoux 1978), ties in random order. One in five, over all strata, is held
 * out. */
#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compress/calibration_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BINS = 4, STRATA = BINS * BINS, MIN_CUT = 16 };

typedef struct sfq_item {
    size_t index; /* of the candidate */
    uint64_t random;
    double rank; /* what it is sorted by at the moment */
    int stratum;
    size_t gain; /* tokens that it would add: an upper bound until it is looked at again */
} sfq_item;

typedef struct sfq_stratum {
    sfq_item *heap; /* [left] the greatest gain first */
    size_t size, left, taken;
} sfq_stratum;

typedef struct sfq_curation {
    const sfq_calib_run *run;
    sfq_item *items; /* [count] that may be taken, those of a stratum side by side */
    size_t count;
    sfq_item *chosen; /* [chosen_count] in the order in which they were taken */
    size_t chosen_count;
    sfq_stratum stratum[STRATA];
    uint32_t *seen;         /* [V] number of the sequence that was counted last */
    unsigned char *covered; /* [V] */
    uint32_t counted;
} sfq_curation;

void sfq_pick_free(sfq_pick *pick)
{
    sfq_mem_free(pick->index);
    *pick = (sfq_pick){0};
}

/* ---- orders ---- */

static int by_random(const sfq_item *x, const sfq_item *y)
{
    if (x->random != y->random)
        return x->random < y->random ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static int by_rank(const void *a, const void *b)
{
    const sfq_item *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return by_random(x, y);
}

static int by_stratum(const void *a, const void *b)
{
    const sfq_item *x = a, *y = b;
    return x->stratum != y->stratum ? x->stratum - y->stratum : by_random(x, y);
}

static bool before(const sfq_item *a, const sfq_item *b)
{
    return a->gain != b->gain ? a->gain > b->gain : by_random(a, b) < 0;
}

static size_t length_of(const sfq_curation *c, const sfq_item *item)
{
    return sfq_candidates_length(&c->run->from, item->index);
}

/* ---- duplicates ---- */

typedef struct sfq_keyed {
    uint64_t key;
    size_t index;
} sfq_keyed;

static int by_key(const void *a, const void *b)
{
    const sfq_keyed *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void add_item(sfq_curation *c, size_t index)
{
    uint64_t random = sfq_rng_u64(c->run->options->seed, SFQ_CALIB_STREAM_PICK, index);
    c->items[c->count++] = (sfq_item){.index = index, .random = random};
}

/* The first of those that say the same stays. Data with fewer than 5 different ones keeps all. */
static sfq_status list_items(sfq_curation *c, uint64_t *duplicates, sfq_error *err)
{
    const sfq_candidates *from = &c->run->from;
    size_t n = sfq_candidates_count(from);
    sfq_keyed *keyed = SFQ_NEW_ARRAY(sfq_keyed, n);
    if (keyed == NULL)
        return sfq_fail_memory(err, n * sizeof(*keyed), "candidates");
    for (size_t i = 0; i < n; i++)
        keyed[i] = (sfq_keyed){from->key[i], i};
    qsort(keyed, n, sizeof(*keyed), by_key);
    for (size_t i = 0; i < n; i++)
        if (!c->run->curated || i == 0 || keyed[i].key != keyed[i - 1].key)
            add_item(c, keyed[i].index);
    *duplicates = n - c->count;
    if (c->count < SFQ_CALIB_MIN && n > c->count) {
        sfq_hooks_log(&c->run->options->hooks, SFQ_LOG_WARNING,
                      "only %zu of %zu calibration sequences differ from one another; all are kept",
                      c->count, n);
        *duplicates = c->count = 0;
        for (size_t i = 0; i < n; i++)
            add_item(c, i);
    }
    sfq_mem_free(keyed);
    if (c->count >= SFQ_CALIB_MIN)
        return SFQ_OK;
    return sfq_fail(err, SFQ_E_DATA, "the data gives %zu sequences; calibration needs %d", c->count,
                    (int)SFQ_CALIB_MIN);
}

/* ---- strata ---- */

/* items [begin, end) into bins of equal size by rank: base, base + step, ... */
static void bin(sfq_item *items, size_t n, int bins, int base, int step)
{
    qsort(items, n, sizeof(*items), by_rank);
    for (size_t i = 0; i < n; i++)
        items[i].stratum = base + step * (int)(i * (size_t)bins / n);
}

/* Four lengths by four difficulties; by one of them alone where there is no other to tell by. */
static void stratify(sfq_curation *c, const double *difficulty)
{
    bool lengths = !c->run->by_tokens;
    size_t bins = lengths && difficulty != NULL ? BINS : STRATA;
    if (!c->run->curated)
        return;
    for (size_t i = 0; i < c->count; i++)
        c->items[i].rank = lengths              ? (double)length_of(c, &c->items[i])
                           : difficulty != NULL ? difficulty[c->items[i].index]
                                                : 0;
    bin(c->items, c->count, (int)bins, 0, STRATA / (int)bins);
    if (bins == STRATA)
        return;
    for (size_t i = 0; i < c->count; i++)
        c->items[i].rank = difficulty[c->items[i].index];
    for (size_t b = 0; b < BINS; b++) {
        size_t begin = (b * c->count + BINS - 1) / BINS,
               end = ((b + 1) * c->count + BINS - 1) / BINS;
        bin(c->items + begin, end - begin, BINS, (int)b * BINS, 1);
    }
}

/* ---- greedy choice ---- */

/* Different tokens of the sequence that are not covered yet. */
static size_t gain_of(sfq_curation *c, const sfq_item *item)
{
    const sfq_token_batch *b = &c->run->from.tokens;
    size_t gain = 0;
    c->counted++;
    for (size_t t = b->offset[item->index]; t < b->offset[item->index + 1]; t++) {
        size_t id = (size_t)b->ids[t];
        gain += !c->covered[id] && c->seen[id] != c->counted;
        c->seen[id] = c->counted;
    }
    return gain;
}

static void sift_down(sfq_item *heap, size_t n, size_t i)
{
    sfq_item moved = heap[i];
    for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        child += child + 1 < n && before(&heap[child + 1], &heap[child]);
        if (!before(&heap[child], &moved))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

static void fill_heaps(sfq_curation *c)
{
    qsort(c->items, c->count, sizeof(*c->items), by_stratum);
    for (size_t i = 0; i < c->count; i++) {
        sfq_stratum *s = &c->stratum[c->items[i].stratum];
        if (s->size++ == 0)
            s->heap = &c->items[i];
        c->items[i].gain = c->run->curated ? gain_of(c, &c->items[i]) : 0;
    }
    for (size_t k = 0; k < STRATA; k++) {
        sfq_stratum *s = &c->stratum[k];
        s->left = s->size;
        for (size_t i = s->size / 2; i-- > 0;)
            sift_down(s->heap, s->size, i);
    }
}

/* Gains only shrink: the top that keeps its place when counted again is the best. */
static sfq_item take_best(sfq_curation *c, sfq_stratum *s)
{
    for (;;) {
        size_t gain = c->run->curated ? gain_of(c, &s->heap[0]) : 0;
        if (gain == s->heap[0].gain)
            break;
        s->heap[0].gain = gain;
        sift_down(s->heap, s->left, 0);
    }
    sfq_item best = s->heap[0];
    s->heap[0] = s->heap[--s->left];
    if (s->left > 0)
        sift_down(s->heap, s->left, 0);
    const sfq_token_batch *b = &c->run->from.tokens;
    for (size_t t = b->offset[best.index]; t < b->offset[best.index + 1]; t++)
        c->covered[b->ids[t]] = 1;
    s->taken++;
    return best;
}

/* The stratum that is furthest behind its share. */
static sfq_stratum *next_stratum(sfq_curation *c)
{
    sfq_stratum *best = NULL;
    double most = 0;
    for (size_t k = 0; k < STRATA; k++) {
        sfq_stratum *s = &c->stratum[k];
        double share = (double)s->size / (double)c->count;
        double behind = share * (double)(c->chosen_count + 1) - (double)s->taken;
        if (s->left > 0 && (best == NULL || behind > most)) {
            best = s;
            most = behind;
        }
    }
    return best;
}

/* Until the budget is met. *spent may pass it by a part of the last sequence. */
static uint64_t take_all(sfq_curation *c)
{
    uint64_t spent = 0;
    fill_heaps(c);
    while (c->chosen_count < c->count && spent < c->run->budget) {
        sfq_item *item = &c->chosen[c->chosen_count];
        *item = take_best(c, next_stratum(c));
        c->chosen_count++;
        spent += c->run->by_tokens ? length_of(c, item) : 1;
    }
    return spent;
}

/* ---- tune and held out ---- */

/* Tokens that the sequence taken last keeps; 0: all. What is too short to be one is left out. */
static size_t cut_last(sfq_curation *c, uint64_t spent)
{
    if (spent <= c->run->budget)
        return 0;
    size_t length = length_of(c, &c->chosen[c->chosen_count - 1]);
    size_t keep = length - (size_t)(spent - c->run->budget);
    if (keep >= MIN_CUT || c->chosen_count <= SFQ_CALIB_MIN)
        return keep;
    c->chosen_count--;
    return 0;
}

/* By stratum, and over them all one in five at equal distances: the held-out part is spread as the
 * whole is. The sequence that was cut is first, and for tuning. */
static void split(const sfq_curation *c, bool cut, sfq_pick *out)
{
    size_t n = c->chosen_count - cut, held = c->chosen_count / 5 > 0 ? c->chosen_count / 5 : 1;
    uint64_t phase = sfq_rng_u64(c->run->options->seed, SFQ_CALIB_STREAM_PICK, UINT64_MAX) % n;
    size_t tuned = 0, kept = c->chosen_count - held;
    out->count = c->chosen_count;
    out->tune = kept;
    if (cut)
        out->index[tuned++] = c->chosen[n].index;
    qsort(c->chosen, n, sizeof(*c->chosen), by_stratum);
    for (size_t i = 0; i < n; i++) {
        c->chosen[i].rank = 0;
        if ((i * held + phase) / n != ((i + 1) * held + phase) / n)
            c->chosen[i].stratum = -1;
    }
    for (size_t i = 0; i < n; i++)
        c->chosen[i].rank = c->chosen[i].stratum < 0;
    qsort(c->chosen, n, sizeof(*c->chosen), by_rank);
    for (size_t i = 0; i < n; i++)
        out->index[tuned + i] = c->chosen[i].index;
}

/* ---- the whole ---- */

static sfq_status open_curation(sfq_curation *c, sfq_pick *out, sfq_error *err)
{
    size_t n = sfq_candidates_count(&c->run->from);
    size_t vocab = (size_t)c->run->source->arch->vocab;
    c->items = SFQ_NEW_ARRAY(sfq_item, n);
    c->chosen = SFQ_NEW_ARRAY(sfq_item, n);
    c->seen = SFQ_NEW_ARRAY(uint32_t, vocab);
    c->covered = SFQ_NEW_ARRAY(unsigned char, vocab);
    out->index = SFQ_NEW_ARRAY(size_t, n);
    bool ok = c->items != NULL && c->chosen != NULL && c->seen != NULL && c->covered != NULL &&
              out->index != NULL;
    return ok ? SFQ_OK : sfq_fail_memory(err, n * sizeof(*c->items), "choice of sequences");
}

sfq_status sfq_pick_make(sfq_pick *out, const sfq_calib_run *run, const double *difficulty,
                         sfq_error *err)
{
    sfq_curation c = {.run = run};
    sfq_status status = SFQ_OK;
    SFQ_DO(open_curation(&c, out, err));
    SFQ_DO(list_items(&c, &out->duplicates, err));
    stratify(&c, difficulty);
    uint64_t spent = take_all(&c);
    out->cut = cut_last(&c, spent);
    split(&c, out->cut > 0, out);
done:
    sfq_mem_free(c.items);
    sfq_mem_free(c.chosen);
    sfq_mem_free(c.seen);
    sfq_mem_free(c.covered);
    return status;
}
