/* The serving thread: epochs, blocks of items, users in order, the evaluation's numbers. What it sends is
 * compared with vectors that the test encodes itself. ThreadSanitizer runs this too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/server.h"
#include "model/m2se_serve.h"
#include "model/random.h"
#include "tests/unit/learning_rig.h"

enum { FIRST_EPOCH = 41, EPOCHS = 3, DIM_MAX = 17, STATE = 16, ANSWERS_MAX = 2048 };

struct answer {
  uint64_t tag, epoch, step;
  uint32_t count;
  float vector[DIM_MAX];
};

/* The loop's and the trainer's side. */
struct rig {
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
  uint32_t times[EPOCHS][RIG_SLOTS]; /* that the vector of a slot came in an epoch */
  float vectors[EPOCHS][RIG_SLOTS][DIM_MAX];
  uint64_t steps[EPOCHS];
  uint64_t announced; /* newest epoch of M2SED_SERVED_EPOCH */
  struct m2sed_prequential sums;
  bool stopped;

  /* The same encoded here. */
  struct m2se_server *encoder;
  struct m2sed_weights_copy reference;
  struct m2sed_item_record *records[RIG_SLOTS];
  float states[RIG_SLOTS][STATE], expected[RIG_SLOTS][DIM_MAX];
};

static void open_rig(struct rig *rig, double popularity_weight, bool bias) {
  struct m2se_error error;
  struct m2sed_train_settings train = rig_settings();
  memset(rig, 0, sizeof *rig);
  rig->config = rig_config();
  rig->config.item_bias = bias;
  rig->settings = (struct m2sed_serve_settings){.popularity_weight = popularity_weight,
                                                .popularity_prior = 0.5,
                                                .evaluate = true,
                                                .items_max = RIG_SLOTS,
                                                .ring_capacity = 256,
                                                .first_epoch = 1};
  assert_int_equal(m2sed_exchange_new(&rig->exchange, &rig->config, RIG_SLOTS, &error), 0);
  assert_int_equal(m2sed_server_new(&rig->server, &rig->config, &rig->settings, rig->exchange, &error), 0);
  assert_int_equal(m2sed_learning_new(&rig->learning, &rig->config, &train, NULL, &error), 0);
  m2sed_server_set_first_epoch(rig->server, FIRST_EPOCH);
  rig->dim = m2sed_server_dim(rig->server);
  bool component = bias || popularity_weight > 0;
  assert_int_equal(rig->dim, STATE + component);
  assert_int_equal(m2se_server_new(&rig->encoder, &rig->config, component, &error), 0);
  assert_int_equal(m2se_weights_new(&rig->reference.weights, &rig->config, RIG_SLOTS, &error), 0);
  rig->reference.popularity = calloc(RIG_SLOTS, sizeof(float));
}

static void close_rig(struct rig *rig) {
  m2sed_server_free(rig->server);
  m2sed_exchange_free(rig->exchange);
  m2sed_learning_free(rig->learning);
  m2se_server_free(rig->encoder);
  m2se_weights_free(rig->reference.weights);
  free(rig->reference.popularity);
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    m2sed_item_record_release(rig->records[slot]);
  }
}

/* ---- what comes ---- */

static void take_message(struct rig *rig, const struct m2sed_served_message *message) {
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
      assert_true(slot < RIG_SLOTS);
      rig->times[number][slot]++;
      memcpy(rig->vectors[number][slot], message->vectors + i * (size_t)rig->dim, rig->dim * sizeof(float));
    }
    rig->steps[number] = message->step;
    break;
  case M2SED_SERVED_EPOCH:
    assert_true(number < EPOCHS && message->epoch == (rig->announced ? rig->announced + 1 : FIRST_EPOCH));
    rig->announced = message->epoch;
    break;
  case M2SED_SERVED_STOPPED:
    rig->stopped = true;
    break;
  }
}

