/* What must hold at the end, computed from the log alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "daemon/checkpoint.h"
#include "ingest/sequence.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_store.h"

static char problem[600];
#define WRONG(...) return snprintf(problem, sizeof problem, __VA_ARGS__), problem

struct expected {
  uint64_t taken, dead, duplicates, no_context, teaches, digest; /* digest: of all that teach */
  struct {
    uint32_t count;
    uint16_t event_ids[SIM_RECORDS_MAX];
    int64_t offsets[SIM_RECORDS_MAX];
  } users[SIM_USERS];
};

static uint64_t digest_of(uint32_t partition, int64_t offset) {
  uint8_t bytes[13 + 12] = "interactions";
  memcpy(bytes + 13, &partition, 4);
  memcpy(bytes + 17, &offset, 8);
  return XXH3_64bits(bytes, sizeof bytes);
}

static bool seen_lately(const uint16_t *ids, uint32_t count, uint16_t id) {
  for (uint32_t i = count > sim->keep ? count - sim->keep : 0; i < count && id; i++)
    if (ids[i] == id)
      return true;
  return false;
}

static void expect_record(struct expected *e, uint32_t partition, int64_t offset) {
  const struct sim_record *r = &sim->interactions[partition].records[offset];
  uint32_t *count = &e->users[r->user].count;
  if (r->gap)
    return;
  e->taken++;
  if (r->garbage) {
    e->dead++;
  } else if (seen_lately(e->users[r->user].event_ids, *count, r->event_id)) {
    e->duplicates++;
  } else {
    e->no_context += *count == 0;
    e->teaches += *count > 0;
    e->digest += *count > 0 ? digest_of(partition, offset) : 0;
    e->users[r->user].event_ids[*count] = r->event_id;
    e->users[r->user].offsets[(*count)++] = offset;
  }
}

static const char *check_sequences(const struct expected *e) {
  static struct m2se_sequence sequence;
  for (uint32_t user = 0; user < SIM_USERS; user++) {
    struct m2se_error error = {0};
    if (m2se_sequence_parse(&sequence, sim->redis.sequences[user].blob, sim->redis.sequences[user].size,
                            &error))
      WRONG("sequence of u%u: %s", user, error.text);
    uint32_t count = e->users[user].count, shown = count < sim->keep ? count : sim->keep;
    struct m2se_sequence_span span = m2se_sequence_latest(&sequence, sim->keep);
    if (span.count != shown)
      WRONG("sequence of u%u: %u entries, expected %u", user, span.count, shown);
    for (uint32_t i = 0; i < shown; i++) {
      int64_t is = (int64_t)(sequence.entries[span.first + i].position & ((UINT64_C(1) << 48) - 1));
      int64_t wanted = e->users[user].offsets[count - shown + i];
      if (is != wanted)
        WRONG("sequence of u%u: entry %u of %u is offset %lld, expected %lld", user, i, shown, (long long)is,
              (long long)wanted);
    }
  }
  return "";
}

static const char *check_letters(void) {
  for (uint32_t p = 0; p < sim->partitions; p++)
    for (uint32_t i = 0; i < sim->interactions[p].count; i++) {
      const struct sim_record *r = &sim->interactions[p].records[i];
      bool wanted = r->garbage && !r->gap;
      if (wanted != (sim->letters[p][i] > 0))
        WRONG("record %u:%u has %u dead letters, expected %s", p, i, sim->letters[p][i],
              wanted ? "one or more" : "none");
    }
  return "";
}

static const char *check_counters(const struct expected *e, const struct m2sed_checkpoint_state *state) {
  const struct m2sed_trainer_counters *c = &state->counters;
  const struct {
    const char *name;
    uint64_t is, wanted;
  } rows[] = {{"events_taken", c->events_taken, e->taken},
              {"dead_lettered", c->dead_lettered, e->dead},
              {"skipped_duplicate", c->skipped_duplicate, e->duplicates},
              {"skipped_no_context", c->skipped_no_context, e->no_context},
              {"trained_events + skipped_no_features + parked + skipped_guard + waiting",
               c->trained_events + c->skipped_no_features + state->parked_count + c->skipped_guard +
                   state->waiting_count,
               e->teaches},
              {"waiting", state->waiting_count, 0}};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    if (rows[i].is != rows[i].wanted)
      WRONG("%s is %llu, expected %llu", rows[i].name, (unsigned long long)rows[i].is,
            (unsigned long long)rows[i].wanted);
  if (sim->all_featured && c->trained_events != e->teaches)
    WRONG("trained_events is %llu, expected %llu", (unsigned long long)c->trained_events,
          (unsigned long long)e->teaches);
  if (sim->all_featured && c->event_digest != e->digest)
    WRONG("event_digest is %llx, expected %llx", (unsigned long long)c->event_digest,
          (unsigned long long)e->digest);
  return "";
}

static struct m2sed_checkpoint_state *load(const char *dir) {
  struct m2sed_checkpoint_state *state = NULL;
  struct m2se_error error = {0};
  if (m2sed_checkpoint_load(&state, dir, NULL, NULL, &error))
    snprintf(problem, sizeof problem, "the last checkpoint: %.300s", error.text);
  return state;
}

