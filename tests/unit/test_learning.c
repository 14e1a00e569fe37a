/* What is learned is a function of the messages: each event once, the same bits with any number of workers,
 * and after any checkpoint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/pool.h"
#include "tests/unit/checkpoint_rig.h"
#include "tests/unit/learning_rig.h"

enum { EVENTS = 300 };

static struct rig_stream stream;

static struct m2sed_learning *open_learning(const struct m2se_config *config,
                                            const struct m2sed_train_settings *settings,
                                            const struct m2sed_checkpoint_state *restored) {
  struct m2sed_learning *learning;
  struct m2se_error error;
  if (m2sed_learning_new(&learning, config, settings, restored, &error) != 0) {
    fail_msg("%s", error.text);
  }
  return learning;
}

static void take_items(struct m2sed_learning *learning) {
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    struct m2sed_train_message message = rig_item(slot, slot == 3 ? 0 : 1); /* one without features */
    m2sed_learning_take(learning, &message);
  }
}

static struct m2sed_learning *open_default(void) {
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2sed_learning *learning = open_learning(&config, &settings, NULL);
  take_items(learning);
  return learning;
}

static uint32_t train_due(struct m2sed_learning *learning, const struct m2se_workers *workers) {
  uint32_t steps = 0;
  struct m2sed_trained_message result;
  while (m2sed_learning_due(learning)) {
    steps += m2sed_learning_step(learning, workers, &result);
  }
  return steps;
}

/* Events first..last-1 of the stream. */
static void feed(struct m2sed_learning *learning, const struct m2se_workers *workers, uint32_t first,
                 uint32_t last) {
  for (uint32_t n = first; n < last; n++) {
    struct m2sed_train_message message = rig_event(&stream, n);
    m2sed_learning_take(learning, &message);
    train_due(learning, workers);
  }
}

static struct m2sed_trained_message report(const struct m2sed_learning *learning) {
  struct m2sed_trained_message message = {0};
  m2sed_learning_report(learning, &message);
  return message;
}

/* ---- each event once ---- */

static void test_counts(void **unused) {
  (void)unused;
  struct m2se_workers serial = m2se_workers_serial();
  struct m2sed_learning *learning = open_default();
  feed(learning, &serial, 0, EVENTS);
  struct m2sed_trained_message result = report(learning);
  /* Naively: what teaches, and what of it is trained once the last waiting ones are taken off. */
  uint64_t no_context = 0, no_features = 0, teaching = 0, digest = 0;
  uint64_t digests[EVENTS];
  for (uint32_t n = 0; n < EVENTS; n++) {
    struct m2sed_train_message message = rig_event(&stream, n);
    bool featured = false;
    for (uint32_t i = 0; i < message.context_count; i++) {
      featured |= message.context[i] != 3;
    }
    if (message.outcome == M2SED_NO_CONTEXT) {
      no_context++;
    } else if (message.item == 3 || !featured) {
      no_features++;
    } else {
      digests[teaching++] = message.digest;
    }
  }
  assert_true(no_context == RIG_USERS && no_features > 0);
  uint64_t trained = teaching / 4 * 4; /* 4 fresh examples a step */
  for (uint64_t i = 0; i < trained; i++) {
    digest += digests[i];
  }
  assert_true(result.counters.trained_events == trained);
  assert_true(result.counters.event_digest == digest);
  assert_true(result.counters.skipped_no_context == no_context);
  assert_true(result.counters.skipped_no_features == no_features);
  assert_int_equal(result.waiting, teaching - trained);
  assert_true(result.step == trained / 4);
  assert_true(result.reservoir_seen == trained && result.reservoir_size == 30);
  assert_true(result.counters.skipped_guard == 0 && result.counters.dead_lettered == 0);
  m2sed_learning_free(learning);
}

