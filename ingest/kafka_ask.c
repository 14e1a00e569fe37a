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

static rd_kafka_resp_err_t ask_by_time(rd_kafka_t *handle, const char *topic, int32_t partition,
                                       int64_t since_ms, int timeout_ms, struct m2se_kafka_range *range) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_t *entry = rd_kafka_topic_partition_list_add(list, topic, partition);
  entry->offset = since_ms;
  rd_kafka_resp_err_t code = rd_kafka_offsets_for_times(handle, list, timeout_ms);
  if (!code)
    code = entry->err;
  range->by_time = entry->offset >= 0 ? entry->offset : range->high; /* else it is RD_KAFKA_OFFSET_END */
  rd_kafka_topic_partition_list_destroy(list);
  return code;
}

int m2se_kafka_ask_range(rd_kafka_t *handle, const char *topic, int32_t partition, int64_t since_ms,
                         int timeout_ms, struct m2se_kafka_range *range) {
  *range = (struct m2se_kafka_range){0};
  rd_kafka_resp_err_t code =
      rd_kafka_query_watermark_offsets(handle, topic, partition, &range->low, &range->high, timeout_ms);
  if (!code && since_ms >= 0)
    code = ask_by_time(handle, topic, partition, since_ms, timeout_ms, range);
  return code;
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
  int64_t deadline_ms = m2se_kafka_now_ms() + timeout_ms;
  rd_kafka_t *handle = kafka->producer;
  for (int i = 0; i < 2; i++)
    handle = kafka->readers[i].handle ? kafka->readers[i].handle : handle;
  if (!handle)
    return m2se_error_set(error, M2SE_EIO, "topic %s: the client is closed", topic_name);
  int32_t count;
  rd_kafka_resp_err_t code = m2se_kafka_ask_partitions(handle, topic_name, timeout_ms, &count);
  if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
    return m2se_error_set(error, M2SE_EMISSING, "topic %s: not there", topic_name);
  if (code)
    return m2se_error_set(error, M2SE_EIO, "topic %s: its partitions: %s", topic_name,
                          rd_kafka_err2str(code));
  for (int32_t i = 0; i < count && (uint32_t)i < max; i++) {
    int64_t left_ms = deadline_ms - m2se_kafka_now_ms();
    struct m2se_kafka_range range;
    code = left_ms <= 0 ? RD_KAFKA_RESP_ERR__TIMED_OUT
                        : m2se_kafka_ask_range(kafka->producer, topic_name, i, -1, (int)left_ms, &range);
    if (code)
      return m2se_error_set(error, M2SE_EIO, "topic %s, partition %d: its offsets: %s", topic_name, i,
                            rd_kafka_err2str(code));
    ends[i] = (struct m2se_kafka_end){.partition = i, .low = range.low, .high = range.high};
  }
  return count;
}
