/* What the stages of recalibration say they need is what they use: the heap is counted through the
 * seam of base/sys.h. Sequences are of one length, so that the announced batch is the real one. */
#include "unit/work_fixture.h"

#include "base/sys.h"
#include "compress/pipeline.h"
#include "compress/tune.h"

#include <malloc.h>

static sfq_error err;
static const sfq_hooks no_hooks;

/* ---- the heap ---- */

static size_t live, peak;

static void *count(void *p)
{
    live += malloc_usable_size(p);
    peak = live > peak ? live : peak;
    return p;
}

void *__real_sfq_sys_malloc(size_t n);
void *__real_sfq_sys_calloc(size_t n, size_t size);
void *__real_sfq_sys_realloc(void *p, size_t n);
void *__real_sfq_sys_memalign(size_t align, size_t n);
void __real_sfq_sys_free(void *p);
void *__wrap_sfq_sys_malloc(size_t n);
void *__wrap_sfq_sys_calloc(size_t n, size_t size);
void *__wrap_sfq_sys_realloc(void *p, size_t n);
void *__wrap_sfq_sys_memalign(size_t align, size_t n);
void __wrap_sfq_sys_free(void *p);

void *__wrap_sfq_sys_malloc(size_t n)
{
    return count(__real_sfq_sys_malloc(n));
}

void *__wrap_sfq_sys_calloc(size_t n, size_t size)
{
    return count(__real_sfq_sys_calloc(n, size));
}

void *__wrap_sfq_sys_realloc(void *p, size_t n)
{
    live -= malloc_usable_size(p);
    return count(__real_sfq_sys_realloc(p, n));
}

void *__wrap_sfq_sys_memalign(size_t align, size_t n)
{
    return count(__real_sfq_sys_memalign(align, n));
}

void __wrap_sfq_sys_free(void *p)
{
    live -= malloc_usable_size(p);
    __real_sfq_sys_free(p);
}

static size_t begin(void)
{
    peak = live;
    return live;
}

/* What is announced holds what is used and, here, at most a quarter more. */
#define SLACK 1.25

static void assert_announced(const char *what, uint64_t announced, size_t before)
{
    double used = (double)(peak - before), said = (double)announced;
    if (!(used <= said && said <= SLACK * used))
        fail_msg("%s: %.0f bytes announced, %.0f used", what, said, used);
}

/* ---- stages ---- */

enum { SEQUENCES = 50, TUNE = 40, LENGTH = 24 };

static void open_even(work_fixture *w, const char *model)
{
    work_open(w, model, 2);
    sfq_calibration_close(&w->calibration);
    work_calibrate(w, SEQUENCES, TUNE, LENGTH);
    w->work.calibration = w->calibration;
    sfq_calibration *c = w->calibration;
    for (size_t i = 0; i <= SEQUENCES; i++)
        c->offset[i] = i * LENGTH;
    for (size_t i = 0; i < SEQUENCES * LENGTH; i++)
        c->ids[i] = (int32_t)(sfq_rng_u64(4, 4, i) % (uint64_t)w->source->arch->vocab);
}

static const char *const models[] = {"models/sst2-tiny", "models/novels-5m"};

static void test_loss(void **state)
{
    (void)state;
    for (size_t m = 0; m < 2; m++) {
        work_fixture w;
        sfq_loss *loss;
        double value;
        open_even(&w, models[m]);
        size_t before = begin();
        assert_ok(sfq_loss_open(&loss, &w.work, TUNE, SEQUENCES, &err));
        assert_ok(sfq_loss_measure(loss, w.teacher, &value, &err));
        assert_announced(models[m], sfq_loss_bytes(&w.work, TUNE, SEQUENCES), before);
        sfq_loss_close(&loss);
        assert_int_equal(live, before);
        work_close(&w);
    }
}

static void check_distill(const char *model, sfq_dtype dtype)
{
    work_fixture w;
    sfq_loss *loss;
    sfq_student *s;
    sfq_distill_report report;
    open_even(&w, model);
    w.options.steps = 3;
    assert_ok(sfq_student_open(&s, w.source, dtype, &no_hooks, &err));
    uint64_t announced = sfq_distill_bytes(&w.work, s->net);
    announced += sfq_loss_bytes(&w.work, TUNE, SEQUENCES);
    size_t before = begin(); /* the loss is held through the stage, as the estimate says */
    assert_ok(sfq_loss_open(&loss, &w.work, TUNE, SEQUENCES, &err));
    assert_ok(sfq_distill_run(&w.work, s, loss, NULL, &report, &err));
    assert_announced(model, announced, before);
    sfq_loss_close(&loss);
    assert_int_equal(live, before);
    sfq_student_close(&s);
    work_close(&w);
}

static void test_distill(void **state)
{
    (void)state;
    for (size_t m = 0; m < 2; m++) {
        check_distill(models[m], SFQ_F32);
        check_distill(models[m], SFQ_F16);
    }
}

static void check_tune(const char *model, const char *dir, const char *name)
{
    work_fixture w;
    sfq_loss *loss;
    sfq_outdir *out;
    sfq_tune_report report;
    sfq_compress_result done;
    const char *packed = scratch_path(dir, name);
    const sfq_compress_options o = {.struct_size = sizeof o,
                                    .model = model,
                                    .output = packed,
                                    .recipe = "sfq",
                                    .bits = 4,
                                    .embedding_bits = 4,
                                    .max_drop = -1,
                                    .threads = 1};
    assert_ok(sfq_pipeline_run(&o, NULL, &done, &err));
    open_even(&w, model);
    w.options.steps = 3;
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "out"), true, &err));
    uint64_t announced = sfq_tune_bytes(&w.work) + sfq_loss_bytes(&w.work, TUNE, SEQUENCES);
    size_t before = begin();
    assert_ok(sfq_loss_open(&loss, &w.work, TUNE, SEQUENCES, &err));
    assert_ok(sfq_tune_run(&w.work, packed, loss, NULL, out, &report, &err));
    assert_announced(model, announced, before);
    sfq_outdir_abort(&out);
    sfq_loss_close(&loss);
    work_close(&w);
}

static void test_tune(void **state)
{
    char dir[SCRATCH_ROOM];
    (void)state;
    scratch_open(dir);
    check_tune(models[0], dir, "a");
    check_tune(models[1], dir, "b");
    scratch_close(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_distill),
        cmocka_unit_test(test_tune),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
