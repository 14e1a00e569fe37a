/* The client of Kafka in a group, against the mock cluster. A group's first member waits 3 s there, so that
 * each test looks at several things. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ingest/kafka_parts.h"
#include "kafka_rig.h"

#include <librdkafka/rdkafka.h>

/* Error codes of Kafka's protocol. */
enum {
  OFFSET_OUT_OF_RANGE = 1,
  NOT_LEADER = 6,
  REQUEST_TIMED_OUT = 7,
  UNKNOWN_MEMBER_ID = 25,
  GROUP_NOT_AUTHORIZED = 30,
  FENCED_INSTANCE_ID = 82
};

static struct rig_partition *partition_of(struct rig_client *client, int32_t partition) {
  return &client->partitions[M2SE_KAFKA_INTERACTIONS][partition];
}

static int64_t committed(const char *brokers, int32_t partition) {
  char why[256];
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof why);
  rd_kafka_conf_set(conf, "group.id", "testers", why, sizeof why);
  rd_kafka_t *handle = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
  assert_non_null(handle);
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(list, "events", partition);
  assert_int_equal(rd_kafka_committed(handle, list, 10000), 0);
  int64_t offset = list->elems[0].offset;
  rd_kafka_topic_partition_list_destroy(list);
  rd_kafka_destroy(handle);
  return offset;
}

static void test_starts(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 4);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), "events", NULL);
  struct rig_partition *partitions = client->partitions[M2SE_KAFKA_INTERACTIONS];
  for (int i = 0; i < 3; i++)
    rig_fill(client, "events", i, 0, 100);
  partitions[1].at = 40;
  partitions[2].at = 100;
  RIG_UNTIL(client, NULL, client->ends == 4);
  assert_int_equal(client->starts, 4);
  assert_int_equal(client->records, 100 + 60);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(partitions[i].start.low, 0);
    assert_int_equal(partitions[i].start.high, i < 3 ? 100 : 0);
    assert_int_equal(partitions[i].start.by_policy, 0);
    assert_int_equal(partitions[i].start.wanted, -1);
    assert_int_equal(partitions[i].next, i < 3 ? 100 : 0);
  }
  const struct m2se_kafka_offset offsets[] = {{M2SE_KAFKA_INTERACTIONS, 0, 77},
                                              {M2SE_KAFKA_INTERACTIONS, 1, 88}};
  m2se_kafka_commit(client->kafka, offsets, 1);
  m2se_kafka_commit(client->kafka, offsets + 1, 1); /* on its way when the client is closed */
  char brokers[256];
  snprintf(brokers, sizeof brokers, "%s", m2se_kafka_mock_brokers(mock));
  assert_int_equal(client->errors[M2SE_KAFKA_ALARM], 0);
  rig_close(client);
  assert_int_equal(committed(brokers, 0), 77);
  assert_int_equal(committed(brokers, 1), 88);
  /* Committed offsets are never read: another start begins where the owner says. */
  client = rig_open(brokers, "events", NULL);
  RIG_UNTIL(client, NULL, client->ends == 4);
  assert_int_equal(client->records, 300);
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

/* ---- offsets that the log does not have ---- */

static void test_out_of_range(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 4);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), "events", NULL);
  enum { LARGE = 900000, COUNT = 10 }; /* more than the mock keeps */
  char *large = calloc(1, LARGE);
  const struct m2se_kafka_message message = {
      .topic = "events", .partition = 0, .value = large, .value_size = LARGE};
  for (int i = 0; i < COUNT; i++) {
    assert_int_equal(rig_send(client, &message), 0);
    assert_true(m2se_kafka_flush(client->kafka, 20000));
  }
  free(large);
  rig_fill(client, "events", 1, 0, 10);
  partition_of(client, 0)->at = 0;
  partition_of(client, 1)->at = 500;
  partition_of(client, 1)->at_wanted = 4;
  partition_of(client, 2)->at = M2SE_KAFKA_HOLD;
  partition_of(client, 3)->at = 77;
  partition_of(client, 3)->at_wanted = M2SE_KAFKA_HOLD;
  const struct rig_partition *lost = partition_of(client, 0), *ahead = partition_of(client, 1);
  RIG_UNTIL(client, NULL, client->starts == 7 && lost->ended && ahead->ended);
  assert_int_equal(client->ends, 2);
  assert_int_equal(lost->start.wanted, 0);
  assert_in_range(lost->start.low, 1, COUNT - 1);
  assert_int_equal(lost->first, lost->start.low);
  assert_int_equal(lost->next, COUNT);
  assert_int_equal(ahead->start.wanted, 500);
  assert_int_equal(ahead->next, 10);
  assert_int_equal(client->records, COUNT - lost->start.low + 6);
  int64_t low, high;
  assert_true(m2se_kafka_watermarks(client->kafka, M2SE_KAFKA_INTERACTIONS, 0, &low, &high));
  for (int i = 2; i < 4; i++)
    assert_false(m2se_kafka_watermarks(client->kafka, M2SE_KAFKA_INTERACTIONS, i, &low, &high));
  rig_fill(client, "events", 2, 0, 5); /* nobody may read these */
  rig_fill(client, "events", 3, 0, 5);
  rig_fill(client, "events", 0, COUNT, 5);
  RIG_UNTIL(client, NULL, lost->next == COUNT + 5);
  rig_run_ms(client, 200);
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

