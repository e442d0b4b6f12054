/* format/safetensors.c - opening one safetensors file. Everything a header claims is proved
 * against the size of the map before a data pointer is made: the extents, sorted, must tile the
 * data section exactly. The rules are those of the format's README; where its text leaves room,
 * docs/FORMAT.md says what this reader does. */
#include "format/safetensors.h"

#include "base/ck.h"
#include "base/mem.h"
#include "format/st_header.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct sfq_safetensors {
    char *path;
    sfq_map map;
    sfq_st_header header; /* items sorted by offset, pairs by key */
    uint32_t *by_name;    /* [count] indices of items in strcmp order */
};

static int compare_extents(const void *a, const void *b)
{
    const sfq_st_item *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->t.bytes != y->t.bytes)
        return x->t.bytes < y->t.bytes ? -1 : 1;
    return strcmp(x->t.name, y->t.name);
}

static int compare_names(const void *a, const void *b, void *items)
{
    const sfq_st_item *all = items;
    return strcmp(all[*(const uint32_t *)a].t.name, all[*(const uint32_t *)b].t.name);
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp(((const sfq_st_pair *)a)->key, ((const sfq_st_pair *)b)->key);
}

/* Sorted extents must tile data[0..size). An empty tensor is taken where it begins: at the running
 * end, as in files that Transformers writes; anywhere else it would be a hole or an overlap. */
static sfq_status place(sfq_safetensors *st, const unsigned char *data, uint64_t size,
                        sfq_error *err)
{
    sfq_st_header *h = &st->header;
    uint64_t at = 0;
    if (h->count > 1)
        qsort(h->items, h->count, sizeof *h->items, compare_extents);
    for (size_t i = 0; i < h->count; i++) {
        sfq_st_item *item = &h->items[i];
        if (item->begin != at)
            return sfq_fail_at(err, SFQ_E_FORMAT, st->path, item->t.name,
                               "%s: tensor %s: begins at data byte %" PRIu64 ", expected %" PRIu64
                               " (%s)",
                               st->path, item->t.name, item->begin, at,
                               item->begin < at ? "it overlaps another" : "there is a hole");
        if (item->t.bytes > size - at)
            return sfq_fail_at(err, SFQ_E_FORMAT, st->path, item->t.name,
                               "%s: tensor %s: needs data bytes %" PRIu64 " to %" PRIu64
                               ", the file has %" PRIu64 " (truncated?)",
                               st->path, item->t.name, at, at + item->t.bytes, size);
        item->t.data = data + at;
        at += item->t.bytes;
    }
    if (at != size)
        return sfq_fail_at(err, SFQ_E_FORMAT, st->path, NULL,
                           "%s: %" PRIu64 " bytes behind the last tensor", st->path, size - at);
    return SFQ_OK;
}

/* Sorts names and metadata keys; each may occur once. */
static sfq_status index_names(sfq_safetensors *st, sfq_error *err)
{
    sfq_st_header *h = &st->header;
    st->by_name = SFQ_NEW_ARRAY(uint32_t, h->count);
    if (!st->by_name)
        return sfq_fail_memory(err, h->count * sizeof *st->by_name, st->path);
    for (size_t i = 0; i < h->count; i++)
        st->by_name[i] = (uint32_t)i;
    if (h->count > 1)
        qsort_r(st->by_name, h->count, sizeof *st->by_name, compare_names, h->items);
    for (size_t i = 1; i < h->count; i++) {
        const char *name = h->items[st->by_name[i]].t.name;
        if (strcmp(h->items[st->by_name[i - 1]].t.name, name) == 0)
            return sfq_fail_at(err, SFQ_E_FORMAT, st->path, name, "%s: tensor %s: duplicate name",
                               st->path, name);
    }
    if (h->pair_count > 1)
        qsort(h->pairs, h->pair_count, sizeof *h->pairs, compare_pairs);
    for (size_t i = 1; i < h->pair_count; i++)
        if (strcmp(h->pairs[i - 1].key, h->pairs[i].key) == 0)
            return sfq_fail_at(err, SFQ_E_FORMAT, st->path, NULL,
                               "%s: __metadata__: duplicate key %s", st->path, h->pairs[i].key);
    return SFQ_OK;
}

