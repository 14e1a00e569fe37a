/* The training step: learns, gives the same bits with any number of workers, refuses what is not finite. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/pool.h"
#include "model/m2se.h"
#include "model/network/learner.h"
#include "model/random.h"

enum { ITEMS = 40, SEQUENCES = 64, LENGTH = 9, D = 24, POSITIONS = SEQUENCES * LENGTH };

struct sample {
  struct m2se_config config;
  struct m2se_batch batch;
  struct m2se_item_input items[ITEMS];
  float text[ITEMS * D], image[3 * ITEMS * D];
  uint32_t seq_ptr[SEQUENCES + 1], seq_items[POSITIONS], target[SEQUENCES];
};

/* Item i is followed by item i + 1: there is something to learn. Every fifth item has no picture. */
static void sample_make(struct sample *s, enum m2se_targets targets) {
  memset(s, 0, sizeof *s);
  m2se_config_defaults(&s->config);
  s->config.d = D;
  s->config.da = 8;
  s->config.h = 32;
  s->config.experts = 3;
  s->config.ffn = 64;
  s->config.max_len = LENGTH;
  s->config.targets = targets;
  for (uint32_t k = 0; k < 3 * ITEMS * D; k++) {
    s->image[k] = (float)m2se_random_normal(7, 0, 1, k);
    s->text[k % (ITEMS * D)] = (float)m2se_random_normal(7, 0, 2, k);
  }
  for (uint32_t i = 0; i < ITEMS; i++) {
    s->items[i] = (struct m2se_item_input){.text = {s->text + i * D, 1}, .slot = i};
    s->items[i].image = (struct m2se_rows){s->image + 3 * i * D, i % 5 ? 3 : 0};
  }
  for (uint32_t j = 0; j < SEQUENCES; j++) {
    uint32_t length = 1 + j % LENGTH, at = s->seq_ptr[j];
    for (uint32_t k = 0; k < length; k++) {
      s->seq_items[at + k] = (3 * j + k) % ITEMS;
    }
    s->target[j] = (3 * j + length) % ITEMS;
    s->seq_ptr[j + 1] = at + length;
  }
  s->batch = (struct m2se_batch){.n_items = ITEMS, .items = s->items, .n_sequences = SEQUENCES};
  s->batch.seq_ptr = s->seq_ptr;
  s->batch.seq_items = s->seq_items;
  s->batch.target = s->target;
}

static struct m2se_learner *learner_of(const struct sample *s) {
  struct m2se_limits limits = {SEQUENCES, POSITIONS, ITEMS, 3 * ITEMS, ITEMS, 4};
  struct m2se_learner *learner;
  struct m2se_error error;
  assert_int_equal(m2se_learner_new(&learner, &s->config, &limits, &error), 0);
  return learner;
}

static double step(struct m2se_learner *learner, const struct sample *s, const struct m2se_workers *workers,
                   bool applied) {
  struct m2se_step_result result;
  struct m2se_error error;
  assert_int_equal(m2se_learner_step(learner, &s->batch, workers, 0, &result, &error), 0);
  assert_int_equal(result.applied, applied);
  return result.losses.total;
}

static double mean_loss(struct m2se_learner *learner, const struct sample *s, int steps) {
  struct m2se_workers serial = m2se_workers_serial();
  double sum = 0;
  for (int k = 0; k < steps; k++) {
    sum += step(learner, s, &serial, true);
  }
  return sum / steps;
}

static void test_learns(void **state) {
  (void)state;
  for (int targets = M2SE_TARGETS_LAST; targets <= M2SE_TARGETS_ALL; targets++) {
    static struct sample s;
    sample_make(&s, (enum m2se_targets)targets);
    struct m2se_learner *learner = learner_of(&s);
    double first = mean_loss(learner, &s, 5);
    mean_loss(learner, &s, 400);
    double last = mean_loss(learner, &s, 20); /* dropout and mixup stay on: it does not go to 0 */
    assert_true(last < 0.6 * first);
    assert_true(m2se_learner_finite(learner));
    m2se_learner_free(learner);
  }
}

