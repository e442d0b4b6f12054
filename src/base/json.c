/* base/json.c - jansson behind a scan of our own. jansson recurses per level and allocates per
 * value before anyone can object, so depth and number of values are counted over the text first. */
#include "base/json.h"

#include "base/buf.h"
#include "base/ck.h"
#include "base/file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { JSON_DEPTH_MAX = 64, JSON_VALUES_MAX = 4000000 };

/* Offset behind the string whose opening quote is at `at`. */
static size_t skip_string(const char *text, size_t bytes, size_t at)
{
    for (at++; at < bytes; at++) {
        if (text[at] == '\\')
            at++;
        else if (text[at] == '"')
            return at + 1;
    }
    return bytes;
}

/* Offset behind the number or word that starts at `at`. */
static size_t skip_word(const char *text, size_t bytes, size_t at)
{
    while (at < bytes && strchr(" \t\n\r,:[]{}\"", text[at]) == NULL)
        at++;
    return at;
}

typedef struct json_extent {
    size_t depth;  /* of the deepest nesting */
    size_t values; /* right for every well-formed text */
    size_t token;  /* bytes of the longest string, number or word */
} json_extent;

/* One value for the root, one for each comma, and one more for each container that is not empty. */
static json_extent measure(const char *text, size_t bytes)
{
    json_extent extent = {.values = 1};
    size_t depth = 0;
    bool opened = false; /* the last thing seen was an opening bracket */
    for (size_t at = 0; at < bytes;) {
        char c = text[at];
        size_t begin = at++;
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
            continue;
        bool closes = c == ']' || c == '}';
        if (c == ',' || (opened && !closes))
            extent.values++;
        opened = c == '[' || c == '{';
        depth += opened;
        depth -= closes && depth > 0;
        extent.depth = sfq_max_size(extent.depth, depth);
        if (c == '"')
            at = skip_string(text, bytes, begin);
        else if (!opened && !closes && c != ',' && c != ':')
            at = skip_word(text, bytes, at);
        extent.token = sfq_max_size(extent.token, at - begin);
    }
    return extent;
}

/* jansson collects each token in one buffer that it never shrinks, and where growing that buffer
 * fails it drops bytes and goes on (2.14, lex_save). So it is given ["xxx...x",TEXT] with a first
 * string that is longer than any token of the text: the buffer has its final size after it, and
 * whether that went well shows in that string's length. */
typedef struct json_feed {
    const char *text;
    size_t bytes;
    size_t pad; /* number of x */
    size_t at;
} json_feed;

enum { FEED_BEFORE = 2, FEED_BEHIND = 2 }; /* [" and ", */

static size_t feed_head(const json_feed *feed)
{
    return FEED_BEFORE + feed->pad + FEED_BEHIND;
}

static size_t feed_more(void *buffer, size_t room, void *data)
{
    json_feed *feed = data;
    char *out = buffer;
    size_t head = feed_head(feed);
    size_t n = 0;
    for (; n < room && feed->at < head; n++, feed->at++) {
        size_t tail = head - feed->at;
        out[n] = feed->at == 0 ? '[' : feed->at == 1 || tail == 2 ? '"' : tail == 1 ? ',' : 'x';
    }
    if (n < room && feed->at >= head && feed->at < head + feed->bytes) {
        size_t take = sfq_min_size(room - n, head + feed->bytes - feed->at);
        memcpy(out + n, feed->text + (feed->at - head), take);
        feed->at += take;
        n += take;
    }
    if (n < room && feed->at == head + feed->bytes) {
        out[n++] = ']';
        feed->at++;
    }
    return n;
}

static sfq_status no_memory(const char *file, sfq_error *err)
{
    return sfq_fail_at(err, SFQ_E_MEMORY, file, NULL, "%s: out of memory while reading JSON", file);
}

/* A failed allocation inside a token is "invalid token" to jansson, and some others come without
 * any text; errno tells. */
static sfq_status parse_failed(const char *file, const json_feed *feed, const json_error_t *error,
                               sfq_error *err)
{
    if (errno == ENOMEM || error->text[0] == 0 ||
        json_error_code(error) == json_error_out_of_memory)
        return no_memory(file, err);
    size_t head = feed_head(feed);
    if (error->position >= 0 && (size_t)error->position > head + feed->bytes)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL,
                           "%s: line %d: the JSON text ends too early", file, error->line);
    int column = error->line == 1 ? error->column - (int)head : error->column;
    return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL, "%s: line %d, column %d: %s", file,
                       error->line, column, error->text);
}

/* TEXT out of ["xxx...x",TEXT]. */
static sfq_status unwrap(json_t **out, json_t *root, const char *file, const json_feed *feed,
                         sfq_error *err)
{
    if (json_string_length(json_array_get(root, 0)) != feed->pad)
        return no_memory(file, err);
    json_t *value = json_array_get(root, 1);
    if (json_array_size(root) != 2 || !(json_is_object(value) || json_is_array(value)))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL,
                           "%s: line 1: expected one JSON object or array", file);
    *out = json_incref(value);
    return SFQ_OK;
}

