/* Calibration sets from text and from the model itself: quotas, the frame of a sequence, large and
 * small corpora, what is set aside, and that threads decide nothing. */
#include "unit/unit.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compress/calibration.h"
#include "text/tokenizer.h"

#include <malloc.h>
#include <math.h>

static sfq_error err;

static const char LM[] = "models/novels-5m", ENCODER[] = "models/sst2-tiny";

typedef struct bench {
    sfq_source *source;
    sfq_net *net;
    sfq_compress_options o;
    const char *files[2];
    char dir[SCRATCH_ROOM], log[512], unit[16];
    uint64_t done, total;
    size_t reports, peak; /* bytes of the heap when progress was heard */
    bool stop;
    double deadline;
} bench;

static void hear_log(void *ud, sfq_log_level level, const char *line)
{
    assert_int_equal(level, SFQ_LOG_WARNING);
    snprintf(((bench *)ud)->log, sizeof((bench *)ud)->log, "%s", line);
}

static void hear_progress(void *ud, const sfq_progress *p)
{
    bench *b = ud;
    assert_string_equal(p->stage, "calibrate");
    assert_true(p->done <= p->total && (b->reports == 0 || p->done >= b->done));
    snprintf(b->unit, sizeof b->unit, "%s", p->unit);
    b->done = p->done, b->total = p->total, b->reports++;
    struct mallinfo2 heap = mallinfo2();
    size_t used = heap.uordblks + heap.hblkhd;
    b->peak = used > b->peak ? used : b->peak;
}

static bool hear_cancelled(void *ud)
{
    return ((bench *)ud)->stop;
}

static void bench_open(bench *b, const char *model, int threads)
{
    *b = (bench){.o = {.struct_size = sizeof(b->o),
                       .model = model,
                       .recipe = "sfq",
                       .calib_length = 64,
                       .pick = "random",
                       .threads = threads},
                 .deadline = (double)INFINITY};
    scratch_open(b->dir);
    assert_ok(sfq_source_open(&b->source, &b->o, &err));
    assert_ok(sfq_net_open(&b->net, b->source->arch, b->source->modules, b->source->ck, NULL,
                           &b->o.hooks, &err));
    b->o.hooks = (sfq_hooks){b, hear_progress, hear_log, hear_cancelled};
}

static void bench_close(bench *b)
{
    sfq_net_close(&b->net);
    sfq_source_close(&b->source);
    scratch_close(b->dir);
}

static sfq_status make(bench *b, sfq_calibration **out)
{
    b->reports = 0;
    b->log[0] = 0;
    return sfq_calibration_make(out, b->source, b->net, sfq_kernels_get(SFQ_ISA_COUNT), &b->o, 1, 1,
                                b->deadline, &err);
}

/* Sentences in which no two lines are alike, and each says which one it is. */
static void put_text(bench *b, size_t number, size_t lines, const char *word)
{
    static char names[2][2 * SCRATCH_ROOM];
    snprintf(names[number], sizeof names[0], "%s/text%zu", b->dir, number);
    FILE *file = fopen(names[number], "wb");
    assert_non_null(file);
    for (size_t i = 0; i < lines; i++)
        fprintf(file, "The %s of line %zu went to the harbour, and %zu men were waiting there.\n",
                word, i, (size_t)(sfq_rng_u64(5, number, i) % 1000));
    assert_int_equal(fclose(file), 0);
    b->files[number] = names[number];
    b->o.text_files = b->files;
    b->o.text_count = number + 1;
}

static void assert_same(const sfq_calibration *a, const sfq_calibration *b)
{
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->tune, b->tune);
    assert_memory_equal(a->offset, b->offset, (a->count + 1) * sizeof *a->offset);
    assert_memory_equal(a->ids, b->ids, a->offset[a->count] * sizeof *a->ids);
}

/* ---- text ---- */

/* Every sequence: begin-of-text, then tokens of the text; all but the one that meets the budget as
 * long as asked for. */
