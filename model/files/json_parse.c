/* Reading: one pass that counts the values, one block of memory for the whole tree, one pass that fills it.
 */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/json_tree.h"
#include "model/files/utf8.h"

#define DEPTH_MAX 64 /* parsing and m2se_json_put_value recurse once a level */

/* DESIGN. The block holds `capacity` nodes and then the strings. nodes[0] is the root. A list must be
 * contiguous, but its values become complete one by one, with lists of their own in between: so complete
 * values wait at the end of the nodes (a stack that grows downwards), and when their list closes they move to
 * the front, where they stay. Every value is at one of the two places, so the number of values is enough
 * room. Decoded strings are never longer than they are in the text, quotes included, so the size of the text
 * is enough room for them. */
struct parser {
  const char *text;
  size_t size;
  size_t at;
  struct m2se_json *nodes;
  size_t done;    /* nodes in place */
  size_t waiting; /* the first of the waiting nodes */
  char *strings;  /* where the next string goes */
  uint32_t depth;
  uint32_t depth_max;
  struct m2se_error *error;
};

/* line and column (in bytes, both from 1) of the place `at`. */
static int fail(const struct parser *parser, int code, const char *rule) {
  size_t line = 1;
  size_t line_start = 0;
  for (size_t i = 0; i < parser->at; i++) {
    if (parser->text[i] == '\n') {
      line++;
      line_start = i + 1;
    }
  }
  return m2se_error_set(parser->error, code, "line %zu column %zu: %s", line, parser->at - line_start + 1,
                        rule);
}

static int fail_format(const struct parser *parser, const char *rule) {
  return fail(parser, M2SE_EFORMAT, parser->at < parser->size ? rule : "the text ends too early");
}

/* The next byte, or 0 at the end; a NUL in the text fits nowhere either. */
static char peek(const struct parser *parser) {
  return parser->at < parser->size ? parser->text[parser->at] : '\0';
}

static bool take(struct parser *parser, char c) {
  if (peek(parser) != c) {
    return false;
  }
  parser->at++;
  return true;
}

static void skip_blanks(struct parser *parser) {
  while (peek(parser) == ' ' || peek(parser) == '\n' || peek(parser) == '\t' || peek(parser) == '\r') {
    parser->at++;
  }
}

/* ---- strings ---- */

static bool take_hex4(struct parser *parser, uint32_t *point) {
  *point = 0;
  for (int i = 0; i < 4; i++) {
    char c = peek(parser);
    uint32_t digit;
    if (c >= '0' && c <= '9') {
      digit = (uint32_t)(c - '0');
    } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
      digit = (uint32_t)((c | 0x20) - 'a' + 10);
    } else {
      return false;
    }
    *point = *point << 4 | digit;
    parser->at++;
  }
  return true;
}

