/* program - from argv to the exit status: finds the verb, parses, runs, reports the error once, in
 * text and (with --json) as JSON. */
#include "program.h"

#include "signals.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const cli_verb *const cli_verbs[] = {
    &cli_verb_inspect, &cli_verb_compress, &cli_verb_export, &cli_verb_eval, &cli_verb_run,
    &cli_verb_bench,   &cli_verb_tokenize, &cli_verb_env,    NULL,
};

sfq_status cli_model_open(cli_context *cli, sfq_model **model, const char *path,
                          sfq_model_options options, sfq_error *err)
{
    options.struct_size = sizeof(options);
    options.hooks = cli_quiet_hooks(&cli->progress);
    return sfq_model_open(model, path, &options, err);
}

static const cli_verb *find_verb(const char *name, sfq_error *err)
{
    const char *names[16];
    size_t count = 0;
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        if (strcmp((*v)->name, name) == 0)
            return *v;
        names[count++] = (*v)->name;
    }
    const char *near = cli_nearest(name, names, count);
    if (near)
        sfq_fail(err, SFQ_E_ARGUMENT, "no verb '%s'; did you mean '%s'? (sfq --help)", name, near);
    else
        sfq_fail(err, SFQ_E_ARGUMENT, "no verb '%s' (sfq --help)", name);
    return NULL;
}

/* Whether --json is among the words, also where they do not parse. */
static bool wants_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--json") == 0)
            return true;
    }
    return false;
}

/* One line on stderr; with json also the object on stdout, unless the verb printed one. */
static void report(const sfq_error *error, bool json)
{
    const char *file = error->file[0] && !strstr(error->message, error->file) ? error->file : "";
    const char *tensor =
        error->tensor[0] && !strstr(error->message, error->tensor) ? error->tensor : "";
    fprintf(stderr, "sfq: %s%s%s%s%s\n", file, *file ? ": " : "", tensor, *tensor ? ": " : "",
            error->message);
    if (json) {
        json_t *object = cli_json_open();
        cli_json_error(object, error);
        sfq_error again;
        if (cli_json_print(&object, &again) != SFQ_OK)
            fprintf(stderr, "sfq: %s\n", again.message);
    }
}

/* Flushes stdout. A reader that has gone is no news to anybody. */
static int finish(int exit_status)
{
    errno = 0;
    if (cli_out_flush())
        return exit_status;
    if (errno == EPIPE || errno == 0)
        return exit_status ? exit_status : 1;
    sfq_error error;
    sfq_status status = sfq_fail_errno(&error, errno, "standard output", "write");
    fprintf(stderr, "sfq: %s\n", error.message);
    return sfq_status_exit(status);
}

static sfq_status run_verb(cli_context *cli, void *args, int argc, char **argv, sfq_error *err)
{
    SFQ_TRY(cli_options_parse(cli->verb, argc, (const char **)argv, cli->arena, args, &cli->words,
                              err));
    if (cli->common->help)
        return cli_help_verb(cli->verb, err);
    cli_progress_open(&cli->progress, cli->common->quiet);
    cli_signals_catch(cli->common->json, cli->words.count ? cli->words.items[0] : NULL);
    sfq_status status = cli->verb->run(cli, args, err);
    cli_progress_close(&cli->progress);
    if (status == SFQ_OK && cli_signals_cancelled())
        status = sfq_fail(err, SFQ_E_INTERRUPTED, "interrupted");
    return status;
}

static int dispatch(const cli_verb *verb, int argc, char **argv, bool json)
{
    sfq_error error;
    sfq_error_clear(&error);
    cli_context cli = {.verb = verb, .arena = sfq_arena_open()};
    void *args = sfq_mem_zero(1, verb->args_bytes);
    sfq_status status;
    if (cli.arena == NULL || args == NULL) {
        status = sfq_fail_memory(&error, verb->args_bytes, "the command line");
    } else {
        cli.common = args;
        status = run_verb(&cli, args, argc, argv, &error);
    }
    if (status != SFQ_OK)
        report(&error, json && !cli.answered);
    sfq_mem_free(args);
    sfq_arena_close(&cli.arena);
    return finish(sfq_status_exit(status));
}

static int print_version(bool json)
{
    if (json) {
        json_t *object = cli_json_open();
        cli_json_text(object, "version", sfq_version());
        sfq_error error;
        if (cli_json_print(&object, &error) != SFQ_OK)
            return finish(1);
    } else {
        cli_outf("sfq %s\n", sfq_version());
    }
    return finish(0);
}

static int usage_error(const sfq_error *error, bool json)
{
    report(error, json);
    return finish(sfq_status_exit(SFQ_E_ARGUMENT));
}

static int help(int argc, char **argv, bool json)
{
    sfq_error error;
    if (argc < 3) {
        cli_help_program();
        return finish(0);
    }
    const cli_verb *verb = find_verb(argv[2], &error);
    if (verb == NULL)
        return usage_error(&error, json);
    sfq_status status = cli_help_verb(verb, &error);
    if (status != SFQ_OK)
        report(&error, json);
    return finish(sfq_status_exit(status));
}

int cli_main(int argc, char **argv)
{
    bool json = wants_json(argc, argv);
    sfq_error error;
    cli_signals_catch(json, NULL);
    if (argc < 2) {
        sfq_fail(&error, SFQ_E_ARGUMENT, "no verb; see 'sfq --help'");
        return usage_error(&error, json);
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
        return print_version(json);
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return help(argc, argv, json);
    if (word[0] == '-') {
        sfq_fail(&error, SFQ_E_ARGUMENT, "the verb comes first, not '%s'; see 'sfq --help'", word);
        return usage_error(&error, json);
    }
    const cli_verb *verb = find_verb(word, &error);
    if (verb == NULL)
        return usage_error(&error, json);
    return dispatch(verb, argc - 1, argv + 1, json);
}
