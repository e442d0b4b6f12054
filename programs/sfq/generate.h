/* generate - man pages and shell completions from the verbs' tables, made while building. Not part
 * of the program itself. */
#ifndef SFQ_CLI_GENERATE_H
#define SFQ_CLI_GENERATE_H

#include "program.h"

#include <stdio.h>

void generate_man_program(FILE *f);
void generate_man_verb(FILE *f, const cli_verb *verb, const void *defaults);

void generate_bash(FILE *f);
void generate_zsh(FILE *f);
void generate_fish(FILE *f);

/* What a shell can complete for a value: 'd' directories, 'f' files, 'c' choices, 0 nothing. */
char generate_completes(const cli_option *option);

#endif
