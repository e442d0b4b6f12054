/* Tuning a quantized model: the loss falls, codes stay, the file is whole and is what was judged;
 * threads and interruptions do not change a byte. */
#include "unit/work_fixture.h"

#include "base/file.h"
#include "compress/copy.h"
#include "compress/packed.h"
#include "compress/pipeline.h"
#include "compress/tune.h"

static sfq_error err;
static const sfq_hooks no_hooks;

enum { SEQUENCES = 60, TUNE = 48, LONGEST = 20 };

/* A quantized model, beside others in a scratch directory. */
static void make_packed(const char *model, int bits, const char *target)
{
    const sfq_compress_options o = {.struct_size = sizeof o,
                                    .model = model,
                                    .output = target,
                                    .recipe = "sfq",
                                    .bits = bits,
                                    .embedding_bits = bits,
                                    .max_drop = -1,
                                    .threads = 1};
    sfq_compress_result done;
    assert_ok(sfq_pipeline_run(&o, NULL, &done, &err));
}

typedef struct site {
    char dir[SCRATCH_ROOM], packed[2 * SCRATCH_ROOM], out[2 * SCRATCH_ROOM];
    const char *model;
} site;

static void site_open(site *s, const char *model, int bits)
{
    scratch_open(s->dir);
    s->model = model;
    snprintf(s->packed, sizeof s->packed, "%s/packed", s->dir);
    snprintf(s->out, sizeof s->out, "%s/out", s->dir);
    make_packed(model, bits, s->packed);
}

/* Into s->out, which is a whole model afterwards. */
static sfq_status tune(const site *s, int threads, int steps, const char *state,
                       const sfq_hooks *hooks, sfq_tune_report *report)
{
    work_fixture w;
    sfq_loss *loss;
    sfq_outdir *out;
    work_open(&w, s->model, threads);
    sfq_calibration_close(&w.calibration);
    work_calibrate(&w, SEQUENCES, TUNE, LONGEST);
    w.work.calibration = w.calibration;
    w.options.steps = steps;
    assert_ok(sfq_loss_open(&loss, &w.work, TUNE, SEQUENCES, &err));
    assert_ok(sfq_outdir_open(&out, s->out, true, &err));
    if (hooks != NULL)
        w.options.hooks = *hooks;
    sfq_status status = sfq_tune_run(&w.work, s->packed, loss, state, out, report, &err);
    if (status == SFQ_OK) {
        assert_ok(sfq_copy_files(s->packed, out, &err));
        assert_ok(sfq_outdir_commit(&out, NULL, &err));
    }
    sfq_outdir_abort(&out);
    sfq_loss_close(&loss);
    work_close(&w);
    return status;
}

/* The held-out loss of a model on the disk. */
static double loss_of(const site *s, const char *dir)
{
    work_fixture w;
    sfq_loss *loss;
    sfq_packed *p;
    double value;
    work_open(&w, s->model, 2);
    sfq_calibration_close(&w.calibration);
    work_calibrate(&w, SEQUENCES, TUNE, LONGEST);
    w.work.calibration = w.calibration;
    assert_ok(sfq_loss_open(&loss, &w.work, TUNE, SEQUENCES, &err));
    assert_ok(sfq_packed_open(&p, dir, &no_hooks, &err));
    assert_ok(sfq_loss_measure(loss, p->bound, &value, &err));
    sfq_packed_close(&p);
    sfq_loss_close(&loss);
    work_close(&w);
    return value;
}

static sfq_buf read_file(const char *dir, const char *name)
{
    char path[3 * SCRATCH_ROOM];
    sfq_buf b = SFQ_BUF_INIT(1 << 26);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(sfq_file_read(&b, path, 1 << 26, &err));
    return b;
}

static bool same_file(const char *a, const char *b, const char *name)
{
    sfq_buf x = read_file(a, name), y = read_file(b, name);
    bool same = x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
    sfq_buf_free(&x);
    sfq_buf_free(&y);
    return same;
}

/* Codes and whatever is not small are as they were; of the small ones most are not. */
static void assert_only_small_differ(const site *s)
{
    sfq_packed *p;
    sfq_checkpoint *ck;
    size_t moved = 0;
    assert_ok(sfq_packed_open(&p, s->packed, &no_hooks, &err));
    assert_ok(sfq_checkpoint_open(&ck, s->out, &no_hooks, &err));
    assert_ok(sfq_checkpoint_verify(ck, &no_hooks, &err)); /* checksums, and no NaN */
    assert_int_equal(sfq_checkpoint_count(ck), sfq_checkpoint_count(p->ck));
    for (size_t i = 0; i < sfq_checkpoint_count(ck); i++) {
        const sfq_tensor *a = sfq_checkpoint_at(p->ck, i), *b = sfq_checkpoint_at(ck, i);
        size_t item = 0;
        while (item < p->smalls->count && p->tensors[item] != a)
            item++;
        assert_string_equal(a->name, b->name);
        assert_true(a->dtype == b->dtype && a->bytes == b->bytes);
        if (item == p->smalls->count)
            assert_memory_equal(a->data, b->data, (size_t)a->bytes);
        else
            moved += memcmp(a->data, b->data, (size_t)a->bytes) != 0;
    }
    assert_true(moved > p->smalls->count / 2 && moved <= p->smalls->count);
    sfq_checkpoint_close(&ck);
    sfq_packed_close(&p);
}

