/* One daemon a state directory: an exclusive lock on DIR/lock that ends with the process, however it ends. */
#ifndef M2SED_LOCK_H
#define M2SED_LOCK_H

#include "model/error.h"

struct m2sed_lock {
  int fd; /* -1: not held */
};

/* The directory exists. M2SE_EIO: held by another process (its pid is in the text), or the system refused. */
int m2sed_lock_take(struct m2sed_lock *lock, const char *directory, struct m2se_error *error);
void m2sed_lock_release(struct m2sed_lock *lock);

#endif
