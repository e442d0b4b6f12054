/* The laws of the scale search: exact where a cluster is exact, never worse than max-abs, never
 * worse with more bits, at a fixed point, safe at both ends of the float range. */
#include "base/rng.h"
#include "compress/scale.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { COUNT = 509 }; /* no multiple of any vector width */

static float scratch[4096];

static void fill(float *w, size_t n, double sigma, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        w[i] = (float)(sigma * sfq_rng_normal(seed, 1, i));
}

static sfq_scale_input input(const float *w, size_t n, int bits)
{
    return (sfq_scale_input){.w = w, .count = n, .bits = bits, .dtype = SFQ_F16};
}

static float max_abs(const float *w, size_t n)
{
    float m = 0;
    for (size_t i = 0; i < n; i++)
        m = fabsf(w[i]) > m ? fabsf(w[i]) : m;
    return m;
}

static void test_zero_cluster(void **state)
{
    (void)state;
    float w[COUNT] = {0};
    uint8_t codes[COUNT];
    for (int bits = 2; bits <= 8; bits++) {
        sfq_scale_input in = input(w, COUNT, bits);
        double error = -1;
        assert_true(sfq_scale_search(&in, scratch, &error) == 1.0F);
        assert_true(error == 0.0);
        sfq_scale_codes(codes, w, COUNT, 1.0F, bits);
        for (size_t i = 0; i < COUNT; i++)
            assert_int_equal(codes[i], 1 << (bits - 1));
    }
}

/* All weights equal, of either sign, and a mix of a power of two with its negative and 0. */
static void test_exact_clusters(void **state)
{
    (void)state;
    float w[COUNT];
    static const float values[] = {1.0F, -1.0F, 0.25F, -0.3125F, 1000.0F};
    for (int bits = 2; bits <= 8; bits++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            for (size_t i = 0; i < COUNT; i++)
                w[i] = values[v];
            sfq_scale_input in = input(w, COUNT, bits);
            double error = 1;
            sfq_scale_search(&in, scratch, &error);
            assert_true(error == 0.0);
            for (size_t i = 0; i < COUNT; i++)
                w[i] = i % 3 == 0 ? 0.5F : i % 3 == 1 ? -0.5F : 0.0F;
            sfq_scale_search(&in, scratch, &error);
            assert_true(error == 0.0);
        }
}

static void test_more_bits_never_worse(void **state)
{
    (void)state;
    float w[COUNT];
    for (uint64_t seed = 0; seed < 40; seed++) {
        fill(w, COUNT, 0.03, seed);
        if (seed % 4 == 1)
            w[seed] = 0.5F; /* an outlier */
        if (seed % 4 == 2)
            for (size_t i = 0; i < COUNT; i++)
                w[i] = fabsf(w[i]);
        double last = HUGE_VAL;
        for (int bits = 2; bits <= 8; bits++) {
            sfq_scale_input in = input(w, COUNT, bits);
            double error;
            sfq_scale_search(&in, scratch, &error);
            assert_true(error <= last);
            last = error;
        }
    }
}

static void test_better_than_max_abs(void **state)
{
    (void)state;
    float w[COUNT];
    for (int bits = 2; bits <= 8; bits++) {
        double found = 0;
        double plain = 0;
        for (uint64_t seed = 0; seed < 20; seed++) {
            fill(w, COUNT, 0.03, 100 + seed);
            sfq_scale_input in = input(w, COUNT, bits);
            double error;
            sfq_scale_search(&in, scratch, &error);
            float half = (float)(1 << (bits - 1));
            float s = max_abs(w, COUNT) / (half - 1);
            s = sfq_f16_to_f32(sfq_f32_to_f16(s));
            double max = sfq_scale_error(&in, s);
            assert_true(error <= max);
            found += error;
            plain += max;
        }
        /* 8 bits: some percent by better phase; 4 bits and below: much, by clipping */
        assert_true(found < plain * (bits > 4 ? 0.97 : 0.7));
    }
}

