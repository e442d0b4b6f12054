"""Writes src/text/unicode_tables.c: the character classes that the installed `tokenizers` uses.

tokenizers takes its classes from five sources of different Unicode versions (Rust's std, the regex,
unicode_categories and unicode-normalization-alignments crates, Oniguruma). The only way to have the
same classes is to ask: each component is run on every code point.

    python tests/python/make_unicode_tables.py > src/text/unicode_tables.c
"""

import sys
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
PER_LINE = 4


def ranges(points):
    out = []
    for c in points:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(name, comment, rows):
    cells = ["{0x%X, 0x%X}" % tuple(r) for r in rows]
    lines = [", ".join(cells[i : i + PER_LINE]) for i in range(0, len(cells), PER_LINE)]
    body = ",\n    ".join(lines)
    print(f"\n/* {comment} */\nconst sfq_uni_range sfq_uni_{name}[] = {{\n    {body}}};")
    print(f"const size_t sfq_uni_{name}_count = {len(cells)};")


def splitter(pre, parts):
    return [c for c in POINTS if len(pre.pre_tokenize_str("a" + chr(c) + "b")) == parts]


def opaque():
    """Characters that got a decomposition or a combining class after the version of the
    normalizer: it leaves them alone. unicodedata is newer than it and older than utf8proc, so
    everything without effect there that sits in a block of marks or letters is probed."""
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    probes = {1: "\u0334", 220: "\u0316", 230: "\u0301"}
    found = []
    for c in POINTS:
        ch = chr(c)
        if nfkd.normalize_str(ch) != ch:
            continue
        moved = nfd.normalize_str("a" + ch + probes[1]) != "a" + ch + probes[1] or any(
            nfd.normalize_str("a" + p + ch)[1:2] != p for p in (probes[220], probes[230])
        )
        if not moved and utf8proc_changes(c):
            found.append(c)
    return found


def utf8proc_changes(c):
    import ctypes

    lib = utf8proc_changes.lib
    if lib is None:

        class Property(ctypes.Structure):
            _fields_ = [("category", ctypes.c_int16), ("combining_class", ctypes.c_int16)]

        lib = ctypes.CDLL("libutf8proc.so.2")
        lib.utf8proc_get_property.restype = ctypes.POINTER(Property)
        lib.utf8proc_decompose_char.restype = ctypes.c_ssize_t
        utf8proc_changes.lib = lib
        utf8proc_changes.out = (ctypes.c_int32 * 64)()
        utf8proc_changes.state = ctypes.c_int(0)
    if lib.utf8proc_get_property(c).contents.combining_class:
        return True
    compat_decompose = 4 | 16
    n = lib.utf8proc_decompose_char(
        ctypes.c_int32(c), utf8proc_changes.out, ctypes.c_ssize_t(64), compat_decompose,
        ctypes.byref(utf8proc_changes.state))
    return n != 1 or utf8proc_changes.out[0] != c


utf8proc_changes.lib = None


def lower_rows():
    lower = normalizers.Lowercase()
    rows = []
    for c in POINTS:
        new = lower.normalize_str(chr(c))
        if unicodedata.category(chr(c)) == "Cn" and new != chr(c):
            assert len(new) == 1
            rows.append((c, ord(new)))
    return rows


def new_categories():
    """Code points that Oniguruma knows and the Unicode of `unicodedata` (14, as PCRE2 10.40 to
    10.42) does not, by general category."""
    names = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Cf Zs".split()
    out = []
    for name in names:
        split = pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed")
        new = [c for c in POINTS if unicodedata.category(chr(c)) == "Cn" and not any(
            chr(c) in part for part, _ in split.pre_tokenize_str("a" + chr(c) + "b"))]
        out += [(first, last, name) for first, last in ranges(new)]
    return sorted(out)


def main():
    clean = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False,
                                       strip_accents=False, lowercase=False)
    strip = normalizers.StripAccents()
    bert = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False,
                                      strip_accents=True, lowercase=False)
    print("/* text/unicode_tables.c - character classes, as tokenizers " +
          __import__("tokenizers").__version__ + " has them.\n"
          " * Made by tests/python/make_unicode_tables.py; not edited by hand. */\n"
          "/* clang-format off */\n"
          '#include "text/unicode.h"')
    table("punctuation", "Punctuation and BertPreTokenizer split here",
          ranges(splitter(pre_tokenizers.Punctuation(), 3)))
    table("numeric", "Digits splits here", ranges(splitter(pre_tokenizers.Digits(True), 3)))
    table("word", "\\w of Whitespace and of single_word",
          ranges(splitter(pre_tokenizers.Whitespace(), 1)))
    alpha = pre_tokenizers.Split(Regex("[[:alpha:]]"), "removed")
    table("alphabetic", "[[:alpha:]] of patterns", ranges(
        [c for c in POINTS
         if not any(chr(c) in part for part, _ in alpha.pre_tokenize_str("1" + chr(c) + "1"))]))
    table("other", "removed by BertNormalizer's clean_text",
          ranges([c for c in POINTS if clean.normalize_str("a" + chr(c) + "b") == "ab"]))
    table("mark", "removed by StripAccents",
          ranges([c for c in POINTS if strip.normalize_str("a" + chr(c)) == "a"]))
    table("nonspacing", "removed by BertNormalizer's strip_accents",
          ranges([c for c in POINTS if bert.normalize_str("a" + chr(c)) == "a"]))
    table("opaque", "left alone by NFC, NFD, NFKC, NFKD, though utf8proc would change or move them",
          ranges(opaque()))
    table("lower", "{upper, lower} that Rust's std knows and Unicode 14 does not", lower_rows())
    rows = new_categories()
    print("\n/* assigned after Unicode 14, as Oniguruma has them */")
    print("const sfq_uni_new sfq_uni_news[] = {")
    cells = ['{0x%X, 0x%X, "%s"}' % r for r in rows]
    lines = [", ".join(cells[i : i + 3]) for i in range(0, len(cells), 3)]
    print("    " + ",\n    ".join(lines) + "};")
    print(f"const size_t sfq_uni_news_count = {len(rows)};")


if __name__ == "__main__":
    sys.exit(main())
