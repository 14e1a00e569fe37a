// Requests to forget: where their topic goes on, who is covered, what a checkpoint keeps of it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/erasures.h"

static struct m2sed_erasures erasures, again;

static int clear(void **state) {
  (void)state;
  memset(&erasures, 0, sizeof erasures);
  memset(&again, 0, sizeof again);
  return 0;
}

static int64_t begin(int32_t number, int64_t low, int64_t high, uint64_t wanted_lost) {
  uint64_t lost;
  int64_t offset = m2sed_erasures_begin(&erasures, number, low, high, &lost);
  assert_true(lost == wanted_lost);
  return offset;
}

static void test_where_it_goes_on(void **state) {
  (void)state;
  assert_int_equal(begin(0, 3, 10, 0), 3); /* nothing known: from the first one on */
  assert_true(m2sed_erasures_behind(&erasures));
  m2sed_erasures_done(&erasures, 0, 3, 77, 1000);
  m2sed_erasures_pass(&erasures, 0, 4);
  assert_true(m2sed_erasures_progress(&erasures) == 5);
  m2sed_erasures_end(&erasures, 0);
  assert_false(m2sed_erasures_behind(&erasures));
  assert_int_equal(begin(0, 3, 5, 0), 5);
  assert_false(m2sed_erasures_behind(&erasures));
  assert_int_equal(begin(0, 9, 12, 4), 9); /* retention */
  assert_int_equal(begin(0, 0, 2, 0), 0);  /* made anew */
  assert_int_equal(begin(1, 0, 1, 0), 0);
  m2sed_erasures_revoke(&erasures, 0);
  assert_true(m2sed_erasures_behind(&erasures));
  m2sed_erasures_revoke(&erasures, 1);
  assert_false(m2sed_erasures_behind(&erasures));
  m2sed_erasures_pass(&erasures, 1, 0);
  m2sed_erasures_new_log(&erasures);
  assert_true(m2sed_erasures_progress(&erasures) == 0);
  assert_int_equal(begin(1, 0, 4, 0), 0);
}

static void test_covers_until_its_time(void **state) {
  (void)state;
  assert_int_equal(begin(0, 0, 10, 0), 0);
  assert_false(m2sed_erasures_cover(&erasures, 77, 0));
  m2sed_erasures_done(&erasures, 0, 0, 77, 1000);
  m2sed_erasures_done(&erasures, 0, 1, 78, 3000);
  assert_true(m2sed_erasures_cover(&erasures, 77, 1000));
  assert_false(m2sed_erasures_cover(&erasures, 77, 1001));
  assert_true(m2sed_erasures_cover(&erasures, 78, 1001));
  assert_false(m2sed_erasures_cover(&erasures, 79, 500));
  assert_false(m2sed_erasures_cover(&erasures, 77, -1)); /* Kafka has no time for it */
  m2sed_erasures_done(&erasures, 0, 2, 77, 2000);        /* asked again */
  assert_true(m2sed_erasures_cover(&erasures, 77, 1500));
}

static void test_checkpoint(void **state) {
  (void)state;
  enum { MORE = 100 };
  assert_int_equal(begin(0, 0, 1, 0), 0);
  assert_int_equal(begin(5, 0, 1, 0), 0);
  for (uint64_t i = 0; i < M2SED_ERASURES_KEPT + MORE; i++) /* the oldest go */
    m2sed_erasures_done(&erasures, 5, (int64_t)i, UINT64_MAX - i, 1000000 + (int64_t)i);
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  m2se_json_put_object(writer, NULL);
  m2sed_erasures_write(&erasures, writer);
  m2se_json_put_end(writer);
  char *text = m2se_json_finish(writer, NULL);
  struct m2se_json *root;
  struct m2se_error error;
  assert_int_equal(m2se_json_parse(&root, text, strlen(text), NULL, &error), 0);
  assert_int_equal(m2sed_erasures_read(&again, root, &error), 0);
  uint64_t lost;
  assert_int_equal(m2sed_erasures_begin(&again, 5, 0, 10000, &lost), M2SED_ERASURES_KEPT + MORE);
  assert_int_equal(m2sed_erasures_begin(&again, 0, 0, 10000, &lost), 0);
  for (uint64_t i = 0; i < M2SED_ERASURES_KEPT + MORE; i++) {
    int64_t until_ms = 1000000 + (int64_t)i;
    assert_int_equal(m2sed_erasures_cover(&again, UINT64_MAX - i, until_ms), i >= MORE);
    assert_false(m2sed_erasures_cover(&again, UINT64_MAX - i, until_ms + 1));
  }
  m2se_json_free(root);
  free(text);
}

static void test_damaged(void **state) {
  (void)state;
  const char *const texts[] = {"{\"erasures\": 1}",
                               "{\"erasures\": [{\"partition\": 64, \"offset\": \"1\"}]}",
                               "{\"erasures\": [{\"partition\": 0, \"offset\": \"-1\"}]}",
                               "{\"erasures\": [{\"partition\": 0}]}",
                               "{\"erased\": [{\"user\": \"1\"}]}",
                               "{\"erased\": [{\"user\": \"x\", \"until_ms\": 1}]}"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct m2se_json *root;
    struct m2se_error error;
    assert_int_equal(m2se_json_parse(&root, texts[i], strlen(texts[i]), NULL, &error), 0);
    if (!m2sed_erasures_read(&again, root, &error))
      fail_msg("accepted: %s", texts[i]);
    m2se_json_free(root);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_where_it_goes_on, clear),
      cmocka_unit_test_setup(test_covers_until_its_time, clear),
      cmocka_unit_test_setup(test_checkpoint, clear),
      cmocka_unit_test_setup(test_damaged, clear),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
