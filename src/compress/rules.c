/* compress/rules.c - PCRE2 behind two lists of rules. Matching is bounded, so an expression that
 * backtracks without end is an error and not a hang. */
#include "compress/rules.h"

#include "base/mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string.h>

enum { MATCH_LIMIT = 200000 };

typedef struct rule {
    const char *text;
    pcre2_code *code;
    int bits; /* 16: keep */
    bool used;
} rule;

struct sfq_rules {
    rule *items; /* bits_for in order, then keep: the last match wins */
    size_t count;
    pcre2_general_context *general;
    pcre2_compile_context *compile;
    pcre2_match_context *match;
    pcre2_match_data *data;
};

static void *rules_alloc(size_t n, void *ud)
{
    (void)ud;
    return sfq_mem_raw(n);
}

static void rules_free(void *p, void *ud)
{
    (void)ud;
    sfq_mem_free(p);
}

static sfq_status compile_rule(sfq_rules *rules, const char *text, int bits, const char *option,
                               sfq_error *err)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    rule *r = &rules->items[rules->count];
    if (text == NULL || *text == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "%s: the regular expression is empty", option);
    if (bits != 16 && (bits < 2 || bits > 8))
        return sfq_fail(err, SFQ_E_ARGUMENT, "%s %s=%d: bits must be 2 to 8, or 16 to keep", option,
                        text, bits);
    r->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at,
                            rules->compile);
    if (r->code == NULL) {
        unsigned char why[128] = "";
        if (code == PCRE2_ERROR_HEAP_FAILED || code == PCRE2_ERROR_NOMEMORY)
            return sfq_fail_memory(err, strlen(text), "a regular expression");
        pcre2_get_error_message(code, why, sizeof why);
        return sfq_fail(err, SFQ_E_ARGUMENT, "%s \"%s\": %s at character %zu", option, text,
                        (const char *)why, (size_t)at);
    }
    r->text = text;
    r->bits = bits;
    rules->count++;
    return SFQ_OK;
}

sfq_status sfq_rules_open(sfq_rules **out, const sfq_compress_options *options, sfq_error *err)
{
    *out = NULL;
    sfq_status status = SFQ_OK;
    size_t count = options->bits_for_count + options->keep_count;
    sfq_rules *rules = SFQ_NEW(sfq_rules);
    if (rules == NULL)
        return sfq_fail_memory(err, sizeof *rules, "rules");
    rules->items = SFQ_NEW_ARRAY(rule, count);
    rules->general = pcre2_general_context_create(rules_alloc, rules_free, NULL);
    if (rules->general != NULL) {
        rules->compile = pcre2_compile_context_create(rules->general);
        rules->match = pcre2_match_context_create(rules->general);
        rules->data = pcre2_match_data_create(1, rules->general);
    }
    if (rules->items == NULL || !rules->compile || !rules->match || !rules->data) {
        status = sfq_fail_memory(err, count * sizeof *rules->items, "rules");
        goto done;
    }
    pcre2_set_match_limit(rules->match, MATCH_LIMIT);
    for (size_t i = 0; i < options->bits_for_count; i++)
        SFQ_DO(compile_rule(rules, options->bits_for[i].regex, options->bits_for[i].bits,
                            "--bits-for", err));
    for (size_t i = 0; i < options->keep_count; i++)
        SFQ_DO(compile_rule(rules, options->keep[i], 16, "--keep", err));
done:
    if (status != SFQ_OK)
        sfq_rules_close(&rules);
    *out = rules;
    return status;
}

void sfq_rules_close(sfq_rules **out)
{
    sfq_rules *rules = *out;
    if (rules == NULL)
        return;
    for (size_t i = 0; i < rules->count; i++)
        pcre2_code_free(rules->items[i].code);
    pcre2_match_data_free(rules->data);
    pcre2_match_context_free(rules->match);
    pcre2_compile_context_free(rules->compile);
    pcre2_general_context_free(rules->general);
    sfq_mem_free(rules->items);
    sfq_mem_free(rules);
    *out = NULL;
}

sfq_status sfq_rules_bits(sfq_rules *rules, const char *name, int bits, int *out, sfq_error *err)
{
    *out = bits;
    for (size_t i = 0; i < rules->count; i++) {
        rule *r = &rules->items[i];
        int found =
            pcre2_match(r->code, (PCRE2_SPTR)name, strlen(name), 0, 0, rules->data, rules->match);
        if (found == PCRE2_ERROR_NOMATCH)
            continue;
        if (found == PCRE2_ERROR_NOMEMORY)
            return sfq_fail_memory(err, strlen(name), "matching a regular expression");
        if (found < 0)
            return sfq_fail(err, SFQ_E_ARGUMENT,
                            "regular expression \"%s\": matching \"%s\" takes too many steps",
                            r->text, name);
        r->used = true;
        *out = r->bits;
    }
    return SFQ_OK;
}

const char *sfq_rules_unused(const sfq_rules *rules)
{
    for (size_t i = 0; i < rules->count; i++)
        if (!rules->items[i].used)
            return rules->items[i].text;
    return NULL;
}
