/* Reading, on jansson; nothing else of the project sees jansson. A struct m2se_json is a json_t under another
 * name. */
#include "model/files/json.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXACT_DOUBLE_MAX 9007199254740992.0 /* 2^53: whole numbers up to here are exact in a double */
#define DEPTH_MAX 64                        /* jansson and put_value recurse once a level */

static json_t *node(const struct m2se_json *value) {
  return (json_t *)value; /* jansson asks for non-const in places where it only reads */
}

static const struct m2se_json *wrap(const json_t *value) {
  return (const struct m2se_json *)value;
}

/* jansson itself bounds neither memory nor (usefully) depth, and a few MB of "[[],[],..." would become
 * hundreds: so the text is measured first. Of text that is no JSON this says nothing: then jansson does. */
static int check_limits(const char *text, size_t size, const struct m2se_json_limits *limits,
                        struct m2se_error *error) {
  if (size > limits->bytes_max) {
    return m2se_error_set(error, M2SE_ELIMIT, "JSON text of %zu bytes, more than %zu", size,
                          limits->bytes_max);
  }
  bool in_string = false;
  uint32_t depth = 0;
  uint32_t values = 1;
  size_t line = 1;
  size_t line_start = 0;
  for (size_t i = 0; i < size; i++) {
    char c = text[i];
    if (c == '\\' && in_string) {
      i++;
    } else if (c == '"') {
      in_string = !in_string;
    } else if (c == '\n') {
      line++;
      line_start = i + 1;
    } else if (!in_string && (c == '{' || c == '[' || c == ',')) {
      depth += c != ',';
      values++;
    } else if (!in_string && (c == '}' || c == ']') && depth > 0) {
      depth--;
    }
    if (depth > limits->depth_max) {
      return m2se_error_set(error, M2SE_ELIMIT, "line %zu column %zu: JSON nested deeper than %" PRIu32, line,
                            i - line_start + 1, limits->depth_max);
    }
    if (values > limits->values_max) {
      return m2se_error_set(error, M2SE_ELIMIT, "line %zu column %zu: more than %" PRIu32 " JSON values",
                            line, i - line_start + 1, limits->values_max);
    }
  }
  return 0;
}

int m2se_json_parse(struct m2se_json **root, const char *text, size_t size,
                    const struct m2se_json_limits *limits, struct m2se_error *error) {
  struct m2se_json_limits standard = M2SE_JSON_LIMITS_DEFAULT;
  limits = limits ? limits : &standard;
  assert(limits->depth_max <= DEPTH_MAX);
  *root = NULL;
  int code = check_limits(text, size, limits, error);
  if (code) {
    return code;
  }
  json_error_t report;
  json_t *parsed = json_loadb(size ? text : "", size, JSON_REJECT_DUPLICATES, &report);
  if (!parsed) {
    if (report.text[0] == '\0' || json_error_code(&report) == json_error_out_of_memory) {
      return m2se_error_set(error, M2SE_ENOMEM, "no memory for a JSON text of %zu bytes", size);
    }
    return m2se_error_set(error, M2SE_EFORMAT, "line %d column %d: %s", report.line, report.column,
                          report.text);
  }
  *root = (struct m2se_json *)parsed;
  return 0;
}

void m2se_json_free(struct m2se_json *root) {
  json_decref(node(root));
}

enum m2se_json_type m2se_json_type(const struct m2se_json *value) {
  switch (json_typeof(node(value))) {
  case JSON_OBJECT:
    return M2SE_JSON_OBJECT;
  case JSON_ARRAY:
    return M2SE_JSON_ARRAY;
  case JSON_STRING:
    return M2SE_JSON_STRING;
  case JSON_INTEGER:
    return M2SE_JSON_INTEGER;
  case JSON_REAL:
    return M2SE_JSON_REAL;
  case JSON_TRUE:
  case JSON_FALSE:
    return M2SE_JSON_BOOL;
  default:
    return M2SE_JSON_NULL;
  }
}

const char *m2se_json_type_name(const struct m2se_json *value) {
  static const char *const names[] = {
      [M2SE_JSON_NULL] = "null",     [M2SE_JSON_BOOL] = "bool",     [M2SE_JSON_INTEGER] = "whole number",
      [M2SE_JSON_REAL] = "real",     [M2SE_JSON_STRING] = "string", [M2SE_JSON_ARRAY] = "array",
      [M2SE_JSON_OBJECT] = "object",
  };
  return value ? names[m2se_json_type(value)] : "nothing";
}

size_t m2se_json_size(const struct m2se_json *value) {
  return json_is_array(node(value)) ? json_array_size(node(value)) : json_object_size(node(value));
}

const struct m2se_json *m2se_json_get(const struct m2se_json *object, const char *key) {
  return wrap(json_object_get(node(object), key));
}

const struct m2se_json *m2se_json_at(const struct m2se_json *array, size_t index) {
  return wrap(json_array_get(node(array), index));
}

