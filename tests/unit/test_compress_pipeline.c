/* The pipeline on real models: the plan's size is the file's size, bytes do not depend on threads,
 * rules decide bits, and what cannot be done is refused with a word on what to do. */
#include "unit/unit.h"

#include "base/file.h"
#include "base/mem.h"
#include "compress/estimate.h"
#include "compress/pipeline.h"
#include "format/artifact.h"
#include "model/pack_rule.h"

#include <math.h>

static sfq_error err;

static sfq_compress_options options(const char *model, const char *output)
{
    return (sfq_compress_options){.struct_size = sizeof(sfq_compress_options),
                                  .model = model,
                                  .output = output,
                                  .recipe = "sfq",
                                  .bits = 8,
                                  .embedding_bits = 8,
                                  .max_drop = -1,
                                  .threads = 1};
}

/* for directories whose path is a scratch_path itself */
static const char *file_in(const char *dir, const char *name)
{
    static char paths[2][16 * SCRATCH_ROOM];
    static unsigned next;
    char *path = paths[next++ % 2];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void assert_same_file(const char *a, const char *b, const char *name)
{
    sfq_buf x = SFQ_BUF_INIT(1 << 26);
    sfq_buf y = SFQ_BUF_INIT(1 << 26);
    assert_ok(sfq_file_read(&x, file_in(a, name), 1 << 26, &err));
    assert_ok(sfq_file_read(&y, file_in(b, name), 1 << 26, &err));
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    sfq_buf_free(&x);
    sfq_buf_free(&y);
}

static void test_plan_size_is_real_size(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    static const char *const models[] = {"models/novels-5m", "models/sst2-tiny"};
    for (size_t m = 0; m < 2; m++)
        for (int bits = 2; bits <= 8; bits += 3) {
            const char *out = scratch_path(dir, "out");
            sfq_compress_options o = options(models[m], out);
            o.bits = bits;
            o.force = true;
            sfq_compress_result plan;
            sfq_compress_result done;
            uint64_t size;
            assert_ok(sfq_pipeline_plan(&o, &plan, &err));
            assert_ok(sfq_pipeline_run(&o, NULL, &done, &err));
            assert_ok(sfq_file_size(&size, file_in(out, "model.safetensors"), &err));
            assert_int_equal(plan.bytes, size);
            assert_int_equal(done.bytes, size);
            assert_true(plan.scale_overhead == done.scale_overhead);
            assert_true(done.scale_overhead > 0 && done.scale_overhead < 0.003);
            assert_true(plan.plan_seconds > 0);
            assert_true(plan.plan_disk_bytes > size);
            assert_string_equal(done.stopped_by, "done");
        }
    scratch_close(dir);
}

static void test_same_bytes_at_any_thread_count(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    char out[3][2 * SCRATCH_ROOM];
    scratch_open(dir);
    for (int i = 0; i < 3; i++) {
        snprintf(out[i], sizeof out[i], "%s/out%d", dir, i);
        sfq_compress_options o = options("models/novels-5m", out[i]);
        sfq_compress_result done;
        o.threads = i + 1;
        o.bits = 5;
        assert_ok(sfq_pipeline_run(&o, NULL, &done, &err));
        if (i > 0) {
            assert_same_file(out[0], out[i], "model.safetensors");
            assert_same_file(out[0], out[i], "config.json");
        }
        assert_same_file("models/novels-5m", out[i], "tokenizer.json");
        assert_true(sfq_file_exists(file_in(out[i], "README.md")));
        assert_true(sfq_file_exists(file_in(out[i], "sfq_report.json")));
    }
    scratch_close(dir);
}

static void read_artifact(const char *dir, sfq_hf_config **config, sfq_artifact_info **info)
{
    assert_ok(sfq_hf_config_open(config, dir, &err));
    assert_ok(sfq_artifact_read(info, *config, &err));
    assert_non_null(*info);
}

/* keep beats bits-for, the last bits-for that matches wins, embeddings go by their own number */
static void test_rules(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *out = scratch_path(dir, "out");
    sfq_compress_options o = options("models/novels-5m", out);
    static const sfq_bits_rule rules[] = {
        {"mlp", 3}, {"layers\\.0\\..*down", 6}, {"q_proj", 16}, {"layers\\.[12]\\.", 4}};
    static const char *const keep[] = {"layers\\.2\\.self_attn\\.v_proj"};
    o.bits_for = rules;
    o.bits_for_count = 4;
    o.keep = keep;
    o.keep_count = 1;
    o.embedding_bits = 7;
    sfq_compress_result done;
    assert_ok(sfq_pipeline_run(&o, NULL, &done, &err));
    sfq_hf_config *config;
    sfq_artifact_info *info;
    read_artifact(out, &config, &info);
    static const struct {
        const char *name;
        int bits; /* 0: dense */
    } expected[] = {{"model.embed_tokens", 7},
                    {"model.layers.0.mlp.up_proj", 3},
                    {"model.layers.0.mlp.down_proj", 6},
                    {"model.layers.0.self_attn.q_proj", 0},
                    {"model.layers.1.self_attn.q_proj", 4},
                    {"model.layers.2.self_attn.v_proj", 0},
                    {"model.layers.3.self_attn.v_proj", 8}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        const sfq_packed_spec *spec = sfq_artifact_find(info, expected[i].name);
        assert_int_equal(spec != NULL ? spec->bits : 0, expected[i].bits);
    }
    sfq_artifact_free(&info);
    sfq_hf_config_close(&config);
    scratch_close(dir);
}

/* The classifier and small tables stay dense, the pooler goes by --bits. */
static void test_encoder_roles(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *out = scratch_path(dir, "out");
    sfq_compress_options o = options("models/sst2-tiny", out);
    o.bits = 4;
    sfq_compress_result done;
    assert_ok(sfq_pipeline_run(&o, NULL, &done, &err));
    sfq_hf_config *config;
    sfq_artifact_info *info;
    read_artifact(out, &config, &info);
    assert_null(sfq_artifact_find(info, "classifier"));
    assert_null(sfq_artifact_find(info, "bert.embeddings.token_type_embeddings"));
    assert_int_equal(sfq_artifact_find(info, "bert.pooler.dense")->bits, 4);
    assert_int_equal(sfq_artifact_find(info, "bert.embeddings.word_embeddings")->bits, 8);
    assert_int_equal(sfq_artifact_find(info, "bert.embeddings.position_embeddings")->bits, 8);
    sfq_artifact_free(&info);
    sfq_hf_config_close(&config);
    /* and an artifact is not compressed again */
    sfq_compress_options again = options(out, scratch_path(dir, "again"));
    assert_fails(SFQ_E_UNSUPPORTED, "compressed already",
                 sfq_pipeline_run(&again, NULL, &done, &err));
    scratch_close(dir);
}

static void refuse(sfq_compress_options *o, sfq_status code, const char *part)
{
    sfq_compress_result done;
    assert_fails(code, part, sfq_pipeline_run(o, NULL, &done, &err));
}

static void test_refused_options(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *out = scratch_path(dir, "out");
    sfq_compress_options o = options("models/novels-5m", out);
    o.prune = 0.4;
    o.model = "models/sst2-tiny";
    refuse(&o, SFQ_E_ARGUMENT, "--prune 0 --steps 0");
    o.model = "models/novels-5m";
    o.prune = 1.5;
    refuse(&o, SFQ_E_ARGUMENT, "--prune");
    o.prune = NAN;
    refuse(&o, SFQ_E_ARGUMENT, "--prune");
    o.prune = 0;
    o.bits = 9;
    refuse(&o, SFQ_E_ARGUMENT, "--bits 9");
    o.bits = 8;
    o.embedding_bits = 1;
    refuse(&o, SFQ_E_ARGUMENT, "--embedding-bits 1");
    o.embedding_bits = 8;
    o.recipe = "auto";
    refuse(&o, SFQ_E_ARGUMENT, "not built yet");
    o.recipe = "best";
    refuse(&o, SFQ_E_ARGUMENT, "best");
    o.recipe = "sfq";
    o.max_drop = 0.4;
    refuse(&o, SFQ_E_ARGUMENT, "--max-drop");
    o.max_drop = -1;
    static const char *const wrong[] = {"(unclosed"};
    o.keep = wrong;
    o.keep_count = 1;
    refuse(&o, SFQ_E_ARGUMENT, "(unclosed");
    static const char *const slow[] = {"^(\\w+\\.?)*\\d\\d$"};
    o.keep = slow;
    refuse(&o, SFQ_E_ARGUMENT, "steps");
    o.keep_count = 0;
    static const sfq_bits_rule bits[] = {{"mlp", 12}};
    o.bits_for = bits;
    o.bits_for_count = 1;
    refuse(&o, SFQ_E_ARGUMENT, "2 to 8");
    assert_false(sfq_file_exists(out));
    scratch_close(dir);
}

static void test_refused_outputs(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    static const char *const same[] = {"models/sst2-tiny", "./models/../models/sst2-tiny/",
                                       "models/sst2-tiny/."};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        sfq_compress_options o = options("models/sst2-tiny", same[i]);
        o.force = true;
        refuse(&o, SFQ_E_ARGUMENT, "the model itself");
    }
    char *target = realpath("models/sst2-tiny", NULL);
    const char *link = scratch_path(dir, "link");
    assert_non_null(target);
    assert_int_equal(symlink(target, link), 0);
    free(target);
    sfq_compress_options o = options("models/sst2-tiny", link);
    o.force = true;
    refuse(&o, SFQ_E_ARGUMENT, "the model itself");
    o.output = "models";
    refuse(&o, SFQ_E_ARGUMENT, "holds the model");
    scratch_put(dir, "there/config.json", "{}");
    o.output = scratch_path(dir, "there");
    o.force = false;
    refuse(&o, SFQ_E_EXISTS, "exists");
    o.output = scratch_path(dir, "no/such/parent");
    refuse(&o, SFQ_E_NOT_FOUND, "");
    o.output = "";
    refuse(&o, SFQ_E_ARGUMENT, "-o DIR");
    scratch_close(dir);
}

