/* compress/score.c - the pass over the calibration set that prices every unit. With a mask m on the
 * outputs of the units, the loss around m = 1 is L + 1/2 (1-m)^T F (1-m), F = sum over sequences of
 * g g^T, g_u = dL/dm_u = sum over the unit's values of (value * gradient of the value). So one
 * backward pass of activation gradients per sequence is all it takes: no mask is ever built, no
 * weight gradient kept (M1). The squared gradient of each sublayer's output comes along for free:
 * it says what the loss sees of a token, and reconstruction weights tokens by it. */
#include "compress/score.h"

#include "base/ck.h"
#include "base/mem.h"
#include "compress/prune.h"
#include "compress/score_parts.h"

#include <math.h>
#include <string.h>

enum { BATCH_TOKENS = 2048, COLUMNS = 128 };

static const char *const names[SFQ_SALIENCY_COUNT] = {"fisher", "taylor", "magnitude", "error"};

const char *sfq_saliency_name(sfq_saliency_kind kind)
{
    return names[kind];
}

bool sfq_saliency_find(const char *name, sfq_saliency_kind *out)
{
    for (int i = 0; i < SFQ_SALIENCY_COUNT; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (sfq_saliency_kind)i;
            return true;
        }
    return false;
}

/* ---- the result ---- */

static bool open_layer(sfq_saliency *s, int layer, const sfq_layer_arch *a)
{
    sfq_layer_saliency *l = &s->layer[layer];
    const size_t kv = (size_t)a->kv_heads;
    const size_t f = (size_t)a->ffn;
    l->group = SFQ_NEW_ARRAY(float, kv);
    l->neuron = SFQ_NEW_ARRAY(float, f);
    l->attn_weight = SFQ_NEW_ARRAY(float, s->tokens);
    l->ffn_weight = SFQ_NEW_ARRAY(float, s->tokens);
    return l->group != NULL && l->neuron != NULL && l->attn_weight != NULL && l->ffn_weight != NULL;
}

static sfq_status open_saliency(sfq_saliency **out, const sfq_work *work, const sfq_arch *arch,
                                sfq_error *err)
{
    sfq_saliency *s = *out = SFQ_NEW(sfq_saliency);
    if (s == NULL)
        return sfq_fail_memory(err, sizeof *s, "saliencies");
    s->sequences = work->calibration->tune;
    s->tokens = work->calibration->offset[s->sequences];
    s->layer = SFQ_NEW_ARRAY(sfq_layer_saliency, (size_t)arch->layers);
    s->layers = s->layer != NULL ? arch->layers : 0;
    bool ok = s->layer != NULL;
    for (int i = 0; ok && i < arch->layers; i++)
        ok = open_layer(s, i, &arch->layer[i]);
    return ok ? SFQ_OK
              : sfq_fail_memory(err, (size_t)arch->layers * s->tokens * 2 * sizeof(float),
                                "saliencies");
}

void sfq_saliency_close(sfq_saliency **saliency)
{
    sfq_saliency *s = *saliency;
    if (s == NULL)
        return;
    for (int i = 0; i < s->layers; i++) {
        sfq_mem_free(s->layer[i].group);
        sfq_mem_free(s->layer[i].neuron);
        sfq_mem_free(s->layer[i].attn_weight);
        sfq_mem_free(s->layer[i].ffn_weight);
    }
    sfq_mem_free(s->layer);
    sfq_mem_free(s);
    *saliency = NULL;
}

/* ---- one backward pass ---- */

typedef struct score_run {
    const sfq_work *work;
    const sfq_arch *arch;
    sfq_pool *pool;
    sfq_saliency *out;
    bool fisher;
    sfq_grad *grad;
    sfq_seed seed;
    sfq_taylor *taylor; /* NULL but for Taylor */
    sfq_token_batch batch;
    float *d_hidden; /* [largest batch, C] */
    size_t first;    /* sequence and */
    size_t token;    /* token that the batch begins with */
    float *mask;     /* [sequences of the largest batch, widest layer] gradients of masks */
    double **sums;   /* [layers * SFQ_PARTS][units] of their squares */
} score_run;

typedef struct view_job {
    const score_run *run;
    const sfq_grad_view *view;
    size_t unit_columns, units;
    float *weight; /* [T] of the batch */
} view_job;