/* A deleted item leaves nothing behind; each of the others has its vector of the epoch that is shown. */
static const char *check_items(void) {
  const struct sim_field *shown = sim_store_find("m2se:model", "epoch");
  const struct sim_record *last[SIM_ITEMS] = {0};
  for (uint32_t i = 0; i < sim->items.count; i++)
    last[sim->items.records[i].item] = &sim->items.records[i];
  for (uint32_t item = 0; item < SIM_ITEMS; item++) {
    char key[24];
    snprintf(key, sizeof key, "m2se:item:i%u", item);
    const struct sim_field *epoch = sim_store_find(key, "epoch"), *before = sim_store_find(key, "epoch_prev");
    bool has =
        shown && epoch &&
        (strcmp(epoch->value, shown->value) == 0 || (before && strcmp(before->value, shown->value) == 0));
    if (last[item] && last[item]->deletion && (epoch || before))
      WRONG("i%u was deleted, and still has a vector of epoch %s", item,
            epoch ? epoch->value : before->value);
    if (last[item] && !last[item]->deletion && shown && !has)
      WRONG("i%u has no vector of epoch %s, but of %s", item, shown->value, epoch ? epoch->value : "none");
  }
  return "";
}

const char *sim_check(const char *dir) {
  static struct expected e;
  memset(&e, 0, sizeof e);
  for (uint32_t p = 0; p < sim->partitions; p++)
    for (uint32_t i = 0; i < sim->interactions[p].count; i++)
      expect_record(&e, p, i);
  struct m2sed_checkpoint_state *state = load(dir);
  if (!state)
    return problem;
  const char *wrong = check_counters(&e, state);
  m2sed_checkpoint_state_free(state);
  wrong = wrong[0] ? wrong : check_letters();
  wrong = wrong[0] ? wrong : check_items();
  return wrong[0] ? wrong : check_sequences(&e);
}

/* ---- against the undisturbed run ---- */

static const char *compare_file(const char *a, const char *b, const char *name) {
  char path_a[4200], path_b[4200];
  snprintf(path_a, sizeof path_a, "%s/%s", a, name);
  snprintf(path_b, sizeof path_b, "%s/%s", b, name);
  FILE *file_a = fopen(path_a, "rb"), *file_b = fopen(path_b, "rb");
  long at = 0;
  bool same = file_a && file_b;
  for (int byte = 0; same && byte != EOF; at++) {
    byte = getc(file_a);
    same = byte == getc(file_b);
  }
  if (file_a)
    fclose(file_a);
  if (file_b)
    fclose(file_b);
  if (!same)
    WRONG("%s differs from the undisturbed run's at byte %ld", name, at - 1);
  return "";
}

static const char *compare_counters(const struct m2sed_checkpoint_state *a,
                                    const struct m2sed_checkpoint_state *b) {
  if (a->counters.trained_events != b->counters.trained_events)
    WRONG("trained_events is %llu, undisturbed %llu", (unsigned long long)a->counters.trained_events,
          (unsigned long long)b->counters.trained_events);
  if (a->counters.event_digest != b->counters.event_digest)
    WRONG("event_digest differs from the undisturbed run's");
  if (a->parked_count != b->parked_count)
    WRONG("%u events are parked, undisturbed %u", a->parked_count, b->parked_count);
  return "";
}

static const char *compare_all(const struct m2sed_checkpoint_state *a,
                               const struct m2sed_checkpoint_state *b) {
  struct m2sed_trainer_counters left = a->counters, right = b->counters;
  if (memcmp(&left, &right, sizeof left) != 0)
    WRONG("a counter differs from the undisturbed run's: unparked %llu and %llu, dropped %llu and %llu",
          (unsigned long long)left.unparked, (unsigned long long)right.unparked,
          (unsigned long long)left.parking_dropped, (unsigned long long)right.parking_dropped);
  if (a->step != b->step)
    WRONG("step %llu, undisturbed %llu", (unsigned long long)a->step, (unsigned long long)b->step);
  if (a->reservoir_count != b->reservoir_count || a->reservoir_seen != b->reservoir_seen)
    WRONG("the reservoir differs from the undisturbed run's");
  for (uint32_t i = 0; i < a->reservoir_count; i++)
    if (a->reservoir[i].digest != b->reservoir[i].digest)
      WRONG("place %u of the reservoir differs from the undisturbed run's", i);
  for (uint32_t i = 0; i < a->parked_count; i++)
    if (a->parked[i].digest != b->parked[i].digest)
      WRONG("parked event %u differs from the undisturbed run's", i);
  const char *wrong = compare_file(a->directory, b->directory, "model.safetensors");
  return wrong[0] ? wrong : compare_file(a->directory, b->directory, "optimizer.safetensors");
}

const char *sim_compare(const char *dir, const char *undisturbed_dir) {
  struct m2sed_checkpoint_state *a = load(dir), *b = a ? load(undisturbed_dir) : NULL;
  const char *wrong = b ? compare_counters(a, b) : problem;
  /* The order of events from several partitions is nobody's promise; nor is replay when it was taken away. */
  if (!wrong[0] && sim->partitions == 1 && !a->counters.replay_taken_away && !b->counters.replay_taken_away)
    wrong = compare_all(a, b);
  m2sed_checkpoint_state_free(a);
  m2sed_checkpoint_state_free(b);
  return wrong;
}
