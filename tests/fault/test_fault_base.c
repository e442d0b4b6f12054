/* The bottom layer under the seam: every n-th allocation and every n-th system call fails once, and
 * from there on, until nothing is left to fail. After each failure: the right code, no memory kept,
 * the target as it was, no temporary. And a process that is killed at any call leaves the old
 * directory or the new one. */
#include "fault/seam.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "unit/unit.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

static char dir[SCRATCH_ROOM];
static char target[2 * SCRATCH_ROOM];
static char input[2 * SCRATCH_ROOM];

#define LONG_VALUE "longer than jansson's first buffer, and than the one that follows it"
static const char long_value[] = LONG_VALUE;
static const char text[] = "{\"key\": [1, 2.500000000000000000000000000000000000, \"a string\", "
                           "{\"x\": null, \"y\": true}], "
                           "\"other\": \"" LONG_VALUE "\"}";

enum { PAYLOAD = 9000 };

static int setup(void **state)
{
    (void)state;
    scratch_open(dir);
    snprintf(target, sizeof target, "%s/m", dir);
    snprintf(input, sizeof input, "%s/in.json", dir);
    scratch_put(dir, "in.json", text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_close(dir);
    return 0;
}

/* ---- what is done under faults ---- */

static sfq_status write_model(const char *config, bool force, sfq_error *err)
{
    static char payload[PAYLOAD];
    memset(payload, 'w', sizeof payload);
    sfq_outdir *out = NULL;
    sfq_status status = SFQ_OK;
    SFQ_DO(sfq_outdir_open(&out, target, force, err));
    SFQ_DO(sfq_outdir_put(out, "config.json", config, strlen(config), err));
    int fd;
    SFQ_DO(sfq_outdir_create(out, "model.safetensors", PAYLOAD, &fd, err));
    for (size_t at = 0; at < PAYLOAD; at += 4096) {
        size_t n = PAYLOAD - at < 4096 ? PAYLOAD - at : 4096;
        SFQ_DO(sfq_outdir_write(fd, "model.safetensors", payload + at, n, at, err));
    }
    SFQ_DO(sfq_outdir_finish(out, "model.safetensors", fd, err));
    return sfq_outdir_commit(&out, NULL, err);
done:
    sfq_outdir_abort(&out);
    return status;
}

static sfq_status write_new(sfq_error *err)
{
    return write_model("new", false, err);
}

static sfq_status write_over(sfq_error *err)
{
    return write_model("new", true, err);
}

static sfq_status do_map(sfq_error *err)
{
    sfq_map map;
    SFQ_TRY(sfq_map_open(&map, input, err));
    bool same = map.size == strlen(text) && memcmp(map.data, text, map.size) == 0;
    sfq_map_close(&map);
    return same ? SFQ_OK : SFQ_E_INTERNAL;
}

static sfq_status do_read(sfq_error *err)
{
    sfq_buf b = {0};
    sfq_status status = sfq_file_read(&b, input, 1000, err);
    if (status == SFQ_OK && (b.len != strlen(text) || strcmp(b.data, text) != 0))
        status = SFQ_E_INTERNAL;
    sfq_buf_free(&b);
    return status;
}

static sfq_status do_json(sfq_error *err)
{
    json_t *root;
    SFQ_TRY(sfq_json_read(&root, input, 1000, err));
    const json_t *key = json_object_get(root, "key");
    const json_t *other = json_object_get(root, "other"); /* jansson's own buffer grows for it */
    bool same = json_array_size(key) == 4 && json_real_value(json_array_get(key, 1)) > 2.49 &&
                json_string_length(other) == strlen(long_value);
    json_decref(root);
    return same ? SFQ_OK : SFQ_E_INTERNAL;
}

static sfq_status do_buf(sfq_error *err)
{
    sfq_buf b = SFQ_BUF_INIT(100000);
    sfq_status status = SFQ_OK;
    for (int i = 0; i < 1000; i++) {
        size_t len = b.len;
        status = i % 2 ? sfq_buf_add(&b, "12345678", 8, err) : sfq_buf_addf(&b, err, "%08d", i);
        if (status != SFQ_OK) {
            if (b.len != len || (len > 0 && strlen(b.data) != len))
                status = SFQ_E_INTERNAL; /* the content had to stay */
            break;
        }
    }
    sfq_buf_free(&b);
    return status;
}

static sfq_status do_memory(sfq_error *err)
{
    sfq_status status = SFQ_E_MEMORY;
    sfq_arena *arena = sfq_arena_open();
    char *copy = sfq_mem_strdup("abc");
    char *joined = sfq_path_join("a", "b");
    void *lines = sfq_mem_aligned(1000);
    char *grown = copy != NULL ? sfq_mem_resize(copy, 1000, 8) : NULL;
    if (grown != NULL)
        copy = grown;
    bool pieces = arena != NULL;
    for (int i = 0; i < 300 && pieces; i++)
        pieces = sfq_arena_zero(arena, 1000, 8) != NULL && sfq_arena_aligned(arena, 77) != NULL &&
                 sfq_arena_strndup(arena, "word", 4) != NULL;
    if (copy != NULL && joined != NULL && lines != NULL && grown != NULL && pieces)
        status = SFQ_OK;
    if (copy != NULL && strcmp(copy, "abc") != 0)
        status = SFQ_E_INTERNAL;
    sfq_arena_close(&arena);
    sfq_mem_free(copy);
    sfq_mem_free(joined);
    sfq_mem_free(lines);
    if (status != SFQ_OK)
        sfq_fail_memory(err, 1, "the test");
    return status;
}

/* ---- what holds afterwards ---- */

static int entries(void)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    int n = -2;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* Whole and with this config? */
static bool model_is(const char *config)
{
    sfq_buf b = {0};
    sfq_error err;
    bool same =
        sfq_file_read(&b, scratch_path(dir, "m/config.json"), 1000, &err) == SFQ_OK &&
        strcmp(b.data, config) == 0 &&
        sfq_file_read(&b, scratch_path(dir, "m/model.safetensors"), PAYLOAD, &err) == SFQ_OK &&
        b.len == PAYLOAD && strspn(b.data, "w") == PAYLOAD;
    sfq_buf_free(&b);
    return same;
}

static void remove_model(void)
{
    unlink(scratch_path(dir, "m/config.json"));
    unlink(scratch_path(dir, "m/model.safetensors"));
    rmdir(target);
}

static void put_old_model(void)
{
    sfq_error err;
    remove_model();
    assert_ok(write_model("old", false, &err));
}

/* ---- the loops ---- */

typedef sfq_status (*action)(sfq_error *err);

/* Runs act with the n-th call of op failing, n = 1, 2, ... until none fails; check() after each. */
static unsigned sweep(const char *op, const char *tail, action act, void (*before)(void),
                      void (*check)(const char *spec, sfq_status status, const sfq_error *err))
{
    unsigned n = 0;
    for (bool fired = true; fired;) {
        char spec[64];
        snprintf(spec, sizeof spec, "%s:%u%s", op, ++n, tail);
        if (before != NULL)
            before();
        sfq_error err;
        sfq_error_clear(&err);
        assert_true(seam_arm(spec));
        sfq_status status = act(&err);
        long live = seam_live();
        fired = seam_fired();
        seam_disarm();
        if (live != 0)
            fail_msg("%s: %ld pieces of memory kept", spec, live);
        if (status != SFQ_OK && (err.code != status || err.message[0] == 0))
            fail_msg("%s: status %d without its message", spec, status);
        if (!fired && status != SFQ_OK)
            fail_msg("%s: failed without a fault: %s", spec, err.message);
        if (fired)
            check(spec, status, &err);
        assert_true(n < 10000);
    }
    return n - 1;
}

static void must_be_memory(const char *spec, sfq_status status, const sfq_error *err)
{
    if (status != SFQ_E_MEMORY)
        fail_msg("%s: status %d, %s", spec, status, err->message);
}

static void must_be_io(const char *spec, sfq_status status, const sfq_error *err)
{
    if (status != SFQ_E_IO || strstr(err->message, "Input/output error") == NULL)
        fail_msg("%s: status %d, %s", spec, status, err->message);
}

static void every_allocation(void **state)
{
    (void)state;
    static const action acts[] = {do_read, do_json, do_buf, do_memory};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        unsigned once = sweep("alloc", "", acts[i], NULL, must_be_memory);
        unsigned on = sweep("alloc+", "", acts[i], NULL, must_be_memory);
        assert_true(once > 0 && on > 0);
    }
}

