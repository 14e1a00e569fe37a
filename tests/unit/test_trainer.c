/* The training thread: what it learns is what m2sed_learning learns without a thread; snapshots and copies of
 * the weights are handed out and taken back. ThreadSanitizer runs this too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/checkpoint_rig.h"
#include "tests/unit/learning_rig.h"

enum { EVENTS = 240, HELD_MAX = 4 };

static struct rig_stream stream;

/* The loop's side. */
struct rig {
  struct m2se_config config;
  struct m2sed_train_settings settings;
  struct m2sed_exchange *exchange;
  struct m2sed_trainer *trainer;
  bool keep_snapshots, keep_copies;

  /* What came. */
  uint64_t steps, applied, fresh, step_before;
  struct m2sed_trained_message newest, flushed;
  uint32_t snapshots_came, flushes;
  bool last_came, stopped;
  struct m2sed_checkpoint_state *held[HELD_MAX];
  uint32_t held_count;
  struct m2sed_weights_copy *copies[2];
  uint32_t copy_count, copies_came;
  uint64_t copied_step;
  char *last_bytes; /* of the last snapshot */
  size_t last_size;
};

static void open_rig(struct rig *rig, const struct m2sed_checkpoint_state *restored, uint32_t threads) {
  struct m2se_error error;
  memset(rig, 0, sizeof *rig);
  rig->config = rig_config();
  rig->settings = rig_settings();
  rig->settings.threads = threads;
  rig->step_before = restored != NULL ? restored->step : 0;
  assert_int_equal(m2sed_exchange_new(&rig->exchange, &rig->config, RIG_SLOTS, &error), 0);
  if (m2sed_trainer_new(&rig->trainer, &rig->config, &rig->settings, rig->exchange, restored, &error) != 0) {
    fail_msg("%s", error.text);
  }
}

static void close_rig(struct rig *rig) {
  m2sed_trainer_free(rig->trainer);
  m2sed_exchange_free(rig->exchange);
  free(rig->last_bytes);
}

static void take_message(struct rig *rig, const struct m2sed_trained_message *message) {
  assert_false(rig->stopped); /* that was the last one */
  rig->newest = *message;
  switch (message->kind) {
  case M2SED_TRAINED_STEP:
    assert_true(message->step == rig->step_before + 1);
    rig->step_before = message->step;
    rig->steps++;
    rig->applied += message->applied;
    rig->fresh += message->fresh;
    break;
  case M2SED_TRAINED_SNAPSHOT:
    rig->snapshots_came++;
    assert_non_null(message->snapshot);
    if (message->last) {
      assert_false(rig->last_came);
      rig->last_came = true;
      rig->last_bytes = rig_snapshot_bytes(message->snapshot, &rig->last_size);
    }
    if (rig->keep_snapshots) {
      assert_true(rig->held_count < HELD_MAX);
      rig->held[rig->held_count++] = message->snapshot;
    } else {
      m2sed_trainer_return_snapshot(rig->trainer, message->snapshot);
    }
    break;
  case M2SED_TRAINED_FLUSHED:
    rig->flushes++;
    rig->flushed = *message;
    break;
  case M2SED_TRAINED_STOPPED:
    assert_true(rig->last_came);
    rig->stopped = true;
    break;
  }
}

/* Takes what there is, as loop and server would. */
static void pump(struct rig *rig) {
  struct m2sed_ring *output = m2sed_trainer_output(rig->trainer);
  const struct m2sed_trained_message *message;
  struct m2sed_weights_copy *copy;
  while ((message = m2sed_ring_peek(output, 0)) != NULL) {
    take_message(rig, message);
    m2sed_ring_release(output);
  }
  while ((copy = m2sed_exchange_take(rig->exchange->ready)) != NULL) {
    rig->copies_came++;
    rig->copied_step = m2se_weights_step(copy->weights);
    if (rig->keep_copies) {
      rig->copies[rig->copy_count++] = copy;
    } else {
      m2sed_exchange_give(rig->exchange->idle, copy);
    }
  }
}

static void send(struct rig *rig, struct m2sed_train_message message) {
  struct m2sed_train_message *slot = NULL;
  RIG_WAIT_UNTIL(pump(rig), (slot = m2sed_ring_claim(m2sed_trainer_input(rig->trainer))) != NULL)
  *slot = message;
  m2sed_ring_publish(m2sed_trainer_input(rig->trainer));
}

static void send_kind(struct rig *rig, enum m2sed_train_kind kind) {
  send(rig, (struct m2sed_train_message){.kind = kind});
}

static void send_items(struct rig *rig) {
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    send(rig, rig_item(slot, 1));
  }
}

static void send_events(struct rig *rig, uint32_t first, uint32_t last) {
  for (uint32_t n = first; n < last; n++) {
    send(rig, rig_event(&stream, n));
  }
}

