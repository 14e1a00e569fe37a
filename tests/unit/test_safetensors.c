// Reading safetensors: each rule broken by itself, conversions, memory running out. Writing:
// test_safetensors_write.c.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/files/safetensors.h"
#include "tests/unit/fail_nth.h"

// A file in memory, exactly as long as it says: a read beyond its end is then seen by AddressSanitizer.
struct image {
  uint8_t *bytes;
  size_t size;
};

static struct image make_image(const char *header, const void *data, size_t data_bytes) {
  uint64_t length = strlen(header);
  struct image image = {.size = 8 + length + data_bytes};
  image.bytes = malloc(image.size);
  assert_non_null(image.bytes);
  memcpy(image.bytes, &length, 8);
  memcpy(image.bytes + 8, header, length);
  if (data) {
    memcpy(image.bytes + 8 + length, data, data_bytes);
  } else {
    memset(image.bytes + 8 + length, 0, data_bytes);
  }
  return image;
}

static struct m2se_safetensors *open_image(const struct image *image) {
  struct m2se_safetensors *file = NULL;
  struct m2se_error error = {0};
  m2se_safetensors_from_memory(&file, image->bytes, image->size, "f.safetensors", &error);
  assert_string_equal(error.text, "");
  assert_non_null(file);
  return file;
}

static void check_refused(const struct image *image, int code, const char *message) {
  struct m2se_safetensors *file = (struct m2se_safetensors *)1;
  struct m2se_error error = {0};
  assert_int_equal(m2se_safetensors_from_memory(&file, image->bytes, image->size, "f.safetensors", &error),
                   code);
  assert_int_equal(error.code, code);
  assert_string_equal(error.text, message);
  assert_null(file);
}

#define F "f.safetensors: "
#define ENTRY(dtype, shape, offsets) "\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets

// A header for 24 bytes of data, with one thing wrong with it or with none.
struct rule {
  const char *header;
  int code;
  const char *message; // after the file's name; NULL: nothing is wrong
};

static void check_rules(const struct rule *rules, size_t count) {
  for (size_t i = 0; i < count; i++) {
    struct image image = make_image(rules[i].header, NULL, 24);
    if (rules[i].message) {
      char message[600];
      snprintf(message, sizeof message, F "%s", rules[i].message);
      check_refused(&image, rules[i].code, message);
    } else {
      m2se_safetensors_close(open_image(&image));
    }
    free(image.bytes);
  }
}