static void every_call_of_reading(void **state)
{
    (void)state;
    static const action acts[] = {do_read, do_json, do_map};
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        assert_int_equal(sweep("open", "", acts[i], NULL, must_be_io), 1);
        assert_int_equal(sweep("stat", "", acts[i], NULL, must_be_io), 2);
    }
    assert_true(sweep("read", "", do_read, NULL, must_be_io) >= 2);
    assert_true(sweep("read+", "", do_json, NULL, must_be_io) >= 2);
    assert_int_equal(sweep("mmap", "", do_map, NULL, must_be_memory), 1);
    assert_int_equal(sweep("mmap", ":EIO", do_map, NULL, must_be_io), 1);
}

/* "Not there" is only what the kernel says is not there. */
static void existence_in_doubt(void **state)
{
    (void)state;
    static const char *const names[] = {"in.json", "nothing", "in.json/below"};
    for (size_t i = 0; i < 3; i++) {
        const char *path = scratch_path(dir, names[i]);
        assert_int_equal(sfq_file_exists(path), i == 0);
        assert_false(sfq_dir_exists(path));
        assert_true(seam_arm("stat+:1:EIO"));
        assert_true(sfq_file_exists(path));
        assert_true(sfq_dir_exists(path));
        seam_disarm();
    }
}

