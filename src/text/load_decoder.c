/* text/load_decoder.c - reads the "decoder" object of tokenizer.json into a list of steps. */
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "text/decoder.h"
#include "text/load_steps.h"

#include <string.h>

typedef struct loader {
    sfq_decoder *to;
    const char *file;
    sfq_error *err;
} loader;

static const struct {
    const char *type;
    sfq_decode_kind kind;
} kinds[] = {{"BPEDecoder", SFQ_DECODE_BPE},
             {"ByteFallback", SFQ_DECODE_BYTE_FALLBACK},
             {"ByteLevel", SFQ_DECODE_BYTE_LEVEL},
             {"CTC", SFQ_DECODE_CTC},
             {"Fuse", SFQ_DECODE_FUSE},
             {"Metaspace", SFQ_DECODE_METASPACE},
             {"Replace", SFQ_DECODE_REPLACE},
             {"Strip", SFQ_DECODE_STRIP},
             {"WordPiece", SFQ_DECODE_WORDPIECE}};

static sfq_status copy_string(loader *l, const json_t *json, const char *key, char **out)
{
    const char *text;
    SFQ_TRY(sfq_json_string(json, l->file, key, true, &text, l->err));
    *out = sfq_mem_strdup(text);
    return *out ? SFQ_OK : sfq_fail_memory(l->err, strlen(text), key);
}

static sfq_status copy_character(loader *l, const json_t *json, const char *key, char **out)
{
    SFQ_TRY(copy_string(l, json, key, out));
    size_t n = strlen(*out), len = 0;
    if (n > 0)
        sfq_utf8_next(*out, n, &len);
    if (n == 0 || len != n)
        return sfq_fail_at(l->err, SFQ_E_FORMAT, l->file, key,
                           "%s: decoder: %s is \"%.60s\", expected one character", l->file, key,
                           *out);
    return SFQ_OK;
}

static sfq_status load_metaspace(loader *l, const json_t *json, sfq_decode_step *step)
{
    static const bool yes = true;
    const char *scheme;
    SFQ_TRY(copy_character(l, json, "replacement", &step->literal));
    SFQ_TRY(sfq_json_bool(json, l->file, "add_prefix_space", &yes, &step->prefix_space, l->err));
    SFQ_TRY(sfq_json_string(json, l->file, "prepend_scheme", false, &scheme, l->err));
    if (scheme && strcmp(scheme, "never") == 0)
        step->prefix_space = false;
    return SFQ_OK;
}

static sfq_status load_replace(loader *l, const json_t *json, sfq_decode_step *step)
{
    const char *text;
    const json_t *pattern = sfq_json_get(json, "pattern");
    SFQ_TRY(copy_string(l, json, "content", &step->content));
    SFQ_TRY(sfq_json_string(pattern, l->file, "String", false, &text, l->err));
    if (text && text[0] != '\0')
        return copy_string(l, pattern, "String", &step->literal);
    if (!text)
        SFQ_TRY(sfq_json_string(pattern, l->file, "Regex", true, &text, l->err));
    return sfq_regex_open(&step->regex, text, l->file, "decoder.pattern", l->err);
}

static sfq_status load_strip(loader *l, const json_t *json, sfq_decode_step *step)
{
    int64_t start, stop;
    SFQ_TRY(copy_character(l, json, "content", &step->literal));
    SFQ_TRY(sfq_json_int(json, l->file, "start", 0, INT64_MAX, NULL, &start, l->err));
    SFQ_TRY(sfq_json_int(json, l->file, "stop", 0, INT64_MAX, NULL, &stop, l->err));
    step->start = (size_t)start;
    step->stop = (size_t)stop;
    return SFQ_OK;
}

static sfq_status load_step(loader *l, const json_t *json, sfq_decode_step *step)
{
    switch (step->kind) {
    case SFQ_DECODE_BPE:
        return copy_string(l, json, "suffix", &step->literal);
    case SFQ_DECODE_CTC:
        SFQ_TRY(copy_string(l, json, "pad_token", &step->literal));
        SFQ_TRY(copy_string(l, json, "word_delimiter_token", &step->content));
        return sfq_json_bool(json, l->file, "cleanup", NULL, &step->cleanup, l->err);
    case SFQ_DECODE_METASPACE:
        return load_metaspace(l, json, step);
    case SFQ_DECODE_REPLACE:
        return load_replace(l, json, step);
    case SFQ_DECODE_STRIP:
        return load_strip(l, json, step);
    case SFQ_DECODE_WORDPIECE:
        SFQ_TRY(copy_string(l, json, "prefix", &step->literal));
        return sfq_json_bool(json, l->file, "cleanup", NULL, &step->cleanup, l->err);
    default:
        return SFQ_OK;
    }
}

static sfq_status load_kind(void *ctx, const json_t *json, const char *type, bool *known)
{
    loader *l = ctx;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcmp(type, kinds[i].type) == 0) {
            sfq_decode_step *step = &l->to->steps[l->to->count++];
            *step = (sfq_decode_step){.kind = kinds[i].kind};
            return load_step(l, json, step);
        }
    *known = false;
    return SFQ_OK;
}

sfq_status sfq_decoder_load(sfq_decoder *decoder, const json_t *json, const char *file,
                            sfq_error *err)
{
    *decoder = (sfq_decoder){.none = !json || json_is_null(json)};
    if (decoder->none)
        return SFQ_OK;
    decoder->steps = SFQ_NEW_ARRAY(sfq_decode_step, SFQ_TEXT_STEPS_MAX);
    if (!decoder->steps)
        return sfq_fail_memory(err, SFQ_TEXT_STEPS_MAX * sizeof(sfq_decode_step), "decoder");
    loader l = {decoder, file, err};
    sfq_step_list list = {.part = "decoder",
                          .items = "decoders",
                          .plural = "decoders",
                          .file = file,
                          .load = load_kind,
                          .ctx = &l};
    return sfq_steps_load(&list, json, err);
}

void sfq_decoder_close(sfq_decoder *decoder)
{
    for (size_t i = 0; i < decoder->count; i++) {
        sfq_mem_free(decoder->steps[i].literal);
        sfq_mem_free(decoder->steps[i].content);
        sfq_regex_close(&decoder->steps[i].regex);
    }
    sfq_mem_free(decoder->steps);
    *decoder = (sfq_decoder){0};
}
