#include "daemon/trainer.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "daemon/batcher.h"
#include "daemon/item_record.h"
#include "daemon/learning.h"
#include "daemon/pool.h"

enum { SNAPSHOTS = 2, OUTPUT_CAPACITY = 64, TRAINED_AT_STOP = 512 };

struct m2sed_trainer {
  struct m2sed_train_settings settings;
  struct m2sed_exchange *exchange;
  struct m2sed_learning *learning;
  struct m2sed_pool *pool;
  struct m2se_workers workers;
  struct m2sed_ring *input, *output;
  struct m2sed_ring *returned; /* loop -> trainer: pointers to snapshots, all of them at first */
  struct m2sed_waker waker;
  struct m2sed_checkpoint_state *snapshots[SNAPSHOTS];
  const struct m2sed_checkpoint_state *good; /* the newest of them: where the guard goes back to */
  pthread_t thread;
  bool started;
  atomic_ullong beats; /* for the watchdog */

  /* The thread's own. */
  uint64_t copied_step; /* of the newest copy for the server */
  bool copy_wanted;     /* even if epoch_steps have not passed */
  bool snapshot_wanted;
  bool flushing; /* FLUSH was taken and is not answered */
  bool stopping; /* STOP was taken: what is left is the last snapshot */
};

/* ---- what the thread does ---- */

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void answer(struct m2sed_trainer *trainer, enum m2sed_trained_kind kind,
                   struct m2sed_checkpoint_state *snapshot, double stall_ms) {
  struct m2sed_trained_message *message = m2sed_ring_claim_wait(trainer->output, &trainer->waker);
  *message = (struct m2sed_trained_message){
      .kind = kind, .snapshot = snapshot, .stall_ms = stall_ms, .last = trainer->stopping};
  m2sed_learning_report(trainer->learning, message);
  m2sed_ring_publish(trainer->output);
}

static void beat(struct m2sed_trainer *trainer) {
  atomic_fetch_add_explicit(&trainer->beats, 1, memory_order_relaxed);
}

static void step(struct m2sed_trainer *trainer) {
  int64_t begin = now_ns();
  struct m2sed_trained_message *message = m2sed_ring_claim_wait(trainer->output, &trainer->waker);
  if (m2sed_learning_step(trainer->learning, &trainer->workers, message)) {
    if (m2sed_learning_must_go_back(trainer->learning)) {
      m2sed_learning_go_back(trainer->learning, trainer->good);
      m2sed_learning_report(trainer->learning, message);
      trainer->copy_wanted = true;
    }
    message->step_ms = (double)(now_ns() - begin) * 1e-6;
    m2sed_ring_publish(trainer->output);
  }
  beat(trainer);
}

/* Suspect weights are not shown by themselves. */
static bool copy_due(const struct m2sed_trainer *trainer) {
  uint64_t steps = m2sed_learning_step_number(trainer->learning) - trainer->copied_step;
  return trainer->copy_wanted ||
         (steps >= trainer->settings.epoch_steps && !m2sed_learning_is_suspect(trainer->learning));
}

/* Hands out what is due and what there is a buffer for. Returns whether it did anything. */
static bool hand_out(struct m2sed_trainer *trainer) {
  bool did = false;
  if (copy_due(trainer)) {
    struct m2sed_weights_copy *copy = m2sed_exchange_take(trainer->exchange->idle);
    if (copy != NULL) {
      m2sed_learning_copy(trainer->learning, copy);
      m2sed_exchange_give(trainer->exchange->ready, copy);
      trainer->copied_step = m2sed_learning_step_number(trainer->learning);
      trainer->copy_wanted = false;
      did = true;
    }
  }
  /* While the weights are suspect no generation is made of them: it would push out a good one. */
  if (trainer->snapshot_wanted && (trainer->stopping || !m2sed_learning_is_suspect(trainer->learning))) {
    struct m2sed_checkpoint_state **slot = m2sed_ring_peek(trainer->returned, 0);
    if (slot != NULL) {
      struct m2sed_checkpoint_state *snapshot = *slot;
      m2sed_ring_release(trainer->returned);
      int64_t begin = now_ns();
      m2sed_learning_snapshot_take(trainer->learning, snapshot);
      trainer->good = snapshot;
      answer(trainer, M2SED_TRAINED_SNAPSHOT, snapshot, (double)(now_ns() - begin) * 1e-6);
      trainer->snapshot_wanted = false;
      did = true;
    }
  }
  return did;
}

