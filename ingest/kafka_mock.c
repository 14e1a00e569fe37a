#include "ingest/kafka_mock.h"

#include <stdlib.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

struct m2se_kafka_mock {
  rd_kafka_t *handle; /* the cluster lives in a client of its own */
  rd_kafka_mock_cluster_t *cluster;
  uint32_t brokers;
};

static void ignore_log(const rd_kafka_t *handle, int level, const char *facility, const char *text) {
  (void)handle;
  (void)level;
  (void)facility;
  (void)text;
}

int m2se_kafka_mock_new(struct m2se_kafka_mock **out, uint32_t brokers, struct m2se_error *error) {
  struct m2se_kafka_mock *mock = calloc(1, sizeof *mock);
  if (!mock)
    return m2se_error_set(error, M2SE_ENOMEM, "mock of Kafka");
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  rd_kafka_conf_set_log_cb(conf, ignore_log); /* the default prints */
  char why[256];
  mock->handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
  if (!mock->handle) {
    rd_kafka_conf_destroy(conf);
    free(mock);
    return m2se_error_set(error, M2SE_EIO, "mock of Kafka: %s", why);
  }
  mock->cluster = rd_kafka_mock_cluster_new(mock->handle, (int)brokers);
  if (!mock->cluster) {
    m2se_kafka_mock_free(mock);
    return m2se_error_set(error, M2SE_EIO, "mock of Kafka: no room for %u listening sockets", brokers);
  }
  mock->brokers = brokers;
  *out = mock;
  return 0;
}

int m2se_kafka_mock_create_topic(struct m2se_kafka_mock *mock, const char *topic, uint32_t partitions,
                                 struct m2se_error *error) {
  rd_kafka_resp_err_t code = rd_kafka_mock_topic_create(mock->cluster, topic, (int)partitions, 1);
  return code ? m2se_error_set(error, M2SE_EIO, "topic %s: %s", topic, rd_kafka_err2str(code)) : 0;
}

void m2se_kafka_mock_hide_topic(struct m2se_kafka_mock *mock, const char *topic, bool hidden) {
  rd_kafka_mock_topic_set_error(
      mock->cluster, topic, hidden ? RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART : RD_KAFKA_RESP_ERR_NO_ERROR);
}

void m2se_kafka_mock_set_up(struct m2se_kafka_mock *mock, bool up) {
  for (int32_t id = 1; id <= (int32_t)mock->brokers; id++)
    if (up)
      rd_kafka_mock_broker_set_up(mock->cluster, id);
    else
      rd_kafka_mock_broker_set_down(mock->cluster, id);
}

void m2se_kafka_mock_fail(struct m2se_kafka_mock *mock, int16_t request, int16_t error_code, uint32_t count) {
  rd_kafka_resp_err_t code = error_code;
  while (count--)
    rd_kafka_mock_push_request_errors_array(mock->cluster, request, 1, &code);
}

const char *m2se_kafka_mock_brokers(const struct m2se_kafka_mock *mock) {
  return rd_kafka_mock_cluster_bootstraps(mock->cluster);
}

void m2se_kafka_mock_free(struct m2se_kafka_mock *mock) {
  if (!mock)
    return;
  if (mock->cluster)
    rd_kafka_mock_cluster_destroy(mock->cluster);
  rd_kafka_destroy(mock->handle);
  free(mock);
}
