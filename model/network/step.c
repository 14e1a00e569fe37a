/* A step from top to bottom: the phases in their order, each a set of independent tasks, then clip and Adam.
 */
#include <math.h>
#include <string.h>

#include "model/network/learner.h"
#include "model/random.h"

enum { SEGMENT = 16384, WEIGHT_ROWS = 132, CMCL_PHASES = 5 };

struct step {
  struct m2se_learner *l;
  const struct m2se_batch *batch;
  const struct m2se_workers *workers;
  struct m2se_sequence_run sequence;
  struct m2se_loss_run loss;
  int space, phase; /* of CMCL */
  double clip;
};

static void run(struct step *s, void (*task)(void *arg, uint32_t t, uint32_t w), size_t tasks) {
  if (tasks > 0) {
    s->workers->run(s->workers->pool, task, s, (uint32_t)tasks);
  }
}

static struct m2se_dropout dropout_at(const struct m2se_learner *l, uint32_t place, bool training) {
  uint64_t seed = l->config.seed;
  struct m2se_dropout drop = {.stream = {.key = {(uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)l->step,
                                                 (uint32_t)(l->step >> 32)},
                                         .purpose = M2SE_RANDOM_DROPOUT + place}};
  drop.threshold = training ? (uint32_t)lround(l->config.dropout * 65536) : 0;
  drop.scale = (m2se_real)(65536.0 / (65536.0 - drop.threshold));
  return drop;
}

static void set_dropouts(struct m2se_learner *l, bool training) {
  l->drop.experts[0] = dropout_at(l, 0, training);
  l->drop.experts[1] = dropout_at(l, 1, training);
  l->drop.embed = dropout_at(l, 2, training);
  for (uint32_t k = 0; k < l->config.layers; k++) {
    l->drop.layer[k].attention = dropout_at(l, 16 * (k + 1), training);
    l->drop.layer[k].output = dropout_at(l, 16 * (k + 1) + 1, training);
    l->drop.layer[k].ffn = dropout_at(l, 16 * (k + 1) + 2, training);
  }
}

/* The item table's rows that this mini-batch uses; a whole item's residual is left out with the dropout
 * probability. */
static void read_table(struct m2se_learner *l, const struct m2se_batch *batch, bool training) {
  size_t h2 = 2 * (size_t)l->config.h;
  for (uint32_t i = 0; i < batch->n_items; i++) {
    uint32_t slot = batch->items[i].slot;
    bool out =
        training && m2se_random_unit(l->config.seed, l->step, M2SE_RANDOM_RESIDUAL, i) < l->config.dropout;
    l->residual[i] = l->config.item_residual && !out ? l->table.residual + slot * h2 : NULL;
    l->bias[i] = l->config.item_bias ? l->table.bias[slot] : 0;
  }
}

/* Which modality and block task t is of: the text blocks first. */
static int modality_of(const struct m2se_learner *l, uint32_t *t, size_t text_tasks) {
  (void)l;
  if (*t < text_tasks) {
    return 0;
  }
  *t -= (uint32_t)text_tasks;
  return 1;
}

static size_t blocks(const struct step *s, int modality) {
  return m2se_item_blocks(s->l->items.modality[modality].count);
}

static void items_forward(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  struct step *s = arg;
  struct m2se_learner *l = s->l;
  int m = modality_of(l, &t, blocks(s, 0));
  m2se_items_forward(&l->items, s->batch->items, m, t, &l->config, &l->params, l->kernels,
                     &l->drop.experts[m]);
}

static void item_states(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  struct step *s = arg;
  m2se_items_states(&s->l->items, s->batch->n_items, t, &s->l->config, s->l->residual, s->l->kernels);
}

static void tile_forward(void *arg, uint32_t t, uint32_t w) {
  struct step *s = arg;
  m2se_tile_forward(&s->sequence, t, s->l->items.state, &s->l->scratch[w]);
}

/* Both modalities of a shard write different halves of the same rows. */
static void nip_shard(void *arg, uint32_t t, uint32_t w) {
  struct step *s = arg;
  m2se_nip_shard(&s->loss, (int)(t / M2SE_SHARDS), t % M2SE_SHARDS, s->l->nip_scratch[w]);
}

