/* data/csv.c - own data as comma-separated values by RFC 4180: a header with text, label and
 * optionally text_pair, fields that may be quoted, quotes doubled inside, line ends inside quotes.
 * Where no label is needed, the column may be absent or a field empty.
 * Fields are unquoted in place in the file's buffer. */
#include "data/reader.h"

#include <string.h>

enum { MAX_COLUMNS = 64 };

typedef struct sfq_csv {
    sfq_reader *r;
    size_t at, line; /* of the next byte */
    char *field[MAX_COLUMNS];
    size_t bytes[MAX_COLUMNS];
    size_t count;
    size_t first_line; /* of the row read last */
} sfq_csv;

/* Behind the closing quote; *length is that of the unquoted content, which begins at begin + 1. */
static sfq_status read_quoted(sfq_csv *c, size_t *length, sfq_error *err)
{
    char *data = c->r->file.data;
    size_t size = c->r->file.len;
    size_t to = c->at + 1, from = c->at + 1;
    while (from < size) {
        if (data[from] == '"' && !(from + 1 < size && data[from + 1] == '"')) {
            *length = to - c->at - 1;
            c->at = from + 1;
            return SFQ_OK;
        }
        c->line += data[from] == '\n';
        from += data[from] == '"';
        data[to++] = data[from++];
    }
    return sfq_reader_fail(c->r, c->first_line, c->count + 1, err,
                           "the quote that opens here is never closed");
}

/* One field; the separator behind it is consumed and returned in *end (',' or '\n'). */
static sfq_status read_field(sfq_csv *c, char *end, sfq_error *err)
{
    char *data = c->r->file.data;
    size_t size = c->r->file.len;
    size_t begin = c->at, length = 0;
    bool quoted = c->at < size && data[c->at] == '"';
    if (quoted) {
        SFQ_TRY(read_quoted(c, &length, err));
        begin++;
    }
    while (!quoted && c->at < size && data[c->at] != ',' && data[c->at] != '\n') {
        if (data[c->at] == '"')
            return sfq_reader_fail(c->r, c->line, c->count + 1, err,
                                   "a quote inside a field that does not begin with one");
        c->at++;
    }
    if (!quoted)
        length = c->at - begin;
    if (!quoted && length > 0 && data[begin + length - 1] == '\r')
        length--;
    if (quoted && c->at + 1 < size && data[c->at] == '\r' && data[c->at + 1] == '\n')
        c->at++;
    if (c->at < size && data[c->at] != ',' && data[c->at] != '\n')
        return sfq_reader_fail(c->r, c->line, c->count + 1, err,
                               "text behind the closing quote; a quote inside is written twice");
    *end = c->at < size ? data[c->at] : '\n';
    c->line += *end == '\n';
    if (c->count < MAX_COLUMNS) {
        c->field[c->count] = data + begin;
        c->bytes[c->count] = length;
    }
    c->count++;
    c->at += c->at < size;
    return SFQ_OK;
}

static sfq_status read_record(sfq_csv *c, sfq_error *err)
{
    char end = ',';
    c->count = 0;
    c->first_line = c->line;
    while (end == ',')
        SFQ_TRY(read_field(c, &end, err));
    if (c->count > MAX_COLUMNS)
        return sfq_reader_fail(c->r, c->first_line, c->count, err, "more than %d columns",
                               (int)MAX_COLUMNS);
    for (size_t i = 0; i < c->count; i++)
        c->field[i][c->bytes[i]] = 0;
    return SFQ_OK;
}

static sfq_status read_header(sfq_csv *c, int column[3], sfq_error *err)
{
    static const char *const names[3] = {"text", "text_pair", "label"};
    for (int k = 0; k < 3; k++) {
        column[k] = -1;
        for (size_t i = 0; i < c->count; i++)
            if (strcmp(c->field[i], names[k]) == 0)
                column[k] = (int)i;
        bool optional = k == 1 || (k == 2 && c->r->labels_optional);
        if (column[k] < 0 && !optional)
            return sfq_reader_fail(c->r, 1, 0, err, "the header has no column \"%s\"", names[k]);
    }
    return SFQ_OK;
}

static sfq_status read_example(sfq_csv *c, const int column[3], size_t columns, sfq_error *err)
{
    if (c->count != columns)
        return sfq_reader_fail(c->r, c->first_line, c->count, err,
                               "%zu columns where the header has %zu", c->count, columns);
    size_t text = (size_t)column[0];
    sfq_example e = {.text = c->field[text], .text_bytes = c->bytes[text]};
    if (column[1] >= 0) {
        e.pair = c->field[column[1]];
        e.pair_bytes = c->bytes[column[1]];
    }
    size_t label = (size_t)column[2];
    bool none = column[2] < 0 || (c->bytes[label] == 0 && c->r->labels_optional);
    if (!none)
        SFQ_TRY(sfq_reader_label(c->r, c->first_line, label + 1, c->field[label], c->bytes[label],
                                 &e, err));
    return sfq_reader_add(c->r, &e, err);
}

sfq_status sfq_csv_read(sfq_reader *r, sfq_error *err)
{
    sfq_csv c = {.r = r, .line = 1};
    int column[3];
    SFQ_TRY(sfq_reader_load(r, &c.at, err));
    SFQ_TRY(read_record(&c, err));
    SFQ_TRY(read_header(&c, column, err));
    size_t columns = c.count;
    while (c.at < r->file.len) {
        SFQ_TRY(read_record(&c, err));
        bool blank = c.count == 1 && c.bytes[0] == 0;
        if (!blank)
            SFQ_TRY(read_example(&c, column, columns, err));
    }
    return SFQ_OK;
}