/* Partitions are read again from anywhere before: nothing changes. */
static void test_repeated_events(void **unused) {
  (void)unused;
  size_t size, size_again;
  struct m2se_workers serial = m2se_workers_serial();
  struct m2sed_learning *learning = open_default(), *again = open_default();
  feed(learning, &serial, 0, EVENTS);
  for (uint32_t n = 0; n < EVENTS; n += 50) {
    feed(again, &serial, n, n + 50);
    feed(again, &serial, n > 70 ? n - 70 : 0, n + 50);
  }
  char *bytes = rig_state_bytes(learning, &size), *bytes_again = rig_state_bytes(again, &size_again);
  assert_int_equal(size, size_again);
  assert_memory_equal(bytes, bytes_again, size);
  free(bytes);
  free(bytes_again);
  m2sed_learning_free(learning);
  m2sed_learning_free(again);
}

static void test_outcomes(void **unused) {
  (void)unused;
  struct m2sed_learning *learning = open_default();
  for (uint64_t n = 0; n < 10; n++) {
    const enum m2sed_outcome outcomes[] = {M2SED_NO_CONTEXT, M2SED_DUPLICATE, M2SED_DEAD_LETTER};
    struct m2sed_train_message message = {.kind = M2SED_TRAIN_EVENT,
                                          .outcome = outcomes[n % 3],
                                          .at = {1, UINT64_C(4) << 48 | n},
                                          .digest = 1,
                                          .item = 2};
    m2sed_learning_take(learning, &message);
  }
  struct m2sed_trained_message result = report(learning);
  assert_true(result.counters.skipped_no_context == 4);
  assert_true(result.counters.skipped_duplicate == 3);
  assert_true(result.counters.dead_lettered == 3);
  assert_true(result.counters.trained_events == 0 && result.counters.event_digest == 0);
  /* A new log begins at offset 0 again, in a higher epoch; what is left of the old one does not count. */
  struct m2sed_train_message message = {
      .kind = M2SED_TRAIN_EVENT, .outcome = M2SED_DUPLICATE, .at = {1, UINT64_C(5) << 48}};
  m2sed_learning_take(learning, &message);
  message.at.position = UINT64_C(4) << 48 | 500;
  m2sed_learning_take(learning, &message);
  assert_true(report(learning).counters.skipped_duplicate == 4);
  m2sed_learning_free(learning);
}

/* ---- the same bits ---- */

static void test_any_number_of_workers(void **unused) {
  (void)unused;
  size_t size, size_again;
  struct m2se_workers serial = m2se_workers_serial();
  struct m2sed_learning *alone = open_default();
  feed(alone, &serial, 0, EVENTS);
  char *bytes = rig_state_bytes(alone, &size);
  for (uint32_t threads = 1; threads <= 3; threads++) {
    struct m2se_config config = rig_config();
    struct m2sed_train_settings settings = rig_settings();
    struct m2sed_pool *pool;
    struct m2se_error error;
    settings.threads = threads;
    assert_int_equal(m2sed_pool_new(&pool, threads, 0, &error), 0);
    struct m2se_workers workers = m2sed_pool_workers(pool);
    struct m2sed_learning *learning = open_learning(&config, &settings, NULL);
    take_items(learning);
    feed(learning, &workers, 0, EVENTS);
    char *bytes_again = rig_state_bytes(learning, &size_again);
    assert_int_equal(size, size_again);
    assert_memory_equal(bytes, bytes_again, size);
    free(bytes_again);
    m2sed_learning_free(learning);
    m2sed_pool_free(pool);
  }
  free(bytes);
  m2sed_learning_free(alone);
}

static void test_seed_matters(void **unused) {
  (void)unused;
  size_t size, size_again;
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  config.seed++;
  struct m2sed_learning *a = open_default(), *b = open_learning(&config, &settings, NULL);
  take_items(b);
  feed(a, &serial, 0, 60);
  feed(b, &serial, 0, 60);
  char *bytes = rig_state_bytes(a, &size), *bytes_again = rig_state_bytes(b, &size_again);
  assert_true(size != size_again || memcmp(bytes, bytes_again, size) != 0);
  free(bytes);
  free(bytes_again);
  m2sed_learning_free(a);
  m2sed_learning_free(b);
}

