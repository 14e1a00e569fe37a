/* The server against the learner's own forward pass: same weights, same vectors; and what only serving has:
 * any number at a time, sequences longer than L, items without rows, the last component. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/m2se_files.h"
#include "model/m2se_serve.h"
#include "model/network/learner.h"
#include "tests/unit/model_sample.h"

enum { COLUMNS = 2 * 64 + 1, USERS = 96 };
static const float TOLERANCE = 1e-5f; /* of unit vectors: tiles are cut otherwise, sums round otherwise */

struct rig {
  struct model_sample sample;
  struct m2se_learner *learner;
  struct m2se_weights *weights;
  struct m2se_server *server;
  uint32_t h2, dim;
  float states[SAMPLE_ITEMS_MAX * COLUMNS], items[SAMPLE_ITEMS_MAX * COLUMNS];
  float users[USERS * COLUMNS];
  float learner_items[SAMPLE_ITEMS_MAX * COLUMNS], learner_users[USERS * COLUMNS];
};

/* The sample of rig, whose config the test has chosen: learner with random weights, copy, server. */
static void rig_open(struct rig *rig, bool bias_component, uint32_t slots) {
  struct m2se_error error;
  const struct m2se_config *config = &rig->sample.config;
  rig->learner = model_sample_learner(&rig->sample);
  model_sample_shake(rig->learner, config->seed);
  assert_int_equal(m2se_weights_new(&rig->weights, config, rig->sample.limits.catalogue, &error), 0);
  m2se_weights_copy(rig->weights, rig->learner, slots);
  assert_int_equal(m2se_server_new(&rig->server, config, bias_component, &error), 0);
  rig->h2 = 2 * config->h;
  rig->dim = m2se_server_dim(rig->server);
  assert_int_equal(rig->dim, rig->h2 + bias_component);
}

static void rig_close(struct rig *rig) {
  m2se_server_free(rig->server);
  m2se_weights_free(rig->weights);
  m2se_learner_free(rig->learner);
}

static void serve_items(struct rig *rig, size_t n) {
  m2se_server_items(rig->server, rig->weights, rig->sample.items, n, NULL, rig->states, rig->items);
}

static void serve_users(struct rig *rig, size_t n) {
  m2se_server_users(rig->server, rig->weights, rig->states, rig->sample.seq_ptr, rig->sample.seq_items, n,
                    rig->users);
}

static void assert_near(const float *x, const float *y, size_t n, const char *what, size_t row) {
  for (size_t k = 0; k < n; k++) {
    if (!(fabsf(x[k] - y[k]) <= TOLERANCE)) {
      fail_msg("%s %zu, component %zu: %.9g and %.9g", what, row, k, (double)x[k], (double)y[k]);
    }
  }
}

static void assert_as_learner(struct rig *rig) {
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_losses losses;
  struct m2se_error error;
  const struct m2se_batch *batch = &rig->sample.batch;
  assert_int_equal(m2se_learner_gradient(rig->learner, batch, NULL, &serial, &losses, &error), 0);
  m2se_learner_gradient_vectors(rig->learner, rig->learner_users, rig->learner_items);
  serve_items(rig, batch->n_items);
  serve_users(rig, batch->n_sequences);
  for (size_t i = 0; i < batch->n_items; i++) {
    assert_near(rig->items + i * rig->dim, rig->learner_items + i * rig->h2, rig->h2, "item", i);
  }
  for (size_t j = 0; j < batch->n_sequences; j++) {
    assert_near(rig->users + j * rig->dim, rig->learner_users + j * rig->h2, rig->h2, "user", j);
  }
}

/* Shapes that are no multiple of a vector's lanes, one of everything, one layer and three; residuals and
 * biases on and off. */
static void test_as_learner(void **state) {
  (void)state;
  static const struct {
    uint32_t d, da, h, experts, layers, heads, ffn, items, sequences;
  } shapes[] = {{20, 6, 12, 3, 2, 3, 16, 130, 96}, {1, 1, 1, 1, 1, 1, 1, 9, 13},
                {24, 8, 16, 8, 2, 2, 64, 97, 60},  {17, 5, 15, 2, 3, 3, 33, 40, 96},
                {24, 64, 24, 1, 1, 1, 7, 96, 30},  {8, 3, 10, 4, 2, 5, 40, 1, 1}};
  static struct rig rig;
  for (uint32_t k = 0; k < 2 * sizeof shapes / sizeof *shapes; k++) {
    struct m2se_config c = model_sample_config();
    c.d = shapes[k / 2].d;
    c.da = shapes[k / 2].da;
    c.h = shapes[k / 2].h;
    c.experts = shapes[k / 2].experts;
    c.layers = shapes[k / 2].layers;
    c.heads = shapes[k / 2].heads;
    c.ffn = shapes[k / 2].ffn;
    c.item_residual = c.item_bias = k % 2;
    c.targets = k % 3 ? M2SE_TARGETS_ALL : M2SE_TARGETS_LAST;
    c.seed = k;
    model_sample_make(&rig.sample, &c, shapes[k / 2].items, shapes[k / 2].sequences, 1);
    rig_open(&rig, k % 2, shapes[k / 2].items);
    assert_as_learner(&rig);
    rig_close(&rig);
  }
}

