/* format/hf_config.c - config.json in one spelling. Every number is bounded here, once, so that no
 * product of two of them can overflow later; a family that is not in the table passes with its name
 * only, for the model layer to refuse. */
#include "format/hf_config.h"

#include "base/file.h"
#include "base/mem.h"
#include "format/hf_parts.h"

#include <inttypes.h>
#include <string.h>

enum {
    CONFIG_MAX_BYTES = 16 << 20,
    CONFIG_MAX_VALUES = 200000, /* an artifact of 1024 layers has 150 thousand */
    HIDDEN_MAX = 1 << 20,
    HEADS_MAX = 1 << 14,
    HEAD_DIM_MAX = 1 << 14,
    FFN_MAX = 1 << 22,
    VOCAB_MAX = 1 << 24,
    POSITIONS_MAX = 1 << 24,
    TYPES_MAX = 1 << 16
};

sfq_status sfq_hf_dim(const sfq_hf_config *c, const char *key, int64_t min, int64_t max,
                      const int64_t *def, int64_t *out, sfq_error *err)
{
    SFQ_TRY(sfq_json_int(c->root, c->path, key, min, INT64_MAX, def, out, err));
    if (*out > max)
        return sfq_fail_at(err, SFQ_E_LIMIT, c->path, NULL,
                           "%s: key \"%s\": %" PRId64 " passes the limit %" PRId64, c->path, key,
                           *out, max);
    return SFQ_OK;
}

sfq_status sfq_hf_string(const sfq_hf_config *c, const json_t *obj, const char *key,
                         const char **out, sfq_error *err)
{
    const char *value = NULL;
    SFQ_TRY(sfq_json_string(obj, c->path, key, false, &value, err));
    if (value)
        *out = value;
    return SFQ_OK;
}

sfq_status sfq_hf_read_json(json_t **out, const char *path, sfq_error *err)
{
    sfq_buf text = SFQ_BUF_INIT(CONFIG_MAX_BYTES);
    sfq_status status = sfq_file_read(&text, path, CONFIG_MAX_BYTES, err);
    *out = NULL;
    if (status == SFQ_OK)
        status = sfq_json_parse(out, path, text.data, text.len, CONFIG_MAX_VALUES, err);
    sfq_buf_free(&text);
    if (status == SFQ_OK && !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        status = sfq_fail_at(err, SFQ_E_FORMAT, path, NULL, "%s: expected a JSON object", path);
    }
    return status;
}

static sfq_status read_names(sfq_hf_config *c, sfq_error *err)
{
    const json_t *list = sfq_json_get(c->root, "architectures");
    c->architecture = "";
    SFQ_TRY(sfq_json_string(c->root, c->path, "model_type", true, &c->model_type, err));
    if (!list || (json_is_array(list) && json_array_size(list) == 0))
        return SFQ_OK;
    if (!json_is_string(json_array_get(list, 0)))
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: architectures: expected an array of strings", c->path);
    c->architecture = json_string_value(json_array_get(list, 0));
    return SFQ_OK;
}

static sfq_status read_quantization(sfq_hf_config *c, sfq_error *err)
{
    c->quantization = sfq_json_get(c->root, "quantization_config");
    if (c->quantization && !json_is_object(c->quantization))
        return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                           "%s: quantization_config: expected an object", c->path);
    if (sfq_json_get(c->root, "compression_config"))
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                           "%s: compression_config (compressed-tensors) is not supported", c->path);
    return SFQ_OK;
}

/* a divides b, or FORMAT. */
static sfq_status need_divides(const sfq_hf_config *c, const char *key_a, int64_t a,
                               const char *key_b, int64_t b, sfq_error *err)
{
    if (b % a == 0)
        return SFQ_OK;
    return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                       "%s: %s %" PRId64 " does not divide %s %" PRId64, c->path, key_a, a, key_b,
                       b);
}

static sfq_status read_heads(sfq_hf_config *c, const sfq_hf_family *f, sfq_error *err)
{
    const bool null_kv = json_is_null(json_object_get(c->root, "num_key_value_heads"));
    int64_t def = f->kv_default > 0 && !null_kv ? f->kv_default : 0;
    SFQ_TRY(sfq_hf_dim(c, f->heads, 1, HEADS_MAX, NULL, &c->heads, err));
    c->kv_heads = c->heads;
    if (f->kv_default >= 0) {
        def = def ? def : c->heads;
        SFQ_TRY(sfq_hf_dim(c, "num_key_value_heads", 1, HEADS_MAX, &def, &c->kv_heads, err));
        if (c->kv_heads > c->heads)
            return sfq_fail_at(err, SFQ_E_FORMAT, c->path, NULL,
                               "%s: num_key_value_heads %" PRId64 " is more than %s %" PRId64,
                               c->path, c->kv_heads, f->heads, c->heads);
        SFQ_TRY(need_divides(c, "num_key_value_heads", c->kv_heads, f->heads, c->heads, err));
    }
    def = f->head_dim_default;
    if (def == 0 && sfq_json_get(c->root, "head_dim"))
        def = 1; /* explicit, so never used */
    if (def <= 0 || f->heads_divide_hidden)
        SFQ_TRY(need_divides(c, f->heads, c->heads, f->hidden, c->hidden, err));
    if (def <= 0) {
        c->head_dim = c->hidden / c->heads;
        return SFQ_OK;
    }
    return sfq_hf_dim(c, "head_dim", 1, HEAD_DIM_MAX, &def, &c->head_dim, err);
}

