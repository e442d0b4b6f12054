/* model/embed_grad.c - backward of the embeddings: through their norm, then added to the rows of
 * the tables that the tokens read. Rows are added token after token, a range of columns per thread,
 * so that a row which many tokens share gets one sum. */
#include "model/grad_parts.h"

#include "base/ck.h"

enum { COLUMNS = 64 }; /* of an item */

typedef struct table_job {
    const sfq_grad *g;
    const sfq_matrix *table;
    const sfq_matrix_grad *into;
    const float *d;     /* [T, C] */
    const int32_t *row; /* [T]; NULL: position, or row 0 for all where that is NULL, too */
    const uint32_t *position;
} table_job;

static size_t row_of(const table_job *job, size_t t)
{
    if (job->row)
        return (size_t)job->row[t];
    return job->position ? job->position[t] : 0;
}

static void rows_task(void *ctx, size_t begin, size_t end, int worker)
{
    const table_job *job = (const table_job *)ctx;
    size_t k = job->table->k;
    (void)worker;
    for (size_t item = begin; item < end; item++) {
        size_t column = item * COLUMNS, n = sfq_min_size(COLUMNS, k - column);
        for (size_t t = 0; t < job->g->t; t++) {
            float *to = job->into->w + row_of(job, t) * k + column;
            const float *d = job->d + t * k + column;
            for (size_t i = 0; i < n; i++)
                to[i] += d[i];
        }
    }
}

/* A packed row is scale * (code - zero point): the scale of each of its clusters gets the sum of
 * gradient times (code - zero point), as in linear_grad.c. Clusters hold several rows, hence one
 * thread. */
static void add_scales(const table_job *job)
{
    const sfq_matrix *table = job->table;
    const sfq_cluster *c = &table->cluster;
    float *codes = job->g->scratch, *ones = codes + c->k;
    for (size_t i = 0; i < c->segments * (SFQ_PANEL_N / c->share); i++)
        ones[i] = 1.0F;
    for (size_t t = 0; t < job->g->t; t++) {
        size_t n = row_of(job, t);
        const float *d = job->d + t * c->k;
        job->g->exec->kernels->unpack_row(codes,
                                          table->codes + n / SFQ_PANEL_N * table->panel_bytes,
                                          table->bits, ones, c, n % SFQ_PANEL_N);
        for (size_t s = 0; s < c->segments; s++) {
            double sum = 0;
            for (size_t k = sfq_segment_begin(c, s); k < sfq_segment_end(c, s); k++)
                sum += (double)d[k] * (double)codes[k];
            job->into->scales[sfq_scale_index(c, n, s)] += (float)sum;
        }
    }
}

static void table_grad(const sfq_grad *g, const sfq_matrix *table, const sfq_matrix_grad *into,
                       const float *d, const int32_t *row, const uint32_t *position)
{
    table_job job = {g, table, into, d, row, position};
    if (table->n == 0)
        return;
    if (into->w)
        sfq_exec_rows(g->exec, (table->k + COLUMNS - 1) / COLUMNS, g->t * COLUMNS, rows_task, &job);
    if (into->scales && table->packed)
        add_scales(&job);
}

void sfq_embed_grad(sfq_grad *g, float *d, const sfq_net_grad *into)
{
    const sfq_net *net = g->net;
    if (net->embedding_norm.gain) {
        sfq_embed_batch(g->exec, g->batch, g->work, false);
        sfq_grad_norm(g, &net->embedding_norm, false, g->work, d, d, false, &into->embedding_norm);
    }
    table_grad(g, &net->word, &into->word, d, g->batch->ids, NULL);
    table_grad(g, &net->type, &into->type, d, g->batch->types, NULL);
    table_grad(g, &net->position, &into->position, d, NULL, g->exec->position);
}
