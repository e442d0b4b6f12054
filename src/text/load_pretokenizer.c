/* text/load_pretokenizer.c - reads the "pre_tokenizer" object of tokenizer.json into a chain of
 * steps. */
#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "text/load_steps.h"
#include "text/pretokenizer.h"

#include <string.h>

/* GPT-2's pattern, which ByteLevel uses where use_regex is set */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

typedef struct loader {
    sfq_pretokenizer *to;
    const char *file;
    sfq_error *err;
} loader;

static const struct {
    const char *type;
    sfq_pre_kind kind;
} kinds[] = {{"BertPreTokenizer", SFQ_PRE_BERT},    {"ByteLevel", SFQ_PRE_BYTE_LEVEL},
             {"CharDelimiterSplit", SFQ_PRE_CHAR},  {"Digits", SFQ_PRE_DIGITS},
             {"FixedLength", SFQ_PRE_FIXED_LENGTH}, {"Metaspace", SFQ_PRE_METASPACE},
             {"Punctuation", SFQ_PRE_PUNCTUATION},  {"Split", SFQ_PRE_SPLIT},
             {"Whitespace", SFQ_PRE_WHITESPACE},    {"WhitespaceSplit", SFQ_PRE_WHITESPACE_SPLIT}};

static sfq_status bad_value(loader *l, const char *key, const char *value, const char *expected)
{
    return sfq_fail_at(l->err, SFQ_E_FORMAT, l->file, key,
                       "%s: pre_tokenizer: %s is \"%.60s\", expected %s", l->file, key, value,
                       expected);
}

