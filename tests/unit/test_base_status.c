/* The error struct: codes, one printable line whatever goes in, errno mapping. */
#include "base/status.h"

#include "base/utf8.h"
#include "unit/unit.h"

#include <errno.h>

static void facts_of_every_status(void **state)
{
    (void)state;
#define CHECK(key, value, exit_code, words)                                    \
    assert_int_equal(sfq_status_facts_get(SFQ_##key)->status, value);          \
    assert_int_equal(sfq_status_facts_get(SFQ_##key)->exit_status, exit_code); \
    assert_string_equal(sfq_status_facts_get(SFQ_##key)->name, #key);          \
    assert_string_equal(sfq_status_facts_get(SFQ_##key)->text, words);
    SFQ_STATUS_MAP(CHECK)
#undef CHECK
    assert_int_equal(sfq_status_facts_get((sfq_status)77)->status, SFQ_E_INTERNAL);
    assert_int_equal(sfq_status_facts_get(SFQ_E_NO_SPACE)->exit_status, 6);
}

static void fail_fills_everything(void **state)
{
    (void)state;
    sfq_error err;
    memset(&err, 0x55, sizeof err);
    assert_int_equal(sfq_fail(&err, SFQ_E_DATA, "row %d", 7), SFQ_E_DATA);
    assert_int_equal(err.code, SFQ_E_DATA);
    assert_string_equal(err.message, "row 7");
    assert_string_equal(err.file, "");
    assert_string_equal(err.tensor, "");
    sfq_error_locate(&err, "a.json", NULL);
    sfq_error_locate(&err, "b.json", "w");
    assert_string_equal(err.file, "a.json");
    assert_string_equal(err.tensor, "w");
    /* arguments from the error itself */
    sfq_fail_at(&err, SFQ_E_FORMAT, err.file, err.tensor, "in %s: %s", err.file, err.message);
    assert_string_equal(err.message, "in a.json: row 7");
    assert_string_equal(err.file, "a.json");
    assert_string_equal(err.tensor, "w");
    sfq_error_clear(&err);
    assert_int_equal(err.code, SFQ_OK);
    assert_string_equal(err.message, "");
}

static void null_error_is_fine(void **state)
{
    (void)state;
    assert_int_equal(sfq_fail(NULL, SFQ_E_LIMIT, "x"), SFQ_E_LIMIT);
    assert_int_equal(sfq_fail_errno(NULL, EIO, "p", "w"), SFQ_E_IO);
    assert_int_equal(sfq_fail_memory(NULL, 1, "w"), SFQ_E_MEMORY);
    sfq_error_locate(NULL, "a", "b");
    sfq_error_clear(NULL);
}

static void errno_mapping(void **state)
{
    (void)state;
    static const struct {
        int errnum;
        sfq_status status;
    } table[] = {{ENOSPC, SFQ_E_NO_SPACE},
                 {EDQUOT, SFQ_E_NO_SPACE},
                 {EFBIG, SFQ_E_NO_SPACE},
                 {ENOENT, SFQ_E_NOT_FOUND},
                 {EEXIST, SFQ_E_EXISTS},
                 {ENOMEM, SFQ_E_MEMORY},
                 {EIO, SFQ_E_IO},
                 {EACCES, SFQ_E_IO},
                 {ELOOP, SFQ_E_NOT_FOUND},
                 {ENOTDIR, SFQ_E_NOT_FOUND},
                 {ENAMETOOLONG, SFQ_E_NOT_FOUND}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        sfq_error err;
        assert_int_equal(sfq_fail_errno(&err, table[i].errnum, "dir/f", "write failed"),
                         table[i].status);
        char expected[256];
        snprintf(expected, sizeof expected, "dir/f: write failed: %s", strerror(table[i].errnum));
        assert_string_equal(err.message, expected);
        assert_string_equal(err.file, "dir/f");
    }
}

static void message_is_one_printable_line(void **state)
{
    (void)state;
    sfq_error err;
    sfq_fail(&err, SFQ_E_FORMAT, "%s", "a\nb\tc\x1b[31m\x7f\xff\xc3\xa9\xe2\x80\xa8\xe2\x80\xae!");
    assert_string_equal(err.message, "a\\nb\\tc\\x1B[31m\\x7F\\xFF\xc3\xa9\\xE2\\x80\\xA8"
                                     "\\xE2\\x80\\xAE!");
    sfq_fail_at(&err, SFQ_E_FORMAT, "x\ny", "t\r", "m");
    assert_string_equal(err.file, "x\\ny");
    assert_string_equal(err.tensor, "t\\x0D");
}

static void long_text_is_cut_at_a_character(void **state)
{
    (void)state;
    char in[64];
    for (size_t i = 0; i + 3 <= 63; i += 3)
        memcpy(in + i, "\xe2\x82\xac", 3); /* euro signs */
    for (size_t cap = 1; cap < 80; cap++) {
        char out[80];
        memset(out, 0x7E, sizeof out);
        size_t len = sfq_text_printable(out, cap, in, 63);
        assert_int_equal(len, strlen(out));
        assert_true(len < cap);
        assert_int_equal(sfq_utf8_valid_prefix(out, len), len);
        if (cap > 63)
            assert_int_equal(len, 63);
        else if (cap > 3)
            assert_memory_equal(out + len - 3, "...", 3);
        for (size_t i = cap; i < sizeof out; i++)
            assert_int_equal(out[i], 0x7E);
    }
    sfq_error err;
    sfq_fail(&err, SFQ_E_FORMAT, "%0600d", 1);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_memory_equal(err.message + sizeof err.message - 4, "...", 3);
}

static sfq_status try_it(sfq_status first)
{
    SFQ_TRY(first);
    return SFQ_E_INTERNAL;
}

static void try_returns_the_failure(void **state)
{
    (void)state;
    assert_int_equal(try_it(SFQ_E_GUARD), SFQ_E_GUARD);
    assert_int_equal(try_it(SFQ_OK), SFQ_E_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(facts_of_every_status),
        cmocka_unit_test(fail_fills_everything),
        cmocka_unit_test(null_error_is_fine),
        cmocka_unit_test(errno_mapping),
        cmocka_unit_test(message_is_one_printable_line),
        cmocka_unit_test(long_text_is_cut_at_a_character),
        cmocka_unit_test(try_returns_the_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
