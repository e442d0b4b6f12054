/* model/product.c - see product.h. An sfq_exec without a network: linear.c needs its kernels, pool
 * and the memory of quantized activations only. Many rows go through in blocks, so that memory has
 * a bound; no cut of the rows changes a bit. */
#include "model/product.h"

#include "base/ck.h"
#include "base/mem.h"
#include "model/exec.h"

#include <pthread.h>

enum {
    MOST_ROWS = 4096, /* of a block: a multiple of SFQ_QGEMM_ROWS */
    ROUND_ROWS = 16   /* groups of packed rows are whole */
};

struct sfq_workers {
    sfq_exec exec;
    size_t bytes; /* of exec.memory */
    pthread_mutex_t lock;
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
    (void)pthread_mutex_init(&w->lock, NULL); /* with NULL it cannot fail */
    w->exec.kernels = sfq_kernels_get(cap);
    SFQ_DO(sfq_workers_resize(w, threads, err));
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
    (void)pthread_mutex_destroy(&w->lock);
    sfq_mem_free(w->exec.worker_scratch);
    sfq_mem_free(w->exec.memory);
    sfq_mem_free(w);
    *workers = NULL;
}

sfq_status sfq_workers_resize(sfq_workers *w, int threads, sfq_error *err)
{
    sfq_pool *pool = NULL;
    SFQ_TRY(sfq_pool_open(&pool, threads, err));
    size_t count = (size_t)sfq_pool_threads(pool);
    uint8_t *scratch = sfq_mem_aligned(count * SFQ_WORKER_SCRATCH);
    if (scratch == NULL) {
        sfq_pool_close(&pool);
        return sfq_fail_memory(err, count * SFQ_WORKER_SCRATCH, "workers");
    }
    sfq_pool *old = sfq_workers_take(w);
    sfq_mem_free(w->exec.worker_scratch);
    w->exec.pool = pool;
    w->exec.threads = count;
    w->exec.worker_scratch = scratch;
    sfq_workers_leave(w);
    sfq_pool_close(&old);
    return SFQ_OK;
}

sfq_pool *sfq_workers_take(sfq_workers *workers)
{
    (void)pthread_mutex_lock(&workers->lock);
    return workers->exec.pool;
}

void sfq_workers_leave(sfq_workers *workers)
{
    (void)pthread_mutex_unlock(&workers->lock);
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

static sfq_status run_blocks(sfq_workers *w, const sfq_matrix *matrix, const float *x, size_t m,
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

sfq_status sfq_product_run(sfq_workers *w, const sfq_matrix *matrix, const float *x, size_t m,
                           float *y, sfq_error *err)
{
    (void)sfq_workers_take(w);
    sfq_status status = run_blocks(w, matrix, x, m, y, err);
    sfq_workers_leave(w);
    return status;
}

typedef struct decode_job {
    const sfq_kernels *kernels;
    const sfq_matrix *matrix;
    const int64_t *rows; /* [count] or NULL */
    float *out;          /* [count, K] */
} decode_job;

static void decode_task(void *ctx, size_t begin, size_t end, int worker)
{
    const decode_job *job = ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++)
        sfq_table_row(job->kernels, job->matrix, job->rows != NULL ? (size_t)job->rows[i] : i,
                      job->out + i * job->matrix->k);
}

void sfq_product_decode(sfq_workers *w, const sfq_matrix *matrix, const int64_t *rows, size_t count,
                        float *out)
{
    decode_job job = {w->exec.kernels, matrix, rows, out};
    (void)sfq_workers_take(w);
    sfq_exec_rows(&w->exec, count, 4 * matrix->k, decode_task, &job);
    sfq_workers_leave(w);
}
