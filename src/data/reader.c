/* data/reader.c - what the file readers share: loading and checking the bytes, collecting examples,
 * turning label spellings into numbers, and errors that name file, line and column. */
#include "data/reader.h"

#include "base/file.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

sfq_status sfq_reader_fail(const sfq_reader *r, size_t line, size_t column, sfq_error *err,
                           const char *fmt, ...)
{
    char what[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    if (column == 0)
        return sfq_fail_at(err, SFQ_E_DATA, r->path, NULL, "%s: line %zu: %s", r->path, line, what);
    return sfq_fail_at(err, SFQ_E_DATA, r->path, NULL, "%s: line %zu, column %zu: %s", r->path,
                       line, column, what);
}

static size_t line_of(const char *data, size_t at)
{
    size_t line = 1;
    for (size_t i = 0; i < at; i++)
        line += data[i] == '\n';
    return line;
}

sfq_status sfq_reader_load(sfq_reader *r, size_t *at, sfq_error *err)
{
    SFQ_TRY(sfq_file_read(&r->file, r->path, SFQ_DATA_MAX_BYTES, err));
    const char *data = r->file.data;
    size_t size = r->file.len;
    if (size == 0)
        return sfq_fail_at(err, SFQ_E_DATA, r->path, NULL, "%s: the file is empty", r->path);
    size_t good = sfq_utf8_valid_prefix(data, size);
    if (good < size)
        return sfq_reader_fail(r, line_of(data, good), 0, err, "invalid UTF-8 at byte %zu", good);
    const char *nul = memchr(data, 0, size);
    if (nul != NULL)
        return sfq_reader_fail(r, line_of(data, (size_t)(nul - data)), 0, err,
                               "a NUL byte at byte %zu", (size_t)(nul - data));
    *at = size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    return SFQ_OK;
}

sfq_status sfq_reader_add(sfq_reader *r, const sfq_example *example, sfq_error *err)
{
    if (r->count == r->capacity) {
        size_t capacity = r->capacity == 0 ? 256 : r->capacity * 2;
        sfq_example *grown = sfq_mem_resize(r->examples, capacity, sizeof(*grown));
        if (grown == NULL)
            return sfq_fail_memory(err, capacity * sizeof(*grown), "examples");
        r->examples = grown;
        r->capacity = capacity;
    }
    r->examples[r->count++] = *example;
    r->labelled += example->labelled;
    return SFQ_OK;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* [+-]digits at *i; false when there is no digit or it passes 9999. */
static bool parse_exponent(const char *s, size_t n, size_t *i, int *out)
{
    bool negative = false;
    if (*i < n && (s[*i] == '+' || s[*i] == '-'))
        negative = s[(*i)++] == '-';
    size_t begin = *i;
    int value = 0;
    for (; *i < n && s[*i] >= '0' && s[*i] <= '9' && value <= 999; (*i)++)
        value = value * 10 + (s[*i] - '0');
    *out = negative ? -value : value;
    return *i > begin;
}

/* The mantissa keeps 18 digits, far beyond the float that becomes of it. */
bool sfq_decimal_parse(const char *s, size_t n, double *out)
{
    size_t i = 0, digits = 0;
    bool negative = false, point = false;
    uint64_t mantissa = 0;
    int scale = 0, exponent = 0;
    if (i < n && (s[i] == '+' || s[i] == '-'))
        negative = s[i++] == '-';
    for (; i < n && ((s[i] >= '0' && s[i] <= '9') || (s[i] == '.' && !point)); i++) {
        if (s[i] == '.') {
            point = true;
            continue;
        }
        digits++;
        if (mantissa < 100000000000000000u) {
            mantissa = mantissa * 10 + (uint64_t)(s[i] - '0');
            scale -= point;
        } else {
            scale += !point;
        }
    }
    if (digits == 0 || digits > 400)
        return false;
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        if (!parse_exponent(s, n, &i, &exponent))
            return false;
    }
    if (i != n)
        return false;
    int power = scale + exponent;
    double value =
        power < 0 ? (double)mantissa / pow(10.0, -power) : (double)mantissa * pow(10.0, power);
    *out = negative ? -value : value;
    return isfinite(*out);
}

/* ---- labels ---------------------------------------------------------------------------------- */

sfq_status sfq_reader_number(const sfq_reader *r, size_t line, size_t column, double value,
                             sfq_example *example, sfq_error *err)
{
    if (r->task->kind == SFQ_TASK_REGRESSION) {
        if (!(value >= r->value_min && value <= r->value_max))
            return sfq_reader_fail(r, line, column, err, "the label %g is outside %g..%g", value,
                                   r->value_min, r->value_max);
        example->value = (float)value;
        example->labelled = true;
        return SFQ_OK;
    }
    if (!(value >= 0 && value < r->label_count) || value != floor(value))
        return sfq_reader_fail(r, line, column, err, "the label %g is not a whole number in 0..%d",
                               value, r->label_count - 1);
    example->label = (int)value;
    example->labelled = true;
    return SFQ_OK;
}

sfq_status sfq_reader_label(const sfq_reader *r, size_t line, size_t column, const char *text,
                            size_t bytes, sfq_example *example, sfq_error *err)
{
    if (r->task->kind == SFQ_TASK_CLASSES && r->names != NULL) {
        for (int i = 0; i < r->label_count; i++) {
            if (r->names[i] == NULL || strlen(r->names[i]) != bytes)
                continue;
            if (memcmp(r->names[i], text, bytes) == 0) {
                example->label = i;
                example->labelled = true;
                return SFQ_OK;
            }
        }
    }
    double value = 0;
    if (!sfq_decimal_parse(text, bytes, &value))
        return sfq_reader_fail(r, line, column, err, "\"%.*s\" is no label of this task",
                               (int)(bytes < 40 ? bytes : 40), text);
    return sfq_reader_number(r, line, column, value, example, err);
}
