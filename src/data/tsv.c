/* data/tsv.c - GLUE's tab-separated files as they were published: a byte-order mark may open them,
 * CoLA has no header, quotes are ordinary characters, one line is one example. Columns are found by
 * their header names, because train and dev files of one task differ in number. Fields stay in the
 * file's buffer; tabs and line ends become NUL. */
#include "data/reader.h"

#include <string.h>

enum { MAX_COLUMNS = 64 };

static const sfq_tsv_layout layouts[] = {
    {.task = "sst2", .text = "sentence", .label = "label"},
    {.task = "mrpc", .text = "#1 String", .pair = "#2 String", .label = "Quality"},
    {.task = "stsb", .text = "sentence1", .pair = "sentence2", .label = "score"},
    {.task = "cola", .text_at = 3, .label_at = 1, .columns = 4},
    {.task = "rte", .text = "sentence1", .pair = "sentence2", .label = "label"},
    {.task = "wnli", .text = "sentence1", .pair = "sentence2", .label = "label"},
    {.task = "qnli", .text = "question", .pair = "sentence", .label = "label"},
    {.task = "mnli", .text = "sentence1", .pair = "sentence2", .label = "gold_label"},
    {.task = "qqp",
     .text = "question1",
     .pair = "question2",
     .label = "is_duplicate",
     .skip_short = true},
};

const sfq_tsv_layout *sfq_tsv_layout_find(const char *task)
{
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
        if (strcmp(layouts[i].task, task) == 0)
            return &layouts[i];
    return NULL;
}

typedef struct sfq_row {
    char *field[MAX_COLUMNS];
    size_t bytes[MAX_COLUMNS];
    size_t count; /* may pass MAX_COLUMNS: only the first are kept */
} sfq_row;

/* Cuts the line at *at (which moves behind its end) into fields. */
static void split_line(sfq_row *row, sfq_buf *file, size_t *at)
{
    char *begin = file->data + *at;
    char *newline = memchr(begin, '\n', file->len - *at);
    char *end = newline != NULL ? newline : file->data + file->len;
    *at = newline != NULL ? (size_t)(newline - file->data) + 1 : file->len;
    if (end > begin && end[-1] == '\r')
        end--;
    *end = 0;
    row->count = 0;
    for (char *p = begin;; p++) {
        char *tab = memchr(p, '\t', (size_t)(end - p));
        char *stop = tab != NULL ? tab : end;
        if (row->count < MAX_COLUMNS) {
            row->field[row->count] = p;
            row->bytes[row->count] = (size_t)(stop - p);
        }
        row->count++;
        *stop = 0;
        if (tab == NULL)
            return;
        p = tab;
    }
}

static bool find_column(const sfq_row *row, const char *name, size_t *out)
{
    for (size_t i = 0; i < row->count && i < MAX_COLUMNS; i++) {
        if (strcmp(row->field[i], name) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

typedef struct sfq_columns {
    size_t text, pair, label, need; /* need: columns that a row must have */
} sfq_columns;

static sfq_status read_header(sfq_reader *r, const sfq_tsv_layout *layout, const sfq_row *row,
                              sfq_columns *c, sfq_error *err)
{
    const char *names[3] = {layout->text, layout->pair, layout->label};
    size_t *columns[3] = {&c->text, &c->pair, &c->label};
    for (int i = 0; i < 3; i++) {
        if (names[i] == NULL)
            continue;
        if (!find_column(row, names[i], columns[i]))
            return sfq_reader_fail(r, 1, 0, err, "the header has no column \"%s\" (task %s)",
                                   names[i], layout->task);
        if (*columns[i] + 1 > c->need)
            c->need = *columns[i] + 1;
    }
    return SFQ_OK;
}

static sfq_status read_row(sfq_reader *r, const sfq_tsv_layout *layout, const sfq_row *row,
                           const sfq_columns *c, size_t line, sfq_error *err)
{
    if (row->count < c->need) {
        if (layout->skip_short)
            return SFQ_OK;
        return sfq_reader_fail(r, line, row->count, err, "the line ends after %zu of %zu columns",
                               row->count, c->need);
    }
    sfq_example e = {.text = row->field[c->text], .text_bytes = row->bytes[c->text]};
    if (layout->pair != NULL) {
        e.pair = row->field[c->pair];
        e.pair_bytes = row->bytes[c->pair];
    }
    SFQ_TRY(sfq_reader_label(r, line, c->label + 1, row->field[c->label], row->bytes[c->label], &e,
                             err));
    return sfq_reader_add(r, &e, err);
}

sfq_status sfq_tsv_read(sfq_reader *r, const sfq_tsv_layout *layout, sfq_error *err)
{
    size_t at = 0;
    sfq_row row;
    sfq_columns c = {.text = (size_t)layout->text_at,
                     .label = (size_t)layout->label_at,
                     .need = (size_t)layout->columns};
    SFQ_TRY(sfq_reader_load(r, &at, err));
    for (size_t line = 1; at < r->file.len; line++) {
        split_line(&row, &r->file, &at);
        bool blank = row.count == 1 && row.bytes[0] == 0;
        if (line == 1 && layout->text != NULL)
            SFQ_TRY(read_header(r, layout, &row, &c, err));
        else if (!blank)
            SFQ_TRY(read_row(r, layout, &row, &c, line, err));
    }
    return SFQ_OK;
}
