/* unit/test_runtime_compare.c - distances between rows of logits, against scipy and numpy. */
#include "unit.h"

#include "runtime/compare.h"

#include <math.h>

static sfq_error err;

/* a, b = scipy.special.log_softmax(r), scipy.special.log_softmax(o); (exp(a) * (a - b)).sum() */
static void test_kl(void **state)
{
    (void)state;
    const float r[4] = {1.5f, -2.0f, 0.25f, 3.0f}, o[4] = {1.0f, -1.0f, 0.5f, 2.5f};
    const float far[4] = {1001.5f, 998.0f, 1000.25f, 1003.0f};
    assert_near(sfq_kl_divergence(r, o, 4), 0.025890632668078735, 1e-15);
    assert_near(sfq_kl_divergence(r, r, 4), 0, 0);
    assert_near(sfq_kl_divergence(far, o, 4), 0.025890632668078735, 1e-12);
    const float masked[4] = {1.5f, -INFINITY, 0.25f, 3.0f}, low[4] = {1.5f, -90, 0.25f, 3.0f};
    assert_near(sfq_kl_divergence(masked, low, 4), 0, 1e-15);
    assert_near(sfq_kl_divergence(masked, masked, 4), 0, 0);
    assert_near(sfq_log_sum_exp(far, 4) - sfq_log_sum_exp(r, 4), 1000, 1e-12);
}

/* numpy.quantile([3, 1, 2, 10], 0.999) */
static void test_quantile(void **state)
{
    (void)state;
    double x[4] = {3, 1, 2, 10}, one[1] = {5}, y[4] = {3, 1, 2, 10};
    assert_near(sfq_quantile(x, 4, 0.999), 9.979, 1e-12);
    assert_near(sfq_quantile(one, 1, 0.999), 5, 0);
    assert_near(sfq_quantile(y, 4, 0.5), 2.5, 0);
}

static void test_summary(void **state)
{
    (void)state;
    double kl[4] = {0, 0.5, 0.25, 0.25};
    const unsigned char same[4] = {1, 0, 1, 1};
    sfq_eval_result out = {0};
    assert_ok(sfq_compare_finish(kl, same, 4, &out, &err));
    assert_true(out.compared);
    assert_near(out.kl_mean, 0.25, 0);
    assert_near(out.same_top1, 0.75, 0);
    assert_int_equal(out.flips, 1);
    kl[2] = NAN;
    assert_fails(SFQ_E_NUMERIC, "answer 3", sfq_compare_finish(kl, same, 4, &out, &err));
}

static void test_argmax(void **state)
{
    (void)state;
    const float x[4] = {-1, 3, 3, 2};
    assert_int_equal(sfq_argmax(x, 4), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kl),
        cmocka_unit_test(test_quantile),
        cmocka_unit_test(test_summary),
        cmocka_unit_test(test_argmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
