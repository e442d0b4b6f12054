/* base/pool.c - a pool for many short jobs. A job is published by raising `epoch`; workers spin on
 * it for a moment, then sleep on it (futex). Where there are more threads than processors, spinning
 * would keep the very thread from running that is waited for, so nobody spins then.
 *
 * Workers enter a job through `gate`, which counts those inside and those done. A job of fixed
 * ranges is done when every worker is. A dynamic job is done when its ranges are taken and those
 * inside have left: the caller closes the gate on workers that have not come, so that on a busy
 * machine a job never waits for a thread that the kernel does not run.
 *
 * The job's fields are plain: they are written before the gate opens (release), read by those who
 * entered (acquire), and written again only after the last of them left. */
#include "base/pool.h"

#include "base/ck.h"
#include "base/limits.h"
#include "base/mem.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPIN_TURNS = 2000, CACHE_LINE = 64 };

/* The gate: bit 31 closed, bits 16..30 workers that are done, bits 0..15 workers inside. */
static const uint32_t GATE_CLOSED = 1u << 31;
static const uint32_t GATE_DONE = 1u << 16;

typedef struct pool_worker {
    sfq_pool *pool;
    pthread_t thread;
    int index;
} pool_worker;

struct sfq_pool {
    _Alignas(CACHE_LINE) _Atomic uint32_t epoch;
    _Atomic uint32_t sleepers; /* workers that may have to be woken */
    _Alignas(CACHE_LINE) _Atomic uint32_t gate;
    _Atomic uint32_t waiting;                 /* the caller may have to be woken */
    _Alignas(CACHE_LINE) _Atomic size_t next; /* dynamic: next range */
    _Alignas(CACHE_LINE) sfq_task_fn fn;
    void *ctx;
    size_t n;
    size_t grain;
    uint32_t job; /* the epoch that this job raised */
    bool dynamic;
    _Atomic bool stop;
    int threads;
    int spin;
    pool_worker *workers; /* [threads], [0] is the caller and has no thread */
};

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* ---- the work ---- */

static void run_fixed(sfq_pool *pool, int worker)
{
    size_t units = pool->n / pool->grain + (pool->n % pool->grain != 0);
    size_t threads = (size_t)pool->threads;
    size_t w = (size_t)worker;
    size_t each = units / threads;
    size_t more = units % threads; /* the first ones take one unit more */
    size_t begin = w * each + sfq_min_size(w, more);
    size_t end = begin + each + (w < more);
    if (begin == end)
        return;
    begin *= pool->grain;
    end = end == units ? pool->n : end * pool->grain;
    pool->fn(pool->ctx, begin, end, worker);
}

static void run_ranges(sfq_pool *pool, int worker)
{
    size_t units = pool->n / pool->grain + (pool->n % pool->grain != 0);
    for (;;) {
        size_t unit = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (unit >= units)
            return;
        size_t begin = unit * pool->grain;
        pool->fn(pool->ctx, begin, sfq_min_size(pool->grain, pool->n - begin) + begin, worker);
    }
}

static void run_job(sfq_pool *pool, int worker)
{
    if (pool->dynamic)
        run_ranges(pool, worker);
    else
        run_fixed(pool, worker);
}

/* ---- workers ---- */

/* Epochs wrap around. */
static bool is_later(uint32_t now, uint32_t seen)
{
    return (int32_t)(now - seen) > 0;
}

/* Returns the epoch once it is later than `seen`; not merely another one: who entered a job between
 * its gate and its announcement has seen an epoch that is yet to come. A worker counts itself as
 * asleep before the kernel compares the epoch; the caller raises the epoch before it looks at the
 * count: one of the two always sees the other (all four are sequentially consistent). */
static uint32_t wait_for_job(sfq_pool *pool, uint32_t seen)
{
    for (int i = 0; i < pool->spin; i++) {
        uint32_t now = atomic_load_explicit(&pool->epoch, memory_order_acquire);
        if (is_later(now, seen))
            return now;
        pause_cpu();
    }
    atomic_fetch_add(&pool->sleepers, 1);
    uint32_t now;
    while (!is_later(now = atomic_load(&pool->epoch), seen))
        futex_wait(&pool->epoch, now);
    atomic_fetch_sub(&pool->sleepers, 1);
    return now;
}

/* False: the job at hand is over. The job entered may be a later one than was announced. */
static bool enter(sfq_pool *pool)
{
    uint32_t gate = atomic_load_explicit(&pool->gate, memory_order_relaxed);
    while ((gate & GATE_CLOSED) == 0)
        if (atomic_compare_exchange_weak_explicit(&pool->gate, &gate, gate + 1,
                                                  memory_order_acquire, memory_order_relaxed))
            return true;
    return false;
}

static bool is_done(const sfq_pool *pool, uint32_t gate)
{
    return pool->dynamic ? (gate & (GATE_DONE - 1)) == 0
                         : (gate & ~GATE_CLOSED) / GATE_DONE == (uint32_t)pool->threads - 1;
}

/* After the last leave the job's fields are the caller's again, so nothing of them is read here. */
static void leave(sfq_pool *pool)
{
    atomic_fetch_add(&pool->gate, GATE_DONE - 1);
    if (atomic_load(&pool->waiting) != 0)
        futex_wake(&pool->gate, 1);
}

static void *worker_main(void *arg)
{
    pool_worker *worker = arg;
    sfq_pool *pool = worker->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_job(pool, seen);
        if (atomic_load_explicit(&pool->stop, memory_order_relaxed))
            return NULL;
        if (!enter(pool))
            continue;
        seen = pool->job;
        run_job(pool, worker->index);
        leave(pool);
    }
}