static void flush(struct m2sed_trainer *trainer) {
  if (m2sed_learning_waiting(trainer->learning) > 0 && !trainer->settings.off) {
    step(trainer);
    return;
  }
  /* The server gets the flushed weights, unless it has them: an epoch without a step would say nothing new.
   */
  trainer->copy_wanted |= trainer->copied_step != m2sed_learning_step_number(trainer->learning);
  answer(trainer, M2SED_TRAINED_FLUSHED, NULL, 0);
  trainer->flushing = false;
}

/* An orderly end trains what is due if that is little: a supervisor does not wait long, and the checkpoint
 * keeps the rest. */
static void stop(struct m2sed_trainer *trainer) {
  uint32_t steps = TRAINED_AT_STOP / m2sed_batcher_fresh(&trainer->settings) + 1;
  for (uint32_t i = 0; i < steps && m2sed_learning_due(trainer->learning); i++) {
    step(trainer);
  }
  if (m2sed_learning_is_damaged(trainer->learning)) { /* the last generation is a good one too */
    m2sed_learning_go_back(trainer->learning, trainer->good);
  }
  trainer->flushing = false;
  trainer->snapshot_wanted = true;
  trainer->stopping = true;
}

static void take(struct m2sed_trainer *trainer, struct m2sed_train_message *message) {
  switch (message->kind) {
  case M2SED_TRAIN_EVENT:
  case M2SED_TRAIN_ITEM:
  case M2SED_TRAIN_FORGET:
  case M2SED_TRAIN_CATALOGUE:
    m2sed_learning_take(trainer->learning, message);
    break;
  case M2SED_TRAIN_CHECKPOINT:
    trainer->snapshot_wanted = true;
    break;
  case M2SED_TRAIN_COPY:
    trainer->copy_wanted = true;
    break;
  case M2SED_TRAIN_FLUSH:
    m2sed_learning_begin(trainer->learning);
    trainer->flushing = true;
    break;
  case M2SED_TRAIN_STOP:
    stop(trainer);
    break;
  }
}

/* One thing to do, if there is any. Messages come before steps: events wait in the backlog, and the loop goes
 * on with the next ones, as long as there is room. */
static bool work(struct m2sed_trainer *trainer) {
  if (hand_out(trainer)) {
    return true;
  }
  if (trainer->stopping) {
    return false;
  }
  struct m2sed_train_message *message = m2sed_ring_peek(trainer->input, 0);
  if (message != NULL && (message->kind != M2SED_TRAIN_EVENT || m2sed_learning_has_room(trainer->learning))) {
    take(trainer, message);
    m2sed_ring_release(trainer->input);
    return true;
  }
  if (trainer->flushing) {
    flush(trainer);
    return true;
  }
  if (m2sed_learning_due(trainer->learning)) {
    step(trainer);
    return true;
  }
  return false;
}

static void *trainer_main(void *arg) {
  struct m2sed_trainer *trainer = arg;
  prctl(PR_SET_NAME, "m2sed-train");
  m2sed_pool_lower_thread(trainer->settings.nice);
  while (!trainer->stopping || trainer->snapshot_wanted) {
    beat(trainer);
    if (work(trainer)) {
      continue;
    }
    m2sed_waker_prepare(&trainer->waker);
    if (work(trainer)) {
      m2sed_waker_cancel(&trainer->waker);
    } else {
      m2sed_waker_sleep(&trainer->waker);
    }
  }
  answer(trainer, M2SED_TRAINED_STOPPED, NULL, 0);
  return NULL;
}

/* ---- for the loop ---- */

static void return_snapshot(struct m2sed_trainer *trainer, struct m2sed_checkpoint_state *snapshot) {
  struct m2sed_checkpoint_state **slot = m2sed_ring_claim(trainer->returned);
  assert(slot != NULL && snapshot != NULL);
  *slot = snapshot;
  m2sed_ring_publish(trainer->returned);
}

