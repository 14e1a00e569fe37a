/* LayerNorm and what surrounds it (experts, residual, embedding), and GELU, row after row. */
#include <tgmath.h>

#include "model/kernels/kernels_scalar.h"

/* x[n] becomes (x - mean) / sqrt(var + eps). Returns the reciprocal of that root. */
static m2se_real normalise(m2se_real *x, size_t n, m2se_real eps) {
  m2se_real mean = 0;
  for (size_t i = 0; i < n; i++)
    mean += x[i];
  mean /= (m2se_real)n;
  m2se_real variance = 0;
  for (size_t i = 0; i < n; i++) {
    x[i] -= mean;
    variance += x[i] * x[i];
  }
  variance /= (m2se_real)n;
  m2se_real rstd = 1 / sqrt(variance + eps);
  for (size_t i = 0; i < n; i++)
    x[i] *= rstd;
  return rstd;
}

/* dy[n], the gradient of y = xhat gamma + beta, becomes that of what normalise() was given; dgamma, dbeta +=.
 */
static void normalise_backward(m2se_real *dy, m2se_real *dgamma, m2se_real *dbeta, const m2se_real *xhat,
                               m2se_real rstd, const m2se_real *gamma, size_t n) {
  m2se_real mean = 0;
  m2se_real mean_xhat = 0;
  for (size_t i = 0; i < n; i++) {
    dgamma[i] += dy[i] * xhat[i];
    dbeta[i] += dy[i];
    dy[i] *= gamma[i];
    mean += dy[i];
    mean_xhat += dy[i] * xhat[i];
  }
  mean /= (m2se_real)n;
  mean_xhat /= (m2se_real)n;
  for (size_t i = 0; i < n; i++)
    dy[i] = rstd * (dy[i] - mean - xhat[i] * mean_xhat);
}

static m2se_real dropped(m2se_real x, struct m2se_draws *draws, uint64_t index) {
  m2se_real factor = m2se_draws_factor(draws, index);
  return factor == 0 ? 0 : x * factor;
}

/* Dropout index of the first element of row r. */
static uint64_t row_start(size_t r, size_t n, const uint32_t *row_ids, uint64_t first_row) {
  return (row_ids ? row_ids[r] : first_row + r) * (uint64_t)n;
}

void m2se_scalar_experts_forward(m2se_real *z, m2se_real *rstd, m2se_real *y, const m2se_real *bias,
                                 const m2se_real *gamma, const m2se_real *beta, size_t rows, size_t experts,
                                 size_t h, m2se_real eps, const struct m2se_dropout *drop,
                                 uint64_t first_row) {
  size_t width = experts * h;
  struct m2se_draws draws = {.drop = drop};
  for (size_t r = 0; r < rows; r++) {
    m2se_real *row = y + r * (width + experts);
    m2se_real *gate = row + width;
    m2se_real max = gate[0];
    for (size_t k = 1; k < experts; k++)
      max = gate[k] > max ? gate[k] : max;
    m2se_real sum = 0;
    for (size_t k = 0; k < experts; k++) {
      gate[k] = exp(gate[k] - max);
      sum += gate[k];
    }
    for (size_t c = 0; c < width; c++)
      row[c] = dropped(row[c] + bias[c], &draws, row_start(r, width, NULL, first_row) + c);
    for (size_t i = 0; i < h; i++)
      z[r * h + i] = 0;
    for (size_t k = 0; k < experts; k++) {
      gate[k] /= sum;
      rstd[r * experts + k] = normalise(row + k * h, h, eps);
      for (size_t i = 0; i < h; i++)
        z[r * h + i] += gate[k] * (row[k * h + i] * gamma[k * h + i] + beta[k * h + i]);
    }
  }
}

void m2se_scalar_experts_backward(m2se_real *y, m2se_real *dbias, m2se_real *dgamma, m2se_real *dbeta,
                                  const m2se_real *dz, const m2se_real *rstd, const m2se_real *gamma,
                                  const m2se_real *beta, size_t rows, size_t experts, size_t h,
                                  const struct m2se_dropout *drop, uint64_t first_row) {
  size_t width = experts * h;
  struct m2se_draws draws = {.drop = drop};
  for (size_t r = 0; r < rows; r++) {
    m2se_real *row = y + r * (width + experts);
    m2se_real *gate = row + width;
    const m2se_real *dzr = dz + r * h;
    m2se_real mean = 0; /* sum_k g_k dg_k, dg_k = dz . E_k */
    for (size_t k = 0; k < experts; k++)
      for (size_t i = 0; i < h; i++)
        mean += gate[k] * dzr[i] * (row[k * h + i] * gamma[k * h + i] + beta[k * h + i]);
    for (size_t k = 0; k < experts; k++) {
      m2se_real *xhat = row + k * h;
      const size_t at = k * h;
      m2se_real dgate = 0;
      m2se_real m0 = 0; /* the two means of LayerNorm's backward pass; dE_k = g_k dz */
      m2se_real m1 = 0;
      for (size_t i = 0; i < h; i++) {
        m2se_real de = gate[k] * dzr[i];
        dgate += dzr[i] * (xhat[i] * gamma[at + i] + beta[at + i]);
        dgamma[at + i] += de * xhat[i];
        dbeta[at + i] += de;
        m0 += de * gamma[at + i];
        m1 += de * gamma[at + i] * xhat[i];
      }
      m0 /= (m2se_real)h;
      m1 /= (m2se_real)h;
      for (size_t i = 0; i < h; i++) {
        m2se_real ds = rstd[r * experts + k] * (gate[k] * dzr[i] * gamma[at + i] - m0 - xhat[i] * m1);
        xhat[i] = dropped(ds, &draws, row_start(r, width, NULL, first_row) + at + i);
        dbias[at + i] += xhat[i];
      }
      gate[k] *= dgate - mean;
    }
  }
}

