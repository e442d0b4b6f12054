/* Calibration under the seam: every n-th allocation and every n-th call to the file system fails
 * once. The call ends with a code and a message, or with the result of a run without faults; it
 * keeps no memory and leaves nothing half done. The models are open beforehand. */
#include "fault/seam.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compress/calibration.h"
#include "unit/unit.h"

#include <math.h>

enum { DENSE = 250, SPREAD = 100 };

typedef struct bench {
    sfq_source *source;
    sfq_net *net;
    sfq_compress_options o;
} bench;

static bench novels, reviews;
static char dir[SCRATCH_ROOM], saved[2 * SCRATCH_ROOM];
static const char *texts[1];
static sfq_calibration *pairs;

static sfq_status bench_open(bench *b, const char *model, sfq_error *err)
{
    b->o = (sfq_compress_options){.struct_size = sizeof b->o,
                                  .model = model,
                                  .recipe = "sfq",
                                  .calib_length = 16,
                                  .pick = "curated",
                                  .threads = 1};
    SFQ_TRY(sfq_source_open(&b->source, &b->o, err));
    return sfq_net_open(&b->net, b->source->arch, b->source->modules, b->source->ck, NULL,
                        &b->o.hooks, err);
}

static sfq_status make(const bench *b, sfq_calibration **out, sfq_error *err)
{
    return sfq_calibration_make(out, b->source, b->net, sfq_kernels_get(SFQ_ISA_COUNT), &b->o, 1, 1,
                                (double)INFINITY, err);
}

static sfq_status save(const char *target, sfq_error *err)
{
    sfq_outdir *out = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_outdir_open(&out, target, true, err));
    SFQ_DO(sfq_outdir_put(out, "config.json", "{}", 2, err));
    SFQ_DO(sfq_calibration_save(pairs, out, "set", err));
    SFQ_DO(sfq_outdir_commit(&out, NULL, err));
done:
    sfq_outdir_abort(&out);
    return status;
}

static sfq_status prepare(sfq_error *err)
{
    char text[8000] = "", line[200];
    for (int i = 0; i < 40; i++) {
        snprintf(line, sizeof line,
                 "{\"text\": \"number %d\", \"text_pair\": \"%d\", \"label\": 1}\n", i, 7 * i);
        strcat(text, line);
    }
    scratch_put(dir, "train.jsonl", text);
    text[0] = 0;
    for (int i = 0; i < 60; i++) {
        snprintf(line, sizeof line, "Line %d of the keeper's book, and %d more.\n", i, 3 * i);
        strcat(text, line);
    }
    scratch_put(dir, "text", text);
    texts[0] = scratch_path(dir, "text");
    SFQ_TRY(bench_open(&novels, "models/novels-5m", err));
    SFQ_TRY(bench_open(&reviews, "models/sst2-tiny", err));
    reviews.o.data = dir;
    reviews.o.calib_fraction = 0.2;
    SFQ_TRY(make(&reviews, &pairs, err));
    snprintf(saved, sizeof saved, "%s/saved", dir);
    SFQ_TRY(save(saved, err));
    strcat(saved, "/set");
    return SFQ_OK;
}

static int setup(void **state)
{
    (void)state;
    sfq_error err;
    if (access("/dev/shm", W_OK) == 0) /* fsyncs */
        setenv("TMPDIR", "/dev/shm", 1);
    scratch_open(dir);
    if (prepare(&err) == SFQ_OK)
        return 0;
    print_error("%s\n", err.message);
    return -1;
}

static void bench_close(bench *b)
{
    sfq_net_close(&b->net);
    sfq_source_close(&b->source);
}

static int teardown(void **state)
{
    (void)state;
    sfq_calibration_close(&pairs);
    bench_close(&novels);
    bench_close(&reviews);
    scratch_close(dir);
    return 0;
}

/* ---- what is done under faults; *result stands for everything that came of it ---- */

typedef sfq_status (*scenario)(uint64_t *result, sfq_error *err);

static void sum_up(sfq_calibration **c, uint64_t *result)
{
    if (*c == NULL)
        return;
    *result = (*c)->tune;
    for (size_t t = 0; t < (*c)->offset[(*c)->count]; t++)
        *result = sfq_rng_u64(*result, 0, (uint64_t)(*c)->ids[t]);
    sfq_calibration_close(c);
}

static sfq_status do_task(uint64_t *result, sfq_error *err)
{
    sfq_calibration *c = NULL;
    sfq_status status = make(&reviews, &c, err);
    sum_up(&c, result);
    return status;
}

static sfq_status do_text(uint64_t *result, sfq_error *err)
{
    sfq_calibration *c = NULL;
    bench b = novels;
    b.o.text_files = texts;
    b.o.text_count = 1;
    b.o.calib_tokens = 100;
    sfq_status status = make(&b, &c, err);
    sum_up(&c, result);
    return status;
}

static sfq_status do_self(uint64_t *result, sfq_error *err)
{
    sfq_calibration *c = NULL;
    bench b = novels;
    b.o.calib_tokens = 90;
    sfq_status status = make(&b, &c, err);
    sum_up(&c, result);
    return status;
}

