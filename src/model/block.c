/* model/block.c - one transformer layer, the same code for every family: residual sums, norms
 * before or after, attention, plain or gated MLP. Pre-norm: x += attn(norm(x)); x += mlp(norm(x)).
 * Post-norm: x = norm(x + attn(x)); x = norm(x + mlp(x)). A sum and the norm behind it are one pass
 * over x. */
#include "model/exec.h"

#include "base/ck.h"

typedef struct sfq_residual_job {
    const sfq_exec *e;
    bool add;
    const sfq_norm *norm;
    float *dst; /* [T, C] */
} sfq_residual_job;

static void sfq_residual_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_residual_job *job = (const sfq_residual_job *)ctx;
    const sfq_exec *e = job->e;
    const sfq_arch *arch = e->net->arch;
    size_t c = (size_t)arch->hidden;
    (void)worker;
    for (size_t t = begin; t < end; t++) {
        float *x = e->x + t * c, *dst = job->dst + t * c;
        if (job->add)
            e->kernels->add(x, e->h + t * c, c);
        if (!job->norm || !job->norm->gain)
            continue;
        if (arch->rms_norm)
            e->kernels->rmsnorm(dst, x, job->norm->gain, arch->norm_eps, c);
        else
            e->kernels->layernorm(dst, x, job->norm->gain, job->norm->bias, arch->norm_eps, c);
    }
}

void sfq_residual_norm(sfq_exec *e, size_t t, bool add, const sfq_norm *norm, float *dst)
{
    sfq_residual_job job = {e, add, norm, dst};
    if (add || (norm && norm->gain))
        sfq_exec_rows(e, t, 4 * (size_t)e->net->arch->hidden, sfq_residual_task, &job);
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

static void sfq_mlp_run(sfq_exec *e, size_t t, int layer, const float *x, float *out)
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
        sfq_exec_rows(e, t * act.chunks, 8 * sfq_min_size(f, SFQ_ACT_CHUNK), sfq_act_task, &act);
    }
    const sfq_linear down = {&w->down, out, c};
    sfq_linear_run(e, &down, 1, e->ffn, act.ld, t);
}

/* ---- the layer ---- */

void sfq_block_run(sfq_exec *e, const sfq_batch *batch, int layer, bool *pending)
{
    const sfq_arch *arch = e->net->arch;
    const sfq_layer_weights *w = &e->net->layer[layer];
    size_t t = batch->offset[batch->sequences];
    bool attn = w->o.n > 0, mlp = w->down.n > 0; /* else dropped, without even a bias */
    const float *in = arch->pre_norm ? e->h : e->x;
    if (arch->pre_norm) {
        /* a dropped sublayer has no norm: the sum is then all that happens here */
        sfq_residual_norm(e, t, *pending, &w->attn_norm, e->h);
        if (attn)
            sfq_attention_run(e, batch, layer, in, e->h);
        sfq_residual_norm(e, t, attn, &w->ffn_norm, e->h);
        if (mlp)
            sfq_mlp_run(e, t, layer, in, e->h);
        *pending = mlp;
        return;
    }
    if (attn)
        sfq_attention_run(e, batch, layer, in, e->h);
    sfq_residual_norm(e, t, attn, &w->attn_norm, e->x);
    if (mlp)
        sfq_mlp_run(e, t, layer, in, e->h);
    sfq_residual_norm(e, t, mlp, &w->ffn_norm, e->x);
    *pending = false;
}
