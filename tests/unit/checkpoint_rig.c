#include "tests/unit/checkpoint_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/checkpoint_files.h"
#include "model/random.h"

/* ---- a state ---- */

static void make_learner(struct checkpoint_rig *rig) {
  struct m2se_config *config = &rig->state.config;
  struct m2se_error error;
  m2se_config_defaults(config);
  config->d = 6;
  config->da = 4;
  config->h = 8;
  config->experts = 2;
  config->layers = 1;
  config->heads = 2;
  config->ffn = 8;
  config->max_len = 5;
  config->tau = 0.11;
  config->lambda = 0.03;
  config->dropout = 0.25;
  config->targets = M2SE_TARGETS_ALL;
  config->item_residual = true;
  config->item_bias = true;
  config->seed = UINT64_C(0xfedcba9876543210);
  const struct m2se_limits limits = {4, 20, RIG_ITEMS, 40, RIG_ITEMS, 1};
  assert_int_equal(m2se_learner_new(&rig->learner, config, &limits, &error), 0);
  assert_int_equal(m2se_snapshot_new(&rig->state.weights, config, RIG_ITEMS, &error), 0);
}

static void make_example(struct m2sed_example *example, uint32_t number) {
  *example = (struct m2sed_example){.user_hash = UINT64_MAX - number,
                                    .digest = UINT64_C(0x8000000000000001) + number,
                                    .at = {(int32_t)number % 2, UINT64_C(3) << 48 | (1000 + number)},
                                    .event_time_ms = INT64_MIN + number,
                                    .closes = (uint8_t)number,
                                    .arrival = UINT64_MAX - 7 * number,
                                    .item = number % RIG_ITEMS,
                                    .context_count = number == 1 ? M2SED_CONTEXT_MAX : 1 + number};
  for (uint32_t i = 0; i < example->context_count; i++) {
    example->context[i] = (number + i) % RIG_ITEMS;
  }
}

static void make_items(struct m2sed_checkpoint_item *items) {
  snprintf(items[0].id, sizeof items[0].id, "1");
  snprintf(items[1].id, sizeof items[1].id, "caf\xc3\xa9/\"%%\\ x");
  memset(items[2].id, 'z', 128);
  snprintf(items[3].id, sizeof items[3].id, "four");
  for (uint32_t i = 0; i < RIG_ITEMS; i++) {
    items[i].popularity = i / 3.0;
    items[i].popularity_ms = i == 0 ? 0 : INT64_C(1700000000000) + i;
  }
  items[3].popularity_ms = INT64_MIN;
}

void rig_start(struct checkpoint_rig *rig) {
  *rig = (struct checkpoint_rig){.dir = "/tmp/m2sed-checkpoint-XXXXXX"};
  assert_non_null(mkdtemp(rig->dir));
  make_learner(rig);
  for (uint32_t i = 0; i < RIG_WAITING; i++) {
    make_example(&rig->waiting[i], i);
  }
  for (uint32_t i = 0; i < RIG_RESERVOIR; i++) {
    make_example(&rig->reservoir[i], 10 + i);
  }
  make_items(rig->items);
  rig->positions[0] = (struct m2sed_position){0, 1};
  rig->positions[1] = (struct m2sed_position){7, UINT64_C(65535) << 48 | ((UINT64_C(1) << 48) - 1)};
  rig->positions[2] = (struct m2sed_position){16383, UINT64_C(2) << 48};
  struct m2sed_checkpoint_state *state = &rig->state;
  state->counters = (struct m2sed_trainer_counters){.trained_events = UINT64_C(1) << 60,
                                                    .event_digest = UINT64_MAX,
                                                    .skipped_no_context = 3,
                                                    .skipped_no_features = 4,
                                                    .skipped_duplicate = 5,
                                                    .skipped_guard = 6,
                                                    .dead_lettered = 7,
                                                    .refused_in_a_row = 8,
                                                    .rollbacks = 9,
                                                    .events_taken = 10,
                                                    .unparked = 11,
                                                    .skipped_erased = 14,
                                                    .skipped_training_off = 15,
                                                    .parking_dropped = 12,
                                                    .replay_taken_away = 13};
  state->positions = rig->positions;
  state->position_count = RIG_POSITIONS;
  state->waiting = rig->waiting;
  state->waiting_count = RIG_WAITING;
  state->parked = rig->waiting + 1;
  state->parked_count = RIG_WAITING - 1;
  state->skipped = rig->positions;
  state->skipped_count = RIG_POSITIONS;
  state->reservoir = rig->reservoir;
  state->reservoir_count = RIG_RESERVOIR;
  state->reservoir_seen = UINT64_C(1) << 33;
  state->items = rig->items;
  state->item_count = RIG_ITEMS;
  state->newest_event_ms = INT64_C(-62135596800000);
  rig->info = (struct m2sed_checkpoint_info){.lineage = "0123456789abcdef",
                                             .topic = "inter\"actions",
                                             .created_ms = INT64_C(1764000000123),
                                             .loop_data = (const uint8_t *)"{\"a\":\0}",
                                             .loop_bytes = 7,
                                             .keep = 100};
  rig_advance(rig);
}

