/* base/pool.h - the thread pool: worker 0 is the caller, the others spin briefly for work and then
 * sleep on a futex. Work is split by index only, so no result depends on the thread count. */
#ifndef SFQ_BASE_POOL_H
#define SFQ_BASE_POOL_H

#include "base/status.h"

#define SFQ_MAX_THREADS 256

typedef struct sfq_pool sfq_pool;
/* Work on items [begin, end); worker in 0..threads-1 picks scratch memory, never results. */
typedef void (*sfq_task_fn)(void *ctx, size_t begin, size_t end, int worker);

/* threads 0: sfq_threads_default(). ARGUMENT outside 0..SFQ_MAX_THREADS. */
sfq_status sfq_pool_open(sfq_pool **out, int threads, sfq_error *err);
void sfq_pool_close(sfq_pool **pool);
int sfq_pool_threads(const sfq_pool *pool); /* 1 for NULL */

/* Items 0..n-1 in one contiguous range per worker, borders at multiples of grain (>= 1). Returns
 * when all is done. pool NULL runs inline. Not reentrant: a task must not call it. */
void sfq_pool_run(sfq_pool *pool, size_t n, size_t grain, sfq_task_fn fn, void *ctx);
/* The same, but ranges of `grain` items are taken one after the other (uneven work). */
void sfq_pool_run_dynamic(sfq_pool *pool, size_t n, size_t grain, sfq_task_fn fn, void *ctx);

typedef struct sfq_thread_limits {
    int affinity; /* processors in the affinity set */
    int cores;    /* physical cores among them */
    double quota; /* cgroup quota in processors; 0: none */
} sfq_thread_limits;

sfq_thread_limits sfq_thread_limits_get(void);
int sfq_threads_default(void); /* min of the three, >= 1 */

#endif