static void pump(struct rig *rig) {
  struct m2sed_ring *output = m2sed_server_output(rig->server);
  const struct m2sed_served_message *message;
  while ((message = m2sed_ring_peek(output, 0)) != NULL) {
    take_message(rig, message);
    m2sed_ring_release(output);
  }
}

/* ---- what is sent ---- */

/* A slow loop: takes answers only once the server, waiting for that, has let the ring run full. */
static void send(struct rig *rig, const struct m2sed_serve_message *message) {
  struct m2sed_serve_message *slot = m2sed_ring_claim(m2sed_server_input(rig->server));
  if (slot == NULL) {
    WAIT_UNTIL(rig, (slot = m2sed_ring_claim(m2sed_server_input(rig->server))) != NULL)
  }
  *slot = *message;
  m2sed_ring_publish(m2sed_server_input(rig->server));
}

/* Everybody hears of the record. */
static void send_record(struct rig *rig, struct m2sed_item_record *record) {
  struct m2sed_train_message train = {.kind = M2SED_TRAIN_ITEM, .record = m2sed_item_record_keep(record)};
  m2sed_learning_take(rig->learning, &train);
  m2sed_item_record_release(rig->records[record->slot]);
  rig->records[record->slot] = m2sed_item_record_keep(record);
  send(rig, &(struct m2sed_serve_message){.kind = M2SED_SERVE_ITEM, .record = record});
}

static void send_items(struct rig *rig, uint32_t first, uint32_t last) {
  for (uint32_t slot = first; slot < last; slot++) {
    send_record(rig, rig_record(slot, slot == 3 ? 0 : 1)); /* one without features */
  }
}

static struct m2sed_serve_message user_of(struct rig *rig, uint32_t count, const uint32_t *slots) {
  struct m2sed_serve_message message = {
      .kind = M2SED_SERVE_USER, .tag = rig->asked++, .sequence_count = count};
  memcpy(message.sequence, slots, count * sizeof slots[0]);
  return message;
}

static const struct answer *ask(struct rig *rig, uint32_t count, const uint32_t *slots) {
  struct m2sed_serve_message message = user_of(rig, count, slots);
  send(rig, &message);
  WAIT_UNTIL(rig, rig->answer_count == rig->asked)
  return &rig->answers[rig->answer_count - 1];
}
#define ASK(rig, ...)                                                                                        \
  ask(rig, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (uint32_t[]){__VA_ARGS__})

