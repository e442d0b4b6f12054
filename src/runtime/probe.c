/* runtime/probe.c - the roofs that inference runs under: how fast memory that no cache holds can be
 * read, by one thread and by all, and how many multiply-adds each level of instructions can do. The
 * best of some ways and passes counts: a roof is what the machine can do. */
#include "base/ck.h"
#include "base/clock.h"
#include "base/mem.h"
#include "kernels/peak.h"
#include "runtime/bench.h"

#include <string.h>

#define READ_BYTES_MAX ((size_t)512 << 20)
#define READ_BYTES_MIN ((size_t)16 << 20)
#define READ_GRAIN ((size_t)1 << 16)

enum {
    READ_SLICES = 4,
    READ_PASSES = 3,
    STREAMS_MAX = 8,
    WAY_ROUNDS = 2,
    PEAK_PASSES = 24,
    SAMPLE_PASSES = 4
};
static const double PEAK_SECONDS = 2e-3; /* of a pass: some fall between other programs' turns */

/* ---- reading --------------------------------------------------------------------------------- */

enum { LINE = 64 };

/* A way to read: streams of each worker, bytes of one before the next one's turn, bytes of prefetch
 * (0: the processor's own alone). */
typedef struct sfq_read_way {
    size_t streams, burst, ahead;
} sfq_read_way;

typedef struct sfq_read_probe {
    const char *data;
    sfq_read_way way;
    uint64_t sums[SFQ_MAX_THREADS]; /* keeps the reads from being optimised away */
} sfq_read_probe;

/* A worker's range, one word of each line: memory gives whole lines; nothing else is to cost. */
static void read_range(void *ctx, size_t begin, size_t end, int worker)
{
    sfq_read_probe *p = ctx;
    const sfq_read_way w = p->way;
    const size_t bytes = (end - begin) * READ_GRAIN / w.streams;
    const char *data = p->data + begin * READ_GRAIN;
    uint64_t sum = 0;
    for (size_t at = 0; at < bytes; at += w.burst)
        for (size_t s = 0; s < w.streams; s++) {
            const char *from = data + s * bytes + at;
            for (size_t line = 0; line < w.burst; line += LINE) {
                if (w.ahead > 0) /* may pass the end: a hint */
                    __builtin_prefetch(from + line + w.ahead, 0, 3);
                sum += *(const uint64_t *)(const void *)(from + line);
            }
        }
    p->sums[worker] += sum;
}

static double time_read(sfq_pool *pool, sfq_read_probe *p, const char *data, size_t bytes)
{
    p->data = data;
    double begin = sfq_clock_seconds();
    sfq_pool_run(pool, bytes / READ_GRAIN, 1, read_range, p);
    return (double)bytes / (sfq_clock_seconds() - begin);
}

/* Every way on slices that the one before did not touch, all of them some times over, so that a
 * slow moment does not decide; p->way is left as the best. */
static void choose_way(sfq_pool *pool, sfq_read_probe *p, const char *data, size_t bytes)
{
    enum { STREAMS = 4, BURSTS = 2, AHEAD = 6, WAYS = STREAMS * BURSTS * AHEAD };
    static const size_t streams[STREAMS] = {1, 2, 4, STREAMS_MAX}, bursts[BURSTS] = {256, 1024};
    static const size_t ahead[AHEAD] = {0, 512, 1024, 2048, 4096, 8192};
    const size_t slice = bytes / READ_SLICES / READ_GRAIN * READ_GRAIN;
    sfq_read_way best = {0};
    double rate = 0;
    for (size_t i = 0; i < WAY_ROUNDS * WAYS; i++) {
        p->way = (sfq_read_way){streams[i % STREAMS], bursts[i / STREAMS % BURSTS],
                                ahead[i / (STREAMS * BURSTS) % AHEAD]};
        double r = time_read(pool, p, data + i % READ_SLICES * slice, slice);
        if (r > rate) {
            rate = r;
            best = p->way;
        }
    }
    p->way = best;
}

/* The best pass over everything. */
static double best_read(sfq_pool *pool, sfq_read_probe *p, const char *data, size_t bytes)
{
    double rate = 0;
    for (int pass = 0; pass < READ_PASSES; pass++) {
        double r = time_read(pool, p, data, bytes);
        rate = r > rate ? r : rate;
    }
    return rate;
}

static void touch_range(void *ctx, size_t begin, size_t end, int worker)
{
    (void)worker; /* pages of their own: untouched ones would be one shared page of zeros */
    memset((char *)ctx + begin * READ_GRAIN, 1, (end - begin) * READ_GRAIN);
}

/* ---- multiplying ----------------------------------------------------------------------------- */

typedef struct sfq_peak_job {
    const sfq_peak *peak;
    size_t rounds;
} sfq_peak_job;

