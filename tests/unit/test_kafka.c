/* The client of Kafka against the mock cluster: writing, reading items, and what is not there. Groups are in
 * test_kafka_group.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "kafka_rig.h"

/* ---- round trip ---- */

static uint32_t round_trips;

static bool check_round_trip(struct rig_client *client, const struct m2se_kafka_record *record) {
  (void)client;
  struct m2se_kafka_header headers[3];
  uint32_t count = m2se_kafka_record_headers(record, headers, 3);
  assert_string_equal(record->topic_name, "items");
  assert_int_equal(record->topic, M2SE_KAFKA_ITEMS);
  switch (record->offset) {
  case 0: /* everything */
    assert_int_equal(record->key_size, 3);
    assert_memory_equal(record->key, "k\0y", 3);
    assert_int_equal(record->value_size, 5);
    assert_memory_equal(record->value, "va\0ue", 5);
    assert_int_equal(record->timestamp_ms, 1700000000123);
    assert_int_equal(count, 3);
    assert_string_equal(headers[0].name, "one");
    assert_int_equal(headers[0].size, 2);
    assert_memory_equal(headers[0].value, "\0\1", 2);
    assert_string_equal(headers[1].name, "nothing");
    assert_null(headers[1].value);
    assert_string_equal(headers[2].name, "one"); /* a name may come again */
    assert_int_equal(m2se_kafka_record_headers(record, headers, 1), 3);
    break;
  case 1: /* a deletion without a key */
    assert_null(record->key);
    assert_null(record->value);
    assert_int_equal(count, 0);
    break;
  default: /* empty is not absent */
    assert_non_null(record->key);
    assert_int_equal(record->key_size, 0);
    assert_non_null(record->value);
    assert_int_equal(record->value_size, 0);
  }
  round_trips++;
  return true;
}

static void test_round_trip(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("items", 1);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, "items");
  client->on_record = check_round_trip;
  const struct m2se_kafka_header headers[] = {{"one", "\0\1", 2}, {"nothing", NULL, 0}, {"one", "x", 1}};
  const struct m2se_kafka_message messages[] = {{.topic = "items",
                                                 .partition = 0,
                                                 .key = "k\0y",
                                                 .key_size = 3,
                                                 .value = "va\0ue",
                                                 .value_size = 5,
                                                 .timestamp_ms = 1700000000123,
                                                 .headers = headers,
                                                 .header_count = 3},
                                                {.topic = "items", .partition = -1},
                                                {.topic = "items", .partition = 0, .key = "", .value = ""}};
  for (int i = 0; i < 3; i++) {
    assert_int_equal(rig_send(client, &messages[i]), 0);
    assert_true(m2se_kafka_flush(client->kafka, 20000)); /* one by one: in this order */
    assert_int_equal(client->last_offset, i);
  }
  RIG_UNTIL(client, NULL, round_trips == 3);
  assert_true(atomic_load(&client->wakes) > 0);
  assert_non_null(m2se_kafka_cluster_id(client->kafka));
  assert_true(m2se_kafka_reachable(client->kafka));
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

/* ---- items ---- */

static void test_items(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("items", 3);
  struct rig_client *writer = rig_open(m2se_kafka_mock_brokers(mock), NULL, NULL);
  rig_fill(writer, "items", 0, 0, 1000);
  rig_fill(writer, "items", 1, 0, 1);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, "items");
  RIG_UNTIL(client, NULL, client->ends == 3);
  assert_int_equal(client->records, 1001);
  rig_fill(writer, "items", 2, 0, 10);
  RIG_UNTIL(client, NULL, client->records == 1011);
  assert_int_equal(client->ends, 3); /* once a start */
  /* Watermarks of long ago, then of now. */
  int64_t low, high;
  assert_true(m2se_kafka_watermarks(client->kafka, M2SE_KAFKA_ITEMS, 2, &low, &high));
  assert_int_equal(high, 0);
  assert_false(m2se_kafka_watermarks(client->kafka, M2SE_KAFKA_ITEMS, 3, &low, &high));
  assert_false(m2se_kafka_watermarks(client->kafka, M2SE_KAFKA_INTERACTIONS, 0, &low, &high));
  m2se_kafka_refresh(client->kafka);
  m2se_kafka_refresh(client->kafka);
  RIG_UNTIL(client, NULL,
            m2se_kafka_watermarks(client->kafka, M2SE_KAFKA_ITEMS, 2, &low, &high) && high == 10);
  rig_close(client);
  rig_close(writer);
  m2se_kafka_mock_free(mock);
}

