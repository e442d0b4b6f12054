/* format/st_writer.c - writing one safetensors file. Sizes are known before the first byte: each
 * declaration adds its text to the header, a checksum has a fixed width, so the file is
 * preallocated, tensors are written in any order, and the header comes last, over the space kept
 * for it. The bytes follow from the declarations and the data alone. */
#include "format/safetensors.h"

#include "base/ck.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "format/st_header.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    ALIGN = 64, /* of the data section in the file: kernels read codes from the map */
    DIGITS = 16 /* of a checksum */
};

static const char hash_key[] = "xxh3:";

typedef struct written {
    char *name;
    uint64_t begin, bytes, hash;
    bool done;
} written;

struct sfq_st_writer {
    sfq_outdir *dir;
    char *name;
    sfq_buf metadata; /* "key":"value",... in the order of the calls */
    sfq_buf hashes;   /* "xxh3:NAME":"0000000000000000",... with place for the digits */
    sfq_buf entries;  /* "NAME":{...},... */
    sfq_buf header;   /* the three together, built by finish */
    written *tensors;
    size_t count, capacity;
    size_t *hash_at; /* [capacity] where in `hashes` a tensor's digits go */
    uint64_t data_bytes;
    uint64_t header_bytes; /* padded; 0 before begin() */
    int fd;
};

static sfq_status writer_fail(const sfq_st_writer *w, const char *tensor, const char *what,
                              sfq_error *err)
{
    return sfq_fail_at(err, SFQ_E_ARGUMENT, w->name, tensor, "%s: %s: %s", w->name, tensor, what);
}

sfq_status sfq_st_writer_open(sfq_st_writer **out, sfq_outdir *dir, const char *name,
                              sfq_error *err)
{
    sfq_st_writer *w = SFQ_NEW(sfq_st_writer);
    sfq_status status = SFQ_OK;
    *out = NULL;
    if (!w || !(w->name = sfq_mem_strdup(name))) {
        status = sfq_fail_memory(err, sizeof *w, name);
        goto done;
    }
    w->dir = dir;
    w->fd = -1;
    w->metadata = w->hashes = w->entries = w->header = SFQ_BUF_INIT(SFQ_ST_MAX_HEADER);
    SFQ_DO(sfq_st_writer_metadata(w, "format", "pt", err));
    *out = w;
    w = NULL;
done:
    sfq_st_writer_abort(&w);
    return status;
}

void sfq_st_writer_abort(sfq_st_writer **writer)
{
    sfq_st_writer *w = *writer;
    if (!w)
        return;
    for (size_t i = 0; i < w->count; i++)
        sfq_mem_free(w->tensors[i].name);
    sfq_mem_free(w->tensors);
    sfq_mem_free(w->hash_at);
    sfq_buf_free(&w->metadata);
    sfq_buf_free(&w->hashes);
    sfq_buf_free(&w->entries);
    sfq_buf_free(&w->header);
    sfq_mem_free(w->name);
    sfq_mem_free(w);
    *writer = NULL;
}

/* ---- header text ---- */

/* s as the inside of a JSON string. */
static sfq_status add_escaped(sfq_buf *b, const char *s, sfq_error *err)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 0x20)
            SFQ_TRY(sfq_buf_addf(b, err, "\\u%04x", c));
        else if (c == '"' || c == '\\')
            SFQ_TRY(sfq_buf_addf(b, err, "\\%c", c));
        else
            SFQ_TRY(sfq_buf_add(b, s, 1, err));
    }
    return SFQ_OK;
}

/* "PREFIXkey":" */
static sfq_status add_key(sfq_buf *b, const char *prefix, const char *key, sfq_error *err)
{
    SFQ_TRY(sfq_buf_addf(b, err, "%s\"%s", b->len ? "," : "", prefix));
    SFQ_TRY(add_escaped(b, key, err));
    return sfq_buf_add(b, "\":", 2, err);
}

sfq_status sfq_st_writer_metadata(sfq_st_writer *w, const char *key, const char *value,
                                  sfq_error *err)
{
    if (sfq_utf8_valid_prefix(key, strlen(key)) != strlen(key) ||
        sfq_utf8_valid_prefix(value, strlen(value)) != strlen(value))
        return writer_fail(w, key, "metadata must be UTF-8", err);
    if (w->header_bytes)
        return writer_fail(w, key, "metadata after begin", err);
    if (w->metadata.len && strcmp(key, "format") == 0) /* there from the start */
        return strcmp(value, "pt") == 0 ? SFQ_OK : writer_fail(w, key, "format is \"pt\"", err);
    SFQ_TRY(add_key(&w->metadata, "", key, err));
    SFQ_TRY(sfq_buf_add(&w->metadata, "\"", 1, err));
    SFQ_TRY(add_escaped(&w->metadata, value, err));
    return sfq_buf_add(&w->metadata, "\"", 1, err);
}

