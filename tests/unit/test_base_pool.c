/* The pool: every item exactly once, borders at multiples of the grain, many short jobs, sleep and
 * wake, more threads than processors. Run under ThreadSanitizer too (preset tsan). */
#include "base/pool.h"

#include "unit/unit.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

static sfq_error err;

enum { ITEMS_MAX = 700 };

typedef struct record {
    _Atomic int times[ITEMS_MAX];
    _Atomic int ranges;
    _Atomic int by_worker[SFQ_MAX_THREADS];
    _Atomic int wrong; /* cmocka's asserts must not fire on other threads */
    size_t n, grain;
    int threads;
    bool dynamic;
} record;

static void note(void *ctx, size_t begin, size_t end, int worker)
{
    record *r = ctx;
    bool border = begin % r->grain == 0 && (end % r->grain == 0 || end == r->n);
    bool whole = begin == 0 && end == r->n; /* run inline */
    if (begin >= end || end > r->n || worker < 0 || worker >= r->threads || !border ||
        (r->dynamic && end - begin > r->grain && !whole)) {
        atomic_fetch_add(&r->wrong, 1);
        return;
    }
    atomic_fetch_add(&r->ranges, 1);
    atomic_fetch_add(&r->by_worker[worker], 1);
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add(&r->times[i], 1);
}

static void check_run(sfq_pool *pool, size_t n, size_t grain, bool dynamic)
{
    static record r;
    memset(&r, 0, sizeof r);
    r.n = n;
    r.grain = grain;
    r.threads = sfq_pool_threads(pool);
    r.dynamic = dynamic;
    if (dynamic)
        sfq_pool_run_dynamic(pool, n, grain, note, &r);
    else
        sfq_pool_run(pool, n, grain, note, &r);
    assert_int_equal(r.wrong, 0);
    for (size_t i = 0; i < ITEMS_MAX; i++)
        assert_int_equal(r.times[i], i < n ? 1 : 0);
    if (!dynamic) {
        size_t units = (n + grain - 1) / grain;
        assert_true((size_t)r.ranges <= units && r.ranges <= r.threads);
        for (int w = 0; w < r.threads; w++)
            assert_true(r.by_worker[w] <= 1);
    }
}

static void every_item_once(void **state)
{
    (void)state;
    static const size_t grains[] = {1, 2, 7, 16, 64, 1000};
    for (int threads = 1; threads <= 5; threads++) {
        sfq_pool *pool;
        assert_ok(sfq_pool_open(&pool, threads, &err));
        assert_int_equal(sfq_pool_threads(pool), threads);
        for (size_t n = 0; n < ITEMS_MAX; n = n < 20 ? n + 1 : n + 37)
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
                check_run(pool, n, grains[g], false);
                check_run(pool, n, grains[g], true);
            }
        sfq_pool_close(&pool);
        assert_null(pool);
    }
    sfq_pool *none = NULL;
    assert_int_equal(sfq_pool_threads(NULL), 1);
    check_run(none, 100, 7, false);
    check_run(none, 100, 7, true);
    sfq_pool_close(&none);
}

/* All threads take part when there is work for each: one range per worker. */
static void split_is_even(void **state)
{
    (void)state;
    sfq_pool *pool;
    assert_ok(sfq_pool_open(&pool, 4, &err));
    static record r;
    memset(&r, 0, sizeof r);
    r.n = 403;
    r.grain = 4;
    r.threads = 4;
    sfq_pool_run(pool, r.n, r.grain, note, &r);
    assert_int_equal(r.ranges, 4);
    for (int w = 0; w < 4; w++)
        assert_int_equal(r.by_worker[w], 1);
    sfq_pool_close(&pool);
}

typedef struct slots {
    uint64_t sum[SFQ_MAX_THREADS][8]; /* plain memory: the pool's ordering must make it safe */
    uint64_t in;
} slots;

static void add_up(void *ctx, size_t begin, size_t end, int worker)
{
    slots *s = ctx;
    for (size_t i = begin; i < end; i++)
        s->sum[worker][0] += s->in + i;
}

