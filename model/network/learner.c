#include "model/network/learner.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/random.h"

enum { SQUARES_SEGMENT = 16384 };

static void run_serial(void *pool, void (*task)(void *arg, uint32_t t, uint32_t w), void *arg,
                       uint32_t tasks) {
  (void)pool;
  for (uint32_t t = 0; t < tasks; t++) {
    task(arg, t, 0);
  }
}

struct m2se_workers m2se_workers_serial(void) {
  return (struct m2se_workers){1, run_serial, NULL};
}

static size_t segments_of(size_t n) {
  return (n + SQUARES_SEGMENT - 1) / SQUARES_SEGMENT;
}

void m2se_item_table_carve(struct m2se_item_table *t, struct m2se_arena *arena,
                           const struct m2se_config *config, size_t catalogue) {
  size_t residuals = config->item_residual ? catalogue * 2 * config->h : 0,
         biases = config->item_bias ? catalogue : 0;
  M2SE_TAKE(arena, t->residual, residuals);
  M2SE_TAKE(arena, t->residual_m, residuals);
  M2SE_TAKE(arena, t->residual_v, residuals);
  M2SE_TAKE(arena, t->bias, biases);
  M2SE_TAKE(arena, t->bias_m, biases);
  M2SE_TAKE(arena, t->bias_v, biases);
  M2SE_TAKE(arena, t->touched, catalogue);
}

static void carve(struct m2se_learner *l, struct m2se_arena *arena) {
  size_t n = l->list.elements, tail = n - l->list.sequence_start, items = l->limits.items, h = l->config.h;
  m2se_real *flat, *grad;
  M2SE_TAKE(arena, flat, n);
  M2SE_TAKE(arena, grad, n);
  M2SE_TAKE(arena, l->adam_m, n);
  M2SE_TAKE(arena, l->adam_v, n);
  m2se_real *shard;
  M2SE_TAKE(arena, shard, M2SE_SHARDS * tail);
  if (arena->base) {
    m2se_params_view(&l->params, &l->list, flat);
    m2se_params_view(&l->grad, &l->list, grad);
    for (size_t s = 0; s < M2SE_SHARDS; s++) {
      /* Only the tail exists; the views of what stands before it are never used. */
      m2se_real *tail_start = shard + s * tail;
      m2se_params_view(&l->shard_grad[s], &l->list,
                       (m2se_real *)((uintptr_t)tail_start - l->list.sequence_start * sizeof *tail_start));
    }
  }
  m2se_item_table_carve(&l->table, arena, &l->config, l->limits.catalogue);
  m2se_plan_carve(&l->plan, arena, &l->limits);
  m2se_items_carve(&l->items, arena, &l->config, l->limits.items, l->limits.rows, true);
  m2se_sequences_carve(&l->sequences, arena, &l->config, l->limits.positions, true);
  m2se_losses_carve(&l->losses, arena, &l->config, &l->limits);
  M2SE_TAKE(arena, l->scratch, l->limits.workers);
  M2SE_TAKE(arena, l->nip_scratch, l->limits.workers);
  M2SE_TAKE(arena, l->row_scratch, l->limits.workers);
  for (uint32_t w = 0; w < l->limits.workers; w++) {
    struct m2se_sequence_scratch scratch;
    m2se_sequence_scratch_carve(&scratch, arena, &l->config);
    m2se_real *nip, *rows;
    M2SE_TAKE(arena, nip, m2se_nip_scratch(&l->limits, &l->config));
    M2SE_TAKE(arena, rows, (size_t)M2SE_ITEM_BLOCK * l->config.d);
    if (arena->base) {
      l->scratch[w] = scratch;
      l->nip_scratch[w] = nip;
      l->row_scratch[w] = rows;
    }
  }
  M2SE_TAKE(arena, l->residual, items);
  M2SE_TAKE(arena, l->bias, items);
  M2SE_TAKE(arena, l->dbias, items);
  M2SE_TAKE(arena, l->dresidual, items * 2 * h);
  M2SE_TAKE(arena, l->squares, segments_of(n) + 2);
}

