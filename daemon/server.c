#include "daemon/server.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "daemon/batcher.h"
#include "daemon/server_judge.h"
#include "daemon/server_recommend.h"
#include "daemon/server_tables.h"
#include "daemon/server_waiting.h"

enum {
  USERS = 64, /* at a time */
  OUTPUT_CAPACITY = 128,
  /* So many batches of users in a row go before a block of items. */
  USERS_FIRST = 8,
  /* While readers have an epoch, encoding the next one takes at most one part in so many of the time: each
   * vector also costs the loop and Redis about as much, and epochs follow each other without a pause. */
  ITEMS_SHARE = 10
};

struct m2sed_server {
  struct m2sed_serve_settings settings;
  struct m2sed_exchange *exchange;
  struct m2sed_ring *input, *output;
  struct m2sed_waker waker;
  pthread_t thread;
  bool started;
  atomic_ullong evaluations_skipped;
  atomic_ullong beats; /* for the watchdog */

  /* The thread's own. */
  struct m2sed_catalogue_view view;
  struct m2sed_table tables[2];
  struct m2sed_table *current, *next; /* the two tables; one without a copy is not in use */
  uint64_t next_epoch;
  struct m2sed_judge *judge; /* NULL: off */
  struct m2sed_recommender recommender;
  bool catalogue_told; /* before, an epoch would lack most items */
  bool stopping;
  uint32_t users_went_first; /* batches since the last block of items */
  int64_t items_due_ns;      /* the next block of the next epoch */

  /* A batch of users. */
  struct m2sed_waiting waiting;
  const struct m2sed_serve_message
      *chosen[USERS]; /* whose sequence is encoded; NULL: that of another has been */
  uint32_t seq_ptr[USERS + 1];
  uint32_t seq_items[USERS * M2SED_CONTEXT_MAX];
  float *vectors; /* [USERS, dim] */
};

static void beat(struct m2sed_server *server) {
  atomic_fetch_add_explicit(&server->beats, 1, memory_order_relaxed);
}

static struct m2sed_served_message *claim_answer(struct m2sed_server *server) {
  return m2sed_ring_claim_wait(server->output, &server->waker);
}

/* ---- items ---- */

