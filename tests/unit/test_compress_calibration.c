/* The calibration set: quotas, determinism, what is never opened, the file of the journal under
 * every kind of damage, and batches. */
#include "unit/unit.h"

#include "base/file.h"
#include "base/mem.h"
#include "compress/work.h"

#include <math.h>

static sfq_error err;

/* ---- a model and data ---- */

typedef struct bench {
    sfq_source *source;
    sfq_net *net;
    const sfq_kernels *kernels;
    sfq_compress_options o;
    double deadline;
    char dir[SCRATCH_ROOM];
} bench;

static void bench_open(bench *b, const char *model, int threads)
{
    *b = (bench){.o = {.struct_size = sizeof(b->o),
                       .model = model,
                       .recipe = "sfq",
                       .calib_length = 256,
                       .pick = "random",
                       .threads = threads},
                 .deadline = (double)INFINITY};
    scratch_open(b->dir);
    assert_ok(sfq_source_open(&b->source, &b->o, &err));
    assert_ok(sfq_net_open(&b->net, b->source->arch, b->source->modules, b->source->ck, NULL,
                           &b->o.hooks, &err));
    b->kernels = sfq_kernels_get(SFQ_ISA_COUNT);
}

static void bench_close(bench *b)
{
    sfq_net_close(&b->net);
    sfq_source_close(&b->source);
    scratch_close(b->dir);
}

static sfq_status make(bench *b, sfq_calibration **out)
{
    return sfq_calibration_make(out, b->source, b->net, b->kernels, &b->o, 1, 1, b->deadline, &err);
}

/* n examples, no two alike, of 1 to 9 words */
static void put_some(const bench *b, size_t n, bool labels)
{
    char path[2 * SCRATCH_ROOM];
    snprintf(path, sizeof path, "%s/train.jsonl", b->dir);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < n; i++) {
        fprintf(file, "{\"text\": \"number %zu", i);
        for (size_t k = 0; k < i % 9; k++)
            fprintf(file, " %s", k % 2 ? "fine" : "dull");
        if (labels)
            fprintf(file, "\", \"label\": %d}\n", (int)(i % 2));
        else
            fprintf(file, "\"}\n");
    }
    assert_int_equal(fclose(file), 0);
}

static void put_examples(const bench *b, size_t n)
{
    put_some(b, n, true);
}

static void assert_same(const sfq_calibration *a, const sfq_calibration *b)
{
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->tune, b->tune);
    assert_memory_equal(a->offset, b->offset, (a->count + 1) * sizeof *a->offset);
    assert_memory_equal(a->ids, b->ids, a->offset[a->count] * sizeof *a->ids);
    assert_int_equal(a->types != NULL, b->types != NULL);
    if (a->types != NULL)
        assert_memory_equal(a->types, b->types, a->offset[a->count] * sizeof *a->types);
    assert_string_equal(a->origin, b->origin);
    assert_true(a->fraction == b->fraction);
    assert_int_equal(a->scanned, b->scanned);
    assert_int_equal(a->available, b->available);
    assert_int_equal(a->duplicates, b->duplicates);
}

/* ---- tasks ---- */

