/* Mini-batches and the reservoir behind them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/batcher.h"
#include "tests/unit/learning_rig.h"

enum { BARE = 20, DELETED = 21, FEATURED = 20 }; /* slots below FEATURED have features */

struct rig {
  struct m2se_config config;
  struct m2sed_train_settings settings;
  struct m2sed_item_record *records[RIG_SLOTS];
  struct m2sed_batcher *batcher;
  struct m2sed_reservoir reservoir;
};

static void open_rig(struct rig *rig, uint32_t batch, double replay_ratio, enum m2se_targets targets) {
  struct m2se_error error;
  memset(rig, 0, sizeof *rig);
  rig->config = rig_config();
  rig->config.targets = targets;
  rig->settings = rig_settings();
  rig->settings.batch = batch;
  rig->settings.replay_ratio = replay_ratio;
  for (uint32_t slot = 0; slot < FEATURED; slot++) {
    rig->records[slot] = rig_record(slot, 1);
  }
  rig->records[BARE] = rig_record(BARE, 0);
  rig->records[DELETED] = rig_record(DELETED, 1);
  rig->records[DELETED]->deleted = true;
  assert_int_equal(m2sed_batcher_new(&rig->batcher, &rig->config, &rig->settings, rig->records, &error), 0);
  assert_int_equal(m2sed_reservoir_init(&rig->reservoir, rig->settings.reservoir_capacity, 3), 0);
}

static void close_rig(struct rig *rig) {
  m2sed_batcher_free(rig->batcher);
  m2sed_reservoir_deinit(&rig->reservoir);
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    m2sed_item_record_release(rig->records[slot]);
  }
}

/* The last of `slots` is the item, those before it the context. */
static struct m2sed_example example_of(uint64_t user, uint64_t position, uint32_t count,
                                       const uint32_t *slots) {
  struct m2sed_example example = {.user_hash = user,
                                  .digest = position * 31,
                                  .at = {0, position},
                                  .item = slots[count - 1],
                                  .context_count = count - 1};
  memcpy(example.context, slots, (count - 1) * sizeof slots[0]);
  return example;
}
#define EXAMPLE(user, position, ...)                                                                         \
  example_of(user, position, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (uint32_t[]){__VA_ARGS__})

static bool add(struct rig *rig, struct m2sed_example example) {
  return m2sed_batcher_add(rig->batcher, &example);
}

static struct m2sed_batch build(struct rig *rig, uint64_t step) {
  struct m2sed_batch batch;
  m2sed_batcher_build(rig->batcher, &rig->reservoir, step, &batch);
  return batch;
}

/* Sequence j is made of these slots, the last one its target. */
static void assert_sequence(const struct m2se_batch *batch, uint32_t j, uint32_t count,
                            const uint32_t *slots) {
  assert_true(j < batch->n_sequences);
  assert_int_equal(batch->seq_ptr[j + 1] - batch->seq_ptr[j], count - 1);
  for (uint32_t i = 0; i + 1 < count; i++) {
    uint32_t item = batch->seq_items[batch->seq_ptr[j] + i];
    assert_true(item < batch->n_items);
    assert_int_equal(batch->items[item].slot, slots[i]);
  }
  assert_int_equal(batch->items[batch->target[j]].slot, slots[count - 1]);
}
#define ASSERT_SEQUENCE(batch, j, ...)                                                                       \
  assert_sequence(batch, j, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (uint32_t[]){__VA_ARGS__})

/* ---- fresh examples ---- */

static void test_fresh(void **unused) {
  (void)unused;
  static const struct {
    uint32_t batch;
    double ratio;
    uint32_t fresh;
  } cases[] = {{8, 0, 8}, {8, 3, 2}, {8, 1000, 1}, {1, 0, 1}, {1, 5, 1}, {256, 1.5, 102}, {10, 0.01, 10}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct m2sed_train_settings settings = {.batch = cases[i].batch, .replay_ratio = cases[i].ratio};
    assert_int_equal(m2sed_batcher_fresh(&settings), cases[i].fresh);
  }
}

