/* generate_man - man pages in the man(7) macros, from the same tables as --help. */
#include "generate.h"

#include <string.h>

/* Text for troff: hyphens that may be copied, no control lines, backslashes as they are. */
static void put(FILE *f, const char *text)
{
    bool start = true;
    for (const char *c = text; *c; c++) {
        if (start && (*c == '.' || *c == '\''))
            fputs("\\&", f);
        if (*c == '-')
            fputs("\\-", f);
        else if (*c == '\\')
            fputs("\\e", f);
        else
            fputc(*c, f);
        start = *c == '\n';
    }
}

static void put_paragraphs(FILE *f, const char *text)
{
    for (const char *end; (end = strstr(text, "\n\n")) != NULL; text = end + 2) {
        char paragraph[2048];
        size_t length = (size_t)(end - text);
        if (length >= sizeof paragraph)
            length = sizeof paragraph - 1;
        memcpy(paragraph, text, length);
        paragraph[length] = '\0';
        put(f, paragraph);
        fputs("\n.PP\n", f);
    }
    put(f, text);
    fputs("\n", f);
}

static void put_title(FILE *f, const char *page)
{
    fputs(".\\\" made by sfq-generate from the option tables\n.TH ", f);
    for (const char *c = page; *c; c++) /* page names are ASCII */
        fputc(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c, f);
    fprintf(f, " 1 \"\" \"sfq %s\" \"User Commands\"\n.SH NAME\n", SFQ_VERSION_STRING);
}

static void put_examples(FILE *f, const cli_example *examples)
{
    fputs(".SH EXAMPLES\n", f);
    for (const cli_example *e = examples; e->command; e++) {
        fputs(".TP\n\\fB", f);
        put(f, e->command);
        fputs("\\fR\n", f);
        put(f, e->what);
        fputs("\n", f);
    }
}

static void put_option(FILE *f, const cli_option *o, const void *defaults)
{
    char value[64];
    cli_option_default(o, defaults, value, sizeof value);
    fputs(".TP\n", f);
    if (o->letter)
        fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
    fputs("\\fB\\-\\-", f);
    put(f, o->name);
    fputs("\\fR", f);
    if (o->arg)
        fprintf(f, " \\fI%s\\fR", o->arg);
    fputs("\n", f);
    put(f, o->help);
    if (o->choices)
        fprintf(f, ": %s", o->choices);
    if (o->kind == CLI_LIST)
        fputs("; repeatable", f);
    if (value[0]) {
        fputs(" (default ", f);
        put(f, value);
        fputs(")", f);
    }
    fputs(".\n", f);
}

static void put_exit_status(FILE *f)
{
    fputs(".SH EXIT STATUS\n0 ok, 1 error, 2 usage or bad input, 3 accuracy guard tripped (output "
          "kept as\n.IR NAME .rejected),\n4 budget infeasible, 5 unsupported model, 6 not enough "
          "memory or disk, 130 interrupted.\n",
          f);
}

void generate_man_verb(FILE *f, const cli_verb *verb, const void *defaults)
{
    char page[64];
    snprintf(page, sizeof page, "sfq-%s", verb->name);
    put_title(f, page);
    fprintf(f, "sfq\\-%s \\- ", verb->name);
    put(f, verb->summary);
    fputs("\n.SH SYNOPSIS\n", f);
    for (const char *const *s = verb->synopsis; *s; s++) {
        fprintf(f, "%s.B sfq %s\n", s == verb->synopsis ? "" : ".br\n", verb->name);
        put(f, *s);
        fputs("\n", f);
    }
    put_examples(f, verb->examples);
    fputs(".SH DESCRIPTION\n", f);
    put_paragraphs(f, verb->description);
    fputs(".SH OPTIONS\n", f);
    for (const cli_option *o = verb->options; o->name; o++)
        put_option(f, o, defaults);
    put_exit_status(f);
    fputs(".SH SEE ALSO\n.BR sfq (1)\n", f);
}

void generate_man_program(FILE *f)
{
    put_title(f, "sfq");
    fputs("sfq \\- Sparse Fusion Quantization: smaller, faster transformers\n"
          ".SH SYNOPSIS\n.B sfq\n.I VERB\n[options]\n.br\n.B sfq help\n.RI [ VERB ]\n.br\n"
          ".B sfq \\-\\-version\n.SH DESCRIPTION\n"
          "Compresses Hugging Face transformer checkpoints and runs, measures and times both the "
          "originals and what comes out. A model is a directory, or a Hub id (org/name) in the "
          "local cache. Results go to standard output; progress, notes and errors to standard "
          "error. Every verb takes\n.B \\-\\-json\nand prints one JSON object then.\n.SH VERBS\n",
          f);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        fprintf(f, ".TP\n.BR sfq\\-%s (1)\n", (*v)->name);
        put(f, (*v)->summary);
        fputs("\n", f);
    }
    put_exit_status(f);
    fputs(".SH ENVIRONMENT\n"
          ".TP\n.B SFQ_MAX_ISA\ncaps the instruction set: ref, avx2, avxvnni, avx512, avx512vnni, "
          "amx\n"
          ".TP\n.BR HF_HUB_CACHE \", \" HF_HOME\nwhere Hub ids are looked up\n"
          ".TP\n.B NO_COLOR\nno colour in the progress line\n.SH SEE ALSO\n",
          f);
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        fprintf(f, ".BR sfq\\-%s (1)%s\n", (*v)->name, v[1] ? "," : "");
}
