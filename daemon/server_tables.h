/* The states and vectors of all items under one copy of the weights, and which of them are still to be
 * encoded. Part of the server; its thread only. */
#ifndef M2SED_SERVER_TABLES_H
#define M2SED_SERVER_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/exchange.h"
#include "daemon/item_record.h"
#include "daemon/server.h"
#include "model/m2se_serve.h"

enum { M2SED_ITEM_BLOCK = 64 };

/* What all tables of a server share. */
struct m2sed_catalogue_view {
  struct m2se_server *encoder;
  struct m2sed_item_record **records; /* [items_max] by slot */
  uint32_t items_max, slots;          /* slots: used so far */
  uint32_t state_floats, dim;         /* 2h, and the width of a vector */
  uint32_t block;                     /* items encoded at a time */
  float *block_states;                /* [block, 2h], scratch */
  double popularity_weight, popularity_prior;
};

struct m2sed_table {
  struct m2sed_weights_copy *copy; /* NULL: no epoch */
  uint64_t epoch, step;
  bool announced;  /* M2SED_SERVED_EPOCH was sent */
  float *states;   /* [items_max, 2h] */
  float *vectors;  /* [items_max, dim], or NULL: nobody ranks with them */
  bool *encoded;   /* [items_max]: states and vectors are there */
  bool *queued;    /* [items_max] */
  uint32_t *queue; /* [items_max], a circle: each slot is in it once at most */
  uint32_t queue_first, queue_count;
};

int m2sed_table_init(struct m2sed_table *table, const struct m2sed_catalogue_view *view, bool keep_vectors);
void m2sed_table_deinit(struct m2sed_table *table);

/* Begins an epoch: nothing is encoded, all items with features are queued. */
void m2sed_table_begin(struct m2sed_table *table, const struct m2sed_catalogue_view *view,
                       struct m2sed_weights_copy *copy, uint64_t epoch);
/* The record of `slot` is another now. */
void m2sed_table_refresh(struct m2sed_table *table, const struct m2sed_catalogue_view *view, uint32_t slot);
/* Encodes the given items, at most view->block of them, and fills the answer (kind, epoch, slots, vectors).
 * An item whose vector is not finite is left out of both. */
void m2sed_table_encode(struct m2sed_table *table, const struct m2sed_catalogue_view *view,
                        const uint32_t *slots, uint32_t count, struct m2sed_served_message *message);
/* Takes up to view->block slots off the queue that are still to be encoded. Returns how many. */
uint32_t m2sed_table_next(struct m2sed_table *table, const struct m2sed_catalogue_view *view,
                          uint32_t *slots);

/* Nothing that is not finite leaves the server, whatever the features were. */
bool m2sed_vector_finite(const float *x, uint32_t n);

#endif
