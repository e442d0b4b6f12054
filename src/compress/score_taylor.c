/* compress/score_taylor.c - the saliency of Ma et al. 2023 ("LLM-Pruner: on the structural pruning
 * of large language models", equation 5): |w * dL/dw| of every weight that goes with the unit,
 * summed; the gradient of a batch at a time. Kept for comparison: it needs weight gradients, and
 * takes the loss for linear in each weight. */
#include "base/ck.h"
#include "base/mem.h"
#include "compress/choose.h"
#include "compress/score_parts.h"

#include <math.h>
#include <string.h>

enum { PANEL = 64 }; /* columns or rows of an item */

typedef struct part {
    sfq_matrix_grad grad; /* w [N, K] of the widest layer */
    size_t floats;
} part;

enum { PART_Q, PART_K, PART_V, PART_QKV, PART_O, PART_GATE, PART_UP, PART_DOWN, PART_COUNT };

struct sfq_taylor {
    const sfq_student *student;
    sfq_pool *pool;
    sfq_net_grad into;
    part parts[PART_COUNT];
    double **sums; /* [layers * SFQ_PARTS][units] */
};

static const sfq_matrix *matrix_of(const sfq_layer_weights *w, int p)
{
    const sfq_matrix *const all[PART_COUNT] = {&w->q, &w->k,    &w->v,  &w->qkv,
                                               &w->o, &w->gate, &w->up, &w->down};
    return all[p];
}

static sfq_matrix_grad *gradient_of(sfq_layer_grad *g, int p)
{
    sfq_matrix_grad *const all[PART_COUNT] = {&g->q, &g->k,    &g->v,  &g->qkv,
                                              &g->o, &g->gate, &g->up, &g->down};
    return all[p];
}

uint64_t sfq_taylor_bytes(const sfq_arch *arch)
{
    uint64_t most = 0;
    for (int i = 0; i < arch->layers; i++) {
        const uint64_t layer = sfq_cap_add(
            sfq_cap_mul((uint64_t)arch->layer[i].kv_heads, sfq_choose_group_cost(arch, i)),
            sfq_cap_mul((uint64_t)arch->layer[i].ffn, sfq_choose_neuron_cost(arch)));
        most = layer > most ? layer : most;
    }
    return sfq_cap_mul(most, sizeof(float));
}

static bool open_parts(sfq_taylor *t)
{
    const sfq_net *net = t->student->net;
    for (int p = 0; p < PART_COUNT; p++) {
        part *at = &t->parts[p];
        for (int i = 0; i < net->arch->layers; i++) {
            const sfq_matrix *m = matrix_of(&net->layer[i], p);
            at->floats = sfq_max_size(at->floats, m->n * m->k);
        }
        at->grad.w = at->floats > 0 ? SFQ_NEW_ARRAY(float, at->floats) : NULL;
        if (at->floats > 0 && at->grad.w == NULL)
            return false;
        for (int i = 0; i < net->arch->layers; i++)
            *gradient_of(&t->into.layer[i], p) = at->grad;
    }
    return true;
}

static bool open_sums(sfq_taylor *t)
{
    const sfq_arch *arch = t->student->arch;
    for (int i = 0; i < arch->layers; i++) {
        double **sums = t->sums + (size_t)i * SFQ_PARTS;
        sums[SFQ_PART_ATTN] = SFQ_NEW_ARRAY(double, (size_t)arch->layer[i].kv_heads);
        sums[SFQ_PART_FFN] = SFQ_NEW_ARRAY(double, (size_t)arch->layer[i].ffn);
        if (sums[SFQ_PART_ATTN] == NULL || sums[SFQ_PART_FFN] == NULL)
            return false;
    }
    return true;
}

sfq_status sfq_taylor_open(sfq_taylor **out, const sfq_student *student, sfq_pool *pool,
                           sfq_error *err)
{
    const size_t layers = (size_t)student->arch->layers;
    sfq_taylor *t = *out = SFQ_NEW(sfq_taylor);
    if (t == NULL)
        return sfq_fail_memory(err, sizeof *t, "scores");
    t->student = student;
    t->pool = pool;
    t->into.layer = SFQ_NEW_ARRAY(sfq_layer_grad, layers);
    t->sums = SFQ_NEW_ARRAY(double *, layers *SFQ_PARTS);
    if (t->into.layer == NULL || t->sums == NULL || !open_parts(t) || !open_sums(t)) {
        sfq_taylor_close(out);
        return sfq_fail_memory(err, (size_t)sfq_taylor_bytes(student->arch), "weight gradients");
    }
    return SFQ_OK;
}

void sfq_taylor_close(sfq_taylor **taylor)
{
    sfq_taylor *t = *taylor;
    if (t == NULL)
        return;
    for (int p = 0; p < PART_COUNT; p++)
        sfq_mem_free(t->parts[p].grad.w);
    for (int i = 0; t->sums != NULL && i < t->student->arch->layers * SFQ_PARTS; i++)
        sfq_mem_free(t->sums[i]);
    sfq_mem_free(t->sums);
    sfq_mem_free(t->into.layer);
    sfq_mem_free(t);
    *taylor = NULL;
}

