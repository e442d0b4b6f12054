/* text/regex_translate.c - rewrites an Oniguruma pattern (the engine of tokenizers) for PCRE2.
 *
 * Most of the language is common. What differs is rewritten here so that both engines match the
 * same text: \s \w \d \h \v \b and the POSIX classes become explicit sets; \p{..} of a general
 * category is widened by the characters that Oniguruma's Unicode knows and PCRE2's may not; nested
 * sets are flattened; {n,m}+ is a repeated interval (possessive in PCRE2); {,m} is {0,m}; ^ and $
 * are always lines' ends (PCRE2_MULTILINE); (?m) is (?s). Constructs without an equivalent are
 * refused by name. */
#include "text/regex.h"

#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 128

#define SPACES                                                                                   \
    "\\t-\\r\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}" \
    "\\x{3000}"
#define NOT_SPACES                                                                 \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}"   \
    "\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}" \
    "\\x{2060}-\\x{2FFF}\\x{3001}-\\x{D7FF}\\x{E000}-\\x{10FFFF}"

typedef struct translation {
    const char *p; /* next character of the pattern */
    const char *pattern, *file, *key;
    sfq_buf *out;
    size_t atom;              /* where in out the last complete atom begins */
    size_t groups[DEPTH_MAX]; /* the same for each open group */
    size_t depth;
    sfq_error *err;
} translation;

static sfq_status put(translation *t, const char *text)
{
    return sfq_buf_add(t->out, text, strlen(text), t->err);
}

static sfq_status unsupported(translation *t, const char *what)
{
    return sfq_fail_at(t->err, SFQ_E_UNSUPPORTED, t->file, t->key,
                       "%s: %s: %s at offset %zu of \"%.80s\" is not supported", t->file, t->key,
                       what, (size_t)(t->p - t->pattern), t->pattern);
}

/* Characters of the category (one or two letters) assigned after Unicode 14. */
static sfq_status put_news(translation *t, const char *category)
{
    for (size_t i = 0; i < sfq_uni_news_count; i++) {
        const sfq_uni_new *n = &sfq_uni_news[i];
        if (n->category[0] == category[0] && (!category[1] || n->category[1] == category[1]))
            SFQ_TRY(sfq_buf_addf(t->out, t->err, "\\x{%X}-\\x{%X}", n->first, n->last));
    }
    return SFQ_OK;
}

static sfq_status put_category(translation *t, const char *category)
{
    SFQ_TRY(sfq_buf_addf(t->out, t->err, "\\p{%s}", category));
    return put_news(t, category);
}

/* Superscripts and fractions of Latin-1: characters of Oniguruma's \w, but not inside a set. */
#define ODD_WORDS "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

static sfq_status put_ranges(translation *t, const sfq_uni_range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        SFQ_TRY(sfq_buf_addf(t->out, t->err, "\\x{%X}-\\x{%X}", ranges[i].first, ranges[i].last));
    return SFQ_OK;
}

/* \w of Oniguruma: alphabetic characters, marks, decimal digits, connectors */
static sfq_status put_word(translation *t, bool in_set)
{
    static const char *const parts[] = {"L", "M", "Nl", "Nd", "Pc"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++)
        SFQ_TRY(put_category(t, parts[i]));
    if (!in_set)
        SFQ_TRY(put(t, ODD_WORDS));
    return put(t, "\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}"
                  "\\x{1F170}-\\x{1F189}");
}

