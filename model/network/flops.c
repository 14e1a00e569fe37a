/* What a step costs, counted from its shapes: the products that the step really makes, multiply and add as
 * two. Element-wise work is not counted. */
#include "model/network/learner.h"

/* One product forward, two backward (for the input and for the weights). */
static double product(double rows, double in, double out) {
  return 3 * 2 * rows * in * out;
}

static double items_flops(const struct m2se_learner *l) {
  const struct m2se_config *c = &l->config;
  double columns = (double)c->experts * (c->h + 1), sum = 0;
  for (int m = 0; m < 2; m++) {
    const struct m2se_modality_work *w = &l->items.modality[m];
    sum += 2.0 / 3 * product(w->count, c->d, columns); /* forward and the weights' gradient */
    sum += 1.0 / 3 * product(w->rows, c->d, 2);        /* pooling: scores and weighted sum */
    for (uint32_t b = 0; b < m2se_item_blocks(w->count); b++) {
      if (m2se_items_block_pools(w, b)) {
        uint32_t c0 = b * M2SE_ITEM_BLOCK, left = w->count - c0;
        uint32_t c1 = c0 + (left < M2SE_ITEM_BLOCK ? left : M2SE_ITEM_BLOCK);
        sum += 1.0 / 3 * product(c1 - c0, c->d, columns);
        sum += 2.0 / 3 * product(w->row_ptr[c1] - w->row_ptr[c0], c->d, 2);
      }
    }
  }
  return sum;
}

/* Query-key pairs of one modality: under the causal mask a query at place p sees p + 1 keys. */
static double attention_pairs(const struct m2se_plan *plan, bool last_layer) {
  double pairs = 0;
  for (uint32_t p = 0; p < plan->n_positions; p++) {
    if (!last_layer || plan->pos_target[p] >= 0) {
      pairs += plan->in_sequence[p] + 1;
    }
  }
  return pairs;
}

static double sequences_flops(const struct m2se_learner *l) {
  const struct m2se_config *c = &l->config;
  double h = c->h, rows = 2.0 * l->plan.n_positions, anchors = 2.0 * l->plan.n_anchors, sum = 0;
  for (uint32_t k = 0; k < c->layers; k++) {
    bool last = k + 1 == c->layers;
    double queries = last ? anchors : rows;
    sum += product(rows, h, 2 * h) + product(queries, h, h);           /* keys and values; queries */
    sum += product(2 * attention_pairs(&l->plan, last), h, 2);         /* scores and weighted sum */
    sum += product(queries, h, h) + product(queries, h, 2.0 * c->ffn); /* output; feed-forward */
  }
  return sum + product(anchors, h, 2 * h); /* both projections */
}

static double losses_flops(const struct m2se_learner *l) {
  double h = l->config.h, n = l->plan.n_sequences, sum = 0;
  for (int m = 0; m < 2; m++) {
    sum += product(2.0 * l->losses.nip[m].anchors, h, l->losses.nip[m].candidates);
    sum += 2 * n * n * h * 3 + 2 * n * n * h * 4; /* CMCL: ab, aa, bb; and back, aa and bb symmetric */
  }
  return sum;
}

double m2se_learner_flops(const struct m2se_learner *l) {
  return items_flops(l) + sequences_flops(l) + losses_flops(l);
}
