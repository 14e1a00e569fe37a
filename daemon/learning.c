#include "daemon/learning.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/learning_state.h"

void m2sed_learning_free(struct m2sed_learning *learning) {
  if (learning == NULL) {
    return;
  }
  if (learning->records != NULL) {
    for (uint32_t i = 0; i < learning->slots; i++) {
      m2sed_item_record_release(learning->records[i]);
    }
  }
  m2se_learner_free(learning->learner);
  m2sed_batcher_free(learning->batcher);
  m2sed_reservoir_deinit(&learning->reservoir);
  m2sed_parking_deinit(&learning->parking);
  free(learning->skipped);
  free(learning->records);
  free(learning->popularity);
  free(learning->next_position);
  free(learning);
}

/* ---- popularity: a count per item that halves with event time ---- */

static double half_lives(const struct m2sed_learning *learning, int64_t from_ms, int64_t to_ms) {
  double half_life_ms = learning->settings.popularity_half_life_seconds * 1000;
  return half_life_ms > 0 ? ((double)to_ms - (double)from_ms) / half_life_ms : 0;
}

static void popularity_count(struct m2sed_learning *learning, uint32_t slot, int64_t event_time_ms) {
  struct m2sed_popularity *p = &learning->popularity[slot];
  if (p->count == 0) {
    p->ms = event_time_ms;
  }
  if (event_time_ms >= p->ms) {
    p->count = p->count * exp2(-half_lives(learning, p->ms, event_time_ms)) + 1;
    p->ms = event_time_ms;
  } else { /* a late event has lost its part already */
    p->count += exp2(-half_lives(learning, event_time_ms, p->ms));
  }
  if (event_time_ms > learning->newest_event_ms) {
    learning->newest_event_ms = event_time_ms;
  }
}

/* ---- messages ---- */

static void reset_slot(struct m2sed_learning *learning, uint32_t slot) {
  if (m2sed_table_slots(&learning->config, learning->settings.items_max) > 0) {
    m2se_learner_reset_slot(learning->learner, slot);
  }
}

/* ---- examples whose features come late ---- */

static void count_unfeatured(struct m2sed_learning *learning, uint32_t count) {
  learning->counters.skipped_no_features += count;
  learning->counters.parking_dropped += learning->settings.parking > 0 ? count : 0;
}

void m2sed_learning_park(struct m2sed_learning *learning, const struct m2sed_example *example) {
  count_unfeatured(learning, m2sed_parking_add(&learning->parking, example));
}

static bool unpark(void *arg, const struct m2sed_example *example) {
  struct m2sed_learning *learning = arg;
  return m2sed_batcher_add(learning->batcher, example);
}

/* Once for all items that came since the last event: at a start the whole catalogue comes before the first
 * one. */
void m2sed_learning_begin(struct m2sed_learning *learning) {
  learning->begun = true;
  if (learning->features_came) {
    learning->features_came = false;
    learning->counters.unparked += m2sed_parking_release(&learning->parking, unpark, learning);
  }
}

static void take_item(struct m2sed_learning *learning, struct m2sed_item_record *record) {
  assert(record->slot < learning->settings.items_max);
  if (record->slot >= learning->slots) {
    learning->slots = record->slot + 1;
  }
  learning->features_came |= m2sed_item_featurised(record);
  m2sed_item_record_release(learning->records[record->slot]);
  learning->records[record->slot] = record;
  if (record->deleted) {
    reset_slot(learning, record->slot);
    learning->popularity[record->slot] = (struct m2sed_popularity){0};
  }
}

static void take_example(struct m2sed_learning *learning, const struct m2sed_train_message *message) {
  assert(message->context_count >= 1 && message->context_count <= M2SED_CONTEXT_MAX);
  struct m2sed_example example = {.user_hash = message->user_hash,
                                  .digest = message->digest,
                                  .at = message->at,
                                  .event_time_ms = message->event_time_ms,
                                  .arrival = learning->counters.events_taken,
                                  .item = message->item,
                                  .context_count = message->context_count};
  memcpy(example.context, message->context, message->context_count * sizeof example.context[0]);
  if (!m2sed_batcher_add(learning->batcher, &example)) {
    m2sed_learning_park(learning, &example);
  }
}