static void short_reads(void **state)
{
    (void)state;
    sfq_error err;
    assert_true(seam_arm("short-read"));
    assert_ok(do_read(&err));
    assert_ok(do_json(&err));
    assert_true(seam_count("read") > 10);
    seam_disarm();
}

static void target_as_before(const char *spec, sfq_status status, bool old)
{
    if (status == SFQ_OK ? !model_is("new") : old ? !model_is("old") : sfq_file_exists(target))
        fail_msg("%s: the target is neither as before nor whole (status %d)", spec, status);
    if (entries() != (status == SFQ_OK || old ? 2 : 1))
        fail_msg("%s: a temporary is left (status %d)", spec, status);
}

static void new_or_nothing(const char *spec, sfq_status status, const sfq_error *err)
{
    (void)err;
    target_as_before(spec, status, false);
}

static void new_or_old(const char *spec, sfq_status status, const sfq_error *err)
{
    (void)err;
    target_as_before(spec, status, true);
}

static void writing_alloc(const char *spec, sfq_status status, const sfq_error *err)
{
    must_be_memory(spec, status, err);
    target_as_before(spec, status, model_is("old"));
}

static void writing_full(const char *spec, sfq_status status, const sfq_error *err)
{
    if (status != SFQ_E_NO_SPACE)
        fail_msg("%s: status %d, %s", spec, status, err->message);
    target_as_before(spec, status, model_is("old"));
}

static void writing_io(const char *spec, sfq_status status, const sfq_error *err)
{
    must_be_io(spec, status, err);
    target_as_before(spec, status, model_is("old"));
}

static void every_failure_of_writing(void **state)
{
    (void)state;
    static const struct {
        const char *op;
        const char *tail;
        void (*check)(const char *spec, sfq_status status, const sfq_error *err);
        unsigned least;
    } hard[] = {{"alloc", "", writing_alloc, 4},    {"alloc+", "", writing_alloc, 4},
                {"write", "", writing_io, 4},       {"write+", ":ENOSPC", writing_full, 4},
                {"fallocate", "", writing_full, 2}, {"fsync", "", writing_io, 4},
                {"mkdir", ":EIO", writing_io, 1},   {"mkdir+", ":ENOSPC", writing_full, 1}};
    for (size_t i = 0; i < sizeof hard / sizeof *hard; i++) {
        assert_true(sweep(hard[i].op, hard[i].tail, write_new, remove_model, hard[i].check) >=
                    hard[i].least);
        assert_true(sweep(hard[i].op, hard[i].tail, write_over, put_old_model, hard[i].check) >=
                    hard[i].least);
    }
    assert_int_equal(sweep("rename", "", write_new, remove_model, writing_io), 1);
    assert_int_equal(sweep("exchange", "", write_over, put_old_model, writing_io), 1);
    /* These may be survived, or show only in what is cleaned up. */
    static const char *const soft[][2] = {
        {"flock", ""}, {"close", ""}, {"open", ":EMFILE"}, {"stat", ""}};
    for (size_t i = 0; i < sizeof soft / sizeof *soft; i++)
        assert_true(sweep(soft[i][0], soft[i][1], write_new, remove_model, new_or_nothing) > 0);
    assert_true(sweep("flock", "", write_over, put_old_model, new_or_old) > 0);
    assert_true(sweep("fallocate", ":EOPNOTSUPP", write_new, remove_model, new_or_nothing) == 2);
}

