/* unit/test_api_compute.c - token ids in, numbers out, and generation piece by piece: the same bits
 * as the timeline, the classifier and the whole answer give. */
#include "unit.h"

#include <sfq/sfq.h>

static const char NOVELS[] = "models/novels-5m";
static const char REVIEWS[] = "models/sst2-tiny";
enum { PROMPT = 90, VOCAB = 4096 };
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

static void prompt_ids(int32_t ids[PROMPT])
{
    ids[0] = 0;
    for (int i = 1; i < PROMPT; i++)
        ids[i] = (i * 7919 + 13) % VOCAB;
}

static bool at_amx(void)
{
    sfq_environment env;
    assert_ok(sfq_environment_get(&env, &err));
    return strcmp(env.isa, "amx") == 0;
}

static bool always(void *ud)
{
    (void)ud;
    return true;
}

static bool flag(void *ud)
{
    return *(const bool *)ud;
}

static void count_progress(void *ud, const sfq_progress *p)
{
    *(uint64_t *)ud = p->done;
    assert_int_equal(p->total, 3);
    assert_string_equal(p->stage, "compute");
}

/* Three sequences, one of a single token: all logits, the last ones, and those of a timeline. */
static void test_logits(void **state)
{
    (void)state;
    static const size_t offset[4] = {0, 50, 51, PROMPT};
    int32_t ids[PROMPT];
    uint64_t done = 0;
    size_t rows = 0, columns = 0;
    prompt_ids(ids);
    sfq_tokens tokens = {.count = 3, .offset = offset, .ids = ids};
    sfq_hooks hooks = {.ud = &done, .progress = count_progress};
    sfq_model *model = open_model(NOVELS, 2);
    float *all = malloc((size_t)PROMPT * VOCAB * sizeof(float));
    float *last = malloc((size_t)3 * VOCAB * sizeof(float));
    assert_ok(sfq_compute_shape(model, &tokens, SFQ_OUTPUT_LOGITS, &rows, &columns, &err));
    assert_int_equal(rows, PROMPT);
    assert_int_equal(columns, VOCAB);
    assert_ok(sfq_compute(model, &tokens, SFQ_OUTPUT_LOGITS, &hooks, all, &err));
    assert_int_equal(done, 3);
    assert_ok(sfq_compute_shape(model, &tokens, SFQ_OUTPUT_LAST, &rows, &columns, &err));
    assert_int_equal(rows, 3);
    assert_ok(sfq_compute(model, &tokens, SFQ_OUTPUT_LAST, NULL, last, &err));
    for (size_t s = 0; s < 3; s++) {
        sfq_session *session = NULL;
        const float *want = all + (offset[s + 1] - 1) * VOCAB;
        assert_memory_equal(last + s * VOCAB, want, VOCAB * sizeof(float));
        assert_ok(sfq_session_open(&session, model, PROMPT, &err));
        assert_ok(sfq_session_feed(session, ids + offset[s], offset[s + 1] - offset[s], &err));
        assert_close_floats(sfq_session_logits(session), want, VOCAB);
        if (!at_amx()) /* where one row on a cache has another order of summation */
            assert_memory_equal(sfq_session_logits(session), want, VOCAB * sizeof(float));
        sfq_session_close(&session);
    }
    free(all);
    free(last);
    sfq_model_close(&model);
}

/* Where the weights lie changes nothing. */
static void test_huge_pages(void **state)
{
    (void)state;
    static const size_t offset[2] = {0, PROMPT};
    static float want[VOCAB], got[VOCAB];
    int32_t ids[PROMPT];
    sfq_model_options o;
    sfq_model *copy = NULL;
    prompt_ids(ids);
    sfq_tokens tokens = {.count = 1, .offset = offset, .ids = ids};
    sfq_model_options_default(&o);
    o.threads = 2;
    o.huge_pages = true;
    sfq_model *model = open_model(NOVELS, 1);
    assert_ok(sfq_model_open(&copy, NOVELS, &o, &err));
    assert_ok(sfq_compute(model, &tokens, SFQ_OUTPUT_LAST, NULL, want, &err));
    assert_ok(sfq_compute(copy, &tokens, SFQ_OUTPUT_LAST, NULL, got, &err));
    assert_memory_equal(got, want, sizeof want);
    sfq_model_close(&copy);
    sfq_model_close(&model);
}

