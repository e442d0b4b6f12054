/* format/artifact_read.c - "quantization_config" of an sfq artifact, and the proof that a packed
 * matrix's two tensors are what it says. Geometry that follows from a shape is computed, and
 * what the file says about it must be the same: kernels never see numbers that only a file
 * vouches for. */
#include "format/artifact.h"

#include "base/mem.h"
#include "format/hf_parts.h"
#include "format/st_header.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHAPE_MAX = 1 << 30 };

/* Kernels add unsigned 8-bit codes times activations over a segment in an int32. segment_k follows
 * from the shape and is at most SFQ_SEGMENT_MAX, so no file can reach the limit. */
_Static_assert(INT64_C(255) * ((1 << (SFQ_ACTIVATION_BITS_MAX - 1)) - 1) * SFQ_SEGMENT_MAX <=
                   INT32_MAX,
               "widest activations times the longest segment");

/* ---- quantization_config ---- */

static sfq_status read_layers(sfq_artifact_info *info, const sfq_hf_config *c, sfq_error *err)
{
    const json_t *list = sfq_json_get(c->quantization, "layers");
    if (!json_is_array(list) || json_array_size(list) != (size_t)c->layers)
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: quantization_config.layers: expected an array of %" PRId64
                           " entries, found %zu",
                           c->path, c->layers, json_array_size(list));
    info->layers = SFQ_NEW_ARRAY(sfq_layer_dims, (size_t)c->layers);
    if (!info->layers)
        return sfq_fail_memory(err, (size_t)c->layers * sizeof(sfq_layer_dims), c->path);
    info->layer_count = (int)c->layers;
    for (int i = 0; i < info->layer_count; i++) {
        const json_t *layer = json_array_get(list, (size_t)i);
        sfq_layer_dims *d = &info->layers[i];
        SFQ_TRY(sfq_json_int(layer, c->path, "heads", 0, c->heads, NULL, &d->heads, err));
        SFQ_TRY(sfq_json_int(layer, c->path, "kv_heads", 0, c->kv_heads, NULL, &d->kv_heads, err));
        SFQ_TRY(sfq_json_int(layer, c->path, "ffn", 0, c->ffn, NULL, &d->ffn, err));
    }
    return SFQ_OK;
}

/* shape: [n, k] */
static sfq_status read_shape(const json_t *entry, const char *path, const char *name,
                             sfq_cluster *out, sfq_error *err)
{
    const json_t *shape = sfq_json_get(entry, "shape");
    json_int_t n = json_integer_value(json_array_get(shape, 0));
    json_int_t k = json_integer_value(json_array_get(shape, 1));
    if (json_array_size(shape) != 2 || n < 1 || k < 1 || n > SHAPE_MAX || k > SHAPE_MAX ||
        !sfq_cluster_make(out, (size_t)n, (size_t)k))
        return sfq_fail_at(err, SFQ_E_FORMAT, path, name,
                           "%s: quantization_config.tensors: %s: shape: expected two integers from "
                           "1 to %d",
                           path, name, SHAPE_MAX);
    return SFQ_OK;
}

/* A key whose value follows from the shape. */
static sfq_status need_value(const json_t *entry, const char *path, const char *name,
                             const char *key, size_t expected, sfq_error *err)
{
    int64_t found;
    SFQ_TRY(sfq_json_int(entry, path, key, 0, INT64_MAX, NULL, &found, err));
    if ((uint64_t)found == expected)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_FORMAT, path, name,
                       "%s: quantization_config.tensors: %s: %s is %" PRId64
                       ", its shape gives %zu",
                       path, name, key, found, expected);
}

