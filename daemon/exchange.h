/* Copies of the weights on their way from trainer to server and back: two buffers, so that one is served
 * while the next is prepared. A buffer belongs to whoever took it last; no other memory is shared. */
#ifndef M2SED_EXCHANGE_H
#define M2SED_EXCHANGE_H

#include "daemon/ring.h"
#include "model/m2se.h"

struct m2sed_weights_copy {
  struct m2se_weights *weights;
  uint32_t slots;    /* items the trainer knew */
  float *popularity; /* [slots used]: events so far per item, decayed to the newest event */
};

struct m2sed_exchange {
  struct m2sed_weights_copy copies[2];
  struct m2sed_ring *ready; /* trainer -> server: pointers to copies */
  struct m2sed_ring *idle;  /* server -> trainer */
};

/* Slots of the learned item table: none if nothing is learned by item. Learner, copies and snapshots must
 * agree on it. */
static inline uint32_t m2sed_table_slots(const struct m2se_config *config, uint32_t items_max) {
  return config->item_residual || config->item_bias ? items_max : 0;
}

int m2sed_exchange_new(struct m2sed_exchange **exchange, const struct m2se_config *config, uint32_t items_max,
                       struct m2se_error *error);
void m2sed_exchange_free(struct m2sed_exchange *exchange);
/* Takes the oldest pointer from one of the two rings, or NULL. */
struct m2sed_weights_copy *m2sed_exchange_take(struct m2sed_ring *ring);
void m2sed_exchange_give(struct m2sed_ring *ring, struct m2sed_weights_copy *copy);

#endif
