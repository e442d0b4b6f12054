/* compress/curate.c - which of the candidates are taken, and which of these are held out. */
#include "base/mem.h"
#include "base/rng.h"
#include "compress/calibration_parts.h"

#include <stdlib.h>

void sfq_pick_free(sfq_pick *pick)
{
    sfq_mem_free(pick->index);
    *pick = (sfq_pick){0};
}

/* ---- order ---- */

typedef struct sfq_drawn {
    uint64_t key;
    size_t index;
} sfq_drawn;

static int by_key(const void *a, const void *b)
{
    const sfq_drawn *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static size_t held_out(size_t count)
{
    return count / 5 > 0 ? count / 5 : 1;
}

sfq_status sfq_pick_make(sfq_pick *out, const sfq_calib_run *run, const double *difficulty,
                         sfq_error *err)
{
    size_t n = sfq_candidates_count(&run->from);
    (void)difficulty;
    sfq_drawn *order = SFQ_NEW_ARRAY(sfq_drawn, n);
    out->index = SFQ_NEW_ARRAY(size_t, n);
    if (order == NULL || out->index == NULL) {
        sfq_mem_free(order);
        return sfq_fail_memory(err, n * sizeof(*order), "choice of sequences");
    }
    for (size_t i = 0; i < n; i++)
        order[i] = (sfq_drawn){sfq_rng_u64(run->options->seed, SFQ_CALIB_STREAM_PICK, i), i};
    qsort(order, n, sizeof(*order), by_key);
    uint64_t spent = 0;
    for (size_t i = 0; i < n && spent < run->budget; i++) {
        out->index[out->count++] = order[i].index;
        spent += run->by_tokens ? sfq_candidates_length(&run->from, order[i].index) : 1;
    }
    sfq_mem_free(order);
    out->tune = out->count - held_out(out->count);
    return SFQ_OK;
}