static sfq_status add_entry(sfq_st_writer *w, const written *t, sfq_dtype dtype, int rank,
                            const uint64_t *shape, sfq_error *err)
{
    sfq_buf *b = &w->entries;
    SFQ_TRY(add_key(b, "", t->name, err));
    SFQ_TRY(sfq_buf_addf(b, err, "{\"dtype\":\"%s\",\"shape\":[", sfq_dtype_info(dtype)->name));
    for (int i = 0; i < rank; i++)
        SFQ_TRY(sfq_buf_addf(b, err, "%s%" PRIu64, i ? "," : "", shape[i]));
    SFQ_TRY(sfq_buf_addf(b, err, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->begin,
                         t->begin + t->bytes));
    SFQ_TRY(add_key(&w->hashes, hash_key, t->name, err));
    w->hash_at[w->count] = w->hashes.len + 1;
    return sfq_buf_addf(&w->hashes, err, "\"%0*d\"", DIGITS, 0);
}

static sfq_status grow(sfq_st_writer *w, sfq_error *err)
{
    size_t capacity = w->capacity ? 2 * w->capacity : 64;
    written *tensors;
    size_t *at;
    if (w->count < w->capacity)
        return SFQ_OK;
    tensors = sfq_mem_resize(w->tensors, capacity, sizeof *tensors);
    if (!tensors)
        return sfq_fail_memory(err, capacity * sizeof *tensors, w->name);
    w->tensors = tensors;
    at = sfq_mem_resize(w->hash_at, capacity, sizeof *at);
    if (!at)
        return sfq_fail_memory(err, capacity * sizeof *at, w->name);
    w->hash_at = at;
    w->capacity = capacity;
    return SFQ_OK;
}

/* Bytes of a tensor, or an error when the product does not fit. */
static sfq_status tensor_bytes(const sfq_st_writer *w, const char *name, sfq_dtype dtype, int rank,
                               const uint64_t *shape, uint64_t *out, sfq_error *err)
{
    uint64_t n = sfq_dtype_info(dtype)->bytes, end;
    if (rank < 0 || rank > SFQ_MAX_RANK)
        return writer_fail(w, name, "rank out of range", err);
    for (int i = 0; i < rank; i++)
        if (__builtin_mul_overflow(n, shape[i], &n))
            return writer_fail(w, name, "size overflows", err);
    if (__builtin_add_overflow(w->data_bytes, n, &end) || end > INT64_MAX)
        return writer_fail(w, name, "size overflows", err);
    *out = n;
    return SFQ_OK;
}

sfq_status sfq_st_writer_declare(sfq_st_writer *w, const char *name, sfq_dtype dtype, int rank,
                                 const uint64_t *shape, sfq_error *err)
{
    size_t n = strlen(name);
    written t = {.begin = w->data_bytes};
    sfq_status status;
    if (w->header_bytes)
        return writer_fail(w, name, "declared after begin", err);
    if (n == 0 || n > SFQ_ST_MAX_NAME || strcmp(name, "__metadata__") == 0 ||
        sfq_utf8_valid_prefix(name, n) != n)
        return writer_fail(w, name, "a tensor's name is UTF-8 of 1 to 4096 bytes", err);
    if (w->count == SFQ_ST_MAX_TENSORS)
        return sfq_fail_at(err, SFQ_E_LIMIT, w->name, name, "%s: more than %u tensors", w->name,
                           SFQ_ST_MAX_TENSORS);
    SFQ_TRY(tensor_bytes(w, name, dtype, rank, shape, &t.bytes, err));
    SFQ_TRY(grow(w, err));
    t.name = sfq_mem_strdup(name);
    if (!t.name)
        return sfq_fail_memory(err, n + 1, w->name);
    status = add_entry(w, &t, dtype, rank, shape, err);
    if (status != SFQ_OK) {
        sfq_mem_free(t.name);
        return status;
    }
    t.hash = XXH3_64bits("", 0); /* of an empty tensor, which needs no put() */
    t.done = t.bytes == 0;
    w->tensors[w->count++] = t;
    w->data_bytes += t.bytes;
    return SFQ_OK;
}

/* Header with its padding: data begins at 8 + this, a multiple of ALIGN. */
static uint64_t header_size(const sfq_st_writer *w)
{
    size_t text = sizeof "{\"__metadata__\":{}}" - 1 + w->metadata.len + w->entries.len;
    text += w->count ? 2 + w->hashes.len : 0; /* and two commas */
    return sfq_round_up(8 + text, ALIGN) - 8;
}

