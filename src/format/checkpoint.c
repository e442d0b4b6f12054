/* format/checkpoint.c - one or many safetensors files as one sorted set of tensors. The index is
 * hostile input like the rest: it may only name entries of its own directory, and what it says must
 * be what the shards hold, in both directions. */
#include "format/checkpoint.h"

#include "base/hooks.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define SINGLE_NAME "model.safetensors"
#define INDEX_NAME "model.safetensors.index.json"

enum {
    INDEX_MAX_BYTES = 32 << 20,
    SHARDS_MAX = 4096,
    TENSORS_MAX = 131072 /* over all shards; also bounds the values of the index */
};

typedef struct shard {
    char *name;
    sfq_safetensors *st;
} shard;

typedef struct entry {
    const sfq_tensor *tensor;
    uint32_t shard;
} entry;

struct sfq_checkpoint {
    char *dir;
    shard *shards; /* sorted by name; none: the tensors lie in memory */
    size_t shard_count;
    entry *entries; /* sorted by tensor name */
    size_t entry_count;
};

static int compare_entries(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int order = strcmp(x->tensor->name, y->tensor->name);
    if (order != 0)
        return order;
    return x->shard < y->shard ? -1 : x->shard > y->shard;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const entry *find_entry(const sfq_checkpoint *ck, const char *name)
{
    sfq_tensor wanted = {.name = name};
    size_t low = 0, high = ck->entry_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(wanted.name, ck->entries[mid].tensor->name);
        if (order == 0)
            return &ck->entries[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* ---- opening ---- */

static sfq_status open_shard(sfq_checkpoint *ck, const char *name, sfq_error *err)
{
    char *path = sfq_path_join(ck->dir, name);
    shard *s = &ck->shards[ck->shard_count];
    sfq_status status = SFQ_OK;
    s->name = sfq_mem_strdup(name);
    if (!path || !s->name) {
        sfq_mem_free(s->name);
        s->name = NULL;
        status = sfq_fail_memory(err, strlen(name), name);
        goto done;
    }
    ck->shard_count++; /* from here close() frees it */
    SFQ_DO(sfq_safetensors_open(&s->st, path, err));
done:
    sfq_mem_free(path);
    return status;
}

/* Sorts all tensors; a name may occur once over all shards. */
static sfq_status collect(sfq_checkpoint *ck, sfq_error *err)
{
    size_t total = 0, n = 0;
    for (size_t s = 0; s < ck->shard_count; s++)
        total += sfq_safetensors_count(ck->shards[s].st);
    if (total > TENSORS_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, ck->dir, NULL, "%s: %zu tensors, limit %d", ck->dir,
                           total, TENSORS_MAX);
    ck->entries = SFQ_NEW_ARRAY(entry, total);
    if (!ck->entries)
        return sfq_fail_memory(err, total * sizeof(entry), ck->dir);
    for (size_t s = 0; s < ck->shard_count; s++)
        for (size_t i = 0; i < sfq_safetensors_count(ck->shards[s].st); i++)
            ck->entries[n++] = (entry){sfq_safetensors_at(ck->shards[s].st, i), (uint32_t)s};
    ck->entry_count = n;
    qsort(ck->entries, n, sizeof(entry), compare_entries);
    for (size_t i = 1; i < n; i++) {
        const entry *a = &ck->entries[i - 1], *b = &ck->entries[i];
        if (strcmp(a->tensor->name, b->tensor->name) == 0)
            return sfq_fail_at(err, SFQ_E_FORMAT, ck->shards[b->shard].name, a->tensor->name,
                               "%s: tensor %s: duplicate, %s and %s hold it", ck->dir,
                               a->tensor->name, ck->shards[a->shard].name,
                               ck->shards[b->shard].name);
    }
    return SFQ_OK;
}

static bool is_shard_name(const char *name)
{
    static const char suffix[] = ".safetensors";
    size_t n = strlen(name), m = sizeof suffix - 1;
    return sfq_name_is_plain(name) && !strchr(name, '\\') && n > m &&
           strcmp(name + n - m, suffix) == 0;
}

/* The distinct shard names of the index, sorted; *names is freed with sfq_mem_free. */
static sfq_status shard_names(const json_t *map, const char *path, const char ***names,
                              size_t *count, sfq_error *err)
{
    const char *tensor;
    json_t *value;
    size_t n = 0, distinct = 0;
    *names = SFQ_NEW_ARRAY(const char *, json_object_size(map));
    if (!*names)
        return sfq_fail_memory(err, json_object_size(map) * sizeof **names, path);
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || !is_shard_name(name))
            return sfq_fail_at(err, SFQ_E_FORMAT, path, tensor,
                               "%s: weight_map: %s: \"%s\" is not the plain name of a .safetensors "
                               "file in the same directory",
                               path, tensor, name ? name : "(no string)");
        (*names)[n++] = name;
    }
    qsort(*names, n, sizeof **names, compare_strings);
    for (size_t i = 0; i < n; i++)
        if (distinct == 0 || strcmp((*names)[distinct - 1], (*names)[i]) != 0)
            (*names)[distinct++] = (*names)[i];
    *count = distinct;
    if (distinct > SHARDS_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, path, NULL, "%s: %zu shards, limit %d", path, distinct,
                           SHARDS_MAX);
    return SFQ_OK;
}

static sfq_status open_shards(sfq_checkpoint *ck, const char *path, const char *const *names,
                              size_t count, sfq_error *err)
{
    ck->shards = SFQ_NEW_ARRAY(shard, count);
    if (!ck->shards)
        return sfq_fail_memory(err, count * sizeof(shard), ck->dir);
    for (size_t i = 0; i < count; i++) {
        sfq_status status = open_shard(ck, names[i], err);
        if (status == SFQ_E_NOT_FOUND)
            return sfq_fail_at(err, SFQ_E_NOT_FOUND, names[i], NULL,
                               "%s: shard %s is missing in %s (is the download complete?)", path,
                               names[i], ck->dir);
        SFQ_TRY(status);
    }
    return SFQ_OK;
}

/* Index and shards must name the same tensors at the same places. */
static sfq_status check_index(const sfq_checkpoint *ck, const json_t *map, const char *path,
                              sfq_error *err)
{
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
    {
        const entry *e = find_entry(ck, tensor);
        const char *file = e ? ck->shards[e->shard].name : NULL;
        if (!file || strcmp(file, json_string_value(value)) != 0)
            return sfq_fail_at(err, SFQ_E_FORMAT, path, tensor,
                               "%s: tensor %s is said to lie in %s, %s%s", path, tensor,
                               json_string_value(value), file ? "it lies in " : "no shard holds it",
                               file ? file : "");
    }
    for (size_t i = 0; i < ck->entry_count; i++) {
        const entry *e = &ck->entries[i];
        if (!json_object_get(map, e->tensor->name))
            return sfq_fail_at(err, SFQ_E_FORMAT, path, e->tensor->name,
                               "%s: tensor %s of %s is not in the index", path, e->tensor->name,
                               ck->shards[e->shard].name);
    }
    return SFQ_OK;
}

/* metadata.total_size is informative: a difference is worth a note, no more. */
static void note_total(const sfq_checkpoint *ck, const json_t *root, const char *path,
                       const sfq_hooks *hooks)
{
    const json_t *said = json_object_get(json_object_get(root, "metadata"), "total_size");
    uint64_t sum = 0;
    for (size_t i = 0; i < ck->entry_count; i++)
        sum += ck->entries[i].tensor->bytes;
    if (json_is_integer(said) && (uint64_t)json_integer_value(said) != sum)
        sfq_hooks_log(hooks, SFQ_LOG_NOTE,
                      "%s: metadata.total_size is %" JSON_INTEGER_FORMAT
                      ", the tensors take %" PRIu64,
                      path, json_integer_value(said), sum);
}

static sfq_status open_index(sfq_checkpoint *ck, const char *path, const sfq_hooks *hooks,
                             sfq_error *err)
{
    sfq_buf text = SFQ_BUF_INIT(INDEX_MAX_BYTES);
    json_t *root = NULL;
    const json_t *map;
    const char **names = NULL;
    size_t count = 0;
    sfq_status status;
    SFQ_DO(sfq_file_read(&text, path, INDEX_MAX_BYTES, err));
    SFQ_DO(sfq_json_parse(&root, path, text.data, text.len, TENSORS_MAX + 64, err));
    map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        status = sfq_fail_at(err, SFQ_E_FORMAT, path, NULL,
                             "%s: weight_map is missing, empty or no object", path);
        goto done;
    }
    SFQ_DO(shard_names(map, path, &names, &count, err));
    SFQ_DO(open_shards(ck, path, names, count, err));
    SFQ_DO(collect(ck, err));
    SFQ_DO(check_index(ck, map, path, err));
    note_total(ck, root, path, hooks);
done:
    sfq_mem_free(names);
    json_decref(root);
    sfq_buf_free(&text);
    return status;
}