/* ---- measuring and the guard ---- */

typedef struct fake {
    const char *metric;
    double values[2];
    int calls;
    char last[1024];
} fake;

static sfq_status fake_run(void *ud, const char *dir, const char *text, const sfq_hooks *hooks,
                           char metric[24], double *value, sfq_error *error)
{
    (void)hooks, (void)error;
    assert_null(text); /* without data nothing is set aside */
    fake *f = ud;
    assert_true(f->calls < 2);
    static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = sfq_path_join(dir, files[i]);
        assert_true(sfq_file_exists(path));
        sfq_mem_free(path);
    }
    snprintf(metric, 24, "%s", f->metric);
    snprintf(f->last, sizeof f->last, "%s", dir);
    *value = f->values[f->calls++];
    return SFQ_OK;
}

static void test_guard(void **state)
{
    (void)state;
    static const struct {
        const char *metric;
        double before, after, allowed, drop;
        bool trips;
    } cases[] = {
        {"accuracy", 0.90, 0.896, 0.5, 0.4, false}, {"accuracy", 0.90, 0.89, 0.5, 1.0, true},
        {"accuracy", 0.90, 0.91, 0, -1.0, false},   {"perplexity", 20, 20.1, 1, 0.5, false},
        {"perplexity", 20, 21, 1, 5, true},         {"accuracy", 0.90, 0.5, -1, 40, false},
        {"perplexity", 20, NAN, 100, NAN, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dir[SCRATCH_ROOM];
        scratch_open(dir);
        const char *out = scratch_path(dir, "out");
        const char *rejected = scratch_path(dir, "out.rejected");
        fake f = {.metric = cases[i].metric, .values = {cases[i].before, cases[i].after}};
        sfq_measure measure = {&f, fake_run};
        sfq_compress_options o = options("models/sst2-tiny", out);
        o.max_drop = cases[i].allowed;
        sfq_compress_result done;
        sfq_status expected = cases[i].trips ? SFQ_E_GUARD : SFQ_OK;
        assert_status(expected, sfq_pipeline_run(&o, &measure, &done, &err));
        assert_true(done.measured);
        assert_int_equal(f.calls, 2);
        assert_string_equal(done.metric, cases[i].metric);
        assert_true(isnan(cases[i].drop) ? isnan(done.drop)
                                         : fabs(done.drop - cases[i].drop) < 1e-9);
        assert_false(sfq_file_exists(f.last)); /* the temporary is gone */
        assert_int_equal(sfq_dir_exists(out), !cases[i].trips);
        assert_int_equal(sfq_dir_exists(rejected), cases[i].trips);
        assert_string_equal(done.output, cases[i].trips ? rejected : out);
        scratch_close(dir);
    }
}

static void link_model(const char *dir, const char *model)
{
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    char cwd[SCRATCH_ROOM];
    char link[2 * SCRATCH_ROOM];
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_int_equal(mkdir(dir, 0777), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(link, sizeof link, "%s/%s/%s", cwd, model, files[i]);
        assert_int_equal(symlink(link, file_in(dir, files[i])), 0);
    }
}

/* The source under the name that a rejected result gets would be replaced by it. */
static void test_guard_spares_the_source(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *source = scratch_path(dir, "out.rejected");
    link_model(source, "models/sst2-tiny");
    fake f = {.metric = "accuracy", .values = {0.9, 0.5}};
    sfq_measure measure = {&f, fake_run};
    sfq_compress_options o = options(source, scratch_path(dir, "out"));
    o.max_drop = 0;
    sfq_compress_result done;
    assert_fails(SFQ_E_ARGUMENT, "the model itself", sfq_pipeline_run(&o, &measure, &done, &err));
    assert_int_equal(f.calls, 0);
    assert_string_equal(done.output, "");
    scratch_close(dir);
}

/* A name that the result has no room for is refused before the work. */
static void test_long_output(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    char out[2 * SCRATCH_ROOM];
    scratch_open(dir);
    int n = snprintf(out, sizeof out, "%s", dir);
    while (n < SCRATCH_ROOM - 1)
        n += snprintf(out + n, sizeof out - (size_t)n, "/.");
    snprintf(out + n, sizeof out - (size_t)n, "/out");
    fake f = {.metric = "accuracy", .values = {0.9, 0.9}};
    sfq_measure measure = {&f, fake_run};
    sfq_compress_options o = options("models/sst2-tiny", out);
    sfq_compress_result done;
    assert_fails(SFQ_E_LIMIT, "too long", sfq_pipeline_run(&o, &measure, &done, &err));
    assert_int_equal(f.calls, 0);
    scratch_close(dir);
}

/* Names of files and numbers that JSON cannot hold do not spoil the report. */
static void test_report_of_odd_names(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *source = scratch_path(dir, "m\xff\n");
    const char *out = scratch_path(dir, "out");
    static const char *const texts[] = {"/tmp/t\xfe.txt"};
    link_model(source, "models/sst2-tiny");
    fake f = {.metric = "accuracy", .values = {0.9, 0.5}};
    sfq_measure measure = {&f, fake_run};
    sfq_compress_options o = options(source, out);
    o.text_files = texts;
    o.text_count = 1;
    o.max_drop = INFINITY;
    sfq_compress_result done;
    assert_ok(sfq_pipeline_run(&o, &measure, &done, &err));
    sfq_buf report = SFQ_BUF_INIT(1 << 20);
    assert_ok(sfq_file_read(&report, file_in(out, "sfq_report.json"), 1 << 20, &err));
    assert_non_null(strstr(report.data, "\"base_model\": \"m\\\\xFF\\\\n\""));
    assert_non_null(strstr(report.data, "t\\\\xFE.txt"));
    sfq_buf_free(&report);
    scratch_close(dir);
}

/* What only the report would trip over at the end is refused at the beginning. */
static void test_unknown_isa(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    fake f = {.metric = "accuracy", .values = {0.9, 0.9}};
    sfq_measure measure = {&f, fake_run};
    sfq_compress_options o = options("models/sst2-tiny", scratch_path(dir, "out"));
    sfq_compress_result done;
    const char *before = getenv("SFQ_MAX_ISA");
    char *saved = before != NULL ? strdup(before) : NULL;
    assert_int_equal(setenv("SFQ_MAX_ISA", "abacus", 1), 0);
    assert_fails(SFQ_E_ARGUMENT, "abacus", sfq_pipeline_run(&o, &measure, &done, &err));
    assert_int_equal(f.calls, 0);
    assert_int_equal(saved != NULL ? setenv("SFQ_MAX_ISA", saved, 1) : unsetenv("SFQ_MAX_ISA"), 0);
    free(saved);
    scratch_close(dir);
}

/* ---- hooks ---- */

typedef struct stopper {
    int left;
    int warnings;
} stopper;

static bool stop_soon(void *ud)
{
    stopper *s = ud;
    return s->left-- <= 0;
}

static void count_warning(void *ud, sfq_log_level level, const char *message)
{
    stopper *s = ud;
    s->warnings += level == SFQ_LOG_WARNING && strstr(message, "no_such_tensor") != NULL;
}

static void test_cancel_leaves_nothing(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *out = scratch_path(dir, "out");
    bool finished = false;
    int tries = 0;
    for (int left = 0; !finished; left += 7) {
        stopper s = {.left = left};
        sfq_compress_options o = options("models/sst2-tiny", out);
        o.hooks = (sfq_hooks){.ud = &s, .cancelled = stop_soon};
        sfq_compress_result done;
        sfq_status status = sfq_pipeline_run(&o, NULL, &done, &err);
        finished = status == SFQ_OK;
        assert_true(finished || status == SFQ_E_INTERRUPTED);
        assert_int_equal(sfq_file_exists(out), finished);
        tries++;
    }
    assert_true(tries > 5);
    scratch_close(dir);
}

static void test_unused_rule_is_said(void **state)
{
    (void)state;
    stopper s = {0};
    static const char *const keep[] = {"no_such_tensor"};
    sfq_compress_options o = options("models/sst2-tiny", NULL);
    o.hooks = (sfq_hooks){.ud = &s, .log = count_warning};
    o.keep = keep;
    o.keep_count = 1;
    sfq_compress_result plan;
    assert_ok(sfq_pipeline_plan(&o, &plan, &err));
    assert_int_equal(s.warnings, 1);
}

static void test_preflight(void **state)
{
    (void)state;
    sfq_estimate e = {.memory = 1000};
    assert_fails(SFQ_E_MEMORY, "memory", sfq_estimate_check(&e, 999, "out", &err));
    assert_ok(sfq_estimate_check(&e, 1000, "out", &err));
    e = (sfq_estimate){.disk = UINT64_MAX - 1};
    assert_fails(SFQ_E_NO_SPACE, "free", sfq_estimate_check(&e, 0, "out/", &err));
    assert_ok(sfq_estimate_check(&e, 0, NULL, &err));
}

/* Activation bits of a matrix; 0: it stays dense. */
static int activation_bits(sfq_role role, bool causal, int bits, int asked)
{
    static char name[] = "m";
    sfq_module m = {.name = name, .role = role, .n = 64, .k = 640};
    sfq_packed_spec spec;
    bool packed;
    assert_ok(sfq_pack_choose(&spec, &packed, &m, causal, bits, asked, &err));
    return packed ? spec.activation_bits : 0;
}

/* Coarser weights never read finer inputs; what is asked for holds for every matrix. */
static void test_activation_bits(void **state)
{
    (void)state;
    for (int bits = 2; bits <= 8; bits++)
        for (int i = 0; i < 2 * SFQ_ROLE_COUNT; i++) {
            const sfq_role role = (sfq_role)(i / 2);
            const bool causal = i % 2;
            int width = activation_bits(role, causal, bits, 0);
            if (width == 0)
                continue;
            assert_in_range(width, SFQ_ACTIVATION_BITS_MIN, SFQ_ACTIVATION_BITS_MAX);
            assert_true(bits == 8 || width <= activation_bits(role, causal, bits + 1, 0));
            assert_int_equal(activation_bits(role, causal, bits, 9), 9);
        }
    assert_int_equal(activation_bits(SFQ_ROLE_UP, true, 8, 0), 8);
    assert_int_equal(activation_bits(SFQ_ROLE_O, true, 8, 0), 8);
    assert_int_equal(activation_bits(SFQ_ROLE_LM_HEAD, true, 8, 0), 12);
    assert_int_equal(activation_bits(SFQ_ROLE_WORD_EMBEDDING, true, 7, 0), 12);
    assert_int_equal(activation_bits(SFQ_ROLE_LM_HEAD, true, 6, 0), 8);
    assert_int_equal(activation_bits(SFQ_ROLE_DOWN, true, 5, 0), 12);
    assert_int_equal(activation_bits(SFQ_ROLE_DOWN, true, 4, 0), 8);
    assert_int_equal(activation_bits(SFQ_ROLE_DOWN, false, 8, 0), 8);
    assert_int_equal(activation_bits(SFQ_ROLE_V, false, 6, 0), 12);
    assert_int_equal(activation_bits(SFQ_ROLE_V, false, 5, 0), 8);
    assert_int_equal(activation_bits(SFQ_ROLE_V, true, 8, 0), 8);
    assert_fails(SFQ_E_ARGUMENT, "8 to 14", sfq_pack_check(7, &err));
    assert_fails(SFQ_E_ARGUMENT, "8 to 14", sfq_pack_check(15, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_size_is_real_size),
        cmocka_unit_test(test_same_bytes_at_any_thread_count),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_encoder_roles),
        cmocka_unit_test(test_refused_options),
        cmocka_unit_test(test_refused_outputs),
        cmocka_unit_test(test_guard),
        cmocka_unit_test(test_guard_spares_the_source),
        cmocka_unit_test(test_long_output),
        cmocka_unit_test(test_report_of_odd_names),
        cmocka_unit_test(test_unknown_isa),
        cmocka_unit_test(test_cancel_leaves_nothing),
        cmocka_unit_test(test_unused_rule_is_said),
        cmocka_unit_test(test_preflight),
        cmocka_unit_test(test_activation_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
