#include "daemon/embedded.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/folder.h"
#include "ingest/kafka_mock.h"
#include "ingest/redis_child.h"

enum { REDIS_START_MS = 20000, REDIS_STOP_MS = 10000 };

struct m2sed_embedded {
  struct m2se_kafka_mock *kafka;
  struct m2se_redis_child *redis;
  char brokers_file[M2SED_TEXT_MAX + 16];
};

static int create_topics(struct m2sed_embedded *embedded, const struct m2sed_config *config,
                         struct m2se_error *error) {
  const struct {
    const char *name, *suffix;
    uint32_t partitions;
  } topics[] = {{config->kafka_interactions, "", (uint32_t)config->daemon_embedded_partitions},
                {config->kafka_items, "", 1},
                {config->kafka_status, "", 1},
                {config->kafka_interactions, ".dlq", 1},
                {config->kafka_items, ".dlq", 1},
                {config->kafka_erasures, "", 1},
                {config->kafka_erasures, ".dlq", 1}};
  int code = 0;
  for (size_t i = 0; i < sizeof topics / sizeof topics[0] && !code; i++) {
    char name[M2SED_TEXT_MAX + 8];
    snprintf(name, sizeof name, "%s%s", topics[i].name, topics[i].suffix);
    if (topics[i].name[0])
      code = m2se_kafka_mock_create_topic(embedded->kafka, name, topics[i].partitions, error);
  }
  return code;
}

static int start_kafka(struct m2sed_embedded *embedded, struct m2sed_config *config,
                       struct m2se_error *error) {
  int code = m2se_kafka_mock_new(&embedded->kafka, 1, error);
  if (!code)
    code = create_topics(embedded, config, error);
  if (code)
    return m2se_error_prefix(error, code, "embedded Kafka");
  const char *brokers = m2se_kafka_mock_brokers(embedded->kafka);
  snprintf(embedded->brokers_file, sizeof embedded->brokers_file, "%s/brokers", config->daemon_state_dir);
  char line[M2SED_TEXT_MAX + 2];
  snprintf(line, sizeof line, "%s\n", brokers);
  code = m2sed_folder_write(embedded->brokers_file, line, error);
  if (!code)
    code = m2sed_config_set(config, "kafka.brokers", brokers, "embedded Kafka", error);
  /* The mock answers a fetch that found nothing only when its time is over, whatever comes meanwhile. */
  if (!code)
    code = m2sed_config_set(config, "kafka.properties.fetch.wait.max.ms", "20", "embedded Kafka", error);
  return code;
}

static int start_redis(struct m2sed_embedded *embedded, struct m2sed_config *config,
                       struct m2se_error *error) {
  char directory[M2SED_TEXT_MAX + 16];
  snprintf(directory, sizeof directory, "%s/redis", config->daemon_state_dir);
  int code = m2se_redis_child_start(&embedded->redis, directory, REDIS_START_MS, error);
  if (code)
    return m2se_error_prefix(error, code, "embedded Redis");
  return m2sed_config_set(config, "redis.uri", m2se_redis_child_uri(embedded->redis), "embedded Redis",
                          error);
}

int m2sed_embedded_start(struct m2sed_embedded **embedded, struct m2sed_config *config,
                         struct m2se_error *error) {
  *embedded = calloc(1, sizeof **embedded);
  if (!*embedded)
    return m2se_error_set(error, M2SE_ENOMEM, "the embedded servers");
  config->checkpoint_init_if_empty = true;
  int code = start_redis(*embedded, config, error);
  if (!code)
    code = start_kafka(*embedded, config, error);
  if (!code)
    return 0;
  m2sed_embedded_stop(*embedded, NULL);
  *embedded = NULL;
  return code;
}

int m2sed_embedded_stop(struct m2sed_embedded *embedded, struct m2se_error *error) {
  if (!embedded)
    return 0;
  if (embedded->brokers_file[0])
    unlink(embedded->brokers_file); /* that address leads nowhere from now on */
  m2se_kafka_mock_free(embedded->kafka);
  int code = m2se_redis_child_stop(embedded->redis, REDIS_STOP_MS, error);
  free(embedded);
  return code;
}
