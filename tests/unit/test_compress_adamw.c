/* AdamW against torch's figures; values in units; bits at any thread count; what is not finite. */
#include "unit/unit.h"

#include "unit/adamw_vectors.h"

#include "base/rng.h"
#include "compress/adamw.h"

#include <math.h>

static sfq_error err;
static const sfq_adamw_options options = {
    .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .decay = 0.1, .clip = 1};

static void test_torch(void **state)
{
    (void)state;
    float value[ADAMW_FLOATS], gradient[ADAMW_FLOATS];
    sfq_adamw *adamw;
    memcpy(value, adamw_start, sizeof value);
    const sfq_adamw_array arrays[] = {
        {.value = value, .gradient = gradient, .count = ADAMW_DECAYED, .decay = true},
        {.value = value + ADAMW_DECAYED,
         .gradient = gradient + ADAMW_DECAYED,
         .count = ADAMW_FLOATS - ADAMW_DECAYED},
    };
    assert_ok(sfq_adamw_open(&adamw, arrays, 2, &options, NULL, &err));
    for (size_t step = 0; step < ADAMW_STEPS; step++) {
        memcpy(gradient, adamw_gradient[step], sizeof gradient);
        assert_true(sfq_adamw_step(adamw, step + 1, adamw_lr[step]));
        for (size_t i = 0; i < ADAMW_FLOATS; i++)
            assert_near((double)value[i], (double)adamw_value[step][i],
                        3e-7 * fabs((double)adamw_value[step][i]));
    }
    sfq_adamw_close(&adamw);
    assert_null(adamw);
}

enum { BIG = 100001, SMALL = 37 };

typedef struct run {
    float value[BIG + SMALL], gradient[BIG + SMALL], unit[SMALL];
} run;

static void train(run *r, bool units, int threads)
{
    sfq_pool *pool;
    sfq_adamw *adamw;
    assert_ok(sfq_pool_open(&pool, threads, &err));
    for (size_t i = 0; i < BIG + SMALL; i++)
        r->value[i] = (float)sfq_rng_normal(1, 1, i);
    for (size_t i = 0; i < SMALL; i++)
        r->unit[i] = i % 2 ? 0.25F : -8.0F;
    const sfq_adamw_array arrays[] = {
        {.value = r->value, .gradient = r->gradient, .count = BIG, .decay = true},
        {.value = r->value + BIG,
         .gradient = r->gradient + BIG,
         .unit = units ? r->unit : NULL,
         .count = SMALL},
    };
    assert_ok(sfq_adamw_open(&adamw, arrays, 2, &options, pool, &err));
    for (size_t i = 0; i < SMALL && units; i++)
        r->value[BIG + i] *= r->unit[i];
    for (uint64_t step = 1; step <= 5; step++) {
        for (size_t i = 0; i < BIG + SMALL; i++)
            r->gradient[i] = (float)sfq_rng_normal(1, 1 + step, i);
        for (size_t i = 0; i < SMALL && units; i++)
            r->gradient[BIG + i] /= r->unit[i];
        assert_true(sfq_adamw_step(adamw, step, 0.01));
    }
    for (size_t i = 0; i < SMALL && units; i++)
        r->value[BIG + i] /= r->unit[i];
    sfq_adamw_close(&adamw);
    sfq_pool_close(&pool);
}

/* Units are powers of two here, so that not a bit may differ. */
static void test_units_and_threads(void **state)
{
    (void)state;
    run *one = calloc(2, sizeof *one), *other = one + 1;
    assert_non_null(one);
    train(one, false, 1);
    for (int threads = 1; threads <= 3; threads++)
        for (int units = 0; units < 2; units++) {
            train(other, units != 0, threads);
            assert_memory_equal(one->value, other->value, sizeof one->value);
        }
    free(one);
}

static void test_not_finite_changes_nothing(void **state)
{
    (void)state;
    float value[3] = {1, 2, 3}, gradient[3] = {1, NAN, 1};
    const sfq_adamw_array array = {.value = value, .gradient = gradient, .count = 3};
    sfq_adamw *adamw;
    assert_ok(sfq_adamw_open(&adamw, &array, 1, &options, NULL, &err));
    assert_false(sfq_adamw_step(adamw, 1, 0.1));
    gradient[1] = INFINITY;
    assert_false(sfq_adamw_step(adamw, 1, 0.1));
    assert_true(value[0] == 1 && value[1] == 2 && value[2] == 3);
    for (int i = 0; i < 6; i++)
        assert_true(sfq_adamw_moments(adamw)[i] == 0);
    gradient[1] = 0;
    assert_true(sfq_adamw_step(adamw, 1, 0.1));
    assert_true(value[0] < 1 && value[1] == 2);
    sfq_adamw_close(&adamw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch),
        cmocka_unit_test(test_units_and_threads),
        cmocka_unit_test(test_not_finite_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
