/* Which of several daemons is active: a lease in Redis (lease.lua) with a fencing number that rises with
 * every change of owner, on a connection of its own.
 *
 * DESIGN. A lease alone stops nobody: its owner may be held up, and go on long after it has run out. So every
 * other connection of an owner is guarded (redis.h): it takes the name "m2sed-TAG-FENCE" and only then asks
 * whether FENCE still holds the lease, and sends nothing of its work before the answer. A new owner has the
 * lease first, then lists the clients, then ends those with its tag and a lower fence. No command of an old
 * owner comes through after that: a connection named before the list was made is in it, and is ended; one
 * named later asks after the lease has changed hands, and is refused.
 *
 * Thread of the loop. Callbacks run from the loop.
 */
#ifndef M2SE_LEASE_H
#define M2SE_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "ingest/redis.h"
#include "model/error.h"

struct m2se_lease;

struct m2se_lease_settings {
  const char *uri;                                 /* as in redis.h */
  const char *prefix;                              /* of the keys; checked. What shares it is one lineage */
  const char *owner;                               /* a name that no other process has, 1..127 bytes */
  uint32_t lease_ms;                               /* > 0 */
  uint32_t timeout_ms;                             /* of the connection */
  void (*held)(void *context, uint64_t fence);     /* taken, or renewed */
  void (*others)(void *context, int64_t left_ms);  /* another one has it for so long */
  void (*lost)(void *context);                     /* it was ours */
  void (*expelled)(void *context, uint32_t count); /* so many connections were ended */
  void (*failed)(void *context, const char *why);  /* what is stored there is no lease, or not permitted */
  void *context;
};

/* Copies all strings. M2SE_EINVAL, M2SE_ENOMEM. The loop outlives the lease. */
int m2se_lease_new(struct m2se_lease **lease, struct uv_loop_s *loop,
                   const struct m2se_lease_settings *settings, struct m2se_error *error);
/* Takes the lease with a fence above `floor`, or renews it. Nothing while the last answer has not come: with
 * Redis away nobody gets a lease, and who has it keeps it. */
void m2se_lease_ask(struct m2se_lease *lease, uint64_t floor);
/* Ends the guarded connections of lower fences. Held. */
void m2se_lease_expel(struct m2se_lease *lease);
/* Every connection that writes for the owner has this name (redis.h, settings) and this guard, its first: it
 * bars them once the lease is another's, or gone. Both good as long as the lease. Held. */
const char *m2se_lease_connection_name(const struct m2se_lease *lease);
void m2se_lease_add_guard(struct m2se_lease *lease, struct m2se_redis *redis);
/* Gives it back, so that nobody has to wait until it runs out. */
void m2se_lease_release(struct m2se_lease *lease);
bool m2se_lease_idle(const struct m2se_lease *lease); /* everything is answered */
void m2se_lease_close(struct m2se_lease *lease, void (*closed)(void *context), void *context);
void m2se_lease_free(struct m2se_lease *lease); /* closed, or NULL */

#endif
