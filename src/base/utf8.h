/* base/utf8.h - checking and stepping through UTF-8. */
#ifndef SFQ_BASE_UTF8_H
#define SFQ_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Offset of the first byte that does not belong to well-formed UTF-8 (no overlong forms, no
 * surrogates), or n. */
size_t sfq_utf8_valid_prefix(const char *s, size_t n);
/* Decodes one character of valid UTF-8 (n > 0); *len is its length in bytes. */
uint32_t sfq_utf8_next(const char *s, size_t n, size_t *len);
size_t sfq_utf8_put(uint32_t cp, char out[4]); /* bytes written */

#endif