static void test_missing_items(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("items", 2);
  m2se_kafka_mock_hide_topic(mock, "items", true);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, "items");
  RIG_UNTIL(client, NULL, client->errors[M2SE_KAFKA_ALARM] > 0);
  assert_non_null(strstr(client->error_text[M2SE_KAFKA_ALARM], "items"));
  assert_int_equal(client->starts, 0);
  m2se_kafka_mock_hide_topic(mock, "items", false);
  rig_fill(client, "items", 1, 0, 5);
  RIG_UNTIL(client, NULL, client->records == 5 && client->ends == 2);
  assert_int_equal(client->errors[M2SE_KAFKA_FATAL], 0);
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

/* ---- how much a poll hands over ---- */

static void test_limits(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("items", 2);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, "items");
  rig_fill(client, "items", 0, 0, 3000);
  client->what = 0;
  rig_run_ms(client, 300); /* the start of a partition needs no reading, so it has come */
  assert_int_equal(client->starts, 2);
  assert_int_equal(client->records, 0);
  client->taken = 0;
  bool more = false;
  for (int64_t end_ms = rig_now_ms() + 20000; !more && rig_now_ms() < end_ms;)
    more = m2se_kafka_poll(client->kafka, M2SE_KAFKA_READ_ITEMS, 7);
  assert_true(more);
  assert_in_range(client->records, 7, 13); /* an earlier poll may have found fewer than 7 */
  client->take_max = 3;                    /* by the owner: the rig checks that no more come */
  client->taken = 0;
  uint32_t before = client->records;
  assert_true(m2se_kafka_poll(client->kafka, M2SE_KAFKA_READ_ITEMS, 7));
  assert_int_equal(client->records, before + 3);
  client->taken = 0;
  assert_true(m2se_kafka_poll(client->kafka, M2SE_KAFKA_READ_ITEMS, 0));
  assert_int_equal(client->records, before + 3);
  client->take_max = RIG_ALL;
  client->what = M2SE_KAFKA_READ_ITEMS;
  RIG_UNTIL(client, NULL, client->records == 3000);
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

static void test_wakes(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("items", 1);
  struct rig_client *writer = rig_open(m2se_kafka_mock_brokers(mock), NULL, NULL);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, "items");
  RIG_UNTIL(client, NULL, client->ends == 1);
  rig_run_ms(client, 300);
  uint32_t idle = atomic_load(&client->wakes);
  rig_fill(writer, "items", 0, 0, 1);
  for (int64_t end_ms = rig_now_ms() + 20000; atomic_load(&client->wakes) == idle && rig_now_ms() < end_ms;)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  assert_true(atomic_load(&client->wakes) > idle);
  RIG_UNTIL(client, NULL, client->records == 1);
  rig_close(client);
  rig_close(writer);
  m2se_kafka_mock_free(mock);
}

/* ---- writing ---- */

static void test_partitions_by_key(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 4);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, NULL);
  /* Values of Java's own test of its murmur2 (org.apache.kafka.common.utils.UtilsTest). */
  static const struct {
    const char *key;
    int32_t hash;
  } known[] = {{"21", -973932308},
               {"foobar", -790332482},
               {"a-little-bit-long-string", -985981536},
               {"a-little-bit-longer-string", -1486304829},
               {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    const struct m2se_kafka_message message = {.topic = "events",
                                               .partition = -1,
                                               .key = known[i].key,
                                               .key_size = strlen(known[i].key),
                                               .value = ""};
    assert_int_equal(rig_send(client, &message), 0);
    assert_true(m2se_kafka_flush(client->kafka, 20000));
    assert_int_equal(client->last_partition, (known[i].hash & 0x7fffffff) % 4);
  }
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

static void test_refused_messages(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 1);
  const struct m2se_kafka_property properties[] = {
      {"queue.buffering.max.messages", "10"}, {"message.max.bytes", "2000"}, {"linger.ms", "2000"}};
  const struct m2se_kafka_settings settings = {
      .brokers = m2se_kafka_mock_brokers(mock), .properties = properties, .property_count = 3};
  struct rig_client *client = rig_open_with(&settings);
  static const char large[4000];
  struct m2se_kafka_message message = {
      .topic = "events", .partition = -1, .value = large, .value_size = sizeof large};
  assert_int_equal(rig_send(client, &message), M2SE_ERANGE);
  message.value_size = 10;
  message.topic = "";
  assert_int_equal(rig_send(client, &message), M2SE_EINVAL);
  message.topic = "events";
  for (int i = 0; i < 10; i++)
    assert_int_equal(rig_send(client, &message), 0);
  assert_int_equal(rig_send(client, &message), M2SE_ELIMIT);
  assert_int_equal(m2se_kafka_unsent(client->kafka), 10);
  assert_true(m2se_kafka_flush(client->kafka, 20000));
  assert_int_equal(rig_send(client, &message), 0);
  message.partition = 7; /* not there: found out later */
  assert_int_equal(client->failed, 0);
  int code = rig_send(client, &message);
  m2se_kafka_flush(client->kafka, 20000);
  assert_true(code == M2SE_EINVAL || client->failed == 1);
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

static void test_failing_deliveries(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 1);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, NULL);
  const struct m2se_kafka_message message = {
      .topic = "events", .partition = 0, .value = "v", .value_size = 1};
  enum { NOT_LEADER = 6, TOO_LARGE = 10, NOT_ENOUGH_REPLICAS = 19, NOT_AUTHORIZED = 29 };
  static const struct {
    int16_t error;
    uint32_t times;
    bool arrives;
  } cases[] = {{NOT_LEADER, 2, true},
               {NOT_ENOUGH_REPLICAS, 3, true},
               {TOO_LARGE, 1, false},
               {NOT_AUTHORIZED, 1, false}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint32_t delivered = client->delivered, failed = client->failed;
    m2se_kafka_mock_fail(mock, M2SE_KAFKA_MOCK_PRODUCE, cases[i].error, cases[i].times);
    assert_int_equal(rig_send(client, &message), 0);
    RIG_UNTIL(client, NULL, m2se_kafka_unsent(client->kafka) == 0);
    assert_int_equal(client->delivered, delivered + cases[i].arrives);
    assert_int_equal(client->failed, failed + !cases[i].arrives);
  }
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

