// JSON, and what it stands on: UTF-8 and error texts.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/json.h"
#include "model/files/utf8.h"
#include "tests/unit/fail_nth.h"

// ---- UTF-8 and errors ----

static void test_utf8(void **state) {
  (void)state;
  static const struct {
    const char *text;
    size_t size;
    size_t length;
  } cases[] = {
      {"", 0, 0},
      {"a", 1, 1},
      {"\0", 1, 1},
      {"\x7f", 1, 1},
      {"\x80", 1, 0},         // continuation without a start
      {"\xc1\xbf", 2, 0},     // overlong
      {"\xc2\x80", 2, 2},     // U+0080
      {"\xc2", 1, 0},         // cut
      {"\xc2 ", 2, 0},        // no continuation
      {"\xe0\x9f\xbf", 3, 0}, // overlong
      {"\xe0\xa0\x80", 3, 3}, // U+0800
      {"\xed\x9f\xbf", 3, 3}, // U+D7FF
      {"\xed\xa0\x80", 3, 0}, // surrogates
      {"\xed\xbf\xbf", 3, 0},
      {"\xee\x80\x80", 3, 3},     // U+E000
      {"\xf0\x8f\xbf\xbf", 4, 0}, // overlong
      {"\xf0\x90\x80\x80", 4, 4}, // U+10000
      {"\xf4\x8f\xbf\xbf", 4, 4}, // U+10FFFF
      {"\xf4\x90\x80\x80", 4, 0}, // beyond
      {"\xf5\x80\x80\x80", 4, 0},
      {"\xff", 1, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    assert_int_equal(m2se_utf8_next(cases[i].text, cases[i].size), cases[i].length);
  }
  assert_true(m2se_utf8_valid("gr\xc3\xbc\xc3\x9f", 6));
  assert_false(m2se_utf8_valid("gr\xc3\xbc\xc3", 5));
}

static void test_error_list(void **state) {
  (void)state;
#define CHECK(code, name, text)                                                                              \
  assert_int_equal(name, code);                                                                              \
  assert_true((code) < 0);                                                                                   \
  assert_string_equal(m2se_error_name(code), #name);                                                         \
  assert_string_equal(m2se_error_text(code), text);
  M2SE_ERRORS(CHECK)
#undef CHECK
  assert_string_equal(m2se_error_name(1), "unknown");
  assert_string_equal(m2se_error_text(0), "unknown error");
}

static void test_error_text(void **state) {
  (void)state;
  struct m2se_error error;
  assert_int_equal(m2se_error_set(&error, M2SE_EIO, "disk %d: %s", 7, "a\nb\x01\xff"), M2SE_EIO);
  assert_int_equal(error.code, M2SE_EIO);
  assert_string_equal(error.text, "disk 7: a?b??");
  assert_int_equal(m2se_error_prefix(&error, M2SE_EIO, "host %s", "x\ty"), M2SE_EIO);
  assert_string_equal(error.text, "host x?y: disk 7: a?b??");
  assert_int_equal(m2se_error_set(NULL, M2SE_ENOMEM, "nobody listens"), M2SE_ENOMEM);
  assert_int_equal(m2se_error_prefix(NULL, M2SE_ENOMEM, "nobody listens"), M2SE_ENOMEM);

  // A long text is cut between two characters, wherever the buffer ends.
  char umlauts[1200];
  for (size_t i = 0; i < sizeof umlauts - 2; i += 2) {
    memcpy(umlauts + i, "\xc3\xa4", 3);
  }
  for (int blanks = 0; blanks < 4; blanks++) {
    m2se_error_set(&error, M2SE_EFORMAT, "%*s%s", blanks, "", umlauts);
    size_t length = strlen(error.text);
    assert_in_range(length, sizeof error.text - 3, sizeof error.text - 1);
    assert_true(m2se_utf8_valid(error.text, length));
    assert_null(strchr(error.text, '?'));
  }
}

// ---- reading ----

static struct m2se_json *parse(const char *text) {
  struct m2se_json *root = NULL;
  struct m2se_error error = {0};
  int code = m2se_json_parse(&root, text, strlen(text), NULL, &error);
  if (code) {
    fail_msg("%s: %s", text, error.text);
  }
  return root;
}

// message: how the error's text begins; the rest is jansson's.
static void check_refused(const char *text, size_t size, int code, const char *message) {
  struct m2se_json *root = (struct m2se_json *)1;
  struct m2se_error error = {0};
  char *copy = malloc(size ? size : 1); // exactly as long: a read beyond the end is then an error of its own
  assert_non_null(copy);
  memcpy(copy, text, size);
  assert_int_equal(m2se_json_parse(&root, copy, size, NULL, &error), code);
  assert_int_equal(error.code, code);
  assert_null(root);
  if (strncmp(error.text, message, strlen(message)) != 0) {
    fail_msg("%s: '%s' where '%s' was expected", text, error.text, message);
  }
  free(copy);
}

static void test_refused(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"", "line 1 column 0: "},
      {" ", "line 1 column 1: "},
      {"7", "line 1 column 1: "},
      {"\"a\"", "line 1 column 3: "},
      {"\xef\xbb\xbf{}", "line 1 column 1: "}, // a byte order mark
      {"{", "line 1 column 1: "},
      {"[1,", "line 1 column 3: "},
      {"[\"a", "line 1 column 3: premature end"},
      {"{\"a\":1", "line 1 column 6: "},
      {"{\"a\"", "line 1 column 4: "},
      {"[tru", "line 1 column 4: "},
      {"[1,]", "line 1 column 4: "},
      {"[,1]", "line 1 column 2: "},
      {"{\"a\":1,}", "line 1 column 8: "},
      {"{a:1}", "line 1 column 2: "},
      {"{1:1}", "line 1 column 2: "},
      {"{\"a\" 1}", "line 1 column 6: ':' expected"},
      {"{\"a\":1 \"b\":2}", "line 1 column 10: '}' expected"},
      {"[1}", "line 1 column 3: ']' expected"},
      {"[truer]", "line 1 column 6: "},
      {"[NaN]", "line 1 column 4: "},
      {"{} x", "line 1 column 4: end of file expected"},
      {"{}\n\n []", "line 3 column 2: end of file expected"},
      {"{\n \"a\": ?}", "line 2 column 7: "},
      {"[\"\\x\"]", "line 1 column 4: invalid escape"},
      {"[\"\\u12g4\"]", "line 1 column 7: invalid escape"},
      {"[\"\\u0000\"]", "line 1 column 9: \\u0000 is not allowed"},
      {"{\"\\u0000\":1}", "line 1 column 9: NUL byte"},
      {"[\"\\ud800\"]", "line 1 column 9: invalid Unicode"},
      {"[\"\\ud800\\u0041\"]", "line 1 column 15: invalid Unicode"},
      {"[\"\\udc00\"]", "line 1 column 9: invalid Unicode"},
      {"[\"a\tb\"]", "line 1 column 3: control character"},
      {"[\"\xc3\"]", "line 1 column 2: unable to decode"},
      {"[\"\xed\xa0\x80\"]", "line 1 column 2: unable to decode"},
      {"[-]", "line 1 column 2: "},
      {"[01]", "line 1 column 2: "},
      {"[1.]", "line 1 column 3: "},
      {"[.5]", "line 1 column 2: "},
      {"[+1]", "line 1 column 2: "},
      {"[1e+]", "line 1 column 4: "},
      {"[9223372036854775808]", "line 1 column 20: too big integer"},
      {"[-9223372036854775809]", "line 1 column 21: too big negative integer"},
      {"[1e309]", "line 1 column 6: real number overflow"},
      {"{\"k\":1,\"l\":2,\"k\":3}", "line 1 column 16: duplicate object key"},
      {"{\"k\":1,\"\\u006b\":3}", "line 1 column 15: duplicate object key"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    check_refused(cases[i][0], strlen(cases[i][0]), M2SE_EFORMAT, cases[i][1]);
  }
  check_refused("{\0}", 3, M2SE_EFORMAT, "line 1 column 2: ");
  check_refused("[\"a\0b\"]", 7, M2SE_EFORMAT, "line 1 column 3: control character");
  check_refused("[1]\0", 4, M2SE_EFORMAT, "line 1 column 4: ");
}

static void test_limits(void **state) {
  (void)state;
  struct m2se_json_limits limits = {.bytes_max = 12, .depth_max = 3, .values_max = 6};
  static const struct {
    const char *text;
    const char *message; // NULL: fine
  } cases[] = {
      {"[[[]],12345]", NULL}, // 12 bytes, depth 3, 1 + 3 + 1 values
      {"[[[]],123456]", "JSON text of 13 bytes, more than 12"},
      {"[[[[]]]]", "byte 3: nested more than 3 deep"},
      {"[{\"a\":{}}]", NULL},
      {"]]]][[[", "line 1 column 1: '[' or '{' expected near ']'"}, // a bracket too many is no depth
      {"[1,2,3,4,5]", NULL},
      {"[1,2,3,4,,]", "7 JSON values, more than 6"},
      {"[\",[{,[{,\"]", NULL}, // brackets in strings are no values
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct m2se_json *root = NULL;
    struct m2se_error error = {0};
    int code = m2se_json_parse(&root, cases[i].text, strlen(cases[i].text), &limits, &error);
    assert_string_equal(error.text, cases[i].message ? cases[i].message : "");
    assert_true((code == 0) == (cases[i].message == NULL));
    m2se_json_free(root);
  }
  // The deepest that the default allows, and one more.
  char deep[131];
  memset(deep, '[', 65);
  memset(deep + 65, ']', 65);
  deep[130] = '\0';
  check_refused(deep, 130, M2SE_ELIMIT, "byte 64: nested more than 64 deep");
  deep[129] = '\0';
  m2se_json_free(parse(deep + 1));
}

static void test_what_else_is_let_through(void **state) {
  (void)state;
  const char *text = "{\"a\":\"b\\u0000c\",\"n\":1000000000000000019884624838656,\"w\":7}";
  check_refused(text, strlen(text), M2SE_EFORMAT, "line 1 column 15: ");
  struct m2se_json_limits limits = M2SE_JSON_LIMITS_DEFAULT;
  limits.nul_allowed = limits.all_real = true;
  struct m2se_json *root = NULL;
  assert_int_equal(m2se_json_parse(&root, text, strlen(text), &limits, NULL), 0);
  const char *string = NULL;
  size_t length = 0;
  double large = 0;
  int64_t whole = 0;
  assert_int_equal(m2se_json_as_string(m2se_json_get(root, "a"), "a", &string, &length, NULL), 0);
  assert_int_equal(length, 3);
  assert_memory_equal(string, "b\0c", 4);
  assert_int_equal(m2se_json_as_double(m2se_json_get(root, "n"), "n", &large, NULL), 0);
  assert_true(large == 1e30);
  assert_int_equal(m2se_json_as_int64(m2se_json_get(root, "w"), "w", &whole, NULL), 0);
  assert_int_equal(whole, 7);
  m2se_json_free(root);
}

static void test_tree(void **state) {
  (void)state;
  struct m2se_json *root =
      parse(" {\"z\": [1, [true, {}], \"two\"], \"a\":null,\r\n\t\"\": {\"k\": -2.5e-1} } ");
  assert_int_equal(m2se_json_type(root), M2SE_JSON_OBJECT);
  assert_int_equal(m2se_json_size(root), 3);
  static const char *const keys[] = {"z", "a", ""};
  struct m2se_json_iterator member = {0};
  for (size_t i = 0; i < 3; i++) {
    assert_true(m2se_json_next(root, &member));
    assert_string_equal(member.key, keys[i]);
    assert_int_equal(member.key_length, strlen(keys[i]));
    assert_ptr_equal(member.value, m2se_json_get(root, keys[i]));
  }
  assert_false(m2se_json_next(root, &member));

  const struct m2se_json *list = m2se_json_get(root, "z");
  assert_int_equal(m2se_json_size(list), 3);
  const struct m2se_json *inner = m2se_json_at(list, 1);
  assert_int_equal(m2se_json_size(inner), 2);
  assert_int_equal(m2se_json_type(m2se_json_at(inner, 0)), M2SE_JSON_BOOL);
  assert_int_equal(m2se_json_type(m2se_json_at(inner, 1)), M2SE_JSON_OBJECT);
  assert_int_equal(m2se_json_size(m2se_json_at(inner, 1)), 0);
  assert_null(m2se_json_at(list, 3));
  assert_int_equal(m2se_json_type(m2se_json_get(root, "a")), M2SE_JSON_NULL);
  double real = 0;
  assert_int_equal(m2se_json_as_double(m2se_json_get(m2se_json_get(root, ""), "k"), "k", &real, NULL), 0);
  assert_true(real == -0.25);

  // Asked of something else, or of nothing.
  assert_null(m2se_json_get(root, "y"));
  assert_null(m2se_json_get(list, "z"));
  assert_null(m2se_json_get(NULL, "z"));
  assert_null(m2se_json_at(root, 0));
  assert_null(m2se_json_at(NULL, 0));
  assert_int_equal(m2se_json_size(NULL), 0);
  assert_int_equal(m2se_json_size(m2se_json_at(list, 2)), 0);
  assert_false(m2se_json_next(list, &(struct m2se_json_iterator){0}));
  assert_false(m2se_json_next(NULL, &(struct m2se_json_iterator){0}));
  m2se_json_free(root);
  m2se_json_free(NULL);
}

static void test_strings(void **state) {
  (void)state;
  struct m2se_json *root =
      parse("[\"\", \"\\\"\\\\\\/\\b\\f\\n\\r\\t\", \"\\u0041\\u00e4\\u20AC\\uD83d\\uDE00\", "
            "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\", \"\\u0001\x7f\"]");
  static const char *const expected[] = {"", "\"\\/\b\f\n\r\t", "A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
                                         "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\x01\x7f"};
  for (size_t i = 0; i < 5; i++) {
    const char *string = NULL;
    size_t length = 0;
    assert_int_equal(m2se_json_as_string(m2se_json_at(root, i), "x", &string, &length, NULL), 0);
    assert_string_equal(string, expected[i]);
    assert_int_equal(length, strlen(expected[i]));
  }
  m2se_json_free(root);
}

// One row a value: what each getter says of it. NULL: it is taken.
static void test_integers(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *int64;
    const char *uint64;
    uint64_t bits; // as either, if taken
  } cases[] = {
      {"0", NULL, NULL, 0},
      {"-0", NULL, NULL, 0},
      {"\"-0\"", NULL, NULL, 0},
      {"9223372036854775807", NULL, NULL, INT64_MAX},
      {"-9223372036854775808", NULL, "n: -9223372036854775808 is negative", (uint64_t)INT64_MIN},
      {"\"-9223372036854775808\"", NULL, "n: -9223372036854775808 is negative", (uint64_t)INT64_MIN},
      {"\"-9223372036854775809\"", "n: -9223372036854775809 does not fit in 64 bits with a sign",
       "n: -9223372036854775809 is negative", 0},
      {"\"9223372036854775808\"", "n: 9223372036854775808 does not fit in 64 bits with a sign", NULL,
       1ull << 63},
      {"\"18446744073709551615\"", "n: 18446744073709551615 does not fit in 64 bits with a sign", NULL,
       UINT64_MAX},
      {"\"18446744073709551616\"", "n: 18446744073709551616 does not fit in 64 bits",
       "n: 18446744073709551616 does not fit in 64 bits", 0},
      {"\"\"", "n: \"\" is not a decimal number", "n: \"\" is not a decimal number", 0},
      {"\"-\"", "n: \"-\" is not a decimal number", "n: \"-\" is not a decimal number", 0},
      {"\" 1\"", "n: \" 1\" is not a decimal number", "n: \" 1\" is not a decimal number", 0},
      {"\"1 \"", "n: \"1 \" is not a decimal number", "n: \"1 \" is not a decimal number", 0},
      {"\"+1\"", "n: \"+1\" is not a decimal number", "n: \"+1\" is not a decimal number", 0},
      {"\"0x10\"", "n: \"0x10\" is not a decimal number", "n: \"0x10\" is not a decimal number", 0},
      {"1.7e12", NULL, NULL, 1700000000000},
      {"-5.0", NULL, "n: -5 is negative", (uint64_t)-5},
      {"9007199254740992.0", NULL, NULL, 1ull << 53},
      {"9007199254740994.0", "n: 9007199254740994 is not a whole number up to 2^53",
       "n: 9007199254740994 is not a whole number up to 2^53", 0},
      {"1.5", "n: 1.5 is not a whole number up to 2^53", "n: 1.5 is not a whole number up to 2^53", 0},
      {"true", "n: bool where a whole number is needed", "n: bool where a whole number is needed", 0},
      {"{}", "n: object where a whole number is needed", "n: object where a whole number is needed", 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[64];
    snprintf(text, sizeof text, "[%s]", cases[i].text);
    struct m2se_json *root = parse(text);
    struct m2se_error error = {0};
    int64_t with_sign = 0x5a5a;
    int code = m2se_json_as_int64(m2se_json_at(root, 0), "n", &with_sign, &error);
    assert_string_equal(error.text, cases[i].int64 ? cases[i].int64 : "");
    assert_int_equal(code, error.code);
    assert_true(with_sign == (cases[i].int64 ? 0x5a5a : (int64_t)cases[i].bits));
    error = (struct m2se_error){0};
    uint64_t without_sign = 0x5a5a;
    code = m2se_json_as_uint64(m2se_json_at(root, 0), "n", &without_sign, &error);
    assert_string_equal(error.text, cases[i].uint64 ? cases[i].uint64 : "");
    assert_int_equal(code, error.code);
    assert_true(without_sign == (cases[i].uint64 ? 0x5a5a : cases[i].bits));
    m2se_json_free(root);
  }
}

static void test_getters_refuse(void **state) {
  (void)state;
  struct m2se_json *root = parse("[null, false, 1, 1.5, \"s\", [], {}]");
  // Which of the values, by index, each getter takes.
  for (size_t i = 0; i < 7; i++) {
    const struct m2se_json *value = m2se_json_at(root, i);
    struct m2se_error error = {0};
    bool truth = true;
    double real = 0;
    size_t size = 99;
    const char *string = NULL;
    assert_int_equal(m2se_json_as_bool(value, "b", &truth, &error), i == 1 ? 0 : M2SE_ETYPE);
    assert_int_equal(truth, i != 1);
    assert_int_equal(m2se_json_as_double(value, "d", &real, &error), i == 2 || i == 3 ? 0 : M2SE_ETYPE);
    assert_true(real == (i == 2 ? 1 : i == 3 ? 1.5 : 0));
    assert_int_equal(m2se_json_as_string(value, "s", &string, NULL, &error), i == 4 ? 0 : M2SE_ETYPE);
    assert_int_equal(m2se_json_as_array(value, "a", &size, &error), i == 5 ? 0 : M2SE_ETYPE);
    assert_int_equal(size, i == 5 ? 0 : 99);
    assert_int_equal(m2se_json_as_object(value, "o", &error), i == 6 ? 0 : M2SE_ETYPE);
    assert_int_equal(error.code, M2SE_ETYPE);
  }
  struct m2se_error error = {0};
  m2se_json_as_object(m2se_json_at(root, 5), "thing", &error);
  assert_string_equal(error.text, "thing: array where an object is needed");
  bool truth = true;
  assert_int_equal(m2se_json_as_bool(NULL, "flag", &truth, &error), M2SE_EMISSING);
  assert_string_equal(error.text, "flag: missing");
  m2se_json_free(root);
}

// ---- writing ----

static char *write_sample(uint32_t indent) {
  struct m2se_json_writer *json = m2se_json_writer_new(indent);
  m2se_json_put_object(json, NULL);
  m2se_json_put_text(json, "text", "q\"b\\n\n\x01\x7f \xc3\xa4 \xff\xc3");
  m2se_json_put_string(json, "bytes", "a\0b", 3);
  m2se_json_put_int64(json, "least", INT64_MIN);
  m2se_json_put_decimal(json, "most", UINT64_MAX);
  m2se_json_put_array(json, "reals");
  m2se_json_put_double(json, NULL, 0.1f);
  m2se_json_put_double(json, NULL, -3);
  m2se_json_put_double(json, NULL, 1e300);
  m2se_json_put_double(json, NULL, NAN);
  m2se_json_put_double(json, NULL, -INFINITY);
  m2se_json_put_end(json);
  m2se_json_put_array(json, "none");
  m2se_json_put_end(json);
  m2se_json_put_bool(json, "k\"", true);
  m2se_json_put_null(json, "null");
  m2se_json_put_object(json, "inner");
  m2se_json_put_null(json, "\xff");
  m2se_json_put_end(json);
  m2se_json_put_end(json);
  return m2se_json_finish(json, NULL);
}

static void test_writer(void **state) {
  (void)state;
  char *line = write_sample(0);
  assert_string_equal(
      line, "{\"text\":\"q\\\"b\\\\n\\n\\u0001\x7f \xc3\xa4 \xef\xbf\xbd\xef\xbf\xbd\","
            "\"bytes\":\"a\\u0000b\",\"least\":-9223372036854775808,\"most\":\"18446744073709551615\","
            "\"reals\":[0.100000001,-3.0,1e300,null,null],\"none\":[],\"k\\\"\":true,\"null\":null,"
            "\"inner\":{\"\xef\xbf\xbd\":null}}");
  free(line);

  char *pretty = write_sample(2);
  assert_non_null(strstr(pretty, "{\n  \"text\": "));
  assert_non_null(strstr(pretty, ",\n  \"none\": [],\n"));
  assert_non_null(strstr(pretty, "\n  \"inner\": {\n    \"\xef\xbf\xbd\": null\n  }\n}"));
  free(pretty);

  struct m2se_json_writer *json = m2se_json_writer_new(0);
  size_t length = 0;
  m2se_json_put_int64(json, NULL, 7); // a value alone
  char *seven = m2se_json_finish(json, &length);
  assert_string_equal(seven, "7");
  assert_int_equal(length, 1);
  free(seven);

  json = m2se_json_writer_new(0); // a key again
  m2se_json_put_object(json, NULL);
  m2se_json_put_bool(json, "a", false);
  m2se_json_put_null(json, "b");
  m2se_json_put_bool(json, "a", true);
  m2se_json_put_end(json);
  char *last = m2se_json_finish(json, NULL);
  assert_string_equal(last, "{\"a\":true,\"b\":null}");
  free(last);

  json = m2se_json_writer_new(0); // given up half way
  m2se_json_put_object(json, NULL);
  m2se_json_put_array(json, "a");
  m2se_json_writer_free(json);
}

// 9 digits carry every float.
static void test_reals_come_back(void **state) {
  (void)state;
  uint32_t bits = 1;
  for (int i = 0; i < 20000; i++) {
    bits = bits * 1664525u + 1013904223u;
    float number;
    memcpy(&number, &bits, sizeof number);
    if (!isfinite(number)) {
      continue;
    }
    struct m2se_json_writer *json = m2se_json_writer_new(0);
    m2se_json_put_array(json, NULL);
    m2se_json_put_double(json, NULL, number);
    m2se_json_put_end(json);
    char *text = m2se_json_finish(json, NULL);
    struct m2se_json *root = parse(text);
    free(text);
    double back = 0;
    assert_int_equal(m2se_json_as_double(m2se_json_at(root, 0), "", &back, NULL), 0);
    assert_true((float)back == number);
    m2se_json_free(root);
  }
}

// ---- memory ----

static void test_no_memory(void **state) {
  (void)state;
  static const char text[] = "{\"a\":[{\"b\":\"c\"},1,2.5],\"d\":{\"e\":null}}";
  long before = fail_nth_outstanding;
  bool failed = true;
  for (long n = 1; failed; n++) {
    struct m2se_json *root = NULL;
    struct m2se_error error = {0};
    fail_nth_start(n);
    int code = m2se_json_parse(&root, text, strlen(text), NULL, &error);
    failed = fail_nth_stop();
    assert_int_equal(code, failed ? M2SE_ENOMEM : 0);
    assert_true((root == NULL) == failed);
    m2se_json_free(root);
    assert_int_equal(fail_nth_outstanding, before);
  }
  failed = true;
  for (long n = 1; failed; n++) {
    fail_nth_start(n);
    char *written = write_sample(8);
    failed = fail_nth_stop();
    assert_true((written == NULL) == failed);
    free(written);
    assert_int_equal(fail_nth_outstanding, before);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_utf8),       cmocka_unit_test(test_error_list),
      cmocka_unit_test(test_error_text), cmocka_unit_test(test_refused),
      cmocka_unit_test(test_limits),     cmocka_unit_test(test_what_else_is_let_through),
      cmocka_unit_test(test_tree),       cmocka_unit_test(test_strings),
      cmocka_unit_test(test_integers),   cmocka_unit_test(test_getters_refuse),
      cmocka_unit_test(test_writer),     cmocka_unit_test(test_reals_come_back),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
