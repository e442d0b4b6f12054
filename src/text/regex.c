/* text/regex.c - compiles and runs patterns with PCRE2 (UTF, Unicode properties, JIT where the
 * machine allows it). Every call has a step limit that grows with the text, so an expression that
 * backtracks without end fails instead of hanging. */
#include "text/regex.h"

#include "base/mem.h"
#include "base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#define PATTERN_MAX 65536 /* bytes */
#define TRANSLATED_MAX (1 << 22)
#define STACK_START 32768 /* of the JIT, bytes */
#define STACK_MAX (1 << 20)
#define COST_MIN 10000000
#define COST_PER_BYTE 100
#define HEAP_MAX_KIB (256 << 10) /* of the interpreter */

/* Patterns of GPT-2, Llama 3 and Qwen 2, which nearly every model has: each takes a bounded number
 * of passes over the text, so they run without the count. */
static const char *const trusted[] = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"};

struct sfq_regex {
    pcre2_general_context *memory;
    pcre2_code *code;
    bool jit;
    bool counted;  /* its steps are, see count_cost */
    char name[96]; /* the beginning of the pattern, for errors */
};

struct sfq_regex_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    uint64_t cost; /* of the walk so far: items tried + bytes moved over */
    uint64_t cost_max;
    size_t position; /* at the last callout */
};

/* Called before each item of the pattern: what bounds the time, whatever the pattern does. (PCRE2's
 * own limits do not count in the JIT's inner loops, nor across starting points.) */
static int count_cost(pcre2_callout_block *block, void *ctx)
{
    sfq_regex_scratch *scratch = ctx;
    size_t at = block->current_position, last = scratch->position;
    scratch->cost += 1 + (at > last ? at - last : last - at);
    scratch->position = at;
    return scratch->cost > scratch->cost_max ? PCRE2_ERROR_MATCHLIMIT : 0;
}

static void *take(size_t n, void *ctx)
{
    (void)ctx;
    return sfq_mem_raw(n);
}

static void give(void *p, void *ctx)
{
    (void)ctx;
    sfq_mem_free(p);
}

static sfq_status compile_failed(const sfq_regex *regex, int code, const char *file,
                                 const char *key, sfq_error *err)
{
    char message[128];
    sfq_status status = SFQ_E_FORMAT;
    if (code == PCRE2_ERROR_HEAP_FAILED)
        return sfq_fail_memory(err, 0, "regular expression");
    if (code == PCRE2_ERROR_PATTERN_TOO_LARGE || code == PCRE2_ERROR_PARENTHESES_NEST_TOO_DEEP)
        status = SFQ_E_LIMIT;
    else if (code == PCRE2_ERROR_LOOKBEHIND_NOT_FIXED_LENGTH ||
             code == PCRE2_ERROR_UNKNOWN_UNICODE_PROPERTY)
        status = SFQ_E_UNSUPPORTED;
    pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof(message));
    return sfq_fail_at(err, status, file, key, "%s: %s: \"%s\": %s", file, key, regex->name,
                       message);
}

static bool is_trusted(const char *pattern)
{
    for (size_t i = 0; i < sizeof(trusted) / sizeof(*trusted); i++)
        if (strcmp(pattern, trusted[i]) == 0)
            return true;
    return false;
}

static sfq_status compile(sfq_regex *regex, const sfq_buf *pattern, const char *file,
                          const char *key, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    pcre2_compile_context *context = pcre2_compile_context_create(regex->memory);
    if (!context)
        return sfq_fail_memory(err, 0, "regular expression");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 200);
    int code = 0;
    size_t at = 0;
    const char *text = pattern->data ? pattern->data : "";
    regex->code = pcre2_compile((PCRE2_SPTR)text, pattern->len,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                                    (regex->counted ? PCRE2_AUTO_CALLOUT : 0),
                                &code, &at, context);
    if (!regex->code)
        status = compile_failed(regex, code, file, key, err);
    else
        regex->jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0;
    pcre2_compile_context_free(context);
    return status;
}

