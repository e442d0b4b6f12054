/* The output directory: whole or not at all, and what it refuses to replace. */
#include "base/file.h"

#include "unit/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

static sfq_error err;
static char dir[SCRATCH_ROOM];

static int setup(void **state)
{
    (void)state;
    scratch_open(dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_close(dir);
    return 0;
}

/* Entries of the scratch directory, or of one below it; hidden ones too. */
static int entries(const char *below)
{
    DIR *d = opendir(scratch_path(dir, below));
    assert_non_null(d);
    int n = -2;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static void has_text(const char *name, const char *text)
{
    sfq_buf b = {0};
    assert_ok(sfq_file_read(&b, scratch_path(dir, name), 1000, &err));
    assert_string_equal(b.data, text);
    sfq_buf_free(&b);
}

static void write_model(sfq_outdir *out, const char *text)
{
    assert_ok(sfq_outdir_put(out, "config.json", text, strlen(text), &err));
    int fd;
    assert_ok(sfq_outdir_create(out, "model.safetensors", 10, &fd, &err));
    assert_ok(sfq_outdir_write(fd, "model.safetensors", "world", 5, 5, &err));
    assert_ok(sfq_outdir_write(fd, "model.safetensors", "hello", 5, 0, &err));
    assert_ok(sfq_outdir_finish(out, "model.safetensors", fd, &err));
}

static void appears_at_commit(void **state)
{
    (void)state;
    sfq_outdir *out;
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "new//"), false, &err));
    assert_memory_equal(sfq_outdir_path(out), dir, strlen(dir));
    write_model(out, "{}");
    assert_false(sfq_file_exists(scratch_path(dir, "new")));
    assert_true(sfq_dir_exists(sfq_outdir_path(out)));
    assert_ok(sfq_outdir_commit(&out, NULL, &err));
    assert_null(out);
    has_text("new/config.json", "{}");
    has_text("new/model.safetensors", "helloworld");
    assert_int_equal(entries("."), 1);
    assert_int_equal(entries("new"), 2);
}

static void abort_leaves_nothing(void **state)
{
    (void)state;
    sfq_outdir *out;
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "new"), false, &err));
    write_model(out, "{}");
    int fd;
    assert_ok(sfq_outdir_create(out, "unfinished", 100, &fd, &err));
    sfq_outdir_abort(&out);
    assert_null(out);
    assert_int_equal(entries("."), 0);
    assert_int_equal(write(fd, "x", 1), -1); /* it was closed */
    sfq_outdir_abort(&out);
}

static void relative_paths(void **state)
{
    (void)state;
    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(dir), 0);
    sfq_outdir *out;
    assert_ok(sfq_outdir_open(&out, "plain", false, &err));
    write_model(out, "{}");
    assert_ok(sfq_outdir_commit(&out, NULL, &err));
    static const char *const bad[] = {"", ".", "..", "/", "plain/..", "plain/.", "///"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_status(SFQ_E_ARGUMENT, sfq_outdir_open(&out, bad[i], true, &err));
    assert_int_equal(chdir(before), 0);
    has_text("plain/config.json", "{}");
}

static void existing_needs_force(void **state)
{
    (void)state;
    scratch_put(dir, "old/config.json", "old");
    scratch_put(dir, "old/sub/deep/file", "x");
    sfq_outdir *out;
    assert_fails(SFQ_E_EXISTS, "exists",
                 sfq_outdir_open(&out, scratch_path(dir, "old"), false, &err));
    assert_null(out);
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "old"), true, &err));
    write_model(out, "new");
    has_text("old/config.json", "old");
    assert_ok(sfq_outdir_commit(&out, NULL, &err));
    has_text("old/config.json", "new");
    assert_int_equal(entries("old"), 2);
    assert_int_equal(entries("."), 1);
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "old"), true, &err));
    write_model(out, "never");
    sfq_outdir_abort(&out);
    has_text("old/config.json", "new");
    assert_int_equal(entries("."), 1);
}