static void start(struct rig *rig) {
  struct m2se_error error;
  assert_int_equal(m2sed_trainer_start(rig->trainer, &error), 0);
}

static void stop(struct rig *rig) {
  send_kind(rig, M2SED_TRAIN_STOP);
  RIG_WAIT_UNTIL(pump(rig), rig->stopped)
  m2sed_trainer_join(rig->trainer);
  pump(rig);
}

/* What must come out: the same without a thread. */
static char *expected_bytes(uint32_t events, bool flush, size_t *size) {
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2se_workers serial = m2se_workers_serial();
  struct m2sed_learning *learning;
  struct m2sed_trained_message result;
  struct m2se_error error;
  assert_int_equal(m2sed_learning_new(&learning, &config, &settings, NULL, &error), 0);
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    struct m2sed_train_message message = rig_item(slot, 1);
    m2sed_learning_take(learning, &message);
  }
  for (uint32_t n = 0; n < events; n++) {
    struct m2sed_train_message message = rig_event(&stream, n);
    m2sed_learning_take(learning, &message);
    while (m2sed_learning_due(learning)) {
      m2sed_learning_step(learning, &serial, &result);
    }
  }
  while (flush && m2sed_learning_waiting(learning) > 0) {
    m2sed_learning_step(learning, &serial, &result);
  }
  char *bytes = rig_state_bytes(learning, size);
  m2sed_learning_free(learning);
  return bytes;
}

static void assert_last_is(const struct rig *rig, uint32_t events, bool flush) {
  size_t size;
  char *bytes = expected_bytes(events, flush, &size);
  assert_int_equal(size, rig->last_size);
  assert_memory_equal(bytes, rig->last_bytes, size);
  free(bytes);
}

/* ---- tests ---- */

static void test_learns_the_same(void **unused) {
  (void)unused;
  for (uint32_t threads = 1; threads <= 2; threads++) {
    struct rig rig;
    open_rig(&rig, NULL, threads);
    start(&rig);
    send_items(&rig);
    send_events(&rig, 0, EVENTS);
    send_kind(&rig, M2SED_TRAIN_FLUSH);
    RIG_WAIT_UNTIL(pump(&rig), rig.flushes == 1)
    RIG_WAIT_UNTIL(pump(&rig), m2sed_trainer_pulse(rig.trainer).idle)
    assert_true(m2sed_trainer_pulse(rig.trainer).beats >= EVENTS + rig.steps);
    stop(&rig);
    assert_true(rig.steps > 50 && rig.applied == rig.steps);
    assert_int_equal(rig.flushes, 1);
    assert_int_equal(rig.flushed.waiting, 0);
    assert_true(rig.flushed.counters.trained_events == EVENTS - RIG_USERS);
    assert_true(rig.fresh == EVENTS - RIG_USERS);
    assert_true(rig.flushed.counters.skipped_no_context == RIG_USERS);
    assert_true(rig.flushed.step == rig.steps);
    assert_last_is(&rig, EVENTS, true);
    close_rig(&rig);
  }
}

static void reopen(struct rig *rig) {
  struct m2se_error error;
  m2sed_trainer_free(rig->trainer);
  assert_int_equal(
      m2sed_trainer_new(&rig->trainer, &rig->config, &rig->settings, rig->exchange, NULL, &error), 0);
}

/* Events wait while training is behind: the end is the same. An orderly end does not wait for all of them. */
static void test_backlog(void **unused) {
  (void)unused;
  for (int flush = 0; flush <= 1; flush++) {
    struct rig rig;
    open_rig(&rig, NULL, 2);
    rig.settings.backlog = 100;
    rig.settings.ring_capacity = 512;
    reopen(&rig);
    send_items(&rig);
    send_events(&rig, 0, EVENTS);
    start(&rig);
    if (flush) {
      send_kind(&rig, M2SED_TRAIN_FLUSH);
      RIG_WAIT_UNTIL(pump(&rig), rig.flushes == 1)
    }
    stop(&rig);
    assert_true(rig.newest.waiting < (flush ? 1 : 4)); /* 512 events of the ring are more than waited */
    assert_last_is(&rig, EVENTS, flush);
    close_rig(&rig);
  }
}

/* A stop in the middle of a flush, and much that waits: the checkpoint keeps what is not trained. */
static void test_stop_in_a_flush(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, NULL, 1);
  rig.settings.backlog = EVENTS;
  rig.settings.ring_capacity = 2;
  reopen(&rig);
  start(&rig);
  send_items(&rig);
  for (uint32_t n = 0; n < EVENTS; n++) {
    send(&rig, rig_event(&stream, n));
  }
  send_kind(&rig, M2SED_TRAIN_FLUSH);
  stop(&rig);
  assert_true(rig.newest.counters.trained_events + rig.newest.waiting == EVENTS - RIG_USERS);
  assert_true(rig.newest.counters.events_taken == EVENTS && rig.flushes <= 1);
  close_rig(&rig);
}

