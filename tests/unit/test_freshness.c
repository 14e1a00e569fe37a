// The histogram of freshness: buckets, quantiles of the last minute, clocks that jump.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/freshness.h"

static void test_quantiles(void **state) {
  (void)state;
  struct m2sed_freshness *freshness = calloc(1, sizeof *freshness);
  for (int i = 1; i <= 1000; i++) /* 1..1000 ms, evenly */
    m2sed_freshness_add(freshness, M2SED_STAGE_VECTOR, 1000000 + i, 1000000);
  assert_true(freshness->sum_ms[M2SED_STAGE_VECTOR] == 500500);
  double p50 = m2sed_freshness_quantile(freshness, M2SED_STAGE_VECTOR, 1001000, 0.5);
  double p99 = m2sed_freshness_quantile(freshness, M2SED_STAGE_VECTOR, 1001000, 0.99);
  assert_true(p50 > 480 && p50 < 520);
  assert_true(p99 > 970 && p99 <= 1000);
  assert_true(m2sed_freshness_quantile(freshness, M2SED_STAGE_CONSUMED, 1001000, 0.5) == 0);
  uint64_t total = 0;
  for (int i = 0; i <= M2SED_FRESHNESS_BOUNDS; i++)
    total += freshness->counts[M2SED_STAGE_VECTOR][i];
  assert_int_equal(total, 1000);
  free(freshness);
}

static void test_the_minute_passes(void **state) {
  (void)state;
  struct m2sed_freshness *freshness = calloc(1, sizeof *freshness);
  m2sed_freshness_add(freshness, M2SED_STAGE_SEQUENCE, 500000, 400000);
  assert_true(m2sed_freshness_quantile(freshness, M2SED_STAGE_SEQUENCE, 559000, 0.5) > 60000);
  assert_true(m2sed_freshness_quantile(freshness, M2SED_STAGE_SEQUENCE, 560000, 0.5) == 0);
  assert_int_equal(freshness->counts[M2SED_STAGE_SEQUENCE][M2SED_FRESHNESS_BOUNDS - 1], 1); /* stays */
  free(freshness);
}

static void test_clocks(void **state) {
  (void)state;
  struct m2sed_freshness *freshness = calloc(1, sizeof *freshness);
  m2sed_freshness_add(freshness, M2SED_STAGE_VECTOR, 1000, 5000); /* the producer's clock is ahead */
  m2sed_freshness_add(freshness, M2SED_STAGE_VECTOR, 1000, -1);   /* no timestamp */
  m2sed_freshness_add(freshness, M2SED_STAGE_VECTOR, 500, 499);   /* our clock was set back */
  assert_int_equal(freshness->counts[M2SED_STAGE_VECTOR][0], 2);
  m2sed_freshness_add(freshness, M2SED_STAGE_VECTOR, 1000000000, 0); /* above all bounds */
  assert_int_equal(freshness->counts[M2SED_STAGE_VECTOR][M2SED_FRESHNESS_BOUNDS], 1);
  assert_true(m2sed_freshness_quantile(freshness, M2SED_STAGE_VECTOR, 1000000000, 0.5) == 300000);
  free(freshness);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_quantiles),
      cmocka_unit_test(test_the_minute_passes),
      cmocka_unit_test(test_clocks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
