/* Writing: values are appended to one growing text, in the order of the calls. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/json.h"
#include "model/files/utf8.h"

#define DEPTH_MAX 128 /* the caller's 64 and, inside, a parsed value's 64 */

struct m2se_json_writer {
  char *text;
  size_t size, capacity;
  bool failed;
  uint32_t indent;
  uint32_t depth;
  struct {
    bool is_object;
    bool is_empty;
  } levels[DEPTH_MAX];
};

struct m2se_json_writer *m2se_json_writer_new(uint32_t indent) {
  assert(indent <= 8);
  struct m2se_json_writer *writer = calloc(1, sizeof *writer);
  if (writer) {
    writer->indent = indent;
  }
  return writer;
}

void m2se_json_writer_free(struct m2se_json_writer *writer) {
  if (writer) {
    free(writer->text);
    free(writer);
  }
}

static void append(struct m2se_json_writer *writer, const char *bytes, size_t size) {
  if (writer->failed) {
    return;
  }
  if (size > writer->capacity - writer->size) {
    size_t capacity = 2 * (writer->size + size) + 256;
    char *grown = realloc(writer->text, capacity);
    if (!grown) {
      writer->failed = true;
      return;
    }
    writer->text = grown;
    writer->capacity = capacity;
  }
  memcpy(writer->text + writer->size, bytes, size);
  writer->size += size;
}

static void append_line_break(struct m2se_json_writer *writer) {
  append(writer, "\n", 1);
  for (uint32_t i = 0; i < writer->depth; i++) {
    append(writer, "        ", writer->indent);
  }
}

static void append_escape(struct m2se_json_writer *writer, unsigned char c) {
  char escape[8];
  if (c == '"' || c == '\\') {
    snprintf(escape, sizeof escape, "\\%c", c);
  } else {
    snprintf(escape, sizeof escape, "\\u%04x", c);
  }
  append(writer, escape, strlen(escape));
}

static void append_quoted(struct m2se_json_writer *writer, const char *string, size_t length) {
  append(writer, "\"", 1);
  size_t plain = 0; /* start of what can be copied as it is */
  size_t i = 0;
  while (i < length) {
    unsigned char c = (unsigned char)string[i];
    size_t n = m2se_utf8_next(string + i, length - i);
    if (n > 0 && c >= 0x20 && c != '"' && c != '\\') {
      i += n;
      continue;
    }
    append(writer, string + plain, i - plain);
    if (n == 0) {
      append(writer, "\xef\xbf\xbd", 3); /* U+FFFD */
    } else {
      append_escape(writer, c);
    }
    i++;
    plain = i;
  }
  append(writer, string + plain, length - plain);
  append(writer, "\"", 1);
}

/* Separator and key of the value that comes next; false if the writer has failed. */
static bool begin_value(struct m2se_json_writer *writer, const char *key) {
  if (!writer || writer->failed) {
    return false;
  }
  if (writer->depth == 0) {
    assert(!key && writer->size == 0); /* one outermost value, without a key */
    return true;
  }
  assert((key != NULL) == writer->levels[writer->depth - 1].is_object);
  if (!writer->levels[writer->depth - 1].is_empty) {
    append(writer, ",", 1);
  }
  writer->levels[writer->depth - 1].is_empty = false;
  if (writer->indent > 0) {
    append_line_break(writer);
  }
  if (key) {
    append_quoted(writer, key, strlen(key));
    append(writer, ": ", writer->indent > 0 ? 2 : 1);
  }
  return true;
}

static void open_level(struct m2se_json_writer *writer, const char *key, bool is_object) {
  if (begin_value(writer, key)) {
    assert(writer->depth < DEPTH_MAX);
    append(writer, is_object ? "{" : "[", 1);
    writer->levels[writer->depth].is_object = is_object;
    writer->levels[writer->depth].is_empty = true;
    writer->depth++;
  }
}

void m2se_json_put_object(struct m2se_json_writer *writer, const char *key) {
  open_level(writer, key, true);
}

void m2se_json_put_array(struct m2se_json_writer *writer, const char *key) {
  open_level(writer, key, false);
}

void m2se_json_put_end(struct m2se_json_writer *writer) {
  if (!writer || writer->failed) {
    return;
  }
  assert(writer->depth > 0);
  writer->depth--;
  if (writer->indent > 0 && !writer->levels[writer->depth].is_empty) {
    append_line_break(writer);
  }
  append(writer, writer->levels[writer->depth].is_object ? "}" : "]", 1);
}

