#include "model/network/sequence.h"

#include <string.h>

#include "model/network/blas_door.h"

static const m2se_real LAYER_NORM_EPS = (m2se_real)1e-12;

uint32_t m2se_tile_rows_max(const struct m2se_config *config) {
  return 2 * (M2SE_TILE_POSITIONS + config->max_len);
}

void m2se_sequences_carve(struct m2se_sequences *w, struct m2se_arena *arena,
                          const struct m2se_config *config, uint32_t positions, bool gradients) {
  size_t rows = 2 * (size_t)positions, h = config->h;
  M2SE_TAKE(arena, w->xhat0, rows * h);
  M2SE_TAKE(arena, w->rstd0, rows);
  for (uint32_t l = 0; l < config->layers; l++) {
    struct m2se_layer_work *layer = &w->layer[l];
    M2SE_TAKE(arena, layer->x, rows * h);
    M2SE_TAKE(arena, layer->q, l + 1 == config->layers ? rows * h : 0);
    M2SE_TAKE(arena, layer->qkv, rows * 3 * h);
    M2SE_TAKE(arena, layer->lse, rows * config->heads);
    M2SE_TAKE(arena, layer->context, rows * h);
    M2SE_TAKE(arena, layer->xhat1, rows * h);
    M2SE_TAKE(arena, layer->rstd1, rows);
    M2SE_TAKE(arena, layer->mid, rows * h);
    M2SE_TAKE(arena, layer->u, rows * config->ffn);
    M2SE_TAKE(arena, layer->xhat2, rows * h);
    M2SE_TAKE(arena, layer->rstd2, rows);
  }
  M2SE_TAKE(arena, w->hidden, rows * h);
  M2SE_TAKE(arena, w->m, rows * 2 * h);
  M2SE_TAKE(arena, w->unit, rows * 2 * h);
  M2SE_TAKE(arena, w->inv, rows * 2);
  if (gradients) {
    M2SE_TAKE(arena, w->dunit, rows * 2 * h);
    M2SE_TAKE(arena, w->dx, rows * h);
  }
}

void m2se_sequence_scratch_carve(struct m2se_sequence_scratch *s, struct m2se_arena *arena,
                                 const struct m2se_config *config) {
  size_t rows = m2se_tile_rows_max(config), h = config->h;
  M2SE_TAKE(arena, s->z, rows);
  M2SE_TAKE(arena, s->position, rows);
  M2SE_TAKE(arena, s->a, rows * config->ffn);
  M2SE_TAKE(arena, s->da, rows * config->ffn);
  M2SE_TAKE(arena, s->y, rows * h);
  M2SE_TAKE(arena, s->dy, rows * h);
  M2SE_TAKE(arena, s->dq, rows * h);
  M2SE_TAKE(arena, s->dqkv, rows * 3 * h);
  M2SE_TAKE(arena, s->dm, rows * 2 * h);
  M2SE_TAKE(arena, s->attention, m2se_attention_scratch(config->max_len, config->h / config->heads));
}

/* Rows and anchor rows of a tile. */
struct extent {
  uint32_t p0, p1, a0, a1;
  size_t row, rows, anchor, anchors; /* first and number */
};

static struct extent extent_of(const struct m2se_plan *plan, uint32_t t) {
  struct extent e = {m2se_tile_begin(plan, t),
                     m2se_tile_begin(plan, t + 1),
                     plan->tile_anchor[t],
                     plan->tile_anchor[t + 1],
                     0,
                     0,
                     0,
                     0};
  e.row = 2 * (size_t)e.p0;
  e.rows = 2 * (size_t)(e.p1 - e.p0);
  e.anchor = 2 * (size_t)e.a0;
  e.anchors = 2 * (size_t)(e.a1 - e.a0);
  return e;
}

/* One layer's rows from the queries on: all rows, or in the last layer the anchors'. ids: their dropout row
 * ids. */
struct queries {
  size_t first, count;
  const uint32_t *ids; /* NULL: first, first + 1, ... */
};

static struct queries queries_of(const struct m2se_sequence_run *run, const struct extent *e, uint32_t l) {
  if (l + 1 < run->config->layers) {
    return (struct queries){e->row, e->rows, NULL};
  }
  return (struct queries){e->anchor, e->anchors, run->plan->anchor_row + e->anchor};
}

