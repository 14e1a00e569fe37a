/* Training that is behind: where mini-batches are cut follows from the log alone, so the end is the same
 * however late they are trained; with shrink replay goes, and every event is trained once all the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/checkpoint_rig.h"
#include "tests/unit/learning_rig.h"

enum { EVENTS = 300, FRESH = 4, BATCH = 12 };

static struct rig_stream stream;

static struct m2sed_learning *open_learning(uint32_t backlog, int64_t batch_ms, bool shrink,
                                            const struct m2sed_checkpoint_state *restored) {
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2sed_learning *learning;
  struct m2se_error error;
  settings.backlog = backlog;
  settings.batch_ms = batch_ms;
  settings.shrink = shrink;
  if (m2sed_learning_new(&learning, &config, &settings, restored, &error) != 0) {
    fail_msg("%s", error.text);
  }
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    struct m2sed_train_message message = rig_item(slot, 1);
    m2sed_learning_take(learning, &message);
  }
  return learning;
}

/* One step. Returns its fresh examples. */
static struct m2sed_trained_message step(struct m2sed_learning *learning) {
  struct m2se_workers serial = m2se_workers_serial();
  struct m2sed_trained_message result;
  assert_true(m2sed_learning_step(learning, &serial, &result));
  assert_true(result.applied);
  return result;
}

/* Time stands still between events of one second, then there are hours without any. */
static struct m2sed_train_message event_of(uint32_t number) {
  struct m2sed_train_message event = rig_event(&stream, number);
  event.event_time_ms = 1000 * (int64_t)(number / 3) + 3600000 * (int64_t)(number / 40);
  event.event_time_ms -= number % 17 == 16 ? 500000 : 0; /* late ones close nothing */
  return event;
}

/* Trains as soon as it can, or only when it must. */
static void feed(struct m2sed_learning *learning, uint32_t first, uint32_t last, bool late) {
  for (uint32_t n = first; n < last; n++) {
    struct m2sed_train_message event = event_of(n);
    while (m2sed_learning_due(learning) && (!late || !m2sed_learning_has_room(learning))) {
      step(learning);
    }
    assert_true(m2sed_learning_has_room(learning));
    m2sed_learning_take(learning, &event);
  }
}

static void train_due(struct m2sed_learning *learning) {
  while (m2sed_learning_due(learning)) {
    step(learning);
  }
}

static struct m2sed_trained_message report(const struct m2sed_learning *learning) {
  struct m2sed_trained_message message = {0};
  m2sed_learning_report(learning, &message);
  return message;
}

/* The sizes of the mini-batches, as the contract says them. */
static uint32_t expected_sizes(int64_t batch_ms, uint32_t sizes[EVENTS]) {
  uint32_t count = 0, open = 0;
  int64_t first_ms = 0;
  for (uint32_t n = 0; n < EVENTS; n++) {
    struct m2sed_train_message event = event_of(n);
    if (open > 0 && batch_ms > 0 && event.event_time_ms - first_ms > batch_ms) {
      sizes[count++] = open;
      open = 0;
    }
    if (event.outcome == M2SED_TEACHES) {
      first_ms = open == 0 ? event.event_time_ms : first_ms;
      if (++open == FRESH) {
        sizes[count++] = open;
        open = 0;
      }
    }
  }
  return count;
}

static void test_cuts(void **unused) {
  (void)unused;
  for (int64_t batch_ms = 0; batch_ms <= 1000; batch_ms += 500) {
    uint32_t sizes[EVENTS], count = expected_sizes(batch_ms, sizes), small = 0;
    struct m2sed_learning *learning = open_learning(EVENTS, batch_ms, false, NULL);
    feed(learning, 0, EVENTS, true);
    assert_true(report(learning).step == 0);
    for (uint32_t i = 0; i < count; i++) {
      assert_true(m2sed_learning_due(learning));
      assert_int_equal(step(learning).fresh, sizes[i]);
      small += sizes[i] < FRESH;
    }
    assert_false(m2sed_learning_due(learning));
    assert_true((small > 5) == (batch_ms > 0));
    m2sed_learning_free(learning);
  }
}

