/* format/st_header.c - one pass over the JSON of a safetensors header. It accepts exactly the
 * grammar that the format gives, so nothing here recurses and no depth limit is needed. */
#include "format/st_header.h"

#include "base/buf.h"
#include "base/ck.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <string.h>

/* Dtypes that the format knows and sfq does not read: their extents are still checked, so that a
 * damaged file is told from a model of another kind. */
typedef struct foreign_dtype {
    const char *name;
    unsigned bits;
    bool is_float;
} foreign_dtype;

static const foreign_dtype foreign_dtypes[] = {
    {"F64", 64, true},        {"F8_E4M3", 8, true},     {"F8_E5M2", 8, true}, {"F8_E8M0", 8, true},
    {"F8_E4M3FNUZ", 8, true}, {"F8_E5M2FNUZ", 8, true}, {"F6_E2M3", 6, true}, {"F6_E3M2", 6, true},
    {"F4", 4, true},          {"I16", 16, false},       {"U16", 16, false},   {"I32", 32, false},
    {"U32", 32, false},       {"U64", 64, false},       {"C64", 64, false},
};

typedef struct cursor {
    const char *file, *text;
    size_t at, n;
    sfq_st_header *h;
    sfq_buf scratch; /* of the string just read, when it had escapes */
    sfq_error *err;
} cursor;

typedef struct span {
    const char *s;
    size_t n;
} span;

static sfq_status fail(const cursor *c, const char *what)
{
    return sfq_fail_at(c->err, SFQ_E_FORMAT, c->file, NULL, "%s: header byte %zu: %s", c->file,
                       c->at, what);
}

static sfq_status fail_tensor(const cursor *c, sfq_status code, const char *name, const char *what)
{
    return sfq_fail_at(c->err, code, c->file, name, "%s: tensor %s: %s", c->file, name, what);
}

static void skip_space(cursor *c)
{
    while (c->at < c->n && (c->text[c->at] == ' ' || c->text[c->at] == '\n' ||
                            c->text[c->at] == '\r' || c->text[c->at] == '\t'))
        c->at++;
}

/* Skips white space and takes `byte` when it comes next. */
static bool take(cursor *c, char byte)
{
    skip_space(c);
    if (c->at == c->n || c->text[c->at] != byte)
        return false;
    c->at++;
    return true;
}

static sfq_status need(cursor *c, char byte)
{
    char what[32] = "expected 'x'";
    if (take(c, byte))
        return SFQ_OK;
    what[10] = byte;
    return fail(c, what);
}

/* ---- strings ---- */

static bool hex4(const char *s, uint32_t *out)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        char d = s[i];
        uint32_t x;
        if (d >= '0' && d <= '9')
            x = (uint32_t)(d - '0');
        else if (d >= 'a' && d <= 'f')
            x = (uint32_t)(d - 'a' + 10);
        else if (d >= 'A' && d <= 'F')
            x = (uint32_t)(d - 'A' + 10);
        else
            return false;
        v = v * 16 + x;
    }
    *out = v;
    return true;
}

/* The escape at s (behind the backslash) as UTF-8. NUL and lone surrogates are refused. */
static bool unescape(const char *s, size_t n, char out[4], size_t *out_n, size_t *used)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *simple = n > 0 && s[0] != '\0' ? strchr(from, s[0]) : NULL;
    uint32_t cp, low;
    if (simple) {
        out[0] = to[simple - from];
        *out_n = *used = 1;
        return true;
    }
    if (n < 5 || s[0] != 'u' || !hex4(s + 1, &cp) || cp == 0 || (cp >= 0xdc00 && cp < 0xe000))
        return false;
    *used = 5;
    if (cp >= 0xd800 && cp < 0xdc00) {
        if (n < 11 || s[5] != '\\' || s[6] != 'u' || !hex4(s + 7, &low) || low < 0xdc00 ||
            low >= 0xe000)
            return false;
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
        *used = 11;
    }
    *out_n = sfq_utf8_put(cp, out);
    return true;
}

/* The raw bytes from text[from] to text[to), with their escapes resolved, into scratch. */
static sfq_status resolve(cursor *c, size_t from, size_t to, span *out)
{
    sfq_buf_clear(&c->scratch);
    SFQ_TRY(sfq_buf_reserve(&c->scratch, to - from, c->err));
    while (from < to) {
        char piece[4];
        size_t n, used;
        if (c->text[from] != '\\') {
            SFQ_TRY(sfq_buf_add(&c->scratch, c->text + from, 1, c->err));
            from++;
            continue;
        }
        if (!unescape(c->text + from + 1, to - from - 1, piece, &n, &used)) {
            c->at = from;
            return fail(c, "escape that is no JSON, NUL or a lone surrogate");
        }
        SFQ_TRY(sfq_buf_add(&c->scratch, piece, n, c->err));
        from += used + 1;
    }
    *out = (span){c->scratch.data, c->scratch.len};
    return SFQ_OK;
}

