/* Topics are made by tools, never by the daemon. */
#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

enum { PATIENCE_MS = 1000, TEXT_BYTES = 512 }; /* beyond the broker's own limit: for its answer to arrive */

static rd_kafka_NewTopic_t *describe(const struct m2se_kafka_new_topic *topic, struct m2se_error *error) {
  char text[TEXT_BYTES];
  rd_kafka_NewTopic_t *request =
      rd_kafka_NewTopic_new(topic->name, topic->partitions ? (int)topic->partitions : -1,
                            topic->replication ? (int)topic->replication : -1, text, sizeof text);
  if (!request) {
    m2se_error_set(error, M2SE_EINVAL, "topic %s: %s", topic->name, text);
    return NULL;
  }
  if (topic->compacted)
    rd_kafka_NewTopic_set_config(request, "cleanup.policy", "compact");
  return request;
}

static int outcome(const struct m2se_kafka_new_topic *topic, rd_kafka_event_t *event, bool *made,
                   struct m2se_error *error) {
  const rd_kafka_CreateTopics_result_t *result = event ? rd_kafka_event_CreateTopics_result(event) : NULL;
  if (!result)
    return m2se_error_set(error, M2SE_EIO, "topic %s: no answer", topic->name);
  if (rd_kafka_event_error(event))
    return m2se_error_set(error, M2SE_EIO, "topic %s: %s", topic->name, rd_kafka_event_error_string(event));
  size_t count;
  const rd_kafka_topic_result_t **topics = rd_kafka_CreateTopics_result_topics(result, &count);
  if (count != 1)
    return m2se_error_set(error, M2SE_EIO, "topic %s: an answer about %zu topics", topic->name, count);
  rd_kafka_resp_err_t code = rd_kafka_topic_result_error(topics[0]);
  *made = code == RD_KAFKA_RESP_ERR_NO_ERROR;
  if (*made || code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
    return 0;
  const char *text = rd_kafka_topic_result_error_string(topics[0]);
  return m2se_error_set(error, code == RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT ? M2SE_EIO : M2SE_EINVAL,
                        "topic %s: %s", topic->name, text ? text : rd_kafka_err2str(code));
}

int m2se_kafka_create_topic(struct m2se_kafka *kafka, const struct m2se_kafka_new_topic *topic,
                            int timeout_ms, bool *made, struct m2se_error *error) {
  *made = false;
  if (!kafka->producer)
    return m2se_error_set(error, M2SE_EIO, "topic %s: the client is closed", topic->name);
  rd_kafka_NewTopic_t *request = describe(topic, error);
  if (!request)
    return M2SE_EINVAL;
  rd_kafka_AdminOptions_t *options =
      rd_kafka_AdminOptions_new(kafka->producer, RD_KAFKA_ADMIN_OP_CREATETOPICS);
  rd_kafka_queue_t *queue = rd_kafka_queue_new(kafka->producer);
  char text[TEXT_BYTES];
  int code = 0;
  /* The answer comes once the topic is known to the brokers, or the time is over. */
  if (rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof text) ||
      rd_kafka_AdminOptions_set_operation_timeout(options, timeout_ms, text, sizeof text))
    code = m2se_error_set(error, M2SE_EINVAL, "topic %s: %s", topic->name, text);
  if (!code) {
    rd_kafka_CreateTopics(kafka->producer, &request, 1, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + PATIENCE_MS);
    code = outcome(topic, event, made, error);
    if (event)
      rd_kafka_event_destroy(event);
  }
  rd_kafka_queue_destroy(queue);
  rd_kafka_AdminOptions_destroy(options);
  rd_kafka_NewTopic_destroy(request);
  return code;
}