sfq_status sfq_regex_open(sfq_regex **out, const char *pattern, const char *file, const char *key,
                          sfq_error *err)
{
    *out = NULL;
    sfq_status status = SFQ_OK;
    sfq_buf translated = SFQ_BUF_INIT(TRANSLATED_MAX);
    if (strlen(pattern) > PATTERN_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, key,
                           "%s: %s: a pattern of %zu bytes, at most %d are supported", file, key,
                           strlen(pattern), PATTERN_MAX);
    sfq_regex *regex = SFQ_NEW(sfq_regex);
    if (!regex)
        return sfq_fail_memory(err, sizeof(*regex), "regular expression");
    size_t shown = sfq_utf8_valid_prefix(pattern, strnlen(pattern, sizeof(regex->name) - 1));
    memcpy(regex->name, pattern, shown);
    regex->counted = !is_trusted(pattern);
    regex->memory = pcre2_general_context_create(take, give, NULL);
    if (!regex->memory) {
        status = sfq_fail_memory(err, 0, "regular expression");
        goto done;
    }
    SFQ_DO(sfq_regex_translate(&translated, pattern, file, key, err));
    SFQ_DO(compile(regex, &translated, file, key, err));
    *out = regex;
    regex = NULL;
done:
    sfq_buf_free(&translated);
    sfq_regex_close(&regex);
    return status;
}

void sfq_regex_close(sfq_regex **regex)
{
    if (!*regex)
        return;
    pcre2_code_free((*regex)->code);
    pcre2_general_context_free((*regex)->memory);
    sfq_mem_free(*regex);
    *regex = NULL;
}

sfq_status sfq_regex_scratch_open(sfq_regex_scratch **out, const sfq_regex *regex, sfq_error *err)
{
    sfq_regex_scratch *scratch = SFQ_NEW(sfq_regex_scratch);
    *out = scratch;
    if (!scratch)
        return sfq_fail_memory(err, sizeof(*scratch), "regular expression");
    scratch->data = pcre2_match_data_create(1, regex->memory);
    scratch->context = pcre2_match_context_create(regex->memory);
    if (regex->jit)
        scratch->stack = pcre2_jit_stack_create(STACK_START, STACK_MAX, regex->memory);
    if (!scratch->data || !scratch->context || (regex->jit && !scratch->stack)) {
        sfq_regex_scratch_close(out);
        return sfq_fail_memory(err, STACK_START, "regular expression");
    }
    pcre2_set_heap_limit(scratch->context, HEAP_MAX_KIB);
    pcre2_set_match_limit(scratch->context, UINT32_MAX); /* count_cost bounds the work */
    pcre2_set_callout(scratch->context, count_cost, scratch);
    if (scratch->stack)
        pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    return SFQ_OK;
}

void sfq_regex_scratch_close(sfq_regex_scratch **scratch)
{
    if (!*scratch)
        return;
    pcre2_match_data_free((*scratch)->data);
    pcre2_match_context_free((*scratch)->context);
    pcre2_jit_stack_free((*scratch)->stack);
    sfq_mem_free(*scratch);
    *scratch = NULL;
}

static int match(const sfq_regex_walk *walk)
{
    sfq_regex_scratch *scratch = walk->scratch;
    if (walk->last_end == SIZE_MAX && walk->at == 0) {
        scratch->cost = 0;
        scratch->cost_max = COST_MIN + (uint64_t)COST_PER_BYTE * walk->n;
    }
    scratch->position = walk->at;
    int rc = pcre2_match(walk->regex->code, (PCRE2_SPTR)walk->s, walk->n, walk->at,
                         PCRE2_NO_UTF_CHECK, scratch->data, scratch->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
        rc = pcre2_match(walk->regex->code, (PCRE2_SPTR)walk->s, walk->n, walk->at,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch->data, scratch->context);
    return rc;
}

sfq_status sfq_regex_next(sfq_regex_walk *walk, bool *found, size_t *start, size_t *end,
                          sfq_error *err)
{
    *found = false;
    while (walk->at <= walk->n) {
        int rc = match(walk);
        if (rc == PCRE2_ERROR_NOMATCH)
            return SFQ_OK;
        if (rc == PCRE2_ERROR_NOMEMORY)
            return sfq_fail_memory(err, 0, "regular expression");
        if (rc < 0)
            return sfq_fail(err, SFQ_E_LIMIT,
                            "the tokenizer's pattern \"%s\" takes too many steps on this text (at "
                            "byte %zu of %zu)",
                            walk->regex->name, walk->at, walk->n);
        const size_t *found_at = pcre2_get_ovector_pointer(walk->scratch->data);
        *start = found_at[0];
        *end = found_at[1] < found_at[0] ? found_at[0] : found_at[1];
        if (*start == *end && *end == walk->last_end) {
            size_t len = 1;
            if (walk->at < walk->n)
                sfq_utf8_next(walk->s + walk->at, walk->n - walk->at, &len);
            walk->at += len;
            continue;
        }
        walk->at = walk->last_end = *end;
        *found = true;
        return SFQ_OK;
    }
    return SFQ_OK;
}
