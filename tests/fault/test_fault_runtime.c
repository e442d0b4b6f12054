/* Computing calls under the seam: every n-th allocation fails once. The call ends with E_MEMORY, or
 * with the result of a run without faults; it keeps no memory, and the next call works. The models
 * are open beforehand, and one clean run lets their scratch memory grow to its size. */
#include "fault/seam.h"
#include "unit/unit.h"

#include "data/task.h"
#include "runtime/engine.h"

#include <sfq/sfq.h>

#include <math.h>

enum { DENSE = 300, SPREAD = 200 };

static sfq_model *novels, *reviews;

static int setup(void **state)
{
    (void)state;
    sfq_model_options o;
    sfq_model_options_default(&o);
    o.threads = 1;
    sfq_status status = sfq_model_open(&novels, "models/novels-5m", &o, NULL);
    if (status == SFQ_OK)
        status = sfq_model_open(&reviews, "models/sst2-tiny", &o, NULL);
    return status == SFQ_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    sfq_model_close(&novels);
    sfq_model_close(&reviews);
    return 0;
}

/* ---- what is done under faults; *result stands for everything that was computed
 * --------------- */

typedef sfq_status (*scenario)(double *result, sfq_error *err);

static sfq_status do_generate(double *result, sfq_error *err)
{
    static const char *const stop[1] = {"no such text"};
    sfq_generate_options o;
    sfq_generation g;
    sfq_generate_options_default(&o);
    o.max_tokens = 6;
    o.stop = stop;
    o.stop_count = 1;
    sfq_status status = sfq_generate(novels, "It was a dark and", 17, &o, &g, err);
    for (size_t i = 0; i < g.token_count; i++)
        *result = *result * 31 + g.tokens[i] + (double)g.text_bytes;
    sfq_generation_clear(&g);
    return status;
}

static sfq_status do_compute(double *result, sfq_error *err)
{
    static const sfq_text_pair in[2] = {{"a dull film", 11, NULL, 0}, {"fine", 4, "film", 4}};
    sfq_tokens tokens = {0};
    float scores[4] = {0};
    sfq_status status = sfq_encode(reviews, in, 2, &tokens, err);
    if (status == SFQ_OK)
        status = sfq_compute(reviews, &tokens, SFQ_OUTPUT_SCORES, NULL, scores, err);
    *result = status == SFQ_OK ? (double)scores[0] + (double)scores[2] : 0;
    sfq_tokens_clear(&tokens);
    return status;
}

static sfq_status do_linear(double *result, sfq_error *err)
{
    static float w[32 * 96], scales[64], x[3 * 96], y[3 * 32];
    static _Alignas(64) uint8_t codes[2 * 2 * 1024];
    bool f16 = false;
    sfq_workers *workers = NULL;
    sfq_linear_weight weight = {32, 96, 8, 12, codes, scales, NULL};
    for (size_t i = 0; i < sizeof w / sizeof *w; i++)
        w[i] = (float)((i * 37) % 101) - 50;
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        x[i] = (float)(i % 7);
    sfq_status status = sfq_workers_open(&workers, 1, err);
    if (status == SFQ_OK)
        status = sfq_linear_pack(workers, w, 32, 96, 8, NULL, NULL, codes, scales, &f16, err);
    if (status == SFQ_OK)
        status = sfq_linear_apply(workers, &weight, x, 3, y, err);
    for (size_t i = 0; i < sizeof y / sizeof *y && status == SFQ_OK; i++)
        *result += fabs((double)y[i]);
    sfq_workers_close(&workers);
    return status;
}

static sfq_status do_text(double *result, sfq_error *err)
{
    static const char *const files[1] = {"tests/data/passage.txt"};
    sfq_eval_options o;
    sfq_eval_result r;
    sfq_eval_options_default(&o);
    o.text_files = files;
    o.text_count = 1;
    o.context = 24;
    o.max_tokens = 60;
    o.against = novels;
    sfq_status status = sfq_evaluate(novels, &o, &r, err);
    *result = r.nll + r.same_top1;
    return status;
}