/* The complement of \w as ranges, for use inside a set. */
static sfq_status put_not_word(translation *t)
{
    uint32_t next = 0x100;
    SFQ_TRY(put(t, "\\x{0}-\\x{2F}\\x{3A}-\\x{40}\\x{5B}-\\x{5E}\\x{60}\\x{7B}-\\x{A9}"
                   "\\x{AB}-\\x{B4}\\x{B6}-\\x{B9}\\x{BB}-\\x{BF}\\x{D7}\\x{F7}"
                   "\\x{200C}\\x{200D}"));
    for (size_t i = 0; i < sfq_uni_word_count; i++) {
        if (sfq_uni_word[i].last < next)
            continue;
        if (sfq_uni_word[i].first > next)
            SFQ_TRY(
                sfq_buf_addf(t->out, t->err, "\\x{%X}-\\x{%X}", next, sfq_uni_word[i].first - 1));
        next = sfq_uni_word[i].last + 1;
    }
    return sfq_buf_addf(t->out, t->err, "\\x{%X}-\\x{10FFFF}", next);
}

/* The inside of a set for a POSIX class, as [[:name:]] or \p{name}. */
static sfq_status put_posix(translation *t, const char *name, bool *known)
{
    *known = true;
    if (strcmp(name, "alpha") == 0)
        return put_ranges(t, sfq_uni_alphabetic, sfq_uni_alphabetic_count);
    if (strcmp(name, "alnum") == 0) {
        SFQ_TRY(put_category(t, "Nd"));
        return put_ranges(t, sfq_uni_alphabetic, sfq_uni_alphabetic_count);
    }
    if (strcmp(name, "digit") == 0)
        return put_category(t, "Nd");
    if (strcmp(name, "upper") == 0) {
        SFQ_TRY(put_news(t, "Lu"));
        return put(t, "\\p{Uppercase}");
    }
    if (strcmp(name, "lower") == 0) {
        SFQ_TRY(put_news(t, "Ll"));
        return put(t, "\\p{Lowercase}");
    }
    if (strcmp(name, "space") == 0)
        return put(t, SPACES);
    if (strcmp(name, "blank") == 0)
        return put(t, "\\t\\p{Zs}");
    if (strcmp(name, "cntrl") == 0)
        return put(t, "\\p{Cc}");
    if (strcmp(name, "xdigit") == 0)
        return put(t, "0-9a-fA-F");
    if (strcmp(name, "ascii") == 0)
        return put(t, "\\x{0}-\\x{7F}");
    if (strcmp(name, "word") == 0)
        return put_word(t, true);
    if (strcmp(name, "punct") == 0) {
        SFQ_TRY(put_category(t, "P"));
        return put_category(t, "S");
    }
    *known = false;
    return SFQ_OK;
}

static bool is_binary_property(const char *plain)
{
    static const char *const names[] = {
        "any",   "alphabetic",           "uppercase",   "lowercase",        "whitespace",
        "emoji", "extendedpictographic", "ideographic", "unifiedideograph", "dash",
        "math"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(plain, names[i]) == 0)
            return true;
    return false;
}

/* \p{name}, \p{^name}, \P{name}: t->p is behind the p. */
static sfq_status property(translation *t, bool negated, bool in_set)
{
    static const char *const long_names[][2] = {
        {"letter", "L"},          {"mark", "M"},      {"number", "N"}, {"punctuation", "P"},
        {"symbol", "S"},          {"separator", "Z"}, {"other", "C"},  {"uppercaseletter", "Lu"},
        {"lowercaseletter", "Ll"}};
    const char *close = *t->p == '{' ? strchr(t->p, '}') : NULL;
    char name[64], plain[64];
    size_t n = 0, m = 0;
    if (!close || close - t->p > 60)
        return unsupported(t, "\\p without a short {name}");
    const char *from = t->p + 1;
    if (*from == '^') {
        negated = !negated;
        from++;
    }
    for (; from < close; from++) {
        name[n++] = *from;
        if (*from != '_' && *from != ' ' && *from != '-')
            plain[m++] = (char)(*from >= 'A' && *from <= 'Z' ? *from + 32 : *from);
    }
    name[n] = plain[m] = '\0';
    const char *shown = name;
    for (size_t i = 0; i < sizeof(long_names) / sizeof(*long_names); i++)
        if (strcmp(plain, long_names[i][0]) == 0)
            shown = long_names[i][1];
    t->p = close + 1;
    if (negated && in_set)
        return sfq_buf_addf(t->out, t->err, "\\P{%s}", shown);
    if (!in_set)
        SFQ_TRY(put(t, negated ? "[^" : "["));
    bool known;
    SFQ_TRY(put_posix(t, plain, &known));
    if (!known) { /* a bare script name means script extensions in PCRE2, the script here */
        const char *kind = strlen(shown) > 2 && !is_binary_property(plain) ? "sc:" : "";
        SFQ_TRY(sfq_buf_addf(t->out, t->err, "\\p{%s%s}", kind, shown));
        if (strlen(shown) <= 2)
            SFQ_TRY(put_news(t, shown));
        if (strcmp(plain, "han") == 0)
            SFQ_TRY(put(t, "\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"));
    }
    return in_set ? SFQ_OK : put(t, "]");
}