static sfq_status open_single(sfq_checkpoint *ck, sfq_error *err)
{
    ck->shards = SFQ_NEW_ARRAY(shard, 1);
    if (!ck->shards)
        return sfq_fail_memory(err, sizeof(shard), ck->dir);
    SFQ_TRY(open_shard(ck, SINGLE_NAME, err));
    return collect(ck, err);
}

static sfq_status entry_exists(const char *dir, const char *name, bool *exists, sfq_error *err)
{
    char *path = sfq_path_join(dir, name);
    if (!path)
        return sfq_fail_memory(err, strlen(dir), dir);
    *exists = sfq_file_exists(path);
    sfq_mem_free(path);
    return SFQ_OK;
}

/* No safetensors at all: say what lies there instead. Pickle runs code when it is opened, so those
 * files are known by name only. */
static sfq_status no_weights(const char *dir, sfq_error *err)
{
    static const char *const others[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                         "tf_model.h5", "flax_model.msgpack"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        bool exists = false;
        SFQ_TRY(entry_exists(dir, others[i], &exists, err));
        if (exists)
            return sfq_fail_at(err, SFQ_E_UNSUPPORTED, others[i], NULL,
                               "%s: holds %s and no safetensors; sfq never opens pickle or other "
                               "formats: convert it (save_pretrained of Transformers writes "
                               "safetensors)",
                               dir, others[i]);
    }
    return sfq_fail_at(err, SFQ_E_NOT_FOUND, dir, NULL,
                       "%s: neither " SINGLE_NAME " nor " INDEX_NAME " is there", dir);
}