static void test_due(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 9, 2, M2SE_TARGETS_LAST); /* 3 fresh */
  assert_int_equal(m2sed_batcher_capacity(rig.batcher), 3);
  for (uint32_t i = 0; i < 3; i++) {
    assert_false(m2sed_batcher_due(rig.batcher));
    assert_true(add(&rig, EXAMPLE(i, i, 1, 2 + i)));
    assert_int_equal(m2sed_batcher_waiting(rig.batcher), i + 1);
  }
  assert_true(m2sed_batcher_due(rig.batcher));
  struct m2sed_batch batch = build(&rig, 1);
  assert_int_equal(batch.fresh, 3);
  assert_int_equal(batch.replayed, 0);
  assert_int_equal(batch.network.n_sequences, 3);
  for (uint32_t i = 0; i < 3; i++) {
    assert_true(batch.fresh_left[i]);
    ASSERT_SEQUENCE(&batch.network, i, 1, 2 + i);
  }
  m2sed_batcher_drop(rig.batcher, 3);
  assert_int_equal(m2sed_batcher_waiting(rig.batcher), 0);
  assert_false(m2sed_batcher_due(rig.batcher));
  close_rig(&rig);
}

static void test_without_features(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 8, 0, M2SE_TARGETS_LAST);
  assert_false(add(&rig, EXAMPLE(1, 1, 1, BARE)));
  assert_false(add(&rig, EXAMPLE(1, 1, 1, DELETED)));
  assert_false(add(&rig, EXAMPLE(1, 1, 1, 23))); /* no record at all */
  assert_false(add(&rig, EXAMPLE(1, 1, BARE, DELETED, 23, 1)));
  assert_int_equal(m2sed_batcher_waiting(rig.batcher), 0);
  assert_true(add(&rig, EXAMPLE(1, 1, BARE, 2, DELETED, 3, 23, 4)));
  struct m2sed_batch batch = build(&rig, 0);
  ASSERT_SEQUENCE(&batch.network, 0, 2, 3, 4);
  close_rig(&rig);
}

/* The newest max_len that have features, which is not the same as those among the newest max_len. */
static void test_long_context(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 8, 0, M2SE_TARGETS_LAST);
  assert_true(add(&rig, EXAMPLE(1, 1, 0, 1, 2, BARE, 3, 4, BARE, 5, 6)));
  struct m2sed_batch batch = build(&rig, 0);
  ASSERT_SEQUENCE(&batch.network, 0, 1, 2, 3, 4, 5, 6);
  close_rig(&rig);
}

static void test_items_numbered_by_occurrence(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 8, 0, M2SE_TARGETS_LAST);
  assert_true(add(&rig, EXAMPLE(1, 1, 9, 3, 9, 12)));
  assert_true(add(&rig, EXAMPLE(2, 2, 12, 0, 3)));
  struct m2sed_batch batch = build(&rig, 0);
  const uint32_t slots[] = {9, 3, 12, 0}, seq_items[] = {0, 1, 0, 2, 3}, target[] = {2, 1};
  assert_int_equal(batch.network.n_items, 4);
  for (uint32_t i = 0; i < 4; i++) {
    const struct m2se_item_input *item = &batch.network.items[i];
    const struct m2sed_item_record *record = rig.records[slots[i]];
    assert_int_equal(item->slot, slots[i]);
    assert_ptr_equal(item->text.data, record->text);
    assert_int_equal(item->text.count, record->text_count);
    assert_ptr_equal(item->image.data, record->image);
    assert_int_equal(item->image.count, record->image_count);
  }
  assert_memory_equal(batch.network.seq_items, seq_items, sizeof seq_items);
  assert_memory_equal(batch.network.target, target, sizeof target);
  assert_null(batch.network.pos_target);
  close_rig(&rig);
}

static void test_rows_max(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 8, 0, M2SE_TARGETS_LAST);
  m2sed_batcher_free(rig.batcher);
  struct m2se_error error;
  rig.settings.rows_max = 2;
  assert_int_equal(m2sed_batcher_new(&rig.batcher, &rig.config, &rig.settings, rig.records, &error), 0);
  assert_true(add(&rig, EXAMPLE(1, 1, 0, 1)));
  struct m2sed_batch batch = build(&rig, 0);
  assert_int_equal(batch.network.items[0].image.count, 2);
  close_rig(&rig);
}

static void test_features_lost_meanwhile(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 3, 0, M2SE_TARGETS_LAST);
  assert_true(add(&rig, EXAMPLE(1, 1, 1, 2)));
  assert_true(add(&rig, EXAMPLE(2, 2, 3, 4)));
  assert_true(add(&rig, EXAMPLE(3, 3, 5, 6)));
  rig.records[2]->deleted = true;
  rig.records[3]->deleted = true;
  struct m2sed_batch batch = build(&rig, 0);
  assert_int_equal(batch.fresh, 3);
  assert_false(batch.fresh_left[0] || batch.fresh_left[1]);
  assert_true(batch.fresh_left[2]);
  assert_int_equal(batch.network.n_sequences, 1);
  ASSERT_SEQUENCE(&batch.network, 0, 5, 6);
  rig.records[6]->deleted = true;
  assert_int_equal(build(&rig, 0).network.n_sequences, 0);
  close_rig(&rig);
}