static sfq_status read_spec(sfq_packed_spec *spec, const json_t *entry, const char *path,
                            sfq_error *err)
{
    sfq_cluster *g = &spec->cluster;
    int64_t bits, activation;
    if (!json_is_object(entry))
        return sfq_fail_at(err, SFQ_E_FORMAT, path, spec->name,
                           "%s: quantization_config.tensors: %s: expected an object", path,
                           spec->name);
    SFQ_TRY(read_shape(entry, path, spec->name, g, err));
    SFQ_TRY(sfq_json_int(entry, path, "bits", 2, 8, NULL, &bits, err));
    SFQ_TRY(sfq_json_int(entry, path, "activation_bits", SFQ_ACTIVATION_BITS_MIN,
                         SFQ_ACTIVATION_BITS_MAX, NULL, &activation, err));
    SFQ_TRY(need_value(entry, path, spec->name, "segments", g->segments, err));
    SFQ_TRY(need_value(entry, path, spec->name, "segment_k", g->segment_k, err));
    SFQ_TRY(need_value(entry, path, spec->name, "share", g->share, err));
    spec->bits = (int)bits;
    spec->activation_bits = (int)activation;
    return SFQ_OK;
}

static int compare_specs(const void *a, const void *b)
{
    return strcmp(((const sfq_packed_spec *)a)->name, ((const sfq_packed_spec *)b)->name);
}

static sfq_status read_specs(sfq_artifact_info *info, const sfq_hf_config *c, sfq_error *err)
{
    const json_t *map = sfq_json_get(c->quantization, "tensors");
    const char *name;
    json_t *entry;
    if (!json_is_object(map))
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: quantization_config.tensors is missing or no object", c->path);
    info->packed = SFQ_NEW_ARRAY(sfq_packed_spec, json_object_size(map));
    if (!info->packed)
        return sfq_fail_memory(err, json_object_size(map) * sizeof(sfq_packed_spec), c->path);
    json_object_foreach((json_t *)(uintptr_t)map, name, entry)
    {
        sfq_packed_spec *spec = &info->packed[info->packed_count];
        size_t n = strlen(name);
        if (n == 0 || n > SFQ_ST_MAX_NAME)
            return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                               "%s: quantization_config.tensors: name of %zu bytes", c->path, n);
        spec->name = sfq_mem_strdup(name);
        if (!spec->name)
            return sfq_fail_memory(err, n + 1, c->path);
        info->packed_count++;
        SFQ_TRY(read_spec(spec, entry, c->path, err));
    }
    if (info->packed_count > 1)
        qsort(info->packed, info->packed_count, sizeof *info->packed, compare_specs);
    return SFQ_OK;
}

/* quant_method and version: another method, or a version to come, is not damage. */
static sfq_status check_method(const sfq_hf_config *c, int *version, sfq_error *err)
{
    const char *method = NULL;
    int64_t v;
    SFQ_TRY(sfq_json_string(c->quantization, c->path, "quant_method", true, &method, err));
    if (strcmp(method, "sfq") != 0)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                           "%s: quantization_config: quant_method \"%s\" is not supported; give "
                           "the model before it was quantized",
                           c->path, method);
    SFQ_TRY(sfq_json_int(c->quantization, c->path, "version", 1, INT32_MAX, NULL, &v, err));
    if (v > SFQ_ARTIFACT_VERSION)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                           "%s: quantization_config: version %" PRId64
                           " was written by a newer sfq, this one reads version %d",
                           c->path, v, SFQ_ARTIFACT_VERSION);
    *version = (int)v;
    return SFQ_OK;
}

sfq_status sfq_artifact_read(sfq_artifact_info **out, const sfq_hf_config *config, sfq_error *err)
{
    sfq_artifact_info *info;
    int64_t original;
    int version = 0;
    sfq_status status;
    *out = NULL;
    if (!config->quantization)
        return SFQ_OK;
    SFQ_TRY(check_method(config, &version, err));
    info = SFQ_NEW(sfq_artifact_info);
    if (!info)
        return sfq_fail_memory(err, sizeof *info, config->path);
    info->version = version;
    SFQ_DO(sfq_json_int(config->quantization, config->path, "original_parameters", 1,
                        (int64_t)1 << 52, NULL, &original, err));
    info->original_parameters = (uint64_t)original;
    SFQ_DO(read_layers(info, config, err));
    SFQ_DO(read_specs(info, config, err));
    *out = info;
    info = NULL;
done:
    sfq_artifact_free(&info);
    return status;
}