static void check_sequences(const bench *b, const sfq_calibration *c)
{
    size_t shorter = 0;
    int32_t bos = b->source->arch->bos;
    for (size_t i = 0; i < c->count; i++) {
        size_t n = c->offset[i + 1] - c->offset[i];
        assert_true(n <= 64);
        shorter += n < 64;
        assert_int_equal(c->ids[c->offset[i]], bos);
        for (size_t t = c->offset[i] + 1; t < c->offset[i + 1]; t++)
            assert_true(c->ids[t] != bos);
    }
    assert_true(shorter <= 1);
    assert_null(c->types);
    assert_string_equal(c->origin, "text");
}

static void test_small_text(void **state)
{
    (void)state;
    static const struct {
        uint64_t tokens;
        double fraction;
    } cases[] = {{0, 0}, {0, 0.25}, {0, 1}, {1000, 0}, {700, 0}};
    bench b;
    bench_open(&b, LM, 1);
    put_text(&b, 0, 500, "keeper");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sfq_calibration *c = NULL;
        uint64_t sequences, tokens;
        b.o.calib_tokens = cases[i].tokens;
        b.o.calib_fraction = cases[i].fraction;
        assert_ok(make(&b, &c));
        check_sequences(&b, c);
        uint64_t got = sfq_calibration_tokens(c);
        double share = cases[i].fraction;
        uint64_t wanted = cases[i].tokens;
        if (wanted == 0 && share > 0 && share < 1)
            wanted = (uint64_t)(share * (double)c->available);
        if (wanted > 0)
            assert_true(got <= wanted && got + 16 > wanted);
        else /* all: no token of the text is lost but a last few */
            assert_in_range(got - c->count, c->available - 16, c->available);
        assert_true(c->available > 5000 && c->available < 20000);
        double fraction = (double)got / (double)c->available;
        assert_near(c->fraction, fraction > 1 ? 1 : fraction, 1e-12);
        assert_ok(sfq_calibration_estimate(b.source, &b.o, &sequences, &tokens, &err));
        assert_true(tokens >= got && tokens < got + 64);
        assert_true(sequences >= c->count && sequences <= c->count + 1);
        sfq_calibration_close(&c);
    }
    bench_close(&b);
}

/* The number in "line N" of the first whole sentence of a sequence, or -1. */
static long line_of(const sfq_tokenizer *tokenizer, const sfq_calibration *c, size_t i,
                    char word[16])
{
    char *text = NULL;
    size_t bytes;
    long line = -1;
    assert_ok(sfq_tokenizer_decode(tokenizer, c->ids + c->offset[i],
                                   c->offset[i + 1] - c->offset[i], true, &text, &bytes, &err));
    const char *at = strstr(text, "The ");
    if (at != NULL && sscanf(at, "The %15s of line %ld", word, &line) != 2)
        line = -1;
    sfq_mem_free(text);
    return line;
}

/* A corpus of which a part is looked at: passages lie all over both files, do not meet, begin with
 * a line, and none is of the part set aside. */
