/* The loop: the thread that does all I/O, from the first item to the last checkpoint.
 *
 * DESIGN. A libuv loop with two doors (Kafka, Redis), two rings to the threads that compute, timers and
 * signals. Each turn moves whatever can move, and nothing waits: a full ring, a slow Redis, a broker that is
 * away only mean that less is read from Kafka. The parts, each a file with one subject: loop.c turns,
 * wake-ups, signals loop_phase.c       from starting to stopped, in the order of enum m2sed_phase
 *   loop_standby.c     the lease, and waiting for it
 *   loop_start.c       what is made before the first turn
 *   loop_event.c       the way of one interaction, from the record to the published vector
 *   loop_item.c        the items topic
 *   loop_engine.c      trainer and server: made when the feature width is known; their answers
 *   loop_epoch.c       item vectors of a new epoch into Redis
 *   loop_sweep.c       vectors of users without new events
 *   loop_letter.c      dead letters
 *   loop_checkpoint.c  writing snapshots in libuv's thread pool
 *   loop_status.c      the Status message, once a second
 */
#ifndef M2SED_LOOP_H
#define M2SED_LOOP_H

#include <stdbool.h>

#include "daemon/config.h"
#include "daemon/log.h"
#include "model/error.h"

struct m2sed_loop_options {
  const struct m2sed_config *config;
  struct m2sed_log *log;
  bool until_end; /* stop by itself when all that the topics held at the start is done */
  bool new_log;   /* the broker began anew and keeps nothing (embedded) */
};

struct m2sed_loop_summary { /* for people, after --until-end */
  uint64_t received, trained_events, step, generation, epoch;
  double seconds;
};

/* Runs until it is told to stop (SIGTERM, SIGINT), has come to the end, or fails. 0: stopped in order, the
 * last checkpoint written; 1: told twice, or not the active daemon any more: nothing more was done, the
 * process should end at once; negative: error says why. The checkpoint folder is locked and BLAS is checked
 * before. */
int m2sed_loop_run(const struct m2sed_loop_options *options, struct m2sed_loop_summary *summary,
                   struct m2se_error *error);

#endif
