/* data/metric.c - the figures that GLUE reports, in double and summed in index order. */
#include "data/metric.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>

const char *sfq_metric_name(sfq_metric_kind kind)
{
    static const char *const names[] = {[SFQ_METRIC_ACCURACY] = "accuracy",
                                        [SFQ_METRIC_F1] = "f1",
                                        [SFQ_METRIC_MATTHEWS] = "matthews",
                                        [SFQ_METRIC_PEARSON] = "pearson",
                                        [SFQ_METRIC_SPEARMAN] = "spearman"};
    return names[kind];
}

/* ---- classes --------------------------------------------------------------------------------- */

static double count_equal(const int *a, const int *b, size_t n)
{
    size_t equal = 0;
    for (size_t i = 0; i < n; i++)
        equal += a[i] == b[i];
    return (double)equal;
}

static double count_value(const int *a, size_t n, int value)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += a[i] == value;
    return (double)count;
}

/* 2 TP / (2 TP + FP + FN) of label 1; 0 where label 1 occurs on neither side. */
static double f1(const int *predicted, const int *label, size_t n)
{
    size_t both = 0;
    for (size_t i = 0; i < n; i++)
        both += predicted[i] == 1 && label[i] == 1;
    double sides = count_value(predicted, n, 1) + count_value(label, n, 1);
    return sides > 0 ? 2.0 * (double)both / sides : 0.0;
}

/* R_K for K classes (Gorodkin 2004, "Comparing two K-category assignments by a K-category
 * correlation coefficient"), which is Matthews' coefficient for two. */
static double matthews(const int *predicted, const int *label, size_t n)
{
    int classes = 0;
    for (size_t i = 0; i < n; i++) {
        classes = predicted[i] >= classes ? predicted[i] + 1 : classes;
        classes = label[i] >= classes ? label[i] + 1 : classes;
    }
    double total = (double)n, cross = 0, predicted2 = 0, label2 = 0;
    for (int k = 0; k < classes; k++) {
        double p = count_value(predicted, n, k), t = count_value(label, n, k);
        cross += p * t;
        predicted2 += p * p;
        label2 += t * t;
    }
    double spread = (total * total - predicted2) * (total * total - label2);
    return spread > 0 ? (count_equal(predicted, label, n) * total - cross) / sqrt(spread) : 0.0;
}

double sfq_metric_classes(sfq_metric_kind kind, const int *predicted, const int *label, size_t n)
{
    if (n == 0)
        return 0;
    if (kind == SFQ_METRIC_F1)
        return f1(predicted, label, n);
    if (kind == SFQ_METRIC_MATTHEWS)
        return matthews(predicted, label, n);
    return count_equal(predicted, label, n) / (double)n;
}

/* ---- values ---------------------------------------------------------------------------------- */

static double mean(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum / (double)n;
}

static double pearson(const double *x, const double *y, size_t n)
{
    double mx = mean(x, n), my = mean(y, n), xx = 0, yy = 0, xy = 0;
    for (size_t i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx) / sqrt(yy) : 0.0;
}

typedef struct sfq_ranked {
    float value;
    size_t index;
} sfq_ranked;

static int compare_ranked(const void *a, const void *b)
{
    const sfq_ranked *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Ranks from 1; equal values share the mean of theirs. */
static void rank(double *ranks, sfq_ranked *sorted, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sorted[i] = (sfq_ranked){x[i], i};
    qsort(sorted, n, sizeof(*sorted), compare_ranked);
    for (size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && sorted[end].value == sorted[begin].value;)
            end++;
        for (size_t i = begin; i < end; i++)
            ranks[sorted[i].index] = (double)(begin + 1 + end) / 2.0;
    }
}

static void widen(double *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (double)x[i];
}

bool sfq_metric_values(sfq_metric_kind kind, const float *predicted, const float *value, size_t n,
                       double *out)
{
    *out = 0;
    if (n == 0)
        return true;
    bool ranks = kind == SFQ_METRIC_SPEARMAN;
    double *x = SFQ_NEW_ARRAY(double, n);
    double *y = SFQ_NEW_ARRAY(double, n);
    sfq_ranked *sorted = SFQ_NEW_ARRAY(sfq_ranked, ranks ? n : 1);
    bool ok = x != NULL && y != NULL && sorted != NULL;
    if (ok && ranks) {
        rank(x, sorted, predicted, n);
        rank(y, sorted, value, n);
    } else if (ok) {
        widen(x, predicted, n);
        widen(y, value, n);
    }
    if (ok)
        *out = pearson(x, y, n);
    sfq_mem_free(x);
    sfq_mem_free(y);
    sfq_mem_free(sorted);
    return ok;
}
