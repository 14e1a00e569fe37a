/* train_steps CASE FOLDER: some training steps without random draws, for training.py to repeat in PyTorch.
 * FOLDER/case.safetensors holds all that takes part: the settings (metadata), the weights and the item table
 * before ("start."), both and Adam's moments after ("end."), each step's mini-batch ("batch.K.", named as for
 * m2se_grad, with the items' rows of the item table in `slots`), and the losses and gradient norms of the
 * steps. Built in float and in double; in float it saves model.safetensors and optimizer.safetensors too. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/safetensors.h"
#include "model/m2se_files.h"
#include "model/network/learner.h"
#include "tests/unit/model_sample.h"

enum { STEPS = 6, CATALOGUE = 40, TENSORS = 4 * (M2SE_PARAMETERS_MAX + 3) + STEPS * 9 + 2, CASES = 4 };
static const enum m2se_dtype REAL = sizeof(m2se_real) == 8 ? M2SE_F64 : M2SE_F32;

struct out {
  struct m2se_tensor tensors[TENSORS];
  char names[TENSORS][64];
  uint32_t count;
};

/* Takes over data as it is now. width 0: one dimension. */
static void put(struct out *out, const char *prefix, const char *name, enum m2se_dtype dtype, uint64_t rows,
                uint64_t width, const void *data) {
  assert(out->count < TENSORS);
  size_t bytes = rows * (width ? width : 1) * m2se_dtype_size(dtype);
  void *copy = malloc(bytes + 1);
  assert(copy);
  if (bytes > 0) {
    memcpy(copy, data, bytes);
  }
  char *full = out->names[out->count];
  snprintf(full, sizeof out->names[0], "%s%s", prefix, name);
  out->tensors[out->count++] = (struct m2se_tensor){
      .name = full, .dtype = dtype, .rank = width ? 2 : 1, .shape = {rows, width}, .data = copy};
}

static void put_parameters(struct out *out, const char *prefix, const struct m2se_learner *l,
                           const m2se_real *flat) {
  for (uint32_t i = 0; i < l->list.count; i++) {
    const struct m2se_parameter *p = &l->list.tensors[i];
    put(out, prefix, p->name, REAL, p->count, 0, flat + p->offset);
    struct m2se_tensor *tensor = &out->tensors[out->count - 1];
    tensor->rank = p->rank;
    memcpy(tensor->shape, p->shape, sizeof p->shape);
  }
}

static void put_table(struct out *out, const char *prefix, const struct m2se_learner *l,
                      const m2se_real *residual, const m2se_real *bias) {
  if (l->config.item_residual) {
    put(out, prefix, "items.residual", REAL, CATALOGUE, 2ull * l->config.h, residual);
  }
  if (l->config.item_bias) {
    put(out, prefix, "items.bias", REAL, CATALOGUE, 0, bias);
  }
}

static void put_end(struct out *out, const struct m2se_learner *l) {
  const struct m2se_item_table *table = &l->table;
  put_parameters(out, "end.", l, l->params.flat);
  put_parameters(out, "end.m.", l, l->adam_m);
  put_parameters(out, "end.v.", l, l->adam_v);
  put_table(out, "end.", l, table->residual, table->bias);
  put_table(out, "end.m.", l, table->residual_m, table->bias_m);
  put_table(out, "end.v.", l, table->residual_v, table->bias_v);
  put(out, "end.", "items.updates", M2SE_I32, CATALOGUE, 0, table->touched);
}

static void put_batch(struct out *out, int step, const struct model_sample *s) {
  char prefix[16];
  uint32_t items = s->batch.n_items, ptr[2][SAMPLE_ITEMS_MAX + 1] = {{0}}, slots[SAMPLE_ITEMS_MAX];
  static const uint8_t swap[SAMPLE_POSITIONS_MAX];
  for (uint32_t i = 0; i < items; i++) {
    ptr[0][i + 1] = ptr[0][i] + s->items[i].text.count;
    ptr[1][i + 1] = ptr[1][i] + s->items[i].image.count;
    slots[i] = s->items[i].slot;
  }
  snprintf(prefix, sizeof prefix, "batch.%d.", step);
  put(out, prefix, "text_rows", REAL, ptr[0][items], s->config.d, s->rows[0]);
  put(out, prefix, "text_ptr", M2SE_I32, items + 1, 0, ptr[0]);
  put(out, prefix, "image_rows", REAL, ptr[1][items], s->config.d, s->rows[1]);
  put(out, prefix, "image_ptr", M2SE_I32, items + 1, 0, ptr[1]);
  put(out, prefix, "seq_items", M2SE_I32, s->limits.positions, 0, s->seq_items);
  put(out, prefix, "seq_ptr", M2SE_I32, s->batch.n_sequences + 1, 0, s->seq_ptr);
  put(out, prefix, "target", M2SE_I32, s->batch.n_sequences, 0, s->target);
  put(out, prefix, "swap", M2SE_U8, s->limits.positions, 0, swap);
  put(out, prefix, "slots", M2SE_I32, items, 0, slots);
}

