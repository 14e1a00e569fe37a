#include "daemon/erasures.h"

#include <assert.h>
#include <string.h>

static struct m2sed_erasures_partition *find(struct m2sed_erasures *erasures, int32_t number) {
  for (uint32_t i = 0; i < erasures->partition_count; i++)
    if (erasures->partitions[i].partition == number)
      return &erasures->partitions[i];
  return NULL;
}

/* Numbers are below the capacity, so that there is a place for each. */
static struct m2sed_erasures_partition *find_or_add(struct m2sed_erasures *erasures, int32_t number) {
  assert(number >= 0 && number < M2SED_ERASURES_PARTITIONS_MAX);
  struct m2sed_erasures_partition *found = find(erasures, number);
  if (found)
    return found;
  found = &erasures->partitions[erasures->partition_count++];
  *found = (struct m2sed_erasures_partition){.partition = number, .next_offset = -1};
  return found;
}

int64_t m2sed_erasures_begin(struct m2sed_erasures *erasures, int32_t number, int64_t low, int64_t high,
                             uint64_t *lost) {
  struct m2sed_erasures_partition *partition = find_or_add(erasures, number);
  int64_t next = partition->next_offset;
  *lost = next >= 0 && next < low ? (uint64_t)(low - next) : 0;
  if (next < low || next > high)
    next = low;
  partition->next_offset = next;
  partition->started = true;
  partition->behind = next < high;
  return next;
}

void m2sed_erasures_end(struct m2sed_erasures *erasures, int32_t number) {
  struct m2sed_erasures_partition *partition = find(erasures, number);
  if (partition)
    partition->behind = false;
}

void m2sed_erasures_revoke(struct m2sed_erasures *erasures, int32_t number) {
  struct m2sed_erasures_partition *partition = find(erasures, number);
  if (partition)
    partition->started = partition->behind = false;
}

bool m2sed_erasures_behind(const struct m2sed_erasures *erasures) {
  for (uint32_t i = 0; i < erasures->partition_count; i++)
    if (erasures->partitions[i].behind)
      return true;
  return false;
}

void m2sed_erasures_new_log(struct m2sed_erasures *erasures) {
  for (uint32_t i = 0; i < erasures->partition_count; i++)
    erasures->partitions[i].next_offset = -1;
}

static void remember(struct m2sed_erasures *erasures, uint64_t user_hash, int64_t until_ms) {
  if (erasures->count == M2SED_ERASURES_KEPT) {
    erasures->first = (erasures->first + 1) % M2SED_ERASURES_KEPT;
    erasures->count--;
  }
  uint32_t place = (erasures->first + erasures->count++) % M2SED_ERASURES_KEPT;
  erasures->users[place] = user_hash;
  erasures->until_ms[place] = until_ms;
  if (until_ms > erasures->newest_ms)
    erasures->newest_ms = until_ms;
}

void m2sed_erasures_done(struct m2sed_erasures *erasures, int32_t number, int64_t offset, uint64_t user_hash,
                         int64_t until_ms) {
  remember(erasures, user_hash, until_ms);
  m2sed_erasures_pass(erasures, number, offset);
}

void m2sed_erasures_pass(struct m2sed_erasures *erasures, int32_t number, int64_t offset) {
  struct m2sed_erasures_partition *partition = find(erasures, number);
  assert(partition);
  partition->next_offset = offset + 1;
}

uint64_t m2sed_erasures_progress(const struct m2sed_erasures *erasures) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < erasures->partition_count; i++)
    if (erasures->partitions[i].next_offset > 0)
      sum += (uint64_t)erasures->partitions[i].next_offset;
  return sum;
}

bool m2sed_erasures_cover(const struct m2sed_erasures *erasures, uint64_t user_hash, int64_t timestamp_ms) {
  /* Nearly always younger than the newest request: then there is nothing to look for. */
  if (!erasures->count || timestamp_ms > erasures->newest_ms || timestamp_ms < 0)
    return false;
  for (uint32_t i = 0; i < erasures->count; i++) /* full or not, they lie from 0 on */
    if (erasures->users[i] == user_hash && timestamp_ms <= erasures->until_ms[i])
      return true;
  return false;
}

void m2sed_erasures_write(const struct m2sed_erasures *erasures, struct m2se_json_writer *writer) {
  m2se_json_put_array(writer, "erasures");
  for (uint32_t i = 0; i < erasures->partition_count; i++) {
    const struct m2sed_erasures_partition *partition = &erasures->partitions[i];
    if (partition->next_offset < 0)
      continue;
    m2se_json_put_object(writer, NULL);
    m2se_json_put_int64(writer, "partition", partition->partition);
    m2se_json_put_decimal(writer, "offset", (uint64_t)partition->next_offset);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_array(writer, "erased");
  for (uint32_t i = 0; i < erasures->count; i++) {
    uint32_t place = (erasures->first + i) % M2SED_ERASURES_KEPT;
    m2se_json_put_object(writer, NULL);
    m2se_json_put_decimal(writer, "user", erasures->users[place]);
    m2se_json_put_int64(writer, "until_ms", erasures->until_ms[place]);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
}

static int read_partition(struct m2sed_erasures *erasures, const struct m2se_json *value,
                          struct m2se_error *error) {
  int64_t number, offset;
  int code = m2se_json_as_int64(m2se_json_get(value, "partition"), "partition", &number, error);
  if (!code)
    code = m2se_json_as_int64(m2se_json_get(value, "offset"), "offset", &offset, error);
  if (code)
    return code;
  if (number < 0 || number >= M2SED_ERASURES_PARTITIONS_MAX || offset < 0)
    return m2se_error_set(error, M2SE_EFORMAT, "erasures: a partition or offset outside its range");
  find_or_add(erasures, (int32_t)number)->next_offset = offset;
  return 0;
}

static int read_user(struct m2sed_erasures *erasures, const struct m2se_json *value,
                     struct m2se_error *error) {
  uint64_t user_hash;
  int64_t until_ms;
  int code = m2se_json_as_uint64(m2se_json_get(value, "user"), "user", &user_hash, error);
  if (!code)
    code = m2se_json_as_int64(m2se_json_get(value, "until_ms"), "until_ms", &until_ms, error);
  if (!code)
    remember(erasures, user_hash, until_ms);
  return code;
}

static int read_array(struct m2sed_erasures *erasures, const struct m2se_json *root, const char *name,
                      int (*read)(struct m2sed_erasures *, const struct m2se_json *, struct m2se_error *),
                      struct m2se_error *error) {
  size_t count = 0;
  const struct m2se_json *array = m2se_json_get(root, name);
  int code = array ? m2se_json_as_array(array, name, &count, error) : 0;
  for (size_t i = 0; i < count && !code; i++)
    code = read(erasures, m2se_json_at(array, i), error);
  return code;
}

int m2sed_erasures_read(struct m2sed_erasures *erasures, const struct m2se_json *root,
                        struct m2se_error *error) {
  int code = read_array(erasures, root, "erasures", read_partition, error);
  return code ? code : read_array(erasures, root, "erased", read_user, error);
}
