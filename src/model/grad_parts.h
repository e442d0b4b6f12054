/* model/grad_parts.h - the pieces of the backward pass that one file each owns. Inside src/model
 * only. Dims as everywhere: T tokens, N outputs, K inputs. */
#ifndef SFQ_MODEL_GRAD_PARTS_H
#define SFQ_MODEL_GRAD_PARTS_H

#include "model/exec.h"
#include "model/grad.h"

struct sfq_grad {
    const sfq_net *net;
    sfq_exec *exec;
    const sfq_batch *batch; /* of the last forward; NULL: none */
    size_t t;               /* its tokens */
    size_t capacity;        /* tokens that `memory` holds, */
    size_t longest;         /* and the longest sequence */
    void *memory;           /* everything below */
    float *states;          /* [layers + 1, T, C] input of each layer, output of the last */
    float *last;            /* [T, C] behind the final norm, where there is one */
    float *work;            /* [T, C] a layer run again; gradient of a normed input */
    float *in;              /* [T, C] pre-norm: attn_in; post-norm: ffn_sum */
    float *attn_sum;        /* the inside of a layer: sfq_block_save */
    float *ffn_in, *qkv_raw, *qkv, *att, *ffn_pre, *ffn_act;
    float *d_act;   /* [T, H D or F] */
    float *d_pre;   /* [T, (H + 2 KV) D or 2F] */
    float *scratch; /* of the pieces */
};

/* State l, 0..layers. [T, C] */
static inline float *sfq_grad_state(const sfq_grad *g, int layer)
{
    return g->states + (size_t)layer * g->t * (size_t)g->net->arch->hidden;
}

/* ---- block_grad.c ---- */

/* d [T, C]: from the gradient of a layer's output to that of its input. into may be NULL. */
sfq_status sfq_block_grad(sfq_grad *g, int layer, float *d, const sfq_layer_grad *into,
                          const sfq_grad_hooks *hooks, sfq_error *err);
/* The same for one norm on rows of C: d_x (+)= ...; nothing where the norm is absent. */
void sfq_grad_norm(sfq_grad *g, const sfq_norm *norm, bool rms, const float *x, const float *d_y,
                   float *d_x, bool add, const sfq_norm_grad *into);

/* ---- embed_grad.c ---- */

/* d [T, C], the gradient of hidden state 0, is used up. */
void sfq_embed_grad(sfq_grad *g, float *d, const sfq_net_grad *into);

/* ---- linear_grad.c: y = x W^T + bias ---- */

/* d_x [T, ld_dx] = (add ? d_x : 0) + d_y W;  into->w += d_y^T x;  into->bias += sum_t d_y;  packed:
 * into->scales += sum over the cluster of (d_y^T x) * (code - zero point). Rows of W are decoded to
 * float in blocks of whole panels, so that no float copy of W exists. d_x may be NULL; k = 0: only
 * the bias. into may be NULL. scratch: sfq_linear_grad_floats floats. */
typedef struct sfq_linear_grad_args {
    const sfq_matrix *w;
    const float *x; /* [T, ldx] */
    size_t ldx;
    const float *d_y; /* [T, ld_dy] */
    size_t ld_dy;
    float *d_x;
    size_t ld_dx;
    bool add;
    size_t t;
    const sfq_matrix_grad *into;
    float *scratch;
} sfq_linear_grad_args;

size_t sfq_linear_grad_floats(const sfq_matrix *w);
void sfq_linear_grad(sfq_exec *e, const sfq_linear_grad_args *a);

/* ---- norm_grad.c ---- */

/* y = norm(x): d_x [T, C] = (add ? d_x : 0) + ...; d_x may be d_y. rms: RMSNorm, else LayerNorm.
 * Gain and bias gradients: fixed chunks of rows, merged in order. scratch:
 * sfq_norm_grad_floats(t, c). Rows are [T, ld*] apart, so that heads of q and k can be normed (T =
 * tokens * heads is the caller's loop). */
typedef struct sfq_norm_grad_args {
    const sfq_norm *norm;
    bool rms;
    float eps;
    const float *x, *d_y;
    float *d_x;
    size_t ldx, ld_dy, ld_dx;
    bool add;
    size_t t, c;
    const sfq_norm_grad *into;
    float *scratch;
} sfq_norm_grad_args;

size_t sfq_norm_grad_floats(size_t t, size_t c);
void sfq_norm_grad_run(sfq_exec *e, const sfq_norm_grad_args *a);

/* ---- act_grad.c: element functions ---- */

/* d[i] *= f'(pre[i]) */
void sfq_act_grad(sfq_activation kind, float *d, const float *pre, size_t n);
/* h = act(gate) * up: d_gate = d_h * up * act'(gate), d_up = d_h * act(gate) */
void sfq_act_mul_grad(sfq_activation kind, const float *gate, const float *up, const float *d_h,
                      float *d_gate, float *d_up, size_t n);

/* ---- attention_grad.c ---- */

/* From d_att [T, H D] to d_qkv [T, (H + 2 KV) D], through softmax, rotation and head norms. qkv is
 * what attention read (after head norms and rotation), qkv_raw what the matrices gave. scratch:
 * sfq_attention_grad_floats. */
typedef struct sfq_attention_grad_args {
    const sfq_batch *batch;
    int layer;
    const float *qkv_raw, *qkv, *att, *d_att;
    float *d_qkv;
    const sfq_layer_grad *into; /* q_norm, k_norm; may be NULL */
    float *scratch;
} sfq_attention_grad_args;

size_t sfq_attention_grad_floats(const sfq_net *net, int threads, size_t tokens, size_t longest);
void sfq_attention_grad(sfq_exec *e, const sfq_attention_grad_args *a);

#endif
