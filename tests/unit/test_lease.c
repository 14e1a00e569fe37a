/* The lease on a real redis-server: one holds it, the fence rises, an old connection is ended. */
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ingest/lease.h"
#include "redis_rig.h"

enum { LEASE_MS = 300 };

struct party {
  struct m2se_lease *lease;
  uint32_t held, others, lost, expelled, expelled_count, failed, closed;
  uint64_t fence;
};

static void on_held(void *context, uint64_t fence) {
  struct party *party = context;
  party->held++;
  party->fence = fence;
}
static void on_others(void *context, int64_t left_ms) {
  struct party *party = context;
  assert_true(left_ms >= 0 && left_ms <= LEASE_MS);
  party->others++;
}
static void on_lost(void *context) {
  ((struct party *)context)->lost++;
}
static void on_expelled(void *context, uint32_t count) {
  struct party *party = context;
  party->expelled++;
  party->expelled_count = count;
}
static void on_failed(void *context, const char *why) {
  (void)why;
  ((struct party *)context)->failed++;
}
static void on_closed(void *context) {
  ((struct party *)context)->closed++;
}

static void open_party(struct redis_rig *rig, struct party *party, const char *owner) {
  *party = (struct party){0};
  const struct m2se_lease_settings settings = {.uri = m2se_redis_child_uri(rig->child),
                                               .prefix = "m2se:",
                                               .owner = owner,
                                               .lease_ms = LEASE_MS,
                                               .held = on_held,
                                               .others = on_others,
                                               .lost = on_lost,
                                               .expelled = on_expelled,
                                               .failed = on_failed,
                                               .context = party};
  struct m2se_error error = {0};
  if (m2se_lease_new(&party->lease, rig->loop, &settings, &error))
    fail_msg("%s", error.text);
}

static void close_party(struct redis_rig *rig, struct party *party) {
  m2se_lease_close(party->lease, on_closed, party);
  rig_run_until(rig, &party->closed, 1);
}

static void ask(struct redis_rig *rig, struct party *party, uint64_t floor, const uint32_t *answer) {
  uint32_t before = *answer;
  m2se_lease_ask(party->lease, floor);
  rig_run_until(rig, answer, before + 1);
}

static void test_one_holds_it(void **state) {
  struct redis_rig *rig = *state;
  struct party one, two;
  open_party(rig, &one, "one");
  open_party(rig, &two, "two");
  ask(rig, &one, 6, &one.held);
  assert_int_equal(one.fence, 7);
  ask(rig, &two, 0, &two.others);
  for (int i = 0; i < 5; i++) { /* renewed, it does not run out */
    rig_run_ms(rig, LEASE_MS / 3);
    ask(rig, &one, 0, &one.held);
    ask(rig, &two, 0, &two.others);
  }
  assert_int_equal(one.fence, 7);
  rig_run_ms(rig, LEASE_MS + 100);
  ask(rig, &two, 0, &two.held);
  assert_int_equal(two.fence, 8);
  ask(rig, &one, 0, &one.lost);
  m2se_lease_release(two.lease);
  while (!m2se_lease_idle(two.lease))
    rig_run_ms(rig, 5);
  close_party(rig, &one);
  m2se_lease_free(one.lease);
  open_party(rig, &one, "one again");
  ask(rig, &one, 0, &one.held); /* at once */
  assert_int_equal(one.fence, 9);
  assert_int_equal(one.failed + two.failed, 0);
  close_party(rig, &one);
  close_party(rig, &two);
  m2se_lease_free(one.lease);
  m2se_lease_free(two.lease);
}

/* Redis has lost everything: the owner hears it, and the floor keeps the fence from coming again. */
static void test_lost_data(void **state) {
  struct redis_rig *rig = *state;
  struct party one, two;
  open_party(rig, &one, "one");
  open_party(rig, &two, "two");
  ask(rig, &one, 0, &one.held);
  assert_int_equal(one.fence, 1);
  rig_admin(rig, "FLUSHALL");
  ask(rig, &one, 0, &one.lost);
  ask(rig, &two, 1, &two.held);
  assert_int_equal(two.fence, 2);
  rig_admin(rig, "SET m2se:lease text");
  ask(rig, &two, 0, &two.failed);
  close_party(rig, &one);
  close_party(rig, &two);
  m2se_lease_free(one.lease);
  m2se_lease_free(two.lease);
}

static void test_expels(void **state) {
  struct redis_rig *rig = *state;
  struct party one, two;
  open_party(rig, &one, "one");
  ask(rig, &one, 0, &one.held);
  const struct m2se_redis_settings named = {.name = m2se_lease_connection_name(one.lease)};
  rig_connect(rig, NULL, &named);
  m2se_lease_add_guard(one.lease, rig->redis);
  rig_run_until(rig, &rig->events[M2SE_REDIS_CONNECTED], 1);
  rig_admin(rig, "CLIENT SETNAME m2sed-0123456789abcdef-1"); /* of another prefix: stays */
  open_party(rig, &two, "two");
  rig_run_ms(rig, LEASE_MS + 100);
  ask(rig, &two, 0, &two.held);
  /* A lost connection comes back as long as the lease holds, and is refused from then on. */
  m2se_lease_expel(two.lease);
  rig_run_until(rig, &two.expelled, 1);
  assert_int_equal(two.expelled_count, 1);
  const struct m2se_redis_argument set[] = {{"SET", 3}, {"late", 4}, {"1", 1}};
  assert_int_equal(m2se_redis_send(rig->redis, set, 3, NULL, NULL), 0);
  rig_run_until(rig, &rig->events[M2SE_REDIS_BARRED], 1);
  rig_run_ms(rig, 200); /* it does not try again */
  assert_int_equal(rig->events[M2SE_REDIS_CONNECTED], 1);
  assert_int_equal(rig->events[M2SE_REDIS_BARRED], 1);
  assert_string_equal(rig_admin(rig, "EXISTS late"), "0");
  close_party(rig, &one);
  close_party(rig, &two);
  rig_close(rig);
  m2se_lease_free(one.lease);
  m2se_lease_free(two.lease);
}

static void test_guard_holds(void **state) {
  struct redis_rig *rig = *state;
  struct party one;
  open_party(rig, &one, "one");
  ask(rig, &one, 0, &one.held);
  const struct m2se_redis_settings named = {.name = m2se_lease_connection_name(one.lease)};
  rig_connect(rig, NULL, &named);
  m2se_lease_add_guard(one.lease, rig->redis);
  rig_run_until(rig, &rig->events[M2SE_REDIS_CONNECTED], 1);
  rig_admin(rig, "CLIENT KILL TYPE normal SKIPME yes");
  rig_run_until(rig, &rig->events[M2SE_REDIS_CONNECTED], 2);
  m2se_lease_expel(one.lease); /* its own stay */
  rig_run_until(rig, &one.expelled, 1);
  assert_int_equal(one.expelled_count, 0);
  assert_int_equal(rig->events[M2SE_REDIS_BARRED], 0);
  close_party(rig, &one);
  rig_close(rig);
  m2se_lease_free(one.lease);
}

int main(void) {
  if (rig_check_server())
    return 77;
  signal(SIGPIPE, SIG_IGN);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_one_holds_it, rig_set_up, rig_tear_down),
      cmocka_unit_test_setup_teardown(test_lost_data, rig_set_up, rig_tear_down),
      cmocka_unit_test_setup_teardown(test_expels, rig_set_up, rig_tear_down),
      cmocka_unit_test_setup_teardown(test_guard_holds, rig_set_up, rig_tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
