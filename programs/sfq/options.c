/* options - command lines into argument structs. popt takes the words apart; types, ranges, choices
 * and near misses are checked here against the verb's table. */
#include "options.h"

#include <errno.h>
#include <popt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLI_MAX_OPTIONS 48
#define CLI_MAX_WORD 32

sfq_status cli_list_add(cli_list *list, sfq_arena *arena, const char *item, sfq_error *err)
{
    /* The array doubles whenever the count is a power of two; old ones stay in the arena. */
    if ((list->count & (list->count - 1)) == 0) {
        size_t room = list->count ? 2 * list->count : 1;
        const char **items = SFQ_ARENA_ARRAY(arena, const char *, room);
        if (items == NULL)
            return sfq_fail_memory(err, room * sizeof *items, "the command line");
        for (size_t i = 0; i < list->count; i++)
            items[i] = list->items[i];
        list->items = items;
    }
    list->items[list->count++] = item;
    return SFQ_OK;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Edits between two short words: insertion, deletion, substitution, exchange of neighbours. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    size_t d[CLI_MAX_WORD + 1][CLI_MAX_WORD + 1];
    if (n > CLI_MAX_WORD || m > CLI_MAX_WORD)
        return SIZE_MAX;
    for (size_t i = 0; i <= n; i++)
        d[i][0] = i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[n][m];
}

const char *cli_nearest(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t length = strlen(word);
    size_t least = length < 4 ? 2 : length / 3 + 1; /* below this a name is near */
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(word, names[i]);
        if (length >= 3 && strncmp(names[i], word, length) == 0)
            distance = 1; /* the beginning of a name */
        if (distance <= least && (best == NULL || distance < least)) {
            least = distance;
            best = names[i];
        }
    }
    return best;
}

static sfq_status fail_unknown(const cli_verb *verb, const char *given, sfq_error *err)
{
    const char *names[CLI_MAX_OPTIONS];
    size_t count = 0, dashes = strspn(given, "-");
    char word[CLI_MAX_WORD + 1] = "";
    size_t length = strcspn(given + dashes, "=");
    for (const cli_option *o = verb->options; o->name && count < CLI_MAX_OPTIONS; o++)
        names[count++] = o->name;
    if (length <= CLI_MAX_WORD)
        memcpy(word, given + dashes, length);
    const char *near = length > 1 ? cli_nearest(word, names, count) : NULL;
    if (near)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "%s: no option '%s'; did you mean '--%s'? (sfq %s --help)", verb->name,
                        given, near, verb->name);
    return sfq_fail(err, SFQ_E_ARGUMENT, "%s: no option '%s' (sfq %s --help)", verb->name, given,
                    verb->name);
}

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = choices; *p; p += strspn(p, " ")) {
        size_t length = strcspn(p, " ");
        if (length == n && memcmp(p, value, n) == 0)
            return true;
        p += length;
    }
    return false;
}

static bool parse_number(const cli_option *o, const char *value, void *member)
{
    char *end = NULL;
    errno = 0;
    if (value[0] == '\0' || strchr(" \t\n+", value[0]) != NULL)
        return false;
    if (o->kind == CLI_U64) {
        unsigned long long number = strtoull(value, &end, 10);
        *(uint64_t *)member = number;
        return *end == '\0' && errno == 0 && value[0] != '-';
    }
    if (o->kind == CLI_INT) {
        long number = strtol(value, &end, 10);
        *(int *)member = (int)number;
        return *end == '\0' && errno == 0 && (double)number >= o->min && (double)number <= o->max;
    }
    double number = strtod(value, &end);
    if (o->kind == CLI_REAL)
        *(double *)member = number;
    else
        *(float *)member = (float)number;
    return *end == '\0' && number >= o->min && number <= o->max; /* NaN fails both */
}

static sfq_status take_value(const cli_verb *verb, const cli_option *o, const char *value,
                             sfq_arena *arena, void *args, sfq_error *err)
{
    void *member = (char *)args + o->offset;
    if (o->choices && !is_choice(o->choices, value))
        return sfq_fail(err, SFQ_E_ARGUMENT, "%s: --%s is '%s'; it may be: %s", verb->name, o->name,
                        value, o->choices);
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)member = true;
        return SFQ_OK;
    case CLI_TEXT:
        *(const char **)member = value;
        return SFQ_OK;
    case CLI_LIST:
        return cli_list_add(member, arena, value, err);
    case CLI_INT:
    case CLI_REAL:
    case CLI_FLOAT:
    case CLI_U64:
        break;
    }
    if (parse_number(o, value, member))
        return SFQ_OK;
    if (o->kind == CLI_U64)
        return sfq_fail(err, SFQ_E_ARGUMENT,
                        "%s: --%s is '%s'; it must be a whole number from 0 to 2^64-1", verb->name,
                        o->name, value);
    return sfq_fail(err, SFQ_E_ARGUMENT,
                    "%s: --%s is '%s'; it must be a %snumber from %.10g to %.10g", verb->name,
                    o->name, value, o->kind == CLI_INT ? "whole " : "", o->min, o->max);
}