static void store_point(char **out, uint32_t point) {
  unsigned char *to = (unsigned char *)*out;
  if (point < 0x80) {
    *to++ = (unsigned char)point;
  } else if (point < 0x800) {
    *to++ = (unsigned char)(0xc0 | point >> 6);
    *to++ = (unsigned char)(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    *to++ = (unsigned char)(0xe0 | point >> 12);
    *to++ = (unsigned char)(0x80 | (point >> 6 & 0x3f));
    *to++ = (unsigned char)(0x80 | (point & 0x3f));
  } else {
    *to++ = (unsigned char)(0xf0 | point >> 18);
    *to++ = (unsigned char)(0x80 | (point >> 12 & 0x3f));
    *to++ = (unsigned char)(0x80 | (point >> 6 & 0x3f));
    *to++ = (unsigned char)(0x80 | (point & 0x3f));
  }
  *out = (char *)to;
}

/* After "\u". Beyond U+FFFF a character is a pair of surrogates, each escaped. */
static int take_unicode_escape(struct parser *parser, char **out) {
  uint32_t point;
  if (!take_hex4(parser, &point)) {
    return fail_format(parser, "\\u needs four hexadecimal digits");
  }
  if (point >= 0xd800 && point < 0xdc00) {
    uint32_t low;
    if (!take(parser, '\\') || !take(parser, 'u') || !take_hex4(parser, &low) || low < 0xdc00 ||
        low > 0xdfff) {
      return fail_format(parser, "half of a surrogate pair");
    }
    point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
  } else if (point >= 0xdc00 && point <= 0xdfff) {
    return fail_format(parser, "half of a surrogate pair");
  }
  if (point == 0) {
    return fail_format(parser, "\\u0000 in a string");
  }
  store_point(out, point);
  return 0;
}

static int take_escape(struct parser *parser, char **out) {
  static const char letters[] = "\"\\/bfnrt";
  static const char meanings[] = "\"\\/\b\f\n\r\t";
  if (take(parser, 'u')) {
    return take_unicode_escape(parser, out);
  }
  const char *found = peek(parser) ? strchr(letters, peek(parser)) : NULL;
  if (!found) {
    return fail_format(parser, "unknown escape in a string");
  }
  *(*out)++ = meanings[found - letters];
  parser->at++;
  return 0;
}

static int parse_string(struct parser *parser, const char **string, size_t *length) {
  char *out = parser->strings;
  *string = out;
  if (!take(parser, '"')) {
    return fail_format(parser, "a string is needed");
  }
  while (!take(parser, '"')) {
    if (take(parser, '\\')) {
      int code = take_escape(parser, &out);
      if (code) {
        return code;
      }
      continue;
    }
    size_t n = m2se_utf8_next(parser->text + parser->at, parser->size - parser->at);
    if (n == 0) {
      return fail_format(parser, "invalid UTF-8 in a string");
    }
    if ((unsigned char)peek(parser) < 0x20) {
      return fail_format(parser, "a control character in a string");
    }
    memcpy(out, parser->text + parser->at, n);
    out += n;
    parser->at += n;
  }
  *length = (size_t)(out - parser->strings);
  *out++ = '\0';
  parser->strings = out;
  return 0;
}

/* ---- numbers and words ---- */

static bool take_digits(struct parser *parser) {
  size_t start = parser->at;
  while (peek(parser) >= '0' && peek(parser) <= '9') {
    parser->at++;
  }
  return parser->at > start;
}

static int parse_number(struct parser *parser, struct m2se_json *value) {
  size_t start = parser->at;
  bool negative = take(parser, '-');
  size_t digits = parser->at;
  bool valid = take(parser, '0') || take_digits(parser);
  size_t digits_end = parser->at;
  if (valid && take(parser, '.')) {
    valid = take_digits(parser);
  }
  if (valid && (take(parser, 'e') || take(parser, 'E'))) {
    valid = (take(parser, '+') || take(parser, '-') || true) && take_digits(parser);
  }
  if (!valid) {
    return fail_format(parser, "a digit is needed");
  }
  if (parser->at == digits_end) {
    value->type = M2SE_JSON_INTEGER;
    uint64_t magnitude;
    if (!m2se_decimal_magnitude(parser->text + digits, digits_end - digits, &magnitude) ||
        !m2se_decimal_signed(negative, magnitude, &value->as.integer)) {
      return fail(parser, M2SE_EFORMAT, "a whole number that does not fit in 64 bits with a sign");
    }
    return 0;
  }
  /* strtod wants a NUL: the free part of the strings has room for what is left of the text and one more. */
  memcpy(parser->strings, parser->text + start, parser->at - start);
  parser->strings[parser->at - start] = '\0';
  char *end;
  value->type = M2SE_JSON_REAL;
  value->as.real = strtod(parser->strings, &end);
  assert(end == parser->strings + (parser->at - start));
  if (!isfinite(value->as.real)) {
    return fail(parser, M2SE_EFORMAT, "a number that does not fit in a double");
  }
  return 0;
}

static int parse_word(struct parser *parser, struct m2se_json *value) {
  static const struct {
    const char *word;
    enum m2se_json_type type;
    bool truth;
  } words[] = {
      {"true", M2SE_JSON_BOOL, true}, {"false", M2SE_JSON_BOOL, false}, {"null", M2SE_JSON_NULL, false}};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
    size_t length = strlen(words[i].word);
    if (length <= parser->size - parser->at &&
        memcmp(parser->text + parser->at, words[i].word, length) == 0) {
      value->type = words[i].type;
      value->as.truth = words[i].truth;
      parser->at += length;
      return 0;
    }
  }
  return fail_format(parser, "a value is needed");
}

/* ---- objects and arrays ---- */

static int compare_keys(const void *left, const void *right) {
  const struct m2se_json *a = *(const struct m2se_json *const *)left;
  const struct m2se_json *b = *(const struct m2se_json *const *)right;
  if (a->key_length != b->key_length) {
    return a->key_length < b->key_length ? -1 : 1;
  }
  return memcmp(a->key, b->key, a->key_length);
}

/* By sorting, so that an object of a million keys takes its author no more of our time than of his own. */
static int check_duplicates(const struct parser *parser, const struct m2se_json *object) {
  if (object->size < 2) {
    return 0;
  }
  const struct m2se_json *few[32];
  const struct m2se_json **keys = few;
  if (object->size > sizeof few / sizeof few[0]) {
    keys = malloc(object->size * sizeof *keys);
    if (!keys) {
      return fail(parser, M2SE_ENOMEM, "no memory to compare the keys of an object");
    }
  }
  for (size_t i = 0; i < object->size; i++) {
    keys[i] = &object->as.list[i];
  }
  qsort(keys, object->size, sizeof *keys, compare_keys);
  int code = 0;
  for (size_t i = 1; !code && i < object->size; i++) {
    if (compare_keys(&keys[i - 1], &keys[i]) == 0) {
      char rule[160];
      snprintf(rule, sizeof rule, "the object that ends here has the key \"%.100s\" twice", keys[i]->key);
      code = fail(parser, M2SE_EFORMAT, rule);
    }
  }
  if (keys != few) {
    free(keys);
  }
  return code;
}

