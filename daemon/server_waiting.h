/* Users who wait more than once: the newest of their sequences serves them all. Part of the server; its
 * thread only.
 *
 * DESIGN. Under load a user's next event comes while the one before still waits. The vector for the first is
 * then made of the newest sequence that waits, and the others are answered without one: readers see it
 * sooner, and the users with most events, whose sequences are the longest, cost least. Messages are numbered
 * as they lie in the ring. An entry is kept until the last message it speaks of is answered; a user whose
 * place in the table is taken is served one message after the other. */
#ifndef M2SED_SERVER_WAITING_H
#define M2SED_SERVER_WAITING_H

#include "daemon/messages.h"
#include "daemon/ring.h"

enum { M2SED_WAITING_ENTRIES = 1 << 13 };

struct m2sed_waiting_user {
  uint64_t user_hash; /* 0: none yet */
  uint32_t newest;    /* message of this user */
  uint32_t covered;   /* if served: messages up to this one have their vector */
  bool served;
  bool vector; /* there was one */
  uint64_t by; /* tag of the message that was served */
};

struct m2sed_waiting { /* zero at first */
  struct m2sed_waiting_user users[M2SED_WAITING_ENTRIES];
  uint32_t first; /* number of the oldest message in the ring */
  uint32_t seen;  /* messages before this one are in the table */
};

/* Looks at the messages that have come since. */
void m2sed_waiting_see(struct m2sed_waiting *waiting, struct m2sed_ring *ring);
/* For the message `ahead` of the oldest: the one whose sequence serves it, perhaps itself; NULL: another has
 * served it, so that m2sed_waiting_entry says which. */
const struct m2sed_serve_message *m2sed_waiting_choose(struct m2sed_waiting *waiting, struct m2sed_ring *ring,
                                                       uint32_t ahead);
/* NULL: this user is served one message after the other. Good until the message is released. */
struct m2sed_waiting_user *m2sed_waiting_entry(struct m2sed_waiting *waiting, uint64_t user_hash);
/* Releases the oldest message. */
void m2sed_waiting_release(struct m2sed_waiting *waiting, struct m2sed_ring *ring);

#endif
