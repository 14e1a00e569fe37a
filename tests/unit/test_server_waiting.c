/* Users who wait more than once are served with the newest of their sequences, and nobody's vector goes back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "daemon/server_waiting.h"

struct rig {
  struct m2sed_ring *ring;
  struct m2sed_waiting *waiting;
  uint64_t sent, answered;
};

static void open_rig(struct rig *rig) {
  *rig = (struct rig){0};
  assert_int_equal(m2sed_ring_new(&rig->ring, 256, sizeof(struct m2sed_serve_message)), 0);
  rig->waiting = calloc(1, sizeof *rig->waiting);
  assert_non_null(rig->waiting);
}

static void close_rig(struct rig *rig) {
  m2sed_ring_free(rig->ring);
  free(rig->waiting);
}

static void send(struct rig *rig, uint64_t user_hash) {
  struct m2sed_serve_message *message = m2sed_ring_claim(rig->ring);
  assert_non_null(message);
  *message =
      (struct m2sed_serve_message){.kind = M2SED_SERVE_USER, .tag = rig->sent++, .user_hash = user_hash};
  m2sed_ring_publish(rig->ring);
}

/* The tag of the message that serves the oldest one, which is then released; -1: another has served it. */
static int64_t next(struct rig *rig, uint64_t *by) {
  m2sed_waiting_see(rig->waiting, rig->ring);
  const struct m2sed_serve_message *message = m2sed_ring_peek(rig->ring, 0);
  const struct m2sed_serve_message *chosen = m2sed_waiting_choose(rig->waiting, rig->ring, 0);
  struct m2sed_waiting_user *user = m2sed_waiting_entry(rig->waiting, message->user_hash);
  int64_t tag = chosen != NULL ? (int64_t)chosen->tag : -1;
  *by = user != NULL ? user->by : UINT64_MAX;
  m2sed_waiting_release(rig->waiting, rig->ring);
  return tag;
}

static void test_newest_serves_all(void **unused) {
  (void)unused;
  struct rig rig;
  uint64_t by;
  open_rig(&rig);
  const uint64_t users[] = {7, 9, 7, 7, 9};
  for (uint32_t i = 0; i < 5; i++) {
    send(&rig, users[i]);
  }
  assert_int_equal(next(&rig, &by), 3);
  send(&rig, 7); /* came too late for the vector of message 0 */
  assert_int_equal(next(&rig, &by), 4);
  for (uint32_t i = 0; i < 2; i++) {
    assert_int_equal(next(&rig, &by), -1);
    assert_int_equal(by, 0);
  }
  assert_int_equal(next(&rig, &by), -1);
  assert_int_equal(by, 1);
  assert_int_equal(next(&rig, &by), 5);
  close_rig(&rig);
}

static void test_without_a_user(void **unused) {
  (void)unused;
  struct rig rig;
  uint64_t by;
  open_rig(&rig);
  send(&rig, 0);
  send(&rig, 0);
  assert_int_equal(next(&rig, &by), 0);
  assert_int_equal(next(&rig, &by), 1);
  close_rig(&rig);
}

/* Users who share a place in the table, numbers that wrap around: each message has a vector no older than its
 * own, and those of one user never go back. */
static void test_never_back(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig);
  rig.waiting->first = rig.waiting->seen = UINT32_MAX - 500;
  enum { USERS = 12, SENT = 4000 };
  uint64_t *hash_of = calloc(SENT, sizeof *hash_of), newest[USERS] = {0};
  assert_non_null(hash_of);
  uint32_t random = 1, plain = 0, covered = 0;
  while (rig.answered < SENT) {
    random = random * 1664525 + 1013904223;
    if ((random >> 24) % 2 == 0 && rig.sent < SENT && rig.sent - rig.answered < 256) {
      uint32_t user = (random >> 16) % USERS;
      hash_of[rig.sent] = 5 + user % 3 + (user / 3 + 1) * (uint64_t)M2SED_WAITING_ENTRIES;
      send(&rig, hash_of[rig.sent]);
    } else if (rig.answered < rig.sent) {
      uint64_t by, hash = hash_of[rig.answered];
      uint32_t user = (uint32_t)(hash % M2SED_WAITING_ENTRIES - 5 + 3 * (hash / M2SED_WAITING_ENTRIES - 1));
      int64_t chosen = next(&rig, &by);
      if (chosen >= 0) {
        assert_true(hash_of[chosen] == hash && (uint64_t)chosen >= rig.answered);
        assert_true((uint64_t)chosen >= newest[user]);
        newest[user] = (uint64_t)chosen;
        plain += by == UINT64_MAX;
      } else {
        assert_true(newest[user] >= rig.answered && hash_of[by] == hash && by < rig.answered);
        covered++;
      }
      rig.answered++;
    }
  }
  assert_true(plain > 0 && covered > 0); /* else it has shown little */
  free(hash_of);
  close_rig(&rig);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_newest_serves_all),
      cmocka_unit_test(test_without_a_user),
      cmocka_unit_test(test_never_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