/* Every committed model, with its own weights. */
static void test_fixtures(void **state) {
  (void)state;
  static struct rig rig;
  glob_t models;
  assert_int_equal(glob(M2SE_FIXTURES "/*/model.safetensors", 0, NULL, &models), 0);
  assert_true(models.gl_pathc >= 10);
  for (size_t k = 0; k < models.gl_pathc; k++) {
    struct m2se_config config = model_sample_config();
    struct m2se_error error;
    uint32_t slots;
    assert_int_equal(m2se_model_read_config(models.gl_pathv[k], &config, &error), 0);
    assert_true(2 * config.h < COLUMNS);
    model_sample_make(&rig.sample, &config, 50, 60, 1);
    rig_open(&rig, true, 50);
    assert_int_equal(m2se_learner_load(rig.learner, models.gl_pathv[k], NULL, &slots, &error), 0);
    m2se_weights_copy(rig.weights, rig.learner, 50);
    assert_as_learner(&rig);
    rig_close(&rig);
  }
  globfree(&models);
}

static struct rig *default_rig(bool bias_component, uint32_t slots) {
  static struct rig rig;
  struct m2se_config config = model_sample_config();
  model_sample_make(&rig.sample, &config, SAMPLE_ITEMS_MAX, USERS, 1);
  rig_open(&rig, bias_component, slots);
  return &rig;
}

/* What is asked for one at a time is what is asked for at once; nothing behind n is written. */
static void test_any_number(void **state) {
  (void)state;
  struct rig *rig = default_rig(true, SAMPLE_ITEMS_MAX);
  static float items[SAMPLE_ITEMS_MAX * COLUMNS], users[USERS * COLUMNS];
  serve_items(rig, SAMPLE_ITEMS_MAX);
  serve_users(rig, USERS);
  memcpy(items, rig->items, sizeof items);
  memcpy(users, rig->users, sizeof users);
  const size_t numbers[] = {0, 1, 2, 95, 96};
  for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
    size_t n = numbers[k];
    memset(rig->items, 0x7f, sizeof rig->items);
    memset(rig->users, 0x7f, sizeof rig->users);
    serve_items(rig, n);
    serve_users(rig, n);
    for (size_t i = 0; i < n; i++) {
      assert_near(rig->items + i * rig->dim, items + i * rig->dim, rig->dim, "item", i);
      assert_near(rig->users + i * rig->dim, users + i * rig->dim, rig->dim, "user", i);
    }
    for (size_t i = n * rig->dim; i < USERS * (size_t)rig->dim; i++) {
      assert_memory_equal(&rig->users[i], "\x7f\x7f\x7f\x7f", sizeof(float));
      assert_memory_equal(&rig->items[i], "\x7f\x7f\x7f\x7f", sizeof(float));
    }
  }
  rig_close(rig);
}

/* A sequence of more than L positions counts with its newest L, whatever the others are. */
static void test_long_sequences(void **state) {
  (void)state;
  struct rig *rig = default_rig(false, SAMPLE_ITEMS_MAX);
  enum { LONG = 700, L = SAMPLE_LENGTH_MAX };
  uint32_t items[LONG + L], ptr[] = {0, LONG, LONG + L};
  for (uint32_t p = 0; p < LONG; p++) {
    items[p] = p * 7 % SAMPLE_ITEMS_MAX;
  }
  memcpy(items + LONG, items + LONG - L, L * sizeof *items);
  serve_items(rig, SAMPLE_ITEMS_MAX);
  float vectors[2 * COLUMNS];
  m2se_server_users(rig->server, rig->weights, rig->states, ptr, items, 2, vectors);
  assert_near(vectors, vectors + rig->dim, rig->dim, "long sequence", 0);
  items[LONG] = items[LONG] + 1; /* the oldest that counts does count */
  m2se_server_users(rig->server, rig->weights, rig->states, ptr, items, 2, vectors);
  assert_true(fabsf(vectors[0] - vectors[rig->dim]) > 10 * TOLERANCE);
  rig_close(rig);
}

/* Both halves are one vector if the item has one modality and no residual; nothing of either: zeros, the last
 * component too. */