static void test_latest(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 2);
  const struct m2se_kafka_settings settings = {.brokers = m2se_kafka_mock_brokers(mock),
                                               .group = "testers",
                                               .topics = {"events", "erasures", "items"},
                                               .start = M2SE_KAFKA_LATEST};
  assert_int_equal(m2se_kafka_mock_create_topic(mock, "erasures", 1, NULL), 0);
  assert_int_equal(m2se_kafka_mock_create_topic(mock, "items", 1, NULL), 0);
  struct rig_client *client = rig_open_with(&settings);
  rig_fill(client, "events", 0, 0, 100);
  rig_fill(client, "erasures", 0, 0, 100);
  rig_fill(client, "items", 0, 0, 100);
  RIG_UNTIL(client, NULL, client->ends == 4);
  assert_int_equal(client->records, 100); /* of items: always all of them */
  rig_fill(client, "events", 0, 100, 3);
  rig_fill(client, "erasures", 0, 100, 2);
  RIG_UNTIL(client, NULL, client->records == 105);
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

/* ---- pause ---- */

static uint32_t next_random(void) {
  static uint32_t state = 4711;
  state = state * 1664525 + 1013904223;
  return state >> 16;
}

static void test_pause(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 4);
  struct rig_client *writer = rig_open(m2se_kafka_mock_brokers(mock), NULL, NULL);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), "events", NULL);
  rig_pause(client, M2SE_KAFKA_INTERACTIONS, -1, true); /* before anything is assigned */
  for (int i = 0; i < 4; i++)
    rig_fill(writer, "events", i, 0, 500);
  RIG_UNTIL(client, NULL, client->starts == 4);
  rig_run_ms(client, 500);
  assert_int_equal(client->records, 0);
  rig_pause(client, M2SE_KAFKA_INTERACTIONS, 2, false);
  RIG_UNTIL(client, NULL, partition_of(client, 2)->ended);
  assert_int_equal(client->records, 500);
  rig_pause(client, M2SE_KAFKA_INTERACTIONS, -1, false);
  RIG_UNTIL(client, NULL, client->ends == 4);
  assert_int_equal(client->records, 2000);
  /* At random, with new records coming all the time; limits too, so that a pause meets records in hand. */
  uint32_t written = 500;
  for (int round = 0; round < 400; round++) {
    if (round % 40 == 0) {
      for (int i = 0; i < 4; i++)
        rig_fill(writer, "events", i, written, 300);
      written += 300;
    }
    int32_t partition = (int32_t)(next_random() % 5) - 1;
    rig_pause(client, M2SE_KAFKA_INTERACTIONS, partition, next_random() % 2 == 0);
    client->take_max = next_random() % 3 ? RIG_ALL : 1 + next_random() % 20;
    for (uint32_t polls = next_random() % 6; polls > 0; polls--)
      rig_step(client);
  }
  client->take_max = RIG_ALL;
  rig_pause(client, M2SE_KAFKA_INTERACTIONS, -1, false);
  RIG_UNTIL(client, NULL, client->records == 4 * written);
  rig_run_ms(client, 300);
  assert_int_equal(client->records, 4 * written);
  assert_int_equal(client->starts, 4);
  rig_pause(client, M2SE_KAFKA_INTERACTIONS, 1, true);
  rig_fill(writer, "events", 1, written, 10);
  rig_run_ms(client, 300);
  rig_close(client); /* with a record in hand */
  rig_close(writer);
  m2se_kafka_mock_free(mock);
}

