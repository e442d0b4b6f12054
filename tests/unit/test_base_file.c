/* Reading files: regular ones only, limits, names; hooks and clock beside them. */
#include "base/file.h"

#include "base/clock.h"
#include "base/hooks.h"
#include "base/mem.h"
#include "unit/unit.h"

#include <fcntl.h>

static sfq_error err;

static void map_and_read(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    scratch_put(dir, "a", "hello");
    scratch_put(dir, "empty", "");
    sfq_map map;
    assert_ok(sfq_map_open(&map, scratch_path(dir, "a"), &err));
    assert_int_equal(map.size, 5);
    assert_memory_equal(map.data, "hello", 5);
    sfq_map_close(&map);
    assert_null(map.data);
    assert_ok(sfq_map_open(&map, scratch_path(dir, "empty"), &err));
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    sfq_map_close(&map);
    uint64_t size = 0;
    assert_ok(sfq_file_size(&size, scratch_path(dir, "a"), &err));
    assert_int_equal(size, 5);

    sfq_buf b = {0};
    assert_ok(sfq_file_read(&b, scratch_path(dir, "a"), 5, &err));
    assert_string_equal(b.data, "hello");
    assert_fails(SFQ_E_LIMIT, "limit of 4 bytes",
                 sfq_file_read(&b, scratch_path(dir, "a"), 4, &err));
    assert_int_equal(b.len, 0);
    assert_ok(sfq_file_read(&b, scratch_path(dir, "empty"), 0, &err));
    assert_string_equal(b.data, "");
    assert_ok(sfq_file_read(&b, scratch_path(dir, "a"), 100, &err)); /* replaces the content */
    assert_int_equal(b.len, 5);
    sfq_buf_free(&b);
    assert_status(SFQ_E_NOT_FOUND, sfq_map_open(&map, scratch_path(dir, "none"), &err));
    assert_status(SFQ_E_NOT_FOUND, sfq_file_read(&b, scratch_path(dir, "none"), 9, &err));
    assert_status(SFQ_E_NOT_FOUND, sfq_file_size(&size, scratch_path(dir, "none"), &err));
    assert_non_null(strstr(err.file, "none"));
    scratch_close(dir);
}

static void replaces_one_file(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    const char *path = scratch_path(dir, "f");
    const sfq_file_part parts[] = {{"one", 3}, {NULL, 0}, {" two", 4}};
    sfq_buf b = {0};
    scratch_put(dir, "f.tmp", "left by a writer that was killed, and longer than what comes");
    for (size_t count = 3; count > 1; count--) {
        assert_ok(sfq_file_replace(path, parts, count, &err));
        assert_ok(sfq_file_read(&b, path, 100, &err));
        assert_string_equal(b.data, count == 3 ? "one two" : "one");
        assert_false(sfq_file_exists(scratch_path(dir, "f.tmp")));
    }
    sfq_buf_free(&b);
    assert_status(SFQ_E_NOT_FOUND, sfq_file_replace(scratch_path(dir, "no/f"), parts, 3, &err));
    scratch_close(dir);
}

/* A file whose size is not known beforehand, and a big one. */
static void reads_to_the_end(void **state)
{
    (void)state;
    sfq_buf b = {0};
    assert_ok(sfq_file_read(&b, "/proc/self/status", 1 << 20, &err));
    assert_non_null(strstr(b.data, "VmHWM"));
    size_t len = b.len;
    assert_fails(SFQ_E_LIMIT, "limit", sfq_file_read(&b, "/proc/self/status", len / 2, &err));
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    enum { BIG = 300001 };
    char *text = malloc(BIG + 1);
    for (size_t i = 0; i < BIG; i++)
        text[i] = (char)('a' + i % 23);
    text[BIG] = 0;
    scratch_put(dir, "big", text);
    assert_ok(sfq_file_read(&b, scratch_path(dir, "big"), BIG, &err));
    assert_int_equal(b.len, BIG);
    assert_string_equal(b.data, text);
    free(text);
    sfq_buf_free(&b);
    scratch_close(dir);
}

/* alarm() ends the test if any of these hangs. */
static void no_other_kinds(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    assert_int_equal(mkfifo(scratch_path(dir, "fifo"), 0600), 0);
    assert_int_equal(symlink("fifo", scratch_path(dir, "link")), 0);
    assert_int_equal(symlink("nowhere", scratch_path(dir, "dangling")), 0);
    const char *const paths[] = {scratch_path(dir, "fifo"), scratch_path(dir, "link"), dir,
                                 "/dev/null", "/dev/zero"};
    alarm(20);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        sfq_map map;
        sfq_buf b = SFQ_BUF_INIT(100);
        uint64_t size;
        assert_fails(SFQ_E_ARGUMENT, "regular file", sfq_map_open(&map, paths[i], &err));
        assert_null(map.data);
        assert_fails(SFQ_E_ARGUMENT, "regular file", sfq_file_read(&b, paths[i], 100, &err));
        assert_fails(SFQ_E_ARGUMENT, "regular file", sfq_file_size(&size, paths[i], &err));
        sfq_buf_free(&b);
    }
    alarm(0);
    assert_true(sfq_file_exists(scratch_path(dir, "dangling")));
    assert_true(sfq_file_exists(scratch_path(dir, "fifo")));
    assert_false(sfq_file_exists(scratch_path(dir, "nowhere")));
    assert_true(sfq_dir_exists(dir));
    assert_false(sfq_dir_exists(scratch_path(dir, "fifo")));
    assert_false(sfq_dir_exists(scratch_path(dir, "dangling")));
    scratch_close(dir);
}

