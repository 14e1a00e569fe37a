/* model.safetensors and optimizer.safetensors: training goes on from them bit for bit; a file that is wrong
 * is refused with the reason and changes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/files/safetensors.h"
#include "model/m2se_files.h"
#include "model/network/learner.h"
#include "tests/unit/model_sample.h"

enum { ITEMS = 40, SEQUENCES = 48 };

static char folder[] = "model-files-XXXXXX", model_path[64], optimizer_path[64], damaged_path[64];

static int make_folder(void **state) {
  (void)state;
  if (!mkdtemp(folder)) {
    return -1;
  }
  snprintf(model_path, sizeof model_path, "%s/model.safetensors", folder);
  snprintf(optimizer_path, sizeof optimizer_path, "%s/optimizer.safetensors", folder);
  snprintf(damaged_path, sizeof damaged_path, "%s/damaged.safetensors", folder);
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  unlink(model_path);
  unlink(optimizer_path);
  unlink(damaged_path);
  return rmdir(folder);
}

/* With everything that a step draws: dropout, random dropout of positions, mixup. */
static void sample_make(struct model_sample *s, bool residual, bool bias) {
  struct m2se_config config = model_sample_config();
  config.dropout = 0.2;
  config.sequence_dropout_max = 0.3;
  config.mixup_max = 0.5;
  config.item_residual = residual;
  config.item_bias = bias;
  model_sample_make(s, &config, ITEMS, SEQUENCES, 1);
}

/* Steps over mini-batches that differ: item k of the step stands for another row of the item table. */
static void train(struct m2se_learner *learner, struct model_sample *s, int steps) {
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_step_result result;
  struct m2se_error error;
  for (int k = 0; k < steps; k++) {
    uint64_t shift = m2se_learner_step_number(learner);
    for (uint32_t i = 0; i < ITEMS; i++) {
      s->items[i].slot = (uint32_t)((i + shift) % ITEMS);
    }
    s->batch.n_sequences = SEQUENCES - shift % 7;
    assert_int_equal(m2se_learner_step(learner, &s->batch, &serial, 0, &result, &error), 0);
    assert_true(result.applied);
  }
}

static void save(const struct m2se_learner *learner, uint32_t slots) {
  struct m2se_snapshot *snapshot;
  struct m2se_error error;
  assert_int_equal(m2se_snapshot_new(&snapshot, m2se_learner_config(learner), slots, &error), 0);
  m2se_snapshot_take(snapshot, learner, slots);
  assert_true(m2se_snapshot_finite(snapshot));
  assert_int_equal(m2se_snapshot_step(snapshot), m2se_learner_step_number(learner));
  assert_int_equal(m2se_snapshot_write_model(snapshot, model_path, &error), 0);
  assert_int_equal(m2se_snapshot_write_optimizer(snapshot, optimizer_path, &error), 0);
  m2se_snapshot_free(snapshot);
}

static void assert_same(const struct m2se_learner *a, const struct m2se_learner *b) {
  size_t bytes = a->list.elements * sizeof(float), h2 = 2 * a->config.h;
  assert_memory_equal(a->params.flat, b->params.flat, bytes);
  assert_memory_equal(a->adam_m, b->adam_m, bytes);
  assert_memory_equal(a->adam_v, b->adam_v, bytes);
  if (a->config.item_residual) {
    assert_memory_equal(a->table.residual, b->table.residual, ITEMS * h2 * sizeof(float));
    assert_memory_equal(a->table.residual_m, b->table.residual_m, ITEMS * h2 * sizeof(float));
    assert_memory_equal(a->table.residual_v, b->table.residual_v, ITEMS * h2 * sizeof(float));
  }
  if (a->config.item_bias) {
    assert_memory_equal(a->table.bias, b->table.bias, ITEMS * sizeof(float));
    assert_memory_equal(a->table.bias_m, b->table.bias_m, ITEMS * sizeof(float));
    assert_memory_equal(a->table.bias_v, b->table.bias_v, ITEMS * sizeof(float));
  }
  assert_memory_equal(a->table.touched, b->table.touched, ITEMS * sizeof(uint32_t));
  assert_int_equal(a->step, b->step);
}

