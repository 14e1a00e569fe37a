#include "model/network/plan.h"

#include <assert.h>
#include <string.h>

#include "model/random.h"

void m2se_plan_carve(struct m2se_plan *p, struct m2se_arena *arena, const struct m2se_limits *limits) {
  size_t b = limits->sequences, n = limits->positions, items = limits->items;
  M2SE_TAKE(arena, p->seq_ptr, b + 1);
  M2SE_TAKE(arena, p->item, n);
  M2SE_TAKE(arena, p->swap, n);
  M2SE_TAKE(arena, p->pos_target, n);
  M2SE_TAKE(arena, p->in_sequence, n);
  M2SE_TAKE(arena, p->tiles, b + 1);
  M2SE_TAKE(arena, p->tile_anchor, b + 1);
  M2SE_TAKE(arena, p->anchor, n);
  M2SE_TAKE(arena, p->anchor_row, 2 * n);
  M2SE_TAKE(arena, p->anchor_text, n);
  M2SE_TAKE(arena, p->anchor_image, n);
  M2SE_TAKE(arena, p->last_anchor, b);
  M2SE_TAKE(arena, p->target, b);
  M2SE_TAKE(arena, p->candidate, items);
  M2SE_TAKE(arena, p->candidate_of, items);
  M2SE_TAKE(arena, p->candidate_count, items);
  M2SE_TAKE(arena, p->use_ptr, items + 1);
  M2SE_TAKE(arena, p->use_row, 2 * n);
  M2SE_TAKE(arena, p->cursor, items);
}

static int check_sequence(const struct m2se_batch *b, const struct m2se_config *config, uint32_t j,
                          struct m2se_error *error) {
  uint32_t begin = b->seq_ptr[j], end = b->seq_ptr[j + 1];
  if (end <= begin || end - begin > config->max_len) {
    return m2se_error_set(error, M2SE_EINVAL,
                          "seq_ptr: sequence %u runs from %u to %u; its length must be 1..%u", j, begin, end,
                          config->max_len);
  }
  if (b->target[j] >= b->n_items) {
    return m2se_error_set(error, M2SE_EINVAL, "target: sequence %u has item %u, of %u items", j, b->target[j],
                          b->n_items);
  }
  for (uint32_t p = begin; p < end; p++) {
    if (b->seq_items[p] >= b->n_items) {
      return m2se_error_set(error, M2SE_EINVAL, "seq_items: position %u has item %u, of %u items", p,
                            b->seq_items[p], b->n_items);
    }
    if (config->targets == M2SE_TARGETS_ALL && b->pos_target &&
        (b->pos_target[p] < -1 || b->pos_target[p] >= (int64_t)b->n_items)) {
      return m2se_error_set(error, M2SE_EINVAL, "pos_target: position %u has item %d, of %u items", p,
                            b->pos_target[p], b->n_items);
    }
  }
  if (config->targets == M2SE_TARGETS_ALL && b->pos_target && b->pos_target[end - 1] != -1 &&
      (uint32_t)b->pos_target[end - 1] != b->target[j]) {
    return m2se_error_set(error, M2SE_EINVAL,
                          "pos_target: the last position of sequence %u has item %d, target says %u", j,
                          b->pos_target[end - 1], b->target[j]);
  }
  return 0;
}

static int check_used(const struct m2se_batch *b, uint32_t item, struct m2se_error *error) {
  if (b->items[item].text.count == 0 && b->items[item].image.count == 0) {
    return m2se_error_set(error, M2SE_EINVAL, "item %u is used but has neither text nor image rows", item);
  }
  return 0;
}