/* \s \d \w \h and their opposites; *done says whether c was one of them. */
static sfq_status class_escape(translation *t, char c, bool in_set, bool *done)
{
    bool negated = c >= 'A' && c <= 'Z';
    *done = strchr("sSdDwWhH", c) != NULL;
    if (!*done)
        return SFQ_OK;
    if (!in_set)
        SFQ_TRY(put(t, negated ? "[^" : "["));
    switch (c | 32) {
    case 's':
        SFQ_TRY(put(t, negated && in_set ? NOT_SPACES : SPACES));
        break;
    case 'd':
        SFQ_TRY(negated && in_set ? put(t, "\\P{Nd}") : put_category(t, "Nd"));
        break;
    case 'w':
        SFQ_TRY(negated && in_set ? put_not_word(t) : put_word(t, in_set));
        break;
    default:
        SFQ_TRY(put(t, negated && in_set
                           ? "\\x{0}-\\x{2F}\\x{3A}-\\x{40}\\x{47}-\\x{60}\\x{67}-\\x{10FFFF}"
                           : "0-9a-fA-F"));
    }
    return in_set ? SFQ_OK : put(t, "]");
}

/* A backslash: t->p is at the character behind it. *set tells that it stands for a set. */
static sfq_status escape(translation *t, bool in_set, bool *set)
{
    char c = *t->p;
    if (c == '\0')
        return sfq_fail_at(t->err, SFQ_E_FORMAT, t->file, t->key,
                           "%s: %s: \"%.80s\" ends in a backslash", t->file, t->key, t->pattern);
    t->p++;
    SFQ_TRY(class_escape(t, c, in_set, set));
    if (*set)
        return SFQ_OK;
    if (c == 'p' || c == 'P') {
        *set = true;
        return property(t, c == 'P', in_set);
    }
    if (c == 'v')
        return put(t, "\\x{B}");
    if (c == 'u') {
        for (int i = 0; i < 4; i++)
            if (!strchr("0123456789abcdefABCDEF", t->p[i]) || t->p[i] == '\0')
                return unsupported(t, "\\u without four hex digits");
        SFQ_TRY(sfq_buf_addf(t->out, t->err, "\\x{%.4s}", t->p));
        t->p += 4;
        return SFQ_OK;
    }
    if ((c == 'b' || c == 'B') && !in_set) {
        SFQ_TRY(put(t, c == 'b' ? "(?:(?<=[" : "(?:(?<=["));
        SFQ_TRY(put_word(t, false));
        SFQ_TRY(put(t, c == 'b' ? "])(?![" : "])(?=["));
        SFQ_TRY(put_word(t, false));
        SFQ_TRY(put(t, "])|(?<!["));
        SFQ_TRY(put_word(t, false));
        SFQ_TRY(put(t, c == 'b' ? "])(?=[" : "])(?!["));
        SFQ_TRY(put_word(t, false));
        return put(t, "]))");
    }
    if (strchr("QENOyYcCMRXK", c) != NULL && (in_set || strchr("RXK", c) == NULL))
        return unsupported(t, "this escape");
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter && strchr("abefnrtxAzZGkgRXK", c) == NULL) /* no meaning: the letter itself */
        return sfq_buf_add(t->out, &c, 1, t->err);
    SFQ_TRY(put(t, "\\"));
    return sfq_buf_add(t->out, &c, 1, t->err);
}