static void peak_range(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_peak_job *job = ctx;
    (void)worker;
    for (size_t i = begin; i < end; i++)
        (void)job->peak->run(job->rounds);
}

/* Every thread does the same; the slowest one counts. */
static double probe_peak(sfq_pool *pool, const sfq_peak *peak, int passes)
{
    size_t threads = (size_t)sfq_pool_threads(pool);
    sfq_peak_job job = {.peak = peak, .rounds = 1000};
    double begin = sfq_clock_seconds(), best = 0;
    double macs = (double)peak->run(job.rounds) / (double)job.rounds;
    double once = sfq_clock_seconds() - begin;
    job.rounds = (size_t)(PEAK_SECONDS / (once > 1e-7 ? once : 1e-7) * (double)job.rounds) + 1;
    for (int pass = 0; pass < passes; pass++) {
        begin = sfq_clock_seconds();
        sfq_pool_run(pool, threads, 1, peak_range, &job);
        double seconds = sfq_clock_seconds() - begin;
        double rate = macs * (double)job.rounds * (double)threads / seconds;
        best = rate > best ? rate : best;
    }
    return best;
}

static void probe_peaks(sfq_pool *pool, sfq_isa max, int passes, sfq_probe_result *out)
{
    for (size_t i = 0; i < sfq_peak_count && out->peak_count < SFQ_PROBE_PEAKS; i++) {
        const sfq_peak *p = &sfq_peaks[i];
        if (!sfq_peak_usable(p, max))
            continue;
        double rate = probe_peak(pool, p, passes);
        out->peaks[out->peak_count++] = (sfq_probe_peak){sfq_isa_name(p->isa), p->type, rate};
        if (strcmp(p->type, "f32") == 0 && rate > out->macs_per_second)
            out->macs_per_second = rate;
    }
}

/* ---- both ------------------------------------------------------------------------------------ */

struct sfq_meter {
    sfq_pool *pool;
    sfq_isa max;
    char *data; /* NULL between samples */
    size_t bytes;
    sfq_read_probe read; /* the best way of all threads together */
};

/* What is read, unless it is there. Samples give it back: nobody who looks at the memory of a
 * benchmark shall see the probe's. */
static sfq_status take_data(sfq_meter *m, sfq_error *err)
{
    if (m->data != NULL)
        return SFQ_OK;
    uint64_t quarter = sfq_memory_available() / 4;
    size_t bytes = quarter < READ_BYTES_MAX ? (size_t)quarter : READ_BYTES_MAX;
    m->bytes = sfq_max_size(bytes / READ_GRAIN * READ_GRAIN, READ_BYTES_MIN);
    m->data = sfq_mem_huge(m->bytes);
    if (m->data == NULL)
        return sfq_fail_memory(err, m->bytes, "read probe");
    sfq_pool_run(m->pool, m->bytes / READ_GRAIN, 1, touch_range, m->data);
    return SFQ_OK;
}

sfq_status sfq_meter_open(sfq_meter **out, sfq_pool *pool, sfq_isa max, sfq_error *err)
{
    sfq_meter *m = *out = SFQ_NEW(sfq_meter);
    if (m == NULL)
        return sfq_fail_memory(err, sizeof *m, "read probe");
    m->pool = pool;
    m->max = max;
    sfq_status status = take_data(m, err);
    if (status == SFQ_OK)
        choose_way(pool, &m->read, m->data, m->bytes);
    else
        sfq_meter_close(out);
    return status;
}

void sfq_meter_close(sfq_meter **m)
{
    if (*m != NULL)
        sfq_mem_free((*m)->data);
    sfq_mem_free(*m);
    *m = NULL;
}

sfq_status sfq_meter_sample(sfq_meter *m, sfq_probe_result *out, sfq_error *err)
{
    *out = (sfq_probe_result){0};
    probe_peaks(m->pool, m->max, SAMPLE_PASSES, out);
    SFQ_TRY(take_data(m, err));
    out->read_bytes_per_second = best_read(m->pool, &m->read, m->data, m->bytes);
    sfq_mem_free(m->data);
    m->data = NULL;
    return SFQ_OK;
}

sfq_status sfq_probe_machine(sfq_pool *pool, sfq_isa max, sfq_probe_result *out, sfq_error *err)
{
    sfq_meter *m = NULL;
    *out = (sfq_probe_result){0};
    SFQ_TRY(sfq_meter_open(&m, pool, max, err));
    probe_peaks(pool, max, PEAK_PASSES, out);
    out->read_bytes_per_second = best_read(pool, &m->read, m->data, m->bytes);
    out->read_bytes_per_second_one = out->read_bytes_per_second;
    if (sfq_pool_threads(pool) > 1) {
        choose_way(NULL, &m->read, m->data, m->bytes);
        out->read_bytes_per_second_one = best_read(NULL, &m->read, m->data, m->bytes);
    }
    sfq_meter_close(&m);
    return SFQ_OK;
}
