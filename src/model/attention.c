/* model/attention.c - q, k, v from the normed input, head norms, rotation, the cache, and attention
 * of every (token, head) over its keys. Grouped-query attention (Ainslie et al. 2023) is the
 * general case. Queries that read the same keys go to the kernel in blocks; it promises each the
 * bits that it would get alone, so results do not know the batch. */
#include "model/exec.h"

#include "base/ck.h"

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
    size_t spans; /* of the longest context, where they are items */
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

/* Keys and values of a token, k [KV D | KV D]: to the cache, and what it would give back in their
 * place, so that a pass without a cache reads the same. */
static void sfq_attention_keep(const sfq_attention_job *job, float *k, size_t token)
{
    const sfq_exec *e = job->e;
    const sfq_kv *kv = job->batch->kv ? job->batch->kv[e->sequence[token]] : NULL;
    for (size_t g = 0; g < job->kv_heads; g++, k += job->d) {
        float *v = k + job->kv_heads * job->d;
        if (kv) {
            sfq_kv_put(kv, e->kernels, job->layer, g, e->position[token], k, v);
            continue;
        }
        e->kernels->kv_round(e->kv, k, NULL, NULL, job->d);
        e->kernels->kv_round(e->kv, v, NULL, NULL, job->d);
    }
}

static bool sfq_attention_keeps(const sfq_attention_job *job)
{
    return job->batch->kv || (job->e->net->arch->causal && job->e->kv != SFQ_F32);
}

/* Tokens [begin, end): norm and rotate q and k, put k and v where the keys are read from. */
static void sfq_attention_prepare(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_attention_job *job = (const sfq_attention_job *)ctx;
    const sfq_exec *e = job->e;
    (void)worker;
    for (size_t t = begin; t < end; t++) {
        float *q = e->qkv + t * job->ld; /* [H D | KV D | KV D] */
        float *k = q + job->heads * job->d;
        sfq_heads_finish(job, q, job->heads, &job->w->q_norm, t);
        sfq_heads_finish(job, k, job->kv_heads, &job->w->k_norm, t);
        if (sfq_attention_keeps(job))
            sfq_attention_keep(job, k, t);
    }
}

