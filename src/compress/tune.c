/* compress/tune.c - the last part of recalibration. Fewer than one parameter in a hundred learns,
 * so little data cannot do much harm, and no weight's gradient is kept.
 *
 * A scale learns in shares of itself: with w = scale * code, a relative change of the scale is the
 * same relative change of its weights, whatever their size (the gradient factor of Esser et al.
 * 2020, "Learned step size quantization", section 2.2, serves the same end). Norms and biases learn
 * in shares of their tensor's root mean square. */
#include "compress/tune.h"

#include "base/ck.h"
#include "base/mem.h"
#include "compress/packed.h"
#include "compress/train.h"

#include <math.h>

enum { EPOCHS = 5, STEPS_MIN = 10, STEPS_MAX = 300 };

/* Of lr, for norms and biases. */
#define TUNE_SMALL_UNIT 0.5

static const sfq_train_recipe encoder_recipe = {.lr = 1e-3,
                                                .warm_up = 0.05,
                                                .clip = 1,
                                                .temperature = 2,
                                                .hidden = 1,
                                                .augmented = 0.5,
                                                .augment = {.replace = 0.1},
                                                .sequences = 32,
                                                .tokens = 4096};
static const sfq_train_recipe lm_recipe = {
    .lr = 1e-3, .warm_up = 0.05, .clip = 1, .temperature = 1, .sequences = 32, .tokens = 1024};

static const sfq_train_recipe *recipe_of(const sfq_work *work)
{
    return work->teacher->arch->head == SFQ_MODEL_HEAD_LM ? &lm_recipe : &encoder_recipe;
}

int sfq_tune_steps(const sfq_work *work)
{
    size_t batch = sfq_train_batch(work, recipe_of(work));
    size_t steps = (EPOCHS * work->calibration->tune + batch - 1) / batch;
    int own = (int)sfq_max_size(STEPS_MIN, sfq_min_size(STEPS_MAX, steps));
    return work->options->steps >= 0 && work->options->steps < own ? work->options->steps : own;
}

/* ---- memory ---- */

/* Scales of every matrix that the original has: cutting takes some away. */
static size_t count_scales(const sfq_work *work, uint64_t *floats, size_t *widest)
{
    const sfq_modules *modules = work->source->modules;
    size_t arrays = 0;
    *widest = SFQ_BLOCK_K;
    for (size_t i = 0; i < modules->count; i++) {
        const sfq_module *m = &modules->items[i];
        sfq_cluster c;
        if (!sfq_role_is_matrix(m->role) || !sfq_cluster_make(&c, m->n, m->k))
            continue;
        *floats += sfq_cluster_scales(&c);
        *widest = sfq_max_size(*widest, m->k);
        arrays++;
    }
    return arrays;
}

/* The backward pass decodes rows of a packed matrix into float blocks, and the forward pass
 * quantizes what it reads: beyond what a dense model of these widths takes. */
static uint64_t packed_bytes(const sfq_work *work, size_t widest)
{
    enum { BLOCK_ROWS = 256, BLOCKS = 3 };
    const sfq_calibration *c = work->calibration;
    size_t longest = 0;
    for (size_t i = 0; i < c->tune; i++)
        longest = sfq_max_size(longest, c->offset[i + 1] - c->offset[i]);
    uint64_t tokens = sfq_round_up(sfq_train_batch(work, recipe_of(work)) * longest, SFQ_BLOCK_K);
    uint64_t k = sfq_round_up(widest, SFQ_BLOCK_K);
    uint64_t codes = sizeof(int16_t) * k + (sizeof(float) + sizeof(int32_t)) * (k / SFQ_BLOCK_K);
    return sfq_cap_add(sfq_cap_mul(BLOCKS * BLOCK_ROWS * sizeof(float), k),
                       sfq_cap_mul(codes, tokens));
}

uint64_t sfq_tune_bytes(const sfq_work *work)
{
    uint64_t floats;
    size_t widest;
    size_t arrays = sfq_smalls_count(work->teacher, &floats);
    arrays += count_scales(work, &floats, &widest);
    uint64_t own = 3 * sizeof(float) * floats; /* as bound, as trained, units */
    own = sfq_cap_add(own,
                      arrays * (sizeof(sfq_trainable) + sizeof(sfq_small) + sizeof(sfq_tensor *)));
    own = sfq_cap_add(own, packed_bytes(work, widest));
    return sfq_cap_add(own,
                       sfq_train_bytes(work, work->teacher, recipe_of(work), floats, arrays, true));
}

/* ---- units ---- */

static float root_mean_square(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return (float)sqrt(sum / (double)n);
}

static void set_units(const sfq_small *small, float *unit)
{
    const float *values = *small->place;
    const float mean = (float)TUNE_SMALL_UNIT * root_mean_square(values, small->count);
    for (size_t i = 0; i < small->count; i++)
        unit[i] = small->part == SFQ_SMALL_SCALES ? fabsf(values[i]) : mean;
}

/* ---- run ---- */

static void list_items(const sfq_packed *p, sfq_trainable *items, float *units)
{
    for (size_t i = 0; i < p->smalls->count; units += p->smalls->items[i++].count) {
        const sfq_small *small = &p->smalls->items[i];
        set_units(small, units);
        items[i] = (sfq_trainable){.value = sfq_packed_values(p, i),
                                   .gradient = small->gradient,
                                   .unit = units,
                                   .count = small->count,
                                   .dtype = p->tensors[i]->dtype};
    }
}

sfq_status sfq_tune_run(const sfq_work *work, const char *packed, sfq_loss *held_out,
                        const char *state, sfq_outdir *out, sfq_tune_report *report, sfq_error *err)
{
    const sfq_hooks *hooks = &work->options->hooks;
    sfq_status status = SFQ_OK;
    sfq_packed *p = NULL;
    sfq_trainable *items = NULL;
    float *units = NULL;
    *report = (sfq_tune_report){0};
    SFQ_DO(sfq_packed_open(&p, packed, hooks, err));
    items = SFQ_NEW_ARRAY(sfq_trainable, p->smalls->count);
    units = SFQ_NEW_ARRAY(float, p->smalls->total);
    if (items == NULL || units == NULL) {
        status = sfq_fail_memory(err, p->smalls->total * sizeof(float), "the list of scales");
        goto done;
    }
    list_items(p, items, units);
    const sfq_train train = {.work = work,
                             .student = &p->net,
                             .grads = &p->smalls->grads,
                             .items = items,
                             .count = p->smalls->count,
                             .recipe = recipe_of(work),
                             .steps = sfq_tune_steps(work),
                             .held_out = held_out,
                             .dir = state,
                             .name = "tune.state"};
    SFQ_DO(sfq_train_run(&train, report, err));
    SFQ_DO(sfq_packed_write(p, out, hooks, err));
done:
    sfq_mem_free(items);
    sfq_mem_free(units);
    sfq_packed_close(&p);
    return status;
}