static void test_task_quota(void **state)
{
    (void)state;
    bench b;
    bench_open(&b, "models/sst2-tiny", 1);
    b.o.data = b.dir;
    static const struct {
        size_t examples;
        double fraction;
        size_t count, tune;
    } cases[] = {{5, 0, 5, 4},        {6, 0, 6, 5},          {300, 0, 300, 240},
                 {2000, 0, 512, 410}, {2000, 0.1, 200, 160}, {2000, 1, 2000, 1600},
                 {2000, 0.0025, 5, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sfq_calibration *c = NULL;
        uint64_t sequences, tokens;
        put_examples(&b, cases[i].examples);
        b.o.calib_fraction = cases[i].fraction;
        assert_ok(make(&b, &c));
        assert_int_equal(c->count, cases[i].count);
        assert_int_equal(c->tune, cases[i].tune);
        assert_int_equal(c->available, cases[i].examples);
        assert_near(c->fraction, (double)c->count / (double)c->available, 0);
        assert_string_equal(c->origin, "task");
        assert_null(c->types); /* one text: all types are 0 */
        assert_ok(sfq_calibration_estimate(b.source, &b.o, &sequences, &tokens, &err));
        assert_int_equal(sequences, c->count);
        assert_true(tokens >= sfq_calibration_tokens(c));
        sfq_calibration_close(&c);
    }
    bench_close(&b);
}

static void test_task_depends_on_seed_alone(void **state)
{
    (void)state;
    sfq_calibration *c[3] = {NULL};
    for (int i = 0; i < 3; i++) {
        bench b;
        bench_open(&b, "models/sst2-tiny", i == 0 ? 1 : 3);
        b.o.data = b.dir;
        b.o.seed = i == 2;
        put_examples(&b, 900);
        assert_ok(make(&b, &c[i]));
        bench_close(&b);
    }
    assert_same(c[0], c[1]);
    assert_int_equal(c[0]->count, c[2]->count);
    size_t n = c[0]->offset[c[0]->count], m = c[2]->offset[c[2]->count];
    assert_true(n != m || memcmp(c[0]->ids, c[2]->ids, n * sizeof *c[0]->ids) != 0);
    for (int i = 0; i < 3; i++)
        sfq_calibration_close(&c[i]);
}

static void test_task_without_labels(void **state)
{
    (void)state;
    sfq_calibration *c[2] = {NULL};
    bench b;
    bench_open(&b, "models/sst2-tiny", 1);
    b.o.data = b.dir;
    for (int i = 0; i < 2; i++) {
        put_some(&b, 50, i == 0);
        assert_ok(make(&b, &c[i]));
    }
    assert_same(c[0], c[1]);
    for (int i = 0; i < 2; i++)
        sfq_calibration_close(&c[i]);
    bench_close(&b);
}

/* Pairs keep their types and are cut to the model's positions. */
static void test_pairs(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *c = NULL;
    bench_open(&b, "models/sst2-tiny", 1);
    b.o.data = b.dir;
    char text[6000] = "";
    for (int i = 0; i < 8; i++) {
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at, "{\"text\": \"left %d", i);
        for (int k = 0; k < (i == 7 ? 700 : 1); k++)
            strcat(text, " good");
        strcat(text, "\", \"text_pair\": \"right\", \"label\": 0}\n");
    }
    scratch_put(b.dir, "train.jsonl", text);
    assert_ok(make(&b, &c));
    assert_int_equal(c->count, 8);
    assert_non_null(c->types);
    size_t longest = 0;
    for (size_t i = 0; i < c->count; i++) {
        size_t begin = c->offset[i], end = c->offset[i + 1];
        longest = end - begin > longest ? end - begin : longest;
        assert_int_equal(c->types[begin], 0);
        assert_int_equal(c->types[end - 1], 1);
    }
    size_t positions = (size_t)b.source->arch->max_positions;
    assert_int_equal(longest, positions < 512 ? positions : 512);
    sfq_calibration_close(&c);
    bench_close(&b);
}

/* The dev split is a directory: whoever opened it would fail. */
static void test_dev_is_never_opened(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *with = NULL, *without = NULL;
    bench_open(&b, "models/sst2-tiny", 1);
    b.o.data = b.dir;
    put_examples(&b, 40);
    assert_ok(make(&b, &without));
    assert_int_equal(mkdir(scratch_path(b.dir, "dev.jsonl"), 0), 0);
    assert_int_equal(mkdir(scratch_path(b.dir, "dev.tsv"), 0), 0);
    assert_ok(make(&b, &with));
    assert_same(with, without);
    sfq_calibration_close(&with);
    sfq_calibration_close(&without);
    bench_close(&b);
}

