// JSON from anyone: refused with a reason, or a tree within the limits that, written again, is the same tree.
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct m2se_json_limits limits = {.bytes_max = 1 << 16, .depth_max = 12, .values_max = 1000};

// Puts value into the writer; returns how many values it is. key: its own, or NULL.
static uint32_t copy(struct m2se_json_writer *writer, const char *key, const struct m2se_json *value,
                     uint32_t depth) {
  uint32_t count = 1;
  const char *text = NULL;
  size_t length = 0;
  int64_t whole = 0;
  double real = 0;
  bool truth = false;
  if (m2se_json_as_object(value, "v", NULL) == 0) {
    assert(depth < limits.depth_max);
    m2se_json_put_object(writer, key);
    struct m2se_json_iterator member = {0};
    while (m2se_json_next(value, &member)) {
      assert(strlen(member.key) == member.key_length && m2se_json_get(value, member.key) == member.value);
      count += copy(writer, member.key, member.value, depth + 1);
    }
    m2se_json_put_end(writer);
  } else if (m2se_json_as_array(value, "v", &length, NULL) == 0) {
    assert(depth < limits.depth_max);
    m2se_json_put_array(writer, key);
    for (size_t i = 0; i < length; i++) {
      count += copy(writer, NULL, m2se_json_at(value, i), depth + 1);
    }
    m2se_json_put_end(writer);
  } else if (m2se_json_as_string(value, "v", &text, &length, NULL) == 0) {
    assert(strlen(text) == length);
    m2se_json_put_string(writer, key, text, length);
  } else if (m2se_json_type(value) == M2SE_JSON_INTEGER) {
    assert(m2se_json_as_int64(value, "v", &whole, NULL) == 0);
    m2se_json_put_int64(writer, key, whole);
  } else if (m2se_json_as_double(value, "v", &real, NULL) == 0) {
    m2se_json_put_double(writer, key, real);
  } else if (m2se_json_as_bool(value, "v", &truth, NULL) == 0) {
    m2se_json_put_bool(writer, key, truth);
  } else {
    assert(m2se_json_type(value) == M2SE_JSON_NULL);
    m2se_json_put_null(writer, key);
  }
  return count;
}

// Numbers from whatever the value is: taken, or refused with a reason.
static void get_numbers(const struct m2se_json *value) {
  struct m2se_error error = {0};
  int64_t with_sign = 0;
  uint64_t without = 0;
  int code = m2se_json_as_int64(value, "v", &with_sign, &error);
  assert(code == error.code);
  int code_without = m2se_json_as_uint64(value, "v", &without, &error);
  assert(code || (code_without == 0) == (with_sign >= 0));
  assert(code || code_without || without == (uint64_t)with_sign);
}

static char *write_tree(const struct m2se_json *root, size_t *length) {
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  uint32_t count = copy(writer, NULL, root, 0);
  assert(count <= limits.values_max);
  char *text = m2se_json_finish(writer, length);
  assert(text && strlen(text) == *length);
  return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct m2se_json *root = NULL, *again = NULL;
  struct m2se_error error = {0};
  size_t length = 0, length_again = 0;
  int code = m2se_json_parse(&root, (const char *)data, size, &limits, &error);
  if (code) {
    assert(!root && error.code == code && error.text[0] && (code == M2SE_EFORMAT || code == M2SE_ELIMIT));
    return 0;
  }
  for (size_t i = 0; i < m2se_json_size(root); i++) {
    get_numbers(m2se_json_at(root, i));
  }
  char *text = write_tree(root, &length);
  // Control characters grow when written, so the default limits; reals are rounded once, and then stay.
  assert(m2se_json_parse(&again, text, length, NULL, &error) == 0);
  char *text_again = write_tree(again, &length_again);
  assert(length_again == length && memcmp(text_again, text, length) == 0);
  m2se_json_free(root);
  m2se_json_free(again);
  free(text);
  free(text_again);
  return 0;
}
