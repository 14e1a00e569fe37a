"""Where the characters of PyPI's `tokenizers` differ from libutf8proc's, as model/text/unicode_exceptions.inc.

`make_unicode_exceptions.py > model/text/unicode_exceptions.inc`. The package mixes the Unicode versions of its own
libraries; its ids are what the models were trained on, so it is right by definition. Every code point is asked.
"""

import ctypes
import ctypes.util
import sys

from tokenizers import Regex, normalizers, pre_tokenizers

CONTROL, MARK, PUNCTUATION, LETTER, NUMBER = 1, 2, 4, 8, 16
NAMES = {CONTROL: "CONTROL", MARK: "MARK", PUNCTUATION: "PUNCTUATION", LETTER: "LETTER", NUMBER: "NUMBER"}
# utf8proc_category_t: Lu Ll Lt Lm Lo = 1..5, Mn Mc Me = 6..8, Nd Nl No = 9..11, Pc..Po = 12..18, Cc Cf Cs Co = 26..29
CATEGORIES = {CONTROL: {26, 27, 28, 29}, MARK: {6}, PUNCTUATION: set(range(12, 19)), LETTER: set(range(1, 6)),
              NUMBER: {9, 10, 11}}
POINTS = [c for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000 and c not in (0xFFFD,)]


def bert(**on):
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**(off | on))


CLEAN, STRIP, LOWER = bert(clean_text=True), bert(strip_accents=True), bert(lowercase=True)
NO_LETTERS = normalizers.Replace(Regex(r"\p{L}"), "")
NO_NUMBERS = normalizers.Replace(Regex(r"\p{N}"), "")
WORDS = pre_tokenizers.BertPreTokenizer()
NFD = normalizers.NFD()


def reference_classes(char):
    return (
        CONTROL * (CLEAN.normalize_str(char) == "")
        | MARK * (STRIP.normalize_str(char) == "")
        | PUNCTUATION * (len(WORDS.pre_tokenize_str("a" + char + "a")) == 3)
        | LETTER * (NO_LETTERS.normalize_str(char) == "")
        | NUMBER * (NO_NUMBERS.normalize_str(char) == "")
    )


def combining_class(utf8proc, point):
    """The second of the 16-bit numbers that its properties begin with."""
    utf8proc.utf8proc_get_property.restype = ctypes.POINTER(ctypes.c_int16)
    return utf8proc.utf8proc_get_property(point)[1]


def is_moved(char):
    """A mark of a low class passes it, or it passes one of a high class."""
    return any(NFD.normalize_str(text) != text for text in ("a" + char + "\u0334", "a\u0345" + char))


def ranges(pairs):
    """[(code point, value)] in order -> [(first, last, value)]"""
    merged = []
    for point, value in pairs:
        if merged and merged[-1][1] == point - 1 and merged[-1][2] == value:
            merged[-1][1] = point
        else:
            merged.append([point, point, value])
    return merged


def main():
    utf8proc = ctypes.CDLL(ctypes.util.find_library("utf8proc"))
    utf8proc.utf8proc_version.restype = ctypes.c_char_p
    categories = {c: utf8proc.utf8proc_category(c) for c in POINTS}
    version = utf8proc.utf8proc_version().decode()
    print(f"/* Made by tests/reference/make_unicode_exceptions.py, against libutf8proc {version}. */")
    classes = []
    for point in POINTS:
        own = sum(bit for bit, which in CATEGORIES.items() if categories[point] in which)
        reference = reference_classes(chr(point))
        if own != reference:
            classes.append((point, reference))
    print("static const struct class_exception class_exceptions[] = {")
    for first, last, value in ranges(classes):
        names = " | ".join(name for bit, name in NAMES.items() if value & bit) or "0"
        print(f"    {{0x{first:04X}, 0x{last:04X}, {names}}},")
    print("};")
    lower = []
    for point in POINTS:
        reference = LOWER.normalize_str(chr(point))
        if len(reference) == 1 and ord(reference) != utf8proc.utf8proc_tolower(point):
            lower.append((point, ord(reference) - point))
        elif len(reference) > 1:
            print(f"lower case of several: {point:04X} {reference!r}", file=sys.stderr)
    print("/* First, last, what to add for lower case. */")
    print("static const struct lower_exception lower_exceptions[] = {")
    for first, last, value in ranges(lower):
        print(f"    {{0x{first:04X}, 0x{last:04X}, {value}}},")
    print("};")
    starters = [(point, 0) for point in POINTS if combining_class(utf8proc, point) and not is_moved(chr(point))]
    print("/* First, last: starters to the reference, whatever libutf8proc says. */")
    print("static const struct range starter_exceptions[] = {")
    for first, last, _ in ranges(starters):
        print(f"    {{0x{first:04X}, 0x{last:04X}}},")
    print("};")
    buffer = (ctypes.c_int32 * 32)()
    for point in POINTS:
        count = utf8proc.utf8proc_decompose_char(point, buffer, 32, 2 | 16, None)
        own = "".join(map(chr, buffer[:count]))
        if NFD.normalize_str(chr(point)) != own:
            print(f"decomposition: {point:04X} {own!r}", file=sys.stderr)


main()
