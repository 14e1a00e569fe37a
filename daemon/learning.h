/* All that is learned from the stream: network, waiting and parked examples, reservoir, positions, counters,
 * popularity.
 *
 * DESIGN. A state machine without thread and clock: what it holds is a function of the messages taken and of
 * the settings, whatever the number of workers. take() notes a message; when due() says so, step() trains one
 * mini-batch; how late it does so changes nothing (but with settings.shrink, and after the guard went back).
 * A record whose position was taken before is ignored, so that a partition read again from an
 * earlier offset changes nothing. The trainer's thread (trainer.h) drives it; an evaluation without threads
 * can do the same.
 * settings.off: events are counted and not learned; what waits or is parked stays so, nothing is due.
 */
#ifndef M2SED_LEARNING_H
#define M2SED_LEARNING_H

#include "daemon/checkpoint.h"
#include "daemon/exchange.h"
#include "daemon/messages.h"
#include "daemon/trainer.h"

enum { M2SED_PARTITIONS_MAX = 16384 }; /* partition numbers of the interactions topic are below this */

struct m2sed_learning;

/* As m2sed_trainer_new. */
int m2sed_learning_new(struct m2sed_learning **learning, const struct m2se_config *config,
                       const struct m2sed_train_settings *settings,
                       const struct m2sed_checkpoint_state *restored, struct m2se_error *error);
void m2sed_learning_free(struct m2sed_learning *learning);

/* M2SED_TRAIN_EVENT (there must be room: else step() first), M2SED_TRAIN_ITEM (the record's reference becomes
 * ours), M2SED_TRAIN_CATALOGUE, M2SED_TRAIN_FORGET. */
void m2sed_learning_take(struct m2sed_learning *learning, const struct m2sed_train_message *message);
/* Of that user no example waits, is parked or rests in the reservoir any more; those not trained yet are
 * counted as skipped_erased. (M2SED_TRAIN_FORGET; take() calls it.) */
void m2sed_learning_forget(struct m2sed_learning *learning, uint64_t user_hash);
bool m2sed_learning_has_room(const struct m2sed_learning *learning);
bool m2sed_learning_due(const struct m2sed_learning *learning);
uint32_t m2sed_learning_waiting(const struct m2sed_learning *learning);
/* What waits may be trained: all items that it needs have been told. Parked examples whose features have come
 * wait from now on. take() does it with every event. */
void m2sed_learning_begin(struct m2sed_learning *learning);
/* Trains the oldest mini-batch that waits (at least one example), due or not. Fills all of *result but
 * step_ms, snapshot and last. False: there was nothing left to train (all its items have lost their
 * features), no step was made. */
bool m2sed_learning_step(struct m2sed_learning *learning, const struct m2se_workers *workers,
                         struct m2sed_trained_message *result);
/* The guard. A step whose loss or gradient is not finite or too large changes nothing; its fresh examples
 * are counted and their positions remembered. After settings.guard_rollback such steps in a row the weights
 * are taken for damaged (must_go_back, until the next step), from the first one on they are suspect. Steps
 * whose loss is more than settings.over_guess_max above that of a guess count in such a row, but take effect
 * and leave no event out. After they went back weights are suspect again until guard_rollback steps were
 * well. */
bool m2sed_learning_is_suspect(const struct m2sed_learning *learning);
/* Suspect, and the last step took effect: weights that should not be kept. */
bool m2sed_learning_is_damaged(const struct m2sed_learning *learning);
bool m2sed_learning_must_go_back(const struct m2sed_learning *learning);
/* Weights, moments and item table become those of `good`; positions, counters, step number, waiting examples
 * and reservoir stay: no event is trained twice, none is taken back. */
void m2sed_learning_go_back(struct m2sed_learning *learning, const struct m2sed_checkpoint_state *good);
/* The counters and sizes of a message, as they stand. */
void m2sed_learning_report(const struct m2sed_learning *learning, struct m2sed_trained_message *message);
uint64_t m2sed_learning_step_number(const struct m2sed_learning *learning);

/* Weights and popularity, as they stand, for serving. */
void m2sed_learning_copy(const struct m2sed_learning *learning, struct m2sed_weights_copy *copy);

/* A state with room for everything, and its filling. */
int m2sed_learning_snapshot_new(const struct m2sed_learning *learning, struct m2sed_checkpoint_state **state,
                                struct m2se_error *error);
void m2sed_learning_snapshot_free(struct m2sed_checkpoint_state *state);
void m2sed_learning_snapshot_take(const struct m2sed_learning *learning,
                                  struct m2sed_checkpoint_state *state);

#endif
