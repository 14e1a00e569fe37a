#include "model/text/unicode.h"

#include <assert.h>
#include <string.h>
#include <utf8proc.h>

struct class_exception {
  uint32_t first, last, classes;
};
struct range {
  uint32_t first, last;
};
struct lower_exception {
  uint32_t first, last;
  int32_t difference;
};

enum {
  CONTROL = M2SE_UNICODE_CONTROL,
  MARK = M2SE_UNICODE_MARK,
  PUNCTUATION = M2SE_UNICODE_PUNCTUATION,
  LETTER = M2SE_UNICODE_LETTER,
  NUMBER = M2SE_UNICODE_NUMBER,
};

#include "model/text/unicode_exceptions.inc"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))
/* The one composed character that the reference takes apart and puts together otherwise: not at all. */
#define NEVER_COMPOSED 0x11938u
/* Just before the first final consonant of Hangul: libutf8proc takes it for one and drops it. */
#define BEFORE_FINALS 0x11A7u

/* ---- UTF-8 ---- */

/* Bytes of the character that a first byte announces, 0 if it announces none, and the range of the second
 * byte, which keeps out overlong forms, surrogates and what lies beyond U+10FFFF. */
static size_t announced(uint8_t first, uint8_t *low, uint8_t *high) {
  *low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  *high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    return 2;
  }
  return first >= 0xE0 && first <= 0xEF ? 3 : first >= 0xF0 && first <= 0xF4 ? 4 : 0;
}

uint32_t m2se_unicode_decode(const char *text, size_t size, size_t *length) {
  assert(size > 0);
  uint8_t first = (uint8_t)text[0], low = 0, high = 0;
  *length = 1;
  if (first < 0x80) {
    return first;
  }
  size_t bytes = announced(first, &low, &high);
  if (bytes == 0) {
    return M2SE_UNICODE_BROKEN;
  }
  uint32_t character = first & (0xFFu >> (bytes + 1));
  for (size_t i = 1; i < bytes; i++, (*length)++) {
    uint8_t byte = i < size ? (uint8_t)text[i] : 0;
    if (byte < low || byte > high) {
      return M2SE_UNICODE_BROKEN;
    }
    character = character << 6 | (byte & 0x3F);
    low = 0x80, high = 0xBF;
  }
  return character;
}

size_t m2se_unicode_encode(uint32_t character, char bytes[4]) {
  return (size_t)utf8proc_encode_char((int32_t)character, (utf8proc_uint8_t *)bytes);
}

/* ---- Classes ---- */

static uint32_t ascii_classes(uint32_t character) {
  if (character == ' ' || (character >= '\t' && character <= '\r')) {
    return M2SE_UNICODE_SPACE | (character == ' ' ? 0 : CONTROL);
  }
  if (character < ' ' || character == 0x7F) {
    return CONTROL;
  }
  if (character >= '0' && character <= '9') {
    return NUMBER;
  }
  uint32_t letter = character | 0x20;
  return letter >= 'a' && letter <= 'z' ? LETTER : PUNCTUATION;
}

static bool is_space(uint32_t character) {
  return character == 0x85 || character == 0xA0 || character == 0x1680 ||
         (character >= 0x2000 && character <= 0x200A) || character == 0x2028 || character == 0x2029 ||
         character == 0x202F || character == 0x205F || character == 0x3000;
}

static uint32_t category_classes(uint32_t character) {
  switch (utf8proc_category((int32_t)character)) {
  case UTF8PROC_CATEGORY_CC:
  case UTF8PROC_CATEGORY_CF:
  case UTF8PROC_CATEGORY_CO:
    return CONTROL;
  case UTF8PROC_CATEGORY_MN:
    return MARK;
  case UTF8PROC_CATEGORY_PC:
  case UTF8PROC_CATEGORY_PD:
  case UTF8PROC_CATEGORY_PS:
  case UTF8PROC_CATEGORY_PE:
  case UTF8PROC_CATEGORY_PI:
  case UTF8PROC_CATEGORY_PF:
  case UTF8PROC_CATEGORY_PO:
    return PUNCTUATION;
  case UTF8PROC_CATEGORY_LU:
  case UTF8PROC_CATEGORY_LL:
  case UTF8PROC_CATEGORY_LT:
  case UTF8PROC_CATEGORY_LM:
  case UTF8PROC_CATEGORY_LO:
    return LETTER;
  case UTF8PROC_CATEGORY_ND:
  case UTF8PROC_CATEGORY_NL:
  case UTF8PROC_CATEGORY_NO:
    return NUMBER;
  default:
    return 0;
  }
}

/* The row of class_exceptions that holds the character, or NULL. */
static const struct class_exception *find_exception(uint32_t character) {
  size_t low = 0, high = ROWS(class_exceptions);
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (character > class_exceptions[middle].last) {
      low = middle + 1;
    } else if (character < class_exceptions[middle].first) {
      high = middle;
    } else {
      return &class_exceptions[middle];
    }
  }
  return NULL;
}

