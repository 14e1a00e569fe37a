/* Checkpoints: all of a state comes back; what is damaged is refused, and the generation before taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/checkpoint_files.h"
#include "model/network/learner.h"
#include "tests/unit/checkpoint_rig.h"

/* ---- a round trip ---- */

static void assert_same_examples(const struct m2sed_example *a, uint32_t a_count,
                                 const struct m2sed_example *b, uint32_t b_count) {
  assert_int_equal(a_count, b_count);
  for (uint32_t i = 0; i < a_count; i++) {
    assert_true(a[i].user_hash == b[i].user_hash && a[i].digest == b[i].digest);
    assert_int_equal(a[i].at.partition, b[i].at.partition);
    assert_true(a[i].at.position == b[i].at.position);
    assert_int_equal(a[i].item, b[i].item);
    assert_true(a[i].arrival == b[i].arrival && a[i].event_time_ms == b[i].event_time_ms);
    assert_int_equal(a[i].closes, b[i].closes);
    assert_int_equal(a[i].context_count, b[i].context_count);
    assert_memory_equal(a[i].context, b[i].context, a[i].context_count * sizeof a[i].context[0]);
  }
}

static void assert_same_config(const struct m2se_config *a, const struct m2se_config *b) {
  assert_int_equal(a->d, b->d);
  assert_int_equal(a->da, b->da);
  assert_int_equal(a->h, b->h);
  assert_int_equal(a->experts, b->experts);
  assert_int_equal(a->layers, b->layers);
  assert_int_equal(a->heads, b->heads);
  assert_int_equal(a->ffn, b->ffn);
  assert_int_equal(a->max_len, b->max_len);
  assert_true(a->tau == b->tau && a->lambda == b->lambda && a->dropout == b->dropout);
  assert_int_equal(a->targets, b->targets);
  assert_int_equal(a->item_residual, b->item_residual);
  assert_int_equal(a->item_bias, b->item_bias);
  assert_true(a->seed == b->seed);
}

static void assert_same_state(const struct checkpoint_rig *rig, const struct m2sed_checkpoint_state *b) {
  const struct m2sed_checkpoint_state *a = &rig->state;
  assert_same_config(&a->config, &b->config);
  assert_true(a->step == b->step);
  assert_memory_equal(&a->counters, &b->counters, sizeof a->counters);
  assert_int_equal(a->position_count, b->position_count);
  for (uint32_t i = 0; i < a->position_count; i++) {
    assert_int_equal(a->positions[i].partition, b->positions[i].partition);
    assert_true(a->positions[i].position == b->positions[i].position);
  }
  assert_same_examples(a->waiting, a->waiting_count, b->waiting, b->waiting_count);
  assert_same_examples(a->parked, a->parked_count, b->parked, b->parked_count);
  assert_int_equal(a->skipped_count, b->skipped_count);
  for (uint32_t i = 0; i < a->skipped_count; i++) {
    assert_int_equal(a->skipped[i].partition, b->skipped[i].partition);
    assert_true(a->skipped[i].position == b->skipped[i].position);
  }
  assert_same_examples(a->reservoir, a->reservoir_count, b->reservoir, b->reservoir_count);
  assert_true(a->reservoir_seen == b->reservoir_seen);
  assert_int_equal(a->item_count, b->item_count);
  for (uint32_t i = 0; i < a->item_count; i++) {
    assert_memory_equal(a->items[i].id, b->items[i].id, sizeof a->items[i].id);
    assert_true(a->items[i].popularity == b->items[i].popularity);
    assert_true(a->items[i].popularity_ms == b->items[i].popularity_ms);
  }
  assert_true(a->newest_event_ms == b->newest_event_ms);
  assert_string_equal(rig->info.lineage, b->lineage);
  assert_int_equal(rig->info.loop_bytes, b->loop_bytes);
  assert_memory_equal(rig->info.loop_data, b->loop_data, b->loop_bytes);
}

