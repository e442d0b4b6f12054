/* data/task.h - examples as their files have them: GLUE's own layouts (byte-order marks, missing
 * headers, quotes that are not quoting) and own data as jsonl/csv with text, text_pair, label. */
#ifndef SFQ_DATA_TASK_H
#define SFQ_DATA_TASK_H

#include "base/status.h"

typedef enum sfq_task_kind { SFQ_TASK_CLASSES = 0, SFQ_TASK_REGRESSION } sfq_task_kind;

typedef enum sfq_metric_kind {
    SFQ_METRIC_ACCURACY = 0,
    SFQ_METRIC_F1,
    SFQ_METRIC_MATTHEWS,
    SFQ_METRIC_PEARSON,
    SFQ_METRIC_SPEARMAN
} sfq_metric_kind;

/* One row per task: sst2 mrpc stsb cola rte wnli qnli mnli qqp, and "own" for jsonl/csv. */
typedef struct sfq_task {
    const char *name;
    sfq_task_kind kind;
    bool pairs;
    sfq_metric_kind metrics[2]; /* the first is the main one */
    int metric_count;
    const char *labels[4]; /* file spellings in id order; NULL: the file holds ids (or values) */
    int label_count;
} sfq_task;

const sfq_task *sfq_task_find(const char *name); /* NULL: unknown */
const char *sfq_task_names(void);                /* "sst2 mrpc ...", for messages */

typedef struct sfq_example {
    const char *text, *pair; /* NUL-terminated UTF-8 without NUL inside; pair NULL: none */
    size_t text_bytes, pair_bytes;
    int label;   /* classes */
    float value; /* regression */
    bool labelled;
} sfq_example;

typedef struct sfq_dataset {
    const sfq_task *task;
    sfq_example *examples;
    size_t count;
    size_t labelled; /* of them; all after sfq_dataset_open */
    void *storage;
} sfq_dataset;

/* DIR/SPLIT.tsv (GLUE) or DIR/SPLIT.jsonl|csv. task NULL, "own" or a name of the user's picks
 * jsonl/csv; with a GLUE task's name these have its labels and metrics. label_names maps
 * own data's textual labels to ids (the model's id2label), may be NULL. DATA names file, line and
 * column. */
sfq_status sfq_dataset_open(sfq_dataset **out, const char *task, const char *dir, const char *split,
                            const char *const *label_names, int label_count, sfq_error *err);
/* The same where labels are not needed: an example of jsonl or csv may lack its own. */
sfq_status sfq_dataset_open_texts(sfq_dataset **out, const char *task, const char *dir,
                                  const char *split, const char *const *label_names,
                                  int label_count, sfq_error *err);
/* Whether there is something to evaluate on: *has is false for own data that has no such split, or
 * one without a single label. Errors are those of reading it. */
sfq_status sfq_dataset_has_labels(bool *has, const char *task, const char *dir, const char *split,
                                  const char *const *label_names, int label_count, sfq_error *err);
void sfq_dataset_close(sfq_dataset **dataset);

#endif
