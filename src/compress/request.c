/* compress/request.c - files are told apart by size, time of change and their first bytes: reading
 * gigabytes of weights again would take longer than some stages do. */
#include "compress/request.h"

#include "base/ck.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { HEAD = 64 << 10, TEXT_MAX = 16 << 20 };

/* ---- digests ---- */

static void to_hex(char hex[33], const void *data, size_t n)
{
    XXH128_hash_t h = XXH3_128bits(data, n);
    (void)snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}

/* Bytes of a safetensors file up to its data. */
static size_t header_bytes(const sfq_map *map)
{
    uint64_t n = 0;
    if (map->size < 8)
        return map->size;
    for (size_t i = 8; i-- > 0;)
        n = n << 8 | map->data[i];
    return n > map->size - 8 ? map->size : 8 + (size_t)n;
}

typedef enum part { PART_NONE, PART_HEAD, PART_HEADER, PART_WHOLE } part;

static sfq_status add_content(sfq_buf *b, const char *path, part what, sfq_error *err)
{
    sfq_map map;
    char hex[33];
    SFQ_TRY(sfq_map_open(&map, path, err));
    size_t n = what == PART_WHOLE    ? map.size
               : what == PART_HEADER ? header_bytes(&map)
                                     : sfq_min_size(map.size, HEAD);
    to_hex(hex, map.data != NULL ? map.data : (const void *)"", n);
    sfq_map_close(&map);
    return sfq_buf_addf(b, err, "%s ", hex);
}

