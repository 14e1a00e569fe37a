/* The tensors of the model: one list, and where each stands in one flat array.
 *
 * DESIGN. Parameters, gradients and Adam's two moments are arrays of the same layout. The list below is the
 * only place that names a tensor; files, initialisation and tests loop over it. Tensors that enter one
 * product stand side by side: a modality's experts and gate, a layer's query, key and value, the two
 * projections.
 */
#ifndef M2SE_PARAMS_H
#define M2SE_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/m2se.h"

enum { M2SE_LAYERS_MAX = 12, M2SE_PARAMETERS_MAX = 2 * 9 + 3 + 16 * M2SE_LAYERS_MAX + 4 };

enum m2se_init { M2SE_INIT_NORMAL, M2SE_INIT_ZERO, M2SE_INIT_ONE };

struct m2se_parameter {
  char name[48];
  uint32_t rank;
  uint64_t shape[3];
  size_t offset, count; /* in elements */
  enum m2se_init init;
};

struct m2se_tensor_list {
  uint32_t count;
  size_t elements;       /* of all */
  size_t sequence_start; /* from here on: position, layers, projections (what sequence shards accumulate) */
  struct m2se_parameter tensors[M2SE_PARAMETERS_MAX];
};

/* Views into one flat array. */
struct m2se_modality_params {
  m2se_real *pool_w1, *pool_w1_bias, *pool_w2, *pool_w2_bias; /* [da,d] [da] [da] [1] */
  m2se_real *experts, *gate;                                  /* [O,h,d] and, right behind, [O,d] */
  m2se_real *experts_bias, *norms_weight, *norms_bias;        /* [O,h] each */
};
struct m2se_layer_params {
  m2se_real *query, *key, *value;                /* [h,h], side by side */
  m2se_real *query_bias, *key_bias, *value_bias; /* [h], side by side */
  m2se_real *output, *output_bias, *attention_norm_weight, *attention_norm_bias;
  m2se_real *up, *up_bias, *down, *down_bias, *ffn_norm_weight, *ffn_norm_bias;
};
struct m2se_params {
  m2se_real *flat;
  struct m2se_modality_params modality[2]; /* text, image */
  m2se_real *position, *embed_norm_weight, *embed_norm_bias;
  struct m2se_layer_params layer[M2SE_LAYERS_MAX];
  m2se_real *project_text, *project_image;           /* [h,h], side by side */
  m2se_real *project_text_bias, *project_image_bias; /* [h], side by side */
};

void m2se_tensor_list_make(struct m2se_tensor_list *list, const struct m2se_config *config);
/* Views into `flat` (list->elements long). */
void m2se_params_view(struct m2se_params *params, const struct m2se_tensor_list *list, m2se_real *flat);
/* First weights, model/README.md "Start". */
void m2se_params_init(const struct m2se_tensor_list *list, m2se_real *flat, uint64_t seed);

#endif
