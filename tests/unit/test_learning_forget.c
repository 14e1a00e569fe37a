/* What must not be learned: of a user who asks to be forgotten, and while training is off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/checkpoint_rig.h"
#include "tests/unit/learning_rig.h"

static struct rig_stream stream;

static struct m2sed_learning *open_learning(bool off, const struct m2sed_checkpoint_state *restored) {
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  settings.off = off;
  settings.parking = 20;
  settings.parking_events = 1000;
  struct m2sed_learning *learning;
  struct m2se_error error;
  if (m2sed_learning_new(&learning, &config, &settings, restored, &error) != 0) {
    fail_msg("%s", error.text);
  }
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    struct m2sed_train_message message = rig_item(slot, slot == 3 ? 0 : 1); /* one without features */
    m2sed_learning_take(learning, &message);
  }
  return learning;
}

/* Events first..last-1 of the stream. */
static void feed(struct m2sed_learning *learning, uint32_t first, uint32_t last) {
  struct m2se_workers serial = m2se_workers_serial();
  struct m2sed_trained_message result;
  for (uint32_t n = first; n < last; n++) {
    struct m2sed_train_message message = rig_event(&stream, n);
    m2sed_learning_take(learning, &message);
    while (m2sed_learning_due(learning)) {
      m2sed_learning_step(learning, &serial, &result);
    }
  }
}

static struct m2sed_trained_message report(const struct m2sed_learning *learning) {
  struct m2sed_trained_message message = {0};
  m2sed_learning_report(learning, &message);
  return message;
}

/* Nothing of a user is left, the rest is as it was, and every event is counted once. */
static void test_forget(void **unused) {
  (void)unused;
  struct m2sed_learning *learning = open_learning(false, NULL);
  uint32_t events = 200;
  feed(learning, 0, events);
  while (report(learning).waiting < 2) {
    feed(learning, events, events + 1);
    events++;
  }
  char dir[64];
  struct m2sed_checkpoint_state *before = rig_reload(learning, dir);
  rig_remove_tree(dir);
  assert_true(before->waiting_count > 0 && before->parked_count > 0 && before->reservoir_count > 0);
  uint64_t user_hash = before->waiting[0].user_hash;
  m2sed_learning_take(learning,
                      &(struct m2sed_train_message){.kind = M2SED_TRAIN_FORGET, .user_hash = user_hash});
  struct m2sed_checkpoint_state *after = rig_reload(learning, dir);
  rig_remove_tree(dir);
  struct m2sed_example *const all[][2] = {{before->waiting, after->waiting},
                                          {before->parked, after->parked},
                                          {before->reservoir, after->reservoir}};
  const uint32_t counts[][2] = {{before->waiting_count, after->waiting_count},
                                {before->parked_count, after->parked_count},
                                {before->reservoir_count, after->reservoir_count}};
  uint64_t gone[3] = {0};
  for (int list = 0; list < 3; list++) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < counts[list][0]; i++) {
      if (all[list][0][i].user_hash == user_hash) {
        gone[list]++;
      } else {
        assert_true(kept < counts[list][1] && all[list][1][kept].digest == all[list][0][i].digest);
        kept++;
      }
    }
    assert_int_equal(kept, counts[list][1]);
  }
  assert_true(gone[0] > 0 && gone[2] > 0);
  assert_true(after->counters.skipped_erased == gone[0] + gone[1]);
  assert_true(after->counters.trained_events == before->counters.trained_events);
  /* It goes on, and the reservoir fills up again. */
  uint64_t trained = report(learning).counters.trained_events;
  feed(learning, events, events + 100);
  assert_true(report(learning).counters.trained_events > trained);
  assert_int_equal(report(learning).reservoir_size, 30);
  struct m2sed_train_message late = rig_event(&stream, events + 100);
  late.outcome = M2SED_ERASED;
  m2sed_learning_take(learning, &late);
  assert_true(report(learning).counters.skipped_erased == gone[0] + gone[1] + 1);
  m2sed_checkpoint_state_free(before);
  m2sed_checkpoint_state_free(after);
  m2sed_learning_free(learning);
}

/* On, off, on again: what came meanwhile is counted and not learned, what waited is learned afterwards. */
static void test_training_off(void **unused) {
  (void)unused;
  struct m2sed_learning *learning = open_learning(false, NULL);
  uint32_t events = 62, end;
  feed(learning, 0, events);
  while (report(learning).waiting == 0)
    feed(learning, events, events + 1), events++;
  struct m2sed_trained_message before = report(learning), after = before;
  assert_true(before.step > 0);
  uint64_t teaching = 0;
  for (uint32_t n = events; n < events + 60; n++)
    teaching += rig_event(&stream, n).outcome == M2SED_TEACHES;
  assert_true(teaching > 0);
  for (uint32_t pass = 0; pass < 2; pass++) {
    bool off = pass == 0;
    char dir[64];
    struct m2sed_checkpoint_state *state = rig_reload(learning, dir);
    m2sed_learning_free(learning);
    learning = open_learning(off, state);
    m2sed_checkpoint_state_free(state);
    rig_remove_tree(dir);
    end = events + (off ? 60 : 120);
    feed(learning, events + (off ? 0 : 60) - 10, end); /* some come again */
    after = report(learning);
    assert_true(after.counters.skipped_training_off == teaching && after.counters.events_taken == end);
    if (!off)
      break;
    assert_true(!m2sed_learning_due(learning) && m2sed_learning_has_room(learning));
    assert_int_equal(after.waiting, before.waiting);
    assert_true(after.step == before.step && after.counters.event_digest == before.counters.event_digest &&
                after.counters.trained_events == before.counters.trained_events);
  }
  assert_true(after.step > before.step &&
              after.counters.trained_events > before.counters.trained_events + before.waiting);
  m2sed_learning_free(learning);
}

int main(void) {
  rig_stream_make(&stream, RIG_HISTORY_MAX);
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_forget), cmocka_unit_test(test_training_off)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
