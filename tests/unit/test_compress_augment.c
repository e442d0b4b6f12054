/* Variants of calibration sequences: what stays, what changes and how often, on sequences made up
 * around the special tokens of a real tokenizer. */
#include "unit/unit.h"

#include "base/rng.h"
#include "compress/calibration.h"
#include "text/tokenizer.h"

#include <math.h>

static sfq_error err;

enum { SEQUENCES = 60, ROUNDS = 40, FIRST_WORD = 200, WORDS = 300 };

typedef struct bench {
    sfq_source *source;
    sfq_tokenizer *tokenizer;
    int32_t cls, sep, unk;
    sfq_calibration c;
    size_t offset[SEQUENCES + 1];
    int32_t ids[SEQUENCES * 600], types[SEQUENCES * 600];
    size_t first[SEQUENCES]; /* tokens of the first text */
    size_t total;
} bench;

static bench b;

static void put(int32_t id, int32_t type)
{
    b.ids[b.total] = id;
    b.types[b.total++] = type;
}

/* [CLS] n words ([SEP] m words) [SEP]; the words of sequence i, text k are its own. */
static void add_text(size_t i, int k, size_t n)
{
    for (size_t t = 0; t < n; t++)
        put((int32_t)(FIRST_WORD + sfq_rng_u64(i, (uint64_t)k, t) % WORDS), k);
}

static void bench_open(const char *model, bool pairs, size_t longest)
{
    sfq_compress_options o = {.struct_size = sizeof o, .model = model, .threads = 1};
    memset(&b, 0, sizeof b);
    assert_ok(sfq_source_open(&b.source, &o, &err));
    assert_ok(sfq_tokenizer_open(&b.tokenizer, model, &err));
    b.cls = sfq_tokenizer_find(b.tokenizer, "[CLS]");
    b.sep = sfq_tokenizer_find(b.tokenizer, "[SEP]");
    b.unk = sfq_tokenizer_find(b.tokenizer, "[UNK]");
    for (size_t i = 0; i < SEQUENCES; i++) {
        size_t n = 3 + sfq_rng_u64(1, 2, i) % longest;
        put(b.cls, 0);
        add_text(i, 0, n);
        b.first[i] = n;
        if (pairs) {
            put(b.sep, 0);
            add_text(i, 1, 3 + sfq_rng_u64(1, 3, i) % longest);
        }
        put(b.sep, pairs);
        b.offset[i + 1] = b.total;
    }
    b.c = (sfq_calibration){.count = SEQUENCES,
                            .tune = SEQUENCES - 10,
                            .offset = b.offset,
                            .ids = b.ids,
                            .types = pairs ? b.types : NULL};
}

static void bench_close(void)
{
    sfq_tokenizer_close(&b.tokenizer);
    sfq_source_close(&b.source);
}

static sfq_augmenter *open_augmenter(sfq_augment how)
{
    sfq_augmenter *a = NULL;
    assert_ok(sfq_augmenter_open(&a, &b.c, b.source, &how, &err));
    return a;
}

static size_t length_of(size_t i)
{
    return b.offset[i + 1] - b.offset[i];
}

/* The variant, alone in a batch. */
static const sfq_batch *variant(const sfq_augmenter *a, sfq_token_batch *out, size_t i,
                                uint64_t round)
{
    sfq_token_batch_clear(out);
    assert_ok(sfq_augmenter_add(a, out, i, round, &err));
    return &out->batch;
}

static bool is_original(const sfq_batch *v, size_t i)
{
    size_t n = length_of(i), at = b.offset[i];
    return v->offset[1] == n && memcmp(v->ids, b.ids + at, n * sizeof *v->ids) == 0 &&
           (v->types == NULL || memcmp(v->types, b.types + at, n * sizeof *v->types) == 0);
}

static void test_zero_is_the_sequence(void **state)
{
    (void)state;
    for (int pairs = 0; pairs < 2; pairs++) {
        sfq_token_batch out = {0};
        bench_open("models/sst2-tiny", pairs, 20);
        sfq_augmenter *a = open_augmenter((sfq_augment){0});
        for (size_t i = 0; i < b.c.tune; i++)
            for (uint64_t round = 0; round < 3; round++) {
                const sfq_batch *v = variant(a, &out, i, round);
                assert_true(is_original(v, i));
                assert_int_equal(v->types != NULL, pairs);
            }
        sfq_augmenter_close(&a);
        sfq_token_batch_free(&out);
        bench_close();
    }
}