/* Calls attention for each sequence of the tile, text then image; backward if dout is not NULL. */
static void attend(const struct m2se_sequence_run *run, const struct extent *e, uint32_t tile, uint32_t l,
                   const m2se_real *dout, struct m2se_sequence_scratch *s) {
  const struct m2se_plan *plan = run->plan;
  const struct m2se_config *config = run->config;
  struct m2se_layer_work *w = &run->work->layer[l];
  size_t h = config->h, heads = config->heads, dh = h / heads, stride = (config->max_len + 15) & ~15u;
  bool last = l + 1 == config->layers;
  const struct m2se_dropout *drop = &run->drop->layer[l].attention;
  for (int image = 0; image < 2; image++) {
    uint32_t a = e->a0;
    for (uint32_t j = plan->tiles[tile]; j < plan->tiles[tile + 1]; j++) {
      uint32_t first = plan->seq_ptr[j], len = plan->seq_ptr[j + 1] - first, queries = len, a_first = a;
      size_t row = (image ? e->p1 : e->p0) + first, query = row;
      uint32_t q_pos[1024];
      if (last) {
        queries = plan->last_anchor[j] + 1 - a_first;
        for (uint32_t k = 0; k < queries; k++) {
          q_pos[k] = plan->in_sequence[plan->anchor[a_first + k]];
        }
        query = (image ? e->a1 : e->a0) + a_first;
        a += queries;
      }
      const uint32_t *ids = last ? plan->anchor_row + query : NULL;
      m2se_real *q = w->qkv + query * 3 * h, *k = w->qkv + row * 3 * h + h, *v = k + h;
      if (!dout) {
        run->kernels->attention_forward(w->context + query * h, h, w->lse + query * heads, q, 3 * h, k, v,
                                        3 * h, last ? q_pos : NULL, queries, len, heads, dh, drop, ids, row,
                                        stride, s->attention);
      } else {
        m2se_real *dq = s->dqkv + (query - (last ? e->anchor : e->row)) * 3 * h;
        m2se_real *dk = s->dqkv + (row - e->row) * 3 * h + h;
        run->kernels->attention_backward(dq, dk, dk + h, dout + (query - (last ? e->anchor : e->row)) * h,
                                         w->context + query * h, h, w->lse + query * heads, q, 3 * h, k, v,
                                         3 * h, last ? q_pos : NULL, queries, len, heads, dh, drop, ids, row,
                                         stride, s->attention);
      }
    }
  }
}

static void layer_forward(const struct m2se_sequence_run *run, const struct extent *e, uint32_t tile,
                          uint32_t l, struct m2se_sequence_scratch *s) {
  const struct m2se_config *config = run->config;
  const struct m2se_kernels *kernels = run->kernels;
  const struct m2se_layer_params *p = &run->params->layer[l];
  struct m2se_layer_work *w = &run->work->layer[l];
  size_t h = config->h, f = config->ffn;
  struct queries q = queries_of(run, e, l);
  const m2se_real *residual = w->x + e->row * h;
  if (l + 1 < config->layers) {
    m2se_gemm_nt(e->rows, 3 * h, h, residual, h, p->query, h, 0, w->qkv + e->row * 3 * h, 3 * h);
    kernels->add_bias(w->qkv + e->row * 3 * h, 3 * h, p->query_bias, e->rows, 3 * h);
  } else {
    for (size_t r = 0; r < q.count; r++) {
      memcpy(w->q + (q.first + r) * h, w->x + q.ids[r] * h, h * sizeof *w->q);
    }
    residual = w->q + q.first * h;
    m2se_gemm_nt(q.count, h, h, residual, h, p->query, h, 0, w->qkv + q.first * 3 * h, 3 * h);
    kernels->add_bias(w->qkv + q.first * 3 * h, 3 * h, p->query_bias, q.count, h);
    m2se_gemm_nt(e->rows, 2 * h, h, w->x + e->row * h, h, p->key, h, 0, w->qkv + e->row * 3 * h + h, 3 * h);
    kernels->add_bias(w->qkv + e->row * 3 * h + h, 3 * h, p->key_bias, e->rows, 2 * h);
  }
  attend(run, e, tile, l, NULL, s);
  size_t at = q.first * h;
  m2se_gemm_nt(q.count, h, h, w->context + at, h, p->output, h, 0, s->y, h);
  kernels->addnorm_forward(w->mid + at, w->xhat1 + at, w->rstd1 + q.first, s->y, p->output_bias, residual,
                           p->attention_norm_weight, p->attention_norm_bias, q.count, h, LAYER_NORM_EPS,
                           &run->drop->layer[l].output, q.ids, q.first);
  m2se_gemm_nt(q.count, f, h, w->mid + at, h, p->up, h, 0, w->u + q.first * f, f);
  kernels->gelu_forward(s->a, w->u + q.first * f, p->up_bias, q.count, f);
  m2se_gemm_nt(q.count, h, f, s->a, f, p->down, f, 0, s->y, h);
  m2se_real *out = l + 1 < config->layers ? run->work->layer[l + 1].x : run->work->hidden;
  kernels->addnorm_forward(out + at, w->xhat2 + at, w->rstd2 + q.first, s->y, p->down_bias, w->mid + at,
                           p->ffn_norm_weight, p->ffn_norm_bias, q.count, h, LAYER_NORM_EPS,
                           &run->drop->layer[l].ffn, q.ids, q.first);
}

