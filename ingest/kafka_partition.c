/* One partition: its place in the table, and what librdkafka is told about it. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

struct m2se_kafka_partition *m2se_kafka_partition_of(const struct m2se_kafka *kafka,
                                                     enum m2se_kafka_topic topic, int32_t number) {
  const struct m2se_kafka_topic_state *state = &kafka->topics[topic];
  return number >= 0 && number < state->partition_count ? state->partitions[number] : NULL;
}

static bool make_room(struct m2se_kafka_topic_state *topic, int32_t count) {
  if (count <= topic->partition_count)
    return true;
  struct m2se_kafka_partition **larger =
      realloc(topic->partitions, (size_t)count * sizeof(struct m2se_kafka_partition *));
  if (!larger)
    return false;
  for (int32_t i = topic->partition_count; i < count; i++)
    larger[i] = NULL;
  topic->partitions = larger;
  topic->partition_count = count;
  return true;
}

struct m2se_kafka_partition *m2se_kafka_partition_make(struct m2se_kafka *kafka, enum m2se_kafka_topic topic,
                                                       int32_t number) {
  assert(number >= 0);
  struct m2se_kafka_partition *partition = m2se_kafka_partition_of(kafka, topic, number);
  if (partition)
    return partition;
  struct m2se_kafka_topic_state *state = &kafka->topics[topic];
  if (make_room(state, number + 1))
    partition = calloc(1, sizeof *partition);
  if (!partition) {
    m2se_kafka_out_of_memory(kafka);
    return NULL;
  }
  partition->topic = topic;
  partition->number = number;
  partition->pause = state->pause;
  state->partitions[number] = partition;
  return partition;
}

enum m2se_kafka_topic m2se_kafka_topic_named(const struct m2se_kafka *kafka,
                                             const struct m2se_kafka_reader *reader, const char *name) {
  for (int i = 0; i < M2SE_KAFKA_TOPICS; i++)
    if (kafka->topics[i].reader == reader && !strcmp(kafka->topics[i].name, name))
      return i;
  return M2SE_KAFKA_TOPICS;
}

static rd_kafka_t *handle_of(const struct m2se_kafka *kafka, const struct m2se_kafka_partition *partition) {
  return kafka->topics[partition->topic].reader->handle;
}

static rd_kafka_topic_partition_list_t *
list_of(const struct m2se_kafka *kafka, const struct m2se_kafka_partition *partition, int64_t offset) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  const char *topic = kafka->topics[partition->topic].name;
  rd_kafka_topic_partition_list_add(list, topic, partition->number)->offset = offset;
  return list;
}

void m2se_kafka_partition_assign(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition,
                                 int64_t offset) {
  rd_kafka_topic_partition_list_t *list = list_of(kafka, partition, offset);
  rd_kafka_error_t *error = rd_kafka_incremental_assign(handle_of(kafka, partition), list);
  rd_kafka_topic_partition_list_destroy(list);
  partition->next = offset;
  partition->wanted = -1;
  partition->assigned = !error;
  m2se_kafka_report_error(kafka, handle_of(kafka, partition), error, "assigning a partition");
}

void m2se_kafka_partition_unassign(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition) {
  rd_kafka_topic_partition_list_t *list = list_of(kafka, partition, RD_KAFKA_OFFSET_INVALID);
  rd_kafka_error_t *error = rd_kafka_incremental_unassign(handle_of(kafka, partition), list);
  rd_kafka_topic_partition_list_destroy(list);
  partition->assigned = false;
  m2se_kafka_report_error(kafka, handle_of(kafka, partition), error, "putting a partition aside");
}

void m2se_kafka_partition_set_paused(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition,
                                     bool paused) {
  rd_kafka_topic_partition_list_t *list = list_of(kafka, partition, RD_KAFKA_OFFSET_INVALID);
  rd_kafka_t *handle = handle_of(kafka, partition);
  rd_kafka_resp_err_t code =
      paused ? rd_kafka_pause_partitions(handle, list) : rd_kafka_resume_partitions(handle, list);
  if (!code)
    code = list->elems[0].err;
  if (code)
    m2se_kafka_report(kafka, handle, code, "%s: %s", paused ? "pause" : "resume", rd_kafka_err2str(code));
  rd_kafka_topic_partition_list_destroy(list);
}

void m2se_kafka_partition_end_if_read(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition,
                                      int64_t position) {
  if (partition->ended || !partition->started || position < partition->end)
    return;
  partition->ended = true;
  if (kafka->callbacks.end)
    kafka->callbacks.end(kafka->callbacks.arg, partition->topic, partition->number, partition->end);
}

void m2se_kafka_partition_let_go(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition) {
  if (!partition->held)
    return;
  rd_kafka_message_destroy(partition->held);
  partition->held = NULL;
  if (!kafka->closing)
    m2se_kafka_partition_set_paused(kafka, partition, false); /* else it still is when it comes back */
}

void m2se_kafka_partition_drop(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition, bool lost) {
  m2se_kafka_partition_let_go(kafka, partition);
  bool was_started = partition->started;
  *partition = (struct m2se_kafka_partition){.topic = partition->topic,
                                             .number = partition->number,
                                             .pause = partition->pause,
                                             .serial = partition->serial};
  if (was_started && kafka->callbacks.revoked)
    kafka->callbacks.revoked(kafka->callbacks.arg, partition->topic, partition->number, lost);
}