static void train(struct rig *rig, uint32_t first, uint32_t last) {
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
static void give_copy(struct rig *rig) {
  struct m2sed_weights_copy *copy = NULL;
  WAIT_UNTIL(rig, (copy = m2sed_exchange_take(rig->exchange->idle)) != NULL)
  m2sed_learning_copy(rig->learning, copy);
  m2sed_exchange_give(rig->exchange->ready, copy);
  m2sed_learning_copy(rig->learning, &rig->reference);
}

static void begin_epoch(struct rig *rig) {
  uint64_t before = rig->announced;
  give_copy(rig);
  WAIT_UNTIL(rig, rig->announced != before)
}

static void finish_epoch(struct rig *rig) {
  send(rig, &(struct m2sed_serve_message){.kind = M2SED_SERVE_EPOCH_DONE, .epoch = rig->announced});
}

static void start(struct rig *rig) {
  struct m2se_error error;
  assert_int_equal(m2sed_server_start(rig->server, &error), 0);
}

static void stop(struct rig *rig) {
  send(rig, &(struct m2sed_serve_message){.kind = M2SED_SERVE_STOP});
  WAIT_UNTIL(rig, rig->stopped)
  m2sed_server_join(rig->server);
  pump(rig);
}

/* ---- what is expected ---- */

static bool featurised(const struct rig *rig, uint32_t slot) {
  const struct m2sed_item_record *record = rig->records[slot];
  return record != NULL && !record->deleted && record->text_count + record->image_count > 0;
}

static void encode_items(struct rig *rig) {
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    const struct m2sed_item_record *record = rig->records[slot];
    if (!featurised(rig, slot)) {
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

static void assert_near(const float *a, const float *b, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (!(fabsf(a[i] - b[i]) < 1e-5f)) {
      fail_msg("component %u: %.9g and %.9g", i, (double)a[i], (double)b[i]);
    }
  }
}

/* Each item with features came once in this epoch, with the right vector. */
static void assert_items(struct rig *rig, uint64_t epoch) {
  uint64_t number = epoch - FIRST_EPOCH;
  encode_items(rig);
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    assert_int_equal(rig->times[number][slot], featurised(rig, slot) ? 1 : 0);
    if (featurised(rig, slot)) {
      assert_near(rig->vectors[number][slot], rig->expected[slot], rig->dim);
    }
  }
}

/* The vector of these slots, all of which have features, under the reference's weights. */
static void encode_user(struct rig *rig, uint32_t count, const uint32_t *slots, float *vector) {
  const uint32_t seq_ptr[] = {0, count};
  m2se_server_users(rig->encoder, rig->reference.weights, &rig->states[0][0], seq_ptr, slots, 1, vector);
}

static void assert_user(struct rig *rig, const struct answer *answer, uint64_t epoch, uint32_t count,
                        const uint32_t *slots) {
  float expected[DIM_MAX];
  assert_int_equal(answer->count, 1);
  assert_true(answer->epoch == epoch && answer->step == rig->steps[epoch - FIRST_EPOCH]);
  encode_user(rig, count, slots, expected);
  assert_near(answer->vector, expected, rig->dim);
}
#define ASSERT_USER(rig, answer, epoch, ...)                                                                 \
  assert_user(rig, answer, epoch, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t),                      \
              (uint32_t[]){__VA_ARGS__})

/* ---- tests ---- */

static void test_epochs(void **unused) {
  (void)unused;
  static struct rig rig;
  open_rig(&rig, 0, true);
  start(&rig);
  send_items(&rig, 0, 12);
  assert_int_equal(ASK(&rig, 1, 2)->count, 0); /* no weights yet */
  begin_epoch(&rig);
  assert_items(&rig, FIRST_EPOCH);
  assert_int_equal(ASK(&rig, 1, 2)->count, 0); /* its vectors are not written yet */
  finish_epoch(&rig);
  ASSERT_USER(&rig, ASK(&rig, 1, 2), FIRST_EPOCH, 1, 2);
  ASSERT_USER(&rig, ASK(&rig, 1, 3, 20, 2), FIRST_EPOCH, 1, 2); /* bare, and never heard of */
  ASSERT_USER(&rig, ASK(&rig, 0, 1, 2, 4, 5, 3, 6, 7), FIRST_EPOCH, 2, 4, 5, 6, 7); /* newest 5 */
  assert_int_equal(ASK(&rig, 3, 20)->count, 0);

  train(&rig, 0, 100);
  begin_epoch(&rig);
  assert_true(rig.announced == FIRST_EPOCH + 1);
  uint64_t before = rig.steps[0];
  assert_true(rig.steps[1] > before);
  assert_items(&rig, FIRST_EPOCH + 1);
  const struct answer *old = ASK(&rig, 1, 2);
  assert_true(old->epoch == FIRST_EPOCH && old->step == before); /* until the new one is written */
  assert_memory_equal(old->vector, rig.answers[2].vector, rig.dim * sizeof(float));
  finish_epoch(&rig);
  ASSERT_USER(&rig, ASK(&rig, 1, 2), FIRST_EPOCH + 1, 1, 2);
  stop(&rig);
  close_rig(&rig);
}