/* Moves the values that wait since the list was opened to their place. They wait last one first. */
static void close_list(struct parser *parser, struct m2se_json *list, size_t waiting_before) {
  struct m2se_json *first = &parser->nodes[parser->waiting];
  size_t size = waiting_before - parser->waiting;
  for (size_t i = 0; i < size / 2; i++) {
    struct m2se_json swapped = first[i];
    first[i] = first[size - 1 - i];
    first[size - 1 - i] = swapped;
  }
  memmove(&parser->nodes[parser->done], first, size * sizeof *first);
  list->size = size;
  list->as.list = &parser->nodes[parser->done];
  parser->done += size;
  parser->waiting = waiting_before;
}

static int parse_value(struct parser *parser, struct m2se_json *value);

/* One element or member, to where it waits. */
static int parse_child(struct parser *parser, bool is_member) {
  struct m2se_json child = {0};
  skip_blanks(parser);
  int code = is_member ? parse_string(parser, &child.key, &child.key_length) : 0;
  if (code) {
    return code;
  }
  skip_blanks(parser);
  if (is_member && !take(parser, ':')) {
    return fail_format(parser, "':' is needed after a key");
  }
  skip_blanks(parser);
  code = parse_value(parser, &child);
  if (!code) {
    assert(parser->done < parser->waiting);
    parser->nodes[--parser->waiting] = child;
  }
  skip_blanks(parser);
  return code;
}

static int parse_list(struct parser *parser, struct m2se_json *list) {
  bool is_object = take(parser, '{');
  if (!is_object && !take(parser, '[')) {
    return fail_format(parser, "an object or array is needed");
  }
  if (++parser->depth > parser->depth_max) {
    return fail(parser, M2SE_ELIMIT, "nested too deeply");
  }
  list->type = is_object ? M2SE_JSON_OBJECT : M2SE_JSON_ARRAY;
  size_t waiting_before = parser->waiting;
  char closing = is_object ? '}' : ']';
  skip_blanks(parser);
  bool open = !take(parser, closing);
  while (open) {
    int code = parse_child(parser, is_object);
    if (code) {
      return code;
    }
    open = !take(parser, closing);
    if (open && !take(parser, ',')) {
      return fail_format(parser, is_object ? "',' or '}' is needed" : "',' or ']' is needed");
    }
  }
  parser->depth--;
  close_list(parser, list, waiting_before);
  return is_object ? check_duplicates(parser, list) : 0;
}

static int parse_value(struct parser *parser, struct m2se_json *value) {
  char c = peek(parser);
  if (c == '{' || c == '[') {
    return parse_list(parser, value);
  }
  if (c == '"') {
    value->type = M2SE_JSON_STRING;
    return parse_string(parser, &value->as.string, &value->size);
  }
  if (c == '-' || (c >= '0' && c <= '9')) {
    return parse_number(parser, value);
  }
  return parse_word(parser, value);
}

/* The root, and one more for each bracket (its first value) and comma: at least as many as there are. In text
 * that is no JSON this counts strings wrongly, but only from the place on where the parser stops. */
static size_t count_values(const char *text, size_t size) {
  size_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < size; i++) {
    char c = text[i];
    if (c == '"') {
      in_string = !in_string;
    } else if (in_string) {
      i += c == '\\';
    } else {
      values += c == '{' || c == '[' || c == ',';
    }
  }
  return values;
}

int m2se_json_parse(struct m2se_json **root, const char *text, size_t size,
                    const struct m2se_json_limits *limits, struct m2se_error *error) {
  struct m2se_json_limits standard = M2SE_JSON_LIMITS_DEFAULT;
  limits = limits ? limits : &standard;
  assert(limits->depth_max <= DEPTH_MAX);
  *root = NULL;
  if (size > limits->bytes_max) {
    return m2se_error_set(error, M2SE_ELIMIT, "JSON text of %zu bytes, more than %zu", size,
                          limits->bytes_max);
  }
  size_t capacity = count_values(text, size);
  if (capacity > limits->values_max) {
    return m2se_error_set(error, M2SE_ELIMIT, "%zu JSON values, more than %" PRIu32, capacity,
                          limits->values_max);
  }
  struct m2se_json *nodes = malloc(capacity * sizeof *nodes + size + 1);
  if (!nodes) {
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a JSON text of %zu bytes", size);
  }
  struct parser parser = {
      .text = text,
      .size = size,
      .nodes = nodes,
      .done = 1,
      .waiting = capacity,
      .strings = (char *)(nodes + capacity),
      .depth_max = limits->depth_max,
      .error = error,
  };
  nodes[0] = (struct m2se_json){0};
  skip_blanks(&parser);
  int code = parse_list(&parser, &nodes[0]);
  skip_blanks(&parser);
  if (!code && parser.at < size) {
    code = fail_format(&parser, "more text after the end");
  }
  if (code) {
    free(nodes);
    return code;
  }
  *root = nodes;
  return 0;
}

void m2se_json_free(struct m2se_json *root) {
  free(root);
}
