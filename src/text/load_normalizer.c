/* text/load_normalizer.c - reads the "normalizer" object of tokenizer.json into a list of steps. */
#include "base/json.h"
#include "base/mem.h"
#include "text/load_steps.h"
#include "text/normalizer.h"
#include "text/unicode.h"

#include <string.h>

typedef struct loader {
    sfq_normalizer *to;
    const char *file;
    sfq_error *err;
} loader;

static const struct {
    const char *type;
    sfq_norm_kind kind;
    int form;
} kinds[] = {{"BertNormalizer", SFQ_NORM_BERT, 0},
             {"ByteLevel", SFQ_NORM_BYTE_LEVEL, 0},
             {"Lowercase", SFQ_NORM_LOWERCASE, 0},
             {"NFC", SFQ_NORM_FORM, SFQ_NFC},
             {"NFD", SFQ_NORM_FORM, SFQ_NFD},
             {"NFKC", SFQ_NORM_FORM, SFQ_NFKC},
             {"NFKD", SFQ_NORM_FORM, SFQ_NFKD},
             {"Nmt", SFQ_NORM_NMT, 0},
             {"Precompiled", SFQ_NORM_PRECOMPILED, 0},
             {"Prepend", SFQ_NORM_PREPEND, 0},
             {"Replace", SFQ_NORM_REPLACE, 0},
             {"Strip", SFQ_NORM_STRIP, 0},
             {"StripAccents", SFQ_NORM_STRIP_ACCENTS, 0}};

static sfq_status copy_string(loader *l, const json_t *json, const char *key, char **out)
{
    const char *text;
    SFQ_TRY(sfq_json_string(json, l->file, key, true, &text, l->err));
    *out = sfq_mem_strdup(text);
    return *out ? SFQ_OK : sfq_fail_memory(l->err, strlen(text), key);
}

static sfq_status load_bert(loader *l, const json_t *json, sfq_norm_step *step)
{
    SFQ_TRY(sfq_json_bool(json, l->file, "clean_text", NULL, &step->clean_text, l->err));
    SFQ_TRY(sfq_json_bool(json, l->file, "handle_chinese_chars", NULL, &step->chinese, l->err));
    SFQ_TRY(sfq_json_bool(json, l->file, "lowercase", NULL, &step->lowercase, l->err));
    return sfq_json_bool(json, l->file, "strip_accents", &step->lowercase, &step->strip_accents,
                         l->err);
}

static sfq_status load_replace(loader *l, const json_t *json, sfq_norm_step *step)
{
    SFQ_TRY(copy_string(l, json, "content", &step->content));
    const json_t *pattern = sfq_json_get(json, "pattern");
    if (sfq_json_get(pattern, "String")) {
        SFQ_TRY(copy_string(l, pattern, "String", &step->literal));
        if (step->literal[0] != '\0')
            return SFQ_OK;
        /* the empty pattern matches between all characters, which the regex engine does */
        return sfq_regex_open(&step->regex, "", l->file, "normalizer.pattern", l->err);
    }
    const char *regex;
    SFQ_TRY(sfq_json_string(pattern, l->file, "Regex", true, &regex, l->err));
    return sfq_regex_open(&step->regex, regex, l->file, "normalizer.pattern", l->err);
}

static sfq_status load_step(loader *l, const json_t *json, sfq_norm_step *step)
{
    const char *text;
    switch (step->kind) {
    case SFQ_NORM_BERT:
        return load_bert(l, json, step);
    case SFQ_NORM_PRECOMPILED:
        SFQ_TRY(sfq_json_string(json, l->file, "precompiled_charsmap", true, &text, l->err));
        return sfq_precompiled_load(&step->map, text, l->file, l->err);
    case SFQ_NORM_PREPEND:
        return copy_string(l, json, "prepend", &step->content);
    case SFQ_NORM_REPLACE:
        return load_replace(l, json, step);
    case SFQ_NORM_STRIP:
        SFQ_TRY(sfq_json_bool(json, l->file, "strip_left", NULL, &step->left, l->err));
        return sfq_json_bool(json, l->file, "strip_right", NULL, &step->right, l->err);
    default:
        return SFQ_OK;
    }
}

static sfq_status load_kind(void *ctx, const json_t *json, const char *type, bool *known)
{
    loader *l = ctx;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcmp(type, kinds[i].type) == 0) {
            sfq_norm_step *step = &l->to->steps[l->to->count++];
            *step = (sfq_norm_step){.kind = kinds[i].kind, .form = kinds[i].form};
            return load_step(l, json, step);
        }
    *known = false;
    return SFQ_OK;
}

sfq_status sfq_normalizer_load(sfq_normalizer *normalizer, const json_t *json, const char *file,
                               sfq_error *err)
{
    *normalizer = (sfq_normalizer){0};
    if (!json || json_is_null(json))
        return SFQ_OK;
    normalizer->steps = SFQ_NEW_ARRAY(sfq_norm_step, SFQ_TEXT_STEPS_MAX);
    if (!normalizer->steps)
        return sfq_fail_memory(err, SFQ_TEXT_STEPS_MAX * sizeof(sfq_norm_step), "normalizer");
    loader l = {normalizer, file, err};
    sfq_step_list list = {.part = "normalizer",
                          .items = "normalizers",
                          .plural = "normalizers",
                          .file = file,
                          .load = load_kind,
                          .ctx = &l};
    return sfq_steps_load(&list, json, err);
}

void sfq_normalizer_close(sfq_normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->count; i++) {
        sfq_norm_step *step = &normalizer->steps[i];
        sfq_mem_free(step->literal);
        sfq_mem_free(step->content);
        sfq_regex_close(&step->regex);
        sfq_precompiled_close(&step->map);
    }
    sfq_mem_free(normalizer->steps);
    *normalizer = (sfq_normalizer){0};
}
