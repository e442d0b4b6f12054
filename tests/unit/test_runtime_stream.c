/* unit/test_runtime_stream.c - streaming text: whole characters only, the decoder's spaces, and
 * stop texts that are spread over tokens. The tokenizer is a Llama-like one with byte fallback. */
#include "unit.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "runtime/stream.h"

/* ids: <unk> 0, <s> 1, </s> 2, byte b: 3 + b, then these */
enum { BYTE = 3, SPACE = 259, A, SPACE_B, AB, X, HE, LLO, NEW_LINE, TOKENS };
#define PUT(...) (void)snprintf(json + strlen(json), sizeof json - strlen(json), __VA_ARGS__)

static sfq_error err;
static sfq_tokenizer *tokenizer;

static int setup(void **state)
{
    (void)state;
    static char json[16384];
    static const char *const special[3] = {"<unk>", "<s>", "</s>"};
    json[0] = 0;
    PUT("{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [");
    for (int i = 0; i < 3; i++)
        PUT("%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
            "\"rstrip\": false, \"normalized\": false, \"special\": true}",
            i > 0 ? ", " : "", i, special[i]);
    PUT("], \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", "
        "\"prepend\": \"\\u2581\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "
        "\"content\": \"\\u2581\"}]}, \"pre_tokenizer\": null, \"post_processor\": null, "
        "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
        "\"pattern\": {\"String\": \"\\u2581\"}, \"content\": \" \"}, "
        "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", "
        "\"content\": \" \", \"start\": 1, \"stop\": 0}]}, \"model\": {\"type\": \"BPE\", "
        "\"dropout\": null, \"unk_token\": \"<unk>\", \"continuing_subword_prefix\": null, "
        "\"end_of_word_suffix\": null, \"fuse_unk\": true, \"byte_fallback\": true, "
        "\"ignore_merges\": false, \"vocab\": {\"<unk>\": 0, \"<s>\": 1, \"</s>\": 2");
    for (int b = 0; b < 256; b++)
        PUT(", \"<0x%02X>\": %d", (unsigned)b, BYTE + b);
    PUT(", \"\\u2581\": %d, \"a\": %d, \"\\u2581b\": %d, \"ab\": %d, \"x\": %d, \"he\": %d, "
        "\"llo\": %d, \"\\n\": %d}, \"merges\": []}}",
        SPACE, A, SPACE_B, AB, X, HE, LLO, NEW_LINE);
    assert_ok(sfq_tokenizer_parse(&tokenizer, "tokenizer.json", json, strlen(json), &err));
    assert_int_equal(sfq_tokenizer_vocab_end(tokenizer), TOKENS);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sfq_tokenizer_close(&tokenizer);
    return 0;
}

static void open_stream(sfq_stream *s, const char *const *stop, size_t stops)
{
    const int32_t prompt[2] = {1, SPACE_B};
    assert_ok(sfq_stream_open(s, tokenizer, prompt, 2, 4096, stop, stops, &err));
}

static void expect(sfq_stream *s, int32_t id, const char *text)
{
    const char *piece = NULL;
    size_t bytes = 0;
    char got[64];
    assert_ok(sfq_stream_add(s, id, &piece, &bytes, &err));
    assert_true(bytes < sizeof got);
    memcpy(got, piece, bytes);
    got[bytes] = 0;
    assert_string_equal(got, text);
}

static void expect_end(sfq_stream *s, const char *text, const char *all)
{
    const char *piece = NULL;
    size_t bytes = 0;
    assert_ok(sfq_stream_finish(s, &piece, &bytes, &err));
    assert_int_equal(bytes, strlen(text));
    assert_memory_equal(piece, text, bytes);
    assert_int_equal(s->shown, strlen(all));
    assert_memory_equal(s->text.data, all, s->shown);
    sfq_stream_close(s);
}

/* The first word keeps its space because the prompt stands before it. */
static void test_spaces(void **state)
{
    (void)state;
    sfq_stream s;
    open_stream(&s, NULL, 0);
    expect(&s, SPACE_B, " b");
    expect(&s, SPACE, " ");
    expect(&s, A, "a");
    expect(&s, 2, "");
    expect(&s, AB, "ab");
    expect_end(&s, "", " b aab");
}

static void test_whole_characters(void **state)
{
    (void)state;
    sfq_stream s;
    open_stream(&s, NULL, 0);
    expect(&s, BYTE + 0xe4, "");
    expect(&s, BYTE + 0xbd, "");
    expect(&s, BYTE + 0xa0, "\xe4\xbd\xa0");
    expect(&s, X, "x");
    expect(&s, BYTE + 0xf0, "");
    expect(&s, X, "\xef\xbf\xbdx");
    expect(&s, BYTE + 0xe4, "");
    expect_end(&s, "\xef\xbf\xbd", "\xe4\xbd\xa0x\xef\xbf\xbdx\xef\xbf\xbd");
}

/* A byte that spoils the run of bytes before it cannot take back what was shown. */
static void test_spoiled_run(void **state)
{
    (void)state;
    sfq_stream s;
    open_stream(&s, NULL, 0);
    expect(&s, BYTE + 0xc3, "");
    expect(&s, BYTE + 0xa9, "\xc3\xa9");
    expect(&s, BYTE + 0xff, "");
    expect(&s, X, "\xef\xbf\xbdx");
    expect_end(&s, "", "\xc3\xa9\xef\xbf\xbdx");
}

