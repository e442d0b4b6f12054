/* data/task.c - the list of tasks, and opening a split: which file, which reader, which spelling of
 * labels. The files themselves are read by tsv.c, csv.c and jsonl.c. */
#include "data/task.h"

#include "base/file.h"
#include "data/reader.h"

#include <string.h>
#include <strings.h>

/* Label order is GLUE's own, which is Transformers' too. */
static const sfq_task tasks[] = {
    {.name = "sst2", .metrics = {SFQ_METRIC_ACCURACY}, .metric_count = 1, .label_count = 2},
    {.name = "mrpc",
     .pairs = true,
     .metrics = {SFQ_METRIC_ACCURACY, SFQ_METRIC_F1},
     .metric_count = 2,
     .label_count = 2},
    {.name = "stsb",
     .kind = SFQ_TASK_REGRESSION,
     .pairs = true,
     .metrics = {SFQ_METRIC_PEARSON, SFQ_METRIC_SPEARMAN},
     .metric_count = 2,
     .label_count = 1},
    {.name = "cola", .metrics = {SFQ_METRIC_MATTHEWS}, .metric_count = 1, .label_count = 2},
    {.name = "rte",
     .pairs = true,
     .metrics = {SFQ_METRIC_ACCURACY},
     .metric_count = 1,
     .labels = {"entailment", "not_entailment"},
     .label_count = 2},
    {.name = "wnli",
     .pairs = true,
     .metrics = {SFQ_METRIC_ACCURACY},
     .metric_count = 1,
     .label_count = 2},
    {.name = "qnli",
     .pairs = true,
     .metrics = {SFQ_METRIC_ACCURACY},
     .metric_count = 1,
     .labels = {"entailment", "not_entailment"},
     .label_count = 2},
    {.name = "mnli",
     .pairs = true,
     .metrics = {SFQ_METRIC_ACCURACY},
     .metric_count = 1,
     .labels = {"entailment", "neutral", "contradiction"},
     .label_count = 3},
    {.name = "qqp",
     .pairs = true,
     .metrics = {SFQ_METRIC_ACCURACY, SFQ_METRIC_F1},
     .metric_count = 2,
     .label_count = 2},
};

/* Own data: the model's head says whether its labels are classes or values. */
static const sfq_task own_classes = {
    .name = "own", .metrics = {SFQ_METRIC_ACCURACY}, .metric_count = 1};
static const sfq_task own_values = {.name = "own",
                                    .kind = SFQ_TASK_REGRESSION,
                                    .metrics = {SFQ_METRIC_PEARSON, SFQ_METRIC_SPEARMAN},
                                    .metric_count = 2,
                                    .label_count = 1};

const sfq_task *sfq_task_find(const char *name)
{
    if (name == NULL)
        return NULL;
    for (size_t i = 0; i < sizeof(tasks) / sizeof(tasks[0]); i++)
        if (strcmp(tasks[i].name, name) == 0)
            return &tasks[i];
    return strcmp(name, own_classes.name) == 0 ? &own_classes : NULL;
}

const char *sfq_task_names(void)
{
    return "sst2 mrpc stsb cola rte wnli qnli mnli qqp own";
}

/* ---- which file ------------------------------------------------------------------------------ */

typedef enum sfq_layout_kind { LAYOUT_TSV = 0, LAYOUT_JSONL, LAYOUT_CSV } sfq_layout_kind;

static sfq_status join_split(char **out, const char *dir, const char *split, const char *suffix,
                             sfq_error *err)
{
    sfq_buf name = SFQ_BUF_INIT(4096);
    sfq_status status = sfq_buf_addf(&name, err, "%s%s", split, suffix);
    if (status == SFQ_OK) {
        *out = sfq_path_join(dir, name.data);
        if (*out == NULL)
            status = sfq_fail_memory(err, strlen(dir) + name.len, "path of the data");
    }
    sfq_buf_free(&name);
    return status;
}

/* The first that exists of SPLIT.tsv (GLUE tasks; mnli: SPLIT_matched.tsv, too), SPLIT.jsonl,
 * SPLIT.csv. */