/* The learner of the loaded generation gives the same two files again, byte for byte. */
static void assert_same_weights(struct checkpoint_rig *rig, const struct m2sed_checkpoint_state *loaded) {
  const struct m2se_limits limits = {4, 20, RIG_ITEMS, 40, RIG_ITEMS, 1};
  struct m2se_learner *learner;
  struct m2se_error error;
  char model[512], optimizer[512];
  uint64_t from = loaded->generation;
  uint32_t slots = 0;
  assert_int_equal(m2se_learner_new(&learner, &rig->state.config, &limits, &error), 0);
  snprintf(model, sizeof model, "%s", rig_path(rig, from, "model.safetensors"));
  snprintf(optimizer, sizeof optimizer, "%s", rig_path(rig, from, "optimizer.safetensors"));
  assert_int_equal(m2se_learner_load(learner, model, optimizer, &slots, &error), 0);
  assert_int_equal(slots, RIG_ITEMS);
  m2se_snapshot_take(rig->state.weights, learner, slots);
  m2se_learner_free(learner);
  uint64_t again = rig_write(rig);
  for (int i = 0; i < M2SED_FILE_STATE; i++) {
    size_t size, size_again;
    char *bytes = rig_read(rig_path(rig, from, m2sed_checkpoint_file_names[i]), &size);
    char *bytes_again = rig_read(rig_path(rig, again, m2sed_checkpoint_file_names[i]), &size_again);
    assert_int_equal(size, size_again);
    assert_memory_equal(bytes, bytes_again, size);
    free(bytes);
    free(bytes_again);
  }
}

static void test_round_trip(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2sed_checkpoint_state *loaded;
  uint64_t generation = 0, bytes = 0, on_disk = 0;
  struct m2se_error error;
  rig_start(&rig);
  assert_int_equal(m2sed_checkpoint_write(rig.dir, &rig.state, &rig.info, &generation, &bytes, &error), 0);
  assert_true(generation == 1);
  assert_int_equal(rig_load(&rig, &loaded), 0);
  assert_int_equal(rig.refused_count, 0);
  assert_true(loaded->generation == 1);
  assert_null(loaded->weights);
  assert_string_equal(loaded->directory, rig_path(&rig, 1, NULL));
  assert_same_state(&rig, loaded);
  const char *const names[] = {"model.safetensors", "optimizer.safetensors", "state.safetensors",
                               "MANIFEST.json"};
  for (int i = 0; i < 4; i++) {
    struct stat status;
    assert_int_equal(stat(rig_path(&rig, 1, names[i]), &status), 0);
    on_disk += (uint64_t)status.st_size;
  }
  assert_true(bytes == on_disk);
  assert_same_weights(&rig, loaded);
  m2sed_checkpoint_state_free(loaded);
  rig_stop(&rig);
}

/* Fresh weights: nothing seen, nobody known. */
static void test_empty_state(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2sed_checkpoint_state *loaded;
  rig_start(&rig);
  struct m2sed_checkpoint_state *state = &rig.state;
  state->counters = (struct m2sed_trainer_counters){0};
  state->position_count = state->waiting_count = state->reservoir_count = state->item_count = 0;
  state->parked_count = state->skipped_count = 0;
  state->positions = NULL;
  state->waiting = state->parked = state->reservoir = NULL;
  state->skipped = NULL;
  state->items = NULL;
  state->reservoir_seen = 0;
  state->newest_event_ms = INT64_MIN;
  state->config.targets = M2SE_TARGETS_LAST;
  state->config.item_bias = false;
  rig.info.loop_data = NULL;
  rig.info.loop_bytes = 0;
  m2se_snapshot_take(state->weights, rig.learner, 0);
  rig_write(&rig);
  assert_int_equal(rig_load(&rig, &loaded), 0);
  assert_same_config(&state->config, &loaded->config);
  assert_int_equal(
      loaded->position_count + loaded->waiting_count + loaded->reservoir_count + loaded->item_count, 0);
  assert_true(loaded->newest_event_ms == INT64_MIN);
  assert_int_equal(loaded->loop_bytes, 0);
  m2sed_checkpoint_state_free(loaded);
  rig_stop(&rig);
}

