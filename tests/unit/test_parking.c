/* Events whose features come late: each is trained once when they come, or counted once when they do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/parking.h"
#include "tests/unit/checkpoint_rig.h"
#include "tests/unit/learning_rig.h"

enum { EVENTS = 400, KNOWN = 10, PARKING = 1000 };

static struct rig_stream stream;

/* ---- the place itself ---- */

static struct m2sed_example example_of(uint64_t arrival) {
  return (struct m2sed_example){.arrival = arrival, .item = (uint32_t)arrival, .digest = 7 * arrival};
}

static bool take_even(void *arg, const struct m2sed_example *example) {
  uint64_t *sum = arg;
  bool even = example->arrival % 2 == 0;
  *sum = even ? *sum * 100 + example->arrival : *sum; /* their order shows */
  return even;
}

static void assert_holds(const struct m2sed_parking *parking, const uint64_t *arrivals, uint32_t count) {
  struct m2sed_example copy[8];
  assert_int_equal(m2sed_parking_copy(parking, copy), count);
  for (uint32_t i = 0; i < count; i++) {
    assert_true(copy[i].arrival == arrivals[i] && copy[i].digest == 7 * arrivals[i]);
  }
}

static void test_place(void **unused) {
  (void)unused;
  struct m2sed_parking parking;
  uint64_t taken = 0;
  assert_int_equal(m2sed_parking_init(&parking, 5), 0);
  for (uint64_t n = 1; n <= 7; n++) {
    struct m2sed_example example = example_of(n);
    assert_int_equal(m2sed_parking_add(&parking, &example), n > 5);
  }
  assert_holds(&parking, (const uint64_t[]){3, 4, 5, 6, 7}, 5);
  assert_int_equal(m2sed_parking_release(&parking, take_even, &taken), 2);
  assert_true(taken == 406);
  assert_holds(&parking, (const uint64_t[]){3, 5, 7}, 3);
  assert_int_equal(m2sed_parking_expire(&parking, 12, 9), 0);
  assert_int_equal(m2sed_parking_expire(&parking, 13, 7), 2);
  assert_holds(&parking, (const uint64_t[]){7}, 1);
  assert_int_equal(m2sed_parking_expire(&parking, 100, 10), 1);
  assert_int_equal(m2sed_parking_expire(&parking, 100, 10), 0);
  assert_holds(&parking, NULL, 0);
  m2sed_parking_deinit(&parking);
  struct m2sed_example example = example_of(1);
  assert_int_equal(m2sed_parking_init(&parking, 0), 0);
  assert_int_equal(m2sed_parking_add(&parking, &example), 1);
  assert_int_equal(m2sed_parking_release(&parking, take_even, &taken), 0);
  assert_int_equal(m2sed_parking_expire(&parking, 100, 0), 0);
  m2sed_parking_deinit(&parking);
}

/* ---- what is learned ---- */

static struct m2sed_learning *open_learning(uint32_t parking, uint64_t limit,
                                            const struct m2sed_checkpoint_state *restored) {
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2sed_learning *learning;
  struct m2se_error error;
  settings.parking = parking;
  settings.parking_events = limit;
  if (m2sed_learning_new(&learning, &config, &settings, restored, &error) != 0) {
    fail_msg("%s", error.text);
  }
  return learning;
}

static void take_items(struct m2sed_learning *learning, uint32_t first, uint32_t last, uint32_t version) {
  for (uint32_t slot = first; slot < last; slot++) {
    struct m2sed_train_message message = rig_item(slot, version);
    m2sed_learning_take(learning, &message);
  }
}

static void train(struct m2sed_learning *learning, bool flush) {
  struct m2se_workers serial = m2se_workers_serial();
  struct m2sed_trained_message result;
  while (m2sed_learning_due(learning) || (flush && m2sed_learning_waiting(learning) > 0)) {
    m2sed_learning_step(learning, &serial, &result);
  }
}

static void feed(struct m2sed_learning *learning, uint32_t first, uint32_t last) {
  for (uint32_t n = first; n < last; n++) {
    struct m2sed_train_message message = rig_event(&stream, n);
    m2sed_learning_take(learning, &message);
    train(learning, false);
  }
}

static struct m2sed_trained_message report(const struct m2sed_learning *learning) {
  struct m2sed_trained_message message = {0};
  m2sed_learning_report(learning, &message);
  return message;
}

static bool is_known(const struct m2sed_train_message *event, uint32_t known) {
  bool context = false;
  for (uint32_t i = 0; i < event->context_count; i++) {
    context |= event->context[i] < known;
  }
  return context && event->item < known;
}