/* What the three files do not hold: it is in the manifest. */
static void assert_same_places(const struct m2sed_learning *learning,
                               const struct m2sed_checkpoint_state *state) {
  struct m2sed_checkpoint_state *now;
  struct m2se_error error;
  assert_int_equal(m2sed_learning_snapshot_new(learning, &now, &error), 0);
  m2sed_learning_snapshot_take(learning, now);
  assert_true(now->newest_event_ms == state->newest_event_ms);
  assert_int_equal(now->position_count, state->position_count);
  for (uint32_t i = 0; i < now->position_count; i++) {
    assert_int_equal(now->positions[i].partition, state->positions[i].partition);
    assert_true(now->positions[i].position == state->positions[i].position);
  }
  m2sed_learning_snapshot_free(now);
}

/* A checkpoint after any event, written, loaded, its items told again, the events before read again: the end
 * is the same as without, in all three files. */
static void test_restored_after_any_event(void **unused) {
  (void)unused;
  enum { LAST = 120 };
  size_t size, size_again;
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2sed_learning *learning = open_default();
  feed(learning, &serial, 0, LAST);
  char *bytes = rig_state_bytes(learning, &size);
  m2sed_learning_free(learning);
  for (uint32_t stop = 0; stop < LAST; stop += stop < 20 ? 1 : 7) {
    char dir[64];
    learning = open_default();
    feed(learning, &serial, 0, stop);
    struct m2sed_checkpoint_state *state = rig_reload(learning, dir);
    struct m2sed_trained_message before = report(learning);
    m2sed_learning_free(learning);
    learning = open_learning(&config, &settings, state);
    struct m2sed_trained_message after = report(learning);
    assert_memory_equal(&before.counters, &after.counters, sizeof before.counters);
    assert_same_places(learning, state);
    assert_int_equal(before.waiting, after.waiting);
    m2sed_checkpoint_state_free(state);
    rig_remove_tree(dir);
    take_items(learning);
    feed(learning, &serial, stop > 9 ? stop - 9 : 0, LAST);
    char *bytes_again = rig_state_bytes(learning, &size_again);
    assert_int_equal(size, size_again);
    assert_memory_equal(bytes, bytes_again, size);
    free(bytes_again);
    m2sed_learning_free(learning);
  }
  free(bytes);
}

static void test_restore_refused(void **unused) {
  (void)unused;
  char dir[64];
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2sed_learning *learning = open_default(), *refused;
  struct m2se_error error;
  struct m2sed_checkpoint_state *state = rig_reload(learning, dir);
  settings.items_max = RIG_SLOTS - 1;
  assert_int_equal(m2sed_learning_new(&refused, &config, &settings, state, &error), M2SE_ELIMIT);
  assert_null(refused);
  settings = rig_settings();
  config.h *= 2;
  assert_int_not_equal(m2sed_learning_new(&refused, &config, &settings, state, &error), 0);
  assert_non_null(strstr(error.text, "model.safetensors"));
  config = rig_config();
  state->step++;
  assert_int_equal(m2sed_learning_new(&refused, &config, &settings, state, &error), M2SE_EFORMAT);
  state->step--;
  settings.items_max = 2 * RIG_SLOTS; /* more room is no problem */
  settings.reservoir_capacity = 5;
  settings.batch = 30;
  m2sed_learning_free(learning);
  learning = open_learning(&config, &settings, state);
  m2sed_learning_free(learning);
  m2sed_checkpoint_state_free(state);
  rig_remove_tree(dir);
}

/* ---- steps that are left out ---- */

