/* format/artifact_write.c - config.json of an artifact: the model's own object, untouched, plus
 * what sfq and its Transformers plug-in need. Keys are sorted and numbers printed in one way, so
 * equal models give equal bytes. */
#include "format/artifact.h"

#include "base/mem.h"
#include "format/hf_parts.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 16 << 20, DIGITS_MIN = 15, DIGITS_MAX = 17 };

/* Adds a new value to an object and takes the reference in any case. */
static sfq_status put(json_t *object, const char *key, json_t *value, sfq_error *err)
{
    return json_object_set_new(object, key, value) == 0
               ? SFQ_OK
               : sfq_fail_memory(err, sizeof(json_t *), "config.json");
}

static sfq_status put_size(json_t *object, const char *key, size_t value, sfq_error *err)
{
    return put(object, key, json_integer((json_int_t)value), err);
}

/* Adds an empty object (or array) and hands it out, still owned by the parent. */
static sfq_status put_container(json_t *object, const char *key, json_t *value, json_t **out,
                                sfq_error *err)
{
    *out = value;
    return put(object, key, value, err);
}

static sfq_status put_layers(json_t *q, const sfq_artifact_info *info, sfq_error *err)
{
    json_t *list;
    SFQ_TRY(put_container(q, "layers", json_array(), &list, err));
    for (int i = 0; i < info->layer_count; i++) {
        json_t *layer = json_object();
        if (json_array_append_new(list, layer) != 0)
            return sfq_fail_memory(err, sizeof layer, "config.json");
        SFQ_TRY(put_size(layer, "heads", (size_t)info->layers[i].heads, err));
        SFQ_TRY(put_size(layer, "kv_heads", (size_t)info->layers[i].kv_heads, err));
        SFQ_TRY(put_size(layer, "ffn", (size_t)info->layers[i].ffn, err));
    }
    return SFQ_OK;
}

static json_t *shape_of(const sfq_cluster *g)
{
    return json_pack("[I, I]", (json_int_t)g->n, (json_int_t)g->k);
}

static sfq_status put_specs(json_t *q, const sfq_artifact_info *info, sfq_error *err)
{
    json_t *tensors, *shapes;
    SFQ_TRY(put_container(q, "tensors", json_object(), &tensors, err));
    SFQ_TRY(put_container(q, "shapes", json_object(), &shapes, err));
    for (size_t i = 0; i < info->packed_count; i++) {
        const sfq_packed_spec *spec = &info->packed[i];
        const sfq_cluster *g = &spec->cluster;
        json_t *entry;
        SFQ_TRY(put(shapes, spec->name, shape_of(g), err));
        SFQ_TRY(put_container(tensors, spec->name, json_object(), &entry, err));
        SFQ_TRY(put(entry, "shape", shape_of(g), err));
        SFQ_TRY(put_size(entry, "bits", (size_t)spec->bits, err));
        SFQ_TRY(put_size(entry, "activation_bits", (size_t)spec->activation_bits, err));
        SFQ_TRY(put_size(entry, "segments", g->segments, err));
        SFQ_TRY(put_size(entry, "segment_k", g->segment_k, err));
        SFQ_TRY(put_size(entry, "share", g->share, err));
    }
    return SFQ_OK;
}

/* Transformers' own description of ragged widths: only the layers that differ. */
static sfq_status put_exceptions(json_t *root, const sfq_hf_config *c,
                                 const sfq_artifact_info *info, sfq_error *err)
{
    const sfq_hf_family *f = sfq_hf_family_find(c->model_type);
    json_t *map = NULL, *entry;
    char key[16];
    if (!f)
        return SFQ_OK;
    json_object_del(root, "per_layer_config"); /* info holds what an input's said */
    for (int i = 0; i < info->layer_count; i++) {
        const sfq_layer_dims *d = &info->layers[i];
        if (d->heads == c->heads && d->kv_heads == c->kv_heads && d->ffn == c->ffn)
            continue;
        if (!map)
            SFQ_TRY(put_container(root, "per_layer_config", json_object(), &map, err));
        snprintf(key, sizeof key, "%d", i);
        SFQ_TRY(put_container(map, key, json_object(), &entry, err));
        if (d->heads != c->heads)
            SFQ_TRY(put_size(entry, f->heads, (size_t)d->heads, err));
        if (d->kv_heads != c->kv_heads && f->kv_default >= 0)
            SFQ_TRY(put_size(entry, "num_key_value_heads", (size_t)d->kv_heads, err));
        if (d->ffn != c->ffn)
            SFQ_TRY(put_size(entry, f->ffn, (size_t)d->ffn, err));
    }
    /* without it Transformers refuses to read a width that differs between layers */
    return map ? put(root, "allow_global_per_layer_attribute_access", json_true(), err) : SFQ_OK;
}

