/* Whose generations count, when several daemons share a checkpoint folder one after the other: the files
 * DIR/fence-NNNNNNNNNN, of which the highest number holds and says from which generation that daemon went on.
 * A generation above that one, written with a lower fence, came from a daemon that had been replaced: nobody
 * loads it. No lock, since a stopped process would keep it. Blocks on the disk: not for the loop thread while
 * it serves. */
#ifndef M2SED_FENCE_H
#define M2SED_FENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/error.h"

struct m2sed_fence {
  uint64_t number; /* 0: there never was one */
  uint64_t from;   /* the generation it went on from; 0: none */
};

/* The highest one; a directory that is not there has none. */
int m2sed_fence_newest(const char *dir, struct m2sed_fence *fence, struct m2se_error *error);
/* Makes it durable, then removes lower ones. M2SE_EDROPPED: an equal or a higher one is there already. */
int m2sed_fence_begin(const char *dir, const struct m2sed_fence *fence, struct m2se_error *error);
/* Does a generation written with fence `written` count? */
bool m2sed_fence_admits(const struct m2sed_fence *fence, uint64_t generation, uint64_t written);

#endif
