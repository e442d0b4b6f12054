/* text/model.c - chooses the model by its "type", or, in files from before that key, by the keys it
 * has. */
#include "text/model.h"

#include "base/json.h"

#include <string.h>

#define WORK_MAX ((size_t)1 << 33)

static const char *guess_type(const json_t *json)
{
    if (json_is_array(sfq_json_get(json, "vocab")))
        return "Unigram";
    if (sfq_json_get(json, "merges"))
        return "BPE";
    return sfq_json_get(json, "continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

static sfq_status find_kind(sfq_word_model *model, const json_t *json, const char *file,
                            sfq_error *err)
{
    static const char *const names[] = {"BPE", "WordPiece", "WordLevel", "Unigram"};
    const char *type;
    SFQ_TRY(sfq_json_string(json, file, "type", false, &type, err));
    if (!type)
        type = guess_type(json);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(type, names[i]) == 0) {
            model->kind = (sfq_model_kind)i;
            return SFQ_OK;
        }
    return sfq_fail_at(err, SFQ_E_UNSUPPORTED, file, "model.type",
                       "%s: model \"%.60s\" is not supported", file, type);
}

sfq_status sfq_word_model_load(sfq_word_model *model, const json_t *json, const char *file,
                               sfq_error *err)
{
    *model = (sfq_word_model){0};
    if (!json_is_object(json))
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "model",
                           "%s: model is missing or not an object", file);
    SFQ_TRY(find_kind(model, json, file, err));
    if (model->kind == SFQ_MODEL_UNIGRAM)
        return sfq_unigram_load(&model->unigram, &model->vocab, json, file, err);
    SFQ_TRY(sfq_vocab_load(&model->vocab, sfq_json_get(json, "vocab"), file, err));
    if (model->kind == SFQ_MODEL_BPE)
        return sfq_bpe_load(&model->bpe, &model->vocab, json, file, err);
    if (model->kind == SFQ_MODEL_WORDPIECE)
        return sfq_wordpiece_load(&model->wordpiece, &model->vocab, json, file, err);
    return sfq_wordlevel_load(&model->wordpiece, &model->vocab, json, file, err);
}

void sfq_word_model_close(sfq_word_model *model)
{
    sfq_bpe_close(&model->bpe);
    sfq_wordpiece_close(&model->wordpiece);
    sfq_unigram_close(&model->unigram);
    sfq_vocab_close(&model->vocab);
}

sfq_status sfq_model_scratch_open(sfq_model_scratch *scratch, const sfq_word_model *model,
                                  sfq_error *err)
{
    *scratch = (sfq_model_scratch){.work = SFQ_BUF_INIT(WORK_MAX)};
    return model->kind == SFQ_MODEL_BPE ? sfq_bpe_scratch_open(&scratch->bpe, err) : SFQ_OK;
}

void sfq_model_scratch_close(sfq_model_scratch *scratch)
{
    sfq_bpe_scratch_close(&scratch->bpe);
    sfq_buf_free(&scratch->work);
}

sfq_status sfq_word_model_encode(const sfq_word_model *model, sfq_model_scratch *scratch,
                                 const char *word, size_t n, sfq_ids *out, sfq_error *err)
{
    switch (model->kind) {
    case SFQ_MODEL_BPE:
        return sfq_bpe_encode(&model->bpe, scratch->bpe, word, n, out, err);
    case SFQ_MODEL_WORDPIECE:
        return sfq_wordpiece_encode(&model->wordpiece, &scratch->work, word, n, out, err);
    case SFQ_MODEL_WORDLEVEL:
        return sfq_wordlevel_encode(&model->wordpiece, word, n, out, err);
    case SFQ_MODEL_UNIGRAM:
        return sfq_unigram_encode(&model->unigram, &scratch->work, word, n, out, err);
    }
    return sfq_fail(err, SFQ_E_INTERNAL, "model kind %d", (int)model->kind);
}
