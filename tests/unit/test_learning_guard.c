/* Losses that are finite and far above that of a guess: damaged weights are put right again, changed data are
 * learned, and no event is left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "model/random.h"
#include "tests/unit/checkpoint_rig.h"
#include "tests/unit/learning_rig.h"

enum { SLOTS = 120, BATCH = 48, LIMIT = 3 };

struct rig {
  struct m2sed_learning *learning;
  struct m2sed_checkpoint_state *good;
  struct m2sed_trained_message newest;
  uint32_t steps, damaged; /* far above a guess */
  double loss_sum, over_guess_max;
};

static void begin(struct rig *rig, double rates, uint32_t batch,
                  const struct m2sed_checkpoint_state *restored) {
  struct m2se_config config = rig_config();
  struct m2sed_train_settings settings = rig_settings();
  struct m2se_error error;
  config.learning_rate *= rates;
  config.residual_learning_rate *= rates;
  config.bias_learning_rate *= rates;
  settings.batch = batch;
  settings.items_max = SLOTS;
  settings.guard_rollback = LIMIT;
  settings.over_guess_max = 2;
  *rig = (struct rig){.over_guess_max = -INFINITY};
  assert_int_equal(m2sed_learning_new(&rig->learning, &config, &settings, restored, &error), 0);
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    struct m2sed_train_message message = rig_item(slot, 1);
    m2sed_learning_take(rig->learning, &message);
  }
  assert_int_equal(m2sed_learning_snapshot_new(rig->learning, &rig->good, &error), 0);
  m2sed_learning_snapshot_take(rig->learning, rig->good);
}

static void end(struct rig *rig) {
  m2sed_learning_snapshot_free(rig->good);
  m2sed_learning_free(rig->learning);
}

/* As the trainer does it. */
static void step(struct rig *rig) {
  struct m2se_workers serial = m2se_workers_serial();
  assert_true(m2sed_learning_step(rig->learning, &serial, &rig->newest));
  assert_true(isfinite(rig->newest.loss) && rig->newest.applied && !rig->newest.left_out);
  rig->steps++;
  rig->damaged += rig->newest.over_guess > 2;
  rig->loss_sum += rig->newest.loss;
  rig->over_guess_max = fmax(rig->over_guess_max, rig->newest.over_guess);
  if (m2sed_learning_must_go_back(rig->learning)) {
    m2sed_learning_go_back(rig->learning, rig->good);
  }
  m2sed_learning_report(rig->learning, &rig->newest);
}

static void take(struct rig *rig, uint32_t first, uint32_t last, uint32_t slots) {
  for (uint32_t n = first; n < last; n++) {
    struct m2sed_train_message message = {.kind = M2SED_TRAIN_EVENT,
                                          .outcome = M2SED_TEACHES,
                                          .at = {0, n},
                                          .digest = n,
                                          .event_time_ms = n,
                                          .user_hash = n,
                                          .item = (uint32_t)m2se_random_below(5, 0, 3, n, slots),
                                          .context_count = RIG_LENGTH};
    for (uint32_t i = 0; i < RIG_LENGTH; i++) {
      message.context[i] = (uint32_t)m2se_random_below(5, i, 4, n, slots);
    }
    m2sed_learning_take(rig->learning, &message);
    while (m2sed_learning_due(rig->learning)) {
      step(rig);
    }
  }
}

static void feed(struct rig *rig, uint32_t first, uint32_t last) {
  take(rig, first, last, SLOTS);
}

/* Ends it; what it was goes on with other learning rates. */
static void go_on(struct rig *rig, double rates) {
  char dir[64];
  struct m2sed_checkpoint_state *state = rig_reload(rig->learning, dir);
  end(rig);
  begin(rig, rates, BATCH, state);
  m2sed_checkpoint_state_free(state);
  rig_remove_tree(dir);
}

static void test_wild_learning_rate(void **unused) {
  (void)unused;
  struct rig rig;
  begin(&rig, 1, BATCH, NULL);
  feed(&rig, 0, 600);
  double usual = rig.loss_sum / rig.steps;
  assert_true(rig.steps > 20 && rig.over_guess_max < 1);
  go_on(&rig, 1000);
  feed(&rig, 600, 1000);
  assert_true(rig.damaged >= 2 * LIMIT && rig.newest.counters.rollbacks >= 2);
  for (uint32_t n = 1000; !m2sed_learning_is_damaged(rig.learning);
       n++) { /* also before the next one shows it */
    feed(&rig, n, n + 1);
  }
  m2sed_learning_go_back(rig.learning, rig.good); /* as at an end */
  go_on(&rig, 1);
  feed(&rig, 1000, 1600);
  assert_true(rig.damaged == 0 && rig.newest.counters.refused_in_a_row == 0);
  assert_true(rig.loss_sum / rig.steps < 1.05 * usual);
  assert_true(rig.newest.counters.skipped_guard == 0);
  assert_true(rig.newest.counters.trained_events + rig.newest.waiting == 1600);
  end(&rig);
}

/* The good weights themselves do badly, as after a change of the data: it goes back once, then it learns. */
static void test_good_weights_do_badly(void **unused) {
  (void)unused;
  struct rig rig;
  begin(&rig, 1000, BATCH, NULL);
  uint32_t n = 0;
  for (; rig.damaged == 0; n++) {
    assert_true(n < 400);
    feed(&rig, n, n + 1);
  }
  go_on(&rig, 1); /* these are the good ones now */
  for (; rig.newest.counters.refused_in_a_row <= LIMIT; n++) {
    assert_true(n < 800);
    feed(&rig, n, n + 1);
    assert_true(m2sed_learning_is_damaged(rig.learning) ==
                (rig.steps > 0 && rig.newest.counters.refused_in_a_row < LIMIT));
  }
  assert_true(rig.newest.counters.rollbacks == 1 && !m2sed_learning_is_suspect(rig.learning));
  go_on(&rig, 1); /* as a kill does: it goes on from there */
  feed(&rig, n, n + 400);
  assert_true(rig.steps > 20 && rig.newest.counters.skipped_guard == 0);
  assert_true(rig.newest.counters.trained_events + rig.newest.waiting == n + 400);
  end(&rig);
}

/* Few items, small mini-batches, a model that knows nothing yet: bad luck is no damage. */
static void test_small_batches(void **unused) {
  (void)unused;
  for (uint32_t slots = 2; slots <= 60; slots += 29) {
    struct rig rig;
    begin(&rig, 1, 4, NULL);
    take(&rig, 0, 1000, slots);
    assert_true(rig.steps >= 1000 / 4 && rig.damaged == 0 && rig.newest.counters.rollbacks == 0);
    assert_true(rig.newest.counters.trained_events + rig.newest.waiting == 1000);
    end(&rig);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_wild_learning_rate),
                                     cmocka_unit_test(test_good_weights_do_badly),
                                     cmocka_unit_test(test_small_batches)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
