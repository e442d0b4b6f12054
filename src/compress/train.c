/* compress/train.c - the loop around train_step.h. Everything that decides a bit of the result is
 * in sfq_train_state and three arrays, so a run can be cut off between any two steps and go on
 * later.
 *
 * The held-out loss is measured as often as takes about a tenth of the time, by the count of tokens
 * and not by the clock. Values that a file will keep in 16 bits are judged, and kept, as rounded;
 * the gradient steps go on from the unrounded ones. */
#include "compress/train.h"

#include "base/ck.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "compress/adamw.h"
#include "compress/train_state.h"
#include "compress/train_step.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

enum {
    MEASUREMENTS = 20, /* of the held-out loss, about */
    PATIENCE = 8,      /* of them without a new best one */
    STATE_BLOCKS = 2,  /* beside the values: moments, best */
    STATE_SECONDS = 20
};
/* Passes over a token: teacher, student, and student again with its backward pass; a measurement
 * is one. */
#define STEP_PASSES 5.0
#define MEASURE_SHARE 0.1
#define STATE_SHARE 20 /* writing a state takes at most 1/20 of the time */

typedef struct trainer {
    const sfq_train *job;
    sfq_train_step *step;
    sfq_adamw *adamw;
    size_t total;
    float *gradients; /* [total] */
    float *best;      /* [total] as judged */
    float *exact;     /* [total] values while rounded ones are judged; NULL: nothing is rounded */
    sfq_train_state state;
    uint64_t interval; /* steps between measurements */
    bool broken;       /* a loss was not finite */
    char *path;        /* of the state file, or NULL */
    uint64_t request;
    double save_at; /* clock */
} trainer;

/* ---- values ---- */

static void copy_values(const sfq_train *job, float *to)
{
    for (size_t i = 0; i < job->count; to += job->items[i++].count)
        memcpy(to, job->items[i].value, job->items[i].count * sizeof(float));
}

static void set_values(const sfq_train *job, const float *from)
{
    for (size_t i = 0; i < job->count; from += job->items[i++].count)
        memcpy(job->items[i].value, from, job->items[i].count * sizeof(float));
}

static float as_stored(float x, sfq_dtype dtype)
{
    if (dtype == SFQ_F16)
        return sfq_f16_to_f32(sfq_f32_to_f16(x));
    return dtype == SFQ_BF16 ? sfq_bf16_to_f32(sfq_f32_to_bf16(x)) : x;
}

/* False: one of them is not finite. */
static bool round_values(const sfq_train *job)
{
    bool finite = true;
    for (size_t i = 0; i < job->count; i++) {
        const sfq_trainable *item = &job->items[i];
        for (size_t j = 0; j < item->count; j++) {
            item->value[j] = as_stored(item->value[j], item->dtype);
            finite = finite && isfinite(item->value[j]);
        }
    }
    return finite;
}

static bool rounds(const sfq_train *job)
{
    for (size_t i = 0; i < job->count; i++)
        if (job->items[i].dtype != SFQ_F32)
            return true;
    return false;
}

/* ---- judging ---- */

/* Takes a new best one. NUMERIC only before anything was judged. */
static sfq_status judge(trainer *t, sfq_error *err)
{
    const sfq_train *job = t->job;
    double value = NAN;
    sfq_status status = SFQ_OK;
    if (t->exact != NULL)
        copy_values(job, t->exact);
    bool finite = round_values(job);
    if (finite)
        status = sfq_loss_measure(job->held_out, job->student, &value, err);
    else
        status = sfq_fail(err, SFQ_E_NUMERIC, "a weight is not a finite number");
    bool better = status == SFQ_OK && !(value >= t->state.best);
    if (better)
        copy_values(job, t->best);
    if (t->exact != NULL)
        set_values(job, t->exact);
    if (status != SFQ_OK && (status != SFQ_E_NUMERIC || t->state.at == 0))
        return status;
    t->broken = t->broken || status == SFQ_E_NUMERIC;
    t->state.judged = t->state.at;
    t->state.since++;
    if (better) {
        t->state.best = value;
        t->state.best_at = t->state.at;
        t->state.since = 0;
    }
    return SFQ_OK;
}

