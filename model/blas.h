/* What runs the matrix products, for the log and the check at start. */
#ifndef M2SE_BLAS_H
#define M2SE_BLAS_H

#include <stddef.h>

#include "model/error.h"
#include "model/real.h"

/* Compares sgemm with a naive product over awkward shapes: 0, or M2SE_EBLAS with the shape and the
 * difference. Also sets the library to one thread per caller. Call once, before any other thread uses model/.
 */
int m2se_blas_check(struct m2se_error *error);
/* c = a b, all [n,n]: for measuring what the machine can do. Any thread, after the check. */
void m2se_blas_square(size_t n, const m2se_real *a, const m2se_real *b, m2se_real *c);
/* Name of the kernel that OpenBLAS chose, such as "Haswell". */
const char *m2se_blas_kernel(void);
/* Name of the table of kernels/ that this CPU gets: "scalar", "avx2", "avx512". */
const char *m2se_simd_kernel(void);

#endif