static void cmcl_tile(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  struct step *s = arg;
  switch (s->phase) {
  case 0:
    m2se_cmcl_gather(&s->loss, s->space, t);
    break;
  case 1:
    m2se_cmcl_rows(&s->loss, t);
    break;
  case 2:
    m2se_cmcl_columns(&s->loss, t);
    break;
  case 3:
    m2se_cmcl_gradient(&s->loss, t);
    break;
  default:
    m2se_cmcl_finish(&s->loss, s->space, t);
  }
}

static double cmcl_space(struct step *s, int space) {
  double loss = 0;
  s->space = space;
  for (s->phase = 0; s->phase < CMCL_PHASES; s->phase++) {
    run(s, cmcl_tile, (s->l->plan.n_sequences + M2SE_CMCL_TILE - 1) / M2SE_CMCL_TILE);
    if (s->phase == 2) {
      loss = m2se_cmcl_loss(&s->loss);
    }
  }
  return loss;
}

static void shard_backward(void *arg, uint32_t t, uint32_t w) {
  struct step *s = arg;
  struct m2se_learner *l = s->l;
  size_t tail = l->list.elements - l->list.sequence_start;
  memset(l->shard_grad[t].position, 0, tail * sizeof(m2se_real));
  for (uint32_t tile = l->plan.shard_tile[t]; tile < l->plan.shard_tile[t + 1]; tile++) {
    m2se_tile_backward(&s->sequence, tile, &l->shard_grad[t], &l->scratch[w]);
  }
}

/* What came to an item's two states: as a candidate, and from the rows it went into. */
static void gather_items(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  struct step *s = arg;
  struct m2se_learner *l = s->l;
  size_t h = l->config.h;
  uint32_t end =
      (t + 1) * M2SE_ITEM_BLOCK < s->batch->n_items ? (t + 1) * M2SE_ITEM_BLOCK : s->batch->n_items;
  for (uint32_t i = t * M2SE_ITEM_BLOCK; i < end; i++) {
    m2se_real *d = l->items.dstate + 2 * i * h;
    memset(d, 0, 2 * h * sizeof *d);
    l->dbias[i] = 0;
    if (l->plan.candidate_of[i] >= 0) {
      for (int m = 0; m < 2; m++) {
        l->dbias[i] += m2se_nip_candidate(&s->loss, m, (uint32_t)l->plan.candidate_of[i], d + (size_t)m * h);
      }
      l->kernels->unit_backward(d, h, d, h, l->items.unit + 2 * i * h, h, l->items.inv + 2 * (size_t)i, 2, h);
    }
    for (uint32_t u = l->plan.use_ptr[i]; u < l->plan.use_ptr[i + 1]; u++) {
      uint32_t use = l->plan.use_row[u];
      l->kernels->add(d + (use & 1) * h, l->sequences.dx + (use >> 1) * h, h);
    }
    if (l->residual[i]) {
      memcpy(l->dresidual + 2 * i * h, d, 2 * h * sizeof *d);
    } else {
      memset(l->dresidual + 2 * i * h, 0, 2 * h * sizeof *d);
    }
  }
  m2se_items_distribute(&l->items, s->batch->n_items, t, &l->config);
}

static void items_backward(void *arg, uint32_t t, uint32_t w) {
  struct step *s = arg;
  struct m2se_learner *l = s->l;
  int m = modality_of(l, &t, blocks(s, 0));
  m2se_items_backward(&l->items, s->batch->items, m, t, &l->config, &l->params, l->kernels,
                      &l->drop.experts[m], l->row_scratch[w]);
}

static size_t weight_tasks(const struct step *s) {
  size_t rows = (size_t)s->l->config.experts * (s->l->config.h + 1);
  return (rows + WEIGHT_ROWS - 1) / WEIGHT_ROWS;
}

static void item_weights(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  struct step *s = arg;
  struct m2se_learner *l = s->l;
  int m = modality_of(l, &t, weight_tasks(s));
  uint32_t rows = l->config.experts * (l->config.h + 1), first = t * WEIGHT_ROWS;
  m2se_items_weights(&l->items, m, first, first + WEIGHT_ROWS < rows ? first + WEIGHT_ROWS : rows, &l->config,
                     &l->grad);
}

