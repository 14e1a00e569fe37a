/* What a finished model needs beside products and attention. */
#include <tgmath.h>

#include "model/kernels/kernels_scalar.h"

void m2se_scalar_norm_infer(m2se_real *y, m2se_real *x, const m2se_real *sub, const m2se_real *bias,
                            const m2se_real *gamma, const m2se_real *beta, size_t rows, size_t n,
                            m2se_real eps) {
  for (size_t r = 0; r < rows; r++, x += n, y += n) {
    m2se_real mean = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
      if (sub)
        x[i] += sub[r * n + i] + bias[i];
      mean += x[i];
    }
    mean /= (m2se_real)n;
    for (size_t i = 0; i < n; i++)
      squares += (x[i] - mean) * (x[i] - mean);
    const m2se_real rstd = 1 / (m2se_real)sqrt(squares / (m2se_real)n + eps);
    for (size_t i = 0; i < n; i++)
      y[i] = (x[i] - mean) * rstd * gamma[i] + beta[i];
  }
}

void m2se_scalar_gelu_infer(m2se_real *u, const m2se_real *bias, size_t rows, size_t n) {
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < n; i++) {
      const m2se_real x = u[r * n + i] + bias[i];
      u[r * n + i] = x * (m2se_real)(0.5 * erfc(-0.70710678118654752440 * x));
    }
}

void m2se_scalar_quick_gelu_infer(m2se_real *u, const m2se_real *bias, size_t rows, size_t n) {
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < n; i++) {
      const m2se_real x = u[r * n + i] + bias[i];
      u[r * n + i] = x / (1 + (m2se_real)exp((m2se_real)-1.702 * x));
    }
}
