/* unit/test_api_model.c - the public calls on the two models of the repository: what they describe,
 * what they refuse, and that one prompt has one result however it is fed. */
#include "unit.h"

#include <sfq/sfq.h>

static const char NOVELS[] = "models/novels-5m";
static const char REVIEWS[] = "models/sst2-tiny";
static sfq_error err;

static sfq_model *open_model(const char *path, int threads)
{
    sfq_model_options o;
    sfq_model *model = NULL;
    sfq_model_options_default(&o);
    o.threads = threads;
    assert_ok(sfq_model_open(&model, path, &o, &err));
    return model;
}

/* ---- description ----------------------------------------------------------------------------- */

/* Parameters by hand: word table 4096*256; per layer q 256*256, k and v 128*256, o 256*256, three
 * of 768*256, two norms of 256; a last norm. */
static void test_info(void **state)
{
    (void)state;
    const uint64_t blocks = 256 * 256 * 2 + 128 * 256 * 2 + 768 * 256 * 3, table = 4096 * 256;
    sfq_model *model = open_model(NOVELS, 1);
    sfq_model_info info;
    sfq_layer_info layer;
    assert_ok(sfq_model_info_get(model, &info, &err));
    assert_string_equal(info.architecture, "LlamaForCausalLM");
    assert_int_equal(info.parameters, table + 6 * (blocks + 512) + 256);
    assert_int_equal(info.original_bytes, 2 * info.parameters);
    assert_int_equal(info.macs_per_token, table + 6 * blocks);
    assert_int_equal(info.activation_bits, 32);
    assert_int_equal(info.head, SFQ_HEAD_LM);
    assert_string_equal(sfq_head_kind_name(info.head), "language model");
    assert_string_equal(sfq_head_kind_name((sfq_head_kind)9), "?");
    assert_false(info.compressed);
    assert_near(info.scale_overhead, 0, 0);
    assert_near(info.reduction, 1 - (double)info.bytes / (double)info.original_bytes, 1e-15);
    assert_ok(sfq_model_layer_get(model, 5, &layer, &err));
    assert_int_equal(layer.heads, 8);
    assert_int_equal(layer.kv_heads, 4);
    assert_int_equal(layer.ffn, 768);
    assert_near(layer.bits, 16, 0);
    assert_fails(SFQ_E_ARGUMENT, "0..5", sfq_model_layer_get(model, 6, &layer, &err));
    assert_int_equal(sfq_model_width(model), 256);
    sfq_model_close(&model);
    assert_null(model);
}

static void test_header_only(void **state)
{
    (void)state;
    sfq_model_options o;
    sfq_model *model = NULL;
    sfq_session *session = NULL;
    sfq_generation g;
    sfq_model_options_default(&o);
    o.header_only = true;
    assert_ok(sfq_model_open(&model, REVIEWS, &o, &err));
    assert_string_equal(sfq_model_label(model, 1), "positive");
    assert_null(sfq_model_label(model, 2));
    assert_null(sfq_model_label(model, -1));
    assert_fails(SFQ_E_ARGUMENT, "header_only", sfq_session_open(&session, model, 0, &err));
    assert_fails(SFQ_E_ARGUMENT, "header_only", sfq_generate(model, "a", 1, NULL, &g, &err));
    assert_ok(sfq_model_verify(model, NULL, &err));
    sfq_model_close(&model);
}

static void test_refused(void **state)
{
    (void)state;
    sfq_model_options o;
    sfq_model *model = NULL;
    sfq_model_info info;
    assert_fails(SFQ_E_NOT_FOUND, "no-such", sfq_model_open(&model, "models/no-such", NULL, &err));
    assert_null(model);
    assert_int_equal(sfq_model_open(&model, "models/no-such", NULL, NULL), SFQ_E_NOT_FOUND);
    assert_fails(SFQ_E_ARGUMENT, "path", sfq_model_open(&model, NULL, NULL, &err));
    assert_fails(SFQ_E_ARGUMENT, "out", sfq_model_open(NULL, NOVELS, NULL, &err));
    assert_fails(SFQ_E_ARGUMENT, "model", sfq_model_info_get(NULL, &info, &err));
    sfq_model_options_default(&o);
    o.threads = 257;
    assert_fails(SFQ_E_ARGUMENT, "threads", sfq_model_open(&model, NOVELS, &o, &err));
    o.threads = 1;
    o.struct_size = sizeof(o) + 8;
    assert_fails(SFQ_E_ARGUMENT, "struct_size", sfq_model_open(&model, NOVELS, &o, &err));
    sfq_model_close(NULL);
    sfq_model_close(&model);
    sfq_session_close(NULL);
    sfq_generation_clear(NULL);
}