static void short_writes(void **state)
{
    (void)state;
    sfq_error err;
    assert_true(seam_arm("short-write"));
    assert_ok(write_new(&err));
    assert_true(seam_count("write") > 10);
    seam_disarm();
    assert_true(model_is("new"));
}

/* A copy where the file system knows no second name for a file. */
static void without_links(void **state)
{
    (void)state;
    sfq_error err;
    for (int fails = 0; fails < 2; fails++) {
        sfq_outdir *out;
        put_old_model();
        assert_ok(sfq_outdir_open(&out, target, true, &err));
        assert_true(seam_arm(fails ? "link+:1,write+:1:ENOSPC" : "link+:1"));
        char *path = sfq_path_join(target, "config.json");
        sfq_status status = sfq_outdir_take(out, "config.json", path, &err);
        assert_true(seam_fired());
        seam_disarm();
        sfq_mem_free(path);
        assert_int_equal(status, fails ? SFQ_E_NO_SPACE : SFQ_OK);
        sfq_outdir_abort(&out);
        assert_true(model_is("old"));
        assert_int_equal(entries(), 2);
    }
}

/* Renaming in two steps where the file system cannot exchange; the old one comes back when the
 * second step fails. */
static void without_exchange(void **state)
{
    (void)state;
    sfq_error err;
    static const char *const why[] = {"EINVAL", "ENOSYS", "EOPNOTSUPP"};
    for (size_t i = 0; i < 3; i++) {
        put_old_model();
        char spec[64];
        snprintf(spec, sizeof spec, "exchange+:1:%s", why[i]);
        assert_true(seam_arm(spec));
        assert_ok(write_over(&err));
        seam_disarm();
        assert_true(model_is("new"));
        assert_int_equal(entries(), 2);
        for (int n = 1; n <= 2; n++) {
            put_old_model();
            snprintf(spec, sizeof spec, "exchange+:1:%s,rename:%d", why[i], n);
            assert_true(seam_arm(spec));
            assert_status(SFQ_E_IO, write_over(&err));
            seam_disarm();
            assert_true(model_is("old"));
            assert_int_equal(entries(), 2);
        }
    }
    /* the sync of the parent fails after the swap: all goes back */
    put_old_model();
    assert_true(seam_arm("exchange+:1:EINVAL,fsync:4"));
    assert_status(SFQ_E_IO, write_over(&err));
    seam_disarm();
    assert_true(model_is("old"));
    assert_int_equal(entries(), 2);
}

/* A child is killed at the n-th call of op; what it leaves is the old or the new one, and the next
 * open removes its temporary. */
static unsigned kill_at_each(const char *op, bool old)
{
    for (unsigned n = 1;; n++) {
        if (old)
            put_old_model();
        else
            remove_model();
        char spec[64];
        snprintf(spec, sizeof spec, "kill:%s:%u", op, n);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            seam_arm(spec);
            sfq_status status = write_model("new", old, NULL);
            _exit(status == SFQ_OK ? 0 : 1);
        }
        int how;
        assert_int_equal(waitpid(pid, &how, 0), pid);
        if (WIFEXITED(how)) {
            assert_int_equal(WEXITSTATUS(how), 0);
            assert_true(model_is("new"));
            return n - 1;
        }
        assert_int_equal(WTERMSIG(how), SIGKILL);
        bool there = sfq_file_exists(target);
        if (!model_is("new") && (old ? !model_is("old") : there))
            fail_msg("%s: the target is half written", spec);
        sfq_error err;
        sfq_outdir *out;
        assert_ok(sfq_outdir_open(&out, target, true, &err));
        sfq_outdir_abort(&out);
        if (entries() != 1 + there)
            fail_msg("%s: the dead process's temporary was not removed", spec);
    }
}

