/* Causal multi-head attention of one sequence, one query after the other. */
#include <tgmath.h>

#include "model/kernels/kernels_scalar.h"

/* Dropout index of key 0 for query r and head a. */
static uint64_t draw_start(size_t r, size_t a, size_t heads, size_t stride, const uint32_t *row_ids,
                           uint64_t first_row) {
  return ((row_ids ? row_ids[r] : first_row + r) * heads + a) * stride;
}

void m2se_scalar_attention_forward(m2se_real *out, size_t ldo, m2se_real *lse, const m2se_real *q, size_t ldq,
                                   const m2se_real *k, const m2se_real *v, size_t ldkv, const uint32_t *q_pos,
                                   size_t nq, size_t len, size_t heads, size_t dh,
                                   const struct m2se_dropout *drop, const uint32_t *row_ids,
                                   uint64_t first_row, size_t stride, m2se_real *scratch) {
  (void)len;
  const m2se_real scale = 1 / sqrt((m2se_real)dh);
  struct m2se_draws draws = {.drop = drop};
  m2se_real *s = scratch;
  for (size_t r = 0; r < nq; r++)
    for (size_t a = 0; a < heads; a++) {
      size_t keys = (q_pos ? q_pos[r] : r) + 1;
      m2se_real max = -INFINITY;
      for (size_t j = 0; j < keys; j++) {
        s[j] = scale * m2se_scalar_dot(q + r * ldq + a * dh, k + j * ldkv + a * dh, dh);
        max = s[j] > max ? s[j] : max;
      }
      m2se_real sum = 0;
      for (size_t j = 0; j < keys; j++) {
        s[j] = exp(s[j] - max);
        sum += s[j];
      }
      lse[r * heads + a] = max + log(sum);
      m2se_real *o = out + r * ldo + a * dh;
      for (size_t i = 0; i < dh; i++)
        o[i] = 0;
      uint64_t start = draw_start(r, a, heads, stride, row_ids, first_row);
      for (size_t j = 0; j < keys; j++)
        m2se_scalar_axpy(o, s[j] / sum * m2se_draws_factor(&draws, start + j), v + j * ldkv + a * dh, dh);
    }
}

void m2se_scalar_attention_backward(m2se_real *dq, m2se_real *dk, m2se_real *dv, const m2se_real *dout,
                                    const m2se_real *out, size_t ldo, const m2se_real *lse,
                                    const m2se_real *q, size_t ldq, const m2se_real *k, const m2se_real *v,
                                    size_t ldkv, const uint32_t *q_pos, size_t nq, size_t len, size_t heads,
                                    size_t dh, const struct m2se_dropout *drop, const uint32_t *row_ids,
                                    uint64_t first_row, size_t stride, m2se_real *scratch) {
  (void)scratch;
  const m2se_real scale = 1 / sqrt((m2se_real)dh);
  struct m2se_draws draws = {.drop = drop};
  for (size_t j = 0; j < len; j++)
    for (size_t i = 0; i < heads * dh; i++)
      dk[j * ldkv + i] = dv[j * ldkv + i] = 0;
  for (size_t r = 0; r < nq; r++)
    for (size_t a = 0; a < heads; a++) {
      size_t keys = (q_pos ? q_pos[r] : r) + 1;
      const m2se_real *qr = q + r * ldq + a * dh;
      const m2se_real *dor = dout + r * ldo + a * dh;
      m2se_real *dqr = dq + r * ldq + a * dh;
      uint64_t start = draw_start(r, a, heads, stride, row_ids, first_row);
      /* sum_j p_j dp_j, since out = sum_j dropout(p)_j v_j */
      m2se_real mean = m2se_scalar_dot(dor, out + r * ldo + a * dh, dh);
      for (size_t i = 0; i < dh; i++)
        dqr[i] = 0;
      for (size_t j = 0; j < keys; j++) {
        size_t at = j * ldkv + a * dh;
        m2se_real p = exp(scale * m2se_scalar_dot(qr, k + at, dh) - lse[r * heads + a]);
        m2se_real factor = m2se_draws_factor(&draws, start + j);
        m2se_real ds = scale * p * (factor * m2se_scalar_dot(dor, v + at, dh) - mean);
        m2se_scalar_axpy(dv + at, p * factor, dor, dh);
        m2se_scalar_axpy(dqr, ds, k + at, dh);
        m2se_scalar_axpy(dk + at, ds, qr, dh);
      }
    }
}
