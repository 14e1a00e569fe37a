/* Questions that librdkafka answers only by blocking. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

int64_t m2se_kafka_now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool m2se_kafka_is_answer(int code) {
  return code >= 0 || code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
         code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
}

enum which { LOW, HIGH, BY_TIME };

/* One request to each leader, for all at once: Kafka asks for an offset by time, and takes librdkafka's
 * numbers for beginning and end as times too. */
static int ask_all(rd_kafka_t *handle, const char *topic, struct m2se_kafka_asked *asked, uint32_t count,
                   enum which which, int64_t time, int timeout_ms) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
  for (uint32_t i = 0; i < count; i++)
    rd_kafka_topic_partition_list_add(list, topic, asked[i].partition)->offset = time;
  int code = rd_kafka_offsets_for_times(handle, list, timeout_ms);
  for (uint32_t i = 0; i < count && !code; i++) {
    int64_t offset = list->elems[i].offset, high = asked[i].high;
    code = list->elems[i].err;
    if (which == LOW)
      asked[i].low = offset;
    else if (which == HIGH)
      asked[i].high = offset;
    else
      asked[i].by_time = offset >= 0 && offset < high ? offset : high;
  }
  rd_kafka_topic_partition_list_destroy(list);
  return code;
}

/* All or none. */
static int ask_ranges(rd_kafka_t *handle, const char *topic, struct m2se_kafka_asked *asked, uint32_t count,
                      int64_t since_ms, int timeout_ms) {
  int code = ask_all(handle, topic, asked, count, LOW, RD_KAFKA_OFFSET_BEGINNING, timeout_ms);
  if (!code)
    code = ask_all(handle, topic, asked, count, HIGH, RD_KAFKA_OFFSET_END, timeout_ms);
  if (!code && since_ms >= 0)
    code = ask_all(handle, topic, asked, count, BY_TIME, since_ms, timeout_ms);
  for (uint32_t i = 0; i < count; i++)
    asked[i].code = code;
  return code;
}

int m2se_kafka_ask_offsets(rd_kafka_t *handle, const char *topic, struct m2se_kafka_asked *asked,
                           uint32_t count, int64_t since_ms, int timeout_ms) {
  int code = ask_ranges(handle, topic, asked, count, since_ms, timeout_ms);
  if (!code || count == 1 || !m2se_kafka_is_answer(code))
    return code;
  /* A partition without a leader fails them all: one by one, then. */
  int last = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (m2se_kafka_is_answer(last))
      code = ask_ranges(handle, topic, &asked[i], 1, since_ms, timeout_ms);
    asked[i].code = code;
    last = code ? code : last;
  }
  return last;
}

int m2se_kafka_ask_partitions(rd_kafka_t *handle, const char *topic, int timeout_ms, int32_t *count) {
  *count = 0;
  rd_kafka_topic_t *only = rd_kafka_topic_new(handle, topic, NULL);
  if (!only)
    return rd_kafka_last_error();
  const struct rd_kafka_metadata *metadata;
  rd_kafka_resp_err_t code = rd_kafka_metadata(handle, 0, only, &metadata, timeout_ms);
  if (!code) {
    code = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    if (metadata->topic_cnt == 1) {
      code = metadata->topics[0].err;
      *count = metadata->topics[0].partition_cnt;
    }
    rd_kafka_metadata_destroy(metadata);
  }
  rd_kafka_topic_destroy(only);
  return code;
}

char *m2se_kafka_ask_cluster(rd_kafka_t *handle, int timeout_ms) {
  /* Asking for metadata first makes a connection; asking for the id alone would wait for one. */
  const struct rd_kafka_metadata *metadata;
  if (rd_kafka_metadata(handle, 0, NULL, &metadata, timeout_ms))
    return NULL;
  rd_kafka_metadata_destroy(metadata);
  char *theirs = rd_kafka_clusterid(handle, timeout_ms);
  char *ours = theirs ? strdup(theirs) : NULL;
  if (theirs)
    rd_kafka_mem_free(handle, theirs);
  return ours;
}

int m2se_kafka_query_ends(struct m2se_kafka *kafka, const char *topic_name, struct m2se_kafka_end *ends,
                          uint32_t max, int timeout_ms, struct m2se_error *error) {
  rd_kafka_t *handle = kafka->producer;
  for (int i = 0; i < 2; i++)
    handle = kafka->readers[i].handle ? kafka->readers[i].handle : handle;
  if (!handle)
    return m2se_error_set(error, M2SE_EIO, "topic %s: the client is closed", topic_name);
  int64_t deadline_ms = m2se_kafka_now_ms() + timeout_ms;
  int32_t partitions;
  int code = m2se_kafka_ask_partitions(handle, topic_name, timeout_ms, &partitions);
  if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
    return m2se_error_set(error, M2SE_EMISSING, "topic %s: not there", topic_name);
  if (code)
    return m2se_error_set(error, M2SE_EIO, "topic %s: its partitions: %s", topic_name,
                          rd_kafka_err2str(code));
  uint32_t count = (uint32_t)partitions < max ? (uint32_t)partitions : max;
  struct m2se_kafka_asked *asked = calloc(count ? count : 1, sizeof *asked);
  if (!asked)
    return m2se_error_set(error, M2SE_ENOMEM, "topic %s: %u partitions", topic_name, count);
  for (uint32_t i = 0; i < count; i++)
    asked[i].partition = (int32_t)i;
  int64_t left_ms = deadline_ms - m2se_kafka_now_ms();
  if (count)
    code =
        m2se_kafka_ask_offsets(kafka->producer, topic_name, asked, count, -1, left_ms > 1 ? (int)left_ms : 1);
  for (uint32_t i = 0; i < count && !code; i++)
    ends[i] =
        (struct m2se_kafka_end){.partition = asked[i].partition, .low = asked[i].low, .high = asked[i].high};
  free(asked);
  return code ? m2se_error_set(error, M2SE_EIO, "topic %s: its offsets: %s", topic_name,
                               rd_kafka_err2str(code))
              : partitions;
}
