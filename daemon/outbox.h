/* What the loop puts in front of a ring: a queue that takes messages while the ring is full, so that the loop
 * neither waits nor drops. It stays short, because nothing new is read from Kafka while it holds anything.
 * Loop thread.
 */
#ifndef M2SED_OUTBOX_H
#define M2SED_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/ring.h"

struct m2sed_outbox {
  struct m2sed_ring *ring;
  size_t message_bytes;
  char *messages; /* [capacity], used as a ring */
  uint32_t first, count, capacity;
};

void m2sed_outbox_init(struct m2sed_outbox *outbox, struct m2sed_ring *ring, size_t message_bytes);
void m2sed_outbox_free(
    struct m2sed_outbox *outbox); /* messages that are left go with it: nobody reads the ring */
/* Copies the message into the ring, or into the queue behind those that wait already. M2SE_ENOMEM: not taken.
 */
int m2sed_outbox_put(struct m2sed_outbox *outbox, const void *message);
/* Moves what fits into the ring. True: nothing waits any more. */
bool m2sed_outbox_flush(struct m2sed_outbox *outbox);

#endif