static void test_seed_sequence_round_decide(void **state)
{
    (void)state;
    sfq_token_batch x = {0}, y = {0};
    bench_open("models/sst2-tiny", true, 20);
    sfq_augment how = {.replace = 0.3, .drop = 0.2, .swap = 0.5, .mix = 0.5, .seed = 4};
    sfq_augmenter *a = open_augmenter(how), *again = open_augmenter(how);
    how.seed = 5;
    sfq_augmenter *other = open_augmenter(how);
    size_t same_round = 0, same_seed = 0;
    for (size_t i = b.c.tune; i-- > 0;) { /* in whatever order */
        const sfq_batch *v = variant(a, &x, i, 7), *w = variant(again, &y, i, 7);
        size_t bytes = v->offset[1] * sizeof *v->ids;
        assert_int_equal(v->offset[1], w->offset[1]);
        assert_memory_equal(v->ids, w->ids, bytes);
        assert_memory_equal(v->types, w->types, bytes);
        w = variant(a, &y, i, 8);
        same_round += w->offset[1] == v->offset[1] && memcmp(v->ids, w->ids, bytes) == 0;
        w = variant(other, &y, i, 7);
        same_seed += w->offset[1] == v->offset[1] && memcmp(v->ids, w->ids, bytes) == 0;
    }
    assert_true(same_round < 5 && same_seed < 5);
    sfq_augmenter_close(&a);
    sfq_augmenter_close(&again);
    sfq_augmenter_close(&other);
    sfq_token_batch_free(&x);
    sfq_token_batch_free(&y);
    bench_close();
}

/* Replaced tokens: as often as asked for, by words of the set, never the frame or [UNK]. */
static void test_replace(void **state)
{
    (void)state;
    sfq_token_batch out = {0};
    bench_open("models/sst2-tiny", false, 40);
    for (size_t i = 0; i < SEQUENCES; i++)
        b.ids[b.offset[i] + 2] = b.unk;
    bool in_set[FIRST_WORD + WORDS] = {false};
    for (size_t t = 0; t < b.offset[b.c.tune]; t++)
        if (b.ids[t] >= FIRST_WORD)
            in_set[b.ids[t]] = true;
    sfq_augmenter *a = open_augmenter((sfq_augment){.replace = 0.25});
    size_t words = 0, changed = 0;
    for (size_t i = 0; i < b.c.tune; i++)
        for (uint64_t round = 0; round < ROUNDS; round++) {
            const sfq_batch *v = variant(a, &out, i, round);
            const int32_t *ids = b.ids + b.offset[i];
            size_t n = length_of(i);
            assert_int_equal(v->offset[1], n);
            assert_int_equal(v->ids[0], b.cls);
            assert_int_equal(v->ids[2], b.unk);
            assert_int_equal(v->ids[n - 1], b.sep);
            for (size_t t = 0; t < n; t++) {
                bool word = ids[t] >= FIRST_WORD;
                words += word;
                changed += v->ids[t] != ids[t];
                assert_true(word ? v->ids[t] >= FIRST_WORD && in_set[v->ids[t]]
                                 : v->ids[t] == ids[t]);
            }
        }
    double share = (double)changed / (double)words;
    assert_near(share, 0.25, 4 * sqrt(0.25 * 0.75 / (double)words));
    sfq_augmenter_close(&a);
    sfq_token_batch_free(&out);
    bench_close();
}

/* Replacement goes by frequency: a word that is half of the data is half of the draws. */
static void test_replace_by_frequency(void **state)
{
    (void)state;
    sfq_token_batch out = {0};
    bench_open("models/sst2-tiny", false, 40);
    size_t common = 0, words = 0;
    for (size_t t = 0; t < b.offset[b.c.tune]; t++)
        if (b.ids[t] >= FIRST_WORD) {
            if (t % 2 == 0)
                b.ids[t] = FIRST_WORD;
            words++;
            common += b.ids[t] == FIRST_WORD;
        }
    sfq_augmenter *a = open_augmenter((sfq_augment){.replace = 1});
    size_t drawn = 0, hits = 0;
    for (size_t i = 0; i < b.c.tune; i++)
        for (uint64_t round = 0; round < 10; round++) {
            const sfq_batch *v = variant(a, &out, i, round);
            for (size_t t = 0; t < v->offset[1]; t++) {
                int32_t old = b.ids[b.offset[i] + t];
                if (old < FIRST_WORD || old == FIRST_WORD)
                    continue; /* of the rare words' places: no rejection of the common one */
                drawn++;
                hits += v->ids[t] == FIRST_WORD;
            }
        }
    double share = (double)common / (double)words;
    assert_near((double)hits / (double)drawn, share, 5 * sqrt(0.25 / (double)drawn) + 0.01);
    sfq_augmenter_close(&a);
    sfq_token_batch_free(&out);
    bench_close();
}

