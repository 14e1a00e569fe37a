/* The client of Kafka in a group, against the mock cluster. A group's first member waits 3 s there, so that
 * each test looks at several things. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kafka_rig.h"

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
  rig_close(client);
  m2se_kafka_mock_free(mock);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_starts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