int m2se_batch_check(const struct m2se_batch *b, const struct m2se_config *config,
                     const struct m2se_limits *limits, struct m2se_error *error) {
  if (b->n_sequences == 0 || b->n_sequences > limits->sequences || b->n_items == 0 ||
      b->n_items > limits->items) {
    return m2se_error_set(error, M2SE_EINVAL,
                          "a mini-batch of %u sequences and %u items; the limits are 1..%u and 1..%u",
                          b->n_sequences, b->n_items, limits->sequences, limits->items);
  }
  if (b->seq_ptr[0] != 0) {
    return m2se_error_set(error, M2SE_EINVAL, "seq_ptr: starts with %u, must be 0", b->seq_ptr[0]);
  }
  uint64_t text = 0, image = 0;
  bool table = config->item_residual || config->item_bias;
  for (uint32_t i = 0; i < b->n_items; i++) {
    text += b->items[i].text.count;
    image += b->items[i].image.count;
    if (table && b->items[i].slot >= limits->catalogue) {
      return m2se_error_set(error, M2SE_EINVAL, "item %u has slot %u, the item table %u", i, b->items[i].slot,
                            limits->catalogue);
    }
  }
  if (text > limits->rows || image > limits->rows) {
    return m2se_error_set(error, M2SE_EINVAL,
                          "a mini-batch of %llu text and %llu image rows; the limit is %u",
                          (unsigned long long)text, (unsigned long long)image, limits->rows);
  }
  for (uint32_t j = 0; j < b->n_sequences; j++) {
    if (b->seq_ptr[j + 1] > limits->positions) {
      return m2se_error_set(error, M2SE_EINVAL, "seq_ptr: sequence %u ends at %u; the limit is %u positions",
                            j, b->seq_ptr[j + 1], limits->positions);
    }
    int result = check_sequence(b, config, j, error);
    if (result == 0) {
      result = check_used(b, b->target[j], error);
    }
    for (uint32_t p = b->seq_ptr[j]; p < b->seq_ptr[j + 1] && result == 0; p++) {
      result = check_used(b, b->seq_items[p], error);
      if (result == 0 && config->targets == M2SE_TARGETS_ALL && b->pos_target && b->pos_target[p] >= 0) {
        result = check_used(b, (uint32_t)b->pos_target[p], error);
      }
    }
    if (result < 0) {
      return result;
    }
  }
  return 0;
}

/* The target of position p of the mini-batch as it came. */
static int32_t target_of(const struct m2se_batch *b, const struct m2se_config *config, uint32_t j,
                         uint32_t p) {
  if (p + 1 == b->seq_ptr[j + 1]) {
    return (int32_t)b->target[j];
  }
  if (config->targets == M2SE_TARGETS_LAST) {
    return -1;
  }
  return b->pos_target ? b->pos_target[p] : (int32_t)b->seq_items[p + 1];
}

/* Positions that stay, renumbered; the last that stays predicts the event's item, the others what followed
 * them. */
static void keep_positions(struct m2se_plan *plan, const struct m2se_batch *b,
                           const struct m2se_config *config, uint64_t step, bool augment,
                           const uint8_t *swap) {
  double rho = 0, mix = 0;
  if (augment) {
    rho = config->sequence_dropout_max * m2se_random_unit(config->seed, step, M2SE_RANDOM_RATES, 0);
    mix = config->mixup_max * m2se_random_unit(config->seed, step, M2SE_RANDOM_RATES, 1);
  }
  uint32_t n = 0;
  for (uint32_t j = 0; j < b->n_sequences; j++) {
    plan->seq_ptr[j] = n;
    for (uint32_t p = b->seq_ptr[j]; p < b->seq_ptr[j + 1]; p++) {
      bool drop = augment && p > b->seq_ptr[j] &&
                  m2se_random_unit(config->seed, step, M2SE_RANDOM_SEQUENCE_DROPOUT, p) < rho;
      if (drop) {
        continue;
      }
      plan->item[n] = b->seq_items[p];
      plan->pos_target[n] = target_of(b, config, j, p);
      plan->in_sequence[n] = n - plan->seq_ptr[j];
      plan->swap[n] =
          augment ? m2se_random_unit(config->seed, step, M2SE_RANDOM_MIXUP, p) < mix : swap && swap[p];
      n++;
    }
    plan->pos_target[n - 1] = (int32_t)b->target[j];
    plan->target[j] = b->target[j];
  }
  plan->seq_ptr[b->n_sequences] = n;
  plan->n_positions = n;
}