/* ---- timelines ------------------------------------------------------------------------------- */

enum { PROMPT = 90, VOCAB = 4096 };

static void prompt_ids(int32_t ids[PROMPT])
{
    ids[0] = 0;
    for (int i = 1; i < PROMPT; i++)
        ids[i] = (i * 7919 + 13) % VOCAB;
}

static void feed_in_pieces(sfq_session *s, const int32_t *ids, size_t n, size_t piece)
{
    for (size_t at = 0; at < n; at += piece)
        assert_ok(sfq_session_feed(s, ids + at, n - at < piece ? n - at : piece, &err));
}

static bool at_amx(void)
{
    sfq_environment env;
    assert_ok(sfq_environment_get(&env, &err));
    return strcmp(env.isa, "amx") == 0;
}

/* Whole, in pieces of 64, after a rewind, at 1 and 3 threads: the same bits. In pieces of 7, one by
 * one: the same bits too; at level amx short pieces (up to 8) differ a little from longer ones. */
static void test_one_result(void **state)
{
    (void)state;
    static const size_t pieces[4] = {PROMPT, 64, 7, 1};
    int32_t ids[PROMPT];
    float *want = malloc(VOCAB * sizeof(float)), *few = malloc(VOCAB * sizeof(float));
    prompt_ids(ids);
    for (int threads = 1; threads <= 3; threads += 2) {
        sfq_model *model = open_model(NOVELS, threads);
        sfq_session *s = NULL;
        assert_ok(sfq_session_open(&s, model, PROMPT, &err));
        assert_null(sfq_session_logits(s));
        for (size_t i = 0; i < 4; i++) {
            feed_in_pieces(s, ids, PROMPT, pieces[i]);
            assert_int_equal(sfq_session_position(s), PROMPT);
            if (threads == 1 && i == 0)
                memcpy(want, sfq_session_logits(s), VOCAB * sizeof(float));
            if (threads == 1 && i == 2)
                memcpy(few, sfq_session_logits(s), VOCAB * sizeof(float));
            assert_memory_equal(i < 2 ? want : few, sfq_session_logits(s), VOCAB * sizeof(float));
            assert_ok(sfq_session_rewind(s, i == 0 ? 40 : 0, &err));
            assert_null(sfq_session_logits(s));
            if (i == 0) {
                feed_in_pieces(s, ids + 40, PROMPT - 40, 13);
                assert_memory_equal(want, sfq_session_logits(s), VOCAB * sizeof(float));
                assert_ok(sfq_session_rewind(s, 0, &err));
            }
        }
        sfq_session_close(&s);
        sfq_model_close(&model);
    }
    assert_close_floats(few, want, VOCAB);
    if (!at_amx())
        assert_memory_equal(few, want, VOCAB * sizeof(float));
    free(want);
    free(few);
}

static void test_session_limits(void **state)
{
    (void)state;
    sfq_model *model = open_model(NOVELS, 1);
    sfq_session *s = NULL;
    int32_t ids[3] = {0, 5, VOCAB}, token = 0;
    assert_fails(SFQ_E_LIMIT, "1024", sfq_session_open(&s, model, 1025, &err));
    assert_null(s);
    assert_ok(sfq_session_open(&s, model, 2, &err));
    assert_true(sfq_session_memory(model, 1024) > sfq_session_memory(model, 2));
    assert_fails(SFQ_E_ARGUMENT, "no logits", sfq_session_sample(s, NULL, &token, &err));
    assert_fails(SFQ_E_LIMIT, "do not fit", sfq_session_feed(s, ids, 3, &err));
    assert_int_equal(sfq_session_position(s), 0);
    assert_ok(sfq_session_feed(s, ids, 1, &err));
    assert_fails(SFQ_E_DATA, "", sfq_session_feed(s, ids + 2, 1, &err));
    assert_int_equal(sfq_session_position(s), 1);
    assert_non_null(sfq_session_logits(s)); /* the timeline is as it was, with its logits */
    assert_ok(sfq_session_sample(s, NULL, &token, &err));
    assert_fails(SFQ_E_ARGUMENT, "position", sfq_session_rewind(s, 2, &err));
    assert_ok(sfq_session_feed(s, ids + 1, 1, &err));
    assert_ok(sfq_session_sample(s, NULL, &token, &err));
    assert_in_range(token, 0, VOCAB - 1);
    sfq_session_close(&s);
    sfq_model_close(&model);
    model = open_model(REVIEWS, 1);
    assert_fails(SFQ_E_UNSUPPORTED, "no language model", sfq_session_open(&s, model, 0, &err));
    assert_int_equal(sfq_session_memory(model, 8), 0);
    sfq_model_close(&model);
}

