/* model/forward.c - the pass over all layers: checks a batch whole before anything is written,
 * looks the embeddings up, runs the blocks, applies the final norm, and only then lengthens the
 * caches. */
#include "model/exec.h"

#include <string.h>

/* ---- checks ---- */

static sfq_status sfq_check_sequence(const sfq_exec *e, const sfq_batch *b, size_t s,
                                     sfq_error *err)
{
    const sfq_arch *a = e->net->arch;
    sfq_dtype kv = e->kv;
    size_t count = b->offset[s + 1] - b->offset[s];
    size_t past = b->kv ? (size_t)sfq_kv_length(b->kv[s]) : 0;
    if (b->offset[s + 1] <= b->offset[s])
        return sfq_fail(err, SFQ_E_DATA, "sequence %zu of the batch is empty", s);
    if (b->kv && sfq_kv_kind(b->kv[s]) != kv)
        return sfq_fail(err, SFQ_E_ARGUMENT, "the KV cache keeps %s, the pass computes with %s",
                        sfq_dtype_info(sfq_kv_kind(b->kv[s]))->name, sfq_dtype_info(kv)->name);
    if (b->kv && count > (size_t)sfq_kv_capacity(b->kv[s]) - past)
        return sfq_fail(err, SFQ_E_LIMIT, "%zu tokens do not fit: %zu of %d positions are used",
                        count, past, sfq_kv_capacity(b->kv[s]));
    if (a->learned_positions && count > (size_t)a->max_positions - past)
        return sfq_fail(err, SFQ_E_LIMIT, "%zu tokens, but the model has %d positions",
                        past + count, a->max_positions);
    for (size_t t = b->offset[s]; t < b->offset[s + 1]; t++) {
        if (b->ids[t] < 0 || b->ids[t] >= a->vocab)
            return sfq_fail(err, SFQ_E_DATA,
                            "token id %d at position %zu is outside the vocabulary of %d",
                            (int)b->ids[t], t - b->offset[s], a->vocab);
        if (b->types && a->type_vocab > 0 && (b->types[t] < 0 || b->types[t] >= a->type_vocab))
            return sfq_fail(err, SFQ_E_DATA, "token type %d at position %zu, the model has %d",
                            (int)b->types[t], t - b->offset[s], a->type_vocab);
    }
    return SFQ_OK;
}

static sfq_status sfq_check_batch(const sfq_exec *e, const sfq_batch *b, sfq_error *err)
{
    const sfq_net *net = e->net;
    if (b->sequences == 0 || b->offset[0] != 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "a batch without sequences");
    if (b->kv && !net->arch->causal)
        return sfq_fail(err, SFQ_E_ARGUMENT, "%s reads whole sequences, without a KV cache",
                        net->arch->architecture);
    for (size_t s = 0; s < b->sequences; s++)
        SFQ_TRY(sfq_check_sequence(e, b, s, err));
    return SFQ_OK;
}

/* ---- embeddings ---- */

void sfq_table_row(const sfq_kernels *kernels, const sfq_matrix *table, size_t row, float *y)
{
    if (!table->packed) {
        size_t bytes = table->k * sfq_dtype_info(table->dtype)->bytes;
        sfq_to_f32(y, (const uint8_t *)table->w + row * bytes, table->dtype, table->k);
        return;
    }
    const sfq_cluster *c = &table->cluster;
    size_t panel = row / SFQ_PANEL_N, per_panel = c->segments * (SFQ_PANEL_N / c->share);
    kernels->unpack_row(y, table->codes + panel * table->panel_bytes, table->bits,
                        table->scales + panel * per_panel, c, row % SFQ_PANEL_N);
}

typedef struct sfq_embed_job {
    sfq_exec *e;
    const sfq_batch *batch;
    float *x; /* [T, C] */
    bool normed;
} sfq_embed_job;

/* Word row, plus type row, plus position row, then the embedding norm. */
static void sfq_embed_task(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_embed_job *job = (const sfq_embed_job *)ctx;
    sfq_exec *e = job->e;
    const sfq_net *net = e->net;
    size_t c = (size_t)net->arch->hidden;
    (void)worker;
    for (size_t t = begin; t < end; t++) {
        float *x = job->x + t * c, *h = e->h + t * c;
        sfq_table_row(e->kernels, &net->word, (size_t)job->batch->ids[t], x);
        if (net->type.n > 0) {
            size_t type = job->batch->types ? (size_t)job->batch->types[t] : 0;
            sfq_table_row(e->kernels, &net->type, type, h);
            e->kernels->add(x, h, c);
        }
        if (net->position.n > 0) {
            sfq_table_row(e->kernels, &net->position, e->position[t], h);
            e->kernels->add(x, h, c);
        }
        if (job->normed && net->embedding_norm.gain)
            e->kernels->layernorm(x, x, net->embedding_norm.gain, net->embedding_norm.bias,
                                  net->arch->norm_eps, c);
    }
}

