/* model/block.c - one transformer layer, the same code for every family: residual sums, norms
 * before or after, attention, plain or gated MLP. Pre-norm: x += attn(norm(x)); x += mlp(norm(x)).
 * Post-norm: x = norm(x + attn(x)); x = norm(x + mlp(x)). A sum and the norm behind it are one pass
 * over x. */
#include "model/exec.h"

#include "base/ck.h"

#include <string.h>

typedef struct sfq_residual_job {
    const sfq_exec *e;
    const sfq_residual *r;
} sfq_residual_job;

static void sfq_residual_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_residual_job *job = (const sfq_residual_job *)ctx;
    const sfq_exec *e = job->e;
    const sfq_residual *r = job->r;
    const sfq_arch *arch = e->net->arch;
    size_t c = (size_t)arch->hidden;
    (void)worker;
    for (size_t t = begin; t < end; t++) {
        float *x = r->x + t * c, *dst = r->dst + t * c;
        if (r->add)
            e->kernels->add(x, e->h + t * c, c);
        if (r->sum)
            memcpy(r->sum + t * c, x, c * sizeof(float));
        if (!r->norm || !r->norm->gain)
            continue;
        if (arch->rms_norm)
            e->kernels->rmsnorm(dst, x, r->norm->gain, arch->norm_eps, c);
        else
            e->kernels->layernorm(dst, x, r->norm->gain, r->norm->bias, arch->norm_eps, c);
    }
}

void sfq_residual_norm(sfq_exec *e, size_t t, const sfq_residual *r)
{
    sfq_residual_job job = {e, r};
    if (r->add || r->sum || (r->norm && r->norm->gain))
        sfq_exec_rows(e, t, 4 * (size_t)e->net->arch->hidden, sfq_residual_task, &job);
}

void sfq_save_rows(float *dst, const float *src, size_t t, size_t n, size_t ld)
{
    for (size_t i = 0; dst && n > 0 && i < t; i++)
        memcpy(dst + i * n, src + i * ld, n * sizeof(float));
}

/* ---- MLP ---- */

enum { SFQ_ACT_CHUNK = 1024 }; /* columns of an item, counted from 0 */

typedef struct sfq_act_job {
    const sfq_exec *e;
    size_t f, ld, chunks;
} sfq_act_job;

static void sfq_act_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_act_job *job = (const sfq_act_job *)ctx;
    const sfq_arch *arch = job->e->net->arch;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t column = i % job->chunks * SFQ_ACT_CHUNK;
        size_t n = sfq_min_size(SFQ_ACT_CHUNK, job->f - column);
        float *gate = job->e->ffn + i / job->chunks * job->ld + column;
        if (arch->gated)
            job->e->kernels->act_mul(arch->activation, gate, gate + job->f, n);
        else
            job->e->kernels->act(arch->activation, gate, n);
    }
}

static void sfq_mlp_run(sfq_exec *e, size_t t, int layer, const float *x, float *out,
                        const sfq_block_save *save)
{
    const sfq_arch *arch = e->net->arch;
    const sfq_layer_weights *w = &e->net->layer[layer];
    size_t c = (size_t)arch->hidden, f = (size_t)arch->layer[layer].ffn;
    sfq_act_job act = {e, f, arch->gated ? 2 * f : f, (f + SFQ_ACT_CHUNK - 1) / SFQ_ACT_CHUNK};
    if (f > 0) {
        const sfq_linear gated[] = {{&w->gate, e->ffn, act.ld}, {&w->up, e->ffn + f, act.ld}};
        const sfq_linear plain = {&w->up, e->ffn, act.ld};
        if (arch->gated)
            sfq_linear_run(e, gated, 2, x, c, t);
        else
            sfq_linear_run(e, &plain, 1, x, c, t);
        sfq_save_rows(save->ffn_pre, e->ffn, t, act.ld, act.ld);
        sfq_exec_rows(e, t * act.chunks, 8 * sfq_min_size(f, SFQ_ACT_CHUNK), sfq_act_task, &act);
        sfq_save_rows(save->ffn_act, e->ffn, t, f, act.ld);
    }
    const sfq_linear down = {&w->down, out, c};
    sfq_linear_run(e, &down, 1, e->ffn, act.ld, t);
}

/* ---- the layer ---- */

/* The sublayers on `in` to h; a dropped one is not even a bias, and gives false. */
static bool sfq_block_attention(sfq_exec *e, const sfq_batch *batch, int layer, const float *in,
                                const sfq_block_save *save)
{
    size_t t = batch->offset[batch->sequences], c = (size_t)e->net->arch->hidden;
    if (e->net->layer[layer].o.n == 0)
        return false;
    sfq_save_rows(save->attn_in, in, t, c, c);
    sfq_attention_run(e, batch, layer, in, e->h, save);
    return true;
}

static bool sfq_block_mlp(sfq_exec *e, size_t t, int layer, const float *in,
                          const sfq_block_save *save)
{
    size_t c = (size_t)e->net->arch->hidden;
    if (e->net->layer[layer].down.n == 0)
        return false;
    sfq_save_rows(save->ffn_in, in, t, c, c);
    sfq_mlp_run(e, t, layer, in, e->h, save);
    return true;
}

void sfq_block_run(sfq_exec *e, const sfq_batch *batch, int layer, float *x, bool *pending,
                   const sfq_block_save *save)
{
    const sfq_layer_weights *w = &e->net->layer[layer];
    size_t t = batch->offset[batch->sequences];
    if (e->net->arch->pre_norm) {
        /* a dropped sublayer has no norm: the sum is then all that happens here */
        const sfq_residual before = {x, *pending, NULL, &w->attn_norm, e->h};
        sfq_residual_norm(e, t, &before);
        bool attn = sfq_block_attention(e, batch, layer, e->h, save);
        const sfq_residual between = {x, attn, save->attn_sum, &w->ffn_norm, e->h};
        sfq_residual_norm(e, t, &between);
        *pending = sfq_block_mlp(e, t, layer, e->h, save);
        return;
    }
    bool attn = sfq_block_attention(e, batch, layer, x, save);
    const sfq_residual between = {x, attn, save->attn_sum, &w->attn_norm, x};
    sfq_residual_norm(e, t, &between);
    bool mlp = sfq_block_mlp(e, t, layer, x, save);
    const sfq_residual behind = {x, mlp, save->ffn_sum, &w->ffn_norm, x};
    sfq_residual_norm(e, t, &behind);
    *pending = false;
}
