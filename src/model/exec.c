/* model/exec.c - scratch memory of a computing caller: one block, cut into the arrays of exec.h.
 * Its size is one function of network, threads and tokens, so that what sfq_exec_bytes promises is
 * what is allocated. It grows when a larger batch comes and never inside the decode loop. */
#include "model/exec.h"

#include "base/ck.h"
#include "base/mem.h"

enum {
    SFQ_EXEC_ROUND = 16, /* tokens: small batches of changing size do not reallocate */
    SFQ_RANGES_PER_THREAD = 4,
    SFQ_EXEC_INLINE = 1 << 15, /* multiply-adds below which waking the pool costs more */
    SFQ_EXEC_RANGE = 1 << 16   /* and below which taking another range does */
};

static void sfq_widen(size_t *max, size_t value)
{
    *max = sfq_max_size(*max, value);
}

static void sfq_widen_packed(sfq_exec_widths *w, const sfq_matrix *m)
{
    if (!m->packed)
        return;
    sfq_widen(&w->k_padded, m->cluster.k_blocks * SFQ_BLOCK_K);
    sfq_widen(&w->segments, m->cluster.segments);
}

sfq_exec_widths sfq_exec_measure(const sfq_net *net)
{
    const sfq_arch *a = net->arch;
    sfq_exec_widths w = {.att = (size_t)a->hidden, .half = (size_t)a->rope_dims / 2};
    for (int i = 0; i < a->layers; i++) {
        const sfq_layer_arch *l = &a->layer[i];
        const sfq_layer_weights *lw = &net->layer[i];
        size_t heads = (size_t)l->heads, kv = (size_t)l->kv_heads, d = (size_t)a->head_dim;
        sfq_widen(&w.qkv, (heads + 2 * kv) * d);
        sfq_widen(&w.att, heads * d);
        sfq_widen(&w.ffn, (size_t)l->ffn * (a->gated ? 2 : 1));
        const sfq_matrix *all[] = {&lw->q, &lw->k,    &lw->v,  &lw->qkv,
                                   &lw->o, &lw->gate, &lw->up, &lw->down};
        for (size_t j = 0; j < sizeof(all) / sizeof(all[0]); j++)
            sfq_widen_packed(&w, all[j]);
    }
    sfq_widen_packed(&w, &net->lm_head);
    sfq_widen_packed(&w, &net->pooler);
    sfq_widen_packed(&w, &net->classifier);
    return w;
}

bool sfq_exec_carve(size_t *at, size_t count, size_t width, size_t size, size_t *offset)
{
    size_t bytes;
    *offset = *at;
    return sfq_ck_mul(count, width, &bytes) && sfq_ck_mul(bytes, size, &bytes) &&
           sfq_ck_round_up(bytes, 64, &bytes) && sfq_ck_add(*at, bytes, at);
}

/* Offsets of the arrays for t tokens in the order of exec.h, the whole size in *bytes. */
enum { SFQ_EXEC_ARRAYS = 12 };
static bool sfq_exec_layout(const sfq_net *net, const sfq_exec_widths *w, size_t t,
                            size_t offset[SFQ_EXEC_ARRAYS], size_t *bytes)
{
    size_t c = (size_t)net->arch->hidden;
    const size_t row[SFQ_EXEC_ARRAYS][2] = {
        {c, sizeof(float)},           {c, sizeof(float)},
        {w->qkv, sizeof(float)},      {w->att, sizeof(float)},
        {w->ffn, sizeof(float)},      {w->half, sizeof(float)},
        {w->half, sizeof(float)},     {w->k_padded, sizeof(int16_t)},
        {w->segments, sizeof(float)}, {w->segments, sizeof(int32_t)},
        {1, sizeof(uint32_t)},        {1, sizeof(uint32_t)},
    };
    *bytes = 0;
    for (size_t i = 0; i < SFQ_EXEC_ARRAYS; i++)
        if (!sfq_exec_carve(bytes, t, row[i][0], row[i][1], &offset[i]))
            return false;
    return true;
}

uint64_t sfq_exec_bytes(const sfq_net *net, int threads, size_t tokens)
{
    sfq_exec_widths w = sfq_exec_measure(net);
    size_t offset[SFQ_EXEC_ARRAYS], bytes, rounded;
    if (!sfq_ck_round_up(tokens, SFQ_EXEC_ROUND, &rounded) ||
        !sfq_exec_layout(net, &w, rounded, offset, &bytes))
        return UINT64_MAX;
    return (uint64_t)bytes + sizeof(sfq_exec) + (uint64_t)threads * SFQ_WORKER_SCRATCH;
}