/* The next string. *out points into the text or into scratch, until the next string is read. */
static sfq_status read_string(cursor *c, span *out)
{
    bool escapes = false;
    size_t from, n;
    SFQ_TRY(need(c, '"'));
    for (from = c->at; c->at < c->n && c->text[c->at] != '"'; c->at++) {
        if ((unsigned char)c->text[c->at] < 0x20)
            return fail(c, "control character inside a string");
        if (c->text[c->at] == '\\') {
            escapes = true;
            c->at++;
        }
    }
    if (c->at >= c->n)
        return fail(c, "string without an end");
    n = c->at - from;
    if (n > SFQ_ST_MAX_TEXT)
        return sfq_fail_at(c->err, SFQ_E_LIMIT, c->file, NULL,
                           "%s: header byte %zu: string of %zu bytes, limit %u", c->file, from, n,
                           SFQ_ST_MAX_TEXT);
    if (sfq_utf8_valid_prefix(c->text + from, n) != n) {
        c->at = from + sfq_utf8_valid_prefix(c->text + from, n);
        return fail(c, "not UTF-8");
    }
    c->at++;
    *out = (span){c->text + from, n};
    return escapes ? resolve(c, from, from + n, out) : SFQ_OK;
}

static bool span_is(span s, const char *word)
{
    return s.n == strlen(word) && memcmp(s.s, word, s.n) == 0;
}

/* A copy that lives as long as the header. */
static sfq_status keep(cursor *c, span s, const char **out)
{
    c->h->text_bytes += s.n + 1;
    if (c->h->text_bytes > SFQ_ST_MAX_TEXT)
        return sfq_fail_at(c->err, SFQ_E_LIMIT, c->file, NULL,
                           "%s: names and metadata pass %u bytes", c->file, SFQ_ST_MAX_TEXT);
    *out = sfq_arena_strndup(c->h->arena, s.s, s.n);
    return *out ? SFQ_OK : sfq_fail_memory(c->err, s.n + 1, "a safetensors header");
}

/* ---- numbers ---- */

/* A whole number without sign, fraction or exponent. */
static sfq_status read_uint(cursor *c, uint64_t *out)
{
    uint64_t v = 0;
    size_t from;
    skip_space(c);
    for (from = c->at; c->at < c->n && c->text[c->at] >= '0' && c->text[c->at] <= '9'; c->at++) {
        uint64_t digit = (uint64_t)(c->text[c->at] - '0');
        if (__builtin_mul_overflow(v, (uint64_t)10, &v) || __builtin_add_overflow(v, digit, &v))
            return fail(c, "number does not fit 64 bits");
    }
    if (c->at == from)
        return fail(c, "expected a whole number >= 0");
    if (c->text[from] == '0' && c->at - from > 1)
        return fail(c, "number with a leading zero");
    if (c->at < c->n && strchr(".eE", c->text[c->at]) && c->text[c->at] != '\0')
        return fail(c, "expected a whole number without fraction or exponent");
    *out = v;
    return SFQ_OK;
}

/* [a, b, ...] with at most max numbers. */
static sfq_status read_uints(cursor *c, uint64_t *out, int max, int *count)
{
    *count = 0;
    SFQ_TRY(need(c, '['));
    if (take(c, ']'))
        return SFQ_OK;
    do {
        if (*count == max)
            return sfq_fail_at(c->err, SFQ_E_LIMIT, c->file, NULL,
                               "%s: header byte %zu: more than %d numbers in a list", c->file,
                               c->at, max);
        SFQ_TRY(read_uint(c, &out[*count]));
        *count += 1;
    } while (take(c, ','));
    return need(c, ']');
}

/* ---- tensors ---- */

/* What the text says about one tensor, before it is believed. */
typedef struct draft {
    char dtype[24];
    uint64_t shape[SFQ_MAX_RANK], extent[2];
    int rank, extent_count;
    bool has_dtype, has_shape, has_extent;
} draft;

