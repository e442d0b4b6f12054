/* model/attention.c - q, k, v from the normed input, head norms, rotation, the cache, and attention
 * of every (token, head) over its keys. Grouped-query attention (Ainslie et al. 2023) is the
 * general case. Queries that read the same keys go to the kernel in blocks; it promises each the
 * bits that it would get alone, so results do not know the batch. */
#include "model/exec.h"

#include "base/ck.h"

#include <string.h>

enum {
    SFQ_ATTENTION_BLOCK = 48, /* queries of a call at most */
    SFQ_ATTENTION_LEAST = 6   /* and, if other threads wait for work, at least */
};

typedef struct sfq_attention_job {
    sfq_exec *e;
    const sfq_batch *batch;
    const sfq_layer_arch *arch;
    const sfq_layer_weights *w;
    int layer;
    size_t t; /* tokens */
    size_t d, heads, kv_heads;
    size_t ld;    /* (heads + 2 kv_heads) * d */
    size_t block; /* queries of an item */
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

/* The keys and values that KV head g of sequence s reads. */
static void sfq_attention_keys(const sfq_attention_job *job, size_t s, size_t g, sfq_attn_args *a)
{
    const sfq_exec *e = job->e;
    if (job->batch->kv) {
        const sfq_kv *kv = job->batch->kv[s];
        a->k = sfq_kv_keys(kv, job->layer) + g * job->d;
        a->v = sfq_kv_values(kv, job->layer) + g * job->d;
        a->stride = job->kv_heads * job->d;
    } else {
        a->k = e->qkv + job->batch->offset[s] * job->ld + (job->heads + g) * job->d;
        a->v = a->k + job->kv_heads * job->d;
        a->stride = job->ld;
    }
}

static sfq_attn_query sfq_attention_query(const sfq_attention_job *job, size_t t, size_t h)
{
    const sfq_exec *e = job->e;
    size_t p = e->position[t], s = e->sequence[t], window = (size_t)job->arch->window;
    sfq_attn_query q = {.q = e->qkv + t * job->ld + h * job->d,
                        .out = e->att + (t * job->heads + h) * job->d,
                        .t_end = p + 1};
    if (!e->net->arch->causal)
        q.t_end = job->batch->offset[s + 1] - job->batch->offset[s];
    if (window > 0 && p + 1 > window)
        q.t_begin = p + 1 - window;
    return q;
}

/* Items are blocks of the queries of one KV head: token after token, and of each token the heads of
 * the group. A call ends where the sequence does. */
static void sfq_attention_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_attention_job *job = (const sfq_attention_job *)ctx;
    const sfq_exec *e = job->e;
    size_t group = job->heads / job->kv_heads, queries = job->t * group;
    size_t blocks = (queries + job->block - 1) / job->block;
    (void)worker;
    for (size_t item = begin; item < end; item++) {
        size_t g = item / blocks, first = item % blocks * job->block;
        size_t last = sfq_min_size(queries, first + job->block);
        sfq_attn_query query[SFQ_ATTENTION_BLOCK];
        sfq_attn_args a = {.query = query, .d = job->d, .scale = e->net->arch->attn_scale};
        for (size_t i = first; i < last; i++) {
            size_t t = i / group, s = e->sequence[t];
            query[a.count++] = sfq_attention_query(job, t, g * group + i % group);
            if (i + 1 < last && e->sequence[(i + 1) / group] == s)
                continue;
            sfq_attention_keys(job, s, g, &a);
            e->kernels->attn(&a);
            a.count = 0;
        }
    }
}

/* Keys that a token sees at most, to judge the work. */
static size_t sfq_attention_most(const sfq_attention_job *job)
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

/* Blocks as large as the kernel can use, smaller when there are few for the threads; one token's
 * group is shared out as well. */
static void sfq_attention_split(sfq_attention_job *job)
{
    sfq_exec *e = job->e;
    size_t queries = job->t * (job->heads / job->kv_heads);
    size_t share = e->threads == 1 ? queries : job->t * job->heads / (4 * e->threads);
    job->block = sfq_min_size(SFQ_ATTENTION_BLOCK, sfq_max_size(share, SFQ_ATTENTION_LEAST));
    size_t blocks = (queries + job->block - 1) / job->block;
    size_t work = 2 * sfq_attention_most(job) * job->d * sfq_min_size(queries, job->block);
    sfq_exec_uneven(e, job->kv_heads * blocks, work, 1, sfq_attention_task, job);
}

void sfq_attention_run(sfq_exec *e, const sfq_batch *batch, int layer, const float *x, float *out,
                       const sfq_block_save *save)
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
        sfq_save_rows(save->qkv_raw, e->qkv, job.t, job.ld, job.ld);
        sfq_exec_rows(e, job.t, 4 * job.ld, sfq_attention_prepare, &job);
        sfq_save_rows(save->qkv, e->qkv, job.t, job.ld, job.ld);
        sfq_attention_split(&job);
        sfq_save_rows(save->att, e->att, job.t, job.heads * job.d, job.heads * job.d);
    }
    const sfq_linear o = {&job.w->o, out, (size_t)arch->hidden};
    sfq_linear_run(e, &o, 1, e->att, job.heads * job.d, job.t);
}
