#include "daemon/server_waiting.h"

#include <stddef.h>

static struct m2sed_waiting_user *place(struct m2sed_waiting *waiting, uint64_t user_hash) {
  return &waiting->users[user_hash & (M2SED_WAITING_ENTRIES - 1)];
}

/* Numbers wrap around at 2^32; those compared lie in the ring together. */
static bool is_before(uint32_t a, uint32_t b) {
  return (int32_t)(a - b) < 0;
}

void m2sed_waiting_see(struct m2sed_waiting *waiting, struct m2sed_ring *ring) {
  const struct m2sed_serve_message *message;
  for (; (message = m2sed_ring_peek(ring, waiting->seen - waiting->first)) != NULL; waiting->seen++) {
    if (message->kind != M2SED_SERVE_USER || message->user_hash == 0) {
      continue;
    }
    struct m2sed_waiting_user *user = place(waiting, message->user_hash);
    bool unused = user->user_hash == 0 || is_before(user->newest, waiting->first);
    if (unused) {
      *user = (struct m2sed_waiting_user){.user_hash = message->user_hash};
    }
    if (user->user_hash == message->user_hash) {
      user->newest = waiting->seen;
    }
  }
}

struct m2sed_waiting_user *m2sed_waiting_entry(struct m2sed_waiting *waiting, uint64_t user_hash) {
  struct m2sed_waiting_user *user = place(waiting, user_hash);
  return user_hash != 0 && user->user_hash == user_hash ? user : NULL;
}

const struct m2sed_serve_message *m2sed_waiting_choose(struct m2sed_waiting *waiting, struct m2sed_ring *ring,
                                                       uint32_t ahead) {
  const struct m2sed_serve_message *message = m2sed_ring_peek(ring, ahead);
  struct m2sed_waiting_user *user = m2sed_waiting_entry(waiting, message->user_hash);
  uint32_t number = waiting->first + ahead;
  if (user == NULL) {
    return message;
  }
  if (user->served && !is_before(user->covered, number)) {
    return NULL;
  }
  user->served = true;
  user->covered = user->newest;
  user->by = message->tag;
  return m2sed_ring_peek(ring, user->newest - waiting->first);
}

void m2sed_waiting_release(struct m2sed_waiting *waiting, struct m2sed_ring *ring) {
  m2sed_ring_release(ring);
  waiting->first++;
  if (is_before(waiting->seen, waiting->first)) {
    waiting->seen = waiting->first;
  }
}