static void test_large_text(void **state)
{
    (void)state;
    enum { LINES = 40000 };
    bench b;
    sfq_calibration *c = NULL;
    sfq_tokenizer *tokenizer = NULL;
    uint64_t sequences, tokens;
    bench_open(&b, LM, 1);
    assert_ok(sfq_tokenizer_open(&tokenizer, LM, &err));
    put_text(&b, 0, LINES / 2, "keeper");
    put_text(&b, 1, LINES, "sailor");
    b.o.calib_tokens = 64 * 60;
    b.o.pick = "curated";
    assert_ok(make(&b, &c));
    check_sequences(&b, c);
    assert_int_equal(c->count, 60);
    assert_int_equal(c->tune, 48);
    assert_int_equal(c->scanned, 240);
    assert_in_range(c->available, 700000, 1800000);
    assert_near(c->fraction, 3840.0 / (double)c->available, 1e-12);
    assert_ok(sfq_calibration_estimate(b.source, &b.o, &sequences, &tokens, &err));
    assert_int_equal(tokens, 3840);
    assert_int_equal(sequences, 61);
    size_t thirds[3] = {0};
    bool seen[2][LINES] = {{false}};
    for (size_t i = 0; i < c->count; i++) {
        char word[16];
        long line = line_of(tokenizer, c, i, word);
        bool second = strcmp(word, "sailor") == 0;
        assert_true(line >= 0 && line < (second ? LINES * 953 / 1000 : LINES / 2));
        assert_false(seen[second][line]);
        seen[second][line] = true;
        thirds[second ? 1 + line / (LINES / 2) : 0]++;
    }
    for (size_t k = 0; k < 3; k++)
        assert_in_range(thirds[k], 12, 28);
    sfq_calibration_close(&c);
    b.o.calib_tokens = 0;
    b.o.calib_fraction = 0.2; /* half of the text is looked at */
    b.o.pick = "random";
    assert_ok(make(&b, &c));
    check_sequences(&b, c);
    assert_near(c->fraction, 0.2, 1e-4);
    assert_in_range(c->scanned, c->available * 48 / 100 / 64, c->available / 128);
    sfq_tokenizer_close(&tokenizer);
    sfq_calibration_close(&c);
    bench_close(&b);
}

static void test_threads_and_seed(void **state)
{
    (void)state;
    for (int text = 0; text < 2; text++) {
        sfq_calibration *c[3] = {NULL};
        for (int i = 0; i < 3; i++) {
            bench b;
            bench_open(&b, LM, i == 1 ? 3 : 1);
            if (text)
                put_text(&b, 0, 30000, "keeper");
            b.o.calib_tokens = 2000;
            b.o.pick = "curated";
            b.o.seed = i == 2;
            assert_ok(make(&b, &c[i]));
            assert_string_equal(b.unit, text ? "sequences" : "tokens");
            assert_true(b.done == b.total && b.reports > 5);
            bench_close(&b);
        }
        assert_same(c[0], c[1]);
        assert_true(c[0]->offset[c[0]->count] != c[2]->offset[c[2]->count] ||
                    memcmp(c[0]->ids, c[2]->ids, 2000 * sizeof *c[0]->ids) != 0);
        for (int i = 0; i < 3; i++)
            sfq_calibration_close(&c[i]);
    }
}

/* An encoder reads text between its own special tokens. */
static void test_encoder(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *c = NULL;
    sfq_tokenizer *tokenizer = NULL;
    bench_open(&b, ENCODER, 1);
    assert_ok(sfq_tokenizer_open(&tokenizer, ENCODER, &err));
    int32_t cls = sfq_tokenizer_find(tokenizer, "[CLS]");
    int32_t sep = sfq_tokenizer_find(tokenizer, "[SEP]");
    put_text(&b, 0, 300, "keeper");
    b.o.pick = "curated";
    b.o.calib_fraction = 0.3;
    assert_ok(make(&b, &c));
    for (size_t i = 0; i < c->count; i++) {
        size_t begin = c->offset[i], end = c->offset[i + 1];
        assert_true(end - begin <= 64);
        assert_int_equal(c->ids[begin], cls);
        if (end - begin == 64)
            assert_int_equal(c->ids[end - 1], sep);
    }
    sfq_tokenizer_close(&tokenizer);
    sfq_calibration_close(&c);
    bench_close(&b);
}

/* Little text gives short sequences and a word about it; less is refused. */
static void test_poor_text(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *c = NULL;
    bench_open(&b, LM, 1);
    put_text(&b, 0, 10, "keeper");
    assert_ok(make(&b, &c));
    assert_int_equal(c->count, 5);
    assert_int_equal(c->tune, 4);
    assert_non_null(strstr(b.log, "in place of 64"));
    sfq_calibration_close(&c);
    put_text(&b, 0, 1, "keeper");
    assert_fails(SFQ_E_DATA, "too few", make(&b, &c));
    b.o.calib_tokens = 79;
    put_text(&b, 0, 500, "keeper");
    assert_fails(SFQ_E_ARGUMENT, "79 tokens are too few", make(&b, &c));
    b.o.calib_tokens = 80;
    assert_ok(make(&b, &c));
    assert_int_equal(sfq_calibration_tokens(c), 80);
    sfq_calibration_close(&c);
    b.o.calib_tokens = 0;
    scratch_put(b.dir, "text0", "");
    assert_fails(SFQ_E_DATA, "empty", make(&b, &c));
    scratch_put(b.dir, "text0", "a good beginning \xff");
    assert_fails(SFQ_E_DATA, "at byte 17", make(&b, &c));
    b.files[0] = b.dir;
    assert_status(SFQ_E_ARGUMENT, make(&b, &c));
    assert_null(c);
    bench_close(&b);
}