static void empty_directory(void **state)
{
    (void)state;
    assert_int_equal(mkdir(scratch_path(dir, "e"), 0777), 0);
    sfq_outdir *out;
    assert_status(SFQ_E_EXISTS, sfq_outdir_open(&out, scratch_path(dir, "e"), false, &err));
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "e"), true, &err));
    write_model(out, "{}");
    assert_ok(sfq_outdir_commit(&out, NULL, &err));
    has_text("e/config.json", "{}");
    assert_int_equal(entries("."), 1);
}

static void what_is_never_replaced(void **state)
{
    (void)state;
    scratch_put(dir, "home/thesis.tex", "x");
    scratch_put(dir, "file", "x");
    scratch_put(dir, "model/config.json", "x");
    assert_int_equal(symlink("model", scratch_path(dir, "link")), 0);
    assert_int_equal(symlink("nowhere", scratch_path(dir, "dangling")), 0);
    static const char *const names[][2] = {{"home", "no config.json"},
                                           {"file", "no directory"},
                                           {"link", "symbolic link"},
                                           {"dangling", "symbolic link"}};
    for (size_t i = 0; i < 4; i++) {
        sfq_outdir *out;
        assert_fails(SFQ_E_EXISTS, names[i][1],
                     sfq_outdir_open(&out, scratch_path(dir, names[i][0]), true, &err));
        assert_null(out);
        assert_status(SFQ_E_EXISTS,
                      sfq_outdir_open(&out, scratch_path(dir, names[i][0]), false, &err));
    }
    assert_int_equal(entries("."), 5);
    has_text("home/thesis.tex", "x");
}

/* Somebody else makes the target while we work. */
static void target_appears_meanwhile(void **state)
{
    (void)state;
    for (int force = 0; force <= 1; force++) {
        sfq_outdir *out;
        assert_ok(sfq_outdir_open(&out, scratch_path(dir, "t"), force != 0, &err));
        write_model(out, "{}");
        scratch_put(dir, "t/precious", "x");
        assert_status(SFQ_E_EXISTS, sfq_outdir_commit(&out, NULL, &err));
        assert_null(out);
        has_text("t/precious", "x");
        assert_int_equal(entries("."), 1);
        assert_int_equal(unlink(scratch_path(dir, "t/precious")), 0);
        assert_int_equal(rmdir(scratch_path(dir, "t")), 0);
    }
}

/* The same with a model: only force replaces it. */
static void model_appears_meanwhile(void **state)
{
    (void)state;
    for (int force = 0; force <= 1; force++) {
        sfq_outdir *out;
        assert_ok(sfq_outdir_open(&out, scratch_path(dir, force ? "b" : "a"), force != 0, &err));
        write_model(out, "ours");
        scratch_put(dir, force ? "b/config.json" : "a/config.json", "theirs");
        assert_status(force ? SFQ_OK : SFQ_E_EXISTS, sfq_outdir_commit(&out, NULL, &err));
        has_text(force ? "b/config.json" : "a/config.json", force ? "ours" : "theirs");
        assert_int_equal(entries("."), 1 + force);
    }
}

static void missing_parent(void **state)
{
    (void)state;
    scratch_put(dir, "file", "x");
    sfq_outdir *out;
    assert_fails(SFQ_E_NOT_FOUND, "parent",
                 sfq_outdir_open(&out, scratch_path(dir, "no/such"), false, &err));
    assert_null(out);
    assert_fails(SFQ_E_NOT_FOUND, "parent",
                 sfq_outdir_open(&out, scratch_path(dir, "file/x"), false, &err));
}

