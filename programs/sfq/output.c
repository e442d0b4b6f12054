/* output - see output.h. */
#include "output.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool cli_out_text(const char *text, size_t bytes)
{
    return fwrite(text, 1, bytes, stdout) == bytes;
}

bool cli_outf(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int written = vprintf(fmt, args);
    va_end(args);
    return written >= 0;
}

bool cli_out_flush(void)
{
    return fflush(stdout) == 0 && !ferror(stdout);
}

/* Length of the control character at text[0], 0 for anything that may reach a terminal. Besides C0
 * and DEL these are the C1 controls, U+0080..U+009F, which are two bytes of UTF-8. */
static size_t control_length(const char *text, size_t bytes)
{
    unsigned char c = (unsigned char)text[0];
    if (c == '\n' || c == '\t')
        return 0;
    if (c < 0x20 || c == 0x7f)
        return 1;
    return c == 0xc2 && bytes > 1 && (unsigned char)text[1] < 0xa0 ? 2 : 0;
}

bool cli_out_foreign(const char *text, size_t bytes)
{
    size_t start = 0, skip;
    if (!isatty(STDOUT_FILENO))
        return cli_out_text(text, bytes);
    for (size_t i = 0; i < bytes; i += skip ? skip : 1) {
        skip = control_length(text + i, bytes - i);
        if (skip == 0)
            continue;
        if (!cli_out_text(text + start, i - start))
            return false;
        start = i + skip;
    }
    return cli_out_text(text + start, bytes - start);
}

/* Set when a member could not be added, looked at when the object is printed. */
static bool json_failed;

void cli_json_put(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        json_failed = true;
}

void cli_json_append(json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        json_failed = true;
}

void cli_json_text(json_t *object, const char *key, const char *text)
{
    cli_json_put(object, key, text ? json_string(text) : json_null());
}

void cli_json_int(json_t *object, const char *key, uint64_t value)
{
    cli_json_put(object, key, json_integer((json_int_t)value));
}

void cli_json_real(json_t *object, const char *key, double value)
{
    cli_json_put(object, key, isfinite(value) ? json_real(value) : json_null());
}

void cli_json_bool(json_t *object, const char *key, bool value)
{
    cli_json_put(object, key, json_boolean(value));
}

json_t *cli_json_open(void)
{
    json_t *object = json_object();
    cli_json_int(object, "schema", 1);
    return object;
}

void cli_json_error(json_t *object, const sfq_error *error)
{
    json_t *e = json_object();
    cli_json_text(e, "code", sfq_status_name(error->code));
    cli_json_text(e, "message", error->message);
    cli_json_text(e, "file", error->file);
    cli_json_text(e, "tensor", error->tensor);
    cli_json_put(object, "error", e);
}

sfq_status cli_json_print(json_t **object, sfq_error *err)
{
    bool failed = json_failed || *object == NULL;
    if (!failed && json_dumpf(*object, stdout, JSON_REAL_PRECISION(15)) == 0)
        cli_out_text("\n", 1);
    else if (!ferror(stdout))
        failed = true;
    json_decref(*object);
    *object = NULL;
    return failed ? sfq_fail_memory(err, 0, "the JSON object") : SFQ_OK;
}

void cli_table_cell(cli_table *table, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    char *copy = sfq_arena_strndup(table->arena, text, strlen(text));
    if (table->count < sizeof table->cells / sizeof table->cells[0])
        table->cells[table->count++] = copy ? copy : "?";
}

bool cli_table_print(const cli_table *table)
{
    int width[CLI_TABLE_COLUMNS] = {0};
    bool ok = true;
    for (size_t i = 0; i < table->count; i++) {
        int length = (int)strlen(table->cells[i]);
        if (length > width[i % table->columns])
            width[i % table->columns] = length;
    }
    for (size_t i = 0; i < table->count && ok; i++) {
        size_t c = i % table->columns;
        bool last = c + 1 == table->columns, left = (table->left >> c & 1) != 0;
        int pad = left ? (last ? 0 : -width[c]) : width[c];
        ok = cli_outf("%s%*s%s", c ? "  " : "", pad, table->cells[i], last ? "\n" : "");
    }
    return ok;
}

const char *cli_bytes(cli_text *buffer, uint64_t bytes)
{
    if (bytes < 1000)
        snprintf(buffer->s, sizeof buffer->s, "%d B", (int)bytes);
    else if (bytes < 1000000)
        snprintf(buffer->s, sizeof buffer->s, "%.1f kB", (double)bytes / 1e3);
    else if (bytes < 1000000000)
        snprintf(buffer->s, sizeof buffer->s, "%.2f MB", (double)bytes / 1e6);
    else
        snprintf(buffer->s, sizeof buffer->s, "%.2f GB", (double)bytes / 1e9);
    return buffer->s;
}

const char *cli_count(cli_text *buffer, double count)
{
    if (!(count >= 1e4))
        snprintf(buffer->s, sizeof buffer->s, "%.*f", count < 100 && count != floor(count) ? 1 : 0,
                 count);
    else if (count < 1e6)
        snprintf(buffer->s, sizeof buffer->s, "%.1f k", count / 1e3);
    else if (count < 1e9)
        snprintf(buffer->s, sizeof buffer->s, "%.2f M", count / 1e6);
    else
        snprintf(buffer->s, sizeof buffer->s, "%.2f G", count / 1e9);
    return buffer->s;
}

const char *cli_reduction(cli_text *buffer, double reduction)
{
    snprintf(buffer->s, sizeof buffer->s, "%.1f %% %s", 100 * fabs(reduction),
             reduction < 0 ? "larger" : "smaller");
    return buffer->s;
}

const char *cli_time(cli_text *buffer, double seconds)
{
    if (!(seconds >= 0) || seconds > 359999)
        snprintf(buffer->s, sizeof buffer->s, "-");
    else if (seconds < 60)
        snprintf(buffer->s, sizeof buffer->s, "%.1f s", seconds);
    else if (seconds < 3600)
        snprintf(buffer->s, sizeof buffer->s, "%d:%02d min", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf(buffer->s, sizeof buffer->s, "%d:%02d h", (int)seconds / 3600,
                 (int)seconds / 60 % 60);
    return buffer->s;
}
