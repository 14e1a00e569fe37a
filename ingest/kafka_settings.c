/* From settings to handles of librdkafka, and what these report: errors with their class, logs. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

/* ---- properties ---- */

/* What the client is built on: another value would break a promise of kafka.h. */
static const char *const owned[] = {"bootstrap.servers",
                                    "metadata.broker.list",
                                    "test.mock.num.brokers",
                                    "client.id",
                                    "group.id",
                                    "partition.assignment.strategy",
                                    "enable.auto.commit",
                                    "auto.commit.enable",
                                    "enable.auto.offset.store",
                                    "auto.offset.reset",
                                    "enable.partition.eof",
                                    "enabled_events",
                                    "statistics.interval.ms",
                                    "log.queue",
                                    "partitioner",
                                    "enable.idempotence",
                                    "transactional.id",
                                    "delivery.report.only.error"};

struct pair {
  const char *name, *value;
};

static const struct pair consumer_pairs[] = {{"enable.auto.commit", "false"},
                                             {"enable.auto.offset.store", "false"},
                                             {"auto.offset.reset", "error"},
                                             {"enable.partition.eof", "true"},
                                             {"partition.assignment.strategy", "cooperative-sticky"}};

/* Better than librdkafka's own: a broker that is back, or a topic that is made, is seen in seconds; and after
 * a kill the group waits 10 s, not 45, before it gives the partitions of the dead member to its successor. A
 * busy owner costs no membership: heartbeats come from librdkafka's own thread. A request is never held back
 * for the acknowledgement of the one before: an event would wait for it. */
static const struct pair defaults[] = {{"reconnect.backoff.max.ms", "1000"},
                                       {"topic.metadata.refresh.interval.ms", "10000"},
                                       {"socket.nagle.disable", "true"},
                                       {"session.timeout.ms", "10000"},
                                       {"heartbeat.interval.ms", "3000"}};

static int set(rd_kafka_conf_t *conf, const char *name, const char *value, struct m2se_error *error) {
  char why[256];
  if (rd_kafka_conf_set(conf, name, value, why, sizeof why) == RD_KAFKA_CONF_OK)
    return 0;
  return m2se_error_set(error, M2SE_EINVAL, "property %s: %s", name, why);
}

static int set_all(rd_kafka_conf_t *conf, const struct pair *pairs, size_t count, struct m2se_error *error) {
  int code = 0;
  for (size_t i = 0; i < count && !code; i++)
    code = set(conf, pairs[i].name, pairs[i].value, error);
  return code;
}

static int set_owners(rd_kafka_conf_t *conf, const struct m2se_kafka_settings *settings,
                      struct m2se_error *error) {
  for (uint32_t i = 0; i < settings->property_count; i++) {
    const struct m2se_kafka_property *property = &settings->properties[i];
    for (size_t k = 0; k < sizeof owned / sizeof owned[0]; k++)
      if (!strcmp(property->name, owned[k]))
        return m2se_error_set(error, M2SE_EINVAL, "property %s: cannot be set, the client depends on it",
                              property->name);
    int code = set(conf, property->name, property->value, error);
    if (code)
      return code;
  }
  return 0;
}

/* ---- errors ---- */

static enum m2se_kafka_error_class class_of(int code) {
  switch (code) {
  case RD_KAFKA_RESP_ERR__FATAL:
    return M2SE_KAFKA_FATAL;
  case RD_KAFKA_RESP_ERR__AUTHENTICATION:
  case RD_KAFKA_RESP_ERR__SSL:
  case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
  case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
  case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE:
  case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
  case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
  case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
  case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
  case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
  case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
  case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
  case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE:
  case RD_KAFKA_RESP_ERR_SECURITY_DISABLED:
  case RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION:
  case RD_KAFKA_RESP_ERR_INVALID_GROUP_ID:
  case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT:
  case RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL:
  case RD_KAFKA_RESP_ERR_GROUP_MAX_SIZE_REACHED:
  case RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE:
    return M2SE_KAFKA_ALARM;
  default:
    return M2SE_KAFKA_RETRY;
  }
}

static void report(struct m2se_kafka *kafka, enum m2se_kafka_error_class class, const char *text) {
  if (class == M2SE_KAFKA_FATAL) {
    if (kafka->failed)
      return;
    kafka->failed = true;
  }
  if (kafka->callbacks.error)
    kafka->callbacks.error(kafka->callbacks.arg, class, text);
}

