#include "daemon/exchange.h"

#include <assert.h>
#include <stdlib.h>

enum { COPIES = 2 };

int m2sed_exchange_new(struct m2sed_exchange **exchange, const struct m2se_config *config, uint32_t items_max,
                       struct m2se_error *error) {
  int code = 0;
  *exchange = NULL;
  struct m2sed_exchange *e = calloc(1, sizeof *e);
  if (e == NULL || m2sed_ring_new(&e->ready, COPIES, sizeof(struct m2sed_weights_copy *)) < 0 ||
      m2sed_ring_new(&e->idle, COPIES, sizeof(struct m2sed_weights_copy *)) < 0) {
    code = m2se_error_set(error, M2SE_ENOMEM, "copies of the weights for serving");
  }
  for (uint32_t i = 0; i < COPIES && code == 0; i++) {
    code = m2se_weights_new(&e->copies[i].weights, config, m2sed_table_slots(config, items_max), error);
    e->copies[i].popularity = calloc(items_max, sizeof(float));
    if (code == 0 && e->copies[i].popularity == NULL) {
      code = m2se_error_set(error, M2SE_ENOMEM, "popularity counts for serving");
    }
    if (code == 0) {
      m2sed_exchange_give(e->idle, &e->copies[i]);
    }
  }
  if (code < 0) {
    m2sed_exchange_free(e);
    return code;
  }
  *exchange = e;
  return 0;
}

void m2sed_exchange_free(struct m2sed_exchange *exchange) {
  if (exchange == NULL) {
    return;
  }
  for (uint32_t i = 0; i < COPIES; i++) {
    m2se_weights_free(exchange->copies[i].weights);
    free(exchange->copies[i].popularity);
  }
  m2sed_ring_free(exchange->ready);
  m2sed_ring_free(exchange->idle);
  free(exchange);
}

struct m2sed_weights_copy *m2sed_exchange_take(struct m2sed_ring *ring) {
  struct m2sed_weights_copy **slot = m2sed_ring_peek(ring, 0);
  if (slot == NULL) {
    return NULL;
  }
  struct m2sed_weights_copy *copy = *slot;
  m2sed_ring_release(ring);
  return copy;
}

void m2sed_exchange_give(struct m2sed_ring *ring, struct m2sed_weights_copy *copy) {
  struct m2sed_weights_copy **slot = m2sed_ring_claim(ring);
  assert(slot != NULL); /* there are no more copies than places */
  *slot = copy;
  m2sed_ring_publish(ring);
}
