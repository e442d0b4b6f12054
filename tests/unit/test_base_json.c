/* JSON: what is refused and how it is said, and the typed getters. */
#include "base/json.h"

#include "base/buf.h"
#include "unit/unit.h"

#include <math.h>

static sfq_error err;

static sfq_status parse(json_t **out, const char *text, size_t limit)
{
    return sfq_json_parse(out, "c.json", text, strlen(text), limit, &err);
}

static void malformed_texts(void **state)
{
    (void)state;
    static const char *const table[] = {"",
                                        " ",
                                        "{",
                                        "[1,]",
                                        "{\"a\":1,}",
                                        "{'a':1}",
                                        "{\"a\" 1}",
                                        "[1] 2",
                                        "nul",
                                        "[01]",
                                        "[1e999]",
                                        "[NaN]",
                                        "[\"\\u0000\"]",
                                        "{\"a\\u0000\":1}",
                                        "[\"\xFF\"]",
                                        "\"\\\"",
                                        "[99999999999999999999]",
                                        "[\"\\ud800\"]",
                                        "]",
                                        "}{",
                                        "{},{}",
                                        "1],[2",
                                        "],[",
                                        "[1],[2]",
                                        "[\"",
                                        "{\"a",
                                        "[\"\n\"]",
                                        "12"};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        json_t *root = (json_t *)&err;
        assert_fails(SFQ_E_FORMAT, "c.json: line ", parse(&root, table[i], 0));
        assert_null(root);
        assert_string_equal(err.file, "c.json");
    }
    json_t *root;
    assert_fails(SFQ_E_FORMAT, "offset 2", sfq_json_parse(&root, "c.json", "[1\0]", 4, 0, &err));
    assert_status(SFQ_E_FORMAT, sfq_json_parse(&root, "c.json", NULL, 0, 0, &err));
    assert_fails(SFQ_E_FORMAT, "line 3", parse(&root, "{\n\"a\": 1,\n x}", 0));
}

/* Positions are those in the text, as jansson says them for the text alone. */
static void positions(void **state)
{
    (void)state;
    static const char *const table[] = {"{\"a\" 1}", "[1,]",   "[1, nul]",         "[1] 2",
                                        "[01]",      "[1, x]", "[1,\n  2,\n  +3]", "[\"\\u0000\"]"};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        json_error_t error;
        assert_null(json_loads(table[i], JSON_REJECT_DUPLICATES, &error));
        char expected[64];
        snprintf(expected, sizeof expected, "c.json: line %d, column %d: ", error.line,
                 error.column);
        json_t *root;
        assert_fails(SFQ_E_FORMAT, expected, parse(&root, table[i], 0));
    }
    static const char *const cut[] = {"", "[", "[1", "{\"a\":", "{\"a\": {}"};
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        json_t *root;
        assert_fails(SFQ_E_FORMAT, "ends too early", parse(&root, cut[i], 0));
    }
}

static void duplicate_keys(void **state)
{
    (void)state;
    json_t *root;
    assert_fails(SFQ_E_FORMAT, "uplicate", parse(&root, "{\"a\":1,\"b\":2,\"a\":3}", 0));
    assert_fails(SFQ_E_FORMAT, "uplicate", parse(&root, "[{\"x\":{\"a\":1,\"\\u0061\":3}}]", 0));
    assert_ok(parse(&root, "{\"a\":{\"a\":1},\"b\":{\"a\":1}}", 0));
    json_decref(root);
}

