/* options - what a verb is: its words, options, texts and function, as one table. The parser,
 * --help, the man pages and the shell completions are all made from these tables, so they cannot
 * disagree. */
#ifndef SFQ_CLI_OPTIONS_H
#define SFQ_CLI_OPTIONS_H

#include "base/mem.h"
#include "base/status.h"

#include <stddef.h>

/* Where an option's value goes, by type of the member at `offset` of the verb's argument struct. */
typedef enum cli_kind {
    CLI_FLAG,  /* bool */
    CLI_INT,   /* int, min..max */
    CLI_U64,   /* uint64_t */
    CLI_REAL,  /* double, min..max */
    CLI_FLOAT, /* float, min..max */
    CLI_TEXT,  /* const char * */
    CLI_LIST   /* cli_list: may be given several times */
} cli_kind;

typedef struct cli_list {
    const char **items;
    size_t count;
} cli_list;

typedef struct cli_option {
    const char *name; /* long name; NULL ends a table */
    char letter;      /* short name, 0: none */
    cli_kind kind;
    size_t offset;
    double min, max;  /* of numbers */
    const char *arg;  /* "N", "DIR", "FILE", "MODEL": shown in help, and what the shell completes */
    const char *help; /* no full stop; the default is added from the defaults themselves */
    const char *choices; /* accepted words, one blank between; NULL: any */
} cli_option;

/* Options that every verb has. First member of each verb's argument struct. */
typedef struct cli_common {
    bool json;
    bool quiet;
    bool help;
} cli_common;

#define CLI_COMMON_OPTIONS                                                                  \
    {"json", 0, CLI_FLAG, offsetof(cli_common, json),                                       \
     0,      0, NULL,     "print one JSON object with \"schema\": 1",                       \
     NULL},                                                                                 \
        {"quiet", 'q', CLI_FLAG, offsetof(cli_common, quiet),                               \
         0,       0,   NULL,     "no progress and no notes on stderr",                      \
         NULL},                                                                             \
        {"help", 'h', CLI_FLAG, offsetof(cli_common, help), 0, 0, NULL, "this text", NULL}, \
    {                                                                                       \
        NULL, 0, CLI_FLAG, 0, 0, 0, NULL, NULL, NULL                                        \
    }

#define CLI_HUGE_PAGES_HELP \
    "copy the weights to memory in huge pages: slower to open, faster to decode, not shared"
#define CLI_KV_BITS_HELP "keys and values in 8, 16 or 32 bits; 0: 16, or 32 for a dense model"
#define CLI_THREADS_HELP "threads to use; 0: as many as affinity, quota and cores allow"

typedef struct cli_context cli_context;

typedef struct cli_example {
    const char *command; /* NULL ends the list */
    const char *what;
} cli_example;

typedef struct cli_verb {
    const char *name;
    const char *summary;         /* one line, no full stop */
    const char *const *synopsis; /* what follows the verb, one line each; NULL ends */
    const cli_example *examples;
    const char *description; /* paragraphs, separated by an empty line */
    const cli_option *options;
    const char *words; /* names of the words that are no options: "MODEL", or "" */
    int words_min, words_max;
    size_t args_bytes;            /* of the argument struct */
    void (*defaults)(void *args); /* NULL: all zero */
    sfq_status (*run)(cli_context *cli, void *args, sfq_error *err);
} cli_verb;

/* Fills *args (defaults first) and *words from argv[0..argc), where argv[0] is the verb. Strings
 * and lists live in the arena. E_ARGUMENT with one line that names the nearest option. */
sfq_status cli_options_parse(const cli_verb *verb, int argc, const char **argv, sfq_arena *arena,
                             void *args, cli_list *words, sfq_error *err);

sfq_status cli_list_add(cli_list *list, sfq_arena *arena, const char *item, sfq_error *err);

/* The name among `count` names that `word` was probably meant to be, NULL where none is near. */
const char *cli_nearest(const char *word, const char *const *names, size_t count);

/* The default value of an option as text, "" where there is none worth showing. */
void cli_option_default(const cli_option *option, const void *args, char *text, size_t bytes);

#endif
