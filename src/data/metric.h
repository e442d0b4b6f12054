/* data/metric.h - accuracy, F1 of label 1, Matthews, Pearson, Spearman (average ranks for ties), in
 * double and in index order. */
#ifndef SFQ_DATA_METRIC_H
#define SFQ_DATA_METRIC_H

#include "data/task.h"

const char *sfq_metric_name(sfq_metric_kind kind);
double sfq_metric_classes(sfq_metric_kind kind, const int *predicted, const int *label, size_t n);
/* 0 where a side is constant. False: out of memory. */
bool sfq_metric_values(sfq_metric_kind kind, const float *predicted, const float *value, size_t n,
                       double *out);

#endif