/* What is left is the sequence with gaps; a text never vanishes. */
static void test_drop(void **state)
{
    (void)state;
    static const double drops[] = {0.1, 0.5, 1.0};
    for (size_t k = 0; k < 3; k++) {
        sfq_token_batch out = {0};
        bench_open("models/sst2-tiny", true, 30);
        sfq_augmenter *a = open_augmenter((sfq_augment){.drop = drops[k]});
        size_t words = 0, kept = 0;
        for (size_t i = 0; i < b.c.tune; i++)
            for (uint64_t round = 0; round < ROUNDS; round++) {
                const sfq_batch *v = variant(a, &out, i, round);
                size_t n = length_of(i), at = b.offset[i], in_text[2] = {0};
                size_t t = 0;
                for (size_t s = 0; s < v->offset[1]; s++, t++) {
                    while (t < n && (b.ids[at + t] != v->ids[s] || b.types[at + t] != v->types[s]))
                        t++;
                    assert_true(t < n);
                    in_text[v->types[s]] += v->ids[s] >= FIRST_WORD;
                }
                assert_int_equal(v->ids[0], b.cls);
                assert_int_equal(v->ids[v->offset[1] - 1], b.sep);
                assert_int_equal(v->offset[1], in_text[0] + in_text[1] + 3);
                assert_true(in_text[0] > 0 && in_text[1] > 0);
                words += n - 3;
                kept += v->offset[1] - 3;
            }
        double expected =
            drops[k] < 1 ? 1 - drops[k] : 2.0 * (double)b.c.tune * ROUNDS / (double)words;
        assert_near((double)kept / (double)words, expected, 0.02);
        sfq_augmenter_close(&a);
        sfq_token_batch_free(&out);
        bench_close();
    }
}

/* [CLS] second [SEP] first [SEP], types by place. */
static void test_swap(void **state)
{
    (void)state;
    sfq_token_batch out = {0};
    bench_open("models/sst2-tiny", true, 30);
    sfq_augmenter *a = open_augmenter((sfq_augment){.swap = 0.5});
    size_t swapped = 0;
    for (size_t i = 0; i < b.c.tune; i++)
        for (uint64_t round = 0; round < ROUNDS; round++) {
            const sfq_batch *v = variant(a, &out, i, round);
            size_t n = length_of(i), m = b.first[i], k = n - 3 - m, w = sizeof *v->ids;
            const int32_t *ids = b.ids + b.offset[i];
            assert_int_equal(v->offset[1], n);
            if (is_original(v, i))
                continue;
            swapped++;
            assert_int_equal(v->ids[0], b.cls);
            assert_memory_equal(v->ids + 1, ids + m + 2, k * w);
            assert_int_equal(v->ids[1 + k], b.sep);
            assert_memory_equal(v->ids + k + 2, ids + 1, m * w);
            assert_int_equal(v->ids[n - 1], b.sep);
            for (size_t t = 0; t < n; t++)
                assert_int_equal(v->types[t], t > k + 1);
        }
    size_t all = b.c.tune * ROUNDS;
    assert_near((double)swapped / (double)all, 0.5, 4 * sqrt(0.25 / (double)all));
    sfq_augmenter_close(&a);
    sfq_token_batch_free(&out);
    bench_close();
}

