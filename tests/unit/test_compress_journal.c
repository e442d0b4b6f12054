/* OUTPUT.work: what is finished is found again, what is not is swept; another request, a second
 * run, a damaged or foreign directory are refused; a process that is killed at any moment leaves a
 * journal from which the next goes on. */
#include "unit/unit.h"

#include "base/file.h"
#include "base/mem.h"
#include "compress/journal.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static sfq_error err;
static char dir[SCRATCH_ROOM];

static int open_scratch(void **state)
{
    (void)state;
    scratch_open(dir);
    return 0;
}

static int close_scratch(void **state)
{
    (void)state;
    scratch_close(dir);
    return 0;
}

/* scratch_path has few buffers; these live as long as the test */
static char *path_of(const char *name)
{
    static char paths[16][2 * SCRATCH_ROOM];
    static unsigned next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static sfq_compress_options options(void)
{
    return (sfq_compress_options){.struct_size = sizeof(sfq_compress_options),
                                  .model = "models/sst2-tiny",
                                  .output = path_of("out"),
                                  .recipe = "sfq",
                                  .prune = 0.4,
                                  .steps = -1,
                                  .bits = 8,
                                  .embedding_bits = 8,
                                  .calib_length = 256,
                                  .pick = "curated",
                                  .saliency = "fisher",
                                  .minutes = 30,
                                  .max_drop = -1,
                                  .threads = 1};
}

static sfq_status open_with(sfq_journal **out, const sfq_compress_options *o, sfq_error *error)
{
    sfq_source *source = NULL;
    *out = NULL;
    assert_ok(sfq_source_open(&source, o, &err));
    sfq_status status = sfq_journal_open(out, source, o, error);
    sfq_source_close(&source);
    return status;
}

static sfq_journal *reopen(void)
{
    sfq_compress_options o = options();
    sfq_journal *j;
    assert_ok(open_with(&j, &o, &err));
    return j;
}

static sfq_status add_stage(sfq_journal *j, const char *stage, double loss,
                            const char *const *obsolete, sfq_error *error)
{
    sfq_outdir *out = NULL;
    json_t *report = json_pack("{s:f}", "loss", loss);
    sfq_status status = sfq_journal_begin(j, stage, &out, error);
    if (status == SFQ_OK)
        status = sfq_outdir_put(out, "content", stage, strlen(stage), error);
    if (status == SFQ_OK)
        status = sfq_journal_end(j, stage, &out, report, obsolete, error);
    sfq_outdir_abort(&out);
    json_decref(report);
    return status;
}

static double loss_of(const sfq_journal *j, const char *stage)
{
    const json_t *report;
    if (!sfq_journal_done(j, stage, &report))
        return -1;
    return json_real_value(json_object_get(report, "loss"));
}

/* A journal with "calibrate" done. */
static void begin_journal(void)
{
    sfq_journal *j = reopen();
    assert_ok(add_stage(j, "calibrate", 1, NULL, &err));
    sfq_journal_close(&j);
}

static void test_stages(void **state)
{
    (void)state;
    static const char *const first[] = {"prune-1", "no-such-stage", NULL};
    const double third = 1.0 / 3, tiny = 5e-324;
    sfq_journal *j = reopen();
    assert_null(sfq_journal_last(j));
    assert_false(sfq_journal_done(j, "calibrate", NULL));
    assert_ok(add_stage(j, "calibrate", third, NULL, &err));
    assert_ok(add_stage(j, "prune-1", tiny, NULL, &err));
    sfq_journal_close(&j);

    j = reopen();
    assert_string_equal(sfq_journal_last(j), "prune-1");
    assert_true(loss_of(j, "calibrate") == third && loss_of(j, "prune-1") == tiny);
    assert_string_equal(sfq_journal_find(j, "prune-1"), path_of("out.work/prune-1"));
    assert_true(sfq_journal_seconds(j) > 0);
    double before = sfq_journal_seconds(j);
    assert_ok(add_stage(j, "prune-2", 2, first, &err));
    assert_false(sfq_file_exists(path_of("out.work/prune-1")));
    sfq_journal_close(&j);

    j = reopen();
    assert_true(sfq_journal_seconds(j) > before);
    assert_null(sfq_journal_find(j, "prune-1")); /* its directory is gone, its report stays */
    assert_true(loss_of(j, "prune-1") == tiny);
    assert_non_null(sfq_journal_find(j, "prune-2"));
    sfq_outdir *out;
    assert_fails(SFQ_E_INTERNAL, "prune-1", sfq_journal_begin(j, "prune-1", &out, &err));
    assert_fails(SFQ_E_INTERNAL, "../x", sfq_journal_begin(j, "../x", &out, &err));
    assert_ok(sfq_journal_remove(&j, &err));
    assert_null(j);
    assert_false(sfq_file_exists(path_of("out.work")));
}

static void test_nothing_done_leaves_nothing(void **state)
{
    (void)state;
    const char *kept;
    sfq_journal *j = reopen();
    assert_true(sfq_file_exists(path_of("out.work/journal.json")));
    assert_ok(sfq_journal_state(j, "distill", &kept, &err));
    sfq_journal_close(&j);
    assert_false(sfq_file_exists(path_of("out.work")));
}

/* What a killed process leaves: temporaries, a stage that journal.json does not name, half a
 * journal.json. The state of a stage that was running stays, that of a finished one does not. */
static void test_leftovers(void **state)
{
    (void)state;
    begin_journal();
    static const char *const left[] = {".prune-1.sfq-tmp.1/model.safetensors",
                                       "prune-1/config.json", "journal.json.tmp",
                                       "calibrate.state/step", "odd"};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        char name[128];
        snprintf(name, sizeof name, "out.work/%s", left[i]);
        scratch_put(dir, name, "x");
    }
    scratch_put(dir, "out.work/distill.state/step", "7");
    sfq_journal *j = reopen();
    static const char *const gone[] = {".prune-1.sfq-tmp.1", "prune-1", "journal.json.tmp",
                                       "calibrate.state", "odd"};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        char name[128];
        snprintf(name, sizeof name, "out.work/%s", gone[i]);
        assert_false(sfq_file_exists(path_of(name)));
    }
    const char *kept;
    assert_ok(sfq_journal_state(j, "distill", &kept, &err));
    assert_string_equal(kept, path_of("out.work/distill.state"));
    assert_true(sfq_file_exists(path_of("out.work/distill.state/step")));
    assert_ok(add_stage(j, "distill", 1, NULL, &err));
    assert_false(sfq_file_exists(path_of("out.work/distill.state")));
    sfq_journal_close(&j);
}