/* Items that come, change and go while there are epochs. */
static void test_items_change(void **unused) {
  (void)unused;
  static struct rig rig;
  open_rig(&rig, 0, true);
  start(&rig);
  send_items(&rig, 0, 8);
  begin_epoch(&rig);
  finish_epoch(&rig);
  encode_items(&rig);
  send_items(&rig, 8, 9); /* a new one: the very next user knows it */
  const struct answer *answer = ASK(&rig, 1, 8);
  encode_items(&rig);
  ASSERT_USER(&rig, answer, FIRST_EPOCH, 1, 8);
  WAIT_UNTIL(&rig, rig.times[0][8] > 0)
  assert_items(&rig, FIRST_EPOCH); /* once, although it was encoded out of turn */

  train(&rig, 0, 60);
  begin_epoch(&rig); /* now there are two */
  send_record(&rig, rig_record(5, 2));
  WAIT_UNTIL(&rig, rig.times[0][5] == 2 && rig.times[1][5] == 2)
  encode_items(&rig);
  assert_near(rig.vectors[1][5], rig.expected[5], rig.dim);
  finish_epoch(&rig);
  ASSERT_USER(&rig, ASK(&rig, 1, 5), FIRST_EPOCH + 1, 1, 5);

  struct m2sed_item_record *deleted = rig_record(5, 2);
  deleted->deleted = true;
  send_record(&rig, deleted);
  ASSERT_USER(&rig, ASK(&rig, 1, 5), FIRST_EPOCH + 1, 1);
  assert_int_equal(ASK(&rig, 5)->count, 0);
  begin_epoch(&rig);
  assert_int_equal(rig.times[2][5], 0);
  assert_int_equal(rig.times[2][8], 1);
  send_record(&rig, rig_record(5, 1)); /* it comes back */
  encode_items(&rig);
  WAIT_UNTIL(&rig, rig.times[2][5] == 1 && rig.times[1][5] == 3)
  finish_epoch(&rig);
  ASSERT_USER(&rig, ASK(&rig, 1, 5), FIRST_EPOCH + 2, 1, 5);
  assert_int_equal(rig.times[0][8], 1);
  stop(&rig);
  close_rig(&rig);
}

static void test_not_finite(void **unused) {
  (void)unused;
  static struct rig rig;
  const float rows[RIG_D] = {1, 2, INFINITY, 4, 5, 6};
  open_rig(&rig, 0, true);
  start(&rig);
  send_items(&rig, 0, 3);
  send_record(&rig, m2sed_item_record_new(4, "bad", 3, RIG_D, rows, 1, rows, 1));
  begin_epoch(&rig);
  assert_int_equal(rig.times[0][4], 0);
  assert_int_equal(rig.times[0][2], 1);
  finish_epoch(&rig);
  encode_items(&rig);
  ASSERT_USER(&rig, ASK(&rig, 4, 1, 4, 2, 4), FIRST_EPOCH, 1, 2);
  assert_int_equal(ASK(&rig, 4)->count, 0);
  stop(&rig);
  close_rig(&rig);
}

static void test_count_term(void **unused) {
  (void)unused;
  for (int bias = 0; bias <= 1; bias++) {
    static struct rig rig;
    open_rig(&rig, 0.25, bias);
    start(&rig);
    send_items(&rig, 0, RIG_SLOTS);
    train(&rig, 0, 80);
    begin_epoch(&rig);
    assert_items(&rig, FIRST_EPOCH);
    assert_true(rig.vectors[0][1][STATE] != rig.vectors[0][2][STATE]);
    finish_epoch(&rig);
    const struct answer *answer = ASK(&rig, 1, 2);
    ASSERT_USER(&rig, answer, FIRST_EPOCH, 1, 2);
    assert_true(answer->vector[STATE] == 1);
    stop(&rig);
    close_rig(&rig);
  }
}