/* Where the header lies, from the first 8 bytes. */
static sfq_status header_extent(const sfq_safetensors *st, size_t *bytes, sfq_error *err)
{
    uint64_t n = 0;
    if (st->map.size < 8)
        return sfq_fail_at(err, SFQ_E_FORMAT, st->path, NULL,
                           "%s: %zu bytes are too few for a safetensors file", st->path,
                           st->map.size);
    for (int i = 7; i >= 0; i--)
        n = n << 8 | st->map.data[i];
    if (n > SFQ_ST_MAX_HEADER)
        return sfq_fail_at(err, SFQ_E_FORMAT, st->path, NULL,
                           "%s: header of %" PRIu64 " bytes, the format allows %u", st->path, n,
                           SFQ_ST_MAX_HEADER);
    if (n > st->map.size - 8)
        return sfq_fail_at(err, SFQ_E_FORMAT, st->path, NULL,
                           "%s: header of %" PRIu64 " bytes in a file of %zu (truncated?)",
                           st->path, n, st->map.size);
    *bytes = (size_t)n;
    return SFQ_OK;
}

sfq_status sfq_safetensors_open(sfq_safetensors **out, const char *path, sfq_error *err)
{
    sfq_safetensors *st = SFQ_NEW(sfq_safetensors);
    sfq_status status = SFQ_OK;
    size_t n = 0;
    *out = NULL;
    if (!st)
        return sfq_fail_memory(err, sizeof *st, path);
    st->path = sfq_mem_strdup(path);
    if (!st->path) {
        status = sfq_fail_memory(err, strlen(path) + 1, path);
        goto done;
    }
    SFQ_DO(sfq_map_open(&st->map, path, err));
    SFQ_DO(header_extent(st, &n, err));
    SFQ_DO(sfq_st_header_parse(&st->header, st->path, (const char *)st->map.data + 8, n, err));
    SFQ_DO(place(st, st->map.data + 8 + n, st->map.size - 8 - n, err));
    SFQ_DO(index_names(st, err));
    *out = st;
    st = NULL;
done:
    sfq_safetensors_close(&st);
    return status;
}

sfq_status sfq_safetensors_copy(sfq_safetensors *st, sfq_pool *pool, const sfq_hooks *hooks,
                                sfq_error *err)
{
    const unsigned char *before = st->map.data;
    SFQ_TRY(sfq_map_copy(&st->map, pool, hooks, st->path, err));
    for (size_t i = 0; i < st->header.count; i++) {
        sfq_tensor *t = &st->header.items[i].t;
        t->data = st->map.data + ((const unsigned char *)t->data - before);
    }
    return SFQ_OK;
}

void sfq_safetensors_close(sfq_safetensors **st)
{
    if (!*st)
        return;
    sfq_mem_free((*st)->by_name);
    sfq_st_header_clear(&(*st)->header);
    sfq_map_close(&(*st)->map);
    sfq_mem_free((*st)->path);
    sfq_mem_free(*st);
    *st = NULL;
}

size_t sfq_safetensors_count(const sfq_safetensors *st)
{
    return st->header.count;
}

const sfq_tensor *sfq_safetensors_at(const sfq_safetensors *st, size_t i)
{
    return &st->header.items[i].t;
}

const sfq_tensor *sfq_safetensors_find(const sfq_safetensors *st, const char *name)
{
    size_t low = 0, high = st->header.count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const sfq_tensor *t = &st->header.items[st->by_name[mid]].t;
        int order = strcmp(name, t->name);
        if (order == 0)
            return t;
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const char *sfq_safetensors_path(const sfq_safetensors *st)
{
    return st->path;
}

const char *sfq_safetensors_metadata(const sfq_safetensors *st, const char *key)
{
    sfq_st_pair wanted = {key, NULL};
    const sfq_st_pair *pair;
    if (st->header.pair_count == 0)
        return NULL;
    pair = bsearch(&wanted, st->header.pairs, st->header.pair_count, sizeof wanted, compare_pairs);
    return pair ? pair->value : NULL;
}

uint64_t sfq_safetensors_bytes(const sfq_safetensors *st)
{
    return st->map.size;
}
