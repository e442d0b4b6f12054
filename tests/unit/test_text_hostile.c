/* tests/unit/test_text_hostile.c - damaged and hostile tokenizer.json files: each gives its code
 * and names the place; and odd but good files are accepted. */
#include "unit.h"

#include "base/buf.h"
#include "base/mem.h"
#include "text/tokenizer.h"

#include <string.h>

#define BPE(vocab, merges) "\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}"
#define AB "{\"a\":0,\"b\":1,\"ab\":2,\"c\":3}"
#define GOOD BPE(AB, "[\"a b\"]")

static sfq_status parse(sfq_tokenizer **t, const char *body, sfq_error *err)
{
    sfq_buf text = SFQ_BUF_INIT((size_t)1 << 24);
    assert_int_equal(sfq_buf_addf(&text, err, "{%s}", body), SFQ_OK);
    sfq_status status = sfq_tokenizer_parse(t, "t.json", text.data, text.len, err);
    sfq_buf_free(&text);
    return status;
}

typedef struct bad_file {
    sfq_status code;
    const char *part; /* of the message */
    const char *body;
} bad_file;

static const bad_file bad_files[] = {
    {SFQ_E_FORMAT, "model is missing", "\"version\":\"1.0\""},
    {SFQ_E_UNSUPPORTED, "expected \"1.0\"", "\"version\":\"2.0\"," GOOD},
    {SFQ_E_UNSUPPORTED, "\"Neural\"", "\"model\":{\"type\":\"Neural\",\"vocab\":{}}"},
    /* T02, T03: ids */
    {SFQ_E_FORMAT, "id -1", BPE("{\"a\":-1}", "[]")},
    {SFQ_E_FORMAT, "id 4294967296", BPE("{\"a\":4294967296}", "[]")},
    {SFQ_E_FORMAT, "both have id 0", BPE("{\"a\":0,\"b\":0}", "[]")},
    {SFQ_E_FORMAT, "not an integer", BPE("{\"a\":\"0\"}", "[]")},
    {SFQ_E_FORMAT, "", BPE("{\"a\":0,\"a\":1}", "[]")},
    /* T04 to T07: merges */
    {SFQ_E_FORMAT, "part \"x\"", BPE(AB, "[\"x b\"]")},
    {SFQ_E_FORMAT, "part \"y\"", BPE(AB, "[[\"a\",\"y\"]]")},
    {SFQ_E_FORMAT, "result \"ac\"", BPE(AB, "[\"a c\"]")},
    {SFQ_E_FORMAT, "two parts", BPE(AB, "[\"ab\"]")},
    {SFQ_E_FORMAT, "two parts", BPE(AB, "[\"a b c\"]")},
    {SFQ_E_FORMAT, "has 3 parts", BPE(AB, "[[\"a\",\"b\",\"c\"]]")},
    {SFQ_E_FORMAT, "has 1 parts", BPE(AB, "[[\"a\"]]")},
    {SFQ_E_FORMAT, "model.merges", "\"model\":{\"type\":\"BPE\",\"vocab\":{}}"},
    {SFQ_E_FORMAT, "shorter than continuing_subword_prefix",
     "\"model\":{\"type\":\"BPE\",\"continuing_subword_prefix\":\"####\",\"vocab\":" AB
     ",\"merges\":[\"a b\"]}"},
    {SFQ_E_UNSUPPORTED, "dropout",
     "\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}"},
    /* T09: byte tokens */
    {SFQ_E_FORMAT, "<0xZZ>",
     "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"<0xZZ>\":0},\"merges\":[]}"},
    /* the other models */
    {SFQ_E_FORMAT, "unk_token",
     "\"model\":{\"type\":\"WordPiece\",\"continuing_subword_prefix\":\"##\","
     "\"max_input_chars_per_word\":100,\"vocab\":{}}"},
    {SFQ_E_FORMAT, "unk_id is 7",
     "\"model\":{\"type\":\"Unigram\",\"unk_id\":7,\"vocab\":[[\"a\",-1.0]]}"},
    {SFQ_E_FORMAT, "model.vocab[0]", "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}"},
    /* T12: added tokens and normalizers */
    {SFQ_E_FORMAT, "content", GOOD ",\"added_tokens\":[{\"id\":5}]"},
    {SFQ_E_FORMAT, "\"id\"", GOOD ",\"added_tokens\":[{\"id\":-5,\"content\":\"x\"}]"},
    {SFQ_E_FORMAT, "form of another",
     GOOD ",\"normalizer\":{\"type\":\"Lowercase\"},\"added_tokens\":["
          "{\"id\":4,\"content\":\"Xy\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
          "\"normalized\":true,\"special\":false},"
          "{\"id\":5,\"content\":\"xY\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
          "\"normalized\":true,\"special\":false}]"},
    {SFQ_E_UNSUPPORTED, "\"Rot13\"", GOOD ",\"normalizer\":{\"type\":\"Rot13\"}"},
    {SFQ_E_FORMAT, "base64",
     GOOD ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"???\"}"},
    {SFQ_E_FORMAT, "claims a trie",
     GOOD ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"}"},
    {SFQ_E_FORMAT, "clean_text", GOOD ",\"normalizer\":{\"type\":\"BertNormalizer\"}"},
    /* T13, T14: pre-tokenizers */
    {SFQ_E_UNSUPPORTED, "\"UnicodeScripts\"",
     GOOD ",\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}"},
    {SFQ_E_FORMAT, "closes a group",
     GOOD ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,"
          "\"pattern\":{\"Regex\":\"a)\"}}"},
    {SFQ_E_FORMAT, "has no end",
     GOOD ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,"
          "\"pattern\":{\"Regex\":\"[a\"}}"},
    {SFQ_E_UNSUPPORTED, "intersection",
     GOOD ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,"
          "\"pattern\":{\"Regex\":\"[a-z&&b]\"}}"},
    {SFQ_E_FORMAT, "behavior",
     GOOD ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Swallowed\",\"invert\":false,"
          "\"pattern\":{\"String\":\"a\"}}"},
    {SFQ_E_FORMAT, "one character",
     GOOD ",\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"ab\"}"},
    {SFQ_E_FORMAT, "length", GOOD ",\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}"},
    /* T15: post-processors */
    {SFQ_E_FORMAT, "has id 102",
     GOOD ",\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",102],"
          "\"cls\":[\"[CLS]\",0]}"},
    {SFQ_E_FORMAT, "not in special_tokens",
     GOOD ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
          "{\"id\":\"<s>\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}}"},
    {SFQ_E_FORMAT, "other than A",
     GOOD ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":"
          "{\"id\":\"B\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{}}"},
    {SFQ_E_UNSUPPORTED, "\"Mystery\"", GOOD ",\"decoder\":{\"type\":\"Mystery\"}"},
};

