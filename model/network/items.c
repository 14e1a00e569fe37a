#include "model/network/items.h"

#include <string.h>

#include "model/network/blas_door.h"

static const m2se_real LAYER_NORM_EPS = (m2se_real)1e-12;

static size_t width(const struct m2se_config *config) {
  return (size_t)config->experts * config->h + config->experts;
}

static size_t sums_width(const struct m2se_config *config) {
  return 3 * (size_t)config->experts * config->h + config->d;
}

static const struct m2se_rows *rows_of(const struct m2se_item_input *input, int modality) {
  return modality == 0 ? &input->text : &input->image;
}

void m2se_items_carve(struct m2se_items *items, struct m2se_arena *arena, const struct m2se_config *config,
                      uint32_t items_max, uint32_t rows_max, bool gradients) {
  size_t n = items_max, h = config->h;
  for (int m = 0; m < 2; m++) {
    struct m2se_modality_work *w = &items->modality[m];
    M2SE_TAKE(arena, w->item, n);
    M2SE_TAKE(arena, w->compact, n);
    M2SE_TAKE(arena, w->row_ptr, n + 1);
    M2SE_TAKE(arena, w->w, config->d);
    M2SE_TAKE(arena, w->alpha, rows_max);
    M2SE_TAKE(arena, w->e, n * config->d);
    M2SE_TAKE(arena, w->y, n * width(config));
    M2SE_TAKE(arena, w->rstd, n * config->experts);
    M2SE_TAKE(arena, w->z, n * h);
    if (gradients) {
      M2SE_TAKE(arena, w->dz, n * h);
      M2SE_TAKE(arena, w->block_sums, m2se_item_blocks(items_max) * sums_width(config));
    }
  }
  M2SE_TAKE(arena, items->state, n * 2 * h);
  M2SE_TAKE(arena, items->unit, n * 2 * h);
  M2SE_TAKE(arena, items->inv, n * 2);
  if (gradients) {
    M2SE_TAKE(arena, items->dstate, n * 2 * h);
  }
}

void m2se_items_begin(struct m2se_items *items, const struct m2se_item_input *input, uint32_t n,
                      const struct m2se_config *config, const struct m2se_params *params,
                      const struct m2se_kernels *kernels) {
  for (int m = 0; m < 2; m++) {
    struct m2se_modality_work *w = &items->modality[m];
    const struct m2se_modality_params *p = &params->modality[m];
    w->count = 0;
    w->rows = 0;
    for (uint32_t i = 0; i < n; i++) {
      uint32_t count = rows_of(&input[i], m)->count;
      w->compact[i] = count > 0 ? (int32_t)w->count : -1;
      if (count > 0) {
        w->item[w->count] = i;
        w->row_ptr[w->count++] = w->rows;
        w->rows += count;
      }
    }
    w->row_ptr[w->count] = w->rows;
    /* (X W1 + b1) W2 + b2 under a softmax: b1 and b2 add the same to every row, only X (W1 W2) is left. */
    memset(w->w, 0, config->d * sizeof *w->w);
    for (uint32_t a = 0; a < config->da; a++) {
      kernels->axpy(w->w, p->pool_w2[a], p->pool_w1 + (size_t)a * config->d, config->d);
    }
  }
}

static uint32_t block_end(uint32_t block, uint32_t count) {
  uint32_t end = (block + 1) * M2SE_ITEM_BLOCK;
  return end < count ? end : count;
}

void m2se_items_forward(struct m2se_items *items, const struct m2se_item_input *input, int modality,
                        uint32_t block, const struct m2se_config *config, const struct m2se_params *params,
                        const struct m2se_kernels *kernels, const struct m2se_dropout *drop) {
  struct m2se_modality_work *w = &items->modality[modality];
  const struct m2se_modality_params *p = &params->modality[modality];
  size_t d = config->d, columns = width(config), h = config->h;
  uint32_t c0 = block * M2SE_ITEM_BLOCK, c1 = block_end(block, w->count);
  for (uint32_t c = c0; c < c1; c++) {
    const struct m2se_rows *rows = rows_of(&input[w->item[c]], modality);
    kernels->pool_forward(w->e + c * d, w->alpha + w->row_ptr[c], rows->data, rows->count, d, w->w);
  }
  m2se_gemm_nt(c1 - c0, columns, d, w->e + c0 * d, d, p->experts, d, 0, w->y + c0 * columns, columns);
  kernels->experts_forward(w->z + c0 * h, w->rstd + (size_t)c0 * config->experts, w->y + c0 * columns,
                           p->experts_bias, p->norms_weight, p->norms_bias, c1 - c0, config->experts, h,
                           LAYER_NORM_EPS, drop, c0);
}

void m2se_items_states(struct m2se_items *items, uint32_t n, uint32_t block, const struct m2se_config *config,
                       const m2se_real *const *residual, const struct m2se_kernels *kernels) {
  size_t h = config->h;
  uint32_t i0 = block * M2SE_ITEM_BLOCK, i1 = block_end(block, n);
  for (uint32_t i = i0; i < i1; i++) {
    for (int m = 0; m < 2; m++) {
      m2se_real *state = items->state + (2 * (size_t)i + (size_t)m) * h;
      int from = items->modality[m].compact[i] >= 0
                     ? m
                     : 1 - m; /* the modality that it has stands in for the other */
      int32_t c = items->modality[from].compact[i];
      if (c < 0) {
        memset(state, 0, h * sizeof *state);
        continue;
      }
      memcpy(state, items->modality[from].z + (size_t)c * h, h * sizeof *state);
      if (residual && residual[i]) {
        kernels->add(state, residual[i] + (size_t)m * h, h);
      }
    }
  }
  kernels->unit_forward(items->unit + 2 * (size_t)i0 * h, h, items->inv + 2 * (size_t)i0,
                        items->state + 2 * (size_t)i0 * h, h, 2 * (size_t)(i1 - i0), h);
}

