/* model/linear.c - the one place that splits matrix work over the pool. Outputs are cut into panels
 * of 16 and, for many rows, tokens into blocks; a kernel computes each output from its own inputs
 * alone, so no cut changes a bit. Activations are quantized once per input, packed as the level's
 * multiply reads them, and shared by all packed matrices that read it. */
#include "model/exec.h"

#include "base/ck.h"

#include <string.h>

enum {
    SFQ_DECODE_ROWS = 32,             /* up to here all rows at once, cut along the panels */
    SFQ_GROUP_ROWS = 16,              /* blocks of rows keep groups of packed rows whole */
    SFQ_TOKEN_BLOCK = SFQ_QGEMM_ROWS, /* rows per item beyond that */
    SFQ_PANEL_CHUNK = 32,             /* panels per item at most */
    SFQ_STREAMS = 4,                  /* panels that a kernel reads side by side for one row */
    SFQ_QUANT_CODES = 8192,           /* codes that wait on the stack to be packed */
    SFQ_ITEMS_PER_THREAD = 4,
    SFQ_FEW_ROWS = 8,           /* of decode: weights are all that a product waits for */
    SFQ_LINEAR_INLINE = 1 << 16 /* multiply-adds below which the pool sleeps on */
};

_Static_assert(SFQ_QUANT_CODES / SFQ_SEGMENT_MAX > 0, "a segment at a time");

typedef struct sfq_linear_part {
    bool packed;
    size_t panel_begin, panel_end; /* place in the panels of all parts */
    sfq_qgemm_args q;
    sfq_gemm_args g;
} sfq_linear_part;

typedef struct sfq_linear_job {
    sfq_exec *e;
    size_t count;
    sfq_linear_part part[SFQ_LINEAR_MAX];
    sfq_quant_rows_args quant;    /* codes NULL: no part is packed */
    sfq_pack_rows_args pack;      /* bytes NULL: the codes are read as they are */
    const sfq_row_step *before;   /* NULL: x is there */
    size_t m, token_block;        /* rows, rows of an item */
    size_t panels, chunk, chunks; /* all panels, panels of an item, items along them */
    size_t large, larges;         /* few rows: the first items have so many panels */
} sfq_linear_job;

/* Panels [begin, end) of the job, rows [row, row + m). */
static void sfq_linear_range(const sfq_linear_job *job, size_t begin, size_t end, size_t row,
                             size_t m, void *scratch)
{
    for (size_t i = 0; i < job->count; i++) {
        const sfq_linear_part *p = &job->part[i];
        size_t from = sfq_max_size(begin, p->panel_begin), to = sfq_min_size(end, p->panel_end);
        if (from >= to)
            continue;
        from -= p->panel_begin;
        to -= p->panel_begin;
        if (p->packed) {
            sfq_qgemm_args q = p->q;
            if (q.a_bytes)
                q.a_bytes += row * q.a_planes * q.k_padded;
            else
                q.a += row * q.k_padded;
            q.a_scales += row * q.segments;
            q.a_sums += row * q.segments;
            q.y += row * q.ldy;
            q.m = m;
            q.scratch = scratch;
            job->e->kernels->qgemm(&q, from, to);
        } else {
            sfq_gemm_args g = p->g;
            g.x += row * g.ldx;
            g.y += row * g.ldy;
            g.m = m;
            g.scratch = scratch;
            job->e->kernels->gemm(&g, from * SFQ_PANEL_N, sfq_min_size(to * SFQ_PANEL_N, g.n));
        }
    }
}

/* Items run along the panels first, so that neighbours share the token block's activations. */
static void sfq_linear_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_linear_job *job = (const sfq_linear_job *)ctx;
    void *scratch = job->e->worker_scratch + (size_t)worker * SFQ_WORKER_SCRATCH;
    while (begin < end) {
        size_t block = begin / job->chunks, first = begin % job->chunks;
        size_t last = sfq_min_size(job->chunks, first + (end - begin));
        size_t row = block * job->token_block;
        sfq_linear_range(job, first * job->chunk, sfq_min_size(last * job->chunk, job->panels), row,
                         sfq_min_size(job->token_block, job->m - row), scratch);
        begin += last - first;
    }
}

/* Few rows: the first panel of an item. */
static size_t sfq_linear_panel(const sfq_linear_job *job, size_t item)
{
    const size_t larges = sfq_min_size(item, job->larges);
    return sfq_min_size(job->panels, larges * job->large + (item - larges) * job->chunk);
}

static void sfq_linear_few_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_linear_job *job = (const sfq_linear_job *)ctx;
    void *scratch = job->e->worker_scratch + (size_t)worker * SFQ_WORKER_SCRATCH;
    sfq_linear_range(job, sfq_linear_panel(job, begin), sfq_linear_panel(job, end), 0, job->m,
                     scratch);
}

