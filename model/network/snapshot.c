#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/m2se_files.h"
#include "model/network/model_file.h"
#include "model/network/weights.h"

struct m2se_snapshot {
  struct m2se_config config; /* with the temperatures of the learner it was taken from */
  struct m2se_tensor_list list;
  struct m2se_learned learned; /* points to the two above */
  uint32_t catalogue;
  void *memory;
};

static void carve(struct m2se_snapshot *s, struct m2se_arena *arena) {
  M2SE_TAKE(arena, s->learned.flat, s->list.elements);
  M2SE_TAKE(arena, s->learned.adam_m, s->list.elements);
  M2SE_TAKE(arena, s->learned.adam_v, s->list.elements);
  m2se_item_table_carve(&s->learned.table, arena, &s->config, s->catalogue);
}

int m2se_snapshot_new(struct m2se_snapshot **snapshot, const struct m2se_config *config, uint32_t catalogue,
                      struct m2se_error *error) {
  *snapshot = NULL;
  int code = m2se_config_check(config, error);
  if (code < 0) {
    return code;
  }
  struct m2se_snapshot *s = calloc(1, sizeof *s);
  if (!s) {
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a snapshot");
  }
  s->config = *config;
  s->catalogue = catalogue;
  m2se_tensor_list_make(&s->list, config);
  struct m2se_arena arena = {NULL, 0};
  carve(s, &arena);
  s->memory = aligned_alloc(64, arena.used);
  if (!s->memory) {
    free(s);
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a snapshot of %zu bytes", arena.used);
  }
  memset(s->memory, 0, arena.used);
  arena = (struct m2se_arena){s->memory, 0};
  carve(s, &arena);
  s->learned.config = &s->config;
  s->learned.list = &s->list;
  *snapshot = s;
  return 0;
}

void m2se_snapshot_free(struct m2se_snapshot *s) {
  if (s) {
    free(s->memory);
    free(s);
  }
}

/* Everything of floats that learning changes, array by array. */
enum { ARRAYS = 9 };
struct array {
  m2se_real *data;
  size_t count;
};

static void list_arrays(const struct m2se_learned *l, struct array arrays[ARRAYS]) {
  const struct m2se_item_table *t = &l->table;
  size_t n = l->list->elements,
         residuals = l->config->item_residual ? 2 * (size_t)l->slots * l->config->h : 0,
         biases = l->config->item_bias ? l->slots : 0;
  const struct array all[ARRAYS] = {{l->flat, n},
                                    {l->adam_m, n},
                                    {l->adam_v, n},
                                    {t->residual, residuals},
                                    {t->residual_m, residuals},
                                    {t->residual_v, residuals},
                                    {t->bias, biases},
                                    {t->bias_m, biases},
                                    {t->bias_v, biases}};
  memcpy(arrays, all, sizeof all);
}

void m2se_snapshot_take(struct m2se_snapshot *s, const struct m2se_learner *learner, uint32_t slots) {
  assert(m2se_config_same_shape(&s->config, &learner->config));
  assert(s->config.item_residual == learner->config.item_residual);
  assert(s->config.item_bias == learner->config.item_bias);
  assert(slots <= s->catalogue && slots <= learner->limits.catalogue);
  s->config = learner->config;
  s->learned.slots = slots;
  s->learned.step = learner->step;
  struct m2se_learned source = m2se_learned_of(learner, slots);
  struct array from[ARRAYS], to[ARRAYS];
  list_arrays(&source, from);
  list_arrays(&s->learned, to);
  for (int i = 0; i < ARRAYS; i++) {
    if (to[i].count > 0) {
      memcpy(to[i].data, from[i].data, to[i].count * sizeof *to[i].data);
    }
  }
  if (slots > 0) {
    memcpy(s->learned.table.touched, learner->table.touched, slots * sizeof *learner->table.touched);
  }
}

void m2se_snapshot_restore(const struct m2se_snapshot *s, struct m2se_learner *learner) {
  assert(m2se_config_same_shape(&s->config, &learner->config));
  assert(s->config.item_residual == learner->config.item_residual);
  assert(s->config.item_bias == learner->config.item_bias);
  assert(s->learned.slots <= learner->limits.catalogue);
  struct m2se_learned target = m2se_learned_of(learner, s->learned.slots);
  struct array from[ARRAYS], to[ARRAYS];
  list_arrays(&s->learned, from);
  list_arrays(&target, to);
  for (int i = 0; i < ARRAYS; i++) {
    if (to[i].count > 0) {
      memcpy(to[i].data, from[i].data, to[i].count * sizeof *to[i].data);
    }
  }
  if (s->learned.slots > 0) {
    memcpy(learner->table.touched, s->learned.table.touched,
           s->learned.slots * sizeof *learner->table.touched);
  }
  for (uint32_t slot = s->learned.slots; slot < learner->limits.catalogue; slot++) {
    m2se_learner_reset_slot(learner, slot);
  }
}

bool m2se_snapshot_finite(const struct m2se_snapshot *s) {
  struct array arrays[ARRAYS];
  list_arrays(&s->learned, arrays);
  for (int i = 0; i < ARRAYS; i++) {
    if (arrays[i].count > 0 && !isfinite(m2se_kernels_best()->sum_squares(arrays[i].data, arrays[i].count))) {
      return false;
    }
  }
  return true;
}

uint64_t m2se_snapshot_step(const struct m2se_snapshot *s) {
  return s->learned.step;
}

static int write_list(const struct m2se_snapshot *s, const char *path,
                      void (*make)(struct m2se_file_list *list, const struct m2se_learned *learned),
                      struct m2se_error *error) {
  struct m2se_file_list *list = malloc(sizeof *list);
  if (!list) {
    return m2se_error_set(error, M2SE_ENOMEM, "%s: no memory to write it", path);
  }
  make(list, &s->learned);
  struct m2se_safetensors_content content = {.tensors = list->tensors,
                                             .tensor_count = list->tensor_count,
                                             .metadata = list->metadata,
                                             .metadata_count = list->metadata_count};
  int code = m2se_safetensors_write(path, &content, true, error);
  free(list);
  return code;
}

int m2se_snapshot_write_model(const struct m2se_snapshot *s, const char *path, struct m2se_error *error) {
  return write_list(s, path, m2se_file_list_model, error);
}

int m2se_snapshot_write_optimizer(const struct m2se_snapshot *s, const char *path, struct m2se_error *error) {
  return write_list(s, path, m2se_file_list_optimizer, error);
}
