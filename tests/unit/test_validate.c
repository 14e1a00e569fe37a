// The rules that a stranger's record must keep: ids, texts, and the line that says what is wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "codec_rig.h"
#include "ingest/validate.h"

static int validate(const char *id, size_t size, struct m2se_refusal *refusal) {
  uint8_t *copy = exact_copy(id, size);
  int code = m2se_validate_id((const char *)copy, size, "user", refusal);
  destroy_copy(copy, size);
  return code;
}

static void test_good_ids(void **state) {
  (void)state;
  static const char *const good[] = {
      "a",
      " ",
      "{42}%",
      "a b\"'\\/",
      "~",
      "\xC2\xA0",         // U+00A0, the first behind the control characters
      "\xC3\x9F\xC3\x80", // U+00DF U+00C0: their last bytes are no control characters
      "\xE2\x82\xAC",
      "\xEF\xBF\xBD",
      "\xF0\x9F\x8E\xAC",
      "\xF4\x8F\xBF\xBF"};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
    assert_int_equal(validate(good[i], strlen(good[i]), NULL), 0);
  char longest[M2SE_ID_BYTES_MAX + 1];
  memset(longest, 'x', sizeof longest);
  struct m2se_refusal refusal;
  assert_int_equal(validate(longest, M2SE_ID_BYTES_MAX, &refusal), 0);
  check_refusal(validate(longest, sizeof longest, &refusal), &refusal, M2SE_RULE_ID,
                "user: 129 bytes, at most 128 are allowed");
  check_refusal(m2se_validate_id(NULL, 0, "key", &refusal), &refusal, M2SE_RULE_ID, "key: missing or empty");
}

static void test_control_characters(void **state) {
  (void)state;
  struct m2se_refusal refusal;
  for (unsigned c = 0; c <= 0xA0; c++) {
    char id[4] = {'x', (char)c, 'y'}, why[32];
    size_t size = 3;
    if (c >= 0x80) {
      id[1] = (char)0xC2;
      id[2] = (char)c;
    }
    bool control = c < 0x20 || (c >= 0x7F && c <= 0x9F);
    if (!control) {
      assert_int_equal(validate(id, size, &refusal), 0);
      continue;
    }
    snprintf(why, sizeof why, "U+%04X at byte 1", c);
    check_refusal(validate(id, size, &refusal), &refusal, c ? M2SE_RULE_ID : M2SE_RULE_TEXT, c ? why : "NUL");
  }
}

static void test_texts(void **state) {
  (void)state;
  static const char *const bad[] = {"\x80",         "\xC2",
                                    "a\xC2",        "\xC0\x80",
                                    "\xE2\x82",     "\xE2\x28\xA1",
                                    "\xED\xA0\x80", "\xF4\x90\x80\x80",
                                    "\xF8\x88\x80", "\xF0\x80\x80\x80",
                                    "ok\xFF"};
  struct m2se_refusal refusal;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    size_t size = strlen(bad[i]);
    check_refusal(validate(bad[i], size, &refusal), &refusal, M2SE_RULE_TEXT, "user: not valid UTF-8");
    check_refusal(m2se_validate_text(bad[i], size, "t", &refusal), &refusal, M2SE_RULE_TEXT, "t: not valid");
  }
  check_refusal(m2se_validate_text("a\0b", 3, "t", &refusal), &refusal, M2SE_RULE_TEXT,
                "t: holds a NUL byte");
  assert_int_equal(m2se_validate_text("", 0, "t", &refusal), 0);
  assert_int_equal(m2se_validate_text("\t\n\x7F", 3, "t", &refusal), 0); // texts may have them
}

/* Whatever is quoted from a record: one line of UTF-8 that fits. */
static void test_refusal_text(void **state) {
  (void)state;
  struct m2se_refusal refusal;
  char raw[600];
  memset(raw, '\n', 300);
  raw[300] = 0;
  assert_int_equal(m2se_refuse(&refusal, M2SE_RULE_SIZE, "%s", raw), M2SE_EFORMAT);
  assert_int_equal(refusal.rule, M2SE_RULE_SIZE);
  assert_null(strchr(refusal.text, '\n'));
  assert_int_equal(strlen(refusal.text), sizeof refusal.text - 1);
  m2se_refusal_write(&refusal, M2SE_RULE_ID, "a\xFF\x1B[31m%d", 7);
  assert_int_equal(m2se_validate_text(refusal.text, strlen(refusal.text), "refusal", NULL), 0);
  assert_null(strchr(refusal.text, 0x1B));
  // Three-byte characters that don't divide the room: cut at a character.
  for (int shift = 0; shift < 3; shift++) {
    for (int i = 0; i < 180; i++)
      memcpy(raw + shift + i * 3, "\xE2\x82\xAC", 3);
    memset(raw, 'x', (size_t)shift);
    raw[shift + 540] = 0;
    m2se_refusal_write(&refusal, M2SE_RULE_ID, "%s", raw);
    size_t length = strlen(refusal.text);
    assert_in_range(length, sizeof refusal.text - 3, sizeof refusal.text - 1);
    assert_int_equal(m2se_validate_text(refusal.text, length, "refusal", NULL), 0);
  }
  assert_int_equal(m2se_refuse(NULL, M2SE_RULE_ID, "%s", "nobody listens"), M2SE_EFORMAT);
}

/* Names are labels of metrics: lower case, each once. */
static void test_names(void **state) {
  (void)state;
  for (int i = 0; i < M2SE_RULE_COUNT_OF_ALL; i++) {
    const char *name = m2se_rule_name((enum m2se_rule)i);
    assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name));
    assert_in_range(strlen(name), 1, 32);
    assert_true(strlen(m2se_rule_text((enum m2se_rule)i)) > 10);
    for (int j = 0; j < i; j++)
      assert_string_not_equal(name, m2se_rule_name((enum m2se_rule)j));
  }
  assert_string_equal(m2se_rule_name(M2SE_RULE_SIZE), "size");
  assert_string_equal(m2se_rule_name(M2SE_RULE_FINITE), "finite");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_good_ids), cmocka_unit_test(test_control_characters),
      cmocka_unit_test(test_texts),    cmocka_unit_test(test_refusal_text),
      cmocka_unit_test(test_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
