/* Inside of an immutable copy of the weights, for what serves from it. */
#ifndef M2SE_WEIGHTS_H
#define M2SE_WEIGHTS_H

#include "model/network/params.h"

struct m2se_weights {
  struct m2se_config config;
  struct m2se_tensor_list list;
  struct m2se_params params;
  m2se_real *residual; /* [catalogue, 2h]; NULL: off */
  m2se_real *bias;     /* [catalogue]; NULL: off */
  uint32_t catalogue;
  uint32_t slots; /* rows of both that the last copy filled */
  uint64_t step;
  void *memory;
};

/* The shape only: what the tensors' sizes and the attention heads follow from. */
bool m2se_config_same_shape(const struct m2se_config *a, const struct m2se_config *b);

#endif