static void depth(void **state)
{
    (void)state;
    for (size_t n = 63; n <= 66; n++) {
        char text[600];
        size_t len = 0;
        for (size_t i = 0; i < n; i++)
            len += (size_t)sprintf(text + len, i % 2 ? "{\"k[{\":" : "[");
        if (n % 2 == 0)
            len += (size_t)sprintf(text + len, "1");
        for (size_t i = n; i-- > 0;)
            len += (size_t)sprintf(text + len, i % 2 ? "}" : "]");
        json_t *root;
        if (n <= 64) {
            assert_ok(parse(&root, text, 0));
            json_decref(root);
        } else {
            assert_fails(SFQ_E_LIMIT, "limit 64", parse(&root, text, 0));
        }
    }
    char *bomb = malloc(1000001);
    memset(bomb, '[', 1000000);
    bomb[1000000] = 0;
    json_t *root;
    assert_status(SFQ_E_LIMIT, parse(&root, bomb, 0));
    free(bomb);
}

static void number_of_values(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t values;
    } table[] = {{"[]", 1},
                 {"[ 1 ]", 2},
                 {"[1,2,3]", 4},
                 {"{\"a\":[],\"b\":{}}", 3},
                 {"[[1],[2,[3]]]", 7},
                 {"[\"a,b,[c]\\\",\",2]", 3}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        json_t *root;
        assert_ok(parse(&root, table[i].text, table[i].values));
        json_decref(root);
        if (table[i].values > 1)
            assert_fails(SFQ_E_LIMIT, "values", parse(&root, table[i].text, table[i].values - 1));
    }
    size_t n = 2 * 4000001;
    char *many = malloc(n + 2);
    many[0] = '[';
    for (size_t i = 0; i < 4000001; i++)
        memcpy(many + 1 + 2 * i, "1,", 2);
    memcpy(many + n, "]", 2);
    json_t *root;
    assert_fails(SFQ_E_LIMIT, "4000000", parse(&root, many, 0));
    free(many);
}

static void integers(void **state)
{
    (void)state;
    json_t *root;
    assert_ok(parse(&root,
                    "{\"i\":5,\"z\":-3,\"f\":4096.0,\"h\":1.5,\"s\":\"5\",\"n\":null,\"t\":true,"
                    "\"big\":9223372036854775807,\"huge\":1e300}",
                    0));
    int64_t v = 0;
    const int64_t def = 11;
    assert_ok(sfq_json_int(root, "f", "i", 0, 5, NULL, &v, &err));
    assert_int_equal(v, 5);
    assert_ok(sfq_json_int(root, "f", "f", 0, 5000, NULL, &v, &err));
    assert_int_equal(v, 4096);
    assert_ok(sfq_json_int(root, "f", "big", 0, INT64_MAX, NULL, &v, &err));
    assert_true(v == INT64_MAX);
    assert_ok(sfq_json_int(root, "f", "n", 0, 5, &def, &v, &err));
    assert_int_equal(v, 11);
    assert_ok(sfq_json_int(root, "f", "absent", 0, 5, &def, &v, &err));
    assert_int_equal(v, 11);
    assert_fails(SFQ_E_FORMAT, "\"absent\" is missing",
                 sfq_json_int(root, "f", "absent", 0, 5, NULL, &v, &err));
    assert_fails(SFQ_E_FORMAT, "\"n\" is missing",
                 sfq_json_int(root, "f", "n", 0, 5, NULL, &v, &err));
    assert_fails(SFQ_E_FORMAT, "expected 0 to 4, found 5",
                 sfq_json_int(root, "f", "i", 0, 4, &def, &v, &err));
    assert_fails(SFQ_E_FORMAT, "found -3", sfq_json_int(root, "f", "z", 0, 4, NULL, &v, &err));
    assert_fails(SFQ_E_FORMAT, "found a string",
                 sfq_json_int(root, "f", "s", 0, 9, &def, &v, &err));
    assert_fails(SFQ_E_FORMAT, "found a boolean",
                 sfq_json_int(root, "f", "t", 0, 9, &def, &v, &err));
    assert_fails(SFQ_E_FORMAT, "found a real", sfq_json_int(root, "f", "h", 0, 9, &def, &v, &err));
    assert_fails(SFQ_E_FORMAT, "found a real",
                 sfq_json_int(root, "f", "huge", 0, 9, &def, &v, &err));
    assert_int_equal(v, 11);
    assert_string_equal(err.file, "f");
    json_decref(root);
}

