#include "tests/unit/server_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void server_rig_open(struct server_rig *rig, double popularity_weight, bool bias) {
  struct m2se_error error;
  struct m2sed_train_settings train = rig_settings();
  train.items_max = SLOTS;
  memset(rig, 0, sizeof *rig);
  rig->config = rig_config();
  rig->config.item_bias = bias;
  rig->settings = (struct m2sed_serve_settings){.popularity_weight = popularity_weight,
                                                .popularity_prior = 0.5,
                                                .evaluate = true,
                                                .items_max = SLOTS,
                                                .ring_capacity = 256,
                                                .first_epoch = 1};
  assert_int_equal(m2sed_exchange_new(&rig->exchange, &rig->config, SLOTS, &error), 0);
  assert_int_equal(m2sed_server_new(&rig->server, &rig->config, &rig->settings, rig->exchange, &error), 0);
  assert_int_equal(m2sed_learning_new(&rig->learning, &rig->config, &train, NULL, &error), 0);
  m2sed_server_set_first_epoch(rig->server, FIRST_EPOCH);
  rig->dim = m2sed_server_dim(rig->server);
  bool component = bias || popularity_weight > 0;
  assert_int_equal(rig->dim, STATE + component);
  assert_int_equal(m2se_server_new(&rig->encoder, &rig->config, component, &error), 0);
  assert_int_equal(m2se_weights_new(&rig->reference.weights, &rig->config, SLOTS, &error), 0);
  rig->reference.popularity = calloc(SLOTS, sizeof(float));
}

void server_rig_close(struct server_rig *rig) {
  m2sed_server_free(rig->server);
  m2sed_exchange_free(rig->exchange);
  m2sed_learning_free(rig->learning);
  m2se_server_free(rig->encoder);
  m2se_weights_free(rig->reference.weights);
  free(rig->reference.popularity);
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    m2sed_item_record_release(rig->records[slot]);
  }
}

/* ---- what comes ---- */

static void take_message(struct server_rig *rig, const struct m2sed_served_message *message) {
  assert_false(rig->stopped); /* that was the last one */
  uint64_t number = message->epoch - FIRST_EPOCH;
  switch (message->kind) {
  case M2SED_SERVED_USER: {
    assert_true(rig->answer_count < ANSWERS_MAX && message->tag == rig->answer_count);
    struct answer *answer = &rig->answers[rig->answer_count++];
    *answer = (struct answer){
        .tag = message->tag, .epoch = message->epoch, .step = message->step, .count = message->count};
    memcpy(answer->vector, message->vectors, message->count * rig->dim * sizeof(float));
    rig->sums = message->prequential;
    break;
  }
  case M2SED_SERVED_ITEMS:
    assert_true(number < EPOCHS && message->count >= 1 && message->count <= 64);
    assert_int_equal(message->dim, rig->dim);
    for (uint32_t i = 0; i < message->count; i++) {
      uint32_t slot = message->slots[i];
      assert_true(slot < SLOTS);
      rig->times[number][slot]++;
      memcpy(rig->vectors[number][slot], message->vectors + i * (size_t)rig->dim, rig->dim * sizeof(float));
    }
    rig->steps[number] = message->step;
    break;
  case M2SED_SERVED_EPOCH:
    assert_true(number < EPOCHS && message->epoch == (rig->announced ? rig->announced + 1 : FIRST_EPOCH));
    rig->announced = message->epoch;
    break;
  case M2SED_SERVED_RECOMMEND:
    rig->ranked = message->ranking;
    rig->ranked_count++;
    break;
  case M2SED_SERVED_STOPPED:
    rig->stopped = true;
    break;
  }
}

void server_rig_pump(struct server_rig *rig) {
  struct m2sed_ring *output = m2sed_server_output(rig->server);
  const struct m2sed_served_message *message;
  while ((message = m2sed_ring_peek(output, 0)) != NULL) {
    take_message(rig, message);
    m2sed_ring_release(output);
  }
}

/* ---- what is sent ---- */

void server_rig_send(struct server_rig *rig, const struct m2sed_serve_message *message) {
  struct m2sed_serve_message *slot = m2sed_ring_claim(m2sed_server_input(rig->server));
  if (slot == NULL) {
    RIG_WAIT_UNTIL(server_rig_pump(rig), (slot = m2sed_ring_claim(m2sed_server_input(rig->server))) != NULL)
  }
  *slot = *message;
  m2sed_ring_publish(m2sed_server_input(rig->server));
}

void server_rig_send_record(struct server_rig *rig, struct m2sed_item_record *record) {
  struct m2sed_train_message train = {.kind = M2SED_TRAIN_ITEM, .record = m2sed_item_record_keep(record)};
  m2sed_learning_take(rig->learning, &train);
  m2sed_item_record_release(rig->records[record->slot]);
  rig->records[record->slot] = m2sed_item_record_keep(record);
  server_rig_send(rig, &(struct m2sed_serve_message){.kind = M2SED_SERVE_ITEM, .record = record});
}

void server_rig_send_items(struct server_rig *rig, uint32_t first, uint32_t last) {
  for (uint32_t slot = first; slot < last; slot++) {
    server_rig_send_record(rig, rig_record(slot, slot == 3 ? 0 : 1)); /* one without features */
  }
}