/* ---- members that come and go ---- */

static struct rig_client *members[2];

static void on_revoked(struct rig_client *client, enum m2se_kafka_topic topic, int32_t partition) {
  for (int i = 0; i < 2; i++)
    if (members[i])
      members[i]->partitions[topic][partition].at = client->partitions[topic][partition].next;
}

static uint32_t count_started(struct rig_client *client) {
  uint32_t count = 0;
  for (int i = 0; i < RIG_PARTITIONS; i++)
    count += partition_of(client, i)->started;
  return count;
}

static void test_two_members(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 4);
  struct rig_client *writer = rig_open(m2se_kafka_mock_brokers(mock), NULL, NULL);
  for (int i = 0; i < 2; i++) {
    members[i] = rig_open(m2se_kafka_mock_brokers(mock), "events", NULL);
    members[i]->on_revoked = on_revoked;
    if (i == 0) {
      for (int p = 0; p < 4; p++)
        rig_fill(writer, "events", p, 0, 500);
      RIG_UNTIL(members[0], NULL, members[0]->ends == 4);
      rig_pause(members[0], M2SE_KAFKA_INTERACTIONS, -1, true); /* each will have a record in hand */
      for (int p = 0; p < 4; p++)
        rig_fill(writer, "events", p, 500, 500);
    }
  }
  RIG_UNTIL(members[0], members[1], count_started(members[0]) == 2 && count_started(members[1]) == 2);
  assert_int_equal(members[0]->revokes, 2);
  rig_pause(members[0], M2SE_KAFKA_INTERACTIONS, -1, false);
  RIG_UNTIL(members[0], members[1], members[0]->records + members[1]->records == 4000);
  assert_int_equal(members[1]->records, 1000);
  struct rig_client *rest = members[1];
  rig_pause(rest, M2SE_KAFKA_INTERACTIONS, -1, true);
  for (int p = 0; p < 4; p++)
    rig_fill(writer, "events", p, 1000, 100);
  rig_run_ms(rest, 200);
  uint32_t before = members[0]->records;
  m2se_kafka_close(members[0]->kafka, 10000); /* both are polled while it leaves */
  RIG_UNTIL(members[0], rest, m2se_kafka_closed(members[0]->kafka));
  assert_int_equal(members[0]->records, before);
  RIG_UNTIL(rest, NULL, count_started(rest) == 4);
  rig_pause(rest, M2SE_KAFKA_INTERACTIONS, -1, false);
  RIG_UNTIL(rest, NULL, rest->records + before == 4400);
  rig_run_ms(rest, 200);
  assert_int_equal(rest->records + before, 4400);
  for (int i = 0; i < 2; i++) {
    struct rig_client *member = members[i];
    members[i] = NULL;
    rig_close(member);
  }
  rig_close(writer);
  m2se_kafka_mock_free(mock);
}

static void test_lost_membership(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 2);
  struct rig_client *client = members[0] = rig_open(m2se_kafka_mock_brokers(mock), "events", NULL);
  client->on_revoked = on_revoked;
  rig_fill(client, "events", 0, 0, 100);
  RIG_UNTIL(client, NULL, client->ends == 2);
  m2se_kafka_mock_fail(mock, M2SE_KAFKA_MOCK_HEARTBEAT, UNKNOWN_MEMBER_ID, 1);
  RIG_UNTIL(client, NULL, client->revokes == 2);
  assert_int_equal(partition_of(client, 0)->lost, 1);
  rig_fill(client, "events", 0, 100, 100);
  RIG_UNTIL(client, NULL, client->ends == 4);
  assert_int_equal(client->records, 200);
  members[0] = NULL;
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

/* ---- faults ---- */