uint32_t m2se_unicode_classes(uint32_t character) {
  if (character < 0x80) {
    return ascii_classes(character);
  }
  const struct class_exception *exception = find_exception(character);
  uint32_t classes = exception ? exception->classes : category_classes(character);
  return classes | (is_space(character) ? M2SE_UNICODE_SPACE : 0);
}

bool m2se_unicode_is_chinese(uint32_t character) {
  static const uint32_t blocks[][2] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                       {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
                                       {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  for (size_t i = 0; i < ROWS(blocks); i++) {
    if (character >= blocks[i][0] && character <= blocks[i][1]) {
      return true;
    }
  }
  return false;
}

size_t m2se_unicode_lower(uint32_t character, uint32_t lower[M2SE_UNICODE_LOWER_MAX]) {
  lower[0] = (uint32_t)utf8proc_tolower((int32_t)character);
  if (character < 0x80) {
    return 1;
  }
  if (character == 0x130) { /* I with a dot: the only one that becomes two, i and the dot */
    lower[0] = 'i', lower[1] = 0x307;
    return 2;
  }
  for (size_t i = 0; i < ROWS(lower_exceptions); i++) {
    if (character >= lower_exceptions[i].first && character <= lower_exceptions[i].last) {
      lower[0] = (uint32_t)((int32_t)character + lower_exceptions[i].difference);
    }
  }
  return 1;
}

/* ---- Normal forms ---- */

/* 0..255; 0: a starter, which nothing is moved across. */
static uint32_t combining_class(uint32_t character) {
  uint32_t class =
      character < 0x300 ? 0 : (uint32_t)utf8proc_get_property((int32_t)character)->combining_class;
  for (size_t i = 0; class != 0 && i < ROWS(starter_exceptions); i++) {
    if (character >= starter_exceptions[i].first && character <= starter_exceptions[i].last) {
      class = 0;
    }
  }
  return class;
}

size_t m2se_unicode_decompose(uint32_t character, uint32_t decomposed[M2SE_UNICODE_DECOMPOSED_MAX]) {
  if (character < 0xC0 || character == NEVER_COMPOSED) {
    decomposed[0] = character;
    return 1;
  }
  int32_t parts[M2SE_UNICODE_DECOMPOSED_MAX];
  utf8proc_ssize_t count = utf8proc_decompose_char((int32_t)character, parts, M2SE_UNICODE_DECOMPOSED_MAX,
                                                   UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, NULL);
  assert(count >= 1 && count <= M2SE_UNICODE_DECOMPOSED_MAX);
  memcpy(decomposed, parts, (size_t)count * sizeof(parts[0]));
  return (size_t)count;
}

/* A run of non-starters, by counting: a thousand accents on one letter cost no more than a thousand letters.
 */
static void order_run(uint32_t *run, size_t count, uint32_t *spare) {
  uint32_t starts[257] = {0};
  for (size_t i = 0; i < count; i++) {
    starts[combining_class(run[i]) + 1]++;
  }
  for (size_t i = 1; i < ROWS(starts); i++) {
    starts[i] += starts[i - 1];
  }
  for (size_t i = 0; i < count; i++) {
    spare[starts[combining_class(run[i])]++] = run[i];
  }
  memcpy(run, spare, count * sizeof(run[0]));
}

void m2se_unicode_order(uint32_t *characters, size_t count, uint32_t *spare) {
  for (size_t i = 0; i < count;) {
    size_t end = i;
    bool ordered = true;
    for (uint32_t before = 0; end < count; end++) {
      uint32_t class = combining_class(characters[end]);
      if (class == 0) {
        break;
      }
      ordered = ordered && before <= class;
      before = class;
    }
    if (!ordered) {
      order_run(characters + i, end - i, spare);
    }
    i = end + 1;
  }
}

/* The character that the two make, or 0. */
static uint32_t composed(uint32_t left, uint32_t right) {
  int32_t pair[2] = {(int32_t)left, (int32_t)right};
  if (right < 0x300 || right == BEFORE_FINALS ||
      utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1) {
    return 0;
  }
  return (uint32_t)pair[0] == NEVER_COMPOSED ? 0 : (uint32_t)pair[0];
}

size_t m2se_unicode_compose(uint32_t *characters, size_t count) {
  size_t kept = 0, starter = SIZE_MAX;
  uint32_t class_before = 0; /* of the last character kept behind the starter; 0: none is */
  for (size_t i = 0; i < count; i++) {
    uint32_t class = combining_class(characters[i]);
    bool blocked =
        starter == SIZE_MAX || (kept > starter + 1 && (class_before == 0 || class_before >= class));
    uint32_t whole = blocked ? 0 : composed(characters[starter], characters[i]);
    if (whole != 0) {
      characters[starter] = whole;
      continue;
    }
    if (class == 0) {
      starter = kept;
    }
    class_before = class;
    characters[kept++] = characters[i];
  }
  return kept;
}
