/* model/product.c - see product.h. An sfq_exec without a network: linear.c needs its kernels, pool
 * and the memory of quantized activations only. Many rows go through in blocks, so that memory has
 * a bound; no cut of the rows changes a bit. */
#include "model/product.h"

#include "base/ck.h"
#include "base/mem.h"
#include "model/exec.h"

enum {
    MOST_ROWS = 4096, /* of a block: a multiple of SFQ_QGEMM_ROWS */
    ROUND_ROWS = 16   /* groups of packed rows are whole */
};

struct sfq_workers {
    sfq_exec exec;
    size_t bytes; /* of exec.memory */
};

sfq_status sfq_workers_make(sfq_workers **out, int threads, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    sfq_isa cap = SFQ_ISA_COUNT;
    *out = NULL;
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    sfq_workers *w = SFQ_NEW(sfq_workers);
    if (w == NULL)
        return sfq_fail_memory(err, sizeof(*w), "workers");
    w->exec.kernels = sfq_kernels_get(cap);
    SFQ_DO(sfq_pool_open(&w->exec.pool, threads, err));
    w->exec.threads = (size_t)sfq_pool_threads(w->exec.pool);
    w->exec.worker_scratch = sfq_mem_aligned(w->exec.threads * SFQ_WORKER_SCRATCH);
    if (w->exec.worker_scratch == NULL) {
        status = sfq_fail_memory(err, w->exec.threads * SFQ_WORKER_SCRATCH, "workers");
        goto done;
    }
    *out = w;
    w = NULL;
done:
    sfq_workers_free(&w);
    return status;
}

void sfq_workers_free(sfq_workers **workers)
{
    if (workers == NULL || *workers == NULL)
        return;
    sfq_workers *w = *workers;
    sfq_pool_close(&w->exec.pool);
    sfq_mem_free(w->exec.worker_scratch);
    sfq_mem_free(w->exec.memory);
    sfq_mem_free(w);
    *workers = NULL;
}

sfq_pool *sfq_workers_pool(const sfq_workers *workers)
{
    return workers->exec.pool;
}

/* Room for the quantized activations of `rows` rows. */
static sfq_status reserve(sfq_workers *w, size_t rows, const sfq_cluster *c, sfq_error *err)
{
    sfq_exec *e = &w->exec;
    size_t at = 0, codes = 0, scales = 0, sums = 0, whole = 0;
    if (!sfq_ck_round_up(rows, ROUND_ROWS, &whole) ||
        !sfq_exec_carve(&at, whole, c->k_blocks * SFQ_BLOCK_K, sizeof(int16_t), &codes) ||
        !sfq_exec_carve(&at, whole, c->segments, sizeof(float), &scales) ||
        !sfq_exec_carve(&at, whole, c->segments, sizeof(int32_t), &sums))
        return sfq_fail(err, SFQ_E_LIMIT, "%zu rows of %zu inputs are too many", rows, c->k);
    if (at > w->bytes) {
        sfq_mem_free(e->memory);
        w->bytes = 0;
        e->memory = sfq_mem_aligned(at);
        if (e->memory == NULL)
            return sfq_fail_memory(err, at, "scratch of a product");
        w->bytes = at;
    }
    char *base = (char *)e->memory;
    e->codes = (int16_t *)(void *)(base + codes);
    e->a_scales = (float *)(void *)(base + scales);
    e->a_sums = (int32_t *)(void *)(base + sums);
    return SFQ_OK;
}

sfq_status sfq_product_run(sfq_workers *w, const sfq_matrix *matrix, const float *x, size_t m,
                           float *y, sfq_error *err)
{
    if (m == 0)
        return SFQ_OK;
    SFQ_TRY(reserve(w, sfq_min_size(m, MOST_ROWS), &matrix->cluster, err));
    for (size_t at = 0; at < m; at += MOST_ROWS) {
        const sfq_linear part = {.w = matrix, .y = y + at * matrix->n, .ldy = matrix->n};
        sfq_linear_run(&w->exec, &part, 1, x + at * matrix->k, matrix->k,
                       sfq_min_size(MOST_ROWS, m - at));
    }
    return SFQ_OK;
}

typedef struct decode_job {
    const sfq_kernels *kernels;
    const sfq_matrix *matrix;
    float *out; /* [N, K] */
} decode_job;

static void decode_task(void *ctx, size_t begin, size_t end, int worker)
{
    const decode_job *job = ctx;
    (void)worker;
    for (size_t n = begin; n < end; n++)
        sfq_table_row(job->kernels, job->matrix, n, job->out + n * job->matrix->k);
}

void sfq_product_decode(sfq_workers *w, const sfq_matrix *matrix, float *out)
{
    decode_job job = {w->exec.kernels, matrix, out};
    sfq_exec_rows(&w->exec, matrix->n, 4 * matrix->k, decode_task, &job);
}
