/* A private redis-server for the embedded mode: on a unix socket in a directory of its own, with an
 * append-only file there.
 *
 * It ends with the thread that started it (call from the main thread), however that ends: the kernel sends it
 * SIGTERM. A lock on the directory makes a new one wait until the old one has written its data and is gone.
 * Blocking calls: before the loop runs and after.
 */
#ifndef M2SE_REDIS_CHILD_H
#define M2SE_REDIS_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include "model/error.h"

struct m2se_redis_child;

/* directory is made if it is not there; it holds redis.sock, redis.log, redis.lock and appendonlydir/. Waits
 * until the server answers. M2SE_EMISSING: redis-server is not in PATH; M2SE_ELIMIT: the path is too long for
 * a socket (107 bytes); M2SE_EIO: all else, with the end of redis.log. */
int m2se_redis_child_start(struct m2se_redis_child **child, const char *directory, uint32_t timeout_ms,
                           struct m2se_error *error);
const char *m2se_redis_child_uri(const struct m2se_redis_child *child); /* unix:///... */
int m2se_redis_child_pid(const struct m2se_redis_child *child);
/* Does it still run? Does not block. */
bool m2se_redis_child_alive(struct m2se_redis_child *child);
/* Lets it write its data and end, by force after timeout_ms (then M2SE_EIO); frees child. NULL is allowed. */
int m2se_redis_child_stop(struct m2se_redis_child *child, uint32_t timeout_ms, struct m2se_error *error);

#endif