static void test_refused(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *c = NULL;
    bench_open(&b, "models/sst2-tiny", 1);
    assert_fails(SFQ_E_ARGUMENT, "--task", make(&b, &c));
    b.o.data = b.dir;
    assert_fails(SFQ_E_NOT_FOUND, "train", make(&b, &c));
    put_examples(&b, 4);
    assert_fails(SFQ_E_DATA, "needs 5", make(&b, &c));
    scratch_put(b.dir, "train.jsonl", "");
    assert_fails(SFQ_E_DATA, "empty", make(&b, &c));
    scratch_put(b.dir, "train.jsonl", "{\"text\": \"a\", \"label\": 2}\n");
    assert_fails(SFQ_E_DATA, "line 1", make(&b, &c));
    scratch_put(b.dir, "train.jsonl", "{\"text\": \"a\", \"label\": NaN}\n");
    assert_fails(SFQ_E_DATA, "line 1", make(&b, &c));
    put_examples(&b, 100);
    b.o.calib_fraction = 0.01;
    assert_fails(SFQ_E_ARGUMENT, "is 1; calibration needs 5", make(&b, &c));
    b.o.calib_fraction = (double)NAN;
    assert_fails(SFQ_E_ARGUMENT, "--calib-fraction", make(&b, &c));
    b.o.calib_fraction = 1.5;
    assert_fails(SFQ_E_ARGUMENT, "--calib-fraction", make(&b, &c));
    b.o.calib_fraction = 0;
    b.o.calib_tokens = 100;
    assert_fails(SFQ_E_ARGUMENT, "--calib-tokens", make(&b, &c));
    b.o.calib_tokens = 0;
    b.o.pick = "best";
    assert_fails(SFQ_E_ARGUMENT, "--pick", make(&b, &c));
    b.o.pick = "random";
    b.o.calib_length = 15;
    assert_fails(SFQ_E_ARGUMENT, "--calib-length", make(&b, &c));
    assert_null(c);
    bench_close(&b);
}

/* ---- the file ---- */

static void read_all(const char *path, sfq_buf *out)
{
    *out = SFQ_BUF_INIT(1 << 24);
    assert_ok(sfq_file_read(out, path, 1 << 24, &err));
}