/* Texts, their tokens, and what both give; more tokens than a batch holds. */
static void test_scores(void **state)
{
    (void)state;
    enum { N = 150 };
    sfq_text_pair in[N];
    sfq_tokens tokens;
    size_t rows = 0, columns = 0;
    float scores[N][2], want[N][2], logits[2];
    static const char *const texts[3] = {"a moving, honest film", "dull",
                                         "never has a film been so long, so loud and so empty"};
    for (size_t i = 0; i < N; i++) {
        const char *text = texts[i % 3], *pair = i % 5 == 0 ? texts[1] : NULL;
        in[i] = (sfq_text_pair){text, strlen(text), pair, pair != NULL ? strlen(pair) : 0};
    }
    sfq_model *model = open_model(REVIEWS, 1);
    assert_ok(sfq_classify(model, in, N, want[0], &err));
    assert_ok(sfq_encode(model, in, N, &tokens, &err));
    assert_int_equal(tokens.count, N);
    assert_int_equal(tokens.types[tokens.offset[1] - 1], 1); /* the first is a pair */
    assert_int_equal(tokens.types[tokens.offset[2] - 1], 0);
    assert_ok(sfq_compute_shape(model, &tokens, SFQ_OUTPUT_SCORES, &rows, &columns, &err));
    assert_int_equal(rows, N);
    assert_int_equal(columns, 2);
    assert_ok(sfq_compute(model, &tokens, SFQ_OUTPUT_SCORES, NULL, scores[0], &err));
    assert_memory_equal(scores, want, sizeof scores);
    tokens.count = 1;
    assert_ok(sfq_compute(model, &tokens, SFQ_OUTPUT_LOGITS, NULL, logits, &err));
    assert_true((logits[0] > logits[1]) == (want[0][0] > want[0][1]));
    assert_true(logits[0] < 0 || logits[1] < 0);
    sfq_tokens_clear(&tokens);
    assert_null(tokens.ids);
    sfq_model_close(&model);
}

/* Hidden states of a sequence do not depend on its neighbours. */
static void test_hidden(void **state)
{
    (void)state;
    static const size_t both[3] = {0, 40, PROMPT}, alone[2] = {0, PROMPT - 40};
    int32_t ids[PROMPT];
    prompt_ids(ids);
    sfq_model *model = open_model(NOVELS, 3);
    size_t width = (size_t)sfq_model_width(model);
    float *x = malloc(PROMPT * width * sizeof(float)), *y = malloc(PROMPT * width * sizeof(float));
    sfq_tokens tokens = {.count = 2, .offset = both, .ids = ids};
    assert_ok(sfq_compute(model, &tokens, SFQ_OUTPUT_HIDDEN, NULL, x, &err));
    tokens = (sfq_tokens){.count = 1, .offset = alone, .ids = ids + 40};
    assert_ok(sfq_compute(model, &tokens, SFQ_OUTPUT_HIDDEN, NULL, y, &err));
    assert_memory_equal(x + 40 * width, y, (PROMPT - 40) * width * sizeof(float));
    free(x);
    free(y);
    sfq_model_close(&model);
}

static void test_refused(void **state)
{
    (void)state;
    static const size_t good[2] = {0, 2}, empty[3] = {0, 0, 2}, late[2] = {1, 2},
                        wide[2] = {0, 1025};
    static const int32_t ids[1025] = {5, VOCAB};
    size_t rows = 0, columns = 0;
    float *out = malloc((size_t)2 * VOCAB * sizeof(float));
    sfq_model *model = open_model(NOVELS, 1);
    sfq_tokens t = {.count = 1, .offset = good, .ids = ids};
    sfq_hooks hooks = {.cancelled = always};
    assert_fails(SFQ_E_DATA, "4096", sfq_compute(model, &t, SFQ_OUTPUT_LOGITS, NULL, out, &err));
    assert_fails(SFQ_E_INTERRUPTED, "",
                 sfq_compute(model, &t, SFQ_OUTPUT_LOGITS, &hooks, out, &err));
    assert_fails(SFQ_E_UNSUPPORTED, "label scores",
                 sfq_compute(model, &t, SFQ_OUTPUT_SCORES, NULL, out, &err));
    assert_fails(SFQ_E_ARGUMENT, "sfq_output",
                 sfq_compute_shape(model, &t, (sfq_output)5, &rows, &columns, &err));
    t = (sfq_tokens){.count = 2, .offset = empty, .ids = ids};
    assert_fails(SFQ_E_DATA, "input 1", sfq_compute(model, &t, SFQ_OUTPUT_LAST, NULL, out, &err));
    t = (sfq_tokens){.count = 1, .offset = late, .ids = ids};
    assert_fails(SFQ_E_ARGUMENT, "offset",
                 sfq_compute(model, &t, SFQ_OUTPUT_LAST, NULL, out, &err));
    t = (sfq_tokens){.count = 1, .offset = wide, .ids = ids};
    assert_fails(SFQ_E_LIMIT, "1024", sfq_compute(model, &t, SFQ_OUTPUT_LAST, NULL, out, &err));
    t.ids = NULL;
    assert_fails(SFQ_E_ARGUMENT, "ids", sfq_compute(model, &t, SFQ_OUTPUT_LAST, NULL, out, &err));
    t = (sfq_tokens){.count = 0};
    assert_ok(sfq_compute(model, &t, SFQ_OUTPUT_LAST, NULL, NULL, &err));
    sfq_model_close(&model);
    sfq_tokens_clear(NULL);
    free(out);
}