/* The names that others rely on, as text. */
static void test_manifest_text(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2se_error error;
  char *text;
  size_t length;
  rig_start(&rig);
  rig_write(&rig);
  assert_int_equal(m2sed_checkpoint_manifest(rig.dir, 1, &text, &length, &error), 0);
  assert_int_equal(length, strlen(text));
  const char *const parts[] = {"\"lineage\": \"0123456789abcdef\"",
                               "\"generation\": \"1\"",
                               "\"step\": \"1\"",
                               "\"trained_events\": \"1152921504606846976\"",
                               "\"skipped_no_context\": \"3\"",
                               "\"event_digest\": \"18446744073709551615\"",
                               "\"skipped_no_features\": \"4\"",
                               "\"skipped_duplicate\": \"5\"",
                               "\"skipped_guard\": \"6\"",
                               "\"dead_lettered\": \"7\"",
                               "\"7\": \"281474976710655\"",
                               "\"inter\\\"actions\": {",
                               "\"7\": \"65535\"",
                               "\"created\": \"2025-11-24T16:00:00Z\""};
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    if (strstr(text, parts[i]) == NULL) {
      fail_msg("%s is not in %s", parts[i], text);
    }
  }
  free(text);
  assert_int_equal(m2sed_checkpoint_manifest(rig.dir, 2, &text, &length, &error), M2SE_EIO);
  rig_stop(&rig);
}

/* ---- damage ---- */

/* Generation 2 is damaged: 1 is loaded, and the reason has `why` in it. */
static void assert_falls_back(struct checkpoint_rig *rig, const char *why) {
  struct m2sed_checkpoint_state *loaded;
  struct m2se_error error = {0};
  int code = rig_load(rig, &loaded);
  assert_int_equal(code, 0);
  assert_true(loaded->generation == 1);
  assert_int_equal(rig->refused_count, 1);
  assert_true(rig->refused[0] == 2);
  if (strstr(rig->refused_why, why) == NULL) {
    fail_msg("'%s' does not say '%s'", rig->refused_why, why);
  }
  assert_int_not_equal(m2sed_checkpoint_verify(rig->dir, 2, &error), 0);
  assert_int_equal(m2sed_checkpoint_verify(rig->dir, 1, &error), 0);
  m2sed_checkpoint_state_free(loaded);
}

static void start_with_two(struct checkpoint_rig *rig) {
  rig_start(rig);
  rig_write(rig);
  rig_advance(rig);
  assert_true(rig_write(rig) == 2);
}

static void assert_newest_good(struct checkpoint_rig *rig) {
  struct m2sed_checkpoint_state *loaded;
  assert_int_equal(rig_load(rig, &loaded), 0);
  assert_true(loaded->generation == 2 && rig->refused_count == 0);
  m2sed_checkpoint_state_free(loaded);
}

static void damage_file(struct checkpoint_rig *rig, const char *name, size_t every) {
  char path[512];
  size_t size;
  snprintf(path, sizeof path, "%s", rig_path(rig, 2, name));
  char *bytes = rig_read(path, &size);
  for (size_t at = 0; at < size; at += every) {
    char kept = bytes[at];
    bytes[at] = (char)(kept ^ (1 << at % 8));
    rig_overwrite(path, bytes, size);
    assert_falls_back(rig, name);
    bytes[at] = kept;
  }
  const size_t sizes[] = {0, 1, size / 2, size - 1};
  for (int i = 0; i < 4; i++) {
    rig_overwrite(path, bytes, sizes[i]);
    assert_falls_back(rig, name);
  }
  rig_overwrite(path, bytes, size + 1); /* the NUL behind it */
  assert_falls_back(rig, name);
  assert_int_equal(unlink(path), 0);
  assert_falls_back(rig, name);
  assert_int_equal(mkdir(path, 0755), 0);
  assert_falls_back(rig, name);
  assert_int_equal(rmdir(path), 0);
  rig_overwrite(path, bytes, size);
  assert_newest_good(rig);
  free(bytes);
}

static void test_damaged_files(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  start_with_two(&rig);
  for (int i = 0; i < M2SED_CHECKPOINT_FILES; i++) {
    damage_file(&rig, m2sed_checkpoint_file_names[i], 97);
  }
  damage_file(&rig, M2SED_MANIFEST, 1);
  rig_stop(&rig);
}

