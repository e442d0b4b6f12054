/* Distillation: gradients of the whole training loss, the loss falls, nothing gets worse, threads
 * and interruptions do not change a bit, and what is not finite ends well. */
#include "unit/work_fixture.h"

#include "base/clock.h"
#include "base/file.h"
#include "compress/distill.h"
#include "compress/train.h"
#include "compress/train_step.h"

static sfq_error err;
static const sfq_hooks no_hooks;

/* ---- students ---- */

/* The original with every second neuron and every second KV group taken away. */
static sfq_student *cut_student(const work_fixture *w, sfq_dtype dtype)
{
    sfq_student *s;
    uint32_t groups[64], neurons[4096];
    assert_ok(sfq_student_open(&s, w->source, dtype, &no_hooks, &err));
    for (int i = 0; i < s->arch->layers; i++) {
        const sfq_layer_arch *l = &s->arch->layer[i];
        sfq_layer_keep keep = {.groups = groups, .neurons = neurons};
        assert_true(l->kv_heads <= 64 && l->ffn <= 4096);
        for (int j = 0; j < l->kv_heads; j += i == 1 ? 2 : 1)
            groups[keep.kv_heads++] = (uint32_t)j;
        for (int j = 0; j < l->ffn; j += 2)
            neurons[keep.ffn++] = (uint32_t)j;
        sfq_student_cut(s, i, &keep);
    }
    return s;
}

static float *values_of(sfq_student *s, size_t *count)
{
    sfq_params *p;
    assert_ok(sfq_params_open(&p, s, false, &err));
    float *all = malloc(p->total * sizeof(float)), *to = all;
    assert_non_null(all);
    for (size_t i = 0; i < p->count; to += p->items[i++].count)
        memcpy(to, p->items[i].value, p->items[i].count * sizeof(float));
    *count = p->total;
    sfq_params_close(&p);
    return all;
}

typedef struct outcome {
    sfq_distill_report report;
    float *values;
    size_t count;
} outcome;

static void assert_same_outcome(const outcome *a, const outcome *b)
{
    assert_memory_equal(&a->report.before, &b->report.before, sizeof(double));
    assert_memory_equal(&a->report.after, &b->report.after, sizeof(double));
    assert_int_equal(a->report.steps, b->report.steps);
    assert_int_equal(a->report.best, b->report.best);
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->values, b->values, a->count * sizeof(float));
}

static const sfq_train_recipe recipe = {.lr = 1e-4,
                                        .warm_up = 0.05,
                                        .decay = 0.01,
                                        .clip = 1,
                                        .temperature = 2,
                                        .hidden = 1,
                                        .augmented = 0.5,
                                        .augment = {.replace = 0.1},
                                        .sequences = 8,
                                        .tokens = 400};

/* Trains a list that is made for one run. */
static sfq_status train(work_fixture *w, sfq_student *s, const sfq_train_recipe *r, int steps,
                        const char *dir, sfq_distill_report *out)
{
    sfq_params *p;
    sfq_loss *loss;
    sfq_trainable items[256];
    assert_ok(sfq_params_open(&p, s, false, &err));
    assert_true(p->count <= 256);
    for (size_t i = 0; i < p->count; i++)
        items[i] = (sfq_trainable){.value = p->items[i].value,
                                   .gradient = p->items[i].gradient,
                                   .count = p->items[i].count,
                                   .decay = p->items[i].decay};
    const sfq_hooks hooks = w->options.hooks;
    w->options.hooks = no_hooks;
    assert_ok(sfq_loss_open(&loss, &w->work, w->calibration->tune, w->calibration->count, &err));
    w->options.hooks = hooks;
    const sfq_train job = {.work = &w->work,
                           .student = s->net,
                           .grads = &p->grads,
                           .items = items,
                           .count = p->count,
                           .recipe = r,
                           .steps = steps,
                           .held_out = loss,
                           .dir = dir,
                           .name = "test.state"};
    sfq_status status = sfq_train_run(&job, out, &err);
    for (size_t i = 0; i < p->count; i++)
        assert_null(*p->items[i].gradient);
    sfq_loss_close(&loss);
    sfq_params_close(&p);
    return status;
}

static void open_tiny(work_fixture *w, const char *model, int threads)
{
    work_open(w, model, threads);
    sfq_calibration_close(&w->calibration);
    work_calibrate(w, 60, 48, 20);
    w->work.calibration = w->calibration;
}

/* ---- gradients ---- */