const sfq_net_grad *sfq_taylor_into(const sfq_taylor *taylor)
{
    return &taylor->into;
}

/* ---- one matrix ---- */

typedef struct harvest_job {
    const sfq_matrix *m;
    const float *grad; /* [N, K] */
    size_t first;      /* row that unit 0 begins with */
    size_t size;       /* rows or columns of a unit */
    size_t units;
    double *sums; /* [units] */
} harvest_job;

static double product(const sfq_matrix *m, const float *grad, size_t row, size_t col, size_t n)
{
    const size_t bytes = sfq_dtype_info(m->dtype)->bytes;
    float w[PANEL];
    double sum = 0;
    for (size_t i = 0; i < n; i += PANEL) {
        const size_t at = row * m->k + col + i;
        const size_t some = sfq_min_size(n - i, PANEL);
        sfq_to_f32(w, (const uint8_t *)m->w + at * bytes, m->dtype, some);
        for (size_t k = 0; k < some; k++)
            sum += fabs((double)w[k] * (double)grad[at + k]);
    }
    return sum;
}

static void rows_task(void *ctx, size_t begin, size_t end, int worker)
{
    const harvest_job *job = ctx;
    (void)worker;
    for (size_t u = begin; u < end; u++)
        for (size_t r = 0; r < job->size; r++)
            job->sums[u] +=
                product(job->m, job->grad, job->first + u * job->size + r, 0, job->m->k);
}

static void columns_task(void *ctx, size_t begin, size_t end, int worker)
{
    const harvest_job *job = ctx;
    (void)worker;
    for (size_t n = 0; n < job->m->n; n++)
        for (size_t u = begin; u < end; u++)
            job->sums[u] += product(job->m, job->grad, n, u * job->size, job->size);
}

/* Rows [first, first + rows) of a part belong to the units evenly; rows 0: its columns do. */
static void harvest(const sfq_taylor *t, int layer, int p, int kind, size_t first, size_t rows)
{
    const sfq_layer_arch *a = &t->student->arch->layer[layer];
    const sfq_matrix *m = matrix_of(&t->student->net->layer[layer], p);
    harvest_job job = {.m = m,
                       .grad = t->parts[p].grad.w,
                       .first = first,
                       .units = (size_t)(kind == SFQ_PART_FFN ? a->ffn : a->kv_heads),
                       .sums = t->sums[layer * SFQ_PARTS + kind]};
    if (m->n == 0 || m->k == 0 || job.units == 0)
        return;
    job.size = (rows > 0 ? rows : m->k) / job.units;
    sfq_pool_run(t->pool, job.units, rows > 0 ? 1 : PANEL, rows > 0 ? rows_task : columns_task,
                 &job);
}

void sfq_taylor_harvest(sfq_taylor *t, int layer)
{
    const sfq_arch *arch = t->student->arch;
    const sfq_layer_arch *a = &arch->layer[layer];
    const size_t q = (size_t)a->heads * (size_t)arch->head_dim;
    const size_t kv = (size_t)a->kv_heads * (size_t)arch->head_dim;
    const size_t f = (size_t)a->ffn;
    harvest(t, layer, PART_Q, SFQ_PART_ATTN, 0, q);
    harvest(t, layer, PART_K, SFQ_PART_ATTN, 0, kv);
    harvest(t, layer, PART_V, SFQ_PART_ATTN, 0, kv);
    harvest(t, layer, PART_QKV, SFQ_PART_ATTN, 0, q);
    harvest(t, layer, PART_QKV, SFQ_PART_ATTN, q, kv);
    harvest(t, layer, PART_QKV, SFQ_PART_ATTN, q + kv, kv);
    harvest(t, layer, PART_O, SFQ_PART_ATTN, 0, 0);
    harvest(t, layer, PART_GATE, SFQ_PART_FFN, 0, f);
    harvest(t, layer, PART_UP, SFQ_PART_FFN, 0, f);
    harvest(t, layer, PART_DOWN, SFQ_PART_FFN, 0, 0);
    for (int p = 0; p < PART_COUNT; p++)
        if (t->parts[p].floats > 0)
            memset(t->parts[p].grad.w, 0, t->parts[p].floats * sizeof(float));
}

void sfq_taylor_result(const sfq_taylor *t, sfq_saliency *out)
{
    for (int i = 0; i < out->layers; i++) {
        const sfq_layer_arch *a = &t->student->arch->layer[i];
        for (int u = 0; u < a->kv_heads; u++)
            out->layer[i].group[u] = (float)t->sums[i * SFQ_PARTS + SFQ_PART_ATTN][u];
        for (int u = 0; u < a->ffn; u++)
            out->layer[i].neuron[u] = (float)t->sums[i * SFQ_PARTS + SFQ_PART_FFN][u];
    }
}