static void test_missing_modalities(void **state) {
  (void)state;
  struct rig *rig = default_rig(true, 0); /* a copy without slots: no residuals and biases */
  const uint32_t h = rig->h2 / 2, text_only = 5, image_only = 3, none = 8;
  float terms[SAMPLE_ITEMS_MAX];
  for (uint32_t i = 0; i < SAMPLE_ITEMS_MAX; i++) {
    terms[i] = 1.5f + (float)i;
  }
  rig->sample.items[none].text.count = rig->sample.items[none].image.count = 0;
  assert_int_equal(rig->sample.items[text_only].image.count, 0);
  assert_int_equal(rig->sample.items[image_only].text.count, 0);
  m2se_server_items(rig->server, rig->weights, rig->sample.items, 20, terms, rig->states, rig->items);
  for (uint32_t i = 0; i < 20; i++) {
    const float *x = rig->states + i * rig->h2;
    bool one = i == text_only || i == image_only || i % 7 == 3 || i % 7 == 5 || i == none;
    assert_int_equal(memcmp(x, x + h, h * sizeof *x) == 0, one);
    assert_true(rig->items[i * rig->dim + rig->h2] == (i == none ? 0 : terms[i]));
  }
  for (uint32_t k = 0; k < rig->dim; k++) {
    assert_true(rig->items[none * rig->dim + k] == 0);
  }
  rig_close(rig);
}

/* Unit halves; the last components are 1 and 2 tau b + the count term, so that user . item / tau is the sum
 * of both spaces' logits. A slot behind those copied has bias 0. */
static void test_last_component(void **state) {
  (void)state;
  enum { SLOTS = 100 };
  struct rig *rig = default_rig(true, SLOTS);
  const struct m2se_learner *learner = rig->learner;
  float terms[SAMPLE_ITEMS_MAX];
  for (uint32_t i = 0; i < SAMPLE_ITEMS_MAX; i++) {
    terms[i] = 0.25f * (float)i;
  }
  m2se_server_items(rig->server, rig->weights, rig->sample.items, SAMPLE_ITEMS_MAX, terms, rig->states,
                    rig->items);
  serve_users(rig, USERS);
  for (uint32_t i = 0; i < SAMPLE_ITEMS_MAX; i++) {
    const float *x = rig->items + i * rig->dim;
    uint32_t slot = rig->sample.items[i].slot;
    double bias = slot < SLOTS ? (double)learner->table.bias[slot] : 0;
    assert_true(fabs((double)x[rig->h2] - (2 * learner->config.tau * bias + (double)terms[i])) < 1e-5);
  }
  for (uint32_t j = 0; j < USERS; j++) {
    const float *x = rig->users + j * rig->dim;
    double norms[2] = {0, 0};
    for (uint32_t k = 0; k < rig->h2; k++) {
      norms[k / (rig->h2 / 2)] += (double)x[k] * (double)x[k];
    }
    assert_true(fabs(norms[0] - 1) < 1e-5 && fabs(norms[1] - 1) < 1e-5 && x[rig->h2] == 1);
  }
  rig_close(rig);
}

/* Training goes on; what was copied stays as it was, with its step. */
static void test_copy_is_immutable(void **state) {
  (void)state;
  struct rig *rig = default_rig(false, SAMPLE_ITEMS_MAX);
  static float before[SAMPLE_ITEMS_MAX * COLUMNS];
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_step_result result;
  struct m2se_error error;
  serve_items(rig, SAMPLE_ITEMS_MAX);
  memcpy(before, rig->items, sizeof before);
  assert_int_equal(m2se_learner_step(rig->learner, &rig->sample.batch, &serial, 0, &result, &error), 0);
  assert_true(result.applied);
  serve_items(rig, SAMPLE_ITEMS_MAX);
  assert_memory_equal(rig->items, before, SAMPLE_ITEMS_MAX * rig->dim * sizeof(float));
  assert_int_equal(m2se_weights_step(rig->weights), 0);
  m2se_weights_copy(rig->weights, rig->learner, SAMPLE_ITEMS_MAX);
  assert_int_equal(m2se_weights_step(rig->weights), 1);
  serve_items(rig, SAMPLE_ITEMS_MAX);
  assert_true(memcmp(rig->items, before, SAMPLE_ITEMS_MAX * rig->dim * sizeof(float)) != 0);
  assert_as_learner(rig);
  rig_close(rig);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_as_learner),         cmocka_unit_test(test_fixtures),
      cmocka_unit_test(test_any_number),         cmocka_unit_test(test_long_sequences),
      cmocka_unit_test(test_missing_modalities), cmocka_unit_test(test_last_component),
      cmocka_unit_test(test_copy_is_immutable),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
