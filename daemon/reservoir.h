/* A uniform sample of the examples trained so far (Vitter's algorithm R), from which replay draws.
 * Its content is a function of the seed and of the examples given to it, in order. One thread at a time. */
#ifndef M2SED_RESERVOIR_H
#define M2SED_RESERVOIR_H

#include <stdint.h>

#include "daemon/checkpoint.h"

struct m2sed_reservoir {
  uint64_t seed;
  uint32_t capacity, count;
  uint64_t seen;                  /* examples given so far */
  struct m2sed_example *examples; /* [capacity] */
};

/* capacity may be 0: nothing is kept, nothing drawn. M2SE_ENOMEM. */
int m2sed_reservoir_init(struct m2sed_reservoir *reservoir, uint32_t capacity, uint64_t seed);
void m2sed_reservoir_deinit(struct m2sed_reservoir *reservoir);
/* From a checkpoint. If the capacity is smaller than it was, the rest is left out: any part of a uniform
 * sample that is chosen without looking is one too. */
void m2sed_reservoir_restore(struct m2sed_reservoir *reservoir, const struct m2sed_example *examples,
                             uint32_t count, uint64_t seen);
void m2sed_reservoir_add(struct m2sed_reservoir *reservoir, const struct m2sed_example *example);
/* Those of that user go. Newer examples fill their places, so for a while they are more than their share. */
void m2sed_reservoir_forget(struct m2sed_reservoir *reservoir, uint64_t user_hash);
/* Place of the example that draw `index` of `step` takes, 0..count-1. count >= 1. */
uint32_t m2sed_reservoir_draw(const struct m2sed_reservoir *reservoir, uint64_t step, uint32_t index);

#endif
