#include "ingest/sequence.h"

#include <assert.h>
#include <string.h>

enum { VERSION = 1, HEADER_BYTES = 8, SLOT_BYTES = 12, FLAG_HASH = 1 };

static uint64_t read_number(const uint8_t *bytes, int count) {
  uint64_t number = 0;
  for (int i = 0; i < count; i++)
    number = number << 8 | bytes[i];
  return number;
}

static int parse_header(struct m2se_sequence *sequence, const uint8_t *bytes, size_t size,
                        struct m2se_error *error) {
  if (bytes[0] != VERSION)
    return m2se_error_set(error, M2SE_EFORMAT, "sequence: version %u, this program knows %d", bytes[0],
                          VERSION);
  if (size < HEADER_BYTES)
    return m2se_error_set(error, M2SE_EFORMAT, "sequence: %zu bytes, less than a header", size);
  uint32_t slots = bytes[1], entries = (uint32_t)read_number(bytes + 2, 2);
  if (read_number(bytes + 4, 4) != size)
    return m2se_error_set(error, M2SE_EFORMAT, "sequence: %zu bytes, its header says %u", size,
                          (unsigned)read_number(bytes + 4, 4));
  if (size < HEADER_BYTES + (size_t)slots * SLOT_BYTES)
    return m2se_error_set(error, M2SE_EFORMAT, "sequence: %zu bytes are too few for %u partitions", size,
                          slots);
  if (entries > M2SE_SEQUENCE_ENTRIES_MAX)
    return m2se_error_set(error, M2SE_EFORMAT, "sequence: %u entries, more than %d", entries,
                          M2SE_SEQUENCE_ENTRIES_MAX);
  for (uint32_t i = 0; i < slots; i++) {
    const uint8_t *slot = bytes + HEADER_BYTES + i * SLOT_BYTES;
    uint64_t partition = read_number(slot, 4);
    if (partition > INT32_MAX)
      return m2se_error_set(error, M2SE_EFORMAT, "sequence: partition %u has the number %llu", i,
                            (unsigned long long)partition);
    for (uint32_t j = 0; j < i; j++)
      if (sequence->partitions[j].partition == (int32_t)partition)
        return m2se_error_set(error, M2SE_EFORMAT, "sequence: partition %u stands twice in the header",
                              (unsigned)partition);
    sequence->partitions[i].partition = (int32_t)partition;
    sequence->partitions[i].next_position = read_number(slot + 4, 8);
  }
  sequence->partition_count = slots;
  sequence->entry_count = entries;
  return 0;
}

int m2se_sequence_parse(struct m2se_sequence *sequence, const void *blob, size_t size,
                        struct m2se_error *error) {
  sequence->partition_count = sequence->entry_count = 0;
  if (size == 0)
    return 0;
  const uint8_t *bytes = blob;
  int code = parse_header(sequence, bytes, size, error);
  if (code)
    return code;
  uint64_t lowest[M2SE_SEQUENCE_PARTITIONS_MAX] = {0}; /* that the next entry of a partition may have */
  size_t at = HEADER_BYTES + (size_t)sequence->partition_count * SLOT_BYTES;
  for (uint32_t i = 0; i < sequence->entry_count; i++) {
    struct m2se_sequence_entry *entry = &sequence->entries[i];
    const char *broken = NULL;
    size_t id_at = at + 17; /* as if there were no hash */
    if (size < id_at || bytes[at] > FLAG_HASH || (bytes[at] == FLAG_HASH && size < (id_at += 8)))
      broken = size < id_at ? "the entry is cut" : "unknown flags";
    else if (bytes[at + 1] >= sequence->partition_count)
      broken = "the index of its partition is not in the header";
    else if (bytes[id_at - 1] < 1 || bytes[id_at - 1] > M2SE_ID_BYTES_MAX)
      broken = "an id has 1 to 128 bytes";
    else if (size - id_at < bytes[id_at - 1])
      broken = "the id is cut";
    if (!broken) {
      uint8_t slot = bytes[at + 1];
      entry->partition = sequence->partitions[slot].partition;
      entry->position = read_number(bytes + at + 2, 8);
      if (entry->position < lowest[slot] || entry->position >= sequence->partitions[slot].next_position)
        broken = "its position must lie between the one before it and the next of its partition";
      lowest[slot] = entry->position + 1; /* no overflow: it is below another position */
    }
    if (broken) {
      sequence->entry_count = sequence->partition_count = 0;
      return m2se_error_set(error, M2SE_EFORMAT, "sequence: entry %u at byte %zu: %s", i, at, broken);
    }
    entry->event_time_ms = (int64_t)read_number(bytes + at + 10, 6);
    entry->has_event_hash = bytes[at] == FLAG_HASH;
    entry->event_hash = entry->has_event_hash ? read_number(bytes + at + 16, 8) : 0;
    entry->item_id = (const char *)bytes + id_at;
    entry->item_id_size = bytes[id_at - 1];
    at = id_at + entry->item_id_size;
  }
  if (at != size) {
    sequence->entry_count = sequence->partition_count = 0;
    return m2se_error_set(error, M2SE_EFORMAT, "sequence: %zu bytes behind the last entry", size - at);
  }
  return 0;
}

/* Entries before the place of the event. */
static uint32_t place_of(const struct m2se_sequence *sequence, int32_t partition, uint64_t position) {
  uint32_t i = 0;
  while (i < sequence->entry_count &&
         (sequence->entries[i].partition != partition || sequence->entries[i].position < position))
    i++;
  return i;
}

static struct m2se_sequence_span newest_before(uint32_t end, uint32_t length) {
  uint32_t count = end < length ? end : length;
  return (struct m2se_sequence_span){end - count, count};
}

struct m2se_sequence_span m2se_sequence_context(const struct m2se_sequence *sequence, int32_t partition,
                                                uint64_t position, uint32_t length) {
  return newest_before(place_of(sequence, partition, position), length);
}

struct m2se_sequence_span m2se_sequence_latest(const struct m2se_sequence *sequence, uint32_t length) {
  return newest_before(sequence->entry_count, length);
}

uint32_t m2se_sequence_find(const struct m2se_sequence *sequence, int32_t partition, uint64_t position) {
  uint32_t i = place_of(sequence, partition, position);
  return i < sequence->entry_count && sequence->entries[i].position == position ? i : sequence->entry_count;
}