/* ---- text ------------------------------------------------------------------------------------ */

typedef struct heard {
    char text[4096];
    size_t bytes, pieces, stop_after;
} heard;

static bool hear(void *ud, const char *text, size_t bytes)
{
    heard *h = ud;
    assert_true(h->bytes + bytes < sizeof h->text);
    memcpy(h->text + h->bytes, text, bytes);
    h->bytes += bytes;
    h->pieces++;
    return h->stop_after == 0 || h->pieces < h->stop_after;
}

static bool always(void *ud)
{
    (void)ud;
    return true;
}

/* What is streamed is what is returned, also when the listener ends it. */
static void test_generate(void **state)
{
    (void)state;
    static const char prompt[] = "It was a dark and";
    sfq_model *model = open_model(NOVELS, 2);
    sfq_generate_options o;
    sfq_generation g;
    heard h = {.stop_after = 0};
    sfq_generate_options_default(&o);
    o.max_tokens = 40;
    o.ignore_eos = true;
    o.on_text = hear;
    o.on_text_ud = &h;
    assert_ok(sfq_generate(model, prompt, strlen(prompt), &o, &g, &err));
    assert_int_equal(g.token_count, 40);
    assert_string_equal(g.finish, "length");
    assert_int_equal(g.text_bytes, h.bytes);
    assert_memory_equal(g.text, h.text, h.bytes);
    assert_true(h.pieces > 20);
    sfq_generation_clear(&g);
    h = (heard){.stop_after = 3};
    assert_ok(sfq_generate(model, prompt, strlen(prompt), &o, &g, &err));
    assert_string_equal(g.finish, "cancelled");
    assert_int_equal(h.pieces, 3);
    assert_int_equal(g.text_bytes, h.bytes);
    assert_memory_equal(g.text, h.text, h.bytes);
    sfq_generation_clear(&g);
    o.hooks.cancelled = always;
    assert_status(SFQ_E_INTERRUPTED, sfq_generate(model, prompt, strlen(prompt), &o, &g, &err));
    assert_null(g.text);
    sfq_model_close(&model);
}

static void test_generate_refused(void **state)
{
    (void)state;
    static const char *const stops[1] = {""};
    sfq_model *model = open_model(NOVELS, 1);
    sfq_generate_options o;
    sfq_generation g;
    sfq_generate_options_default(&o);
    o.capacity = 2;
    assert_fails(SFQ_E_LIMIT, "prompt", sfq_generate(model, "one two three", 13, &o, &g, &err));
    assert_null(g.text);
    o.capacity = 0;
    o.stop = stops;
    o.stop_count = 1;
    assert_fails(SFQ_E_ARGUMENT, "stop text", sfq_generate(model, "one", 3, &o, &g, &err));
    o.stop_count = 0;
    o.sampling.top_p = 2;
    assert_fails(SFQ_E_ARGUMENT, "top_p", sfq_generate(model, "one", 3, &o, &g, &err));
    assert_fails(SFQ_E_DATA, "", sfq_generate(model, "\xff", 1, NULL, &g, &err));
    assert_fails(SFQ_E_ARGUMENT, "prompt", sfq_generate(model, NULL, 1, NULL, &g, &err));
    sfq_model_close(&model);
}

/* Alone and among others: the same bits; probabilities sum to 1. */
static void test_classify(void **state)
{
    (void)state;
    enum { N = 40 };
    static const char *const texts[3] = {"a warm , funny , engaging film .", "dull",
                                         "it is not a bad film , but it never catches fire"};
    sfq_model *model = open_model(REVIEWS, 2);
    sfq_text_pair in[N];
    float all[N][2], one[2];
    for (size_t i = 0; i < N; i++)
        in[i] = (sfq_text_pair){.text = texts[i % 3], .text_bytes = strlen(texts[i % 3])};
    assert_ok(sfq_classify(model, in, N, &all[0][0], &err));
    for (size_t i = 0; i < 3; i++) {
        assert_ok(sfq_classify(model, in + i, 1, one, &err));
        assert_memory_equal(one, all[i], sizeof one);
        assert_memory_equal(one, all[i + 36], sizeof one);
        assert_near((double)one[0] + (double)one[1], 1, 1e-6);
    }
    assert_true(all[0][1] > 0.5f && all[1][0] > 0.5f);
    assert_ok(sfq_classify(model, NULL, 0, one, &err));
    in[1] = (sfq_text_pair){.text_bytes = 3};
    assert_fails(SFQ_E_ARGUMENT, "input 2", sfq_classify(model, in, 2, &all[0][0], &err));
    assert_fails(SFQ_E_UNSUPPORTED, "no embedding model", sfq_embed(model, in, 1, one, &err));
    sfq_model_close(&model);
}