static void test_faults(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 2);
  m2se_kafka_mock_hide_topic(mock, "events", true);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), "events", NULL);
  RIG_UNTIL(client, NULL, client->errors[M2SE_KAFKA_ALARM] > 0);
  assert_non_null(strstr(client->error_text[M2SE_KAFKA_ALARM], "events"));
  m2se_kafka_mock_hide_topic(mock, "events", false);
  m2se_kafka_mock_fail(mock, M2SE_KAFKA_MOCK_LIST_OFFSETS, NOT_LEADER,
                       2); /* all at once, then the first alone */
  rig_fill(client, "events", 0, 0, 1000);
  RIG_UNTIL(client, NULL, client->ends == 2);
  uint32_t written = 1000;
  static const int16_t errors[] = {NOT_LEADER, REQUEST_TIMED_OUT, OFFSET_OUT_OF_RANGE, OFFSET_OUT_OF_RANGE};
  for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
    m2se_kafka_mock_fail(mock, M2SE_KAFKA_MOCK_FETCH, errors[i], 2);
    rig_fill(client, "events", 0, written, 500);
    written += 500;
    RIG_UNTIL(client, NULL, client->records == written);
  }
  m2se_kafka_mock_set_up(mock, false);
  rig_run_ms(client, 300);
  m2se_kafka_mock_set_up(mock, true);
  rig_fill(client, "events", 0, written, 500);
  RIG_UNTIL(client, NULL, client->records == written + 500);
  /* The offset out of range was in range when it was looked up: the owner need not know. */
  assert_int_equal(client->starts - client->revokes, 2);
  assert_int_equal(client->errors[M2SE_KAFKA_FATAL], 0);
  uint32_t alarms = client->errors[M2SE_KAFKA_ALARM];
  m2se_kafka_mock_fail(mock, M2SE_KAFKA_MOCK_OFFSET_COMMIT, GROUP_NOT_AUTHORIZED, 1);
  m2se_kafka_commit(client->kafka, &(struct m2se_kafka_offset){M2SE_KAFKA_INTERACTIONS, 0, 5}, 1);
  RIG_UNTIL(client, NULL, client->errors[M2SE_KAFKA_ALARM] > alarms);
  assert_non_null(strstr(client->error_text[M2SE_KAFKA_ALARM], "commit"));
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

static void test_fatal(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 1);
  static const struct m2se_kafka_property properties[] = {
      {"heartbeat.interval.ms", "100"}, {"session.timeout.ms", "3000"}, {"group.instance.id", "one"}};
  const struct m2se_kafka_settings settings = {.brokers = m2se_kafka_mock_brokers(mock),
                                               .group = "testers",
                                               .topics = {"events"},
                                               .properties = properties,
                                               .property_count = 3};
  struct rig_client *client = rig_open_with(&settings);
  RIG_UNTIL(client, NULL, client->ends == 1);
  m2se_kafka_mock_fail(mock, M2SE_KAFKA_MOCK_HEARTBEAT, FENCED_INSTANCE_ID, 1);
  RIG_UNTIL(client, NULL, client->errors[M2SE_KAFKA_FATAL] > 0);
  rig_run_ms(client, 300);
  assert_int_equal(client->errors[M2SE_KAFKA_FATAL], 1);
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

static bool is_steady(const char *connection, long long since_us, const char *group, const char *join) {
  char text[400];
  snprintf(text, sizeof text,
           "{ \"brokers\":{ \"GroupCoordinator\": { \"name\":\"GroupCoordinator\", \"state\":\"%s\", "
           "\"stateage\":%lld, \"outbuf_cnt\":0 } }, \"cgrp\": { \"state\": \"%s\", \"stateage\": 5999, "
           "\"join_state\": \"%s\" } }",
           connection, since_us, group, join);
  return m2se_kafka_group_is_steady(text);
}

/* That librdkafka still writes them so, the commits of the other tests show. */
static void test_statistics(void **state) {
  (void)state;
  assert_true(is_steady("UP", 2000000, "up", "steady"));
  assert_false(is_steady("UP", 1999999, "up", "steady"));
  assert_false(is_steady("DOWN", 9000000, "up", "steady"));
  assert_false(is_steady("UP", 9000000, "wait-coord", "steady"));
  assert_false(is_steady("UP", 9000000, "up", "wait-join"));
  assert_false(m2se_kafka_group_is_steady("{}"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_statistics),      cmocka_unit_test(test_starts),
      cmocka_unit_test(test_out_of_range),    cmocka_unit_test(test_latest),
      cmocka_unit_test(test_pause),           cmocka_unit_test(test_two_members),
      cmocka_unit_test(test_lost_membership), cmocka_unit_test(test_faults),
      cmocka_unit_test(test_fatal),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