/* The sum over tokens and columns of value times gradient of columns [begin, end), at most COLUMNS,
 * one sum for each. */
static void column_sums(double *sums, const sfq_grad_view *v, size_t t0, size_t t1, size_t begin,
                        size_t end)
{
    memset(sums, 0, (end - begin) * sizeof *sums);
    for (size_t t = t0; t < t1; t++) {
        const float *a = v->act + t * v->width;
        const float *d = v->d_act + t * v->width;
        for (size_t c = begin; c < end; c++)
            sums[c - begin] += (double)a[c] * (double)d[c];
    }
}

/* Items: (sequence, run of units); a run has about COLUMNS columns, or one unit. */
static void mask_task(void *ctx, size_t begin, size_t end, int worker)
{
    const view_job *job = ctx;
    const sfq_batch *b = &job->run->batch.batch;
    const size_t run = sfq_max_size(COLUMNS / job->unit_columns, 1);
    const size_t runs = (job->units + run - 1) / run;
    double sums[COLUMNS];
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        const size_t s = i / runs;
        const size_t u0 = i % runs * run;
        const size_t u1 = sfq_min_size(u0 + run, job->units);
        float *mask = job->run->mask + s * job->units;
        double unit = 0;
        for (size_t c = u0 * job->unit_columns; c < u1 * job->unit_columns; c += COLUMNS) {
            const size_t to = sfq_min_size(c + COLUMNS, u1 * job->unit_columns);
            column_sums(sums, job->view, b->offset[s], b->offset[s + 1], c, to);
            for (size_t k = c; k < to; k++) {
                unit += sums[k - c];
                if ((k + 1) % job->unit_columns == 0) {
                    mask[k / job->unit_columns] = (float)unit;
                    unit = 0;
                }
            }
        }
    }
}

/* The squared gradient of the sublayer's output. */
static void weight_task(void *ctx, size_t begin, size_t end, int worker)
{
    const view_job *job = ctx;
    const size_t c = (size_t)job->run->arch->hidden;
    (void)worker;
    for (size_t t = begin; t < end; t++) {
        const float *d = job->view->d_out + t * c;
        double sum = 0;
        for (size_t i = 0; i < c; i++)
            sum += (double)d[i] * (double)d[i];
        job->weight[t] = (float)sum;
    }
}

static void see_sublayer(void *ud, const sfq_grad_view *view)
{
    score_run *run = ud;
    const sfq_layer_arch *a = &run->arch->layer[view->layer];
    sfq_layer_saliency *l = &run->out->layer[view->layer];
    view_job job = {.run = run, .view = view, .units = (size_t)(view->ffn ? a->ffn : a->kv_heads)};
    job.weight = (view->ffn ? l->ffn_weight : l->attn_weight) + run->token;
    sfq_pool_run(run->pool, view->t, 16, weight_task, &job);
    if (!run->fisher || job.units == 0)
        return;
    job.unit_columns = view->width / job.units;
    const size_t per_run = sfq_max_size(COLUMNS / job.unit_columns, 1);
    const size_t runs = (job.units + per_run - 1) / per_run;
    const size_t sequences = run->batch.batch.sequences;
    sfq_pool_run(run->pool, sequences * runs, 1, mask_task, &job);
    double *sums = run->sums[view->layer * SFQ_PARTS + view->ffn];
    for (size_t s = 0; s < sequences; s++)
        for (size_t u = 0; u < job.units; u++) {
            const double g = (double)run->mask[s * job.units + u];
            sums[u] += g * g;
        }
}

static void layer_is_done(void *ud, int layer, float *d_hidden, size_t t, size_t c)
{
    const score_run *run = ud;
    (void)d_hidden, (void)t, (void)c;
    sfq_taylor_harvest(run->taylor, layer);
}

static sfq_status run_batch(score_run *run, sfq_error *err)
{
    const sfq_batch *b = &run->batch.batch;
    const size_t t = b->offset[b->sequences];
    const float *hidden = NULL;
    sfq_grad_hooks hooks = {.ud = run, .sublayer = see_sublayer};
    const sfq_net_grad *into = NULL;
    if (run->taylor != NULL) {
        into = sfq_taylor_into(run->taylor);
        hooks.inject = layer_is_done;
    }
    SFQ_TRY(sfq_grad_forward(run->grad, b, &hidden, err));
    memset(run->d_hidden, 0, t * (size_t)run->arch->hidden * sizeof *run->d_hidden);
    const sfq_seed_batch seed = {.batch = b,
                                 .hidden = hidden,
                                 .sequence = run->first,
                                 .token = run->token,
                                 .d_hidden = run->d_hidden};
    SFQ_TRY(sfq_seed_run(&run->seed, &seed, err));
    return sfq_grad_backward(run->grad, run->d_hidden, into, &hooks, err);
}

