/* Inside of a learner, for the files of network/ that make up a step and for those that save it. */
#ifndef M2SE_LEARNER_H
#define M2SE_LEARNER_H

#include "model/network/losses.h"

/* What is learned per item of the catalogue; rows are touched only by mini-batches with their item. */
struct m2se_item_table {
  m2se_real *residual, *residual_m, *residual_v; /* [catalogue, 2h] */
  m2se_real *bias, *bias_m, *bias_v;             /* [catalogue] */
  uint32_t *touched; /* [catalogue]: updates so far, Adam's own step count of the row */
};

/* Residuals and biases that are off take nothing. */
void m2se_item_table_carve(struct m2se_item_table *table, struct m2se_arena *arena,
                           const struct m2se_config *config, size_t catalogue);

struct m2se_learner {
  struct m2se_config config;
  struct m2se_limits limits;
  const struct m2se_kernels *kernels;
  struct m2se_tensor_list list;
  struct m2se_params params, grad;
  struct m2se_params shard_grad[M2SE_SHARDS]; /* only from list.sequence_start on */
  m2se_real *adam_m, *adam_v;
  struct m2se_item_table table;
  uint64_t step;
  size_t bytes;
  void *memory;

  struct m2se_plan plan;
  struct m2se_items items;
  struct m2se_sequences sequences;
  struct m2se_losses_work losses;
  struct m2se_dropouts drop;
  struct m2se_sequence_scratch *scratch;  /* [workers] */
  m2se_real **nip_scratch, **row_scratch; /* [workers] */
  const m2se_real **residual;             /* [items]: row of the table, or NULL when left out */
  m2se_real *bias, *dbias;                /* [items] */
  m2se_real *dresidual;                   /* [items, 2h] */
  double *squares;                        /* partial sums of squares */
};

/* Forward and backward: losses and all gradients. The batch has been checked. training: augmentation,
 * dropout. */
void m2se_learner_backpropagate(struct m2se_learner *learner, const struct m2se_batch *batch,
                                const uint8_t *swap, bool training, const struct m2se_workers *workers,
                                struct m2se_losses *losses);

/* Of the matrix products of the step just made (flops.c). */
double m2se_learner_flops(const struct m2se_learner *learner);

#endif
