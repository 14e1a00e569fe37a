/* What a seed stands for: the logs, the settings, the faults. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "ingest/codec.h"
#include "tests/sim/sim.h"

enum { BEGIN_MS = 1700000000 };
static const int64_t BEGIN = (int64_t)BEGIN_MS * 1000;

static uint32_t one_of(uint32_t count, const uint32_t *values) {
  return values[sim_draw(count)];
}
#define ONE_OF(...)                                                                                          \
  one_of(sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), (const uint32_t[]){__VA_ARGS__})

static void set_key(struct sim_record *record, char letter, uint32_t number) {
  record->key_size = (uint16_t)snprintf(record->key, sizeof record->key, "%c%u", letter, number);
}

static void add_item(uint32_t item, int64_t at_ms) {
  struct sim_record *record = &sim->items.records[sim->items.count++];
  record->at_ms = at_ms;
  record->item = (uint8_t)item;
  set_key(record, 'i', item);
  float rows[3 * SIM_DIM];
  for (uint32_t i = 0; i < 3 * SIM_DIM; i++)
    rows[i] = (float)(int64_t)(sim_draw(2001) - 1000) / 1000;
  uint32_t texts = 1 + (uint32_t)sim_draw(2);
  const struct m2se_item value = {.item_id = {record->key, record->key_size},
                                  .text_rows = {SIM_DIM, texts, rows},
                                  .image_rows = {SIM_DIM, 1, rows + 2 * SIM_DIM}};
  record->value_size = (uint16_t)m2se_item_encode(&value, record->value, SIM_VALUE_MAX);
  assert(record->value_size <= SIM_VALUE_MAX);
}

static void delete_item(uint32_t item, int64_t at_ms) {
  struct sim_record *record = &sim->items.records[sim->items.count++];
  *record = (struct sim_record){.at_ms = at_ms, .item = (uint8_t)item, .deletion = true};
  set_key(record, 'i', item);
}

/* With the features that it had: the vector of an epoch that readers see stays as it is. */
static void add_again(uint32_t item, int64_t at_ms) {
  uint32_t i = 0;
  while (sim->items.records[i].item != item || sim->items.records[i].deletion)
    i++;
  sim->items.records[sim->items.count] = sim->items.records[i];
  sim->items.records[sim->items.count++].at_ms = at_ms;
}

/* A user belongs to one partition, as its key has it. */
static void add_interaction(uint32_t user, int64_t at_ms) {
  struct sim_log *log = &sim->interactions[user % sim->partitions];
  if (log->count == SIM_RECORDS_MAX)
    return;
  struct sim_record *record = &log->records[log->count++];
  record->at_ms = at_ms;
  record->user = (uint8_t)user;
  record->item = (uint8_t)sim_draw(SIM_ITEMS);
  record->gap = sim_chance(20);
  record->garbage = sim_chance(40);
  record->event_id = sim_chance(300) ? 0 : (uint16_t)(1 + sim_draw(400)); /* some come twice */
  set_key(record, 'u', user);
  if (record->garbage) {
    record->value_size = (uint16_t)snprintf((char *)record->value, SIM_VALUE_MAX, "{garbage");
    return;
  }
  char item[8], event[8];
  int item_size = snprintf(item, sizeof item, "i%u", record->item);
  int event_size = record->event_id ? snprintf(event, sizeof event, "e%u", record->event_id) : 0;
  const struct m2se_interaction value = {.user_id = {record->key, record->key_size},
                                         .item_id = {item, (size_t)item_size},
                                         .event_id = {event, (size_t)event_size},
                                         .kind = {"", 0},
                                         .event_time_ms =
                                             at_ms - (int64_t)sim_draw(2000)}; /* late ones too */
  record->value_size = (uint16_t)m2se_interaction_encode(&value, record->value, SIM_VALUE_MAX);
  assert(record->value_size <= SIM_VALUE_MAX);
}

static void draw_settings(void) {
  sim->partitions = ONE_OF(1, 1, 1, 2, 4);
  sim->length = ONE_OF(3, 6);
  sim->keep = sim->length + ONE_OF(1, 4);
  sim->batch = ONE_OF(4, 8, 16);
  sim->backlog = ONE_OF(0, 16, 64, 1000);
  sim->reservoir = ONE_OF(10, 1000);
  sim->epoch_steps = ONE_OF(1, 3, 10);
  sim->in_flight = ONE_OF(16, 64, 2048);
  sim->shrink = sim_chance(200);
  sim->late_items = sim_chance(250);
  sim->deletions = sim->late_items && sim_chance(500);
  sim->all_featured = (sim->late_items && !sim->deletions) || sim_chance(300 * !sim->deletions);
  sim->parking = sim->late_items ? 10000 : ONE_OF(0, 5, 10000);
  /* What it drops depends on the order of the partitions, so only where there is one. */
  if (sim->partitions > 1)
    sim->parking = 10000;
  sim->parking_events = sim->partitions > 1 || sim->late_items ? 1000000 : ONE_OF(20, 1000000);
}

static void draw_logs(void) {
  int64_t span_ms = 500 + (int64_t)sim_draw(6000);
  uint32_t featured = sim->all_featured ? (uint32_t)SIM_ITEMS : SIM_ITEMS - 3;
  for (uint32_t item = 0; item < featured; item++) {
    int64_t at_ms = sim->late_items && item > 2 ? BEGIN + (int64_t)(item * span_ms / featured) : BEGIN - 1;
    add_item(item, at_ms);
    if (sim->deletions && item > 2 && sim_chance(500)) {
      uint32_t gone = (uint32_t)sim_draw(item + 1);
      delete_item(gone, at_ms);
      if (sim_chance(300))
        add_again(gone, at_ms);
    }
  }
  uint32_t events = 30 + (uint32_t)sim_draw(300);
  for (uint32_t i = 0; i < events; i++)
    add_interaction((uint32_t)sim_draw(SIM_USERS), BEGIN + i * span_ms / events);
}

void sim_draw_faults(void) {
  sim->faults = (struct sim_faults){.connection_lost = ONE_OF(0, 0, 5, 20),
                                    .refused = ONE_OF(0, 0, 5, 30),
                                    .crash = ONE_OF(0, 0, 2, 5),
                                    .flush = ONE_OF(0, 0, 0, 2),
                                    .rebalance = ONE_OF(0, 0, 5, 20),
                                    .delivery_fails = ONE_OF(0, 0, 300),
                                    .late_letter = ONE_OF(0, 500, 980),
                                    .work = ONE_OF(1000, 300, 20),
                                    .trainer_runs = ONE_OF(1000, 300, 50),
                                    .server_runs = ONE_OF(1000, 300, 50)};
}

void sim_make_schedule(uint64_t seed) {
  memset(sim, 0, offsetof(struct sim_world, redis.sequences));
  for (uint32_t i = 0; i < SIM_USERS; i++)
    sim->redis.sequences[i].size = sim->saved.sequences[i].size = 0;
  sim->redis.field_count = sim->saved.field_count = 0;
  sim->redis.sequences_told = sim->saved.sequences_told = 0;
  memset(sim->marker_told, 0, sizeof *sim - offsetof(struct sim_world, marker_told));
  sim->seed = seed;
  sim->random = seed;
  sim->now_ms = BEGIN;
  draw_settings();
  draw_logs();
}