static void killed_anywhere(void **state)
{
    (void)state;
    static const char *const names[] = {"alloc", "open",  "close", "stat",     "write",
                                        "fsync", "mkdir", "flock", "fallocate"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_true(kill_at_each(names[i], false) > 0);
        assert_true(kill_at_each(names[i], true) > 0);
    }
    assert_true(kill_at_each("rename", false) > 0);
    assert_true(kill_at_each("exchange", true) > 0);
    assert_true(kill_at_each("unlink", true) > 0);
    assert_true(kill_at_each("getdents", true) > 0);
}

/* ---- one file ---- */

static sfq_status replace_file(const char *text_of_file, sfq_error *err)
{
    const sfq_file_part parts[] = {{text_of_file, 1}, {text_of_file + 1, 2}};
    return sfq_file_replace(scratch_path(dir, "one"), parts, 2, err);
}

static sfq_status do_replace(sfq_error *err)
{
    return replace_file("new", err);
}

static void put_old_file(void)
{
    sfq_error err;
    assert_ok(replace_file("old", &err));
}

static void file_is_whole(const char *spec, sfq_status status, const sfq_error *err)
{
    sfq_buf b = {0};
    sfq_error ignored;
    assert_int_equal(sfq_file_read(&b, scratch_path(dir, "one"), 3, &ignored), SFQ_OK);
    bool fresh = strcmp(b.data, "new") == 0;
    /* after a failed fsync of the directory both are possible */
    if ((!fresh && strcmp(b.data, "old") != 0) || (status == SFQ_OK && !fresh))
        fail_msg("%s: the file is neither the old one nor the new one", spec);
    sfq_buf_free(&b);
    if (status != SFQ_OK && entries() != 2)
        fail_msg("%s: a temporary is left: %s", spec, err->message);
}

static void replacing_one_file(void **state)
{
    (void)state;
    static const char *const calls[] = {"open", "write", "fsync", "rename", "close", "fallocate"};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        assert_true(sweep(calls[i], "", do_replace, put_old_file, file_is_whole) > 0);
    assert_true(sweep("alloc", "", do_replace, put_old_file, must_be_memory) == 2);
    sfq_error err;
    put_old_file();
    assert_true(seam_arm("write:2:ENOSPC"));
    assert_status(SFQ_E_NO_SPACE, do_replace(&err));
    seam_disarm();
    file_is_whole("full", SFQ_E_NO_SPACE, &err);
}

static sfq_status do_pool(sfq_error *err)
{
    sfq_pool *pool;
    SFQ_TRY(sfq_pool_open(&pool, 3, err));
    sfq_pool_close(&pool);
    return SFQ_OK;
}

static void pool_without_memory(void **state)
{
    (void)state;
    sfq_error err;
    for (int n = 1; n < 20; n++) {
        char spec[32];
        snprintf(spec, sizeof spec, "alloc%s:%d", n % 2 ? "" : "+", (n + 1) / 2);
        assert_true(seam_arm(spec));
        sfq_status status = do_pool(&err);
        bool fired = seam_fired();
        seam_disarm();
        assert_true(status == SFQ_OK || (fired && status == SFQ_E_MEMORY));
        assert_true(n > 4 || status == SFQ_E_MEMORY);
    }
}

static void rules_that_cannot_be_read(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "alloc", "alloc:",     "alloc:0",  "alloc:x",       "frob:1",   ":1",       "+:1",
        "kill:", "kill:alloc", "alloc:1:", "alloc:1:EWHAT", "alloc:1 ", "write:1,", "short"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(seam_arm(bad[i]), strcmp(bad[i], "write:1,") == 0);
    assert_true(seam_arm("write:1:ENOSPC,alloc+:5,short-read,kill:fsync:7"));
    seam_disarm();
}

#define WITH_SCRATCH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    seam_disarm();
    const struct CMUnitTest tests[] = {
        WITH_SCRATCH(every_allocation),         WITH_SCRATCH(every_call_of_reading),
        WITH_SCRATCH(existence_in_doubt),       WITH_SCRATCH(short_reads),
        WITH_SCRATCH(every_failure_of_writing), WITH_SCRATCH(short_writes),
        WITH_SCRATCH(without_exchange),         WITH_SCRATCH(without_links),
        WITH_SCRATCH(killed_anywhere),          WITH_SCRATCH(replacing_one_file),
        WITH_SCRATCH(pool_without_memory),      cmocka_unit_test(rules_that_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