/* Weights are read once and reading them is what takes the time: every thread gets three quarters
 * of its share in one piece, which it reads as long streams, and small pieces make the end even. */
static void sfq_linear_split_few(sfq_linear_job *job)
{
    const size_t threads = job->e->threads, share = job->panels / threads;
    job->larges = threads;
    job->large = share * 3 / 4 / SFQ_STREAMS * SFQ_STREAMS;
    const size_t rest = (share - job->large) / 2 / SFQ_STREAMS * SFQ_STREAMS;
    job->chunk = sfq_max_size(rest, sfq_min_size(SFQ_STREAMS, sfq_max_size(1, share)));
    const size_t left = job->panels - threads * job->large;
    sfq_pool_run_dynamic(job->e->pool, threads + (left + job->chunk - 1) / job->chunk, 1,
                         sfq_linear_few_task, job);
}

static void sfq_linear_split(sfq_linear_job *job, size_t work)
{
    sfq_exec *e = job->e;
    job->token_block = job->m;
    job->chunk = 1;
    if (e->threads == 1 || work < SFQ_LINEAR_INLINE) {
        job->token_block = job->m > SFQ_DECODE_ROWS ? SFQ_TOKEN_BLOCK : job->m;
        job->chunks = job->panels;
        sfq_linear_task(job, 0, job->chunks * ((job->m + job->token_block - 1) / job->token_block),
                        0);
        return;
    }
    if (job->m <= SFQ_DECODE_ROWS) {
        sfq_linear_split_few(job);
        return;
    }
    size_t wanted = e->threads * SFQ_ITEMS_PER_THREAD;
    job->token_block = SFQ_TOKEN_BLOCK;
    while (job->token_block > SFQ_GROUP_ROWS &&
           job->panels * ((job->m + job->token_block - 1) / job->token_block) < wanted)
        job->token_block /= 2;
    size_t blocks = (job->m + job->token_block - 1) / job->token_block;
    job->chunk = sfq_max_size(1, sfq_min_size(SFQ_PANEL_CHUNK, job->panels * blocks / wanted));
    job->chunks = (job->panels + job->chunk - 1) / job->chunk;
    sfq_pool_run_dynamic(e->pool, job->chunks * blocks, 1, sfq_linear_task, job);
}

/* Row m: some segments at a time are quantized and packed. */
static void sfq_quant_packed(const sfq_linear_job *job, size_t m)
{
    const sfq_quant_rows_args *all = &job->quant;
    const size_t part = SFQ_QUANT_CODES / all->segment_k;
    int16_t codes[SFQ_QUANT_CODES];
    sfq_pack_rows_args pack = job->pack;
    sfq_quant_rows_args q = *all;
    pack.codes = q.codes = codes;
    q.m = 1;
    for (size_t s = 0; s < all->segments; s += q.segments) {
        const size_t k = s * all->segment_k;
        q.segments = sfq_min_size(part, all->segments - s);
        q.x = all->x + m * all->ldx + k;
        q.k = sfq_min_size(q.segments * all->segment_k, all->k - k);
        q.k_padded = sfq_min_size(q.segments * all->segment_k, all->k_padded - k);
        q.scales = all->scales + m * all->segments + s;
        q.sums = all->sums + m * all->segments + s;
        job->e->kernels->quant_rows(&q, 0, 1);
        pack.first_block = k / SFQ_BLOCK_K;
        pack.blocks = q.k_padded / SFQ_BLOCK_K;
        job->e->kernels->pack_rows(&pack, m, m + 1);
    }
}

static void sfq_quant_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_linear_job *job = (const sfq_linear_job *)ctx;
    if (job->before)
        job->before->fn(job->before->ctx, begin, end, worker);
    if (!job->pack.bytes) {
        job->e->kernels->quant_rows(&job->quant, begin, end);
        return;
    }
    for (size_t m = begin; m < end; m++)
        sfq_quant_packed(job, m);
}

static void sfq_linear_bias(const sfq_linear *part, size_t m)
{
    for (size_t i = 0; i < m; i++)
        memcpy(part->y + i * part->ldy, part->w->bias, part->w->n * sizeof(float));
}