static sfq_status run_batches(score_run *run, int round, sfq_error *err)
{
    const sfq_work *work = run->work;
    const sfq_calibration *c = work->calibration;
    for (size_t end; run->first < c->tune; run->first = end) {
        sfq_prune_progress(work, round, run->first, 0);
        SFQ_TRY(sfq_work_check(work, err));
        end = sfq_work_batch_end(c, run->first, c->tune, BATCH_TOKENS);
        sfq_token_batch_clear(&run->batch);
        for (size_t i = run->first; i < end; i++)
            SFQ_TRY(sfq_token_batch_take(&run->batch, c, i, err));
        run->token = c->offset[run->first];
        SFQ_TRY(run_batch(run, err));
    }
    return SFQ_OK;
}

/* ---- before and after ---- */

static size_t longest(const sfq_calibration *c)
{
    size_t most = 1;
    for (size_t i = 0; i < c->tune; i++)
        most = sfq_max_size(most, c->offset[i + 1] - c->offset[i]);
    return most;
}

static void largest_batch(const sfq_calibration *c, size_t *sequences, size_t *tokens)
{
    *sequences = *tokens = 1;
    for (size_t first = 0, end; first < c->tune; first = end) {
        end = sfq_work_batch_end(c, first, c->tune, BATCH_TOKENS);
        *sequences = sfq_max_size(*sequences, end - first);
        *tokens = sfq_max_size(*tokens, c->offset[end] - c->offset[first]);
    }
}

static size_t widest_layer(const sfq_arch *arch)
{
    int most = 1;
    for (int i = 0; i < arch->layers; i++) {
        const sfq_layer_arch *l = &arch->layer[i];
        most = l->ffn > most ? l->ffn : most;
        most = l->kv_heads > most ? l->kv_heads : most;
    }
    return (size_t)most;
}

static sfq_status open_sums(score_run *run, size_t sequences, sfq_error *err)
{
    const size_t wide = widest_layer(run->arch);
    run->mask = SFQ_NEW_ARRAY(float, sequences *wide);
    run->sums = SFQ_NEW_ARRAY(double *, (size_t)run->arch->layers *SFQ_PARTS);
    bool ok = run->mask != NULL && run->sums != NULL;
    for (int i = 0; ok && i < run->arch->layers; i++) {
        double **sums = run->sums + (size_t)i * SFQ_PARTS;
        sums[SFQ_PART_ATTN] = SFQ_NEW_ARRAY(double, (size_t)run->arch->layer[i].kv_heads);
        sums[SFQ_PART_FFN] = SFQ_NEW_ARRAY(double, (size_t)run->arch->layer[i].ffn);
        ok = sums[SFQ_PART_ATTN] != NULL && sums[SFQ_PART_FFN] != NULL;
    }
    return ok ? SFQ_OK : sfq_fail_memory(err, sequences * wide * sizeof(float), "scores");
}

static sfq_status open_run(score_run *run, const sfq_student *student, sfq_saliency_kind kind,
                           int round, sfq_error *err)
{
    size_t sequences = 0;
    size_t tokens = 0;
    largest_batch(run->work->calibration, &sequences, &tokens);
    const size_t hidden = tokens * (size_t)run->arch->hidden;
    run->d_hidden = SFQ_NEW_ARRAY(float, hidden);
    if (run->d_hidden == NULL)
        return sfq_fail_memory(err, hidden * sizeof(float), "the gradients of a batch");
    if (run->fisher)
        SFQ_TRY(open_sums(run, sequences, err));
    SFQ_TRY(sfq_grad_open(&run->grad, student->net, run->work->kernels, run->pool, err));
    if (kind == SFQ_SALIENCY_TAYLOR)
        SFQ_TRY(sfq_taylor_open(&run->taylor, student, run->pool, err));
    return sfq_seed_open(&run->seed, run->work, student->net, run->grad, sequences, round, err);
}

