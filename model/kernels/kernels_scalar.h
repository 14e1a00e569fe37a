/* What the scalar table is made of; private to model/kernels/. Each contract is that of the member of
 * struct m2se_kernels with the same name, and the vector tables borrow from here where speed does not matter.
 */
#ifndef M2SE_KERNELS_SCALAR_H
#define M2SE_KERNELS_SCALAR_H

#include "model/kernels/kernels.h"

/* Reads the draws of one dropout element after the other. A group's 16 blocks give 128 draws: they are kept,
 * so that walking along a row costs each block once. */
struct m2se_draws {
  const struct m2se_dropout *drop;
  uint64_t group;
  bool loaded;
  uint32_t words[64];
};

/* Zero for a dropped element, else drop->scale; 1 without dropout. */
m2se_real m2se_draws_factor(struct m2se_draws *draws, uint64_t index);

void m2se_scalar_random_blocks(uint32_t *out, const struct m2se_stream *stream, uint64_t first, size_t n);
void m2se_scalar_dropout(m2se_real *x, size_t n, const struct m2se_dropout *drop, uint64_t first);

m2se_real m2se_scalar_dot(const m2se_real *x, const m2se_real *y, size_t n);
void m2se_scalar_axpy(m2se_real *y, m2se_real a, const m2se_real *x, size_t n);
void m2se_scalar_add(m2se_real *y, const m2se_real *x, size_t n);
void m2se_scalar_add_bias(m2se_real *y, size_t ld, const m2se_real *bias, size_t rows, size_t n);
void m2se_scalar_column_sum(m2se_real *dbias, const m2se_real *dy, size_t ld, size_t rows, size_t n);
double m2se_scalar_sum_squares(const m2se_real *x, size_t n);
void m2se_scalar_pool_forward(m2se_real *e, m2se_real *alpha, const m2se_real *rows, size_t count, size_t d,
                              const m2se_real *w);
void m2se_scalar_pool_backward(m2se_real *dw, const m2se_real *rows, const m2se_real *alpha,
                               const m2se_real *de, size_t count, size_t d);
void m2se_scalar_unit_forward(m2se_real *unit, size_t ldu, m2se_real *inv, const m2se_real *x, size_t ldx,
                              size_t rows, size_t n);
void m2se_scalar_unit_backward(m2se_real *dx, size_t lddx, const m2se_real *dunit, size_t ldd,
                               const m2se_real *unit, size_t ldu, const m2se_real *inv, size_t rows,
                               size_t n);
void m2se_scalar_adam(m2se_real *p, m2se_real *m, m2se_real *v, const m2se_real *g, size_t n, m2se_real clip,
                      m2se_real lr, m2se_real b1, m2se_real b2, m2se_real c1, m2se_real c2, m2se_real eps);

void m2se_scalar_experts_forward(m2se_real *z, m2se_real *rstd, m2se_real *y, const m2se_real *bias,
                                 const m2se_real *gamma, const m2se_real *beta, size_t rows, size_t experts,
                                 size_t h, m2se_real eps, const struct m2se_dropout *drop,
                                 uint64_t first_row);
void m2se_scalar_experts_backward(m2se_real *y, m2se_real *dbias, m2se_real *dgamma, m2se_real *dbeta,
                                  const m2se_real *dz, const m2se_real *rstd, const m2se_real *gamma,
                                  const m2se_real *beta, size_t rows, size_t experts, size_t h,
                                  const struct m2se_dropout *drop, uint64_t first_row);
void m2se_scalar_addnorm_forward(m2se_real *y, m2se_real *xhat, m2se_real *rstd, const m2se_real *sub,
                                 const m2se_real *bias, const m2se_real *residual, const m2se_real *gamma,
                                 const m2se_real *beta, size_t rows, size_t n, m2se_real eps,
                                 const struct m2se_dropout *drop, const uint32_t *row_ids,
                                 uint64_t first_row);