static sfq_status load_behavior(loader *l, const json_t *json, bool required, sfq_behavior *out)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name;
    SFQ_TRY(sfq_json_string(json, l->file, "behavior", required, &name, l->err));
    *out = SFQ_ISOLATED;
    if (!name)
        return SFQ_OK;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (sfq_behavior)i;
            return SFQ_OK;
        }
    return bad_value(l, "behavior", name,
                     "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

/* A string of exactly one character. */
static sfq_status load_character(loader *l, const json_t *json, const char *key, uint32_t *c,
                                 char text[8])
{
    const char *value;
    size_t len = 0;
    SFQ_TRY(sfq_json_string(json, l->file, key, true, &value, l->err));
    size_t n = strlen(value);
    if (n > 0)
        *c = sfq_utf8_next(value, n, &len);
    if (n == 0 || len != n)
        return bad_value(l, key, value, "one character");
    memcpy(text, value, n);
    text[n] = '\0';
    return SFQ_OK;
}

static sfq_status load_byte_level(loader *l, const json_t *json, sfq_pre_step *step)
{
    static const bool yes = true;
    bool use_regex;
    SFQ_TRY(sfq_json_bool(json, l->file, "add_prefix_space", NULL, &step->prefix_space, l->err));
    SFQ_TRY(sfq_json_bool(json, l->file, "use_regex", &yes, &use_regex, l->err));
    if (!use_regex)
        return SFQ_OK;
    return sfq_regex_open(&step->regex, gpt2_pattern, l->file, "pre_tokenizer.ByteLevel", l->err);
}

static sfq_status load_metaspace(loader *l, const json_t *json, sfq_pre_step *step)
{
    static const bool yes = true;
    static const char *const names[] = {"always", "first", "never"};
    bool prefix_space;
    const char *scheme;
    SFQ_TRY(load_character(l, json, "replacement", &step->character, step->replacement));
    SFQ_TRY(sfq_json_bool(json, l->file, "split", &yes, &step->split, l->err));
    SFQ_TRY(sfq_json_bool(json, l->file, "add_prefix_space", &yes, &prefix_space, l->err));
    SFQ_TRY(sfq_json_string(json, l->file, "prepend_scheme", false, &scheme, l->err));
    step->behavior = SFQ_MERGED_WITH_NEXT;
    step->scheme = SFQ_PREPEND_ALWAYS;
    if (scheme) {
        size_t i = 0;
        while (i < 3 && strcmp(scheme, names[i]) != 0)
            i++;
        if (i == 3)
            return bad_value(l, "prepend_scheme", scheme, "always, first or never");
        step->scheme = (sfq_prepend_scheme)i;
    }
    if (!prefix_space && step->scheme != SFQ_PREPEND_NEVER)
        return bad_value(l, "prepend_scheme", scheme ? scheme : "always",
                         "never, because add_prefix_space is false");
    return SFQ_OK;
}

static sfq_status load_split(loader *l, const json_t *json, sfq_pre_step *step)
{
    SFQ_TRY(load_behavior(l, json, true, &step->behavior));
    SFQ_TRY(sfq_json_bool(json, l->file, "invert", NULL, &step->invert, l->err));
    const json_t *pattern = sfq_json_get(json, "pattern");
    const char *text;
    SFQ_TRY(sfq_json_string(pattern, l->file, "String", false, &text, l->err));
    if (text && text[0] != '\0') {
        step->literal = sfq_mem_strdup(text);
        return step->literal ? SFQ_OK : sfq_fail_memory(l->err, strlen(text), "Split");
    }
    if (!text)
        SFQ_TRY(sfq_json_string(pattern, l->file, "Regex", true, &text, l->err));
    return sfq_regex_open(&step->regex, text, l->file, "pre_tokenizer.pattern", l->err);
}

static sfq_status load_step(loader *l, const json_t *json, sfq_pre_step *step)
{
    int64_t length;
    static const int64_t five = 5;
    switch (step->kind) {
    case SFQ_PRE_BYTE_LEVEL:
        return load_byte_level(l, json, step);
    case SFQ_PRE_CHAR:
        step->behavior = SFQ_REMOVED;
        return load_character(l, json, "delimiter", &step->character, step->replacement);
    case SFQ_PRE_DIGITS:
        SFQ_TRY(sfq_json_bool(json, l->file, "individual_digits", NULL, &step->individual, l->err));
        step->behavior = step->individual ? SFQ_ISOLATED : SFQ_CONTIGUOUS;
        return SFQ_OK;
    case SFQ_PRE_FIXED_LENGTH:
        SFQ_TRY(sfq_json_int(json, l->file, "length", 1, INT64_MAX, &five, &length, l->err));
        step->length = (size_t)length;
        return SFQ_OK;
    case SFQ_PRE_METASPACE:
        return load_metaspace(l, json, step);
    case SFQ_PRE_PUNCTUATION:
        return load_behavior(l, json, false, &step->behavior);
    case SFQ_PRE_SPLIT:
        return load_split(l, json, step);
    case SFQ_PRE_WHITESPACE_SPLIT:
        step->behavior = SFQ_REMOVED;
        return SFQ_OK;
    default:
        return SFQ_OK;
    }
}

static sfq_status load_kind(void *ctx, const json_t *json, const char *type, bool *known)
{
    loader *l = ctx;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcmp(type, kinds[i].type) == 0) {
            sfq_pre_step *step = &l->to->steps[l->to->count++];
            *step = (sfq_pre_step){.kind = kinds[i].kind};
            return load_step(l, json, step);
        }
    *known = false;
    return SFQ_OK;
}

sfq_status sfq_pretokenizer_load(sfq_pretokenizer *pre, const json_t *json, const char *file,
                                 sfq_error *err)
{
    *pre = (sfq_pretokenizer){0};
    if (!json || json_is_null(json))
        return SFQ_OK;
    pre->steps = SFQ_NEW_ARRAY(sfq_pre_step, SFQ_TEXT_STEPS_MAX);
    if (!pre->steps)
        return sfq_fail_memory(err, SFQ_TEXT_STEPS_MAX * sizeof(sfq_pre_step), "pre-tokenizer");
    loader l = {pre, file, err};
    sfq_step_list list = {.part = "pre_tokenizer",
                          .items = "pretokenizers",
                          .plural = "pre-tokenizers",
                          .file = file,
                          .load = load_kind,
                          .ctx = &l};
    return sfq_steps_load(&list, json, err);
}

void sfq_pretokenizer_close(sfq_pretokenizer *pre)
{
    for (size_t i = 0; i < pre->count; i++) {
        sfq_mem_free(pre->steps[i].literal);
        sfq_regex_close(&pre->steps[i].regex);
    }
    sfq_mem_free(pre->steps);
    *pre = (sfq_pretokenizer){0};
}
