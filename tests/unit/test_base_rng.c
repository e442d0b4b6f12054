/* Random numbers: vectors from an implementation in Python (arbitrary integers, same definition),
 * and the shape of the distributions. */
#include "base/rng.h"

#include "unit/unit.h"

#include <math.h>

#define MOST 18446744073709551615u

static const struct {
    uint64_t seed, stream, counter, bits;
    double uniform, normal;
} vectors[] = {
    {0, 0, 0, 0xAB865A734A636F20u, 0.6700188189955846, 0.8740218544341319},
    {0, 0, 1, 0x39151447815F4662u, 0.22297789331184692, -0.34751753923755035},
    {0, 1, 0, 0xA12DDEF2F3B440C2u, 0.629606184305616, -0.888630694168638},
    {1, 0, 0, 0x2991B15D6078398Bu, 0.1623793461771762, 1.8517561729983754},
    {MOST, MOST, MOST, 0xBF73E51D659D4673u, 0.7478621670503474, 0.6676813904125872},
    {12345, 67, 89, 0x851DD02BCCE1BF5Fu, 0.5199861628469823, -0.8412361597513354},
    {42, 1099511627776, 1125899906842624, 0xD6E284B450952CE0u, 0.8393938961240407,
     0.19770725361269287},
};

static void fixed_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint64_t s = vectors[i].seed;
        uint64_t t = vectors[i].stream;
        uint64_t c = vectors[i].counter;
        assert_true(sfq_rng_u64(s, t, c) == vectors[i].bits);
        assert_true(sfq_rng_uniform(s, t, c) == vectors[i].uniform);
        assert_true(fabs(sfq_rng_normal(s, t, c) - vectors[i].normal) < 1e-14);
    }
}

/* 200,000 numbers each: mean, variance, ten equal bins, neighbours and streams uncorrelated. The
 * bounds are five standard errors. */
static void distributions(void **state)
{
    (void)state;
    enum { N = 200000 };
    double sum = 0, square = 0, fourth = 0, lag = 0, cross = 0, mean = 0;
    unsigned bins[10] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double u = sfq_rng_uniform(3, 5, i);
        assert_true(u >= 0 && u < 1);
        bins[(int)(u * 10)]++;
        mean += u;
        double x = sfq_rng_normal(3, 5, i);
        sum += x;
        square += x * x;
        fourth += x * x * x * x;
        lag += x * sfq_rng_normal(3, 5, i + 1);
        cross += x * sfq_rng_normal(3, 6, i);
    }
    double root = sqrt(N);
    assert_true(fabs(mean / N - 0.5) < 5 * sqrt(1.0 / 12) / root);
    for (int b = 0; b < 10; b++)
        assert_true(fabs(bins[b] - N / 10.0) < 5 * sqrt(N * 0.09));
    assert_true(fabs(sum / N) < 5 / root);
    assert_true(fabs(square / N - 1) < 5 * sqrt(2) / root);
    assert_true(fabs(fourth / N - 3) < 5 * sqrt(96) / root);
    assert_true(fabs(lag / N) < 5 / root);
    assert_true(fabs(cross / N) < 5 / root);
}

static void fill_is_the_same_numbers(void **state)
{
    (void)state;
    uint64_t out[100];
    sfq_rng_fill(out, 100, 7, 9, 1000);
    for (uint64_t i = 0; i < 100; i++)
        assert_int_equal(out[i], sfq_rng_u64(7, 9, 1000 + i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_vectors),
        cmocka_unit_test(distributions),
        cmocka_unit_test(fill_is_the_same_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