void sfq_artifact_free(sfq_artifact_info **info)
{
    if (!*info)
        return;
    for (size_t i = 0; i < (*info)->packed_count; i++)
        sfq_mem_free((*info)->packed[i].name);
    sfq_mem_free((*info)->packed);
    sfq_mem_free((*info)->layers);
    sfq_mem_free(*info);
    *info = NULL;
}

const sfq_packed_spec *sfq_artifact_find(const sfq_artifact_info *info, const char *name)
{
    size_t low = 0, high = info ? info->packed_count : 0;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(name, info->packed[mid].name);
        if (order == 0)
            return &info->packed[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* ---- widths per layer ---- */

/* One entry of per_layer_config: only widths, and "skip" for a whole sublayer. */
static sfq_status read_exception(sfq_layer_dims *d, const sfq_hf_config *c, const sfq_hf_family *f,
                                 int layer, const json_t *entry, sfq_error *err)
{
    const char *key;
    json_t *value;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)entry, key, value)
    {
        bool width = strcmp(key, f->heads) == 0 || strcmp(key, f->ffn) == 0 ||
                     strcmp(key, "num_key_value_heads") == 0;
        if (!width && strcmp(key, "skip") != 0)
            return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                               "%s: per_layer_config: layer %d: \"%s\" per layer is not supported",
                               c->path, layer, key);
    }
    SFQ_TRY(sfq_json_int(entry, c->path, f->heads, 0, c->heads, &d->heads, &d->heads, err));
    if (f->kv_default < 0)
        d->kv_heads = d->heads;
    else
        SFQ_TRY(sfq_json_int(entry, c->path, "num_key_value_heads", 0, c->kv_heads, &d->kv_heads,
                             &d->kv_heads, err));
    SFQ_TRY(sfq_json_int(entry, c->path, f->ffn, 0, c->ffn, &d->ffn, &d->ffn, err));
    json_array_foreach(sfq_json_get(entry, "skip"), i, value)
    {
        const char *part = json_string_value(value);
        if (part && strcmp(part, "mlp") == 0)
            d->ffn = 0;
        else if (part && strcmp(part, "attention") == 0)
            d->heads = d->kv_heads = 0;
        else
            return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                               "%s: per_layer_config: layer %d: skip: only \"attention\" and "
                               "\"mlp\" can be left out",
                               c->path, layer);
    }
    return SFQ_OK;
}

static sfq_status read_exceptions(sfq_layer_dims *dims, const sfq_hf_config *c, sfq_error *err)
{
    const json_t *map = sfq_json_get(c->root, "per_layer_config");
    const sfq_hf_family *f = sfq_hf_family_find(c->model_type);
    const char *key;
    json_t *entry;
    if (!map)
        return SFQ_OK;
    if (!json_is_object(map) || !f)
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: per_layer_config: expected an object", c->path);
    json_object_foreach((json_t *)(uintptr_t)map, key, entry)
    {
        char *end = NULL;
        unsigned long layer = key[0] >= '0' && key[0] <= '9' ? strtoul(key, &end, 10) : 0;
        if (!end || *end || layer >= (unsigned long)c->layers || !json_is_object(entry))
            return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                               "%s: per_layer_config: \"%s\": expected objects under layers 0 to "
                               "%" PRId64,
                               c->path, key, c->layers - 1);
        SFQ_TRY(read_exception(&dims[layer], c, f, (int)layer, entry, err));
    }
    return SFQ_OK;
}