static void close_run(score_run *run)
{
    for (int i = 0; run->sums != NULL && i < run->arch->layers * SFQ_PARTS; i++)
        sfq_mem_free(run->sums[i]);
    sfq_mem_free(run->sums);
    sfq_mem_free(run->mask);
    sfq_mem_free(run->d_hidden);
    sfq_seed_close(&run->seed);
    sfq_taylor_close(&run->taylor);
    sfq_grad_close(&run->grad);
    sfq_token_batch_free(&run->batch);
}

static void fisher_result(const score_run *run)
{
    for (int i = 0; i < run->arch->layers; i++) {
        sfq_layer_saliency *l = &run->out->layer[i];
        const sfq_layer_arch *a = &run->arch->layer[i];
        double *const *sums = run->sums + (size_t)i * SFQ_PARTS;
        for (int u = 0; u < a->kv_heads; u++)
            l->group[u] = (float)(sums[SFQ_PART_ATTN][u] / 2);
        for (int u = 0; u < a->ffn; u++)
            l->neuron[u] = (float)(sums[SFQ_PART_FFN][u] / 2);
    }
}

/* To mean 1; what no gradient reaches counts like the rest. The mean before. */
static double normalise(float *weight, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)weight[i];
    const double mean = n > 0 ? sum / (double)n : 0;
    const bool usable = isfinite(mean) && mean > 0;
    for (size_t i = 0; i < n; i++)
        weight[i] = usable ? (float)((double)weight[i] / mean) : 1;
    return mean;
}

static sfq_status run_gradients(sfq_saliency *out, const sfq_work *work, const sfq_student *student,
                                sfq_saliency_kind kind, int round, sfq_error *err)
{
    score_run run = {.work = work,
                     .arch = student->arch,
                     .pool = work->pool,
                     .out = out,
                     .fisher = kind == SFQ_SALIENCY_FISHER};
    double *kappa = SFQ_NEW_ARRAY(double, (size_t)out->layers *SFQ_PARTS);
    sfq_status status = SFQ_OK;
    if (kappa == NULL) {
        status = sfq_fail_memory(err, (size_t)out->layers * sizeof *kappa, "scores");
        goto done;
    }
    SFQ_DO(open_run(&run, student, kind, round, err));
    SFQ_DO(run_batches(&run, round, err));
    if (kind == SFQ_SALIENCY_FISHER)
        fisher_result(&run);
    if (kind == SFQ_SALIENCY_TAYLOR)
        sfq_taylor_result(run.taylor, out);
    for (int i = 0; i < out->layers; i++) {
        kappa[i * SFQ_PARTS] = normalise(out->layer[i].attn_weight, out->tokens);
        kappa[i * SFQ_PARTS + 1] = normalise(out->layer[i].ffn_weight, out->tokens);
        if (!isfinite(kappa[i * SFQ_PARTS]) || !isfinite(kappa[i * SFQ_PARTS + 1]))
            status = sfq_fail(err, SFQ_E_NUMERIC,
                              "prune: gradients in layer %d are no finite numbers; the weights are "
                              "damaged, or overflow on the calibration data",
                              i);
    }
    close_run(&run); /* its memory is free for what follows */
    run = (score_run){.arch = student->arch};
    if (status == SFQ_OK && kind == SFQ_SALIENCY_ERROR)
        SFQ_DO(sfq_error_saliency(out, work, student, kappa, err));
done:
    close_run(&run);
    sfq_mem_free(kappa);
    return status;
}

/* ---- magnitude ---- */

/* worth[unit] += squared norm of the columns of m [C, K] that it feeds. */
static sfq_status add_norms(float *worth, size_t units, const sfq_matrix *m, sfq_error *err)
{
    if (units == 0 || m->k == 0)
        return SFQ_OK;
    const size_t columns = m->k / units;
    float *row = SFQ_NEW_ARRAY(float, m->k);
    double *sums = SFQ_NEW_ARRAY(double, units);
    const bool ok = row != NULL && sums != NULL;
    for (size_t n = 0; ok && n < m->n; n++) {
        sfq_student_get_rows(m, n, 1, row);
        for (size_t k = 0; k < m->k; k++)
            sums[k / columns] += (double)row[k] * (double)row[k];
    }
    for (size_t u = 0; ok && u < units; u++)
        worth[u] = (float)sums[u];
    sfq_mem_free(row);
    sfq_mem_free(sums);
    return ok ? SFQ_OK : sfq_fail_memory(err, m->k * sizeof *row, "scores");
}

