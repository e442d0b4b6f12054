/* data/jsonl.c - own data, one JSON object per line: text, label, and optionally text_pair. A label
 * is a number, or a string that names one of the model's labels; where none is needed, the key may
 * be absent or null. */
#include "base/json.h"
#include "data/reader.h"

#include <stdio.h>
#include <string.h>

/* The string at `key` into the arena; NULL where it is absent and not required. */
static sfq_status read_text(sfq_reader *r, const json_t *object, const char *key, bool required,
                            size_t line, const char **text, size_t *bytes, sfq_error *err)
{
    const json_t *value = sfq_json_get(object, key);
    *text = NULL;
    *bytes = 0;
    if (value == NULL && !required)
        return SFQ_OK;
    if (!json_is_string(value))
        return sfq_reader_fail(r, line, 0, err, "\"%s\" must be a string", key);
    *bytes = json_string_length(value);
    *text = sfq_arena_strndup(r->arena, json_string_value(value), *bytes);
    return *text != NULL ? SFQ_OK : sfq_fail_memory(err, *bytes, "text of an example");
}

static sfq_status read_object(sfq_reader *r, const json_t *object, size_t line, sfq_error *err)
{
    sfq_example e = {0};
    if (!json_is_object(object))
        return sfq_reader_fail(r, line, 0, err, "a line must be one JSON object");
    SFQ_TRY(read_text(r, object, "text", true, line, &e.text, &e.text_bytes, err));
    SFQ_TRY(read_text(r, object, "text_pair", false, line, &e.pair, &e.pair_bytes, err));
    const json_t *label = sfq_json_get(object, "label");
    if (r->labels_optional && (label == NULL || json_is_null(label)))
        return sfq_reader_add(r, &e, err);
    if (json_is_number(label))
        SFQ_TRY(sfq_reader_number(r, line, 0, json_number_value(label), &e, err));
    else if (json_is_string(label))
        SFQ_TRY(sfq_reader_label(r, line, 0, json_string_value(label), json_string_length(label),
                                 &e, err));
    else
        return sfq_reader_fail(r, line, 0, err, "\"label\" must be a number or a string");
    return sfq_reader_add(r, &e, err);
}

/* jansson counts lines from the text it is given, which is one line: the name carries ours. */
static sfq_status read_line(sfq_reader *r, const char *text, size_t bytes, size_t line,
                            sfq_error *err)
{
    char name[512];
    json_t *object = NULL;
    (void)snprintf(name, sizeof(name), "%s: line %zu", r->path, line);
    sfq_status status = sfq_json_parse(&object, name, text, bytes, 0, err);
    if (status == SFQ_E_FORMAT || status == SFQ_E_LIMIT) {
        char what[256];
        (void)snprintf(what, sizeof(what), "%.255s", err != NULL ? err->message : "");
        return sfq_fail_at(err, SFQ_E_DATA, r->path, NULL, "%s", what);
    }
    if (status == SFQ_OK)
        status = read_object(r, object, line, err);
    json_decref(object);
    return status;
}

static bool is_blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
            return false;
    return true;
}

sfq_status sfq_jsonl_read(sfq_reader *r, sfq_error *err)
{
    size_t at = 0;
    r->arena = sfq_arena_open();
    if (r->arena == NULL)
        return sfq_fail_memory(err, sizeof(r->arena), "texts");
    SFQ_TRY(sfq_reader_load(r, &at, err));
    for (size_t line = 1; at < r->file.len; line++) {
        const char *begin = r->file.data + at;
        const char *newline = memchr(begin, '\n', r->file.len - at);
        size_t bytes = newline != NULL ? (size_t)(newline - begin) : r->file.len - at;
        if (!is_blank(begin, bytes))
            SFQ_TRY(read_line(r, begin, bytes, line, err));
        at += bytes + (newline != NULL);
    }
    return SFQ_OK;
}
