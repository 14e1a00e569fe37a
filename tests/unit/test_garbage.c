// The circuit breaker: when it opens, against counting by hand.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/garbage.h"
#include "model/random.h"

static void test_opens_with_the_first_record_too_many(void **state) {
  (void)state;
  struct m2sed_garbage garbage;
  assert_int_equal(m2sed_garbage_init(&garbage, 10, 0.5), 0);
  for (int i = 0; i < 9; i++)
    assert_false(m2sed_garbage_count(&garbage, i < 6)); /* too many, but the window is not full */
  assert_true(m2sed_garbage_count(&garbage, false));
  assert_true(garbage.open);
  assert_false(m2sed_garbage_count(&garbage, true)); /* it is open: told once */
  m2sed_garbage_close(&garbage);
  assert_false(garbage.open);
  for (int i = 0; i < 9; i++)
    assert_false(m2sed_garbage_count(&garbage, true)); /* a new window */
  assert_true(m2sed_garbage_count(&garbage, true));
  m2sed_garbage_deinit(&garbage);
}

static void test_half_is_not_more_than_half(void **state) {
  (void)state;
  struct m2sed_garbage garbage;
  assert_int_equal(m2sed_garbage_init(&garbage, 10, 0.5), 0);
  for (int i = 0; i < 100; i++)
    assert_false(m2sed_garbage_count(&garbage, i % 2));
  assert_true(m2sed_garbage_count(&garbage, true)); /* in place of a good one */
  m2sed_garbage_deinit(&garbage);
}

static void test_never_with_a_share_of_one(void **state) {
  (void)state;
  struct m2sed_garbage garbage;
  assert_int_equal(m2sed_garbage_init(&garbage, 10, 1), 0);
  for (int i = 0; i < 100; i++)
    assert_false(m2sed_garbage_count(&garbage, true));
  m2sed_garbage_deinit(&garbage);
}

static void test_like_counting_by_hand(void **state) {
  (void)state;
  enum { RECORDS = 5000, WINDOW = 37 };
  static bool bad[RECORDS];
  struct m2sed_garbage garbage;
  assert_int_equal(m2sed_garbage_init(&garbage, WINDOW, 0.6), 0);
  int since = 0, opened = 0;
  for (int i = 0; i < RECORDS; i++) {
    bad[i] = m2se_random_below(7, 0, M2SE_RANDOM_REPLAY, (uint64_t)i, 100) < 45;
    int count = 0;
    for (int j = i - WINDOW + 1; j <= i; j++)
      count += j >= since && bad[j];
    bool wanted = i - since + 1 >= WINDOW && count > 0.6 * WINDOW;
    assert_int_equal(m2sed_garbage_count(&garbage, bad[i]), wanted);
    if (wanted) {
      opened++;
      since = i + 1;
      m2sed_garbage_close(&garbage);
    }
  }
  assert_true(opened > 0);
  m2sed_garbage_deinit(&garbage);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_opens_with_the_first_record_too_many),
      cmocka_unit_test(test_half_is_not_more_than_half),
      cmocka_unit_test(test_never_with_a_share_of_one),
      cmocka_unit_test(test_like_counting_by_hand),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
