#include "daemon/positions.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/json.h"

enum { PARTITIONS_MAX = 16384, EPOCH_MAX = UINT16_MAX };

struct m2sed_positions {
  char cluster_id[256]; /* "": none seen yet */
  uint32_t epoch;
  struct m2sed_partition *partitions;
  uint32_t count, capacity;
  struct m2sed_erasures erasures;
};

struct m2sed_positions *m2sed_positions_new(void) {
  return calloc(1, sizeof(struct m2sed_positions));
}

void m2sed_positions_free(struct m2sed_positions *positions) {
  if (!positions)
    return;
  free(positions->partitions);
  free(positions);
}

uint64_t m2sed_position_make(uint32_t epoch, int64_t offset) {
  assert(offset >= 0 && (uint64_t)offset <= M2SED_OFFSET_MASK && epoch <= EPOCH_MAX);
  return (uint64_t)epoch << M2SED_EPOCH_BITS | (uint64_t)offset;
}

struct m2sed_partition *m2sed_positions_find(struct m2sed_positions *positions, int32_t partition) {
  for (uint32_t i = 0; i < positions->count; i++)
    if (positions->partitions[i].partition == partition)
      return &positions->partitions[i];
  return NULL;
}

uint32_t m2sed_positions_count(const struct m2sed_positions *positions) {
  return positions->count;
}

struct m2sed_partition *m2sed_positions_at(struct m2sed_positions *positions, uint32_t index) {
  assert(index < positions->count);
  return &positions->partitions[index];
}

static struct m2sed_partition *find_or_add(struct m2sed_positions *positions, int32_t partition) {
  struct m2sed_partition *found = m2sed_positions_find(positions, partition);
  if (found)
    return found;
  if (positions->count == positions->capacity) {
    uint32_t capacity = positions->capacity ? 2 * positions->capacity : 16;
    struct m2sed_partition *partitions = realloc(positions->partitions, capacity * sizeof *partitions);
    if (!partitions)
      return NULL;
    positions->partitions = partitions;
    positions->capacity = capacity;
  }
  found = &positions->partitions[positions->count++];
  *found = (struct m2sed_partition){.partition = partition,
                                    .epoch = positions->epoch,
                                    .next_offset = -1,
                                    .rewind_offset = INT64_MAX,
                                    .until = INT64_MAX};
  return found;
}

static int set_stored(struct m2sed_positions *positions, int32_t number, uint32_t epoch, int64_t offset) {
  struct m2sed_partition *partition = find_or_add(positions, number);
  if (!partition)
    return M2SE_ENOMEM;
  partition->epoch = epoch;
  partition->next_offset = partition->trained_offset = partition->durable_offset = offset;
  return 0;
}

/* {"cluster_id": "...", "epoch": 3, "partitions": [{"partition": 0, "epoch": 3, "offset": "12"}, ...]} */
static int read_partition(struct m2sed_positions *positions, const struct m2se_json *value,
                          struct m2se_error *error) {
  int64_t number, offset;
  uint64_t epoch;
  int code = m2se_json_as_int64(m2se_json_get(value, "partition"), "partition", &number, error);
  if (!code)
    code = m2se_json_as_uint64(m2se_json_get(value, "epoch"), "epoch", &epoch, error);
  if (!code)
    code = m2se_json_as_int64(m2se_json_get(value, "offset"), "offset", &offset, error);
  if (code)
    return code;
  if (number < 0 || number >= PARTITIONS_MAX || epoch > positions->epoch || offset < 0 ||
      (uint64_t)offset > M2SED_OFFSET_MASK)
    return m2se_error_set(error, M2SE_EFORMAT, "a partition, epoch or offset outside its range");
  return set_stored(positions, (int32_t)number, (uint32_t)epoch, offset);
}

static int read_json(struct m2sed_positions *positions, const struct m2se_json *root,
                     struct m2se_error *error) {
  const char *cluster_id;
  size_t size, count;
  uint64_t epoch;
  int code = m2se_json_as_string(m2se_json_get(root, "cluster_id"), "cluster_id", &cluster_id, &size, error);
  if (!code)
    code = m2se_json_as_uint64(m2se_json_get(root, "epoch"), "epoch", &epoch, error);
  if (!code)
    code = m2se_json_as_array(m2se_json_get(root, "partitions"), "partitions", &count, error);
  if (code)
    return code;
  if (size >= sizeof positions->cluster_id || epoch > EPOCH_MAX)
    return m2se_error_set(error, M2SE_EFORMAT, "cluster_id is too long, or epoch too large");
  memcpy(positions->cluster_id, cluster_id, size + 1);
  positions->epoch = (uint32_t)epoch;
  for (size_t i = 0; i < count && !code; i++)
    code = read_partition(positions, m2se_json_at(m2se_json_get(root, "partitions"), i), error);
  return code ? code : m2sed_erasures_read(&positions->erasures, root, error);
}

int m2sed_positions_restore(struct m2sed_positions *positions, const struct m2sed_position *trained,
                            uint32_t count, const void *bytes, size_t size, struct m2se_error *error) {
  struct m2se_json *root = NULL;
  int code = size ? m2se_json_parse(&root, bytes, size, NULL, error) : 0;
  if (!code && root)
    code = read_json(positions, root, error);
  m2se_json_free(root);
  if (code)
    return m2se_error_prefix(error, code, "log positions of the checkpoint");
  /* The trainer's word counts, for it is what the weights have seen; unless a newer log has begun since. */
  for (uint32_t i = 0; i < count && !code; i++) {
    uint32_t epoch = (uint32_t)(trained[i].position >> M2SED_EPOCH_BITS);
    if (epoch > positions->epoch)
      positions->epoch = epoch;
    const struct m2sed_partition *known = m2sed_positions_find(positions, trained[i].partition);
    if (!known || known->epoch <= epoch)
      code = set_stored(positions, trained[i].partition, epoch,
                        (int64_t)(trained[i].position & M2SED_OFFSET_MASK));
  }
  return code ? m2se_error_set(error, code, "log positions: out of memory") : 0;
}

