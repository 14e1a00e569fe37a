/* What the files of the decoder share; nobody else includes this. */
#ifndef M2SE_CODEC_PARTS_H
#define M2SE_CODEC_PARTS_H

#include <string.h>

#include "ingest/codec.h"

struct m2se_json;
struct ProtobufCMessage;
struct ProtobufCMessageDescriptor;

/* A record without its frame. */
struct m2se_payload {
  const uint8_t *data;
  size_t size;
  struct m2se_json *json; /* not NULL: the payload is JSON, this is its tree, for m2se_json_free */
};
/* 0 or M2SE_EFORMAT. */
int m2se_payload_open(struct m2se_payload *payload, const void *value, size_t size, size_t bytes_max,
                      struct m2se_refusal *refusal);

/* Unpacks into the arena, after having checked what protobuf-c does not: strings are UTF-8 without NUL.
 * `what` names the message. */
int m2se_wire_unpack(struct ProtobufCMessage **message, const struct ProtobufCMessageDescriptor *descriptor,
                     struct m2se_arena *arena, const uint8_t *data, size_t size,
                     struct m2se_refusal *refusal);

/* Fill the structs from JSON, in the arena; the rules that both forms share are applied by the caller. */
int m2se_interaction_from_json(struct m2se_interaction *interaction, struct m2se_arena *arena,
                               const struct m2se_json *json, struct m2se_refusal *refusal);
/* As the item came: rows still as bytes. */
struct m2se_raw_rows {
  uint32_t dim;
  struct m2se_bytes data;
};
int m2se_item_from_json(struct m2se_item *item, struct m2se_raw_rows *text_rows,
                        struct m2se_raw_rows *image_rows, struct m2se_arena *arena,
                        const struct m2se_json *json, struct m2se_refusal *refusal);

static inline int m2se_refuse_memory(const struct m2se_arena *arena, struct m2se_refusal *refusal) {
  return m2se_refuse(refusal, M2SE_RULE_MEMORY, "decoding takes more than %zu bytes", arena->size);
}

/* protobuf-c's strings are never NULL, and char * even where it only reads. */
static inline struct m2se_bytes m2se_string_view(const char *string) {
  return (struct m2se_bytes){string, strlen(string)};
}
static inline char *m2se_string_packed(struct m2se_bytes bytes) {
  return bytes.size ? (char *)(uintptr_t)bytes.data : (char *)(uintptr_t) "";
}

#endif
