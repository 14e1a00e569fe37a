/* The rolling sequence of a user: one string in Redis, changed by one Lua call an event, read and checked
 * here.
 *
 * The blob (version 1; numbers big-endian):
 *   version u8 = 1 | partitions u8 | entries u16 | bytes of the whole blob u32
 *   per partition:               partition u32 | next position u64
 *   per entry, oldest first:     flags u8 (bit 0: event hash) | index of its partition u8 | position u64 |
 *                                event time in ms u48 | [event hash u64] | id length u8 | id
 * A position is log epoch << 48 | offset. "Next" is one more than the highest position applied for the
 * partition: an event below it is a replay. Within a partition, entries have rising positions. When a 256th
 * partition comes, the first one without entries gives way to it (its replays would then be taken for new),
 * and if all have entries, the oldest entries go until one has none. (Users change partitions only when a
 * topic is repartitioned.)
 *
 * The window of an event is the `keep` newest entries before it. It is all that its outcome depends on: it is
 * a duplicate if its event hash stands in the window, and its context is the newest of the window. What the
 * last checkpoint does not cover may be replayed, so entries stay, beyond `keep`, as long as they are in the
 * window of an event of this partition at or after `durable_position`: a replay after a crash sees the same
 * window byte for byte. (A few more may stay, as they are removed in groups.) The limit is
 * M2SE_SEQUENCE_ENTRIES_MAX; beyond it the oldest go, whatever needs them. So a reader shows the `keep`
 * newest only (m2se_sequence_latest).
 */
#ifndef M2SE_SEQUENCE_H
#define M2SE_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingest/keys.h"
#include "model/error.h"

enum { M2SE_SEQUENCE_ENTRIES_MAX = 1024, M2SE_SEQUENCE_PARTITIONS_MAX = 255, M2SE_SEQUENCE_KEEP_MAX = 512 };

struct m2se_sequence_entry {
  const char *item_id; /* not NUL-terminated; a view into the blob */
  uint32_t item_id_size;
  int32_t partition;
  uint64_t position;
  int64_t event_time_ms;
  bool has_event_hash;
  uint64_t event_hash;
};
struct m2se_sequence { /* about 60 KB: not for the stack of a deep call */
  uint32_t partition_count, entry_count;
  struct {
    int32_t partition;
    uint64_t next_position;
  } partitions[M2SE_SEQUENCE_PARTITIONS_MAX];
  struct m2se_sequence_entry entries[M2SE_SEQUENCE_ENTRIES_MAX]; /* oldest first */
};

/* Reads a blob, checking every rule above; no bytes (a key that is not there) are an empty sequence. The
 * views point into blob. M2SE_EFORMAT: the rule broken and the byte where. Pure; any thread. */
int m2se_sequence_parse(struct m2se_sequence *sequence, const void *blob, size_t size,
                        struct m2se_error *error);

struct m2se_sequence_span { /* entries first .. first + count - 1 */
  uint32_t first, count;
};
/* The context of the event at (partition, position): the newest `length` entries strictly before it. The
 * event is in the list (new, or replayed), or was left out as a duplicate: then, those before its place. */
struct m2se_sequence_span m2se_sequence_context(const struct m2se_sequence *sequence, int32_t partition,
                                                uint64_t position, uint32_t length);
/* The newest `length` entries. */
struct m2se_sequence_span m2se_sequence_latest(const struct m2se_sequence *sequence, uint32_t length);
/* Index of the event's entry, or entry_count. A replayed event that is neither there nor a duplicate has been
 * dropped at M2SE_SEQUENCE_ENTRIES_MAX: its context is lost. */
uint32_t m2se_sequence_find(const struct m2se_sequence *sequence, int32_t partition, uint64_t position);

/* ---- applying events (thread of the loop) ---- */
struct m2se_redis;
struct m2se_sequencer;

struct m2se_sequencer_settings {
  const char *prefix;   /* of the keys; copied */
  uint32_t keep;        /* 1..M2SE_SEQUENCE_KEEP_MAX; more than the longest context */
  uint32_t ttl_seconds; /* sliding, from the newest event applied; 0: none */
};

struct m2se_sequence_event {
  const char *user_id; /* 1..128 bytes each */
  uint32_t user_id_size;
  const char *item_id;
  uint32_t item_id_size;
  int32_t partition;
  uint64_t position;
  int64_t event_time_ms; /* 0 .. 2^48 - 1 */
  bool has_event_hash;   /* event_id was given */
  uint64_t event_hash;
  uint64_t durable_position; /* first position of this partition that is not in a durable checkpoint: replays
                                start there. UINT64_MAX: none will be replayed */
};

enum m2se_sequence_outcome { M2SE_SEQUENCE_NEW, M2SE_SEQUENCE_REPLAY, M2SE_SEQUENCE_DUPLICATE };

/* Lives only inside the callback. */
struct m2se_sequence_result {
  int status; /* 0; M2SE_EFORMAT: the stored sequence is damaged or of another version (the key is untouched),
                 or Redis refused for good: error says what; M2SE_EIO: the door was closed first */
  enum m2se_sequence_outcome outcome;
  const struct m2se_sequence *sequence; /* after the event; NULL unless status is 0 */
  const char *error;
};
typedef void m2se_sequence_callback(void *context, const struct m2se_sequence_result *result);

/* Registers the script with the door; create it before the loop runs. M2SE_EINVAL, M2SE_ENOMEM. */
int m2se_sequencer_new(struct m2se_sequencer **sequencer, struct m2se_redis *redis,
                       const struct m2se_sequencer_settings *settings, struct m2se_error *error);
/* After the door has been closed (callbacks may still be under way before). NULL is allowed. */
void m2se_sequencer_free(struct m2se_sequencer *sequencer);

/* One event, one Lua call, one key; copies what it is given. Results come in the order of the calls, and
 * events of one user take effect in that order whatever is refused or sent again. Returns 0, M2SE_ELIMIT (the
 * door is full: pause and call again), M2SE_ENOMEM, M2SE_EIO (closed). */
int m2se_sequencer_apply(struct m2se_sequencer *sequencer, const struct m2se_sequence_event *event,
                         m2se_sequence_callback *callback, void *context);

#endif