/* The loop is slow: the server waits, and all answers come, in order (take_message checks it). */
static void test_many_users(void **unused) {
  (void)unused;
  enum { USERS = 900 };
  static struct rig rig;
  open_rig(&rig, 0, true);
  start(&rig);
  send_items(&rig, 0, 20);
  begin_epoch(&rig);
  finish_epoch(&rig);
  encode_items(&rig);
  for (uint32_t n = 0; n < USERS; n++) {
    const uint32_t slots[] = {n % 3, 4 + n % 7, 12 + n % 5};
    struct m2sed_serve_message message = user_of(&rig, 1 + n % 3, slots);
    send(&rig, &message);
    if (n % 100 == 50) {
      send_record(&rig, rig_record(19, 1 + n)); /* blocks of items between them */
    }
  }
  WAIT_UNTIL(&rig, rig.answer_count == USERS)
  for (uint32_t n = 0; n < USERS; n += 37) {
    const uint32_t slots[] = {n % 3, 4 + n % 7, 12 + n % 5};
    assert_user(&rig, &rig.answers[n], FIRST_EPOCH, 1 + n % 3, slots);
  }
  stop(&rig);
  close_rig(&rig);
}

/* ---- the evaluation ---- */

static double rank_of(const double *scores, const bool *candidate, uint32_t target) {
  double rank = 1;
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    if (candidate[slot] && slot != target) {
      rank += scores[slot] > scores[target] ? 1 : scores[slot] == scores[target] ? 0.5 : 0;
    }
  }
  return rank;
}

static void add_event(struct rig *rig, const struct m2sed_serve_message *message, const double *counts,
                      struct m2sed_prequential *sums) {
  bool candidate[RIG_SLOTS], unseen[RIG_SLOTS];
  uint32_t known[RIG_LENGTH], known_count = 0;
  double scores[RIG_SLOTS];
  float user[DIM_MAX];
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    candidate[slot] = unseen[slot] = featurised(rig, slot);
  }
  for (uint32_t i = 0; i < message->context_count; i++) {
    if (candidate[message->context[i]]) {
      known[known_count++] = message->context[i];
    }
    unseen[message->context[i]] = false;
  }
  if (known_count == 0 || !candidate[message->target]) {
    return;
  }
  encode_user(rig, known_count, known, user);
  for (uint32_t slot = 0; slot < RIG_SLOTS; slot++) {
    scores[slot] = 0;
    for (uint32_t k = 0; k < rig->dim; k++) {
      scores[slot] += (double)user[k] * (double)rig->expected[slot][k];
    }
  }
  double rank = rank_of(scores, candidate, message->target),
         popular = rank_of(counts, candidate, message->target);
  sums->events++;
  sums->hr10 += rank <= 10;
  sums->mrr += 1 / rank;
  sums->popularity_hr10 += popular <= 10;
  sums->popularity_mrr += 1 / popular;
  if (unseen[message->target]) {
    rank = rank_of(scores, unseen, message->target);
    popular = rank_of(counts, unseen, message->target);
    sums->ndcg10_unseen += rank <= 10 ? 1 / log2(1 + rank) : 0;
    sums->popularity_ndcg10_unseen += popular <= 10 ? 1 / log2(1 + popular) : 0;
  }
}

static void test_evaluation(void **unused) {
  (void)unused;
  enum { EVENTS = 300 };
  static struct rig rig;
  static struct rig_stream stream;
  struct m2sed_prequential expected = {0};
  double counts[RIG_SLOTS] = {0};
  rig_stream_make(&stream, EVENTS);
  open_rig(&rig, 0, true);
  start(&rig);
  send_items(&rig, 0, RIG_SLOTS);
  train(&rig, 0, 200);
  begin_epoch(&rig);
  finish_epoch(&rig);
  encode_items(&rig);
  for (uint32_t n = 0; n < EVENTS; n++) {
    struct m2sed_train_message event = rig_event(&stream, n);
    struct m2sed_serve_message message = user_of(&rig, 1, &event.item);
    message.evaluate = true;
    message.target = event.item;
    message.context_count = event.context_count;
    memcpy(message.context, event.context, sizeof message.context);
    send(&rig, &message);
    add_event(&rig, &message, counts, &expected);
    counts[message.target]++;
    if (n % 10 == 9) { /* never more than a few together: the ring stays below half */
      WAIT_UNTIL(&rig, rig.answer_count == rig.asked)
    }
  }
  ASK(&rig, 1); /* comes with the sums of all before */
  assert_true(m2sed_server_evaluations_skipped(rig.server) == 0);
  assert_true(expected.events > 250);
  assert_true(rig.sums.events == expected.events);
  const double pairs[][2] = {{rig.sums.hr10, expected.hr10},
                             {rig.sums.mrr, expected.mrr},
                             {rig.sums.ndcg10_unseen, expected.ndcg10_unseen},
                             {rig.sums.popularity_hr10, expected.popularity_hr10},
                             {rig.sums.popularity_mrr, expected.popularity_mrr},
                             {rig.sums.popularity_ndcg10_unseen, expected.popularity_ndcg10_unseen}};
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
    if (!(fabs(pairs[i][0] - pairs[i][1]) < 1e-9)) {
      fail_msg("sum %zu: %.12g and %.12g", i, pairs[i][0], pairs[i][1]);
    }
  }
  stop(&rig);
  close_rig(&rig);
}