static void publish(sfq_pool *pool)
{
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->sleepers) != 0)
        futex_wake(&pool->epoch, INT_MAX);
}

static void wait_for_workers(sfq_pool *pool)
{
    if (pool->dynamic)
        atomic_fetch_or(&pool->gate, GATE_CLOSED);
    for (int i = 0; i < pool->spin; i++) {
        if (is_done(pool, atomic_load_explicit(&pool->gate, memory_order_acquire)))
            return;
        pause_cpu();
    }
    atomic_store(&pool->waiting, 1);
    uint32_t gate;
    while (!is_done(pool, gate = atomic_load(&pool->gate)))
        futex_wait(&pool->gate, gate);
    atomic_store(&pool->waiting, 0);
}

static void run(sfq_pool *pool, size_t n, size_t grain, bool dynamic, sfq_task_fn fn, void *ctx)
{
    if (n == 0)
        return;
    grain = sfq_max_size(grain, 1);
    if (sfq_pool_threads(pool) == 1 || n <= grain) {
        fn(ctx, 0, n, 0);
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    pool->n = n;
    pool->grain = grain;
    pool->dynamic = dynamic;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->job = atomic_load_explicit(&pool->epoch, memory_order_relaxed) + 1;
    atomic_store_explicit(&pool->gate, 0, memory_order_release);
    publish(pool);
    run_job(pool, 0);
    wait_for_workers(pool);
}

void sfq_pool_run(sfq_pool *pool, size_t n, size_t grain, sfq_task_fn fn, void *ctx)
{
    run(pool, n, grain, false, fn, ctx);
}

void sfq_pool_run_dynamic(sfq_pool *pool, size_t n, size_t grain, sfq_task_fn fn, void *ctx)
{
    run(pool, n, grain, true, fn, ctx);
}

/* ---- life ---- */

int sfq_pool_threads(const sfq_pool *pool)
{
    return pool != NULL ? pool->threads : 1;
}

/* Ends and joins workers 1 .. started. */
static void stop_workers(sfq_pool *pool, int started)
{
    atomic_store_explicit(&pool->stop, true, memory_order_relaxed);
    publish(pool);
    for (int i = 1; i <= started; i++)
        pthread_join(pool->workers[i].thread, NULL);
}

/* Signals are the program's business and stay with its own threads, but for those that a thread
 * raises by what it does: blocked, they would kill before the program's handler can say that a
 * mapped file was cut. Returns how many started. */
static int start_workers(sfq_pool *pool, int *errnum)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int started = 0;
    *errnum = 0;
    while (started < pool->threads - 1) {
        pool_worker *worker = &pool->workers[started + 1];
        *worker = (pool_worker){.pool = pool, .index = started + 1};
        *errnum = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (*errnum != 0)
            break;
        started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static int spin_turns(int threads)
{
    sfq_cpu_mask mask;
    int processors = sfq_limits_affinity(&mask);
    double quota = sfq_limits_cpu_quota("");
    bool crowded = threads > processors || (quota > 0 && threads > quota);
    return crowded ? 0 : SPIN_TURNS;
}

sfq_status sfq_pool_open(sfq_pool **out, int threads, sfq_error *err)
{
    *out = NULL;
    if (threads < 0 || threads > SFQ_MAX_THREADS)
        return sfq_fail(err, SFQ_E_ARGUMENT, "threads: expected 1 to %d or 0 for all, found %d",
                        SFQ_MAX_THREADS, threads);
    if (threads == 0)
        threads = sfq_threads_default();
    sfq_pool *pool = sfq_mem_aligned(sizeof *pool);
    pool_worker *workers = SFQ_NEW_ARRAY(pool_worker, (size_t)threads);
    if (pool == NULL || workers == NULL) {
        sfq_mem_free(pool);
        sfq_mem_free(workers);
        return sfq_fail_memory(err, sizeof *pool + (size_t)threads * sizeof *workers,
                               "a thread pool");
    }
    pool->threads = threads;
    atomic_store_explicit(&pool->gate, GATE_CLOSED, memory_order_relaxed);
    pool->spin = spin_turns(threads);
    pool->workers = workers;
    int errnum;
    int started = start_workers(pool, &errnum);
    if (started < threads - 1) {
        stop_workers(pool, started);
        sfq_mem_free(workers);
        sfq_mem_free(pool);
        return sfq_fail(err, SFQ_E_MEMORY,
                        "cannot start thread %d of %d (error %d); use fewer threads", started + 2,
                        threads, errnum);
    }
    *out = pool;
    return SFQ_OK;
}

void sfq_pool_close(sfq_pool **out)
{
    sfq_pool *pool = *out;
    if (pool == NULL)
        return;
    stop_workers(pool, pool->threads - 1);
    sfq_mem_free(pool->workers);
    sfq_mem_free(pool);
    *out = NULL;
}

sfq_thread_limits sfq_thread_limits_get(void)
{
    sfq_cpu_mask mask;
    sfq_thread_limits limits = {.affinity = sfq_limits_affinity(&mask)};
    limits.cores = sfq_limits_cores("", &mask);
    limits.quota = sfq_limits_cpu_quota("");
    return limits;
}

int sfq_threads_default(void)
{
    sfq_thread_limits limits = sfq_thread_limits_get();
    int threads = limits.affinity < limits.cores ? limits.affinity : limits.cores;
    if (limits.quota > 0 && limits.quota < threads)
        threads = (int)limits.quota;
    if (threads > SFQ_MAX_THREADS)
        threads = SFQ_MAX_THREADS;
    return threads > 0 ? threads : 1;
}