static void test_bad_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_files) / sizeof(*bad_files); i++) {
        sfq_error err = {0};
        sfq_tokenizer *t = NULL;
        sfq_status status = parse(&t, bad_files[i].body, &err);
        if (status != bad_files[i].code || !strstr(err.message, bad_files[i].part))
            print_error("%s\n  gives %d \"%s\"\n", bad_files[i].body, (int)status, err.message);
        assert_int_equal(status, bad_files[i].code);
        assert_non_null(strstr(err.message, bad_files[i].part));
        assert_null(t);
    }
}

static void expect_ids(const sfq_tokenizer *t, const char *text, const int32_t *ids, size_t count)
{
    sfq_error err = {0};
    sfq_encoding e;
    assert_ok(sfq_tokenizer_encode(t, text, strlen(text), NULL, 0, true, 0, &e, &err));
    assert_int_equal(e.count, count);
    assert_memory_equal(e.ids, ids, count * sizeof(*ids));
    sfq_encoding_clear(&e);
}

/* Gaps in the ids, an empty token, both forms of merges, a byte alphabet with holes: all good. */
static void test_odd_files(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        BPE("{\"a\":0,\"b\":7,\"ab\":900000}", "[\"a b\"]"),
        BPE("{\"\":3,\"a\":0,\"b\":7,\"ab\":900000}", "[[\"a\",\"b\"]]"),
        ("\"model\":{\"vocab\":{\"a\":0,\"b\":7,\"ab\":900000},\"merges\":[\"a b\"],"
         "\"byte_fallback\":true,\"unk_token\":\"nowhere\"}")};
    static const int32_t ids[] = {900000, 900000, 0, 7};
    for (size_t i = 0; i < 3; i++) {
        sfq_error err = {0};
        sfq_tokenizer *t = NULL;
        assert_ok(parse(&t, bodies[i], &err));
        assert_int_equal(sfq_tokenizer_vocab_end(t), 900001);
        expect_ids(t, "abab", ids, 2);
        expect_ids(t, "a", ids + 2, 1);
        expect_ids(t, "", ids, 0);
        sfq_tokenizer_close(&t);
    }
}

/* A text that needs the unknown token where that is no token: an error of the file, named. */
static void test_lost_unknown(void **state)
{
    (void)state;
    sfq_error err = {0};
    sfq_tokenizer *t = NULL;
    sfq_encoding e;
    assert_ok(parse(&t, "\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"?\"}", &err));
    assert_int_equal(sfq_tokenizer_encode(t, "az", 2, NULL, 0, true, 0, &e, &err), SFQ_E_FORMAT);
    assert_non_null(strstr(err.message, "\"z\""));
    sfq_tokenizer_close(&t);
}