static void check_tuning(const char *model, int bits, double most)
{
    site s;
    sfq_tune_report report;
    site_open(&s, model, bits);
    assert_ok(tune(&s, 2, 30, NULL, NULL, &report));
    assert_true(report.before == loss_of(&s, s.packed));
    if (!(report.after <= most * report.before))
        fail_msg("%s at %d bits: %g -> %g", model, bits, report.before, report.after);
    assert_true(report.after == loss_of(&s, s.out)); /* bit by bit: what the file holds */
    if (report.best > 0)
        assert_only_small_differ(&s);
    assert_true(same_file(s.packed, s.out, "config.json"));
    scratch_close(s.dir);
}

static void test_tuning_helps(void **state)
{
    (void)state;
    check_tuning("models/sst2-tiny", 3, 0.8);
    check_tuning("models/sst2-tiny", 8, 1);
    check_tuning("models/novels-5m", 3, 0.98);
}

/* Every family: what is written is what was judged. */
static void test_families(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM], model[2 * SCRATCH_ROOM];
    scratch_open(dir);
    for (size_t i = 0; i < RANDOM_FAMILIES; i++) {
        snprintf(model, sizeof model, "%s/%s", dir, random_families[i].name);
        random_model(model, random_families[i].config, SFQ_BF16, i);
        site s;
        sfq_tune_report report;
        site_open(&s, model, 4);
        assert_ok(tune(&s, 1, 3, NULL, NULL, &report));
        assert_true(report.after == loss_of(&s, s.out));
        scratch_close(s.dir);
    }
    scratch_close(dir);
}

static void test_no_steps_no_change(void **state)
{
    (void)state;
    site s;
    sfq_tune_report report;
    site_open(&s, "models/sst2-tiny", 4);
    assert_ok(tune(&s, 1, 0, NULL, NULL, &report));
    assert_true(report.steps == 0 && report.after == report.before);
    assert_true(same_file(s.packed, s.out, "model.safetensors"));
    scratch_close(s.dir);
}

static void test_threads(void **state)
{
    (void)state;
    site s;
    sfq_tune_report report;
    char first[3 * SCRATCH_ROOM];
    site_open(&s, "models/sst2-tiny", 4);
    snprintf(first, sizeof first, "%s/first", s.dir);
    for (int threads = 1; threads <= 3; threads++) {
        assert_ok(tune(&s, threads, 8, NULL, NULL, &report));
        if (threads == 1)
            assert_int_equal(rename(s.out, first), 0);
        else
            assert_true(same_file(first, s.out, "model.safetensors"));
    }
    assert_false(same_file(first, s.packed, "model.safetensors"));
    scratch_close(s.dir);
}

typedef struct stopper {
    int asked, stop_at;
} stopper;

static bool stop(void *ud)
{
    stopper *s = ud;
    return ++s->asked == s->stop_at;
}

static void test_interrupted(void **state)
{
    (void)state;
    site s;
    sfq_tune_report report;
    stopper counter = {0};
    sfq_hooks hooks = {.ud = &counter, .cancelled = stop};
    char whole[3 * SCRATCH_ROOM], kept[3 * SCRATCH_ROOM];
    site_open(&s, "models/sst2-tiny", 4);
    snprintf(whole, sizeof whole, "%s/whole", s.dir);
    snprintf(kept, sizeof kept, "%s/kept", s.dir);
    assert_int_equal(mkdir(kept, 0777), 0);
    assert_ok(tune(&s, 2, 5, NULL, &hooks, &report));
    assert_int_equal(rename(s.out, whole), 0);
    int asks = counter.asked;
    for (int at = 1; at <= asks; at += 5) {
        counter = (stopper){.stop_at = at};
        assert_status(SFQ_E_INTERRUPTED, tune(&s, 2, 5, kept, &hooks, &report));
        assert_ok(tune(&s, 1, 5, kept, NULL, &report));
        assert_true(same_file(whole, s.out, "model.safetensors"));
        remove(scratch_path(s.dir, "kept/tune.state"));
    }
    scratch_close(s.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tuning_helps),       cmocka_unit_test(test_families),
        cmocka_unit_test(test_no_steps_no_change), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