/* The caller writes plain memory, workers read it and write their own, the caller reads that. */
static void run_many(int threads, int runs)
{
    sfq_pool *pool;
    assert_ok(sfq_pool_open(&pool, threads, &err));
    static slots s;
    memset(&s, 0, sizeof s);
    uint64_t expected = 0;
    for (int run = 0; run < runs; run++) {
        s.in = (uint64_t)run;
        if (run % 3 == 0)
            sfq_pool_run_dynamic(pool, 10, 1, add_up, &s);
        else
            sfq_pool_run(pool, 10, 1, add_up, &s);
        expected += 10 * (uint64_t)run + 45;
        uint64_t sum = 0;
        for (int w = 0; w < threads; w++)
            sum += s.sum[w][0];
        assert_true(sum == expected);
    }
    sfq_pool_close(&pool);
}

static void many_small_runs(void **state)
{
    (void)state;
    alarm(120);
    run_many(2, 20000);
    run_many(3, 3000);
    run_many(64, 300); /* far more threads than processors */
    alarm(0);
}

static long times_blocked(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_nvcsw;
}

/* Four threads on two processors and on one. There the caller, who has the only processor, must
 * give it away for a job of fixed ranges to end; it blocks to do so. Did it spin until its time
 * slice ends, it would not be counted as blocked. */
static void crowded(void **state)
{
    (void)state;
    cpu_set_t all, some;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&some);
    alarm(120);
    for (size_t i = 0, count = 0; i < CPU_SETSIZE && count < 2; i++) {
        if (!CPU_ISSET(i, &all))
            continue;
        CPU_SET(i, &some);
        count++;
        assert_int_equal(sched_setaffinity(0, sizeof some, &some), 0);
        const long before = times_blocked();
        run_many(4, 900); /* 600 of them fixed */
        if (count == 1)
            assert_true(times_blocked() - before > 300);
    }
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    alarm(0);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void sleeps_when_idle_and_wakes(void **state)
{
    (void)state;
    sfq_pool *pool;
    assert_ok(sfq_pool_open(&pool, 4, &err));
    for (int i = 0; i < 5; i++) {
        check_run(pool, 100, 1, i % 2 != 0);
        double before = cpu_seconds();
        usleep(100000);
        assert_true(cpu_seconds() - before < 0.05);
    }
    sfq_pool_close(&pool);
}

static void open_and_close(void **state)
{
    (void)state;
    sfq_pool *pool;
    for (int i = 0; i < 30; i++) { /* closed while the workers still start, spin or sleep */
        assert_ok(sfq_pool_open(&pool, 1 + i % 6, &err));
        if (i % 3 == 0)
            check_run(pool, 10, 1, false);
        sfq_pool_close(&pool);
    }
    assert_status(SFQ_E_ARGUMENT, sfq_pool_open(&pool, -1, &err));
    assert_fails(SFQ_E_ARGUMENT, "found 257", sfq_pool_open(&pool, SFQ_MAX_THREADS + 1, &err));
    assert_null(pool);
    assert_ok(sfq_pool_open(&pool, 0, &err));
    assert_int_equal(sfq_pool_threads(pool), sfq_threads_default());
    sfq_pool_close(&pool);
    assert_ok(sfq_pool_open(&pool, SFQ_MAX_THREADS, &err));
    check_run(pool, ITEMS_MAX, 1, false);
    sfq_pool_close(&pool);
}

static void huge_ranges(void *ctx, size_t begin, size_t end, int worker)
{
    (void)worker;
    atomic_fetch_add((_Atomic size_t *)ctx, end - begin);
}

static void no_overflow(void **state)
{
    (void)state;
    sfq_pool *pool;
    assert_ok(sfq_pool_open(&pool, 3, &err));
    _Atomic size_t sum = 0;
    sfq_pool_run(pool, SIZE_MAX, 64, huge_ranges, &sum);
    assert_true(sum == SIZE_MAX);
    sum = 0;
    sfq_pool_run_dynamic(pool, SIZE_MAX, SIZE_MAX / 3, huge_ranges, &sum);
    assert_true(sum == SIZE_MAX);
    sum = 0;
    sfq_pool_run_dynamic(pool, SIZE_MAX - 1, SIZE_MAX / 2 - 5, huge_ranges, &sum);
    assert_true(sum == SIZE_MAX - 1);
    sfq_pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once),
        cmocka_unit_test(split_is_even),
        cmocka_unit_test(many_small_runs),
        cmocka_unit_test(crowded),
        cmocka_unit_test(sleeps_when_idle_and_wakes),
        cmocka_unit_test(open_and_close),
        cmocka_unit_test(no_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
