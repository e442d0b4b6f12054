/* base/status.h - how the inside of the library reports failure: fill the caller's sfq_error,
 * return its code. The codes themselves live in one list, SFQ_STATUS_MAP in <sfq/common.h>. */
#ifndef SFQ_BASE_STATUS_H
#define SFQ_BASE_STATUS_H

#include <sfq/common.h>

#include <stdarg.h>

/* The facts of SFQ_STATUS_MAP as data; those of E_INTERNAL for an unknown value. Never NULL. The
 * public functions in src/api/ read them. */
typedef struct sfq_status_facts {
    sfq_status status;
    int exit_status;
    const char *name;
    const char *text;
} sfq_status_facts;

const sfq_status_facts *sfq_status_facts_get(sfq_status status);

/* Copies text so that it prints as one line of valid UTF-8: control characters, line separators,
 * text-direction marks and bytes that are no UTF-8 become \xHH (newline \n, tab \t). What does not
 * fit is cut at a character and ends in "...". Returns the length written; cap > 0. */
size_t sfq_text_printable(char *out, size_t cap, const char *text, size_t n);

/* Sets code and message (bytes that do not print are escaped, so the message is one line), clears
 * file and tensor, returns code. err may be NULL. */
sfq_status sfq_fail(sfq_error *err, sfq_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, and says which file and tensor it is about (either may be NULL). */
sfq_status sfq_fail_at(sfq_error *err, sfq_status code, const char *file, const char *tensor,
                       const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Adds file/tensor to an error that has none yet; nothing for a NULL err. */
void sfq_error_locate(sfq_error *err, const char *file, const char *tensor);
/* From errno after a failed system call: ENOSPC, EDQUOT and EFBIG -> NO_SPACE; ENOENT, ENOTDIR,
 * ELOOP and ENAMETOOLONG -> NOT_FOUND; EEXIST -> EXISTS; ENOMEM -> MEMORY; else IO. Message:
 * "PATH: WHAT: strerror". */
sfq_status sfq_fail_errno(sfq_error *err, int errnum, const char *path, const char *what);
sfq_status sfq_fail_memory(sfq_error *err, size_t bytes, const char *what);
void sfq_error_clear(sfq_error *err);

/* return on failure */
#define SFQ_TRY(expr)                        \
    do {                                     \
        sfq_status sfq_try_status_ = (expr); \
        if (sfq_try_status_ != SFQ_OK)       \
            return sfq_try_status_;          \
    } while (0)

/* for functions with one exit: assigns `status` and jumps to `done` on failure */
#define SFQ_DO(expr)          \
    do {                      \
        status = (expr);      \
        if (status != SFQ_OK) \
            goto done;        \
    } while (0)

#endif
