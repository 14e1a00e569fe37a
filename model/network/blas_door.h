/* The one door to cblas: row-major products of the network's number type, one thread per caller. Any thread.
 */
#ifndef M2SE_BLAS_DOOR_H
#define M2SE_BLAS_DOOR_H

#include <stddef.h>

#include "model/real.h"

/* C [m,n] = beta C + op(A) op(B), op(A) [m,k], op(B) [k,n]; ld: elements between rows as stored. m, n or k
 * may be 0 (k == 0: C = beta C). */
void m2se_gemm_nn(size_t m, size_t n, size_t k, const m2se_real *a, size_t lda, const m2se_real *b,
                  size_t ldb, m2se_real beta, m2se_real *c, size_t ldc);
/* B is stored [n,k]. */
void m2se_gemm_nt(size_t m, size_t n, size_t k, const m2se_real *a, size_t lda, const m2se_real *b,
                  size_t ldb, m2se_real beta, m2se_real *c, size_t ldc);
/* A is stored [k,m]. */
void m2se_gemm_tn(size_t m, size_t n, size_t k, const m2se_real *a, size_t lda, const m2se_real *b,
                  size_t ldb, m2se_real beta, m2se_real *c, size_t ldc);

#endif