static uint64_t choose_interval(const sfq_train *job)
{
    const sfq_calibration *c = job->work->calibration;
    double held_out = (double)(c->offset[c->count] - c->offset[c->tune]);
    double batch = (double)c->offset[c->tune] / (double)c->tune *
                   (double)sfq_train_batch(job->work, job->recipe);
    double cheap = ceil(held_out / (STEP_PASSES * MEASURE_SHARE * batch));
    double even = ceil((double)job->steps / MEASUREMENTS);
    return (uint64_t)fmax(1, fmin(fmax(cheap, even), (double)job->steps));
}

/* ---- open ---- */

static uint64_t hash_number(uint64_t hash, double x)
{
    return XXH3_64bits_withSeed(&x, sizeof(x), hash);
}

/* Everything that decides the result: recipe, data, first values; the teacher and the held-out
 * part stand behind the loss of those. */
static uint64_t hash_request(const trainer *t)
{
    const sfq_train *job = t->job;
    const sfq_train_recipe *r = job->recipe;
    const sfq_calibration *c = job->work->calibration;
    const double numbers[] = {r->lr,
                              r->warm_up,
                              r->decay,
                              r->clip,
                              r->temperature,
                              r->hidden,
                              r->augmented,
                              r->augment.replace,
                              r->augment.drop,
                              r->augment.swap,
                              r->augment.mix,
                              (double)r->sequences,
                              (double)r->tokens,
                              (double)job->steps,
                              t->state.before};
    uint64_t seed = job->work->options->seed;
    uint64_t hash = XXH3_64bits_withSeed(&seed, sizeof(seed), 0);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        hash = hash_number(hash, numbers[i]);
    hash = XXH3_64bits_withSeed(c->offset, (c->count + 1) * sizeof(*c->offset), hash);
    hash = XXH3_64bits_withSeed(c->ids, c->offset[c->count] * sizeof(*c->ids), hash);
    if (c->types != NULL)
        hash = XXH3_64bits_withSeed(c->types, c->offset[c->count] * sizeof(*c->types), hash);
    for (size_t i = 0; i < job->count; i++) {
        size_t bytes = job->items[i].count * sizeof(float);
        hash = XXH3_64bits_withSeed(job->items[i].value, bytes, hash);
    }
    return hash;
}

static sfq_status open_adamw(trainer *t, sfq_error *err)
{
    const sfq_train *job = t->job;
    const sfq_adamw_options options = {.beta1 = 0.9,
                                       .beta2 = 0.999,
                                       .eps = 1e-8,
                                       .decay = job->recipe->decay,
                                       .clip = job->recipe->clip};
    sfq_adamw_array *arrays = SFQ_NEW_ARRAY(sfq_adamw_array, job->count);
    if (arrays == NULL)
        return sfq_fail_memory(err, job->count * sizeof(*arrays), "the optimizer");
    float *gradient = t->gradients;
    for (size_t i = 0; i < job->count; gradient += job->items[i++].count) {
        const sfq_trainable *item = &job->items[i];
        *item->gradient = gradient;
        arrays[i] = (sfq_adamw_array){item->value, gradient, item->unit, item->count, item->decay};
    }
    if (job->student->arch->tied_head) { /* one table, read and multiplied with */
        job->grads->lm_head.w = job->grads->word.w;
        job->grads->lm_head.scales = job->grads->word.scales;
    }
    sfq_status status =
        sfq_adamw_open(&t->adamw, arrays, job->count, &options, job->work->pool, err);
    sfq_mem_free(arrays);
    return status;
}

