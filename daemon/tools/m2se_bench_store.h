/* m2se_bench store: the store of feature rows, filled and read. */
#ifndef M2SED_TOOLS_M2SE_BENCH_STORE_H
#define M2SED_TOOLS_M2SE_BENCH_STORE_H

#include <stdint.h>

#include "model/error.h"

/* Items of one text and one picture each, rows of `dim` floats. Prints one JSON line: size, and the time of
 * an item written, of one that is known already (a restart), of its rows read. The store is made in a folder
 * of its own beneath the working directory, and removed. */
int m2se_bench_store(uint32_t items, uint32_t dim, uint32_t seed, struct m2se_error *error);

#endif
