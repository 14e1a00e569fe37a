/* See kernels_data.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above first */
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "kernels_data.h"

/* Elements on either side of a buffer that nothing may write. Not a multiple of a vector, so that no buffer
 * is aligned by luck. AddressSanitizer watches the ends itself, for reads as well, if nothing is in its way.
 */
#if defined(__SANITIZE_ADDRESS__)
static const size_t guard = 0;
#else
static const size_t guard = 17;
#endif
static const m2se_real guard_value = (m2se_real)-12345.5;

uint32_t data_next(void) {
  static uint64_t x = 88172645463325252u; /* xorshift: good enough to make every element different */
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return (uint32_t)(x >> 32);
}

m2se_real data_number(void) {
  return (m2se_real)((double)data_next() / 2147483648.0 - 1);
}

m2se_real *data_new(size_t n, m2se_real scale) {
  m2se_real *p = malloc((n + 2 * guard) * sizeof(*p));
  assert_non_null(p);
  for (size_t i = 0; i < n + 2 * guard; i++)
    p[i] = i < guard || i >= n + guard ? guard_value : scale * data_number();
  return p + guard;
}

m2se_real *data_copy(const m2se_real *from, size_t n) {
  m2se_real *p = data_new(n, 0);
  memcpy(p, from, n * sizeof(*p));
  return p;
}

void data_free(m2se_real *p, size_t n) {
  for (size_t i = 0; i < guard; i++)
    if (p[-1 - (ptrdiff_t)i] != guard_value || p[n + i] != guard_value)
      fail_msg("written outside a buffer of %zu elements", n);
  free(p - guard);
}

struct m2se_dropout data_dropout(double p) {
  struct m2se_dropout drop = {.stream = {.key = {7, 11, 13, 17}, .purpose = 5}};
  drop.threshold = (uint32_t)(p * 65536 + 0.5);
  drop.scale = (m2se_real)(65536.0 / (65536.0 - drop.threshold));
  return drop;
}
