#include "daemon/ring.h"

#include <assert.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "model/error.h"

/* head and tail count messages since the beginning and wrap around at 2^32; the capacity is a power of two,
 * so their difference and their remainder stay right. They are sequentially consistent because a store of one
 * must be ordered before the load of room_wanted (or the waker's state) that follows it. */
struct m2sed_ring {
  _Alignas(64) atomic_uint head; /* published so far; written by the producer */
  _Alignas(64) atomic_uint tail; /* released so far; written by the consumer */
  atomic_bool room_wanted;       /* a claim was refused */
  _Alignas(64) uint32_t capacity;
  size_t stride;
  unsigned char *slots;
  struct m2sed_notify on_message, on_room;
};

int m2sed_ring_new(struct m2sed_ring **ring, uint32_t capacity, size_t message_bytes) {
  assert(capacity >= 1 && capacity <= 1u << 20 && message_bytes >= 1 && message_bytes <= 1u << 24);
  uint32_t rounded = 1;
  while (rounded < capacity) {
    rounded *= 2;
  }
  *ring = NULL;
  struct m2sed_ring *r = aligned_alloc(64, sizeof *r);
  if (r == NULL) {
    return M2SE_ENOMEM;
  }
  memset(r, 0, sizeof *r);
  r->capacity = rounded;
  r->stride = (message_bytes + 63) / 64 * 64;
  r->slots = aligned_alloc(64, r->capacity * r->stride);
  if (r->slots == NULL) {
    free(r);
    return M2SE_ENOMEM;
  }
  memset(r->slots, 0, r->capacity * r->stride);
  atomic_init(&r->head, 0);
  atomic_init(&r->tail, 0);
  atomic_init(&r->room_wanted, false);
  *ring = r;
  return 0;
}

void m2sed_ring_free(struct m2sed_ring *ring) {
  if (ring != NULL) {
    free(ring->slots);
    free(ring);
  }
}

void m2sed_ring_on_message(struct m2sed_ring *ring, struct m2sed_notify notify) {
  ring->on_message = notify;
}

void m2sed_ring_on_room(struct m2sed_ring *ring, struct m2sed_notify notify) {
  ring->on_room = notify;
}

static void notify_call(const struct m2sed_notify *notify) {
  if (notify->call != NULL) {
    notify->call(notify->arg);
  }
}

static void *slot_at(const struct m2sed_ring *ring, uint32_t number) {
  return ring->slots + (number & (ring->capacity - 1)) * ring->stride;
}

void *m2sed_ring_claim(struct m2sed_ring *ring) {
  uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
  if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) < ring->capacity) {
    return slot_at(ring, head);
  }
  /* Say first that room is wanted, then look again: else the consumer could empty the ring in between, tell
   * nobody, and the producer would wait for ever. */
  atomic_store(&ring->room_wanted, true);
  return head - atomic_load(&ring->tail) < ring->capacity ? slot_at(ring, head) : NULL;
}

void m2sed_ring_publish(struct m2sed_ring *ring) {
  uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
  assert(head - atomic_load(&ring->tail) < ring->capacity);
  atomic_store(&ring->head, head + 1);
  notify_call(&ring->on_message);
}

void *m2sed_ring_peek(struct m2sed_ring *ring, uint32_t ahead) {
  uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
  return atomic_load(&ring->head) - tail > ahead ? slot_at(ring, tail + ahead) : NULL;
}

void m2sed_ring_release(struct m2sed_ring *ring) {
  uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
  uint32_t used = atomic_load(&ring->head) - tail;
  assert(used >= 1);
  atomic_store(&ring->tail, tail + 1);
  if (used - 1 <= ring->capacity / 2 && atomic_load(&ring->room_wanted) &&
      atomic_exchange(&ring->room_wanted, false)) {
    notify_call(&ring->on_room);
  }
}

uint32_t m2sed_ring_used(const struct m2sed_ring *ring) {
  uint32_t tail = atomic_load(&ring->tail); /* before head: the difference is never negative */
  uint32_t used = atomic_load(&ring->head) - tail;
  return used < ring->capacity ? used : ring->capacity;
}

uint32_t m2sed_ring_capacity(const struct m2sed_ring *ring) {
  return ring->capacity;
}

/* ---- waker ---- */

enum { WAKER_AWAKE, WAKER_SLEEPS };

void m2sed_waker_prepare(struct m2sed_waker *waker) {
  atomic_store(&waker->state, WAKER_SLEEPS);
}

void m2sed_waker_cancel(struct m2sed_waker *waker) {
  atomic_store(&waker->state, WAKER_AWAKE);
}

void m2sed_waker_sleep(struct m2sed_waker *waker) {
  atomic_store(&waker->waits, true);
  while (atomic_load(&waker->state) == WAKER_SLEEPS) {
    /* Returns at once if the state has changed since; a signal only means another round. */
    syscall(SYS_futex, &waker->state, FUTEX_WAIT_PRIVATE, WAKER_SLEEPS, NULL, NULL, 0);
  }
  atomic_store(&waker->waits, false);
}

void m2sed_waker_nap(struct m2sed_waker *waker, int64_t ns_max) {
  assert(ns_max >= 0);
  struct timespec wait = {ns_max / 1000000000, ns_max % 1000000000};
  atomic_store(&waker->waits, true);
  syscall(SYS_futex, &waker->state, FUTEX_WAIT_PRIVATE, WAKER_SLEEPS, &wait, NULL, 0);
  atomic_store(&waker->waits, false);
  m2sed_waker_cancel(waker);
}

bool m2sed_waker_is_asleep(const struct m2sed_waker *waker) {
  return atomic_load(&waker->waits) && atomic_load(&waker->state) == WAKER_SLEEPS;
}

void m2sed_waker_wake(struct m2sed_waker *waker) {
  if (atomic_load(&waker->state) == WAKER_SLEEPS &&
      atomic_exchange(&waker->state, WAKER_AWAKE) == WAKER_SLEEPS) {
    syscall(SYS_futex, &waker->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  }
}

static void wake_callback(void *arg) {
  m2sed_waker_wake(arg);
}

struct m2sed_notify m2sed_waker_notify(struct m2sed_waker *waker) {
  return (struct m2sed_notify){wake_callback, waker};
}

void *m2sed_ring_claim_wait(struct m2sed_ring *ring, struct m2sed_waker *waker) {
  for (;;) {
    void *slot = m2sed_ring_claim(ring);
    if (slot != NULL) {
      return slot;
    }
    m2sed_waker_prepare(waker);
    slot = m2sed_ring_claim(ring);
    if (slot != NULL) {
      m2sed_waker_cancel(waker);
      return slot;
    }
    m2sed_waker_sleep(waker);
  }
}
