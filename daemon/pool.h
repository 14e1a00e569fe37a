/* The threads that compute: what the training lends to model/ as struct m2se_workers.
 * A worker without work spins for some microseconds (the tasks of one step come close together), then sleeps.
 */
#ifndef M2SED_POOL_H
#define M2SED_POOL_H

#include <stdint.h>

#include "model/m2se.h"

enum { M2SED_POOL_THREADS_MAX = 256 };

struct m2sed_pool;

/* threads: 1..M2SED_POOL_THREADS_MAX; the thread that calls run() is one of them. The others are lowered by
 * nice. M2SE_ENOMEM, M2SE_EINVAL, M2SE_EIO (no more threads: errno in the text). */
int m2sed_pool_new(struct m2sed_pool **pool, uint32_t threads, int nice, struct m2se_error *error);
/* The calling thread stands back: nice 0 (as it is) .. 19. Where that is forbidden, nothing changes. */
void m2sed_pool_lower_thread(int nice);
void m2sed_pool_free(struct m2sed_pool *pool); /* NULL is allowed; no run() is going on */
/* Valid as long as the pool; run() from one thread at a time, not from within a task. */
struct m2se_workers m2sed_pool_workers(struct m2sed_pool *pool);

#endif