/* SIGTERM: what waits is kept, and the restart goes on with it. */
static void test_stop_and_go_on(void **unused) {
  (void)unused;
  struct rig rig;
  struct m2se_error error;
  char dir[64] = "/tmp/m2sed-trainer-XXXXXX";
  const struct m2sed_checkpoint_info info = {.lineage = "rig", .topic = "t", .keep = 1};
  assert_non_null(mkdtemp(dir));
  struct m2sed_checkpoint_state *loaded = NULL;
  for (uint32_t first = 0; first < EVENTS; first += 61) {
    open_rig(&rig, loaded, 2);
    m2sed_checkpoint_state_free(loaded); /* it was copied */
    rig.keep_snapshots = true;
    start(&rig);
    send_items(&rig);
    send_events(&rig, first, first + 61 < EVENTS ? first + 61 : EVENTS);
    stop(&rig);
    assert_int_equal(rig.held_count, 1);
    assert_int_equal(m2sed_checkpoint_write(dir, rig.held[0], &info, NULL, NULL, &error), 0);
    assert_int_equal(m2sed_checkpoint_load(&loaded, dir, NULL, NULL, &error), 0);
    if (first + 61 >= EVENTS) {
      assert_last_is(&rig, EVENTS, false);
    }
    close_rig(&rig);
  }
  m2sed_checkpoint_state_free(loaded);
  rig_remove_tree(dir);
}

static void test_snapshots(void **unused) {
  (void)unused;
  struct rig rig;
  size_t size, size_again;
  open_rig(&rig, NULL, 1);
  rig.keep_snapshots = true;
  start(&rig);
  send_items(&rig);
  send_kind(&rig, M2SED_TRAIN_CHECKPOINT);
  RIG_WAIT_UNTIL(pump(&rig), rig.snapshots_came == 1)
  assert_true(rig.held[0]->step == 0);
  send_events(&rig, 0, 60);
  send_kind(&rig, M2SED_TRAIN_CHECKPOINT);
  RIG_WAIT_UNTIL(pump(&rig), rig.snapshots_came == 2)
  assert_true(rig.held[1]->step == rig.steps && rig.steps > 5);
  assert_true(rig.held[1] != rig.held[0]);
  char *bytes = rig_snapshot_bytes(rig.held[1], &size);
  send_kind(&rig, M2SED_TRAIN_CHECKPOINT); /* both are out: training goes on, the answer comes later */
  uint64_t before = rig.steps;
  send_events(&rig, 60, 120);
  RIG_WAIT_UNTIL(pump(&rig), rig.steps > before + 5)
  assert_int_equal(rig.snapshots_came, 2);
  char *bytes_again = rig_snapshot_bytes(rig.held[1], &size_again);
  assert_int_equal(size, size_again);
  assert_memory_equal(bytes, bytes_again, size); /* it is ours as long as we keep it */
  free(bytes);
  free(bytes_again);
  m2sed_trainer_return_snapshot(rig.trainer, rig.held[0]);
  RIG_WAIT_UNTIL(pump(&rig), rig.snapshots_came == 3)
  assert_ptr_equal(rig.held[2], rig.held[0]);
  assert_true(rig.held[2]->step > rig.held[1]->step);
  send_kind(&rig, M2SED_TRAIN_STOP); /* again both are out: the last one waits too */
  for (int i = 0; i < 50; i++) {
    pump(&rig);
    rig_pause();
  }
  assert_false(rig.last_came);
  m2sed_trainer_return_snapshot(rig.trainer, rig.held[1]);
  RIG_WAIT_UNTIL(pump(&rig), rig.stopped)
  m2sed_trainer_join(rig.trainer);
  assert_ptr_equal(rig.held[3], rig.held[1]);
  assert_last_is(&rig, 120, false);
  close_rig(&rig);
}

/* No generation is made of suspect weights; after three refused steps in a row they are the good ones again.
 */
