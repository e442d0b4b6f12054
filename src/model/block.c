/* model/block.c - one transformer layer, the same code for every family: residual sums, norms
 * before or after, attention, plain or gated MLP. Pre-norm: x += attn(norm(x)); x += mlp(norm(x)).
 * Post-norm: x = norm(x + attn(x)); x = norm(x + mlp(x)). A sum and the norm behind it are one pass
 * over x. Where only last tokens are wanted, the rest of the last layer's rows ends with its
 * attention: what it does for a prompt of a model of 16 layers is 6 % of the products. */
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

/* The step of *job; fn NULL: nothing to do. */
static sfq_row_step sfq_residual_step(sfq_residual_job *job)
{
    const sfq_residual *r = job->r;
    bool any = r->add || r->sum || (r->norm && r->norm->gain);
    return (sfq_row_step){any ? sfq_residual_task : NULL, job,
                          4 * (size_t)job->e->net->arch->hidden};
}

void sfq_residual_norm(sfq_exec *e, size_t t, const sfq_residual *r)
{
    sfq_residual_job job = {e, r};
    sfq_row_step step = sfq_residual_step(&job);
    if (step.fn)
        sfq_exec_rows(e, t, step.work, step.fn, step.ctx);
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

/* Whole rows. */
static void sfq_act_rows(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_act_job *job = (const sfq_act_job *)ctx;
    sfq_act_task(ctx, begin * job->chunks, end * job->chunks, worker);
}

/* Gate and up, or up, to e->ffn. */
static void sfq_mlp_up(sfq_exec *e, size_t t, int layer, const float *x, const sfq_act_job *act,
                       const sfq_row_step *before, bool activated)
{
    const sfq_layer_weights *w = &e->net->layer[layer];
    const size_t c = (size_t)e->net->arch->hidden;
    const sfq_linear gated[] = {{.w = &w->gate, .y = e->ffn, .ldy = act->ld},
                                {.w = &w->up, .y = e->ffn + act->f, .ldy = act->ld}};
    const sfq_linear plain = {.w = &w->up,
                              .y = e->ffn,
                              .ldy = act->ld,
                              .activated = activated,
                              .act = e->net->arch->activation};
    if (e->net->arch->gated)
        sfq_linear_run_after(e, gated, 2, x, c, t, before);
    else
        sfq_linear_run_after(e, &plain, 1, x, c, t, before);
}

/* The activation of a packed plain MLP comes with up's products, unless what is before it is
 * wanted. Else it is a step of down's quantization, or, for fewer rows than keep the threads busy,
 * cut along the row. */
static void sfq_mlp_run(sfq_exec *e, size_t t, int layer, const float *x, float *out,
                        const sfq_row_step *before, const sfq_block_save *save)
{
    const sfq_arch *arch = e->net->arch;
    const sfq_layer_weights *w = &e->net->layer[layer];
    size_t c = (size_t)arch->hidden, f = (size_t)arch->layer[layer].ffn;
    sfq_act_job act = {e, f, arch->gated ? 2 * f : f, (f + SFQ_ACT_CHUNK - 1) / SFQ_ACT_CHUNK};
    sfq_row_step step = {sfq_act_rows, &act, 8 * f};
    bool whole = act.chunks == 1 || t >= 2 * e->threads;
    const bool with_up = w->up.packed && !arch->gated && !save->ffn_pre;
    const bool due = f > 0 && !with_up;
    if (f > 0)
        sfq_mlp_up(e, t, layer, x, &act, before, with_up);
    else if (before)
        sfq_exec_rows(e, t, before->work, before->fn, before->ctx);
    sfq_save_rows(save->ffn_in, x, t, c, c);
    sfq_save_rows(save->ffn_pre, e->ffn, t, f > 0 ? act.ld : 0, act.ld);
    if (due && !whole)
        sfq_exec_rows(e, t * act.chunks, 8 * sfq_min_size(f, SFQ_ACT_CHUNK), sfq_act_task, &act);
    const sfq_linear down = {.w = &w->down, .y = out, .ldy = c};
    sfq_linear_run_after(e, &down, 1, e->ffn, act.ld, t, due && whole ? &step : NULL);
    sfq_save_rows(save->ffn_act, e->ffn, t, f, act.ld);
}

/* ---- the layer ---- */

size_t sfq_block_rows(const sfq_exec *e, const sfq_batch *batch, int layer)
{
    const bool last = batch->last_only && layer + 1 == e->net->arch->layers;
    return last ? batch->sequences : batch->offset[batch->sequences];
}

void sfq_block_keep(const sfq_exec *e, const sfq_batch *batch, int layer, float *x, size_t n)
{
    const size_t rows = sfq_block_rows(e, batch, layer);
    if (n == 0 || rows == batch->offset[batch->sequences])
        return;
    for (size_t s = 0; s < rows; s++)
        memmove(x + s * n, x + (batch->offset[s + 1] - 1) * n, n * sizeof(float));
}

/* The sublayers on `in`, which `due` makes, to h; a dropped one is not even a bias, and gives
 * false. */
static bool sfq_block_attention(sfq_exec *e, const sfq_batch *batch, int layer, const float *in,
                                const sfq_residual *due, const sfq_block_save *save)
{
    sfq_residual_job job = {e, due};
    const sfq_row_step step = sfq_residual_step(&job);
    if (e->net->layer[layer].o.n == 0) {
        sfq_residual_norm(e, batch->offset[batch->sequences], due);
        return false;
    }
    sfq_attention_run(e, batch, layer, in, e->h, step.fn ? &step : NULL, save);
    return true;
}

static bool sfq_block_mlp(sfq_exec *e, size_t t, int layer, const float *in,
                          const sfq_residual *due, const sfq_block_save *save)
{
    sfq_residual_job job = {e, due};
    const sfq_row_step step = sfq_residual_step(&job);
    if (e->net->layer[layer].down.n == 0) {
        sfq_residual_norm(e, t, due);
        return false;
    }
    sfq_mlp_run(e, t, layer, in, e->h, step.fn ? &step : NULL, save);
    return true;
}

void sfq_block_run(sfq_exec *e, const sfq_batch *batch, int layer, float *x, sfq_residual *rest,
                   const sfq_block_save *save)
{
    const sfq_layer_weights *w = &e->net->layer[layer];
    const size_t t = sfq_block_rows(e, batch, layer), c = (size_t)e->net->arch->hidden;
    if (e->net->arch->pre_norm) {
        /* a dropped sublayer has no norm: the sum is then all that happens here */
        rest->norm = &w->attn_norm;
        rest->dst = e->h;
        bool attn = sfq_block_attention(e, batch, layer, e->h, rest, save);
        sfq_block_keep(e, batch, layer, x, c);
        const sfq_residual between = {x, attn, save->attn_sum, &w->ffn_norm, e->h};
        bool mlp = sfq_block_mlp(e, t, layer, e->h, &between, save);
        *rest = (sfq_residual){.x = x, .add = mlp, .dst = x};
        return;
    }
    bool attn = sfq_block_attention(e, batch, layer, x, rest, save);
    sfq_block_keep(e, batch, layer, x, c);
    const sfq_residual between = {x, attn, save->attn_sum, &w->attn_norm, x};
    bool mlp = sfq_block_mlp(e, t, layer, x, &between, save);
    *rest = (sfq_residual){x, mlp, save->ffn_sum, &w->ffn_norm, x};
}