void m2se_scalar_addnorm_backward(m2se_real *dresidual, m2se_real *dsub, m2se_real *dgamma, m2se_real *dbeta,
                                  m2se_real *dbias, const m2se_real *dy, const m2se_real *xhat,
                                  const m2se_real *rstd, const m2se_real *gamma, size_t rows, size_t n,
                                  const struct m2se_dropout *drop, const uint32_t *row_ids,
                                  uint64_t first_row);
void m2se_scalar_embed_forward(m2se_real *y, m2se_real *xhat, m2se_real *rstd, const m2se_real *const *z,
                               const uint32_t *pos, const m2se_real *position, const m2se_real *gamma,
                               const m2se_real *beta, size_t rows, size_t n, m2se_real eps,
                               const struct m2se_dropout *drop, uint64_t first_row);
void m2se_scalar_embed_backward(m2se_real *dy, m2se_real *dposition, m2se_real *dgamma, m2se_real *dbeta,
                                const m2se_real *xhat, const m2se_real *rstd, const uint32_t *pos,
                                const m2se_real *gamma, size_t rows, size_t n,
                                const struct m2se_dropout *drop, uint64_t first_row);
void m2se_scalar_gelu_forward(m2se_real *a, m2se_real *u, const m2se_real *bias, size_t rows, size_t n);
void m2se_scalar_gelu_backward(m2se_real *da, m2se_real *u, m2se_real *dbias, size_t rows, size_t n);

void m2se_scalar_attention_forward(m2se_real *out, size_t ldo, m2se_real *lse, const m2se_real *q, size_t ldq,
                                   const m2se_real *k, const m2se_real *v, size_t ldkv, const uint32_t *q_pos,
                                   size_t nq, size_t len, size_t heads, size_t dh,
                                   const struct m2se_dropout *drop, const uint32_t *row_ids,
                                   uint64_t first_row, size_t stride, m2se_real *scratch);
void m2se_scalar_attention_backward(m2se_real *dq, m2se_real *dk, m2se_real *dv, const m2se_real *dout,
                                    const m2se_real *out, size_t ldo, const m2se_real *lse,
                                    const m2se_real *q, size_t ldq, const m2se_real *k, const m2se_real *v,
                                    size_t ldkv, const uint32_t *q_pos, size_t nq, size_t len, size_t heads,
                                    size_t dh, const struct m2se_dropout *drop, const uint32_t *row_ids,
                                    uint64_t first_row, size_t stride, m2se_real *scratch);

void m2se_scalar_norm_infer(m2se_real *y, m2se_real *x, const m2se_real *sub, const m2se_real *bias,
                            const m2se_real *gamma, const m2se_real *beta, size_t rows, size_t n,
                            m2se_real eps);
void m2se_scalar_gelu_infer(m2se_real *u, const m2se_real *bias, size_t rows, size_t n);
void m2se_scalar_quick_gelu_infer(m2se_real *u, const m2se_real *bias, size_t rows, size_t n);

m2se_real m2se_scalar_nip_row(m2se_real *l1, m2se_real *l2, const m2se_real *w, size_t candidates, size_t y,
                              m2se_real own_w, m2se_real g, m2se_real *dw);
m2se_real m2se_scalar_cmcl_row_lse(const m2se_real *ab, const m2se_real *aa, const uint32_t *target, size_t j,
                                   size_t n);
void m2se_scalar_cmcl_column_lse(m2se_real *lse, const m2se_real *ab, size_t ldab, const m2se_real *bb,
                                 size_t ldbb, const uint32_t *target, size_t j0, size_t j1, size_t n);
void m2se_scalar_cmcl_grad_row(m2se_real *ab, m2se_real *aa, m2se_real *bb, const m2se_real *lse_a,
                               const m2se_real *lse_b, const uint32_t *target, size_t j, size_t n,
                               m2se_real g);

#endif