static void test_resumes(void **state) {
  (void)state;
  static struct model_sample s;
  for (int on = 0; on < 4; on++) {
    sample_make(&s, on & 1, on & 2);
    struct m2se_learner *through = model_sample_learner(&s), *before = model_sample_learner(&s);
    struct m2se_error error;
    uint32_t slots;
    train(through, &s, 20);
    train(before, &s, 10);
    save(before, ITEMS);
    m2se_learner_free(before);
    struct m2se_learner *after = model_sample_learner(&s);
    model_sample_shake(after, 3); /* what was there before is gone */
    train(after, &s, 2);
    assert_int_equal(m2se_learner_load(after, model_path, optimizer_path, &slots, &error), 0);
    assert_int_equal(slots, ITEMS);
    assert_int_equal(m2se_learner_step_number(after), 10);
    train(after, &s, 10);
    assert_same(through, after);
    m2se_learner_free(after);
    m2se_learner_free(through);
  }
}

/* Same seed, same files. */
static void test_same_bytes(void **state) {
  (void)state;
  static struct model_sample s;
  static char bytes[2][1 << 20];
  size_t size[2];
  for (int k = 0; k < 2; k++) {
    sample_make(&s, true, true);
    struct m2se_learner *learner = model_sample_learner(&s);
    train(learner, &s, 3);
    save(learner, ITEMS);
    size[k] = 0;
    const char *const paths[] = {model_path, optimizer_path};
    for (int p = 0; p < 2; p++) {
      FILE *file = fopen(paths[p], "rb");
      assert_non_null(file);
      size[k] += fread(bytes[k] + size[k], 1, sizeof bytes[k] - size[k], file);
      fclose(file);
    }
    m2se_learner_free(learner);
  }
  assert_true(size[0] == size[1] && size[0] > 1000 && size[0] < sizeof bytes[0]);
  assert_memory_equal(bytes[0], bytes[1], size[0]);
}

/* Rows of the table that are not in use are not saved, and are zero after loading. */
static void test_fewer_slots(void **state) {
  (void)state;
  static struct model_sample s;
  enum { SLOTS = 11 };
  sample_make(&s, true, true);
  struct m2se_learner *learner = model_sample_learner(&s), *loaded = model_sample_learner(&s);
  struct m2se_error error;
  uint32_t slots;
  train(learner, &s, 3);
  train(loaded, &s, 5);
  save(learner, SLOTS);
  assert_int_equal(m2se_learner_load(loaded, model_path, optimizer_path, &slots, &error), 0);
  assert_int_equal(slots, SLOTS);
  for (uint32_t slot = SLOTS; slot < ITEMS; slot++) {
    m2se_learner_reset_slot(learner, slot);
  }
  assert_same(learner, loaded);
  m2se_learner_free(learner);
  m2se_learner_free(loaded);
}

/* The weights alone: a fresh optimiser and an empty item table. */
static void test_weights_only(void **state) {
  (void)state;
  static struct model_sample s;
  sample_make(&s, true, true);
  struct m2se_learner *learner = model_sample_learner(&s), *loaded = model_sample_learner(&s),
                      *fresh = model_sample_learner(&s);
  struct m2se_error error;
  uint32_t slots = 99;
  train(learner, &s, 3);
  train(loaded, &s, 5);
  save(learner, ITEMS);
  assert_int_equal(m2se_learner_load(loaded, model_path, NULL, &slots, &error), 0);
  assert_int_equal(slots, 0);
  memcpy(fresh->params.flat, learner->params.flat, learner->list.elements * sizeof(float));
  assert_same(fresh, loaded);
  m2se_learner_free(learner);
  m2se_learner_free(loaded);
  m2se_learner_free(fresh);
}