static sfq_status open_memory(trainer *t, sfq_error *err)
{
    const sfq_train *job = t->job;
    for (size_t i = 0; i < job->count; i++)
        t->total += job->items[i].count;
    t->gradients = SFQ_NEW_ARRAY(float, t->total);
    t->best = SFQ_NEW_ARRAY(float, t->total);
    t->exact = rounds(job) ? SFQ_NEW_ARRAY(float, t->total) : NULL;
    if (t->gradients == NULL || t->best == NULL || (t->exact == NULL && rounds(job)))
        return sfq_fail_memory(err, 3 * t->total * sizeof(float), "gradients");
    if (job->dir != NULL) {
        t->path = sfq_path_join(job->dir, job->name);
        if (t->path == NULL)
            return sfq_fail_memory(err, strlen(job->dir), "a path");
    }
    return SFQ_OK;
}

static void close_trainer(trainer *t)
{
    for (size_t i = 0; i < t->job->count; i++)
        *t->job->items[i].gradient = NULL;
    if (t->job->student->arch->tied_head)
        t->job->grads->lm_head = (sfq_matrix_grad){0};
    sfq_train_step_close(&t->step);
    sfq_adamw_close(&t->adamw);
    sfq_mem_free(t->gradients);
    sfq_mem_free(t->best);
    sfq_mem_free(t->exact);
    sfq_mem_free(t->path);
}

uint64_t sfq_train_bytes(const sfq_work *work, const sfq_net *student,
                         const sfq_train_recipe *recipe, uint64_t floats, size_t arrays,
                         bool rounded)
{
    uint64_t bytes = sfq_cap_mul(floats, sizeof(float) * (rounded ? 3 : 2));
    bytes = sfq_cap_add(bytes, sfq_adamw_bytes(floats, arrays));
    bytes = sfq_cap_add(bytes, arrays * sizeof(sfq_adamw_array));
    return sfq_cap_add(bytes, sfq_train_step_bytes(work, student, recipe));
}

/* ---- the state file ---- */

static sfq_status each_state(trainer *t, bool load, const char **why, sfq_error *err)
{
    const sfq_train *job = t->job;
    const size_t count = job->count + STATE_BLOCKS;
    sfq_train_block *blocks = SFQ_NEW_ARRAY(sfq_train_block, count);
    if (blocks == NULL)
        return sfq_fail_memory(err, count * sizeof(*blocks), "the state of training");
    for (size_t i = 0; i < job->count; i++)
        blocks[i] = (sfq_train_block){job->items[i].value, job->items[i].count * sizeof(float)};
    blocks[job->count] =
        (sfq_train_block){sfq_adamw_moments(t->adamw), 2 * t->total * sizeof(float)};
    blocks[job->count + 1] = (sfq_train_block){t->best, t->total * sizeof(float)};
    sfq_status status =
        load ? sfq_train_state_load(t->path, t->request, &t->state, blocks, count, why, err)
             : sfq_train_state_save(t->path, t->request, &t->state, blocks, count, err);
    sfq_mem_free(blocks);
    return status;
}

/* A state that cannot be written costs the time until here, should the run be cut off; the run
 * itself goes on. */
static void save(trainer *t)
{
    sfq_error err = {0};
    if (t->path == NULL)
        return;
    double begin = sfq_clock_seconds();
    if (each_state(t, false, NULL, &err) != SFQ_OK) {
        sfq_work_log(t->job->work, SFQ_LOG_WARNING,
                     "the state of training cannot be kept (%s): a run that is cut off will begin "
                     "this stage again",
                     err.message);
        sfq_mem_free(t->path);
        t->path = NULL;
    }
    double end = sfq_clock_seconds();
    t->save_at = end + fmax(STATE_SECONDS, STATE_SHARE * (end - begin));
}

static sfq_status resume(trainer *t, sfq_error *err)
{
    const char *why;
    t->save_at = sfq_clock_seconds() + STATE_SECONDS;
    if (t->path == NULL)
        return SFQ_OK;
    t->request = hash_request(t);
    SFQ_TRY(each_state(t, true, &why, err));
    if (why == NULL)
        sfq_work_log(t->job->work, SFQ_LOG_NOTE, "goes on after %llu of %d steps",
                     (unsigned long long)t->state.at, t->job->steps);
    else if (*why != 0)
        sfq_work_log(t->job->work, SFQ_LOG_NOTE, "%s %s; the stage begins at its first step",
                     t->path, why);
    return SFQ_OK;
}