static void cut_tiles(struct m2se_plan *plan) {
  uint32_t size = (plan->n_positions + M2SE_SHARDS - 1) / M2SE_SHARDS;
  size = size > M2SE_TILE_POSITIONS ? M2SE_TILE_POSITIONS : size;
  uint32_t tiles = 0;
  plan->tiles[0] = 0;
  for (uint32_t j = 0; j < plan->n_sequences; j++) {
    if (plan->seq_ptr[j + 1] - plan->seq_ptr[plan->tiles[tiles]] >= size || j + 1 == plan->n_sequences) {
      plan->tiles[++tiles] = j + 1;
    }
  }
  plan->n_tiles = tiles;
  for (uint32_t s = 0; s <= M2SE_SHARDS; s++) {
    plan->shard_tile[s] = (uint32_t)((uint64_t)tiles * s / M2SE_SHARDS);
  }
}

static void list_anchors(struct m2se_plan *plan) {
  uint32_t anchors = 0;
  for (uint32_t i = 0; i < plan->n_items; i++) {
    plan->candidate_of[i] = -1;
  }
  plan->n_candidates = 0;
  for (uint32_t t = 0; t < plan->n_tiles; t++) {
    uint32_t first = anchors, p0 = m2se_tile_begin(plan, t), p1 = m2se_tile_begin(plan, t + 1);
    plan->tile_anchor[t] = first;
    for (uint32_t j = plan->tiles[t]; j < plan->tiles[t + 1]; j++) {
      for (uint32_t p = plan->seq_ptr[j]; p < plan->seq_ptr[j + 1]; p++) {
        if (plan->pos_target[p] < 0) {
          continue;
        }
        int32_t *candidate = &plan->candidate_of[plan->pos_target[p]];
        if (*candidate < 0) {
          *candidate = (int32_t)plan->n_candidates++;
          plan->candidate[*candidate] = (uint32_t)plan->pos_target[p];
          plan->candidate_count[*candidate] = 0;
        }
        plan->candidate_count[*candidate]++;
        plan->anchor[anchors++] = p;
      }
      plan->last_anchor[j] = anchors - 1;
    }
    for (uint32_t a = first; a < anchors; a++) {
      plan->anchor_text[a] = first + a;
      plan->anchor_image[a] = anchors + a;
      plan->anchor_row[first + a] = p0 + plan->anchor[a];
      plan->anchor_row[anchors + a] = p1 + plan->anchor[a];
    }
  }
  plan->tile_anchor[plan->n_tiles] = anchors;
  plan->n_anchors = anchors;
}

/* Which rows an item's two states went into, so that their gradients are added item by item, in row order. */
static void list_uses(struct m2se_plan *plan) {
  memset(plan->cursor, 0, plan->n_items * sizeof *plan->cursor);
  for (uint32_t p = 0; p < plan->n_positions; p++) {
    plan->cursor[plan->item[p]] += 2;
  }
  plan->use_ptr[0] = 0;
  for (uint32_t i = 0; i < plan->n_items; i++) {
    plan->use_ptr[i + 1] = plan->use_ptr[i] + plan->cursor[i];
    plan->cursor[i] = plan->use_ptr[i];
  }
  for (uint32_t t = 0; t < plan->n_tiles; t++) {
    uint32_t p0 = m2se_tile_begin(plan, t), p1 = m2se_tile_begin(plan, t + 1);
    for (uint32_t p = p0; p < p1; p++) {
      uint32_t *at = &plan->cursor[plan->item[p]];
      plan->use_row[(*at)++] = (p0 + p) << 1 | plan->swap[p];
      plan->use_row[(*at)++] = (p1 + p) << 1 | !plan->swap[p];
    }
  }
}

void m2se_plan_make(struct m2se_plan *plan, const struct m2se_batch *batch, const struct m2se_config *config,
                    uint64_t step, bool augment, const uint8_t *swap) {
  plan->n_items = batch->n_items;
  plan->n_sequences = batch->n_sequences;
  keep_positions(plan, batch, config, step, augment, swap);
  cut_tiles(plan);
  list_anchors(plan);
  list_uses(plan);
}