static void test_stop_over_tokens(void **state)
{
    (void)state;
    static const char *const stop[2] = {"hello b", "zz"};
    sfq_stream s;
    open_stream(&s, stop, 2);
    expect(&s, X, "x");
    expect(&s, HE, "");
    expect(&s, HE, "he"); /* the first cannot be the beginning any more */
    expect(&s, LLO, "");
    assert_false(s.stopped);
    expect(&s, SPACE_B, "");
    assert_true(s.stopped);
    expect_end(&s, "", "xhe");
}

/* The earliest of several stop texts cuts, and what precedes it in its token is shown. */
static void test_stop_within_token(void **state)
{
    (void)state;
    static const char *const stop[2] = {"llo", "o"};
    sfq_stream s;
    open_stream(&s, stop, 2);
    expect(&s, AB, "ab");
    expect(&s, LLO, "");
    assert_true(s.stopped);
    expect_end(&s, "", "ab");
    static const char *const late[1] = {"lo"};
    open_stream(&s, late, 1);
    expect(&s, LLO, "l");
    assert_true(s.stopped);
    expect_end(&s, "", "l");
}

static void test_held_back_is_shown_at_the_end(void **state)
{
    (void)state;
    static const char *const stop[1] = {"hello"};
    sfq_stream s;
    open_stream(&s, stop, 1);
    expect(&s, HE, "");
    expect_end(&s, "he", "he");
}

static void test_bad_stop(void **state)
{
    (void)state;
    static const char *const empty[1] = {""}, *const broken[1] = {"\xff"};
    const int32_t prompt[1] = {1};
    sfq_stream s;
    assert_fails(SFQ_E_ARGUMENT, "stop text 1",
                 sfq_stream_open(&s, tokenizer, prompt, 1, 4, empty, 1, &err));
    sfq_stream_close(&s);
    assert_fails(SFQ_E_ARGUMENT, "stop text 1",
                 sfq_stream_open(&s, tokenizer, prompt, 1, 4, broken, 1, &err));
    sfq_stream_close(&s);
}

/* 3000 random tokens, two-byte characters among them: the pieces are whole characters, and together
 * they are what decoding everything at once gives. */
static void test_long_answer(void **state)
{
    (void)state;
    static const int32_t choice[6] = {SPACE, A, SPACE_B, X, LLO, BYTE + 0xc3};
    enum { N = 3000 };
    int32_t ids[N + 2] = {1, SPACE_B};
    sfq_stream s;
    char *whole = NULL;
    size_t whole_bytes = 0;
    open_stream(&s, NULL, 0);
    for (size_t i = 0; i < N; i++) {
        const char *piece = NULL;
        size_t bytes = 0;
        bool open = ids[i + 1] == BYTE + 0xc3;
        ids[i + 2] = open ? BYTE + 0xa9 : choice[sfq_rng_u64(5, 0, i) % 6];
        assert_ok(sfq_stream_add(&s, ids[i + 2], &piece, &bytes, &err));
        assert_int_equal(sfq_utf8_valid_prefix(piece, bytes), bytes);
        assert_int_equal(bytes == 0, ids[i + 2] == BYTE + 0xc3);
    }
    const char *rest = NULL;
    size_t rest_bytes = 0;
    assert_ok(sfq_stream_finish(&s, &rest, &rest_bytes, &err));
    assert_ok(sfq_tokenizer_decode(tokenizer, ids, N + 2, true, &whole, &whole_bytes, &err));
    assert_int_equal(s.shown + 1, whole_bytes); /* "b" of the prompt */
    assert_memory_equal(s.text.data, whole + 1, s.shown);
    sfq_mem_free(whole);
    sfq_stream_close(&s);
}

/* Bytes that never become a character are shown before the end, and the window goes on moving. */
static void test_broken_for_ever(void **state)
{
    (void)state;
    enum { N = 2000 };
    sfq_stream s;
    size_t most = 0;
    open_stream(&s, NULL, 0);
    for (size_t i = 0; i < N; i++) {
        const char *piece = NULL;
        size_t bytes = 0;
        assert_ok(sfq_stream_add(&s, BYTE + 0x80, &piece, &bytes, &err));
        most = s.count - s.window > most ? s.count - s.window : most;
    }
    assert_true(most < 256);
    assert_true(s.shown > (size_t)3 * (N - 100));
    const char *rest = NULL;
    size_t rest_bytes = 0;
    assert_ok(sfq_stream_finish(&s, &rest, &rest_bytes, &err));
    assert_int_equal(s.shown, 3 * N);
    for (size_t i = 0; i < N; i++)
        assert_memory_equal(s.text.data + 3 * i, "\xef\xbf\xbd", 3);
    sfq_stream_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spaces),
        cmocka_unit_test(test_whole_characters),
        cmocka_unit_test(test_spoiled_run),
        cmocka_unit_test(test_stop_over_tokens),
        cmocka_unit_test(test_stop_within_token),
        cmocka_unit_test(test_held_back_is_shown_at_the_end),
        cmocka_unit_test(test_bad_stop),
        cmocka_unit_test(test_long_answer),
        cmocka_unit_test(test_broken_for_ever),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
