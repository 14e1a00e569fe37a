#include "kafka_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

int64_t rig_now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct m2se_kafka_mock *rig_mock(const char *topic, uint32_t partitions) {
  struct m2se_kafka_mock *mock;
  struct m2se_error error = {0};
  if (m2se_kafka_mock_new(&mock, 1, &error) ||
      (topic && m2se_kafka_mock_create_topic(mock, topic, partitions, &error)))
    fail_msg("%s", error.text);
  return mock;
}

/* ---- callbacks ---- */

static struct rig_partition *find(struct rig_client *client, enum m2se_kafka_topic topic, int32_t partition) {
  assert_in_range(topic, 0, M2SE_KAFKA_TOPICS - 1);
  assert_in_range(partition, 0, RIG_PARTITIONS - 1);
  return &client->partitions[topic][partition];
}

static void on_wake(void *arg) {
  struct rig_client *client = arg;
  atomic_fetch_add(&client->wakes, 1);
}

static bool on_record(void *arg, const struct m2se_kafka_record *record) {
  struct rig_client *client = arg;
  struct rig_partition *partition = find(client, record->topic, record->partition);
  assert_true(partition->started && !partition->paused);
  if (client->sparse)
    assert_true(record->offset >= partition->next);
  else
    assert_int_equal(record->offset, partition->next);
  assert_true(client->taken < client->take_max); /* it was told to stop */
  partition->next = record->offset + 1;
  client->records++;
  client->taken++;
  bool more = client->on_record ? client->on_record(client, record) : true;
  return more && client->taken < client->take_max;
}

static int64_t on_start(void *arg, const struct m2se_kafka_start *start) {
  struct rig_client *client = arg;
  struct rig_partition *partition = find(client, start->topic, start->partition);
  assert_true(partition->started == (start->wanted >= 0));
  assert_true(start->low <= start->high);
  assert_true(start->by_policy >= start->low && start->by_policy <= start->high);
  if (start->wanted >= 0)
    assert_true(start->wanted < start->low || start->wanted > start->high);
  partition->start = *start;
  partition->starts++;
  client->starts++;
  int64_t at = start->wanted < 0 ? partition->at : partition->at_wanted;
  at = at == RIG_BY_POLICY ? start->by_policy : at;
  partition->started = at >= 0;
  partition->ended = false;
  partition->first = partition->next = at;
  return at;
}

static void on_end(void *arg, enum m2se_kafka_topic topic, int32_t number, int64_t high) {
  struct rig_client *client = arg;
  struct rig_partition *partition = find(client, topic, number);
  assert_true(partition->started && !partition->ended);
  assert_int_equal(high, partition->start.high);
  assert_true(client->sparse || partition->next >= high);
  partition->ended = true;
  partition->ends++;
  client->ends++;
}

static void on_revoked(void *arg, enum m2se_kafka_topic topic, int32_t number, bool lost) {
  struct rig_client *client = arg;
  struct rig_partition *partition = find(client, topic, number);
  assert_true(partition->started);
  partition->started = false;
  partition->revokes++;
  partition->lost += lost;
  client->revokes++;
  if (client->on_revoked)
    client->on_revoked(client, topic, number);
}

static void on_delivered(void *arg, const struct m2se_kafka_delivery *delivery) {
  struct rig_client *client = arg;
  uint8_t *pending = delivery->opaque;
  assert_int_equal(*pending, 1);
  *pending = 2;
  assert_true((delivery->code == 0) == (delivery->why == NULL));
  client->delivered += delivery->code == 0;
  client->failed += delivery->code != 0;
  client->last_partition = delivery->partition;
  client->last_offset = delivery->offset;
}

static void on_error(void *arg, enum m2se_kafka_error_class class, const char *text) {
  struct rig_client *client = arg;
  client->errors[class]++;
  snprintf(client->error_text[class], sizeof client->error_text[class], "%s", text);
}

static void on_log(void *arg, int level, const char *text) {
  struct rig_client *client = arg;
  assert_in_range(level, 0, 7);
  assert_null(strstr(text, "will be ignored by")); /* of properties for other handles */
  client->logs++;
}

/* ---- clients ---- */