sfq_status sfq_artifact_config(json_t **out, const sfq_hf_config *original,
                               const sfq_artifact_info *info, sfq_error *err)
{
    json_t *root = json_deep_copy(original->root), *q;
    sfq_status status;
    *out = NULL;
    if (!root)
        return sfq_fail_memory(err, sizeof root, "config.json");
    SFQ_DO(put_container(root, "quantization_config", json_object(), &q, err));
    SFQ_DO(put(q, "quant_method", json_string("sfq"), err));
    SFQ_DO(put_size(q, "version", SFQ_ARTIFACT_VERSION, err));
    SFQ_DO(put_size(q, "original_parameters", (size_t)info->original_parameters, err));
    SFQ_DO(put_layers(q, info, err));
    SFQ_DO(put_specs(q, info, err));
    SFQ_DO(put_exceptions(root, original, info, err));
    *out = root;
    root = NULL;
done:
    json_decref(root);
    return status;
}

/* ---- back to a plain checkpoint ---- */

void sfq_artifact_stock_dims(sfq_layer_dims *dims, const sfq_hf_config *c)
{
    const sfq_hf_family *f = sfq_hf_family_find(c->model_type);
    const int64_t share = c->heads / c->kv_heads;
    dims->ffn = dims->ffn > 0 ? dims->ffn : 1;
    dims->kv_heads = dims->kv_heads > 0 ? dims->kv_heads : 1;
    if (f == NULL || f->kv_default < 0) {
        dims->kv_heads = c->kv_heads;
    } else if (f->heads_divide_hidden) {
        while (dims->kv_heads < c->kv_heads && c->hidden % (dims->kv_heads * share) != 0)
            dims->kv_heads++; /* the original's count divides it */
    }
    dims->heads = dims->kv_heads * share;
}

static sfq_status put_dense(json_t *root, const sfq_hf_config *c, const sfq_layer_dims *dims,
                            sfq_error *err)
{
    const sfq_hf_family *f = sfq_hf_family_find(c->model_type);
    if (f == NULL)
        return SFQ_OK;
    SFQ_TRY(put_size(root, f->heads, (size_t)dims->heads, err));
    SFQ_TRY(put_size(root, f->ffn, (size_t)dims->ffn, err));
    if (f->kv_default < 0)
        return SFQ_OK;
    SFQ_TRY(put_size(root, "num_key_value_heads", (size_t)dims->kv_heads, err));
    /* absent it would be the hidden size over the new number of heads */
    return put_size(root, "head_dim", (size_t)c->head_dim, err);
}

sfq_status sfq_artifact_dense_config(json_t **out, const sfq_hf_config *original,
                                     const sfq_layer_dims *dims, bool wide, sfq_error *err)
{
    static const char *const dropped[] = {"quantization_config", "per_layer_config",
                                          "allow_global_per_layer_attribute_access"};
    static const char *const dtypes[] = {"dtype", "torch_dtype"}; /* Transformers v5, v4 */
    json_t *root = json_deep_copy(original->root);
    sfq_status status = SFQ_OK;
    *out = NULL;
    if (!root)
        return sfq_fail_memory(err, sizeof root, "config.json");
    for (size_t i = 0; i < sizeof dropped / sizeof *dropped; i++)
        json_object_del(root, dropped[i]);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes && wide; i++) {
        const char *dtype = json_string_value(json_object_get(root, dtypes[i]));
        if (dtype != NULL && strcmp(dtype, "float16") == 0)
            SFQ_DO(put(root, dtypes[i], json_string("float32"), err));
    }
    SFQ_DO(put_dense(root, original, dims, err));
    *out = root;
    root = NULL;
done:
    json_decref(root);
    return status;
}

/* ---- text ---- */

typedef struct dump {
    sfq_buf *text;
    sfq_error *err;
    sfq_status status;
} dump;

/* jansson ignores a failure in the middle of a key: after the first one nothing is taken any
 * more. */
static int add_piece(const char *piece, size_t n, void *ud)
{
    dump *d = ud;
    if (d->status != SFQ_OK)
        return -1;
    d->status = sfq_buf_add(d->text, piece, n, d->err);
    return d->status == SFQ_OK ? 0 : -1;
}

/* With 17 digits every double survives, but 1e-5 reads 1.0000000000000001e-5; the fewest digits
 * that give back an equal object are used. */
sfq_status sfq_artifact_text(sfq_buf *text, const json_t *object, sfq_error *err)
{
    const size_t flags = JSON_INDENT(2) | JSON_SORT_KEYS;
    sfq_buf trial = SFQ_BUF_INIT(TEXT_MAX);
    sfq_status status = SFQ_OK;
    bool same = false;
    for (size_t digits = DIGITS_MIN; digits <= DIGITS_MAX && !same; digits++) {
        dump d = {.text = &trial, .err = err};
        json_t *back;
        sfq_buf_clear(&trial);
        if (json_dump_callback(object, add_piece, &d, flags | JSON_REAL_PRECISION(digits)) != 0) {
            status = d.status ? d.status : sfq_fail_memory(err, trial.len, "config.json");
            goto done;
        }
        SFQ_DO(sfq_json_parse(&back, "config.json", trial.data, trial.len, 0, err));
        same = json_equal(back, object);
        json_decref(back);
    }
    SFQ_DO(sfq_buf_add(&trial, "\n", 1, err));
    SFQ_DO(sfq_buf_add(text, trial.data, trial.len, err));
done:
    sfq_buf_free(&trial);
    return status;
}