static void test_read_config(void **state) {
  (void)state;
  static struct model_sample s;
  sample_make(&s, true, false);
  struct m2se_learner *learner = model_sample_learner(&s);
  struct m2se_config config, untouched;
  struct m2se_error error;
  save(learner, ITEMS);
  memset(&config, 0, sizeof config);
  config.seed = 77;
  config.item_bias = true;
  untouched = config;
  assert_int_equal(m2se_model_read_config(model_path, &config, &error), 0);
  const struct m2se_config *c = &s.config;
  assert_true(config.d == c->d && config.da == c->da && config.h == c->h && config.experts == c->experts);
  assert_true(config.layers == c->layers && config.heads == c->heads && config.ffn == c->ffn);
  assert_true(config.max_len == c->max_len && config.tau == c->tau && config.lambda == c->lambda);
  assert_true(config.dropout == c->dropout);
  assert_true(config.seed == 77 && config.item_bias && !config.item_residual && config.clip_norm == 0);
  config = untouched;
  assert_int_equal(m2se_model_read_config(optimizer_path, &config, &error), M2SE_EFORMAT);
  assert_memory_equal(&config, &untouched, sizeof config);
  assert_int_equal(m2se_model_read_config("no/such/file", &config, &error), M2SE_EIO);
  m2se_learner_free(learner);
}

static void test_not_finite(void **state) {
  (void)state;
  static struct model_sample s;
  sample_make(&s, true, true);
  struct m2se_learner *learner = model_sample_learner(&s);
  struct m2se_snapshot *snapshot;
  struct m2se_error error;
  assert_int_equal(m2se_snapshot_new(&snapshot, &s.config, ITEMS, &error), 0);
  float *const places[] = {learner->params.flat + 7, learner->adam_v, learner->table.residual_m + 24 * 5,
                           learner->table.bias + ITEMS - 1};
  for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
    float old = *places[k];
    *places[k] = k % 2 ? NAN : -INFINITY;
    m2se_snapshot_take(snapshot, learner, ITEMS);
    assert_false(m2se_snapshot_finite(snapshot));
    *places[k] = old;
  }
  m2se_snapshot_take(snapshot, learner, ITEMS);
  assert_true(m2se_snapshot_finite(snapshot));
  m2se_snapshot_free(snapshot);
  m2se_learner_free(learner);
}

/* ---- damaged files: a good one, changed in one place ---- */

enum { TENSORS = 512 };
struct damage {
  const char *tensor;      /* that is changed; NULL: metadata */
  const char *key, *value; /* of the metadata; value NULL: taken away */
  enum { TAKE_AWAY, ADD, RESHAPE, RETYPE, SET_NUMBER } kind;
  float number; /* for SET_NUMBER, its last element */
  int code;
  const char *text; /* that the error contains, besides the tensor's name */
};

static void change_tensor(const struct damage *d, struct m2se_tensor *tensors, uint32_t *count) {
  static float numbers[1 << 16];
  uint32_t i = 0;
  while (i < *count && strcmp(tensors[i].name, d->tensor) != 0) {
    i++;
  }
  assert_true((i == *count) == (d->kind == ADD));
  struct m2se_tensor *t = &tensors[i];
  switch (d->kind) {
  case TAKE_AWAY:
    tensors[i] = tensors[--*count];
    break;
  case ADD:
    *t = (struct m2se_tensor){.name = d->tensor, .dtype = M2SE_F32, .rank = 1, .shape = {1}, .data = numbers};
    ++*count;
    break;
  case RESHAPE:
    t->rank++; /* [..., 1]: the same numbers */
    t->shape[t->rank - 1] = 1;
    break;
  case RETYPE:
    t->dtype = t->dtype == M2SE_F32 ? M2SE_I32 : M2SE_F32;
    break;
  default:
    assert_true(t->bytes <= sizeof numbers);
    memcpy(numbers, t->data, t->bytes);
    numbers[t->count - 1] = d->number;
    t->data = numbers;
  }
}

/* Writes damaged_path from a good file. */
static void write_damaged(const char *good_path, const struct damage *d) {
  static struct m2se_tensor tensors[TENSORS];
  struct m2se_metadata metadata[16];
  static const char *const keys[] = {"format",  "version", "d",       "da",   "h",
                                     "experts", "layers",  "heads",   "ffn",  "max_len",
                                     "tau",     "lambda",  "dropout", "step", "slots"};
  struct m2se_safetensors_content content = {.tensors = tensors, .metadata = metadata};
  struct m2se_safetensors *good;
  struct m2se_error error;
  assert_int_equal(m2se_safetensors_open(&good, good_path, &error), 0);
  uint32_t count = m2se_safetensors_count(good);
  assert_true(count < TENSORS);
  for (uint32_t i = 0; i < count; i++) {
    tensors[i] = *m2se_safetensors_at(good, i);
  }
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const char *value = m2se_safetensors_metadata(good, keys[i]);
    if (!d->tensor && strcmp(keys[i], d->key) == 0) {
      assert_non_null(value);
      value = d->value;
    }
    if (value) {
      metadata[content.metadata_count++] = (struct m2se_metadata){keys[i], value};
    }
  }
  if (d->tensor) {
    change_tensor(d, tensors, &count);
  }
  content.tensor_count = count;
  assert_int_equal(m2se_safetensors_write(damaged_path, &content, false, &error), 0);
  m2se_safetensors_close(good);
}