static void rejected_name(void **state)
{
    (void)state;
    scratch_put(dir, "m/config.json", "old");
    for (int run = 0; run < 2; run++) { /* the second replaces the first's rejected result */
        sfq_outdir *out;
        assert_ok(sfq_outdir_open(&out, scratch_path(dir, "m"), true, &err));
        write_model(out, run == 0 ? "first" : "second");
        assert_ok(sfq_outdir_commit(&out, "m.rejected", &err));
        has_text("m.rejected/config.json", run == 0 ? "first" : "second");
        has_text("m/config.json", "old");
        assert_int_equal(entries("."), 2);
    }
    scratch_put(dir, "r/notes", "x");
    static const char *const bad[] = {"../up", "", "r"};
    for (size_t i = 0; i < 3; i++) {
        sfq_outdir *out;
        assert_ok(sfq_outdir_open(&out, scratch_path(dir, "m"), true, &err));
        write_model(out, "x");
        assert_status(i < 2 ? SFQ_E_ARGUMENT : SFQ_E_EXISTS, sfq_outdir_commit(&out, bad[i], &err));
        assert_null(out);
        assert_int_equal(entries("."), 3);
    }
}

static void misuse_inside(void **state)
{
    (void)state;
    sfq_outdir *out;
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "m"), false, &err));
    int fd = 5;
    static const char *const bad[] = {"", "..", "a/b", "/tmp/x"};
    for (size_t i = 0; i < 4; i++) {
        assert_status(SFQ_E_ARGUMENT, sfq_outdir_create(out, bad[i], 1, &fd, &err));
        assert_int_equal(fd, -1);
        assert_status(SFQ_E_ARGUMENT, sfq_outdir_put(out, bad[i], "x", 1, &err));
    }
    assert_status(SFQ_E_ARGUMENT, sfq_outdir_create(out, "a", UINT64_MAX, &fd, &err));
    assert_ok(sfq_outdir_put(out, "a", NULL, 0, &err));
    assert_fails(SFQ_E_EXISTS, "a: cannot create", sfq_outdir_put(out, "a", "x", 1, &err));
    int unfinished;
    assert_ok(sfq_outdir_create(out, "b", 0, &unfinished, &err));
    assert_fails(SFQ_E_INTERNAL, "not finished", sfq_outdir_commit(&out, NULL, &err));
    assert_null(out);
    assert_int_equal(entries("."), 0);
    /* every place for an open file, and one more */
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "m"), false, &err));
    int fds[64];
    char name[16];
    for (int i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "f%d", i);
        assert_ok(sfq_outdir_create(out, name, 0, &fds[i], &err));
    }
    assert_status(SFQ_E_LIMIT, sfq_outdir_create(out, "more", 0, &fd, &err));
    assert_ok(sfq_outdir_finish(out, "f3", fds[3], &err));
    assert_ok(sfq_outdir_create(out, "more", 0, &fd, &err));
    sfq_outdir_abort(&out);
    assert_int_equal(entries("."), 0);
}

static void write_fails(void **state)
{
    (void)state;
    int full = open("/dev/full", O_WRONLY);
    assert_true(full >= 0);
    assert_fails(SFQ_E_NO_SPACE, "w: write failed", sfq_outdir_write(full, "w", "x", 1, 0, &err));
    close(full);
    assert_status(SFQ_E_IO, sfq_outdir_write(-1, "w", "x", 1, 0, &err));
}

/* A child that opens the outdir and dies (or lives). Returns its process id. */
static pid_t child_with_outdir(bool dies)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        sfq_outdir *out;
        char ok = sfq_outdir_open(&out, scratch_path(dir, "m"), false, NULL) == SFQ_OK &&
                  sfq_outdir_put(out, "config.json", "{}", 2, NULL) == SFQ_OK;
        if (write(ready[1], &ok, 1) != 1)
            _exit(1);
        if (!dies)
            pause();
        _exit(0);
    }
    char ok = 0;
    assert_int_equal(read(ready[0], &ok, 1), 1);
    assert_int_equal(ok, 1);
    close(ready[0]);
    close(ready[1]);
    if (dies)
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    return pid;
}