/* "HASH SIZE TIME" of one file; of whole ones the time says nothing more. */
static sfq_status add_file(sfq_buf *b, const char *path, part what, sfq_error *err)
{
    struct stat st;
    if (what != PART_NONE)
        SFQ_TRY(add_content(b, path, what, err));
    if (what == PART_WHOLE)
        return SFQ_OK;
    if (sfq_sys_fstatat(AT_FDCWD, path, &st, 0) != 0)
        return sfq_fail_errno(err, errno, path, "cannot look at it");
    return sfq_buf_addf(b, err, "%lld %lld.%09ld;", (long long)st.st_size,
                        (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static sfq_status add_if_there(sfq_buf *b, const char *dir, const char *name, part what,
                               sfq_error *err)
{
    char *path = sfq_path_join(dir, name);
    if (path == NULL)
        return sfq_fail_memory(err, strlen(dir), "a path");
    sfq_status status = sfq_buf_addf(b, err, "%s:", name);
    if (status == SFQ_OK && sfq_file_exists(path))
        status = add_file(b, path, what, err);
    sfq_mem_free(path);
    return status;
}

/* The weight files in the order in which their first tensors stand. */
static sfq_status add_weights(sfq_buf *b, const sfq_source *s, sfq_error *err)
{
    size_t count = 0;
    size_t tensors = sfq_checkpoint_count(s->ck);
    const char **files = SFQ_NEW_ARRAY(const char *, tensors);
    sfq_status status = SFQ_OK;
    if (files == NULL)
        return sfq_fail_memory(err, tensors * sizeof *files, "a list of files");
    for (size_t i = 0; i < tensors; i++) {
        const char *file = sfq_checkpoint_file(s->ck, sfq_checkpoint_at(s->ck, i)->name);
        size_t at = 0;
        while (at < count && strcmp(files[at], file) != 0)
            at++;
        if (at < count)
            continue;
        files[count++] = file;
        SFQ_DO(add_file(b, file, PART_HEADER, err));
    }
done:
    sfq_mem_free(files);
    return status;
}

static sfq_status digest_model(char hex[33], const sfq_source *s, sfq_error *err)
{
    sfq_buf b = SFQ_BUF_INIT(TEXT_MAX);
    sfq_status status = SFQ_OK;
    SFQ_DO(add_if_there(&b, s->dir, "config.json", PART_WHOLE, err));
    SFQ_DO(add_if_there(&b, s->dir, "tokenizer.json", PART_WHOLE, err));
    SFQ_DO(add_weights(&b, s, err));
    to_hex(hex, b.data, b.len);
done:
    sfq_buf_free(&b);
    return status;
}

sfq_status sfq_request_split(char hex[33], const char *dir, const char *split, bool open,
                             sfq_error *err)
{
    static const char *const endings[] = {"tsv", "jsonl", "csv"};
    sfq_buf b = SFQ_BUF_INIT(TEXT_MAX);
    sfq_status status = SFQ_OK;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%s.%s", split, endings[i]);
        SFQ_DO(add_if_there(&b, dir, name, open ? PART_HEAD : PART_NONE, err));
    }
    to_hex(hex, b.data, b.len);
done:
    sfq_buf_free(&b);
    return status;
}

static sfq_status digest_texts(char hex[33], const sfq_compress_options *o, sfq_error *err)
{
    sfq_buf b = SFQ_BUF_INIT(TEXT_MAX);
    sfq_status status = SFQ_OK;
    for (size_t i = 0; i < o->text_count; i++)
        SFQ_DO(add_file(&b, o->text_files[i], PART_HEAD, err));
    to_hex(hex, b.data != NULL ? b.data : "", b.len);
done:
    sfq_buf_free(&b);
    return status;
}

/* ---- the object ---- */

/* jansson says NULL or -1 when memory is short; one flag collects that. */
typedef struct maker {
    json_t *object;
    bool failed;
} maker;

static void put(maker *m, const char *key, json_t *value)
{
    if (json_object_set_new(m->object, key, value) != 0)
        m->failed = true;
}

/* An option may hold any bytes; those that are no UTF-8 are written as \xHH. */
static json_t *text(const char *s)
{
    if (s == NULL)
        return json_null();
    size_t n = strlen(s);
    char *line = sfq_mem_raw(4 * n + 1);
    if (line == NULL)
        return NULL;
    (void)sfq_text_printable(line, 4 * n + 1, s, n);
    json_t *out = json_string(line);
    sfq_mem_free(line);
    return out;
}

static void put_rules(maker *m, const sfq_compress_options *o)
{
    json_t *keep = json_array();
    json_t *rules = json_array();
    bool ok = true;
    for (size_t i = 0; i < o->keep_count; i++)
        ok = json_array_append_new(keep, text(o->keep[i])) == 0 && ok;
    for (size_t i = 0; i < o->bits_for_count; i++) {
        ok = json_array_append_new(rules, text(o->bits_for[i].regex)) == 0 && ok;
        ok = json_array_append_new(rules, json_integer(o->bits_for[i].bits)) == 0 && ok;
    }
    put(m, "keep", keep);
    put(m, "bits-for", rules);
    m->failed = m->failed || !ok;
}

static void put_options(maker *m, const sfq_compress_options *o)
{
    put(m, "recipe", text(o->recipe));
    put(m, "prune", json_real(o->prune));
    put(m, "bits", json_integer(o->bits));
    put(m, "embedding-bits", json_integer(o->embedding_bits));
    put(m, "activation-bits", json_integer(o->activation_bits));
    put(m, "steps", json_integer(o->steps));
    put(m, "task", text(o->task));
    put(m, "calib-fraction", json_real(o->calib_fraction));
    put(m, "calib-tokens", json_integer((json_int_t)o->calib_tokens));
    put(m, "calib-length", json_integer(o->calib_length));
    put(m, "pick", text(o->pick));
    put(m, "saliency", text(o->saliency));
    put(m, "rounds", json_integer(o->rounds));
    put(m, "uniform", json_boolean(o->uniform));
    put(m, "seed", json_integer((json_int_t)o->seed));
    put_rules(m, o);
}

sfq_status sfq_request_make(json_t **out, const sfq_source *source,
                            const sfq_compress_options *options, sfq_error *err)
{
    char model[33];
    char data[33];
    char texts[33];
    sfq_isa cap;
    *out = NULL;
    SFQ_TRY(sfq_isa_from_env(&cap, err));
    SFQ_TRY(digest_model(model, source, err));
    SFQ_TRY(digest_texts(texts, options, err));
    if (options->data != NULL)
        SFQ_TRY(sfq_request_split(data, options->data, "train", true, err));
    maker m = {.object = json_object()};
    put(&m, "version", json_string(SFQ_VERSION_STRING));
    put(&m, "instructions", json_string(sfq_kernels_get(cap)->isa_name));
    put(&m, "model", json_string(model));
    put(&m, "text", json_string(texts));
    put(&m, "data", options->data != NULL ? json_string(data) : json_null());
    put_options(&m, options);
    if (!m.failed) {
        *out = m.object;
        return SFQ_OK;
    }
    json_decref(m.object);
    return sfq_fail_memory(err, 0, "the request");
}

/* ---- comparison ---- */

static void name_key(char *text, size_t room, const char *key)
{
    size_t n = strlen(text);
    (void)snprintf(text + n, room - n, "%s%s", n > 0 ? ", " : "", key);
}

bool sfq_request_differs(const json_t *a, const json_t *b, char *text, size_t room)
{
    const char *key;
    json_t *value;
    text[0] = 0;
    json_object_foreach((json_t *)(uintptr_t)a, key,
                        value) if (!json_equal(value, json_object_get(b, key)))
        name_key(text, room, key);
    json_object_foreach((json_t *)(uintptr_t)b, key, value) if (json_object_get(a, key) == NULL)
        name_key(text, room, key);
    return text[0] != 0;
}