static sfq_status find_file(char **path, sfq_layout_kind *kind, const char *dir, const char *split,
                            bool glue, sfq_error *err)
{
    static const struct {
        const char *suffix;
        sfq_layout_kind kind;
    } tries[] = {{".tsv", LAYOUT_TSV},
                 {"_matched.tsv", LAYOUT_TSV},
                 {".jsonl", LAYOUT_JSONL},
                 {".csv", LAYOUT_CSV}};
    for (size_t i = glue ? 0 : 2; i < sizeof(tries) / sizeof(tries[0]); i++) {
        SFQ_TRY(join_split(path, dir, split, tries[i].suffix, err));
        *kind = tries[i].kind;
        if (sfq_file_exists(*path))
            return SFQ_OK;
        sfq_mem_free(*path);
        *path = NULL;
    }
    return sfq_fail_at(err, SFQ_E_NOT_FOUND, dir, NULL,
                       "%s: no %s.%s there; give the directory that holds the task's files", dir,
                       split, glue ? "tsv, .jsonl or .csv" : "jsonl or .csv");
}

/* ---- which ids ------------------------------------------------------------------------------- */

/* Position of `label` among the model's names regardless of case (MNLI models on the Hub number
 * their classes in several orders and say so in id2label); -1 without one. */
static int find_name(const char *label, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (names[i] != NULL && strcasecmp(names[i], label) == 0)
            return i;
    return -1;
}

/* Where the model names exactly the task's labels, its order holds: spellings[id]. */
static void order_labels(const char **spellings, const sfq_task *task, const char *const *names,
                         int count)
{
    bool same = names != NULL && count == task->label_count;
    for (int i = 0; i < task->label_count; i++) {
        spellings[i] = task->labels[i];
        same = same && find_name(task->labels[i], names, count) >= 0;
    }
    for (int i = 0; same && i < task->label_count; i++)
        spellings[find_name(task->labels[i], names, count)] = task->labels[i];
}

/* GLUE's own files spell their labels one way; own data may use the model's names, too. */
static void choose_labels(sfq_reader *r, const char **spellings, const sfq_task *task, bool glue,
                          const char *const *names, int count)
{
    bool own = strcmp(task->name, own_classes.name) == 0;
    if (own)
        task = count > 1 ? &own_classes : &own_values;
    r->task = task;
    r->label_count = own ? count : task->label_count;
    r->value_min = own ? -3.4e38 : 0.0;
    r->value_max = own ? 3.4e38 : 5.0;
    r->names = !glue && count == r->label_count ? names : NULL;
    if (task->labels[0] != NULL) {
        order_labels(spellings, task, names, count);
        r->names = spellings;
    }
}

/* ---- opening --------------------------------------------------------------------------------- */

typedef struct sfq_dataset_storage {
    sfq_buf file;
    sfq_arena *arena;
} sfq_dataset_storage;

static void storage_close(sfq_dataset_storage *storage)
{
    if (storage == NULL)
        return;
    sfq_buf_free(&storage->file);
    sfq_arena_close(&storage->arena);
    sfq_mem_free(storage);
}

/* Moves what the reader holds into *out. */
static sfq_status hand_over(sfq_dataset **out, sfq_reader *r, sfq_error *err)
{
    sfq_dataset *dataset = SFQ_NEW(sfq_dataset);
    sfq_dataset_storage *storage = SFQ_NEW(sfq_dataset_storage);
    if (dataset == NULL || storage == NULL) {
        sfq_mem_free(dataset);
        sfq_mem_free(storage);
        return sfq_fail_memory(err, sizeof(*dataset) + sizeof(*storage), "data set");
    }
    storage->file = r->file;
    storage->arena = r->arena;
    dataset->task = r->task;
    dataset->examples = r->examples;
    dataset->count = r->count;
    dataset->labelled = r->labelled;
    dataset->storage = storage;
    r->file = (sfq_buf){0};
    r->arena = NULL;
    r->examples = NULL;
    *out = dataset;
    return SFQ_OK;
}

