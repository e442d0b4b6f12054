/* model/attention.c - q, k, v from the normed input, head norms, rotation, the cache, and attention
 * of every (token, head) over its keys. Grouped-query attention (Ainslie et al. 2023) is the
 * general case. Each (token, head) is one call of the attention kernel, so results do not know the
 * batch. */
#include "model/exec.h"

#include "base/ck.h"

#include <string.h>

enum { SFQ_ATTENTION_GRAIN = 16 }; /* (token, head) pairs that a worker takes at once, at most */

typedef struct sfq_attention_job {
    sfq_exec *e;
    const sfq_batch *batch;
    const sfq_layer_arch *arch;
    const sfq_layer_weights *w;
    int layer;
    size_t t; /* tokens */
    size_t d, heads, kv_heads;
    size_t ld; /* (heads + 2 kv_heads) * d */
} sfq_attention_job;

static void sfq_heads_finish(const sfq_attention_job *job, float *x, size_t heads,
                             const sfq_norm *norm, size_t token)
{
    const sfq_exec *e = job->e;
    size_t half = e->widths.half;
    for (size_t h = 0; h < heads; h++, x += job->d) {
        if (norm->gain)
            e->kernels->rmsnorm(x, x, norm->gain, e->net->arch->norm_eps, job->d);
        if (job->arch->rope)
            e->kernels->rope(x, e->cos + token * half, e->sin + token * half, 2 * half);
    }
}

/* Tokens [begin, end): norm and rotate q and k, put k and v where the keys are read from. */
static void sfq_attention_prepare(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_attention_job *job = (const sfq_attention_job *)ctx;
    const sfq_exec *e = job->e;
    size_t kv_width = job->kv_heads * job->d;
    (void)worker;
    for (size_t t = begin; t < end; t++) {
        float *q = e->qkv + t * job->ld; /* [H D | KV D | KV D] */
        float *k = q + job->heads * job->d;
        sfq_heads_finish(job, q, job->heads, &job->w->q_norm, t);
        sfq_heads_finish(job, k, job->kv_heads, &job->w->k_norm, t);
        if (!job->batch->kv)
            continue;
        const sfq_kv *kv = job->batch->kv[e->sequence[t]];
        size_t at = e->position[t] * kv_width;
        memcpy(sfq_kv_keys(kv, job->layer) + at, k, kv_width * sizeof(float));
        memcpy(sfq_kv_values(kv, job->layer) + at, k + kv_width, kv_width * sizeof(float));
    }
}

/* Items run over the tokens of one head after the other: neighbours read the same keys. */
static void sfq_attention_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_attention_job *job = (const sfq_attention_job *)ctx;
    const sfq_exec *e = job->e;
    const sfq_arch *arch = e->net->arch;
    size_t d = job->d, kv_width = job->kv_heads * d, group = job->heads / job->kv_heads;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t h = i / job->t, t = i % job->t, kv_head = h / group;
        size_t s = e->sequence[t], first = job->batch->offset[s], p = e->position[t];
        sfq_attn_args a = {.q = e->qkv + t * job->ld + h * d,
                           .d = d,
                           .t_end = arch->causal ? p + 1 : job->batch->offset[s + 1] - first,
                           .scale = arch->attn_scale,
                           .out = e->att + t * job->heads * d + h * d};
        size_t window = (size_t)job->arch->window;
        if (window > 0 && p + 1 > window)
            a.t_begin = p + 1 - window;
        if (job->batch->kv) {
            const sfq_kv *kv = job->batch->kv[s];
            a.k = sfq_kv_keys(kv, job->layer) + kv_head * d;
            a.v = sfq_kv_values(kv, job->layer) + kv_head * d;
            a.stride = kv_width;
        } else {
            a.k = e->qkv + first * job->ld + (job->heads + kv_head) * d;
            a.v = a.k + kv_width;
            a.stride = job->ld;
        }
        e->kernels->attn(&a);
    }
}

/* Keys that a token sees at most, to judge the work. */
static size_t sfq_attention_keys(const sfq_attention_job *job)
{
    size_t most = 0;
    for (size_t s = 0; s < job->batch->sequences; s++) {
        size_t last = job->batch->offset[s + 1] - 1;
        size_t keys = job->e->position[last] + (size_t)1;
        most = keys > most ? keys : most;
    }
    return most;
}

static void sfq_attention_project(const sfq_attention_job *job, const float *x)
{
    sfq_exec *e = job->e;
    size_t c = (size_t)e->net->arch->hidden, q = job->heads * job->d, kv = job->kv_heads * job->d;
    if (job->w->qkv.n > 0) {
        const sfq_linear fused = {&job->w->qkv, e->qkv, job->ld};
        sfq_linear_run(e, &fused, 1, x, c, job->t);
    } else {
        const sfq_linear parts[] = {{&job->w->q, e->qkv, job->ld},
                                    {&job->w->k, e->qkv + q, job->ld},
                                    {&job->w->v, e->qkv + q + kv, job->ld}};
        sfq_linear_run(e, parts, 3, x, c, job->t);
    }
}

void sfq_attention_run(sfq_exec *e, const sfq_batch *batch, int layer, const float *x, float *out)
{
    const sfq_arch *arch = e->net->arch;
    const sfq_layer_arch *la = &arch->layer[layer];
    sfq_attention_job job = {.e = e,
                             .batch = batch,
                             .arch = la,
                             .w = &e->net->layer[layer],
                             .layer = layer,
                             .t = batch->offset[batch->sequences],
                             .d = (size_t)arch->head_dim,
                             .heads = (size_t)la->heads,
                             .kv_heads = (size_t)la->kv_heads};
    job.ld = (job.heads + 2 * job.kv_heads) * job.d;
    if (job.heads > 0) {
        sfq_attention_project(&job, x);
        sfq_exec_rows(e, job.t, 4 * job.ld, sfq_attention_prepare, &job);
        size_t keys = sfq_attention_keys(&job);
        size_t items = job.t * job.heads, share = items / (8 * e->threads);
        size_t grain = sfq_max_size(1, sfq_min_size(share, SFQ_ATTENTION_GRAIN));
        sfq_exec_uneven(e, items, 2 * keys * job.d, grain, sfq_attention_task, &job);
    }
    const sfq_linear o = {&job.w->o, out, (size_t)arch->hidden};
    sfq_linear_run(e, &o, 1, e->att, job.heads * job.d, job.t);
}
