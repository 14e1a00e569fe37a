/* The ring between two threads: order, fullness, callbacks, no lost wake-up. ThreadSanitizer runs this too.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/item_record.h"
#include "daemon/ring.h"

struct numbered {
  uint64_t number;
  uint64_t square;
  unsigned char filling[100];
};

static void count_call(void *arg) {
  ++*(int *)arg;
}

static void test_order_and_fullness(void **state) {
  (void)state;
  struct m2sed_ring *ring;
  int messages = 0, rooms = 0;
  assert_int_equal(m2sed_ring_new(&ring, 5, sizeof(struct numbered)), 0);
  assert_int_equal(m2sed_ring_capacity(ring), 8);
  m2sed_ring_on_message(ring, (struct m2sed_notify){count_call, &messages});
  m2sed_ring_on_room(ring, (struct m2sed_notify){count_call, &rooms});
  assert_null(m2sed_ring_peek(ring, 0));
  for (uint64_t lap = 0; lap < 5; lap++) {
    for (uint64_t i = 0; i < 8; i++) {
      struct numbered *slot = m2sed_ring_claim(ring);
      assert_non_null(slot);
      assert_ptr_equal(slot, m2sed_ring_claim(ring));
      assert_int_equal((uintptr_t)slot % 64, 0);
      slot->number = lap * 8 + i;
      m2sed_ring_publish(ring);
      assert_int_equal(m2sed_ring_used(ring), i + 1);
    }
    assert_null(m2sed_ring_claim(ring));
    assert_int_equal(messages, (lap + 1) * 8);
    for (uint32_t i = 0; i < 8; i++) {
      assert_int_equal(((struct numbered *)m2sed_ring_peek(ring, i))->number, lap * 8 + i);
    }
    assert_null(m2sed_ring_peek(ring, 8));
    for (uint32_t i = 0; i < 8; i++) {
      assert_int_equal(((struct numbered *)m2sed_ring_peek(ring, 0))->number, lap * 8 + i);
      m2sed_ring_release(ring);
      assert_int_equal(rooms, lap + (i >= 3)); /* once, when half is free again */
    }
    assert_null(m2sed_ring_peek(ring, 0));
  }
  m2sed_ring_free(ring);
}

/* Nobody who was not refused is told of room. */
static void test_room_is_told_only_when_wanted(void **state) {
  (void)state;
  struct m2sed_ring *ring;
  int rooms = 0;
  assert_int_equal(m2sed_ring_new(&ring, 4, 8), 0);
  m2sed_ring_on_room(ring, (struct m2sed_notify){count_call, &rooms});
  for (int i = 0; i < 100; i++) {
    assert_non_null(m2sed_ring_claim(ring));
    m2sed_ring_publish(ring);
    m2sed_ring_release(ring);
  }
  assert_int_equal(rooms, 0);
  m2sed_ring_free(ring);
}

enum { MESSAGES = 200000 };
struct pipeline {
  struct m2sed_ring *in, *out;
  struct m2sed_waker loop_waker, worker_waker;
};

static void *square_numbers(void *arg) {
  struct pipeline *p = arg;
  for (uint64_t expected = 0; expected < MESSAGES; expected++) {
    struct numbered *message;
    while ((message = m2sed_ring_peek(p->in, 0)) == NULL) {
      m2sed_waker_prepare(&p->worker_waker);
      if (m2sed_ring_peek(p->in, 0) != NULL) {
        m2sed_waker_cancel(&p->worker_waker);
      } else {
        m2sed_waker_sleep(&p->worker_waker);
      }
    }
    if (message->number != expected) {
      return NULL;
    }
    struct numbered *answer = m2sed_ring_claim_wait(p->out, &p->worker_waker);
    answer->number = message->number;
    answer->square = message->number * message->number;
    m2sed_ring_release(p->in);
    m2sed_ring_publish(p->out);
  }
  return p;
}

/* As in the daemon: the loop is at both ends and never waits in a claim; the worker sleeps on both its rings.
 * Small rings, so that both sides run full and empty all the time: a lost wake-up hangs the test. */
static void ping_pong(uint32_t capacity) {
  struct pipeline p = {0};
  pthread_t thread;
  assert_int_equal(m2sed_ring_new(&p.in, capacity, sizeof(struct numbered)), 0);
  assert_int_equal(m2sed_ring_new(&p.out, capacity, sizeof(struct numbered)), 0);
  m2sed_ring_on_message(p.in, m2sed_waker_notify(&p.worker_waker));
  m2sed_ring_on_room(p.in, m2sed_waker_notify(&p.loop_waker));
  m2sed_ring_on_message(p.out, m2sed_waker_notify(&p.loop_waker));
  m2sed_ring_on_room(p.out, m2sed_waker_notify(&p.worker_waker));
  assert_int_equal(pthread_create(&thread, NULL, square_numbers, &p), 0);
  uint64_t sent = 0, received = 0;
  while (received < MESSAGES) {
    m2sed_waker_prepare(&p.loop_waker);
    bool busy = false;
    struct numbered *slot;
    while (sent < MESSAGES && (slot = m2sed_ring_claim(p.in)) != NULL) {
      slot->number = sent++;
      m2sed_ring_publish(p.in);
      busy = true;
    }
    struct numbered *answer;
    while ((answer = m2sed_ring_peek(p.out, 0)) != NULL) {
      assert_int_equal(answer->number, received);
      assert_int_equal(answer->square, received * received);
      received++;
      m2sed_ring_release(p.out);
      busy = true;
    }
    if (busy) {
      m2sed_waker_cancel(&p.loop_waker);
    } else {
      m2sed_waker_sleep(&p.loop_waker);
    }
  }
  void *result;
  assert_int_equal(pthread_join(thread, &result), 0);
  assert_ptr_equal(result, &p);
  m2sed_ring_free(p.in);
  m2sed_ring_free(p.out);
}

static void test_two_threads(void **state) {
  (void)state;
  ping_pong(1);
  ping_pong(2);
  ping_pong(64);
}

static void *release_records(void *arg) {
  struct m2sed_item_record **records = arg;
  for (int i = 0; i < 1000; i++) {
    m2sed_item_record_release(records[i]);
  }
  return NULL;
}

static void test_records_are_shared(void **state) {
  (void)state;
  static struct m2sed_item_record *records[1000];
  const float text[3] = {1, 2, 3}, image[6] = {4, 5, 6, 7, 8, 9};
  for (uint32_t i = 0; i < 1000; i++) {
    records[i] = m2sed_item_record_new(i, "item id", 7, 3, text, 1, image, 2);
    assert_non_null(records[i]);
    assert_ptr_equal(m2sed_item_record_keep(records[i]), records[i]);
    assert_string_equal(records[i]->id, "item id");
    assert_memory_equal(records[i]->text, text, sizeof text);
    assert_memory_equal(records[i]->image, image, sizeof image);
  }
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, release_records, records), 0);
  release_records(records);
  assert_int_equal(pthread_join(thread, NULL), 0);
  m2sed_item_record_release(NULL);
  struct m2sed_item_record *bare = m2sed_item_record_new(7, "x", 1, 3, NULL, 0, NULL, 0);
  assert_int_equal(bare->slot, 7);
  assert_int_equal(bare->text_count + bare->image_count, 0);
  m2sed_item_record_release(bare);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_order_and_fullness),
      cmocka_unit_test(test_room_is_told_only_when_wanted),
      cmocka_unit_test(test_two_threads),
      cmocka_unit_test(test_records_are_shared),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
