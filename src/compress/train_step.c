/* compress/train_step.c - see train_step.h. The teacher runs on every batch again: its answers to
 * all sequences would take layers * T * C floats, and varied sequences are new each time. */
#include "compress/train_step.h"

#include "base/ck.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compress/divergence.h"
#include "compress/hidden_term.h"
#include "compress/loss_rows.h"

#include <string.h>

enum { STREAM_AUGMENT = 0x7ea20001 };

struct sfq_train_step {
    const sfq_train *train;
    size_t sequences; /* of a batch */
    sfq_train_order order;
    sfq_augmenter *augmenter;
    sfq_token_batch batch;
    sfq_exec *teacher;
    sfq_grad *grad;
    size_t capacity;       /* tokens that the three below hold */
    float *teacher_hidden; /* [layers, T, C]; NULL without the hidden states' term */
    float *d_hidden;       /* [T, C] */
    double *rows;          /* [T] */
    sfq_hidden_term term;
};

/* ---- open ---- */

size_t sfq_train_batch(const sfq_work *work, const sfq_train_recipe *recipe)
{
    const sfq_calibration *c = work->calibration;
    size_t tokens = sfq_max_size(c->offset[c->tune], 1);
    size_t fit = recipe->tokens * c->tune / tokens; /* of average length */
    size_t most = sfq_min_size(recipe->sequences, c->tune);
    return sfq_max_size(1, sfq_min_size(most, fit));
}

static size_t layers_of(const sfq_net *net, const sfq_train_recipe *recipe)
{
    return recipe->hidden > 0 ? (size_t)net->arch->layers : 0;
}

sfq_status sfq_train_step_open(sfq_train_step **out, const sfq_train *train, sfq_error *err)
{
    const sfq_work *work = train->work;
    const sfq_train_recipe *recipe = train->recipe;
    sfq_status status = SFQ_OK;
    *out = NULL;
    sfq_train_step *s = SFQ_NEW(sfq_train_step);
    if (s == NULL)
        return sfq_fail_memory(err, sizeof(*s), "training");
    s->train = train;
    s->sequences = sfq_train_batch(work, recipe);
    uint64_t seed = work->options->seed;
    SFQ_DO(sfq_train_order_open(&s->order, work->calibration->tune, seed, err));
    if (recipe->augmented > 0) {
        sfq_augment how = recipe->augment;
        how.seed = seed;
        SFQ_DO(sfq_augmenter_open(&s->augmenter, work->calibration, work->source, &how, err));
    }
    SFQ_DO(sfq_exec_open(&s->teacher, work->teacher, work->kernels, work->pool, err));
    SFQ_DO(sfq_grad_open(&s->grad, train->student, work->kernels, work->pool, err));
    *out = s;
    s = NULL;
done:
    sfq_train_step_close(&s);
    return status;
}

void sfq_train_step_close(sfq_train_step **step)
{
    sfq_train_step *s = *step;
    if (s == NULL)
        return;
    sfq_train_order_close(&s->order);
    sfq_augmenter_close(&s->augmenter);
    sfq_token_batch_free(&s->batch);
    sfq_exec_close(&s->teacher);
    sfq_grad_close(&s->grad);
    sfq_mem_free(s->teacher_hidden);
    sfq_mem_free(s->d_hidden);
    sfq_mem_free(s->rows);
    sfq_mem_free(s);
    *step = NULL;
}

uint64_t sfq_train_step_bytes(const sfq_work *work, const sfq_net *student,
                              const sfq_train_recipe *recipe)
{
    const sfq_calibration *c = work->calibration;
    const sfq_arch *arch = student->arch;
    const size_t sequences = sfq_train_batch(work, recipe);
    const int threads = sfq_pool_threads(work->pool);
    size_t longest = 0;
    for (size_t i = 0; i < c->tune; i++)
        longest = sfq_max_size(longest, c->offset[i + 1] - c->offset[i]);
    const size_t tokens = sequences * longest;
    const uint64_t row = (uint64_t)arch->hidden * sizeof(float);
    uint64_t bytes = sizeof(sfq_train_step) + c->tune * sizeof(uint32_t);
    bytes = sfq_cap_add(bytes, sfq_exec_bytes(work->teacher, threads, tokens));
    bytes = sfq_cap_add(bytes, sfq_grad_bytes(student, threads, tokens, longest));
    bytes = sfq_cap_add(
        bytes, sfq_cap_mul(tokens, (layers_of(student, recipe) + 1) * row + sizeof(double)));
    bytes = sfq_cap_add(bytes, sfq_token_batch_bytes(sequences, tokens));
    if (arch->head != SFQ_MODEL_HEAD_LM)
        return sfq_cap_add(bytes, 2 * sizeof(float) * sequences * sfq_divergence_width(arch));
    size_t most = sfq_min_size(tokens, sfq_loss_rows_most(arch));
    return sfq_cap_add(bytes, sfq_loss_rows_bytes(arch, most));
}

