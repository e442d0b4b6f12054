/* compress/rules.h - --keep and --bits-for: regular expressions over tensor names. */
#ifndef SFQ_COMPRESS_RULES_H
#define SFQ_COMPRESS_RULES_H

#include "base/status.h"

#include <sfq/compress.h>

typedef struct sfq_rules sfq_rules;

/* ARGUMENT names the expression and the place where it is wrong. */
sfq_status sfq_rules_open(sfq_rules **out, const sfq_compress_options *options, sfq_error *err);
void sfq_rules_close(sfq_rules **rules);
/* Bits for the matrix `name`: 16 where a --keep matches, else those of the last --bits-for that
 * matches, else `bits`. */
sfq_status sfq_rules_bits(sfq_rules *rules, const char *name, int bits, int *out, sfq_error *err);
/* The first expression that matched nothing so far; NULL when each had its use. */
const char *sfq_rules_unused(const sfq_rules *rules);

#endif
