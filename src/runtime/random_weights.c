/* runtime/random_weights.c - the numbers of a shape: bytes of a counter-based generator, bent into
 * F16 of bounded size where they stand for floats. Work is cut by offset, so the thread count does
 * not show. */
#include "base/ck.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "runtime/shape.h"

#include <string.h>

enum {
    WORDS = 512,  /* of a chunk: 4 KB */
    GRAIN = 64,   /* chunks that a worker takes at a time */
    STEP = 16384, /* chunks between two looks at the hooks: 64 MB */
    F16_SIGN_MANTISSA = 0x83FF,
    F16_ONE = 0x3C00,
    F16_BIAS = 15,
    F16_EXPONENT_AT = 10
};

typedef struct fill_job {
    uint64_t *out;
    size_t words; /* of the whole tensor, its padding to 64 bytes included */
    size_t first; /* chunk that item 0 stands for */
    uint64_t keep, set;
    uint64_t seed, stream;
} fill_job;

static uint64_t four(unsigned half)
{
    return half * 0x0001000100010001u;
}

static void fill_range(void *ctx, size_t begin, size_t end, int worker)
{
    const fill_job *job = ctx;
    (void)worker;
    for (size_t chunk = job->first + begin; chunk < job->first + end; chunk++) {
        size_t at = chunk * WORDS, n = sfq_min_size(WORDS, job->words - at);
        sfq_rng_fill(job->out + at, n, job->seed, job->stream, at);
        for (size_t i = 0; i < n; i++)
            job->out[at + i] = (job->out[at + i] & job->keep) | job->set;
    }
}

/* Numbers of either sign and a magnitude in [2^e, 2^(e+1)), whose root mean square is 1.53 * 2^e.
 * Codes are uniform, with a deviation of 2^bits / sqrt(12): e = -6 for weights and -4 - bits for
 * scales make the deviation of a weight 0.024 and 0.027. A sign per scale takes away the mean of
 * -1/2 that uniform codes have. */
static void set_pattern(fill_job *job, const sfq_random_tensor *r)
{
    int e = r->kind == SFQ_RANDOM_SCALES ? -4 - r->bits : -6;
    job->keep = four(F16_SIGN_MANTISSA);
    job->set = four((unsigned)(e + F16_BIAS) << F16_EXPONENT_AT);
    if (r->kind == SFQ_RANDOM_CODES) {
        job->keep = UINT64_MAX;
        job->set = 0;
    } else if (r->kind == SFQ_RANDOM_ONES) {
        job->keep = 0;
        job->set = four(F16_ONE);
    }
}

static sfq_status fill_tensor(sfq_shape_model *s, size_t i, sfq_pool *pool, const sfq_hooks *hooks,
                              uint64_t *done, sfq_error *err)
{
    fill_job job = {.out = (uint64_t *)(void *)(s->data + s->random[i].at),
                    .words = sfq_round_up((size_t)s->tensors[i].bytes, 64) / sizeof(uint64_t),
                    .seed = s->seed,
                    .stream = i};
    size_t chunks = (job.words + WORDS - 1) / WORDS;
    set_pattern(&job, &s->random[i]);
    for (job.first = 0; job.first < chunks; job.first += STEP) {
        SFQ_TRY(sfq_hooks_check(hooks, err));
        size_t n = sfq_min_size(STEP, chunks - job.first);
        sfq_pool_run(pool, n, GRAIN, fill_range, &job);
        *done += n * WORDS * sizeof(uint64_t);
        sfq_hooks_progress(hooks, "make weights", 1, 1, sfq_min_size((size_t)*done, s->bytes),
                           s->bytes, "bytes");
    }
    s->tensors[i].data = job.out;
    return SFQ_OK;
}

sfq_status sfq_shape_fill(sfq_shape_model *s, sfq_pool *pool, const sfq_hooks *hooks,
                          sfq_checkpoint **ck, const char *name, sfq_error *err)
{
    uint64_t done = 0;
    *ck = NULL;
    s->data = sfq_mem_huge(s->bytes);
    if (s->data == NULL)
        return sfq_fail_memory(err, s->bytes, "random weights");
    for (size_t i = 0; i < s->count; i++)
        SFQ_TRY(fill_tensor(s, i, pool, hooks, &done, err));
    return sfq_checkpoint_of(ck, name, s->tensors, s->count, err);
}
