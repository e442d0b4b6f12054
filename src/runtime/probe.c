/* runtime/probe.c - the two roofs that inference runs under: how fast all threads together read
 * memory that no cache holds, and how fast they multiply-add floats in the kernels' own matrix
 * product. The best of some passes counts: a roof is what the machine can do. */
#include "base/ck.h"
#include "base/clock.h"
#include "base/mem.h"
#include "runtime/bench.h"

#define READ_BYTES_MAX ((size_t)512 << 20)
#define READ_BYTES_MIN ((size_t)16 << 20)
#define READ_GRAIN ((size_t)1 << 16)

enum { READ_PASSES = 4, GEMM_M = 64, GEMM_N = 64, GEMM_K = 512, GEMM_ROUNDS = 3 };

/* ---- reading --------------------------------------------------------------------------------- */

typedef uint64_t vec4 __attribute__((vector_size(32)));

typedef struct sfq_read_probe {
    const vec4 *data;
    uint64_t sums[SFQ_MAX_THREADS]; /* keeps the reads from being optimised away */
} sfq_read_probe;

static void read_range(void *ctx, size_t begin, size_t end, int worker)
{
    sfq_read_probe *p = ctx;
    const vec4 *data = p->data;
    size_t last = end * (READ_GRAIN / sizeof(vec4));
    vec4 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    for (size_t i = begin * (READ_GRAIN / sizeof(vec4)); i < last; i += 4) {
        s0 += data[i];
        s1 += data[i + 1];
        s2 += data[i + 2];
        s3 += data[i + 3];
    }
    s0 += s1 + s2 + s3;
    p->sums[worker] += s0[0] + s0[1] + s0[2] + s0[3];
}

static sfq_status probe_read(sfq_pool *pool, double *bytes_per_second, sfq_error *err)
{
    uint64_t quarter = sfq_memory_available() / 4;
    size_t bytes = quarter < READ_BYTES_MAX ? (size_t)quarter : READ_BYTES_MAX;
    bytes = sfq_max_size(bytes / READ_GRAIN * READ_GRAIN, READ_BYTES_MIN);
    uint64_t *data = sfq_mem_aligned(bytes);
    sfq_read_probe *probe = SFQ_NEW(sfq_read_probe);
    sfq_status status = SFQ_OK;
    *bytes_per_second = 0;
    if (data == NULL || probe == NULL) {
        status = sfq_fail_memory(err, bytes, "read probe");
        goto done;
    }
    for (size_t i = 0; i < bytes / sizeof(*data); i++)
        data[i] = i; /* pages of their own: untouched ones are one shared page of zeros */
    probe->data = (const vec4 *)(const void *)data;
    for (int pass = 0; pass < READ_PASSES; pass++) {
        double begin = sfq_clock_seconds();
        sfq_pool_run(pool, bytes / READ_GRAIN, 1, read_range, probe);
        double rate = (double)bytes / (sfq_clock_seconds() - begin);
        *bytes_per_second = rate > *bytes_per_second ? rate : *bytes_per_second;
    }
    uint64_t sum = 0;
    for (int i = 0; i < SFQ_MAX_THREADS; i++)
        sum += probe->sums[i];
    if (sum == 0)
        status = sfq_fail(err, SFQ_E_INTERNAL, "the read probe read nothing");
done:
    sfq_mem_free(data);
    sfq_mem_free(probe);
    return status;
}

/* ---- multiplying ----------------------------------------------------------------------------- */

/* Each worker multiplies its own matrices, which its nearest caches hold. */
typedef struct sfq_gemm_probe {
    const sfq_kernels *kernels;
    const float *w, *x; /* [N, K], [M, K] */
    float *y;           /* [threads, M, N] */
    char *scratch;      /* [threads, SFQ_QGEMM_SCRATCH] */
    size_t repeats;
} sfq_gemm_probe;

static void gemm_range(void *ctx, size_t begin, size_t end, int worker)
{
    const sfq_gemm_probe *p = ctx;
    sfq_gemm_args a = {.w = p->w,
                       .dtype = SFQ_F32,
                       .n = GEMM_N,
                       .k = GEMM_K,
                       .ldw = GEMM_K,
                       .x = p->x,
                       .ldx = GEMM_K,
                       .m = GEMM_M,
                       .y = p->y + (size_t)worker * GEMM_M * GEMM_N,
                       .ldy = GEMM_N,
                       .scratch = p->scratch + (size_t)worker * SFQ_QGEMM_SCRATCH};
    for (size_t i = begin; i < end; i++)
        for (size_t r = 0; r < p->repeats; r++)
            p->kernels->gemm(&a, 0, GEMM_N);
}

static double time_gemm(sfq_pool *pool, sfq_gemm_probe *p)
{
    size_t threads = (size_t)sfq_pool_threads(pool);
    double begin = sfq_clock_seconds();
    sfq_pool_run(pool, threads, 1, gemm_range, p);
    return sfq_clock_seconds() - begin;
}

static sfq_status probe_gemm(sfq_pool *pool, const sfq_kernels *kernels, double *macs_per_second,
                             sfq_error *err)
{
    size_t threads = (size_t)sfq_pool_threads(pool);
    size_t inputs = (size_t)(GEMM_N + GEMM_M) * GEMM_K, outputs = threads * GEMM_M * GEMM_N;
    float *data = sfq_mem_aligned((inputs + outputs) * sizeof(float));
    char *scratch = sfq_mem_aligned(threads * SFQ_QGEMM_SCRATCH);
    sfq_status status = SFQ_OK;
    double macs = (double)threads * GEMM_M * GEMM_N * GEMM_K;
    *macs_per_second = 0;
    if (data == NULL || scratch == NULL) {
        status = sfq_fail_memory(err, (inputs + outputs) * sizeof(float), "multiply probe");
        goto done;
    }
    for (size_t i = 0; i < inputs; i++)
        data[i] = 1.0f / (float)(1 + i % 7);
    sfq_gemm_probe p = {.kernels = kernels,
                        .w = data,
                        .x = data + (size_t)GEMM_N * GEMM_K,
                        .y = data + inputs,
                        .scratch = scratch,
                        .repeats = 1};
    double once = time_gemm(pool, &p);
    double repeats = once > 0 ? 0.05 / once : 1000;
    p.repeats = (size_t)(repeats < 1 ? 1 : repeats > 1e5 ? 1e5 : repeats);
    for (int round = 0; round < GEMM_ROUNDS; round++) {
        double rate = macs * (double)p.repeats / time_gemm(pool, &p);
        *macs_per_second = rate > *macs_per_second ? rate : *macs_per_second;
    }
done:
    sfq_mem_free(data);
    sfq_mem_free(scratch);
    return status;
}

sfq_status sfq_probe_machine(sfq_pool *pool, const sfq_kernels *kernels,
                             double *read_bytes_per_second, double *macs_per_second, sfq_error *err)
{
    SFQ_TRY(probe_read(pool, read_bytes_per_second, err));
    if (macs_per_second == NULL)
        return SFQ_OK;
    return probe_gemm(pool, kernels, macs_per_second, err);
}