/* The second text is another's whole one, each of the others about as often. */
static void test_mix(void **state)
{
    (void)state;
    sfq_token_batch out = {0};
    bench_open("models/sst2-tiny", true, 30);
    sfq_augmenter *a = open_augmenter((sfq_augment){.mix = 1});
    size_t used[SEQUENCES] = {0};
    for (size_t i = 0; i < b.c.tune; i++)
        for (uint64_t round = 0; round < ROUNDS; round++) {
            const sfq_batch *v = variant(a, &out, i, round);
            size_t m = b.first[i], w = sizeof *v->ids, from = SEQUENCES;
            assert_memory_equal(v->ids, b.ids + b.offset[i], (m + 2) * w);
            for (size_t j = 0; j < b.c.tune && from == SEQUENCES; j++) {
                size_t skip = b.first[j] + 2, k = length_of(j) - skip;
                if (v->offset[1] == m + 2 + k &&
                    memcmp(v->ids + m + 2, b.ids + b.offset[j] + skip, k * w) == 0)
                    from = j;
            }
            assert_true(from < b.c.tune && from != i); /* none of those held out, not itself */
            used[from]++;
            for (size_t t = 0; t < v->offset[1]; t++)
                assert_int_equal(v->types[t], t > m + 1);
        }
    for (size_t j = 0; j < b.c.tune; j++)
        assert_in_range(used[j], ROUNDS / 3, ROUNDS * 2);
    sfq_augmenter_close(&a);
    sfq_token_batch_free(&out);
    bench_close();
}

/* However long the texts, a mixed pair stays within the model's positions. */
static void test_length(void **state)
{
    (void)state;
    sfq_token_batch out = {0};
    bench_open("models/sst2-tiny", true, 50);
    size_t limit = (size_t)b.source->arch->max_positions;
    b.source->arch->max_positions = 64;
    sfq_augmenter *a =
        open_augmenter((sfq_augment){.mix = 1, .swap = 0.5, .replace = 0.1, .drop = 0.01});
    size_t cut = 0;
    for (size_t i = 0; i < b.c.tune; i++)
        for (uint64_t round = 0; round < ROUNDS; round++) {
            const sfq_batch *v = variant(a, &out, i, round);
            size_t n = v->offset[1], most = length_of(i) > 64 ? length_of(i) : 64;
            size_t separators = 0;
            assert_true(n <= most);
            cut += n == 64;
            for (size_t t = 0; t < n; t++)
                separators += v->ids[t] == b.sep;
            assert_int_equal(separators, 2);
        }
    assert_true(cut > 10);
    b.source->arch->max_positions = (int)limit;
    sfq_augmenter_close(&a);
    sfq_token_batch_free(&out);
    bench_close();
}

/* Language models: the begin-of-text token stays, there are no pairs. */
static void test_language_model(void **state)
{
    (void)state;
    sfq_token_batch out = {0};
    sfq_compress_options o = {.struct_size = sizeof o, .model = "models/novels-5m", .threads = 1};
    memset(&b, 0, sizeof b);
    assert_ok(sfq_source_open(&b.source, &o, &err));
    int32_t bos = b.source->arch->bos;
    for (size_t i = 0; i < SEQUENCES; i++) {
        put(bos, 0);
        add_text(i, 0, 60);
        b.offset[i + 1] = b.total;
    }
    b.c = (sfq_calibration){
        .count = SEQUENCES, .tune = SEQUENCES - 10, .offset = b.offset, .ids = b.ids};
    sfq_augmenter *a = open_augmenter((sfq_augment){.replace = 0.5, .swap = 1, .mix = 1});
    for (size_t i = 0; i < b.c.tune; i++) {
        const sfq_batch *v = variant(a, &out, i, 3);
        size_t changed = 0;
        assert_null(v->types);
        assert_int_equal(v->offset[1], 61);
        assert_int_equal(v->ids[0], bos);
        for (size_t t = 1; t < 61; t++) {
            assert_true(v->ids[t] != bos);
            changed += v->ids[t] != b.ids[b.offset[i] + t];
        }
        assert_in_range(changed, 10, 50);
    }
    sfq_augmenter_close(&a);
    sfq_token_batch_free(&out);
    sfq_source_close(&b.source);
}

static void test_refused(void **state)
{
    (void)state;
    static const sfq_augment bad[] = {
        {.replace = -0.1}, {.drop = 1.1}, {.swap = NAN}, {.mix = INFINITY}};
    sfq_augmenter *a = NULL;
    bench_open("models/sst2-tiny", true, 9);
    for (size_t i = 0; i < 4; i++)
        assert_fails(SFQ_E_ARGUMENT, "probability",
                     sfq_augmenter_open(&a, &b.c, b.source, &bad[i], &err));
    assert_null(a);
    sfq_augmenter_close(&a);
    bench_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_is_the_sequence),
        cmocka_unit_test(test_seed_sequence_round_decide),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_replace_by_frequency),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_swap),
        cmocka_unit_test(test_mix),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_language_model),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("augment", tests, NULL, NULL);
}
