/* The choice among candidates, on made-up ones: duplicates, coverage, strata, budgets, the held-out
 * part, and that the seed alone decides. */
#include "unit/unit.h"

#include "base/mem.h"
#include "base/rng.h"
#include "compress/calibration_parts.h"

static sfq_error err;

enum { VOCAB = 5000 };

typedef struct bench {
    sfq_arch arch;
    sfq_source source;
    sfq_compress_options o;
    sfq_calib_run run;
    char log[256];
} bench;

static void hear_log(void *ud, sfq_log_level level, const char *line)
{
    bench *b = ud;
    assert_int_equal(level, SFQ_LOG_WARNING);
    snprintf(b->log, sizeof b->log, "%s", line);
}

static void bench_open(bench *b, bool curated, uint64_t budget)
{
    *b = (bench){.arch = {.vocab = VOCAB, .head = SFQ_MODEL_HEAD_CLASSIFIER}};
    b->source.arch = &b->arch;
    b->o.hooks = (sfq_hooks){.ud = b, .log = hear_log};
    b->run = (sfq_calib_run){
        .source = &b->source, .options = &b->o, .curated = curated, .budget = budget};
}

static void add(bench *b, const int32_t *ids, size_t n, uint64_t key)
{
    assert_ok(sfq_candidates_add(&b->run.from, ids, NULL, n, key, &err));
}

/* n candidates of lengths 1..longest, of random tokens */
static void add_random(bench *b, size_t n, size_t longest)
{
    int32_t ids[512];
    for (size_t i = 0; i < n; i++) {
        size_t length = 1 + sfq_rng_u64(7, 1, i) % longest;
        for (size_t t = 0; t < length; t++)
            ids[t] = (int32_t)(sfq_rng_u64(7, 2 + i, t) % VOCAB);
        add(b, ids, length, i);
    }
}

static void bench_close(bench *b)
{
    sfq_candidates_free(&b->run.from);
}

/* Every candidate at most once. */
static void assert_distinct(const bench *b, const sfq_pick *pick)
{
    size_t n = sfq_candidates_count(&b->run.from);
    unsigned char *seen = calloc(n, 1);
    assert_non_null(seen);
    for (size_t i = 0; i < pick->count; i++) {
        assert_true(pick->index[i] < n);
        assert_int_equal(seen[pick->index[i]]++, 0);
    }
    free(seen);
}

static void test_budgets(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        uint64_t budget;
        size_t count, tune;
    } cases[] = {
        {5, 5, 5, 4}, {9, 100, 9, 8}, {10, 10, 10, 8}, {1000, 512, 512, 410}, {50, 7, 7, 6}};
    for (int curated = 0; curated < 2; curated++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            bench b;
            sfq_pick pick = {0};
            bench_open(&b, curated, cases[i].budget);
            add_random(&b, cases[i].n, 30);
            assert_ok(sfq_pick_make(&pick, &b.run, NULL, &err));
            assert_int_equal(pick.count, cases[i].count);
            assert_int_equal(pick.tune, cases[i].tune);
            assert_int_equal(pick.cut, 0);
            assert_distinct(&b, &pick);
            sfq_pick_free(&pick);
            bench_close(&b);
        }
}

/* A budget of tokens is met to the token. */
static void test_token_budget(void **state)
{
    (void)state;
    for (uint64_t budget = 500; budget < 620; budget += 7) {
        bench b;
        sfq_pick pick = {0};
        bench_open(&b, true, budget);
        b.run.by_tokens = true;
        int32_t ids[64];
        for (int i = 0; i < 40; i++) {
            for (int t = 0; t < 64; t++)
                ids[t] = (int32_t)(sfq_rng_u64(3, (uint64_t)i, (uint64_t)t) % VOCAB);
            add(&b, ids, 64, (uint64_t)i);
        }
        assert_ok(sfq_pick_make(&pick, &b.run, NULL, &err));
        uint64_t spent = 0;
        for (size_t i = 0; i < pick.count; i++)
            spent += i == 0 && pick.cut > 0 ? pick.cut : 64;
        assert_true(spent == budget || (spent < budget && budget - spent < 16 && pick.cut == 0));
        assert_true(pick.cut == 0 || (pick.cut >= 16 && pick.cut < 64));
        assert_distinct(&b, &pick);
        sfq_pick_free(&pick);
        bench_close(&b);
    }
}

