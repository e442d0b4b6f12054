/* generate - entry of sfq-generate: writes DIR/man/sfq*.1 and DIR/completions/. The build runs
 * it. */
#include "generate.h"

#include <string.h>

char generate_completes(const cli_option *o)
{
    if (o->choices)
        return 'c';
    if (o->arg == NULL)
        return 0;
    if (strcmp(o->arg, "DIR") == 0 || strcmp(o->arg, "MODEL") == 0)
        return 'd';
    return strcmp(o->arg, "FILE") == 0 ? 'f' : 0;
}

static FILE *open_output(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (f == NULL)
        fprintf(stderr, "sfq-generate: %s: cannot be written\n", path);
    return f;
}

static bool write_plain(const char *dir, const char *name, void (*generate)(FILE *))
{
    FILE *f = open_output(dir, name);
    if (f == NULL)
        return false;
    generate(f);
    return fclose(f) == 0;
}

static bool write_verb(const char *dir, const cli_verb *verb)
{
    char name[64];
    snprintf(name, sizeof name, "man/sfq-%s.1", verb->name);
    void *defaults = cli_verb_defaults(verb);
    FILE *f = defaults ? open_output(dir, name) : NULL;
    bool ok = f != NULL;
    if (ok) {
        generate_man_verb(f, verb, defaults);
        ok = fclose(f) == 0;
    }
    sfq_mem_free(defaults);
    return ok;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: sfq-generate DIR\n");
        return 2;
    }
    bool ok = write_plain(argv[1], "man/sfq.1", generate_man_program) &&
              write_plain(argv[1], "completions/sfq.bash", generate_bash) &&
              write_plain(argv[1], "completions/_sfq", generate_zsh) &&
              write_plain(argv[1], "completions/sfq.fish", generate_fish);
    for (const cli_verb *const *v = cli_verbs; *v && ok; v++)
        ok = write_verb(argv[1], *v);
    return ok ? 0 : 1;
}