uint64_t sfq_st_writer_size(const sfq_st_writer *w)
{
    return 8 + header_size(w) + w->data_bytes;
}

/* ---- data ---- */

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static sfq_status check_distinct(const sfq_st_writer *w, sfq_error *err)
{
    const char **names = SFQ_NEW_ARRAY(const char *, w->count);
    sfq_status status = SFQ_OK;
    if (!names)
        return sfq_fail_memory(err, w->count * sizeof *names, w->name);
    for (size_t i = 0; i < w->count; i++)
        names[i] = w->tensors[i].name;
    if (w->count > 1)
        qsort(names, w->count, sizeof *names, compare_strings);
    for (size_t i = 1; i < w->count && status == SFQ_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = writer_fail(w, names[i], "declared twice", err);
    sfq_mem_free(names);
    return status;
}

sfq_status sfq_st_writer_begin(sfq_st_writer *w, sfq_error *err)
{
    uint64_t header = header_size(w);
    if (header > SFQ_ST_MAX_HEADER)
        return sfq_fail_at(err, SFQ_E_LIMIT, w->name, NULL,
                           "%s: header of %" PRIu64 " bytes, the format allows %u", w->name, header,
                           SFQ_ST_MAX_HEADER);
    SFQ_TRY(check_distinct(w, err));
    SFQ_TRY(sfq_outdir_create(w->dir, w->name, sfq_st_writer_size(w), &w->fd, err));
    w->header_bytes = header;
    return SFQ_OK;
}

sfq_status sfq_st_writer_put(sfq_st_writer *w, size_t i, const void *data, size_t bytes,
                             sfq_error *err)
{
    written *t;
    if (!w->header_bytes || i >= w->count)
        return writer_fail(w, "put", "before begin, or no such tensor", err);
    t = &w->tensors[i];
    if (bytes != t->bytes)
        return writer_fail(w, t->name, "other size than declared", err);
    t->hash = XXH3_64bits(data, bytes);
    SFQ_TRY(sfq_outdir_write(w->fd, w->name, data, bytes, 8 + w->header_bytes + t->begin, err));
    t->done = true;
    return SFQ_OK;
}

/* The 8 bytes of length and the whole header, with the checksums in their places. */
static sfq_status build_header(sfq_st_writer *w, sfq_error *err)
{
    sfq_buf *h = &w->header;
    char digits[DIGITS + 1];
    for (int i = 0; i < 8; i++) {
        char byte = (char)(w->header_bytes >> (8 * i) & 0xff);
        SFQ_TRY(sfq_buf_add(h, &byte, 1, err));
    }
    for (size_t i = 0; i < w->count; i++) {
        snprintf(digits, sizeof digits, "%0*" PRIx64, DIGITS, w->tensors[i].hash);
        memcpy(w->hashes.data + w->hash_at[i], digits, DIGITS);
    }
    SFQ_TRY(sfq_buf_addf(h, err, "{\"__metadata__\":{"));
    SFQ_TRY(sfq_buf_add(h, w->metadata.data, w->metadata.len, err));
    if (w->count) {
        SFQ_TRY(sfq_buf_add(h, ",", 1, err));
        SFQ_TRY(sfq_buf_add(h, w->hashes.data, w->hashes.len, err));
        SFQ_TRY(sfq_buf_add(h, "},", 2, err));
        SFQ_TRY(sfq_buf_add(h, w->entries.data, w->entries.len, err));
        SFQ_TRY(sfq_buf_add(h, "}", 1, err));
    } else {
        SFQ_TRY(sfq_buf_add(h, "}}", 2, err));
    }
    while (h->len < 8 + w->header_bytes)
        SFQ_TRY(sfq_buf_add(h, " ", 1, err));
    return SFQ_OK;
}

sfq_status sfq_st_writer_finish(sfq_st_writer **writer, sfq_error *err)
{
    sfq_st_writer *w = *writer;
    sfq_status status = SFQ_OK;
    if (!w->header_bytes) {
        status = writer_fail(w, "finish", "before begin", err);
        goto done;
    }
    for (size_t i = 0; i < w->count; i++)
        if (!w->tensors[i].done) {
            status = writer_fail(w, w->tensors[i].name, "declared and never written", err);
            goto done;
        }
    SFQ_DO(build_header(w, err));
    SFQ_DO(sfq_outdir_write(w->fd, w->name, w->header.data, w->header.len, 0, err));
    SFQ_DO(sfq_outdir_finish(w->dir, w->name, w->fd, err));
done:
    sfq_st_writer_abort(writer);
    return status;
}
