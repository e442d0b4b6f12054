/* runtime/batch.c - collecting sequences and cutting a stream of texts into bounded batches. */
#include "runtime/batch.h"

#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"

#include <string.h>

void sfq_sequences_free(sfq_sequences *s)
{
    sfq_mem_free(s->ids);
    sfq_mem_free(s->types);
    sfq_mem_free(s->offset);
    *s = (sfq_sequences){0};
}

void sfq_sequences_clear(sfq_sequences *s)
{
    s->count = 0;
}

size_t sfq_sequences_tokens(const sfq_sequences *s)
{
    return s->count > 0 ? s->offset[s->count] : 0;
}

static sfq_status grow_tokens(sfq_sequences *s, size_t need, sfq_error *err)
{
    if (need <= s->token_capacity)
        return SFQ_OK;
    size_t capacity = sfq_max_size(need, sfq_max_size(s->token_capacity * 2, SFQ_BATCH_TOKENS));
    int32_t *ids = sfq_mem_resize(s->ids, capacity, sizeof(*ids));
    if (ids == NULL)
        return sfq_fail_memory(err, capacity * sizeof(*ids), "tokens of a batch");
    s->ids = ids;
    int32_t *types = sfq_mem_resize(s->types, capacity, sizeof(*types));
    if (types == NULL)
        return sfq_fail_memory(err, capacity * sizeof(*types), "tokens of a batch");
    s->types = types;
    s->token_capacity = capacity;
    return SFQ_OK;
}

static sfq_status grow_sequences(sfq_sequences *s, sfq_error *err)
{
    if (s->count < s->sequence_capacity)
        return SFQ_OK;
    size_t capacity = sfq_max_size(s->sequence_capacity * 2, 64);
    size_t *offset = sfq_mem_resize(s->offset, capacity + 1, sizeof(*offset));
    if (offset == NULL)
        return sfq_fail_memory(err, (capacity + 1) * sizeof(*offset), "sequences of a batch");
    s->offset = offset;
    s->sequence_capacity = capacity;
    return SFQ_OK;
}

sfq_status sfq_sequences_add(sfq_sequences *s, const int32_t *ids, const int32_t *types,
                             size_t tokens, sfq_error *err)
{
    size_t begin = sfq_sequences_tokens(s);
    SFQ_TRY(grow_tokens(s, begin + tokens, err));
    SFQ_TRY(grow_sequences(s, err));
    memcpy(s->ids + begin, ids, tokens * sizeof(*ids));
    if (types != NULL)
        memcpy(s->types + begin, types, tokens * sizeof(*types));
    else
        memset(s->types + begin, 0, tokens * sizeof(*types));
    s->offset[s->count] = begin;
    s->count++;
    s->offset[s->count] = begin + tokens;
    return SFQ_OK;
}

sfq_batch sfq_sequences_batch(const sfq_sequences *s)
{
    return (sfq_batch){
        .sequences = s->count, .offset = s->offset, .ids = s->ids, .types = s->types};
}

/* ---- texts ----------------------------------------------------------------------------------- */

typedef struct sfq_inputs_pass {
    const sfq_hooks *hooks;
    sfq_inputs_fn fn;
    void *ud;
    sfq_sequences pending;
    size_t first; /* input number of the first pending one */
} sfq_inputs_pass;

static sfq_status flush(sfq_inputs_pass *p, sfq_error *err)
{
    if (p->pending.count == 0)
        return SFQ_OK;
    SFQ_TRY(sfq_hooks_check(p->hooks, err));
    sfq_batch batch = sfq_sequences_batch(&p->pending);
    SFQ_TRY(p->fn(p->ud, &batch, p->first, err));
    p->first += p->pending.count;
    sfq_sequences_clear(&p->pending);
    return SFQ_OK;
}

/* The whole input with special tokens; at least one token, or there is nothing to compute. Labels
 * and vectors of a cut text mean something; the next token after a beginning that is gone does
 * not, so language models get it whole. */
static sfq_status encode_input(const sfq_engine *engine, const sfq_text_pair *in, size_t number,
                               sfq_encoding *out, sfq_error *err)
{
    const char *text = in->text != NULL ? in->text : "";
    bool whole = engine->arch->head == SFQ_MODEL_HEAD_LM;
    SFQ_TRY(sfq_tokenizer_encode(engine->tokenizer, text, in->text_bytes, in->pair, in->pair_bytes,
                                 true, whole ? 0 : (size_t)engine->arch->max_positions, out, err));
    if (out->count > 0)
        return SFQ_OK;
    sfq_encoding_clear(out);
    return sfq_fail(err, SFQ_E_DATA, "input %zu gives no tokens", number + 1);
}

static sfq_status add_input(sfq_inputs_pass *p, const sfq_encoding *encoding, size_t max_sequences,
                            sfq_error *err)
{
    size_t after = sfq_sequences_tokens(&p->pending) + encoding->count;
    bool full = max_sequences > 0 && p->pending.count >= max_sequences;
    if (full || after > SFQ_BATCH_TOKENS)
        SFQ_TRY(flush(p, err));
    return sfq_sequences_add(&p->pending, encoding->ids, encoding->types, encoding->count, err);
}

sfq_status sfq_inputs_encode(const sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                             sfq_sequences *out, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    for (size_t i = 0; i < count && status == SFQ_OK; i++) {
        sfq_encoding encoding = {0};
        status = encode_input(engine, &inputs[i], i, &encoding, err);
        if (status == SFQ_OK)
            status = sfq_sequences_add(out, encoding.ids, encoding.types, encoding.count, err);
        sfq_encoding_clear(&encoding);
    }
    return status;
}

sfq_status sfq_inputs_each(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                           size_t max_sequences, const sfq_hooks *hooks, sfq_inputs_fn fn, void *ud,
                           sfq_error *err)
{
    sfq_inputs_pass pass = {.hooks = hooks, .fn = fn, .ud = ud};
    sfq_status status = SFQ_OK;
    for (size_t i = 0; i < count && status == SFQ_OK; i++) {
        sfq_encoding encoding = {0};
        status = encode_input(engine, &inputs[i], i, &encoding, err);
        if (status == SFQ_OK)
            status = add_input(&pass, &encoding, max_sequences, err);
        sfq_encoding_clear(&encoding);
    }
    if (status == SFQ_OK)
        status = flush(&pass, err);
    sfq_sequences_free(&pass.pending);
    return status;
}
