/* Reading: what is asked of a tree. How it is made: json_parse.c. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "model/files/json_tree.h"

#define EXACT_DOUBLE_MAX 9007199254740992.0 /* 2^53: whole numbers up to here are exact in a double */

static bool is(const struct m2se_json *value, enum m2se_json_type type) {
  return value && value->type == type;
}

enum m2se_json_type m2se_json_type(const struct m2se_json *value) {
  return value->type;
}

const char *m2se_json_type_name(const struct m2se_json *value) {
  static const char *const names[] = {
      [M2SE_JSON_NULL] = "null",     [M2SE_JSON_BOOL] = "bool",     [M2SE_JSON_INTEGER] = "whole number",
      [M2SE_JSON_REAL] = "real",     [M2SE_JSON_STRING] = "string", [M2SE_JSON_ARRAY] = "array",
      [M2SE_JSON_OBJECT] = "object",
  };
  return value ? names[value->type] : "nothing";
}

size_t m2se_json_size(const struct m2se_json *value) {
  return is(value, M2SE_JSON_ARRAY) || is(value, M2SE_JSON_OBJECT) ? value->size : 0;
}

const struct m2se_json *m2se_json_get(const struct m2se_json *object, const char *key) {
  if (!is(object, M2SE_JSON_OBJECT)) {
    return NULL;
  }
  size_t length = strlen(key);
  for (size_t i = 0; i < object->size; i++) {
    const struct m2se_json *member = &object->as.list[i];
    if (member->key_length == length && memcmp(member->key, key, length) == 0) {
      return member;
    }
  }
  return NULL;
}

const struct m2se_json *m2se_json_at(const struct m2se_json *array, size_t index) {
  return is(array, M2SE_JSON_ARRAY) && index < array->size ? &array->as.list[index] : NULL;
}

bool m2se_json_next(const struct m2se_json *object, struct m2se_json_iterator *iterator) {
  if (!is(object, M2SE_JSON_OBJECT) || iterator->index >= object->size) {
    return false;
  }
  const struct m2se_json *member = &object->as.list[iterator->index++];
  iterator->key = member->key;
  iterator->key_length = member->key_length;
  iterator->value = member;
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

bool m2se_decimal_magnitude(const char *digits, size_t count, uint64_t *magnitude) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++) {
    if (__builtin_mul_overflow(sum, 10, &sum) ||
        __builtin_add_overflow(sum, (uint64_t)(digits[i] - '0'), &sum)) {
      return false;
    }
  }
  *magnitude = sum;
  return true;
}

bool m2se_decimal_signed(bool negative, uint64_t magnitude, int64_t *number) {
  if (magnitude > (uint64_t)INT64_MAX + negative) {
    return false;
  }
  *number = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
  return true;
}

/* A whole number of any of the three notations, as sign and magnitude. */
static int as_integer(const struct m2se_json *value, const char *what, bool *negative, uint64_t *magnitude,
                      struct m2se_error *error) {
  if (is(value, M2SE_JSON_INTEGER)) {
    int64_t integer = value->as.integer;
    *negative = integer < 0;
    *magnitude = integer < 0 ? 0 - (uint64_t)integer : (uint64_t)integer;
    return 0;
  }
  if (is(value, M2SE_JSON_REAL)) {
    double real = value->as.real;
    if (real != trunc(real) || fabs(real) > EXACT_DOUBLE_MAX) {
      return m2se_error_set(error, M2SE_ERANGE, "%s: %.17g is not a whole number up to 2^53", what, real);
    }
    *negative = real < 0;
    *magnitude = (uint64_t)fabs(real);
    return 0;
  }
  if (!is(value, M2SE_JSON_STRING)) {
    return wrong_type(value, what, "whole number", error);
  }
  const char *text = value->as.string;
  const char *digits = text + (text[0] == '-');
  size_t count = strspn(digits, "0123456789");
  if (count == 0 || digits[count] != '\0') {
    return m2se_error_set(error, M2SE_ETYPE, "%s: \"%.40s\" is not a decimal number", what, text);
  }
  if (!m2se_decimal_magnitude(digits, count, magnitude)) {
    return m2se_error_set(error, M2SE_ERANGE, "%s: %.40s does not fit in 64 bits", what, text);
  }
  *negative = text[0] == '-' && *magnitude != 0;
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
  int64_t fitting = 0;
  if (!m2se_decimal_signed(negative, magnitude, &fitting)) {
    return m2se_error_set(error, M2SE_ERANGE, "%s: %s%" PRIu64 " does not fit in 64 bits with a sign", what,
                          negative ? "-" : "", magnitude);
  }
  *number = fitting;
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
  if (!is(value, M2SE_JSON_STRING)) {
    return wrong_type(value, what, "string", error);
  }
  *string = value->as.string;
  if (length) {
    *length = value->size;
  }
  return 0;
}

int m2se_json_as_double(const struct m2se_json *value, const char *what, double *number,
                        struct m2se_error *error) {
  if (is(value, M2SE_JSON_INTEGER)) {
    *number = (double)value->as.integer;
    return 0;
  }
  if (!is(value, M2SE_JSON_REAL)) {
    return wrong_type(value, what, "number", error);
  }
  *number = value->as.real;
  return 0;
}

int m2se_json_as_bool(const struct m2se_json *value, const char *what, bool *truth,
                      struct m2se_error *error) {
  if (!is(value, M2SE_JSON_BOOL)) {
    return wrong_type(value, what, "bool", error);
  }
  *truth = value->as.truth;
  return 0;
}

int m2se_json_as_array(const struct m2se_json *value, const char *what, size_t *size,
                       struct m2se_error *error) {
  if (!is(value, M2SE_JSON_ARRAY)) {
    return wrong_type(value, what, "array", error);
  }
  if (size) {
    *size = value->size;
  }
  return 0;
}

int m2se_json_as_object(const struct m2se_json *value, const char *what, struct m2se_error *error) {
  return is(value, M2SE_JSON_OBJECT) ? 0 : wrong_type(value, what, "object", error);
}
