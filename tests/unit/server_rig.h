/* For tests of the serving thread: the loop's and the trainer's side of it, what came, and the same vectors
 * encoded here. */
#ifndef SERVER_RIG_H
#define SERVER_RIG_H

#include "daemon/server.h"
#include "model/m2se_serve.h"
#include "tests/unit/learning_rig.h"

enum { SLOTS = 150, FIRST_EPOCH = 41, EPOCHS = 3, DIM_MAX = 17, STATE = 16, ANSWERS_MAX = 2048 };

struct answer {
  uint64_t tag, epoch, step;
  uint32_t count;
  float vector[DIM_MAX];
};

struct server_rig {
  struct m2se_config config;
  struct m2sed_serve_settings settings;
  struct m2sed_exchange *exchange;
  struct m2sed_server *server;
  struct m2sed_learning *learning;
  uint32_t dim;
  uint64_t asked;

  /* What came. */
  uint32_t answer_count;
  struct answer answers[ANSWERS_MAX];
  uint32_t times[EPOCHS][SLOTS]; /* that the vector of a slot came in an epoch */
  float vectors[EPOCHS][SLOTS][DIM_MAX];
  uint64_t steps[EPOCHS];
  uint64_t announced; /* newest epoch of M2SED_SERVED_EPOCH */
  struct m2sed_prequential sums;
  struct m2sed_ranking *ranked; /* newest of M2SED_SERVED_RECOMMEND */
  uint32_t ranked_count;
  bool stopped;

  /* The same encoded here. */
  struct m2se_server *encoder;
  struct m2sed_weights_copy reference;
  struct m2sed_item_record *records[SLOTS];
  float states[SLOTS][STATE], expected[SLOTS][DIM_MAX];
};

/* Exchange, server (not started) and a learning that gives the weights. */
void server_rig_open(struct server_rig *rig, double popularity_weight, bool bias);
void server_rig_close(struct server_rig *rig);
void server_rig_start(struct server_rig *rig);
void server_rig_stop(struct server_rig *rig);

/* Takes all that came. */
void server_rig_pump(struct server_rig *rig);

/* A slow loop: takes answers only once the server, waiting for that, has let the ring run full. */
void server_rig_send(struct server_rig *rig, const struct m2sed_serve_message *message);

/* Slots first..last-1; slot 3 has no features. Record: everybody hears of it; the reference is handed over.
 */
void server_rig_send_items(struct server_rig *rig, uint32_t first, uint32_t last);
void server_rig_send_record(struct server_rig *rig, struct m2sed_item_record *record);

/* The next question. ask: and its answer. */
struct m2sed_serve_message server_rig_user(struct server_rig *rig, uint32_t count, const uint32_t *slots);
const struct answer *server_rig_ask(struct server_rig *rig, uint32_t count, const uint32_t *slots);
#define ASK(rig, ...)                                                                                        \
  server_rig_ask(rig, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (uint32_t[]){__VA_ARGS__})

/* Learns events first..last-1 of the stream. */
void server_rig_train(struct server_rig *rig, uint32_t first, uint32_t last);

/* Gives a copy of the weights, once all that was sent is taken, and waits for M2SED_SERVED_EPOCH; finish: its
 * vectors are written. */
void server_rig_begin_epoch(struct server_rig *rig);
void server_rig_finish_epoch(struct server_rig *rig);
bool server_rig_featurised(const struct server_rig *rig, uint32_t slot);

/* The same encoded here: all items with features; a user of such slots. */
void server_rig_encode_items(struct server_rig *rig);
void server_rig_encode_user(struct server_rig *rig, uint32_t count, const uint32_t *slots, float *vector);

/* To 1e-5: tiles are cut otherwise there, sums round otherwise. */
void server_rig_assert_near(const float *a, const float *b, uint32_t n);

/* Each item with features came once in this epoch, with the right vector. */
void server_rig_assert_items(struct server_rig *rig, uint64_t epoch);

/* The answer is the vector of these slots, all of which have features. */
void server_rig_assert_user(struct server_rig *rig, const struct answer *answer, uint64_t epoch,
                            uint32_t count, const uint32_t *slots);
#define ASSERT_USER(rig, answer, epoch, ...)                                                                 \
  server_rig_assert_user(rig, answer, epoch, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t),           \
                         (uint32_t[]){__VA_ARGS__})

#endif
