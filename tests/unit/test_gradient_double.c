/* The whole loss in double: the gradient of every tensor, of the residuals and of the biases against central
 * differences. The draws of a step depend on (seed, step) alone, so that the loss with dropout, random
 * dropout of positions and mixup is a plain function of the weights too, and is checked as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/network/learner.h"
#include "model/random.h"
#include "tests/unit/model_sample.h"

static const double RELATIVE = 1e-7; /* the bound */
static const double ABSOLUTE =
    2e-9;                        /* rounding of the differences: of gradients that are 0 by the equations */
static const double STEP = 2e-4; /* four points, so the error is of STEP^4 */

enum { PURPOSE_DIRECTION = 2000, PURPOSE_OPTIONS };

struct trial {
  const char *name;
  enum m2se_targets targets;
  bool training; /* with dropout and augmentation */
  bool options;  /* log_q, swap, pos_target with gaps */
  bool table;    /* residuals and biases */
  uint32_t layers, heads, items, sequences, length_min;
  uint32_t targets_few; /* 0, or so many distinct targets */
  double tau;
  uint32_t directions; /* random directions of each tensor; 0: only of all parameters together */
};

struct rig {
  struct model_sample sample;
  struct m2se_learner *learner;
  bool training;
  uint8_t swap[SAMPLE_POSITIONS_MAX];
  int32_t pos_target[SAMPLE_POSITIONS_MAX];
  double log_q[SAMPLE_ITEMS_MAX];
  const char *name;
  double worst; /* difference, as a share of its bound */
};

static double loss_of(const struct rig *rig) {
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_losses losses;
  const uint8_t *swap = rig->training ? NULL : rig->swap;
  m2se_learner_backpropagate(rig->learner, &rig->sample.batch, swap, rig->training, &serial, &losses);
  return losses.total;
}

static double draw(uint64_t index, uint32_t purpose) {
  return m2se_random_normal(11, 0, purpose, index);
}

static uint32_t draw_below(uint64_t index, uint32_t n) {
  return (uint32_t)m2se_random_below(11, 0, PURPOSE_OPTIONS, index, n);
}

static void set_options(struct rig *rig) {
  struct m2se_batch *batch = &rig->sample.batch;
  for (uint32_t p = 0; p < rig->sample.limits.positions; p++) {
    rig->swap[p] = draw_below(p, 3) == 0;
    rig->pos_target[p] =
        (int32_t)draw_below(p, batch->n_items + 9) - 9 < 0 ? -1 : (int32_t)draw_below(p + 7, batch->n_items);
  }
  for (uint32_t j = 0; j < batch->n_sequences; j++) {
    rig->pos_target[batch->seq_ptr[j + 1] - 1] = (int32_t)batch->target[j];
  }
  for (uint32_t i = 0; i < batch->n_items; i++) {
    rig->log_q[i] = draw(i, PURPOSE_OPTIONS);
  }
  batch->pos_target = rig->pos_target;
  batch->log_q = rig->log_q;
}

static void rig_open(struct rig *rig, const struct trial *trial) {
  memset(rig, 0, sizeof *rig);
  struct m2se_config c = model_sample_config();
  c.d = 5;
  c.da = 4;
  c.h = 6;
  c.experts = 3;
  c.ffn = 7;
  c.targets = trial->targets;
  c.layers = trial->layers;
  c.heads = trial->heads;
  c.tau = trial->tau;
  c.lambda = 0.5; /* so that CMCL's gradient is not lost beside NIP's */
  c.item_residual = c.item_bias = trial->table;
  if (trial->training) {
    c.dropout = 0.25;
    c.sequence_dropout_max = c.mixup_max = 0.5;
  }
  model_sample_make(&rig->sample, &c, trial->items, trial->sequences, trial->length_min);
  for (uint32_t j = 0; j < trial->sequences && trial->targets_few > 0; j++) {
    rig->sample.target[j] %= trial->targets_few;
  }
  if (trial->options) {
    set_options(rig);
  }
  rig->learner = model_sample_learner(&rig->sample);
  model_sample_shake(rig->learner, 5);
  rig->training = trial->training;
  rig->name = trial->name;
  struct m2se_error error;
  const struct m2se_learner *l = rig->learner;
  assert_int_equal(m2se_batch_check(&rig->sample.batch, &l->config, &l->limits, &error), 0);
}

/* Derivative of the loss along v at x [n], which is left as it was. */
static double difference(struct rig *rig, double *x, const double *v, size_t n) {
  static const double at[] = {1, -1, 2, -2}, weights[] = {8, -8, -1, 1};
  double *old = malloc(n * sizeof *old), sum = 0;
  assert_non_null(old);
  memcpy(old, x, n * sizeof *x);
  for (int k = 0; k < 4; k++) {
    for (size_t i = 0; i < n; i++) {
      x[i] = old[i] + at[k] * STEP * v[i];
    }
    sum += weights[k] * loss_of(rig);
  }
  memcpy(x, old, n * sizeof *x);
  free(old);
  return sum / (12 * STEP);
}

