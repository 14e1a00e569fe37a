/* Is most of what comes garbage? A circuit breaker over the last `window` interactions.
 *
 * DESIGN. A producer that writes another format by mistake would fill the dead-letter topic with a whole
 * stream, while users' vectors grow stale and nobody looks. So when more than `share` of the last `window`
 * records broke a rule of decoding, the breaker opens, and stays open until somebody closes it; then it looks
 * at a new window. It is a function of the records that were taken since the start or since it was closed
 * last, in their order; not of the clock. No I/O. Thread: the loop's.
 */
#ifndef M2SED_GARBAGE_H
#define M2SED_GARBAGE_H

#include <stdbool.h>
#include <stdint.h>

struct m2sed_garbage {
  uint32_t window;
  double share; /* 1: never opens */
  uint8_t *bad; /* [window], used as a ring */
  uint32_t seen, next, bad_count;
  bool open;
};

int m2sed_garbage_init(struct m2sed_garbage *garbage, uint32_t window, double share); /* M2SE_ENOMEM */
void m2sed_garbage_deinit(struct m2sed_garbage *garbage);
/* One more record. True: with this one it opens; not before `window` records have been seen. */
bool m2sed_garbage_count(struct m2sed_garbage *garbage, bool bad);
void m2sed_garbage_close(struct m2sed_garbage *garbage);

#endif
