/* Which table a CPU gets. */
#include "model/kernels/kernels.h"

#include <string.h>

#define ROUND_UP_16(n) (((n) + 15) / 16 * 16)

size_t m2se_attention_scratch(size_t len_max, size_t dh) {
  size_t len = ROUND_UP_16(len_max);
  size_t width = ROUND_UP_16(dh);
  /* Vector tables: one value a lane (16 at most) for each column of a head, three for each key. */
  return 16 * width + 3 * 16 * len;
}

#if defined(__x86_64__) && !defined(M2SE_DOUBLE)
const struct m2se_kernels *m2se_kernels_avx2(void);
const struct m2se_kernels *m2se_kernels_avx512(void);

static const struct m2se_kernels *avx2_or_null(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? m2se_kernels_avx2() : NULL;
}

static const struct m2se_kernels *avx512_or_null(void) {
  bool supported = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && avx2_or_null();
  return supported ? m2se_kernels_avx512() : NULL;
}
#else
static const struct m2se_kernels *avx2_or_null(void) {
  return NULL;
}

static const struct m2se_kernels *avx512_or_null(void) {
  return NULL;
}
#endif

const struct m2se_kernels *m2se_kernels_best(void) {
  const struct m2se_kernels *best = avx512_or_null();
  if (!best)
    best = avx2_or_null();
  return best ? best : m2se_kernels_scalar();
}

const struct m2se_kernels *m2se_kernels_named(const char *name) {
  if (strcmp(name, "avx512") == 0)
    return avx512_or_null();
  if (strcmp(name, "avx2") == 0)
    return avx2_or_null();
  return strcmp(name, "scalar") == 0 ? m2se_kernels_scalar() : NULL;
}