static void test_guard(void **unused) {
  (void)unused;
  size_t size, size_again;
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  settings.gradient_norm_max = 1e-9;
  struct m2sed_learning *learning = open_learning(&config, &settings, NULL);
  take_items(learning);
  char *bytes = rig_state_bytes(learning, &size);
  struct m2sed_trained_message result;
  feed(learning, &serial, 0, 40);
  while (m2sed_learning_waiting(learning) > 0) {
    assert_true(m2sed_learning_step(learning, &serial, &result));
    assert_false(result.applied);
    assert_true(result.gradient_norm > 1e-9);
  }
  assert_true(result.counters.skipped_guard > 20);
  assert_true(result.counters.trained_events == 0 && result.counters.event_digest == 0);
  assert_true(result.reservoir_seen == 0);
  assert_true(result.step > 5); /* the number goes on, so that the next draws are others */
  char *bytes_again = rig_state_bytes(learning, &size_again);
  uint64_t header; /* of model.safetensors, which has the step in it */
  memcpy(&header, bytes, sizeof header);
  assert_true(header % 8 == 0 && sizeof header + header + 3000 < size);
  assert_memory_equal(bytes + sizeof header + header, bytes_again + sizeof header + header, 3000);
  free(bytes);
  free(bytes_again);
  /* The checkpoint tells which events they were. */
  char dir[64];
  struct m2sed_checkpoint_state *state = rig_reload(learning, dir);
  assert_true(state->skipped_count == result.counters.skipped_guard);
  assert_true(state->counters.refused_in_a_row == result.step);
  for (uint32_t i = 0, n = 0; i < state->skipped_count; i++, n++) {
    struct m2sed_train_message event = rig_event(&stream, n);
    while (event.at.position != state->skipped[i].position) {
      event = rig_event(&stream, ++n);
    }
    assert_int_equal(event.at.partition, state->skipped[i].partition);
    assert_int_equal(event.outcome, M2SED_TEACHES);
  }
  m2sed_checkpoint_state_free(state);
  rig_remove_tree(dir);
  m2sed_learning_free(learning);
}

static void test_loss_max(void **unused) {
  (void)unused;
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  for (int refused = 0; refused <= 1; refused++) {
    config.loss_max = refused ? 0.5 : 1000;
    struct m2sed_learning *learning = open_learning(&config, &settings, NULL);
    take_items(learning);
    feed(learning, &serial, 0, 60);
    struct m2sed_trained_message result = report(learning);
    assert_true((result.counters.trained_events == 0) == refused);
    assert_true((result.counters.skipped_guard > 0) == refused);
    m2sed_learning_free(learning);
  }
}

/* Weights, moments and item table of the good state come back, also where items came since; nothing else. */
static void test_go_back(void **unused) {
  (void)unused;
  enum { LATE = 11 };
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2se_error error;
  struct m2sed_checkpoint_state *good;
  struct m2sed_learning *learning = open_learning(&config, &settings, NULL);
  for (uint32_t slot = 0; slot < LATE; slot++) {
    struct m2sed_train_message item = rig_item(slot, 1);
    m2sed_learning_take(learning, &item);
  }
  feed(learning, &serial, 0, 150);
  assert_int_equal(m2sed_learning_snapshot_new(learning, &good, &error), 0);
  m2sed_learning_snapshot_take(learning, good);
  take_items(learning);
  feed(learning, &serial, 150, 250);
  struct m2sed_trained_message before = report(learning);
  assert_true(before.step > good->step && good->step > 0);
  m2sed_learning_go_back(learning, good);
  struct m2sed_trained_message after = report(learning);
  assert_true(after.counters.rollbacks == 1);
  after.counters.rollbacks = 0;
  assert_memory_equal(&before.counters, &after.counters, sizeof before.counters);
  assert_true(after.step == before.step && after.waiting == before.waiting);
  assert_true(after.reservoir_seen == before.reservoir_seen);
  /* As serving sees them: what was there is as then, what came since is as new. */
  struct m2sed_checkpoint_state *now;
  char path[2][64] = {"/tmp/m2sed-back-a-XXXXXX", "/tmp/m2sed-back-b-XXXXXX"};
  assert_int_equal(m2sed_learning_snapshot_new(learning, &now, &error), 0);
  m2sed_learning_snapshot_take(learning, now);
  char *text[2];
  size_t size[2];
  for (int i = 0; i < 2; i++) {
    close(mkstemp(path[i]));
    assert_int_equal(m2se_snapshot_write_model(i == 0 ? good->weights : now->weights, path[i], &error), 0);
    text[i] = rig_read(path[i], &size[i]);
    unlink(path[i]);
  }
  uint64_t header[2]; /* it has the step in it */
  memcpy(&header[0], text[0], sizeof header[0]);
  memcpy(&header[1], text[1], sizeof header[1]);
  assert_true(size[0] - header[0] == size[1] - header[1] && size[0] - header[0] > 3000);
  assert_memory_equal(text[0] + 8 + header[0], text[1] + 8 + header[1], size[0] - header[0] - 8);
  free(text[0]);
  free(text[1]);
  feed(learning, &serial, 250, EVENTS); /* and it goes on */
  assert_true(report(learning).counters.trained_events > before.counters.trained_events);
  assert_true(report(learning).counters.refused_in_a_row == 0);
  m2sed_learning_snapshot_free(now);
  m2sed_learning_snapshot_free(good);
  m2sed_learning_free(learning);
}

