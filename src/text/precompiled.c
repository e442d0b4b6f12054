/* text/precompiled.c - decodes and applies the character map that SentencePiece models embed: a
 * Darts-clone double array (Yata et al. 2007, "A compact static double-array keeping character
 * codes") whose values are offsets into a block of replacement texts.
 *
 * Text is mapped grapheme by grapheme where a grapheme has fewer than 6 bytes and some prefix of it
 * is a key; the *shortest* such prefix decides and its replacement stands for the whole grapheme.
 * Else character by character. This is what tokenizers does, oddities included. */
#include "text/precompiled.h"

#include "base/utf8.h"
#include "text/unicode.h"

#include <string.h>
#include <utf8proc.h>

#define BASE64_MAX ((size_t)64 << 20)
#define GRAPHEME_MAX 6

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static sfq_status decode(sfq_buf *out, const char *text, const char *file, sfq_error *err)
{
    size_t n = strlen(text);
    if (n > BASE64_MAX)
        return sfq_fail_at(err, SFQ_E_LIMIT, file, "precompiled_charsmap",
                           "%s: precompiled_charsmap has %zu characters, at most %zu", file, n,
                           BASE64_MAX);
    bool good = n % 4 == 0 && n > 0;
    size_t pad = !good ? 0 : text[n - 1] != '=' ? 0 : text[n - 2] != '=' ? 1 : 2;
    SFQ_TRY(sfq_buf_reserve(out, n / 4 * 3 + 3, err));
    for (size_t i = 0; good && i < n; i += 4) {
        uint32_t bits = 0;
        for (size_t k = 0; k < 4; k++) {
            bool padding = i + k >= n - pad;
            int value = padding ? 0 : base64_value(text[i + k]);
            good = good && value >= 0;
            bits = bits << 6 | (uint32_t)(value & 63);
        }
        for (int k = 2; k >= 0; k--)
            out->data[out->len++] = (char)(unsigned char)(bits >> 8 * k & 0xFF);
    }
    if (!good)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "precompiled_charsmap",
                           "%s: precompiled_charsmap is not base64", file);
    out->len -= pad;
    return SFQ_OK;
}

static uint32_t word_at(const sfq_precompiled *map, size_t byte)
{
    const unsigned char *p = (const unsigned char *)map->blob.data + byte;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

sfq_status sfq_precompiled_load(sfq_precompiled *map, const char *base64, const char *file,
                                sfq_error *err)
{
    *map = (sfq_precompiled){.blob = SFQ_BUF_INIT(BASE64_MAX)};
    SFQ_TRY(decode(&map->blob, base64, file, err));
    size_t trie = map->blob.len >= 4 ? word_at(map, 0) : SIZE_MAX;
    if (trie > map->blob.len - 4 || trie < 4)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "precompiled_charsmap",
                           "%s: precompiled_charsmap has %zu bytes and claims a trie of %zu", file,
                           map->blob.len, trie);
    map->units = trie / 4;
    map->texts = 4 + map->units * 4;
    size_t texts = map->blob.len - map->texts;
    size_t good = sfq_utf8_valid_prefix(map->blob.data + map->texts, texts);
    if (good != texts)
        return sfq_fail_at(err, SFQ_E_FORMAT, file, "precompiled_charsmap",
                           "%s: precompiled_charsmap: its texts are not UTF-8 at offset %zu", file,
                           good);
    return SFQ_OK;
}

void sfq_precompiled_close(sfq_precompiled *map)
{
    sfq_buf_free(&map->blob);
    *map = (sfq_precompiled){0};
}

/* Darts-clone units: 8 bits of label (bit 31 set on values), bit 8: a value follows, bits 10 and
 * up: offset, shifted by 8 more when bit 9 is set. */
static size_t unit_offset(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 0x200u) >> 6);
}

/* Value of the shortest key that s begins with; false: none. */
static bool shortest_prefix(const sfq_precompiled *map, const char *s, size_t n, uint32_t *value)
{
    size_t at = unit_offset(word_at(map, 4));
    for (size_t i = 0; i < n && s[i] != '\0'; i++) {
        unsigned char c = (unsigned char)s[i];
        at ^= c;
        if (at >= map->units)
            return false;
        uint32_t unit = word_at(map, 4 + 4 * at);
        if ((unit & 0x800000FFu) != c)
            return false;
        at ^= unit_offset(unit);
        if (at >= map->units)
            return false;
        if (unit >> 8 & 1) {
            *value = word_at(map, 4 + 4 * at) & 0x7FFFFFFFu;
            return true;
        }
    }
    return false;
}

/* Appends the replacement of s; *mapped false: it has none. */
static sfq_status map_part(const sfq_precompiled *map, const char *s, size_t n, sfq_buf *out,
                           bool *mapped, sfq_error *err)
{
    uint32_t value;
    *mapped = shortest_prefix(map, s, n, &value);
    if (!*mapped)
        return SFQ_OK;
    size_t room = map->blob.len - map->texts;
    const char *text = map->blob.data + map->texts + value;
    if (value > room || (value < room && ((unsigned char)*text & 0xC0) == 0x80))
        return sfq_fail(err, SFQ_E_FORMAT,
                        "precompiled_charsmap maps to offset %u of %zu bytes of texts, where no "
                        "text begins",
                        value, room);
    return sfq_buf_add(out, text, strnlen(text, room - value), err);
}

static sfq_status map_grapheme(const sfq_precompiled *map, const char *s, size_t n, sfq_buf *out,
                               sfq_error *err)
{
    bool mapped = false;
    if (n < GRAPHEME_MAX)
        SFQ_TRY(map_part(map, s, n, out, &mapped, err));
    size_t len;
    for (size_t i = 0; i < n && !mapped; i += len) {
        bool one;
        sfq_utf8_next(s + i, n - i, &len);
        SFQ_TRY(map_part(map, s + i, len, out, &one, err));
        if (!one)
            SFQ_TRY(sfq_buf_add(out, s + i, len, err));
    }
    return SFQ_OK;
}

sfq_status sfq_precompiled_run(const sfq_precompiled *map, const char *s, size_t n, sfq_buf *out,
                               size_t *first, sfq_error *err)
{
    utf8proc_int32_t state = 0;
    size_t begin = 0, len = 0, before = out->len;
    *first = 0;
    if (n == 0)
        return SFQ_OK;
    uint32_t last = sfq_utf8_next(s, n, &len);
    for (size_t i = len; i < n; i += len) {
        uint32_t next = sfq_utf8_next(s + i, n - i, &len);
        bool cut = utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)next,
                                                    &state);
        if (cut && !sfq_uni_is_new_mark(next)) {
            SFQ_TRY(map_grapheme(map, s + begin, i - begin, out, err));
            if (begin == 0)
                *first = out->len - before;
            begin = i;
        }
        last = next;
    }
    SFQ_TRY(map_grapheme(map, s + begin, n - begin, out, err));
    if (begin == 0)
        *first = out->len - before;
    return SFQ_OK;
}
