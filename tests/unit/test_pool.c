/* The worker pool: every task exactly once, by a worker with a number of its own. ThreadSanitizer runs this
 * too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/pool.h"

enum { TASKS_MAX = 300, WORKERS = 4 };
struct tally {
  uint32_t runs[TASKS_MAX]; /* plain: two threads on one task would be a race that ThreadSanitizer sees */
  uint32_t per_worker[WORKERS];
  atomic_uint inside[WORKERS];
  atomic_uint shared_number;
};

static void count_task(void *arg, uint32_t t, uint32_t w) {
  struct tally *tally = arg;
  if (w >= WORKERS || atomic_fetch_add(&tally->inside[w], 1) != 0) {
    atomic_fetch_add(&tally->shared_number, 1);
    return;
  }
  tally->runs[t]++;
  tally->per_worker[w]++;
  atomic_fetch_sub(&tally->inside[w], 1);
}

static void check_runs(struct m2sed_pool *pool, uint32_t rounds, uint32_t pause_us) {
  struct m2se_workers workers = m2sed_pool_workers(pool);
  for (uint32_t round = 0; round < rounds; round++) {
    struct tally tally = {0};
    uint32_t tasks = round % TASKS_MAX;
    workers.run(workers.pool, count_task, &tally, tasks);
    uint32_t sum = 0;
    for (uint32_t w = 0; w < WORKERS; w++) {
      sum += tally.per_worker[w];
    }
    assert_int_equal(sum, tasks);
    assert_int_equal(atomic_load(&tally.shared_number), 0);
    for (uint32_t t = 0; t < TASKS_MAX; t++) {
      assert_int_equal(tally.runs[t], t < tasks ? 1 : 0);
    }
    if (pause_us > 0) { /* long enough for the workers to fall asleep */
      nanosleep(&(struct timespec){0, pause_us * 1000L}, NULL);
    }
  }
}

static void test_every_task_once(void **state) {
  (void)state;
  for (uint32_t threads = 1; threads <= WORKERS; threads++) {
    struct m2sed_pool *pool;
    struct m2se_error error = {0};
    assert_int_equal(m2sed_pool_new(&pool, threads, 0, &error), 0);
    assert_int_equal(m2sed_pool_workers(pool).count, threads);
    check_runs(pool, 2000, 0);
    check_runs(pool, 20, 300);
    m2sed_pool_free(pool);
  }
}

static void test_limits(void **state) {
  (void)state;
  struct m2sed_pool *pool;
  struct m2se_error error = {0};
  assert_int_equal(m2sed_pool_new(&pool, 0, 0, &error), M2SE_EINVAL);
  assert_null(pool);
  assert_non_null(strstr(error.text, "threads"));
  assert_int_equal(m2sed_pool_new(&pool, M2SED_POOL_THREADS_MAX + 1, 0, &error), M2SE_EINVAL);
  m2sed_pool_free(NULL);
}

/* Never used, and ended while the workers sleep. */
static void test_ends_idle(void **state) {
  (void)state;
  for (int i = 0; i < 20; i++) {
    struct m2sed_pool *pool;
    assert_int_equal(m2sed_pool_new(&pool, 3, 0, NULL), 0);
    if (i % 2 == 0) {
      nanosleep(&(struct timespec){0, 500000}, NULL);
    }
    m2sed_pool_free(pool);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_task_once),
      cmocka_unit_test(test_limits),
      cmocka_unit_test(test_ends_idle),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
