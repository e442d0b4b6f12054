/* tests/unit/test_text_models.c - the tokenizers of the models in models/: known ids, pairs,
 * truncation and the way back to text. */
#include "unit.h"

#include "base/mem.h"
#include "text/tokenizer.h"

#include <string.h>

static void expect_ids(const sfq_encoding *e, const int32_t *ids, size_t count)
{
    assert_int_equal(e->count, count);
    assert_memory_equal(e->ids, ids, count * sizeof(int32_t));
}

static void test_novels(void **state)
{
    (void)state;
    static const char text[] = "It was the best of times.";
    static const int32_t ids[] = {0, 953, 311, 264, 1232, 284, 1666, 15};
    sfq_error err = {0};
    sfq_tokenizer *t = NULL;
    sfq_encoding e;
    char *back;
    size_t n;
    assert_int_equal(sfq_tokenizer_open(&t, "models/novels-5m", &err), SFQ_OK);
    assert_int_equal(sfq_tokenizer_vocab_end(t), 4096);
    assert_int_equal(sfq_tokenizer_encode(t, text, strlen(text), NULL, 0, true, 0, &e, &err),
                     SFQ_OK);
    expect_ids(&e, ids, 8);
    assert_int_equal(e.special_count, 1);
    assert_int_equal(sfq_tokenizer_decode(t, e.ids, e.count, true, &back, &n, &err), SFQ_OK);
    assert_string_equal(back, text);
    assert_int_equal(n, strlen(text));
    sfq_mem_free(back);
    sfq_encoding_clear(&e);
    assert_int_equal(sfq_tokenizer_find(t, "<|end_of_text|>"), 1);
    assert_int_equal(sfq_tokenizer_find(t, "no such token"), -1);
    assert_true(sfq_tokenizer_is_special(t, 1));
    assert_false(sfq_tokenizer_is_special(t, 953));
    sfq_tokenizer_close(&t);
    assert_null(t);
}

static void test_sst2(void **state)
{
    (void)state;
    static const char text[] = "A charming, funny film";
    static const int32_t ids[] = {2, 33, 1219, 14, 375, 162, 3, 324, 3};
    static const int32_t types[] = {0, 0, 0, 0, 0, 0, 0, 1, 1};
    static const int32_t cut[] = {2, 33, 1219, 3, 324, 3};
    sfq_error err = {0};
    sfq_tokenizer *t = NULL;
    sfq_encoding e;
    assert_int_equal(sfq_tokenizer_open(&t, "models/sst2-tiny", &err), SFQ_OK);
    assert_int_equal(sfq_tokenizer_encode(t, text, strlen(text), "no", 2, true, 0, &e, &err),
                     SFQ_OK);
    expect_ids(&e, ids, 9);
    assert_memory_equal(e.types, types, sizeof(types));
    sfq_encoding_clear(&e);
    assert_int_equal(sfq_tokenizer_encode(t, text, strlen(text), "no", 2, true, 6, &e, &err),
                     SFQ_OK);
    expect_ids(&e, cut, 6);
    sfq_encoding_clear(&e);
    assert_int_equal(sfq_tokenizer_encode(t, text, strlen(text), NULL, 0, true, 1, &e, &err),
                     SFQ_E_ARGUMENT);
    sfq_tokenizer_close(&t);
}

static void test_not_utf8(void **state)
{
    (void)state;
    sfq_error err = {0};
    sfq_tokenizer *t = NULL;
    sfq_encoding e;
    assert_int_equal(sfq_tokenizer_open(&t, "models/novels-5m", &err), SFQ_OK);
    assert_int_equal(sfq_tokenizer_encode(t, "ab\xFF", 3, NULL, 0, true, 0, &e, &err), SFQ_E_DATA);
    assert_non_null(strstr(err.message, "offset 2"));
    sfq_tokenizer_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_novels),
        cmocka_unit_test(test_sst2),
        cmocka_unit_test(test_not_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