/* ---- a step ---- */

static sfq_status take_batch(sfq_train_step *s, uint64_t number, sfq_error *err)
{
    const sfq_train *train = s->train;
    const uint64_t seed = train->work->options->seed;
    sfq_token_batch_clear(&s->batch);
    for (size_t i = 0; i < s->sequences; i++) {
        uint64_t epoch, position = number * s->sequences + i;
        size_t sequence = sfq_train_order_at(&s->order, position, &epoch);
        double dice = sfq_rng_uniform(seed, STREAM_AUGMENT, position);
        if (epoch > 0 && dice < train->recipe->augmented)
            SFQ_TRY(sfq_augmenter_add(s->augmenter, &s->batch, sequence, epoch, err));
        else
            SFQ_TRY(sfq_token_batch_take(&s->batch, train->work->calibration, sequence, err));
    }
    return SFQ_OK;
}

static sfq_status reserve(sfq_train_step *s, size_t tokens, sfq_error *err)
{
    const size_t c = (size_t)s->train->student->arch->hidden;
    const size_t layers = layers_of(s->train->student, s->train->recipe);
    size_t floats, all;
    if (tokens <= s->capacity)
        return SFQ_OK;
    sfq_mem_free(s->teacher_hidden);
    sfq_mem_free(s->d_hidden);
    sfq_mem_free(s->rows);
    s->capacity = 0;
    s->teacher_hidden = s->d_hidden = NULL;
    s->rows = NULL;
    if (!sfq_ck_mul(tokens, c, &floats) || !sfq_ck_mul(floats, layers, &all))
        return sfq_fail(err, SFQ_E_LIMIT, "a batch of %zu tokens is too large", tokens);
    s->d_hidden = SFQ_NEW_ARRAY(float, floats);
    s->rows = SFQ_NEW_ARRAY(double, tokens);
    s->teacher_hidden = layers > 0 ? SFQ_NEW_ARRAY(float, all) : NULL;
    if (s->d_hidden == NULL || s->rows == NULL || (layers > 0 && s->teacher_hidden == NULL))
        return sfq_fail_memory(err, (all + floats) * sizeof(float), "hidden states of a batch");
    s->capacity = tokens;
    return SFQ_OK;
}

static void keep_hidden(void *ud, int layer, const float *hidden, size_t t, size_t c)
{
    sfq_train_step *s = ud;
    if (layer > 0)
        memcpy(s->teacher_hidden + (size_t)(layer - 1) * t * c, hidden, t * c * sizeof(float));
}

static void inject(void *ud, int layer, float *d_hidden, size_t t, size_t c)
{
    (void)t, (void)c;
    if (layer > 0)
        sfq_hidden_term_add(ud, layer, d_hidden);
}

static sfq_status backward(sfq_train_step *s, sfq_error *err)
{
    const sfq_train *train = s->train;
    const sfq_net *student = train->student;
    const sfq_grad_hooks hooks = {.ud = &s->term, .inject = inject};
    const bool hidden = train->recipe->hidden > 0;
    if (hidden) {
        s->term = (sfq_hidden_term){.arch = student->arch,
                                    .batch = &s->batch.batch,
                                    .student = s->grad,
                                    .teacher = s->teacher_hidden,
                                    .weight = train->recipe->hidden,
                                    .pool = train->work->pool,
                                    .rows = s->rows};
        sfq_hidden_term_add(&s->term, student->arch->layers, s->d_hidden);
    }
    return sfq_grad_backward(s->grad, s->d_hidden, train->grads, hidden ? &hooks : NULL, err);
}

sfq_status sfq_train_step_run(sfq_train_step *s, uint64_t number, double *loss, sfq_error *err)
{
    const sfq_train *train = s->train;
    const sfq_work *work = train->work;
    const bool hidden = train->recipe->hidden > 0;
    const float *answer, *attempt;
    SFQ_TRY(take_batch(s, number, err));
    const sfq_batch *batch = &s->batch.batch;
    SFQ_TRY(reserve(s, batch->offset[batch->sequences], err));
    SFQ_TRY(sfq_forward(s->teacher, batch, &answer, hidden ? keep_hidden : NULL, s, err));
    SFQ_TRY(sfq_work_check(work, err));
    SFQ_TRY(sfq_grad_forward(s->grad, batch, &attempt, err));
    SFQ_TRY(sfq_work_check(work, err));
    const sfq_loss_step step = {.grad = s->grad,
                                .student = train->student,
                                .teacher_exec = s->teacher,
                                .pool = work->pool,
                                .batch = batch,
                                .teacher_hidden = answer,
                                .student_hidden = attempt,
                                .temperature = (float)train->recipe->temperature,
                                .d_hidden = s->d_hidden,
                                .into = train->grads,
                                .value = loss};
    SFQ_TRY(sfq_loss_gradient(&step, err));
    s->term.value = 0;
    SFQ_TRY(backward(s, err));
    *loss += s->term.value;
    return sfq_work_check(work, err);
}
