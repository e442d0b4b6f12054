/* unit/test_data_metric.c - metrics against values worked out elsewhere. */
#include "unit.h"

#include "data/metric.h"

static const int predicted[10] = {1, 0, 1, 1, 0, 1, 0, 0, 1, 1};
static const int label[10] = {1, 0, 0, 1, 1, 1, 0, 1, 1, 0};

/* By hand: TP 4, TN 2, FP 2, FN 2. */
static void test_two_classes(void **state)
{
    (void)state;
    assert_near(sfq_metric_classes(SFQ_METRIC_ACCURACY, predicted, label, 10), 0.6, 1e-15);
    assert_near(sfq_metric_classes(SFQ_METRIC_F1, predicted, label, 10), 8.0 / 12, 1e-15);
    assert_near(sfq_metric_classes(SFQ_METRIC_MATTHEWS, predicted, label, 10), 4.0 / 24, 1e-15);
}

/* numpy: C = confusion matrix, t = C.sum(1), p = C.sum(0), n = C.sum():
 *   (C.trace()*n - (p*t).sum()) / sqrt((n*n - (p**2).sum()) * (n*n - (t**2).sum())) */
static void test_three_classes(void **state)
{
    (void)state;
    const int p[7] = {0, 1, 2, 2, 1, 0, 2}, t[7] = {0, 2, 2, 1, 1, 0, 0};
    assert_near(sfq_metric_classes(SFQ_METRIC_MATTHEWS, p, t, 7), 0.375, 1e-15);
    assert_near(sfq_metric_classes(SFQ_METRIC_ACCURACY, p, t, 7), 4.0 / 7, 1e-15);
}

static void test_degenerate_classes(void **state)
{
    (void)state;
    const int ones[4] = {1, 1, 1, 1}, zeros[4] = {0};
    assert_near(sfq_metric_classes(SFQ_METRIC_MATTHEWS, ones, zeros, 4), 0, 0);
    assert_near(sfq_metric_classes(SFQ_METRIC_F1, zeros, zeros, 4), 0, 0);
    assert_near(sfq_metric_classes(SFQ_METRIC_F1, ones, ones, 4), 1, 0);
    assert_near(sfq_metric_classes(SFQ_METRIC_ACCURACY, ones, ones, 0), 0, 0);
}

/* scipy.stats.pearsonr(x, y), scipy.stats.spearmanr(x, y) */
static void test_values(void **state)
{
    (void)state;
    const float x[7] = {0.5f, 2.0f, 2.0f, 3.5f, -1.0f, 4.25f, 2.0f};
    const float y[7] = {1.0f, 1.5f, 3.0f, 3.0f, 0.0f, 5.0f, 2.5f};
    const float flat[7] = {2, 2, 2, 2, 2, 2, 2};
    double value = -9;
    assert_true(sfq_metric_values(SFQ_METRIC_PEARSON, x, y, 7, &value));
    assert_near(value, 0.9304325960291581, 1e-14);
    assert_true(sfq_metric_values(SFQ_METRIC_SPEARMAN, x, y, 7, &value));
    assert_near(value, 0.9349469900084572, 1e-14);
    assert_true(sfq_metric_values(SFQ_METRIC_SPEARMAN, flat, y, 7, &value));
    assert_near(value, 0, 0);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(sfq_metric_name(SFQ_METRIC_MATTHEWS), "matthews");
    assert_string_equal(sfq_metric_name(SFQ_METRIC_SPEARMAN), "spearman");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_classes),
        cmocka_unit_test(test_three_classes),
        cmocka_unit_test(test_degenerate_classes),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
