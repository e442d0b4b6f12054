/* runtime/batch.h - sequences of tokens put together for one pass: one after the other, nothing
 * padded. How many go together bounds memory and never changes a result. */
#ifndef SFQ_RUNTIME_BATCH_H
#define SFQ_RUNTIME_BATCH_H

#include "runtime/engine.h"

enum {
    SFQ_PREFILL_TOKENS = 512, /* a prompt goes through the model in pieces of this size */
    SFQ_BATCH_TOKENS = 2048   /* a batch is closed once it holds so many */
};

/* ---- sequences ------------------------------------------------------------------------------- */

typedef struct sfq_sequences {
    int32_t *ids, *types; /* [offset[count]] */
    size_t *offset;       /* [count + 1] */
    size_t count;
    size_t token_capacity, sequence_capacity;
} sfq_sequences;

void sfq_sequences_free(sfq_sequences *s);
void sfq_sequences_clear(sfq_sequences *s); /* memory kept */
/* types NULL: all 0. */
sfq_status sfq_sequences_add(sfq_sequences *s, const int32_t *ids, const int32_t *types,
                             size_t tokens, sfq_error *err);
size_t sfq_sequences_tokens(const sfq_sequences *s);
/* A batch without KV cache that points into s. */
sfq_batch sfq_sequences_batch(const sfq_sequences *s);

/* ---- texts ----------------------------------------------------------------------------------- */

/* Called with each batch; its first sequence is input number `first`. hooks are asked between
 * batches. */
typedef sfq_status (*sfq_inputs_fn)(void *ud, const sfq_batch *batch, size_t first, sfq_error *err);

/* Adds the inputs' tokens to *out, with special tokens, pairs cut longest first to the model's
 * positions unless it is a language model. The tokenizer must be there. */
sfq_status sfq_inputs_encode(const sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                             sfq_sequences *out, sfq_error *err);

/* Tokenizes the inputs in order (special tokens added, pairs cut longest first to the model's
 * positions) and hands them on in batches of at most max_sequences (0: any number) and about
 * SFQ_BATCH_TOKENS tokens. */
sfq_status sfq_inputs_each(sfq_engine *engine, const sfq_text_pair *inputs, size_t count,
                           size_t max_sequences, const sfq_hooks *hooks, sfq_inputs_fn fn, void *ud,
                           sfq_error *err);

#endif
