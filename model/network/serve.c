/* Serving with the step's own forward code: items in blocks, users in tiles, each as large as a block or tile
 * of a step, so that what a server holds does not depend on how many are asked for. */
#include "model/m2se_serve.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/network/items.h"
#include "model/network/sequence.h"
#include "model/network/weights.h"

enum { TILE_USERS = M2SE_TILE_POSITIONS }; /* each has a position at least */

struct m2se_server {
  struct m2se_config config;
  const struct m2se_kernels *kernels;
  bool bias_component;
  struct m2se_items items;
  const m2se_real *residual[M2SE_ITEM_BLOCK];
  struct m2se_plan plan; /* of one tile; only what the forward pass reads */
  struct m2se_sequences sequences;
  struct m2se_sequence_scratch scratch;
  struct m2se_dropouts drop; /* none */
  void *memory;
};

/* The longest tile: the sequence that fills it may be as long as any. */
static uint32_t tile_positions_max(const struct m2se_config *config) {
  return M2SE_TILE_POSITIONS + config->max_len;
}

static void carve_plan(struct m2se_plan *plan, struct m2se_arena *arena, uint32_t positions) {
  M2SE_TAKE(arena, plan->seq_ptr, TILE_USERS + 1);
  M2SE_TAKE(arena, plan->item, positions);
  M2SE_TAKE(arena, plan->swap, positions);
  M2SE_TAKE(arena, plan->in_sequence, positions);
  M2SE_TAKE(arena, plan->tiles, 2);
  M2SE_TAKE(arena, plan->tile_anchor, 2);
  M2SE_TAKE(arena, plan->anchor, TILE_USERS);
  M2SE_TAKE(arena, plan->anchor_row, 2 * TILE_USERS);
  M2SE_TAKE(arena, plan->last_anchor, TILE_USERS);
}

static void carve(struct m2se_server *s, struct m2se_arena *arena) {
  uint32_t positions = tile_positions_max(&s->config);
  m2se_items_carve(&s->items, arena, &s->config, M2SE_ITEM_BLOCK, M2SE_SERVER_ROWS_MAX, false);
  carve_plan(&s->plan, arena, positions);
  m2se_sequences_carve(&s->sequences, arena, &s->config, positions, false);
  m2se_sequence_scratch_carve(&s->scratch, arena, &s->config);
}

static const struct m2se_dropout no_dropout = {.threshold = 0, .scale = 1};

int m2se_server_new(struct m2se_server **server, const struct m2se_config *config, bool bias_component,
                    struct m2se_error *error) {
  *server = NULL;
  int code = m2se_config_check(config, error);
  if (code < 0) {
    return code;
  }
  struct m2se_server *s = calloc(1, sizeof *s);
  if (!s) {
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a server");
  }
  s->config = *config;
  s->kernels = m2se_kernels_best();
  s->bias_component = bias_component;
  s->drop.experts[0] = s->drop.experts[1] = s->drop.embed = no_dropout;
  for (uint32_t l = 0; l < config->layers; l++) {
    s->drop.layer[l].attention = s->drop.layer[l].output = s->drop.layer[l].ffn = no_dropout;
  }
  struct m2se_arena arena = {NULL, 0};
  carve(s, &arena);
  s->memory = aligned_alloc(64, arena.used);
  if (!s->memory) {
    free(s);
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a server of %zu bytes", arena.used);
  }
  memset(s->memory, 0, arena.used); /* swap stays 0; and no page is first touched while serving */
  arena = (struct m2se_arena){s->memory, 0};
  carve(s, &arena);
  *server = s;
  return 0;
}

void m2se_server_free(struct m2se_server *s) {
  if (s) {
    free(s->memory);
    free(s);
  }
}

uint32_t m2se_server_dim(const struct m2se_server *s) {
  return 2 * s->config.h + s->bias_component;
}

/* How many of the n items from `items` on make one block. */
static uint32_t block_length(const struct m2se_item_input *items, size_t n) {
  uint32_t count = 0;
  uint64_t text = 0, image = 0;
  while (count < n && count < M2SE_ITEM_BLOCK) {
    text += items[count].text.count;
    image += items[count].image.count;
    if (text > M2SE_SERVER_ROWS_MAX || image > M2SE_SERVER_ROWS_MAX) {
      break;
    }
    count++;
  }
  assert(count > 0); /* else one item alone has more than M2SE_SERVER_ROWS_MAX */
  return count;
}