void sfq_embed_batch(sfq_exec *e, const sfq_batch *batch, float *x, bool normed)
{
    sfq_embed_job job = {e, batch, x, normed};
    sfq_exec_rows(e, batch->offset[batch->sequences], 4 * (size_t)e->net->arch->hidden,
                  sfq_embed_task, &job);
}

static void sfq_angles_task(void *ctx, size_t begin, size_t end, int worker)
{
    sfq_exec *e = (sfq_exec *)ctx;
    size_t half = e->widths.half;
    (void)worker;
    for (size_t t = begin; t < end; t++)
        sfq_rope_angles(e->inv_freq, e->rope_factor, half, e->position[t], e->cos + t * half,
                        e->sin + t * half);
}

/* Position and sequence of each token, cos and sin of the positions. */
static void sfq_exec_place(sfq_exec *e, const sfq_batch *batch)
{
    e->cached = batch->kv != NULL;
    for (size_t s = 0; s < batch->sequences; s++) {
        uint32_t past = batch->kv ? (uint32_t)sfq_kv_length(batch->kv[s]) : 0;
        for (size_t t = batch->offset[s]; t < batch->offset[s + 1]; t++) {
            e->sequence[t] = (uint32_t)s;
            e->position[t] = past + (uint32_t)(t - batch->offset[s]);
        }
    }
    if (e->widths.half > 0)
        sfq_exec_rows(e, batch->offset[batch->sequences], 32 * e->widths.half, sfq_angles_task, e);
}

/* ---- the pass ---- */

static const sfq_block_save sfq_no_save = {0};

sfq_status sfq_forward(sfq_exec *exec, const sfq_batch *batch, const float **hidden, sfq_tap_fn tap,
                       void *tap_ud, sfq_error *err)
{
    const sfq_arch *arch = exec->net->arch;
    size_t c = (size_t)arch->hidden;
    if (tap && batch->last_only)
        return sfq_fail(err, SFQ_E_ARGUMENT, "a tap sees all tokens, not the last ones alone");
    SFQ_TRY(sfq_check_batch(exec, batch, err));
    size_t t = batch->offset[batch->sequences];
    SFQ_TRY(sfq_exec_reserve(exec, t, err));
    sfq_exec_place(exec, batch);
    exec->pass_tokens = t;
    sfq_embed_batch(exec, batch, exec->x, true);
    sfq_residual rest = {.x = exec->x, .dst = exec->x};
    for (int layer = 0; layer < arch->layers; layer++) {
        if (tap) {
            sfq_residual_norm(exec, t, &rest);
            rest = (sfq_residual){.x = exec->x, .dst = exec->x};
            tap(tap_ud, layer, exec->x, t, c);
        }
        sfq_block_run(exec, batch, layer, exec->x, &rest, &sfq_no_save);
    }
    exec->pass_tokens = 0;
    t = batch->last_only ? batch->sequences : t;
    if (!arch->pre_norm) {
        sfq_residual_norm(exec, t, &rest); /* its norm is the last layer's */
        rest = (sfq_residual){.x = exec->x, .dst = exec->x};
    }
    rest.norm = &exec->net->final_norm;
    sfq_residual_norm(exec, t, &rest);
    if (tap)
        tap(tap_ud, arch->layers, exec->x, t, c);
    for (size_t s = 0; batch->kv && s < batch->sequences; s++)
        sfq_kv_advance(batch->kv[s], batch->offset[s + 1] - batch->offset[s]);
    *hidden = exec->x;
    return SFQ_OK;
}

/* ---- the pass in pieces ---- */

sfq_status sfq_forward_open(sfq_exec *exec, const sfq_batch *batch, sfq_error *err)
{
    if (batch->kv || batch->last_only)
        return sfq_fail(err, SFQ_E_ARGUMENT, "the pass in pieces keeps no KV cache and all tokens");
    SFQ_TRY(sfq_check_batch(exec, batch, err));
    SFQ_TRY(sfq_exec_reserve(exec, batch->offset[batch->sequences], err));
    sfq_exec_place(exec, batch);
    return SFQ_OK;
}

sfq_status sfq_forward_embed(sfq_exec *exec, const sfq_batch *batch, float *x, sfq_error *err)
{
    SFQ_TRY(sfq_forward_open(exec, batch, err));
    sfq_embed_batch(exec, batch, x, true);
    return SFQ_OK;
}

sfq_status sfq_forward_layer(sfq_exec *exec, const sfq_batch *batch, int layer, float *x,
                             const sfq_block_save *save, sfq_error *err)
{
    sfq_residual rest = {.x = x, .dst = x};
    SFQ_TRY(sfq_forward_open(exec, batch, err));
    sfq_block_run(exec, batch, layer, x, &rest, save ? save : &sfq_no_save);
    if (save && exec->net->arch->pre_norm)
        rest.sum = save->ffn_sum;
    sfq_residual_norm(exec, batch->offset[batch->sequences], &rest);
    return SFQ_OK;
}

void sfq_forward_final(sfq_exec *exec, float *x, size_t t)
{
    const sfq_residual norm = {.x = x, .norm = &exec->net->final_norm, .dst = x};
    sfq_residual_norm(exec, t, &norm);
}
