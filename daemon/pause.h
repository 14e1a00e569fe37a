/* Consumption paused by an operator: a file DIR/paused in the folder of the checkpoints, with one line that
 * says who, when and why. It holds across restarts, until it is removed: by `m2sectl resume`, or by hand. */
#ifndef M2SED_PAUSE_H
#define M2SED_PAUSE_H

#include <stdbool.h>

#include "model/error.h"

enum { M2SED_PAUSE_BYTES_MAX = 200 };

struct m2sed_pause {
  bool holds;
  char note[M2SED_PAUSE_BYTES_MAX + 1]; /* the first line, control characters left out; may be empty */
};

/* A file that cannot be read holds as well: nothing is consumed by mistake. */
void m2sed_pause_read(const char *directory, struct m2sed_pause *pause);

/* Takes the place of what is there. M2SE_EIO, M2SE_ELIMIT (the path is too long). */
int m2sed_pause_set(const char *directory, const char *note, struct m2se_error *error);
/* M2SE_EMISSING: there is none. M2SE_EIO, M2SE_ELIMIT. */
int m2sed_pause_clear(const char *directory, struct m2se_error *error);

#endif