/* ---- evaluation ------------------------------------------------------------------------------ */

static void test_evaluate_refused(void **state)
{
    (void)state;
    static const char *const files[1] = {"tests/data/passage.txt"};
    static const char *const missing[1] = {"tests/data/no-such.txt"};
    static const char *const no_file = NULL;
    sfq_model *novels = open_model(NOVELS, 1), *reviews = open_model(REVIEWS, 1);
    sfq_eval_options o;
    sfq_eval_result r;
    sfq_eval_options_default(&o);
    assert_fails(SFQ_E_ARGUMENT, "either", sfq_evaluate(novels, &o, &r, &err));
    o.text_files = files;
    o.text_count = 1;
    o.context = 1025;
    assert_fails(SFQ_E_LIMIT, "2..1024", sfq_evaluate(novels, &o, &r, &err));
    o.context = 0;
    assert_fails(SFQ_E_UNSUPPORTED, "no language model", sfq_evaluate(reviews, &o, &r, &err));
    o.against = reviews;
    assert_fails(SFQ_E_ARGUMENT, "different heads", sfq_evaluate(novels, &o, &r, &err));
    o.against = NULL;
    o.hooks.cancelled = always;
    assert_status(SFQ_E_INTERRUPTED, sfq_evaluate(novels, &o, &r, &err));
    assert_int_equal(r.tokens, 0);
    o.hooks.cancelled = NULL;
    o.text_files = &no_file;
    assert_fails(SFQ_E_ARGUMENT, "NULL", sfq_evaluate(novels, &o, &r, &err));
    o.text_files = missing;
    assert_fails(SFQ_E_NOT_FOUND, "no-such", sfq_evaluate(novels, &o, &r, &err));
    sfq_model_close(&novels);
    sfq_model_close(&reviews);
}

static void link_file(const char *from, const char *dir, const char *name)
{
    char path[2 * SCRATCH_ROOM], cwd[SCRATCH_ROOM];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(path, sizeof path, "%s/%s/%s", cwd, from, name);
    assert_int_equal(symlink(path, scratch_path(dir, name)), 0);
}

/* A head of two values meets data of one: refused, for there is room for one. */
static void test_evaluate_two_values(void **state)
{
    (void)state;
    char dir[SCRATCH_ROOM];
    scratch_open(dir);
    scratch_put(
        dir, "config.json",
        "{\"architectures\": [\"BertForSequenceClassification\"], \"model_type\": \"bert\", "
        "\"problem_type\": \"regression\", \"hidden_act\": \"gelu\", \"hidden_size\": 128, "
        "\"intermediate_size\": 512, \"layer_norm_eps\": 1e-12, "
        "\"max_position_embeddings\": 128, \"num_attention_heads\": 4, "
        "\"num_hidden_layers\": 4, \"type_vocab_size\": 2, \"vocab_size\": 4096}");
    scratch_put(dir, "dev.jsonl", "{\"text\": \"a\", \"label\": 0.5}\n");
    link_file(REVIEWS, dir, "model.safetensors");
    link_file(REVIEWS, dir, "tokenizer.json");
    sfq_model *model = open_model(dir, 1);
    sfq_eval_options o;
    sfq_eval_result r;
    sfq_eval_options_default(&o);
    o.data = dir;
    assert_fails(SFQ_E_UNSUPPORTED, "gives 2", sfq_evaluate(model, &o, &r, &err));
    sfq_model_close(&model);
    scratch_close(dir);
}

/* A bounded number of scored tokens is a prefix of the whole; the batch changes nothing. */
static void test_evaluate_bounds(void **state)
{
    (void)state;
    static const char *const files[1] = {"tests/data/passage.txt"};
    sfq_model *model = open_model(NOVELS, 2);
    sfq_eval_options o;
    sfq_eval_result a, b;
    sfq_eval_options_default(&o);
    o.text_files = files;
    o.text_count = 1;
    o.context = 32;
    o.max_tokens = 100;
    assert_ok(sfq_evaluate(model, &o, &a, &err));
    assert_int_equal(a.tokens, 100);
    o.batch = 1;
    assert_ok(sfq_evaluate(model, &o, &b, &err));
    assert_near(a.nll, b.nll, 0);
    assert_near(a.perplexity, b.perplexity, 0);
    assert_string_equal(a.metric, "perplexity");
    sfq_model_close(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_header_only),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_one_result),
        cmocka_unit_test(test_session_limits),
        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_generate_refused),
        cmocka_unit_test(test_classify),
        cmocka_unit_test(test_evaluate_refused),
        cmocka_unit_test(test_evaluate_two_values),
        cmocka_unit_test(test_evaluate_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