static void test_restore_more_than_fits(void **unused) {
  (void)unused;
  struct rig rig;
  struct m2se_error error;
  struct m2sed_example waiting[5];
  open_rig(&rig, 2, 0, M2SE_TARGETS_LAST);
  for (uint32_t i = 0; i < 5; i++) {
    waiting[i] = EXAMPLE(i, i, 1, 2 + i);
  }
  assert_int_equal(m2sed_batcher_restore(rig.batcher, waiting, 5, &error), 0);
  assert_true(add(&rig, EXAMPLE(9, 9, 1, 10)));
  for (uint32_t left = 6; left > 0; left -= 2) {
    assert_int_equal(m2sed_batcher_waiting(rig.batcher), left);
    assert_true(m2sed_batcher_due(rig.batcher));
    struct m2sed_batch batch = build(&rig, left);
    assert_int_equal(batch.fresh, 2);
    ASSERT_SEQUENCE(&batch.network, 0, 1, left == 6 ? 2 : left == 4 ? 4 : 6);
    m2sed_batcher_drop(rig.batcher, 2);
  }
  close_rig(&rig);
}

/* ---- sequences that teach several events ---- */

static void test_covered(void **unused) {
  (void)unused;
  for (int all = 0; all <= 1; all++) {
    struct rig rig;
    open_rig(&rig, 16, 0, all ? M2SE_TARGETS_ALL : M2SE_TARGETS_LAST);
    add(&rig, EXAMPLE(7, 1, 1, 2));          /* in the next one but one of its user */
    add(&rig, EXAMPLE(8, 2, 1, 2));          /* another user */
    add(&rig, EXAMPLE(7, 3, 1, 2, 3));       /* in the next one */
    add(&rig, EXAMPLE(7, 4, 1, 2, 3, 4));    /* the newest */
    add(&rig, EXAMPLE(9, 5, 1, 5));          /* its step 1, 5 is not in the next one of its user */
    add(&rig, EXAMPLE(9, 6, 2, 1, 6, 5, 7)); /* which is the newest */
    struct m2sed_batch batch = build(&rig, 0);
    assert_int_equal(batch.fresh, 6);
    for (uint32_t i = 0; i < 6; i++) {
      assert_true(batch.fresh_left[i]); /* covered is not left out */
    }
    if (!all) {
      assert_int_equal(batch.network.n_sequences, 6);
    } else {
      assert_int_equal(batch.network.n_sequences, 4);
      ASSERT_SEQUENCE(&batch.network, 0, 1, 2);
      ASSERT_SEQUENCE(&batch.network, 1, 1, 2, 3, 4);
      ASSERT_SEQUENCE(&batch.network, 2, 1, 5);
      ASSERT_SEQUENCE(&batch.network, 3, 2, 1, 6, 5, 7);
    }
    close_rig(&rig);
  }
}

/* Every event's step is a step of some sequence, once or more, whatever the stream. */
static void test_every_event_is_taught(void **unused) {
  (void)unused;
  struct rig rig;
  static struct rig_stream stream;
  rig_stream_make(&stream, 600);
  open_rig(&rig, 24, 1, M2SE_TARGETS_ALL); /* 12 fresh, 12 replayed */
  uint64_t step = 0, covered = 0;
  for (uint32_t n = 0; n < stream.count; n++) {
    struct m2sed_train_message message = rig_event(&stream, n);
    struct m2sed_example example = {.user_hash = message.user_hash,
                                    .at = message.at,
                                    .item = message.item,
                                    .context_count = message.context_count};
    memcpy(example.context, message.context, sizeof example.context);
    if (message.context_count == 0 || !m2sed_batcher_add(rig.batcher, &example) ||
        !m2sed_batcher_due(rig.batcher)) {
      continue;
    }
    struct m2sed_batch batch = build(&rig, step++);
    const struct m2se_batch *net = &batch.network;
    covered += batch.fresh + batch.replayed - net->n_sequences;
    for (uint32_t i = 0; i < batch.fresh; i++) {
      const struct m2sed_example *fresh = &m2sed_batcher_waiting_examples(rig.batcher)[i];
      uint32_t before = RIG_SLOTS; /* the newest of the context that has features */
      for (uint32_t k = 0; k < fresh->context_count; k++) {
        before = fresh->context[k] < FEATURED ? fresh->context[k] : before;
      }
      bool found = false;
      for (uint32_t j = 0; j < net->n_sequences; j++) {
        for (uint32_t p = net->seq_ptr[j]; p < net->seq_ptr[j + 1]; p++) {
          uint32_t next = p + 1 < net->seq_ptr[j + 1] ? net->seq_items[p + 1] : net->target[j];
          found |= net->items[net->seq_items[p]].slot == before && net->items[next].slot == fresh->item;
        }
      }
      assert_true(found);
      m2sed_reservoir_add(&rig.reservoir, fresh);
    }
    m2sed_batcher_drop(rig.batcher, batch.fresh);
  }
  assert_true(step > 30 && covered > step); /* it does happen */
  close_rig(&rig);
}

