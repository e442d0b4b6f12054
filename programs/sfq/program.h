/* program - the frame around the verbs: what every verb gets, and what they share. */
#ifndef SFQ_CLI_PROGRAM_H
#define SFQ_CLI_PROGRAM_H

#include "base/buf.h"

#include "options.h"
#include "output.h"
#include "progress.h"

#include <sfq/sfq.h>

/* One run of the program. */
struct cli_context {
    const cli_verb *verb;
    const cli_common *common;
    cli_list words;
    sfq_arena *arena; /* everything that lives as long as the run */
    cli_progress progress;
    bool answered; /* stdout has its JSON object, errors included */
};

/* The whole program; returns the exit status. */
int cli_main(int argc, char **argv);

extern const cli_verb *const cli_verbs[]; /* in the order of help; NULL ends */

extern const cli_verb cli_verb_bench;
extern const cli_verb cli_verb_compress;
extern const cli_verb cli_verb_env;
extern const cli_verb cli_verb_eval;
extern const cli_verb cli_verb_export;
extern const cli_verb cli_verb_inspect;
extern const cli_verb cli_verb_run;
extern const cli_verb cli_verb_tokenize;

/* --help of the program and of one verb, on stdout. MEMORY. */
void cli_help_program(void);
sfq_status cli_help_verb(const cli_verb *verb, sfq_error *err);
/* "-o, --output DIR" of an option. */
void cli_help_flags(const cli_option *option, char *text, size_t bytes);
/* Default values of a verb: its argument struct, zeroed and filled; free with sfq_mem_free. */
void *cli_verb_defaults(const cli_verb *verb);

/* Opens MODEL with the program's hooks. */
sfq_status cli_model_open(cli_context *cli, sfq_model **model, const char *path,
                          sfq_model_options options, sfq_error *err);

/* Where a text comes from: exactly one of -p, --file and "-". */
typedef struct cli_source {
    const char *text; /* -p, or NULL */
    const char *file; /* --file, or NULL */
    bool standard_input;
} cli_source;

/* The second word of the command line, which may only be "-". */
sfq_status cli_source_word(const cli_context *cli, cli_source *source, sfq_error *err);
/* *buf holds the text (NUL behind it); freed by the caller with sfq_buf_free in any case. */
sfq_status cli_source_read(cli_context *cli, const cli_source *source, sfq_buf *buf,
                           sfq_error *err);

#endif