/* The keys and values that KV head g of sequence s reads. */
static void sfq_attention_keys(const sfq_attention_job *job, size_t s, size_t g, sfq_attn_args *a)
{
    const sfq_exec *e = job->e;
    if (job->batch->kv) {
        sfq_kv_head h = sfq_kv_at(job->batch->kv[s], job->layer, g);
        a->kind = e->kv;
        a->blocked = true;
        a->k = h.k;
        a->v = h.v;
        a->k_scale = h.k_scale;
        a->v_scale = h.v_scale;
        a->stride = job->d;
    } else {
        const float *k = e->qkv + job->batch->offset[s] * job->ld + (job->heads + g) * job->d;
        a->k = k;
        a->v = k + job->kv_heads * job->d;
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

static sfq_attn_args sfq_attention_args(const sfq_attention_job *job, const sfq_attn_query *query,
                                        int worker)
{
    const sfq_exec *e = job->e;
    return (sfq_attn_args){.query = query,
                           .d = job->d,
                           .scale = e->net->arch->attn_scale,
                           .scratch = e->worker_scratch + (size_t)worker * SFQ_WORKER_SCRATCH};
}

/* Items are blocks of the queries of one KV head: token after token, and of each token the heads of
 * the group. A call ends where the sequence does. */
static void sfq_attention_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_attention_job *job = (const sfq_attention_job *)ctx;
    const sfq_exec *e = job->e;
    size_t group = job->heads / job->kv_heads, queries = job->t * group;
    size_t blocks = (queries + job->block - 1) / job->block;
    for (size_t item = begin; item < end; item++) {
        size_t g = item / blocks, first = item % blocks * job->block;
        size_t last = sfq_min_size(queries, first + job->block);
        sfq_attn_query query[SFQ_ATTENTION_BLOCK];
        sfq_attn_args a = sfq_attention_args(job, query, worker);
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

/* ---- decode over long contexts: spans of keys apart (Dao et al. 2023, "Flash-Decoding") ---- */

/* Items are (token, KV head, span): the group's queries over the span, into the cache's room for
 * partial results. A token is a sequence here. */
static void sfq_attention_span_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_attention_job *job = (const sfq_attention_job *)ctx;
    const sfq_exec *e = job->e;
    size_t group = job->heads / job->kv_heads;
    for (size_t item = begin; item < end; item++) {
        size_t span = item % job->spans, g = item / job->spans % job->kv_heads;
        size_t t = item / job->spans / job->kv_heads;
        size_t from = span * SFQ_ATTN_SPAN, to = from + SFQ_ATTN_SPAN;
        sfq_attn_query query[SFQ_ATTENTION_BLOCK];
        sfq_attn_args a = sfq_attention_args(job, query, worker);
        a.partial = true;
        sfq_attention_keys(job, t, g, &a);
        for (size_t h = g * group; h < (g + 1) * group; h++) {
            sfq_attn_query q = sfq_attention_query(job, t, h);
            if (q.t_begin >= to || q.t_end <= from)
                break;
            q.t_begin = sfq_max_size(q.t_begin, from);
            q.t_end = sfq_min_size(q.t_end, to);
            q.out = sfq_kv_parts(job->batch->kv[t], e->net->arch->layers, h);
            q.out += span * (job->d + 2);
            query[a.count++] = q;
            if (a.count < SFQ_ATTENTION_BLOCK && h + 1 < (g + 1) * group)
                continue;
            e->kernels->attn(&a);
            a.count = 0;
        }
    }
}

/* Items are (token, head): its spans become its output. */
static void sfq_attention_merge_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_attention_job *job = (const sfq_attention_job *)ctx;
    const sfq_exec *e = job->e;
    (void)worker;
    for (size_t item = begin; item < end; item++) {
        size_t t = item / job->heads, h = item % job->heads;
        sfq_attn_query q = sfq_attention_query(job, t, h);
        size_t first = q.t_begin / SFQ_ATTN_SPAN, last = (q.t_end - 1) / SFQ_ATTN_SPAN;
        const float *parts = sfq_kv_parts(job->batch->kv[t], e->net->arch->layers, h);
        e->kernels->attn_merge(q.out, parts + first * (job->d + 2), last - first + 1, job->d);
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

static void sfq_attention_project(const sfq_attention_job *job, const float *x,
                                  const sfq_row_step *before)
{
    sfq_exec *e = job->e;
    size_t c = (size_t)e->net->arch->hidden, q = job->heads * job->d, kv = job->kv_heads * job->d;
    if (job->w->qkv.n > 0) {
        const sfq_linear fused = {.w = &job->w->qkv, .y = e->qkv, .ldy = job->ld};
        sfq_linear_run_after(e, &fused, 1, x, c, job->t, before);
    } else {
        const sfq_linear parts[] = {{.w = &job->w->q, .y = e->qkv, .ldy = job->ld},
                                    {.w = &job->w->k, .y = e->qkv + q, .ldy = job->ld},
                                    {.w = &job->w->v, .y = e->qkv + q + kv, .ldy = job->ld}};
        sfq_linear_run_after(e, parts, 3, x, c, job->t, before);
    }
}

/* Whether the batch is one of decode whose KV heads alone do not fill the threads evenly, with keys
 * enough to share out. */
static bool sfq_attention_by_spans(const sfq_attention_job *job, size_t items, size_t most)
{
    size_t threads = job->e->threads;
    for (size_t s = 0; job->batch->kv && s < job->batch->sequences; s++)
        if (sfq_kv_capacity(job->batch->kv[s]) <= SFQ_ATTN_SPAN)
            return false; /* no room for partial results */
    return job->batch->kv && job->t == job->batch->sequences && most > SFQ_ATTN_SPAN &&
           threads > 1 && items < 4 * threads && items % threads != 0;
}

/* Blocks as large as the kernel can use, smaller when there are few for the threads; the heads of
 * one token's group stay together, since they share every load. */
static void sfq_attention_split(sfq_attention_job *job)
{
    sfq_exec *e = job->e;
    size_t group = job->heads / job->kv_heads, queries = job->t * group;
    size_t share = e->threads == 1 ? queries : job->t * job->heads / (4 * e->threads);
    share = sfq_max_size(sfq_max_size(share, SFQ_ATTENTION_LEAST), group);
    job->block = sfq_min_size(SFQ_ATTENTION_BLOCK, share);
    size_t items = job->kv_heads * ((queries + job->block - 1) / job->block);
    size_t most = sfq_attention_most(job);
    if (!sfq_attention_by_spans(job, items, most)) {
        size_t work = 2 * most * job->d * sfq_min_size(queries, job->block);
        sfq_exec_uneven(e, items, work, 1, sfq_attention_task, job);
        return;
    }
    job->spans = (most + SFQ_ATTN_SPAN - 1) / SFQ_ATTN_SPAN;
    items = job->t * job->kv_heads * job->spans;
    sfq_exec_uneven(e, items, 2 * SFQ_ATTN_SPAN * job->d * group, 1, sfq_attention_span_task, job);
    sfq_exec_rows(e, job->t * job->heads, 4 * job->spans * job->d, sfq_attention_merge_task, job);
}

void sfq_attention_run(sfq_exec *e, const sfq_batch *batch, int layer, const float *x, float *out,
                       const sfq_row_step *before, const sfq_block_save *save)
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
    if (job.heads > 0)
        sfq_attention_project(&job, x, before);
    else if (before)
        sfq_exec_rows(e, job.t, before->work, before->fn, before->ctx);
    sfq_save_rows(save->attn_in, x, job.t, (size_t)arch->hidden, (size_t)arch->hidden);
    if (job.heads > 0) {
        sfq_save_rows(save->qkv_raw, e->qkv, job.t, job.ld, job.ld);
        if (job.w->q_norm.gain || job.w->k_norm.gain || la->rope || sfq_attention_keeps(&job))
            sfq_exec_rows(e, job.t, 4 * job.ld, sfq_attention_prepare, &job);
        sfq_save_rows(save->qkv, e->qkv, job.t, job.ld, job.ld);
        sfq_attention_split(&job);
        sfq_save_rows(save->att, e->att, job.t, job.heads * job.d, job.heads * job.d);
    }
    sfq_block_keep(e, batch, layer, e->att, job.heads * job.d);
    const sfq_linear o = {.w = &job.w->o, .y = out, .ldy = (size_t)arch->hidden};
    sfq_linear_run(e, &o, 1, e->att, job.heads * job.d, sfq_block_rows(e, batch, layer));
}
