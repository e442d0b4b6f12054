/* model/forward.h - the forward pass, written once: calibration, evaluation, serving and (with its
 * twin block_grad) fine-tuning all run it, over any kernel table, dense or packed, causal or not.
 *
 * A batch is ragged: the tokens of all sequences lie one after the other, nothing is padded. What a
 * sequence computes does not depend on its neighbours, on the thread count or on how a prompt is
 * cut into calls. (After sfq_exec_free_order calls of up to 8 tokens on a cache can
 * differ from the others in the last bits, docs/ARCHITECTURE.md.) */
#ifndef SFQ_MODEL_FORWARD_H
#define SFQ_MODEL_FORWARD_H

#include "base/pool.h"
#include "model/net.h"

/* ---- KV cache of one sequence: K and V of each layer, as F32, F16 or I8 (a scale for each token
 * and head). Its kind is the one that the exec computes with: what is read is what a cache gives
 * back, with a cache or without. ---- */

typedef struct sfq_kv sfq_kv;

uint64_t sfq_kv_bytes(const sfq_arch *arch, sfq_dtype kind, int capacity);
sfq_status sfq_kv_open(sfq_kv **out, const sfq_arch *arch, sfq_dtype kind, int capacity,
                       sfq_error *err);
void sfq_kv_close(sfq_kv **kv);
int sfq_kv_length(const sfq_kv *kv);
int sfq_kv_capacity(const sfq_kv *kv);
sfq_dtype sfq_kv_kind(const sfq_kv *kv);
void sfq_kv_truncate(sfq_kv *kv, int length); /* forgets positions >= length */

/* ---- the pass ---- */

/* Scratch memory, kernels and threads of whoever computes: grows to the largest batch seen and is
 * reused. Not shared between threads that compute at the same time. */
typedef struct sfq_exec sfq_exec;

sfq_status sfq_exec_open(sfq_exec **out, const sfq_net *net, const sfq_kernels *kernels,
                         sfq_pool *pool, sfq_error *err);
void sfq_exec_close(sfq_exec **exec);
/* How keys and values are kept. At open it is sfq_net_kv: F16 for packed language models, F32 for
 * dense ones, which are held to 1e-4 of Transformers, and for encoders, which keep none. */
sfq_dtype sfq_net_kv(const sfq_net *net);
sfq_dtype sfq_exec_kv(const sfq_exec *exec);
void sfq_exec_set_kv(sfq_exec *exec, sfq_dtype kind);
/* From now on products of many rows may add in an order of their own, if nothing of the model is
 * packed: for inference, which gains by it at level amx. Otherwise one order serves all, and a copy
 * of a model with wider weights computes what the model does, bit by bit. */
void sfq_exec_free_order(sfq_exec *exec);
/* Scratch that a batch of `tokens` needs. */
uint64_t sfq_exec_bytes(const sfq_net *net, int threads, size_t tokens);

typedef struct sfq_batch {
    size_t sequences;
    const size_t *offset; /* [sequences+1] into ids; offset[0] = 0 */
    const int32_t *ids;   /* [offset[sequences]], proved < vocab here (DATA) */
    const int32_t *types; /* the same, or NULL: all 0 */
    sfq_kv *const *kv;    /* [sequences]; NULL: attention within the batch only, from position 0 */
    bool last_only;       /* of each sequence only the last token's hidden state is wanted */
} sfq_batch;

/* Sees each layer's input and at last the final hidden states (after the final norm), as
 * Transformers' hidden_states: layer 0..layers-1 -> input of that layer, layers -> the end.
 * hidden [T, C] in batch order. For tests and statistics. */
typedef void (*sfq_tap_fn)(void *ud, int layer, const float *hidden, size_t t, size_t c);

/* Runs all layers. *hidden [T, C] stays valid until the next call on exec. Sequences with a KV
 * cache append to it (LIMIT when it is full; nothing is appended then). last_only: *hidden is
 * [sequences, C], the same bits; the last layer makes keys and values for all tokens and the rest
 * for these alone. Not together with a tap (ARGUMENT). */
sfq_status sfq_forward(sfq_exec *exec, const sfq_batch *batch, const float **hidden, sfq_tap_fn tap,
                       void *tap_ud, sfq_error *err);
/* ---- the pass in pieces, for statistics, least squares and gradients: the same code ---- */

/* Where a layer leaves copies of its inside; NULL pointers are skipped. A dropped sublayer leaves
 * its sum alone, a width of 0 nothing. */
typedef struct sfq_block_save {
    float *attn_in;  /* [T, C] what q, k and v read */
    float *qkv_raw;  /* [T, (H + 2 KV) D] before head norms and rotation */
    float *qkv;      /* [T, (H + 2 KV) D] behind them */
    float *att;      /* [T, H D] what o reads */
    float *attn_sum; /* [T, C] x + attention, before a post-norm */
    float *ffn_in;   /* [T, C] what gate and up read */
    float *ffn_pre;  /* [T, F], or [T, 2F] gate | up: before the activation */
    float *ffn_act;  /* [T, F] what down reads */
    float *ffn_sum;  /* [T, C] + MLP, before a post-norm */
} sfq_block_save;

/* Input of layer 0 into x [T, C]. batch->kv must be NULL in these three, last_only false
 * (ARGUMENT). */
sfq_status sfq_forward_embed(sfq_exec *exec, const sfq_batch *batch, float *x, sfq_error *err);
/* x [T, C]: the layer's input becomes its output. save may be NULL. Checks the batch. */
sfq_status sfq_forward_layer(sfq_exec *exec, const sfq_batch *batch, int layer, float *x,
                             const sfq_block_save *save, sfq_error *err);
/* The final norm on x [T, C], where the family has one. */
void sfq_forward_final(sfq_exec *exec, float *x, size_t t);

/* ---- heads ---- */

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
