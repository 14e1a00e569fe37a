/* Which table a CPU gets. */
#include "model/kernels/kernels.h"

#include <string.h>

#define ROUND_UP_16(n) (((n) + 15) / 16 * 16)

size_t m2se_attention_scratch(size_t len_max, size_t dh) {
  size_t len = ROUND_UP_16(len_max);
  size_t width = ROUND_UP_16(dh);
  return 4 * len * width + 8 * len + 4 * width + 64;
}

const struct m2se_kernels *m2se_kernels_best(void) {
  return m2se_kernels_scalar();
}

const struct m2se_kernels *m2se_kernels_named(const char *name) {
  if (strcmp(name, "scalar") == 0)
    return m2se_kernels_scalar();
  return NULL;
}
