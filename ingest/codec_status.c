#include "ingest/codec_status.h"

#include <string.h>

#include "ingest/codec_parts.h"
#include "model/files/utf8.h"
#include "proto/m2se.pb-c.h"

const char *m2se_state_name(enum m2se_state state) {
  static const char *const names[] = {"unknown",  "starting", "running", "paused",
                                      "draining", "failed",   "standby"};
  return (unsigned)state < sizeof names / sizeof names[0] ? names[state] : names[0];
}

/* ---- encoding ---- */

/* Makes the message structs; memory is the arena's, `full` is kept until the end. */
struct encoder {
  struct m2se_arena *arena;
  bool full;
};

/* count elements of size bytes, zero. */
static void *take(struct encoder *encoder, size_t count, size_t size) {
  void *memory = m2se_arena_take(encoder->arena, count * size);
  if (memory)
    memset(memory, 0, count * size);
  encoder->full |= memory == NULL;
  return memory;
}

/* Texts of errors come from other programs and are cut to fit: one broken character must not make the whole
 * status unreadable. */
static char *to_string(struct encoder *encoder, const char *string) {
  size_t size = string ? strlen(string) : 0;
  if (size == 0 || m2se_utf8_valid(string, size))
    return m2se_string_packed((struct m2se_bytes){string, size});
  char *clean = take(encoder, size + 1, 1);
  for (size_t i = 0; clean && i < size;) {
    size_t step = m2se_utf8_next(string + i, size - i);
    memcpy(clean + i, step ? string + i : "?", step ? step : 1);
    i += step ? step : 1;
  }
  return clean;
}

#define ENCODE_uint64(value) value
#define ENCODE_int64(value) value
#define ENCODE_uint32(value) value
#define ENCODE_int32(value) value
#define ENCODE_double(value) value
#define ENCODE_bool(value) value
#define ENCODE_string(value) to_string(encoder, value)
/* `message` is the protobuf-c struct, `plain` ours. */
#define ENCODE(type, name) message->name = ENCODE_##type(plain->name);

/* A part without lists of its own. */
#define ENCODE_PART(part, Part, PART)                                                                        \
  static M2se__V1__##Part *encode_##part(struct encoder *encoder, const struct m2se_status_##part *plain) {  \
    M2se__V1__##Part *message = take(encoder, 1, sizeof *message);                                           \
    if (message) {                                                                                           \
      m2se__v1__##part##__init(message);                                                                     \
      M2SE_STATUS_##PART(ENCODE)                                                                             \
    }                                                                                                        \
    return message;                                                                                          \
  }
ENCODE_PART(partition, Partition, PARTITION)
ENCODE_PART(refusals, Refusals, REFUSALS)
ENCODE_PART(training, Training, TRAINING)
ENCODE_PART(reservoir, Reservoir, RESERVOIR)
ENCODE_PART(serving, Serving, SERVING)
ENCODE_PART(metrics, Metrics, METRICS)
ENCODE_PART(redis, Redis, REDIS)
ENCODE_PART(kafka, Kafka, KAFKA)
ENCODE_PART(checkpoint, Checkpoint, CHECKPOINT)
ENCODE_PART(catalogue, Catalogue, CATALOGUE)
ENCODE_PART(process, Process, PROCESS)
ENCODE_PART(lease, Lease, LEASE)
ENCODE_PART(features, Features, FEATURES)

static M2se__V1__Events *encode_events(struct encoder *encoder, const struct m2se_status_events *plain) {
  M2se__V1__Events *message = take(encoder, 1, sizeof *message);
  M2se__V1__Refusals **refused = take(encoder, plain->refused_count, sizeof *refused);
  if (!message || !refused)
    return NULL;
  m2se__v1__events__init(message);
  M2SE_STATUS_EVENTS(ENCODE)
  for (uint32_t i = 0; i < plain->refused_count; i++)
    refused[i] = encode_refusals(encoder, &plain->refused[i]);
  message->refused = refused;
  message->n_refused = plain->refused_count;
  return message;
}

