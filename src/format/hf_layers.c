/* format/hf_layers.c - which layers look through a sliding window and which have no RoPE. Each
 * family says it in its own way; layer_types, where a family has it, is explicit and wins. */
#include "format/hf_parts.h"

#include "base/mem.h"

#include <string.h>

/* An array with an element for each layer; more are allowed where `exact` is false. */
static sfq_status layer_array(const sfq_hf_config *c, const char *key, bool exact,
                              const json_t **out, sfq_error *err)
{
    const json_t *a = sfq_json_get(c->root, key);
    size_t n = json_array_size(a), layers = (size_t)c->layers;
    *out = a;
    if (!a)
        return SFQ_OK;
    if (!json_is_array(a) || n < layers || (exact && n != layers))
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: %s: expected an array of %zu entries, one per layer, found %zu",
                           c->path, key, layers, n);
    return SFQ_OK;
}

/* SmolLM3: no_rope_layers[i] = 1 means, against its name, that layer i does use RoPE. */
static sfq_status read_no_rope(sfq_hf_config *c, sfq_error *err)
{
    static const int64_t four = 4;
    const json_t *list;
    int64_t interval;
    SFQ_TRY(layer_array(c, "no_rope_layers", false, &list, err));
    SFQ_TRY(sfq_json_int(c->root, c->path, "no_rope_layer_interval", 1, SFQ_MAX_LAYERS, &four,
                         &interval, err));
    for (int64_t i = 0; i < c->layers; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        if (!list) {
            c->layer_no_rope[i] = (i + 1) % interval == 0;
            continue;
        }
        if (!json_is_integer(v) || (json_integer_value(v) != 0 && json_integer_value(v) != 1))
            return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                               "%s: no_rope_layers[%d]: expected 0 or 1", c->path, (int)i);
        c->layer_no_rope[i] = json_integer_value(v) == 0;
    }
    return SFQ_OK;
}

static sfq_status read_types(sfq_hf_config *c, const json_t *types, sfq_error *err)
{
    for (int64_t i = 0; i < c->layers; i++) {
        const char *name = json_string_value(json_array_get(types, (size_t)i));
        if (!name)
            return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL, "%s: layer_types[%d] is no string",
                               c->path, (int)i);
        c->layer_sliding[i] = strcmp(name, "sliding_attention") == 0;
        if (!c->layer_sliding[i] && strcmp(name, "full_attention") != 0)
            return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                               "%s: layer_types[%d]: \"%s\" is not supported", c->path, (int)i,
                               name);
    }
    return SFQ_OK;
}

/* The window's size, 0 where config.json switches it off. */
static sfq_status read_window(sfq_hf_config *c, const sfq_hf_family *f, sfq_error *err)
{
    static const bool no = false;
    bool used = true;
    if (f->window != SFQ_WINDOW_ALL)
        SFQ_TRY(sfq_json_bool(c->root, c->path, "use_sliding_window", &no, &used, err));
    c->sliding_window = 0;
    if (!used || json_is_null(json_object_get(c->root, "sliding_window")))
        return SFQ_OK;
    return sfq_hf_dim(c, "sliding_window", 1, 1 << 30, &f->window_default, &c->sliding_window, err);
}

sfq_status sfq_hf_read_layers(sfq_hf_config *c, const sfq_hf_family *f, sfq_error *err)
{
    static const int64_t from_default = 28;
    const json_t *types = NULL;
    int64_t from;
    c->layer_sliding = SFQ_NEW_ARRAY(uint8_t, (size_t)c->layers);
    c->layer_no_rope = SFQ_NEW_ARRAY(uint8_t, (size_t)c->layers);
    if (!c->layer_sliding || !c->layer_no_rope)
        return sfq_fail_memory(err, (size_t)c->layers, c->path);
    if (f->window == SFQ_WINDOW_NONE)
        return SFQ_OK;
    if (f->window == SFQ_WINDOW_NOPE)
        SFQ_TRY(read_no_rope(c, err));
    SFQ_TRY(read_window(c, f, err));
    if (f->window != SFQ_WINDOW_ALL)
        SFQ_TRY(layer_array(c, "layer_types", true, &types, err));
    if (types)
        SFQ_TRY(read_types(c, types, err));
    SFQ_TRY(sfq_json_int(c->root, c->path, "max_window_layers", 0, INT32_MAX, &from_default, &from,
                         err));
    for (int64_t i = 0; i < c->layers; i++) {
        bool slides = f->window == SFQ_WINDOW_ALL || (f->window == SFQ_WINDOW_FROM && i >= from) ||
                      (f->window == SFQ_WINDOW_NOPE && c->layer_no_rope[i]);
        if (!types)
            c->layer_sliding[i] = slides;
        c->layer_sliding[i] = c->layer_sliding[i] && c->sliding_window > 0;
    }
    return SFQ_OK;
}
