#include "ingest/validate.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/error.h"
#include "model/files/utf8.h"

static const struct {
  const char *name, *text;
} rules[] = {
#define RULE_ROW(rule, name, text) [rule] = {name, text},
    M2SE_RULES(RULE_ROW)
#undef RULE_ROW
};

const char *m2se_rule_name(enum m2se_rule rule) {
  assert((unsigned)rule < M2SE_RULE_COUNT_OF_ALL);
  return rules[rule].name;
}

const char *m2se_rule_text(enum m2se_rule rule) {
  assert((unsigned)rule < M2SE_RULE_COUNT_OF_ALL);
  return rules[rule].text;
}

void m2se_refusal_write(struct m2se_refusal *refusal, enum m2se_rule rule, const char *format, ...) {
  assert((unsigned)rule < M2SE_RULE_COUNT_OF_ALL);
  if (!refusal)
    return;
  char raw[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(raw, sizeof raw, format, arguments);
  va_end(arguments);
  struct m2se_error clean; // one line of valid UTF-8, whatever the record held
  m2se_error_set(&clean, M2SE_EFORMAT, "%s", raw);
  refusal->rule = rule;
  size_t length = 0, size = strlen(clean.text);
  for (size_t step; length < size && (step = m2se_utf8_next(clean.text + length, size - length));
       length += step)
    if (length + step >= sizeof refusal->text)
      break;
  memcpy(refusal->text, clean.text, length);
  refusal->text[length] = 0;
}

int m2se_validate_text(const char *text, size_t size, const char *what, struct m2se_refusal *refusal) {
  if (memchr(text, 0, size))
    return m2se_refuse(refusal, M2SE_RULE_TEXT, "%s: holds a NUL byte", what);
  if (!m2se_utf8_valid(text, size))
    return m2se_refuse(refusal, M2SE_RULE_TEXT, "%s: not valid UTF-8", what);
  return 0;
}

int m2se_validate_id(const char *id, size_t size, const char *what, struct m2se_refusal *refusal) {
  if (size == 0)
    return m2se_refuse(refusal, M2SE_RULE_ID, "%s: missing or empty", what);
  if (size > M2SE_ID_BYTES_MAX)
    return m2se_refuse(refusal, M2SE_RULE_ID, "%s: %zu bytes, at most %d are allowed", what, size,
                       M2SE_ID_BYTES_MAX);
  int code = m2se_validate_text(id, size, what, refusal);
  if (code)
    return code;
  for (size_t i = 0; i < size; i++) {
    unsigned char byte = (unsigned char)id[i];
    // U+0080..009F are C2 80 .. C2 9F; the text is valid UTF-8, so C2 has a byte behind it
    unsigned next = byte == 0xC2 ? (unsigned char)id[i + 1] : 0;
    if (byte < 0x20 || byte == 0x7F || (next >= 0x80 && next <= 0x9F))
      return m2se_refuse(refusal, M2SE_RULE_ID, "%s: control character U+%04X at byte %zu", what,
                         next ? next : byte, i);
  }
  return 0;
}