static void temporaries_of_others(void **state)
{
    (void)state;
    (void)child_with_outdir(true);
    assert_int_equal(entries("."), 1);
    pid_t living = child_with_outdir(false); /* its open removes the dead one's */
    assert_int_equal(entries("."), 1);
    scratch_put(dir, ".m.sfq-tmp.notes/x", "mine");        /* no number */
    scratch_put(dir, ".mm.sfq-tmp.2147483646/x", "other"); /* another target's */
    scratch_put(dir, ".m.sfq-old.2147483646/x", "aside");
    scratch_put(dir, ".m.sfq-tmp.2147483646/sub/x", "stale");
    scratch_put(dir, ".m.sfq-tmp.2147483646.3/x", "stale");
    sfq_outdir *out;
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "m"), false, &err));
    assert_int_equal(entries("."), 5); /* the living one's, three strangers, ours */
    sfq_outdir *second;                /* of the same process and target */
    assert_ok(sfq_outdir_open(&second, scratch_path(dir, "m"), false, &err));
    assert_string_not_equal(sfq_outdir_path(out), sfq_outdir_path(second));
    assert_int_equal(entries("."), 6);
    sfq_outdir_abort(&second);
    sfq_outdir_abort(&out);
    assert_int_equal(entries("."), 4);
    kill(living, SIGKILL);
    assert_int_equal(waitpid(living, NULL, 0), living);
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "m"), false, &err));
    sfq_outdir_abort(&out);
    assert_int_equal(entries("."), 3);
}

/* Removing what was replaced: many entries, links not followed. */
static void replaced_tree_goes_links_stay(void **state)
{
    (void)state;
    char name[64];
    for (int i = 0; i < 700; i++) {
        snprintf(name, sizeof name, "old/many/file-with-a-longer-name-%d", i);
        scratch_put(dir, name, "");
    }
    scratch_put(dir, "old/config.json", "old");
    scratch_put(dir, "outside/keep", "kept");
    assert_int_equal(symlink("../outside", scratch_path(dir, "old/link")), 0);
    sfq_outdir *out;
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "old"), true, &err));
    write_model(out, "new");
    assert_ok(sfq_outdir_commit(&out, NULL, &err));
    assert_int_equal(entries("."), 2);
    has_text("outside/keep", "kept");
    has_text("old/config.json", "new");
}

/* A second name for a file, which outlives the first. */
static void takes_a_file(void **state)
{
    (void)state;
    sfq_outdir *out;
    scratch_put(dir, "work/model.safetensors", "weights");
    scratch_put(dir, "work/empty", "");
    assert_ok(sfq_outdir_open(&out, scratch_path(dir, "new"), false, &err));
    assert_ok(sfq_outdir_take(out, "model.safetensors", scratch_path(dir, "work/model.safetensors"),
                              &err));
    assert_ok(sfq_outdir_take(out, "empty", scratch_path(dir, "work/empty"), &err));
    assert_status(SFQ_E_NOT_FOUND,
                  sfq_outdir_take(out, "missing", scratch_path(dir, "work/missing"), &err));
    assert_status(SFQ_E_ARGUMENT,
                  sfq_outdir_take(out, "../x", scratch_path(dir, "work/empty"), &err));
    assert_ok(sfq_outdir_commit(&out, NULL, &err));
    assert_int_equal(remove(scratch_path(dir, "work/model.safetensors")), 0);
    has_text("new/model.safetensors", "weights");
    assert_int_equal(entries("new"), 2);
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(appears_at_commit),
        WITH_SCRATCH(abort_leaves_nothing),
        WITH_SCRATCH(relative_paths),
        WITH_SCRATCH(existing_needs_force),
        WITH_SCRATCH(empty_directory),
        WITH_SCRATCH(what_is_never_replaced),
        WITH_SCRATCH(target_appears_meanwhile),
        WITH_SCRATCH(model_appears_meanwhile),
        WITH_SCRATCH(missing_parent),
        WITH_SCRATCH(rejected_name),
        WITH_SCRATCH(misuse_inside),
        WITH_SCRATCH(write_fails),
        WITH_SCRATCH(temporaries_of_others),
        WITH_SCRATCH(replaced_tree_goes_links_stay),
        WITH_SCRATCH(takes_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
