/* Losses that are finite and far worse than a guess: weights that were damaged are put right again, data that
 * have changed are learned. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "tests/unit/checkpoint_rig.h"
#include "tests/unit/learning_rig.h"

enum { EVENTS = 300, LIMIT = 3 };

static struct rig_stream stream;

struct rig {
  struct m2sed_learning *learning;
  struct m2sed_checkpoint_state *good;
  struct m2sed_trained_message newest;
  uint32_t applied, left_out; /* steps */
  double loss_sum;            /* of the applied ones */
};

static struct m2se_config config_of(double rates) {
  struct m2se_config config = rig_config();
  config.guess_max = 1.5;
  config.learning_rate *= rates;
  config.residual_learning_rate *= rates;
  config.bias_learning_rate *= rates;
  return config;
}

static void begin(struct rig *rig, double rates, const struct m2sed_checkpoint_state *restored) {
  struct m2se_config config = config_of(rates);
  struct m2sed_train_settings settings = rig_settings();
  struct m2se_error error;
  settings.guard_rollback = LIMIT;
  *rig = (struct rig){0};
  assert_int_equal(m2sed_learning_new(&rig->learning, &config, &settings, restored, &error), 0);
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
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
  assert_true(isfinite(rig->newest.loss) && rig->newest.applied == (rig->newest.left_out == 0));
  if (rig->newest.applied) {
    rig->applied++;
    rig->loss_sum += rig->newest.loss;
  } else {
    rig->left_out++;
    assert_int_equal(rig->newest.left_out, M2SE_LEFT_OUT_GUESS);
  }
  if (m2sed_learning_must_go_back(rig->learning)) {
    m2sed_learning_go_back(rig->learning, rig->good);
  }
  m2sed_learning_report(rig->learning, &rig->newest);
}

static void feed(struct rig *rig, uint32_t first, uint32_t last) {
  for (uint32_t n = first; n < last; n++) {
    struct m2sed_train_message message = rig_event(&stream, n);
    m2sed_learning_take(rig->learning, &message);
    while (m2sed_learning_due(rig->learning)) {
      step(rig);
    }
  }
}

/* Ends it; what it was goes on with other learning rates. */
static void go_on(struct rig *rig, double rates) {
  char dir[64];
  struct m2sed_checkpoint_state *state = rig_reload(rig->learning, dir);
  end(rig);
  begin(rig, rates, state);
  m2sed_checkpoint_state_free(state);
  rig_remove_tree(dir);
}

static void test_wild_learning_rate(void **unused) {
  (void)unused;
  struct rig rig;
  begin(&rig, 1, NULL);
  feed(&rig, 0, 150);
  double usual = rig.loss_sum / rig.applied;
  assert_true(rig.applied > 20 && rig.newest.counters.skipped_guard == 0);
  go_on(&rig, 1000);
  feed(&rig, 150, 250);
  assert_true(rig.newest.counters.rollbacks >= 2 && rig.applied >= 2);
  assert_true(rig.newest.counters.skipped_guard >= LIMIT * rig.newest.counters.rollbacks);
  assert_true(rig.newest.counters.refused_in_a_row < 2 * LIMIT); /* the good weights are good */
  m2sed_learning_go_back(rig.learning, rig.good);
  uint64_t left_out = rig.newest.counters.skipped_guard;
  go_on(&rig, 1);
  feed(&rig, 250, EVENTS);
  assert_true(rig.newest.counters.skipped_guard == left_out && rig.newest.counters.refused_in_a_row == 0);
  assert_true(rig.applied > 5 && rig.loss_sum / rig.applied < 1.2 * usual);
  end(&rig);
}

/* The good weights themselves do badly, as after a change of the data: it does not go back for ever. */
static void test_good_weights_do_badly(void **unused) {
  (void)unused;
  struct rig rig;
  begin(&rig, 1000, NULL);
  uint32_t n = 0;
  for (; rig.newest.counters.skipped_guard == 0; n++) {
    assert_true(n < 60);
    feed(&rig, n, n + 1);
  }
  go_on(&rig, 1); /* these are the good ones now */
  for (; rig.applied == 0; n++) {
    assert_true(n < 120);
    feed(&rig, n, n + 1);
  }
  assert_true(rig.newest.counters.refused_in_a_row == 2 * LIMIT && rig.newest.counters.rollbacks == 2);
  assert_true(rig.newest.over_guess > 1.5 && !m2sed_learning_is_suspect(rig.learning));
  go_on(&rig, 1); /* as a kill does: it goes on from there */
  feed(&rig, n, EVENTS);
  assert_true(rig.applied > 10 && rig.applied > 2 * rig.left_out);
  end(&rig);
}

/* A loss that passes makes the guard watch again. */
static void test_watches_again(void **unused) {
  (void)unused;
  struct rig rig;
  begin(&rig, 1, NULL);
  feed(&rig, 0, 50);
  char dir[64];
  struct m2sed_checkpoint_state *state = rig_reload(rig.learning, dir);
  state->counters.refused_in_a_row = 2 * LIMIT;
  end(&rig);
  begin(&rig, 1000, state);
  m2sed_checkpoint_state_free(state);
  rig_remove_tree(dir);
  feed(&rig, 50, 100);
  assert_true(rig.applied > 0 && rig.newest.counters.skipped_guard > 0 && rig.newest.counters.rollbacks > 0);
  end(&rig);
}

int main(void) {
  rig_stream_make(&stream, EVENTS);
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_wild_learning_rate),
                                     cmocka_unit_test(test_good_weights_do_badly),
                                     cmocka_unit_test(test_watches_again)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
