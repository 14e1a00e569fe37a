/* The scalar table. */
#include "model/kernels/kernels_scalar.h"

static const struct m2se_kernels scalar_kernels = {
    .name = "scalar",
    .random_blocks = m2se_scalar_random_blocks,
    .dropout = m2se_scalar_dropout,
    .dot = m2se_scalar_dot,
    .axpy = m2se_scalar_axpy,
    .add = m2se_scalar_add,
    .add_bias = m2se_scalar_add_bias,
    .column_sum = m2se_scalar_column_sum,
    .sum_squares = m2se_scalar_sum_squares,
    .pool_forward = m2se_scalar_pool_forward,
    .pool_backward = m2se_scalar_pool_backward,
    .experts_forward = m2se_scalar_experts_forward,
    .experts_backward = m2se_scalar_experts_backward,
    .addnorm_forward = m2se_scalar_addnorm_forward,
    .addnorm_backward = m2se_scalar_addnorm_backward,
    .embed_forward = m2se_scalar_embed_forward,
    .embed_backward = m2se_scalar_embed_backward,
    .gelu_forward = m2se_scalar_gelu_forward,
    .gelu_backward = m2se_scalar_gelu_backward,
    .attention_forward = m2se_scalar_attention_forward,
    .attention_backward = m2se_scalar_attention_backward,
    .unit_forward = m2se_scalar_unit_forward,
    .unit_backward = m2se_scalar_unit_backward,
    .nip_row = m2se_scalar_nip_row,
    .cmcl_row_lse = m2se_scalar_cmcl_row_lse,
    .cmcl_column_lse = m2se_scalar_cmcl_column_lse,
    .cmcl_grad_row = m2se_scalar_cmcl_grad_row,
    .norm_infer = m2se_scalar_norm_infer,
    .gelu_infer = m2se_scalar_gelu_infer,
    .quick_gelu_infer = m2se_scalar_quick_gelu_infer,
    .adam = m2se_scalar_adam,
};

const struct m2se_kernels *m2se_kernels_scalar(void) {
  return &scalar_kernels;
}