static sfq_status do_task(double *result, sfq_error *err)
{
    sfq_eval_options o;
    sfq_eval_result r;
    sfq_eval_options_default(&o);
    o.task = "sst2";
    o.data = "tests/data/reviews";
    o.against = reviews;
    sfq_status status = sfq_evaluate(reviews, &o, &r, err);
    *result = r.value + r.same_top1;
    return status;
}

static sfq_status do_csv(double *result, sfq_error *err)
{
    static const char *const names[2] = {"negative", "positive"};
    sfq_dataset *data = NULL;
    sfq_status status =
        sfq_dataset_open(&data, "own", "tests/data/reviews", "train", names, 2, err);
    if (status == SFQ_OK)
        *result = (double)data->count + data->examples[0].label;
    sfq_dataset_close(&data);
    return status;
}

static sfq_status do_open(double *result, sfq_error *err)
{
    sfq_model_options o;
    sfq_model *model = NULL;
    sfq_model_options_default(&o);
    o.threads = 1;
    sfq_status status = sfq_model_open(&model, "models/sst2-tiny", &o, err);
    *result = sfq_model_width(model);
    sfq_model_close(&model);
    return status;
}

/* Random weights in memory, packed and dense. */
static sfq_status do_shape(double *result, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    sfq_model_options o;
    sfq_model_options_default(&o);
    o.threads = 1;
    for (int bits = 4; bits <= 16 && status == SFQ_OK; bits += 12) {
        sfq_bench_shape shape = {
            .shape = "models/sst2-tiny/config.json", .bits = bits, .prune = 0.3};
        sfq_engine *engine = NULL;
        status = sfq_engine_open_shape(&engine, &shape, &o, err);
        *result += engine != NULL ? (double)engine->net->weight_bytes : 0;
        sfq_engine_close(&engine);
    }
    return status;
}

/* ---- faults
 * ----------------------------------------------------------------------------------- */

static void fail_at(scenario run, unsigned long n, double want)
{
    char spec[64];
    sfq_error err = {0};
    double result = 0;
    snprintf(spec, sizeof spec, "alloc:%lu", n);
    assert_true(seam_arm(spec));
    sfq_status status = run(&result, &err);
    bool fired = seam_fired();
    long live = seam_live();
    seam_disarm();
    if (!fired)
        fail_msg("allocation %lu never came", n);
    if (live != 0)
        fail_msg("allocation %lu failed: %ld pieces of memory are kept", n, live);
    if (status != SFQ_E_MEMORY && !(status == SFQ_OK && result == want))
        fail_msg("allocation %lu failed: %s, %s", n, sfq_status_name(status), err.message);
}

static void torture(scenario run)
{
    sfq_error err = {0};
    double want = 0;
    assert_ok(run(&want, &err));
    want = 0;
    assert_true(seam_arm(""));
    assert_ok(run(&want, &err));
    unsigned long count = seam_count("alloc");
    seam_disarm();
    assert_true(count > 3 && want > 0);
    unsigned long step = count > DENSE ? (count - DENSE) / SPREAD + 1 : 1;
    for (unsigned long n = 1; n <= count; n += n < DENSE ? 1 : step)
        fail_at(run, n, want);
}

static void test_generate(void **state)
{
    (void)state;
    torture(do_generate);
}

static void test_compute(void **state)
{
    (void)state;
    torture(do_compute);
}

static void test_linear(void **state)
{
    (void)state;
    torture(do_linear);
}

static void test_text(void **state)
{
    (void)state;
    torture(do_text);
}

static void test_task(void **state)
{
    (void)state;
    torture(do_task);
}

static void test_csv(void **state)
{
    (void)state;
    torture(do_csv);
}

static void test_open(void **state)
{
    (void)state;
    torture(do_open);
}

static void test_shape(void **state)
{
    (void)state;
    torture(do_shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generate), cmocka_unit_test(test_compute),
        cmocka_unit_test(test_linear),   cmocka_unit_test(test_text),
        cmocka_unit_test(test_task),     cmocka_unit_test(test_csv),
        cmocka_unit_test(test_open),     cmocka_unit_test(test_shape),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
