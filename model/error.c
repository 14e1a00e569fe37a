#include "model/error.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "model/files/utf8.h"

const char *m2se_error_name(int code) {
  switch (code) {
#define M2SE_ERROR_NAME(number, name, text)                                                                  \
  case number:                                                                                               \
    return #name;
    M2SE_ERRORS(M2SE_ERROR_NAME)
#undef M2SE_ERROR_NAME
  default:
    return "unknown";
  }
}

const char *m2se_error_text(int code) {
  switch (code) {
#define M2SE_ERROR_TEXT(number, name, text)                                                                  \
  case number:                                                                                               \
    return text;
    M2SE_ERRORS(M2SE_ERROR_TEXT)
#undef M2SE_ERROR_TEXT
  default:
    return "unknown error";
  }
}

/* Error texts end up in one-line logs, message headers and terminals, and quote what strangers sent. A
 * character that the buffer's end cut in two is removed; broken bytes elsewhere stay visible as '?'. */
static void clean_line(char *text, size_t capacity) {
  size_t size = strlen(text);
  size_t i = 0;
  while (i < size) {
    size_t n = m2se_utf8_next(text + i, size - i);
    if (n == 0 && size == capacity - 1 && size - i < 4) {
      text[i] = '\0';
      return;
    }
    bool control = n == 1 && ((unsigned char)text[i] < 0x20 || text[i] == 0x7f);
    if (n == 0 || control) {
      text[i] = '?';
      n = 1;
    }
    i += n;
  }
}

static void set_text(struct m2se_error *error, const char *format, va_list arguments) {
  if (vsnprintf(error->text, sizeof error->text, format, arguments) < 0) {
    error->text[0] = '\0'; /* the code still stands */
  }
  clean_line(error->text, sizeof error->text);
}

void m2se_error_write(struct m2se_error *error, int code, const char *format, ...) {
  assert(strcmp(m2se_error_name(code), "unknown") != 0);
  if (error) {
    va_list arguments;
    va_start(arguments, format);
    set_text(error, format, arguments);
    va_end(arguments);
    error->code = code;
  }
}

int m2se_error_prefix(struct m2se_error *error, int code, const char *format, ...) {
  if (!error) {
    return code;
  }
  struct m2se_error inner = *error;
  va_list arguments;
  va_start(arguments, format);
  set_text(error, format, arguments);
  va_end(arguments);
  size_t length = strlen(error->text);
  snprintf(error->text + length, sizeof error->text - length, ": %s", inner.text);
  clean_line(error->text, sizeof error->text);
  return error->code;
}