/* The loss of step 3 with all values moved by `by` times a random direction. */
static double step_at(const work_fixture *w, sfq_student *s, double by, float *gradients)
{
    sfq_params *p;
    sfq_train_step *step;
    sfq_train_recipe r = recipe;
    double loss;
    r.augmented = 0;
    assert_ok(sfq_params_open(&p, s, false, &err));
    float *at = gradients;
    for (size_t i = 0; i < p->count; i++) {
        *p->items[i].gradient = gradients != NULL ? at : NULL;
        at += gradients != NULL ? p->items[i].count : 0;
        for (size_t j = 0; j < p->items[i].count; j++)
            p->items[i].value[j] += (float)(by * sfq_rng_normal(9, i, j));
    }
    const sfq_train job = {
        .work = &w->work, .student = s->net, .grads = &p->grads, .recipe = &r, .steps = 10};
    assert_ok(sfq_train_step_open(&step, &job, &err));
    assert_ok(sfq_train_step_run(step, 3, &loss, &err));
    sfq_train_step_close(&step);
    for (size_t i = 0; i < p->count; i++)
        for (size_t j = 0; j < p->items[i].count; j++)
            p->items[i].value[j] -= (float)(by * sfq_rng_normal(9, i, j));
    sfq_params_close(&p);
    return loss;
}

static void check_gradients(const char *model)
{
    work_fixture w;
    size_t total;
    open_tiny(&w, model, 2);
    /* DistilBERT's head has a ReLU, whose corners are near */
    const double eps = w.source->arch->family == SFQ_FAMILY_DISTILBERT ? 3e-5 : 2e-4;
    sfq_student *s = cut_student(&w, SFQ_F32);
    float *d = values_of(s, &total);
    memset(d, 0, total * sizeof(float));
    (void)step_at(&w, s, 0, d);
    double slope = (step_at(&w, s, eps, NULL) - step_at(&w, s, -eps, NULL)) / (2 * eps), along = 0;
    sfq_params *p;
    assert_ok(sfq_params_open(&p, s, false, &err));
    const float *at = d;
    for (size_t i = 0; i < p->count; at += p->items[i++].count)
        for (size_t j = 0; j < p->items[i].count; j++)
            along += (double)at[j] * sfq_rng_normal(9, i, j);
    assert_true(fabs(slope) > 1e-2);
    assert_near(along / slope, 1, 1e-2);
    sfq_params_close(&p);
    free(d);
    sfq_student_close(&s);
    work_close(&w);
}

static void test_gradients(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    check_gradients("models/sst2-tiny");
    for (size_t i = 0; i < RANDOM_FAMILIES; i++) {
        const char *model = scratch_path(dir, random_families[i].name);
        random_model(model, random_families[i].config, SFQ_F32, 5);
        check_gradients(model);
    }
    scratch_close(dir);
}

/* ---- learning ---- */

static outcome run(const char *model, int threads, int steps, const char *dir,
                   const sfq_hooks *hooks, sfq_status expected)
{
    work_fixture w;
    outcome o = {0};
    open_tiny(&w, model, threads);
    sfq_student *s = cut_student(&w, SFQ_F32);
    if (hooks != NULL)
        w.options.hooks = *hooks;
    sfq_train_recipe r = recipe;
    if (strstr(model, "sst2") == NULL)
        r.augmented = 0; /* the others have no tokenizer */
    assert_status(expected, train(&w, s, &r, steps, dir, &o.report));
    o.values = values_of(s, &o.count);
    sfq_student_close(&s);
    work_close(&w);
    return o;
}

static void test_loss_falls_on_any_threads(void **state)
{
    (void)state;
    outcome o[3];
    for (int i = 0; i < 3; i++) {
        o[i] = run("models/sst2-tiny", i + 1, 40, NULL, NULL, SFQ_OK);
        assert_same_outcome(&o[0], &o[i]);
    }
    assert_true(o[0].report.before > 1e-3);
    assert_true(o[0].report.after < 0.5 * o[0].report.before);
    assert_int_equal(o[0].report.steps, 40);
    assert_true(o[0].report.best > 20 && !o[0].report.late);
    for (int i = 0; i < 3; i++)
        free(o[i].values);
}

