/* generate_completion - what bash, zsh and fish complete after "sfq", from the verbs' tables. */
#include "generate.h"

#include <string.h>

/* Text inside single quotes, where even "'" must go. */
static void put_quoted(FILE *f, const char *text, const char *also)
{
    for (const char *c = text; *c; c++) {
        if (*c == '\'')
            fputs("'\\''", f);
        else if (strchr(also, *c))
            fprintf(f, "\\%c", *c);
        else
            fputc(*c, f);
    }
}

/* ---- bash ---- */

/* "-o|--output" of every option that completes to `what`, as one case pattern. */
static void bash_case(FILE *f, const cli_verb *verb, char what, const char *reply)
{
    const char *bar = "";
    for (const cli_option *o = verb->options; o->name; o++) {
        if (generate_completes(o) != what || what == 'c')
            continue;
        fprintf(f, "%s%s--%s", *bar ? "" : "            ", bar, o->name);
        if (o->letter)
            fprintf(f, "|-%c", o->letter);
        bar = "|";
    }
    if (*bar)
        fprintf(f, ")\n                %s\n                return ;;\n", reply);
}

static void bash_verb(FILE *f, const cli_verb *verb)
{
    fprintf(f, "    %s)\n        case $before in\n", verb->name);
    bash_case(f, verb, 'd', "mapfile -t COMPREPLY < <(compgen -d -- \"$word\")");
    bash_case(f, verb, 'f', "mapfile -t COMPREPLY < <(compgen -f -- \"$word\")");
    for (const cli_option *o = verb->options; o->name; o++) {
        if (generate_completes(o) == 'c')
            fprintf(
                f,
                "            --%s)\n                mapfile -t COMPREPLY < <(compgen -W '%s' -- "
                "\"$word\")\n                return ;;\n",
                o->name, o->choices);
    }
    fputs("        esac\n        options='", f);
    for (const cli_option *o = verb->options; o->name; o++)
        fprintf(f, "%s--%s", o == verb->options ? "" : " ", o->name);
    fputs("' ;;\n", f);
}

void generate_bash(FILE *f)
{
    fputs("# bash completion for sfq; made by sfq-generate from the option tables\n"
          "_sfq() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} options=\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ] || { [ \"$COMP_CWORD\" -eq 2 ] && "
          "[ \"$before\" = help ]; }; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W '",
          f);
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        fprintf(f, "%s ", (*v)->name);
    fputs("help --help --version' -- \"$word\")\n        return\n    fi\n"
          "    case ${COMP_WORDS[1]} in\n",
          f);
    for (const cli_verb *const *v = cli_verbs; *v; v++)
        bash_verb(f, *v);
    fputs("    esac\n"
          "    case $word in\n"
          "    -*) mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$word\") ;;\n"
          "    *) mapfile -t COMPREPLY < <(compgen -f -- \"$word\") ;;\n"
          "    esac\n}\ncomplete -o filenames -F _sfq sfq\n",
          f);
}

/* ---- zsh ---- */

static void zsh_value(FILE *f, const cli_option *o)
{
    char what = generate_completes(o);
    if (o->arg == NULL)
        return;
    fprintf(f, ":%s:", o->arg);
    if (what == 'c')
        fprintf(f, "(%s)", o->choices);
    else if (what == 'd')
        fputs("_directories", f);
    else if (what == 'f')
        fputs("_files", f);
}

static void zsh_option(FILE *f, const cli_option *o)
{
    const char *again = o->kind == CLI_LIST ? "*" : "";
    fprintf(f, " \\\n            '%s--%s%s[", again, o->name, o->arg ? "=" : "");
    put_quoted(f, o->help, "[]:");
    fputs("]", f);
    zsh_value(f, o);
    fputs("'", f);
    if (o->letter) {
        fprintf(f, " \\\n            '%s-%c[", again, o->letter);
        put_quoted(f, o->help, "[]:");
        fputs("]", f);
        zsh_value(f, o);
        fputs("'", f);
    }
}

void generate_zsh(FILE *f)
{
    fputs("#compdef sfq\n# made by sfq-generate from the option tables\n_sfq() {\n"
          "    local -a verbs\n    verbs=(\n",
          f);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        fprintf(f, "        '%s:", (*v)->name);
        put_quoted(f, (*v)->summary, ":");
        fputs("'\n", f);
    }
    fputs("        'help:examples and every option of a verb'\n    )\n"
          "    if (( CURRENT == 2 )) || [[ $words[2] == help ]]; then\n"
          "        _describe verb verbs\n        return\n    fi\n"
          "    local verb=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $verb in\n",
          f);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        fprintf(f, "    %s)\n        _arguments -s", (*v)->name);
        for (const cli_option *o = (*v)->options; o->name; o++)
            zsh_option(f, o);
        fputs(" \\\n            '*:file:_files' ;;\n", f);
    }
    fputs("    esac\n}\n_sfq \"$@\"\n", f);
}

/* ---- fish ---- */

static void fish_option(FILE *f, const cli_verb *verb, const cli_option *o)
{
    char what = generate_completes(o);
    fprintf(f, "complete -c sfq -n '__fish_seen_subcommand_from %s' -l %s", verb->name, o->name);
    if (o->letter)
        fprintf(f, " -s %c", o->letter);
    if (what == 'c')
        fprintf(f, " -x -a '%s'", o->choices);
    else if (what == 'd')
        fputs(" -x -a '(__fish_complete_directories)'", f);
    else if (o->arg)
        fputs(what == 'f' ? " -r -F" : " -x", f);
    fputs(" -d '", f);
    for (const char *c = o->help; *c; c++) {
        if (*c == '\'' || *c == '\\')
            fputc('\\', f);
        fputc(*c, f);
    }
    fputs("'\n", f);
}

void generate_fish(FILE *f)
{
    fputs("# fish completion for sfq; made by sfq-generate from the option tables\n", f);
    for (const cli_verb *const *v = cli_verbs; *v; v++) {
        fprintf(f, "complete -c sfq -n __fish_use_subcommand -f -a %s -d '%s'\n", (*v)->name,
                (*v)->summary);
        for (const cli_option *o = (*v)->options; o->name; o++)
            fish_option(f, *v, o);
    }
    fputs("complete -c sfq -n __fish_use_subcommand -f -a help -d 'examples and every option of a "
          "verb'\n",
          f);
}
