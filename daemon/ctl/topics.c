/* m2sectl topics create: the topics that the settings name. */
#include <stdio.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "ingest/kafka.h"
#include "model/files/json.h"

enum { CREATE_MS = 20000, TOPICS = 7, PARTITIONS_MAX = 16384, REPLICATION_MAX = 32 };

struct topic {
  char name[M2SED_TEXT_MAX + 8];
  struct m2se_kafka_new_topic settings;
  bool made;
};

static void complain(void *arg, enum m2se_kafka_error_class class, const char *text) {
  (void)arg;
  if (class != M2SE_KAFKA_RETRY)
    m2sed_ctl_fail(0, "Kafka: %s", text);
}

/* The interactions get the partitions that were asked for; the others need no more than one. */
static uint32_t list_topics(const struct m2sed_config *config, uint64_t partitions, uint64_t replication,
                            struct topic *topics) {
  const struct {
    const char *name, *suffix;
    uint64_t partitions;
    bool compacted;
  } all[TOPICS] = {{config->kafka_interactions, "", partitions, false},
                   {config->kafka_interactions, ".dlq", 1, false},
                   {config->kafka_items, "", 1, true},
                   {config->kafka_items, ".dlq", 1, false},
                   {config->kafka_erasures, "", 1, false},
                   {config->kafka_erasures, ".dlq", 1, false},
                   {config->kafka_status, "", 1, false}};
  uint32_t count = 0;
  for (uint32_t i = 0; i < TOPICS; i++) {
    if (!all[i].name[0])
      continue; /* it may be off */
    struct topic *topic = &topics[count++];
    snprintf(topic->name, sizeof topic->name, "%s%s", all[i].name, all[i].suffix);
    topic->settings = (struct m2se_kafka_new_topic){.name = topic->name,
                                                    .partitions = (uint32_t)all[i].partitions,
                                                    .replication = (uint32_t)replication,
                                                    .compacted = all[i].compacted};
  }
  return count;
}

static int connect_kafka(const struct m2sed_config *config, struct m2se_kafka **kafka) {
  struct m2se_kafka_property properties[M2SED_PROPERTIES_MAX];
  for (uint32_t i = 0; i < config->kafka_property_count; i++)
    properties[i] =
        (struct m2se_kafka_property){config->kafka_properties[i].name, config->kafka_properties[i].value};
  const struct m2se_kafka_settings settings = {.brokers = config->kafka_brokers,
                                               .client_id = "m2sectl",
                                               .properties = properties,
                                               .property_count = config->kafka_property_count};
  const struct m2se_kafka_callbacks callbacks = {.error = complain};
  struct m2se_error error = {0};
  return m2se_kafka_new(kafka, &settings, &callbacks, &error)
             ? m2sed_ctl_fail(EX_CONFIG, "Kafka: %s", error.text)
             : 0;
}

static int create(struct m2se_kafka *kafka, const char *brokers, struct topic *topics, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    struct m2se_error error = {0};
    int code = m2se_kafka_create_topic(kafka, &topics[i].settings, CREATE_MS, &topics[i].made, &error);
    m2se_kafka_poll(kafka, 0, 0); /* what librdkafka has to complain of */
    if (code)
      return m2sed_ctl_fail(code == M2SE_EIO ? EX_UNAVAILABLE : EX_CANTCREAT, "Kafka at %s: %s", brokers,
                            error.text);
  }
  return 0;
}

static int show_json(const struct topic *topics, uint32_t count) {
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  m2se_json_put_object(writer, NULL);
  m2se_json_put_array(writer, "topics");
  for (uint32_t i = 0; i < count; i++) {
    m2se_json_put_object(writer, NULL);
    m2se_json_put_text(writer, "topic", topics[i].name);
    m2se_json_put_bool(writer, "made", topics[i].made);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_end(writer);
  return m2sed_ctl_show_json(writer);
}

static int show_table(const struct topic *topics, uint32_t count) {
  struct m2sed_text text = {0};
  for (uint32_t i = 0; i < count; i++)
    m2sed_text_add(&text, "%-20s %s\n", topics[i].name, topics[i].made ? "made" : "was there, left as it is");
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

int m2sed_ctl_topics_create(struct m2sed_ctl *ctl) {
  uint64_t partitions = 0, replication = 0; /* as the broker does by default */
  int status = m2sed_ctl_whole(ctl, M2SED_CTL_PARTITIONS, PARTITIONS_MAX, &partitions);
  if (!status)
    status = m2sed_ctl_whole(ctl, M2SED_CTL_REPLICATION, REPLICATION_MAX, &replication);
  if (status)
    return status;
  static struct topic topics[TOPICS];
  uint32_t count = list_topics(&ctl->config, partitions, replication, topics);
  struct m2se_kafka *kafka;
  status = connect_kafka(&ctl->config, &kafka);
  if (status)
    return status;
  status = create(kafka, ctl->config.kafka_brokers, topics, count);
  m2se_kafka_free(kafka);
  if (status)
    return status;
  return m2sed_ctl_has(ctl, M2SED_CTL_JSON) ? show_json(topics, count) : show_table(topics, count);
}