static void assert_refused(struct m2se_learner *learner, const struct m2se_learner *same, bool model,
                           const struct damage *d) {
  struct m2se_error error = {0};
  uint32_t slots = 99;
  int code = m2se_learner_load(learner, model ? damaged_path : model_path,
                               model ? optimizer_path : damaged_path, &slots, &error);
  const char *name = d->tensor ? d->tensor : "";
  if (code != d->code || code != error.code || !strstr(error.text, name) || !strstr(error.text, d->text) ||
      !strstr(error.text, damaged_path)) {
    fail_msg("code %d, text \"%s\"; wanted %d, \"%s\", \"%s\"", code, error.text, d->code, name, d->text);
  }
  assert_int_equal(slots, 0);
  assert_same(learner, same);
}

static void assert_all_refused(bool model, const struct damage *damages, size_t count) {
  static struct model_sample s;
  sample_make(&s, true, true);
  struct m2se_learner *saved = model_sample_learner(&s), *learner = model_sample_learner(&s),
                      *same = model_sample_learner(&s);
  struct m2se_error error;
  uint32_t slots;
  train(saved, &s, 4);
  save(saved, ITEMS);
  train(learner, &s, 2);
  train(same, &s, 2);
  for (size_t k = 0; k < count; k++) {
    write_damaged(model ? model_path : optimizer_path, &damages[k]);
    assert_refused(learner, same, model, &damages[k]);
  }
  assert_int_equal(m2se_learner_load(learner, model_path, optimizer_path, &slots, &error), 0);
  assert_same(learner, saved);
  m2se_learner_free(saved);
  m2se_learner_free(learner);
  m2se_learner_free(same);
}

static void test_damaged_model(void **state) {
  (void)state;
  static const struct damage damages[] = {
      {"text.pool.w1.weight", .kind = TAKE_AWAY, .code = M2SE_EMISSING, .text = "missing"},
      {"project.image.bias", .kind = TAKE_AWAY, .code = M2SE_EMISSING, .text = "missing"},
      {"layers.2.ffn.up.bias", .kind = ADD, .code = M2SE_EFORMAT, .text = "is not part of this model"},
      {"layers.1.attention.key.weight", .kind = RESHAPE, .code = M2SE_ESHAPE,
       .text = "[12,12,1] where [12,12] is needed"},
      {"image.moe.gate.weight", .kind = RETYPE, .code = M2SE_ETYPE, .text = "dtype I32 where F32 is needed"},
      {"project.image.bias", .kind = SET_NUMBER, .number = NAN, .code = M2SE_ENUMERIC,
       .text = "element 11 is nan"},
      {"text.moe.experts.weight", .kind = SET_NUMBER, .number = INFINITY, .code = M2SE_ENUMERIC,
       .text = "inf"},
      {NULL, "format", "gpt", .code = M2SE_EFORMAT, .text = "format gpt"},
      {NULL, "format", NULL, .code = M2SE_EFORMAT, .text = "format missing"},
      {NULL, "version", "2", .code = M2SE_EFORMAT, .text = "version 2 where m2se, 1 is needed"},
      {NULL, "heads", "2", .code = M2SE_ESHAPE, .text = "heads is 2 where 3 is needed"},
      {NULL, "d", "21", .code = M2SE_ESHAPE, .text = "d is 21 where 20 is needed"},
      {NULL, "layers", "13", .code = M2SE_EINVAL, .text = "layers is 13, must be 1..12"},
      {NULL, "ffn", "many", .code = M2SE_ETYPE, .text = "ffn"},
      {NULL, "tau", "nan", .code = M2SE_ETYPE, .text = "tau: \"nan\" is not a finite number"},
      {NULL, "lambda", NULL, .code = M2SE_EMISSING, .text = "lambda"},
  };
  assert_all_refused(true, damages, sizeof damages / sizeof *damages);
}