/* Everything is trained in the end, each event once. */
static void test_all_come(void **unused) {
  (void)unused;
  struct m2sed_learning *learning = open_learning(PARKING, EVENTS, NULL);
  take_items(learning, 0, KNOWN, 1);
  take_items(learning, KNOWN, RIG_SLOTS, 0);
  feed(learning, 0, 200);
  uint32_t parked = 0, teaching = 0;
  uint64_t digest = 0;
  for (uint32_t n = 0; n < EVENTS; n++) {
    struct m2sed_train_message event = rig_event(&stream, n);
    parked += n < 200 && event.outcome == M2SED_TEACHES && !is_known(&event, KNOWN);
    teaching += event.outcome == M2SED_TEACHES;
    digest += event.outcome == M2SED_TEACHES ? event.digest : 0;
  }
  assert_true(parked > 50 && report(learning).parked == parked);
  take_items(learning, KNOWN, RIG_SLOTS, 1);
  assert_int_equal(report(learning).parked, parked); /* nothing is trained before the catalogue is told */
  feed(learning, 200, EVENTS);
  train(learning, true);
  struct m2sed_trained_message result = report(learning);
  assert_int_equal(result.parked, 0);
  assert_true(result.counters.unparked == parked && result.counters.events_taken == EVENTS);
  assert_true(result.counters.trained_events == teaching && result.counters.event_digest == digest);
  assert_true(result.counters.skipped_no_features == 0 && result.counters.parking_dropped == 0);
  m2sed_learning_free(learning);
}

/* Features that never come: counted after the limit, or when the place is full. */
static void test_limits(void **unused) {
  (void)unused;
  static const struct {
    uint32_t parking;
    uint64_t limit;
  } cases[] = {{PARKING, 30}, {7, EVENTS}, {0, EVENTS}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct m2sed_learning *learning = open_learning(cases[i].parking, cases[i].limit, NULL);
    take_items(learning, 0, KNOWN, 1);
    take_items(learning, KNOWN, RIG_SLOTS, 0);
    uint64_t unknown = 0, recent = 0;
    for (uint32_t n = 0; n < EVENTS; n++) {
      feed(learning, n, n + 1);
      struct m2sed_train_message event = rig_event(&stream, n);
      unknown += event.outcome == M2SED_TEACHES && !is_known(&event, KNOWN);
      recent = 0;
      for (uint32_t k = n > cases[i].limit ? n - (uint32_t)cases[i].limit : 0; k <= n; k++) {
        event = rig_event(&stream, k);
        recent += event.outcome == M2SED_TEACHES && !is_known(&event, KNOWN);
      }
      recent = recent < cases[i].parking ? recent : cases[i].parking;
      struct m2sed_trained_message result = report(learning);
      assert_true(result.parked == recent);
      assert_true(result.counters.skipped_no_features == unknown - recent);
      assert_true(result.counters.parking_dropped == (cases[i].parking > 0 ? unknown - recent : 0));
    }
    assert_true(unknown > recent + 20);
    m2sed_learning_free(learning);
  }
}

/* The features come while the daemon is down, or up: the end is the same, in all three files. */
static void test_checkpoint(void **unused) {
  (void)unused;
  size_t size, size_again;
  struct m2sed_learning *learning = open_learning(PARKING, EVENTS, NULL);
  take_items(learning, 0, KNOWN, 1);
  take_items(learning, KNOWN, RIG_SLOTS, 0);
  feed(learning, 0, 100);
  char dir[64];
  struct m2sed_checkpoint_state *state = rig_reload(learning, dir);
  assert_true(state->parked_count == report(learning).parked && state->parked_count > 10);
  take_items(learning, KNOWN, RIG_SLOTS, 1);
  feed(learning, 100, 200);
  char *bytes = rig_state_bytes(learning, &size);
  m2sed_learning_free(learning);

  learning = open_learning(PARKING, EVENTS, state);
  take_items(learning, 0, RIG_SLOTS, 1);
  feed(learning, 50, 200);
  char *bytes_again = rig_state_bytes(learning, &size_again);
  assert_int_equal(size, size_again);
  assert_memory_equal(bytes, bytes_again, size);
  m2sed_learning_free(learning);

  learning = open_learning(3, EVENTS, state); /* less room: the oldest ones leave, counted */
  assert_int_equal(report(learning).parked, 3);
  assert_true(report(learning).counters.parking_dropped == state->parked_count - 3);
  m2sed_learning_free(learning);
  free(bytes);
  free(bytes_again);
  m2sed_checkpoint_state_free(state);
  rig_remove_tree(dir);
}

/* An item that is deleted while examples wait for their mini-batch, and comes back. */
static void test_deleted_and_back(void **unused) {
  (void)unused;
  struct m2sed_learning *learning = open_learning(PARKING, EVENTS, NULL);
  take_items(learning, 0, RIG_SLOTS, 1);
  uint32_t n = 0;
  while (m2sed_learning_waiting(learning) < 3) {
    feed(learning, n, n + 1);
    n++;
  }
  take_items(learning, 0, RIG_SLOTS, 0);
  train(learning, true);
  assert_int_equal(report(learning).parked, 3);
  assert_true(report(learning).counters.trained_events == 0);
  take_items(learning, 0, RIG_SLOTS, 1);
  m2sed_learning_begin(learning);
  train(learning, true);
  assert_true(report(learning).counters.trained_events == 3 && report(learning).parked == 0);
  m2sed_learning_free(learning);
}

int main(void) {
  rig_stream_make(&stream, EVENTS);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_place),
      cmocka_unit_test(test_all_come),
      cmocka_unit_test(test_limits),
      cmocka_unit_test(test_checkpoint),
      cmocka_unit_test(test_deleted_and_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
