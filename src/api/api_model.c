/* api/api_model.c - <sfq/model.h>: checks of arguments, and forwarding to the
 * engine. */
#include "api/api.h"
#include "base/mem.h"
#include "runtime/tokenize.h"

void sfq_model_options_default(sfq_model_options *options)
{
    if (options != NULL)
        *options = (sfq_model_options){.struct_size = sizeof(*options)};
}

sfq_status sfq_model_open(sfq_model **out, const char *path, const sfq_model_options *options,
                          sfq_error *err)
{
    SFQ_API_NEED(out);
    *out = NULL;
    SFQ_API_NEED(path);
    sfq_model_options o;
    sfq_model_options_default(&o);
    SFQ_TRY(sfq_api_options(&o, sizeof(o), options, options != NULL ? options->struct_size : 0,
                            "sfq_model_options", err));
    if (o.threads < 0 || o.threads > SFQ_MAX_THREADS)
        return sfq_fail(err, SFQ_E_ARGUMENT, "threads must be in 1..%d, or 0 for the default",
                        SFQ_MAX_THREADS);
    sfq_model *model = SFQ_NEW(sfq_model);
    if (model == NULL)
        return sfq_fail_memory(err, sizeof(*model), "model");
    sfq_status status = sfq_engine_open(&model->engine, path, &o, err);
    if (status == SFQ_OK)
        *out = model;
    else
        sfq_mem_free(model);
    return status;
}

void sfq_model_close(sfq_model **model)
{
    if (model == NULL || *model == NULL)
        return;
    sfq_engine_close(&(*model)->engine);
    sfq_mem_free(*model);
    *model = NULL;
}

const char *sfq_head_kind_name(sfq_head_kind head)
{
    switch (head) {
    case SFQ_HEAD_LM:
        return "language model";
    case SFQ_HEAD_CLASSIFIER:
        return "classifier";
    case SFQ_HEAD_REGRESSION:
        return "regression";
    case SFQ_HEAD_EMBEDDING:
        return "embedding";
    }
    return "?";
}

sfq_status sfq_model_info_get(const sfq_model *model, sfq_model_info *out, sfq_error *err)
{
    SFQ_API_NEED(model);
    SFQ_API_NEED(out);
    return sfq_engine_info(model->engine, out, err);
}

sfq_status sfq_model_layer_get(const sfq_model *model, int layer, sfq_layer_info *out,
                               sfq_error *err)
{
    SFQ_API_NEED(model);
    SFQ_API_NEED(out);
    return sfq_engine_layer(model->engine, layer, out, err);
}

const char *sfq_model_label(const sfq_model *model, int index)
{
    if (model == NULL || index < 0 || index >= model->engine->arch->labels ||
        index >= model->engine->config->label_count)
        return NULL;
    return model->engine->config->labels[index];
}

int sfq_model_width(const sfq_model *model)
{
    return model != NULL ? model->engine->arch->hidden : 0;
}

sfq_status sfq_model_verify(const sfq_model *model, const sfq_hooks *hooks, sfq_error *err)
{
    SFQ_API_NEED(model);
    return sfq_checkpoint_verify(model->engine->ck, hooks, err);
}

/* The ids of a text into memory that is the caller's. */
static sfq_status take_ids(const sfq_tokenizer *tokenizer, const char *text, size_t bytes,
                           const char *pair, size_t pair_bytes, bool special, int32_t **ids,
                           size_t *count, sfq_error *err)
{
    sfq_encoding encoding = {0};
    SFQ_TRY(sfq_tokenizer_encode(tokenizer, text != NULL ? text : "", bytes, pair, pair_bytes,
                                 special, 0, &encoding, err));
    *ids = encoding.ids;
    *count = encoding.count;
    encoding.ids = NULL;
    sfq_encoding_clear(&encoding);
    return SFQ_OK;
}

sfq_status sfq_model_tokenize(const sfq_model *model, const char *text, size_t bytes,
                              const char *pair, size_t pair_bytes, bool special, int32_t **ids,
                              size_t *count, sfq_error *err)
{
    SFQ_API_NEED(ids);
    SFQ_API_NEED(count);
    *ids = NULL;
    *count = 0;
    SFQ_API_NEED(model);
    if (bytes > 0)
        SFQ_API_NEED(text);
    if (pair_bytes > 0)
        SFQ_API_NEED(pair);
    SFQ_TRY(sfq_engine_need(model->engine, SFQ_NEED_TOKENIZER, err));
    return take_ids(model->engine->tokenizer, text, bytes, pair, pair_bytes, special, ids, count,
                    err);
}

sfq_status sfq_tokenize(const char *path, const char *text, size_t bytes, const char *pair,
                        size_t pair_bytes, bool special, int32_t **ids, size_t *count,
                        sfq_error *err)
{
    SFQ_API_NEED(ids);
    SFQ_API_NEED(count);
    *ids = NULL;
    *count = 0;
    SFQ_API_NEED(path);
    if (bytes > 0)
        SFQ_API_NEED(text);
    if (pair_bytes > 0)
        SFQ_API_NEED(pair);
    sfq_tokenizer *tokenizer;
    SFQ_TRY(sfq_tokenizer_of(&tokenizer, path, err));
    sfq_status status =
        take_ids(tokenizer, text, bytes, pair, pair_bytes, special, ids, count, err);
    sfq_tokenizer_close(&tokenizer);
    return status;
}

sfq_status sfq_model_detokenize(const sfq_model *model, const int32_t *ids, size_t count,
                                bool skip_special, char **text, size_t *bytes, sfq_error *err)
{
    SFQ_API_NEED(text);
    *text = NULL;
    SFQ_API_NEED(bytes);
    *bytes = 0;
    SFQ_API_NEED(model);
    if (count > 0)
        SFQ_API_NEED(ids);
    SFQ_TRY(sfq_engine_need(model->engine, SFQ_NEED_TOKENIZER, err));
    return sfq_tokenizer_decode(model->engine->tokenizer, ids, count, skip_special, text, bytes,
                                err);
}