struct rig_client *rig_open_with(const struct m2se_kafka_settings *settings) {
  struct rig_client *client = calloc(1, sizeof *client);
  assert_non_null(client);
  client->take_max = RIG_ALL;
  client->what = M2SE_KAFKA_READ_GROUP | M2SE_KAFKA_READ_ITEMS;
  for (int topic = 0; topic < M2SE_KAFKA_TOPICS; topic++)
    for (int i = 0; i < RIG_PARTITIONS; i++)
      client->partitions[topic][i].at = client->partitions[topic][i].at_wanted = RIG_BY_POLICY;
  const struct m2se_kafka_callbacks callbacks = {.arg = client,
                                                 .wake = on_wake,
                                                 .record = on_record,
                                                 .start = on_start,
                                                 .end = on_end,
                                                 .revoked = on_revoked,
                                                 .delivered = on_delivered,
                                                 .error = on_error,
                                                 .log = on_log};
  struct m2se_error error = {0};
  if (m2se_kafka_new(&client->kafka, settings, &callbacks, &error))
    fail_msg("%s", error.text);
  return client;
}

struct rig_client *rig_open(const char *brokers, const char *interactions, const char *items) {
  /* The mock waits the session timeout less a second for members that are to join again. */
  static const struct m2se_kafka_property quick[] = {{"heartbeat.interval.ms", "100"},
                                                     {"session.timeout.ms", "3000"},
                                                     {"topic.metadata.refresh.interval.ms", "500"}};
  const struct m2se_kafka_settings settings = {
      .brokers = brokers,
      .group = "testers",
      .topics = {[M2SE_KAFKA_INTERACTIONS] = interactions, [M2SE_KAFKA_ITEMS] = items},
      .properties = quick,
      .property_count = 3};
  return rig_open_with(&settings);
}

void rig_close(struct rig_client *client) {
  m2se_kafka_close(client->kafka, 10000);
  RIG_UNTIL(client, NULL, m2se_kafka_closed(client->kafka));
  assert_int_equal(m2se_kafka_unsent(client->kafka), 0);
  for (uint32_t i = 0; i < client->messages; i++)
    assert_int_equal(client->pending[i], 2);
  for (int topic = 0; topic < M2SE_KAFKA_TOPICS; topic++)
    for (int i = 0; i < RIG_PARTITIONS; i++)
      assert_false(client->partitions[topic][i].started); /* all were revoked */
  m2se_kafka_free(client->kafka);
  uint32_t wakes = atomic_load(&client->wakes);
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  assert_int_equal(atomic_load(&client->wakes), wakes);
  free(client);
}

void rig_step(struct rig_client *client) {
  if (!client)
    return;
  client->taken = 0;
  bool more = m2se_kafka_poll(client->kafka, client->what, 500);
  if (!more)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void rig_run_ms(struct rig_client *client, int64_t ms) {
  for (int64_t end_ms = rig_now_ms() + ms; rig_now_ms() < end_ms;)
    rig_step(client);
}

void rig_pause(struct rig_client *client, enum m2se_kafka_topic topic, int32_t partition, bool pause) {
  for (int i = 0; i < RIG_PARTITIONS; i++)
    if (partition < 0 || partition == i)
      client->partitions[topic][i].paused = pause;
  if (pause)
    m2se_kafka_pause(client->kafka, topic, partition);
  else
    m2se_kafka_resume(client->kafka, topic, partition);
}

int rig_send(struct rig_client *client, const struct m2se_kafka_message *message) {
  assert_in_range(client->messages, 0, RIG_MESSAGES - 1);
  uint8_t *pending = &client->pending[client->messages++];
  *pending = 1;
  struct m2se_kafka_message copy = *message;
  copy.opaque = pending;
  struct m2se_error error = {0};
  int code = m2se_kafka_produce(client->kafka, &copy, &error);
  if (code) {
    assert_true(strlen(error.text) > 0);
    client->messages--;
  }
  return code;
}

void rig_fill(struct rig_client *client, const char *topic, int32_t partition, int64_t first,
              uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    char value[32];
    snprintf(value, sizeof value, "%lld", (long long)(first + i));
    const struct m2se_kafka_message message = {
        .topic = topic, .partition = partition, .value = value, .value_size = strlen(value)};
    assert_int_equal(rig_send(client, &message), 0);
  }
  assert_true(m2se_kafka_flush(client->kafka, 20000));
  assert_int_equal(client->failed, 0);
}