sfq_status sfq_hf_layer_dims(sfq_layer_dims *dims, const sfq_hf_config *config,
                             const sfq_artifact_info *info, sfq_error *err)
{
    for (int64_t i = 0; i < config->layers; i++)
        dims[i] =
            info ? info->layers[i] : (sfq_layer_dims){config->heads, config->kv_heads, config->ffn};
    if (!info)
        SFQ_TRY(read_exceptions(dims, config, err));
    for (int64_t i = 0; i < config->layers; i++) {
        const sfq_layer_dims *d = &dims[i];
        bool fits = d->kv_heads > 0 ? d->heads > 0 && d->heads % d->kv_heads == 0 : d->heads == 0;
        if (!fits)
            return sfq_fail_at(err, SFQ_E_FORMAT, config->path, NULL,
                               "%s: layer %" PRId64 ": %" PRId64 " heads cannot share %" PRId64
                               " key/value heads",
                               config->path, i, d->heads, d->kv_heads);
    }
    return SFQ_OK;
}

/* ---- packed matrices ---- */

static sfq_status find_part(const sfq_packed_spec *spec, const sfq_checkpoint *ck, const char *part,
                            const uint64_t want[3], const sfq_tensor **out, sfq_error *err)
{
    size_t n = strlen(spec->name) + strlen(part) + 1;
    char *name = sfq_mem_raw(n);
    const sfq_tensor *t;
    sfq_status status = SFQ_OK;
    if (!name)
        return sfq_fail_memory(err, n, spec->name);
    snprintf(name, n, "%s%s", spec->name, part);
    t = sfq_checkpoint_find(ck, name);
    *out = t;
    if (!t)
        status = sfq_fail_at(err, SFQ_E_FORMAT, sfq_checkpoint_file(ck, name), name,
                             "tensor %s is missing", name);
    else if (t->rank != 3 || memcmp(t->shape, want, 3 * sizeof *want) != 0)
        status = sfq_fail_at(err, SFQ_E_FORMAT, sfq_checkpoint_file(ck, name), name,
                             "%s: tensor %s: rank %d, shape [%" PRIu64 ", %" PRIu64 ", %" PRIu64
                             "], expected [%" PRIu64 ", %" PRIu64 ", %" PRIu64 "]",
                             sfq_checkpoint_file(ck, name), name, t->rank, t->shape[0], t->shape[1],
                             t->shape[2], want[0], want[1], want[2]);
    sfq_mem_free(name);
    return status;
}

static sfq_status wrong_dtype(const sfq_checkpoint *ck, const sfq_tensor *t, const char *expected,
                              sfq_error *err)
{
    const char *file = sfq_checkpoint_file(ck, t->name);
    return sfq_fail_at(err, SFQ_E_FORMAT, file, t->name, "%s: tensor %s: dtype %s, expected %s",
                       file, t->name, sfq_dtype_info(t->dtype)->name, expected);
}

sfq_status sfq_packed_bind(const sfq_packed_spec *spec, const sfq_checkpoint *ck,
                           const sfq_tensor **codes, const sfq_tensor **scales, bool *aligned,
                           sfq_error *err)
{
    const sfq_cluster *g = &spec->cluster;
    const uint64_t code_shape[3] = {g->panels, g->k_blocks, sfq_block_bytes(spec->bits)};
    const uint64_t scale_shape[3] = {g->panels, g->segments, SFQ_PANEL_N / g->share};
    uint64_t bad;
    SFQ_TRY(find_part(spec, ck, ".codes", code_shape, codes, err));
    SFQ_TRY(find_part(spec, ck, ".scales", scale_shape, scales, err));
    if ((*codes)->dtype != SFQ_U8)
        return wrong_dtype(ck, *codes, "U8", err);
    if ((*scales)->dtype != SFQ_F16 && (*scales)->dtype != SFQ_F32)
        return wrong_dtype(ck, *scales, "F16 or F32", err);
    bad = sfq_tensor_first_nonfinite(*scales);
    if (bad != (*scales)->count)
        return sfq_fail_at(err, SFQ_E_NUMERIC, sfq_checkpoint_file(ck, (*scales)->name),
                           (*scales)->name, "%s: tensor %s: scale %" PRIu64 " is NaN or infinite",
                           sfq_checkpoint_file(ck, (*scales)->name), (*scales)->name, bad);
    *aligned = (uintptr_t)(*codes)->data % 64 == 0;
    return SFQ_OK;
}
