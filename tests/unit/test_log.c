// The log: both forms, escaping, cutting, the rate limit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/log.h"
#include "model/files/json.h"

static struct m2sed_log logger;
static char out[65536];

static void begin(enum m2sed_log_format format) {
  int fd = memfd_create("log", 0);
  assert_true(fd >= 0);
  m2sed_log_init(&logger, fd, M2SED_LOG_INFO, format, "node 1");
}

static const char *end(void) {
  ssize_t size = pread(logger.fd, out, sizeof out - 1, 0);
  assert_true(size >= 0);
  out[size] = 0;
  close(logger.fd);
  return out;
}

#define WRITE(now_ms, level, text, ...)                                                                      \
  m2sed_log_write_at(&logger, now_ms, level, text, (const struct m2sed_log_field[]){__VA_ARGS__},            \
                     sizeof((const struct m2sed_log_field[]){__VA_ARGS__}) / sizeof(struct m2sed_log_field))

static void test_logfmt(void **state) {
  (void)state;
  begin(M2SED_LOG_LOGFMT);
  WRITE(1700000000123, M2SED_LOG_WARN, "dead letter", M2SED_S("topic", "a"), M2SED_U("offset", UINT64_MAX),
        M2SED_I("n", -5), M2SED_R("ms", 0.25), M2SED_S("why", "a=\"b\" c\n\x1b[31m\x80é"),
        M2SED_S("none", NULL));
  assert_string_equal(end(),
                      "time=2023-11-14T22:13:20.123Z level=warn instance=\"node 1\" event=\"dead letter\" "
                      "topic=a offset=18446744073709551615 n=-5 ms=0.25 "
                      "why=\"a=\\\"b\\\" c\\u000a\\u001b[31m\\u0080é\" none=\"\"\n");
}

static void test_json_is_json(void **state) {
  (void)state;
  begin(M2SED_LOG_JSON);
  char bytes[256];
  for (int i = 0; i < 256; i++)
    bytes[i] = (char)i;
  WRITE(1700000000000, M2SED_LOG_ERROR, "x", M2SED_B("id", bytes, sizeof bytes), M2SED_R("bad", 0.0 / 0.0));
  const char *line = end();
  assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
  /* Everything but U+0000, which the reader of this project refuses as such, must be readable. */
  char *zero = strstr(out, "\\u0000");
  assert_non_null(zero);
  zero[5] = '1';
  struct m2se_json *root;
  struct m2se_error error;
  if (m2se_json_parse(&root, out, strlen(out), NULL, &error))
    fail_msg("%s", error.text);
  assert_int_equal(m2se_json_type(m2se_json_get(root, "bad")), M2SE_JSON_NULL);
  assert_int_equal(m2se_json_type(m2se_json_get(root, "id")), M2SE_JSON_STRING);
  m2se_json_free(root);
}

static void test_long_values_are_cut(void **state) {
  (void)state;
  for (int json = 0; json < 2; json++) {
    begin(json ? M2SED_LOG_JSON : M2SED_LOG_LOGFMT);
    char *text = malloc(10000);
    for (int i = 0; i < 10000; i++)
      text[i] = "\xc3\xa9\n"[i % 3];
    WRITE(0, M2SED_LOG_INFO, "long", M2SED_B("a", text, 10000), M2SED_S("b", "lost"));
    free(text);
    const char *line = end();
    assert_true(strlen(line) <= M2SED_LOG_LINE_MAX + 1 && strlen(line) > M2SED_LOG_LINE_MAX - 20);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    struct m2se_json *root;
    if (json) {
      assert_int_equal(m2se_json_parse(&root, line, strlen(line), NULL, NULL), 0);
      m2se_json_free(root);
    }
  }
}

static void test_level(void **state) {
  (void)state;
  begin(M2SED_LOG_LOGFMT);
  WRITE(0, M2SED_LOG_DEBUG, "quiet", M2SED_U("a", 1));
  assert_string_equal(end(), "");
}

static void test_rate_limit(void **state) {
  (void)state;
  begin(M2SED_LOG_LOGFMT);
  for (uint64_t i = 0; i < 100; i++)
    WRITE(1000 + (int64_t)i, M2SED_LOG_WARN, "again and again", M2SED_U("i", i));
  WRITE(1100, M2SED_LOG_WARN, "another", M2SED_U("i", 1));
  WRITE(1000 + M2SED_LOG_WINDOW_MS, M2SED_LOG_WARN, "again and again", M2SED_U("i", 100));
  end();
  uint32_t lines = 0;
  for (const char *c = out; *c; c++)
    lines += *c == '\n';
  assert_int_equal(lines, M2SED_LOG_BURST + 2);
  assert_non_null(strstr(out, "event=another"));
  assert_non_null(strstr(out, "i=100 suppressed=95\n"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_logfmt),
      cmocka_unit_test(test_json_is_json),
      cmocka_unit_test(test_long_values_are_cut),
      cmocka_unit_test(test_level),
      cmocka_unit_test(test_rate_limit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