static sfq_status read_member(cursor *c, draft *d)
{
    span key, value;
    SFQ_TRY(read_string(c, &key));
    bool is_dtype = span_is(key, "dtype"), is_shape = span_is(key, "shape");
    if (!is_dtype && !is_shape && !span_is(key, "data_offsets"))
        return fail(c, "a tensor has dtype, shape and data_offsets, and nothing else");
    if (is_dtype ? d->has_dtype : is_shape ? d->has_shape : d->has_extent)
        return fail(c, "duplicate key in a tensor");
    SFQ_TRY(need(c, ':'));
    if (is_dtype) {
        SFQ_TRY(read_string(c, &value));
        if (value.n >= sizeof d->dtype)
            return fail(c, "unknown dtype");
        memcpy(d->dtype, value.s, value.n);
        d->has_dtype = true;
        return SFQ_OK;
    }
    if (is_shape) {
        d->has_shape = true;
        return read_uints(c, d->shape, SFQ_MAX_RANK, &d->rank);
    }
    d->has_extent = true;
    SFQ_TRY(read_uints(c, d->extent, 2, &d->extent_count));
    return d->extent_count == 2 ? SFQ_OK : fail(c, "data_offsets needs two numbers");
}

/* The dtype's bits per element, and the dtype itself when sfq reads it. */
static sfq_status find_dtype(const cursor *c, const char *name, const char *dtype, unsigned *bits,
                             sfq_dtype *own, const foreign_dtype **foreign)
{
    *foreign = NULL;
    if (sfq_dtype_from_name(dtype, strlen(dtype), own)) {
        *bits = (unsigned)sfq_dtype_info(*own)->bytes * 8;
        return SFQ_OK;
    }
    for (size_t i = 0; i < sizeof foreign_dtypes / sizeof foreign_dtypes[0]; i++)
        if (strcmp(foreign_dtypes[i].name, dtype) == 0) {
            *foreign = &foreign_dtypes[i];
            *bits = foreign_dtypes[i].bits;
            return SFQ_OK;
        }
    return sfq_fail_at(c->err, SFQ_E_FORMAT, c->file, name, "%s: tensor %s: unknown dtype \"%s\"",
                       c->file, name, dtype);
}

static sfq_status check_draft(const cursor *c, const char *name, const draft *d, sfq_st_item *out)
{
    const foreign_dtype *foreign = NULL;
    unsigned bits = 0;
    sfq_dtype own = SFQ_F32;
    uint64_t count = 1, size;
    if (!d->has_dtype || !d->has_shape || !d->has_extent)
        return fail_tensor(c, SFQ_E_FORMAT, name, "dtype, shape or data_offsets is missing");
    SFQ_TRY(find_dtype(c, name, d->dtype, &bits, &own, &foreign));
    for (int i = 0; i < d->rank; i++)
        if (__builtin_mul_overflow(count, d->shape[i], &count))
            return fail_tensor(c, SFQ_E_FORMAT, name, "the product of its shape passes 64 bits");
    if (__builtin_mul_overflow(count, (uint64_t)bits, &size))
        return fail_tensor(c, SFQ_E_FORMAT, name, "its size passes 64 bits");
    if (size % 8 != 0)
        return fail_tensor(c, SFQ_E_FORMAT, name, "its size is no whole number of bytes");
    size /= 8;
    if (d->extent[1] < d->extent[0])
        return fail_tensor(c, SFQ_E_FORMAT, name, "data_offsets end before they begin");
    if (d->extent[1] - d->extent[0] != size)
        return sfq_fail_at(c->err, SFQ_E_FORMAT, c->file, name,
                           "%s: tensor %s: shape and dtype %s need %" PRIu64
                           " bytes, data_offsets hold %" PRIu64,
                           c->file, name, d->dtype, size, d->extent[1] - d->extent[0]);
    if (foreign)
        return sfq_fail_at(c->err, foreign->is_float ? SFQ_E_UNSUPPORTED : SFQ_E_FORMAT, c->file,
                           name,
                           "%s: tensor %s: dtype %s is not read (F32, F16, BF16, I8, U8, I64 and "
                           "BOOL are); convert it",
                           c->file, name, d->dtype);
    *out = (sfq_st_item){.begin = d->extent[0]};
    out->t = (sfq_tensor){.name = name, .dtype = own, .rank = d->rank, .count = count};
    out->t.bytes = size;
    memcpy(out->t.shape, d->shape, sizeof out->t.shape);
    return SFQ_OK;
}

static sfq_status grow(void **array, size_t *capacity, size_t count, size_t size, sfq_error *err)
{
    size_t want = *capacity ? *capacity * 2 : 64;
    void *p;
    if (count < *capacity)
        return SFQ_OK;
    p = sfq_mem_resize(*array, want, size);
    if (!p)
        return sfq_fail_memory(err, want * size, "a safetensors header");
    *array = p;
    *capacity = want;
    return SFQ_OK;
}