/* Manifests whose own checksum holds. */
static void test_other_manifests(void **unused) {
  (void)unused;
  static const struct {
    const char *from, *to, *why;
  } edits[] = {
      {"\"version\": 2", "\"version\": 1", "version 1"},
      {"\"format\": \"m2sed-checkpoint\"", "\"format\": \"x\"", "format x"},
      {"\"generation\": \"2\"", "\"generation\": \"3\"", "generation 3"},
      {"\"generation\": \"2\"", "\"generation\": \"-2\"", "generation"},
      {"\"step\"", "\"steps\"", "step"},
      {"\"lineage\": \"0", "\"lineage\": 0, \"x\": \"", "lineage"},
      {"\"dead_lettered\": \"7\"", "\"dead_lettered\": \"18446744073709551616\"", "dead_lettered"},
      {"\"targets\": \"all\"", "\"targets\": \"some\"", "targets"},
      {"\"d\": 6", "\"d\": 4294967302", "d: "},
      {"\"h\": 8", "\"h\": 16", "shape"},
      {"\"16383\"", "\"16384\"", "partition 16384"},
      {"\"7\": \"281474976710655\"", "\"0\": \"281474976710655\"", ""},
      {"\"7\": \"281474976710655\"", "\"7\": \"281474976710656\"", "partition 7"},
      {"\"7\": \"65535\"", "\"7\": \"65536\"", "partition 7"},
      {"\"7\": \"65535\"", "\"8\": \"65535\"", "log_epochs"},
      {"\"positions\": {", "\"positions\": {\"other\": {}, ", "topics"},
      {"\"xxh3_128\": \"", "\"xxh3_128\": \"0", "checksum"},
      {"\"state.safetensors\": {", "\"new.safetensors\": {}, \"state.safetensors\": {", "files"},
      {"\"optimizer.safetensors\": {", "\"other.safetensors\": {", "optimizer.safetensors"},
  };
  struct checkpoint_rig rig;
  start_with_two(&rig);
  char path[512];
  size_t size;
  snprintf(path, sizeof path, "%s", rig_path(&rig, 2, M2SED_MANIFEST));
  char *before = rig_read(path, &size);
  for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
    rig_edit_manifest(&rig, 2, edits[i].from, edits[i].to);
    assert_falls_back(&rig, edits[i].why);
    rig_overwrite(path, before, size);
  }
  rig_edit_manifest(&rig, 2, "\"version\": 2", "\"version\":  2"); /* the edit itself is not the reason */
  assert_newest_good(&rig);
  free(before);
  rig_stop(&rig);
}

static void test_unknown_file(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  start_with_two(&rig);
  rig_overwrite(rig_path(&rig, 2, ".hidden"), "", 0);
  assert_newest_good(&rig);
  rig_overwrite(rig_path(&rig, 2, "ranks.safetensors"), "", 0);
  assert_falls_back(&rig, "ranks.safetensors");
  rig_stop(&rig);
}

/* Any byte of state.safetensors changed, with checksums that hold: refused or read, never a crash, and what
 * is read keeps the rules. */
static void test_state_from_strangers(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2sed_file_sum before, after;
  struct m2se_error error;
  size_t size, refused = 0;
  char path[512];
  rig_start(&rig);
  rig_write(&rig);
  snprintf(path, sizeof path, "%s", rig_path(&rig, 1, "state.safetensors"));
  char *bytes = rig_read(path, &size);
  assert_int_equal(m2sed_file_sum(path, &before, &error), 0);
  for (size_t at = 0; at < size; at++) {
    struct m2sed_checkpoint_state *loaded;
    bytes[at] ^= (char)(1 << at % 8);
    rig_overwrite(path, bytes, size);
    assert_int_equal(m2sed_file_sum(path, &after, &error), 0);
    rig_edit_manifest(&rig, 1, before.xxh3_128, after.xxh3_128);
    before = after;
    if (rig_load(&rig, &loaded) != 0) {
      refused++;
    } else {
      for (uint32_t i = 0; i < loaded->waiting_count; i++) {
        assert_true(loaded->waiting[i].item < loaded->item_count);
        assert_in_range(loaded->waiting[i].context_count, 1, M2SED_CONTEXT_MAX);
      }
      m2sed_checkpoint_state_free(loaded);
    }
    bytes[at] ^= (char)(1 << at % 8);
  }
  assert_true(refused > 500 && refused < size); /* most of the header, and places; numbers may be any */
  free(bytes);
  rig_stop(&rig);
}

