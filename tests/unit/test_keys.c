/* Names of keys, and the URI of the server: pure functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ingest/keys.h"
#include "ingest/redis_uri.h"

static void check_key(enum m2se_key_kind kind, const char *id, size_t id_size, const char *wanted) {
  struct m2se_key key;
  m2se_key_build(&key, "m2se:", kind, id, id_size);
  assert_string_equal(key.bytes, wanted);
  assert_int_equal(key.size, strlen(wanted));
  if (!id)
    return;
  char back[M2SE_ID_BYTES_MAX + 1];
  uint32_t size;
  assert_true(m2se_key_parse("m2se:", kind, key.bytes, key.size, back, &size));
  assert_int_equal(size, id_size);
  assert_memory_equal(back, id, id_size);
}

static void test_build_and_parse(void **state) {
  (void)state;
  check_key(M2SE_KEY_SEQUENCE, "42", 2, "m2se:seq:42");
  check_key(M2SE_KEY_USER, "a{b}%c", 6, "m2se:user:a%7Bb%7D%25c");
  check_key(M2SE_KEY_ITEM, "\xc3\xa9 :*", 5, "m2se:item:\xc3\xa9 :*");
  check_key(M2SE_KEY_NEAR, "%7B", 3, "m2se:near:%257B");
  check_key(M2SE_KEY_MODEL, NULL, 0, "m2se:model");
  check_key(M2SE_KEY_MARKER, NULL, 0, "m2se:marker");
  check_key(M2SE_KEY_LEASE, NULL, 0, "m2se:lease");
  check_key(M2SE_KEY_STATUS, NULL, 0, "m2se:status");
  /* The longest of all. */
  char prefix[M2SE_KEY_PREFIX_MAX + 1] = "", id[M2SE_ID_BYTES_MAX];
  memset(prefix, 'p', M2SE_KEY_PREFIX_MAX);
  memset(id, '%', sizeof id);
  struct m2se_key key;
  m2se_key_build(&key, prefix, M2SE_KEY_ITEM, id, sizeof id);
  assert_int_equal(key.size, M2SE_KEY_PREFIX_MAX + 5 + 3 * M2SE_ID_BYTES_MAX);
  char back[M2SE_ID_BYTES_MAX + 1];
  uint32_t size;
  assert_true(m2se_key_parse(prefix, M2SE_KEY_ITEM, key.bytes, key.size, back, &size));
  assert_int_equal(size, sizeof id);
  memset(prefix, '*', M2SE_KEY_PREFIX_MAX);
  m2se_key_pattern(&key, prefix, M2SE_KEY_SEQUENCE);
  assert_int_equal(key.size, 2 * M2SE_KEY_PREFIX_MAX + 5);
  m2se_key_pattern(&key, "a[1]:", M2SE_KEY_USER);
  assert_string_equal(key.bytes, "a\\[1\\]:user:*");
}

static void test_foreign_keys(void **state) {
  (void)state;
  static const char *const foreign[] = {"m2se:user:",  "m2se:item:1",  "m2s:user:1",    "m2se:user:{1}",
                                        "m2se:user:%", "m2se:user:%2", "m2se:user:%7b", "m2se:user:%41"};
  char id[M2SE_ID_BYTES_MAX + 1];
  uint32_t size;
  for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
    assert_false(m2se_key_parse("m2se:", M2SE_KEY_USER, foreign[i], strlen(foreign[i]), id, &size));
  char longer[256] = "m2se:user:";
  memset(longer + 10, 'x', M2SE_ID_BYTES_MAX + 1);
  assert_false(m2se_key_parse("m2se:", M2SE_KEY_USER, longer, 10 + M2SE_ID_BYTES_MAX + 1, id, &size));
  assert_true(m2se_key_parse("m2se:", M2SE_KEY_USER, longer, 10 + M2SE_ID_BYTES_MAX, id, &size));
}

static void test_prefix(void **state) {
  (void)state;
  struct m2se_error error;
  char longest[M2SE_KEY_PREFIX_MAX + 2] = "";
  memset(longest, 'p', M2SE_KEY_PREFIX_MAX);
  assert_int_equal(m2se_key_check_prefix("m2se:", &error), 0);
  assert_int_equal(m2se_key_check_prefix("", &error), 0);
  assert_int_equal(m2se_key_check_prefix(longest, &error), 0);
  longest[M2SE_KEY_PREFIX_MAX] = 'p';
  assert_int_equal(m2se_key_check_prefix(longest, &error), M2SE_EINVAL);
  assert_int_equal(m2se_key_check_prefix("a b", &error), M2SE_EINVAL);
  assert_int_equal(m2se_key_check_prefix("{a}", &error), M2SE_EINVAL);
  assert_int_equal(m2se_key_check_prefix("a\n", &error), M2SE_EINVAL);
}

