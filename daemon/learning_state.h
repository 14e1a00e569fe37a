/* What struct m2sed_learning is made of. For learning.c (what happens to it) and learning_state.c (how it
 * begins, and how it is copied for a checkpoint) alone. */
#ifndef M2SED_LEARNING_STATE_H
#define M2SED_LEARNING_STATE_H

#include "daemon/batcher.h"
#include "daemon/learning.h"
#include "daemon/parking.h"
#include "daemon/reservoir.h"

struct m2sed_popularity {
  double count; /* as of ms; 0: no event yet */
  int64_t ms;
};

struct m2sed_learning {
  struct m2se_config config;
  struct m2sed_train_settings settings;
  struct m2se_learner *learner;
  struct m2sed_batcher *batcher;
  struct m2sed_reservoir reservoir;
  struct m2sed_parking parking;
  bool begun;         /* the catalogue has been told: what a checkpoint left waiting has its items */
  bool features_came; /* since the parked ones were looked at */
  struct m2sed_trainer_counters counters;
  bool left_out;                  /* the last step was, by the guard */
  bool damaged;                   /* it was not, though its loss was far above that of a guess */
  uint32_t unproven;              /* good steps that must follow before weights that went back are trusted */
  struct m2sed_position *skipped; /* [M2SED_SKIPPED_MAX] by the guard, oldest first */
  uint32_t skipped_count;
  uint64_t *next_position;             /* [M2SED_PARTITIONS_MAX], 0: nothing taken yet */
  struct m2sed_item_record **records;  /* [items_max] by slot */
  struct m2sed_popularity *popularity; /* [items_max] by slot */
  uint32_t slots;                      /* used so far: all above are NULL */
  int64_t newest_event_ms;             /* INT64_MIN: no event yet */
};

/* Without features so far: it waits for them, or what leaves for it is counted. */
void m2sed_learning_park(struct m2sed_learning *learning, const struct m2sed_example *example);

#endif
