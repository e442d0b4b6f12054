/* The whole recipe on a small classifier with a data set of its own: the stages that a request has,
 * the same bytes at any thread count and after any interruption, a ceiling on time, the guard, and
 * a journal that somebody has edited. */
#include "unit/unit.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compress/estimate.h"
#include "compress/pipeline.h"
#include "format/artifact.h"

#include <limits.h>
#include <math.h>

static sfq_error err;
static char dir[SCRATCH_ROOM];
static char data[2 * SCRATCH_ROOM];

/* scratch_path has few buffers */
static char *path_of(const char *name)
{
    static char paths[16][2 * SCRATCH_ROOM];
    static unsigned next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* The same for outputs, which options hold on to. */
static char *output_of(const char *name)
{
    static char paths[8][2 * SCRATCH_ROOM];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* ---- the request ---- */

enum { EXAMPLES = 60 };

static void make_data(void)
{
    static const char *const words[] = {
        "a",    "dull",  "bright", "film",  "plot", "and",   "moving", "slow", "cast", "the",
        "warm", "empty", "very",   "story", "not",  "funny", "ending", "is",   "of",   "weak"};
    sfq_buf text = SFQ_BUF_INIT(1 << 20);
    for (uint64_t i = 0; i < EXAMPLES; i++) {
        assert_ok(sfq_buf_addf(&text, &err, "{\"text\": \""));
        for (uint64_t j = 0; j < 3 + sfq_rng_u64(5, 1, i) % 8; j++)
            assert_ok(sfq_buf_addf(&text, &err, "%s ", words[sfq_rng_u64(6, i, j) % 20]));
        assert_ok(sfq_buf_addf(&text, &err, "\", \"label\": %d}\n", (int)(i % 2)));
    }
    scratch_put(dir, "data/train.jsonl", text.data);
    sfq_buf_free(&text);
}

static int setup(void **state)
{
    (void)state;
    if (access("/dev/shm", W_OK) == 0) /* hundreds of fsyncs, which a busy disk makes minutes of */
        setenv("TMPDIR", "/dev/shm", 1);
    scratch_open(dir);
    snprintf(data, sizeof data, "%s/data", dir);
    make_data();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_close(dir);
    return 0;
}

static sfq_compress_options options(const char *output)
{
    return (sfq_compress_options){.struct_size = sizeof(sfq_compress_options),
                                  .model = "models/sst2-tiny",
                                  .output = output_of(output),
                                  .recipe = "sfq",
                                  .prune = 0.3,
                                  .rounds = 2,
                                  .steps = 2,
                                  .bits = 8,
                                  .embedding_bits = 4,
                                  .data = data,
                                  .calib_fraction = 0.4,
                                  .calib_length = 256,
                                  .pick = "curated",
                                  .saliency = "fisher",
                                  .max_drop = -1,
                                  .threads = 2};
}

static sfq_compress_result run(const sfq_compress_options *o)
{
    sfq_compress_result r;
    assert_ok(sfq_pipeline_run(o, NULL, &r, &err));
    return r;
}

/* ---- what is compared ---- */

static bool same_file(const char *a, const char *b, const char *name)
{
    char x[3 * SCRATCH_ROOM];
    char y[3 * SCRATCH_ROOM];
    sfq_map one;
    sfq_map two;
    snprintf(x, sizeof x, "%s/%s", path_of(a), name);
    snprintf(y, sizeof y, "%s/%s", path_of(b), name);
    assert_ok(sfq_map_open(&one, x, &err));
    assert_ok(sfq_map_open(&two, y, &err));
    bool same = one.size == two.size && memcmp(one.data, two.data, one.size) == 0;
    sfq_map_close(&one);
    sfq_map_close(&two);
    return same;
}

static bool same_bytes(const char *a, const char *b)
{
    return same_file(a, b, "model.safetensors") && same_file(a, b, "config.json");
}

static void assert_stages(const sfq_compress_result *r, const char *expected)
{
    char found[256] = "";
    for (int i = 0; i < r->stage_count; i++) {
        size_t n = strlen(found);
        snprintf(found + n, sizeof found - n, "%s%s", i > 0 ? " " : "", r->stages[i].name);
        assert_true(r->stages[i].seconds >= 0);
    }
    assert_string_equal(found, expected);
}

static double loss_of(const sfq_compress_result *r, const char *stage)
{
    for (int i = 0; i < r->stage_count; i++)
        if (strcmp(r->stages[i].name, stage) == 0)
            return r->stages[i].loss;
    return NAN;
}

static json_t *read_json(const char *path)
{
    json_t *json;
    assert_ok(sfq_json_read(&json, path, 1 << 22, &err));
    return json;
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

/* ---- one run ---- */

static void test_whole_recipe(void **state)
{
    (void)state;
    sfq_compress_options o = options("out");
    sfq_compress_result plan;
    assert_ok(sfq_pipeline_plan(&o, &plan, &err));
    sfq_compress_result r = run(&o);
    assert_stages(&r, "check calibrate prune reconstruct distill fuse tune write");
    assert_true(isnan(loss_of(&r, "check")) && isnan(loss_of(&r, "write")));
    assert_true(loss_of(&r, "prune") > 0);
    assert_true(loss_of(&r, "reconstruct") <= loss_of(&r, "prune"));
    assert_true(loss_of(&r, "distill") <= loss_of(&r, "reconstruct"));
    assert_true(loss_of(&r, "tune") <= loss_of(&r, "fuse"));
    assert_true(r.pruned_fraction >= 0.3 && r.pruned_fraction < 0.4);
    assert_true(r.pruned_heads + r.pruned_neurons > 0);
    assert_int_equal(r.calibration_sequences, 24);
    assert_true(r.calibration_tokens > 24 && fabs(r.calibration_fraction - 0.4) < 1e-9);
    assert_string_equal(r.stopped_by, "done");
    uint64_t size;
    assert_ok(sfq_file_size(&size, path_of("out/model.safetensors"), &err));
    assert_int_equal(r.bytes, size);
    assert_true(r.scale_overhead > 0 && r.scale_overhead < 0.003);
    assert_true(fabs((double)plan.bytes / (double)size - 1) < 0.05);
    assert_true(plan.plan_memory_bytes > size && plan.plan_disk_bytes > size);
    assert_false(sfq_file_exists(path_of("out.work")));

    json_t *report = read_json(path_of("out/sfq_report.json"));
    const json_t *calibration = json_object_get(report, "calibration");
    const json_t *pruned = json_object_get(report, "pruned");
    const json_t *layers = json_object_get(report, "layers");
    assert_true(number(calibration, "sequences") == 24 && number(calibration, "held_out") >= 4);
    assert_true(number(pruned, "rounds") == 2);
    assert_int_equal(json_array_size(layers), 4);
    assert_true(number(report, "parameters") < number(report, "original_parameters"));
    sfq_hf_config *config;
    sfq_artifact_info *artifact;
    assert_ok(sfq_hf_config_open(&config, path_of("out"), &err));
    assert_ok(sfq_artifact_read(&artifact, config, &err));
    assert_true((double)artifact->original_parameters == number(report, "original_parameters"));
    double ffn = 0;
    for (size_t i = 0; i < 4; i++) {
        const json_t *layer = json_array_get(layers, i);
        assert_true(number(layer, "ffn") == (double)artifact->layers[i].ffn);
        assert_true(number(layer, "heads") == (double)artifact->layers[i].heads);
        ffn += number(layer, "ffn");
    }
    assert_true(ffn == 4 * 512 - r.pruned_neurons);
    sfq_artifact_free(&artifact);
    sfq_hf_config_close(&config);
    json_decref(report);
}

static void test_parts_of_the_recipe(void **state)
{
    (void)state;
    sfq_compress_options o = options("tuned");
    o.prune = 0;
    sfq_compress_result r = run(&o);
    assert_stages(&r, "check calibrate fuse tune write");
    assert_int_equal(r.pruned_neurons, 0);
    o = options("cut");
    o.steps = 0;
    r = run(&o);
    assert_stages(&r, "check calibrate prune reconstruct fuse write");
    assert_true(loss_of(&r, "fuse") > 0);
    o = options("plain");
    o.prune = 0;
    o.steps = 0;
    r = run(&o);
    assert_stages(&r, "check fuse write");
    assert_int_equal(r.calibration_sequences, 0);
    assert_false(sfq_file_exists(path_of("plain.work")));
}

/* ---- the same bytes ---- */

static void test_same_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"one", "two", "three"};
    for (int i = 0; i < 3; i++) {
        sfq_compress_options o = options(names[i]);
        o.threads = i + 1;
        (void)run(&o);
    }
    assert_true(same_bytes("one", "two") && same_bytes("one", "three"));
    sfq_compress_options o = options("other");
    o.seed = 1;
    (void)run(&o);
    assert_false(same_file("one", "other", "model.safetensors"));
}

typedef struct stopper {
    long left;
    int resumed;
} stopper;

static bool stop_later(void *ud)
{
    stopper *s = ud;
    return s->left-- <= 0;
}

static void count_resumed(void *ud, sfq_log_level level, const char *message)
{
    (void)level;
    stopper *s = ud;
    s->resumed += strstr(message, "going on after stage") != NULL;
}

/* Each attempt gets a little further than the last and is stopped; what is there in the end has the
 * bytes of a run that nobody stopped. */
static void test_interrupted(void **state)
{
    (void)state;
    sfq_compress_options o = options("whole");
    stopper s = {.left = LONG_MAX};
    o.hooks = (sfq_hooks){.ud = &s, .log = count_resumed, .cancelled = stop_later};
    (void)run(&o);
    const long all = LONG_MAX - s.left;
    assert_true(all > 20);
    o.output = output_of("stopped");
    int stops = 0;
    for (long allowed = all / 4;; allowed += 1 + all / 32) {
        sfq_compress_result r;
        s.left = allowed;
        sfq_status status = sfq_pipeline_run(&o, NULL, &r, &err);
        if (status == SFQ_OK)
            break;
        assert_status(SFQ_E_INTERRUPTED, status);
        assert_false(sfq_file_exists(path_of("stopped")));
        if (sfq_file_exists(path_of("stopped.work")))
            assert_non_null(strstr(err.message, "the same command goes on"));
        stops++;
    }
    assert_true(stops > 2 && s.resumed > 1);
    assert_true(same_bytes("whole", "stopped"));
    assert_false(sfq_file_exists(path_of("stopped.work")));
}

/* ---- ceiling and guard ---- */

static void test_minutes(void **state)
{
    (void)state;
    sfq_compress_options o = options("out");
    o.minutes = 1e-9;
    o.steps = 1000;
    o.rounds = 4;
    sfq_compress_result r = run(&o);
    assert_string_equal(r.stopped_by, "time");
    assert_true(r.pruned_fraction >= 0.3); /* the share is kept, not the number of rounds */
    for (int i = 0; i < r.stage_count; i++)
        assert_true(r.stages[i].steps < 1000);
}

typedef struct fake {
    double values[2];
    int calls;
} fake;

static sfq_status fake_run(void *ud, const char *model, const char *text, const sfq_hooks *hooks,
                           char metric[24], double *value, sfq_error *error)
{
    (void)hooks, (void)error, (void)model;
    fake *f = ud;
    assert_null(text);
    assert_true(f->calls < 2);
    snprintf(metric, 24, "accuracy");
    *value = f->values[f->calls++];
    return SFQ_OK;
}

static void test_guard(void **state)
{
    (void)state;
    fake f = {.values = {0.9, 0.8}};
    sfq_measure measure = {&f, fake_run};
    sfq_compress_options o = options("out");
    sfq_compress_result r;
    o.max_drop = 1;
    assert_true(sfq_pipeline_run(&o, &measure, &r, &err) != SFQ_OK); /* nothing to measure on */
    assert_int_equal(f.calls, 0);
    scratch_put(dir, "data/dev.jsonl", "{\"text\": \"fine\", \"label\": 1}\n");
    assert_fails(SFQ_E_GUARD, "a smaller --prune", sfq_pipeline_run(&o, &measure, &r, &err));
    assert_stages(&r,
                  "check baseline calibrate prune reconstruct distill fuse tune evaluate write");
    assert_true(sfq_dir_exists(path_of("out.rejected")));
    assert_false(sfq_file_exists(path_of("out")) || sfq_file_exists(path_of("out.work")));
}

/* The baseline of an earlier run counts as long as the dev split is what it was. */
static void test_baseline_is_remembered(void **state)
{
    (void)state;
    sfq_compress_options o = options("out");
    sfq_compress_result r;
    scratch_put(dir, "data/dev.jsonl", "{\"text\": \"fine\", \"label\": 1}\n");
    for (int changed = 0; changed < 2; changed++) {
        fake first = {.values = {0.9, 0.8}};
        sfq_measure measure = {&first, fake_run};
        stopper s = {.left = LONG_MAX};
        o.force = true;
        o.hooks = (sfq_hooks){.ud = &s, .cancelled = stop_later};
        s.left = 80;
        long more = 0;
        while (sfq_pipeline_run(&o, &measure, &r, &err) != SFQ_E_INTERRUPTED ||
               !sfq_file_exists(path_of("out.work"))) {
            first.calls = 0;
            more += 10;
            s.left = 80 + more;
            assert_true(more < 10000);
        }
        if (changed)
            scratch_put(dir, "data/dev.jsonl", "{\"text\": \"bad\", \"label\": 0}\n");
        fake second = {.values = {0.5, 0.4}};
        measure.ud = &second;
        o.hooks = (sfq_hooks){0};
        assert_ok(sfq_pipeline_run(&o, &measure, &r, &err));
        assert_int_equal(second.calls, changed ? 2 : 1);
        assert_true(r.baseline == (changed ? 0.5 : 0.9));
        assert_string_equal(r.metric, "accuracy");
    }
}

/* ---- memory ---- */

static void test_student_by_memory(void **state)
{
    (void)state;
    sfq_compress_options o = options("out");
    sfq_source *source;
    sfq_plan *plan;
    sfq_estimate e;
    sfq_student_choice whole = {0}, half = {0}, made = {.made = true, .dtype = SFQ_F32};
    assert_ok(sfq_source_open(&source, &o, &err));
    assert_ok(sfq_plan_make(&plan, source, &o, 1, &err));
    assert_ok(sfq_estimate_make(&e, &whole, plan, source, &o, UINT64_MAX, &err));
    assert_true(whole.dtype == SFQ_F32 && e.seconds > 0);
    uint64_t needed = e.memory;
    assert_ok(sfq_estimate_make(&e, &whole, plan, source, &o, needed, &err));
    assert_true(whole.dtype == SFQ_F32);
    assert_ok(sfq_estimate_make(&e, &half, plan, source, &o, needed - 1, &err));
    assert_true(half.dtype == SFQ_F16 && e.memory < needed);
    assert_ok(sfq_estimate_check(&e, e.memory, NULL, &err));
    assert_fails(SFQ_E_MEMORY, "memory", sfq_estimate_check(&e, e.memory - 1, NULL, &err));
    assert_ok(sfq_estimate_make(&e, &made, plan, source, &o, 1, &err)); /* an earlier run's */
    assert_true(made.dtype == SFQ_F32);
    sfq_plan_free(&plan);
    sfq_source_close(&source);
}

/* ---- a journal from elsewhere ---- */

/* Stops a run once its journal has so many stages. */
typedef struct watcher {
    size_t stages;
    const char *work;
} watcher;

static bool stop_at_stages(void *ud)
{
    const watcher *w = ud;
    json_t *journal = NULL;
    char path[3 * SCRATCH_ROOM];
    snprintf(path, sizeof path, "%s/journal.json", path_of(w->work));
    if (sfq_json_read(&journal, path, 1 << 22, NULL) != SFQ_OK)
        return false;
    size_t stages = json_array_size(json_object_get(journal, "stages"));
    json_decref(journal);
    return stages >= w->stages;
}

static void stop_with(const sfq_compress_options *given, const char *work, size_t stages)
{
    watcher w = {stages, work};
    sfq_compress_options o = *given;
    sfq_compress_result r;
    o.force = true;
    o.hooks = (sfq_hooks){.ud = &w, .cancelled = stop_at_stages};
    assert_status(SFQ_E_INTERRUPTED, sfq_pipeline_run(&o, NULL, &r, &err));
}

static void write_journal(const json_t *journal)
{
    char *text = json_dumps(journal, 0);
    assert_non_null(text);
    scratch_put(dir, "out.work/journal.json", text);
    free(text);
}

/* From behind every stage it goes on to the same bytes. */
static void test_after_every_stage(void **state)
{
    (void)state;
    sfq_compress_options o = options("whole");
    (void)run(&o);
    for (size_t stages = 1; stages <= 6; stages++) {
        o = options("stopped");
        stop_with(&o, "stopped.work", stages);
        o.force = true; /* of the one before */
        sfq_compress_result r = run(&o);
        assert_stages(&r, "check calibrate prune reconstruct distill fuse tune write");
        assert_true(same_bytes("whole", "stopped"));
        assert_true(r.pruned_fraction >= 0.3 && r.calibration_sequences == 24);
    }
}

/* Every value of every stage's report in turn becomes something that no run writes: the run ends
 * with an error, or does not need the value. */
static void test_edited_reports(void **state)
{
    (void)state;
    sfq_compress_options o = options("out");
    o.force = false;
    stop_with(&o, "out.work", 5);
    json_t *journal = read_json(path_of("out.work/journal.json"));
    json_t *stages = json_object_get(journal, "stages");
    size_t i;
    json_t *stage;
    int refused = 0;
    json_array_foreach(stages, i, stage)
    {
        json_t *report = json_object_get(stage, "report");
        const char *key;
        json_t *value;
        void *next;
        json_object_foreach_safe(report, next, key, value)
        {
            json_t *saved = json_incref(value);
            char *name = sfq_mem_strdup(key);
            assert_int_equal(json_object_set_new(report, name, json_string("x")), 0);
            write_journal(journal);
            sfq_compress_result r;
            watcher w = {6, "out.work"};
            o.hooks = (sfq_hooks){.ud = &w, .cancelled = stop_at_stages};
            sfq_status status = sfq_pipeline_run(&o, NULL, &r, &err);
            assert_true(status == SFQ_E_FORMAT || status == SFQ_E_INTERRUPTED || status == SFQ_OK);
            refused += status == SFQ_E_FORMAT;
            assert_int_equal(json_object_set_new(report, name, saved), 0);
            sfq_mem_free(name);
            if (status != SFQ_E_FORMAT) { /* it went on: back to where it was */
                o.hooks = (sfq_hooks){0};
                stop_with(&o, "out.work", 5);
            }
        }
    }
    assert_true(refused > 8);
    json_decref(journal);
}

/* An earlier run that had less memory: its student stays 16 bit. */
static void test_small_student(void **state)
{
    (void)state;
    sfq_compress_options o = options("out");
    stop_with(&o, "out.work", 1);
    json_t *journal = read_json(path_of("out.work/journal.json"));
    json_t *stages = json_object_get(journal, "stages");
    json_t *report = json_object_get(json_array_get(stages, 0), "report");
    assert_int_equal(json_object_set_new(report, "student", json_string("F16")), 0);
    write_journal(journal);
    json_decref(journal);
    o.steps = 2;
    sfq_compress_result r = run(&o);
    assert_stages(&r, "check calibrate prune reconstruct distill fuse tune write");
    assert_true(r.pruned_fraction >= 0.3);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_whole_recipe),
        TEST(test_parts_of_the_recipe),
        TEST(test_same_bytes),
        TEST(test_interrupted),
        TEST(test_minutes),
        TEST(test_guard),
        TEST(test_baseline_is_remembered),
        TEST(test_student_by_memory),
        TEST(test_after_every_stage),
        TEST(test_edited_reports),
        TEST(test_small_student),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