void m2se_json_put_string(struct m2se_json_writer *writer, const char *key, const char *string,
                          size_t length) {
  if (begin_value(writer, key)) {
    append_quoted(writer, string, length);
  }
}

void m2se_json_put_text(struct m2se_json_writer *writer, const char *key, const char *text) {
  m2se_json_put_string(writer, key, text, strlen(text));
}

/* word: already JSON. */
static void put_word(struct m2se_json_writer *writer, const char *key, const char *word) {
  if (begin_value(writer, key)) {
    append(writer, word, strlen(word));
  }
}

void m2se_json_put_int64(struct m2se_json_writer *writer, const char *key, int64_t number) {
  char word[32];
  snprintf(word, sizeof word, "%lld", (long long)number);
  put_word(writer, key, word);
}

void m2se_json_put_decimal(struct m2se_json_writer *writer, const char *key, uint64_t number) {
  char word[32];
  snprintf(word, sizeof word, "\"%llu\"", (unsigned long long)number);
  put_word(writer, key, word);
}

static void put_real(struct m2se_json_writer *writer, const char *key, double number, int digits) {
  if (!isfinite(number)) {
    put_word(writer, key, "null");
    return;
  }
  char word[40];
  size_t length = (size_t)snprintf(word, sizeof word, "%.*g", digits, number);
  if (!strpbrk(word, ".e")) {
    snprintf(word + length, sizeof word - length,
             ".0"); /* a reader that tells 1 from 1.0 gets the type back */
  }
  put_word(writer, key, word);
}

void m2se_json_put_double(struct m2se_json_writer *writer, const char *key, double number) {
  put_real(writer, key, number, 9);
}

void m2se_json_put_bool(struct m2se_json_writer *writer, const char *key, bool truth) {
  put_word(writer, key, truth ? "true" : "false");
}

void m2se_json_put_null(struct m2se_json_writer *writer, const char *key) {
  put_word(writer, key, "null");
}

static void put_members(struct m2se_json_writer *writer, const char *key, const struct m2se_json *object) {
  m2se_json_put_object(writer, key);
  struct m2se_json_iterator member = {0};
  while (m2se_json_next(object, &member)) {
    m2se_json_put_value(writer, member.key, member.value);
  }
  m2se_json_put_end(writer);
}

void m2se_json_put_value(struct m2se_json_writer *writer, const char *key, const struct m2se_json *value) {
  const char *string = NULL;
  size_t size = 0;
  int64_t integer = 0;
  double real = 0;
  bool truth = false;
  switch (m2se_json_type(value)) {
  case M2SE_JSON_OBJECT:
    put_members(writer, key, value);
    return;
  case M2SE_JSON_ARRAY:
    m2se_json_put_array(writer, key);
    for (size_t i = 0; i < m2se_json_size(value); i++) {
      m2se_json_put_value(writer, NULL, m2se_json_at(value, i));
    }
    m2se_json_put_end(writer);
    return;
  case M2SE_JSON_STRING:
    m2se_json_as_string(value, "", &string, &size, NULL);
    m2se_json_put_string(writer, key, string, size);
    return;
  case M2SE_JSON_INTEGER:
    m2se_json_as_int64(value, "", &integer, NULL);
    m2se_json_put_int64(writer, key, integer);
    return;
  case M2SE_JSON_REAL:
    m2se_json_as_double(value, "", &real, NULL);
    put_real(writer, key, real, 17);
    return;
  case M2SE_JSON_BOOL:
    m2se_json_as_bool(value, "", &truth, NULL);
    m2se_json_put_bool(writer, key, truth);
    return;
  case M2SE_JSON_NULL:
    m2se_json_put_null(writer, key);
    return;
  }
}

char *m2se_json_finish(struct m2se_json_writer *writer, size_t *length) {
  if (!writer) {
    return NULL;
  }
  append(writer, "", 1); /* the closing NUL */
  char *text = NULL;
  if (!writer->failed) {
    assert(writer->depth == 0 && writer->size > 1);
    text = writer->text;
    writer->text = NULL;
    if (length) {
      *length = writer->size - 1;
    }
  }
  m2se_json_writer_free(writer);
  return text;
}
