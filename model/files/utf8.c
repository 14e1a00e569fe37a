#include "model/files/utf8.h"

#include <stdint.h>

size_t m2se_utf8_next(const char *text, size_t size) {
  if (size == 0) {
    return 0;
  }
  const unsigned char *s = (const unsigned char *)text;
  if (s[0] < 0x80) {
    return 1;
  }
  size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
  if (s[0] < 0xc2 || s[0] > 0xf4 || length > size) {
    return 0; /* a stray continuation byte, an overlong pair, past U+10FFFF, or cut short */
  }
  uint32_t point = s[0] & (0x7fu >> length);
  for (size_t i = 1; i < length; i++) {
    if ((s[i] & 0xc0) != 0x80) {
      return 0;
    }
    point = point << 6 | (s[i] & 0x3fu);
  }
  bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
  bool surrogate = point >= 0xd800 && point <= 0xdfff;
  return overlong || surrogate || point > 0x10ffff ? 0 : length;
}

bool m2se_utf8_valid(const char *text, size_t size) {
  size_t i = 0;
  while (i < size) {
    size_t n = m2se_utf8_next(text + i, size - i);
    if (n == 0) {
      return false;
    }
    i += n;
  }
  return true;
}