int m2se_learner_new(struct m2se_learner **learner, const struct m2se_config *config,
                     const struct m2se_limits *limits, struct m2se_error *error) {
  *learner = NULL;
  int result = m2se_config_check(config, error);
  if (result < 0) {
    return result;
  }
  if (limits->sequences == 0 || limits->positions == 0 || limits->items == 0 || limits->workers == 0) {
    return m2se_error_set(error, M2SE_EINVAL, "limits of 0 sequences, positions, items or workers");
  }
  struct m2se_learner *l = calloc(1, sizeof *l);
  if (!l) {
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a learner");
  }
  l->config = *config;
  l->limits = *limits;
  l->kernels = m2se_kernels_best();
  m2se_tensor_list_make(&l->list, config);
  struct m2se_arena arena = {NULL, 0};
  carve(l, &arena);
  l->bytes = arena.used + sizeof *l;
  l->memory = aligned_alloc(64, arena.used);
  if (!l->memory) {
    size_t bytes = arena.used;
    free(l);
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a learner of %zu bytes", bytes);
  }
  memset(l->memory, 0, arena.used); /* moments, tables; and no page is first touched in a step */
  arena = (struct m2se_arena){l->memory, 0};
  carve(l, &arena);
  m2se_params_init(&l->list, l->params.flat, config->seed);
  *learner = l;
  return 0;
}

void m2se_learner_free(struct m2se_learner *l) {
  if (l) {
    free(l->memory);
    free(l);
  }
}

uint64_t m2se_learner_step_number(const struct m2se_learner *l) {
  return l->step;
}

const struct m2se_config *m2se_learner_config(const struct m2se_learner *l) {
  return &l->config;
}

void m2se_learner_set_rates(struct m2se_learner *l, const struct m2se_config *config) {
  l->config.learning_rate = config->learning_rate;
  l->config.residual_learning_rate = config->residual_learning_rate;
  l->config.bias_learning_rate = config->bias_learning_rate;
  l->config.clip_norm = config->clip_norm;
  l->config.loss_max = config->loss_max;
}

void m2se_learner_reset_slot(struct m2se_learner *l, uint32_t slot) {
  assert(slot < l->limits.catalogue);
  size_t h2 = 2 * (size_t)l->config.h;
  if (l->config.item_residual) {
    memset(l->table.residual + slot * h2, 0, h2 * sizeof(m2se_real));
    memset(l->table.residual_m + slot * h2, 0, h2 * sizeof(m2se_real));
    memset(l->table.residual_v + slot * h2, 0, h2 * sizeof(m2se_real));
  }
  if (l->config.item_bias) {
    l->table.bias[slot] = l->table.bias_m[slot] = l->table.bias_v[slot] = 0;
  }
  l->table.touched[slot] = 0;
}

size_t m2se_learner_bytes(const struct m2se_learner *l) {
  return l->bytes;
}

bool m2se_learner_finite(const struct m2se_learner *l) {
  return isfinite(l->kernels->sum_squares(l->params.flat, l->list.elements));
}

int m2se_learner_gradient(struct m2se_learner *l, const struct m2se_batch *batch, const uint8_t *swap,
                          const struct m2se_workers *workers, struct m2se_losses *losses,
                          struct m2se_error *error) {
  int result = m2se_batch_check(batch, &l->config, &l->limits, error);
  if (result == 0) {
    m2se_learner_backpropagate(l, batch, swap, false, workers, losses);
  }
  return result;
}

const m2se_real *m2se_learner_gradient_flat(const struct m2se_learner *l) {
  return l->grad.flat;
}

const m2se_real *m2se_learner_gradient_residual(const struct m2se_learner *l) {
  return l->dresidual;
}

const m2se_real *m2se_learner_gradient_bias(const struct m2se_learner *l) {
  return l->dbias;
}

void m2se_learner_gradient_vectors(const struct m2se_learner *l, m2se_real *user_vectors,
                                   m2se_real *item_vectors) {
  size_t h = l->config.h;
  memcpy(item_vectors, l->items.unit, l->plan.n_items * 2 * h * sizeof *item_vectors);
  for (uint32_t j = 0; j < l->plan.n_sequences; j++) {
    uint32_t a = l->plan.last_anchor[j];
    const m2se_real *text = l->sequences.unit + l->plan.anchor_text[a] * 2 * h;
    const m2se_real *image = l->sequences.unit + l->plan.anchor_image[a] * 2 * h + h;
    memcpy(user_vectors + j * 2 * h, text, h * sizeof *text);
    memcpy(user_vectors + j * 2 * h + h, image, h * sizeof *image);
  }
}