static void test_suspect(void **unused) {
  (void)unused;
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  settings.guard_rollback = 3;
  settings.gradient_norm_max = 1e-9;
  struct m2sed_learning *learning = open_learning(&config, &settings, NULL);
  take_items(learning);
  assert_false(m2sed_learning_is_suspect(learning) || m2sed_learning_must_go_back(learning));
  for (uint32_t n = 0; n < 100; n++) {
    feed(learning, &serial, n, n + 1);
    uint64_t step = report(learning).step;
    assert_true(m2sed_learning_must_go_back(learning) == (step > 0 && step % 3 == 0));
    assert_true(m2sed_learning_is_suspect(learning) == (step % 3 != 0));
  }
  assert_true(report(learning).step > 6);
  m2sed_learning_free(learning);
}

static void test_flush_and_lost_features(void **unused) {
  (void)unused;
  struct m2se_workers serial = m2se_workers_serial();
  struct m2sed_learning *learning = open_default();
  struct m2sed_trained_message result;
  uint32_t n = 0;
  while (m2sed_learning_waiting(learning) < 3) {
    feed(learning, &serial, n, n + 1);
    n++;
  }
  uint64_t trained = report(learning).counters.trained_events;
  assert_false(m2sed_learning_due(learning));
  assert_true(m2sed_learning_step(learning, &serial, &result)); /* a flush does that */
  assert_int_equal(result.fresh, 3);
  assert_true(result.applied && result.counters.trained_events == trained + 3);
  assert_int_equal(m2sed_learning_waiting(learning), 0);
  while (m2sed_learning_waiting(learning) < 2) {
    feed(learning, &serial, n, n + 1);
    n++;
  }
  uint64_t skipped = report(learning).counters.skipped_no_features, step = report(learning).step;
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    struct m2sed_train_message message = rig_item(slot, 1);
    message.record->deleted = true;
    m2sed_learning_take(learning, &message);
  }
  assert_false(m2sed_learning_step(learning, &serial, &result)); /* nothing is left to train */
  assert_true(result.counters.skipped_no_features == skipped + 2);
  assert_true(result.counters.trained_events == trained + 3);
  assert_true(result.step == step);
  m2sed_learning_free(learning);
}

/* ---- popularity, and what is handed out ---- */

static void test_popularity(void **unused) {
  (void)unused;
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2sed_exchange *exchange;
  struct m2se_error error;
  assert_int_equal(m2sed_exchange_new(&exchange, &config, RIG_SLOTS, &error), 0);
  struct m2sed_weights_copy *copy = m2sed_exchange_take(exchange->idle);
  for (int decays = 0; decays <= 1; decays++) {
    settings.popularity_half_life_seconds = decays ? 60 : 0;
    struct m2sed_learning *learning = open_learning(&config, &settings, NULL);
    take_items(learning);
    static const struct {
      uint32_t item;
      int64_t seconds;
    } events[] = {{1, 100}, {1, 160},        {2, 40},  {1, 100}, {4, -500},
                  {2, 280}, {2, -100000000}, {1, 220}, {4, 280}, {2, 0}};
    double expected[RIG_SLOTS] = {0};
    for (uint32_t n = 0; n < sizeof events / sizeof events[0]; n++) {
      struct m2sed_train_message message = {.kind = M2SED_TRAIN_EVENT,
                                            .outcome = M2SED_NO_CONTEXT,
                                            .at = {0, n},
                                            .item = events[n].item,
                                            .event_time_ms = events[n].seconds * 1000};
      m2sed_learning_take(learning, &message);
      expected[events[n].item] += decays ? exp2((double)(events[n].seconds - 280) / 60) : 1;
    }
    m2sed_learning_copy(learning, copy);
    assert_int_equal(copy->slots, RIG_SLOTS);
    for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
      assert_true(fabs(copy->popularity[slot] - expected[slot]) < 1e-6 * (1 + expected[slot]));
    }
    struct m2sed_train_message deletion = rig_item(1, 1);
    deletion.record->deleted = true;
    m2sed_learning_take(learning, &deletion);
    m2sed_learning_copy(learning, copy);
    assert_true(copy->popularity[1] == 0 && copy->popularity[2] > 0);
    m2sed_learning_free(learning);
  }
  m2sed_exchange_give(exchange->idle, copy);
  m2sed_exchange_free(exchange);
}

