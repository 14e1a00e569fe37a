/* The two losses (model/README.md), one row at a time. Everything is taken relative to a maximum, so no
 * exponent overflows, and a row that has nothing to compare with gets exactly log 1 = 0. */
#include <tgmath.h>

#include "model/kernels/kernels_scalar.h"

static m2se_real larger(m2se_real a, m2se_real b) {
  return a > b ? a : b;
}

m2se_real m2se_scalar_nip_row(m2se_real *l1, m2se_real *l2, const m2se_real *w, size_t candidates, size_t y,
                              m2se_real own_w, m2se_real g, m2se_real *dw) {
  m2se_real max = -INFINITY;
  for (size_t u = 0; u < candidates; u++) {
    m2se_real wu = u == y ? own_w : w[u];
    max = larger(max, larger(l1[u] += wu, l2[u] += wu));
  }
  /* The own share has its own maximum: measured against the other one it could vanish. */
  const m2se_real own_max = larger(l1[y], l2[y]);
  const m2se_real own1 = exp(l1[y] - own_max);
  const m2se_real own2 = exp(l2[y] - own_max);
  const m2se_real own_sum = own1 + own2;
  m2se_real sum = 0;
  for (size_t u = 0; u < candidates; u++) {
    l1[u] = exp(l1[u] - max);
    l2[u] = exp(l2[u] - max);
    sum += l1[u] + l2[u];
  }
  for (size_t u = 0; u < candidates; u++) {
    l1[u] = g * (l1[u] / sum);
    l2[u] = g * (l2[u] / sum);
  }
  l1[y] -= g * (own1 / own_sum);
  l2[y] -= g * (own2 / own_sum);
  if (dw)
    for (size_t u = 0; u < candidates; u++)
      dw[u] += l1[u] + l2[u];
  return (max - own_max) + (log(sum) - log(own_sum));
}

/* log sum exp of x[j' * step] over the j' that are not left out, and j itself, and of y[j'] over the former.
 */
static m2se_real contrast_lse(const m2se_real *x, size_t step, const m2se_real *y, const uint32_t *target,
                              size_t j, size_t n) {
  m2se_real max = x[j * step];
  for (size_t i = 0; i < n; i++)
    if (target[i] != target[j])
      max = larger(max, larger(x[i * step], y[i]));
  m2se_real sum = exp(x[j * step] - max);
  for (size_t i = 0; i < n; i++)
    if (target[i] != target[j])
      sum += exp(x[i * step] - max) + exp(y[i] - max);
  return max + log(sum);
}

m2se_real m2se_scalar_cmcl_row_lse(const m2se_real *ab, const m2se_real *aa, const uint32_t *target, size_t j,
                                   size_t n) {
  return contrast_lse(ab, 1, aa, target, j, n);
}

void m2se_scalar_cmcl_column_lse(m2se_real *lse, const m2se_real *ab, size_t ldab, const m2se_real *bb,
                                 size_t ldbb, const uint32_t *target, size_t j0, size_t j1, size_t n) {
  for (size_t j = j0; j < j1; j++)
    lse[j - j0] = contrast_lse(ab + j, ldab, bb + j * ldbb, target, j, n);
}

void m2se_scalar_cmcl_grad_row(m2se_real *ab, m2se_real *aa, m2se_real *bb, const m2se_real *lse_a,
                               const m2se_real *lse_b, const uint32_t *target, size_t j, size_t n,
                               m2se_real g) {
  const m2se_real own = exp(ab[j] - lse_a[j]) + exp(ab[j] - lse_b[j]) - 2;
  for (size_t i = 0; i < n; i++) {
    bool out = target[i] == target[j];
    ab[i] = out ? 0 : g * (exp(ab[i] - lse_a[j]) + exp(ab[i] - lse_b[i]));
    aa[i] = out ? 0 : g * (exp(aa[i] - lse_a[j]) + exp(aa[i] - lse_a[i]));
    bb[i] = out ? 0 : g * (exp(bb[i] - lse_b[j]) + exp(bb[i] - lse_b[i]));
  }
  ab[j] = g * own;
}
