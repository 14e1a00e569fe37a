/* The client of Kafka against a real broker: what the mock cannot do. tests/harness/test_kafka_client.py runs
 * this with the broker's address, and does to the broker what lines "do: ..." ask for; it answers each with a
 * line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kafka_rig.h"

static const char *brokers;

/* Whether the answer is "done"; the other one is "not yet". */
static bool is_done(const char *what) {
  printf("do: %s\n", what);
  fflush(stdout);
  char line[64];
  assert_non_null(fgets(line, sizeof line, stdin));
  return !strcmp(line, "done\n");
}

static void ask_for(const char *what) {
  assert_true(is_done(what));
}

static struct rig_client *open_group(const char *topic, enum m2se_kafka_start_policy start,
                                     int64_t start_ms) {
  static const struct m2se_kafka_property quick[] = {{"heartbeat.interval.ms", "200"},
                                                     {"topic.metadata.refresh.interval.ms", "500"}};
  const struct m2se_kafka_settings settings = {.brokers = brokers,
                                               .group = topic, /* one for each test */
                                               .topics = {topic},
                                               .start = start,
                                               .start_ms = start_ms,
                                               .properties = quick,
                                               .property_count = 2};
  return rig_open_with(&settings);
}

/* Partition 0 has records at 1000 .. 1009 ms, partition 1 none. */
static void test_timestamps(void **state) {
  (void)state;
  ask_for("times");
  static const struct { int64_t start_ms, first; } cases[] = {{0, 0}, {1005, 5}, {1009, 9}, {5000, 10}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct rig_client *client = open_group("times", M2SE_KAFKA_TIMESTAMP, cases[i].start_ms);
    RIG_UNTIL(client, NULL, client->ends == 2);
    assert_int_equal(client->partitions[0][0].start.by_policy, cases[i].first);
    assert_int_equal(client->partitions[0][1].start.by_policy, 0);
    assert_int_equal(client->records, 10 - cases[i].first);
    assert_int_equal(strlen(m2se_kafka_cluster_id(client->kafka)), 22);
    rig_close(client);
  }
}

/* Three transactions, the second rolled back; each leaves a marker at an offset of its own, the log's last
 * too. */
static void test_gaps(void **state) {
  (void)state;
  ask_for("gaps");
  struct rig_client *client = rig_open(brokers, NULL, "gaps");
  client->sparse = true;
  RIG_UNTIL(client, NULL, client->ends == 1);
  const struct rig_partition *partition = &client->partitions[M2SE_KAFKA_ITEMS][0];
  assert_int_equal(client->records, 2);
  assert_int_equal(partition->start.high, 6);
  assert_int_equal(partition->next, 5);
  rig_close(client);
}

/* Twenty records; the first five are deleted. */
static void test_deleted_records(void **state) {
  (void)state;
  ask_for("cut");
  struct rig_client *client = open_group("cut", M2SE_KAFKA_EARLIEST, 0);
  struct rig_partition *partition = &client->partitions[M2SE_KAFKA_INTERACTIONS][0];
  partition->at = 2;
  RIG_UNTIL(client, NULL, client->ends == 1);
  assert_int_equal(client->starts, 2);
  assert_int_equal(partition->start.wanted, 2);
  assert_int_equal(partition->start.low, 5);
  assert_int_equal(client->records, 15);
  int64_t low = 0, high = 0;
  ask_for("cut more"); /* before 12: behind the reader, who only sees it in the watermarks */
  m2se_kafka_refresh(client->kafka);
  RIG_UNTIL(client, NULL, m2se_kafka_watermarks(client->kafka, 0, 0, &low, &high) && low == 12);
  assert_int_equal(high, 20);
  assert_int_equal(client->starts, 2);
  rig_close(client);
}

static void test_topic_made_anew(void **state) {
  (void)state;
  ask_for("anew");
  struct rig_client *client = open_group("anew", M2SE_KAFKA_EARLIEST, 0);
  RIG_UNTIL(client, NULL, client->records == 10 && client->ends == 1);
  client->partitions[M2SE_KAFKA_INTERACTIONS][0].at = 10; /* as an owner who remembers */
  ask_for("anew again");                                  /* with 3 records */
  RIG_UNTIL(client, NULL, client->records == 13);
  const struct rig_partition *partition = &client->partitions[M2SE_KAFKA_INTERACTIONS][0];
  assert_int_equal(partition->start.wanted, 10);
  assert_int_equal(partition->start.high, 3);
  rig_close(client);
}

static void test_late_topic(void **state) {
  (void)state;
  struct m2se_kafka_end ends[2];
  struct m2se_error error = {0};
  struct rig_client *client = open_group("late", M2SE_KAFKA_EARLIEST, 0);
  struct rig_client *items = rig_open(brokers, NULL, "late");
  assert_int_equal(m2se_kafka_query_ends(client->kafka, "late", ends, 2, 10000, &error), M2SE_EMISSING);
  RIG_UNTIL(client, items, client->errors[M2SE_KAFKA_ALARM] > 0 && items->errors[M2SE_KAFKA_ALARM] > 0);
  ask_for("late");
  RIG_UNTIL(client, items, client->records == 10 && items->records == 10);
  rig_close(client);
  rig_close(items);
}

static void test_killed_broker(void **state) {
  (void)state;
  ask_for("steady");
  struct rig_client *writer = rig_open(brokers, NULL, NULL);
  struct rig_client *client = open_group("steady", M2SE_KAFKA_EARLIEST, 0);
  struct rig_client *items = rig_open(brokers, NULL, "steady");
  for (int partition = 0; partition < 2; partition++)
    rig_fill(writer, "steady", partition, 0, 1000);
  RIG_UNTIL(client, items, client->records == 2000 && items->records == 2000);
  m2se_kafka_commit(client->kafka, &(struct m2se_kafka_offset){M2SE_KAFKA_INTERACTIONS, 0, 1000}, 1);
  rig_run_ms(client, 200);
  const struct m2se_kafka_message message = {
      .topic = "steady", .partition = 1, .value = "v", .value_size = 1};
  ask_for("kill");
  for (int i = 0; i < 1000; i++)
    assert_int_equal(rig_send(writer, &message), 0);
  rig_run_ms(client, 500);
  ask_for("start");
  RIG_UNTIL(client, writer, m2se_kafka_unsent(writer->kafka) == 0);
  assert_int_equal(writer->failed, 0);
  /* A message whose answer was lost in the kill may be there twice; here none was on its way. */
  RIG_UNTIL(client, items, client->partitions[0][1].next >= 2000 && items->partitions[2][1].next >= 2000);
  rig_fill(writer, "steady", 0, 1000, 500);
  RIG_UNTIL(client, items, client->partitions[0][0].next >= 1500 && items->partitions[2][0].next >= 1500);
  assert_int_equal(client->errors[M2SE_KAFKA_FATAL] + items->errors[M2SE_KAFKA_FATAL], 0);
  for (int i = 0; i < 120 && !is_done("committed"); i++) /* some seconds after the connection was lost */
    rig_run_ms(client, 500);
  ask_for("committed");
  rig_close(items);
  rig_close(client);
  rig_close(writer);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: test_kafka_broker HOST:PORT (see tests/harness/test_kafka_client.py)\n");
    return 64;
  }
  brokers = argv[1];
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_timestamps),      cmocka_unit_test(test_gaps),
      cmocka_unit_test(test_deleted_records), cmocka_unit_test(test_topic_made_anew),
      cmocka_unit_test(test_late_topic),      cmocka_unit_test(test_killed_broker),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
