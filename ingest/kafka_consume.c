/* Records, and the pauses of the owner. */
#include <assert.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

uint32_t m2se_kafka_record_headers(const struct m2se_kafka_record *record, struct m2se_kafka_header *headers,
                                   uint32_t max) {
  rd_kafka_headers_t *theirs;
  if (rd_kafka_message_headers(record->message, &theirs))
    return 0;
  uint32_t count = (uint32_t)rd_kafka_header_cnt(theirs);
  for (uint32_t i = 0; i < count && i < max; i++)
    rd_kafka_header_get_all(theirs, i, &headers[i].name, &headers[i].value, &headers[i].size);
  return count;
}

static void hand_over(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition,
                      rd_kafka_message_t *message) {
  rd_kafka_timestamp_type_t kind;
  int64_t timestamp_ms = rd_kafka_message_timestamp(message, &kind);
  if (kind == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
    timestamp_ms = -1;
  const struct m2se_kafka_record record = {.topic = partition->topic,
                                           .topic_name = kafka->topics[partition->topic].name,
                                           .partition = partition->number,
                                           .offset = message->offset,
                                           .timestamp_ms = timestamp_ms,
                                           .key = message->key,
                                           .key_size = message->key_len,
                                           .value = message->payload,
                                           .value_size = message->len,
                                           .message = message};
  partition->next = message->offset + 1;
  if (!kafka->callbacks.record(kafka->callbacks.arg, &record))
    kafka->stopped = true;
  m2se_kafka_partition_end_if_read(kafka, partition, partition->next);
  rd_kafka_message_destroy(message);
}

/* An error, or something to know, about one partition; NULL: about none that we read. */
static void take_notice(struct m2se_kafka *kafka, rd_kafka_t *handle, struct m2se_kafka_partition *partition,
                        const rd_kafka_message_t *message) {
  if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
    if (partition && !partition->held)
      m2se_kafka_partition_end_if_read(kafka, partition, message->offset);
  } else if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET) {
    if (partition) /* the log may be sparse before the offset that was asked for */
      m2se_kafka_start_again(kafka, partition,
                             message->offset > partition->next ? message->offset : partition->next);
  } else {
    m2se_kafka_report(kafka, handle, message->err, "%s", rd_kafka_message_errstr(message));
  }
}

/* True: a record was handed over. */
static bool take_message(struct m2se_kafka *kafka, struct m2se_kafka_reader *reader,
                         rd_kafka_message_t *message) {
  enum m2se_kafka_topic topic = message->rkt
                                    ? m2se_kafka_topic_named(kafka, reader, rd_kafka_topic_name(message->rkt))
                                    : M2SE_KAFKA_TOPICS;
  struct m2se_kafka_partition *partition =
      topic < M2SE_KAFKA_TOPICS ? m2se_kafka_partition_of(kafka, topic, message->partition) : NULL;
  if (partition && !partition->assigned)
    partition = NULL; /* it came from before */
  if (message->err) {
    take_notice(kafka, reader->handle, partition, message);
  } else if (partition && message->offset >= partition->next) {
    if (!partition->pause) {
      hand_over(kafka, partition, message);
      return true;
    }
    /* librdkafka pauses only now: it goes on after the last record that it gave, and before the first one it
     * would not know which that is. */
    assert(!partition->held);
    partition->held = message;
    m2se_kafka_partition_set_paused(kafka, partition, true);
    return false;
  }
  rd_kafka_message_destroy(message);
  return false;
}

/* Undoes pauses that the owner no longer wants, the record in hand first. */
static void resume_topic(struct m2se_kafka *kafka, const struct m2se_kafka_topic_state *topic,
                         uint32_t *left) {
  for (int32_t i = 0; i < topic->partition_count; i++) {
    struct m2se_kafka_partition *partition = topic->partitions[i];
    if (!partition || partition->pause || !partition->held)
      continue;
    if (!*left || kafka->stopped) {
      topic->reader->to_resume = true;
      return;
    }
    rd_kafka_message_t *message = partition->held;
    partition->held = NULL;
    m2se_kafka_partition_set_paused(kafka, partition, false);
    hand_over(kafka, partition, message);
    (*left)--;
  }
}

void m2se_kafka_read(struct m2se_kafka *kafka, struct m2se_kafka_reader *reader, uint32_t *left) {
  if (!reader->handle)
    return;
  if (reader->to_resume) {
    reader->to_resume = false; /* until the limit is met, or a callback resumes more */
    for (int i = 0; i < M2SE_KAFKA_TOPICS; i++)
      if (kafka->topics[i].reader == reader)
        resume_topic(kafka, &kafka->topics[i], left);
  }
  while (*left && !kafka->stopped) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(reader->handle, 0);
    if (!message)
      return;
    if (take_message(kafka, reader, message))
      (*left)--;
  }
}

/* ---- pause ---- */

static void wish(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t number, bool pause) {
  struct m2se_kafka_topic_state *state = &kafka->topics[topic];
  assert(state->name);
  if (number >= 0) {
    struct m2se_kafka_partition *partition = m2se_kafka_partition_make(kafka, topic, number);
    if (partition)
      partition->pause = pause;
  } else {
    state->pause = pause;
    for (int32_t i = 0; i < state->partition_count; i++)
      if (state->partitions[i])
        state->partitions[i]->pause = pause;
  }
  if (!pause)
    state->reader->to_resume = true;
}

void m2se_kafka_pause(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition) {
  wish(kafka, topic, partition, true);
}

void m2se_kafka_resume(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition) {
  wish(kafka, topic, partition, false);
}
