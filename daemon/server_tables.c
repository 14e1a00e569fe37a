#include "daemon/server_tables.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/batcher.h"

int m2sed_table_init(struct m2sed_table *table, const struct m2sed_catalogue_view *view, bool keep_vectors) {
  *table = (struct m2sed_table){0};
  /* Zeroed pages cost nothing until an item uses them, so room for items_max is not a waste. */
  table->states = calloc((size_t)view->items_max * view->state_floats, sizeof(float));
  table->encoded = calloc(view->items_max, sizeof(bool));
  table->queued = calloc(view->items_max, sizeof(bool));
  table->queue = calloc(view->items_max, sizeof(uint32_t));
  if (keep_vectors) {
    table->vectors = calloc((size_t)view->items_max * view->dim, sizeof(float));
  }
  bool complete =
      table->states && table->encoded && table->queued && table->queue && (table->vectors || !keep_vectors);
  return complete ? 0 : M2SE_ENOMEM;
}

void m2sed_table_deinit(struct m2sed_table *table) {
  free(table->states);
  free(table->vectors);
  free(table->encoded);
  free(table->queued);
  free(table->queue);
}

static void enqueue(struct m2sed_table *table, const struct m2sed_catalogue_view *view, uint32_t slot) {
  if (!table->queued[slot]) {
    table->queued[slot] = true;
    table->queue[(table->queue_first + table->queue_count++) % view->items_max] = slot;
  }
}

void m2sed_table_begin(struct m2sed_table *table, const struct m2sed_catalogue_view *view,
                       struct m2sed_weights_copy *copy, uint64_t epoch) {
  table->copy = copy;
  table->epoch = epoch;
  table->step = m2se_weights_step(copy->weights);
  table->announced = false;
  table->queue_first = table->queue_count = 0;
  memset(table->encoded, 0, view->slots * sizeof(bool));
  memset(table->queued, 0, view->slots * sizeof(bool));
  for (uint32_t slot = 0; slot < view->slots; slot++) {
    if (m2sed_item_featurised(view->records[slot])) {
      enqueue(table, view, slot);
    }
  }
}

void m2sed_table_refresh(struct m2sed_table *table, const struct m2sed_catalogue_view *view, uint32_t slot) {
  if (table->copy == NULL) {
    return;
  }
  table->encoded[slot] = false;
  if (m2sed_item_featurised(view->records[slot])) {
    enqueue(table, view, slot);
  }
}

uint32_t m2sed_table_next(struct m2sed_table *table, const struct m2sed_catalogue_view *view,
                          uint32_t *slots) {
  uint32_t count = 0;
  while (count < view->block && table->queue_count > 0) {
    uint32_t slot = table->queue[table->queue_first];
    table->queue_first = (table->queue_first + 1) % view->items_max;
    table->queue_count--;
    table->queued[slot] = false;
    if (!table->encoded[slot] && m2sed_item_featurised(view->records[slot])) {
      slots[count++] = slot;
    }
  }
  return count;
}

bool m2sed_vector_finite(const float *x, uint32_t n) {
  float sum = 0;
  for (uint32_t i = 0; i < n; i++) {
    sum += x[i] * 0; /* 0, or NaN if x[i] is not finite */
  }
  return sum == 0;
}

static float count_term(const struct m2sed_table *table, const struct m2sed_catalogue_view *view,
                        uint32_t slot) {
  double events = slot < table->copy->slots ? table->copy->popularity[slot] : 0;
  return (float)(view->popularity_weight * log(view->popularity_prior + events));
}

void m2sed_table_encode(struct m2sed_table *table, const struct m2sed_catalogue_view *view,
                        const uint32_t *slots, uint32_t count, struct m2sed_served_message *message) {
  struct m2se_item_input inputs[M2SED_ITEM_BLOCK];
  float terms[M2SED_ITEM_BLOCK];
  assert(count <= view->block && view->block <= M2SED_ITEM_BLOCK);
  for (uint32_t i = 0; i < count; i++) {
    const struct m2sed_item_record *record = view->records[slots[i]];
    inputs[i] = (struct m2se_item_input){.text = {record->text, record->text_count},
                                         .image = {record->image, record->image_count},
                                         .slot = slots[i]};
    terms[i] = view->popularity_weight > 0 ? count_term(table, view, slots[i]) : 0;
  }
  m2se_server_items(view->encoder, table->copy->weights, inputs, count,
                    view->popularity_weight > 0 ? terms : NULL, view->block_states, message->vectors);
  message->kind = M2SED_SERVED_ITEMS;
  message->tag = 0;
  message->epoch = table->epoch;
  message->step = table->step;
  message->dim = view->dim;
  message->count = 0;
  for (uint32_t i = 0; i < count; i++) {
    const float *state = view->block_states + (size_t)i * view->state_floats;
    const float *vector = message->vectors + (size_t)i * view->dim;
    if (!m2sed_vector_finite(vector, view->dim) || !m2sed_vector_finite(state, view->state_floats)) {
      continue;
    }
    uint32_t slot = slots[i];
    table->encoded[slot] = true;
    memcpy(table->states + (size_t)slot * view->state_floats, state, view->state_floats * sizeof(float));
    if (table->vectors != NULL) {
      memcpy(table->vectors + (size_t)slot * view->dim, vector, view->dim * sizeof(float));
    }
    memmove(message->vectors + (size_t)message->count * view->dim, vector, view->dim * sizeof(float));
    message->slots[message->count++] = slot;
  }
}