static void test_same_bits(void **state) {
  (void)state;
  static struct sample s;
  sample_make(&s, M2SE_TARGETS_ALL);
  struct m2se_learner *alone = learner_of(&s);
  mean_loss(alone, &s, 12);
  for (uint32_t threads = 2; threads <= 4; threads++) {
    struct m2se_learner *learner = learner_of(&s);
    struct m2sed_pool *pool;
    struct m2se_error error;
    assert_int_equal(m2sed_pool_new(&pool, threads, 0, &error), 0);
    struct m2se_workers workers = m2sed_pool_workers(pool);
    for (int k = 0; k < 12; k++) {
      step(learner, &s, &workers, true);
    }
    size_t bytes = alone->list.elements * sizeof(float);
    assert_memory_equal(alone->params.flat, learner->params.flat, bytes);
    assert_memory_equal(alone->adam_v, learner->adam_v, bytes);
    assert_memory_equal(alone->table.residual, learner->table.residual, ITEMS * 2 * 32 * sizeof(float));
    assert_memory_equal(alone->table.bias, learner->table.bias, ITEMS * sizeof(float));
    m2sed_pool_free(pool);
    m2se_learner_free(learner);
  }
  m2se_learner_free(alone);
}

/* A feature that is not a number: the step is refused, nothing moves, and the next step draws as if it had
 * been applied. */
static void test_refuses_nan(void **state) {
  (void)state;
  static struct sample s;
  sample_make(&s, M2SE_TARGETS_ALL);
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_learner *learner = learner_of(&s), *fresh = learner_of(&s);
  s.text[5] = NAN;
  step(learner, &s, &serial, false);
  assert_memory_equal(learner->params.flat, fresh->params.flat, learner->list.elements * sizeof(float));
  assert_int_equal(m2se_learner_step_number(learner), 1);
  s.text[5] = 0;
  step(learner, &s, &serial, true);
  assert_true(m2se_learner_finite(learner));
  m2se_learner_free(learner);
  m2se_learner_free(fresh);
}

/* Fresh weights guess; few candidates say nothing. */
static void test_over_guess(void **state) {
  (void)state;
  for (int targets = M2SE_TARGETS_LAST; targets <= M2SE_TARGETS_ALL; targets++) {
    static struct sample s;
    sample_make(&s, (enum m2se_targets)targets);
    struct m2se_workers serial = m2se_workers_serial();
    struct m2se_learner *learner = learner_of(&s);
    struct m2se_step_result result;
    struct m2se_error error;
    assert_int_equal(m2se_learner_step(learner, &s.batch, &serial, 0, &result, &error), 0);
    assert_true(result.losses.over_guess == 0); /* 40 items at most */
    m2se_learner_free(learner);
  }
}

static void test_bad_batches(void **state) {
  (void)state;
  static struct sample s;
  sample_make(&s, M2SE_TARGETS_ALL);
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_learner *learner = learner_of(&s);
  struct m2se_step_result result;
  struct m2se_error error;
  s.target[3] = ITEMS;
  assert_int_equal(m2se_learner_step(learner, &s.batch, &serial, 0, &result, &error), M2SE_EINVAL);
  assert_non_null(strstr(error.text, "sequence 3 has item 40"));
  sample_make(&s, M2SE_TARGETS_ALL);
  s.items[4].text.count = s.items[4].image.count = 0;
  assert_int_equal(m2se_learner_step(learner, &s.batch, &serial, 0, &result, &error), M2SE_EINVAL);
  assert_non_null(strstr(error.text, "item 4 is used but has neither"));
  assert_int_equal(m2se_learner_step_number(learner), 0);
  m2se_learner_free(learner);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_learns), cmocka_unit_test(test_same_bits),
                                     cmocka_unit_test(test_refuses_nan), cmocka_unit_test(test_over_guess),
                                     cmocka_unit_test(test_bad_batches)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