static sfq_status check_extent(const json_extent *extent, const char *file, size_t max_objects,
                               sfq_error *err)
{
    size_t limit = max_objects != 0 ? max_objects : JSON_VALUES_MAX;
    if (extent->depth > JSON_DEPTH_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, NULL, "%s: JSON nested %zu deep, limit %d", file,
                           extent->depth, JSON_DEPTH_MAX);
    if (extent->values > limit)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, NULL, "%s: %zu JSON values, limit %zu", file,
                           extent->values, limit);
    return SFQ_OK;
}

sfq_status sfq_json_parse(json_t **out, const char *file, const char *text, size_t bytes,
                          size_t max_objects, sfq_error *err)
{
    *out = NULL;
    const char *nul = bytes > 0 ? memchr(text, 0, bytes) : NULL; /* jansson would skip it */
    if (nul != NULL)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL, "%s: a NUL byte at offset %zu", file,
                           (size_t)(nul - text));
    json_extent extent = measure(text, bytes);
    SFQ_TRY(check_extent(&extent, file, max_objects, err));
    json_feed feed = {.text = text, .bytes = bytes, .pad = extent.token + 8};
    json_error_t error = {.text = ""};
    errno = 0;
    json_t *root = json_load_callback(feed_more, &feed, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return parse_failed(file, &feed, &error, err);
    sfq_status status = unwrap(out, root, file, &feed, err);
    json_decref(root);
    return status;
}

sfq_status sfq_json_read(json_t **out, const char *path, size_t max_bytes, sfq_error *err)
{
    *out = NULL;
    sfq_buf text = SFQ_BUF_INIT(max_bytes);
    sfq_status status = sfq_file_read(&text, path, max_bytes, err);
    if (status == SFQ_OK)
        status = sfq_json_parse(out, path, text.data, text.len, 0, err);
    sfq_buf_free(&text);
    return status;
}

const json_t *sfq_json_get(const json_t *obj, const char *key)
{
    const json_t *value = json_object_get(obj, key);
    return json_is_null(value) ? NULL : value;
}

static sfq_status missing(const char *file, const char *key, sfq_error *err)
{
    return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL, "%s: key \"%s\" is missing", file, key);
}

/* "a string", "an object", ... for messages */
static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

static sfq_status wrong_type(const char *file, const char *key, const char *expected,
                             const json_t *found, sfq_error *err)
{
    return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL, "%s: key \"%s\": expected %s, found %s", file,
                       key, expected, type_name(found));
}

sfq_status sfq_json_int(const json_t *obj, const char *file, const char *key, int64_t min,
                        int64_t max, const int64_t *def, int64_t *out, sfq_error *err)
{
    const json_t *value = sfq_json_get(obj, key);
    if (value == NULL) {
        if (def == NULL)
            return missing(file, key, err);
        *out = *def;
        return SFQ_OK;
    }
    int64_t number;
    double real = json_is_real(value) ? json_real_value(value) : 0.5;
    if (json_is_integer(value))
        number = json_integer_value(value);
    else if (fabs(real) <= 0x1p53 && real == trunc(real)) /* 4096.0 */
        number = (int64_t)real;
    else
        return wrong_type(file, key, "an integer", value, err);
    if (number < min || number > max)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL,
                           "%s: key \"%s\": expected %" PRId64 " to %" PRId64 ", found %" PRId64,
                           file, key, min, max, number);
    *out = number;
    return SFQ_OK;
}

sfq_status sfq_json_real(const json_t *obj, const char *file, const char *key, double min,
                         double max, const double *def, double *out, sfq_error *err)
{
    const json_t *value = sfq_json_get(obj, key);
    if (value == NULL) {
        if (def == NULL)
            return missing(file, key, err);
        *out = *def;
        return SFQ_OK;
    }
    if (!json_is_number(value))
        return wrong_type(file, key, "a number", value, err);
    double number = json_number_value(value);
    if (!(number >= min && number <= max))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL,
                           "%s: key \"%s\": expected %g to %g, found %g", file, key, min, max,
                           number);
    *out = number;
    return SFQ_OK;
}

sfq_status sfq_json_bool(const json_t *obj, const char *file, const char *key, const bool *def,
                         bool *out, sfq_error *err)
{
    const json_t *value = sfq_json_get(obj, key);
    if (value == NULL) {
        if (def == NULL)
            return missing(file, key, err);
        *out = *def;
        return SFQ_OK;
    }
    if (!json_is_boolean(value))
        return wrong_type(file, key, "true or false", value, err);
    *out = json_is_true(value);
    return SFQ_OK;
}

sfq_status sfq_json_string(const json_t *obj, const char *file, const char *key, bool required,
                           const char **out, sfq_error *err)
{
    const json_t *value = sfq_json_get(obj, key);
    if (value == NULL && required)
        return missing(file, key, err);
    if (value != NULL && !json_is_string(value))
        return wrong_type(file, key, "a string", value, err);
    *out = value != NULL ? json_string_value(value) : NULL;
    return SFQ_OK;
}