static M2se__V1__Freshness *encode_freshness(struct encoder *encoder,
                                             const struct m2se_status_freshness *plain) {
  M2se__V1__Freshness *message = take(encoder, 1, sizeof *message);
  double *bounds = take(encoder, plain->bound_count, sizeof *bounds);
  uint64_t *counts = take(encoder, plain->bound_count + 1, sizeof *counts);
  if (!message || !bounds || !counts)
    return NULL;
  m2se__v1__freshness__init(message);
  M2SE_STATUS_FRESHNESS(ENCODE)
  if (plain->count) {
    for (uint32_t i = 0; i < plain->bound_count; i++)
      bounds[i] = plain->bound_ms[i];
    memcpy(counts, plain->count, (plain->bound_count + 1) * sizeof *counts);
    message->bound_ms = bounds;
    message->n_bound_ms = plain->bound_count;
    message->count = counts;
    message->n_count = plain->bound_count + 1;
  }
  return message;
}

static M2se__V1__Prequential *encode_prequential(struct encoder *encoder,
                                                 const struct m2se_status_prequential *plain) {
  M2se__V1__Prequential *message = take(encoder, 1, sizeof *message);
  if (!message)
    return NULL;
  m2se__v1__prequential__init(message);
  message->events = plain->events;
  message->skipped = plain->skipped;
#define ENCODE_METRICS(name) message->name = encode_metrics(encoder, &plain->name);
  M2SE_STATUS_PREQUENTIAL(ENCODE_METRICS)
  return message;
}

/* The parts of which there is one: X(part, Part, PART). Those without lists of their own decode alike. */
#define PARTS(X)                                                                                             \
  X(training, Training, TRAINING)                                                                            \
  X(reservoir, Reservoir, RESERVOIR)                                                                         \
  X(serving, Serving, SERVING)                                                                               \
  X(redis, Redis, REDIS)                                                                                     \
  X(kafka, Kafka, KAFKA)                                                                                     \
  X(checkpoint, Checkpoint, CHECKPOINT)                                                                      \
  X(catalogue, Catalogue, CATALOGUE)                                                                         \
  X(process, Process, PROCESS)                                                                               \
  X(lease, Lease, LEASE)                                                                                     \
  X(features, Features, FEATURES)

int m2se_status_encode(const struct m2se_status *status, struct m2se_arena *arena, const void **bytes,
                       size_t *size) {
  arena->used = 0;
  struct encoder encoder_on_stack = {arena, false}, *encoder = &encoder_on_stack;
  const struct m2se_status *plain = status;
  M2se__V1__Status message_on_stack = M2SE__V1__STATUS__INIT, *message = &message_on_stack;
  M2SE_STATUS_STATUS(ENCODE)
  message->state = (M2se__V1__State)status->state;
  char **reasons = take(encoder, status->reason_count, sizeof *reasons);
  M2se__V1__Partition **partitions = take(encoder, status->partition_count, sizeof *partitions);
  M2se__V1__Freshness **freshness = take(encoder, status->freshness_count, sizeof *freshness);
  if (!reasons || !partitions || !freshness)
    return M2SE_ENOMEM;
  for (uint32_t i = 0; i < status->reason_count; i++)
    reasons[i] = to_string(encoder, status->reasons[i]);
  for (uint32_t i = 0; i < status->partition_count; i++)
    partitions[i] = encode_partition(encoder, &status->partitions[i]);
  for (uint32_t i = 0; i < status->freshness_count; i++)
    freshness[i] = encode_freshness(encoder, &status->freshness[i]);
  message->reasons = reasons;
  message->n_reasons = status->reason_count;
  message->partitions = partitions;
  message->n_partitions = status->partition_count;
  message->freshness = freshness;
  message->n_freshness = status->freshness_count;
  message->events = encode_events(encoder, &status->events);
  message->prequential = encode_prequential(encoder, &status->prequential);
#define ENCODE_MEMBER(part, Part, PART) message->part = encode_##part(encoder, &plain->part);
  PARTS(ENCODE_MEMBER)
  if (encoder->full)
    return M2SE_ENOMEM;
  *size = m2se__v1__status__get_packed_size(message);
  uint8_t *packed = m2se_arena_take(arena, *size);
  if (!packed)
    return M2SE_ENOMEM;
  m2se__v1__status__pack(message, packed);
  *bytes = packed;
  return 0;
}

