/* For tests of what learns and serves: a small model, a catalogue of item records, and a stream of events
 * whose contexts are made by the rule of the contract: the user's newest items strictly before the event. */
#ifndef LEARNING_RIG_H
#define LEARNING_RIG_H

#include "daemon/item_record.h"
#include "daemon/learning.h"

enum {
  RIG_D = 6,
  RIG_LENGTH = 5, /* of a context */
  RIG_SLOTS = 24,
  RIG_USERS = 7,
  RIG_PARTITIONS = 2,
  RIG_HISTORY_MAX = 2000
};

struct m2se_config rig_config(void);
struct m2sed_train_settings rig_settings(void);

/* Slot s is item "item-s"; with rows drawn from (s, version), no rows with version 0. Every fifth item has
 * only text, every seventh only images. */
struct m2sed_item_record *rig_record(uint32_t slot, uint32_t version);
struct m2sed_train_message rig_item(uint32_t slot, uint32_t version);

/* A stream: event n is the same whenever it is made. */
struct rig_stream {
  uint32_t count;
  uint32_t user[RIG_HISTORY_MAX], item[RIG_HISTORY_MAX];
};
void rig_stream_make(struct rig_stream *stream, uint32_t count);
/* As M2SED_TEACHES, or M2SED_NO_CONTEXT for the first of a user. */
struct m2sed_train_message rig_event(const struct rig_stream *stream, uint32_t number);

/* All of a learning's state as a checkpoint would hold it: its three files, one behind the other. Freed with
 * free(). */
char *rig_state_bytes(const struct m2sed_learning *learning, size_t *size);
char *rig_snapshot_bytes(const struct m2sed_checkpoint_state *state, size_t *size);
/* The state after a checkpoint was written and loaded again. `dir` [64] must be removed afterwards. */
struct m2sed_checkpoint_state *rig_reload(const struct m2sed_learning *learning, char *dir);

/* A tenth of a millisecond. */
void rig_pause(void);
/* Calls pump, which takes what another thread has sent, until the condition holds: 20 s at most. */
#define RIG_WAIT_UNTIL(pump, condition)                                                                      \
  for (int tries = 0; pump, !(condition); tries++) {                                                         \
    assert_true(tries < 200000);                                                                             \
    rig_pause();                                                                                             \
  }

#endif
