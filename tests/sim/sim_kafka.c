/* A fake of ingest/kafka.h: logs in memory, one member of a group, deliveries that may fail. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

enum { PENDING_MAX = 2048, PARTITIONS = SIM_PARTITIONS_MAX + 1, ITEMS_AT = SIM_PARTITIONS_MAX };

struct m2se_kafka {
  struct m2se_kafka_callbacks callbacks;
  struct part {
    bool started, held, ended;
    int64_t next, high_at_start, away_until_ms;
  } parts[PARTITIONS]; /* interactions, then the one of the items */
  bool paused[M2SE_KAFKA_TOPICS];
  struct pending {
    void *opaque;
    int32_t partition; /* of a dead letter's record; -1: another record */
    int64_t offset;
    bool stored;
  } pending[PENDING_MAX];
  uint32_t pending_count;
  bool closing;
};
static struct m2se_kafka *kafka; /* of this life */

static struct sim_log *log_of(uint32_t part) {
  return part == ITEMS_AT ? &sim->items : &sim->interactions[part];
}

static int64_t high_of(uint32_t part) {
  const struct sim_log *log = log_of(part);
  int64_t high = 0;
  while (high < (int64_t)log->count && log->records[high].at_ms <= sim->now_ms)
    high++;
  return high;
}

static bool is_there(uint32_t part) {
  return part == ITEMS_AT || part < sim->partitions;
}

static enum m2se_kafka_topic topic_of(uint32_t part) {
  return part == ITEMS_AT ? M2SE_KAFKA_ITEMS : M2SE_KAFKA_INTERACTIONS;
}

static int32_t number_of(uint32_t part) {
  return part == ITEMS_AT ? 0 : (int32_t)part;
}

int m2se_kafka_new(struct m2se_kafka **out, const struct m2se_kafka_settings *settings,
                   const struct m2se_kafka_callbacks *callbacks, struct m2se_error *error) {
  (void)settings, (void)error;
  kafka = *out = calloc(1, sizeof *kafka);
  assert(kafka);
  kafka->callbacks = *callbacks;
  return 0;
}

/* ---- reading ---- */

static void start(uint32_t part) {
  struct part *p = &kafka->parts[part];
  const struct m2se_kafka_start at = {
      .topic = topic_of(part), .partition = number_of(part), .high = high_of(part), .wanted = -1};
  p->started = true;
  p->held = p->ended = false;
  p->high_at_start = at.high;
  p->next = kafka->callbacks.start(kafka->callbacks.arg, &at);
  p->held = p->next == M2SE_KAFKA_HOLD;
  sim_trace("kafka: topic %d partition %d starts at %lld of %lld", at.topic, at.partition, (long long)p->next,
            (long long)at.high);
  if (!p->held && (p->next < 0 || p->next > at.high))
    sim_fail("partition %d starts at %lld, its end is %lld", at.partition, (long long)p->next,
             (long long)at.high);
}

static bool hand_over(uint32_t part) {
  struct part *p = &kafka->parts[part];
  struct sim_log *log = log_of(part);
  struct sim_record *r = &log->records[p->next];
  const struct m2se_kafka_record record = {.topic = topic_of(part),
                                           .topic_name = part == ITEMS_AT ? "items" : "interactions",
                                           .partition = number_of(part),
                                           .offset = p->next++,
                                           .timestamp_ms = r->at_ms,
                                           .key = r->key,
                                           .key_size = r->key_size,
                                           .value = r->deletion ? NULL : r->value,
                                           .value_size = r->value_size};
  return r->gap || kafka->callbacks.record(kafka->callbacks.arg, &record);
}

static void maybe_end(uint32_t part) {
  struct part *p = &kafka->parts[part];
  if (p->ended || p->held || p->next < p->high_at_start)
    return;
  p->ended = true;
  kafka->callbacks.end(kafka->callbacks.arg, topic_of(part), number_of(part), p->high_at_start);
}

/* False: the owner wants no more. */
static bool read_part(uint32_t part, uint32_t *left) {
  struct part *p = &kafka->parts[part];
  if (!p->started && sim->now_ms >= p->away_until_ms)
    start(part);
  bool more = true;
  uint64_t count = 1 + sim_draw(24);
  while (more && p->started && !p->held && !kafka->paused[topic_of(part)] && *left > 0 && count-- > 0 &&
         p->next < high_of(part)) {
    --*left;
    more = hand_over(part);
  }
  if (p->started)
    maybe_end(part);
  return more;
}

static void deliver(void) {
  while (kafka->pending_count && sim_chance(1000 - sim->faults.late_letter)) {
    struct pending done = kafka->pending[0];
    memmove(kafka->pending, kafka->pending + 1, --kafka->pending_count * sizeof done);
    bool fails = sim_chance(sim->faults.delivery_fails);
    if (!done.stored && done.partition >= 0 && (!fails || sim_chance(300)))
      sim->letters[done.partition][done.offset]++;
    if (done.partition >= 0)
      sim_trace("kafka: dead letter of %d:%lld %s", done.partition, (long long)done.offset,
                fails ? "fails" : "is there");
    const struct m2se_kafka_delivery delivery = {
        .opaque = done.opaque, .code = fails ? M2SE_EIO : 0, .why = "simulated", .topic = "interactions.dlq"};
    kafka->callbacks.delivered(kafka->callbacks.arg, &delivery);
  }
}