sfq_status sfq_exec_reserve(sfq_exec *e, size_t tokens, sfq_error *err)
{
    size_t offset[SFQ_EXEC_ARRAYS], bytes, rounded;
    if (tokens <= e->capacity)
        return SFQ_OK;
    if (!sfq_ck_round_up(tokens, SFQ_EXEC_ROUND, &rounded) || rounded > UINT32_MAX ||
        !sfq_exec_layout(e->net, &e->widths, rounded, offset, &bytes))
        return sfq_fail(err, SFQ_E_LIMIT, "a batch of %zu tokens is too large", tokens);
    sfq_mem_free(e->memory); /* first: both at once would pass what sfq_exec_bytes says */
    e->capacity = 0;
    e->memory = sfq_mem_aligned(bytes);
    if (!e->memory)
        return sfq_fail_memory(err, bytes, "scratch of the forward pass");
    char *base = (char *)e->memory;
    e->capacity = rounded;
    e->x = (float *)(base + offset[0]);
    e->h = (float *)(base + offset[1]);
    e->qkv = (float *)(base + offset[2]);
    e->att = (float *)(base + offset[3]);
    e->ffn = (float *)(base + offset[4]);
    e->cos = (float *)(base + offset[5]);
    e->sin = (float *)(base + offset[6]);
    e->codes = (int16_t *)(base + offset[7]);
    e->a_scales = (float *)(base + offset[8]);
    e->a_sums = (int32_t *)(base + offset[9]);
    e->position = (uint32_t *)(base + offset[10]);
    e->sequence = (uint32_t *)(base + offset[11]);
    return SFQ_OK;
}

sfq_status sfq_exec_open(sfq_exec **out, const sfq_net *net, const sfq_kernels *kernels,
                         sfq_pool *pool, sfq_error *err)
{
    *out = NULL;
    sfq_exec *e = SFQ_NEW(sfq_exec);
    if (!e)
        return sfq_fail_memory(err, sizeof(*e), "scratch of the forward pass");
    e->net = net;
    e->kernels = kernels;
    e->pool = pool;
    e->threads = (size_t)sfq_pool_threads(pool);
    e->widths = sfq_exec_measure(net);
    e->kv = sfq_net_kv(net);
    sfq_rope_frequencies(net->arch, e->inv_freq, &e->rope_factor);
    e->worker_scratch = (uint8_t *)sfq_mem_aligned(e->threads * SFQ_WORKER_SCRATCH);
    if (!e->worker_scratch) {
        sfq_exec_close(&e);
        return sfq_fail_memory(err, SFQ_WORKER_SCRATCH, "scratch of the forward pass");
    }
    *out = e;
    return SFQ_OK;
}

void sfq_exec_close(sfq_exec **exec)
{
    if (!exec || !*exec)
        return;
    sfq_mem_free((*exec)->worker_scratch);
    sfq_mem_free((*exec)->memory);
    sfq_mem_free(*exec);
    *exec = NULL;
}

sfq_dtype sfq_net_kv(const sfq_net *net)
{
    for (int i = 0; i < net->arch->layers && net->arch->causal; i++) {
        const sfq_layer_weights *w = &net->layer[i];
        if (w->qkv.packed || w->q.packed || w->o.packed || w->up.packed || w->down.packed)
            return SFQ_F16;
    }
    return SFQ_F32;
}

sfq_dtype sfq_exec_kv(const sfq_exec *exec)
{
    return exec->kv;
}

void sfq_exec_set_kv(sfq_exec *exec, sfq_dtype kind)
{
    exec->kv = kind;
}

void sfq_exec_free_order(sfq_exec *exec)
{
    exec->free_order = !exec->net->word.packed && exec->widths.k_padded == 0;
}

void sfq_exec_rows(sfq_exec *e, size_t n, size_t work, sfq_task_fn fn, void *ctx)
{
    const size_t share = (n + e->threads - 1) / e->threads; /* of a thread */
    const size_t least = sfq_min_size(share, SFQ_EXEC_RANGE / sfq_max_size(1, work) + 1);
    sfq_exec_uneven(e, n, work, sfq_max_size(least, share / SFQ_RANGES_PER_THREAD), fn, ctx);
}

void sfq_exec_uneven(sfq_exec *e, size_t n, size_t work, size_t grain, sfq_task_fn fn, void *ctx)
{
    if (n == 0)
        return;
    if (n == 1 || e->threads == 1 || n * work < SFQ_EXEC_INLINE)
        fn(ctx, 0, n, 0);
    else
        sfq_pool_run_dynamic(e->pool, n, grain, fn, ctx);
}
