/* format/hf_labels.c - the parts of config.json that name things: labels of a classifier, and the
 * ids of the special tokens with generation_config.json beside it. */
#include "format/hf_parts.h"

#include "base/file.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_BYTES = 16 }; /* "LABEL_4095" */

/* ---- labels ---- */

/* count pointers, and behind them room for the names LABEL_i. */
static sfq_status make_labels(sfq_hf_config *c, size_t count, sfq_error *err)
{
    char *names;
    if (count > SFQ_MAX_LABELS)
        return sfq_fail_at(err, SFQ_E_LIMIT, c->path, NULL, "%s: %zu labels, limit %d", c->path,
                           count, SFQ_MAX_LABELS);
    c->labels = sfq_mem_zero(count, sizeof *c->labels + LABEL_BYTES);
    if (!c->labels)
        return sfq_fail_memory(err, count * sizeof *c->labels, c->path);
    c->label_count = (int)count;
    names = (char *)(c->labels + count);
    for (size_t i = 0; i < count; i++)
        snprintf(names + i * LABEL_BYTES, LABEL_BYTES, "LABEL_%d", (int)i % SFQ_MAX_LABELS);
    return SFQ_OK;
}

/* id2label: {"0": "negative", ...}; every id from 0 to its size - 1, once. */
static sfq_status read_map(sfq_hf_config *c, const json_t *map, sfq_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(map) || json_object_size(map) == 0)
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: id2label: expected an object with an entry per label", c->path);
    SFQ_TRY(make_labels(c, json_object_size(map), err));
    json_object_foreach((json_t *)(uintptr_t)map, key, value)
    {
        char *end = NULL;
        unsigned long id = key[0] >= '0' && key[0] <= '9' ? strtoul(key, &end, 10) : 0;
        if (!end || *end || id >= (unsigned long)c->label_count || c->labels[id])
            return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                               "%s: id2label: \"%s\": expected each id from 0 to %d once", c->path,
                               key, c->label_count - 1);
        if (!json_is_string(value))
            return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                               "%s: id2label: \"%s\": expected a string", c->path, key);
        c->labels[id] = json_string_value(value);
    }
    return SFQ_OK;
}

static bool is_classifier(const char *architecture)
{
    static const char suffix[] = "ForSequenceClassification";
    size_t n = strlen(architecture), m = sizeof suffix - 1;
    return n >= m && strcmp(architecture + n - m, suffix) == 0;
}

sfq_status sfq_hf_read_labels(sfq_hf_config *c, sfq_error *err)
{
    static const char *const problems[] = {"regression", "single_label_classification",
                                           "multi_label_classification"};
    const json_t *map = sfq_json_get(c->root, "id2label");
    const int64_t none = is_classifier(c->architecture) ? 2 : 0; /* 2: what Transformers takes */
    int64_t count;
    bool known = false;
    SFQ_TRY(sfq_json_string(c->root, c->path, "problem_type", false, &c->problem_type, err));
    for (size_t i = 0; c->problem_type && i < sizeof problems / sizeof problems[0]; i++)
        known = known || strcmp(problems[i], c->problem_type) == 0;
    if (c->problem_type && !known)
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL, "%s: problem_type \"%s\" is unknown",
                           c->path, c->problem_type);
    if (map)
        return read_map(c, map, err);
    SFQ_TRY(sfq_hf_dim(c, "num_labels", 0, SFQ_MAX_LABELS, &none, &count, err));
    if (count == 0)
        return SFQ_OK;
    SFQ_TRY(make_labels(c, (size_t)count, err));
    for (int i = 0; i < c->label_count; i++)
        c->labels[i] = (const char *)(c->labels + c->label_count) + i * LABEL_BYTES;
    return SFQ_OK;
}

/* ---- token ids ---- */

/* An id that no token of this model can have (configs of cut-down vocabularies keep the old
 * ones) is no id at all: -1. */
static sfq_status check_id(const sfq_hf_config *c, const char *file, const char *key,
                           const json_t *value, int32_t *out, sfq_error *err)
{
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < -1 || id > INT32_MAX)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, NULL,
                           "%s: %s: expected a token id, 0 to %" PRId64, file, key, c->vocab - 1);
    *out = id < c->vocab ? (int32_t)id : -1;
    return SFQ_OK;
}

/* key of one file: absent leaves *out, null makes it -1. */
static sfq_status read_id(const sfq_hf_config *c, const json_t *root, const char *file,
                          const char *key, int32_t *out, sfq_error *err)
{
    const json_t *value = json_object_get(root, key);
    if (json_is_null(value))
        *out = -1;
    else if (value)
        return check_id(c, file, key, value, out, err);
    return SFQ_OK;
}

static sfq_status add_eos(sfq_hf_config *c, const char *file, const json_t *value, sfq_error *err)
{
    int32_t id;
    SFQ_TRY(check_id(c, file, "eos_token_id", value, &id, err));
    if (id >= 0)
        c->eos[c->eos_count++] = id;
    return SFQ_OK;
}

/* An id, a list of ids, or null. */
static sfq_status read_eos(sfq_hf_config *c, const char *file, const json_t *value, sfq_error *err)
{
    size_t n = json_array_size(value);
    c->eos_count = 0;
    if (json_is_null(value))
        return SFQ_OK;
    if (!json_is_array(value))
        return add_eos(c, file, value, err);
    if (n > SFQ_MAX_EOS)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, NULL, "%s: eos_token_id: %zu ids, limit %d",
                           file, n, SFQ_MAX_EOS);
    for (size_t i = 0; i < n; i++)
        SFQ_TRY(add_eos(c, file, json_array_get(value, i), err));
    return SFQ_OK;
}

static sfq_status read_generation(sfq_hf_config *c, const char *path, sfq_error *err)
{
    json_t *root = NULL;
    const json_t *eos;
    sfq_status status;
    SFQ_DO(sfq_hf_read_json(&root, path, err));
    eos = sfq_json_get(root, "eos_token_id");
    if (eos)
        SFQ_DO(read_eos(c, path, eos, err));
    if (c->bos < 0)
        SFQ_DO(read_id(c, root, path, "bos_token_id", &c->bos, err));
    if (c->pad < 0)
        SFQ_DO(read_id(c, root, path, "pad_token_id", &c->pad, err));
done:
    json_decref(root);
    return status;
}

sfq_status sfq_hf_read_ids(sfq_hf_config *c, const sfq_hf_family *f, const char *dir,
                           sfq_error *err)
{
    const json_t *eos = json_object_get(c->root, "eos_token_id");
    char *path;
    sfq_status status = SFQ_OK;
    c->bos = f->bos_default < c->vocab ? f->bos_default : -1;
    c->pad = f->pad_default < c->vocab ? f->pad_default : -1;
    SFQ_TRY(read_id(c, c->root, c->path, "bos_token_id", &c->bos, err));
    SFQ_TRY(read_id(c, c->root, c->path, "pad_token_id", &c->pad, err));
    if (eos)
        SFQ_TRY(read_eos(c, c->path, eos, err));
    else if (f->eos_default >= 0 && f->eos_default < c->vocab)
        c->eos[c->eos_count++] = f->eos_default;
    if (!dir)
        return SFQ_OK;
    path = sfq_path_join(dir, "generation_config.json");
    if (!path)
        return sfq_fail_memory(err, strlen(dir), dir);
    if (sfq_file_exists(path))
        status = read_generation(c, path, err);
    sfq_mem_free(path);
    return status;
}