static void rebalance(void) {
  uint32_t part = (uint32_t)sim_draw(sim->partitions);
  struct part *p = &kafka->parts[part];
  if (!p->started || kafka->closing || !sim_chance(sim->faults.rebalance))
    return;
  sim_trace("kafka: partition %u goes", part);
  p->started = false;
  p->away_until_ms = sim->now_ms + (int64_t)sim_draw(300);
  kafka->callbacks.revoked(kafka->callbacks.arg, M2SE_KAFKA_INTERACTIONS, (int32_t)part, sim_chance(500));
}

bool m2se_kafka_poll(struct m2se_kafka *k, unsigned what, uint32_t records_max) {
  assert(k == kafka);
  deliver();
  if (kafka->closing)
    return false;
  if (what & M2SE_KAFKA_READ_GROUP)
    rebalance();
  uint32_t left = records_max, first = (uint32_t)sim_draw(PARTITIONS);
  bool more = true;
  for (uint32_t i = 0; i < PARTITIONS && more && left > 0; i++) {
    uint32_t part = (first + i) % PARTITIONS;
    unsigned needed = part == ITEMS_AT ? M2SE_KAFKA_READ_ITEMS : M2SE_KAFKA_READ_GROUP;
    if (is_there(part) && (what & needed))
      more = read_part(part, &left);
  }
  return !more || left == 0;
}

void sim_kafka_turn(void) {
  if (kafka && sim_chance(500))
    kafka->callbacks.wake(kafka->callbacks.arg);
}

void m2se_kafka_pause(struct m2se_kafka *k, enum m2se_kafka_topic topic, int32_t partition) {
  assert(partition == -1);
  k->paused[topic] = true;
}

void m2se_kafka_resume(struct m2se_kafka *k, enum m2se_kafka_topic topic, int32_t partition) {
  assert(partition == -1);
  k->paused[topic] = false;
}

void m2se_kafka_restart(struct m2se_kafka *k, enum m2se_kafka_topic topic, int32_t partition) {
  assert(topic == M2SE_KAFKA_INTERACTIONS && k->parts[partition].started);
  k->parts[partition].started = false;
}

void m2se_kafka_commit(struct m2se_kafka *k, const struct m2se_kafka_offset *offsets, uint32_t count) {
  (void)k;
  for (uint32_t i = 0; i < count; i++) {
    int64_t *committed = &sim->interactions[offsets[i].partition].committed;
    if (offsets[i].offset < *committed)
      sim_fail("partition %d: the committed offset goes back from %lld to %lld", offsets[i].partition,
               (long long)*committed, (long long)offsets[i].offset);
    *committed = offsets[i].offset;
  }
}

/* ---- what the log holds ---- */

void m2se_kafka_refresh(struct m2se_kafka *k) {
  (void)k;
}

bool m2se_kafka_watermarks(const struct m2se_kafka *k, enum m2se_kafka_topic topic, int32_t partition,
                           int64_t *low, int64_t *high) {
  uint32_t part = topic == M2SE_KAFKA_ITEMS ? (uint32_t)ITEMS_AT : (uint32_t)partition;
  *low = 0;
  *high = high_of(part);
  return k->parts[part].started;
}

const char *m2se_kafka_cluster_id(const struct m2se_kafka *k) {
  (void)k;
  return "simulated";
}

bool m2se_kafka_reachable(const struct m2se_kafka *k) {
  (void)k;
  return true;
}

int m2se_kafka_query_ends(struct m2se_kafka *k, const char *topic_name, struct m2se_kafka_end *ends,
                          uint32_t max, int timeout_ms, struct m2se_error *error) {
  (void)k, (void)timeout_ms, (void)error;
  bool items = strcmp(topic_name, "items") == 0;
  uint32_t count = items ? 1 : sim->partitions;
  assert(count <= max);
  for (uint32_t i = 0; i < count; i++)
    ends[i] = (struct m2se_kafka_end){(int32_t)i, 0, high_of(items ? (uint32_t)ITEMS_AT : i)};
  return (int)count;
}

uint32_t m2se_kafka_record_headers(const struct m2se_kafka_record *record, struct m2se_kafka_header *headers,
                                   uint32_t max) {
  (void)record, (void)headers, (void)max;
  return 0;
}

/* ---- writing ---- */

static int64_t header_number(const struct m2se_kafka_message *message, const char *name) {
  for (uint32_t i = 0; i < message->header_count; i++)
    if (strcmp(message->headers[i].name, name) == 0)
      return strtoll(message->headers[i].value, NULL, 10);
  sim_fail("a dead letter without the header %s", name);
}

int m2se_kafka_produce(struct m2se_kafka *k, const struct m2se_kafka_message *message,
                       struct m2se_error *error) {
  if (k->pending_count == PENDING_MAX)
    return m2se_error_set(error, M2SE_ELIMIT, "simulated");
  struct pending *pending = &k->pending[k->pending_count++];
  *pending = (struct pending){.opaque = message->opaque, .partition = -1};
  if (strcmp(message->topic, "interactions.dlq") == 0) {
    pending->partition = (int32_t)header_number(message, "__connect.errors.partition");
    pending->offset = header_number(message, "__connect.errors.offset");
    if (sim_chance(200)) { /* Kafka has it, and the daemon may die before it hears so */
      pending->stored = true;
      sim->letters[pending->partition][pending->offset]++;
    }
  }
  return 0;
}

uint32_t m2se_kafka_unsent(const struct m2se_kafka *k) {
  return k->pending_count;
}

/* ---- the end ---- */

void m2se_kafka_close(struct m2se_kafka *k, int timeout_ms) {
  (void)timeout_ms;
  k->closing = true;
}

bool m2se_kafka_closed(const struct m2se_kafka *k) {
  return k->closing && k->pending_count == 0;
}

void m2se_kafka_free(struct m2se_kafka *k) {
  free(k);
  kafka = NULL;
}
