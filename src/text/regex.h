/* text/regex.h - the regular expressions of tokenizer.json: Oniguruma's language on PCRE2. */
#ifndef SFQ_TEXT_REGEX_H
#define SFQ_TEXT_REGEX_H

#include "base/buf.h"
#include "base/status.h"

typedef struct sfq_regex sfq_regex;                 /* compiled; shared by threads */
typedef struct sfq_regex_scratch sfq_regex_scratch; /* of one thread and one regex */

/* FORMAT: no regular expression; UNSUPPORTED: a construct that PCRE2 cannot do as Oniguruma does;
 * LIMIT: too long. `key` says where in `file` it stands. */
sfq_status sfq_regex_open(sfq_regex **out, const char *pattern, const char *file, const char *key,
                          sfq_error *err);
void sfq_regex_close(sfq_regex **regex);
sfq_status sfq_regex_scratch_open(sfq_regex_scratch **out, const sfq_regex *regex, sfq_error *err);
void sfq_regex_scratch_close(sfq_regex_scratch **scratch);

/* All matches of one text, left to right: no two overlap, none is empty right behind another. */
typedef struct sfq_regex_walk {
    const sfq_regex *regex;
    sfq_regex_scratch *scratch;
    const char *s;
    size_t n;
    size_t at;       /* where the next search begins */
    size_t last_end; /* of the last match; SIZE_MAX before the first */
} sfq_regex_walk;

static inline sfq_regex_walk sfq_regex_begin(const sfq_regex *regex, sfq_regex_scratch *scratch,
                                             const char *s, size_t n)
{
    return (sfq_regex_walk){regex, scratch, s, n, 0, SIZE_MAX};
}

/* *found false: no more. LIMIT when the expression takes too many steps. */
sfq_status sfq_regex_next(sfq_regex_walk *walk, bool *found, size_t *start, size_t *end,
                          sfq_error *err);

/* regex_translate.c: the PCRE2 pattern for an Oniguruma pattern. */
sfq_status sfq_regex_translate(sfq_buf *out, const char *pattern, const char *file, const char *key,
                               sfq_error *err);

#endif
