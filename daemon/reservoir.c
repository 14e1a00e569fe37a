#include "daemon/reservoir.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/random.h"

int m2sed_reservoir_init(struct m2sed_reservoir *reservoir, uint32_t capacity, uint64_t seed) {
  *reservoir = (struct m2sed_reservoir){.seed = seed, .capacity = capacity};
  if (capacity > 0) {
    reservoir->examples = calloc(capacity, sizeof *reservoir->examples);
    if (reservoir->examples == NULL) {
      return M2SE_ENOMEM;
    }
  }
  return 0;
}

void m2sed_reservoir_deinit(struct m2sed_reservoir *reservoir) {
  free(reservoir->examples);
  *reservoir = (struct m2sed_reservoir){0};
}

void m2sed_reservoir_restore(struct m2sed_reservoir *reservoir, const struct m2sed_example *examples,
                             uint32_t count, uint64_t seen) {
  assert(count <= seen);
  reservoir->count = count < reservoir->capacity ? count : reservoir->capacity;
  reservoir->seen = seen;
  if (reservoir->count > 0) {
    memcpy(reservoir->examples, examples, reservoir->count * sizeof *examples);
  }
}

void m2sed_reservoir_add(struct m2sed_reservoir *reservoir, const struct m2sed_example *example) {
  reservoir->seen++;
  if (reservoir->count < reservoir->capacity) {
    reservoir->examples[reservoir->count++] = *example;
    return;
  }
  uint64_t place =
      m2se_random_below(reservoir->seed, 0, M2SE_RANDOM_RESERVOIR, reservoir->seen, reservoir->seen);
  if (place < reservoir->capacity) {
    reservoir->examples[place] = *example;
  }
}

void m2sed_reservoir_forget(struct m2sed_reservoir *reservoir, uint64_t user_hash) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < reservoir->count; i++) {
    if (reservoir->examples[i].user_hash != user_hash) {
      reservoir->examples[kept++] = reservoir->examples[i];
    }
  }
  reservoir->count = kept;
}

uint32_t m2sed_reservoir_draw(const struct m2sed_reservoir *reservoir, uint64_t step, uint32_t index) {
  assert(reservoir->count >= 1);
  return (uint32_t)m2se_random_below(reservoir->seed, step, M2SE_RANDOM_REPLAY, index, reservoir->count);
}