/* The same cluster searched with its own decoded values gives the same scale and codes. */
static void test_fixed_point(void **state)
{
    (void)state;
    float w[COUNT];
    float decoded[COUNT];
    uint8_t codes[COUNT];
    for (int bits = 2; bits <= 8; bits++)
        for (uint64_t seed = 0; seed < 10; seed++) {
            fill(w, COUNT, 0.03, 200 + seed);
            sfq_scale_input in = input(w, COUNT, bits);
            float scale = sfq_scale_search(&in, scratch, NULL);
            sfq_scale_codes(codes, w, COUNT, scale, bits);
            for (size_t i = 0; i < COUNT; i++)
                decoded[i] = scale * (float)(codes[i] - (1 << (bits - 1)));
            sfq_scale_input again = input(decoded, COUNT, bits);
            double error;
            sfq_scale_search(&again, scratch, &error);
            double energy = 0;
            for (size_t i = 0; i < COUNT; i++)
                energy += (double)decoded[i] * (double)decoded[i];
            assert_true(error <= 1e-12 * energy);
        }
}

/* A refit of the codes found must not be better than the scale found by more than F16 can say. */
static void test_least_squares(void **state)
{
    (void)state;
    float w[COUNT];
    float omega[COUNT];
    uint8_t codes[COUNT];
    for (int bits = 2; bits <= 8; bits++) {
        fill(w, COUNT, 1.0, 300 + (uint64_t)bits);
        for (size_t i = 0; i < COUNT; i++)
            omega[i] = (float)(0.5 + sfq_rng_uniform(7, 7, i));
        sfq_scale_input in = {w, omega, COUNT, bits, SFQ_F32};
        double error;
        float scale = sfq_scale_search(&in, scratch, &error);
        sfq_scale_codes(codes, w, COUNT, scale, bits);
        double wq = 0;
        double qq = 0;
        double ww = 0;
        for (size_t i = 0; i < COUNT; i++) {
            double q = codes[i] - (1 << (bits - 1));
            wq += (double)omega[i] * (double)w[i] * q;
            qq += (double)omega[i] * q * q;
            ww += (double)omega[i] * (double)w[i] * (double)w[i];
        }
        assert_true(error <= (ww - wq * wq / qq) * (1 + 1e-4) + 1e-9);
    }
}

/* Where large weights are of one sign, the long side of the range must serve them. */
static void test_negative_scale_gains(void **state)
{
    (void)state;
    float w[COUNT];
    int negative = 0;
    double found = 0;
    double positive_only = 0;
    for (uint64_t seed = 0; seed < 10; seed++) {
        for (size_t i = 0; i < COUNT; i++)
            w[i] = (float)(0.05 + 0.03 * sfq_rng_normal(400 + seed, 1, i));
        sfq_scale_input in = input(w, COUNT, 3);
        double error;
        float scale = sfq_scale_search(&in, scratch, &error);
        negative += scale < 0;
        found += error;
        double best = HUGE_VAL;
        for (int t = 20; t < 80; t++) {
            float s = max_abs(w, COUNT) / ((float)t / 10.0F);
            double e = sfq_scale_error(&in, sfq_f16_to_f32(sfq_f32_to_f16(s)));
            best = e < best ? e : best;
        }
        positive_only += best;
    }
    assert_int_equal(negative, 10);
    assert_true(found < 0.9 * positive_only);
}

static void test_mirrored_cluster(void **state)
{
    (void)state;
    float w[COUNT];
    float m[COUNT];
    fill(w, COUNT, 0.1, 500);
    for (size_t i = 0; i < COUNT; i++)
        m[i] = -w[i];
    for (int bits = 2; bits <= 8; bits++) {
        sfq_scale_input in = input(w, COUNT, bits);
        sfq_scale_input mirrored = input(m, COUNT, bits);
        double a;
        double b;
        float s = sfq_scale_search(&in, scratch, &a);
        float t = sfq_scale_search(&mirrored, scratch, &b);
        assert_true(a == b);
        assert_true(fabsf(s) == fabsf(t)); /* the sign is free where nothing clips */
    }
}