struct m2sed_serve_message server_rig_user(struct server_rig *rig, uint32_t count, const uint32_t *slots) {
  struct m2sed_serve_message message = {
      .kind = M2SED_SERVE_USER, .tag = rig->asked++, .sequence_count = count};
  memcpy(message.sequence, slots, count * sizeof slots[0]);
  return message;
}

const struct answer *server_rig_ask(struct server_rig *rig, uint32_t count, const uint32_t *slots) {
  struct m2sed_serve_message message = server_rig_user(rig, count, slots);
  server_rig_send(rig, &message);
  RIG_WAIT_UNTIL(server_rig_pump(rig), rig->answer_count == rig->asked)
  return &rig->answers[rig->answer_count - 1];
}

void server_rig_train(struct server_rig *rig, uint32_t first, uint32_t last) {
  static struct rig_stream stream;
  struct m2se_workers serial = m2se_workers_serial();
  rig_stream_make(&stream, last);
  for (uint32_t n = first; n < last; n++) {
    struct m2sed_train_message message = rig_event(&stream, n);
    struct m2sed_trained_message result;
    m2sed_learning_take(rig->learning, &message);
    while (m2sed_learning_due(rig->learning)) {
      m2sed_learning_step(rig->learning, &serial, &result);
    }
  }
}

/* Copies the weights for the server and for ourselves. */
static void give_copy(struct server_rig *rig) {
  struct m2sed_weights_copy *copy = NULL;
  RIG_WAIT_UNTIL(server_rig_pump(rig), (copy = m2sed_exchange_take(rig->exchange->idle)) != NULL)
  m2sed_learning_copy(rig->learning, copy);
  m2sed_exchange_give(rig->exchange->ready, copy);
  m2sed_learning_copy(rig->learning, &rig->reference);
}

void server_rig_begin_epoch(struct server_rig *rig) {
  uint64_t before = rig->announced;
  /* Else the epoch may be there before the items that were sent first. */
  RIG_WAIT_UNTIL(server_rig_pump(rig), m2sed_ring_used(m2sed_server_input(rig->server)) == 0)
  give_copy(rig);
  RIG_WAIT_UNTIL(server_rig_pump(rig), rig->announced != before)
}

void server_rig_finish_epoch(struct server_rig *rig) {
  server_rig_send(rig,
                  &(struct m2sed_serve_message){.kind = M2SED_SERVE_EPOCH_DONE, .epoch = rig->announced});
}

void server_rig_start(struct server_rig *rig) {
  struct m2se_error error;
  assert_int_equal(m2sed_server_start(rig->server, &error), 0);
  server_rig_send(rig, &(struct m2sed_serve_message){.kind = M2SED_SERVE_CATALOGUE});
}

void server_rig_stop(struct server_rig *rig) {
  server_rig_send(rig, &(struct m2sed_serve_message){.kind = M2SED_SERVE_STOP});
  RIG_WAIT_UNTIL(server_rig_pump(rig), rig->stopped)
  m2sed_server_join(rig->server);
  server_rig_pump(rig);
}

/* ---- what is expected ---- */

bool server_rig_featurised(const struct server_rig *rig, uint32_t slot) {
  const struct m2sed_item_record *record = rig->records[slot];
  return record != NULL && !record->deleted && record->text_count + record->image_count > 0;
}

void server_rig_encode_items(struct server_rig *rig) {
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    const struct m2sed_item_record *record = rig->records[slot];
    if (!server_rig_featurised(rig, slot)) {
      continue;
    }
    const struct m2se_item_input input = {.text = {record->text, record->text_count},
                                          .image = {record->image, record->image_count},
                                          .slot = slot};
    const float term = (float)(rig->settings.popularity_weight *
                               log(rig->settings.popularity_prior + rig->reference.popularity[slot]));
    m2se_server_items(rig->encoder, rig->reference.weights, &input, 1,
                      rig->settings.popularity_weight > 0 ? &term : NULL, rig->states[slot],
                      rig->expected[slot]);
  }
}

void server_rig_assert_near(const float *a, const float *b, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (!(fabsf(a[i] - b[i]) < 1e-5f)) {
      fail_msg("component %u: %.9g and %.9g", i, (double)a[i], (double)b[i]);
    }
  }
}

void server_rig_assert_items(struct server_rig *rig, uint64_t epoch) {
  uint64_t number = epoch - FIRST_EPOCH;
  server_rig_encode_items(rig);
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    assert_int_equal(rig->times[number][slot], server_rig_featurised(rig, slot) ? 1 : 0);
    if (server_rig_featurised(rig, slot)) {
      server_rig_assert_near(rig->vectors[number][slot], rig->expected[slot], rig->dim);
    }
  }
}

void server_rig_encode_user(struct server_rig *rig, uint32_t count, const uint32_t *slots, float *vector) {
  const uint32_t seq_ptr[] = {0, count};
  m2se_server_users(rig->encoder, rig->reference.weights, &rig->states[0][0], seq_ptr, slots, 1, vector);
}

void server_rig_assert_user(struct server_rig *rig, const struct answer *answer, uint64_t epoch,
                            uint32_t count, const uint32_t *slots) {
  float expected[DIM_MAX];
  assert_int_equal(answer->count, 1);
  assert_true(answer->epoch == epoch && answer->step == rig->steps[epoch - FIRST_EPOCH]);
  server_rig_encode_user(rig, count, slots, expected);
  server_rig_assert_near(answer->vector, expected, rig->dim);
}