static void encode_items(struct m2sed_server *server, struct m2sed_table *table, const uint32_t *slots,
                         uint32_t count) {
  struct m2sed_served_message *answer = claim_answer(server);
  m2sed_table_encode(table, &server->view, slots, count, answer);
  if (answer->count > 0) {
    m2sed_ring_publish(server->output);
  }
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Only the items of the next epoch are in no hurry, and only while there is one that can be read. */
static bool items_have_time(const struct m2sed_server *server) {
  return server->current->copy != NULL && server->current->queue_count == 0 && server->current->announced;
}

/* How long until the next block of items may be encoded; 0: it may now, or there is none. */
static int64_t items_wait_ns(const struct m2sed_server *server) {
  if (!items_have_time(server) || server->next->copy == NULL || server->next->queue_count == 0) {
    return 0;
  }
  int64_t wait_ns = server->items_due_ns - now_ns();
  return wait_ns > 0 ? wait_ns : 0;
}

/* One block, of the current epoch first. Returns whether there was anything to do. */
static bool work_on_items(struct m2sed_server *server) {
  bool users_wait = m2sed_ring_used(server->input) > 0;
  if (items_wait_ns(server) > 0 ||
      (users_wait && items_have_time(server) && ++server->users_went_first < USERS_FIRST)) {
    return false;
  }
  server->users_went_first = 0;
  struct m2sed_table *tables[] = {server->current, server->next};
  uint32_t slots[M2SED_ITEM_BLOCK];
  for (int i = 0; i < 2; i++) {
    struct m2sed_table *table = tables[i];
    if (table->copy == NULL) {
      continue;
    }
    uint32_t count = m2sed_table_next(table, &server->view, slots);
    if (count > 0) {
      int64_t begin_ns = now_ns();
      encode_items(server, table, slots, count);
      int64_t end_ns = now_ns();
      server->items_due_ns = end_ns + (ITEMS_SHARE - 1) * (end_ns - begin_ns);
      return true;
    }
    if (!table->announced) {
      struct m2sed_served_message *answer = claim_answer(server);
      answer->kind = M2SED_SERVED_EPOCH;
      answer->tag = 0;
      answer->epoch = table->epoch;
      answer->step = table->step;
      answer->dim = server->view.dim;
      answer->count = 0;
      m2sed_ring_publish(server->output);
      table->announced = true;
      return true;
    }
  }
  return false;
}

static void take_item(struct m2sed_server *server, struct m2sed_item_record *record) {
  struct m2sed_catalogue_view *view = &server->view;
  assert(record->slot < view->items_max);
  if (record->slot >= view->slots) {
    view->slots = record->slot + 1;
  }
  m2sed_item_record_release(view->records[record->slot]);
  view->records[record->slot] = record;
  m2sed_table_refresh(server->current, view, record->slot);
  m2sed_table_refresh(server->next, view, record->slot);
}

/* ---- epochs ---- */

static bool begin_epoch(struct m2sed_server *server) {
  if (server->next->copy != NULL || !server->catalogue_told) {
    return false;
  }
  struct m2sed_weights_copy *copy = m2sed_exchange_take(server->exchange->ready);
  if (copy == NULL) {
    return false;
  }
  m2sed_table_begin(server->next, &server->view, copy, server->next_epoch++);
  return true;
}

static void finish_epoch(struct m2sed_server *server, uint64_t epoch) {
  assert(server->next->copy != NULL && server->next->announced && server->next->epoch == epoch);
  while (server->judge != NULL && m2sed_judge_work(server->judge, server->current, &server->view)) {
    beat(server);
  }
  struct m2sed_table *before = server->current;
  if (before->copy != NULL) {
    m2sed_exchange_give(server->exchange->idle, before->copy);
    before->copy = NULL;
  }
  server->current = server->next;
  server->next = before;
}

/* ---- users ---- */

static bool known(const struct m2sed_server *server, uint32_t slot) {
  assert(slot < server->view.items_max);
  return server->current->encoded[slot];
}

/* Items of these users that have features but wait in the queue are encoded now: a sequence must not miss the
 * very item that its event is about because that item is new. */
static void encode_awaited(struct m2sed_server *server, uint32_t users) {
  uint32_t slots[M2SED_ITEM_BLOCK], count = 0;
  for (uint32_t i = 0; i < users; i++) {
    const struct m2sed_serve_message *message = server->chosen[i];
    for (uint32_t p = 0; message != NULL && p < message->sequence_count; p++) {
      uint32_t slot = message->sequence[p];
      if (!server->current->queued[slot] || known(server, slot)) {
        continue;
      }
      bool listed = false;
      for (uint32_t k = 0; k < count && !listed; k++) {
        listed = slots[k] == slot;
      }
      if (listed || !m2sed_item_featurised(server->view.records[slot])) {
        continue;
      }
      slots[count++] = slot;
      if (count == server->view.block) {
        encode_items(server, server->current, slots, count);
        count = 0;
      }
    }
  }
  if (count > 0) {
    encode_items(server, server->current, slots, count);
  }
}

/* Appends the known items of a sequence; of more than max_len the encoder takes the newest. Returns how many.
 */
static uint32_t pack_sequence(struct m2sed_server *server, uint32_t row, const uint32_t *slots,
                              uint32_t count) {
  uint32_t position = server->seq_ptr[row];
  for (uint32_t i = 0; i < count; i++) {
    if (known(server, slots[i])) {
      server->seq_items[position++] = slots[i];
    }
  }
  server->seq_ptr[row + 1] = position;
  return position - server->seq_ptr[row];
}

static void encode_sequences(struct m2sed_server *server, uint32_t rows) {
  if (rows > 0) {
    m2se_server_users(server->view.encoder, server->current->copy->weights, server->current->states,
                      server->seq_ptr, server->seq_items, rows, server->vectors);
  }
}

/* Encodes the chosen sequences; row_of: the vector of each of them, USERS: it has none. */
static void encode_chosen(struct m2sed_server *server, uint32_t users, uint32_t row_of[USERS]) {
  uint32_t rows = 0;
  bool serving = server->current->copy != NULL;
  if (serving) {
    encode_awaited(server, users);
  }
  for (uint32_t i = 0; i < users; i++) {
    const struct m2sed_serve_message *message = server->chosen[i];
    row_of[i] = USERS;
    if (message == NULL || !serving) {
      continue;
    }
    assert(message->sequence_count <= M2SED_CONTEXT_MAX && message->context_count <= M2SED_CONTEXT_MAX);
    if (pack_sequence(server, rows, message->sequence, message->sequence_count) > 0) {
      row_of[i] = rows++;
    }
  }
  encode_sequences(server, rows);
}

static void answer_user(struct m2sed_server *server, const struct m2sed_serve_message *message,
                        const struct m2sed_serve_message *chosen, const float *vector) {
  uint32_t dim = server->view.dim;
  struct m2sed_waiting_user *user = m2sed_waiting_entry(&server->waiting, message->user_hash);
  struct m2sed_served_message *answer = claim_answer(server);
  answer->kind = M2SED_SERVED_USER;
  answer->tag = message->tag;
  answer->epoch = server->current->epoch;
  answer->step = server->current->step;
  answer->dim = dim;
  answer->count = vector != NULL && m2sed_vector_finite(vector, dim) ? 1 : 0;
  if (answer->count > 0) {
    memcpy(answer->vectors, vector, dim * sizeof(float));
  }
  answer->sequence_tag = chosen != NULL ? chosen->tag : message->tag;
  answer->covered = chosen == NULL && user->vector;
  answer->covered_tag = chosen == NULL ? user->by : message->tag;
  if (user != NULL && chosen != NULL) {
    user->vector = answer->count > 0;
  }
  answer->prequential =
      server->judge != NULL ? *m2sed_judge_sums(server->judge) : (struct m2sed_prequential){0};
  m2sed_ring_publish(server->output);
}

static void answer_users(struct m2sed_server *server, uint32_t users) {
  uint32_t row_of[USERS];
  m2sed_waiting_see(&server->waiting, server->input);
  for (uint32_t i = 0; i < users; i++) {
    server->chosen[i] = m2sed_waiting_choose(&server->waiting, server->input, i);
  }
  encode_chosen(server, users, row_of);
  for (uint32_t i = 0; i < users; i++) {
    const float *vector = row_of[i] < USERS ? server->vectors + (size_t)row_of[i] * server->view.dim : NULL;
    answer_user(server, m2sed_ring_peek(server->input, i), server->chosen[i], vector);
  }
}

static void judge_users(struct m2sed_server *server, uint32_t users) {
  for (uint32_t i = 0; i < users; i++) {
    const struct m2sed_serve_message *message = m2sed_ring_peek(server->input, i);
    if (message->evaluate && m2sed_judge_add(server->judge, server->current, &server->view, message)) {
      atomic_fetch_add_explicit(&server->evaluations_skipped, 1, memory_order_relaxed);
    }
  }
}

static void serve_users(struct m2sed_server *server) {
  const struct m2sed_serve_message *message;
  uint32_t users = 0;
  while (users < USERS && (message = m2sed_ring_peek(server->input, users)) != NULL &&
         message->kind == M2SED_SERVE_USER) {
    users++;
  }
  answer_users(server, users);
  if (server->judge != NULL) {
    judge_users(server, users);
  }
  for (uint32_t i = 0; i < users; i++) {
    m2sed_waiting_release(&server->waiting, server->input);
  }
}

/* ---- recommendations ---- */

static bool work_on_recommendations(struct m2sed_server *server) {
  struct m2sed_ranking *done;
  bool worked = m2sed_recommender_work(&server->recommender, server->current, &server->view, &done);
  if (done != NULL) {
    struct m2sed_served_message *answer = claim_answer(server);
    answer->kind = M2SED_SERVED_RECOMMEND;
    answer->count = 0;
    answer->ranking = done;
    m2sed_ring_publish(server->output);
  }
  return worked;
}

/* ---- the thread ---- */

static bool work_on_input(struct m2sed_server *server) {
  struct m2sed_serve_message *message = m2sed_ring_peek(server->input, 0);
  if (message == NULL) {
    return false;
  }
  switch (message->kind) {
  case M2SED_SERVE_USER:
    serve_users(server);
    return true; /* has released its messages */
  case M2SED_SERVE_ITEM:
    take_item(server, message->record);
    break;
  case M2SED_SERVE_CATALOGUE:
    server->catalogue_told = true;
    break;
  case M2SED_SERVE_EPOCH_DONE:
    finish_epoch(server, message->epoch);
    break;
  case M2SED_SERVE_RECOMMEND:
    m2sed_recommender_add(&server->recommender, message->ranking);
    break;
  case M2SED_SERVE_STOP:
    server->stopping = true;
    break;
  }
  m2sed_waiting_release(&server->waiting, server->input);
  return true;
}

/* At most one batch of users, one block of items, one slice of a recommendation and a few evaluations, so
 * that none keeps the others waiting for long. */
static bool work(struct m2sed_server *server) {
  bool began = begin_epoch(server);
  bool took = work_on_input(server);
  if (server->stopping) {
    return true;
  }
  bool encoded = work_on_items(server), ranked = work_on_recommendations(server);
  bool judged = server->judge != NULL && m2sed_ring_used(server->input) == 0 &&
                m2sed_judge_work(server->judge, server->current, &server->view);
  return began || took || encoded || ranked || judged;
}

static void *server_main(void *arg) {
  struct m2sed_server *server = arg;
  prctl(PR_SET_NAME, "m2sed-serve");
  while (!server->stopping) {
    beat(server);
    if (work(server)) {
      continue;
    }
    m2sed_waker_prepare(&server->waker);
    if (work(server)) {
      m2sed_waker_cancel(&server->waker);
    } else {
      int64_t wait_ns = items_wait_ns(server);
      wait_ns > 0 ? m2sed_waker_nap(&server->waker, wait_ns) : m2sed_waker_sleep(&server->waker);
    }
  }
  struct m2sed_served_message *answer = claim_answer(server);
  answer->kind = M2SED_SERVED_STOPPED;
  answer->count = 0;
  m2sed_ring_publish(server->output);
  return NULL;
}

/* ---- for the loop ---- */

static int allocate(struct m2sed_server *server, const struct m2se_config *config, struct m2se_error *error) {
  const struct m2sed_serve_settings *settings = &server->settings;
  struct m2sed_catalogue_view *view = &server->view;
  int code =
      m2se_server_new(&view->encoder, config, config->item_bias || settings->popularity_weight > 0, error);
  if (code < 0) {
    return code;
  }
  view->state_floats = 2 * config->h;
  view->dim = m2se_server_dim(view->encoder);
  if (view->dim > M2SED_SERVED_BLOCK) {
    return m2se_error_set(error, M2SE_EINVAL, "vectors of %u numbers: more than %d", view->dim,
                          M2SED_SERVED_BLOCK);
  }
  view->block = M2SED_SERVED_BLOCK / view->dim;
  view->block = view->block < M2SED_ITEM_BLOCK ? view->block : M2SED_ITEM_BLOCK;
  view->items_max = settings->items_max;
  view->popularity_weight = settings->popularity_weight;
  view->popularity_prior = settings->popularity_prior;
  bool ranks = settings->evaluate || settings->recommend;
  view->records = calloc(settings->items_max, sizeof(struct m2sed_item_record *));
  view->block_states = calloc((size_t)view->block * view->state_floats, sizeof(float));
  server->vectors = calloc((size_t)USERS * view->dim, sizeof(float));
  if (view->records == NULL || view->block_states == NULL || server->vectors == NULL ||
      m2sed_recommender_init(&server->recommender, view->dim) < 0 ||
      m2sed_table_init(&server->tables[0], view, ranks) < 0 ||
      m2sed_table_init(&server->tables[1], view, ranks) < 0 ||
      m2sed_ring_new(&server->input, settings->ring_capacity, sizeof(struct m2sed_serve_message)) < 0 ||
      m2sed_ring_new(&server->output, OUTPUT_CAPACITY, sizeof(struct m2sed_served_message)) < 0) {
    return m2se_error_set(error, M2SE_ENOMEM, "serving %u items, %u requests", settings->items_max,
                          settings->ring_capacity);
  }
  return settings->evaluate ? m2sed_judge_new(&server->judge, view, error) : 0;
}

static int settings_check(const struct m2sed_serve_settings *settings, const struct m2se_config *config,
                          struct m2se_error *error) {
  if (settings->items_max < 1 || settings->items_max > 1u << 24) {
    return m2se_error_set(error, M2SE_EINVAL, "items_max: %u is not in 1..16777216", settings->items_max);
  }
  if (settings->ring_capacity < 1 || settings->ring_capacity > 1u << 20) {
    return m2se_error_set(error, M2SE_EINVAL, "ring_capacity: %u is not in 1..1048576",
                          settings->ring_capacity);
  }
  if (!(settings->popularity_weight >= 0) ||
      (settings->popularity_weight > 0 && !(settings->popularity_prior > 0))) {
    return m2se_error_set(error, M2SE_EINVAL,
                          "popularity_weight %g is negative, or popularity_prior %g not positive",
                          settings->popularity_weight, settings->popularity_prior);
  }
  if (config->max_len > M2SED_CONTEXT_MAX) {
    return m2se_error_set(error, M2SE_EINVAL, "max_len: %u is above %d", config->max_len, M2SED_CONTEXT_MAX);
  }
  return 0;
}

int m2sed_server_new(struct m2sed_server **server, const struct m2se_config *config,
                     const struct m2sed_serve_settings *settings, struct m2sed_exchange *exchange,
                     struct m2se_error *error) {
  *server = NULL;
  int code = settings_check(settings, config, error);
  if (code < 0) {
    return code;
  }
  struct m2sed_server *s = calloc(1, sizeof *s);
  if (s == NULL) {
    return m2se_error_set(error, M2SE_ENOMEM, "the server");
  }
  s->settings = *settings;
  s->exchange = exchange;
  s->next_epoch = settings->first_epoch;
  s->current = &s->tables[0];
  s->next = &s->tables[1];
  code = allocate(s, config, error);
  if (code < 0) {
    m2sed_server_free(s);
    return code;
  }
  struct m2sed_notify wake = m2sed_waker_notify(&s->waker);
  m2sed_ring_on_message(s->input, wake);
  m2sed_ring_on_room(s->output, wake);
  m2sed_ring_on_message(exchange->ready, wake);
  *server = s;
  return 0;
}

struct m2sed_ring *m2sed_server_input(struct m2sed_server *server) {
  return server->input;
}

struct m2sed_ring *m2sed_server_output(struct m2sed_server *server) {
  return server->output;
}

uint32_t m2sed_server_dim(const struct m2sed_server *server) {
  return server->view.dim;
}

void m2sed_server_set_first_epoch(struct m2sed_server *server, uint64_t epoch) {
  assert(!server->started);
  server->next_epoch = epoch;
}

int m2sed_server_start(struct m2sed_server *server, struct m2se_error *error) {
  assert(!server->started);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&server->thread, NULL, server_main, server);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed != 0) {
    return m2se_error_set(error, M2SE_EIO, "starting the serving thread: %s", strerror(failed));
  }
  server->started = true;
  return 0;
}