static void test_f16_range(void **state)
{
    (void)state;
    assert_true(sfq_scale_fits_f16(0, 8));
    assert_true(sfq_scale_fits_f16(1, 8));
    assert_true(sfq_scale_fits_f16(0x1p-7F, 8));
    assert_false(sfq_scale_fits_f16(0x1p-8F, 8));
    assert_true(sfq_scale_fits_f16(65504.0F * 127, 8));
    assert_false(sfq_scale_fits_f16(65504.0F * 127 * 1.01F, 8));
    assert_false(sfq_scale_fits_f16(70000.0F, 2));
}

/* Magnitudes from the smallest to the largest float, F32 scales: finite, not 0, and as good as at
 * 1. */
static void test_extreme_magnitudes(void **state)
{
    (void)state;
    float w[COUNT];
    float v[COUNT];
    fill(w, COUNT, 0.2, 600);
    for (int bits = 2; bits <= 8; bits++) {
        sfq_scale_input base = {w, NULL, COUNT, bits, SFQ_F32};
        double reference;
        sfq_scale_search(&base, scratch, &reference);
        static const int exponents[] = {-100, -60, 60, 126};
        for (size_t e = 0; e < sizeof exponents / sizeof *exponents; e++) {
            for (size_t i = 0; i < COUNT; i++)
                v[i] = ldexpf(w[i], exponents[e]);
            sfq_scale_input in = {v, NULL, COUNT, bits, SFQ_F32};
            double error;
            float s = sfq_scale_search(&in, scratch, &error);
            assert_true(isfinite(s) && fabsf(s) >= FLT_MIN);
            double relative = ldexp(error, -2 * exponents[e]) / reference;
            assert_true(relative > 0.999 && relative < 1.001);
        }
    }
    for (size_t i = 0; i < COUNT; i++)
        v[i] = i % 2 == 0 ? FLT_TRUE_MIN : -FLT_TRUE_MIN;
    sfq_scale_input tiny = {v, NULL, COUNT, 8, SFQ_F32};
    assert_true(fabsf(sfq_scale_search(&tiny, scratch, NULL)) >= FLT_MIN);
    for (size_t i = 0; i < COUNT; i++)
        v[i] = i % 2 == 0 ? FLT_MAX : -FLT_MAX;
    sfq_scale_input huge = {v, NULL, COUNT, 8, SFQ_F32};
    assert_true(isfinite(sfq_scale_search(&huge, scratch, NULL)));
}

static void test_rounding_is_to_even(void **state)
{
    (void)state;
    static const float w[] = {0.5F, 1.5F, 2.5F, -0.5F, -1.5F, 200.0F, -200.0F};
    static const uint8_t expected[] = {128, 130, 130, 128, 126, 255, 0};
    uint8_t codes[7];
    sfq_scale_codes(codes, w, 7, 1.0F, 8);
    assert_memory_equal(codes, expected, 7);
}

/* More than the count is never touched, whatever the count. */
static void test_every_count(void **state)
{
    (void)state;
    float w[70];
    fill(w, 70, 1.0, 700);
    for (size_t n = 1; n < 70; n++) {
        float *exact = malloc(n * sizeof *exact);
        float *space = malloc(sfq_scale_scratch(n) * sizeof *space);
        assert_non_null(exact);
        assert_non_null(space);
        for (size_t i = 0; i < n; i++)
            exact[i] = w[i];
        sfq_scale_input in = input(exact, n, 4);
        double error;
        float s = sfq_scale_search(&in, space, &error);
        assert_true(s != 0.0F && error >= 0);
        free(exact);
        free(space);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_cluster),
        cmocka_unit_test(test_exact_clusters),
        cmocka_unit_test(test_more_bits_never_worse),
        cmocka_unit_test(test_better_than_max_abs),
        cmocka_unit_test(test_fixed_point),
        cmocka_unit_test(test_least_squares),
        cmocka_unit_test(test_negative_scale_gains),
        cmocka_unit_test(test_mirrored_cluster),
        cmocka_unit_test(test_f16_range),
        cmocka_unit_test(test_extreme_magnitudes),
        cmocka_unit_test(test_rounding_is_to_even),
        cmocka_unit_test(test_every_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