static void check_uri(const char *text, const struct m2se_redis_uri *wanted, const char *described) {
  struct m2se_redis_uri uri;
  struct m2se_error error = {0};
  if (m2se_redis_uri_parse(&uri, text, &error))
    fail_msg("%s: %s", text, error.text);
  assert_int_equal(uri.is_unix, wanted->is_unix);
  assert_string_equal(uri.host, wanted->host);
  assert_string_equal(uri.path, wanted->path);
  assert_string_equal(uri.user, wanted->user);
  assert_string_equal(uri.password, wanted->password);
  assert_int_equal(uri.port, wanted->port);
  assert_int_equal(uri.database, wanted->database);
  char text_of[320];
  m2se_redis_uri_describe(&uri, text_of);
  assert_string_equal(text_of, described);
}

static void test_uris(void **state) {
  (void)state;
  check_uri("redis://h", &(struct m2se_redis_uri){.host = "h", .port = 6379}, "h:6379");
  check_uri("redis://h/", &(struct m2se_redis_uri){.host = "h", .port = 6379}, "h:6379");
  check_uri("redis://h:1/15", &(struct m2se_redis_uri){.host = "h", .port = 1, .database = 15}, "h:1");
  check_uri("redis://:pa%2Fss@h:65535",
            &(struct m2se_redis_uri){.host = "h", .port = 65535, .password = "pa/ss"}, "h:65535");
  check_uri(
      "redis://u%3A:p:w@@[::1]:7/2",
      &(struct m2se_redis_uri){.host = "::1", .port = 7, .user = "u:", .password = "p:w@", .database = 2},
      "[::1]:7");
  check_uri("redis://[fe80::1]", &(struct m2se_redis_uri){.host = "fe80::1", .port = 6379}, "[fe80::1]:6379");
  check_uri("unix:///a/b.sock", &(struct m2se_redis_uri){.is_unix = true, .port = 6379, .path = "/a/b.sock"},
            "/a/b.sock");
  check_uri("unix://u:p@/a%20b?db=3",
            &(struct m2se_redis_uri){
                .is_unix = true, .port = 6379, .path = "/a b", .user = "u", .password = "p", .database = 3},
            "/a b");
}

static void test_wrong_uris(void **state) {
  (void)state;
  static const struct {
    const char *uri, *complaint;
  } wrong[] = {
      {"", "must begin"},
      {"localhost:6379", "must begin"},
      {"rediss://h", "TLS"},
      {"redis://", "host is empty"},
      {"redis://:1", "host is empty"},
      {"redis://h:", "port"},
      {"redis://h:0", "port"},
      {"redis://h:65536", "port"},
      {"redis://h:6379x", "port"},
      {"redis://h/x", "database"},
      {"redis://h/-1", "database"},
      {"redis://h/99999999999999999999", "database"},
      {"redis://secret@h", "before '@'"},
      {"redis://u:@h", "password is empty"},
      {"redis://u:sec%ret@h", "password has a '%'"},
      {"redis://u:secret%00@h", "password has a '%'"},
      {"redis://[::1", "']'"},
      {"redis://[::1]x", "']'"},
      {"unix://a/b", "absolute"},
      {"unix://", "absolute"},
      {"unix:///a?x=1", "db=N"},
      {"unix:///a?db=x", "database"},
      {"unix:///"
       "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
       "0123456",
       "longer"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    struct m2se_redis_uri uri;
    struct m2se_error error = {0};
    assert_int_equal(m2se_redis_uri_parse(&uri, wrong[i].uri, &error), M2SE_EINVAL);
    if (!strstr(error.text, wrong[i].complaint))
      fail_msg("%s: %s", wrong[i].uri, error.text);
    assert_null(strstr(error.text, "sec"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_build_and_parse), cmocka_unit_test(test_foreign_keys),
      cmocka_unit_test(test_prefix),          cmocka_unit_test(test_uris),
      cmocka_unit_test(test_wrong_uris),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