/* A slot that the copy does not have yet belongs to an item that no step has seen: residual and bias 0. */
static void encode_block(struct m2se_server *s, const struct m2se_weights *w,
                         const struct m2se_item_input *items, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    bool known = w->residual && items[i].slot < w->slots;
    s->residual[i] = known ? w->residual + (size_t)items[i].slot * 2 * s->config.h : NULL;
  }
  m2se_items_begin(&s->items, items, n, &s->config, &w->params, s->kernels);
  for (int m = 0; m < 2; m++) {
    if (s->items.modality[m].count > 0) {
      m2se_items_forward(&s->items, items, m, 0, &s->config, &w->params, s->kernels, &s->drop.experts[m]);
    }
  }
  m2se_items_states(&s->items, n, 0, &s->config, s->residual, s->kernels);
}

void m2se_server_items(struct m2se_server *s, const struct m2se_weights *w,
                       const struct m2se_item_input *items, size_t n, const float *count_term, float *states,
                       float *vectors) {
  assert(m2se_config_same_shape(&s->config, &w->config));
  size_t h2 = 2 * (size_t)s->config.h, dim = m2se_server_dim(s);
  for (size_t done = 0; done < n;) {
    uint32_t count = block_length(items + done, n - done);
    encode_block(s, w, items + done, count);
    memcpy(states + done * h2, s->items.state, count * h2 * sizeof *states);
    for (uint32_t i = 0; i < count; i++) {
      const struct m2se_item_input *item = &items[done + i];
      float *vector = vectors + (done + i) * dim;
      memcpy(vector, s->items.unit + i * h2, h2 * sizeof *vector);
      if (s->bias_component) {
        bool empty = item->text.count == 0 && item->image.count == 0;
        float bias = w->bias && item->slot < w->slots ? w->bias[item->slot] : 0;
        float term = count_term ? count_term[done + i] : 0;
        vector[h2] = empty ? 0 : 2 * (float)s->config.tau * bias + term;
      }
    }
    done += count;
  }
}

/* Puts whole sequences, their newest L positions, into the plan's tile until it is full; returns how many. */
static uint32_t plan_tile(struct m2se_server *s, const uint32_t *seq_ptr, const uint32_t *seq_items,
                          size_t n) {
  struct m2se_plan *plan = &s->plan;
  uint32_t users = 0, positions = 0;
  plan->seq_ptr[0] = 0;
  for (; users < n && positions < M2SE_TILE_POSITIONS; users++) {
    uint32_t begin = seq_ptr[users], end = seq_ptr[users + 1];
    assert(begin < end);
    begin = end - begin > s->config.max_len ? end - s->config.max_len : begin;
    for (uint32_t p = begin; p < end; p++, positions++) {
      plan->item[positions] = seq_items[p];
      plan->in_sequence[positions] = p - begin;
    }
    plan->seq_ptr[users + 1] = positions;
    plan->anchor[users] = positions - 1;
    plan->last_anchor[users] = users;
  }
  for (uint32_t j = 0; j < users; j++) {
    plan->anchor_row[j] = plan->anchor[j];
    plan->anchor_row[users + j] = positions + plan->anchor[j];
  }
  plan->tiles[1] = plan->tile_anchor[1] = users;
  return users;
}

void m2se_server_users(struct m2se_server *s, const struct m2se_weights *w, const float *states,
                       const uint32_t *seq_ptr, const uint32_t *seq_items, size_t n, float *vectors) {
  assert(m2se_config_same_shape(&s->config, &w->config));
  struct m2se_sequence_run run = {&s->config, s->kernels, &s->plan, &w->params, &s->drop, &s->sequences};
  size_t h = s->config.h, dim = m2se_server_dim(s);
  for (size_t done = 0; done < n;) {
    uint32_t users = plan_tile(s, seq_ptr + done, seq_items, n - done);
    m2se_tile_forward(&run, 0, states, &s->scratch);
    for (uint32_t j = 0; j < users; j++) {
      float *vector = vectors + (done + j) * dim;
      memcpy(vector, s->sequences.unit + j * 2 * h, h * sizeof *vector);
      memcpy(vector + h, s->sequences.unit + (users + j) * 2 * h + h, h * sizeof *vector);
      if (s->bias_component) {
        vector[2 * h] = 1;
      }
    }
    done += users;
  }
}