static sfq_status read_tensor(cursor *c, span key)
{
    sfq_st_header *h = c->h;
    draft d = {0};
    const char *name;
    void *items = h->items;
    if (key.n == 0)
        return fail(c, "a tensor without a name");
    if (key.n > SFQ_ST_MAX_NAME)
        return sfq_fail_at(c->err, SFQ_E_LIMIT, c->file, NULL,
                           "%s: header byte %zu: tensor name of %zu bytes, limit %u", c->file,
                           c->at, key.n, SFQ_ST_MAX_NAME);
    if (h->count == SFQ_ST_MAX_TENSORS)
        return sfq_fail_at(c->err, SFQ_E_LIMIT, c->file, NULL, "%s: more than %u tensors", c->file,
                           SFQ_ST_MAX_TENSORS);
    SFQ_TRY(keep(c, key, &name));
    SFQ_TRY(need(c, ':'));
    SFQ_TRY(need(c, '{'));
    do {
        SFQ_TRY(read_member(c, &d));
    } while (take(c, ','));
    SFQ_TRY(need(c, '}'));
    SFQ_TRY(grow(&items, &h->capacity, h->count, sizeof *h->items, c->err));
    h->items = items;
    SFQ_TRY(check_draft(c, name, &d, &h->items[h->count]));
    h->count++;
    return SFQ_OK;
}

/* ---- __metadata__ ---- */

static sfq_status read_pair(cursor *c)
{
    sfq_st_header *h = c->h;
    sfq_st_pair pair;
    span s;
    void *pairs = h->pairs;
    if (h->pair_count == SFQ_ST_MAX_METADATA)
        return sfq_fail_at(c->err, SFQ_E_LIMIT, c->file, NULL, "%s: more than %u metadata entries",
                           c->file, SFQ_ST_MAX_METADATA);
    SFQ_TRY(read_string(c, &s));
    SFQ_TRY(keep(c, s, &pair.key));
    SFQ_TRY(need(c, ':'));
    skip_space(c);
    if (c->at < c->n && c->text[c->at] != '"')
        return fail(c, "a value of __metadata__ is not a string");
    SFQ_TRY(read_string(c, &s));
    SFQ_TRY(keep(c, s, &pair.value));
    SFQ_TRY(grow(&pairs, &h->pair_capacity, h->pair_count, sizeof *h->pairs, c->err));
    h->pairs = pairs;
    h->pairs[h->pair_count++] = pair;
    return SFQ_OK;
}

static sfq_status read_metadata(cursor *c)
{
    if (c->h->metadata_seen)
        return fail(c, "duplicate __metadata__");
    c->h->metadata_seen = true;
    SFQ_TRY(need(c, ':'));
    SFQ_TRY(need(c, '{'));
    if (take(c, '}'))
        return SFQ_OK;
    do {
        SFQ_TRY(read_pair(c));
    } while (take(c, ','));
    return need(c, '}');
}

static sfq_status read_header(cursor *c)
{
    if (c->n == 0 || c->text[0] != '{')
        return fail(c, "a header begins with '{'");
    c->at = 1;
    if (!take(c, '}')) {
        do {
            span key;
            SFQ_TRY(read_string(c, &key));
            SFQ_TRY(span_is(key, "__metadata__") ? read_metadata(c) : read_tensor(c, key));
        } while (take(c, ','));
        SFQ_TRY(need(c, '}'));
    }
    skip_space(c);
    return c->at == c->n ? SFQ_OK : fail(c, "bytes behind the header's object");
}

sfq_status sfq_st_header_parse(sfq_st_header *h, const char *file, const char *text, size_t n,
                               sfq_error *err)
{
    cursor c = {.file = file, .text = text, .n = n, .h = h, .err = err};
    sfq_status status;
    *h = (sfq_st_header){.arena = sfq_arena_open()};
    if (!h->arena)
        return sfq_fail_memory(err, sizeof *h, "a safetensors header");
    c.scratch = SFQ_BUF_INIT(SFQ_ST_MAX_TEXT + 1);
    status = read_header(&c);
    sfq_buf_free(&c.scratch);
    return status;
}

void sfq_st_header_clear(sfq_st_header *h)
{
    sfq_mem_free(h->items);
    sfq_mem_free(h->pairs);
    sfq_arena_close(&h->arena);
    *h = (sfq_st_header){0};
}