/* ---- decoding ---- */

#define DECODE(type, name) plain->name = message->name;
/* What a part has that the message lacks: zeros, and strings "". */
#define DEFAULT_PART(Part, PART) static const M2se__V1__##Part absent = M2SE__V1__##PART##__INIT

#define DECODE_PART(part, Part, PART)                                                                        \
  static void decode_##part(struct m2se_status_##part *plain, const M2se__V1__##Part *message) {             \
    DEFAULT_PART(Part, PART);                                                                                \
    message = message ? message : &absent;                                                                   \
    M2SE_STATUS_##PART(DECODE)                                                                               \
  }
DECODE_PART(partition, Partition, PARTITION)
DECODE_PART(refusals, Refusals, REFUSALS)
DECODE_PART(metrics, Metrics, METRICS)
DECODE_PART(events, Events, EVENTS)
DECODE_PART(freshness, Freshness, FRESHNESS)
PARTS(DECODE_PART)

static void decode_prequential(struct m2se_status_prequential *plain, const M2se__V1__Prequential *message) {
  DEFAULT_PART(Prequential, PREQUENTIAL);
  message = message ? message : &absent;
  plain->events = message->events;
  plain->skipped = message->skipped;
#define DECODE_METRICS(name) decode_metrics(&plain->name, message->name);
  M2SE_STATUS_PREQUENTIAL(DECODE_METRICS)
}

static int decode_lists(struct m2se_status *status, const M2se__V1__Status *message,
                        struct m2se_arena *arena) {
  size_t refused_count = message->events ? message->events->n_refused : 0;
  struct m2se_status_partition *partitions =
      m2se_arena_take(arena, message->n_partitions * sizeof *partitions);
  struct m2se_status_freshness *freshness = m2se_arena_take(arena, message->n_freshness * sizeof *freshness);
  struct m2se_status_refusals *refused = m2se_arena_take(arena, refused_count * sizeof *refused);
  if (!partitions || !freshness || !refused)
    return M2SE_ENOMEM;
  for (size_t i = 0; i < message->n_partitions; i++)
    decode_partition(&partitions[i], message->partitions[i]);
  for (size_t i = 0; i < refused_count; i++)
    decode_refusals(&refused[i], message->events->refused[i]);
  for (size_t i = 0; i < message->n_freshness; i++) {
    const M2se__V1__Freshness *from = message->freshness[i];
    freshness[i] = (struct m2se_status_freshness){0};
    decode_freshness(&freshness[i], from);
    if (from->n_count == from->n_bound_ms + 1) { // else no histogram that we could read
      freshness[i].bound_ms = from->bound_ms;
      freshness[i].count = from->count;
      freshness[i].bound_count = (uint32_t)from->n_bound_ms;
    }
  }
  status->reasons = (const char *const *)message->reasons;
  status->reason_count = (uint32_t)message->n_reasons;
  status->partitions = partitions;
  status->partition_count = (uint32_t)message->n_partitions;
  status->freshness = freshness;
  status->freshness_count = (uint32_t)message->n_freshness;
  status->events.refused = refused;
  status->events.refused_count = (uint32_t)refused_count;
  return 0;
}

int m2se_status_decode(struct m2se_status *status, struct m2se_arena *arena, const void *bytes, size_t size,
                       struct m2se_refusal *refusal) {
  arena->used = 0;
  ProtobufCMessage *unpacked;
  int code = m2se_wire_unpack(&unpacked, &m2se__v1__status__descriptor, arena, bytes, size, refusal);
  if (code)
    return code;
  const M2se__V1__Status *message = (const M2se__V1__Status *)unpacked;
  struct m2se_status *plain = status;
  *status = (struct m2se_status){0};
  M2SE_STATUS_STATUS(DECODE)
  status->state = (enum m2se_state)message->state;
#define DECODE_MEMBER(part, Part, PART) decode_##part(&status->part, message->part);
  PARTS(DECODE_MEMBER)
  decode_events(&status->events, message->events);
  decode_prequential(&status->prequential, message->prequential);
  return decode_lists(status, message, arena) ? m2se_refuse_memory(arena, refusal) : 0;
}