static sfq_status read_dims(sfq_hf_config *c, const sfq_hf_family *f, sfq_error *err)
{
    int64_t four;
    SFQ_TRY(sfq_hf_dim(c, f->hidden, 1, HIDDEN_MAX, NULL, &c->hidden, err));
    SFQ_TRY(sfq_hf_dim(c, f->layers, 1, SFQ_MAX_LAYERS, NULL, &c->layers, err));
    SFQ_TRY(read_heads(c, f, err));
    four = 4 * c->hidden;
    SFQ_TRY(sfq_hf_dim(c, f->ffn, 1, FFN_MAX, f->ffn_optional ? &four : NULL, &c->ffn, err));
    SFQ_TRY(sfq_hf_dim(c, "vocab_size", 1, VOCAB_MAX, NULL, &c->vocab, err));
    SFQ_TRY(sfq_hf_dim(c, f->positions, 1, POSITIONS_MAX, &f->positions_default, &c->max_positions,
                       err));
    if (f->type_vocab_default > 0)
        SFQ_TRY(sfq_hf_dim(c, "type_vocab_size", 0, TYPES_MAX, &f->type_vocab_default,
                           &c->type_vocab, err));
    return SFQ_OK;
}

static sfq_status read_switches(sfq_hf_config *c, const sfq_hf_family *f, sfq_error *err)
{
    static const bool no = false;
    c->activation = f->activation_default;
    c->norm_eps = f->eps_default;
    SFQ_TRY(sfq_hf_string(c, c->root, f->activation, &c->activation, err));
    if (f->eps)
        SFQ_TRY(
            sfq_json_real(c->root, c->path, f->eps, 1e-30, 1, &f->eps_default, &c->norm_eps, err));
    SFQ_TRY(sfq_json_bool(c->root, c->path, "tie_word_embeddings", &f->tie_default,
                          &c->tie_embeddings, err));
    if (f->has_attention_bias)
        SFQ_TRY(sfq_json_bool(c->root, c->path, "attention_bias", &no, &c->attention_bias, err));
    if (f->has_mlp_bias)
        SFQ_TRY(sfq_json_bool(c->root, c->path, "mlp_bias", &no, &c->mlp_bias, err));
    if (json_object_size(sfq_json_get(c->root, "pruned_heads")) > 0)
        return sfq_fail_at(err, SFQ_E_UNSUPPORTED, c->path, NULL,
                           "%s: pruned_heads is not supported (Transformers 5 dropped it; use "
                           "per_layer_config)",
                           c->path);
    return SFQ_OK;
}

/* What the parsed root says; dir NULL: there is no directory. */
static sfq_status read_all(sfq_hf_config *c, const char *dir, sfq_error *err)
{
    const sfq_hf_family *f;
    c->bos = c->pad = -1;
    SFQ_TRY(read_names(c, err));
    SFQ_TRY(read_quantization(c, err));
    f = sfq_hf_family_find(c->model_type);
    if (!f)
        return SFQ_OK;
    SFQ_TRY(read_dims(c, f, err));
    SFQ_TRY(read_switches(c, f, err));
    SFQ_TRY(sfq_hf_read_rope(c, f, err));
    SFQ_TRY(sfq_hf_read_layers(c, f, err));
    SFQ_TRY(sfq_hf_read_labels(c, err));
    return sfq_hf_read_ids(c, f, dir, err);
}

sfq_status sfq_hf_config_open(sfq_hf_config **out, const char *dir, sfq_error *err)
{
    sfq_hf_config *c = SFQ_NEW(sfq_hf_config);
    sfq_status status = SFQ_OK;
    *out = NULL;
    if (!c || !(c->path = sfq_path_join(dir, "config.json"))) {
        status = sfq_fail_memory(err, sizeof *c, dir);
        goto done;
    }
    status = sfq_hf_read_json(&c->root, c->path, err);
    if (status == SFQ_E_NOT_FOUND)
        status = sfq_fail_at(err, SFQ_E_NOT_FOUND, c->path, NULL,
                             "%s: not there; give a directory that holds a model", c->path);
    SFQ_DO(status);
    SFQ_DO(read_all(c, dir, err));
    *out = c;
    c = NULL;
done:
    sfq_hf_config_close(&c);
    return status;
}

sfq_status sfq_hf_config_alone(sfq_hf_config **out, const char *path, const char *text,
                               sfq_error *err)
{
    sfq_hf_config *c = SFQ_NEW(sfq_hf_config);
    sfq_status status = SFQ_OK;
    *out = NULL;
    if (!c || !(c->path = sfq_mem_strdup(path))) {
        status = sfq_fail_memory(err, sizeof *c, path);
        goto done;
    }
    if (text)
        SFQ_DO(sfq_json_parse(&c->root, path, text, strlen(text), CONFIG_MAX_VALUES, err));
    else
        SFQ_DO(sfq_hf_read_json(&c->root, path, err));
    SFQ_DO(read_all(c, NULL, err));
    *out = c;
    c = NULL;
done:
    sfq_hf_config_close(&c);
    return status;
}

void sfq_hf_config_close(sfq_hf_config **config)
{
    sfq_hf_config *c = *config;
    if (!c)
        return;
    json_decref(c->root);
    sfq_mem_free((void *)(uintptr_t)c->path);
    sfq_mem_free(c->layer_sliding);
    sfq_mem_free(c->layer_no_rope);
    sfq_mem_free(c->labels);
    sfq_mem_free(c);
    *config = NULL;
}