void m2se_tile_forward(const struct m2se_sequence_run *run, uint32_t tile, const m2se_real *state,
                       struct m2se_sequence_scratch *s) {
  const struct m2se_plan *plan = run->plan;
  struct m2se_sequences *w = run->work;
  struct extent e = extent_of(plan, tile);
  size_t h = run->config->h;
  for (uint32_t p = e.p0; p < e.p1; p++) {
    const m2se_real *z = state + 2 * (size_t)plan->item[p] * h;
    size_t text = p - e.p0, image = text + (e.p1 - e.p0);
    s->z[text] = plan->swap[p] ? z + h : z;
    s->z[image] = plan->swap[p] ? z : z + h;
    s->position[text] = s->position[image] = plan->in_sequence[p];
  }
  run->kernels->embed_forward(w->layer[0].x + e.row * h, w->xhat0 + e.row * h, w->rstd0 + e.row, s->z,
                              s->position, run->params->position, run->params->embed_norm_weight,
                              run->params->embed_norm_bias, e.rows, h, LAYER_NORM_EPS, &run->drop->embed,
                              e.row);
  for (uint32_t l = 0; l < run->config->layers; l++) {
    layer_forward(run, &e, tile, l, s);
  }
  m2se_real *m = w->m + e.anchor * 2 * h;
  m2se_gemm_nt(e.anchors, 2 * h, h, w->hidden + e.anchor * h, h, run->params->project_text, h, 0, m, 2 * h);
  run->kernels->add_bias(m, 2 * h, run->params->project_text_bias, e.anchors, 2 * h);
  run->kernels->unit_forward(w->unit + e.anchor * 2 * h, h, w->inv + e.anchor * 2, m, h, 2 * e.anchors, h);
}