static void item_sums(void *arg, uint32_t t, uint32_t w) {
  struct step *s = arg;
  struct m2se_learner *l = s->l;
  m2se_items_sums(&l->items, (int)t, &l->config, &l->params, &l->grad, l->kernels, l->row_scratch[w]);
}

static size_t segments(size_t n) {
  return (n + SEGMENT - 1) / SEGMENT;
}

static size_t segment_size(size_t n, uint32_t t) {
  size_t begin = (size_t)t * SEGMENT;
  return n - begin < SEGMENT ? n - begin : SEGMENT;
}

static void reduce_shards(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  struct m2se_learner *l = ((struct step *)arg)->l;
  size_t at = (size_t)t * SEGMENT, n = segment_size(l->list.elements - l->list.sequence_start, t);
  memcpy(l->grad.position + at, l->shard_grad[0].position + at, n * sizeof(m2se_real));
  for (uint32_t s = 1; s < M2SE_SHARDS; s++) {
    l->kernels->add(l->grad.position + at, l->shard_grad[s].position + at, n);
  }
}

void m2se_learner_backpropagate(struct m2se_learner *l, const struct m2se_batch *batch, const uint8_t *swap,
                                bool training, const struct m2se_workers *workers,
                                struct m2se_losses *losses) {
  struct step s = {.l = l, .batch = batch, .workers = workers};
  s.sequence =
      (struct m2se_sequence_run){&l->config, l->kernels, &l->plan, &l->params, &l->drop, &l->sequences};
  s.loss = (struct m2se_loss_run){&l->config, l->kernels, &l->plan, &l->items, &l->sequences, &l->losses};
  m2se_plan_make(&l->plan, batch, &l->config, l->step, training, swap);
  set_dropouts(l, training);
  read_table(l, batch, training);
  m2se_items_begin(&l->items, batch->items, batch->n_items, &l->config, &l->params, l->kernels);
  run(&s, items_forward, blocks(&s, 0) + blocks(&s, 1));
  run(&s, item_states, m2se_item_blocks(batch->n_items));
  run(&s, tile_forward, l->plan.n_tiles);
  memset(l->sequences.dunit, 0, 4 * (size_t)l->plan.n_anchors * l->config.h * sizeof(m2se_real));
  for (int m = 0; m < 2; m++) {
    m2se_nip_begin(&s.loss, m, l->bias, batch->log_q);
  }
  run(&s, nip_shard, 2 * M2SE_SHARDS);
  losses->nip_text = m2se_nip_loss(&s.loss, 0);
  losses->nip_image = m2se_nip_loss(&s.loss, 1);
  losses->over_guess = m2se_nip_over_guess(&s.loss);
  losses->cmcl_text = cmcl_space(&s, 0);
  losses->cmcl_image = cmcl_space(&s, 1);
  losses->total =
      losses->nip_text + losses->nip_image + l->config.lambda * (losses->cmcl_text + losses->cmcl_image);
  run(&s, shard_backward, M2SE_SHARDS);
  run(&s, gather_items, m2se_item_blocks(batch->n_items));
  run(&s, items_backward, blocks(&s, 0) + blocks(&s, 1));
  run(&s, item_weights, 2 * weight_tasks(&s));
  run(&s, item_sums, 2);
  run(&s, reduce_shards, segments(l->list.elements - l->list.sequence_start));
}

static void square_segment(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  struct m2se_learner *l = ((struct step *)arg)->l;
  l->squares[t] =
      l->kernels->sum_squares(l->grad.flat + (size_t)t * SEGMENT, segment_size(l->list.elements, t));
}

static void adam_segment(void *arg, uint32_t t, uint32_t w) {
  (void)w;
  struct step *s = arg;
  struct m2se_learner *l = s->l;
  const struct m2se_config *c = &l->config;
  size_t at = (size_t)t * SEGMENT;
  double n = (double)l->step + 1;
  l->kernels->adam(l->params.flat + at, l->adam_m + at, l->adam_v + at, l->grad.flat + at,
                   segment_size(l->list.elements, t), (m2se_real)s->clip, (m2se_real)c->learning_rate,
                   (m2se_real)c->beta1, (m2se_real)c->beta2, (m2se_real)(1 - pow(c->beta1, n)),
                   (m2se_real)(1 - pow(c->beta2, n)), (m2se_real)c->epsilon);
}

