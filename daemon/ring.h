/* A bounded ring of fixed-size messages between two threads, and the waker with which a thread sleeps.
 *
 * DESIGN. One thread produces, one consumes. claim gives the producer a slot to fill in place, publish hands
 * it over; peek gives the consumer the oldest message in place, release hands the slot back. No lock and no
 * system call on this path. Who must hear about it is told by a callback at each end: `on_message` after a
 * publish, `on_room` once a ring that had refused a claim is half empty again. The event loop gives
 * uv_async_send there, a thread its waker, which costs one load while the thread is awake. A thread with
 * several rings has one waker: it looks at all of them, and sleeps only when all are empty.
 */
#ifndef M2SED_RING_H
#define M2SED_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct m2sed_notify {
  void (*call)(void *arg); /* NULL: nobody is told */
  void *arg;
};

struct m2sed_ring;

/* capacity is rounded up to a power of two, at most 2^20. Slots are zero at first and aligned to 64 bytes.
 * M2SE_ENOMEM. */
int m2sed_ring_new(struct m2sed_ring **ring, uint32_t capacity, size_t message_bytes);
void m2sed_ring_free(struct m2sed_ring *ring); /* NULL is allowed; nobody uses it any more */

/* Before the two threads start. The callback runs in the producer's (on_message) or the consumer's (on_room)
 * thread and may neither block nor use the ring. */
void m2sed_ring_on_message(struct m2sed_ring *ring, struct m2sed_notify notify);
void m2sed_ring_on_room(struct m2sed_ring *ring, struct m2sed_notify notify);

/* ---- producer ---- */
/* The next free slot (its old content is still in it), or NULL: the ring is full, on_room will be called when
 * it is half empty. Claiming twice without a publish gives the same slot. */
void *m2sed_ring_claim(struct m2sed_ring *ring);
void m2sed_ring_publish(struct m2sed_ring *ring);

/* ---- consumer ---- */
/* The message `ahead` places behind the oldest (0: the oldest), or NULL if there are not that many. It stays
 * valid until released; messages are released in order, one a call. */
void *m2sed_ring_peek(struct m2sed_ring *ring, uint32_t ahead);
void m2sed_ring_release(struct m2sed_ring *ring);

/* ---- either of the two; others get an estimate ---- */
uint32_t m2sed_ring_used(const struct m2sed_ring *ring);
uint32_t m2sed_ring_capacity(const struct m2sed_ring *ring);

/* ---- sleeping: one thread sleeps, any thread wakes ---- */
struct m2sed_waker {
  atomic_uint state;
  atomic_bool waits; /* its thread is in sleep or nap */
};
/* `while (nothing to do) { m2sed_waker_prepare(w); if (something to do) { m2sed_waker_cancel(w); break; }
 * m2sed_waker_sleep(w); }`: a wake between prepare and sleep is not lost. sleep may return without reason. */
void m2sed_waker_prepare(struct m2sed_waker *waker);
void m2sed_waker_cancel(struct m2sed_waker *waker);
void m2sed_waker_sleep(struct m2sed_waker *waker);
void m2sed_waker_nap(struct m2sed_waker *waker, int64_t ns_max); /* the same, for so long at most */
void m2sed_waker_wake(struct m2sed_waker *waker);
/* The thread sleeps and nobody has woken it so far. Any thread. */
bool m2sed_waker_is_asleep(const struct m2sed_waker *waker);
struct m2sed_notify m2sed_waker_notify(struct m2sed_waker *waker); /* a callback that wakes it */

/* claim that sleeps until there is room; the ring's on_room wakes `waker`. Not for the loop. */
void *m2sed_ring_claim_wait(struct m2sed_ring *ring, struct m2sed_waker *waker);

#endif