/* ---- brokers that are down ---- */

static void test_brokers_that_come_late(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("items", 1);
  m2se_kafka_mock_set_up(mock, false);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, "items");
  const struct m2se_kafka_message message = {.topic = "items", .partition = 0, .value = "0", .value_size = 1};
  assert_int_equal(rig_send(client, &message), 0);
  RIG_UNTIL(client, NULL, client->errors[M2SE_KAFKA_RETRY] > 0);
  assert_false(m2se_kafka_reachable(client->kafka));
  assert_null(m2se_kafka_cluster_id(client->kafka));
  assert_false(m2se_kafka_flush(client->kafka, 50));
  struct m2se_kafka_end ends[1];
  struct m2se_error error = {0};
  int64_t begin_ms = rig_now_ms();
  assert_int_equal(m2se_kafka_query_ends(client->kafka, "items", ends, 1, 300, &error), M2SE_EIO);
  assert_in_range(rig_now_ms() - begin_ms, 0, 3000);
  m2se_kafka_mock_set_up(mock, true);
  RIG_UNTIL(client, NULL, client->records == 1 && client->delivered == 1);
  assert_true(m2se_kafka_reachable(client->kafka));
  assert_non_null(m2se_kafka_cluster_id(client->kafka));
  assert_int_equal(client->errors[M2SE_KAFKA_FATAL], 0);
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

static void test_close_without_brokers(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("events", 1);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), "events", "items");
  rig_fill(client, "events", 0, 0, 1);
  m2se_kafka_mock_set_up(mock, false);
  const struct m2se_kafka_message message = {
      .topic = "events", .partition = 0, .value = "v", .value_size = 1};
  for (int i = 0; i < 5; i++)
    assert_int_equal(rig_send(client, &message), 0);
  int64_t begin_ms = rig_now_ms();
  m2se_kafka_close(client->kafka, 2000);
  assert_int_equal(m2se_kafka_produce(client->kafka, &message, NULL), M2SE_EIO);
  RIG_UNTIL(client, NULL, m2se_kafka_closed(client->kafka));
  assert_in_range(rig_now_ms() - begin_ms, 0, 4000);
  assert_int_equal(client->failed, 5); /* each told, none twice: the rig looks */
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

static void test_close_at_once(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("items", 1);
  m2se_kafka_mock_set_up(mock, false);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, "items");
  const struct m2se_kafka_message message = {.topic = "items", .partition = 0, .value = "v", .value_size = 1};
  assert_int_equal(rig_send(client, &message), 0);
  rig_run_ms(client, 100); /* the helper waits for an answer now, for two seconds */
  int64_t begin_ms = rig_now_ms();
  m2se_kafka_close(client->kafka, 1);
  RIG_UNTIL(client, NULL, m2se_kafka_closed(client->kafka));
  assert_in_range(rig_now_ms() - begin_ms, 0, 1000);
  assert_int_equal(client->failed, 1);
  rig_close(client); /* threads of librdkafka are left behind; they must not call it any more */
  m2se_kafka_mock_free(mock);
}

