/* data/reader.h - shared by the three file readers of this folder (tsv, csv, jsonl): where they put
 * the examples that they find, how a label's spelling becomes a number. For this folder only. */
#ifndef SFQ_DATA_READER_H
#define SFQ_DATA_READER_H

#include "base/buf.h"
#include "base/mem.h"
#include "data/task.h"

#define SFQ_DATA_MAX_BYTES ((size_t)1 << 32)

/* One GLUE file layout: columns by name where the file has a header, by index otherwise. */
typedef struct sfq_tsv_layout {
    const char *task;
    const char *text, *pair, *label; /* header names; text NULL: no header, the indices count */
    int text_at, label_at, columns;
    bool skip_short; /* rows with missing columns are left out (QQP has a few) */
} sfq_tsv_layout;

typedef struct sfq_reader {
    const char *path;
    const sfq_task *task;
    const char *const *names; /* label spellings of ids 0..count-1; NULL: ids in the file */
    int label_count;
    bool labels_optional;        /* jsonl and csv may have examples without one */
    double value_min, value_max; /* regression */
    sfq_buf file;                /* the file's bytes; tsv and csv fields stay in it */
    sfq_arena *arena;            /* strings of jsonl */
    sfq_example *examples;
    size_t count, capacity, labelled;
} sfq_reader;

/* Reads the file, refuses invalid UTF-8 and NUL bytes; *at is the first byte behind a byte-order
 * mark. */
sfq_status sfq_reader_load(sfq_reader *r, size_t *at, sfq_error *err);
sfq_status sfq_reader_add(sfq_reader *r, const sfq_example *example, sfq_error *err);
/* Fills label or value of *example from a spelling; DATA names line and column. */
sfq_status sfq_reader_label(const sfq_reader *r, size_t line, size_t column, const char *text,
                            size_t bytes, sfq_example *example, sfq_error *err);
/* The same from a number of a JSON file. */
sfq_status sfq_reader_number(const sfq_reader *r, size_t line, size_t column, double value,
                             sfq_example *example, sfq_error *err);
sfq_status sfq_reader_fail(const sfq_reader *r, size_t line, size_t column, sfq_error *err,
                           const char *fmt, ...) __attribute__((format(printf, 5, 6)));

const sfq_tsv_layout *sfq_tsv_layout_find(const char *task);
sfq_status sfq_tsv_read(sfq_reader *r, const sfq_tsv_layout *layout, sfq_error *err);
sfq_status sfq_csv_read(sfq_reader *r, sfq_error *err);
sfq_status sfq_jsonl_read(sfq_reader *r, sfq_error *err);

/* Decimal number without regard to the process's locale; false unless all n bytes are one finite
 * number. */
bool sfq_decimal_parse(const char *s, size_t n, double *out);

#endif