/* ---- replay ---- */

static void fill_reservoir(struct rig *rig, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    struct m2sed_example example = EXAMPLE(100 + i, 1000 + i, i % FEATURED, (i + 1) % FEATURED);
    m2sed_reservoir_add(&rig->reservoir, &example);
  }
}

static void test_replay(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 12, 2, M2SE_TARGETS_LAST); /* 4 fresh, 8 draws */
  fill_reservoir(&rig, 30);
  for (uint32_t i = 0; i < 4; i++) {
    add(&rig, EXAMPLE(i, i, 1, 2));
  }
  uint32_t differ = 0, fewest = 8;
  static uint32_t before[12 * RIG_LENGTH];
  for (uint64_t step = 0; step < 50; step++) {
    struct m2sed_batch batch = build(&rig, step);
    assert_int_equal(batch.network.n_sequences, 4 + batch.replayed);
    assert_in_range(batch.replayed, 1, 8);
    fewest = batch.replayed < fewest ? batch.replayed : fewest;
    uint32_t target[12];
    memcpy(target, batch.network.target, sizeof target);
    struct m2sed_batch again = build(&rig, step);
    assert_int_equal(again.replayed, batch.replayed);
    assert_memory_equal(again.network.target, target, again.network.n_sequences * sizeof target[0]);
    differ +=
        memcmp(before, again.network.seq_items, again.network.seq_ptr[12 - 8 + again.replayed] * 4) != 0;
    memcpy(before, again.network.seq_items, again.network.seq_ptr[12 - 8 + again.replayed] * 4);
  }
  assert_true(differ > 40);
  assert_true(fewest < 8); /* one drawn twice counts once */
  close_rig(&rig);
}

static void test_small_batch_keeps_the_ratio(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 12, 2, M2SE_TARGETS_LAST);
  add(&rig, EXAMPLE(1, 1, 1, 2));
  assert_int_equal(build(&rig, 0).replayed, 0); /* nothing to replay yet */
  fill_reservoir(&rig, 30);
  uint32_t most = 0;
  for (uint64_t step = 0; step < 20; step++) {
    struct m2sed_batch batch = build(&rig, step);
    most = batch.replayed > most ? batch.replayed : most;
  }
  assert_int_equal(most, 2);
  close_rig(&rig);
}

static void test_replay_without_features(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 12, 2, M2SE_TARGETS_LAST);
  for (uint32_t i = 0; i < 30; i++) {
    struct m2sed_example example = EXAMPLE(100 + i, i, 1, BARE);
    m2sed_reservoir_add(&rig.reservoir, &example);
  }
  add(&rig, EXAMPLE(1, 1, 1, 2));
  struct m2sed_batch batch = build(&rig, 0);
  assert_int_equal(batch.replayed, 0);
  assert_int_equal(batch.network.n_sequences, 1);
  close_rig(&rig);
}

/* ---- the reservoir ---- */

/* Each of 100 examples is among the 10 that are kept with probability 1/10; 4000 seeds. */
static void test_reservoir_is_uniform(void **unused) {
  (void)unused;
  enum { SEEDS = 4000, EXAMPLES = 100, KEPT = 10 };
  uint32_t kept[EXAMPLES] = {0};
  for (uint64_t seed = 0; seed < SEEDS; seed++) {
    struct m2sed_reservoir reservoir;
    assert_int_equal(m2sed_reservoir_init(&reservoir, KEPT, seed), 0);
    for (uint32_t i = 0; i < EXAMPLES; i++) {
      struct m2sed_example example = EXAMPLE(i, i, 1, 2);
      m2sed_reservoir_add(&reservoir, &example);
      assert_int_equal(reservoir.count, i < KEPT ? i + 1 : KEPT);
      assert_int_equal(reservoir.seen, i + 1);
    }
    for (uint32_t i = 0; i < KEPT; i++) {
      kept[reservoir.examples[i].at.position]++;
    }
    m2sed_reservoir_deinit(&reservoir);
  }
  double expected = SEEDS * KEPT / (double)EXAMPLES, sigma = sqrt(expected * 0.9);
  for (uint32_t i = 0; i < EXAMPLES; i++) {
    assert_true(fabs(kept[i] - expected) < 5 * sigma);
  }
}