/* The activations that a packed matrix reads: e->codes holds them in either form. */
static void sfq_linear_quant(sfq_linear_job *job, const sfq_matrix *w, const float *x, size_t ldx)
{
    sfq_exec *e = job->e;
    const sfq_cluster *c = &w->cluster;
    job->quant = (sfq_quant_rows_args){.x = x,
                                       .ldx = ldx,
                                       .m = job->m,
                                       .k = w->k,
                                       .segments = c->segments,
                                       .segment_k = c->segment_k,
                                       .bits = w->activation_bits,
                                       .codes = e->codes,
                                       .k_padded = c->k_blocks * SFQ_BLOCK_K,
                                       .scales = e->a_scales,
                                       .sums = e->a_sums};
    if (e->kernels->bytes)
        job->pack = (sfq_pack_rows_args){.k_blocks = c->k_blocks,
                                         .m = job->m,
                                         .planes = w->activation_bits > 8 ? 2 : 1,
                                         .bytes = (int8_t *)e->codes};
}

/* Whether a product of dense weights takes the order of summation that a level has for many rows.
 * Not for the few rows of decode, which wait for memory, nor in poolers and classifiers, which have
 * a row for each sequence: nothing is to be gained there. Other passes without a cache take it for
 * any number of rows, so that what they give does not depend on the sequences of a batch; and the
 * rows that are left of a pass take it as the pass does. */
static bool sfq_linear_many(const sfq_exec *e, const sfq_matrix *w, size_t m)
{
    if (!e->free_order || w == &e->net->pooler || w == &e->net->classifier)
        return false;
    return !e->cached || sfq_max_size(m, e->pass_tokens) > SFQ_FEW_ROWS;
}

/* One matrix of the job. Packed parts of one job have the same k and activation bits, hence the
 * same segments, hence the same codes. */
static void sfq_linear_add(sfq_linear_job *job, const sfq_linear *part, const float *x, size_t ldx)
{
    const sfq_matrix *w = part->w;
    sfq_exec *e = job->e;
    sfq_linear_part *p = &job->part[job->count++];
    p->packed = w->packed;
    p->panel_begin = job->panels;
    p->panel_end = job->panels += (w->n + SFQ_PANEL_N - 1) / SFQ_PANEL_N;
    if (!w->packed) {
        p->g = (sfq_gemm_args){.w = w->w,
                               .dtype = w->dtype,
                               .n = w->n,
                               .k = w->k,
                               .ldw = w->k,
                               .bias = w->bias,
                               .x = x,
                               .ldx = ldx,
                               .y = part->y,
                               .ldy = part->ldy,
                               .many = sfq_linear_many(e, w, job->m)};
        return;
    }
    const sfq_cluster *c = &w->cluster;
    sfq_linear_quant(job, w, x, ldx);
    p->q = (sfq_qgemm_args){.codes = w->codes,
                            .panel_bytes = w->panel_bytes,
                            .bits = w->bits,
                            .n = w->n,
                            .k_blocks = c->k_blocks,
                            .segments = c->segments,
                            .segment_k = c->segment_k,
                            .share = c->share,
                            .scales = w->scales,
                            .bias = w->bias,
                            .a = e->codes,
                            .a_bytes = job->pack.bytes,
                            .a_planes = job->pack.planes,
                            .k_padded = job->quant.k_padded,
                            .a_scales = e->a_scales,
                            .a_sums = e->a_sums,
                            .y = part->y,
                            .ldy = part->ldy,
                            .activated = part->activated,
                            .act = part->act};
}

/* Whether a part can join the job: other activation bits need other codes. */
static bool sfq_linear_joins(const sfq_linear_job *job, const sfq_matrix *w)
{
    return job->count == 0 || !w->packed || job->quant.codes == NULL ||
           job->quant.bits == w->activation_bits;
}

void sfq_linear_run(sfq_exec *e, const sfq_linear *parts, size_t count, const float *x, size_t ldx,
                    size_t m)
{
    sfq_linear_run_after(e, parts, count, x, ldx, m, NULL);
}

void sfq_linear_run_after(sfq_exec *e, const sfq_linear *parts, size_t count, const float *x,
                          size_t ldx, size_t m, const sfq_row_step *before)
{
    size_t i = 0;
    while (i < count) {
        sfq_linear_job job = {.e = e, .m = m};
        size_t work = 0;
        for (; i < count && sfq_linear_joins(&job, parts[i].w); i++) {
            if (parts[i].w->k == 0) {
                sfq_linear_bias(&parts[i], m);
                continue;
            }
            sfq_linear_add(&job, &parts[i], x, ldx);
            work += m * parts[i].w->n * parts[i].w->k;
        }
        if (job.count == 0)
            continue;
        if (job.quant.codes) {
            job.before = before;
            sfq_exec_rows(e, m, 4 * job.quant.k_padded + (before ? before->work : 0),
                          sfq_quant_task, &job);
        } else if (before) {
            sfq_exec_rows(e, m, before->work, before->fn, before->ctx);
        }
        before = NULL;
        sfq_linear_split(&job, work);
    }
}
