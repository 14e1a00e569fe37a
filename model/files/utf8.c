#include "model/files/utf8.h"

#include <stdint.h>
#include <unistr.h>

size_t m2se_utf8_next(const char *text, size_t size) {
  if (size > 0 && text[0] == '\0') {
    return 1; /* to the library, NUL is the end of a string */
  }
  int length = u8_mblen((const uint8_t *)text, size);
  return length > 0 ? (size_t)length : 0;
}

bool m2se_utf8_valid(const char *text, size_t size) {
  return u8_check((const uint8_t *)text, size) == NULL;
}
