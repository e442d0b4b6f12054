/* base/utf8.c - UTF-8 by the table of well-formed sequences (Unicode 15, table 3-7): the lead byte
 * gives the length and the range of the second byte, which alone excludes overlong forms,
 * surrogates and code points beyond U+10FFFF. */
#include "base/utf8.h"

/* Length of the well-formed sequence at s, 0 when there is none in n bytes. */
static size_t sequence_length(const unsigned char *s, size_t n)
{
    unsigned char lead = s[0];
    if (lead < 0x80)
        return 1;
    size_t len = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead < 0xC2 || lead > 0xF4 || n < len)
        return 0;
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return len;
}

size_t sfq_utf8_valid_prefix(const char *s, size_t n)
{
    size_t at = 0;
    while (at < n) {
        size_t len = sequence_length((const unsigned char *)s + at, n - at);
        if (len == 0)
            return at;
        at += len;
    }
    return n;
}

uint32_t sfq_utf8_next(const char *s, size_t n, size_t *len)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t size = u[0] < 0x80 ? 1 : u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : 4;
    if (size > n)
        size = n;
    static const unsigned char lead_mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t cp = u[0] & lead_mask[size];
    for (size_t i = 1; i < size; i++)
        cp = cp << 6 | (u[i] & 0x3Fu);
    *len = size;
    return cp;
}

size_t sfq_utf8_put(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = len - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (cp & 0x3F));
        cp >>= 6;
    }
    out[0] = (char)(lead[len] | cp);
    return len;
}