/* ---- piece by piece -------------------------------------------------------------------------- */

static void collect(sfq_generator *g, char *text, size_t room)
{
    const char *piece = NULL;
    size_t bytes = 1, at = 0;
    while (bytes > 0) {
        assert_ok(sfq_generator_next(g, &piece, &bytes, &err));
        assert_true(at + bytes < room);
        memcpy(text + at, piece, bytes);
        at += bytes;
    }
    text[at] = '\0';
}

static void test_generator(void **state)
{
    (void)state;
    static const char prompt[] = "It was a dark and";
    char text[4096];
    const char *piece = NULL;
    size_t bytes = 0, count = 0;
    int32_t *ids = NULL;
    sfq_model *model = open_model(NOVELS, 1);
    sfq_generator *g = NULL;
    sfq_generate_options o;
    sfq_generation whole, part;
    sfq_generate_options_default(&o);
    o.max_tokens = 30;
    o.sampling.temperature = 1;
    o.sampling.seed = 3;
    assert_ok(sfq_generate(model, prompt, strlen(prompt), &o, &whole, &err));
    assert_ok(sfq_generator_open(&g, model, prompt, strlen(prompt), &o, &err));
    assert_ok(sfq_generator_next(g, &piece, &bytes, &err));
    assert_true(bytes > 0 && memcmp(whole.text, piece, bytes) == 0);
    assert_ok(sfq_generator_result(g, &part, &err));
    assert_string_equal(part.finish, "cancelled");
    assert_int_equal(part.text_bytes, bytes);
    sfq_generation_clear(&part);
    memcpy(text, piece, bytes);
    collect(g, text + bytes, sizeof text - bytes);
    assert_string_equal(text, whole.text);
    assert_ok(sfq_generator_result(g, &part, &err));
    assert_string_equal(part.finish, whole.finish);
    assert_int_equal(part.token_count, whole.token_count);
    assert_memory_equal(part.tokens, whole.tokens, part.token_count * sizeof(int32_t));
    sfq_generation_clear(&part);
    sfq_generator_close(&g);
    assert_null(g);
    assert_ok(sfq_model_tokenize(model, prompt, strlen(prompt), NULL, 0, true, &ids, &count, &err));
    o.prompt_ids = ids;
    o.prompt_count = count;
    assert_ok(sfq_generate(model, NULL, 0, &o, &part, &err));
    assert_string_equal(part.text, whole.text);
    sfq_generation_clear(&part);
    sfq_generation_clear(&whole);
    sfq_release(ids);
    sfq_model_close(&model);
}

/* An interrupted step takes nothing away: the next call goes on. */
static void test_generator_interrupted(void **state)
{
    (void)state;
    char text[4096];
    const char *piece = NULL;
    size_t bytes = 0;
    bool stop = false;
    sfq_model *model = open_model(NOVELS, 1);
    sfq_generator *g = NULL;
    sfq_generate_options o;
    sfq_generation whole;
    sfq_generate_options_default(&o);
    o.max_tokens = 12;
    assert_ok(sfq_generate(model, "The sea", 7, &o, &whole, &err));
    o.hooks = (sfq_hooks){.ud = &stop, .cancelled = flag};
    assert_ok(sfq_generator_open(&g, model, "The sea", 7, &o, &err));
    assert_ok(sfq_generator_next(g, &piece, &bytes, &err));
    memcpy(text, piece, bytes);
    size_t first = bytes;
    stop = true;
    assert_status(SFQ_E_INTERRUPTED, sfq_generator_next(g, &piece, &bytes, &err));
    assert_int_equal(bytes, 0);
    stop = false;
    collect(g, text + first, sizeof text - first);
    assert_string_equal(text, whole.text);
    sfq_generator_close(&g);
    sfq_generation_clear(&whole);
    sfq_model_close(&model);
}

static void test_generator_refused(void **state)
{
    (void)state;
    const char *piece = NULL;
    size_t bytes = 0;
    sfq_model *model = open_model(NOVELS, 1);
    sfq_generator *g = NULL;
    sfq_generate_options o;
    sfq_generate_options_default(&o);
    o.hooks.cancelled = always;
    assert_status(SFQ_E_INTERRUPTED, sfq_generator_open(&g, model, "The sea", 7, &o, &err));
    assert_null(g);
    assert_fails(SFQ_E_ARGUMENT, "generator", sfq_generator_next(NULL, &piece, &bytes, &err));
    o.hooks = (sfq_hooks){0};
    o.prompt_count = 1;
    assert_fails(SFQ_E_ARGUMENT, "prompt_ids", sfq_generator_open(&g, model, "a", 1, &o, &err));
    sfq_generator_close(&g);
    sfq_generator_close(NULL);
    sfq_model_close(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_huge_pages),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_generator),
        cmocka_unit_test(test_generator_interrupted),
        cmocka_unit_test(test_generator_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