static void test_guard_goes_back(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, NULL, 1);
  rig.settings.guard_rollback = 3;
  rig.settings.gradient_norm_max = 1e-9;
  reopen(&rig);
  start(&rig);
  send_items(&rig);
  uint32_t n = 0;
  for (; rig.steps < 1; n++) {
    send_events(&rig, n, n + 1);
    RIG_WAIT_UNTIL(pump(&rig), m2sed_ring_used(m2sed_trainer_input(rig.trainer)) == 0)
  }
  send_kind(&rig, M2SED_TRAIN_CHECKPOINT);
  for (int i = 0; i < 50; i++) {
    pump(&rig);
    rig_pause();
  }
  assert_int_equal(rig.snapshots_came, 0);
  assert_true(rig.newest.counters.refused_in_a_row == 1 && rig.newest.counters.rollbacks == 0);
  for (; rig.snapshots_came == 0; n++) {
    assert_true(n < 100);
    send_events(&rig, n, n + 1);
    RIG_WAIT_UNTIL(pump(&rig), m2sed_ring_used(m2sed_trainer_input(rig.trainer)) == 0)
    rig_pause();
  }
  assert_true(rig.newest.counters.refused_in_a_row == 3 && rig.newest.counters.rollbacks == 1);
  send_events(&rig, n, EVENTS);
  stop(&rig);
  assert_true(rig.applied == 0 && rig.newest.counters.rollbacks == rig.steps / 3);
  close_rig(&rig);
}

static void test_copies(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, NULL, 1);
  rig.keep_copies = true;
  start(&rig);
  RIG_WAIT_UNTIL(pump(&rig), rig.copies_came == 1) /* the first one at once */
  assert_true(rig.copied_step == 0);
  send_items(&rig);
  for (uint32_t n = 0; rig.copies_came < 2; n++) {
    assert_true(n < 100);
    send_events(&rig, n, n + 1);
    RIG_WAIT_UNTIL(pump(&rig), m2sed_ring_used(m2sed_trainer_input(rig.trainer)) == 0)
    rig_pause();
  }
  assert_true(rig.copied_step == rig.settings.epoch_steps);
  assert_int_equal(rig.copies[1]->slots, RIG_SLOTS);
  send_events(&rig, 100, 200); /* both are out: training goes on */
  RIG_WAIT_UNTIL(pump(&rig), rig.steps > 20)
  send_kind(&rig, M2SED_TRAIN_FLUSH);
  RIG_WAIT_UNTIL(pump(&rig), rig.flushes == 1)
  assert_int_equal(rig.copies_came, 2);
  assert_true(m2se_weights_step(rig.copies[0]->weights) == 0);
  m2sed_exchange_give(rig.exchange->idle, rig.copies[0]);
  rig.copy_count = 0;
  RIG_WAIT_UNTIL(pump(&rig), rig.copies_came == 3)
  assert_true(rig.copied_step == rig.flushed.step);
  send_kind(&rig, M2SED_TRAIN_FLUSH); /* nothing was trained since: the server has these weights */
  RIG_WAIT_UNTIL(pump(&rig), rig.flushes == 2)
  m2sed_exchange_give(rig.exchange->idle, rig.copies[1]);
  send_events(&rig, 200, 201);
  send_kind(&rig, M2SED_TRAIN_FLUSH); /* one step, fewer than epoch_steps: a copy all the same */
  RIG_WAIT_UNTIL(pump(&rig), rig.copies_came == 4)
  assert_true(rig.copied_step == rig.flushed.step && rig.flushes == 3);
  stop(&rig);
  close_rig(&rig);
}

/* Records that were never taken are given back (the leak checker sees it). */
static void test_stop_before_the_rest(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, NULL, 1);
  for (int i = 0; i < 3; i++) {
    send(&rig, rig_item((uint32_t)i, 1));
  }
  send_kind(&rig, M2SED_TRAIN_STOP);
  for (int i = 3; i < 6; i++) {
    send(&rig, rig_item((uint32_t)i, 1));
  }
  start(&rig);
  RIG_WAIT_UNTIL(pump(&rig), rig.stopped)
  m2sed_trainer_join(rig.trainer);
  assert_int_equal(m2sed_ring_used(m2sed_trainer_input(rig.trainer)), 3);
  close_rig(&rig);
}

static void test_never_started(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, NULL, 1);
  send(&rig, rig_item(0, 1));
  m2sed_trainer_join(rig.trainer);
  close_rig(&rig);
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2sed_exchange *exchange;
  struct m2sed_trainer *trainer;
  struct m2se_error error;
  assert_int_equal(m2sed_exchange_new(&exchange, &config, RIG_SLOTS, &error), 0);
  settings.batch = 0;
  assert_int_equal(m2sed_trainer_new(&trainer, &config, &settings, exchange, NULL, &error), M2SE_EINVAL);
  assert_null(trainer);
  m2sed_exchange_free(exchange);
  m2sed_trainer_free(NULL);
}

int main(void) {
  rig_stream_make(&stream, EVENTS);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_learns_the_same), cmocka_unit_test(test_backlog),
      cmocka_unit_test(test_stop_in_a_flush), cmocka_unit_test(test_stop_and_go_on),
      cmocka_unit_test(test_snapshots),       cmocka_unit_test(test_guard_goes_back),
      cmocka_unit_test(test_copies),          cmocka_unit_test(test_stop_before_the_rest),
      cmocka_unit_test(test_never_started),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