static void test_damaged_optimizer(void **state) {
  (void)state;
  static const struct damage damages[] = {
      {"m.project.text.bias", .kind = TAKE_AWAY, .code = M2SE_EMISSING, .text = "missing"},
      {"items.residual", .kind = TAKE_AWAY, .code = M2SE_EMISSING, .text = "missing"},
      {"items.other", .kind = ADD, .code = M2SE_EFORMAT, .text = "is not part of this model"},
      {"v.items.residual", .kind = RESHAPE, .code = M2SE_ESHAPE, .text = "[40,24,1] where [40,24] is needed"},
      {"items.updates", .kind = RETYPE, .code = M2SE_ETYPE, .text = "dtype F32 where U32 is needed"},
      {"v.position.weight", .kind = SET_NUMBER, .number = -1e-9f, .code = M2SE_ENUMERIC,
       .text = "must be finite and not negative"},
      {"m.items.bias", .kind = SET_NUMBER, .number = NAN, .code = M2SE_ENUMERIC, .text = "element 39"},
      {NULL, "format", "m2se", .code = M2SE_EFORMAT,
       .text = "format m2se, version 1 where m2se-optimizer, 1 is needed"},
      {NULL, "step", "5", .code = M2SE_EFORMAT, .text = "of step 5"},
      {NULL, "step", "-1", .code = M2SE_ERANGE, .text = "step: -1 is negative"},
      {NULL, "slots", "41", .code = M2SE_ERANGE, .text = "slots: 41 is outside 0..40"},
      {NULL, "slots", "39", .code = M2SE_ESHAPE, .text = "[40,24] where [39,24] is needed"},
  };
  assert_all_refused(false, damages, sizeof damages / sizeof *damages);
}

/* Cut anywhere, a file is refused. */
static void test_cut_files(void **state) {
  (void)state;
  static struct model_sample s;
  sample_make(&s, true, true);
  struct m2se_learner *learner = model_sample_learner(&s), *same = model_sample_learner(&s);
  struct m2se_error error;
  uint32_t slots;
  save(learner, ITEMS);
  struct stat status;
  assert_int_equal(stat(model_path, &status), 0);
  for (off_t size = status.st_size - 1; size >= 0; size = size * 3 / 4 - 1) {
    assert_int_equal(truncate(model_path, size), 0);
    assert_int_equal(m2se_learner_load(learner, model_path, optimizer_path, &slots, &error), M2SE_EFORMAT);
    assert_same(learner, same);
  }
  m2se_learner_free(learner);
  m2se_learner_free(same);
}

/* Files of a model with residuals are not for one without, and the other way round. */
static void test_other_table(void **state) {
  (void)state;
  static struct model_sample with, without;
  struct m2se_error error;
  uint32_t slots;
  sample_make(&with, true, true);
  sample_make(&without, false, true);
  struct m2se_learner *a = model_sample_learner(&with), *b = model_sample_learner(&without);
  save(a, ITEMS);
  assert_int_equal(m2se_learner_load(b, model_path, optimizer_path, &slots, &error), M2SE_EFORMAT);
  assert_non_null(strstr(error.text, "items.residual\": is not part of this model"));
  save(b, ITEMS);
  assert_int_equal(m2se_learner_load(a, model_path, optimizer_path, &slots, &error), M2SE_EMISSING);
  assert_non_null(strstr(error.text, "items.residual"));
  m2se_learner_free(a);
  m2se_learner_free(b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_resumes),       cmocka_unit_test(test_same_bytes),
      cmocka_unit_test(test_fewer_slots),   cmocka_unit_test(test_weights_only),
      cmocka_unit_test(test_read_config),   cmocka_unit_test(test_not_finite),
      cmocka_unit_test(test_damaged_model), cmocka_unit_test(test_damaged_optimizer),
      cmocka_unit_test(test_cut_files),     cmocka_unit_test(test_other_table),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