void m2se_items_distribute(struct m2se_items *items, uint32_t n, uint32_t block,
                           const struct m2se_config *config) {
  size_t h = config->h;
  for (uint32_t i = block * M2SE_ITEM_BLOCK; i < block_end(block, n); i++) {
    const m2se_real *d = items->dstate + 2 * (size_t)i * h;
    for (int m = 0; m < 2; m++) {
      int32_t c = items->modality[m].compact[i];
      if (c < 0) {
        continue;
      }
      bool both = items->modality[1 - m].compact[i] >= 0;
      m2se_real *dz = items->modality[m].dz + (size_t)c * h;
      for (size_t k = 0; k < h; k++) {
        dz[k] = both ? d[(size_t)m * h + k] : d[k] + d[h + k];
      }
    }
  }
}

bool m2se_items_block_pools(const struct m2se_modality_work *w, uint32_t block) {
  uint32_t c0 = block * M2SE_ITEM_BLOCK, c1 = block_end(block, w->count);
  return w->row_ptr[c1] - w->row_ptr[c0] > c1 - c0;
}

void m2se_items_backward(struct m2se_items *items, const struct m2se_item_input *input, int modality,
                         uint32_t block, const struct m2se_config *config, const struct m2se_params *params,
                         const struct m2se_kernels *kernels, const struct m2se_dropout *drop,
                         m2se_real *scratch) {
  struct m2se_modality_work *w = &items->modality[modality];
  const struct m2se_modality_params *p = &params->modality[modality];
  size_t d = config->d, columns = width(config), h = config->h, oh = (size_t)config->experts * h;
  uint32_t c0 = block * M2SE_ITEM_BLOCK, c1 = block_end(block, w->count);
  m2se_real *sums = w->block_sums + block * sums_width(config);
  memset(sums, 0, sums_width(config) * sizeof *sums);
  kernels->experts_backward(w->y + c0 * columns, sums, sums + oh, sums + 2 * oh, w->dz + c0 * h,
                            w->rstd + (size_t)c0 * config->experts, p->norms_weight, p->norms_bias, c1 - c0,
                            config->experts, h, drop, c0);
  if (!m2se_items_block_pools(w, block)) {
    return;
  }
  m2se_gemm_nn(c1 - c0, d, columns, w->y + c0 * columns, columns, p->experts, d, 0, scratch, d);
  for (uint32_t c = c0; c < c1; c++) {
    const struct m2se_rows *rows = rows_of(&input[w->item[c]], modality);
    kernels->pool_backward(sums + 3 * oh, rows->data, w->alpha + w->row_ptr[c], scratch + (c - c0) * d,
                           rows->count, d);
  }
}

void m2se_items_weights(const struct m2se_items *items, int modality, uint32_t first, uint32_t last,
                        const struct m2se_config *config, struct m2se_params *grad) {
  const struct m2se_modality_work *w = &items->modality[modality];
  size_t d = config->d, columns = width(config);
  m2se_gemm_tn(last - first, d, w->count, w->y + first, columns, w->e, d, 0,
               grad->modality[modality].experts + first * d, d);
}

void m2se_items_sums(const struct m2se_items *items, int modality, const struct m2se_config *config,
                     const struct m2se_params *params, struct m2se_params *grad,
                     const struct m2se_kernels *kernels, m2se_real *scratch) {
  const struct m2se_modality_work *w = &items->modality[modality];
  const struct m2se_modality_params *p = &params->modality[modality];
  struct m2se_modality_params *g = &grad->modality[modality];
  size_t d = config->d, oh = (size_t)config->experts * config->h;
  memset(g->experts_bias, 0, oh * sizeof *g->experts_bias);
  memset(g->norms_weight, 0, oh * sizeof *g->norms_weight);
  memset(g->norms_bias, 0, oh * sizeof *g->norms_bias);
  memset(scratch, 0, d * sizeof *scratch);
  for (size_t b = 0; b < m2se_item_blocks(w->count); b++) {
    const m2se_real *sums = w->block_sums + b * sums_width(config);
    kernels->add(g->experts_bias, sums, oh);
    kernels->add(g->norms_weight, sums + oh, oh);
    kernels->add(g->norms_bias, sums + 2 * oh, oh);
    kernels->add(scratch, sums + 3 * oh, d);
  }
  /* w = W2 W1: dW1_a = W2_a dw, dW2_a = W1_a . dw; the biases cancel in the softmax. */
  for (uint32_t a = 0; a < config->da; a++) {
    m2se_real *row = g->pool_w1 + a * d;
    memset(row, 0, d * sizeof *row);
    kernels->axpy(row, p->pool_w2[a], scratch, d);
    g->pool_w2[a] = kernels->dot(p->pool_w1 + a * d, scratch, d);
    g->pool_w1_bias[a] = 0;
  }
  g->pool_w2_bias[0] = 0;
}
