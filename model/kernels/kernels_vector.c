/* A vector table. Compiled once for each instruction set, with
 *   M2SE_LANES        floats in a vector: 8 or 16
 *   M2SE_VECTOR_NAME  the suffix of m2se_kernels_..., and the table's name
 * Everything is in this one translation unit, so that all of it can be inlined and nothing of it can be
 * called on a CPU that lacks the instructions. */
#include "model/kernels/kernels.h"
#include "model/kernels/kernels_scalar.h"
#include "model/kernels/kernels_vector_math.h"

#include "model/kernels/kernels_vector_plain.inc"
#include "model/kernels/kernels_vector_random.inc"
#include "model/kernels/kernels_vector_rows.inc"
/* these use what stands above */
#include "model/kernels/kernels_vector_attention.inc"
#include "model/kernels/kernels_vector_inference.inc"
#include "model/kernels/kernels_vector_losses.inc"
#include "model/kernels/kernels_vector_product.inc"

#define QUOTE_EXPANDED(x) #x
#define QUOTE(x) QUOTE_EXPANDED(x)
#define JOIN_EXPANDED(a, b) a##b
#define JOIN(a, b) JOIN_EXPANDED(a, b)

static const struct m2se_kernels vector_kernels = {
    .name = QUOTE(M2SE_VECTOR_NAME),
    .random_blocks = vector_random_blocks,
    .dropout = vector_dropout,
    .dot = vector_dot,
    .axpy = vector_axpy,
    .add = vector_add,
    .add_bias = vector_add_bias,
    .column_sum = vector_column_sum,
    .sum_squares = vector_sum_squares,
    .pool_forward = vector_pool_forward,
    .pool_backward = vector_pool_backward,
    .experts_forward = vector_experts_forward,
    .experts_backward = vector_experts_backward,
    .addnorm_forward = vector_addnorm_forward,
    .addnorm_backward = vector_addnorm_backward,
    .embed_forward = vector_embed_forward,
    .embed_backward = vector_embed_backward,
    .gelu_forward = vector_gelu_forward,
    .gelu_backward = vector_gelu_backward,
    .attention_forward = vector_attention_forward,
    .attention_backward = vector_attention_backward,
    .unit_forward = vector_unit_forward,
    .unit_backward = vector_unit_backward,
    .nip_panel = 2 * M2SE_LANES,
    .nip_pack = vector_nip_pack,
    .nip_logits = vector_nip_logits,
    .nip_anchors = vector_nip_anchors,
    .nip_candidates = vector_nip_candidates,
    .nip_row = vector_nip_row,
    .cmcl_row_lse = vector_cmcl_row_lse,
    .cmcl_column_lse = vector_cmcl_column_lse,
    .cmcl_grad_row = vector_cmcl_grad_row,
    .norm_infer = vector_norm_infer,
    .gelu_infer = vector_gelu_infer,
    .quick_gelu_infer = vector_quick_gelu_infer,
    .adam = vector_adam,
};

const struct m2se_kernels *JOIN(m2se_kernels_, M2SE_VECTOR_NAME)(void);
const struct m2se_kernels *JOIN(m2se_kernels_, M2SE_VECTOR_NAME)(void) {
  return &vector_kernels;
}