static void test_second_run(void **state)
{
    (void)state;
    sfq_compress_options o = options();
    sfq_journal *second;
    sfq_journal *j = reopen();
    assert_fails(SFQ_E_EXISTS, "another run works there", open_with(&second, &o, &err));
    o.force = true;
    assert_fails(SFQ_E_EXISTS, "another run works there", open_with(&second, &o, &err));
    sfq_journal_close(&j);
}

/* ---- the request ---- */

static void expect_other(const sfq_compress_options *given, const char *what)
{
    sfq_compress_options o = *given;
    sfq_journal *j;
    assert_fails(SFQ_E_EXISTS, what, open_with(&j, &o, &err));
    assert_fails(SFQ_E_EXISTS, "--force", open_with(&j, &o, &err));
    assert_true(sfq_file_exists(path_of("out.work/calibrate/content")));
}

#define OTHER(member, value, what)             \
    do {                                       \
        sfq_compress_options o_ = options();   \
        o_.member = (value);                   \
        expect_other(&o_, "different: " what); \
    } while (0)
#define SAME(member, value)                           \
    do {                                              \
        sfq_compress_options o_ = options();          \
        o_.member = (value);                          \
        sfq_journal *j_;                              \
        assert_ok(open_with(&j_, &o_, &err));         \
        assert_true(loss_of(j_, "calibrate") == 1.0); \
        sfq_journal_close(&j_);                       \
    } while (0)

static void test_options_of_the_request(void **state)
{
    (void)state;
    begin_journal();
    OTHER(prune, 0.41, "prune");
    OTHER(steps, 10, "steps");
    OTHER(bits, 7, "bits");
    OTHER(embedding_bits, 4, "embedding-bits");
    OTHER(seed, 1, "seed");
    OTHER(calib_fraction, 0.01, "calib-fraction");
    OTHER(calib_tokens, 100, "calib-tokens");
    OTHER(calib_length, 128, "calib-length");
    OTHER(pick, "random", "pick");
    OTHER(saliency, "taylor", "saliency");
    OTHER(rounds, 2, "rounds");
    OTHER(uniform, true, "uniform");
    OTHER(task, "sst2", "task");
    SAME(threads, 2);
    SAME(minutes, 5);
    SAME(max_drop, 1);
    SAME(force, true);
    static const char *const keep[] = {"q_proj\xff"};
    static const sfq_bits_rule rules[] = {{"mlp", 4}};
    sfq_compress_options o = options();
    o.keep = keep;
    o.keep_count = 1;
    expect_other(&o, "keep");
    o = options();
    o.bits_for = rules;
    o.bits_for_count = 1;
    o.seed = 3;
    expect_other(&o, "seed");
    expect_other(&o, "bits-for");
    /* --force starts anew */
    o.force = true;
    sfq_journal *j;
    assert_ok(open_with(&j, &o, &err));
    assert_null(sfq_journal_last(j));
    assert_false(sfq_file_exists(path_of("out.work/calibrate")));
    sfq_journal_close(&j);
}