static void take_event(struct m2sed_learning *learning, const struct m2sed_train_message *message) {
  assert(message->at.partition >= 0 && message->at.partition < M2SED_PARTITIONS_MAX);
  uint64_t *next = &learning->next_position[message->at.partition];
  if (message->at.position < *next) {
    return;
  }
  *next = message->at.position + 1;
  m2sed_learning_begin(learning);
  uint64_t now = ++learning->counters.events_taken;
  count_unfeatured(learning,
                   m2sed_parking_expire(&learning->parking, now, learning->settings.parking_events));
  if (message->outcome == M2SED_TEACHES || message->outcome == M2SED_NO_CONTEXT) {
    popularity_count(learning, message->item, message->event_time_ms);
    m2sed_batcher_time(learning->batcher, message->event_time_ms);
  }
  switch (message->outcome) {
  case M2SED_TEACHES:
    if (learning->settings.off) {
      learning->counters.skipped_training_off++;
    } else {
      take_example(learning, message);
    }
    break;
  case M2SED_NO_CONTEXT:
    learning->counters.skipped_no_context++;
    break;
  case M2SED_DUPLICATE:
    learning->counters.skipped_duplicate++;
    break;
  case M2SED_DEAD_LETTER:
    learning->counters.dead_lettered++;
    break;
  case M2SED_ERASED:
    learning->counters.skipped_erased++;
    break;
  case M2SED_OUTCOMES:
    assert(!"an outcome");
  }
}

void m2sed_learning_take(struct m2sed_learning *learning, const struct m2sed_train_message *message) {
  if (message->kind == M2SED_TRAIN_ITEM) {
    take_item(learning, message->record);
  } else if (message->kind == M2SED_TRAIN_FORGET) {
    m2sed_learning_forget(learning, message->user_hash);
  } else if (message->kind == M2SED_TRAIN_CATALOGUE) {
    m2sed_learning_begin(learning);
  } else {
    assert(message->kind == M2SED_TRAIN_EVENT);
    take_event(learning, message);
  }
}

bool m2sed_learning_due(const struct m2sed_learning *learning) {
  return learning->begun && !learning->settings.off && m2sed_batcher_due(learning->batcher);
}

bool m2sed_learning_has_room(const struct m2sed_learning *learning) {
  return learning->settings.off || m2sed_batcher_has_room(learning->batcher);
}

uint32_t m2sed_learning_waiting(const struct m2sed_learning *learning) {
  return m2sed_batcher_waiting(learning->batcher);
}

uint64_t m2sed_learning_step_number(const struct m2sed_learning *learning) {
  return m2se_learner_step_number(learning->learner);
}

/* ---- a step ---- */

/* The oldest one makes room. */
static void remember_skipped(struct m2sed_learning *learning, struct m2sed_position at) {
  if (learning->skipped_count == M2SED_SKIPPED_MAX) {
    learning->skipped_count--;
    memmove(learning->skipped, learning->skipped + 1, learning->skipped_count * sizeof at);
  }
  learning->skipped[learning->skipped_count++] = at;
}

/* What becomes of the fresh examples once the step is over. */
static void settle_fresh(struct m2sed_learning *learning, const struct m2sed_batch *batch, bool applied) {
  const struct m2sed_example *waiting = m2sed_batcher_waiting_examples(learning->batcher);
  for (uint32_t i = 0; i < batch->fresh; i++) {
    if (!batch->fresh_left[i]) {
      m2sed_learning_park(learning, &waiting[i]);
    } else if (!applied) {
      learning->counters.skipped_guard++;
      remember_skipped(learning, waiting[i].at);
    } else {
      learning->counters.trained_events++;
      learning->counters.event_digest += waiting[i].digest;
      m2sed_reservoir_add(&learning->reservoir, &waiting[i]);
    }
  }
  m2sed_batcher_drop(learning->batcher, batch->fresh);
}

static void train(struct m2sed_learning *learning, const struct m2se_batch *network,
                  const struct m2se_workers *workers, struct m2se_step_result *step) {
  struct m2se_error error;
  int code = m2se_learner_step(learning->learner, network, workers, learning->settings.gradient_norm_max,
                               step, &error);
  assert(code == 0); /* the mini-batch is ours, so only a bug can make it invalid */
  double limit = learning->settings.over_guess_max;
  learning->left_out = !step->applied;
  learning->damaged = step->applied && limit > 0 && step->losses.over_guess > limit;
  learning->counters.refused_in_a_row =
      learning->left_out || learning->damaged ? learning->counters.refused_in_a_row + 1 : 0;
  learning->unproven -= learning->counters.refused_in_a_row == 0 && learning->unproven > 0;
}

