/* protobuf-c behind a check of the wire.
 *
 * protobuf-c copies a string and forgets its length, so a NUL inside would cut it unseen, and it doesn't look
 * at UTF-8. Both are checked here on the bytes themselves, before it allocates anything. The walk follows the
 * descriptors and goes no deeper than they do: our messages nest two levels.
 */
#include <assert.h>
#include <protobuf-c/protobuf-c.h>
#include <string.h>

#include "ingest/codec_parts.h"

enum { NESTING_MAX = 4 };

struct reader {
  const uint8_t *at, *end;
};

static bool read_varint(struct reader *reader, uint64_t *number) {
  *number = 0;
  for (unsigned shift = 0; shift < 70 && reader->at < reader->end; shift += 7) {
    uint8_t byte = *reader->at++;
    *number |= (uint64_t)(byte & 0x7F) << shift;
    if (byte < 0x80)
      return true;
  }
  return false;
}

static bool skip(struct reader *reader, uint64_t bytes) {
  if (bytes > (uint64_t)(reader->end - reader->at))
    return false;
  reader->at += bytes;
  return true;
}

static int check_message(const ProtobufCMessageDescriptor *descriptor, struct reader reader, unsigned depth,
                         struct m2se_refusal *refusal);

/* A length-delimited field of the descriptor. */
static int check_bytes(const ProtobufCFieldDescriptor *field, const uint8_t *data, size_t size,
                       unsigned depth, struct m2se_refusal *refusal) {
  if (field->type == PROTOBUF_C_TYPE_STRING)
    return m2se_validate_text((const char *)data, size, field->name, refusal);
  if (field->type == PROTOBUF_C_TYPE_MESSAGE)
    return check_message(field->descriptor, (struct reader){data, data + size}, depth + 1, refusal);
  return 0;
}

static int check_message(const ProtobufCMessageDescriptor *descriptor, struct reader reader, unsigned depth,
                         struct m2se_refusal *refusal) {
  assert(depth < NESTING_MAX);
  const uint8_t *begin = reader.at;
  while (reader.at < reader.end) {
    size_t position = (size_t)(reader.at - begin);
    uint64_t tag, number;
    bool good = read_varint(&reader, &tag) && tag <= UINT32_MAX && tag >> 3 != 0;
    switch (good ? tag & 7 : 7) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
      good = read_varint(&reader, &number);
      break;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
      good = skip(&reader, 8);
      break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
      good = skip(&reader, 4);
      break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED: {
      good = read_varint(&reader, &number);
      const uint8_t *data = reader.at;
      good = good && skip(&reader, number);
      const ProtobufCFieldDescriptor *field =
          good ? protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3)) : NULL;
      int code = field ? check_bytes(field, data, (size_t)number, depth, refusal) : 0;
      if (code)
        return code;
      break;
    }
    default:
      good = false;
    }
    if (!good)
      return m2se_refuse(refusal, M2SE_RULE_FORMAT, "not a protobuf %s: broken at byte %zu",
                         descriptor->short_name, position);
  }
  return 0;
}

struct allocation {
  struct m2se_arena *arena;
  bool refused;
};

static void *allocate(void *context, size_t size) {
  struct allocation *allocation = context;
  void *memory = m2se_arena_take(allocation->arena, size);
  allocation->refused |= memory == NULL;
  return memory;
}

/* The arena is emptied as a whole. */
static void release(void *context, void *memory) {
  (void)context;
  (void)memory;
}

int m2se_wire_unpack(struct ProtobufCMessage **message, const struct ProtobufCMessageDescriptor *descriptor,
                     struct m2se_arena *arena, const uint8_t *data, size_t size,
                     struct m2se_refusal *refusal) {
  int code = check_message(descriptor, (struct reader){data, data + size}, 0, refusal);
  if (code)
    return code;
  struct allocation allocation = {arena, false};
  ProtobufCAllocator allocator = {allocate, release, &allocation};
  *message = protobuf_c_message_unpack(descriptor, &allocator, size, data);
  if (*message)
    return 0;
  if (allocation.refused)
    return m2se_refuse_memory(arena, refusal);
  return m2se_refuse(refusal, M2SE_RULE_FORMAT, "not a protobuf %s: a field of another type",
                     descriptor->short_name);
}