/* A chain of replacements that doubles the text again and again ends in a LIMIT. */
static void test_growing_normalizer(void **state)
{
    (void)state;
    sfq_error err = {0};
    sfq_tokenizer *t = NULL;
    sfq_encoding e;
    sfq_buf body = SFQ_BUF_INIT((size_t)1 << 20);
    assert_ok(sfq_buf_addf(&body, &err, "%s",
                           GOOD ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":["));
    for (int i = 0; i < 60; i++)
        assert_ok(sfq_buf_addf(&body, &err,
                               "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},"
                               "\"content\":\"aa\"}",
                               i > 0 ? "," : ""));
    assert_ok(sfq_buf_addf(&body, &err, "]}"));
    assert_ok(parse(&t, body.data, &err));
    assert_int_equal(sfq_tokenizer_encode(t, "a", 1, NULL, 0, true, 0, &e, &err), SFQ_E_LIMIT);
    sfq_tokenizer_close(&t);
    sfq_buf_free(&body);
}

/* Patterns that backtrack without end stop with a LIMIT. */
static void test_catastrophic_patterns(void **state)
{
    (void)state;
    static const char *const patterns[] = {"(a+)+$", "(.*)*[xc]", "(a*)\\\\1[xc]", "a*a*a*a*[xc]",
                                           "(a|aa)+[xc]"};
    enum { N = 20000 };
    char *text = sfq_mem_raw(N + 1);
    assert_non_null(text);
    memset(text, 'a', N);
    text[N] = 'b';
    for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++) {
        char body[512];
        sfq_error err = {0};
        sfq_tokenizer *t = NULL;
        sfq_encoding e;
        snprintf(body, sizeof(body),
                 "%s,\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\","
                 "\"invert\":false,\"pattern\":{\"Regex\":\"%s\"}}",
                 GOOD, patterns[i]);
        assert_ok(parse(&t, body, &err));
        assert_int_equal(sfq_tokenizer_encode(t, text, N + 1, NULL, 0, true, 0, &e, &err),
                         SFQ_E_LIMIT);
        assert_non_null(strstr(err.message, "too many steps"));
        sfq_tokenizer_close(&t);
    }
    sfq_mem_free(text);
}

/* T11, T13: sizes beyond what is supported. */
static void test_limits(void **state)
{
    (void)state;
    sfq_error err = {0};
    sfq_tokenizer *t = NULL;
    sfq_buf body = SFQ_BUF_INIT((size_t)1 << 22);
    assert_ok(sfq_buf_addf(&body, &err, "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\""));
    for (int i = 0; i < 20000; i++)
        assert_ok(
            sfq_buf_add(&body, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMN", 50, &err));
    assert_ok(sfq_buf_addf(&body, &err, "\":0}}"));
    assert_int_equal(parse(&t, body.data, &err), SFQ_E_LIMIT);
    assert_non_null(strstr(err.message, "65536"));
    sfq_buf_clear(&body);
    assert_ok(sfq_buf_addf(&body, &err, "%s",
                           GOOD ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\","
                                "\"invert\":false,\"pattern\":{\"Regex\":\""));
    for (int i = 0; i < 20000; i++)
        assert_ok(
            sfq_buf_add(&body, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMN", 50, &err));
    assert_ok(sfq_buf_addf(&body, &err, "\"}}"));
    assert_int_equal(parse(&t, body.data, &err), SFQ_E_LIMIT);
    sfq_buf_free(&body);
}

/* T16: NUL bytes and control characters are text like any other. */
static void test_nul_in_text(void **state)
{
    (void)state;
    sfq_error err = {0};
    sfq_tokenizer *t = NULL;
    sfq_encoding e;
    assert_ok(sfq_tokenizer_open(&t, "models/novels-5m", &err));
    assert_ok(sfq_tokenizer_encode(t, "a\0b", 3, NULL, 0, false, 0, &e, &err));
    char *back;
    size_t n;
    assert_int_equal(e.count, 3);
    assert_ok(sfq_tokenizer_decode(t, e.ids, e.count, true, &back, &n, &err));
    assert_int_equal(n, 3);
    assert_memory_equal(back, "a\0b", 3);
    sfq_mem_free(back);
    sfq_encoding_clear(&e);
    static const int32_t strange[] = {-1, 4096, INT32_MAX, INT32_MIN};
    assert_ok(sfq_tokenizer_decode(t, strange, 4, true, &back, &n, &err));
    assert_int_equal(n, 0);
    sfq_mem_free(back);
    sfq_tokenizer_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_odd_files),
        cmocka_unit_test(test_lost_unknown),
        cmocka_unit_test(test_growing_normalizer),
        cmocka_unit_test(test_catastrophic_patterns),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_nul_in_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