static sfq_status do_estimate(uint64_t *result, sfq_error *err)
{
    bench b = novels;
    uint64_t task[2] = {0}, text[2] = {0};
    b.o.text_files = texts;
    b.o.text_count = 1;
    SFQ_TRY(sfq_calibration_estimate(reviews.source, &reviews.o, &task[0], &task[1], err));
    SFQ_TRY(sfq_calibration_estimate(b.source, &b.o, &text[0], &text[1], err));
    *result = task[0] + 1000 * task[1] + 1000000 * text[0] + 1000000000 * text[1];
    return SFQ_OK;
}

static sfq_status do_load(uint64_t *result, sfq_error *err)
{
    sfq_calibration *c = NULL;
    sfq_status status = sfq_calibration_load(&c, saved, reviews.source->arch, err);
    sum_up(&c, result);
    return status;
}

static sfq_status do_save(uint64_t *result, sfq_error *err)
{
    char target[2 * SCRATCH_ROOM];
    snprintf(target, sizeof target, "%s/again", dir);
    *result = 1;
    return save(target, err);
}

static sfq_status do_put_test(uint64_t *result, sfq_error *err)
{
    char target[2 * SCRATCH_ROOM];
    sfq_outdir *out = NULL;
    sfq_compress_options o = {.text_files = texts, .text_count = 1};
    sfq_status status = SFQ_OK;
    snprintf(target, sizeof target, "%s/test", dir);
    *result = 1;
    SFQ_DO(sfq_outdir_open(&out, target, false, err));
    SFQ_DO(sfq_calibration_put_test(&o, out, "test.txt", err));
done:
    sfq_outdir_abort(&out);
    return status;
}

static sfq_status do_augment(uint64_t *result, sfq_error *err)
{
    sfq_augmenter *a = NULL;
    sfq_token_batch batch = {0};
    sfq_augment how = {.replace = 0.2, .drop = 0.1, .swap = 0.5, .mix = 0.5};
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_augmenter_open(&a, pairs, reviews.source, &how, err));
    for (size_t i = 0; i < pairs->tune; i++)
        SFQ_DO(sfq_augmenter_add(a, &batch, i, 1, err));
    for (size_t t = 0; t < batch.offset[batch.sequences]; t++)
        *result = sfq_rng_u64(*result, 0, (uint64_t)batch.ids[t]);
done:
    sfq_augmenter_close(&a);
    sfq_token_batch_free(&batch);
    return status;
}

/* ---- faults ---- */

static bool fail_at(scenario run, const char *op, unsigned long n, uint64_t want)
{
    char spec[64];
    sfq_error err = {0};
    uint64_t result = 0;
    snprintf(spec, sizeof spec, "%s:%lu", op, n);
    assert_true(seam_arm(spec));
    sfq_status status = run(&result, &err);
    bool fired = seam_fired();
    long live = seam_live();
    seam_disarm();
    bool memory = strcmp(op, "alloc") == 0;
    if (!fired)
        fail_msg("%s never came", spec);
    if (live != 0)
        fail_msg("%s failed: %ld pieces of memory are kept", spec, live);
    if (status == SFQ_OK ? result != want : memory && status != SFQ_E_MEMORY)
        fail_msg("%s failed: %s, %s", spec, sfq_status_name(status), err.message);
    if (status != SFQ_OK && (err.message[0] == 0 || status == SFQ_E_INTERNAL))
        fail_msg("%s failed without a word", spec);
    return status != SFQ_OK;
}

static void torture(scenario run)
{
    static const char *const ops[] = {"alloc", "open", "stat", "read", "mmap", "write"};
    unsigned long counts[6];
    sfq_error err = {0};
    uint64_t want = 0;
    assert_ok(run(&want, &err));
    want = 0;
    assert_true(seam_arm(""));
    assert_ok(run(&want, &err));
    for (size_t k = 0; k < 6; k++)
        counts[k] = seam_count(ops[k]);
    seam_disarm();
    assert_true(counts[0] > 3 && want > 0);
    for (size_t k = 0; k < 6; k++) {
        unsigned long count = counts[k], failed = 0;
        unsigned long step = count > DENSE ? (count - DENSE) / SPREAD + 1 : 1;
        for (unsigned long n = 1; n <= count; n += n < DENSE ? 1 : step)
            failed += fail_at(run, ops[k], n, want);
        if (k == 0)
            assert_true(failed > 3); /* faults do arrive */
    }
}

static void test_task(void **state)
{
    (void)state;
    torture(do_task);
}

static void test_text(void **state)
{
    (void)state;
    torture(do_text);
}

static void test_self(void **state)
{
    (void)state;
    torture(do_self);
}

static void test_estimate(void **state)
{
    (void)state;
    torture(do_estimate);
}

static void test_load(void **state)
{
    (void)state;
    torture(do_load);
}

static void test_save(void **state)
{
    (void)state;
    torture(do_save);
}

static void test_put_test(void **state)
{
    (void)state;
    torture(do_put_test);
}

static void test_augment(void **state)
{
    (void)state;
    torture(do_augment);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_task),     cmocka_unit_test(test_text),
        cmocka_unit_test(test_self),     cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_load),     cmocka_unit_test(test_save),
        cmocka_unit_test(test_put_test), cmocka_unit_test(test_augment),
    };
    return cmocka_run_group_tests_name("calibration", tests, setup, teardown);
}