/* ---- none, or none that is good ---- */

/* What is set aside stays, under a name of its own each time, and numbers begin anew. */
static void test_set_aside(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2sed_checkpoint_state *loaded;
  struct m2se_error error;
  struct stat status;
  char path[256];
  rig_start(&rig);
  for (uint32_t time = 1; time <= 3; time++) {
    assert_true(rig_write(&rig) == 1);
    assert_int_equal(m2sed_checkpoint_set_aside(rig.dir, &error), 0);
    assert_int_equal(rig_load(&rig, &loaded), M2SE_EMISSING);
    assert_int_equal(rig_entries(rig.dir), time);
  }
  for (uint32_t time = 1; time <= 3; time++) {
    snprintf(path, sizeof path,
             time == 1 ? "%s/bad-gen-0000000001/MANIFEST.json" : "%s/bad-gen-0000000001.%u/MANIFEST.json",
             rig.dir, time);
    assert_int_equal(stat(path, &status), 0);
  }
  assert_int_equal(m2sed_checkpoint_set_aside(rig.dir, &error), 0); /* nothing to do */
  rig_stop(&rig);
}

/* An older generation becomes the newest; those between are called undone. */
static void test_roll_back(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2sed_checkpoint_state *loaded;
  struct m2se_error error;
  struct stat status;
  char path[256];
  uint64_t copy;
  rig_start(&rig);
  rig.info.keep = 10;
  assert_true(rig_write(&rig) == 1);
  uint64_t step = rig.state.step;
  for (uint64_t generation = 2; generation <= 4; generation++) {
    rig_advance(&rig);
    assert_true(rig_write(&rig) == generation);
  }
  assert_int_equal(m2sed_checkpoint_roll_back(rig.dir, 4, &copy, &error), M2SE_EINVAL);
  assert_int_equal(m2sed_checkpoint_roll_back(rig.dir, 5, &copy, &error), M2SE_EMISSING);
  rig_overwrite(rig_path(&rig, 2, "state.safetensors"), "x", 1);
  assert_int_equal(m2sed_checkpoint_roll_back(rig.dir, 2, &copy, &error), M2SE_EFORMAT);
  assert_int_equal(rig_entries(rig.dir), 4);
  assert_int_equal(m2sed_checkpoint_roll_back(rig.dir, 1, &copy, &error), 0);
  assert_true(copy == 5);
  for (int generation = 2; generation <= 4; generation++) {
    snprintf(path, sizeof path, "%s/undone-gen-000000000%d", rig.dir, generation);
    assert_int_equal(stat(path, &status), 0);
  }
  assert_int_equal(rig_entries(rig.dir), 5);
  assert_int_equal(rig_load(&rig, &loaded), 0);
  assert_true(loaded->generation == 5 && loaded->step == step);
  m2sed_checkpoint_state_free(loaded);
  rig_stop(&rig);
}

static void test_none(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2sed_checkpoint_state *loaded;
  struct m2se_error error;
  uint64_t *generations;
  uint32_t count;
  rig_start(&rig);
  assert_int_equal(rig_load(&rig, &loaded), M2SE_EMISSING);
  assert_int_equal(m2sed_checkpoint_load(&loaded, "/nonexistent/m2sed", NULL, NULL, &error), M2SE_EMISSING);
  assert_int_equal(m2sed_checkpoint_list("/nonexistent/m2sed", &generations, &count, &error), 0);
  assert_int_equal(count, 0);
  free(generations);
  assert_int_equal(m2sed_checkpoint_clean("/nonexistent/m2sed", &error), 0);
  assert_int_equal(m2sed_checkpoint_write("/nonexistent/m2sed", &rig.state, &rig.info, NULL, NULL, &error),
                   M2SE_EIO);
  rig_write(&rig);
  rig_write(&rig);
  rig_write(&rig);
  for (uint64_t generation = 1; generation <= 3; generation++) {
    assert_int_equal(unlink(rig_path(&rig, generation, "model.safetensors")), 0);
  }
  assert_int_equal(rig_load(&rig, &loaded), M2SE_EFORMAT);
  assert_int_equal(rig.refused_count, 3);
  assert_true(rig.refused[0] == 3 && rig.refused[1] == 2 && rig.refused[2] == 1);
  assert_int_equal(m2sed_checkpoint_load(&loaded, rig.dir, NULL, NULL, &error), M2SE_EFORMAT);
  assert_true(rig_write(&rig) == 4); /* its number was never used */
  assert_int_equal(rig_load(&rig, &loaded), 0);
  m2sed_checkpoint_state_free(loaded);
  rig_stop(&rig);
}

