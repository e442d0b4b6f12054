/* Distillation and tuning under the seam: each allocation and each system call fails once. Then:
 * the right code, nothing kept; or, where only a state file could not be kept or read, the same
 * result to the bit. */
#include "fault/seam.h"

#include "base/file.h"
#include "compress/pipeline.h"
#include "compress/tune.h"
#include "unit/work_fixture.h"

static const sfq_hooks no_hooks;

enum { STEPS = 3 };

typedef struct room {
    char dir[SCRATCH_ROOM], state[2 * SCRATCH_ROOM], packed[2 * SCRATCH_ROOM];
    char out[2 * SCRATCH_ROOM];
    work_fixture w;
    int asked, stop_at; /* 0: never */
} room;

static room r;

static bool stop(void *ud)
{
    (void)ud;
    return ++r.asked == r.stop_at;
}

static void room_open(const char *config)
{
    char model[2 * SCRATCH_ROOM];
    sfq_error err = {0};
    r = (room){0};
    scratch_open(r.dir);
    snprintf(model, sizeof model, "%s/model", r.dir);
    snprintf(r.state, sizeof r.state, "%s/state", r.dir);
    snprintf(r.packed, sizeof r.packed, "%s/packed", r.dir);
    snprintf(r.out, sizeof r.out, "%s/out", r.dir);
    assert_int_equal(mkdir(r.state, 0777), 0);
    random_model(model, config, SFQ_F32, 5);
    const sfq_compress_options o = {.struct_size = sizeof o,
                                    .model = model,
                                    .output = r.packed,
                                    .recipe = "sfq",
                                    .bits = 3,
                                    .embedding_bits = 3,
                                    .max_drop = -1,
                                    .threads = 1};
    sfq_compress_result done;
    assert_ok(sfq_pipeline_run(&o, NULL, &done, &err));
    work_open(&r.w, model, 1);
    r.w.options.steps = STEPS;
    r.w.options.hooks.cancelled = stop;
}

static void room_close(void)
{
    work_close(&r.w);
    scratch_close(r.dir);
}

/* ---- what is done under faults; *result stands for all values ---- */

typedef sfq_status (*scenario)(double *result, sfq_error *err);

static double sum_of(sfq_student *s)
{
    const sfq_matrix *down = sfq_student_matrix(s, SFQ_ROLE_DOWN, 1);
    const float *w = down->w;
    double sum = 0;
    for (size_t i = 0; i < down->n * down->k; i++)
        sum = sum * 1.0000001 + (double)w[i];
    return sum;
}

static sfq_status do_distill(double *result, sfq_error *err)
{
    sfq_student *student = NULL;
    sfq_loss *loss = NULL;
    sfq_distill_report report;
    sfq_status status = SFQ_OK;
    r.asked = 0;
    SFQ_DO(sfq_loss_open(&loss, &r.w.work, WORK_TUNE, WORK_SEQUENCES, err));
    SFQ_DO(sfq_student_open(&student, r.w.source, SFQ_F32, &no_hooks, err));
    sfq_student_gain(sfq_student_norm(student, SFQ_ROLE_FFN_NORM, 0))[0] = 3; /* to be undone */
    SFQ_DO(sfq_distill_run(&r.w.work, student, loss, r.state, &report, err));
    *result = report.after < report.before ? sum_of(student) : NAN;
done:
    sfq_student_close(&student);
    sfq_loss_close(&loss);
    return status;
}

/* Interrupted half way, then to the end. */
static sfq_status do_resume(double *result, sfq_error *err)
{
    r.stop_at = 14;
    sfq_status status = do_distill(result, err);
    r.stop_at = 0;
    if (status != SFQ_E_INTERRUPTED)
        return status;
    sfq_error_clear(err);
    return do_distill(result, err);
}

static sfq_status do_tune(double *result, sfq_error *err)
{
    sfq_loss *loss = NULL;
    sfq_outdir *out = NULL;
    sfq_tune_report report;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_loss_open(&loss, &r.w.work, WORK_TUNE, WORK_SEQUENCES, err));
    SFQ_DO(sfq_outdir_open(&out, r.out, true, err));
    SFQ_DO(sfq_tune_run(&r.w.work, r.packed, loss, r.state, out, &report, err));
    SFQ_DO(sfq_outdir_commit(&out, NULL, err));
    *result = report.after;
done:
    sfq_outdir_abort(&out);
    sfq_loss_close(&loss);
    return status;
}

/* ---- faults ---- */

static void no_state(void)
{
    remove(scratch_path(r.dir, "state/distill.state"));
    remove(scratch_path(r.dir, "state/tune.state"));
}

/* Whether the n-th call of op was there to fail. */
static bool fail_one(scenario run, const char *op, unsigned long n, double want, bool may_fail)
{
    char spec[64];
    sfq_error err = {0};
    double result = 0;
    no_state();
    snprintf(spec, sizeof spec, "%s:%lu", op, n);
    assert_true(seam_arm(spec));
    sfq_status status = run(&result, &err);
    bool fired = seam_fired();
    long live = seam_live();
    seam_disarm();
    if (live != 0)
        fail_msg("%s: %ld pieces of memory are kept", spec, live);
    if (status == SFQ_OK ? result != want : !may_fail || err.code != status || !err.message[0])
        fail_msg("%s: %s, %s, %g", spec, sfq_status_name(status), err.message, result);
    if (strcmp(op, "alloc") == 0 && status != SFQ_OK && status != SFQ_E_MEMORY)
        fail_msg("%s: %s, %s", spec, sfq_status_name(status), err.message);
    if (sfq_file_exists(scratch_path(r.dir, "state/distill.state.tmp")))
        fail_msg("%s: a temporary is left", spec);
    return fired;
}

static void sweep(scenario run, const char *op, double want, bool may_fail, unsigned long least)
{
    unsigned long n = 1, step = run == do_resume && strcmp(op, "alloc") == 0 ? 7 : 1;
    while (fail_one(run, op, n, want, may_fail))
        n += step;
    if (n <= least)
        fail_msg("%s: only %lu calls", op, n - 1);
}

static double clean(scenario run)
{
    sfq_error err = {0};
    double result = NAN;
    no_state();
    assert_ok(run(&result, &err));
    assert_true(result == result);
    return result;
}

static void test_distill(void **state)
{
    static const int families[] = {0, RANDOM_FAMILIES - 1}; /* llama, DistilBERT */
    (void)state;
    for (int i = 0; i < 2; i++) {
        room_open(random_families[families[i]].config);
        double want = clean(do_distill);
        assert_true(clean(do_resume) == want);
        sweep(do_distill, "alloc", want, true, 40);
        sweep(do_resume, "alloc", want, true, 40);
        sweep(do_resume, "mmap", want, true, 1); /* as for want of memory */
        static const char *const calls[] = {"write", "fsync", "rename", "fallocate"};
        for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
            sweep(do_resume, calls[c], want, false, 1);
        room_close();
    }
}

static void test_tune(void **state)
{
    static const int families[] = {0, RANDOM_FAMILIES - 1};
    (void)state;
    for (int i = 0; i < 2; i++) {
        room_open(random_families[families[i]].config);
        double want = clean(do_tune);
        sweep(do_tune, "alloc", want, true, 40);
        static const char *const calls[] = {"open", "write", "fsync", "read", "mmap"};
        for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
            sweep(do_tune, calls[c], want, true, 1);
        room_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distill),
        cmocka_unit_test(test_tune),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
