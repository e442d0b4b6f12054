/* output - results on stdout: text, tables, and the one JSON object. A failed write is remembered
 * and reported once at the end; a reader that has gone (EPIPE) ends the program quietly. */
#ifndef SFQ_CLI_OUTPUT_H
#define SFQ_CLI_OUTPUT_H

#include "base/json.h"
#include "base/mem.h"

#include <stdint.h>

/* Text to stdout; false once a write has failed. */
bool cli_out_text(const char *text, size_t bytes);
bool cli_outf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool cli_out_flush(void);
/* Text of a model or a file for a terminal: control characters but line break and tab are dropped
 * when stdout is a terminal, so that nothing but text reaches it. */
bool cli_out_foreign(const char *text, size_t bytes);

/* JSON: members are added without checks in between; a failed one makes cli_json_print report
 * MEMORY. Numbers that are not finite become null. */
void cli_json_put(json_t *object, const char *key, json_t *value);     /* steals value */
void cli_json_text(json_t *object, const char *key, const char *text); /* NULL: null */
void cli_json_int(json_t *object, const char *key, uint64_t value);
void cli_json_real(json_t *object, const char *key, double value);
void cli_json_append(json_t *array, json_t *value); /* steals value */
void cli_json_bool(json_t *object, const char *key, bool value);
json_t *cli_json_open(void); /* {"schema": 1} */
/* Prints *object on one line and frees it. */
sfq_status cli_json_print(json_t **object, sfq_error *err);
/* The member "error" of the contract. */
void cli_json_error(json_t *object, const sfq_error *error);

/* ---- tables: rows of cells, columns as wide as their widest cell ---- */

#define CLI_TABLE_COLUMNS 10

typedef struct cli_table {
    const char *cells[512];
    size_t count;
    size_t columns;
    unsigned left; /* bit c: column c is aligned to the left */
    sfq_arena *arena;
} cli_table;

/* Cells are copied; beyond the table's room they are dropped (rows are bounded by the callers). */
void cli_table_cell(cli_table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool cli_table_print(const cli_table *table);

/* "10.4 MB", "1.5 G", "0:42" into a small buffer of the caller, which is returned. */
typedef struct cli_text {
    char s[32];
} cli_text;
const char *cli_bytes(cli_text *buffer, uint64_t bytes);
const char *cli_count(cli_text *buffer, double count);
const char *cli_reduction(cli_text *buffer, double reduction); /* "49.6 % smaller" */
const char *cli_time(cli_text *buffer, double seconds);

#endif