sfq_status sfq_checkpoint_open(sfq_checkpoint **out, const char *dir, const sfq_hooks *hooks,
                               sfq_error *err)
{
    sfq_checkpoint *ck = SFQ_NEW(sfq_checkpoint);
    char *index = NULL;
    bool single = false;
    sfq_status status = SFQ_OK;
    *out = NULL;
    if (!ck || !(ck->dir = sfq_mem_strdup(dir)) || !(index = sfq_path_join(dir, INDEX_NAME))) {
        status = sfq_fail_memory(err, sizeof *ck, dir);
        goto done;
    }
    SFQ_DO(entry_exists(dir, SINGLE_NAME, &single, err));
    if (single)
        SFQ_DO(open_single(ck, err));
    else if (sfq_file_exists(index))
        SFQ_DO(open_index(ck, index, hooks, err));
    else
        SFQ_DO(no_weights(dir, err));
    *out = ck;
    ck = NULL;
done:
    sfq_mem_free(index);
    sfq_checkpoint_close(&ck);
    return status;
}

sfq_status sfq_checkpoint_copy(sfq_checkpoint *ck, sfq_pool *pool, const sfq_hooks *hooks,
                               sfq_error *err)
{
    for (size_t i = 0; i < ck->shard_count; i++)
        SFQ_TRY(sfq_safetensors_copy(ck->shards[i].st, pool, hooks, err));
    return SFQ_OK;
}

sfq_status sfq_checkpoint_of(sfq_checkpoint **out, const char *name, const sfq_tensor *tensors,
                             size_t count, sfq_error *err)
{
    sfq_checkpoint *ck = SFQ_NEW(sfq_checkpoint);
    sfq_status status = SFQ_OK;
    *out = NULL;
    if (!ck || !(ck->dir = sfq_mem_strdup(name)) || !(ck->entries = SFQ_NEW_ARRAY(entry, count))) {
        status = sfq_fail_memory(err, count * sizeof(entry), name);
        goto done;
    }
    for (size_t i = 0; i < count; i++)
        ck->entries[i].tensor = &tensors[i];
    ck->entry_count = count;
    qsort(ck->entries, count, sizeof(entry), compare_entries);
    *out = ck;
    ck = NULL;
done:
    sfq_checkpoint_close(&ck);
    return status;
}

