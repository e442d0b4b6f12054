/* runtime/sampler.c - greedy choice and random choice. Weights are double and summed in a fixed
 * order; the random number belongs to (seed, position), so a rewound timeline repeats itself.
 *
 * Nucleus sampling: Holtzman et al. 2020, "The curious case of neural text degeneration". The
 * largest candidates are taken from a heap until top_k or top_p is met: no full sort of a
 * vocabulary that is mostly noise. */
#include "runtime/sampler.h"

#include "base/rng.h"

#include <math.h>

enum { SAMPLER_STREAM = 0x5a3b }; /* keeps these numbers apart from other uses of the seed */

sfq_status sfq_sampling_check(const sfq_sampling *sampling, sfq_error *err)
{
    if (!(sampling->temperature >= 0.0f) || isinf(sampling->temperature))
        return sfq_fail(err, SFQ_E_ARGUMENT, "temperature must be 0 or a positive number");
    if (sampling->top_k < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "top_k must be 0 (off) or positive");
    if (!(sampling->top_p > 0.0f && sampling->top_p <= 1.0f))
        return sfq_fail(err, SFQ_E_ARGUMENT, "top_p must be above 0 and at most 1 (off)");
    return SFQ_OK;
}

sfq_status sfq_sample_greedy(const float *logits, size_t vocab, int32_t *token, sfq_error *err)
{
    size_t best = 0;
    for (size_t i = 0; i < vocab; i++) {
        if (isnan(logits[i]))
            return sfq_fail(
                err, SFQ_E_NUMERIC,
                "logit %zu is not a number; `sfq inspect --verify` looks for the tensor", i);
        if (logits[i] > logits[best])
            best = i;
    }
    *token = (int32_t)best;
    return SFQ_OK;
}

/* ---- heap: the heaviest first, equal weights by id ------------------------------------------- */

static bool before(const sfq_candidate *a, const sfq_candidate *b)
{
    return a->weight > b->weight || (a->weight == b->weight && a->id < b->id);
}

static void sift_down(sfq_candidate *heap, size_t n, size_t i)
{
    sfq_candidate moved = heap[i];
    for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &moved))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

/* Moves the first of heap [n] to its end, where the heap no longer reaches. */
static void pop(sfq_candidate *heap, size_t n)
{
    sfq_candidate first = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = first;
    sift_down(heap, n - 1, 0);
}

/* Pops what top_k and top_p keep; kept ones lie at the end, heaviest last. Returns their number. */
static size_t filter(sfq_candidate *heap, size_t vocab, const sfq_sampling *s)
{
    bool some = s->top_k > 0 && (size_t)s->top_k < vocab;
    size_t limit = some ? (size_t)s->top_k : vocab, popped = 0;
    double total = 0, sum = 0;
    for (size_t i = vocab / 2; i-- > 0;)
        sift_down(heap, vocab, i);
    for (; some && popped < limit; popped++)
        pop(heap, vocab - popped);
    if (s->top_p >= 1.0f)
        return limit;
    for (size_t i = vocab - limit; i < vocab; i++)
        total += heap[i].weight;
    for (size_t i = 0; i < limit; i++) {
        if (i >= popped)
            pop(heap, vocab - i);
        sum += heap[vocab - i - 1].weight;
        if (sum >= (double)s->top_p * total)
            return i + 1;
    }
    return limit;
}

/* The candidate at share u of [first, first + n), walked from the last one. */
static int32_t draw(const sfq_candidate *first, size_t n, double u)
{
    double total = 0, sum = 0;
    for (size_t i = n; i-- > 0;)
        total += first[i].weight;
    for (size_t i = n; i-- > 0;) {
        sum += first[i].weight;
        if (u * total < sum)
            return first[i].id;
    }
    return first[n - 1].id;
}

sfq_status sfq_sample(const float *logits, size_t vocab, const sfq_sampling *sampling, int position,
                      sfq_candidate *scratch, int32_t *token, sfq_error *err)
{
    int32_t best = 0;
    SFQ_TRY(sfq_sample_greedy(logits, vocab, &best, err));
    *token = best;
    double largest = (double)logits[best];
    if (sampling->temperature == 0.0f || isinf(largest))
        return SFQ_OK;
    for (size_t i = 0; i < vocab; i++) {
        double scaled = ((double)logits[i] - largest) / (double)sampling->temperature;
        scratch[i] = (sfq_candidate){exp(scaled), (int32_t)i};
    }
    bool off =
        (sampling->top_k == 0 || (size_t)sampling->top_k >= vocab) && sampling->top_p >= 1.0f;
    size_t kept = off ? vocab : filter(scratch, vocab, sampling);
    double u = sfq_rng_uniform(sampling->seed, SAMPLER_STREAM, (uint64_t)position);
    *token = draw(scratch + (vocab - kept), kept, u);
    return SFQ_OK;
}