static void test_reservoir_draws_are_uniform(void **unused) {
  (void)unused;
  enum { COUNT = 10, STEPS = 2000 };
  uint32_t drawn[COUNT] = {0};
  struct m2sed_reservoir reservoir = {.seed = 5, .capacity = COUNT, .count = COUNT};
  for (uint64_t step = 0; step < STEPS; step++) {
    for (uint32_t i = 0; i < 5; i++) {
      drawn[m2sed_reservoir_draw(&reservoir, step, i)]++;
    }
  }
  for (uint32_t i = 0; i < COUNT; i++) {
    assert_true(fabs(drawn[i] - 1000.0) < 5 * sqrt(900));
  }
}

static void test_reservoir_restore(void **unused) {
  (void)unused;
  struct rig rig;
  open_rig(&rig, 12, 2, M2SE_TARGETS_LAST);
  fill_reservoir(&rig, 57);
  struct m2sed_reservoir same, smaller, none;
  assert_int_equal(m2sed_reservoir_init(&same, 30, 3), 0);
  assert_int_equal(m2sed_reservoir_init(&smaller, 4, 3), 0);
  assert_int_equal(m2sed_reservoir_init(&none, 0, 3), 0);
  m2sed_reservoir_restore(&same, rig.reservoir.examples, 30, rig.reservoir.seen);
  m2sed_reservoir_restore(&smaller, rig.reservoir.examples, 30, rig.reservoir.seen);
  m2sed_reservoir_restore(&none, rig.reservoir.examples, 30, rig.reservoir.seen);
  for (uint32_t i = 0; i < 200; i++) {
    struct m2sed_example example = EXAMPLE(i, 5000 + i, 1, 2);
    m2sed_reservoir_add(&rig.reservoir, &example);
    m2sed_reservoir_add(&same, &example);
    m2sed_reservoir_add(&smaller, &example);
    m2sed_reservoir_add(&none, &example);
  }
  assert_memory_equal(rig.reservoir.examples, same.examples, 30 * sizeof same.examples[0]);
  assert_int_equal(smaller.count, 4);
  assert_int_equal(none.count, 0);
  assert_true(none.seen == 257 && same.seen == 257);
  m2sed_reservoir_deinit(&same);
  m2sed_reservoir_deinit(&smaller);
  m2sed_reservoir_deinit(&none);
  close_rig(&rig);
}

/* ---- limits ---- */

static void test_limits(void **unused) {
  (void)unused;
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2se_limits limits;
  struct m2se_error error;
  assert_int_equal(m2sed_batcher_limits(&config, &settings, &limits, &error), 0);
  assert_int_equal(limits.sequences, 12);
  assert_int_equal(limits.positions, 12 * RIG_LENGTH);
  assert_int_equal(limits.items, RIG_SLOTS); /* of at most 72, there are only so many */
  assert_int_equal(limits.rows, 3 * RIG_SLOTS);
  assert_int_equal(limits.catalogue, RIG_SLOTS);
  config.item_residual = config.item_bias = false;
  settings.items_max = 1 << 20;
  assert_int_equal(m2sed_batcher_limits(&config, &settings, &limits, &error), 0);
  assert_int_equal(limits.items, 12 * RIG_LENGTH + 12);
  assert_int_equal(limits.catalogue, 0);
  settings.batch = 65536;
  settings.rows_max = 65536;
  assert_int_equal(m2sed_batcher_limits(&config, &settings, &limits, &error), M2SE_EINVAL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fresh),
      cmocka_unit_test(test_due),
      cmocka_unit_test(test_without_features),
      cmocka_unit_test(test_long_context),
      cmocka_unit_test(test_items_numbered_by_occurrence),
      cmocka_unit_test(test_rows_max),
      cmocka_unit_test(test_features_lost_meanwhile),
      cmocka_unit_test(test_restore_more_than_fits),
      cmocka_unit_test(test_covered),
      cmocka_unit_test(test_every_event_is_taught),
      cmocka_unit_test(test_replay),
      cmocka_unit_test(test_small_batch_keeps_the_ratio),
      cmocka_unit_test(test_replay_without_features),
      cmocka_unit_test(test_reservoir_is_uniform),
      cmocka_unit_test(test_reservoir_draws_are_uniform),
      cmocka_unit_test(test_reservoir_restore),
      cmocka_unit_test(test_limits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
