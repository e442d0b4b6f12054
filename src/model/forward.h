/* model/forward.h - the forward pass, written once: calibration, evaluation, serving and (with its
 * twin block_grad) fine-tuning all run it, over any kernel table, dense or packed, causal or not.
 *
 * A batch is ragged: the tokens of all sequences lie one after the other, nothing is padded. What a
 * sequence computes does not depend on its neighbours, on the thread count or on how a prompt is
 * cut into calls. */
#ifndef SFQ_MODEL_FORWARD_H
#define SFQ_MODEL_FORWARD_H

#include "base/pool.h"
#include "model/net.h"

/* ---- KV cache of one sequence: per layer K and V, each [capacity, kv_heads*D] float ---- */

typedef struct sfq_kv sfq_kv;

uint64_t sfq_kv_bytes(const sfq_arch *arch, int capacity);
sfq_status sfq_kv_open(sfq_kv **out, const sfq_arch *arch, int capacity, sfq_error *err);
void sfq_kv_close(sfq_kv **kv);
int sfq_kv_length(const sfq_kv *kv);
int sfq_kv_capacity(const sfq_kv *kv);
void sfq_kv_truncate(sfq_kv *kv, int length); /* forgets positions >= length */

/* ---- the pass ---- */

/* Scratch memory, kernels and threads of whoever computes: grows to the largest batch seen and is
 * reused. Not shared between threads that compute at the same time. */
typedef struct sfq_exec sfq_exec;

sfq_status sfq_exec_open(sfq_exec **out, const sfq_net *net, const sfq_kernels *kernels,
                         sfq_pool *pool, sfq_error *err);
void sfq_exec_close(sfq_exec **exec);
/* Scratch that a batch of `tokens` needs. */
uint64_t sfq_exec_bytes(const sfq_net *net, int threads, size_t tokens);

typedef struct sfq_batch {
    size_t sequences;
    const size_t *offset; /* [sequences+1] into ids; offset[0] = 0 */
    const int32_t *ids;   /* [offset[sequences]], proved < vocab here (DATA) */
    const int32_t *types; /* the same, or NULL: all 0 */
    sfq_kv *const *kv;    /* [sequences]; NULL: attention within the batch only, from position 0 */
} sfq_batch;

/* Sees each layer's input and at last the final hidden states (after the final norm), as
 * Transformers' hidden_states: layer 0..layers-1 -> input of that layer, layers -> the end.
 * hidden [T, C] in batch order. For tests and statistics. */
typedef void (*sfq_tap_fn)(void *ud, int layer, const float *hidden, size_t t, size_t c);

/* Runs all layers. *hidden [T, C] stays valid until the next call on exec. Sequences with a KV
 * cache append to it (LIMIT when it is full; nothing is appended then). */
sfq_status sfq_forward(sfq_exec *exec, const sfq_batch *batch, const float **hidden, sfq_tap_fn tap,
                       void *tap_ud, sfq_error *err);
/* Logits of rows of hidden: rows [count] indices, logits [count, V]. */
sfq_status sfq_forward_logits(sfq_exec *exec, const float *hidden, const size_t *rows, size_t count,
                              float *logits, sfq_error *err);
/* Classifier/regression outputs of each sequence, from its first token: out [sequences, labels],
 * raw (before softmax). */
sfq_status sfq_forward_labels(sfq_exec *exec, const sfq_batch *batch, const float *hidden,
                              float *out, sfq_error *err);
/* Mean over each sequence's tokens, normalised where the arch says so: out [sequences, C]. */
sfq_status sfq_forward_embedding(sfq_exec *exec, const sfq_batch *batch, const float *hidden,
                                 float *out, sfq_error *err);

#endif