static void test_late_is_the_same(void **unused) {
  (void)unused;
  size_t size, size_again;
  struct m2sed_learning *learning = open_learning(0, 2000, false, NULL);
  feed(learning, 0, EVENTS, false);
  train_due(learning);
  char *bytes = rig_state_bytes(learning, &size);
  m2sed_learning_free(learning);
  for (uint32_t backlog = 10; backlog <= EVENTS; backlog += 145) {
    learning = open_learning(backlog, 2000, false, NULL);
    feed(learning, 0, EVENTS, true);
    assert_true(report(learning).waiting + 4 * FRESH > backlog || report(learning).step == 0);
    train_due(learning);
    char *bytes_again = rig_state_bytes(learning, &size_again);
    assert_int_equal(size, size_again);
    assert_memory_equal(bytes, bytes_again, size);
    free(bytes_again);
    m2sed_learning_free(learning);
  }
  free(bytes);
}

/* What waits is in the checkpoint, with its cuts; it is trained once the catalogue has been told. */
static void test_restart(void **unused) {
  (void)unused;
  size_t size, size_again;
  struct m2sed_learning *learning = open_learning(EVENTS, 1000, false, NULL);
  feed(learning, 0, EVENTS, false);
  train_due(learning);
  char *bytes = rig_state_bytes(learning, &size);
  m2sed_learning_free(learning);
  for (uint32_t stop = 60; stop < EVENTS; stop += 63) {
    char dir[64];
    learning = open_learning(EVENTS, 1000, false, NULL);
    feed(learning, 0, stop / 2, false);
    feed(learning, stop / 2, stop, true);
    struct m2sed_checkpoint_state *state = rig_reload(learning, dir);
    assert_true(state->waiting_count > 20);
    m2sed_learning_free(learning);
    for (uint32_t backlog = 0; backlog <= EVENTS;
         backlog += EVENTS) { /* less room: what waits has its place */
      learning = open_learning(backlog, 1000, false, state);
      assert_int_equal(m2sed_learning_waiting(learning), state->waiting_count);
      assert_false(m2sed_learning_due(learning));
      m2sed_learning_take(learning, &(struct m2sed_train_message){.kind = M2SED_TRAIN_CATALOGUE});
      assert_true(m2sed_learning_due(learning));
      feed(learning, stop, EVENTS, true);
      train_due(learning);
      char *bytes_again = rig_state_bytes(learning, &size_again);
      assert_int_equal(size, size_again);
      assert_memory_equal(bytes, bytes_again, size);
      free(bytes_again);
      m2sed_learning_free(learning);
    }
    m2sed_checkpoint_state_free(state);
    rig_remove_tree(dir);
  }
  free(bytes);
}

static void test_shrink(void **unused) {
  (void)unused;
  enum { BACKLOG = 60 };
  struct m2sed_learning *learning = open_learning(BACKLOG, 1000, true, NULL);
  feed(learning, 0, 100, false); /* not behind: replay as ever */
  train_due(learning);
  assert_true(report(learning).counters.replay_taken_away == 0 && report(learning).reservoir_size == 30);
  uint32_t larger = 0;
  uint64_t taken_away = 0, teaching = 0, digest = 0;
  feed(learning, 100, 100 + BACKLOG, true);
  for (uint32_t before; (before = m2sed_learning_waiting(learning)) > 0;) {
    struct m2sed_trained_message result = step(learning);
    assert_int_equal(result.fresh, before - m2sed_learning_waiting(learning));
    if (before > BACKLOG / 2) {
      assert_int_equal(result.replayed, 0);
      assert_true(result.fresh <= BATCH && result.fresh >= 1);
      assert_true(result.counters.replay_taken_away >= taken_away + result.fresh);
      larger += result.fresh > FRESH;
    } else {
      assert_true(result.fresh <= FRESH && result.replayed > 0);
      assert_true(result.counters.replay_taken_away == taken_away);
    }
    taken_away = result.counters.replay_taken_away;
  }
  assert_true(larger > 0 && taken_away > 0);
  for (uint32_t n = 0; n < 100 + BACKLOG; n++) {
    struct m2sed_train_message event = event_of(n);
    teaching += event.outcome == M2SED_TEACHES;
    digest += event.outcome == M2SED_TEACHES ? event.digest : 0;
  }
  assert_true(report(learning).counters.trained_events == teaching);
  assert_true(report(learning).counters.event_digest == digest);
  m2sed_learning_free(learning);
}

int main(void) {
  rig_stream_make(&stream, EVENTS);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cuts),
      cmocka_unit_test(test_late_is_the_same),
      cmocka_unit_test(test_restart),
      cmocka_unit_test(test_shrink),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
