/* Text files as calibration reads them: what is refused, set aside, and where passages begin. */
#include "unit/unit.h"

#include "base/utf8.h"
#include "data/corpus.h"

static sfq_error err;

static sfq_status open_one(sfq_corpus **c, const char *path)
{
    const char *files[] = {path};
    return sfq_corpus_open(c, files, 1, &err);
}

static void test_refused(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    sfq_corpus *c = NULL;
    scratch_open(dir);
    assert_status(SFQ_E_NOT_FOUND, open_one(&c, scratch_path(dir, "none")));
    assert_status(SFQ_E_ARGUMENT, open_one(&c, dir));
    assert_int_equal(mkfifo(scratch_path(dir, "fifo"), 0666), 0);
    assert_status(SFQ_E_ARGUMENT, open_one(&c, scratch_path(dir, "fifo")));
    scratch_put(dir, "empty", "");
    assert_fails(SFQ_E_DATA, "empty", open_one(&c, scratch_path(dir, "empty")));
    scratch_put(dir, "bad", "good text \xc3( and more");
    assert_fails(SFQ_E_DATA, "at byte 10", open_one(&c, scratch_path(dir, "bad")));
    scratch_put(dir, "good", "good text");
    const char *files[] = {scratch_path(dir, "good"), scratch_path(dir, "bad")};
    assert_fails(SFQ_E_DATA, "bad", sfq_corpus_open(&c, files, 2, &err));
    assert_null(c);
    scratch_close(dir);
}

/* Lines of `width` characters of two bytes each. */
static void put_lines(const char *dir, const char *name, size_t lines, size_t width)
{
    char path[2 * SCRATCH_ROOM];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < lines; i++) {
        for (size_t k = 0; k < width; k++)
            fputs("\xc3\xa9", file);
        fputc('\n', file);
    }
    assert_int_equal(fclose(file), 0);
}

static void test_set_aside(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    static const struct {
        size_t lines, width;
        bool at_line;
    } cases[] = {{1000, 10, true}, {1, 5000, false}, {40000, 40, true}, {1, 3000000, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sfq_corpus *c = NULL;
        put_lines(dir, "a", cases[i].lines, cases[i].width);
        assert_ok(open_one(&c, scratch_path(dir, "a")));
        size_t all = cases[i].lines * (2 * cases[i].width + 1);
        size_t share = all / 20 < (256 << 10) ? all / 20 : 256 << 10;
        assert_int_equal(c->texts[0].bytes + c->test_bytes, all);
        assert_int_equal(c->bytes, c->texts[0].bytes);
        assert_true(c->test_bytes <= share && c->test_bytes >= share / 2 - 1);
        assert_ptr_equal(c->test, c->texts[0].text + c->texts[0].bytes);
        assert_int_equal(sfq_utf8_valid_prefix(c->test, c->test_bytes), c->test_bytes);
        assert_int_equal(c->test[-1] == '\n', cases[i].at_line);
        sfq_corpus_close(&c);
    }
    scratch_close(dir);
}

/* Of several files the last one gives the test; a byte-order mark is no text. */
static void test_files(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    sfq_corpus *c = NULL;
    scratch_open(dir);
    scratch_put(dir, "a",
                "\xef\xbb\xbf"
                "first");
    put_lines(dir, "b", 100, 10);
    const char *files[] = {scratch_path(dir, "a"), scratch_path(dir, "b")};
    assert_ok(sfq_corpus_open(&c, files, 2, &err));
    assert_int_equal(c->count, 2);
    assert_int_equal(c->texts[0].bytes, 5);
    assert_memory_equal(c->texts[0].text, "first", 5);
    assert_int_equal(c->texts[1].bytes + c->test_bytes, 2100);
    assert_int_equal(c->bytes, 5 + c->texts[1].bytes);
    sfq_corpus_close(&c);
    assert_null(c);
    sfq_corpus_close(&c);
    scratch_close(dir);
}

static void test_begin(void **state)
{
    (void)state;
    static const char text[] = "ab cd\nef gh\xc3\xa9ij";
    size_t n = sizeof text - 1;
    assert_int_equal(sfq_corpus_begin(text, n, 0, 100), 0);
    assert_int_equal(sfq_corpus_begin(text, n, 1, 100), 6); /* the next line */
    assert_int_equal(sfq_corpus_begin(text, n, 6, 100), 6); /* one begins here */
    assert_int_equal(sfq_corpus_begin(text, n, 1, 3), 2);   /* no line near: the space */
    assert_int_equal(sfq_corpus_begin(text, n, 1, 0), 1);   /* nothing near: here */
    assert_int_equal(sfq_corpus_begin(text, n, 12, 0), 13); /* not within a character */
    assert_int_equal(sfq_corpus_begin(text, n, 12, 100), 13);
    assert_int_equal(sfq_corpus_begin(text, n, n, 5), n);
    assert_int_equal(sfq_corpus_begin(text, n, n + 9, 5), n);
    assert_int_equal(sfq_corpus_begin("ab\n", 3, 1, 9), 1); /* a last line end begins none */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_set_aside),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_begin),
    };
    return cmocka_run_group_tests_name("corpus", tests, NULL, NULL);
}
