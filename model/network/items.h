/* Items of a mini-batch: rows -> pooled vector -> mixture of experts -> states z^t, z^v and their unit
 * vectors; and back.
 *
 * DESIGN. The items that have rows of a modality are numbered densely (compact index c), so that no product
 * computes an absent one. Phases, each a set of independent tasks over blocks of ITEM_BLOCK: forward   block
 * of one modality: pooling, one product with experts and gate, experts -> z states    block of items:
 * missing-modality rule, residual, unit vectors gather    block of items: gradients of the states from the
 * rows they went into -> dz of each modality, residuals backward  block of one modality: experts, product,
 * pooling; sums over a block's rows go to the block's own array weights   rows of the experts' and gate's
 * weights: their gradient over all items in one product Equations: model/README.md, Items.
 */
#ifndef M2SE_ITEMS_H
#define M2SE_ITEMS_H

#include "model/kernels/kernels.h"
#include "model/network/params.h"
#include "model/network/plan.h"

enum { M2SE_ITEM_BLOCK = 192 };

struct m2se_modality_work {
  uint32_t count, rows;  /* items with rows, and those rows */
  uint32_t *item;        /* [count]: compact -> item */
  int32_t *compact;      /* [n_items]: item -> compact or -1 */
  uint32_t *row_ptr;     /* [count + 1]: into alpha */
  m2se_real *w;          /* [d]: W1 W2, the collapsed pooling */
  m2se_real *alpha;      /* [rows] */
  m2se_real *e;          /* [count, d] */
  m2se_real *y;          /* [count, O h + O]: xhat and gate; backward: dY */
  m2se_real *rstd;       /* [count, O] */
  m2se_real *z, *dz;     /* [count, h] */
  m2se_real *block_sums; /* [blocks, 3 O h + d]: dbias, dgamma, dbeta of the experts, dw of the pooling */
};

struct m2se_items {
  struct m2se_modality_work modality[2];
  m2se_real *state, *unit, *dstate; /* [n_items, 2h] */
  m2se_real *inv;                   /* [n_items, 2] */
};

static inline size_t m2se_item_blocks(uint32_t count) {
  return (count + M2SE_ITEM_BLOCK - 1) / M2SE_ITEM_BLOCK;
}

void m2se_items_carve(struct m2se_items *items, struct m2se_arena *arena, const struct m2se_config *config,
                      uint32_t items_max, uint32_t rows_max, bool gradients);

/* Numbers the items of each modality and collapses the poolings. One thread, before the tasks. */
void m2se_items_begin(struct m2se_items *items, const struct m2se_item_input *input, uint32_t n,
                      const struct m2se_config *config, const struct m2se_params *params,
                      const struct m2se_kernels *kernels);
/* drop[2]: of the experts, per modality; NULL: none. */
void m2se_items_forward(struct m2se_items *items, const struct m2se_item_input *input, int modality,
                        uint32_t block, const struct m2se_config *config, const struct m2se_params *params,
                        const struct m2se_kernels *kernels, const struct m2se_dropout *drop);
/* residual [n, 2h] rows by item (NULL entries: none). */
void m2se_items_states(struct m2se_items *items, uint32_t n, uint32_t block, const struct m2se_config *config,
                       const m2se_real *const *residual, const struct m2se_kernels *kernels);
/* dstate -> dz of the modalities that the item has (a missing one passes its gradient on). */
void m2se_items_distribute(struct m2se_items *items, uint32_t n, uint32_t block,
                           const struct m2se_config *config);
/* Whether an item of the block has several rows. A softmax over one row is 1 whatever the scores are: then
 * nothing flows back to the pooling, and backward leaves the gradient of e out. */
bool m2se_items_block_pools(const struct m2se_modality_work *w, uint32_t block);
/* scratch: [ITEM_BLOCK, d]. */
void m2se_items_backward(struct m2se_items *items, const struct m2se_item_input *input, int modality,
                         uint32_t block, const struct m2se_config *config, const struct m2se_params *params,
                         const struct m2se_kernels *kernels, const struct m2se_dropout *drop,
                         m2se_real *scratch);
/* Rows first..last-1 of [experts; gate]: gradient of the weights, written to grad's view. */
void m2se_items_weights(const struct m2se_items *items, int modality, uint32_t first, uint32_t last,
                        const struct m2se_config *config, struct m2se_params *grad);
/* The block sums, in block order, into grad's biases, norms and pooling. */
void m2se_items_sums(const struct m2se_items *items, int modality, const struct m2se_config *config,
                     const struct m2se_params *params, struct m2se_params *grad,
                     const struct m2se_kernels *kernels, m2se_real *scratch);

#endif