/* Sparse Adam: only the rows of this mini-batch's items move, each with its own count of updates. */
static void adam_table(struct step *s) {
  struct m2se_learner *l = s->l;
  const struct m2se_config *c = &l->config;
  size_t h2 = 2 * (size_t)c->h;
  for (uint32_t i = 0; i < s->batch->n_items && (c->item_residual || c->item_bias); i++) {
    size_t slot = s->batch->items[i].slot;
    double n = ++l->table.touched[slot];
    m2se_real c1 = (m2se_real)(1 - pow(c->beta1, n)), c2 = (m2se_real)(1 - pow(c->beta2, n));
    if (c->item_residual) {
      l->kernels->adam(l->table.residual + slot * h2, l->table.residual_m + slot * h2,
                       l->table.residual_v + slot * h2, l->dresidual + i * h2, h2, (m2se_real)s->clip,
                       (m2se_real)c->residual_learning_rate, (m2se_real)c->beta1, (m2se_real)c->beta2, c1, c2,
                       (m2se_real)c->epsilon);
    }
    if (c->item_bias) {
      l->kernels->adam(l->table.bias + slot, l->table.bias_m + slot, l->table.bias_v + slot, l->dbias + i, 1,
                       (m2se_real)s->clip, (m2se_real)c->bias_learning_rate, (m2se_real)c->beta1,
                       (m2se_real)c->beta2, c1, c2, (m2se_real)c->epsilon);
    }
  }
}

static double gradient_norm(struct step *s) {
  struct m2se_learner *l = s->l;
  size_t n = segments(l->list.elements);
  run(s, square_segment, n);
  double sum = 0;
  for (size_t t = 0; t < n; t++) {
    sum += l->squares[t];
  }
  if (l->config.item_residual) {
    sum += l->kernels->sum_squares(l->dresidual, s->batch->n_items * 2 * (size_t)l->config.h);
  }
  if (l->config.item_bias) {
    sum += l->kernels->sum_squares(l->dbias, s->batch->n_items);
  }
  return sqrt(sum);
}

static enum m2se_left_out judge(const struct m2se_config *c, const struct m2se_step_result *result,
                                double gradient_norm_max) {
  if (!isfinite(result->losses.total) || !isfinite(result->gradient_norm)) {
    return M2SE_LEFT_OUT_NOT_FINITE;
  }
  if (c->loss_max > 0 && result->losses.total > c->loss_max) {
    return M2SE_LEFT_OUT_LOSS;
  }
  return gradient_norm_max > 0 && result->gradient_norm > gradient_norm_max ? M2SE_LEFT_OUT_GRADIENT
                                                                            : M2SE_LEFT_OUT_NOT;
}

int m2se_learner_step(struct m2se_learner *l, const struct m2se_batch *batch,
                      const struct m2se_workers *workers, double gradient_norm_max,
                      struct m2se_step_result *result, struct m2se_error *error) {
  int code = m2se_batch_check(batch, &l->config, &l->limits, error);
  if (code < 0) {
    return code;
  }
  memset(result, 0, sizeof *result);
  m2se_learner_backpropagate(l, batch, NULL, true, workers, &result->losses);
  struct step s = {.l = l, .batch = batch, .workers = workers, .clip = 1};
  result->gradient_norm = gradient_norm(&s);
  result->positions = l->plan.n_positions;
  result->anchors = l->plan.n_anchors;
  result->flops = m2se_learner_flops(l);
  result->left_out = judge(&l->config, result, gradient_norm_max);
  result->applied = result->left_out == M2SE_LEFT_OUT_NOT;
  if (result->applied) {
    if (l->config.clip_norm > 0 && result->gradient_norm > l->config.clip_norm) {
      s.clip = l->config.clip_norm / result->gradient_norm;
    }
    run(&s, adam_segment, segments(l->list.elements));
    adam_table(&s);
  }
  l->step++;
  return 0;
}
