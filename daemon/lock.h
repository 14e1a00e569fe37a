/* One daemon a state directory, or several with a lease: a lock on DIR/lock that ends with the process,
 * however it ends. */
#ifndef M2SED_LOCK_H
#define M2SED_LOCK_H

#include <stdbool.h>

#include "model/error.h"

struct m2sed_lock {
  int fd; /* -1: not held */
};

/* The directory exists. shared: beside others that share it; they and one that does not keep each other out.
 * M2SE_EIO: held by another process (its pid is in the text if it does not share), or the system refused. */
int m2sed_lock_take(struct m2sed_lock *lock, const char *directory, bool shared, struct m2se_error *error);
void m2sed_lock_release(struct m2sed_lock *lock);

#endif
