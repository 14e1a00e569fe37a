// When a thread counts as stuck.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/watchdog.h"

static const struct m2sed_pulse asleep = {.beats = 7, .idle = true};

static const char *second(struct m2sed_watchdog *watchdog, struct m2sed_pulse trainer,
                          struct m2sed_pulse server) {
  const struct m2sed_pulse pulses[M2SED_WATCHED_COUNT] = {trainer, server};
  return m2sed_watchdog_second(watchdog, pulses);
}

static void test_bound(void **state) {
  (void)state;
  const struct {
    uint64_t service_us;
    uint32_t seconds;
  } bounds[] = {{0, M2SED_WATCHDOG_SECONDS}, {1, 1}, {3999999, 1}, {4000000, 2}, {30000000, 15},
                {UINT64_MAX, UINT32_MAX}};
  for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
    struct m2sed_watchdog watchdog;
    m2sed_watchdog_init(&watchdog, bounds[i].service_us);
    assert_int_equal(watchdog.bound_seconds, bounds[i].seconds);
  }
}

/* Neither one that sleeps nor one that works, however little at a time. */
static void test_alive(void **state) {
  (void)state;
  struct m2sed_watchdog watchdog;
  m2sed_watchdog_init(&watchdog, 6000000);
  for (uint64_t i = 0; i < 100; i++) {
    assert_null(second(&watchdog, asleep, (struct m2sed_pulse){.beats = 1 + i / 4}));
    assert_true(watchdog.threads[M2SED_WATCHED_SERVER].silent_seconds <= 3);
  }
}

static void test_stuck_until_it_answers(void **state) {
  (void)state;
  for (int which = 0; which < M2SED_WATCHED_COUNT; which++) {
    struct m2sed_watchdog watchdog;
    m2sed_watchdog_init(&watchdog, 6000000);
    struct m2sed_pulse pulses[M2SED_WATCHED_COUNT] = {asleep, asleep};
    pulses[which].idle = false;
    assert_null(m2sed_watchdog_second(&watchdog, pulses)); /* the beat that is seen here */
    for (int i = 0; i < 3; i++)
      assert_null(m2sed_watchdog_second(&watchdog, pulses));
    for (int i = 0; i < 3; i++) {
      const char *text = m2sed_watchdog_second(&watchdog, pulses);
      assert_non_null(text);
      assert_non_null(strstr(text, which == M2SED_WATCHED_TRAINER ? "training" : "serving"));
    }
    pulses[which].beats++; /* a long step has ended */
    for (int i = 0; i < 4; i++)
      assert_null(m2sed_watchdog_second(&watchdog, pulses)); /* counted anew */
    assert_non_null(m2sed_watchdog_second(&watchdog, pulses));
    pulses[which].idle = true; /* ended, or sleeps */
    assert_null(m2sed_watchdog_second(&watchdog, pulses));
  }
}

/* One that works does not speak for the other. */
static void test_each_by_itself(void **state) {
  (void)state;
  struct m2sed_watchdog watchdog;
  m2sed_watchdog_init(&watchdog, 6000000);
  const char *text = NULL;
  for (uint64_t i = 1; i <= 5; i++)
    text = second(&watchdog, (struct m2sed_pulse){.beats = i}, (struct m2sed_pulse){.beats = 1});
  assert_non_null(text);
  assert_non_null(strstr(text, "serving"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bound),
      cmocka_unit_test(test_alive),
      cmocka_unit_test(test_stuck_until_it_answers),
      cmocka_unit_test(test_each_by_itself),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