/* A deleted item keeps its slot: its id is in the checkpoint, and it may come back. */
static void test_deleted_item_keeps_its_slot(void **unused) {
  (void)unused;
  char dir[64];
  struct m2sed_learning *learning = open_default();
  for (uint32_t slot = 5; slot < 9; slot++) {
    struct m2sed_train_message deletion = rig_item(slot, 0);
    deletion.record->deleted = true;
    m2sed_learning_take(learning, &deletion);
  }
  struct m2sed_checkpoint_state *state = rig_reload(learning, dir);
  assert_int_equal(state->item_count, RIG_SLOTS);
  assert_string_equal(state->items[5].id, "item-5");
  assert_string_equal(state->items[8].id, "item-8");
  m2sed_checkpoint_state_free(state);
  rig_remove_tree(dir);
  m2sed_learning_free(learning);
}

static void test_settings_check(void **unused) {
  (void)unused;
  struct m2sed_train_settings settings = rig_settings();
  struct m2se_error error;
  assert_int_equal(m2sed_train_settings_check(&settings, &error), 0);
#define REFUSED(field, value)                                                                                \
  settings = rig_settings();                                                                                 \
  settings.field = value;                                                                                    \
  assert_int_equal(m2sed_train_settings_check(&settings, &error), M2SE_EINVAL);                              \
  assert_non_null(strstr(error.text, #field))
  REFUSED(batch, 0);
  REFUSED(batch, 65537);
  REFUSED(threads, 0);
  REFUSED(replay_ratio, -1);
  REFUSED(replay_ratio, NAN);
  REFUSED(reservoir_capacity, (1u << 24) + 1);
  REFUSED(batch_ms, -1);
  REFUSED(backlog, (1u << 24) + 1);
  REFUSED(parking, (1u << 24) + 1);
  REFUSED(epoch_steps, 0);
  REFUSED(gradient_norm_max, -1e-9);
  REFUSED(popularity_half_life_seconds, NAN);
  REFUSED(items_max, 0);
  REFUSED(rows_max, 0);
  REFUSED(ring_capacity, 0);
  struct m2se_config config = rig_config();
  struct m2sed_learning *learning;
  settings = rig_settings();
  config.max_len = M2SED_CONTEXT_MAX + 1;
  assert_int_equal(m2sed_learning_new(&learning, &config, &settings, NULL, &error), M2SE_EINVAL);
}

int main(void) {
  rig_stream_make(&stream, EVENTS);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_counts),          cmocka_unit_test(test_repeated_events),
      cmocka_unit_test(test_outcomes),        cmocka_unit_test(test_any_number_of_workers),
      cmocka_unit_test(test_seed_matters),    cmocka_unit_test(test_restored_after_any_event),
      cmocka_unit_test(test_restore_refused), cmocka_unit_test(test_guard),
      cmocka_unit_test(test_loss_max),        cmocka_unit_test(test_go_back),
      cmocka_unit_test(test_suspect),         cmocka_unit_test(test_flush_and_lost_features),
      cmocka_unit_test(test_popularity),      cmocka_unit_test(test_deleted_item_keeps_its_slot),
      cmocka_unit_test(test_settings_check),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
