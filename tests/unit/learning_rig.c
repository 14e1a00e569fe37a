#include "tests/unit/learning_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/checkpoint_files.h"
#include "model/random.h"
#include "tests/unit/checkpoint_rig.h"

struct m2se_config rig_config(void) {
  struct m2se_config config;
  m2se_config_defaults(&config);
  config.d = RIG_D;
  config.da = 4;
  config.h = 8;
  config.experts = 2;
  config.layers = 1;
  config.heads = 2;
  config.ffn = 8;
  config.max_len = RIG_LENGTH;
  config.targets = M2SE_TARGETS_ALL;
  config.item_residual = true;
  config.item_bias = true;
  config.seed = 17;
  return config;
}

struct m2sed_train_settings rig_settings(void) {
  return (struct m2sed_train_settings){.batch = 12,
                                       .threads = 1,
                                       .replay_ratio = 2,
                                       .reservoir_capacity = 30,
                                       .epoch_steps = 5,
                                       .popularity_half_life_seconds = 60,
                                       .items_max = RIG_SLOTS,
                                       .rows_max = 3,
                                       .ring_capacity = 16};
}

struct m2sed_item_record *rig_record(uint32_t slot, uint32_t version) {
  enum { ROWS = 3 };
  float text[ROWS * RIG_D], image[ROWS * RIG_D];
  char id[16];
  for (uint32_t i = 0; i < ROWS * RIG_D; i++) {
    text[i] = (float)m2se_random_normal(slot, version, 1, i);
    image[i] = (float)m2se_random_normal(slot, version, 2, i);
  }
  uint32_t text_count = version == 0 || slot % 7 == 6 ? 0 : 1 + slot % 2;
  uint32_t image_count = version == 0 || slot % 5 == 4 ? 0 : ROWS;
  if (version != 0 && text_count + image_count == 0) {
    text_count = 1;
  }
  int size = snprintf(id, sizeof id, "item-%u", slot);
  struct m2sed_item_record *record =
      m2sed_item_record_new(slot, id, (uint32_t)size, RIG_D, text, text_count, image, image_count);
  assert_non_null(record);
  return record;
}

struct m2sed_train_message rig_item(uint32_t slot, uint32_t version) {
  return (struct m2sed_train_message){.kind = M2SED_TRAIN_ITEM, .record = rig_record(slot, version)};
}

/* ---- the stream ---- */

void rig_stream_make(struct rig_stream *stream, uint32_t count) {
  assert_true(count <= RIG_HISTORY_MAX);
  stream->count = count;
  for (uint32_t n = 0; n < count; n++) {
    stream->user[n] = (uint32_t)m2se_random_below(5, 0, 3, n, RIG_USERS);
    stream->item[n] = (uint32_t)m2se_random_below(5, 0, 4, n, RIG_SLOTS);
  }
}

struct m2sed_train_message rig_event(const struct rig_stream *stream, uint32_t number) {
  assert_true(number < stream->count);
  uint32_t user = stream->user[number], before = 0;
  struct m2sed_train_message message = {
      .kind = M2SED_TRAIN_EVENT,
      .at = {(int32_t)(user % RIG_PARTITIONS), number}, /* offsets may have gaps */
      .digest = UINT64_C(0x9e3779b97f4a7c15) * (number + 1),
      .event_time_ms = 1000 * (int64_t)number,
      .user_hash = UINT64_C(0xabcdef) * (user + 1),
      .item = stream->item[number],
  };
  for (uint32_t k = number; k > 0 && before < RIG_LENGTH; k--) {
    if (stream->user[k - 1] == user) {
      message.context[before++] = stream->item[k - 1];
    }
  }
  for (uint32_t i = 0; i < before / 2; i++) { /* oldest first */
    uint32_t swapped = message.context[i];
    message.context[i] = message.context[before - 1 - i];
    message.context[before - 1 - i] = swapped;
  }
  message.context_count = before;
  message.outcome = before > 0 ? M2SED_TEACHES : M2SED_NO_CONTEXT;
  return message;
}

/* ---- states ---- */

static uint64_t write_state(const char *dir, const struct m2sed_checkpoint_state *state) {
  const struct m2sed_checkpoint_info info = {
      .lineage = "rig", .topic = "interactions", .created_ms = 0, .keep = 1};
  struct m2se_error error;
  uint64_t generation;
  if (m2sed_checkpoint_write(dir, state, &info, &generation, NULL, &error) != 0) {
    fail_msg("%s", error.text);
  }
  return generation;
}

char *rig_snapshot_bytes(const struct m2sed_checkpoint_state *state, size_t *size) {
  char dir[64] = "/tmp/m2sed-state-XXXXXX", path[256];
  char *all = NULL;
  assert_non_null(mkdtemp(dir));
  uint64_t generation = write_state(dir, state);
  *size = 0;
  for (int i = 0; i < M2SED_CHECKPOINT_FILES; i++) {
    size_t bytes;
    snprintf(path, sizeof path, "%s/gen-%010llu/%s", dir, (unsigned long long)generation,
             m2sed_checkpoint_file_names[i]);
    char *file = rig_read(path, &bytes);
    all = realloc(all, *size + bytes);
    assert_non_null(all);
    memcpy(all + *size, file, bytes);
    *size += bytes;
    free(file);
  }
  rig_remove_tree(dir);
  return all;
}

static struct m2sed_checkpoint_state *take_snapshot(const struct m2sed_learning *learning) {
  struct m2sed_checkpoint_state *state;
  struct m2se_error error;
  assert_int_equal(m2sed_learning_snapshot_new(learning, &state, &error), 0);
  m2sed_learning_snapshot_take(learning, state);
  return state;
}

char *rig_state_bytes(const struct m2sed_learning *learning, size_t *size) {
  struct m2sed_checkpoint_state *state = take_snapshot(learning);
  char *bytes = rig_snapshot_bytes(state, size);
  m2sed_learning_snapshot_free(state);
  return bytes;
}

struct m2sed_checkpoint_state *rig_reload(const struct m2sed_learning *learning, char *dir) {
  struct m2sed_checkpoint_state *state = take_snapshot(learning), *loaded;
  struct m2se_error error;
  snprintf(dir, 64, "/tmp/m2sed-state-XXXXXX");
  assert_non_null(mkdtemp(dir));
  write_state(dir, state);
  m2sed_learning_snapshot_free(state);
  if (m2sed_checkpoint_load(&loaded, dir, NULL, NULL, &error) != 0) {
    fail_msg("%s", error.text);
  }
  return loaded;
}

void rig_pause(void) {
  nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}