static struct m2se_config config_of(int number) {
  struct m2se_config c = model_sample_config();
  c.targets = number % 2 ? M2SE_TARGETS_LAST : M2SE_TARGETS_ALL;
  c.item_residual = number != 3;
  c.item_bias = number != 2;
  c.clip_norm = number == 2 ? 0 : number == 0 ? 2.4 : 4; /* some steps are clipped, some are not */
  c.learning_rate = 3e-3;
  c.residual_learning_rate = 2e-2;
  c.bias_learning_rate = 5e-2;
  c.beta1 = number == 1 ? 0.8 : 0.9;
  c.beta2 = number == 1 ? 0.99 : 0.999;
  c.epsilon = number == 1 ? 1e-3 : 1e-8;
  return c;
}

static int write_out(const struct out *out, const struct m2se_config *c, const char *folder,
                     struct m2se_error *error) {
  static const char *const keys[] = {"d",
                                     "da",
                                     "h",
                                     "experts",
                                     "layers",
                                     "heads",
                                     "ffn",
                                     "max_len",
                                     "tau",
                                     "lambda",
                                     "steps",
                                     "targets_all",
                                     "clip_norm",
                                     "learning_rate",
                                     "residual_learning_rate",
                                     "bias_learning_rate",
                                     "beta1",
                                     "beta2",
                                     "epsilon"};
  const double numbers[] = {c->d,
                            c->da,
                            c->h,
                            c->experts,
                            c->layers,
                            c->heads,
                            c->ffn,
                            c->max_len,
                            c->tau,
                            c->lambda,
                            STEPS,
                            c->targets == M2SE_TARGETS_ALL,
                            c->clip_norm,
                            c->learning_rate,
                            c->residual_learning_rate,
                            c->bias_learning_rate,
                            c->beta1,
                            c->beta2,
                            c->epsilon};
  enum { KEYS = sizeof keys / sizeof *keys };
  struct m2se_metadata metadata[KEYS];
  char values[KEYS][32];
  for (int i = 0; i < KEYS; i++) {
    snprintf(values[i], sizeof values[i], "%.17g", numbers[i]);
    metadata[i] = (struct m2se_metadata){keys[i], values[i]};
  }
  struct m2se_safetensors_content content = {out->tensors, out->count, metadata, KEYS};
  char path[4096];
  snprintf(path, sizeof path, "%s/case.safetensors", folder);
  return m2se_safetensors_write(path, &content, false, error);
}

static int save(const struct m2se_learner *learner, const char *folder, struct m2se_error *error) {
#ifdef M2SE_DOUBLE
  (void)learner, (void)folder, (void)error;
  return 0; /* the files are of the product, in float */
#else
  char model[4096], optimizer[4096];
  struct m2se_snapshot *snapshot;
  snprintf(model, sizeof model, "%s/model.safetensors", folder);
  snprintf(optimizer, sizeof optimizer, "%s/optimizer.safetensors", folder);
  int code = m2se_snapshot_new(&snapshot, m2se_learner_config(learner), CATALOGUE, error);
  if (code == 0) {
    m2se_snapshot_take(snapshot, learner, CATALOGUE);
    code = m2se_snapshot_write_model(snapshot, model, error);
    code = code < 0 ? code : m2se_snapshot_write_optimizer(snapshot, optimizer, error);
    m2se_snapshot_free(snapshot);
  }
  return code;
#endif
}

int main(int argc, char **argv) {
  int number = argc == 3 && strlen(argv[1]) == 1 ? *argv[1] - '0' : -1;
  if (number < 0 || number >= CASES) {
    fprintf(stderr, "usage: train_steps 0..%d FOLDER\n", CASES - 1);
    return 64;
  }
  static struct out out;
  static struct model_sample s;
  struct m2se_config config = config_of(number);
  struct m2se_workers serial = m2se_workers_serial();
  struct m2se_error error;
  double losses[STEPS], norms[STEPS];
  model_sample_make(&s, &config, CATALOGUE, SAMPLE_SEQUENCES_MAX, 1);
  struct m2se_learner *learner = model_sample_learner(&s); /* with limits for all that follow */
  model_sample_shake(learner, 2);
  put_parameters(&out, "start.", learner, learner->params.flat);
  put_table(&out, "start.", learner, learner->table.residual, learner->table.bias);
  for (int k = 0; k < STEPS; k++) {
    struct m2se_step_result result;
    config.seed = 100 + (uint64_t)k;
    model_sample_make(&s, &config, 11 + 4 * (uint32_t)k, 20 + 13 * (uint32_t)k, 1);
    for (uint32_t i = 0; i < s.batch.n_items; i++) {
      s.items[i].slot = (i * 7 + (uint32_t)k * 3) % CATALOGUE;
    }
    put_batch(&out, k, &s);
    if (m2se_learner_step(learner, &s.batch, &serial, 0, &result, &error) < 0 || !result.applied) {
      fprintf(stderr, "train_steps: step %d was not applied\n", k);
      return 70;
    }
    losses[k] = result.losses.total;
    norms[k] = result.gradient_norm;
  }
  put_end(&out, learner);
  put(&out, "", "losses", M2SE_F64, STEPS, 0, losses);
  put(&out, "", "gradient_norms", M2SE_F64, STEPS, 0, norms);
  int code = write_out(&out, &config, argv[2], &error);
  code = code < 0 ? code : save(learner, argv[2], &error);
  if (code < 0) {
    fprintf(stderr, "train_steps: %s\n", error.text);
  }
  m2se_learner_free(learner);
  while (out.count > 0) {
    free((void *)out.tensors[--out.count].data);
  }
  return code < 0 ? 74 : 0;
}
