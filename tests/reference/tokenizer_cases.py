"""Texts that tokenizers trip over, and random ones."""

import random
import unicodedata

PLAIN = [
    "", " ", "a", "The quick brown fox jumps over the lazy dog.", "Hello, world!", "I love sentence transformers.",
    "Toy Story (1995) Animation|Children's|Comedy", "GoldenEye (1995)", "Se7en", "12 Angry Men", "unaffable", "A.I.",
    "don't won't I'll we've they're I'm he'd it's", "DON'T WON'T I'LL WE'VE", "rock'n'roll",
    "'s 't 're 've 'm 'll 'd",
    "'''s", "!'s", "o'clock's'", "it’s a typographer’s apostrophe", "'S", "' s", "''", "'ſ", "'K",
    "3.14159", "1,000,000.00", "$5 €6 £7 ¥8", "50% off!!!", "C++ C# F# .NET", "a_b_c", "foo@bar.com",
    "https://example.org/a?b=c&d=e#f", "#hashtag @mention", "e-mail co-op re-enter", "1st 2nd 3rd", "x=1;y=2",
    "(a)[b]{c}<d>", "^`~|+=$", "\\n\\t", '"quoted" “quoted” «quoted»', "…", "a...b", "--- ___ ***", "AC/DC",
    "½ ¼ ² ³ ¹ Ⅷ ⅷ ① ⒈ ㈠", "١٢٣ १२३ 一二三 ๑๒๓", "1２3", "x²+y²", "№5", "10 000", "1 2 3", "12 34", "ab12cd34",
]
SPACES = [
    "  leading", "trailing  ", "a  b", "a\tb\nc\rd", "a\u00a0b", "a\u2003b\u2009c", "a\u3000b", "a\u200bb",
    "a\u2028b\u2029c",
    "a\u0085b", "a\x0bb\x0cc", "\t\n", "a\x1cb\x1db\x1eb\x1fb", "a\u1680b\u202fb\u205fb", "a\ufeffb", "a\u180eb",
    "a\u2060b", "\u00a0", "\r\n\r\n", "a \u0301 b",
]
CONTROLS = [
    "a\0b", "\0", "\0\0a\0", "a\x01b\x7fc", "a\u0080b\u009fc", "a\ufffdb", "\ufffd", "a\u200db\u200cc", "a\u202eb",
    "soft\u00adhyphen", "\u061carabic mark", "a\ue000b", "a\U000f0000b", "a\U0010ffffb", "a\u0378b",
    "\ufdd0\ufffe\uffff",
    "\U000e0001\U000e0020tag", "a\u0600b", "\u06dd", "\u070f", "\U000110bd", "\U0001d173", "\u0890\u08e2",
    "a\ufff9b\ufffac",
]
ACCENTS = [
    "café", "cafe\u0301", "CAFÉ", "naïve façade", "Ångström", "A\u030angstro\u0308m", "\u212bngstr\u00f6m",
    "Ünïcödé", "ñandú",
    "São Paulo", "Đorđe", "Łódź", "Øresund", "þorn Ðað", "straße STRASSE ẞ", "İstanbul ıstanbul",
    "I\u0307i\u0307", "ǅ ǈ ǋ",
    "Ω Ω", "Ὀδυσσεύς", "ΣΊΣΥΦΟΣ", "ὈΔΥΣΣΕΎΣ", "\u1fef\u037e\u0387", "\u1e9b\u0323", "q\u0307\u0323", "q\u0323\u0307",
    "\u0344\u0374\u0340\u0341\u0343", "a\u0315\u0300\u05ae\u0300b", "a\u0300\u0315\u05aeb", "a" + "\u0301" * 30 + "b",
    "a" + "\u0301\u0316\u0327\u0334" * 10, "\u0301a", "\u0301", "\u0301\u0316", "\u0308\u0301 a",
    "Việt Nam tiếng Việt",
    "ị\u0302", "\u1ed9", "o\u0302\u0323", "o\u0323\u0302", "fiancée's résumé", "ﬁnal ﬂow ﬀ", "ŉ ĸ", "Ⓐ ⓐ",
    "ＦＵＬＬ ｗｉｄｔｈ",
    "ꭰ Ꭰ", "ა Ა", "𐐀𐐨", "Ǆ", "ᾈ ᾀ", "\u0345\u1fb3", "A\u0345", "ﷺ", "\u0958 \u0915\u093c", "\u2adc", "\U0001d15e",
]
SCRIPTS = [
    "你好，世界！", "我爱北京天安门", "漢字かな交じり文", "こんにちは世界", "カタカナ ｶﾀｶﾅ", "が か\u3099", "안녕하세요 세계",
    "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "한\u11a7", "가\u11a8", "\u1100\u1161\u11a7", "ᄀ각", "Привет, мир!", "ЁЖИК ёжик й", "Ї і ґ", "Γειά σου Κόσμε",
    "שלום עולם",
    "שָׁלוֹם", "مرحبا بالعالم", "مُحَمَّد", "آ أ إ", "नमस्ते दुनिया", "क्षत्रिय", "हिन्दी\u200dमें", "বাংলা ো",
    "தமிழ் ொ", "తెలుగు ై", "ಕನ್ನಡ ೋ",
    "മലയാളം ൊ", "සිංහල ෝ", "ไทย ภาษาไทย ำ", "ລາວ", "ພາສາ", "မြန်မာ", "ភាសាខ្មែរ", "བོད་ཡིག", "\u0f73\u0f75\u0f81",
    "ქართული", "Հայերեն և",
    "አማርኛ", "ᏣᎳᎩ", "ᠮᠣᠩᠭᠣᠯ", "ᜀᜒ\u1734", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "𝟘𝟙𝟚", "𠀀𠀁",
    "\U0002b73f\U0002b740\U0002b820\U0002b91f\U0002b920", "豈更車",
    "\U0002f800", "㐀䶿", "\u9fff\ua000", "〇〆々", "、。「」", "•·‧∙", "→←↑↓", "♥★☆", "©®™",
    "\U00011935\U00011930 \U00011938",
    "\u1c89\u1c8a", "\ua7cb\ua7dc", "\U00010d50", "\U00031350", "\u07fd\u0898", "\U0001e030", "\u2e52\u2e5d",
    "\u061d",
]
EMOJI = [
    "😀", "I ❤️ NY", "👨‍👩‍👧‍👦 family", "🇩🇪🇫🇷", "👍🏽", "1️⃣", "☺ ☺\ufe0f", "🏴\U000e0067\U000e0062\U000e007f", "a😀b",
    "😀😀😀",
    "café😀", "🧑🏿‍🚀", "text 🎬🎥 movie", "(╯°□°)╯︵ ┻━┻", "¯\\_(ツ)_/¯", ":-) ;-P",
]
SPECIALS = [
    "[MASK]", "[CLS] a [SEP]", "a[MASK]b", "[mask]", "[Mask]", "[UNK] [PAD]", "[[MASK]]", "[MASK", "MASK]",
    "[MA SK]", "##a", "a##b",
    "## ##ing", "[unused1]", "The capital of [MASK] is [MASK].", "[MASK][MASK]", "[ＭＡＳＫ]", "[MÁSK]", "[MASK\u0301]",
    "<|startoftext|>", "<|endoftext|>", "a<|endoftext|>b", "<|STARTOFTEXT|>", "<|EndOfText|>!", "!<|endoftext|>!",
    "!<|ENDOFTEXT|>!",
    "<|startoftext|", "<|startoftext|><|startoftext|>", "<| startoftext |>", "</w>", "a</w>b",
    "<|startoftext|>s'", "<|STARTOFTEXT|>'s",
    "<|endoftext|>\u0301", "</s><s><unk>",
]
LONG = [
    "a" * 100, "a" * 101, "a" * 300, "ab" * 60, "é" * 100, "é" * 101, "e\u0301" * 100, "e\u0301" * 101, "你" * 120,
    "가" * 40,
    "." * 150, "a." * 80, "😀" * 110, "word " * 300, "supercalifragilisticexpialidocious", "x" * 99 + "é",
    "\u0301" * 400,
    "1" * 150, "'" * 60 + "s", "antidisestablishmentarianism " * 8, "-" * 99 + "a", "q\u0323\u0307" * 60,
    "lo" * 50 + "w",
]
HARD = PLAIN + SPACES + CONTROLS + ACCENTS + SCRIPTS + EMOJI + SPECIALS + LONG

MARKS = [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c))]
PAIRS = [unicodedata.normalize("NFD", chr(c)) for c in range(0xC0, 0x30000) if unicodedata.decomposition(chr(c))]


def any_character(rng):
    while True:
        point = rng.randrange(rng.choice((0x80, 0x250, 0x3000, 0x10000, 0x32400, 0x110000)))
        if not 0xD800 <= point < 0xE000:
            return chr(point)


def random_string(rng):
    kind, parts = rng.randrange(4), []
    for _ in range(rng.randrange(1, 25)):
        choice = rng.random()
        if kind == 0 or choice < 0.25:
            parts.append(any_character(rng))
        elif kind == 1 and choice < 0.7:
            parts.append(rng.choice(MARKS))
        elif kind == 2 and choice < 0.7:
            parts.append(rng.choice(PAIRS))
        elif choice < 0.85:
            words = rng.choice(HARD).split(" ")
            parts.append(rng.choice(words)[:20])
        else:
            parts.append(rng.choice((" ", " ", "'", "a", "é", "[MASK]", "<|endoftext|>", "!", "\u0301", "7")))
    return "".join(parts)


def random_strings(seed, count):
    rng = random.Random(seed)
    return [random_string(rng) for _ in range(count)]
