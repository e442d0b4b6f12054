/* compress/train_order.c - one epoch's order is kept; positions mostly rise, so it is made once. */
#include "compress/train_order.h"

#include "base/mem.h"
#include "base/rng.h"

enum { STREAM_ORDER = 0x7ea10001 };

static void shuffle(sfq_train_order *o, uint64_t epoch)
{
    o->epoch = epoch;
    for (size_t i = 0; i < o->count; i++)
        o->index[i] = (uint32_t)i;
    for (size_t i = o->count; i > 1; i--) {
        double u = sfq_rng_uniform(o->seed, STREAM_ORDER + epoch, i);
        size_t j = (size_t)(u * (double)i);
        uint32_t held = o->index[i - 1];
        o->index[i - 1] = o->index[j];
        o->index[j] = held;
    }
}

sfq_status sfq_train_order_open(sfq_train_order *o, size_t count, uint64_t seed, sfq_error *err)
{
    *o = (sfq_train_order){.seed = seed, .count = count};
    if (count == 0 || count > UINT32_MAX)
        return sfq_fail(err, SFQ_E_DATA, "%zu sequences to train on", count);
    o->index = SFQ_NEW_ARRAY(uint32_t, count);
    if (o->index == NULL)
        return sfq_fail_memory(err, count * sizeof(*o->index), "the order of sequences");
    shuffle(o, 0);
    return SFQ_OK;
}

void sfq_train_order_close(sfq_train_order *o)
{
    sfq_mem_free(o->index);
    *o = (sfq_train_order){0};
}

size_t sfq_train_order_at(sfq_train_order *o, uint64_t position, uint64_t *epoch)
{
    *epoch = position / o->count;
    if (*epoch != o->epoch)
        shuffle(o, *epoch);
    return o->index[position % o->count];
}
