/* help - --help of the program and of each verb, from the verbs' tables: examples first, because
 * that is what is looked for. */
#include "program.h"

#include <stdio.h>
#include <string.h>

#define FLAGS_WIDTH 26
#define LINE_WIDTH 92

void *cli_verb_defaults(const cli_verb *verb)
{
    void *args = sfq_mem_zero(1, verb->args_bytes);
    if (args && verb->defaults)
        verb->defaults(args);
    return args;
}

void cli_help_flags(const cli_option *o, char *text, size_t bytes)
{
    char letter[8] = "    ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(text, bytes, "%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

/* Words of `text` in lines up to LINE_WIDTH, indented; the first line starts at column `at`. */
static void wrapped(const char *text, int indent, int at)
{
    int column = at;
    for (const char *word = text; *word;) {
        int length = (int)strcspn(word, " \n");
        if (column > indent && column + 1 + length > LINE_WIDTH) {
            cli_outf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            cli_outf(" ");
            column++;
        }
        cli_outf("%.*s", length, word);
        column += length;
        word += length;
        if (word[0] == '\n' && word[1] == '\n') {
            cli_outf("\n\n%*s", indent, "");
            column = indent;
        }
        word += strspn(word, " \n");
    }
    cli_outf("\n");
}

static void option_line(const cli_option *o, const void *defaults)
{
    char flags[64], value[64], text[512];
    cli_help_flags(o, flags, sizeof flags);
    cli_option_default(o, defaults, value, sizeof value);
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s", o->help, o->choices ? ": " : "",
             o->choices ? o->choices : "", o->kind == CLI_LIST ? "; repeatable" : "",
             value[0] ? " (default " : "", value, value[0] ? ")" : "");
    cli_outf("  %-*s", FLAGS_WIDTH, flags);
    if (strlen(flags) > FLAGS_WIDTH)
        cli_outf("\n  %*s", FLAGS_WIDTH, "");
    cli_outf("  ");
    wrapped(text, FLAGS_WIDTH + 4, FLAGS_WIDTH + 4);
}

sfq_status cli_help_verb(const cli_verb *verb, sfq_error *err)
{
    void *defaults = cli_verb_defaults(verb);
    if (defaults == NULL)
        return sfq_fail_memory(err, verb->args_bytes, "the help");
    cli_outf("sfq %s - %s\n\nExamples:\n", verb->name, verb->summary);
    for (const cli_example *e = verb->examples; e->command; e++)
        cli_outf("  %s\n      %s\n", e->command, e->what);
    cli_outf("\nUsage:\n");
    for (const char *const *s = verb->synopsis; *s; s++)
        cli_outf("  sfq %s%s%s\n", verb->name, **s ? " " : "", *s);
    cli_outf("\nOptions:\n");
    for (const cli_option *o = verb->options; o->name; o++)
        option_line(o, defaults);
    cli_outf("\n");
    wrapped(verb->description, 0, 0);
    sfq_mem_free(defaults);
    return SFQ_OK;
}

void cli_help_program(void)
{
    cli_outf("sfq %s - Sparse Fusion Quantization: smaller, faster transformers\n\n"
             "Examples:\n"
             "  sfq compress models/novels-5m -o small --prune 0 --steps 0\n"
             "  sfq eval small --text book.txt --against models/novels-5m\n"
             "  sfq run small -p \"It was a dark and\" -n 100\n"
             "\nVerbs:\n",
             SFQ_VERSION_STRING);
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        cli_outf("  %-10s%s\n", (*v)->name, (*v)->summary);
    cli_outf(
        "\n'sfq help VERB' has examples and every option. MODEL is a Hugging Face directory,\n"
        "compressed or not, or a Hub id (org/name) in the local cache. --json works with every\n"
        "verb. Results go to stdout, everything else to stderr.\n"
        "\nExit status: 0 ok, 1 error, 2 usage or bad input, 3 accuracy guard, 4 budget\n"
        "infeasible, 5 unsupported model, 6 not enough memory or disk, 130 interrupted.\n");
}