static void paths_and_names(void **state)
{
    (void)state;
    static const char *const joined[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}};
    for (size_t i = 0; i < 4; i++) {
        char *path = sfq_path_join(joined[i][0], joined[i][1]);
        assert_string_equal(path, joined[i][2]);
        sfq_mem_free(path);
    }
    static const char *const bad[] = {"", ".", "..", "/", "a/b", "../a", "/etc/passwd", "a/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(sfq_name_is_plain(bad[i]));
    static const char *const good[] = {"a", "...", ".a", "model-00001-of-00002.safetensors"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(sfq_name_is_plain(good[i]));
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    scratch_put(dir, "d/a", "x");
    scratch_put(dir, "b", "x");
    assert_int_equal(symlink("d", scratch_path(dir, "l")), 0);
    assert_true(sfq_path_same(scratch_path(dir, "d"), scratch_path(dir, "l/")));
    assert_true(sfq_path_same(scratch_path(dir, "d/a"), scratch_path(dir, "d/../l/a")));
    assert_false(sfq_path_same(scratch_path(dir, "d/a"), scratch_path(dir, "b")));
    assert_false(sfq_path_same(scratch_path(dir, "q"), scratch_path(dir, "q")));
    scratch_close(dir);
}

typedef struct seen {
    sfq_progress progress;
    char line[2000];
    sfq_log_level level;
    bool stop;
} seen;

static void on_progress(void *ud, const sfq_progress *progress)
{
    ((seen *)ud)->progress = *progress;
}

static void on_log(void *ud, sfq_log_level level, const char *message)
{
    ((seen *)ud)->level = level;
    snprintf(((seen *)ud)->line, sizeof((seen *)ud)->line, "%s", message);
}

static bool on_cancelled(void *ud)
{
    return ((seen *)ud)->stop;
}

static void hooks_present_and_absent(void **state)
{
    (void)state;
    const sfq_hooks none = {0};
    seen s = {.stop = false};
    const sfq_hooks all = {&s, on_progress, on_log, on_cancelled};
    const sfq_hooks *const quiet[] = {NULL, &none};
    for (int i = 0; i < 2; i++) {
        sfq_hooks_progress(quiet[i], "fuse", 1, 2, 3, 4, "weights");
        sfq_hooks_log(quiet[i], SFQ_LOG_NOTE, "%s", "x");
        assert_ok(sfq_hooks_check(quiet[i], &err));
    }
    sfq_hooks_progress(&all, "fuse", 1, 2, 3, 4, "weights");
    assert_string_equal(s.progress.stage, "fuse");
    assert_string_equal(s.progress.unit, "weights");
    assert_int_equal(s.progress.stage_index, 1);
    assert_int_equal(s.progress.stage_count, 2);
    assert_int_equal(s.progress.done, 3);
    assert_int_equal(s.progress.total, 4);
    sfq_hooks_log(&all, SFQ_LOG_WARNING, "a %s\n", "b\x1b");
    assert_string_equal(s.line, "a b\\x1B\\n");
    assert_int_equal(s.level, SFQ_LOG_WARNING);
    assert_ok(sfq_hooks_check(&all, &err));
    s.stop = true;
    assert_status(SFQ_E_INTERRUPTED, sfq_hooks_check(&all, &err));
}

static void clock_and_machine(void **state)
{
    (void)state;
    double a = sfq_clock_seconds();
    usleep(20000);
    double b = sfq_clock_seconds();
    assert_true(b - a >= 0.02 && b - a < 10);
    uint64_t before = sfq_memory_peak();
    enum { GROWTH = 64 << 20 };
    volatile char *p = malloc(GROWTH);
    for (size_t i = 0; i < GROWTH; i += 4096)
        p[i] = 1;
    uint64_t after = sfq_memory_peak();
    free((void *)(uintptr_t)p);
    assert_true(before > 100000 && after >= before + GROWTH / 2);
    assert_true(sfq_memory_available() > 1 << 20);
    assert_true(sfq_disk_available(".") > 0 && sfq_disk_available(".") < UINT64_MAX);
    assert_true(sfq_disk_available("/no/such/dir") == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_and_read),      cmocka_unit_test(replaces_one_file),
        cmocka_unit_test(reads_to_the_end),  cmocka_unit_test(no_other_kinds),
        cmocka_unit_test(paths_and_names),   cmocka_unit_test(hooks_present_and_absent),
        cmocka_unit_test(clock_and_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