static void test_free_without_close(void **state) {
  (void)state;
  m2se_kafka_free(NULL);
  struct m2se_kafka_mock *mock = rig_mock("items", 1);
  for (int i = 0; i < 3; i++) {
    const struct m2se_kafka_settings settings = {.brokers = m2se_kafka_mock_brokers(mock)};
    const struct m2se_kafka_callbacks nothing = {0};
    struct m2se_kafka *kafka;
    assert_int_equal(m2se_kafka_new(&kafka, &settings, &nothing, NULL), 0);
    const struct m2se_kafka_message message = {
        .topic = "items", .partition = 0, .value = "v", .value_size = 1};
    if (i > 0)
      assert_int_equal(m2se_kafka_produce(kafka, &message, NULL), 0);
    if (i > 1)
      m2se_kafka_close(kafka, 5000);
    m2se_kafka_free(kafka);
  }
  struct rig_client *reader = rig_open(m2se_kafka_mock_brokers(mock), NULL, "items");
  RIG_UNTIL(reader, NULL, reader->records == 2); /* what was produced before the end was sent */
  rig_close(reader);
  m2se_kafka_mock_free(mock);
}

/* ---- questions and settings ---- */

static void test_ends(void **state) {
  (void)state;
  struct m2se_kafka_mock *mock = rig_mock("items", 3);
  struct rig_client *client = rig_open(m2se_kafka_mock_brokers(mock), NULL, "items");
  rig_fill(client, "items", 1, 0, 12);
  struct m2se_kafka_end ends[3] = {{0}, {0}, {.partition = 99}};
  struct m2se_error error = {0};
  assert_int_equal(m2se_kafka_query_ends(client->kafka, "items", ends, 2, 10000, &error), 3);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(ends[i].partition, i);
    assert_int_equal(ends[i].low, 0);
    assert_int_equal(ends[i].high, i == 1 ? 12 : 0);
  }
  assert_int_equal(ends[2].partition, 99);
  assert_int_equal(m2se_kafka_mock_create_topic(mock, "nowhere", 1, NULL), 0);
  m2se_kafka_mock_hide_topic(mock, "nowhere", true);
  assert_int_equal(m2se_kafka_query_ends(client->kafka, "nowhere", ends, 3, 10000, &error), M2SE_EMISSING);
  assert_non_null(strstr(error.text, "nowhere"));
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

static bool no_record(void *arg, const struct m2se_kafka_record *record) {
  (void)arg;
  (void)record;
  return true;
}

static int64_t no_start(void *arg, const struct m2se_kafka_start *start) {
  (void)arg;
  (void)start;
  return M2SE_KAFKA_HOLD;
}

static void expect_refusal(const struct m2se_kafka_settings *settings, const char *named) {
  struct m2se_kafka *kafka;
  struct m2se_error error = {0};
  const struct m2se_kafka_callbacks callbacks = {.record = no_record, .start = no_start};
  assert_int_equal(m2se_kafka_new(&kafka, settings, &callbacks, &error), M2SE_EINVAL);
  if (!strstr(error.text, named))
    fail_msg("\"%s\" does not name %s", error.text, named);
}

static void test_settings(void **state) {
  (void)state;
  static const struct m2se_kafka_property wrong[] = {{"group.id", "x"},
                                                     {"enable.auto.commit", "true"},
                                                     {"auto.offset.reset", "earliest"},
                                                     {"test.mock.num.brokers", "1"},
                                                     {"no.such.property", "1"},
                                                     {"session.timeout.ms", "soon"},
                                                     {"linger.ms", "-5"},
                                                     {"error_cb", "x"}};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    const struct m2se_kafka_settings settings = {
        .brokers = "localhost:9", .properties = &wrong[i], .property_count = 1};
    expect_refusal(&settings, wrong[i].name);
  }
  expect_refusal(&(struct m2se_kafka_settings){.brokers = ""}, "brokers");
  expect_refusal(&(struct m2se_kafka_settings){.brokers = "a:1", .topics = {"events", NULL, NULL}}, "group");
  expect_refusal(
      &(struct m2se_kafka_settings){.brokers = "a:1", .group = "g", .topics = {NULL, "gone", NULL}},
      "erasures");
  /* Found out only by a handle that needs it. */
  static const struct m2se_kafka_property clash[] = {{"fetch.max.bytes", "1000"},
                                                     {"message.max.bytes", "2000"}};
  expect_refusal(
      &(struct m2se_kafka_settings){
          .brokers = "a:1", .group = "g", .topics = {"events"}, .properties = clash, .property_count = 2},
      "fetch.max.bytes");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_items),
      cmocka_unit_test(test_missing_items),
      cmocka_unit_test(test_limits),
      cmocka_unit_test(test_wakes),
      cmocka_unit_test(test_partitions_by_key),
      cmocka_unit_test(test_refused_messages),
      cmocka_unit_test(test_failing_deliveries),
      cmocka_unit_test(test_brokers_that_come_late),
      cmocka_unit_test(test_close_without_brokers),
      cmocka_unit_test(test_free_without_close),
      cmocka_unit_test(test_close_at_once),
      cmocka_unit_test(test_ends),
      cmocka_unit_test(test_settings),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