/* popt's table: every option returns its place + 1; values come as strings. */
static size_t popt_table(const cli_verb *verb, struct poptOption *table)
{
    size_t count = 0;
    for (const cli_option *o = verb->options; o->name && count < CLI_MAX_OPTIONS; o++, count++)
        table[count] = (struct poptOption){
            .longName = o->name,
            .shortName = o->letter,
            .argInfo = o->kind == CLI_FLAG ? POPT_ARG_NONE : POPT_ARG_STRING,
            .val = (int)count + 1,
        };
    table[count] = (struct poptOption){.longName = NULL};
    return count;
}

static sfq_status take_option(const cli_verb *verb, poptContext context, int place,
                              sfq_arena *arena, void *args, sfq_error *err)
{
    const cli_option *o = &verb->options[place - 1];
    char *given = poptGetOptArg(context); /* popt's own malloc */
    char *value = sfq_arena_strndup(arena, given ? given : "", given ? strlen(given) : 0);
    free(given);
    if (value == NULL)
        return sfq_fail_memory(err, 0, "the command line");
    return take_value(verb, o, value, arena, args, err);
}

static sfq_status take_words(const cli_verb *verb, poptContext context, sfq_arena *arena,
                             cli_list *words, sfq_error *err)
{
    const char *word;
    while ((word = poptGetArg(context)) != NULL) {
        char *copy = sfq_arena_strndup(arena, word, strlen(word));
        if (copy == NULL)
            return sfq_fail_memory(err, strlen(word), "the command line");
        if (words->count >= (size_t)verb->words_max)
            return sfq_fail(err, SFQ_E_ARGUMENT, "%s: one word too many: '%s' (sfq %s --help)",
                            verb->name, word, verb->name);
        SFQ_TRY(cli_list_add(words, arena, copy, err));
    }
    return SFQ_OK;
}

sfq_status cli_options_parse(const cli_verb *verb, int argc, const char **argv, sfq_arena *arena,
                             void *args, cli_list *words, sfq_error *err)
{
    sfq_status status = SFQ_OK;
    struct poptOption table[CLI_MAX_OPTIONS + 1];
    popt_table(verb, table);
    poptContext context = poptGetContext(NULL, argc, argv, table, 0);
    if (verb->defaults)
        verb->defaults(args);
    int place;
    while ((place = poptGetNextOpt(context)) > 0)
        SFQ_DO(take_option(verb, context, place, arena, args, err));
    if (place < -1) {
        const char *bad = poptBadOption(context, POPT_BADOPTION_NOALIAS);
        if (place == POPT_ERROR_BADOPT)
            status = fail_unknown(verb, bad, err);
        else if (place == POPT_ERROR_NOARG)
            status = sfq_fail(err, SFQ_E_ARGUMENT, "%s: '%s' needs a value (sfq %s --help)",
                              verb->name, bad, verb->name);
        else
            status = sfq_fail(err, SFQ_E_ARGUMENT, "%s: '%s': %s (sfq %s --help)", verb->name, bad,
                              poptStrerror(place), verb->name);
        goto done;
    }
    if (((const cli_common *)args)->help)
        goto done;
    SFQ_DO(take_words(verb, context, arena, words, err));
    if (words->count < (size_t)verb->words_min)
        status = sfq_fail(err, SFQ_E_ARGUMENT, "%s: %s is missing (sfq %s --help)", verb->name,
                          verb->words, verb->name);
done:
    poptFreeContext(context);
    return status;
}

void cli_option_default(const cli_option *o, const void *args, char *text, size_t bytes)
{
    const void *member = (const char *)args + o->offset;
    text[0] = '\0';
    if (o->kind == CLI_INT && *(const int *)member >= o->min)
        snprintf(text, bytes, "%d", *(const int *)member);
    else if (o->kind == CLI_U64)
        snprintf(text, bytes, "%llu", (unsigned long long)*(const uint64_t *)member);
    else if (o->kind == CLI_REAL && *(const double *)member >= o->min)
        snprintf(text, bytes, "%g", *(const double *)member);
    else if (o->kind == CLI_FLOAT)
        snprintf(text, bytes, "%g", (double)*(const float *)member);
    else if (o->kind == CLI_TEXT && *(const char *const *)member)
        snprintf(text, bytes, "%s", *(const char *const *)member);
}
