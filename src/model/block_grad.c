/* model/block_grad.c - backward of one layer, twin of block.c: the layer runs again from its input,
 * leaves its inside in the arrays of sfq_grad, and the chain rule goes through it from the end.
 * Pre-norm: the gradient of the residual stream passes by a sublayer unchanged and what comes
 * through the sublayer and its norm is added. Post-norm: it goes through the norm first, then on
 * both ways. */
#include "model/grad_parts.h"

#include "base/ck.h"

#include <string.h>

typedef struct block_pass {
    sfq_grad *g;
    int layer;
    const sfq_layer_arch *arch;
    const sfq_layer_weights *w;
    const sfq_layer_grad *into; /* never NULL here */
    const sfq_grad_hooks *hooks;
    float *d; /* [T, C] gradient of the residual stream */
} block_pass;

void sfq_grad_norm(sfq_grad *g, const sfq_norm *norm, bool rms, const float *x, const float *d_y,
                   float *d_x, bool add, const sfq_norm_grad *into)
{
    size_t c = (size_t)g->net->arch->hidden;
    const sfq_norm_grad_args args = {.norm = norm,
                                     .rms = rms,
                                     .eps = g->net->arch->norm_eps,
                                     .x = x,
                                     .d_y = d_y,
                                     .d_x = d_x,
                                     .ldx = c,
                                     .ld_dy = c,
                                     .ld_dx = c,
                                     .add = add,
                                     .t = g->t,
                                     .c = c,
                                     .into = into,
                                     .scratch = g->scratch};
    if (norm->gain)
        sfq_norm_grad_run(g->exec, &args);
}

static void block_norm(const block_pass *p, const sfq_norm *norm, const float *x, const float *d_y,
                       bool add, const sfq_norm_grad *into)
{
    sfq_grad_norm(p->g, norm, p->g->net->arch->rms_norm, x, d_y, p->d, add, into);
}

/* From a sublayer's output to the input of its last matrix, and the word about it. */
static void output_matrix(const block_pass *p, const sfq_matrix *w, bool ffn, const float *act,
                          size_t width, const sfq_matrix_grad *into)
{
    sfq_grad *g = p->g;
    size_t c = (size_t)g->net->arch->hidden;
    const sfq_linear_grad_args args = {.w = w,
                                       .x = act,
                                       .ldx = width,
                                       .d_y = p->d,
                                       .ld_dy = c,
                                       .d_x = g->d_act,
                                       .ld_dx = width,
                                       .t = g->t,
                                       .into = into,
                                       .scratch = g->scratch};
    sfq_linear_grad(g->exec, &args);
    const sfq_grad_view view = {.layer = p->layer,
                                .ffn = ffn,
                                .t = g->t,
                                .width = width,
                                .act = act,
                                .d_act = g->d_act,
                                .d_out = p->d};
    if (p->hooks && p->hooks->sublayer)
        p->hooks->sublayer(p->hooks->ud, &view);
}

/* A sublayer's first matrix: d_y into the gradient of what it reads. Pre-norm, that is g->work,
 * which the first matrix of a sublayer sets; post-norm it is the stream itself. */
static void input_matrix(const block_pass *p, const sfq_matrix *w, const float *x, const float *d_y,
                         size_t ld, bool first, const sfq_matrix_grad *into)
{
    sfq_grad *g = p->g;
    size_t c = (size_t)g->net->arch->hidden;
    bool pre = g->net->arch->pre_norm;
    const sfq_linear_grad_args args = {.w = w,
                                       .x = x,
                                       .ldx = c,
                                       .d_y = d_y,
                                       .ld_dy = ld,
                                       .d_x = pre ? g->work : p->d,
                                       .ld_dx = c,
                                       .add = !pre || !first,
                                       .t = g->t,
                                       .into = into,
                                       .scratch = g->scratch};
    sfq_linear_grad(g->exec, &args);
}

/* ---- MLP ---- */

static void act_task(void *ctx, size_t begin, size_t end, int worker)
{
    const block_pass *p = (const block_pass *)ctx;
    const sfq_grad *g = p->g;
    sfq_activation kind = g->net->arch->activation;
    size_t f = (size_t)p->arch->ffn, ld = g->net->arch->gated ? 2 * f : f;
    (void)worker;
    for (size_t t = begin; t < end; t++) {
        float *d_act = g->d_act + t * f, *d_pre = g->d_pre + t * ld;
        const float *pre = g->ffn_pre + t * ld;
        if (g->net->arch->gated)
            sfq_act_mul_grad(kind, pre, pre + f, d_act, d_pre, d_pre + f, f);
        else
            sfq_act_grad(kind, d_act, pre, f);
    }
}