bool m2sed_learning_step(struct m2sed_learning *learning, const struct m2se_workers *workers,
                         struct m2sed_trained_message *result) {
  struct m2sed_batch batch;
  struct m2se_step_result step = {0};
  m2sed_batcher_build(learning->batcher, &learning->reservoir, m2sed_learning_step_number(learning), &batch);
  bool stepped = batch.network.n_sequences > 0;
  if (stepped) {
    train(learning, &batch.network, workers, &step);
  }
  learning->counters.replay_taken_away += batch.taken_away;
  settle_fresh(learning, &batch, step.applied);
  *result = (struct m2sed_trained_message){
      .kind = M2SED_TRAINED_STEP,
      .loss = step.losses.total,
      .nip_text = step.losses.nip_text,
      .nip_image = step.losses.nip_image,
      .cmcl_text = step.losses.cmcl_text,
      .cmcl_image = step.losses.cmcl_image,
      .over_guess = step.losses.over_guess,
      .gradient_norm = step.gradient_norm,
      .left_out = step.left_out,
      .fresh = batch.fresh,
      .replayed = batch.replayed,
      .applied = step.applied,
  };
  m2sed_learning_report(learning, result);
  return stepped;
}

/* ---- the guard ---- */

/* Good weights that do as badly show that the data have changed: only for the first row they go back. */
static bool explained(const struct m2sed_learning *learning) {
  return !learning->left_out && learning->counters.refused_in_a_row > learning->settings.guard_rollback;
}

bool m2sed_learning_is_suspect(const struct m2sed_learning *learning) {
  uint32_t limit = learning->settings.guard_rollback;
  uint64_t row = learning->counters.refused_in_a_row;
  return limit > 0 && !explained(learning) && (row > 0 ? row % limit != 0 : learning->unproven > 0);
}

bool m2sed_learning_is_damaged(const struct m2sed_learning *learning) {
  bool since_start = learning->damaged || (learning->unproven > 0 && !learning->left_out);
  return since_start && m2sed_learning_is_suspect(learning);
}

bool m2sed_learning_must_go_back(const struct m2sed_learning *learning) {
  uint32_t limit = learning->settings.guard_rollback;
  return limit > 0 && (learning->left_out || learning->damaged) && !explained(learning) &&
         learning->counters.refused_in_a_row % limit == 0;
}

void m2sed_learning_go_back(struct m2sed_learning *learning, const struct m2sed_checkpoint_state *good) {
  m2se_snapshot_restore(good->weights, learning->learner);
  for (uint32_t i = 0; i < learning->slots; i++) {
    if (learning->records[i] != NULL && learning->records[i]->deleted) {
      reset_slot(learning, i);
    }
  }
  learning->counters.rollbacks++;
  learning->unproven = learning->settings.guard_rollback;
}

void m2sed_learning_report(const struct m2sed_learning *learning, struct m2sed_trained_message *message) {
  message->step = m2sed_learning_step_number(learning);
  message->counters = learning->counters;
  message->learning_rate = m2se_learner_config(learning->learner)->learning_rate;
  message->waiting = m2sed_batcher_waiting(learning->batcher);
  message->parked = learning->parking.count;
  message->reservoir_size = learning->reservoir.count;
  message->reservoir_seen = learning->reservoir.seen;
}

void m2sed_learning_copy(const struct m2sed_learning *learning, struct m2sed_weights_copy *copy) {
  uint32_t table = m2sed_table_slots(&learning->config, learning->settings.items_max);
  m2se_weights_copy(copy->weights, learning->learner, table > 0 ? learning->slots : 0);
  copy->slots = learning->slots;
  for (uint32_t i = 0; i < learning->slots; i++) {
    const struct m2sed_popularity *p = &learning->popularity[i];
    copy->popularity[i] = (float)(p->count * exp2(-half_lives(learning, p->ms, learning->newest_event_ms)));
  }
}