static void other_getters(void **state)
{
    (void)state;
    json_t *root;
    assert_ok(parse(&root,
                    "{\"r\":0.5,\"i\":3,\"t\":true,\"b\":false,\"s\":\"x\",\"n\":null,"
                    "\"o\":{},\"a\":[]}",
                    0));
    double real = 0;
    const double half = 0.25;
    assert_ok(sfq_json_real(root, "f", "r", 0, 1, NULL, &real, &err));
    assert_true(real == 0.5);
    assert_ok(sfq_json_real(root, "f", "i", 0, 3, NULL, &real, &err));
    assert_true(real == 3);
    assert_ok(sfq_json_real(root, "f", "n", 0, 3, &half, &real, &err));
    assert_true(real == 0.25);
    assert_fails(SFQ_E_FORMAT, "found 3", sfq_json_real(root, "f", "i", 0, 2, NULL, &real, &err));
    assert_fails(SFQ_E_FORMAT, "missing", sfq_json_real(root, "f", "q", 0, 2, NULL, &real, &err));
    assert_fails(SFQ_E_FORMAT, "an object",
                 sfq_json_real(root, "f", "o", 0, 2, &half, &real, &err));
    bool yes = false;
    const bool on = true;
    assert_ok(sfq_json_bool(root, "f", "t", NULL, &yes, &err));
    assert_true(yes);
    assert_ok(sfq_json_bool(root, "f", "b", &on, &yes, &err));
    assert_false(yes);
    assert_ok(sfq_json_bool(root, "f", "n", &on, &yes, &err));
    assert_true(yes);
    assert_fails(SFQ_E_FORMAT, "missing", sfq_json_bool(root, "f", "q", NULL, &yes, &err));
    assert_fails(SFQ_E_FORMAT, "an integer", sfq_json_bool(root, "f", "i", &on, &yes, &err));
    const char *s = "before";
    assert_ok(sfq_json_string(root, "f", "s", true, &s, &err));
    assert_string_equal(s, "x");
    assert_ok(sfq_json_string(root, "f", "n", false, &s, &err));
    assert_null(s);
    assert_fails(SFQ_E_FORMAT, "missing", sfq_json_string(root, "f", "n", true, &s, &err));
    assert_fails(SFQ_E_FORMAT, "an array", sfq_json_string(root, "f", "a", false, &s, &err));
    assert_null(sfq_json_get(root, "n"));
    assert_null(sfq_json_get(root, "q"));
    assert_null(sfq_json_get(json_object_get(root, "a"), "q")); /* no object at all */
    assert_non_null(sfq_json_get(root, "o"));
    json_decref(root);
}

static void from_a_file(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    scratch_put(dir, "a.json", "{\"k\": [1, 2]}");
    scratch_put(dir, "empty.json", "");
    json_t *root;
    assert_ok(sfq_json_read(&root, scratch_path(dir, "a.json"), 13, &err));
    assert_int_equal(json_array_size(json_object_get(root, "k")), 2);
    json_decref(root);
    assert_fails(SFQ_E_LIMIT, "limit of 12",
                 sfq_json_read(&root, scratch_path(dir, "a.json"), 12, &err));
    assert_null(root);
    assert_fails(SFQ_E_FORMAT, "empty.json",
                 sfq_json_read(&root, scratch_path(dir, "empty.json"), 12, &err));
    assert_status(SFQ_E_NOT_FOUND, sfq_json_read(&root, scratch_path(dir, "none"), 12, &err));
    scratch_close(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_texts),  cmocka_unit_test(duplicate_keys),
        cmocka_unit_test(positions),        cmocka_unit_test(depth),
        cmocka_unit_test(number_of_values), cmocka_unit_test(integers),
        cmocka_unit_test(other_getters),    cmocka_unit_test(from_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
