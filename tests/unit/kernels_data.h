/* Inputs for the kernel tests: reproducible numbers in buffers whose ends are watched. */
#ifndef KERNELS_DATA_H
#define KERNELS_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "model/kernels/kernels.h"

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

uint32_t data_next(void);
/* Uniform in -1..1. */
m2se_real data_number(void);
/* n numbers in -scale..scale, guards around them; freed with data_free. */
m2se_real *data_new(size_t n, m2se_real scale);
m2se_real *data_copy(const m2se_real *from, size_t n);
/* Fails the test if a guard was written. */
void data_free(m2se_real *p, size_t n);
/* Dropout with probability p and some key. */
struct m2se_dropout data_dropout(double p);

#endif
