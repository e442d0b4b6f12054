/* compress/arrange.c - sorting FFN neurons by range. A neuron is a row of gate and up, an element
 * of their biases, and a column of down; moving all of them together changes no result, bit by bit
 * of the weights (M5, M10 of the method notes: clusters of columns of like range, for free).
 *
 * Two kinds of cluster mix neurons. Where K < 334, several rows of gate and up share a scale:
 * neurons are sorted by the product of their rows' largest weights. Where down has several
 * segments, a scale covers a run of columns: neurons are sorted by their column's root mean square.
 * Else the order is left alone. */
#include "compress/arrange.h"

#include "base/ck.h"
#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

typedef struct neuron {
    double key;
    uint32_t index;
} neuron;

typedef struct range_job {
    const sfq_module *module;
    const sfq_tensor *weight;
    neuron *neurons;
    float *rows;     /* [threads][16 * K] */
    double *columns; /* [panels of the run, K] sums of squares */
} range_job;

bool sfq_arrange_helps(const sfq_module *up, const sfq_module *down)
{
    sfq_cluster u;
    sfq_cluster d;
    return up != NULL && down != NULL && up->n == down->k && up->n <= UINT32_MAX &&
           sfq_cluster_make(&u, up->n, up->k) && sfq_cluster_make(&d, down->n, down->k) &&
           (u.share > 1 || d.segments > 1);
}

/* key *= the row's largest magnitude */
static void row_task(void *ctx, size_t begin, size_t end, int worker)
{
    const range_job *job = ctx;
    const size_t k = job->module->k;
    float *row = job->rows + (size_t)worker * SFQ_PANEL_N * k;
    for (size_t n = begin; n < end; n++) {
        float most = 0;
        sfq_source_rows(row, job->module, job->weight, NULL, n, 1);
        for (size_t i = 0; i < k; i++) {
            float a = fabsf(row[i]);
            most = a > most ? a : most;
        }
        job->neurons[n].key *= (double)most;
    }
}

/* Sums of squares of one panel's columns. */
static void column_task(void *ctx, size_t begin, size_t end, int worker)
{
    const range_job *job = ctx;
    const size_t k = job->module->k;
    float *rows = job->rows + (size_t)worker * SFQ_PANEL_N * k;
    for (size_t p = begin; p < end; p++) {
        size_t n = sfq_min_size(job->module->n - p * SFQ_PANEL_N, SFQ_PANEL_N);
        double *sums = job->columns + p * k;
        sfq_source_rows(rows, job->module, job->weight, NULL, p * SFQ_PANEL_N, n);
        for (size_t r = 0; r < n; r++)
            for (size_t i = 0; i < k; i++)
                sums[i] += (double)rows[r * k + i] * (double)rows[r * k + i];
    }
}

static sfq_status rows_of(range_job *job, const sfq_source *s, const sfq_module *m, sfq_error *err)
{
    size_t floats = (size_t)sfq_pool_threads(s->pool) * SFQ_PANEL_N * m->k;
    job->module = m;
    job->weight = sfq_module_weight(m, s->ck);
    job->rows = SFQ_NEW_ARRAY(float, floats);
    return job->rows != NULL ? SFQ_OK : sfq_fail_memory(err, floats * sizeof(float), m->name);
}

static sfq_status key_by_rows(neuron *neurons, const sfq_source *s, const sfq_module *m,
                              sfq_error *err)
{
    range_job job = {.neurons = neurons};
    SFQ_TRY(rows_of(&job, s, m, err));
    sfq_pool_run(s->pool, m->n, SFQ_PANEL_N, row_task, &job);
    sfq_mem_free(job.rows);
    return SFQ_OK;
}

static sfq_status key_by_columns(neuron *neurons, const sfq_source *s, const sfq_module *m,
                                 sfq_error *err)
{
    range_job job = {.neurons = neurons};
    size_t panels = (m->n + SFQ_PANEL_N - 1) / SFQ_PANEL_N;
    sfq_status status = SFQ_OK;
    SFQ_DO(rows_of(&job, s, m, err));
    job.columns = SFQ_NEW_ARRAY(double, panels * m->k);
    if (job.columns == NULL) {
        status = sfq_fail_memory(err, panels * m->k * sizeof(double), m->name);
        goto done;
    }
    sfq_pool_run(s->pool, panels, 1, column_task, &job);
    for (size_t i = 0; i < m->k; i++) {
        double sum = 0; /* in panel order: the thread count does not matter */
        for (size_t p = 0; p < panels; p++)
            sum += job.columns[p * m->k + i];
        neurons[i].key = sum;
    }
done:
    sfq_mem_free(job.rows);
    sfq_mem_free(job.columns);
    return status;
}

static int by_key(const void *a, const void *b)
{
    const neuron *x = a;
    const neuron *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* A key that is not a number (the weights are refused later) must not confuse the sort. */
static void sort_neurons(neuron *neurons, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isnan(neurons[i].key))
            neurons[i].key = 0;
    qsort(neurons, n, sizeof *neurons, by_key);
}

sfq_status sfq_arrange_layer(sfq_arrangement *arrangement, const sfq_source *source, int layer,
                             sfq_error *err)
{
    const sfq_module *gate = sfq_modules_find(source->modules, SFQ_ROLE_GATE, layer);
    const sfq_module *up = sfq_modules_find(source->modules, SFQ_ROLE_UP, layer);
    const sfq_module *down = sfq_modules_find(source->modules, SFQ_ROLE_DOWN, layer);
    sfq_status status = SFQ_OK;
    sfq_cluster c;
    (void)sfq_cluster_make(&c, up->n, up->k); /* sfq_arrange_helps proved it */
    neuron *neurons = SFQ_NEW_ARRAY(neuron, up->n);
    uint32_t *order = SFQ_NEW_ARRAY(uint32_t, up->n);
    if (neurons == NULL || order == NULL) {
        status = sfq_fail_memory(err, up->n * sizeof *neurons, up->name);
        goto done;
    }
    for (size_t i = 0; i < up->n; i++)
        neurons[i] = (neuron){1.0, (uint32_t)i};
    if (c.share > 1) {
        SFQ_DO(key_by_rows(neurons, source, up, err));
        if (gate != NULL)
            SFQ_DO(key_by_rows(neurons, source, gate, err));
    } else {
        SFQ_DO(key_by_columns(neurons, source, down, err));
    }
    sort_neurons(neurons, up->n);
    for (size_t i = 0; i < up->n; i++)
        order[i] = neurons[i].index;
    arrangement->order[layer] = order;
    order = NULL;
done:
    sfq_mem_free(neurons);
    sfq_mem_free(order);
    return status;
}

sfq_status sfq_arrange_open(sfq_arrangement *arrangement, int layers, sfq_error *err)
{
    arrangement->order = SFQ_NEW_ARRAY(uint32_t *, (size_t)layers);
    arrangement->layers = arrangement->order != NULL ? layers : 0;
    if (arrangement->order == NULL)
        return sfq_fail_memory(err, (size_t)layers * sizeof(uint32_t *), "the order of neurons");
    return SFQ_OK;
}

void sfq_arrange_close(sfq_arrangement *arrangement)
{
    for (int i = 0; i < arrangement->layers; i++)
        sfq_mem_free(arrangement->order[i]);
    sfq_mem_free(arrangement->order);
    *arrangement = (sfq_arrangement){0};
}
