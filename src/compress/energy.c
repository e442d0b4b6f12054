/* compress/energy.c - what every output projection reads, on average: the net runs layer by layer
 * over the tune part, the pieces of the forward pass leave copies of its inputs, and a column's
 * squares are summed over tokens in their order, so that threads do not matter. */
#include "compress/energy.h"

#include "base/ck.h"
#include "base/mem.h"

#include <math.h>

enum {
    TOKENS = 1024,     /* of a batch, about */
    COLUMN_GRAIN = 64, /* columns of a worker's item */
    INPUTS = 2         /* of a layer: att, ffn_act */
};

/* ---- layout: all vectors in one piece ---- */

static void widths_of(const sfq_arch *a, int layer, size_t width[INPUTS])
{
    const sfq_layer_arch *l = &a->layer[layer];
    width[0] = (size_t)l->heads * (size_t)a->head_dim;
    width[1] = (size_t)l->ffn;
}

static size_t floats_of(const sfq_arch *a)
{
    size_t floats = 0;
    for (int i = 0; i < a->layers; i++) {
        size_t width[INPUTS];
        widths_of(a, i, width);
        floats += width[0] + width[1];
    }
    return floats;
}

typedef struct energy_owner {
    sfq_energy public;
    float **lists;  /* [2][layers] */
    float *vectors; /* [floats_of] */
} energy_owner;

static sfq_status open_energy(sfq_energy **out, const sfq_arch *a, sfq_error *err)
{
    const size_t layers = (size_t)a->layers, floats = floats_of(a);
    energy_owner *e = SFQ_NEW(energy_owner);
    *out = NULL;
    if (e != NULL) {
        e->lists = SFQ_NEW_ARRAY(float *, INPUTS *layers);
        e->vectors = SFQ_NEW_ARRAY(float, floats);
    }
    if (e == NULL || e->lists == NULL || e->vectors == NULL) {
        sfq_energy *partial = e != NULL ? &e->public : NULL;
        sfq_energy_close(&partial);
        return sfq_fail_memory(err, floats * sizeof(float), "the inputs' energies");
    }
    e->public = (sfq_energy){.layers = a->layers, .att = e->lists, .ffn_act = e->lists + layers};
    float *at = e->vectors;
    for (int i = 0; i < a->layers; i++) {
        size_t width[INPUTS];
        widths_of(a, i, width);
        for (size_t j = 0; j < INPUTS; j++) {
            e->lists[j * layers + (size_t)i] = at;
            at += width[j];
        }
    }
    *out = &e->public;
    return SFQ_OK;
}

void sfq_energy_close(sfq_energy **energy)
{
    energy_owner *e = (energy_owner *)*energy; /* its first member */
    if (e == NULL)
        return;
    sfq_mem_free(e->lists);
    sfq_mem_free(e->vectors);
    sfq_mem_free(e);
    *energy = NULL;
}

const float *sfq_energy_of(const sfq_energy *energy, const sfq_module *module)
{
    if (module->layer < 0 || module->layer >= energy->layers)
        return NULL;
    if (module->role == SFQ_ROLE_O)
        return energy->att[module->layer];
    return module->role == SFQ_ROLE_DOWN ? energy->ffn_act[module->layer] : NULL;
}

/* ---- the pass ---- */

/* Sums of squares of columns: sum[j] += sum over t of x[t][j]^2. */
typedef struct square_job {
    const float *x; /* [T, width] */
    size_t width, t;
    double *sum; /* [width] */
} square_job;

static void square_task(void *ctx, size_t begin, size_t end, int worker)
{
    const square_job *job = ctx;
    (void)worker;
    for (size_t t = 0; t < job->t; t++) {
        const float *x = job->x + t * job->width;
        for (size_t j = begin; j < end; j++)
            job->sum[j] += (double)x[j] * (double)x[j];
    }
}

typedef struct energy_pass {
    const sfq_work *work;
    const sfq_net *net;
    sfq_exec *exec;
    sfq_token_batch batch;
    float *x;      /* [T, C] */
    float *inside; /* [T, widest layer], cut anew for each layer */
    double *sums;  /* [floats_of], as the vectors lie */
} energy_pass;

/* Tokens of the largest batch. */
static size_t most_tokens(const sfq_calibration *c)
{
    size_t most = 0;
    for (size_t first = 0, end; first < c->tune; first = end) {
        end = sfq_work_batch_end(c, first, c->tune, TOKENS);
        most = sfq_max_size(most, c->offset[end] - c->offset[first]);
    }
    return most;
}

static size_t widest_layer(const sfq_arch *a)
{
    size_t widest = 0;
    for (int i = 0; i < a->layers; i++) {
        size_t width[INPUTS];
        widths_of(a, i, width);
        widest = sfq_max_size(widest, width[0] + width[1]);
    }
    return widest;
}