void m2se_kafka_report(struct m2se_kafka *kafka, rd_kafka_t *handle, int code, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  char fatal[512];
  rd_kafka_resp_err_t cause = handle ? rd_kafka_fatal_error(handle, fatal, sizeof fatal) : 0;
  if (cause) {
    snprintf(text, sizeof text, "%s: %.400s", rd_kafka_err2name(cause), fatal);
    code = RD_KAFKA_RESP_ERR__FATAL;
  }
  report(kafka, class_of(code), text);
}

void m2se_kafka_report_error(struct m2se_kafka *kafka, rd_kafka_t *handle, rd_kafka_error_t *error,
                             const char *what) {
  if (!error)
    return;
  m2se_kafka_report(kafka, handle, rd_kafka_error_code(error), "%s: %s", what, rd_kafka_error_string(error));
  rd_kafka_error_destroy(error);
}

void m2se_kafka_out_of_memory(struct m2se_kafka *kafka) {
  report(kafka, M2SE_KAFKA_FATAL, "out of memory");
}

static void on_error(rd_kafka_t *handle, int code, const char *why, void *opaque) {
  m2se_kafka_report(opaque, handle, code, "%s: %s", rd_kafka_err2name(code), why);
}

static void on_log(const rd_kafka_t *handle, int level, const char *facility, const char *text) {
  struct m2se_kafka *kafka = rd_kafka_opaque(handle);
  /* The properties are the user's for all handles: each warns of those that only others need. */
  bool of_other = !strcmp(facility, "CONFWARN") && strstr(text, "property and will be ignored by");
  if (!kafka->callbacks.log || of_other)
    return;
  char line[1024];
  snprintf(line, sizeof line, "%s: %s", facility, text);
  kafka->callbacks.log(kafka->callbacks.arg, level, line);
}

/* ---- handles ---- */

static int set_kind(rd_kafka_conf_t *conf, enum m2se_kafka_kind kind,
                    const struct m2se_kafka_settings *settings, struct m2se_error *error) {
  if (kind == M2SE_KAFKA_KIND_PRODUCER) {
    m2se_kafka_set_producer_callbacks(conf);
    int code = set(conf, "partitioner", "murmur2_random", error);
    return code || !settings->ordered_producer ? code : set(conf, "enable.idempotence", "true", error);
  }
  int code = 0;
  if (kind == M2SE_KAFKA_KIND_GROUP) {
    m2se_kafka_set_group_callbacks(conf);
    code = set(conf, "statistics.interval.ms", "1000", error); /* commits wait for them */
  }
  /* The plain consumer joins no group, but librdkafka wants a name, and looks for its coordinator: with the
   * group's own it needs no further rights. */
  code = code ? code : set(conf, "group.id", settings->group ? settings->group : "m2sed", error);
  return code ? code : set_all(conf, consumer_pairs, sizeof consumer_pairs / sizeof consumer_pairs[0], error);
}

int m2se_kafka_handle_new(rd_kafka_t **handle, struct m2se_kafka *kafka, enum m2se_kafka_kind kind,
                          const struct m2se_kafka_settings *settings, struct m2se_error *error) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  rd_kafka_conf_set_opaque(conf, kafka);
  rd_kafka_conf_set_error_cb(conf, on_error);
  rd_kafka_conf_set_log_cb(conf, on_log);
  const struct pair common[] = {{"bootstrap.servers", settings->brokers},
                                {"client.id", settings->client_id ? settings->client_id : "m2sed"},
                                {"log.queue", "true"}};
  int code = set_all(conf, defaults, sizeof defaults / sizeof defaults[0], error);
  if (!code && kind == M2SE_KAFKA_KIND_PRODUCER)
    code = set(conf, "linger.ms", "1", error); /* not librdkafka's 5: they would be part of an event's way */
  if (!code)
    code = set_owners(conf, settings, error);
  if (!code)
    code = set_all(conf, common, sizeof common / sizeof common[0], error);
  if (!code)
    code = set_kind(conf, kind, settings, error);
  if (code) {
    rd_kafka_conf_destroy(conf);
    return code;
  }
  char why[512];
  rd_kafka_type_t type = kind == M2SE_KAFKA_KIND_PRODUCER ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER;
  *handle = rd_kafka_new(type, conf, why, sizeof why);
  if (*handle)
    return 0;
  code = rd_kafka_last_error() == RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE ? M2SE_EIO : M2SE_EINVAL;
  rd_kafka_conf_destroy(conf);
  return m2se_error_set(error, code, "%s", why);
}