/* gradient [n] of x [n], along one unit vector. */
static void check_direction(struct rig *rig, const char *what, double *x, const double *gradient,
                            const double *v, size_t n) {
  double expected = 0, norm = 0;
  for (size_t i = 0; i < n; i++) {
    expected += gradient[i] * v[i];
    norm += gradient[i] * gradient[i];
  }
  double found = difference(rig, x, v, n);
  double bound = RELATIVE * (fabs(expected) + sqrt(norm / (double)n)) + ABSOLUTE;
  rig->worst = fmax(rig->worst, fabs(found - expected) / bound);
  if (!(fabs(found - expected) <= bound)) {
    fail_msg("%s: %s: gradient %.12g, difference %.12g, bound %g", rig->name, what, expected, found, bound);
  }
}

/* Along random directions, and along the element of the largest gradient. */
static void check_block(struct rig *rig, const char *what, double *x, const double *gradient, size_t n,
                        uint32_t directions) {
  double *v = calloc(n, sizeof *v), *g = malloc(n * sizeof *g);
  assert_true(v && g);
  memcpy(g, gradient, n * sizeof *g); /* the learner's own is overwritten by every loss */
  size_t largest = 0;
  for (size_t i = 0; i < n; i++) {
    largest = fabs(g[i]) > fabs(g[largest]) ? i : largest;
  }
  v[largest] = 1;
  check_direction(rig, what, x, g, v, n);
  for (uint32_t k = 0; k < directions; k++) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
      v[i] = draw(k * n + i, PURPOSE_DIRECTION);
      sum += v[i] * v[i];
    }
    for (size_t i = 0; i < n; i++) {
      v[i] /= sqrt(sum);
    }
    check_direction(rig, what, x, g, v, n);
  }
  free(v);
  free(g);
}

/* The item table's gradients come by item of the mini-batch; x is by slot. */
static void check_table(struct rig *rig, const char *what, double *x, const double *gradient, size_t width,
                        uint32_t directions) {
  const struct m2se_batch *batch = &rig->sample.batch;
  double *by_slot = calloc(batch->n_items * width, sizeof *by_slot);
  assert_non_null(by_slot);
  for (uint32_t i = 0; i < batch->n_items; i++) {
    memcpy(by_slot + batch->items[i].slot * width, gradient + i * width, width * sizeof *by_slot);
  }
  check_block(rig, what, x, by_slot, batch->n_items * width, directions);
  free(by_slot);
}

static void check_trial(const struct trial *trial) {
  static struct rig rig;
  rig_open(&rig, trial);
  struct m2se_learner *l = rig.learner;
  loss_of(&rig);
  if (trial->directions == 0) {
    check_block(&rig, "all parameters", l->params.flat, l->grad.flat, l->list.elements, 2);
  }
  for (uint32_t t = 0; t < l->list.count && trial->directions > 0; t++) {
    const struct m2se_parameter *p = &l->list.tensors[t];
    loss_of(&rig); /* the gradient at the weights as they are */
    check_block(&rig, p->name, l->params.flat + p->offset, l->grad.flat + p->offset, p->count,
                trial->directions);
  }
  if (trial->table) {
    uint32_t directions = trial->directions > 2 ? trial->directions : 2;
    loss_of(&rig);
    check_table(&rig, "residuals", l->table.residual, l->dresidual, 2 * (size_t)l->config.h, directions);
    loss_of(&rig);
    check_table(&rig, "biases", l->table.bias, l->dbias, 1, directions);
  }
  print_message("%s: largest difference %.2g of its bound\n", rig.name, rig.worst);
  m2se_learner_free(l);
}

/* The first has more than one block of everything: 96 items, 64 sequences of CMCL, 256 positions, 32 anchors;
 * the two large ones have several tiles in every shard. */
static void test_all_parameters(void **state) {
  (void)state;
  static const struct trial trials[] = {
      {"last", M2SE_TARGETS_LAST, false, false, true, 2, 2, 101, 70, 1, 0, 0.2, 1},
      {"all", M2SE_TARGETS_ALL, false, false, true, 2, 3, 40, 24, 1, 0, 0.2, 1},
      {"last, options", M2SE_TARGETS_LAST, false, true, true, 1, 1, 30, 40, 1, 0, 0.07, 1},
      {"all, options", M2SE_TARGETS_ALL, false, true, true, 3, 2, 30, 15, 1, 0, 0.5, 1},
      {"last, step", M2SE_TARGETS_LAST, true, false, true, 2, 2, 30, 24, 1, 0, 0.2, 1},
      {"all, step", M2SE_TARGETS_ALL, true, true, true, 2, 2, 30, 24, 1, 0, 0.2, 1},
      {"no table", M2SE_TARGETS_ALL, true, false, false, 1, 6, 20, 20, 1, 0, 0.2, 1},
      {"few targets", M2SE_TARGETS_LAST, false, false, true, 1, 2, 20, 66, 1, 2, 0.2, 1},
      {"one target", M2SE_TARGETS_LAST, false, false, true, 1, 2, 20, 20, 1, 1, 0.2, 1},
      {"one example", M2SE_TARGETS_ALL, false, false, true, 1, 1, 9, 1, 12, 0, 0.2, 3},
      {"large, last", M2SE_TARGETS_LAST, false, false, true, 2, 2, 130, 400, 11, 0, 0.2, 0},
      {"large, all", M2SE_TARGETS_ALL, true, false, true, 2, 2, 130, 400, 11, 0, 0.2, 0},
  };
  for (size_t k = 0; k < sizeof trials / sizeof *trials; k++) {
    check_trial(&trials[k]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_parameters)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