/* [:name:] inside a set; t->p is at the '['. */
static sfq_status posix_in_set(translation *t)
{
    const char *close = strstr(t->p, ":]");
    char name[16];
    bool known = false;
    if (close && close - (t->p + 2) < (ptrdiff_t)sizeof(name)) {
        size_t n = (size_t)(close - (t->p + 2));
        memcpy(name, t->p + 2, n);
        name[n] = '\0';
        SFQ_TRY(put_posix(t, name, &known));
        if (known) {
            t->p = close + 2;
            return SFQ_OK;
        }
    }
    return unsupported(t, "this POSIX class");
}

/* A whole set; t->p is behind its '['. Positive sets inside are part of the union. */
static sfq_status set(translation *t)
{
    size_t depth = 1;
    bool last_set = true; /* the last member was a set or nothing: '-' is literal then */
    SFQ_TRY(put(t, "["));
    if (*t->p == '^') {
        SFQ_TRY(put(t, "^"));
        t->p++;
    }
    if (*t->p == ']') {
        SFQ_TRY(put(t, "\\]"));
        t->p++;
        last_set = false;
    }
    while (depth > 0) {
        char c = *t->p;
        if (c == '\0')
            return sfq_fail_at(t->err, SFQ_E_FORMAT, t->file, t->key,
                               "%s: %s: a set in \"%.80s\" has no end", t->file, t->key,
                               t->pattern);
        if (c == '&' && t->p[1] == '&')
            return unsupported(t, "the intersection of sets (&&)");
        if (c == ']') {
            depth--;
            t->p++;
            last_set = true;
        } else if (c == '[' && t->p[1] == ':') {
            SFQ_TRY(posix_in_set(t));
            last_set = true;
        } else if (c == '[') {
            if (t->p[1] == '^' || ++depth > DEPTH_MAX)
                return unsupported(t, "a negated or very deep set inside a set");
            t->p++;
            last_set = true;
        } else if (c == '\\') {
            t->p++;
            SFQ_TRY(escape(t, true, &last_set));
        } else if (c == '-') {
            bool before_set =
                t->p[1] == ']' || t->p[1] == '[' ||
                (t->p[1] == '\\' && t->p[2] != '\0' && strchr("sSdDwWhHpP", t->p[2]) != NULL);
            SFQ_TRY(put(t, last_set || before_set ? "\\-" : "-"));
            last_set = !(last_set || before_set); /* behind a range a '-' is literal */
            t->p++;
            if (last_set) { /* the upper end belongs to the range */
                last_set = false;
                if (*t->p == '\\') {
                    t->p++;
                    bool ignored;
                    SFQ_TRY(escape(t, true, &ignored));
                } else if (*t->p != '\0') {
                    SFQ_TRY(sfq_buf_add(t->out, t->p, 1, t->err));
                    t->p++;
                    while (((unsigned char)*t->p & 0xC0) == 0x80)
                        SFQ_TRY(sfq_buf_add(t->out, t->p++, 1, t->err));
                }
                last_set = true;
            }
        } else {
            SFQ_TRY(sfq_buf_add(t->out, t->p++, 1, t->err));
            last_set = false;
        }
    }
    return put(t, "]");
}

/* (?imx-imx) or (?imx-imx:  t->p is behind "(?". */
static sfq_status options(translation *t)
{
    SFQ_TRY(put(t, "(?"));
    for (; *t->p != ')' && *t->p != ':'; t->p++) {
        if (*t->p == 'm')
            SFQ_TRY(put(t, "s"));
        else if (*t->p == 'i' || *t->p == '-')
            SFQ_TRY(sfq_buf_add(t->out, t->p, 1, t->err));
        else
            return unsupported(t, "this group option");
    }
    return SFQ_OK;
}

