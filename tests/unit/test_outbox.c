// The queue in front of a ring: order, growth, emptying as the ring gets room.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/outbox.h"

static void test_order_over_many_rounds(void **state) {
  (void)state;
  struct m2sed_ring *ring;
  struct m2sed_outbox outbox;
  assert_int_equal(m2sed_ring_new(&ring, 8, sizeof(uint64_t)), 0);
  m2sed_outbox_init(&outbox, ring, sizeof(uint64_t));
  uint64_t put = 0, got = 0;
  for (uint32_t round = 0; round < 200; round++) {
    for (uint32_t i = 0; i < round % 37; i++, put++)
      assert_int_equal(m2sed_outbox_put(&outbox, &put), 0);
    for (uint32_t i = 0; i < (round * 7) % 31; i++) {
      const uint64_t *message = m2sed_ring_peek(ring, 0);
      if (!message) {
        assert_int_equal(got, put - outbox.count);
        break;
      }
      assert_int_equal(*message, got++);
      m2sed_ring_release(ring);
      m2sed_outbox_flush(&outbox);
    }
  }
  while (got < put) {
    const uint64_t *message = m2sed_ring_peek(ring, 0);
    assert_non_null(message);
    assert_int_equal(*message, got++);
    m2sed_ring_release(ring);
    m2sed_outbox_flush(&outbox);
  }
  assert_true(m2sed_outbox_flush(&outbox));
  assert_null(m2sed_ring_peek(ring, 0));
  m2sed_outbox_free(&outbox);
  m2sed_ring_free(ring);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_order_over_many_rounds)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