static void test_entries(void **state) {
  (void)state;
  static const struct rule rules[] = {
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[0,24]") "}}  ", 0, NULL},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[0,24]") ",\"more\":[1]}}", 0, NULL},
      {"", M2SE_EFORMAT, "header: does not begin with '{'"},
      {" {}", M2SE_EFORMAT, "header: does not begin with '{'"},
      {"[]", M2SE_EFORMAT, "header: does not begin with '{'"},
      {"{\"t\":}", M2SE_EFORMAT, "header: line 1 column 6: unexpected token near '}'"},
      {"{\"t\xff\":1}", M2SE_EFORMAT, "header: line 1 column 3: unable to decode byte 0xff near '\"t'"},
      {"{\"a\\u0000\":1}", M2SE_EFORMAT,
       "header: line 1 column 10: NUL byte in object key not supported near '\"a\\u0000\"'"},
      {"{\"t\":{" ENTRY("\"U8\"", "[24]", "[0,24]") "},\"t\":{" ENTRY("\"U8\"", "[0]", "[24,24]") "}}",
       M2SE_EFORMAT, "header: line 1 column 58: duplicate object key near '\"t\"'"},
      {"{}", M2SE_EFORMAT, "24 bytes of data after the last tensor"},
      {"{\"\":{" ENTRY("\"F32\"", "[2,3]", "[0,24]") "}}", M2SE_EFORMAT, "a tensor has an empty name"},
      {"{\"t\":7}", M2SE_EFORMAT, "tensor \"t\": its entry: whole number where an object is needed"},
      {"{\"t\":{\"shape\":[2,3],\"data_offsets\":[0,24]}}", M2SE_EFORMAT, "tensor \"t\": dtype: missing"},
      {"{\"t\":{" ENTRY("7", "[2,3]", "[0,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": dtype: whole number where a string is needed"},
      {"{\"t\":{" ENTRY("\"f32\"", "[2,3]", "[0,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": dtype: \"f32\" is not known"},
      {"{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,24]}}", M2SE_EFORMAT, "tensor \"t\": shape: missing"},
      {"{\"t\":{" ENTRY("\"F32\"", "6", "[0,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": shape: whole number where an array is needed"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,\"3\"]", "[0,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": shape: string where a whole number is needed"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3.0]", "[0,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": shape: real where a whole number is needed"},
      {"{\"t\":{" ENTRY("\"F32\"", "[-2,-3]", "[0,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": shape: -2 is negative"},
      {"{\"t\":{" ENTRY("\"F32\"", "[1,1,1,1,1,1,1,6]", "[0,24]") "}}", 0, NULL},
      {"{\"t\":{" ENTRY("\"F32\"", "[1,1,1,1,1,1,1,1,6]", "[0,24]") "}}", M2SE_ELIMIT,
       "tensor \"t\": shape: rank 9, more than 8"},
      {"{\"t\":{" ENTRY("\"U8\"", "[4294967296,4294967296]", "[0,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": shape: its product does not fit in 64 bits"},
      {"{\"t\":{" ENTRY("\"F32\"", "[4611686018427387904]", "[0,0]") "}}", M2SE_EFORMAT,
       "tensor \"t\": shape: its product does not fit in 64 bits"},
  };
  check_rules(rules, sizeof rules / sizeof rules[0]);
}

static void test_places(void **state) {
  (void)state;
  static const struct rule rules[] = {
      {"{\"t\":{\"dtype\":\"F32\",\"shape\":[2,3]}}", M2SE_EFORMAT, "tensor \"t\": data_offsets: missing"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "{}") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: object where an array is needed"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: 1 numbers where 2 are needed"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[0,12,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: 3 numbers where 2 are needed"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[null,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: null where a whole number is needed"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[-1,23]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: -1 is negative"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[24,0]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: 24 is after 0"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[1,25]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: end at 25, but there are only 24 bytes of data"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[0,9223372036854775807]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: end at 9223372036854775807, but there are only 24 bytes of data"},
      {"{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[0,20]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: 20 bytes, but shape and dtype F32 need 24"},
      {"{\"t\":{" ENTRY("\"F16\"", "[2,3]", "[0,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: 24 bytes, but shape and dtype F16 need 12"},
      {"{\"t\":{" ENTRY("\"F32\"", "[5]", "[4,24]") "}}", M2SE_EFORMAT,
       "tensor \"t\": data_offsets: begin at 4, but the tensors before it end at 0 (a hole)"},
      {"{\"t\":{" ENTRY("\"F32\"", "[5]", "[0,20]") "}}", M2SE_EFORMAT,
       "4 bytes of data after the last tensor \"t\""},
      {"{\"b\":{" ENTRY("\"U8\"", "[12]", "[12,24]") "},\"a\":{" ENTRY("\"U8\"", "[11]", "[0,11]") "}}",
       M2SE_EFORMAT, "tensor \"b\": data_offsets: begin at 12, but the tensors before it end at 11 (a hole)"},
      {"{\"b\":{" ENTRY("\"U8\"", "[14]", "[10,24]") "},\"a\":{" ENTRY("\"U8\"", "[11]", "[0,11]") "}}",
       M2SE_EFORMAT,
       "tensor \"b\": data_offsets: begin at 10, but the tensors before it end at 11 (an overlap)"},
      {"{\"b\":{" ENTRY("\"U8\"", "[24]", "[0,24]") "},\"a\":{" ENTRY("\"U8\"", "[24]", "[0,24]") "}}",
       M2SE_EFORMAT,
       "tensor \"b\": data_offsets: begin at 0, but the tensors before it end at 24 (an overlap)"},
      {"{\"__metadata__\":[],\"t\":{" ENTRY("\"F32\"", "[2,3]", "[0,24]") "}}", M2SE_EFORMAT,
       "__metadata__: array where an object is needed"},
      {"{\"__metadata__\":{\"a\":\"b\",\"c\":1},\"t\":{" ENTRY("\"F32\"", "[2,3]", "[0,24]") "}}",
       M2SE_EFORMAT, "__metadata__: \"c\": whole number where a string is needed"},
  };
  check_rules(rules, sizeof rules / sizeof rules[0]);
}

static void test_header_length(void **state) {
  (void)state;
  struct image image = make_image("{}", NULL, 0);
  m2se_safetensors_close(open_image(&image)); // no tensors, no data: a file all the same
  for (size_t size = 0; size < 8; size++) {
    char message[100];
    snprintf(message, sizeof message, F "%zu bytes, shorter than the 8 of the header length", size);
    check_refused(&(struct image){image.bytes, size}, M2SE_EFORMAT, message);
  }
  check_refused(&(struct image){image.bytes, 9}, M2SE_EFORMAT, F "header of 2 bytes, but only 1 follow");
  memset(image.bytes, 0xff, 8);
  check_refused(&image, M2SE_EFORMAT, F "header of 18446744073709551615 bytes, but only 2 follow");
  free(image.bytes);

  // One byte over 16 MiB, of blanks, which would be fine otherwise.
  size_t size = (16u << 20) + 1;
  char *header = malloc(size + 1);
  assert_non_null(header);
  memset(header, ' ', size);
  memcpy(header, "{}", 2);
  header[size] = '\0';
  image = make_image(header, NULL, 0);
  check_refused(&image, M2SE_ELIMIT, F "header of 16777217 bytes, more than 16777216");
  free(image.bytes);
  image = make_image(header + 1, NULL, 0);
  image.bytes[8] = '{';
  image.bytes[9] = '}';
  m2se_safetensors_close(open_image(&image));
  free(image.bytes);
  free(header);
}

static void test_names(void **state) {
  (void)state;
  for (int length = 199; length <= 201; length++) {
    char name[202];
    char header[400];
    memset(name, 'n', sizeof name);
    name[length] = '\0';
    snprintf(header, sizeof header, "{\"%s\":{" ENTRY("\"U8\"", "[]", "[0,1]") "}}", name);
    struct image image = make_image(header, "\x07", 1);
    if (length > 200) {
      char message[200];
      snprintf(message, sizeof message, F "tensor \"%.60s...\": a name of 201 bytes, more than 200", name);
      check_refused(&image, M2SE_ELIMIT, message);
    } else {
      struct m2se_safetensors *file = open_image(&image);
      assert_non_null(m2se_safetensors_find(file, name)); // and rank 0 is one element
      assert_int_equal(m2se_safetensors_find(file, name)->count, 1);
      m2se_safetensors_close(file);
    }
    free(image.bytes);
  }
  // The longest name and the longest label leave room for the rule.
  char name[201];
  char header[400];
  char label[1000];
  memset(name, 'n', sizeof name - 1);
  name[200] = '\0';
  memset(label, 'l', sizeof label - 1);
  label[999] = '\0';
  snprintf(header, sizeof header, "{\"%s\":{" ENTRY("\"U8\"", "[1]", "[0,9223372036854775807]") "}}", name);
  struct image image = make_image(header, NULL, 1);
  struct m2se_safetensors *file = NULL;
  struct m2se_error error = {0};
  assert_int_equal(m2se_safetensors_from_memory(&file, image.bytes, image.size, label, &error), M2SE_EFORMAT);
  assert_non_null(strstr(error.text, "there are only 1 bytes of data"));
  free(image.bytes);
}

static struct image many_tensors(int count) {
  size_t room = 80u * (size_t)count;
  char *header = malloc(room);
  assert_non_null(header);
  size_t used = 0;
  for (int i = 0; i < count; i++) {
    used += (size_t)snprintf(header + used, room - used, "%c\"%d\":{" ENTRY("\"U8\"", "[0]", "[0,0]") "}",
                             i ? ',' : '{', i);
  }
  snprintf(header + used, room - used, "}");
  struct image image = make_image(header, NULL, 0);
  free(header);
  return image;
}

static void test_too_many(void **state) {
  (void)state;
  struct image image = many_tensors(M2SE_TENSORS_MAX + 1);
  check_refused(&image, M2SE_ELIMIT, F "65537 tensors, more than 65536");
  free(image.bytes);
  image = many_tensors(M2SE_TENSORS_MAX);
  struct m2se_safetensors *file = open_image(&image);
  assert_int_equal(m2se_safetensors_count(file), M2SE_TENSORS_MAX);
  m2se_safetensors_close(file);
  free(image.bytes);
}

#define TWO                                                                                                  \
  "{\"late\":{" ENTRY("\"U8\"", "[3]", "[4,7]") "},\"none\":{" ENTRY(                                        \
      "\"F32\"", "[2,0]", "[4,4]") "},"                                                                      \
                                   "\"__metadata__\":{\"format\":\"m2se\",\"d\":\"24\",\"big\":"             \
                                   "\"18446744073709551615\",\"tau\":\"0.07\","                              \
                                   "\"word\":\"x7\",\"inf\":\"inf\"},\"early\":{" ENTRY("\"F32\"", "[1]",    \
                                                                                        "[0,4]") "}}"

static void test_lists(void **state) {
  (void)state;
  struct image image = make_image(TWO, "\0\0\x80\x3f\1\2\3", 7);
  struct m2se_safetensors *file = open_image(&image);
  static const char *const names[] = {"early", "none", "late"};
  assert_int_equal(m2se_safetensors_count(file), 3);
  for (uint32_t i = 0; i < 3; i++) {
    assert_string_equal(m2se_safetensors_at(file, i)->name, names[i]);
    assert_ptr_equal(m2se_safetensors_find(file, names[i]), m2se_safetensors_at(file, i));
  }
  assert_null(m2se_safetensors_find(file, "__metadata__"));
  const struct m2se_tensor *late = m2se_safetensors_find(file, "late");
  assert_int_equal(late->dtype, M2SE_U8);
  assert_int_equal(late->rank, 1);
  assert_int_equal(late->shape[0], 3);
  assert_int_equal(late->offset, 4);
  assert_int_equal(late->bytes, 3);
  assert_ptr_equal(late->data, image.bytes + image.size - 3);
  assert_memory_equal(late->data, "\1\2\3", 3);
  assert_int_equal(m2se_safetensors_find(file, "none")->count, 0);
  float nothing = 5;
  assert_int_equal(m2se_safetensors_read_f32(file, "none", 2, (uint64_t[]){M2SE_ANY, 0}, &nothing, NULL), 0);
  assert_true(nothing == 5);
  m2se_safetensors_close(file);
  m2se_safetensors_close(NULL);
  free(image.bytes);
}

static void test_metadata(void **state) {
  (void)state;
  struct image image = make_image(TWO, NULL, 7);
  struct m2se_safetensors *file = open_image(&image);
  struct m2se_error error = {0};
  assert_string_equal(m2se_safetensors_metadata(file, "format"), "m2se");
  assert_null(m2se_safetensors_metadata(file, "nothing"));
  assert_int_equal(m2se_json_size(m2se_safetensors_metadata_all(file)), 6);
  uint64_t number = 3;
  assert_int_equal(m2se_safetensors_metadata_uint(file, "d", 1, 24, &number, &error), 0);
  assert_int_equal(number, 24);
  assert_int_equal(m2se_safetensors_metadata_uint(file, "big", 0, UINT64_MAX, &number, &error), 0);
  assert_true(number == UINT64_MAX);
  double real = 3;
  assert_int_equal(m2se_safetensors_metadata_real(file, "tau", 0.07, 1, &real, &error), 0);
  assert_true(real == 0.07);

  assert_int_equal(m2se_safetensors_metadata_uint(file, "d", 25, 30, &number, &error), M2SE_ERANGE);
  assert_string_equal(error.text, F "metadata: d: 24 is outside 25..30");
  assert_int_equal(m2se_safetensors_metadata_uint(file, "d", 1, 23, &number, &error), M2SE_ERANGE);
  assert_int_equal(m2se_safetensors_metadata_uint(file, "tau", 0, 9, &number, &error), M2SE_ETYPE);
  assert_int_equal(m2se_safetensors_metadata_uint(file, "h", 0, 9, &number, &error), M2SE_EMISSING);
  assert_string_equal(error.text, F "metadata: h: missing");
  assert_int_equal(m2se_safetensors_metadata_real(file, "h", 0, 9, &real, &error), M2SE_EMISSING);
  assert_int_equal(m2se_safetensors_metadata_real(file, "word", 0, 9, &real, &error), M2SE_ETYPE);
  assert_int_equal(m2se_safetensors_metadata_real(file, "inf", 0, 9, &real, &error), M2SE_ETYPE);
  assert_int_equal(m2se_safetensors_metadata_real(file, "tau", 0.1, 1, &real, &error), M2SE_ERANGE);
  assert_string_equal(error.text, F "metadata: tau: 0.07 is outside 0.1..1");
  assert_true(number == UINT64_MAX && real == 0.07); // a failure leaves the output alone
  m2se_safetensors_close(file);
  free(image.bytes);

  image = make_image("{}", NULL, 0);
  file = open_image(&image);
  assert_null(m2se_safetensors_metadata_all(file));
  assert_null(m2se_safetensors_metadata(file, "format"));
  m2se_safetensors_close(file);
  free(image.bytes);
}

static void test_require(void **state) {
  (void)state;
  struct image image = make_image("{\"t\":{" ENTRY("\"F32\"", "[2,3]", "[0,24]") "}}", NULL, 24);
  struct m2se_safetensors *file = open_image(&image);
  struct m2se_error error = {0};
  const struct m2se_tensor *tensor = NULL;
  assert_int_equal(m2se_safetensors_require(file, "t", 2, (uint64_t[]){2, 3}, &tensor, &error), 0);
  assert_int_equal(m2se_safetensors_require(file, "t", 2, (uint64_t[]){M2SE_ANY, 3}, &tensor, &error), 0);
  assert_ptr_equal(tensor, m2se_safetensors_at(file, 0));
  assert_int_equal(m2se_safetensors_require(file, "t", 2, (uint64_t[]){M2SE_ANY, 4}, &tensor, &error),
                   M2SE_ESHAPE);
  assert_string_equal(error.text, F "tensor \"t\": shape [2,3] where [any,4] is needed");
  assert_int_equal(m2se_safetensors_require(file, "t", 1, (uint64_t[]){2}, &tensor, &error), M2SE_ESHAPE);
  assert_string_equal(error.text, F "tensor \"t\": shape [2,3] where [2] is needed");
  assert_int_equal(m2se_safetensors_require(file, "t", 0, NULL, &tensor, &error), M2SE_ESHAPE);
  assert_string_equal(error.text, F "tensor \"t\": shape [2,3] where [] is needed");
  uint64_t huge[8] = {1ull << 60, 1ull << 60, 1ull << 60, 1ull << 60, 1ull << 60, 1ull << 60, 1, 1};
  assert_int_equal(m2se_safetensors_require(file, "t", 8, huge, &tensor, &error), M2SE_ESHAPE);
  assert_int_equal(m2se_safetensors_require(file, "u", 2, (uint64_t[]){2, 3}, &tensor, &error),
                   M2SE_EMISSING);
  assert_string_equal(error.text, F "tensor \"u\": missing");
  float out[6];
  assert_int_equal(m2se_safetensors_read_f32(file, "u", 2, (uint64_t[]){2, 3}, out, &error), M2SE_EMISSING);
  assert_int_equal(m2se_safetensors_read_u8(file, "t", 2, (uint64_t[]){3, 2}, (uint8_t *)out, &error),
                   M2SE_ESHAPE);
  m2se_safetensors_close(file);
  free(image.bytes);
}

// ---- conversions ----

// One tensor "t" of n elements; its data begins at an odd address.
static struct m2se_safetensors *open_elements(struct image *image, const char *dtype, uint64_t n, size_t size,
                                              const void *data) {
  char header[200];
  snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[0,%d]}}", dtype,
           (int)n, (int)(n * size));
  size_t length = strlen(header);
  if (length % 2 == 0) {
    snprintf(header + length, sizeof header - length, " ");
  }
  *image = make_image(header, data, n * size);
  return open_image(image);
}

static void check_floats(const char *dtype, size_t n, size_t size, const void *data, const float *expected) {
  struct image image;
  struct m2se_safetensors *file = open_elements(&image, dtype, n, size, data);
  float out[16];
  struct m2se_error error = {0};
  assert_int_equal(m2se_safetensors_read_f32(file, "t", 1, (uint64_t[]){n}, out, &error), 0);
  assert_memory_equal(out, expected, n * sizeof *out); // the bits: -0 and NaN too
  m2se_safetensors_close(file);
  free(image.bytes);
}

static void test_floats(void **state) {
  (void)state;
  const float floats[] = {0, -0.0f, 1, -2.5f, FLT_MAX, FLT_TRUE_MIN, INFINITY};
  check_floats("F32", 7, 4, floats, floats);
  const uint16_t halves[] = {0x0000, 0x8000, 0x3c00, 0xc100, 0x7bff, 0x0001, 0x83ff, 0x0400, 0x7c00, 0xfc00};
  const float of_halves[] = {0,        -0.0f,         1,        -2.5f,    65504,
                             0x1p-24f, -0x1.ff8p-15f, 0x1p-14f, INFINITY, -INFINITY};
  check_floats("F16", 10, 2, halves, of_halves);
  const uint16_t brains[] = {0x0000, 0x8000, 0x3f80, 0xc020, 0x7f7f, 0x0001, 0x7f80};
  const float of_brains[] = {0, -0.0f, 1, -2.5f, 0x1.fep127f, 0x1p-133f, INFINITY};
  check_floats("BF16", 7, 2, brains, of_brains);
  const double doubles[] = {0, -0.0, 1, 0.1, FLT_MAX, 1e-60, -INFINITY};
  const float of_doubles[] = {0, -0.0f, 1, 0.1f, FLT_MAX, 0, -INFINITY};
  check_floats("F64", 7, 8, doubles, of_doubles);

  // All the halves there are, by the definition.
  for (uint32_t i = 0; i < 65536; i += 15) {
    uint16_t half = (uint16_t)i;
    int exponent = (int)(half >> 10 & 31);
    if (exponent == 31) {
      continue;
    }
    double fraction = (half & 1023) / 1024.0 + (exponent > 0);
    float expected = (float)ldexp(half & 0x8000 ? -fraction : fraction, exponent > 0 ? exponent - 15 : -14);
    check_floats("F16", 1, 2, &half, &expected);
  }
  struct image image;
  struct m2se_safetensors *file = open_elements(&image, "F16", 1, 2, "\x01\x7e");
  float nan_out = 0;
  assert_int_equal(m2se_safetensors_read_f32(file, "t", 1, (uint64_t[]){1}, &nan_out, NULL), 0);
  assert_true(isnan(nan_out));
  m2se_safetensors_close(file);
  free(image.bytes);
}

static void test_float_errors(void **state) {
  (void)state;
  struct m2se_error error = {0};
  struct image image;
  float out[3];
  const double doubles[] = {1, 1e38, 1e39};
  struct m2se_safetensors *file = open_elements(&image, "F64", 3, 8, doubles);
  assert_int_equal(m2se_safetensors_read_f32(file, "t", 1, (uint64_t[]){3}, out, &error), M2SE_ERANGE);
  assert_string_equal(error.text, F "tensor \"t\": element 2 does not fit in a float");
  m2se_safetensors_close(file);
  free(image.bytes);
  file = open_elements(&image, "I32", 3, 4, doubles);
  assert_int_equal(m2se_safetensors_read_f32(file, "t", 1, (uint64_t[]){3}, out, &error), M2SE_ETYPE);
  assert_string_equal(error.text, F "tensor \"t\": dtype I32 where F32, F16, BF16 or F64 is needed");
  assert_int_equal(m2se_safetensors_read_u8(file, "t", 1, (uint64_t[]){3}, (uint8_t *)out, &error),
                   M2SE_ETYPE);
  assert_string_equal(error.text, F "tensor \"t\": dtype I32 where U8 or BOOL is needed");
  m2se_safetensors_close(file);
  free(image.bytes);
}

// Two elements of each integer dtype: its least and largest; which of them 32 and 64 bits hold.
static void test_integers(void **state) {
  (void)state;
  static const struct {
    const char *dtype;
    size_t size;
    uint8_t bytes[16];
    int64_t least, most;
    int bad_i32, bad_i64; // the first element that does not fit; 2: all do
  } cases[] = {
      {"I8", 1, {0x80, 0x7f}, INT8_MIN, INT8_MAX, 2, 2},
      {"U8", 1, {0x00, 0xff}, 0, UINT8_MAX, 2, 2},
      {"I16", 2, {0x00, 0x80, 0xff, 0x7f}, INT16_MIN, INT16_MAX, 2, 2},
      {"U16", 2, {0, 0, 0xff, 0xff}, 0, UINT16_MAX, 2, 2},
      {"I32", 4, {0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0x7f}, INT32_MIN, INT32_MAX, 2, 2},
      {"U32", 4, {0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 0, UINT32_MAX, 1, 2},
      {"I64", 8, {0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, INT32_MIN, INT32_MAX, 2, 2},
      {"I64", 8, {0, 0, 0, 0, 0, 0, 0, 0x80, 0}, INT64_MIN, 0, 0, 2},
      {"I64", 8, {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0}, 1, 1ll << 31, 1, 2},
      {"U64",
       8,
       {1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
       1,
       INT64_MAX,
       1,
       2},
      {"U64", 8, {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80}, 1, 0, 1, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct image image;
    struct m2se_safetensors *file = open_elements(&image, cases[i].dtype, 2, cases[i].size, cases[i].bytes);
    struct m2se_error error = {0};
    char message[100];
    int32_t narrow[2] = {7, 7};
    int64_t wide[2] = {7, 7};
    int code = m2se_safetensors_read_i32(file, "t", 1, (uint64_t[]){2}, narrow, &error);
    assert_int_equal(code, cases[i].bad_i32 < 2 ? M2SE_ERANGE : 0);
    if (code) {
      snprintf(message, sizeof message, F "tensor \"t\": element %d does not fit in 32 bits with a sign",
               cases[i].bad_i32);
      assert_string_equal(error.text, message);
    } else {
      assert_true(narrow[0] == cases[i].least && narrow[1] == cases[i].most);
    }
    code = m2se_safetensors_read_i64(file, "t", 1, (uint64_t[]){2}, wide, &error);
    assert_int_equal(code, cases[i].bad_i64 < 2 ? M2SE_ERANGE : 0);
    assert_true(code || (wide[0] == cases[i].least && wide[1] == cases[i].most));
    m2se_safetensors_close(file);
    free(image.bytes);
  }
  struct image image;
  struct m2se_error error = {0};
  int64_t wide[2];
  struct m2se_safetensors *file = open_elements(&image, "BOOL", 2, 1, "\0\1");
  assert_int_equal(m2se_safetensors_read_i64(file, "t", 1, (uint64_t[]){2}, wide, &error), M2SE_ETYPE);
  assert_string_equal(error.text, F "tensor \"t\": dtype BOOL where an integer type is needed");
  uint8_t bytes[2] = {7, 7};
  assert_int_equal(m2se_safetensors_read_u8(file, "t", 1, (uint64_t[]){2}, bytes, &error), 0);
  assert_memory_equal(bytes, "\0\1", 2);
  m2se_safetensors_close(file);
  free(image.bytes);
}

// ---- files and memory ----

static void check_path_refused(const char *path, int code, const char *message) {
  struct m2se_safetensors *file = (struct m2se_safetensors *)1;
  struct m2se_error error = {0};
  assert_int_equal(m2se_safetensors_open(&file, path, &error), code);
  assert_null(file);
  assert_non_null(strstr(error.text, path));
  assert_non_null(strstr(error.text, message));
}

static void test_paths(void **state) {
  (void)state;
  char folder[] = "/tmp/m2se_files_XXXXXX";
  assert_non_null(mkdtemp(folder));
  char path[64];
  check_path_refused(folder, M2SE_EIO, "not a regular file");
  snprintf(path, sizeof path, "%s/file", folder);
  check_path_refused(path, M2SE_EIO, "open: No such file");
  assert_int_equal(mkfifo(path, 0600), 0);
  check_path_refused(path, M2SE_EIO, "not a regular file"); // and at once, though nobody writes to it
  unlink(path);

  int fd = open(path, O_WRONLY | O_CREAT, 0600);
  assert_true(fd >= 0);
  check_path_refused(path, M2SE_EFORMAT, "0 bytes, shorter than");
  struct image image = make_image(TWO, "\0\0\x80\x3f\1\2\3", 7);
  assert_int_equal(write(fd, image.bytes, image.size), image.size);
  close(fd);
  struct m2se_safetensors *file = NULL;
  assert_int_equal(m2se_safetensors_open(&file, path, NULL), 0);
  unlink(path); // the map stays
  float one = 0;
  assert_int_equal(m2se_safetensors_read_f32(file, "early", 1, (uint64_t[]){1}, &one, NULL), 0);
  assert_true(one == 1);
  m2se_safetensors_close(file);
  free(image.bytes);
  rmdir(folder);
}

static void test_no_memory(void **state) {
  (void)state;
  struct image image = make_image(TWO, NULL, 7);
  long before = fail_nth_outstanding;
  bool failed = true;
  for (long n = 1; failed; n++) {
    struct m2se_safetensors *file = NULL;
    struct m2se_error error = {0};
    fail_nth_start(n);
    int code = m2se_safetensors_from_memory(&file, image.bytes, image.size, "f.safetensors", &error);
    failed = fail_nth_stop();
    assert_int_equal(code, failed ? M2SE_ENOMEM : 0);
    assert_true((file == NULL) == failed);
    assert_true(!failed || strncmp(error.text, F, strlen(F)) == 0);
    m2se_safetensors_close(file);
    assert_int_equal(fail_nth_outstanding, before);
  }
  free(image.bytes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_entries),       cmocka_unit_test(test_places),
      cmocka_unit_test(test_header_length), cmocka_unit_test(test_names),
      cmocka_unit_test(test_too_many),      cmocka_unit_test(test_lists),
      cmocka_unit_test(test_metadata),      cmocka_unit_test(test_require),
      cmocka_unit_test(test_floats),        cmocka_unit_test(test_float_errors),
      cmocka_unit_test(test_integers),      cmocka_unit_test(test_paths),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