/* The report says the truth about the student that leaves. */
static void test_report_is_measured(void **state)
{
    (void)state;
    work_fixture w;
    sfq_distill_report report;
    sfq_loss *loss;
    double value;
    open_tiny(&w, "models/sst2-tiny", 2);
    sfq_student *s = cut_student(&w, SFQ_F32);
    assert_ok(sfq_loss_open(&loss, &w.work, 48, 60, &err));
    w.options.steps = 12;
    assert_int_equal(sfq_distill_steps(&w.work), 12);
    assert_ok(sfq_loss_measure(loss, s->net, &value, &err));
    assert_ok(sfq_distill_run(&w.work, s, loss, NULL, &report, &err));
    assert_true(report.before == value && report.steps == 12 && report.best > 0);
    assert_true(report.after < report.before);
    assert_ok(sfq_loss_measure(loss, s->net, &value, &err));
    assert_true(report.after == value);
    w.options.steps = 0; /* nothing to do */
    size_t count;
    float *before = values_of(s, &count), *after;
    assert_ok(sfq_distill_run(&w.work, s, loss, NULL, &report, &err));
    assert_true(report.before == value && report.after == value && report.steps == 0);
    after = values_of(s, &count);
    assert_memory_equal(before, after, count * sizeof(float));
    w.options.steps = -1;
    assert_true(sfq_distill_steps(&w.work) >= 10);
    free(before);
    free(after);
    sfq_loss_close(&loss);
    sfq_student_close(&s);
    work_close(&w);
}

static void test_roll_back(void **state)
{
    (void)state;
    static const double rates[] = {3, 1e25};
    for (size_t i = 0; i < 2; i++) {
        work_fixture w;
        sfq_distill_report report;
        sfq_train_recipe r = recipe;
        size_t count;
        open_tiny(&w, "models/sst2-tiny", 2);
        sfq_student *s = cut_student(&w, SFQ_F32);
        float *before = values_of(s, &count), *after;
        r.lr = rates[i];
        assert_ok(train(&w, s, &r, 200, NULL, &report));
        after = values_of(s, &count);
        assert_memory_equal(before, after, count * sizeof(float));
        assert_true(report.best == 0 && report.after == report.before);
        assert_true(report.steps < 200); /* patience, or no number any more */
        free(before);
        free(after);
        sfq_student_close(&s);
        work_close(&w);
    }
}

static void test_never_finite(void **state)
{
    (void)state;
    work_fixture w;
    sfq_distill_report report;
    open_tiny(&w, "models/sst2-tiny", 1);
    sfq_student *s = cut_student(&w, SFQ_F32);
    sfq_student_gain(sfq_student_norm(s, SFQ_ROLE_FFN_NORM, 0))[1] = NAN;
    assert_fails(SFQ_E_NUMERIC, "finite", train(&w, s, &recipe, 5, NULL, &report));
    sfq_student_close(&s);
    work_close(&w);
}

/* ---- interruption ---- */

typedef struct stopper {
    int asked, stop_at; /* 0: never */
    int notes, warnings;
    char last[256];
} stopper;

static bool stop(void *ud)
{
    stopper *s = ud;
    return ++s->asked == s->stop_at;
}

static void note(void *ud, sfq_log_level level, const char *message)
{
    stopper *s = ud;
    s->notes += level == SFQ_LOG_NOTE;
    s->warnings += level == SFQ_LOG_WARNING;
    if (strstr(message, "held-out") == NULL)
        snprintf(s->last, sizeof s->last, "%s", message);
}

static void check_interruptions(const char *model)
{
    enum { STEPS = 6 };
    stopper s = {0};
    sfq_hooks hooks = {.ud = &s, .cancelled = stop, .log = note};
    char dir[SCRATCH_ROOM];
    outcome whole = run(model, 1, STEPS, NULL, &hooks, SFQ_OK);
    int asks = s.asked, resumed = 0;
    assert_true(asks > 3 * STEPS);
    for (int at = 1; at <= asks; at += 3) {
        scratch_open(dir);
        s = (stopper){.stop_at = at};
        outcome part = run(model, 2, STEPS, dir, &hooks, SFQ_E_INTERRUPTED);
        s = (stopper){.stop_at = asks / 2}; /* once more, where there is still so much to do */
        bool kept = sfq_file_exists(scratch_path(dir, "test.state"));
        if (kept && at < asks / 3) {
            outcome again = run(model, 1, STEPS, dir, &hooks, SFQ_E_INTERRUPTED);
            free(again.values);
        }
        s = (stopper){0};
        outcome rest = run(model, 3, STEPS, dir, &hooks, SFQ_OK);
        resumed += strstr(s.last, "goes on after") != NULL;
        assert_same_outcome(&whole, &rest);
        free(part.values);
        free(rest.values);
        scratch_close(dir);
    }
    assert_true(resumed > asks / 3 / 2);
    free(whole.values);
}

