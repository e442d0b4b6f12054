/* The journal of compress under the seam: every n-th allocation and every n-th call to the file
 * system fails once, and from there on. After each failure: a code with its message, no memory
 * kept, and a directory from which an ordinary run goes on. */
#include "fault/seam.h"

#include "base/mem.h"
#include "compress/journal.h"
#include "unit/unit.h"

static char dir[SCRATCH_ROOM];
static char output[2 * SCRATCH_ROOM];
static sfq_compress_options options;
static sfq_source *source;

static int setup(void **state)
{
    (void)state;
    sfq_error err;
    if (access("/dev/shm", W_OK) == 0) /* thousands of fsyncs, which a disk would make minutes of */
        setenv("TMPDIR", "/dev/shm", 1);
    scratch_open(dir);
    snprintf(output, sizeof output, "%s/out", dir);
    scratch_put(dir, "data/train.jsonl", "{\"text\":\"fine\",\"label\":1}\n");
    scratch_put(dir, "text", "Some text.");
    static const char *const texts[] = {NULL};
    options = (sfq_compress_options){.struct_size = sizeof options,
                                     .model = "models/sst2-tiny",
                                     .output = output,
                                     .recipe = "sfq",
                                     .data = scratch_path(dir, "data"),
                                     .text_files = texts,
                                     .pick = "curated",
                                     .saliency = "fisher",
                                     .bits = 8,
                                     .embedding_bits = 8,
                                     .threads = 1};
    return sfq_source_open(&source, &options, &err) == SFQ_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    sfq_source_close(&source);
    scratch_close(dir);
    return 0;
}

static sfq_status add_stage(sfq_journal *j, const char *stage, const char *const *obsolete,
                            sfq_error *err)
{
    sfq_outdir *out = NULL;
    json_t *report = json_object();
    sfq_status status = SFQ_OK;
    if (report == NULL)
        return sfq_fail_memory(err, 0, "a report");
    SFQ_DO(sfq_journal_begin(j, stage, &out, err));
    SFQ_DO(sfq_outdir_put(out, "content", stage, strlen(stage), err));
    SFQ_DO(sfq_journal_end(j, stage, &out, report, obsolete, err));
done:
    sfq_outdir_abort(&out);
    json_decref(report);
    return status;
}

/* One stage more than there is, from whatever is there. */
static sfq_status go_on(sfq_error *err)
{
    static const char *const first[] = {"one", NULL};
    sfq_journal *j = NULL;
    sfq_status status = SFQ_OK;
    const char *kept;
    SFQ_DO(sfq_journal_open(&j, source, &options, err));
    if (!sfq_journal_done(j, "one", NULL)) {
        SFQ_DO(add_stage(j, "one", NULL, err));
        sfq_journal_close(&j);
        SFQ_DO(sfq_journal_open(&j, source, &options, err));
    }
    SFQ_DO(sfq_journal_state(j, "two", &kept, err));
    if (!sfq_journal_done(j, "two", NULL))
        SFQ_DO(add_stage(j, "two", first, err));
done:
    sfq_journal_close(&j);
    return status;
}

static void finish(void)
{
    sfq_error err;
    sfq_journal *j;
    assert_ok(go_on(&err));
    assert_ok(sfq_journal_open(&j, source, &options, &err));
    const char *path = sfq_journal_find(j, "two");
    assert_non_null(path);
    assert_null(sfq_journal_find(j, "one"));
    char *content = sfq_path_join(path, "content");
    sfq_buf text = SFQ_BUF_INIT(16);
    assert_ok(sfq_file_read(&text, content, 16, &err));
    assert_string_equal(text.data, "two");
    sfq_buf_free(&text);
    sfq_mem_free(content);
    assert_ok(sfq_journal_remove(&j, &err));
    assert_false(sfq_file_exists(scratch_path(dir, "out.work")));
}

/* Some failures cost only cleanliness (a removal, a lock): those calls succeed. */
static unsigned sweep(const char *op)
{
    unsigned n = 0;
    unsigned failed = 0;
    for (bool fired = true; fired;) {
        char spec[64];
        sfq_error err;
        sfq_error_clear(&err);
        snprintf(spec, sizeof spec, "%s:%u", op, ++n);
        assert_true(seam_arm(spec));
        sfq_status status = go_on(&err);
        long live = seam_live();
        fired = seam_fired();
        seam_disarm();
        if (live != 0)
            fail_msg("%s: %ld pieces of memory kept", spec, live);
        if ((status != SFQ_OK && !fired) || (status != SFQ_OK && err.code != status) ||
            status == SFQ_E_INTERNAL)
            fail_msg("%s: status %d, %s", spec, status, err.message);
        failed += status != SFQ_OK;
        finish();
        assert_true(n < 10000);
    }
    return failed;
}

static void every_allocation(void **state)
{
    (void)state;
    assert_true(sweep("alloc") > 20);
    assert_true(sweep("alloc+") > 20);
}

static void full_disk(void **state)
{
    (void)state;
    assert_true(sweep("write+") > 3);
    assert_true(sweep("fsync+") > 3);
}

static void every_call(void **state)
{
    static const char *const ops[] = {"open",      "stat",   "mmap",    "write", "fsync",
                                      "fallocate", "close",  "rename",  "mkdir", "flock",
                                      "read",      "unlink", "getdents"};
    (void)state;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        unsigned failed = sweep(ops[i]);
        if (failed == 0 && strcmp(ops[i], "unlink") != 0) /* what stays, the next open removes */
            fail_msg("%s: no failure was felt", ops[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(every_call),
        cmocka_unit_test(full_disk),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
