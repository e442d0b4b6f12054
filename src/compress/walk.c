/* compress/walk.c - a batch is a run of whole sequences, so its states lie side by side and a
 * sublayer can run in their place. Half a layer is a layer whose other half was dropped: the one
 * forward pass computes it. */
#include "compress/walk.h"

#include "base/ck.h"
#include "base/mem.h"

#include <string.h>

enum { BATCH_TOKENS = 2048 };

size_t sfq_walk_end(const sfq_calibration *calibration, size_t first)
{
    return sfq_work_batch_end(calibration, first, calibration->tune, BATCH_TOKENS);
}

size_t sfq_walk_batch_tokens(const sfq_calibration *c)
{
    size_t most = 1;
    for (size_t first = 0, end; first < c->tune; first = end) {
        end = sfq_walk_end(c, first);
        most = sfq_max_size(most, c->offset[end] - c->offset[first]);
    }
    return most;
}

static sfq_status take_batch(sfq_walk *w, size_t first, size_t end, sfq_error *err)
{
    sfq_token_batch_clear(&w->batch);
    for (size_t i = first; i < end; i++)
        SFQ_TRY(sfq_token_batch_take(&w->batch, w->work->calibration, i, err));
    return SFQ_OK;
}

sfq_status sfq_walk_open(sfq_walk *w, const sfq_work *work, const sfq_net *net, sfq_error *err)
{
    const sfq_calibration *cal = work->calibration;
    const size_t layers = (size_t)net->arch->layers;
    const size_t c = (size_t)net->arch->hidden;
    *w = (sfq_walk){.work = work, .view = *net, .t = cal->offset[cal->tune]};
    w->batch_t = sfq_walk_batch_tokens(cal);
    w->x = SFQ_NEW_ARRAY(float, w->t *c);
    w->copy = SFQ_NEW_ARRAY(float, w->batch_t *c);
    w->layer = SFQ_NEW_ARRAY(sfq_layer_weights, layers);
    if (w->x == NULL || w->copy == NULL || w->layer == NULL)
        return sfq_fail_memory(err, (w->t + w->batch_t) * c * sizeof(float), "hidden states");
    memcpy(w->layer, net->layer, layers * sizeof *w->layer);
    w->view.layer = w->layer;
    SFQ_TRY(sfq_exec_open(&w->exec, &w->view, work->kernels, work->pool, err));
    for (size_t first = 0, end; first < cal->tune; first = end) {
        SFQ_TRY(sfq_work_check(work, err));
        end = sfq_walk_end(cal, first);
        SFQ_TRY(take_batch(w, first, end, err));
        SFQ_TRY(sfq_forward_embed(w->exec, &w->batch.batch, w->x + cal->offset[first] * c, err));
    }
    return SFQ_OK;
}

void sfq_walk_close(sfq_walk *w)
{
    sfq_token_batch_free(&w->batch);
    sfq_exec_close(&w->exec);
    sfq_mem_free(w->x);
    sfq_mem_free(w->copy);
    sfq_mem_free(w->layer);
    *w = (sfq_walk){0};
}

uint64_t sfq_walk_bytes(const sfq_work *work, const sfq_net *net)
{
    const sfq_calibration *cal = work->calibration;
    const size_t batch = sfq_walk_batch_tokens(cal);
    const uint64_t states =
        sfq_cap_mul(cal->offset[cal->tune] + batch, (uint64_t)net->arch->hidden * sizeof(float));
    return sfq_cap_add(states, sfq_exec_bytes(net, sfq_pool_threads(work->pool), batch));
}

/* The layer without its other sublayer and without the norm that belongs to that one. */
static void drop_other(sfq_layer_weights *layer, sfq_part part)
{
    sfq_norm *const other = part == SFQ_PART_ATTN ? &layer->ffn_norm : &layer->attn_norm;
    sfq_matrix *const out = part == SFQ_PART_ATTN ? &layer->down : &layer->o;
    *other = (sfq_norm){0};
    *out = (sfq_matrix){0};
}

sfq_status sfq_walk_run(sfq_walk *w, int layer, sfq_part part, size_t first, size_t end,
                        const sfq_block_save *save, bool advance, sfq_error *err)
{
    const sfq_calibration *cal = w->work->calibration;
    const size_t c = (size_t)w->view.arch->hidden;
    const sfq_layer_weights whole = w->layer[layer];
    float *x = w->x + cal->offset[first] * c;
    SFQ_TRY(take_batch(w, first, end, err));
    if (!advance) {
        memcpy(w->copy, x, (cal->offset[end] - cal->offset[first]) * c * sizeof *x);
        x = w->copy;
    }
    drop_other(&w->layer[layer], part);
    const sfq_status status = sfq_forward_layer(w->exec, &w->batch.batch, layer, x, save, err);
    w->layer[layer] = whole;
    return status;
}
