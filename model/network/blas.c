#include "model/blas.h"

#include <cblas.h>
#include <math.h>

#include "model/kernels/kernels.h"
#include "model/network/blas_door.h"

#ifdef M2SE_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

static void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, size_t m, size_t n, size_t k, const m2se_real *a,
                 size_t lda, const m2se_real *b, size_t ldb, m2se_real beta, m2se_real *c, size_t ldc) {
  if (m == 0 || n == 0) {
    return;
  }
  if (k == 0) { /* the library may leave C alone then */
    for (size_t i = 0; i < m; i++) {
      for (size_t j = 0; j < n; j++) {
        c[i * ldc + j] *= beta;
      }
    }
    return;
  }
  GEMM(CblasRowMajor, ta, tb, (blasint)m, (blasint)n, (blasint)k, 1, a, (blasint)lda, b, (blasint)ldb, beta,
       c, (blasint)ldc);
}

void m2se_gemm_nn(size_t m, size_t n, size_t k, const m2se_real *a, size_t lda, const m2se_real *b,
                  size_t ldb, m2se_real beta, m2se_real *c, size_t ldc) {
  gemm(CblasNoTrans, CblasNoTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void m2se_gemm_nt(size_t m, size_t n, size_t k, const m2se_real *a, size_t lda, const m2se_real *b,
                  size_t ldb, m2se_real beta, m2se_real *c, size_t ldc) {
  gemm(CblasNoTrans, CblasTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

void m2se_gemm_tn(size_t m, size_t n, size_t k, const m2se_real *a, size_t lda, const m2se_real *b,
                  size_t ldb, m2se_real beta, m2se_real *c, size_t ldc) {
  gemm(CblasTrans, CblasNoTrans, m, n, k, a, lda, b, ldb, beta, c, ldc);
}

/* Small integers, so that the naive sum is exact and any difference is the library's. */
static m2se_real sample(size_t i, size_t j, uint32_t salt) {
  return (m2se_real)((int)((i * 7 + j * 13 + salt) % 9) - 4);
}

enum { CHECK_MAX = 96 };

static int check_product(size_t m, size_t n, size_t k, int mode, struct m2se_error *error) {
  m2se_real a[CHECK_MAX * CHECK_MAX], b[CHECK_MAX * CHECK_MAX], c[CHECK_MAX * CHECK_MAX];
  for (size_t i = 0; i < m; i++) {
    for (size_t p = 0; p < k; p++) {
      a[mode == 2 ? p * m + i : i * k + p] = sample(i, p, 1);
    }
  }
  for (size_t p = 0; p < k; p++) {
    for (size_t j = 0; j < n; j++) {
      b[mode == 1 ? j * k + p : p * n + j] = sample(p, j, 2);
    }
  }
  for (size_t i = 0; i < m * n; i++) {
    c[i] = 1;
  }
  if (mode == 0) {
    m2se_gemm_nn(m, n, k, a, k, b, n, 1, c, n);
  } else if (mode == 1) {
    m2se_gemm_nt(m, n, k, a, k, b, k, 1, c, n);
  } else {
    m2se_gemm_tn(m, n, k, a, m, b, n, 1, c, n);
  }
  for (size_t i = 0; i < m; i++) {
    for (size_t j = 0; j < n; j++) {
      m2se_real sum = 1;
      for (size_t p = 0; p < k; p++) {
        sum += sample(i, p, 1) * sample(p, j, 2);
      }
      if (c[i * n + j] != sum) {
        return m2se_error_set(
            error, M2SE_ENUMERIC,
            "BLAS kernel %s computes a wrong product: [%zu,%zu,%zu] form %d, element %zu,%zu is "
            "%.9g, should be %.9g (OPENBLAS_CORETYPE chooses another kernel)",
            m2se_blas_kernel(), m, n, k, mode, i, j, (double)c[i * n + j], (double)sum);
      }
    }
  }
  return 0;
}

int m2se_blas_check(struct m2se_error *error) {
  static const size_t shapes[][3] = {{1, 1, 1},    {3, 5, 7},   {17, 33, 64}, {64, 64, 64}, {96, 48, 31},
                                     {31, 96, 96}, {2, 96, 65}, {95, 1, 96},  {63, 64, 1}};
  openblas_set_num_threads(1);
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
    for (int mode = 0; mode < 3; mode++) {
      int result = check_product(shapes[s][0], shapes[s][1], shapes[s][2], mode, error);
      if (result < 0) {
        return result;
      }
    }
  }
  return 0;
}

const char *m2se_blas_kernel(void) {
  return openblas_get_corename();
}

const char *m2se_simd_kernel(void) {
  return m2se_kernels_best()->name;
}

void m2se_blas_square(size_t n, const m2se_real *a, const m2se_real *b, m2se_real *c) {
  m2se_gemm_nn(n, n, n, a, n, b, n, 0, c, n);
}
