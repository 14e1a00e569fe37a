/* Mini-batches out of examples: a function of the examples in order and of the step number, without thread or
 * clock.
 *
 * DESIGN. Fresh examples wait in the order of their arrival, cut into mini-batches as they come: one is
 * closed when F = max(1, round(batch / (1 + replay_ratio))) of them are there, or by an event whose time lies
 * more than batch_ms after that of its first one. So where the cuts are is decided by the log, however late
 * the training comes to them. A closed mini-batch is due: its fresh examples, and batch - F draws from the
 * reservoir (one drawn twice counts once). With settings.shrink, while half of the backlog waits, as many
 * closed ones as fit into a batch make one, without draws. Items without features are left out of contexts at
 * this moment. With M2SE_TARGETS_ALL a sequence teaches each of its steps, so an older example of the same
 * user whose step lies inside a newer one's context needs no sequence of its own. Items get their numbers by
 * first occurrence, never by slot: the mini-batch is the same whatever slots the catalogue gave out. One
 * thread at a time; nothing is allocated after new.
 */
#ifndef M2SED_BATCHER_H
#define M2SED_BATCHER_H

#include <stdbool.h>

#include "daemon/checkpoint.h"
#include "daemon/item_record.h"
#include "daemon/reservoir.h"
#include "daemon/trainer.h"

struct m2sed_batcher;

/* Fresh examples of a full mini-batch, F. */
uint32_t m2sed_batcher_fresh(const struct m2sed_train_settings *settings);
/* What the learner must be made for. M2SE_EINVAL: beyond 2^31 positions or rows. */
int m2sed_batcher_limits(const struct m2se_config *config, const struct m2sed_train_settings *settings,
                         struct m2se_limits *limits, struct m2se_error *error);
/* Has rows to learn from. NULL has none. */
bool m2sed_item_featurised(const struct m2sed_item_record *record);

/* records [items_max]: by slot, NULL where none; borrowed, may change between calls. M2SE_ENOMEM. */
int m2sed_batcher_new(struct m2sed_batcher **batcher, const struct m2se_config *config,
                      const struct m2sed_train_settings *settings, struct m2sed_item_record *const *records,
                      struct m2se_error *error);
void m2sed_batcher_free(struct m2sed_batcher *batcher);

/* Takes a fresh example, unless its item or all of its context has no features: then false, and it is
 * forgotten. */
bool m2sed_batcher_add(struct m2sed_batcher *batcher, const struct m2sed_example *example);
/* An event of that time comes: it may close the mini-batch that is open. Before its add(). */
void m2sed_batcher_time(struct m2sed_batcher *batcher, int64_t event_time_ms);
/* False: a mini-batch must be trained before the next add(). What is parked has its place beside that. */
bool m2sed_batcher_has_room(const struct m2sed_batcher *batcher);
uint32_t m2sed_batcher_capacity(const struct m2sed_batcher *batcher); /* never more than this wait */
uint32_t m2sed_batcher_waiting(const struct m2sed_batcher *batcher);
const struct m2sed_example *m2sed_batcher_waiting_examples(const struct m2sed_batcher *batcher);
bool m2sed_batcher_due(const struct m2sed_batcher *batcher);

/* Those of that user no longer wait. Returns how many did. */
uint32_t m2sed_batcher_forget(struct m2sed_batcher *batcher, uint64_t user_hash);

/* From a checkpoint, into an empty batcher. May be more than F, if settings have changed. M2SE_ENOMEM. */
int m2sed_batcher_restore(struct m2sed_batcher *batcher, const struct m2sed_example *waiting, uint32_t count,
                          struct m2se_error *error);

/* The oldest mini-batch (the open one, if there is no other), and replay. What it gives out is valid until
 * the next call. At least one example waits. */
struct m2sed_batch {
  struct m2se_batch
      network;            /* n_sequences 0: nothing to train, all items have lost their features meanwhile */
  uint32_t fresh;         /* examples that waited */
  const bool *fresh_left; /* [fresh]: false: left out, its features are gone */
  uint32_t replayed;
  uint32_t taken_away; /* draws that were not made */
};
void m2sed_batcher_build(struct m2sed_batcher *batcher, const struct m2sed_reservoir *reservoir,
                         uint64_t step, struct m2sed_batch *batch);
/* The oldest `count` no longer wait: those of the mini-batch that was built, its `fresh`. */
void m2sed_batcher_drop(struct m2sed_batcher *batcher, uint32_t count);

#endif
