/* The training thread: takes messages, trains, hands out weights and snapshots.
 *
 * DESIGN. All that is learned is in a struct m2sed_learning (learning.h), a function of the messages taken
 * and not of clock or thread count. This file is the thread around it. Messages come before steps, so that
 * events wait in the backlog and the ring is empty; once that is full they wait in the ring. The loop puts
 * messages into input() and takes answers from output(); copies of the weights go to the server through the
 * exchange; snapshots go out with M2SED_TRAINED_SNAPSHOT and come back with m2sed_trainer_return_snapshot.
 */
#ifndef M2SED_TRAINER_H
#define M2SED_TRAINER_H

#include "daemon/exchange.h"
#include "daemon/messages.h"
#include "daemon/ring.h"
#include "daemon/watchdog.h"
#include "model/m2se.h"

struct m2sed_train_settings {
  bool off;                    /* not train.enabled: events are counted, no step is made */
  uint32_t batch;              /* train.batch: examples of a mini-batch, fresh and replayed; 1..65536 */
  uint32_t threads;            /* train.threads, 1.. */
  int32_t nice;                /* train.nice: of these threads, 0..19 */
  int64_t batch_ms;            /* train.batch_seconds: event time that closes a mini-batch; 0: none does */
  uint32_t backlog;            /* train.backlog: examples that may wait beyond a mini-batch */
  bool shrink;                 /* train.overload: while it is half full, replay is taken away */
  double replay_ratio;         /* train.replay_ratio: replayed examples for each fresh one, 0..1000 */
  uint32_t reservoir_capacity; /* train.reservoir: examples kept for replay */
  uint32_t parking;            /* train.parking: events that may wait for features */
  uint64_t parking_events;     /* train.parking_events: so many later events at most */
  uint32_t epoch_steps;        /* serve.epoch_steps: steps between two copies for serving, 1.. */
  double gradient_norm_max;    /* train.gradient_norm_max: a larger norm skips the step; 0: no such limit */
  double over_guess_max;       /* train.over_guess_max, nats; 0: no such limit */
  uint32_t guard_rollback;     /* train.guard_rollback: so many refused steps in a row go back; 0: never */
  double popularity_half_life_seconds; /* serve.popularity_half_life_seconds; 0: counts do not decay */
  uint32_t items_max;                  /* model.items_max: slots of the catalogue */
  uint32_t rows_max;                   /* rows of one modality that an item may have */
  uint32_t ring_capacity;              /* messages from the loop that may wait */
};
/* 0, or M2SE_EINVAL with the field and its range. */
int m2sed_train_settings_check(const struct m2sed_train_settings *settings, struct m2se_error *error);

struct m2sed_trainer;
struct m2sed_checkpoint_state;

/* Memory for everything, no thread yet. config->d must be set. exchange stays the caller's and outlives the
 * trainer. restored: as m2sed_checkpoint_load gave it (the weights are read from its directory), or NULL:
 * fresh weights. It is copied. M2SE_ENOMEM, M2SE_EINVAL, and the errors of the weights file. */
int m2sed_trainer_new(struct m2sed_trainer **trainer, const struct m2se_config *config,
                      const struct m2sed_train_settings *settings, struct m2sed_exchange *exchange,
                      const struct m2sed_checkpoint_state *restored, struct m2se_error *error);
/* The rings. Set the loop's callbacks (input: on_room, output: on_message) before start. A message of kind
 * M2SED_TRAIN_ITEM hands over one reference of its record. */
struct m2sed_ring *m2sed_trainer_input(struct m2sed_trainer *trainer);
struct m2sed_ring *m2sed_trainer_output(struct m2sed_trainer *trainer);
/* Starts the thread (all signals blocked in it). It makes the first copy of the weights at once. */
int m2sed_trainer_start(struct m2sed_trainer *trainer, struct m2se_error *error);
/* Loop thread. Two snapshots exist: while both are out, M2SED_TRAIN_CHECKPOINT is answered later. */
void m2sed_trainer_return_snapshot(struct m2sed_trainer *trainer, struct m2sed_checkpoint_state *snapshot);
/* Waits for the end of the thread: at once after M2SED_TRAINED_STOPPED. Not started: returns. */
void m2sed_trainer_join(struct m2sed_trainer *trainer);
/* After join (or without start); all snapshots have been returned or are no longer used. NULL is allowed. */
struct m2sed_pulse
m2sed_trainer_pulse(const struct m2sed_trainer *trainer); /* any thread; once it has started */
void m2sed_trainer_free(struct m2sed_trainer *trainer);

/* What the answers mean, beyond messages.h:
 * M2SED_TRAINED_FLUSHED: all taken events are trained; a copy of these weights goes to the server as soon as
 * a buffer is free, even if epoch_steps have not passed: wait for the epoch whose step is the message's. A
 * STOP that comes before it ends the flush, which is then not answered. M2SED_TRAINED_SNAPSHOT, last = true:
 * the answer to STOP; M2SED_TRAINED_STOPPED follows and is the last message. */

#endif
