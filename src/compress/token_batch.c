/* compress/token_batch.c - batches that own their tokens. The three arrays move when they grow, so
 * the view in `batch` is renewed with every sequence. */
#include "base/ck.h"
#include "base/mem.h"
#include "compress/calibration.h"

#include <string.h>

enum { FIRST_SEQUENCES = 64, FIRST_TOKENS = 2048 };

static void renew(sfq_token_batch *b)
{
    b->batch = (sfq_batch){.sequences = b->sequences,
                           .offset = b->offset,
                           .ids = b->ids,
                           .types = b->typed ? b->types : NULL};
}

void sfq_token_batch_clear(sfq_token_batch *b)
{
    b->sequences = 0;
    b->typed = false;
    renew(b);
}

void sfq_token_batch_free(sfq_token_batch *b)
{
    sfq_mem_free(b->offset);
    sfq_mem_free(b->ids);
    sfq_mem_free(b->types);
    *b = (sfq_token_batch){0};
}

uint64_t sfq_token_batch_bytes(size_t sequences, size_t tokens)
{
    return 2 * sizeof(int32_t) * (uint64_t)sfq_max_size(FIRST_TOKENS, 2 * tokens) +
           sizeof(size_t) * ((uint64_t)sfq_max_size(FIRST_SEQUENCES, 2 * sequences) + 1);
}

static sfq_status grow_tokens(sfq_token_batch *b, size_t need, sfq_error *err)
{
    if (need <= b->token_capacity)
        return SFQ_OK;
    size_t capacity = sfq_max_size(FIRST_TOKENS, 2 * b->token_capacity);
    capacity = sfq_max_size(capacity, need);
    int32_t *ids = sfq_mem_resize(b->ids, capacity, sizeof(*ids));
    if (ids == NULL)
        return sfq_fail_memory(err, capacity * sizeof(*ids), "tokens of a batch");
    b->ids = ids;
    int32_t *types = sfq_mem_resize(b->types, capacity, sizeof(*types));
    if (types == NULL)
        return sfq_fail_memory(err, capacity * sizeof(*types), "tokens of a batch");
    b->types = types;
    b->token_capacity = capacity;
    return SFQ_OK;
}

static sfq_status grow_sequences(sfq_token_batch *b, sfq_error *err)
{
    if (b->sequences < b->sequence_capacity)
        return SFQ_OK;
    size_t capacity = sfq_max_size(FIRST_SEQUENCES, 2 * b->sequence_capacity);
    size_t *offset = sfq_mem_resize(b->offset, capacity + 1, sizeof(*offset));
    if (offset == NULL)
        return sfq_fail_memory(err, (capacity + 1) * sizeof(*offset), "sequences of a batch");
    b->offset = offset;
    b->sequence_capacity = capacity;
    return SFQ_OK;
}

sfq_status sfq_token_batch_add(sfq_token_batch *b, const int32_t *ids, const int32_t *types,
                               size_t n, sfq_error *err)
{
    size_t begin = b->sequences > 0 ? b->offset[b->sequences] : 0, end = 0;
    if (n == 0)
        return sfq_fail(err, SFQ_E_DATA, "a sequence without tokens");
    if (!sfq_ck_add(begin, n, &end) || end > SIZE_MAX / 16)
        return sfq_fail(err, SFQ_E_LIMIT, "too many tokens for one batch");
    SFQ_TRY(grow_tokens(b, end, err));
    SFQ_TRY(grow_sequences(b, err));
    memcpy(b->ids + begin, ids, n * sizeof(*ids));
    if (types != NULL)
        memcpy(b->types + begin, types, n * sizeof(*types));
    else
        memset(b->types + begin, 0, n * sizeof(*b->types));
    b->typed = b->typed || types != NULL;
    b->offset[b->sequences] = begin;
    b->offset[++b->sequences] = end;
    renew(b);
    return SFQ_OK;
}

sfq_status sfq_token_batch_take(sfq_token_batch *b, const sfq_calibration *c, size_t i,
                                sfq_error *err)
{
    size_t begin = c->offset[i];
    return sfq_token_batch_add(b, c->ids + begin, c->types != NULL ? c->types + begin : NULL,
                               c->offset[i + 1] - begin, err);
}