static uint64_t oldest_position(const struct checkpoint_rig *rig) {
  struct m2sed_position *positions;
  uint32_t count;
  struct m2se_error error;
  assert_int_equal(m2sed_checkpoint_oldest(rig->dir, &positions, &count, &error), 0);
  uint64_t position = count > 0 ? positions[0].position : 0;
  assert_true(count == 0 || count == RIG_POSITIONS);
  free(positions);
  return position;
}

/* A generation that could not be loaded takes no good one's place; how far a restart may go back is told. */
static void test_damaged_are_not_kept(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2sed_checkpoint_state *loaded;
  rig_start(&rig);
  rig.info.keep = 2;
  assert_true(oldest_position(&rig) == 0);
  for (uint64_t generation = 1; generation <= 3; generation++) {
    rig.positions[0].position = 100 * generation;
    assert_true(rig_write(&rig) == generation);
  }
  assert_true(oldest_position(&rig) == 200);
  assert_int_equal(unlink(rig_path(&rig, 3, "model.safetensors")), 0);
  assert_int_equal(rig_load(&rig, &loaded), 0);
  rig.info.loaded = loaded->generation;
  assert_true(rig.info.loaded == 2);
  m2sed_checkpoint_state_free(loaded);
  rig.positions[0].position = 400;
  rig.info.first = rig_write(&rig);
  assert_true(rig_entries(rig.dir) == 3 && oldest_position(&rig) == 200);
  assert_true(rig_write(&rig) == 5);
  assert_true(rig_entries(rig.dir) == 2 && oldest_position(&rig) == 400);
  assert_int_equal(unlink(rig_path(&rig, 4, "MANIFEST.json")), 0);
  rig.positions[0].position = 600;
  assert_true(rig_write(&rig) == 6 && oldest_position(&rig) == 400);
  rig_stop(&rig);
}

static void test_refused_states(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2se_error error;
  rig_start(&rig);
#define REFUSED(change, code, restore)                                                                       \
  change;                                                                                                    \
  assert_int_equal(m2sed_checkpoint_write(rig.dir, &rig.state, &rig.info, NULL, NULL, &error), code);        \
  restore;                                                                                                   \
  assert_int_equal(rig_entries(rig.dir), 0)
  REFUSED(rig.items[1].popularity = NAN, M2SE_ENUMERIC, rig.items[1].popularity = 1);
  REFUSED(rig.items[1].popularity = -1, M2SE_ENUMERIC, rig.items[1].popularity = 1);
  REFUSED(rig.waiting[0].item = RIG_ITEMS, M2SE_ERANGE, rig.waiting[0].item = 0);
  REFUSED(rig.reservoir[1].context[2] = RIG_ITEMS, M2SE_ERANGE, rig.reservoir[1].context[2] = 0);
  REFUSED(rig.state.reservoir_seen = 2, M2SE_ERANGE, rig.state.reservoir_seen = 3);
  float *weight = &rig.learner->params.flat[5], kept = *weight;
  *weight = NAN;
  REFUSED(m2se_snapshot_take(rig.state.weights, rig.learner, RIG_ITEMS), M2SE_ENUMERIC, *weight = kept);
  m2se_snapshot_take(rig.state.weights, rig.learner, RIG_ITEMS);
  rig_write(&rig);
  rig_stop(&rig);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_empty_state),
      cmocka_unit_test(test_manifest_text),
      cmocka_unit_test(test_damaged_files),
      cmocka_unit_test(test_other_manifests),
      cmocka_unit_test(test_unknown_file),
      cmocka_unit_test(test_state_from_strangers),
      cmocka_unit_test(test_none),
      cmocka_unit_test(test_set_aside),
      cmocka_unit_test(test_roll_back),
      cmocka_unit_test(test_refused_states),
      cmocka_unit_test(test_damaged_are_not_kept),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
