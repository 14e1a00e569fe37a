#include "tests/sim/sim_sequence.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/sequence.h"
#include "tests/sim/sim.h"
#include "tests/sim/sim_store.h"

enum { NEW, REPLAY, DUPLICATE };

static uint64_t number(struct sim_word word, size_t from, size_t size) {
  uint64_t value = 0;
  assert(from + size <= word.size);
  for (size_t i = from; i < from + size; i++)
    value = value << 8 | (uint8_t)word.bytes[i];
  return value;
}

static struct m2se_sequence sequence; /* being changed; its ids lie in `old` */
static uint8_t old[SIM_SEQUENCE_BYTES];

static uint32_t partition_at(int32_t partition) {
  uint32_t i = 0;
  while (i < sequence.partition_count && sequence.partitions[i].partition != partition)
    i++;
  return i;
}

static uint64_t next_of(int32_t partition) {
  uint32_t i = partition_at(partition);
  return i < sequence.partition_count ? sequence.partitions[i].next_position : 0;
}

/* Among the newest `keep` of the first `count` entries? */
static bool has_hash(uint64_t hash, uint32_t count, uint32_t keep) {
  for (uint32_t i = count > keep ? count - keep : 0; i < count; i++)
    if (sequence.entries[i].has_event_hash && sequence.entries[i].event_hash == hash)
      return true;
  return false;
}

/* Oldest entries that no replay and no reader needs. */
static void drop_old(const struct m2se_sequence_entry *event, uint64_t next, uint64_t durable,
                     uint32_t keep) {
  if (sequence.entry_count < keep || sequence.entry_count % 8 != 0)
    return;
  uint32_t before = sequence.entry_count;
  if (next > 0 && durable < next) {
    before = 0;
    while (before < sequence.entry_count && !(sequence.entries[before].partition == event->partition &&
                                              sequence.entries[before].position >= durable))
      before++;
  }
  if (before == sequence.entry_count && event->position < durable)
    before++;
  uint32_t drop = before > keep ? before - keep : 0;
  sequence.entry_count -= drop;
  memmove(sequence.entries, sequence.entries + drop, sequence.entry_count * sizeof sequence.entries[0]);
}

static uint8_t *put(uint8_t *to, uint64_t value, int size) {
  for (int i = size - 1; i >= 0; i--, value >>= 8)
    to[i] = (uint8_t)value;
  return to + size;
}

static uint32_t write_blob(uint8_t *blob, uint32_t capacity) {
  uint8_t *to = put(put(put(blob, 1, 1), sequence.partition_count, 1), sequence.entry_count, 2) + 4;
  for (uint32_t i = 0; i < sequence.partition_count; i++)
    to = put(put(to, (uint32_t)sequence.partitions[i].partition, 4), sequence.partitions[i].next_position, 8);
  for (uint32_t i = 0; i < sequence.entry_count; i++) {
    const struct m2se_sequence_entry *e = &sequence.entries[i];
    assert((uint32_t)(to - blob) + 32 + e->item_id_size < capacity);
    to = put(put(to, e->has_event_hash, 1), partition_at(e->partition), 1);
    to = put(put(to, e->position, 8), (uint64_t)e->event_time_ms, 6);
    if (e->has_event_hash)
      to = put(to, e->event_hash, 8);
    to = put(to, e->item_id_size, 1);
    memcpy(to, e->item_id, e->item_id_size);
    to += e->item_id_size;
  }
  put(blob + 4, (uint64_t)(to - blob), 4);
  return (uint32_t)(to - blob);
}

static int replay(const struct m2se_sequence_entry *event, uint32_t keep) {
  uint32_t place = 0;
  while (place < sequence.entry_count && !(sequence.entries[place].partition == event->partition &&
                                           sequence.entries[place].position >= event->position))
    place++;
  bool present = place < sequence.entry_count && sequence.entries[place].position == event->position;
  return event->has_event_hash && !present && has_hash(event->event_hash, place, keep) ? DUPLICATE : REPLAY;
}

int sim_sequence_apply(uint8_t *blob, uint32_t *size, uint32_t capacity, const struct sim_words *words,
                       const char **error) {
  const struct sim_word *argv = words->words; /* argv[n] is ARGV[n] */
  memcpy(old, blob, *size);
  struct m2se_error why = {0};
  if (m2se_sequence_parse(&sequence, old, *size, &why))
    sim_fail("the stored sequence: %s", why.text);
  const struct m2se_sequence_entry event = {.item_id = argv[6].bytes,
                                            .item_id_size = (uint32_t)argv[6].size,
                                            .partition = (int32_t)number(argv[2], 0, 4),
                                            .position = number(argv[3], 0, 8),
                                            .event_time_ms = (int64_t)number(argv[5], 0, 6),
                                            .has_event_hash = argv[7].size > 0,
                                            .event_hash = argv[7].size ? number(argv[7], 0, 8) : 0};
  uint32_t keep = (uint32_t)strtoul(argv[8].bytes, NULL, 10);
  if (argv[1].bytes[0] == '0' && argv[11].size &&
      number(argv[11], 4, 8) >= next_of((int32_t)number(argv[11], 0, 4))) {
    *error = "TRYAGAIN the event before this one has not been applied";
    return 0;
  }
  uint64_t next = next_of(event.partition);
  if (event.position < next)
    return replay(&event, keep);
  bool duplicate = event.has_event_hash && has_hash(event.event_hash, sequence.entry_count, keep);
  uint32_t at = partition_at(event.partition);
  if (at == sequence.partition_count)
    sequence.partition_count++;
  sequence.partitions[at].partition = event.partition;
  sequence.partitions[at].next_position = event.position + 1;
  if (!duplicate) {
    drop_old(&event, next, number(argv[10], 0, 8), keep);
    assert(sequence.entry_count < M2SE_SEQUENCE_ENTRIES_MAX);
    sequence.entries[sequence.entry_count++] = event;
  }
  *size = write_blob(blob, capacity);
  return duplicate ? DUPLICATE : NEW;
}