void m2se_scalar_addnorm_forward(m2se_real *y, m2se_real *xhat, m2se_real *rstd, const m2se_real *sub,
                                 const m2se_real *bias, const m2se_real *residual, const m2se_real *gamma,
                                 const m2se_real *beta, size_t rows, size_t n, m2se_real eps,
                                 const struct m2se_dropout *drop, const uint32_t *row_ids,
                                 uint64_t first_row) {
  struct m2se_draws draws = {.drop = drop};
  for (size_t r = 0; r < rows; r++) {
    m2se_real *x = xhat + r * n;
    uint64_t start = row_start(r, n, row_ids, first_row);
    for (size_t i = 0; i < n; i++)
      x[i] = residual[r * n + i] + dropped(sub[r * n + i] + bias[i], &draws, start + i);
    rstd[r] = normalise(x, n, eps);
    for (size_t i = 0; i < n; i++)
      y[r * n + i] = x[i] * gamma[i] + beta[i];
  }
}

void m2se_scalar_addnorm_backward(m2se_real *dresidual, m2se_real *dsub, m2se_real *dgamma, m2se_real *dbeta,
                                  m2se_real *dbias, const m2se_real *dy, const m2se_real *xhat,
                                  const m2se_real *rstd, const m2se_real *gamma, size_t rows, size_t n,
                                  const struct m2se_dropout *drop, const uint32_t *row_ids,
                                  uint64_t first_row) {
  struct m2se_draws draws = {.drop = drop};
  for (size_t r = 0; r < rows; r++) {
    m2se_real *ds = dresidual + r * n;
    for (size_t i = 0; i < n; i++)
      ds[i] = dy[r * n + i];
    normalise_backward(ds, dgamma, dbeta, xhat + r * n, rstd[r], gamma, n);
    uint64_t start = row_start(r, n, row_ids, first_row);
    for (size_t i = 0; i < n; i++) {
      dsub[r * n + i] = dropped(ds[i], &draws, start + i);
      dbias[i] += dsub[r * n + i];
    }
  }
}

void m2se_scalar_embed_forward(m2se_real *y, m2se_real *xhat, m2se_real *rstd, const m2se_real *const *z,
                               const uint32_t *pos, const m2se_real *position, const m2se_real *gamma,
                               const m2se_real *beta, size_t rows, size_t n, m2se_real eps,
                               const struct m2se_dropout *drop, uint64_t first_row) {
  struct m2se_draws draws = {.drop = drop};
  for (size_t r = 0; r < rows; r++) {
    m2se_real *x = xhat + r * n;
    for (size_t i = 0; i < n; i++)
      x[i] = z[r][i] + position[pos[r] * n + i];
    rstd[r] = normalise(x, n, eps);
    uint64_t start = row_start(r, n, NULL, first_row);
    for (size_t i = 0; i < n; i++)
      y[r * n + i] = dropped(x[i] * gamma[i] + beta[i], &draws, start + i);
  }
}

void m2se_scalar_embed_backward(m2se_real *dy, m2se_real *dposition, m2se_real *dgamma, m2se_real *dbeta,
                                const m2se_real *xhat, const m2se_real *rstd, const uint32_t *pos,
                                const m2se_real *gamma, size_t rows, size_t n,
                                const struct m2se_dropout *drop, uint64_t first_row) {
  for (size_t r = 0; r < rows; r++) {
    m2se_real *ds = dy + r * n;
    m2se_scalar_dropout(ds, n, drop, row_start(r, n, NULL, first_row));
    normalise_backward(ds, dgamma, dbeta, xhat + r * n, rstd[r], gamma, n);
    m2se_scalar_add(dposition + pos[r] * n, ds, n);
  }
}

/* Phi(u), the normal distribution function. */
static m2se_real normal_cdf(m2se_real u) {
  return (m2se_real)0.5 * erfc(u * (m2se_real)-0.70710678118654752440);
}

void m2se_scalar_gelu_forward(m2se_real *a, m2se_real *u, const m2se_real *bias, size_t rows, size_t n) {
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < n; i++) {
      u[r * n + i] += bias[i];
      a[r * n + i] = u[r * n + i] * normal_cdf(u[r * n + i]);
    }
}

void m2se_scalar_gelu_backward(m2se_real *da, m2se_real *u, m2se_real *dbias, size_t rows, size_t n) {
  const m2se_real inv_sqrt_2pi = (m2se_real)0.39894228040143267794;
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < n; i++) {
      m2se_real x = u[r * n + i];
      m2se_real cdf = normal_cdf(x);
      da[r * n + i] *= cdf + x * inv_sqrt_2pi * exp(x * x * (m2se_real)-0.5);
      u[r * n + i] = x * cdf;
      dbias[i] += da[r * n + i];
    }
}
