/* unit/test_runtime_sampler.c - laws of the sampler: what it may choose, how often, and that
 * nothing but its arguments matters. */
#include "unit.h"

#include "runtime/sampler.h"

#include <math.h>

enum { V = 6 };
static const float logits[V] = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f, -3.0f};
static sfq_error err;

static sfq_sampling sampling(float temperature, int top_k, float top_p, uint64_t seed)
{
    return (sfq_sampling){sizeof(sfq_sampling), temperature, top_k, top_p, seed};
}

static int32_t sample(const sfq_sampling *s, int position)
{
    sfq_candidate scratch[V];
    int32_t token = -1;
    assert_ok(sfq_sample(logits, V, s, position, scratch, &token, &err));
    return token;
}

static void count(const sfq_sampling *s, int n, int counts[V])
{
    memset(counts, 0, V * sizeof(int));
    for (int i = 0; i < n; i++)
        counts[sample(s, i)]++;
}

static void test_greedy(void **state)
{
    (void)state;
    sfq_sampling s = sampling(0, 0, 1, 7);
    assert_int_equal(sample(&s, 0), 1); /* 1 and 3 tie */
    s = sampling(1, 1, 1, 7);
    for (int i = 0; i < 50; i++)
        assert_int_equal(sample(&s, i), 1);
    s = sampling(1, 0, 1e-6f, 7);
    for (int i = 0; i < 50; i++)
        assert_int_equal(sample(&s, i), 1);
}

/* Frequencies of 20,000 draws within 5 standard deviations of the softmax over what is kept. */
static void check_shares(const sfq_sampling *s, const double weight[V])
{
    enum { N = 20000 };
    int counts[V];
    double total = 0;
    for (int i = 0; i < V; i++)
        total += weight[i];
    count(s, N, counts);
    for (int i = 0; i < V; i++) {
        double p = weight[i] / total;
        assert_true(fabs(counts[i] - N * p) <= 5 * sqrt(N * p * (1 - p)));
    }
}

static void test_shares(void **state)
{
    (void)state;
    double all[V], half[V];
    for (int i = 0; i < V; i++) {
        all[i] = exp((double)logits[i]);
        half[i] = exp((double)logits[i] / 0.5);
    }
    sfq_sampling s = sampling(1, 0, 1, 1);
    check_shares(&s, all);
    s = sampling(0.5f, 0, 1, 1);
    check_shares(&s, half);
    const double top3[V] = {0, all[1], 0, all[3], all[4], 0};
    s = sampling(1, 3, 1, 1);
    check_shares(&s, top3);
    /* shares of 1 and 3: 0.371 each, so 0.7 needs both and no more */
    const double both[V] = {0, 1, 0, 1, 0, 0};
    s = sampling(1, 0, 0.7f, 1);
    check_shares(&s, both);
    /* among the three largest, 1 and 3 hold 0.845 */
    s = sampling(1, 3, 0.84f, 1);
    check_shares(&s, both);
    s = sampling(1, 3, 0.86f, 1);
    check_shares(&s, top3);
}

static void test_ties_of_top_k(void **state)
{
    (void)state;
    const float flat[V] = {1, 1, 1, 1, 1, 1};
    sfq_candidate scratch[V];
    sfq_sampling s = sampling(1, 2, 1, 3);
    for (int i = 0; i < 100; i++) {
        int32_t token = -1;
        assert_ok(sfq_sample(flat, V, &s, i, scratch, &token, &err));
        assert_in_range(token, 0, 1);
    }
}

static void test_seed_and_position(void **state)
{
    (void)state;
    sfq_sampling a = sampling(1, 0, 1, 11), b = sampling(1, 0, 1, 12);
    int differ = 0;
    for (int i = 0; i < 200; i++) {
        assert_int_equal(sample(&a, i), sample(&a, i));
        differ += sample(&a, i) != sample(&b, i);
    }
    assert_true(differ > 50);
}

static void test_refused(void **state)
{
    (void)state;
    const float bad[2] = {0, NAN};
    int32_t token = -1;
    assert_fails(SFQ_E_NUMERIC, "logit 1", sfq_sample_greedy(bad, 2, &token, &err));
    sfq_sampling s = sampling(-1, 0, 1, 0);
    assert_fails(SFQ_E_ARGUMENT, "temperature", sfq_sampling_check(&s, &err));
    s = sampling(NAN, 0, 1, 0);
    assert_fails(SFQ_E_ARGUMENT, "temperature", sfq_sampling_check(&s, &err));
    s = sampling(1, -1, 1, 0);
    assert_fails(SFQ_E_ARGUMENT, "top_k", sfq_sampling_check(&s, &err));
    s = sampling(1, 0, 0, 0);
    assert_fails(SFQ_E_ARGUMENT, "top_p", sfq_sampling_check(&s, &err));
    s = sampling(1, 0, 1.5f, 0);
    assert_fails(SFQ_E_ARGUMENT, "top_p", sfq_sampling_check(&s, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_ties_of_top_k), cmocka_unit_test(test_seed_and_position),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