static void test_duplicates(void **state)
{
    (void)state;
    bench b;
    sfq_pick pick = {0};
    int32_t ids[3] = {1, 2, 3};
    bench_open(&b, true, 100);
    for (int i = 0; i < 60; i++) {
        ids[0] = i;
        add(&b, ids, 3, (uint64_t)(i % 20));
    }
    assert_ok(sfq_pick_make(&pick, &b.run, NULL, &err));
    assert_int_equal(pick.count, 20);
    assert_int_equal(pick.duplicates, 40);
    for (size_t i = 0; i < pick.count; i++)
        assert_true(pick.index[i] < 20); /* the first of each */
    sfq_pick_free(&pick);
    b.run.curated = false; /* random is random */
    assert_ok(sfq_pick_make(&pick, &b.run, NULL, &err));
    assert_int_equal(pick.count, 60);
    assert_int_equal(pick.duplicates, 0);
    sfq_pick_free(&pick);
    bench_close(&b);
}

/* Data that says the same again and again is kept, with a word; too few of it are refused. */
static void test_all_alike(void **state)
{
    (void)state;
    bench b;
    sfq_pick pick = {0};
    int32_t ids[3] = {1, 2, 3};
    bench_open(&b, true, 100);
    for (int i = 0; i < 4; i++)
        add(&b, ids, 3, 9);
    assert_fails(SFQ_E_DATA, "gives 4 sequences", sfq_pick_make(&pick, &b.run, NULL, &err));
    sfq_pick_free(&pick);
    for (int i = 0; i < 6; i++)
        add(&b, ids, 3, 9);
    assert_ok(sfq_pick_make(&pick, &b.run, NULL, &err));
    assert_int_equal(pick.count, 10);
    assert_int_equal(pick.tune, 8);
    assert_non_null(strstr(b.log, "only 1 of 10"));
    sfq_pick_free(&pick);
    bench_close(&b);
}

/* Coverage: a few candidates hold tokens of their own, the many the same ones. */
static void test_new_tokens_first(void **state)
{
    (void)state;
    bench b;
    sfq_pick pick = {0};
    bench_open(&b, true, 20);
    for (int i = 0; i < 400; i++) {
        int32_t ids[8];
        bool rich = i % 40 == 17; /* 10 of them */
        for (int t = 0; t < 8; t++)
            ids[t] = rich ? 100 + 8 * i + t : (i + t) % 20;
        add(&b, ids, 8, (uint64_t)i);
    }
    assert_ok(sfq_pick_make(&pick, &b.run, NULL, &err));
    size_t rich = 0;
    for (size_t i = 0; i < pick.count; i++)
        rich += pick.index[i] % 40 == 17;
    /* random: half a candidate in expectation; 16 strata give 1 or 2 each */
    assert_true(rich >= 8);
    sfq_pick_free(&pick);
    bench_close(&b);
}

/* Mean rank (0..1) of what was taken, by length and by difficulty: as in the data. */
static void test_spread(void **state)
{
    (void)state;
    enum { N = 2000 };
    bench b;
    sfq_pick pick = {0};
    static double difficulty[N];
    bench_open(&b, true, 400);
    add_random(&b, N, 100);
    for (size_t i = 0; i < N; i++)
        difficulty[i] = sfq_rng_uniform(11, 0, i);
    assert_ok(sfq_pick_make(&pick, &b.run, difficulty, &err));
    for (int part = 0; part < 2; part++) {
        size_t cells[4][4] = {{0}};
        size_t begin = part ? pick.tune : 0, end = part ? pick.count : pick.tune;
        for (size_t i = begin; i < end; i++) {
            size_t c = pick.index[i];
            size_t length = (sfq_candidates_length(&b.run.from, c) - 1) * 4 / 100;
            cells[length][(size_t)(difficulty[c] * 4)]++;
        }
        for (int l = 0; l < 4; l++)
            for (int d = 0; d < 4; d++) {
                size_t expected = (end - begin) / 16, got = cells[l][d];
                size_t off = expected / 3 + 2;
                assert_in_range(got, expected - off, expected + off);
            }
    }
    sfq_pick_free(&pick);
    bench_close(&b);
}

static void test_seed_decides(void **state)
{
    (void)state;
    sfq_pick pick[3] = {{0}};
    for (int i = 0; i < 3; i++) {
        bench b;
        bench_open(&b, true, 50);
        b.o.seed = i == 2;
        add_random(&b, 300, 40);
        assert_ok(sfq_pick_make(&pick[i], &b.run, NULL, &err));
        bench_close(&b);
    }
    size_t bytes = 50 * sizeof *pick[0].index;
    assert_memory_equal(pick[0].index, pick[1].index, bytes);
    assert_true(memcmp(pick[0].index, pick[2].index, bytes) != 0);
    for (int i = 0; i < 3; i++)
        sfq_pick_free(&pick[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budgets),          cmocka_unit_test(test_token_budget),
        cmocka_unit_test(test_duplicates),       cmocka_unit_test(test_all_alike),
        cmocka_unit_test(test_new_tokens_first), cmocka_unit_test(test_spread),
        cmocka_unit_test(test_seed_decides),
    };
    return cmocka_run_group_tests_name("curate", tests, NULL, NULL);
}
