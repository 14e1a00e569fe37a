/* Records in and out: the one door to protobuf-c and to the generated classes of proto/.
 *
 * DESIGN. A value is protobuf, JSON or a Confluent frame around one of them. Out comes a plain struct of
 * views, all of it valid by the rules of validate.h: whoever holds a decoded struct need not check anything
 * again. Memory comes from an arena that the caller gives and reuses for the next record; when a record asks
 * for more than the arena has, it is refused (rule memory), so that no record can cost more than was set
 * aside (a JSON text costs some 10 MB of its own at most, while it is read). No state, any thread; an arena
 * belongs to one thread at a time.
 *
 * Which format. First byte 0: a Confluent frame, five bytes that are passed over, and before protobuf the
 * list of message indexes (whatever it says: a topic has one kind of record). First byte that is no blank a
 * brace: JSON; no protobuf of ours starts so, but for one case: a line feed is also the tag of field 1, an
 * id. Such a value is JSON if all of it reads as JSON, else protobuf. Anything else is protobuf.
 *
 * JSON is proto3's JSON form. Names in snake_case or camelCase, not both; 64-bit numbers as numbers or
 * strings; bytes in base64, standard or URL-safe, padded or not. Unknown names are passed over, but what they
 * hold must be JSON that model/files/json.h accepts: no name twice, integers within int64. null counts as
 * absent, except in a list. Unknown fields of protobuf are passed over too; a known field of another type is
 * refused in both.
 */
#ifndef M2SE_CODEC_H
#define M2SE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingest/validate.h"
#include "model/error.h"

/* Enough for every sane record of the largest size. */
enum { M2SE_INTERACTION_ARENA_BYTES = 256 << 10, M2SE_ITEM_ARENA_BYTES = 32 << 20 };

struct m2se_arena {
  uint8_t *data; /* untouched pages cost nothing */
  size_t size, used;
};
int m2se_arena_new(struct m2se_arena *arena, size_t size); /* 0 or M2SE_ENOMEM */
void m2se_arena_free(struct m2se_arena *arena);
/* NULL when it is full. Aligned to 16 bytes. */
void *m2se_arena_take(struct m2se_arena *arena, size_t size);

/* Bytes that belong to an arena (decoded) or to the caller (to be encoded). Decoded strings have a NUL behind
 * their last byte, not counted, and none inside. data is never NULL in what was decoded. */
struct m2se_bytes {
  const char *data;
  size_t size;
};

struct m2se_interaction {
  struct m2se_bytes user_id, item_id;
  struct m2se_bytes event_id; /* size 0: none; at most M2SE_ID_BYTES_MAX, by the rule of ids */
  struct m2se_bytes kind;     /* size 0: none; likewise */
  int64_t event_time_ms;
};

struct m2se_feature_rows {
  uint32_t dim, count;
  const float *data; /* [count, dim], finite; 16-byte aligned when decoded; count 0: none, dim 0 */
};

struct m2se_image_source {
  struct m2se_bytes data; /* size 0: path is given */
  struct m2se_bytes path; /* relative to the configured root, no ".." */
};

struct m2se_item {
  struct m2se_bytes item_id;
  uint32_t text_count, image_count;
  const struct m2se_bytes *texts;
  const struct m2se_image_source *images;
  struct m2se_feature_rows text_rows, image_rows;
  struct m2se_bytes title, picture; /* size 0: none */
};

/* Decodes and validates value[0..size) of the interactions or items topic (size 0 is refused; value may be
 * NULL then). Empties the arena first; the struct is good until the arena's next use; nothing points into
 * value. 0, or M2SE_EFORMAT with the refusal filled (refusal may be NULL) and the struct undefined.
 * record_time_ms: Kafka's timestamp of the record, below 1: none. It stands in for an event_time_ms that is
 * missing or 0, which proto3 cannot tell apart; it is in the log, so a replay finds the same. An item with
 * neither rows, texts nor images is valid: known, not featurised. dim: the width that rows must have; 0: any,
 * but both modalities the same. */
int m2se_interaction_decode(struct m2se_interaction *interaction, struct m2se_arena *arena, const void *value,
                            size_t size, int64_t record_time_ms, struct m2se_refusal *refusal);
int m2se_item_decode(struct m2se_item *item, struct m2se_arena *arena, const void *value, size_t size,
                     uint32_t dim, struct m2se_refusal *refusal);

/* Protobuf. Returns the bytes needed; writes them only if they are no more than capacity (out may be NULL
 * then). Nothing is validated: tests and tools can write broken records too. Strings must be NUL-terminated
 * at [size]. */
size_t m2se_interaction_encode(const struct m2se_interaction *interaction, void *out, size_t capacity);
/* Takes memory for the lists of texts and images; M2SE_ENOMEM returns as 0, which no item needs. */
size_t m2se_item_encode(const struct m2se_item *item, void *out, size_t capacity);

#endif