static sfq_status open_split(sfq_dataset **out, const char *task, const char *dir,
                             const char *split, const char *const *label_names, int label_count,
                             bool labels_optional, sfq_error *err)
{
    *out = NULL;
    const sfq_task *row = sfq_task_find(task == NULL ? own_classes.name : task);
    bool known = row != NULL;
    if (!known)
        row = &own_classes;
    if (!sfq_name_is_plain(split))
        return sfq_fail(err, SFQ_E_ARGUMENT, "a split is a plain name such as \"dev\"");
    const sfq_tsv_layout *layout = sfq_tsv_layout_find(row->name);
    const char *spellings[4] = {NULL};
    sfq_layout_kind kind = LAYOUT_TSV;
    char *path = NULL;
    sfq_reader r = {.file = SFQ_BUF_INIT(SFQ_DATA_MAX_BYTES), .labels_optional = labels_optional};
    sfq_status status = SFQ_OK;

    status = find_file(&path, &kind, dir, split, layout != NULL, err);
    if (status == SFQ_E_NOT_FOUND && !known)
        status = sfq_fail_at(err, SFQ_E_ARGUMENT, dir, NULL,
                             "\"%s\" is none of %s, and %s has no %s.jsonl or .csv of own data",
                             task, sfq_task_names(), dir, split);
    if (status != SFQ_OK)
        goto done;
    r.path = path;
    choose_labels(&r, spellings, row, kind == LAYOUT_TSV, label_names, label_count);
    if (kind == LAYOUT_TSV)
        SFQ_DO(sfq_tsv_read(&r, layout, err));
    else if (kind == LAYOUT_JSONL)
        SFQ_DO(sfq_jsonl_read(&r, err));
    else
        SFQ_DO(sfq_csv_read(&r, err));
    if (r.count == 0) {
        status = sfq_fail_at(err, SFQ_E_DATA, path, NULL, "%s: no examples in it", path);
        goto done;
    }
    SFQ_DO(hand_over(out, &r, err));
done:
    sfq_buf_free(&r.file);
    sfq_arena_close(&r.arena);
    sfq_mem_free(r.examples);
    sfq_mem_free(path);
    return status;
}

sfq_status sfq_dataset_open(sfq_dataset **out, const char *task, const char *dir, const char *split,
                            const char *const *label_names, int label_count, sfq_error *err)
{
    return open_split(out, task, dir, split, label_names, label_count, false, err);
}

sfq_status sfq_dataset_open_texts(sfq_dataset **out, const char *task, const char *dir,
                                  const char *split, const char *const *label_names,
                                  int label_count, sfq_error *err)
{
    return open_split(out, task, dir, split, label_names, label_count, true, err);
}

/* A GLUE task's name asks for its metric: there a missing file is an error. */
static sfq_status is_absent(bool *absent, const char *task, const char *dir, const char *split,
                            sfq_error *err)
{
    const sfq_task *row = sfq_task_find(task == NULL ? own_classes.name : task);
    sfq_layout_kind kind;
    char *path = NULL;
    *absent = false;
    if (row != NULL && row != &own_classes)
        return SFQ_OK;
    sfq_status status = find_file(&path, &kind, dir, split, false, err);
    sfq_mem_free(path);
    *absent = status == SFQ_E_NOT_FOUND;
    return *absent ? SFQ_OK : status;
}

sfq_status sfq_dataset_has_labels(bool *has, const char *task, const char *dir, const char *split,
                                  const char *const *label_names, int label_count, sfq_error *err)
{
    sfq_dataset *data = NULL;
    bool absent;
    *has = false;
    SFQ_TRY(is_absent(&absent, task, dir, split, err));
    if (absent)
        return SFQ_OK;
    SFQ_TRY(sfq_dataset_open_texts(&data, task, dir, split, label_names, label_count, err));
    *has = data->labelled > 0;
    sfq_dataset_close(&data);
    return SFQ_OK;
}

void sfq_dataset_close(sfq_dataset **dataset)
{
    if (dataset == NULL || *dataset == NULL)
        return;
    storage_close((*dataset)->storage);
    sfq_mem_free((*dataset)->examples);
    sfq_mem_free(*dataset);
    *dataset = NULL;
}