/* s->dy: in, the gradient of the layer's output (by query); out, that of its input (by row). */
static void layer_backward(const struct m2se_sequence_run *run, const struct extent *e, uint32_t tile,
                           uint32_t l, struct m2se_params *grad, struct m2se_sequence_scratch *s) {
  const struct m2se_config *config = run->config;
  const struct m2se_kernels *kernels = run->kernels;
  const struct m2se_layer_params *p = &run->params->layer[l];
  struct m2se_layer_params *g = &grad->layer[l];
  struct m2se_layer_work *w = &run->work->layer[l];
  size_t h = config->h, f = config->ffn;
  struct queries q = queries_of(run, e, l);
  size_t at = q.first * h;
  bool last = l + 1 == config->layers;
  /* feed-forward */
  kernels->addnorm_backward(s->dy, s->y, g->ffn_norm_weight, g->ffn_norm_bias, g->down_bias, s->dy,
                            w->xhat2 + at, w->rstd2 + q.first, p->ffn_norm_weight, q.count, h,
                            &run->drop->layer[l].ffn, q.ids, q.first);
  m2se_gemm_nn(q.count, f, h, s->y, h, p->down, f, 0, s->da, f);
  m2se_real *a = w->u + q.first * f;
  kernels->gelu_backward(s->da, a, g->up_bias, q.count, f);
  m2se_gemm_tn(h, f, q.count, s->y, h, a, f, 1, g->down, f);
  m2se_gemm_tn(f, h, q.count, s->da, f, w->mid + at, h, 1, g->up, h);
  m2se_gemm_nn(q.count, h, f, s->da, f, p->up, h, 1, s->dy, h);
  /* attention */
  kernels->addnorm_backward(s->dy, s->y, g->attention_norm_weight, g->attention_norm_bias, g->output_bias,
                            s->dy, w->xhat1 + at, w->rstd1 + q.first, p->attention_norm_weight, q.count, h,
                            &run->drop->layer[l].output, q.ids, q.first);
  m2se_gemm_tn(h, h, q.count, s->y, h, w->context + at, h, 1, g->output, h);
  m2se_gemm_nn(q.count, h, h, s->y, h, p->output, h, 0, s->dq, h);
  attend(run, e, tile, l, s->dq, s);
  /* Key biases cancel in the softmax: their gradient stays 0. */
  kernels->column_sum(g->query_bias, s->dqkv, 3 * h, q.count, h);
  kernels->column_sum(g->value_bias, s->dqkv + 2 * h, 3 * h, e->rows, h);
  if (!last) {
    m2se_gemm_tn(3 * h, h, e->rows, s->dqkv, 3 * h, w->x + e->row * h, h, 1, g->query, h);
    m2se_gemm_nn(e->rows, h, 3 * h, s->dqkv, 3 * h, p->query, h, 1, s->dy, h);
    return;
  }
  m2se_gemm_tn(h, h, q.count, s->dqkv, 3 * h, w->q + at, h, 1, g->query, h);
  m2se_gemm_nn(q.count, h, h, s->dqkv, 3 * h, p->query, h, 1, s->dy, h);
  m2se_gemm_tn(2 * h, h, e->rows, s->dqkv + h, 3 * h, w->x + e->row * h, h, 1, g->key, h);
  m2se_gemm_nn(e->rows, h, 2 * h, s->dqkv + h, 3 * h, p->key, h, 0, s->y, h);
  for (size_t r = 0; r < q.count; r++) {
    kernels->add(s->y + (q.ids[r] - e->row) * h, s->dy + r * h, h);
  }
  m2se_real *swap = s->y;
  s->y = s->dy;
  s->dy = swap;
}

void m2se_tile_backward(const struct m2se_sequence_run *run, uint32_t tile, struct m2se_params *grad,
                        struct m2se_sequence_scratch *s) {
  struct m2se_sequences *w = run->work;
  struct extent e = extent_of(run->plan, tile);
  size_t h = run->config->h;
  for (uint32_t p = e.p0; p < e.p1; p++) {
    s->position[p - e.p0] = s->position[p - e.p0 + (e.p1 - e.p0)] = run->plan->in_sequence[p];
  }
  run->kernels->unit_backward(s->dm, h, w->dunit + e.anchor * 2 * h, h, w->unit + e.anchor * 2 * h, h,
                              w->inv + e.anchor * 2, 2 * e.anchors, h);
  run->kernels->column_sum(grad->project_text_bias, s->dm, 2 * h, e.anchors, 2 * h);
  m2se_gemm_tn(2 * h, h, e.anchors, s->dm, 2 * h, w->hidden + e.anchor * h, h, 1, grad->project_text, h);
  m2se_gemm_nn(e.anchors, h, 2 * h, s->dm, 2 * h, run->params->project_text, h, 0, s->dy, h);
  for (uint32_t l = run->config->layers; l-- > 0;) {
    layer_backward(run, &e, tile, l, grad, s);
  }
  run->kernels->embed_backward(s->dy, grad->position, grad->embed_norm_weight, grad->embed_norm_bias,
                               w->xhat0 + e.row * h, w->rstd0 + e.row, s->position,
                               run->params->embed_norm_weight, e.rows, h, &run->drop->embed, e.row);
  memcpy(w->dx + e.row * h, s->dy, e.rows * h * sizeof *s->dy);
}
