#include "daemon/learning_state.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(field, ok, range)                                                                              \
  if (!(ok)) {                                                                                               \
    return m2se_error_set(error, M2SE_EINVAL, "%s: %.9g is not %s", #field, (double)settings->field, range); \
  }

int m2sed_train_settings_check(const struct m2sed_train_settings *settings, struct m2se_error *error) {
  CHECK(batch, settings->batch >= 1 && settings->batch <= 65536, "in 1..65536");
  CHECK(threads, settings->threads >= 1 && settings->threads <= 256, "in 1..256");
  CHECK(nice, settings->nice >= 0 && settings->nice <= 19, "in 0..19");
  CHECK(replay_ratio, settings->replay_ratio >= 0 && settings->replay_ratio <= 1000, "in 0..1000");
  CHECK(reservoir_capacity, settings->reservoir_capacity <= 1u << 24, "in 0..16777216");
  CHECK(batch_ms, settings->batch_ms >= 0, "at least 0");
  CHECK(backlog, settings->backlog <= 1u << 24, "in 0..16777216");
  CHECK(parking, settings->parking <= 1u << 24, "in 0..16777216");
  CHECK(epoch_steps, settings->epoch_steps >= 1, "at least 1");
  CHECK(gradient_norm_max, settings->gradient_norm_max >= 0, "at least 0");
  CHECK(over_guess_max, settings->over_guess_max >= 0, "at least 0");
  CHECK(popularity_half_life_seconds, settings->popularity_half_life_seconds >= 0, "at least 0");
  CHECK(items_max, settings->items_max >= 1 && settings->items_max <= 1u << 24, "in 1..16777216");
  CHECK(rows_max, settings->rows_max >= 1 && settings->rows_max <= 65536, "in 1..65536");
  CHECK(ring_capacity, settings->ring_capacity >= 1 && settings->ring_capacity <= 1u << 20, "in 1..1048576");
  return 0;
}

/* ---- beginning ---- */

static int allocate(struct m2sed_learning *learning, struct m2se_error *error) {
  const struct m2sed_train_settings *settings = &learning->settings;
  struct m2se_limits limits;
  learning->skipped = calloc(M2SED_SKIPPED_MAX, sizeof *learning->skipped);
  learning->next_position = calloc(M2SED_PARTITIONS_MAX, sizeof *learning->next_position);
  learning->records = calloc(settings->items_max, sizeof(struct m2sed_item_record *));
  learning->popularity = calloc(settings->items_max, sizeof *learning->popularity);
  int code = m2sed_reservoir_init(&learning->reservoir, settings->reservoir_capacity, learning->config.seed);
  int parked = m2sed_parking_init(&learning->parking, settings->parking);
  if (parked < 0 || !learning->skipped || !learning->next_position || !learning->records ||
      !learning->popularity || code < 0) {
    return m2se_error_set(error, M2SE_ENOMEM, "a reservoir of %u examples and a catalogue of %u items",
                          settings->reservoir_capacity, settings->items_max);
  }
  code = m2sed_batcher_limits(&learning->config, settings, &limits, error);
  if (code == 0) {
    code = m2sed_batcher_new(&learning->batcher, &learning->config, settings, learning->records, error);
  }
  return code < 0 ? code : m2se_learner_new(&learning->learner, &learning->config, &limits, error);
}

static int restore_items(struct m2sed_learning *learning, const struct m2sed_checkpoint_state *state,
                         struct m2se_error *error) {
  if (state->item_count > learning->settings.items_max) {
    return m2se_error_set(error, M2SE_ELIMIT, "%s: %u items, but items_max is %u", state->directory,
                          state->item_count, learning->settings.items_max);
  }
  for (uint32_t i = 0; i < state->item_count; i++) {
    const struct m2sed_checkpoint_item *item = &state->items[i];
    learning->popularity[i] = (struct m2sed_popularity){item->popularity, item->popularity_ms};
    if (item->id[0] != '\0') { /* its features come from the items topic again */
      learning->records[i] = m2sed_item_record_new(i, item->id, (uint32_t)strlen(item->id),
                                                   learning->config.d, NULL, 0, NULL, 0);
      if (learning->records[i] == NULL) {
        return m2se_error_set(error, M2SE_ENOMEM, "the catalogue of the checkpoint");
      }
    }
    learning->slots = i + 1;
  }
  return 0;
}

static int restore_weights(struct m2sed_learning *learning, const struct m2sed_checkpoint_state *state,
                           struct m2se_error *error) {
  char model[sizeof state->directory + 32], optimizer[sizeof state->directory + 32];
  uint32_t slots = 0;
  snprintf(model, sizeof model, "%s/model.safetensors", state->directory);
  snprintf(optimizer, sizeof optimizer, "%s/optimizer.safetensors", state->directory);
  int code = m2se_learner_load(learning->learner, model, optimizer, &slots, error);
  if (code == 0 && m2se_learner_step_number(learning->learner) != state->step) {
    return m2se_error_set(error, M2SE_EFORMAT, "%s: the weights are of step %llu, the state of step %llu",
                          state->directory, (unsigned long long)m2se_learner_step_number(learning->learner),
                          (unsigned long long)state->step);
  }
  return code;
}

static int restore(struct m2sed_learning *learning, const struct m2sed_checkpoint_state *state,
                   struct m2se_error *error) {
  int code = restore_items(learning, state, error);
  if (code == 0) {
    code = restore_weights(learning, state, error);
  }
  if (code < 0) {
    return code;
  }
  learning->counters = state->counters;
  learning->newest_event_ms = state->newest_event_ms;
  learning->skipped_count = state->skipped_count;
  if (state->skipped_count > 0) {
    memcpy(learning->skipped, state->skipped, state->skipped_count * sizeof *state->skipped);
  }
  for (uint32_t i = 0; i < state->position_count; i++) {
    assert(state->positions[i].partition >= 0 && state->positions[i].partition < M2SED_PARTITIONS_MAX);
    learning->next_position[state->positions[i].partition] = state->positions[i].position;
  }
  m2sed_reservoir_restore(&learning->reservoir, state->reservoir, state->reservoir_count,
                          state->reservoir_seen);
  for (uint32_t i = 0; i < state->parked_count;
       i++) { /* if there is less room than there was, the oldest leave */
    m2sed_learning_park(learning, &state->parked[i]);
  }
  learning->features_came = true; /* the items are told again before the first event */
  return m2sed_batcher_restore(learning->batcher, state->waiting, state->waiting_count, error);
}

int m2sed_learning_new(struct m2sed_learning **learning, const struct m2se_config *config,
                       const struct m2sed_train_settings *settings,
                       const struct m2sed_checkpoint_state *restored, struct m2se_error *error) {
  *learning = NULL;
  int code = m2sed_train_settings_check(settings, error);
  if (code < 0) {
    return code;
  }
  if (config->max_len > M2SED_CONTEXT_MAX) {
    return m2se_error_set(error, M2SE_EINVAL, "max_len: %u is above %d", config->max_len, M2SED_CONTEXT_MAX);
  }
  struct m2sed_learning *l = calloc(1, sizeof *l);
  if (l == NULL) {
    return m2se_error_set(error, M2SE_ENOMEM, "the learner");
  }
  l->config = *config;
  l->settings = *settings;
  l->newest_event_ms = INT64_MIN;
  code = allocate(l, error);
  if (code == 0 && restored != NULL) {
    code = restore(l, restored, error);
  }
  if (code < 0) {
    m2sed_learning_free(l);
    return code;
  }
  *learning = l;
  return 0;
}

/* ---- snapshots ---- */

int m2sed_learning_snapshot_new(const struct m2sed_learning *learning, struct m2sed_checkpoint_state **state,
                                struct m2se_error *error) {
  const struct m2sed_train_settings *settings = &learning->settings;
  *state = NULL;
  struct m2sed_checkpoint_state *s = calloc(1, sizeof *s);
  if (s == NULL) {
    return m2se_error_set(error, M2SE_ENOMEM, "a snapshot");
  }
  s->positions = calloc(M2SED_PARTITIONS_MAX, sizeof *s->positions);
  s->waiting = calloc(m2sed_batcher_capacity(learning->batcher), sizeof *s->waiting);
  s->parked = calloc((size_t)settings->parking + 1, sizeof *s->parked);
  s->skipped = calloc(M2SED_SKIPPED_MAX, sizeof *s->skipped);
  s->reservoir = calloc((size_t)settings->reservoir_capacity + 1, sizeof *s->reservoir);
  s->items = calloc(settings->items_max, sizeof *s->items);
  int code = m2se_snapshot_new(&s->weights, &learning->config,
                               m2sed_table_slots(&learning->config, settings->items_max), error);
  if (code == 0 &&
      (!s->positions || !s->waiting || !s->parked || !s->skipped || !s->reservoir || !s->items)) {
    code = m2se_error_set(error, M2SE_ENOMEM, "a snapshot of %u items and %u examples", settings->items_max,
                          settings->reservoir_capacity);
  }
  if (code < 0) {
    m2sed_learning_snapshot_free(s);
    return code;
  }
  *state = s;
  return 0;
}

void m2sed_learning_snapshot_free(struct m2sed_checkpoint_state *state) {
  if (state == NULL) {
    return;
  }
  m2se_snapshot_free(state->weights);
  m2sed_checkpoint_state_free(state);
}

static void snapshot_items(const struct m2sed_learning *learning, struct m2sed_checkpoint_state *state) {
  state->item_count = learning->slots;
  for (uint32_t i = 0; i < learning->slots; i++) {
    const struct m2sed_item_record *record = learning->records[i];
    struct m2sed_checkpoint_item *item = &state->items[i];
    item->popularity = learning->popularity[i].count;
    item->popularity_ms = learning->popularity[i].ms;
    memset(item->id, 0, sizeof item->id);
    if (record != NULL) { /* deleted ones too: a slot stays its id's */
      memcpy(item->id, record->id, sizeof item->id);
    }
  }
}

void m2sed_learning_snapshot_take(const struct m2sed_learning *learning,
                                  struct m2sed_checkpoint_state *state) {
  uint32_t table = m2sed_table_slots(&learning->config, learning->settings.items_max);
  m2se_snapshot_take(state->weights, learning->learner, table > 0 ? learning->slots : 0);
  state->config = learning->config;
  state->step = m2sed_learning_step_number(learning);
  state->counters = learning->counters;
  state->newest_event_ms = learning->newest_event_ms;
  state->position_count = 0;
  for (int32_t p = 0; p < M2SED_PARTITIONS_MAX; p++) {
    if (learning->next_position[p] > 0) {
      state->positions[state->position_count++] = (struct m2sed_position){p, learning->next_position[p]};
    }
  }
  state->waiting_count = m2sed_batcher_waiting(learning->batcher);
  memcpy(state->waiting, m2sed_batcher_waiting_examples(learning->batcher),
         state->waiting_count * sizeof *state->waiting);
  state->parked_count = m2sed_parking_copy(&learning->parking, state->parked);
  state->skipped_count = learning->skipped_count;
  memcpy(state->skipped, learning->skipped, learning->skipped_count * sizeof *state->skipped);
  state->reservoir_count = learning->reservoir.count;
  state->reservoir_seen = learning->reservoir.seen;
  if (state->reservoir_count > 0) {
    memcpy(state->reservoir, learning->reservoir.examples, state->reservoir_count * sizeof *state->reservoir);
  }
  snapshot_items(learning, state);
}
