/* model/grad_parts.h - the pieces of the backward pass that one file each owns. Inside src/model
 * only. Dims as everywhere: T tokens, N outputs, K inputs. */
#ifndef SFQ_MODEL_GRAD_PARTS_H
#define SFQ_MODEL_GRAD_PARTS_H

#include "model/exec.h"
#include "model/grad.h"

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
