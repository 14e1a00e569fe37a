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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
