/* What the files of the decoder share; nobody else includes this. */
#ifndef M2SE_CODEC_PARTS_H
#define M2SE_CODEC_PARTS_H

#include "ingest/codec.h"

struct ProtobufCMessage;
struct ProtobufCMessageDescriptor;

/* A record without its frame. Both may be possible: a blank line feed is also the tag of protobuf's field 1.
 */
struct m2se_payload {
  const uint8_t *data;
  size_t size;
  bool may_be_protobuf, may_be_json;
};
int m2se_payload_open(struct m2se_payload *payload, const void *value, size_t size, size_t bytes_max,
                      struct m2se_refusal *refusal);

/* Unpacks into the arena, after having checked what protobuf-c does not: strings are UTF-8 without NUL.
 * `what` names the message. */
int m2se_wire_unpack(struct ProtobufCMessage **message, const struct ProtobufCMessageDescriptor *descriptor,
                     struct m2se_arena *arena, const uint8_t *data, size_t size,
                     struct m2se_refusal *refusal);

/* Fill the structs from JSON, in the arena; the rules that both forms share are applied by the caller. */
int m2se_interaction_from_json(struct m2se_interaction *interaction, struct m2se_arena *arena,
                               const struct m2se_payload *payload, struct m2se_refusal *refusal);
/* As the item came: rows still as bytes. */
struct m2se_raw_rows {
  uint32_t dim;
  struct m2se_bytes data;
};
int m2se_item_from_json(struct m2se_item *item, struct m2se_raw_rows *text_rows,
                        struct m2se_raw_rows *image_rows, struct m2se_arena *arena,
                        const struct m2se_payload *payload, struct m2se_refusal *refusal);

static inline int m2se_refuse_memory(const struct m2se_arena *arena, struct m2se_refusal *refusal) {
  return m2se_refuse(refusal, M2SE_RULE_MEMORY, "decoding takes more than %zu bytes", arena->size);
}

#endif