bool m2se_json_next(const struct m2se_json *object, struct m2se_json_iterator *iterator) {
  iterator->position = iterator->position ? json_object_iter_next(node(object), iterator->position)
                                          : json_object_iter(node(object));
  if (!iterator->position) {
    return false;
  }
  iterator->key = json_object_iter_key(iterator->position);
  iterator->key_length = json_object_iter_key_len(iterator->position);
  iterator->value = wrap(json_object_iter_value(iterator->position));
  return true;
}

/* ---- typed getters ---- */

static int wrong_type(const struct m2se_json *value, const char *what, const char *wanted,
                      struct m2se_error *error) {
  if (!value) {
    return m2se_error_set(error, M2SE_EMISSING, "%s: missing", what);
  }
  return m2se_error_set(error, M2SE_ETYPE, "%s: %s where a %s is needed", what, m2se_json_type_name(value),
                        wanted);
}

/* A whole number of any of the three notations, as sign and magnitude. */
static int as_integer(const struct m2se_json *value, const char *what, bool *negative, uint64_t *magnitude,
                      struct m2se_error *error) {
  const json_t *number = node(value);
  if (json_is_integer(number)) {
    json_int_t integer = json_integer_value(number);
    *negative = integer < 0;
    *magnitude = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
    return 0;
  }
  if (json_is_real(number)) {
    double real = json_real_value(number);
    if (real != trunc(real) || fabs(real) > EXACT_DOUBLE_MAX) {
      return m2se_error_set(error, M2SE_ERANGE, "%s: %.17g is not a whole number up to 2^53", what, real);
    }
    *negative = real < 0;
    *magnitude = (uint64_t)fabs(real);
    return 0;
  }
  if (!json_is_string(number)) {
    return wrong_type(value, what, "whole number", error);
  }
  const char *text = json_string_value(number);
  const char *digits = text + (text[0] == '-');
  size_t count = strspn(digits, "0123456789");
  if (count == 0 || digits[count] != '\0') {
    return m2se_error_set(error, M2SE_ETYPE, "%s: \"%.40s\" is not a decimal number", what, text);
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++) {
    if (__builtin_mul_overflow(sum, 10, &sum) ||
        __builtin_add_overflow(sum, (uint64_t)(digits[i] - '0'), &sum)) {
      return m2se_error_set(error, M2SE_ERANGE, "%s: %.40s does not fit in 64 bits", what, text);
    }
  }
  *negative = text[0] == '-' && sum != 0;
  *magnitude = sum;
  return 0;
}

int m2se_json_as_int64(const struct m2se_json *value, const char *what, int64_t *number,
                       struct m2se_error *error) {
  bool negative = false;
  uint64_t magnitude = 0;
  int code = as_integer(value, what, &negative, &magnitude, error);
  if (code) {
    return code;
  }
  if (magnitude > (uint64_t)INT64_MAX + negative) {
    return m2se_error_set(error, M2SE_ERANGE, "%s: %s%" PRIu64 " does not fit in 64 bits with a sign", what,
                          negative ? "-" : "", magnitude);
  }
  *number = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
  return 0;
}

int m2se_json_as_uint64(const struct m2se_json *value, const char *what, uint64_t *number,
                        struct m2se_error *error) {
  bool negative = false;
  uint64_t magnitude = 0;
  int code = as_integer(value, what, &negative, &magnitude, error);
  if (code) {
    return code;
  }
  if (negative) {
    return m2se_error_set(error, M2SE_ERANGE, "%s: -%" PRIu64 " is negative", what, magnitude);
  }
  *number = magnitude;
  return 0;
}

int m2se_json_as_string(const struct m2se_json *value, const char *what, const char **string, size_t *length,
                        struct m2se_error *error) {
  if (!json_is_string(node(value))) {
    return wrong_type(value, what, "string", error);
  }
  *string = json_string_value(node(value));
  if (length) {
    *length = json_string_length(node(value));
  }
  return 0;
}

int m2se_json_as_double(const struct m2se_json *value, const char *what, double *number,
                        struct m2se_error *error) {
  if (!json_is_number(node(value))) {
    return wrong_type(value, what, "number", error);
  }
  *number = json_number_value(node(value));
  return 0;
}

int m2se_json_as_bool(const struct m2se_json *value, const char *what, bool *truth,
                      struct m2se_error *error) {
  if (!json_is_boolean(node(value))) {
    return wrong_type(value, what, "bool", error);
  }
  *truth = json_is_true(node(value));
  return 0;
}

int m2se_json_as_array(const struct m2se_json *value, const char *what, size_t *size,
                       struct m2se_error *error) {
  if (!json_is_array(node(value))) {
    return wrong_type(value, what, "array", error);
  }
  if (size) {
    *size = json_array_size(node(value));
  }
  return 0;
}

int m2se_json_as_object(const struct m2se_json *value, const char *what, struct m2se_error *error) {
  return json_is_object(node(value)) ? 0 : wrong_type(value, what, "object", error);
}
