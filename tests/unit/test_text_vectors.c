/* tests/unit/test_text_vectors.c - tiny tokenizers of every kind against ids, types and texts that
 * Python's `tokenizers` gave (tests/python/make_tokenizer_vectors.py). */
#include "unit.h"

#include "base/json.h"
#include "base/mem.h"
#include "text/tokenizer.h"

#include <inttypes.h>
#include <string.h>

static const char *const families[] = {
    "gpt2", "roberta", "llama3", "qwen2", "smollm2",   "llama2", "llama2_metaspace", "gemma",
    "t5",   "albert",  "bert",   "clip",  "wordlevel", "fixed",  "bpe_prefix",       "ctc"};

static void expect_list(const json_t *list, const int32_t *v, size_t count, const char *what)
{
    bool same = json_array_size(list) == count;
    for (size_t i = 0; same && i < count; i++)
        same = json_integer_value(json_array_get(list, i)) == v[i];
    if (!same) {
        print_error("%s: expected", what);
        for (size_t i = 0; i < json_array_size(list); i++)
            print_error(" %" JSON_INTEGER_FORMAT, json_integer_value(json_array_get(list, i)));
        print_error("\n   found");
        for (size_t i = 0; i < count; i++)
            print_error(" %" PRId32, v[i]);
        print_error("\n");
    }
    assert_true(same);
}

static void check_case(const sfq_tokenizer *t, const json_t *c)
{
    sfq_error err = {0};
    const json_t *pair = sfq_json_get(c, "pair"), *text = sfq_json_get(c, "text");
    const char *s = json_string_value(text);
    sfq_encoding e;
    char *decoded;
    size_t n;
    assert_ok(sfq_tokenizer_encode(t, s, json_string_length(text), json_string_value(pair),
                                   json_string_length(pair), true,
                                   (size_t)json_integer_value(sfq_json_get(c, "max")), &e, &err));
    expect_list(sfq_json_get(c, "ids"), e.ids, e.count, s);
    if (pair)
        expect_list(sfq_json_get(c, "types"), e.types, e.count, s);
    assert_ok(sfq_tokenizer_decode(t, e.ids, e.count, true, &decoded, &n, &err));
    assert_string_equal(decoded, json_string_value(sfq_json_get(c, "decoded")));
    sfq_mem_free(decoded);
    if (!pair)
        assert_int_equal(e.count - e.special_count, json_integer_value(sfq_json_get(c, "plain")));
    sfq_encoding_clear(&e);
}

static void test_family(void **state)
{
    const char *name = *state;
    char path[128];
    sfq_error err = {0};
    json_t *root = NULL;
    sfq_tokenizer *t = NULL;
    snprintf(path, sizeof(path), "tests/vectors/tokenizer/%s.json", name);
    assert_ok(sfq_json_read(&root, path, (size_t)1 << 24, &err));
    char *text = json_dumps(sfq_json_get(root, "tokenizer"), 0);
    assert_non_null(text);
    assert_ok(sfq_tokenizer_parse(&t, path, text, strlen(text), &err));
    free(text);
    const json_t *cases = sfq_json_get(root, "cases");
    assert_true(json_array_size(cases) > 60);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(t, json_array_get(cases, i));
    sfq_tokenizer_close(&t);
    json_decref(root);
}

int main(void)
{
    struct CMUnitTest tests[sizeof(families) / sizeof(*families)];
    for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++)
        tests[i] = (struct CMUnitTest){families[i], test_family, NULL, NULL,
                                       (void *)(uintptr_t)families[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