static void touch(const char *path, time_t seconds)
{
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void copy_model(const char *to)
{
    static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char name[128];
        char *from = sfq_path_join("models/sst2-tiny", files[i]);
        sfq_map map;
        assert_ok(sfq_map_open(&map, from, &err));
        snprintf(name, sizeof name, "%s/%s", to, files[i]);
        scratch_put(dir, name, "");
        FILE *file = fopen(path_of(name), "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(map.data, 1, map.size, file), map.size);
        assert_int_equal(fclose(file), 0);
        sfq_map_close(&map);
        sfq_mem_free(from);
    }
}

static void test_files_of_the_request(void **state)
{
    (void)state;
    copy_model("model");
    scratch_put(dir, "data/train.tsv", "sentence\tlabel\nfine\t1\n");
    scratch_put(dir, "data/dev.tsv", "sentence\tlabel\nfine\t1\n");
    sfq_compress_options o = options();
    o.model = path_of("model");
    o.data = path_of("data");
    sfq_journal *j;
    assert_ok(open_with(&j, &o, &err));
    assert_ok(add_stage(j, "calibrate", 1, NULL, &err));
    sfq_journal_close(&j);
    scratch_put(dir, "data/dev.tsv", "sentence\tlabel\nfine\t0\n"); /* decides nothing */
    assert_ok(open_with(&j, &o, &err));
    sfq_journal_close(&j);
    touch(path_of("model/model.safetensors"), 1000);
    expect_other(&o, "different: model)");
    scratch_put(dir, "data/train.tsv", "sentence\tlabel\nfine\t0\n");
    expect_other(&o, "different: model, data)");
    o.force = true;
    assert_ok(open_with(&j, &o, &err));
    assert_ok(add_stage(j, "calibrate", 1, NULL, &err));
    sfq_journal_close(&j);
    o.force = false;
    touch(path_of("model/config.json"), 1000); /* its bytes count, not its time */
    assert_ok(open_with(&j, &o, &err));
    sfq_journal_close(&j);
    assert_int_equal(setenv("SFQ_MAX_ISA", "ref", 1), 0);
    expect_other(&o, "different: instructions)");
    assert_int_equal(unsetenv("SFQ_MAX_ISA"), 0);
}

/* ---- damage ---- */

static sfq_buf read_whole(const char *path)
{
    sfq_buf text = SFQ_BUF_INIT(1 << 20);
    assert_ok(sfq_file_read(&text, path, 1 << 20, &err));
    return text;
}

static void expect_damaged(const char *text)
{
    sfq_compress_options o = options();
    sfq_journal *j;
    scratch_put(dir, "out.work/journal.json", text);
    assert_fails(SFQ_E_FORMAT, "start anew with --force", open_with(&j, &o, &err));
    assert_true(sfq_file_exists(path_of("out.work/calibrate/content")));
}

static void test_damaged(void **state)
{
    (void)state;
    begin_journal();
    sfq_buf text = read_whole(path_of("out.work/journal.json"));
    char *cut = sfq_mem_strdup(text.data);
    for (size_t n = 0; n + 2 < text.len; n += 37) {
        memcpy(cut, text.data, text.len);
        cut[n] = 0;
        expect_damaged(cut);
    }
    sfq_mem_free(cut);
    static const char *const stages[] = {
        "[{\"name\":\"../victim\",\"kept\":true,\"report\":{}}]",
        "[{\"name\":\"..\",\"kept\":true,\"report\":{}}]",
        "[{\"name\":\"\",\"kept\":true,\"report\":{}}]",
        "[{\"name\":\"missing\",\"kept\":true,\"report\":{}}]",
        "[{\"name\":\"calibrate\",\"kept\":1,\"report\":{}}]",
        "[{\"name\":\"calibrate\",\"kept\":true,\"report\":[]}]",
        "[{\"name\":\"calibrate\",\"kept\":true}]",
        ("[{\"name\":\"calibrate\",\"kept\":true,\"report\":{}},"
         "{\"name\":\"calibrate\",\"kept\":true,\"report\":{}}]"),
        "[{\"name\":\"link\",\"kept\":true,\"report\":{}}]",
        "[7]",
        "{}",
    };
    scratch_put(dir, "victim/content", "mine");
    assert_int_equal(symlink(path_of("victim"), path_of("out.work/link")), 0);
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        char line[512];
        snprintf(line, sizeof line, "{\"schema\":1,\"request\":{},\"seconds\":1,\"stages\":%s}",
                 stages[i]);
        expect_damaged(line);
    }
    expect_damaged("{\"schema\":2,\"request\":{},\"seconds\":1,\"stages\":[]}");
    expect_damaged("{\"schema\":1,\"request\":{},\"seconds\":-1,\"stages\":[]}");
    expect_damaged("{\"schema\":1,\"request\":7,\"seconds\":1,\"stages\":[]}");
    expect_damaged("[]");
    sfq_compress_options o = options();
    o.force = true;
    sfq_journal *j;
    assert_ok(open_with(&j, &o, &err));
    assert_null(sfq_journal_last(j));
    sfq_journal_close(&j);
    assert_false(sfq_file_exists(path_of("out.work")));
    assert_true(sfq_file_exists(path_of("victim/content")));
    sfq_buf_free(&text);
}