void m2sed_server_join(struct m2sed_server *server) {
  if (server->started) {
    pthread_join(server->thread, NULL);
    server->started = false;
  }
}

void m2sed_server_free(struct m2sed_server *server) {
  if (server == NULL) {
    return;
  }
  assert(!server->started);
  struct m2sed_serve_message *message;
  while (server->input != NULL && (message = m2sed_ring_peek(server->input, 0)) != NULL) {
    if (message->kind == M2SED_SERVE_ITEM) {
      m2sed_item_record_release(message->record);
    }
    m2sed_ring_release(server->input);
  }
  for (uint32_t i = 0; i < server->view.slots; i++) {
    m2sed_item_record_release(server->view.records[i]);
  }
  free(server->view.records);
  free(server->view.block_states);
  m2se_server_free(server->view.encoder);
  m2sed_table_deinit(&server->tables[0]);
  m2sed_table_deinit(&server->tables[1]);
  m2sed_judge_free(server->judge);
  m2sed_recommender_deinit(&server->recommender);
  m2sed_ring_free(server->input);
  m2sed_ring_free(server->output);
  free(server->vectors);
  free(server);
}

struct m2sed_pulse m2sed_server_pulse(const struct m2sed_server *server) {
  return (struct m2sed_pulse){.beats = atomic_load_explicit(&server->beats, memory_order_relaxed),
                              .idle = m2sed_waker_is_asleep(&server->waker)};
}

uint64_t m2sed_server_evaluations_skipped(const struct m2sed_server *server) {
  return atomic_load_explicit(&server->evaluations_skipped, memory_order_relaxed);
}