static sfq_status run_magnitude(sfq_saliency *out, const sfq_student *student, sfq_error *err)
{
    for (int i = 0; i < out->layers; i++) {
        const sfq_layer_arch *a = &student->arch->layer[i];
        const sfq_layer_weights *w = &student->net->layer[i];
        sfq_layer_saliency *l = &out->layer[i];
        SFQ_TRY(add_norms(l->group, (size_t)a->kv_heads, &w->o, err));
        SFQ_TRY(add_norms(l->neuron, (size_t)a->ffn, &w->down, err));
        (void)normalise(l->attn_weight, out->tokens);
        (void)normalise(l->ffn_weight, out->tokens);
    }
    return SFQ_OK;
}

/* ---- memory ---- */

uint64_t sfq_saliency_bytes(const sfq_work *work)
{
    const sfq_arch *arch = work->source->arch;
    const size_t t = work->calibration->offset[work->calibration->tune];
    uint64_t floats = 0;
    for (int i = 0; i < arch->layers; i++) {
        const sfq_layer_arch *l = &arch->layer[i];
        floats = sfq_cap_add(floats, (uint64_t)l->ffn + (uint64_t)l->kv_heads + 2 * (uint64_t)t);
    }
    return sfq_cap_mul(floats, sizeof(float));
}

uint64_t sfq_score_bytes(const sfq_work *work)
{
    const sfq_arch *arch = work->source->arch;
    const sfq_saliency_kind kind = sfq_prune_saliency(work->options);
    const int threads = sfq_pool_threads(work->pool);
    size_t sequences = 0;
    size_t tokens = 0;
    if (kind == SFQ_SALIENCY_MAGNITUDE)
        return sfq_saliency_bytes(work);
    largest_batch(work->calibration, &sequences, &tokens);
    const uint64_t room = sfq_cap_add(sfq_cap_mul(tokens, (uint64_t)arch->hidden),
                                      sfq_cap_mul(sequences, widest_layer(arch)));
    uint64_t pass = sfq_grad_bytes(work->teacher, threads, tokens, longest(work->calibration));
    pass = sfq_cap_add(pass, sfq_cap_mul(room, sizeof(float)));
    pass = sfq_cap_add(pass, sfq_seed_bytes(arch, sequences));
    if (kind == SFQ_SALIENCY_TAYLOR)
        pass = sfq_cap_add(pass, sfq_taylor_bytes(arch));
    const uint64_t error =
        kind == SFQ_SALIENCY_ERROR
            ? sfq_cap_add(sfq_error_bytes(arch, tokens), sfq_walk_bytes(work, work->teacher))
            : 0; /* follows when the pass is over */
    return sfq_cap_add(sfq_saliency_bytes(work), error > pass ? error : pass);
}

/* ---- all kinds ---- */

static bool all_finite(const float *x, int n)
{
    for (int i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static sfq_status check_scores(const sfq_saliency *s, const sfq_arch *arch, sfq_error *err)
{
    for (int i = 0; i < s->layers; i++)
        if (!all_finite(s->layer[i].group, arch->layer[i].kv_heads) ||
            !all_finite(s->layer[i].neuron, arch->layer[i].ffn))
            return sfq_fail(err, SFQ_E_NUMERIC,
                            "prune: saliencies of layer %d are no finite numbers; the weights are "
                            "damaged, or overflow on the calibration data",
                            i);
    return SFQ_OK;
}

sfq_status sfq_score_run(sfq_saliency **out, const sfq_work *work, const sfq_student *student,
                         sfq_saliency_kind kind, int round, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    SFQ_DO(open_saliency(out, work, student->arch, err));
    if (kind == SFQ_SALIENCY_MAGNITUDE)
        SFQ_DO(run_magnitude(*out, student, err));
    else
        SFQ_DO(run_gradients(*out, work, student, kind, round, err));
    SFQ_DO(check_scores(*out, student->arch, err));
done:
    if (status != SFQ_OK)
        sfq_saliency_close(out);
    return status;
}