/* More than half of the ring waits: users are answered, the evaluation is left out and says so. */
static void test_evaluation_under_load(void **unused) {
  (void)unused;
  static struct rig rig;
  open_rig(&rig, 0, true);
  start(&rig);
  send_items(&rig, 0, 20);
  begin_epoch(&rig);
  finish_epoch(&rig);
  const uint32_t slots[] = {1, 2};
  uint32_t sent = 0;
  while (m2sed_server_evaluations_skipped(rig.server) == 0) {
    assert_true(sent++ < 1500);
    struct m2sed_serve_message message = user_of(&rig, 2, slots);
    message.evaluate = true;
    message.target = 2;
    message.context_count = 1;
    message.context[0] = 1;
    send(&rig, &message);
  }
  WAIT_UNTIL(&rig, rig.answer_count == rig.asked)
  ASK(&rig, 1);
  assert_true(rig.sums.events + m2sed_server_evaluations_skipped(rig.server) == rig.asked - 1);
  stop(&rig);
  close_rig(&rig);
}

static void test_settings(void **unused) {
  (void)unused;
  struct m2se_config config = rig_config();
  struct m2sed_exchange *exchange;
  struct m2sed_server *server;
  struct m2se_error error;
  assert_int_equal(m2sed_exchange_new(&exchange, &config, RIG_SLOTS, &error), 0);
  const struct m2sed_serve_settings good = {
      .popularity_prior = 1, .items_max = RIG_SLOTS, .ring_capacity = 4, .first_epoch = 1};
#define REFUSED(field, value)                                                                                \
  do {                                                                                                       \
    struct m2sed_serve_settings settings = good;                                                             \
    settings.field = value;                                                                                  \
    assert_int_equal(m2sed_server_new(&server, &config, &settings, exchange, &error), M2SE_EINVAL);          \
    assert_non_null(strstr(error.text, #field));                                                             \
    assert_null(server);                                                                                     \
  } while (0)
  REFUSED(items_max, 0);
  REFUSED(ring_capacity, 0);
  REFUSED(popularity_weight, -1);
  REFUSED(popularity_weight, NAN);
  assert_int_equal(m2sed_server_new(&server, &config, &good, exchange, &error), 0);
  /* Never started: what waits is given back (the leak checker sees it). */
  struct m2sed_serve_message *message = m2sed_ring_claim(m2sed_server_input(server));
  *message = (struct m2sed_serve_message){.kind = M2SED_SERVE_ITEM, .record = rig_record(0, 1)};
  m2sed_ring_publish(m2sed_server_input(server));
  m2sed_server_join(server);
  m2sed_server_free(server);
  m2sed_server_free(NULL);
  m2sed_exchange_free(exchange);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_epochs),
      cmocka_unit_test(test_items_change),
      cmocka_unit_test(test_not_finite),
      cmocka_unit_test(test_count_term),
      cmocka_unit_test(test_many_users),
      cmocka_unit_test(test_evaluation),
      cmocka_unit_test(test_evaluation_under_load),
      cmocka_unit_test(test_settings),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
