/* Out of memory at the first, second, third ... allocation: the call says so, leaves nothing behind, and what
 * existed before is as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/m2se_files.h"
#include "model/m2se_serve.h"
#include "model/network/learner.h"
#define FAIL_NTH_ALIGNED_ALLOC
#include "tests/unit/fail_nth.h"
#include "tests/unit/model_sample.h"

static struct model_sample sample;
static char folder[] = "nth-allocation-XXXXXX", model_path[64], optimizer_path[64];
static struct m2se_learner *learner; /* what the loads go into */
static struct m2se_snapshot *snapshot;

static int open_rig(void **state) {
  (void)state;
  struct m2se_config config = model_sample_config();
  struct m2se_error error;
  model_sample_make(&sample, &config, 20, 10, 1);
  learner = model_sample_learner(&sample);
  model_sample_shake(learner, 1);
  if (!mkdtemp(folder) || m2se_snapshot_new(&snapshot, &config, 20, &error) < 0) {
    return -1;
  }
  snprintf(model_path, sizeof model_path, "%s/model.safetensors", folder);
  snprintf(optimizer_path, sizeof optimizer_path, "%s/optimizer.safetensors", folder);
  m2se_snapshot_take(snapshot, learner, 20);
  return m2se_snapshot_write_model(snapshot, model_path, &error) < 0 ||
         m2se_snapshot_write_optimizer(snapshot, optimizer_path, &error) < 0;
}

static int close_rig(void **state) {
  (void)state;
  m2se_snapshot_free(snapshot);
  m2se_learner_free(learner);
  unlink(model_path);
  unlink(optimizer_path);
  return rmdir(folder);
}

/* Runs attempt with one allocation failing after the other, until none is left to fail. attempt frees what it
 * made. allocations: at least so many there are; what the JSON library takes is not seen here. */
static void fail_each(int (*attempt)(struct m2se_error *error), long allocations) {
  long before = fail_nth_outstanding, n = 1;
  for (;; n++) {
    struct m2se_error error = {0};
    fail_nth_start(n);
    int code = attempt(&error);
    bool failed = fail_nth_stop();
    assert_int_equal(fail_nth_outstanding, before);
    if (!failed) {
      assert_int_equal(code, 0);
      break;
    }
    assert_int_equal(code, M2SE_ENOMEM);
    assert_int_equal(error.code, M2SE_ENOMEM);
    assert_non_null(strstr(error.text, "memory"));
  }
  assert_true(n > allocations);
}

static int new_learner(struct m2se_error *error) {
  struct m2se_learner *made = learner;
  int code = m2se_learner_new(&made, &sample.config, &sample.limits, error);
  assert_int_equal(made == NULL, code < 0);
  m2se_learner_free(made);
  return code;
}

static int new_weights(struct m2se_error *error) {
  struct m2se_weights *made = (void *)learner;
  int code = m2se_weights_new(&made, &sample.config, 20, error);
  assert_int_equal(made == NULL, code < 0);
  m2se_weights_free(made);
  return code;
}

static int new_server(struct m2se_error *error) {
  struct m2se_server *made = (void *)learner;
  int code = m2se_server_new(&made, &sample.config, true, error);
  assert_int_equal(made == NULL, code < 0);
  m2se_server_free(made);
  return code;
}

static int new_snapshot(struct m2se_error *error) {
  struct m2se_snapshot *made = (void *)learner;
  int code = m2se_snapshot_new(&made, &sample.config, 20, error);
  assert_int_equal(made == NULL, code < 0);
  m2se_snapshot_free(made);
  return code;
}

static void test_creation(void **state) {
  (void)state;
  fail_each(new_learner, 2);
  fail_each(new_weights, 2);
  fail_each(new_server, 2);
  fail_each(new_snapshot, 2);
}

static int read_config(struct m2se_error *error) {
  struct m2se_config config = {.seed = 5}, before = config;
  int code = m2se_model_read_config(model_path, &config, error);
  assert_true(code == 0 || memcmp(&config, &before, sizeof config) == 0);
  return code;
}

/* A load that fails leaves the learner as it was: other weights than the files'. */
static int load(struct m2se_error *error) {
  size_t bytes = learner->list.elements * sizeof(float);
  float *before = __real_malloc(bytes);
  uint32_t slots = 99;
  assert_non_null(before);
  learner->params.flat[3] += 1;
  learner->step = 7;
  memcpy(before, learner->params.flat, bytes);
  int code = m2se_learner_load(learner, model_path, optimizer_path, &slots, error);
  bool same = memcmp(before, learner->params.flat, bytes) == 0;
  assert_int_equal(same, code < 0);
  assert_int_equal(learner->step, code < 0 ? 7 : 0);
  assert_int_equal(slots, code < 0 ? 0 : 20);
  __real_free(before);
  return code;
}

static int write_model(struct m2se_error *error) {
  return m2se_snapshot_write_model(snapshot, model_path, error);
}

static int write_optimizer(struct m2se_error *error) {
  return m2se_snapshot_write_optimizer(snapshot, optimizer_path, error);
}

static void test_files(void **state) {
  (void)state;
  fail_each(read_config, 1);
  fail_each(load, 4);
  fail_each(write_model, 2);
  fail_each(write_optimizer, 2);
  /* What could not be written has left the file of before. */
  fail_each(load, 4);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_creation), cmocka_unit_test(test_files)};
  return cmocka_run_group_tests(tests, open_rig, close_rig);
}