/* ---- steps ---- */

/* Rises over the warm-up, then half a cosine down to 0. */
static double rate(const sfq_train *job, uint64_t step)
{
    const double pi = 3.14159265358979323846;
    double steps = (double)job->steps, warm = job->recipe->warm_up * steps;
    double rise = warm > 0 ? fmin(1, ((double)step + 1) / warm) : 1;
    return job->recipe->lr * rise * 0.5 * (1 + cos(pi * (double)step / steps));
}

static sfq_status learn(trainer *t, sfq_error *err)
{
    double loss;
    memset(t->gradients, 0, t->total * sizeof(float));
    SFQ_TRY(sfq_train_step_run(t->step, t->state.at, &loss, err));
    t->broken =
        !isfinite(loss) || !sfq_adamw_step(t->adamw, t->state.at + 1, rate(t->job, t->state.at));
    t->state.at += !t->broken;
    return SFQ_OK;
}

static bool finished(const trainer *t)
{
    return t->broken || t->state.since >= PATIENCE || t->state.at >= (uint64_t)t->job->steps;
}

static bool judgement_due(const trainer *t, bool late)
{
    if (t->state.judged == t->state.at)
        return false;
    return late || t->state.at % t->interval == 0 || t->state.at == (uint64_t)t->job->steps;
}

static sfq_status loop(trainer *t, bool *late, sfq_error *err)
{
    const sfq_work *work = t->job->work;
    for (;;) {
        *late = !finished(t) && sfq_work_late(work);
        if (!t->broken && judgement_due(t, *late))
            SFQ_TRY(judge(t, err));
        sfq_work_progress(work, t->state.at, (uint64_t)t->job->steps, "steps");
        if (*late || finished(t))
            return SFQ_OK;
        SFQ_TRY(learn(t, err));
        if (sfq_clock_seconds() >= t->save_at)
            save(t);
    }
}

static void say(const trainer *t)
{
    const sfq_train_state *s = &t->state;
    if (t->broken)
        sfq_work_log(t->job->work, SFQ_LOG_WARNING,
                     "after %llu steps the loss is no longer a finite number: the values of step "
                     "%llu are kept",
                     (unsigned long long)s->at, (unsigned long long)s->best_at);
    sfq_work_log(t->job->work, SFQ_LOG_NOTE,
                 "held-out loss %.4g, %.4g after step %llu of %llu, whose values are kept",
                 s->before, s->best, (unsigned long long)s->best_at, (unsigned long long)s->at);
}

static sfq_status train(trainer *t, bool *late, sfq_error *err)
{
    t->state.best = (double)INFINITY;
    SFQ_TRY(open_memory(t, err));
    SFQ_TRY(judge(t, err));
    t->state.before = t->state.best;
    if (t->job->steps == 0)
        return SFQ_OK;
    t->interval = choose_interval(t->job);
    SFQ_TRY(open_adamw(t, err));
    SFQ_TRY(sfq_train_step_open(&t->step, t->job, err));
    SFQ_TRY(resume(t, err));
    sfq_status status = loop(t, late, err);
    if (status == SFQ_E_INTERRUPTED)
        save(t);
    if (status == SFQ_OK)
        say(t);
    return status;
}

sfq_status sfq_train_run(const sfq_train *job, sfq_distill_report *out, sfq_error *err)
{
    trainer t = {.job = job};
    bool late = false;
    sfq_status status = train(&t, &late, err);
    if (status == SFQ_OK)
        set_values(job, t.best);
    *out = (sfq_distill_report){.before = t.state.before,
                                .after = t.state.best,
                                .steps = (int)t.state.at,
                                .best = (int)t.state.best_at,
                                .late = late};
    close_trainer(&t);
    return status;
}