void rig_advance(struct checkpoint_rig *rig) {
  float rows[RIG_ITEMS * 6];
  struct m2se_item_input items[RIG_ITEMS];
  const uint32_t seq_ptr[] = {0, 2, 3}, seq_items[] = {0, 1, 2}, target[] = {2, 3};
  for (uint32_t i = 0; i < RIG_ITEMS * 6; i++) {
    rows[i] = (float)m2se_random_normal(1, 0, 1, i);
  }
  for (uint32_t i = 0; i < RIG_ITEMS; i++) {
    items[i] = (struct m2se_item_input){.text = {rows + i * (size_t)6, 1}, .slot = i};
  }
  const struct m2se_batch batch = {.n_items = RIG_ITEMS,
                                   .items = items,
                                   .n_sequences = 2,
                                   .seq_ptr = seq_ptr,
                                   .seq_items = seq_items,
                                   .target = target};
  const struct m2se_workers workers = m2se_workers_serial();
  struct m2se_step_result result;
  struct m2se_error error;
  assert_int_equal(m2se_learner_step(rig->learner, &batch, &workers, 0, &result, &error), 0);
  assert_true(result.applied);
  m2se_snapshot_take(rig->state.weights, rig->learner, RIG_ITEMS);
  rig->state.step = m2se_learner_step_number(rig->learner);
}

void rig_remove_tree(const char *path) {
  DIR *directory = opendir(path);
  struct dirent *entry;
  assert_non_null(directory);
  while ((entry = readdir(directory)) != NULL) {
    char child[512];
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
      if (unlink(child) != 0) {
        rig_remove_tree(child);
      }
    }
  }
  closedir(directory);
  assert_int_equal(rmdir(path), 0);
}

void rig_stop(struct checkpoint_rig *rig) {
  rig_remove_tree(rig->dir);
  m2se_snapshot_free(rig->state.weights);
  m2se_learner_free(rig->learner);
}

/* ---- calls ---- */

uint64_t rig_write(struct checkpoint_rig *rig) {
  struct m2se_error error;
  uint64_t generation = 0;
  if (m2sed_checkpoint_write(rig->dir, &rig->state, &rig->info, &generation, NULL, &error) != 0) {
    fail_msg("%s", error.text);
  }
  return generation;
}

static void on_refused(void *arg, uint64_t generation, const char *why) {
  struct checkpoint_rig *rig = arg;
  assert_true(rig->refused_count < RIG_REFUSED_MAX);
  rig->refused[rig->refused_count++] = generation;
  snprintf(rig->refused_why, sizeof rig->refused_why, "%s", why);
}

int rig_load(struct checkpoint_rig *rig, struct m2sed_checkpoint_state **loaded) {
  struct m2se_error error = {0};
  rig->refused_count = 0;
  rig->refused_why[0] = '\0';
  int code = m2sed_checkpoint_load(loaded, rig->dir, on_refused, rig, &error);
  assert_int_equal(code, error.code);
  assert_true((code == 0) == (*loaded != NULL));
  return code;
}

/* ---- files ---- */

const char *rig_path(const struct checkpoint_rig *rig, uint64_t generation, const char *file) {
  static char path[512];
  snprintf(path, sizeof path, "%s/gen-%010" PRIu64 "%s%s", rig->dir, generation, file != NULL ? "/" : "",
           file != NULL ? file : "");
  return path;
}

char *rig_read(const char *path, size_t *size) {
  enum { BYTES_MAX = 1 << 20 };
  FILE *file = fopen(path, "rb");
  char *text = calloc(1, BYTES_MAX + 1);
  assert_true(file != NULL && text != NULL);
  *size = fread(text, 1, BYTES_MAX, file);
  assert_true(*size < BYTES_MAX);
  fclose(file);
  return text;
}

/* In place: a file system may flush to the disk what is emptied and written anew. */
void rig_overwrite(const char *path, const void *bytes, size_t size) {
  int fd = open(path, O_WRONLY | O_CREAT, 0644);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, bytes, size), size);
  assert_int_equal(ftruncate(fd, (off_t)size), 0);
  close(fd);
}

uint32_t rig_entries(const char *dir) {
  uint32_t count = 0;
  DIR *directory = opendir(dir);
  assert_non_null(directory);
  while (readdir(directory) != NULL) {
    count++;
  }
  closedir(directory);
  return count - 2;
}

void rig_edit_manifest(const struct checkpoint_rig *rig, uint64_t generation, const char *from,
                       const char *to) {
  const char *path = rig_path(rig, generation, M2SED_MANIFEST);
  struct m2sed_file_sum sum;
  size_t size;
  char *text = rig_read(path, &size), *place = strstr(text, from), *end;
  assert_non_null(place);
  char *edited = calloc(size + strlen(to) + 1, 1);
  assert_non_null(edited);
  snprintf(edited, size + strlen(to), "%.*s%s%s", (int)(place - text), text, to, place + strlen(from));
  end = strstr(edited, "\"checksum\": \"");
  assert_non_null(end);
  m2sed_memory_sum(edited, (size_t)(end - edited), &sum);
  memcpy(strchr(end, ':') + 3, sum.xxh3_128, 32);
  rig_overwrite(path, edited, strlen(edited));
  free(text);
  free(edited);
}