static void mlp_grad(block_pass *p)
{
    sfq_grad *g = p->g;
    const sfq_layer_weights *w = p->w;
    const sfq_layer_grad *into = p->into;
    size_t f = (size_t)p->arch->ffn;
    bool pre = g->net->arch->pre_norm;
    if (!pre)
        block_norm(p, &w->ffn_norm, g->in, p->d, false, &into->ffn_norm);
    if (w->down.n == 0)
        return;
    output_matrix(p, &w->down, true, g->ffn_act, f, &into->down);
    if (f == 0)
        return;
    sfq_exec_rows(g->exec, g->t, 32 * f, act_task, p);
    if (g->net->arch->gated) {
        input_matrix(p, &w->gate, g->ffn_in, g->d_pre, 2 * f, true, &into->gate);
        input_matrix(p, &w->up, g->ffn_in, g->d_pre + f, 2 * f, false, &into->up);
    } else {
        input_matrix(p, &w->up, g->ffn_in, g->d_act, f, true, &into->up);
    }
    if (pre)
        block_norm(p, &w->ffn_norm, g->attn_sum, g->work, true, &into->ffn_norm);
}

/* ---- attention ---- */

static void qkv_grad(const block_pass *p, const float *x)
{
    const sfq_grad *g = p->g;
    const sfq_layer_weights *w = p->w;
    size_t d = (size_t)g->net->arch->head_dim;
    size_t q = (size_t)p->arch->heads * d, kv = (size_t)p->arch->kv_heads * d, ld = q + 2 * kv;
    if (w->qkv.n > 0) {
        input_matrix(p, &w->qkv, x, g->d_pre, ld, true, &p->into->qkv);
        return;
    }
    input_matrix(p, &w->q, x, g->d_pre, ld, true, &p->into->q);
    input_matrix(p, &w->k, x, g->d_pre + q, ld, false, &p->into->k);
    input_matrix(p, &w->v, x, g->d_pre + q + kv, ld, false, &p->into->v);
}

static void attention_grad(block_pass *p)
{
    sfq_grad *g = p->g;
    const sfq_layer_weights *w = p->w;
    const float *x = sfq_grad_state(g, p->layer);
    bool pre = g->net->arch->pre_norm;
    if (!pre)
        block_norm(p, &w->attn_norm, g->attn_sum, p->d, false, &p->into->attn_norm);
    if (w->o.n == 0)
        return;
    output_matrix(p, &w->o, false, g->att, (size_t)(p->arch->heads * g->net->arch->head_dim),
                  &p->into->o);
    if (p->arch->heads == 0)
        return;
    const sfq_attention_grad_args args = {.batch = g->batch,
                                          .layer = p->layer,
                                          .qkv_raw = g->qkv_raw,
                                          .qkv = g->qkv,
                                          .att = g->att,
                                          .d_att = g->d_act,
                                          .d_qkv = g->d_pre,
                                          .into = p->into,
                                          .scratch = g->scratch};
    sfq_attention_grad(g->exec, &args);
    qkv_grad(p, pre ? g->in : x);
    if (pre)
        block_norm(p, &w->attn_norm, x, g->work, true, &p->into->attn_norm);
}

/* ---- the layer ---- */

sfq_status sfq_block_grad(sfq_grad *g, int layer, float *d, const sfq_layer_grad *into,
                          const sfq_grad_hooks *hooks, sfq_error *err)
{
    static const sfq_layer_grad nothing = {0};
    bool pre = g->net->arch->pre_norm;
    block_pass p = {.g = g,
                    .layer = layer,
                    .arch = &g->net->arch->layer[layer],
                    .w = &g->net->layer[layer],
                    .into = into ? into : &nothing,
                    .hooks = hooks,
                    .d = d};
    const sfq_block_save save = {.attn_in = pre ? g->in : NULL,
                                 .qkv_raw = g->net->arch->qk_norm ? g->qkv_raw : NULL,
                                 .qkv = g->qkv,
                                 .att = g->att,
                                 .attn_sum = g->attn_sum,
                                 .ffn_in = g->ffn_in,
                                 .ffn_pre = g->ffn_pre,
                                 .ffn_act = g->ffn_act,
                                 .ffn_sum = pre ? NULL : g->in};
    memcpy(g->work, sfq_grad_state(g, layer), g->t * (size_t)g->net->arch->hidden * sizeof(float));
    SFQ_TRY(sfq_forward_layer(g->exec, g->batch, layer, g->work, &save, err));
    mlp_grad(&p);
    attention_grad(&p);
    return SFQ_OK;
}