/* One sentence again and again, without a line end: kept, with a word. */
static void test_repeated_text(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *c = NULL;
    bench_open(&b, LM, 1);
    b.o.pick = "curated";
    char *text = sfq_mem_zero(1, 60001);
    assert_non_null(text);
    for (size_t i = 0; i < 60000; i++)
        text[i] = "same "[i % 5];
    scratch_put(b.dir, "text0", text);
    sfq_mem_free(text);
    b.files[0] = scratch_path(b.dir, "text0");
    b.o.text_files = b.files;
    b.o.text_count = 1;
    assert_ok(make(&b, &c));
    assert_non_null(strstr(b.log, "differ from one another"));
    assert_true(c->count >= 5 && c->tune < c->count);
    sfq_calibration_close(&c);
    bench_close(&b);
}

/* ---- the part set aside ---- */

static void test_put_test(void **state)
{
    (void)state;
    bench b;
    sfq_outdir *dir = NULL;
    sfq_buf whole = SFQ_BUF_INIT(1 << 24), test = SFQ_BUF_INIT(1 << 24);
    char path[2 * SCRATCH_ROOM];
    bench_open(&b, LM, 1);
    put_text(&b, 0, 900, "keeper");
    put_text(&b, 1, 600, "sailor");
    snprintf(path, sizeof path, "%s/out", b.dir);
    assert_ok(sfq_outdir_open(&dir, path, false, &err));
    assert_ok(sfq_calibration_put_test(&b.o, dir, "test.txt", &err));
    assert_ok(sfq_outdir_commit(&dir, NULL, &err));
    strcat(path, "/test.txt");
    assert_ok(sfq_file_read(&test, path, 1 << 24, &err));
    assert_ok(sfq_file_read(&whole, b.files[1], 1 << 24, &err));
    assert_in_range(test.len, whole.len / 41, whole.len / 20);
    assert_memory_equal(test.data, whole.data + whole.len - test.len, test.len);
    assert_int_equal(strncmp(test.data, "The sailor", 10), 0);
    b.o.text_count = 0;
    assert_fails(SFQ_E_ARGUMENT, "--text", sfq_calibration_put_test(&b.o, NULL, "t", &err));
    b.o.text_count = 1;
    scratch_put(b.dir, "text0", "short");
    assert_fails(SFQ_E_DATA, "too short", sfq_calibration_put_test(&b.o, NULL, "t", &err));
    sfq_buf_free(&whole);
    sfq_buf_free(&test);
    bench_close(&b);
}

/* ---- from the model itself ---- */

