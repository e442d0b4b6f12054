/* model/grad.h - the backward pass, twin of forward.h: gradients of activations always, of weights
 * where asked for. Works on any net: dense F32, F16 or BF16, or packed (then through the decoded
 * weights; run-time quantization of activations counts as the identity).
 *
 * The forward pass keeps each layer's input only; backward runs the layer again, keeps its inside,
 * and forgets it (gradient checkpointing, Chen et al. 2016, "Training deep nets with sublinear
 * memory cost"). So memory is layers * T * C plus one layer's inside. Results do not depend on the
 * thread count. */
#ifndef SFQ_MODEL_GRAD_H
#define SFQ_MODEL_GRAD_H

#include "model/forward.h"

/* Where gradients are added (+=); a NULL pointer: not wanted. Shapes as the weights: w [N, K], bias
 * [N], scales as sfq_matrix.scales (packed only), gain and bias of a norm [C] (head norms [D]). */
typedef struct sfq_matrix_grad {
    float *w, *scales, *bias;
} sfq_matrix_grad;

typedef struct sfq_norm_grad {
    float *gain, *bias;
} sfq_norm_grad;

typedef struct sfq_layer_grad {
    sfq_norm_grad attn_norm, ffn_norm, q_norm, k_norm;
    sfq_matrix_grad q, k, v, qkv, o, gate, up, down;
} sfq_layer_grad;

typedef struct sfq_net_grad {
    sfq_matrix_grad word, position, type;
    sfq_norm_grad embedding_norm, final_norm;
    sfq_layer_grad *layer;                       /* [layers] */
    sfq_matrix_grad lm_head, pooler, classifier; /* tied head: lm_head.w may be word.w */
} sfq_net_grad;

typedef struct sfq_grad sfq_grad;

/* Memory of a batch of `tokens` tokens in sequences of at most `longest`. */
uint64_t sfq_grad_bytes(const sfq_net *net, int threads, size_t tokens, size_t longest);
sfq_status sfq_grad_open(sfq_grad **out, const sfq_net *net, const sfq_kernels *kernels,
                         sfq_pool *pool, sfq_error *err);
void sfq_grad_close(sfq_grad **grad);
/* The exec inside, for sfq_forward_logits, _labels, _embedding on the hidden states below. */
sfq_exec *sfq_grad_exec(sfq_grad *grad);

/* The forward pass. batch->kv must be NULL. *hidden [T, C] (after the final norm) stays valid until
 * the next call of sfq_grad_forward; batch must live until backward is done. */
sfq_status sfq_grad_forward(sfq_grad *grad, const sfq_batch *batch, const float **hidden,
                            sfq_error *err);
/* Hidden state of the last forward as Transformers counts them: 0 the embeddings, l the input of
 * layer l; `layers` is *hidden. [T, C] */
const float *sfq_grad_hidden(const sfq_grad *grad, int layer);

/* A sublayer as backward passes it, from the last layer to the first, MLP before attention. None
 * for a dropped one; width 0 where only the bias of o or down is left. */
typedef struct sfq_grad_view {
    int layer;
    bool ffn;           /* else attention */
    size_t t, width;    /* tokens; H D or F */
    const float *act;   /* [T, width] input of o or down */
    const float *d_act; /* [T, width] its gradient */
    const float *d_out; /* [T, C] gradient of the output of o or down (before the residual sum) */
} sfq_grad_view;

typedef struct sfq_grad_hooks {
    void *ud;
    void (*sublayer)(void *ud, const sfq_grad_view *view); /* may be NULL */
    /* adds to the gradient of hidden state `layer`, for layer = layers - 1 .. 0; may be NULL */
    void (*inject)(void *ud, int layer, float *d_hidden, size_t t, size_t c);
} sfq_grad_hooks;

/* From the gradient of *hidden, d_hidden [T, C] (used up), to everything `into` wants. into and
 * hooks may be NULL. Below the lowest thing wanted it stops early when hooks is NULL. */
sfq_status sfq_grad_backward(sfq_grad *grad, float *d_hidden, const sfq_net_grad *into,
                             const sfq_grad_hooks *hooks, sfq_error *err);

/* ---- heads: d_hidden [T, C] += ; into may be NULL. hidden is the last forward's. ---- */

/* d_logits [count, V] of rows [count] of hidden (as sfq_forward_logits). */
sfq_status sfq_grad_logits(sfq_grad *grad, const size_t *rows, size_t count, const float *d_logits,
                           float *d_hidden, const sfq_net_grad *into, sfq_error *err);
/* d_labels [sequences, labels] (as sfq_forward_labels). */
sfq_status sfq_grad_labels(sfq_grad *grad, const float *d_labels, float *d_hidden,
                           const sfq_net_grad *into, sfq_error *err);
/* d_out [sequences, C] (as sfq_forward_embedding). */
sfq_status sfq_grad_embedding(sfq_grad *grad, const float *d_out, float *d_hidden, sfq_error *err);

#endif