/* Killed before the first journal.json: there is nothing to lose. */
static void test_incomplete(void **state)
{
    (void)state;
    scratch_put(dir, "out.work/journal.json.tmp", "{\"sche");
    scratch_put(dir, "out.work/.calibrate.sfq-tmp.1/x", "");
    sfq_journal *j = reopen();
    assert_null(sfq_journal_last(j));
    sfq_journal_close(&j);
}

static void test_foreign(void **state)
{
    (void)state;
    sfq_compress_options o = options();
    sfq_journal *j;
    scratch_put(dir, "out.work/thesis.tex", "years");
    for (int force = 0; force < 2; force++) {
        o.force = force != 0;
        assert_fails(SFQ_E_EXISTS, "holds files but no journal.json", open_with(&j, &o, &err));
        assert_true(sfq_file_exists(path_of("out.work/thesis.tex")));
    }
    o.output = path_of("file");
    scratch_put(dir, "file.work", "text");
    assert_fails(SFQ_E_EXISTS, "no directory", open_with(&j, &o, &err));
    o.output = path_of("link");
    assert_int_equal(symlink(path_of("out.work"), path_of("link.work")), 0);
    assert_fails(SFQ_E_EXISTS, "no directory", open_with(&j, &o, &err));
    assert_true(sfq_file_exists(path_of("out.work/thesis.tex")));
    o.output = path_of("no/parent");
    assert_fails(SFQ_E_NOT_FOUND, "parent", open_with(&j, &o, &err));
    copy_model("model.work");
    o.model = path_of("model.work");
    o.output = path_of("model");
    assert_fails(SFQ_E_ARGUMENT, "the model itself", open_with(&j, &o, &err));
    assert_true(sfq_file_exists(path_of("model.work/model.safetensors")));
}

/* ---- kill -9 ---- */

enum { KILL_STAGES = 12 };

static void stage_name(char name[16], int i)
{
    snprintf(name, 16, "prune-%d", i);
}

/* In a process of its own: does what is not done, each stage making the one before obsolete. */
static void go_on(void)
{
    sfq_journal *j = NULL;
    sfq_compress_options o = options();
    sfq_error why;
    if (open_with(&j, &o, &why) != SFQ_OK)
        _exit(2);
    for (int i = 0; i < KILL_STAGES; i++) {
        char name[16];
        char before[16];
        stage_name(name, i);
        stage_name(before, i - 1);
        const char *const obsolete[] = {i > 0 ? before : NULL, NULL};
        const char *kept;
        if (sfq_journal_done(j, name, NULL))
            continue;
        if (sfq_journal_state(j, name, &kept, &why) != SFQ_OK ||
            add_stage(j, name, i, obsolete, &why) != SFQ_OK)
            _exit(3);
    }
    sfq_journal_close(&j);
    _exit(0);
}

static void test_killed(void **state)
{
    (void)state;
    int killed = 0;
    int status = -1;
    for (long delay = 100; !WIFEXITED(status) || WEXITSTATUS(status) != 0; delay += delay / 8) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            go_on();
        struct timespec wait = {.tv_nsec = delay * 1000};
        assert_true(delay < 900000);
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status))
            assert_int_equal(WEXITSTATUS(status), 0);
        killed += WIFSIGNALED(status) != 0;
    }
    assert_true(killed > 3);
    sfq_journal *j = reopen();
    for (int i = 0; i < KILL_STAGES; i++) {
        char name[16];
        stage_name(name, i);
        assert_true(loss_of(j, name) == i);
        assert_int_equal(sfq_journal_find(j, name) != NULL, i == KILL_STAGES - 1);
    }
    sfq_buf content = read_whole(path_of("out.work/prune-11/content"));
    assert_string_equal(content.data, "prune-11");
    sfq_buf_free(&content);
    sfq_journal_close(&j);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_scratch, close_scratch)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stages),
        TEST(test_nothing_done_leaves_nothing),
        TEST(test_leftovers),
        TEST(test_second_run),
        TEST(test_options_of_the_request),
        TEST(test_files_of_the_request),
        TEST(test_damaged),
        TEST(test_incomplete),
        TEST(test_foreign),
        TEST(test_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