static sfq_status group(translation *t)
{
    if (t->depth == DEPTH_MAX)
        return unsupported(t, "a group nested more than 128 deep");
    if (t->p[1] == '*')
        return unsupported(t, "a callout");
    t->groups[t->depth++] = t->out->len;
    if (t->p[1] != '?') {
        t->p++;
        return put(t, "(");
    }
    t->p += 2;
    if (*t->p != '\0' && strchr(":=!>'", *t->p) != NULL)
        return sfq_buf_addf(t->out, t->err, "(?%c", *t->p++);
    if (*t->p == '<') {
        t->p++;
        return put(t, "(?<");
    }
    if (*t->p == '\0' || strchr("imx-", *t->p) == NULL)
        return unsupported(t, "this kind of group");
    SFQ_TRY(options(t));
    if (*t->p == ')') { /* (?i) changes what follows; it is no atom */
        t->depth--;
        t->p++;
        return put(t, ")");
    }
    t->p++;
    return put(t, ":");
}

/* {n,m}: rewritten; a following + or (after {n}) ? repeats the whole in Oniguruma. */
static sfq_status interval(translation *t)
{
    const char *p = t->p + 1;
    size_t low_digits = strspn(p, "0123456789");
    const char *comma = p + low_digits;
    size_t high_digits = *comma == ',' ? strspn(comma + 1, "0123456789") : 0;
    const char *close = *comma == ',' ? comma + 1 + high_digits : comma;
    if (*close != '}' || low_digits + high_digits == 0 || low_digits > 5 || high_digits > 5) {
        t->atom = t->out->len; /* an ordinary brace */
        t->p++;
        return put(t, "\\{");
    }
    SFQ_TRY(put(t, low_digits == 0 ? "{0" : "{"));
    SFQ_TRY(sfq_buf_add(t->out, p, (size_t)(close + 1 - p), t->err));
    t->p = close + 1;
    if (*t->p == '+' || (*t->p == '?' && *comma != ',')) {
        size_t tail = t->out->len - t->atom;
        SFQ_TRY(sfq_buf_reserve(t->out, 8, t->err));
        memmove(t->out->data + t->atom + 3, t->out->data + t->atom, tail);
        memcpy(t->out->data + t->atom, "(?:", 3);
        t->out->len += 3;
        return put(t, ")");
    }
    return SFQ_OK;
}

static sfq_status step(translation *t)
{
    char c = *t->p;
    bool ignored;
    switch (c) {
    case '\\':
        t->atom = t->out->len;
        t->p++;
        return escape(t, false, &ignored);
    case '[':
        t->atom = t->out->len;
        t->p++;
        return set(t);
    case '(':
        if (t->p[1] == '?' && t->p[2] == '#')
            return unsupported(t, "a comment");
        return group(t);
    case ')':
        if (t->depth == 0)
            return sfq_fail_at(t->err, SFQ_E_FORMAT, t->file, t->key,
                               "%s: %s: \"%.80s\" closes a group that is not open", t->file, t->key,
                               t->pattern);
        t->atom = t->groups[--t->depth];
        break;
    case '{':
        return interval(t);
    case '*':
    case '+':
    case '?':
    case '|':
        break;
    default:
        if (((unsigned char)c & 0xC0) != 0x80)
            t->atom = t->out->len;
    }
    t->p++;
    return sfq_buf_add(t->out, &c, 1, t->err);
}

sfq_status sfq_regex_translate(sfq_buf *out, const char *pattern, const char *file, const char *key,
                               sfq_error *err)
{
    translation t = {
        .p = pattern, .pattern = pattern, .file = file, .key = key, .out = out, .err = err};
    while (*t.p != '\0')
        SFQ_TRY(step(&t));
    return SFQ_OK;
}
