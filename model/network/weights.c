#include "model/network/weights.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/network/learner.h"

bool m2se_config_same_shape(const struct m2se_config *a, const struct m2se_config *b) {
  return a->d == b->d && a->da == b->da && a->h == b->h && a->experts == b->experts &&
         a->layers == b->layers && a->heads == b->heads && a->ffn == b->ffn && a->max_len == b->max_len;
}

static void carve(struct m2se_weights *w, struct m2se_arena *arena) {
  m2se_real *flat;
  M2SE_TAKE(arena, flat, w->list.elements);
  if (w->config.item_residual) {
    M2SE_TAKE(arena, w->residual, (size_t)w->catalogue * 2 * w->config.h);
  }
  if (w->config.item_bias) {
    M2SE_TAKE(arena, w->bias, w->catalogue);
  }
  if (arena->base) {
    m2se_params_view(&w->params, &w->list, flat);
  }
}

int m2se_weights_new(struct m2se_weights **weights, const struct m2se_config *config, uint32_t catalogue,
                     struct m2se_error *error) {
  *weights = NULL;
  int code = m2se_config_check(config, error);
  if (code < 0) {
    return code;
  }
  struct m2se_weights *w = calloc(1, sizeof *w);
  if (!w) {
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a copy of the weights");
  }
  w->config = *config;
  w->catalogue = catalogue;
  m2se_tensor_list_make(&w->list, config);
  struct m2se_arena arena = {NULL, 0};
  carve(w, &arena);
  w->memory = aligned_alloc(64, arena.used);
  if (!w->memory) {
    free(w);
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a copy of the weights of %zu bytes", arena.used);
  }
  memset(w->memory, 0, arena.used);
  arena = (struct m2se_arena){w->memory, 0};
  carve(w, &arena);
  *weights = w;
  return 0;
}

void m2se_weights_free(struct m2se_weights *w) {
  if (w) {
    free(w->memory);
    free(w);
  }
}

void m2se_weights_copy(struct m2se_weights *w, const struct m2se_learner *learner, uint32_t slots) {
  const struct m2se_item_table *table = &learner->table;
  assert(m2se_config_same_shape(&w->config, &learner->config));
  assert(w->config.item_residual == learner->config.item_residual);
  assert(w->config.item_bias == learner->config.item_bias);
  assert(slots <= w->catalogue && slots <= learner->limits.catalogue);
  memcpy(w->params.flat, learner->params.flat, w->list.elements * sizeof(m2se_real));
  if (w->residual && slots > 0) {
    memcpy(w->residual, table->residual, (size_t)slots * 2 * w->config.h * sizeof(m2se_real));
  }
  if (w->bias && slots > 0) {
    memcpy(w->bias, table->bias, slots * sizeof(m2se_real));
  }
  w->slots = slots;
  w->step = learner->step;
}

uint64_t m2se_weights_step(const struct m2se_weights *w) {
  return w->step;
}
