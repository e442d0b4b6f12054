/* UTF-8 against counts that follow from the definition: 128 one-byte, 1,920 two-byte, 61,440
 * three-byte and 1,048,576 four-byte characters, and no others. */
#include "base/utf8.h"

#include "unit/unit.h"

static void every_scalar_value(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        char s[4];
        size_t n = sfq_utf8_put(cp, s);
        assert_int_equal(n, cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4);
        bool surrogate = cp >= 0xD800 && cp < 0xE000;
        assert_int_equal(sfq_utf8_valid_prefix(s, n), surrogate ? 0 : n);
        size_t len = 0;
        assert_int_equal(sfq_utf8_next(s, n, &len), cp);
        assert_int_equal(len, n);
        for (size_t cut = 1; cut < n; cut++) /* a character that ends too early */
            assert_int_equal(sfq_utf8_valid_prefix(s, cut), 0);
    }
}

/* All strings of three bytes. */
static void every_short_string(void **state)
{
    (void)state;
    uint32_t valid = 0;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        char s[3] = {(char)(v >> 16), (char)(v >> 8), (char)v};
        valid += sfq_utf8_valid_prefix(s, 3) == 3;
    }
    assert_int_equal(valid, 128 * 128 * 128 + 2 * 128 * 1920 + 61440);
}

/* Lead F0..FF x any second byte x third and fourth at the edges of 80..BF. */
static void four_bytes(void **state)
{
    (void)state;
    static const unsigned char edge[] = {0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF};
    uint32_t valid = 0;
    for (unsigned lead = 0xF0; lead <= 0xFF; lead++)
        for (unsigned second = 0; second < 256; second++)
            for (unsigned i = 0; i < 36; i++) {
                char s[4] = {(char)lead, (char)second, (char)edge[i / 6], (char)edge[i % 6]};
                valid += sfq_utf8_valid_prefix(s, 4) == 4;
            }
    assert_int_equal(valid, (0x30 + 3 * 0x40 + 0x10) * 2 * 2);
}

static void offset_of_the_first_bad_byte(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t offset;
    } table[] = {{"", 0},
                 {"abc", 3},
                 {"ab\xC0\x80", 2},               /* overlong NUL */
                 {"\xC1\xBF", 0},                 /* overlong 7F */
                 {"a\xE0\x9F\xBF", 1},            /* overlong 7FF */
                 {"\xF0\x8F\xBF\xBF", 0},         /* overlong FFFF */
                 {"\xF4\x90\x80\x80", 0},         /* 110000 */
                 {"\xED\xA0\x80", 0},             /* D800 */
                 {"\xED\x9F\xBF\xEE\x80\x80", 6}, /* D7FF E000 */
                 {"\x80", 0},
                 {"\xC3\xA9\xC3", 2},
                 {"\xF0\x9F\x98\x80\xF0\x9F\x98", 4},
                 {"\xFE\xFF", 0}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        assert_int_equal(sfq_utf8_valid_prefix(table[i].text, strlen(table[i].text)),
                         table[i].offset);
    assert_int_equal(sfq_utf8_valid_prefix("a\0b", 3), 3); /* NUL is a character */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scalar_value),
        cmocka_unit_test(every_short_string),
        cmocka_unit_test(four_bytes),
        cmocka_unit_test(offset_of_the_first_bad_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