char *m2sed_positions_encode(const struct m2sed_positions *positions) {
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  m2se_json_put_object(writer, NULL);
  m2se_json_put_text(writer, "cluster_id", positions->cluster_id);
  m2se_json_put_int64(writer, "epoch", positions->epoch);
  m2se_json_put_array(writer, "partitions");
  for (uint32_t i = 0; i < positions->count; i++) {
    const struct m2sed_partition *partition = &positions->partitions[i];
    if (partition->next_offset < 0)
      continue;
    m2se_json_put_object(writer, NULL);
    m2se_json_put_int64(writer, "partition", partition->partition);
    m2se_json_put_int64(writer, "epoch", partition->epoch);
    /* Not next_offset: what has been taken may not be in this checkpoint. The trainer's positions say more.
     */
    m2se_json_put_decimal(writer, "offset", (uint64_t)partition->durable_offset);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2sed_erasures_write(&positions->erasures, writer);
  m2se_json_put_end(writer);
  return m2se_json_finish(writer, NULL);
}

void m2sed_positions_raise(struct m2sed_positions *positions) {
  bool first = !positions->cluster_id[0];
  for (uint32_t i = 0; i < positions->count; i++)
    first &= positions->partitions[i].next_offset < 0;
  if (first)
    return;
  assert(positions->epoch < EPOCH_MAX);
  positions->epoch++;
}

bool m2sed_positions_set_cluster(struct m2sed_positions *positions, const char *cluster_id) {
  size_t size = strlen(cluster_id);
  if (size >= sizeof positions->cluster_id)
    size = sizeof positions->cluster_id - 1;
  if (strlen(positions->cluster_id) == size && !memcmp(positions->cluster_id, cluster_id, size))
    return false;
  bool another = positions->cluster_id[0] != 0;
  if (another) {
    m2sed_positions_raise(positions);
    m2sed_erasures_new_log(&positions->erasures);
  }
  memcpy(positions->cluster_id, cluster_id, size);
  positions->cluster_id[size] = 0;
  return another;
}

struct m2sed_erasures *m2sed_positions_erasures(struct m2sed_positions *positions) {
  return &positions->erasures;
}

uint32_t m2sed_positions_epoch(const struct m2sed_positions *positions) {
  return positions->epoch;
}

int m2sed_positions_begin(struct m2sed_positions *positions, int32_t number, int64_t low, int64_t high,
                          int64_t by_policy, int64_t wanted, struct m2sed_start *start) {
  *start = (struct m2sed_start){.offset = by_policy};
  if (number < 0 || number >= PARTITIONS_MAX)
    return M2SE_ELIMIT;
  struct m2sed_partition *partition = find_or_add(positions, number);
  if (!partition)
    return M2SE_ENOMEM;
  bool known = partition->next_offset >= 0;
  int64_t stored = wanted >= 0 ? wanted : partition->next_offset;
  if (known && partition->epoch == positions->epoch && stored > high) {
    m2sed_positions_raise(positions);
    start->new_log = true;
  }
  if (known && partition->epoch == positions->epoch) {
    int64_t taken = stored > partition->rewound_until ? stored : partition->rewound_until;
    int64_t rewound = stored < partition->rewind_offset ? stored : partition->rewind_offset;
    start->offset = rewound < low ? low : rewound;
    start->lost = taken < low ? (uint64_t)(low - taken) : 0;
    start->again = taken > start->offset ? (uint64_t)(taken - start->offset) : 0;
    partition->rewound_until = taken;
  } else if (known) {
    start->offset = low; /* a log of which nothing has been read */
  }
  if (!known || partition->epoch != positions->epoch || start->lost)
    partition->durable_offset = partition->replay_offset = start->offset;
  /* Else events that were taken before it went away may still be under way: they tell how far it is. */
  if (!known || partition->epoch != positions->epoch || start->offset != partition->next_offset)
    partition->trained_offset = start->offset;
  if (partition->epoch != positions->epoch)
    partition->rewound_until = 0;
  partition->rewind_offset = INT64_MAX;
  partition->epoch = positions->epoch;
  partition->next_offset = start->offset;
  partition->started = true;
  partition->ended = false;
  return 0;
}

int m2sed_positions_set_until(struct m2sed_positions *positions, int32_t number, int64_t until) {
  if (number < 0 || number >= PARTITIONS_MAX)
    return M2SE_ELIMIT;
  struct m2sed_partition *partition = find_or_add(positions, number);
  if (!partition)
    return M2SE_ENOMEM;
  partition->until = until;
  return 0;
}

void m2sed_positions_set_durable(struct m2sed_positions *positions, const struct m2sed_position *trained,
                                 uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    struct m2sed_partition *partition = m2sed_positions_find(positions, trained[i].partition);
    if (partition && partition->epoch == trained[i].position >> M2SED_EPOCH_BITS)
      partition->durable_offset = (int64_t)(trained[i].position & M2SED_OFFSET_MASK);
  }
}

void m2sed_positions_set_oldest(struct m2sed_positions *positions, const struct m2sed_position *oldest,
                                uint32_t count) {
  for (uint32_t i = 0; i < positions->count; i++)
    positions->partitions[i].replay_offset = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct m2sed_partition *partition = m2sed_positions_find(positions, oldest[i].partition);
    if (partition && partition->epoch == oldest[i].position >> M2SED_EPOCH_BITS)
      partition->replay_offset = (int64_t)(oldest[i].position & M2SED_OFFSET_MASK);
  }
}