void sfq_checkpoint_close(sfq_checkpoint **ck)
{
    if (!*ck)
        return;
    for (size_t i = 0; i < (*ck)->shard_count; i++) {
        sfq_safetensors_close(&(*ck)->shards[i].st);
        sfq_mem_free((*ck)->shards[i].name);
    }
    sfq_mem_free((*ck)->shards);
    sfq_mem_free((*ck)->entries);
    sfq_mem_free((*ck)->dir);
    sfq_mem_free(*ck);
    *ck = NULL;
}

/* ---- asking ---- */

size_t sfq_checkpoint_count(const sfq_checkpoint *ck)
{
    return ck->entry_count;
}

const sfq_tensor *sfq_checkpoint_at(const sfq_checkpoint *ck, size_t i)
{
    return ck->entries[i].tensor;
}

const sfq_tensor *sfq_checkpoint_find(const sfq_checkpoint *ck, const char *name)
{
    const entry *e = find_entry(ck, name);
    return e ? e->tensor : NULL;
}

uint64_t sfq_checkpoint_bytes(const sfq_checkpoint *ck)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < ck->shard_count; i++)
        sum += sfq_safetensors_bytes(ck->shards[i].st);
    for (size_t i = 0; ck->shard_count == 0 && i < ck->entry_count; i++)
        sum += ck->entries[i].tensor->bytes;
    return sum;
}

const char *sfq_checkpoint_file(const sfq_checkpoint *ck, const char *tensor)
{
    const entry *e = find_entry(ck, tensor);
    return e && ck->shard_count > 0 ? sfq_safetensors_path(ck->shards[e->shard].st) : ck->dir;
}

/* ---- verifying ---- */

static sfq_status check_sum(const sfq_checkpoint *ck, const shard *s, const sfq_tensor *t,
                            size_t *without, sfq_error *err)
{
    char *key = sfq_mem_raw(strlen(t->name) + 6), found[17];
    const char *said;
    if (!key)
        return sfq_fail_memory(err, strlen(t->name) + 6, s->name);
    memcpy(key, "xxh3:", 5);
    strcpy(key + 5, t->name);
    said = sfq_safetensors_metadata(s->st, key);
    sfq_mem_free(key);
    if (!said) {
        (*without)++;
        return SFQ_OK;
    }
    snprintf(found, sizeof found, "%016" PRIx64, (uint64_t)XXH3_64bits(t->data, (size_t)t->bytes));
    if (strcmp(said, found) == 0)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_CHECKSUM, sfq_safetensors_path(s->st), t->name,
                       "%s/%s: tensor %s: xxh3 is %s, the file says \"%s\": the file is damaged; "
                       "make or download it again",
                       ck->dir, s->name, t->name, found, said);
}

static sfq_status check_finite(const sfq_checkpoint *ck, const shard *s, const sfq_tensor *t,
                               sfq_error *err)
{
    uint64_t at;
    if (!sfq_dtype_info(t->dtype)->is_float)
        return SFQ_OK;
    at = sfq_tensor_first_nonfinite(t);
    if (at == t->count)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_NUMERIC, sfq_safetensors_path(s->st), t->name,
                       "%s/%s: tensor %s: element %" PRIu64 " is NaN or infinite", ck->dir, s->name,
                       t->name, at);
}

sfq_status sfq_checkpoint_verify(const sfq_checkpoint *ck, const sfq_hooks *hooks, sfq_error *err)
{
    uint64_t done = 0, total = sfq_checkpoint_bytes(ck);
    size_t without = 0;
    for (size_t s = 0; s < ck->shard_count; s++)
        for (size_t i = 0; i < sfq_safetensors_count(ck->shards[s].st); i++) {
            const sfq_tensor *t = sfq_safetensors_at(ck->shards[s].st, i);
            SFQ_TRY(sfq_hooks_check(hooks, err));
            SFQ_TRY(check_sum(ck, &ck->shards[s], t, &without, err));
            SFQ_TRY(check_finite(ck, &ck->shards[s], t, err));
            done += t->bytes;
            sfq_hooks_progress(hooks, "verify", 1, 1, done, total, "bytes");
        }
    if (without > 0)
        sfq_hooks_log(hooks, SFQ_LOG_NOTE,
                      "%zu of %zu tensors carry no checksum: that their numbers are finite is all "
                      "that was verified of them",
                      without, ck->entry_count);
    return SFQ_OK;
}