static void test_self(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *c = NULL;
    uint64_t sequences, tokens;
    bench_open(&b, LM, 2);
    b.o.calib_tokens = 64 * 12 + 20;
    assert_ok(make(&b, &c));
    assert_string_equal(c->origin, "self");
    assert_int_equal(sfq_calibration_tokens(c), 64 * 12 + 20);
    assert_int_equal(c->available, 0);
    assert_near(c->fraction, 0, 0);
    assert_ok(sfq_calibration_estimate(b.source, &b.o, &sequences, &tokens, &err));
    assert_true(tokens == 64 * 12 + 20 && sequences >= c->count);
    const sfq_arch *arch = b.source->arch;
    size_t firsts = 0;
    bool first[4096] = {false};
    for (size_t i = 0; i < c->count; i++) {
        size_t begin = c->offset[i], end = c->offset[i + 1];
        assert_int_equal(c->ids[begin], arch->bos);
        firsts += !first[c->ids[begin + 1]];
        first[c->ids[begin + 1]] = true;
        for (size_t t = begin + 1; t < end; t++) {
            assert_true(c->ids[t] != arch->bos);
            assert_true(c->ids[t] != arch->eos[0] || (t + 1 == end && t - begin >= 16));
        }
    }
    assert_true(firsts >= 6);
    sfq_calibration_close(&c);
    b.stop = true;
    assert_status(SFQ_E_INTERRUPTED, make(&b, &c));
    b.stop = false;
    b.o.calib_tokens = 0;
    b.o.calib_fraction = 0.5;
    assert_fails(SFQ_E_ARGUMENT, "--calib-tokens", make(&b, &c));
    b.o.calib_fraction = 0;
    b.o.data = b.dir;
    assert_fails(SFQ_E_UNSUPPORTED, "language model", make(&b, &c));
    assert_null(c);
    bench_close(&b);
}

/* Past the deadline text is weighed no more, which leaves the quota whole, and sampling ends with
 * the shortest sequences that serve. */
static void test_late(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *c = NULL;
    bench_open(&b, LM, 2);
    b.deadline = 0;
    b.o.calib_tokens = 64 * 12;
    assert_ok(make(&b, &c));
    assert_true(c->late && c->count >= 5);
    assert_in_range(sfq_calibration_tokens(c), 5 * 16, c->count * 17);
    sfq_calibration_close(&c);
    put_text(&b, 0, 20000, "keeper");
    b.o.pick = "curated";
    b.o.calib_tokens = 64 * 60; /* several batches of candidates */
    assert_ok(make(&b, &c));
    assert_true(c->late);
    check_sequences(&b, c);
    assert_int_equal(c->count, 60);
    sfq_calibration_close(&c);
    b.deadline = (double)INFINITY;
    assert_ok(make(&b, &c));
    assert_false(c->late);
    sfq_calibration_close(&c);
    bench_close(&b);
}

/* What it writes follows its own distribution: the mean cross-entropy of its text is the mean
 * entropy of its answers, up to the noise of 550 tokens. */
static void test_self_follows_the_model(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *c = NULL;
    sfq_exec *exec = NULL;
    sfq_token_batch batch = {0};
    const float *hidden;
    static float logits[4096];
    double sum = 0, entropy = 0;
    size_t scored = 0, different = 0, unlikely = 0;
    bool seen[4096] = {false};
    bench_open(&b, LM, 2);
    b.o.calib_tokens = 64 * 10;
    assert_ok(make(&b, &c));
    assert_ok(sfq_exec_open(&exec, b.net, sfq_kernels_get(SFQ_ISA_COUNT), b.source->pool, &err));
    for (size_t i = 0; i < c->count; i++)
        assert_ok(sfq_token_batch_take(&batch, c, i, &err));
    assert_ok(sfq_forward(exec, &batch.batch, &hidden, NULL, NULL, &err));
    for (size_t t = 0; t < c->offset[c->count]; t++) {
        different += !seen[c->ids[t]];
        seen[c->ids[t]] = true;
    }
    assert_true(different > 200);
    for (size_t i = 0; i < c->count; i++) { /* every other one begins with a random token */
        size_t t = c->offset[i];
        double total = 0;
        assert_ok(sfq_forward_logits(exec, hidden, &t, 1, logits, &err));
        for (size_t v = 0; v < 4096; v++)
            total += exp((double)logits[v]);
        unlikely += exp((double)logits[c->ids[t + 1]]) < 2e-4 * total;
    }
    assert_in_range(unlikely, 3, 7);
    for (size_t i = 0; i < c->count; i++)
        for (size_t t = c->offset[i] + 8; t + 1 < c->offset[i + 1]; t++) {
            double total = 0;
            assert_ok(sfq_forward_logits(exec, hidden, &t, 1, logits, &err));
            for (size_t v = 0; v < 4096; v++)
                total += exp((double)logits[v]);
            sum += log(total) - (double)logits[c->ids[t + 1]];
            for (size_t v = 0; v < 4096; v++)
                entropy += exp((double)logits[v]) / total * (log(total) - (double)logits[v]);
            scored++;
        }
    assert_in_range(scored, 500, 570);
    assert_near(sum / (double)scored, entropy / (double)scored, 0.4);
    sfq_exec_close(&exec);
    sfq_token_batch_free(&batch);
    sfq_calibration_close(&c);
    bench_close(&b);
}

