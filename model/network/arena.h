/* One block of memory, carved twice by the same code: first without memory to measure, then for real.
 * So a structure of many arrays costs one allocation, and the list of arrays stands in one place. */
#ifndef M2SE_ARENA_H
#define M2SE_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct m2se_arena {
  char *base; /* NULL while measuring */
  size_t used;
};

/* The next `count` elements of `bytes` each, 64-byte aligned; NULL while measuring. */
static inline void *m2se_arena_take(struct m2se_arena *arena, size_t count, size_t bytes) {
  char *p = arena->base ? arena->base + arena->used : NULL;
  arena->used += (count * bytes + 63) & ~(size_t)63;
  return p;
}
#define M2SE_TAKE(arena, pointer, count) ((pointer) = m2se_arena_take((arena), (count), sizeof *(pointer)))

#endif
