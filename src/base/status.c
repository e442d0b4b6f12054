/* base/status.c - fills the caller's sfq_error. Messages are formatted into a local buffer first,
 * so that an argument may point into the error itself, and are made printable here, once, because
 * names and values in them come from files that nobody has vetted. */
#include "base/status.h"

#include "base/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const sfq_status_facts status_facts[] = {
#define STATUS_FACTS(name, value, exit_status, text) {SFQ_##name, exit_status, #name, text},
    SFQ_STATUS_MAP(STATUS_FACTS)
#undef STATUS_FACTS
};

const sfq_status_facts *sfq_status_facts_get(sfq_status status)
{
    const sfq_status_facts *internal = NULL;
    for (size_t i = 0; i < sizeof status_facts / sizeof *status_facts; i++) {
        if (status_facts[i].status == status)
            return &status_facts[i];
        if (status_facts[i].status == SFQ_E_INTERNAL)
            internal = &status_facts[i];
    }
    return internal;
}

/* Characters that would break the line, hide text or turn its direction. */
static bool is_unprintable(uint32_t cp)
{
    return cp < 0x20 || (cp >= 0x7F && cp < 0xA0) || (cp >= 0x200E && cp <= 0x200F) ||
           (cp >= 0x2028 && cp <= 0x202E) || (cp >= 0x2066 && cp <= 0x2069) || cp == 0xFEFF;
}

/* One piece of the result: a character as it is, or an escaped byte. Returns its length; *used is
 * the number of bytes read. */
static size_t printable_piece(char piece[8], const char *s, size_t n, size_t *used)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t len = 0;
    size_t whole = sfq_utf8_valid_prefix(s, n < 4 ? n : 4);
    uint32_t cp = whole > 0 ? sfq_utf8_next(s, whole, &len) : 0;
    if (whole > 0 && !is_unprintable(cp)) {
        memcpy(piece, s, len);
        *used = len;
        return len;
    }
    unsigned char byte = (unsigned char)*s;
    *used = 1;
    piece[0] = '\\';
    if (byte == '\n' || byte == '\t') {
        piece[1] = byte == '\n' ? 'n' : 't';
        return 2;
    }
    piece[1] = 'x';
    piece[2] = hex[byte >> 4];
    piece[3] = hex[byte & 15];
    return 4;
}

size_t sfq_text_printable(char *out, size_t cap, const char *text, size_t n)
{
    size_t len = 0;
    size_t cut = 0; /* where "..." can go */
    for (size_t at = 0; at < n;) {
        char piece[8];
        size_t used;
        size_t size = printable_piece(piece, text + at, n - at, &used);
        if (len + size >= cap) {
            size_t dots = cap - 1 < 3 ? cap - 1 : 3;
            memcpy(out + cut, "...", dots);
            out[cut + dots] = 0;
            return cut + dots;
        }
        memcpy(out + len, piece, size);
        len += size;
        at += used;
        if (len + 3 < cap)
            cut = len;
    }
    out[len] = 0;
    return len;
}

static void set_text(char *out, size_t cap, const char *text)
{
    char copy[1024];
    size_t n = strnlen(text, sizeof copy);
    memcpy(copy, text, n);
    sfq_text_printable(out, cap, copy, n);
}

static void fail_va(sfq_error *err, sfq_status code, const char *file, const char *tensor,
                    const char *fmt, va_list args) __attribute__((format(printf, 5, 0)));

static void fail_va(sfq_error *err, sfq_status code, const char *file, const char *tensor,
                    const char *fmt, va_list args)
{
    if (err == NULL)
        return;
    char text[1024];
    int n = vsnprintf(text, sizeof text, fmt, args);
    size_t len = n < 0 ? 0 : strnlen(text, sizeof text);
    set_text(err->file, sizeof err->file, file != NULL ? file : "");
    set_text(err->tensor, sizeof err->tensor, tensor != NULL ? tensor : "");
    err->code = code;
    sfq_text_printable(err->message, sizeof err->message, text, len);
}

sfq_status sfq_fail(sfq_error *err, sfq_status code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fail_va(err, code, NULL, NULL, fmt, args);
    va_end(args);
    return code;
}

sfq_status sfq_fail_at(sfq_error *err, sfq_status code, const char *file, const char *tensor,
                       const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fail_va(err, code, file, tensor, fmt, args);
    va_end(args);
    return code;
}

void sfq_error_locate(sfq_error *err, const char *file, const char *tensor)
{
    if (err == NULL)
        return;
    if (file != NULL && err->file[0] == 0)
        set_text(err->file, sizeof err->file, file);
    if (tensor != NULL && err->tensor[0] == 0)
        set_text(err->tensor, sizeof err->tensor, tensor);
}

static sfq_status status_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* a limit of the process or the file system on one file */
        return SFQ_E_NO_SPACE;
    case ENOENT:
    case ENOTDIR: /* these name nothing that could be there */
    case ELOOP:
    case ENAMETOOLONG:
        return SFQ_E_NOT_FOUND;
    case EEXIST:
        return SFQ_E_EXISTS;
    case ENOMEM:
        return SFQ_E_MEMORY;
    default:
        return SFQ_E_IO;
    }
}

sfq_status sfq_fail_errno(sfq_error *err, int errnum, const char *path, const char *what)
{
    char text[128];
    return sfq_fail_at(err, status_of_errno(errnum), path, NULL, "%s: %s: %s", path, what,
                       strerror_r(errnum, text, sizeof text));
}

sfq_status sfq_fail_memory(sfq_error *err, size_t bytes, const char *what)
{
    return sfq_fail(err, SFQ_E_MEMORY,
                    "out of memory: %zu bytes for %s; free memory or use a smaller model", bytes,
                    what);
}

void sfq_error_clear(sfq_error *err)
{
    if (err != NULL)
        *err = (sfq_error){.code = SFQ_OK};
}