/* Begin and end as the model has them: here two frequent words play the parts. */
static void test_self_ends(void **state)
{
    (void)state;
    bench b;
    sfq_calibration *c = NULL;
    sfq_tokenizer *tokenizer = NULL;
    bench_open(&b, LM, 1);
    assert_ok(sfq_tokenizer_open(&tokenizer, LM, &err));
    sfq_arch *arch = b.source->arch;
    int32_t end = arch->eos[0] = sfq_tokenizer_find(tokenizer, ",");
    int32_t begin = arch->bos = sfq_tokenizer_find(tokenizer, "\xc4\xa0the");
    assert_true(begin >= 0 && end >= 0);
    arch->eos_count = 1;
    b.o.calib_tokens = 64 * 30;
    assert_ok(make(&b, &c));
    assert_in_range(sfq_calibration_tokens(c), 64 * 30 - 15, 64 * 30);
    size_t ended = 0;
    for (size_t i = 0; i < c->count; i++) {
        size_t n = c->offset[i + 1] - c->offset[i];
        const int32_t *ids = c->ids + c->offset[i];
        assert_int_equal(ids[0], begin);
        for (size_t t = 1; t < n; t++) {
            assert_true(ids[t] != begin);
            assert_true(ids[t] != end || (t + 1 == n && t >= 16));
        }
        ended += ids[n - 1] == end;
    }
    assert_true(ended > 20 && c->count > 35);
    sfq_calibration_close(&c);
    arch->bos = -1; /* without a begin-of-text token every sequence begins at random */
    assert_ok(make(&b, &c));
    bool first[4096] = {false};
    size_t firsts = 0;
    for (size_t i = 0; i < c->count; i++) {
        firsts += !first[c->ids[c->offset[i]]];
        first[c->ids[c->offset[i]]] = true;
    }
    assert_true(firsts + 3 >= c->count);
    sfq_calibration_close(&c);
    sfq_tokenizer_close(&tokenizer);
    bench_close(&b);
}

/* What is announced is enough, and not far too much (the sanitizers' heap counts nothing). */
static void test_memory(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        bench b;
        sfq_calibration *c = NULL;
        uint64_t sequences, tokens;
        bench_open(&b, LM, 2);
        if (kind > 0)
            put_text(&b, 0, kind == 1 ? 1000 : 40000, "keeper");
        b.o.pick = "curated";
        b.o.calib_tokens = 3000;
        struct mallinfo2 heap = mallinfo2();
        size_t before = heap.uordblks + heap.hblkhd;
        assert_ok(make(&b, &c));
        assert_ok(sfq_calibration_estimate(b.source, &b.o, &sequences, &tokens, &err));
        uint64_t bytes = sfq_calibration_bytes(b.source, b.net, &b.o, sequences, tokens);
        assert_true(b.peak <= before + bytes);
        assert_true(bytes < ((uint64_t)80 << 20));
        sfq_calibration_close(&c);
        bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_text),
        cmocka_unit_test(test_large_text),
        cmocka_unit_test(test_threads_and_seed),
        cmocka_unit_test(test_encoder),
        cmocka_unit_test(test_poor_text),
        cmocka_unit_test(test_repeated_text),
        cmocka_unit_test(test_put_test),
        cmocka_unit_test(test_self),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_self_follows_the_model),
        cmocka_unit_test(test_self_ends),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests_name("calibration_text", tests, NULL, NULL);
}