static sfq_status open_pass(energy_pass *p, sfq_error *err)
{
    const sfq_arch *a = p->net->arch;
    const size_t t = most_tokens(p->work->calibration);
    SFQ_TRY(sfq_exec_open(&p->exec, p->net, p->work->kernels, p->work->pool, err));
    p->x = SFQ_NEW_ARRAY(float, t *(size_t)a->hidden);
    p->inside = SFQ_NEW_ARRAY(float, t *widest_layer(a));
    p->sums = SFQ_NEW_ARRAY(double, floats_of(a));
    if (p->x == NULL || p->inside == NULL || p->sums == NULL)
        return sfq_fail_memory(err, t * widest_layer(a) * sizeof(float), "the inputs' energies");
    return SFQ_OK;
}

static void close_pass(energy_pass *p)
{
    sfq_exec_close(&p->exec);
    sfq_token_batch_free(&p->batch);
    sfq_mem_free(p->x);
    sfq_mem_free(p->inside);
    sfq_mem_free(p->sums);
}

static void add_squares(const energy_pass *p, const float *x, size_t width, size_t t, double *sum)
{
    square_job job = {x, width, t, sum};
    sfq_pool_run(p->work->pool, width, COLUMN_GRAIN, square_task, &job);
}

static sfq_status run_layer(energy_pass *p, int layer, double **sums, sfq_error *err)
{
    const size_t t = p->batch.batch.offset[p->batch.batch.sequences];
    size_t width[INPUTS];
    float *input[INPUTS], *at = p->inside;
    widths_of(p->net->arch, layer, width);
    for (size_t i = 0; i < INPUTS; i++) {
        input[i] = width[i] > 0 ? at : NULL;
        at += t * width[i];
    }
    const sfq_block_save save = {.att = input[0], .ffn_act = input[1]};
    SFQ_TRY(sfq_forward_layer(p->exec, &p->batch.batch, layer, p->x, &save, err));
    for (size_t i = 0; i < INPUTS; i++) {
        if (input[i] != NULL)
            add_squares(p, input[i], width[i], t, *sums);
        *sums += width[i];
    }
    return SFQ_OK;
}

static sfq_status run_batch(energy_pass *p, size_t first, size_t end, sfq_error *err)
{
    double *sums = p->sums;
    sfq_token_batch_clear(&p->batch);
    for (size_t i = first; i < end; i++)
        SFQ_TRY(sfq_token_batch_take(&p->batch, p->work->calibration, i, err));
    SFQ_TRY(sfq_forward_embed(p->exec, &p->batch.batch, p->x, err));
    for (int layer = 0; layer < p->net->arch->layers; layer++)
        SFQ_TRY(run_layer(p, layer, &sums, err));
    return SFQ_OK;
}

uint64_t sfq_energy_bytes(const sfq_work *work, const sfq_net *net)
{
    const size_t t = most_tokens(work->calibration);
    uint64_t row = sfq_cap_add(widest_layer(net->arch), (uint64_t)net->arch->hidden);
    uint64_t bytes = sfq_cap_mul(sfq_cap_mul(row, t), sizeof(float));
    bytes = sfq_cap_add(bytes, floats_of(net->arch) * (sizeof(float) + sizeof(double)));
    return sfq_cap_add(bytes, sfq_exec_bytes(net, sfq_pool_threads(work->pool), t));
}

sfq_status sfq_energy_run(sfq_energy **out, const sfq_work *work, const sfq_net *net,
                          sfq_error *err)
{
    const sfq_calibration *c = work->calibration;
    const size_t floats = floats_of(net->arch);
    energy_pass p = {.work = work, .net = net};
    sfq_energy *energy = NULL;
    sfq_status status = SFQ_OK;
    *out = NULL;
    SFQ_DO(open_energy(&energy, net->arch, err));
    SFQ_DO(open_pass(&p, err));
    float *vectors = ((energy_owner *)energy)->vectors;
    for (size_t first = 0, end; first < c->tune; first = end) {
        SFQ_DO(sfq_work_check(work, err));
        end = sfq_work_batch_end(c, first, c->tune, TOKENS);
        SFQ_DO(run_batch(&p, first, end, err));
        sfq_work_progress(work, c->offset[end], c->offset[c->tune], "tokens");
    }
    for (size_t i = 0; i < floats; i++) {
        vectors[i] = (float)(p.sums[i] / (double)c->offset[c->tune]);
        if (!isfinite(vectors[i])) {
            status = sfq_fail(err, SFQ_E_NUMERIC, "the model's states are not finite numbers");
            goto done;
        }
    }
    *out = energy;
    energy = NULL;
done:
    close_pass(&p);
    sfq_energy_close(&energy);
    return status;
}