static void write_all(const char *path, const char *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void save(bench *b, const sfq_calibration *c, char path[2 * SCRATCH_ROOM])
{
    sfq_outdir *dir = NULL;
    const char *target = scratch_path(b->dir, "saved");
    assert_ok(sfq_outdir_open(&dir, target, true, &err));
    assert_ok(sfq_outdir_put(dir, "config.json", "{}", 2, &err));
    assert_ok(sfq_calibration_save(c, dir, "calibration.bin", &err));
    assert_ok(sfq_outdir_commit(&dir, NULL, &err));
    snprintf(path, 2 * SCRATCH_ROOM, "%s/saved/calibration.bin", b->dir);
}

static void put_pairs(const bench *b)
{
    char text[4000] = "";
    for (int i = 0; i < 20; i++) {
        size_t at = strlen(text);
        snprintf(text + at, sizeof text - at,
                 "{\"text\": \"left %d\", \"text_pair\": \"right %d\", \"label\": 1}\n", i, 3 * i);
    }
    scratch_put(b->dir, "train.jsonl", text);
}

static void test_save_and_load(void **state)
{
    (void)state;
    for (int typed = 0; typed < 2; typed++) {
        bench b;
        char path[2 * SCRATCH_ROOM];
        sfq_calibration *c = NULL, *back = NULL;
        bench_open(&b, "models/sst2-tiny", 1);
        b.o.data = b.dir;
        if (typed)
            put_pairs(&b);
        else
            put_examples(&b, 30);
        assert_ok(make(&b, &c));
        assert_int_equal(c->types != NULL, typed);
        save(&b, c, path);
        assert_ok(sfq_calibration_load(&back, path, b.source->arch, &err));
        assert_same(c, back);
        sfq_calibration_close(&c);
        sfq_calibration_close(&back);
        bench_close(&b);
    }
}

/* Every byte of the header and every cut: the checksum or a check before it refuses. */
static void test_damage(void **state)
{
    (void)state;
    bench b;
    char path[2 * SCRATCH_ROOM];
    sfq_calibration *c = NULL;
    sfq_buf file;
    bench_open(&b, "models/sst2-tiny", 1);
    b.o.data = b.dir;
    put_pairs(&b);
    assert_ok(make(&b, &c));
    save(&b, c, path);
    sfq_calibration_close(&c);
    read_all(path, &file);
    for (size_t at = 0; at < file.len; at += at < 200 ? 1 : 37) {
        file.data[at] ^= 0x41;
        write_all(path, file.data, file.len);
        assert_status(SFQ_E_FORMAT, sfq_calibration_load(&c, path, b.source->arch, &err));
        file.data[at] ^= 0x41;
        write_all(path, file.data, at);
        assert_status(SFQ_E_FORMAT, sfq_calibration_load(&c, path, b.source->arch, &err));
        assert_null(c);
    }
    write_all(path, file.data, file.len);
    assert_ok(sfq_calibration_load(&c, path, b.source->arch, &err));
    sfq_calibration_close(&c);
    sfq_buf_free(&file);
    assert_status(SFQ_E_ARGUMENT, sfq_calibration_load(&c, b.dir, b.source->arch, &err));
    bench_close(&b);
}

/* A file that is whole, but of another model or made up: proved against this one. */
static void test_foreign_files(void **state)
{
    (void)state;
    bench b;
    char path[2 * SCRATCH_ROOM];
    sfq_calibration *c = NULL, *back = NULL;
    bench_open(&b, "models/sst2-tiny", 1);
    b.o.data = b.dir;
    put_pairs(&b);
    assert_ok(make(&b, &c));
    save(&b, c, path);
    sfq_arch arch = *b.source->arch;
    arch.vocab = 50;
    assert_fails(SFQ_E_FORMAT, "vocabulary", sfq_calibration_load(&back, path, &arch, &err));
    arch = *b.source->arch;
    arch.type_vocab = 1;
    assert_fails(SFQ_E_FORMAT, "token type", sfq_calibration_load(&back, path, &arch, &err));
    arch.type_vocab = 0;
    assert_fails(SFQ_E_FORMAT, "token type", sfq_calibration_load(&back, path, &arch, &err));
    arch = *b.source->arch;
    arch.max_positions = 4;
    assert_fails(SFQ_E_FORMAT, "length", sfq_calibration_load(&back, path, &arch, &err));
    arch = *b.source->arch;
    c->ids[7] = -1;
    save(&b, c, path);
    assert_fails(SFQ_E_FORMAT, "vocabulary", sfq_calibration_load(&back, path, &arch, &err));
    c->ids[7] = 5;
    c->tune = c->count;
    save(&b, c, path);
    assert_fails(SFQ_E_FORMAT, "number of", sfq_calibration_load(&back, path, &arch, &err));
    c->tune = 4;
    c->fraction = (double)NAN;
    save(&b, c, path);
    assert_fails(SFQ_E_FORMAT, "origin", sfq_calibration_load(&back, path, &arch, &err));
    assert_null(back);
    sfq_calibration_close(&c);
    bench_close(&b);
}

/* ---- batches ---- */

static void test_token_batch(void **state)
{
    (void)state;
    sfq_token_batch b = {0};
    int32_t ids[400], types[400];
    for (int i = 0; i < 400; i++) {
        ids[i] = i;
        types[i] = i % 2;
    }
    for (int round = 0; round < 3; round++) {
        sfq_token_batch_clear(&b);
        assert_int_equal(b.batch.sequences, 0);
        for (size_t n = 1; n <= 200; n++)
            assert_ok(
                sfq_token_batch_add(&b, ids + n, n == 100 && round == 1 ? types : NULL, n, &err));
        assert_int_equal(b.batch.sequences, 200);
        assert_int_equal(b.batch.offset[200], 200 * 201 / 2);
        for (size_t n = 1; n <= 200; n++)
            assert_memory_equal(b.batch.ids + b.batch.offset[n - 1], ids + n, n * sizeof *ids);
        assert_int_equal(b.batch.types != NULL, round == 1);
        for (size_t t = 0; round == 1 && t < b.batch.offset[200]; t++) {
            size_t begin = 100 * 99 / 2;
            bool inside = t >= begin && t < begin + 100;
            assert_int_equal(b.batch.types[t], inside ? types[t - begin] : 0);
        }
        assert_null(b.batch.kv);
    }
    assert_fails(SFQ_E_DATA, "without tokens", sfq_token_batch_add(&b, ids, NULL, 0, &err));
    sfq_token_batch_free(&b);
    assert_null(b.ids);
}

static void test_work_batches(void **state)
{
    (void)state;
    size_t offset[] = {0, 10, 15, 16, 40, 41};
    sfq_calibration c = {.count = 5, .tune = 4, .offset = offset};
    assert_int_equal(sfq_work_batch_end(&c, 0, 5, 1), 1);
    assert_int_equal(sfq_work_batch_end(&c, 0, 5, 15), 2);
    assert_int_equal(sfq_work_batch_end(&c, 0, 5, 16), 3);
    assert_int_equal(sfq_work_batch_end(&c, 1, 5, 30), 4);
    assert_int_equal(sfq_work_batch_end(&c, 1, 4, 1000), 4);
    assert_int_equal(sfq_work_batch_end(&c, 4, 5, 1000), 5);
    assert_int_equal(sfq_work_batch_end(&c, 5, 5, 1000), 5);
    int32_t ids[41] = {0};
    c.ids = ids;
    ids[15] = 3;
    sfq_token_batch b = {0};
    assert_ok(sfq_token_batch_take(&b, &c, 2, &err));
    assert_int_equal(b.batch.offset[1], 1);
    assert_int_equal(b.batch.ids[0], 3);
    sfq_token_batch_free(&b);
}

typedef struct heard {
    char log[64], stage[32], unit[16];
    int index, stages;
    uint64_t done, total;
    bool stop;
} heard;

static void hear_progress(void *ud, const sfq_progress *p)
{
    heard *h = ud;
    snprintf(h->stage, sizeof h->stage, "%s", p->stage);
    snprintf(h->unit, sizeof h->unit, "%s", p->unit);
    h->index = p->stage_index, h->stages = p->stage_count;
    h->done = p->done, h->total = p->total;
}

static void hear_log(void *ud, sfq_log_level level, const char *line)
{
    (void)level;
    snprintf(((heard *)ud)->log, sizeof((heard *)ud)->log, "%s", line);
}

static bool hear_cancelled(void *ud)
{
    return ((heard *)ud)->stop;
}

static void test_work_reports(void **state)
{
    (void)state;
    heard h = {.stop = false};
    sfq_compress_options o = {.hooks = {&h, hear_progress, hear_log, hear_cancelled}};
    sfq_work work = {.options = &o, .stage = "score", .index = 3, .stages = 7};
    sfq_work_progress(&work, 5, 9, "sequences");
    assert_string_equal(h.stage, "score");
    assert_string_equal(h.unit, "sequences");
    assert_true(h.index == 3 && h.stages == 7 && h.done == 5 && h.total == 9);
    sfq_work_log(&work, SFQ_LOG_WARNING, "%d of %s", 3, "them");
    assert_string_equal(h.log, "3 of them");
    assert_ok(sfq_work_check(&work, &err));
    h.stop = true;
    assert_status(SFQ_E_INTERRUPTED, sfq_work_check(&work, &err));
    work.deadline = (double)INFINITY;
    assert_false(sfq_work_late(&work));
    work.deadline = 0;
    assert_true(sfq_work_late(&work));
}

/* Asked to stop, calibration stops. */
static void test_interrupted(void **state)
{
    (void)state;
    bench b;
    heard h = {.stop = true};
    sfq_calibration *c = NULL;
    bench_open(&b, "models/sst2-tiny", 1);
    b.o.data = b.dir;
    b.o.hooks = (sfq_hooks){&h, hear_progress, hear_log, hear_cancelled};
    put_examples(&b, 600);
    assert_status(SFQ_E_INTERRUPTED, make(&b, &c));
    assert_null(c);
    h.stop = false;
    assert_ok(make(&b, &c));
    assert_string_equal(h.stage, "calibrate");
    assert_true(h.done == h.total && h.total >= 512);
    sfq_calibration_close(&c);
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_task_quota),
        cmocka_unit_test(test_task_depends_on_seed_alone),
        cmocka_unit_test(test_task_without_labels),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_dev_is_never_opened),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_foreign_files),
        cmocka_unit_test(test_token_batch),
        cmocka_unit_test(test_work_batches),
        cmocka_unit_test(test_work_reports),
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests_name("calibration", tests, NULL, NULL);
}