static int allocate(struct m2sed_trainer *trainer, const struct m2se_config *config,
                    const struct m2sed_checkpoint_state *restored, struct m2se_error *error) {
  const struct m2sed_train_settings *settings = &trainer->settings;
  int code = m2sed_learning_new(&trainer->learning, config, settings, restored, error);
  if (code == 0) {
    code = m2sed_pool_new(&trainer->pool, settings->threads, settings->nice, error);
  }
  if (code == 0 &&
      (m2sed_ring_new(&trainer->input, settings->ring_capacity, sizeof(struct m2sed_train_message)) < 0 ||
       m2sed_ring_new(&trainer->output, OUTPUT_CAPACITY, sizeof(struct m2sed_trained_message)) < 0 ||
       m2sed_ring_new(&trainer->returned, SNAPSHOTS, sizeof(struct m2sed_checkpoint_state *)) < 0)) {
    code = m2se_error_set(error, M2SE_ENOMEM, "rings of the trainer, %u messages", settings->ring_capacity);
  }
  for (uint32_t i = 0; i < SNAPSHOTS && code == 0; i++) {
    code = m2sed_learning_snapshot_new(trainer->learning, &trainer->snapshots[i], error);
    if (code == 0) {
      return_snapshot(trainer, trainer->snapshots[i]);
    }
  }
  if (code == 0) {
    trainer->good = trainer->snapshots[SNAPSHOTS - 1];
    m2sed_learning_snapshot_take(trainer->learning, trainer->snapshots[SNAPSHOTS - 1]);
  }
  return code;
}

int m2sed_trainer_new(struct m2sed_trainer **trainer, const struct m2se_config *config,
                      const struct m2sed_train_settings *settings, struct m2sed_exchange *exchange,
                      const struct m2sed_checkpoint_state *restored, struct m2se_error *error) {
  *trainer = NULL;
  struct m2sed_trainer *t = calloc(1, sizeof *t);
  if (t == NULL) {
    return m2se_error_set(error, M2SE_ENOMEM, "the trainer");
  }
  t->settings = *settings;
  t->exchange = exchange;
  int code = allocate(t, config, restored, error);
  if (code < 0) {
    m2sed_trainer_free(t);
    return code;
  }
  t->workers = m2sed_pool_workers(t->pool);
  /* Without training, weights that were never trained would be served for ever. */
  t->copy_wanted = !settings->off || m2sed_learning_step_number(t->learning) > 0;
  struct m2sed_notify wake = m2sed_waker_notify(&t->waker);
  m2sed_ring_on_message(t->input, wake);
  m2sed_ring_on_room(t->output, wake);
  m2sed_ring_on_message(t->returned, wake);
  m2sed_ring_on_message(exchange->idle, wake);
  *trainer = t;
  return 0;
}

struct m2sed_ring *m2sed_trainer_input(struct m2sed_trainer *trainer) {
  return trainer->input;
}

struct m2sed_ring *m2sed_trainer_output(struct m2sed_trainer *trainer) {
  return trainer->output;
}

int m2sed_trainer_start(struct m2sed_trainer *trainer, struct m2se_error *error) {
  assert(!trainer->started);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&trainer->thread, NULL, trainer_main, trainer);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed != 0) {
    return m2se_error_set(error, M2SE_EIO, "starting the training thread: %s", strerror(failed));
  }
  trainer->started = true;
  return 0;
}

struct m2sed_pulse m2sed_trainer_pulse(const struct m2sed_trainer *trainer) {
  return (struct m2sed_pulse){.beats = atomic_load_explicit(&trainer->beats, memory_order_relaxed),
                              .idle = m2sed_waker_is_asleep(&trainer->waker)};
}

void m2sed_trainer_return_snapshot(struct m2sed_trainer *trainer, struct m2sed_checkpoint_state *snapshot) {
  return_snapshot(trainer, snapshot);
}

void m2sed_trainer_join(struct m2sed_trainer *trainer) {
  if (trainer->started) {
    pthread_join(trainer->thread, NULL);
    trainer->started = false;
  }
}

void m2sed_trainer_free(struct m2sed_trainer *trainer) {
  if (trainer == NULL) {
    return;
  }
  assert(!trainer->started);
  struct m2sed_train_message *message;
  while (trainer->input != NULL && (message = m2sed_ring_peek(trainer->input, 0)) != NULL) {
    if (message->kind == M2SED_TRAIN_ITEM) {
      m2sed_item_record_release(message->record);
    }
    m2sed_ring_release(trainer->input);
  }
  for (uint32_t i = 0; i < SNAPSHOTS; i++) {
    m2sed_learning_snapshot_free(trainer->snapshots[i]);
  }
  m2sed_pool_free(trainer->pool);
  m2sed_learning_free(trainer->learning);
  m2sed_ring_free(trainer->input);
  m2sed_ring_free(trainer->output);
  m2sed_ring_free(trainer->returned);
  free(trainer);
}