static void test_interrupted_anywhere(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    char model[2 * SCRATCH_ROOM];
    snprintf(model, sizeof model, "%s/m", dir);
    random_model(model, random_families[0].config, SFQ_F32, 5);
    check_interruptions("models/sst2-tiny");
    check_interruptions(model);
    scratch_close(dir);
}

/* Another run's state, and a damaged one: a note, and the stage from its beginning. */
static void test_state_of_no_use(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    stopper s = {.stop_at = 20};
    sfq_hooks hooks = {.ud = &s, .cancelled = stop, .log = note};
    scratch_open(dir);
    outcome part = run("models/sst2-tiny", 1, 6, dir, &hooks, SFQ_E_INTERRUPTED);
    s = (stopper){0};
    outcome other = run("models/sst2-tiny", 1, 7, dir, &hooks, SFQ_OK);
    assert_non_null(strstr(s.last, "belongs to another run"));
    s = (stopper){0};
    FILE *f = fopen(scratch_path(dir, "test.state"), "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, 5000, SEEK_SET), 0);
    assert_int_equal(fwrite("?", 1, 1, f), 1);
    assert_int_equal(fclose(f), 0);
    outcome damaged = run("models/sst2-tiny", 1, 6, dir, &hooks, SFQ_OK);
    assert_non_null(strstr(s.last, "is damaged"));
    outcome whole = run("models/sst2-tiny", 1, 6, NULL, NULL, SFQ_OK);
    assert_same_outcome(&whole, &damaged);
    /* no such directory: a warning, and the run goes on */
    s = (stopper){.stop_at = 20};
    outcome lost =
        run("models/sst2-tiny", 1, 6, scratch_path(dir, "no"), &hooks, SFQ_E_INTERRUPTED);
    assert_int_equal(s.warnings, 1);
    assert_non_null(strstr(s.last, "cannot be kept"));
    free(part.values);
    free(other.values);
    free(damaged.values);
    free(whole.values);
    free(lost.values);
    scratch_close(dir);
}

static void test_late(void **state)
{
    (void)state;
    work_fixture w;
    sfq_distill_report report;
    open_tiny(&w, "models/sst2-tiny", 1);
    sfq_student *s = cut_student(&w, SFQ_F32);
    w.work.deadline = sfq_clock_seconds() + 0.3;
    assert_ok(train(&w, s, &recipe, 1000000, NULL, &report));
    assert_true(report.late && report.steps < 1000000 && report.after <= report.before);
    w.work.deadline = sfq_clock_seconds() - 1;
    assert_ok(train(&w, s, &recipe, 1000000, NULL, &report));
    assert_true(report.late && report.steps == 0 && report.after == report.before);
    sfq_student_close(&s);
    work_close(&w);
}

/* ---- students in 16 bits ---- */

static void test_short_memory(void **state)
{
    (void)state;
    work_fixture w;
    sfq_distill_report report;
    sfq_loss *loss;
    float gain[2];
    open_tiny(&w, "models/sst2-tiny", 2);
    sfq_student *s = cut_student(&w, SFQ_F16);
    sfq_matrix *m = sfq_student_matrix(s, SFQ_ROLE_DOWN, 1);
    const float *gains = sfq_student_gain(sfq_student_norm(s, SFQ_ROLE_FFN_NORM, 1));
    assert_true(m->k <= 512);
    float *rows = malloc(m->n * m->k * sizeof(float)), *after = malloc(m->n * m->k * sizeof(float));
    assert_true(rows != NULL && after != NULL);
    sfq_student_get_rows(m, 0, m->n, rows);
    gain[0] = gains[3];
    w.options.steps = 30;
    assert_ok(sfq_loss_open(&loss, &w.work, 48, 60, &err));
    assert_ok(sfq_distill_run(&w.work, s, loss, NULL, &report, &err));
    assert_true(report.after < report.before && report.best > 0);
    sfq_student_get_rows(m, 0, m->n, after);
    gain[1] = gains[3];
    assert_memory_equal(rows, after, m->n * m->k * sizeof(float));
    assert_true(gain[0] != gain[1]);
    free(rows);
    free(after);
    sfq_loss_close(&loss);
    sfq_student_close(&s);
    work_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),          cmocka_unit_test(test_loss_falls_on_any_threads),
        cmocka_unit_test(test_report_is_measured), cmocka_unit_test(test_roll_back),
        cmocka_unit_test(test_never_finite),       cmocka_unit_test(test_interrupted_anywhere),
        cmocka_unit_test(test_state_of_no_use),    cmocka_unit_test(test_late),
        cmocka_unit_test(test_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
