/* Vectors, pooling, cosines and Adam, as the equations say it. */
#include <tgmath.h>

#include "model/kernels/kernels_scalar.h"

m2se_real m2se_scalar_dot(const m2se_real *x, const m2se_real *y, size_t n) {
  m2se_real sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += x[i] * y[i];
  return sum;
}

void m2se_scalar_axpy(m2se_real *y, m2se_real a, const m2se_real *x, size_t n) {
  for (size_t i = 0; i < n; i++)
    y[i] += a * x[i];
}

void m2se_scalar_add(m2se_real *y, const m2se_real *x, size_t n) {
  for (size_t i = 0; i < n; i++)
    y[i] += x[i];
}

void m2se_scalar_add_bias(m2se_real *y, size_t ld, const m2se_real *bias, size_t rows, size_t n) {
  for (size_t r = 0; r < rows; r++)
    m2se_scalar_add(y + r * ld, bias, n);
}

void m2se_scalar_column_sum(m2se_real *dbias, const m2se_real *dy, size_t ld, size_t rows, size_t n) {
  for (size_t r = 0; r < rows; r++)
    m2se_scalar_add(dbias, dy + r * ld, n);
}

double m2se_scalar_sum_squares(const m2se_real *x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += (double)x[i] * (double)x[i];
  return sum;
}

void m2se_scalar_pool_forward(m2se_real *e, m2se_real *alpha, const m2se_real *rows, size_t count, size_t d,
                              const m2se_real *w) {
  m2se_real max = m2se_scalar_dot(rows, w, d);
  alpha[0] = max;
  for (size_t j = 1; j < count; j++) {
    alpha[j] = m2se_scalar_dot(rows + j * d, w, d);
    max = alpha[j] > max ? alpha[j] : max;
  }
  m2se_real sum = 0;
  for (size_t j = 0; j < count; j++) {
    alpha[j] = exp(alpha[j] - max);
    sum += alpha[j];
  }
  for (size_t i = 0; i < d; i++)
    e[i] = 0;
  for (size_t j = 0; j < count; j++) {
    alpha[j] /= sum;
    m2se_scalar_axpy(e, alpha[j], rows + j * d, d);
  }
}

void m2se_scalar_pool_backward(m2se_real *dw, const m2se_real *rows, const m2se_real *alpha,
                               const m2se_real *de, size_t count, size_t d) {
  m2se_real mean = 0;
  for (size_t j = 0; j < count; j++)
    mean += alpha[j] * m2se_scalar_dot(de, rows + j * d, d);
  for (size_t j = 0; j < count; j++) {
    m2se_real ds = alpha[j] * (m2se_scalar_dot(de, rows + j * d, d) - mean);
    m2se_scalar_axpy(dw, ds, rows + j * d, d);
  }
}

void m2se_scalar_unit_forward(m2se_real *unit, size_t ldu, m2se_real *inv, const m2se_real *x, size_t ldx,
                              size_t rows, size_t n) {
  for (size_t r = 0; r < rows; r++) {
    m2se_real norm = sqrt(m2se_scalar_dot(x + r * ldx, x + r * ldx, n));
    inv[r] = norm > (m2se_real)1e-8 ? 1 / norm : (m2se_real)1e8;
    for (size_t i = 0; i < n; i++)
      unit[r * ldu + i] = x[r * ldx + i] * inv[r];
  }
}

void m2se_scalar_unit_backward(m2se_real *dx, size_t lddx, const m2se_real *dunit, size_t ldd,
                               const m2se_real *unit, size_t ldu, const m2se_real *inv, size_t rows,
                               size_t n) {
  for (size_t r = 0; r < rows; r++) {
    const m2se_real *du = dunit + r * ldd;
    const m2se_real *u = unit + r * ldu;
    m2se_real along = inv[r] >= (m2se_real)1e8 ? 0 : m2se_scalar_dot(du, u, n);
    for (size_t i = 0; i < n; i++)
      dx[r * lddx + i] = (du[i] - along * u[i]) * inv[r];
  }
}

void m2se_scalar_adam(m2se_real *p, m2se_real *m, m2se_real *v, const m2se_real *g, size_t n, m2se_real clip,
                      m2se_real lr, m2se_real b1, m2se_real b2, m2se_real c1, m2se_real c2, m2se_real eps) {
  for (size_t i = 0; i < n; i++) {
    m2se_real gi = g[i] * clip;
    m[i] = b1 * m[i] + (1 - b1) * gi;
    v[i] = b2 * v[i] + (1 - b2) * gi * gi;
    p[i] -= lr * (m[i] / c1) / (sqrt(v[i] / c2) + eps);
  }
}
