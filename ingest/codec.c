#include "ingest/codec.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/codec_parts.h"
#include "model/files/json.h"
#include "proto/m2se.pb-c.h"

/* ---- the arena ---- */

enum { ALIGNMENT = 16 };

int m2se_arena_new(struct m2se_arena *arena, size_t size) {
  *arena = (struct m2se_arena){.data = malloc(size), .size = size};
  return arena->data ? 0 : M2SE_ENOMEM;
}

void m2se_arena_free(struct m2se_arena *arena) {
  free(arena->data);
  *arena = (struct m2se_arena){0};
}

void *m2se_arena_take(struct m2se_arena *arena, size_t size) {
  assert(arena->used <= arena->size);
  if (size > arena->size - arena->used)
    return NULL;
  void *memory = arena->data + arena->used;
  size_t rounded = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
  size_t left = arena->size - arena->used;
  arena->used += rounded < left ? rounded : left;
  return memory;
}

/* ---- which format ---- */

static bool is_blank(uint8_t byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static bool starts_as_json(const struct m2se_payload *payload) {
  size_t blanks = 0;
  while (blanks < payload->size && is_blank(payload->data[blanks]))
    blanks++;
  return blanks < payload->size && payload->data[blanks] == '{';
}

/* Bytes of a varint at data, 0: none. */
static size_t varint_size(const uint8_t *data, size_t size) {
  for (size_t i = 0; i < size && i < 5; i++)
    if (data[i] < 0x80)
      return i + 1;
  return 0;
}

/* Behind the schema id protobuf has a list that says which message of the schema it is: a count and so many
 * numbers, as zigzag varints; a count of 0 stands for "the first". JSON has none: a brace would be a negative
 * count. */
static int open_frame(struct m2se_payload *payload, struct m2se_refusal *refusal) {
  const size_t header_size = 5; // the magic 0 and a 4-byte schema id
  if (payload->size <= header_size)
    return m2se_refuse(refusal, M2SE_RULE_FORMAT, "a Confluent frame of only %zu bytes", payload->size);
  payload->data += header_size;
  payload->size -= header_size;
  if (starts_as_json(payload))
    return 0;
  uint8_t count = payload->data[0];
  bool good = count < 0x80 && count % 2 == 0; // zigzag: even numbers are not negative
  size_t list_size = 1;
  for (int i = 0; good && i < count / 2; i++) {
    size_t step = varint_size(payload->data + list_size, payload->size - list_size);
    list_size += step;
    good = step > 0;
  }
  if (!good)
    return m2se_refuse(refusal, M2SE_RULE_FORMAT, "a Confluent frame with a broken message index");
  payload->data += list_size;
  payload->size -= list_size;
  return 0;
}

/* Room for the longest lists of an item and for whatever else a producer puts beside them. */
static const struct m2se_json_limits json_limits = {
    .bytes_max = M2SE_ITEM_BYTES_MAX, .depth_max = 32, .values_max = 65536};

int m2se_payload_open(struct m2se_payload *payload, const void *value, size_t size, size_t bytes_max,
                      struct m2se_refusal *refusal) {
  if (size == 0)
    return m2se_refuse(refusal, M2SE_RULE_SIZE, "an empty value");
  if (size > bytes_max)
    return m2se_refuse(refusal, M2SE_RULE_SIZE, "%zu bytes, at most %zu are allowed", size, bytes_max);
  *payload = (struct m2se_payload){.data = value, .size = size};
  bool framed = payload->data[0] == 0;
  int code = framed ? open_frame(payload, refusal) : 0;
  if (code || !starts_as_json(payload))
    return code;
  struct m2se_error error;
  code = m2se_json_parse(&payload->json, (const char *)payload->data, payload->size, &json_limits, &error);
  if (!code || (payload->data[0] == '\n' && !framed)) // a line feed: protobuf after all
    return 0;
  bool memory = code == M2SE_ENOMEM || code == M2SE_ELIMIT;
  return m2se_refuse(refusal, memory ? M2SE_RULE_MEMORY : M2SE_RULE_FORMAT, "%s", error.text);
}

/* ---- interactions ---- */

static int interaction_from_protobuf(struct m2se_interaction *interaction, struct m2se_arena *arena,
                                     const struct m2se_payload *payload, struct m2se_refusal *refusal) {
  ProtobufCMessage *unpacked;
  int code = m2se_wire_unpack(&unpacked, &m2se__v1__interaction__descriptor, arena, payload->data,
                              payload->size, refusal);
  if (code)
    return code;
  const M2se__V1__Interaction *message = (const M2se__V1__Interaction *)unpacked;
  *interaction = (struct m2se_interaction){
      .user_id = m2se_string_view(message->user_id),
      .item_id = m2se_string_view(message->item_id),
      .event_id = m2se_string_view(message->event_id),
      .kind = m2se_string_view(message->kind),
      .event_time_ms = message->event_time_ms,
  };
  return 0;
}

static int interaction_validate(const struct m2se_interaction *interaction, struct m2se_refusal *refusal) {
  int code = m2se_validate_id(interaction->user_id.data, interaction->user_id.size, "user_id", refusal);
  if (!code)
    code = m2se_validate_id(interaction->item_id.data, interaction->item_id.size, "item_id", refusal);
  if (!code && interaction->event_id.size)
    code = m2se_validate_id(interaction->event_id.data, interaction->event_id.size, "event_id", refusal);
  if (!code && interaction->kind.size)
    code = m2se_validate_id(interaction->kind.data, interaction->kind.size, "kind", refusal);
  if (code)
    return code;
  if (interaction->event_time_ms == 0)
    return m2se_refuse(refusal, M2SE_RULE_TIME, "event_time_ms: missing, and the record has no timestamp");
  if (interaction->event_time_ms < 0 || interaction->event_time_ms > M2SE_EVENT_TIME_MS_MAX)
    return m2se_refuse(refusal, M2SE_RULE_TIME, "event_time_ms: %" PRId64 " is out of range",
                       interaction->event_time_ms);
  return 0;
}

int m2se_interaction_decode(struct m2se_interaction *interaction, struct m2se_arena *arena, const void *value,
                            size_t size, int64_t record_time_ms, struct m2se_refusal *refusal) {
  arena->used = 0;
  struct m2se_payload payload;
  int code = m2se_payload_open(&payload, value, size, M2SE_INTERACTION_BYTES_MAX, refusal);
  if (code)
    return code;
  code = payload.json ? m2se_interaction_from_json(interaction, arena, payload.json, refusal)
                      : interaction_from_protobuf(interaction, arena, &payload, refusal);
  m2se_json_free(payload.json);
  if (code)
    return code;
  if (interaction->event_time_ms == 0 && record_time_ms > 0)
    interaction->event_time_ms = record_time_ms;
  return interaction_validate(interaction, refusal);
}

size_t m2se_interaction_encode(const struct m2se_interaction *interaction, void *out, size_t capacity) {
  M2se__V1__Interaction message = M2SE__V1__INTERACTION__INIT;
  message.user_id = m2se_string_packed(interaction->user_id);
  message.item_id = m2se_string_packed(interaction->item_id);
  message.event_id = m2se_string_packed(interaction->event_id);
  message.kind = m2se_string_packed(interaction->kind);
  message.event_time_ms = interaction->event_time_ms;
  size_t size = m2se__v1__interaction__get_packed_size(&message);
  if (size <= capacity)
    m2se__v1__interaction__pack(&message, out);
  return size;
}
