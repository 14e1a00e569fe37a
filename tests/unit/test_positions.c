// Positions: where partitions begin, log epochs, what a checkpoint keeps of them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/positions.h"

static struct m2sed_start begin(struct m2sed_positions *positions, int32_t partition, int64_t low,
                                int64_t high, int64_t wanted) {
  struct m2sed_start start;
  assert_int_equal(m2sed_positions_begin(positions, partition, low, high, low, wanted, &start), 0);
  return start;
}

static struct m2sed_positions *restored(const struct m2sed_position *trained, uint32_t count,
                                        const char *json) {
  struct m2sed_positions *positions = m2sed_positions_new();
  struct m2se_error error;
  if (m2sed_positions_restore(positions, trained, count, json, json ? strlen(json) : 0, &error))
    fail_msg("%s", error.text);
  return positions;
}

static void test_first_start(void **state) {
  (void)state;
  struct m2sed_positions *positions = m2sed_positions_new();
  assert_false(m2sed_positions_set_cluster(positions, "a")); /* the first one is no other one */
  struct m2sed_start start;
  assert_int_equal(m2sed_positions_begin(positions, 3, 0, 100, 40, -1, &start), 0);
  assert_int_equal(start.offset, 40); /* by policy */
  assert_int_equal(start.lost, 0);
  const struct m2sed_partition *partition = m2sed_positions_find(positions, 3);
  assert_int_equal(partition->durable_offset, 40);
  assert_int_equal(partition->epoch, 0);
  assert_true(partition->started);
  assert_null(m2sed_positions_find(positions, 2));
  assert_int_equal(m2sed_positions_begin(positions, -1, 0, 1, 0, -1, &start), M2SE_ELIMIT);
  m2sed_positions_free(positions);
}

static void test_goes_on_where_it_was(void **state) {
  (void)state;
  const struct m2sed_position trained[] = {{0, 50}, {1, 7}};
  struct m2sed_positions *positions = restored(trained, 2, NULL);
  assert_int_equal(begin(positions, 0, 0, 100, -1).offset, 50);
  assert_int_equal(begin(positions, 1, 0, 7, -1).offset, 7); /* at the end, not beyond it */
  assert_int_equal(m2sed_positions_epoch(positions), 0);
  m2sed_positions_free(positions);
}

static void test_lost_events_are_counted(void **state) {
  (void)state;
  const struct m2sed_position trained[] = {{0, 50}};
  struct m2sed_positions *positions = restored(trained, 1, NULL);
  struct m2sed_start start = begin(positions, 0, 60, 100, -1);
  assert_int_equal(start.offset, 60);
  assert_int_equal(start.lost, 10);
  m2sed_positions_find(positions, 0)->next_offset = 70;
  start = begin(positions, 0, 75, 100, 70); /* found out while reading */
  assert_int_equal(start.offset, 75);
  assert_int_equal(start.lost, 5);
  m2sed_positions_free(positions);
}

static void test_a_topic_made_anew(void **state) {
  (void)state;
  const struct m2sed_position trained[] = {{0, 50}, {1, 5}};
  struct m2sed_positions *positions = restored(trained, 2, NULL);
  struct m2sed_start start = begin(positions, 0, 0, 20, -1);
  assert_true(start.new_log);
  assert_int_equal(start.offset, 0);
  assert_int_equal(start.lost, 0);
  assert_int_equal(m2sed_positions_find(positions, 0)->epoch, 1);
  /* Offset 5 exists in partition 1 of the new log as well, but it is another event. */
  start = begin(positions, 1, 0, 20, -1);
  assert_int_equal(start.offset, 0);
  assert_int_equal(m2sed_positions_find(positions, 1)->epoch, 1);
  assert_int_equal(m2sed_positions_find(positions, 1)->durable_offset, 0);
  m2sed_positions_free(positions);
}

/* The in-flight events of a partition that went away and came back tell how far it is, not its start. */
static void test_comes_back(void **state) {
  (void)state;
  struct m2sed_positions *positions = m2sed_positions_new();
  begin(positions, 0, 0, 100, -1);
  struct m2sed_partition *partition = m2sed_positions_find(positions, 0);
  partition->next_offset = 40;
  partition->trained_offset = 33;
  partition->started = false;
  assert_int_equal(begin(positions, 0, 0, 100, -1).offset, 40);
  assert_int_equal(partition->trained_offset, 33);
  assert_int_equal(partition->durable_offset, 0);
  partition->started = false;
  assert_int_equal(begin(positions, 0, 50, 100, -1).lost, 10);
  assert_int_equal(partition->trained_offset, 50);
  m2sed_positions_free(positions);
}

/* A partition that was started already, at an offset that the new log has too, is behind in its epoch. */
static void test_a_topic_made_anew_and_grown(void **state) {
  (void)state;
  const struct m2sed_position trained[] = {{0, 50}, {1, 60}};
  struct m2sed_positions *positions = restored(trained, 2, NULL);
  assert_false(begin(positions, 0, 0, 70, -1).new_log);
  assert_true(begin(positions, 1, 0, 20, -1).new_log);
  assert_int_equal(m2sed_positions_find(positions, 0)->epoch, 0);
  struct m2sed_start start = begin(positions, 0, 0, 70, -1); /* as the caller must */
  assert_false(start.new_log);
  assert_int_equal(start.offset, 0);
  assert_int_equal(start.lost, 0);
  assert_int_equal(m2sed_positions_find(positions, 0)->epoch, 1);
  m2sed_positions_free(positions);
}

static void test_another_cluster(void **state) {
  (void)state;
  const struct m2sed_position trained[] = {{0, m2sed_position_make(2, 50)}};
  struct m2sed_positions *positions =
      restored(trained, 1, "{\"cluster_id\": \"a\", \"epoch\": 2, \"partitions\": []}");
  assert_false(m2sed_positions_set_cluster(positions, "a"));
  assert_int_equal(begin(positions, 0, 0, 100, -1).offset, 50);
  assert_true(m2sed_positions_set_cluster(positions, "b"));
  assert_int_equal(m2sed_positions_epoch(positions), 3);
  assert_int_equal(begin(positions, 0, 0, 100, -1).offset, 0);
  m2sed_positions_free(positions);
}

static void test_encode_and_restore(void **state) {
  (void)state;
  struct m2sed_positions *positions = m2sed_positions_new();
  m2sed_positions_set_cluster(positions, "cluster \"x\"");
  struct m2sed_start start;
  assert_int_equal(m2sed_positions_begin(positions, 0, 0, 100, 100, -1, &start), 0); /* kafka.start: latest */
  assert_int_equal(m2sed_positions_set_until(positions, 9, 5), 0); /* never started: not kept */
  m2sed_positions_find(positions, 0)->next_offset = 130;
  char *text = m2sed_positions_encode(positions);
  m2sed_positions_free(positions);
  /* Nothing was trained: the place where it began counts, not the newest end. */
  positions = restored(NULL, 0, text);
  assert_false(m2sed_positions_set_cluster(positions, "cluster \"x\""));
  assert_null(m2sed_positions_find(positions, 9));
  assert_int_equal(begin(positions, 0, 0, 200, -1).offset, 100);
  m2sed_positions_free(positions);
  /* The trainer's own position is newer. */
  const struct m2sed_position trained[] = {{0, 120}};
  positions = restored(trained, 1, text);
  assert_int_equal(begin(positions, 0, 0, 200, -1).offset, 120);
  m2sed_positions_free(positions);
  free(text);
}

static void test_raise_keeps_the_first_log(void **state) {
  (void)state;
  struct m2sed_positions *positions = m2sed_positions_new();
  m2sed_positions_raise(positions); /* embedded, first start */
  assert_int_equal(m2sed_positions_epoch(positions), 0);
  begin(positions, 0, 0, 10, -1);
  m2sed_positions_raise(positions);
  assert_int_equal(m2sed_positions_epoch(positions), 1);
  m2sed_positions_free(positions);
}

static void test_durable(void **state) {
  (void)state;
  struct m2sed_positions *positions = m2sed_positions_new();
  begin(positions, 0, 0, 10, -1);
  const struct m2sed_position written[] = {{0, 8}, {5, 3}};
  m2sed_positions_set_durable(positions, written, 2);
  assert_int_equal(m2sed_positions_find(positions, 0)->durable_offset, 8);
  const struct m2sed_position older[] = {{0, m2sed_position_make(7, 2)}}; /* another log */
  m2sed_positions_set_durable(positions, older, 1);
  assert_int_equal(m2sed_positions_find(positions, 0)->durable_offset, 8);
  m2sed_positions_free(positions);
}

static void test_damaged_json(void **state) {
  (void)state;
  const char *const texts[] = {
      "{",
      "{}",
      "{\"cluster_id\": 1, \"epoch\": 0, \"partitions\": []}",
      "{\"cluster_id\": \"a\", \"epoch\": 70000, \"partitions\": []}",
      "{\"cluster_id\": \"a\", \"epoch\": 1, \"partitions\": [{\"partition\": 0, \"epoch\": 2, \"offset\": "
      "\"1\"}]}",
      "{\"cluster_id\": \"a\", \"epoch\": 1, \"partitions\": [{\"partition\": -1, \"epoch\": 1, \"offset\": "
      "\"1\"}]}",
      "{\"cluster_id\": \"a\", \"epoch\": 1, \"partitions\": [{\"partition\": 0, \"epoch\": 1}]}"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct m2sed_positions *positions = m2sed_positions_new();
    struct m2se_error error = {0};
    if (!m2sed_positions_restore(positions, NULL, 0, texts[i], strlen(texts[i]), &error))
      fail_msg("accepted: %s", texts[i]);
    assert_true(error.text[0] != 0);
    m2sed_positions_free(positions);
  }
}

static void test_oldest(void **state) {
  (void)state;
  const struct m2sed_position trained[] = {{0, 50}, {1, 70}}, oldest[] = {{0, 30}};
  struct m2sed_positions *positions = restored(trained, 2, NULL);
  m2sed_positions_set_oldest(positions, oldest, 1);
  begin(positions, 0, 0, 100, -1);
  begin(positions, 1, 0, 100, -1);
  begin(positions, 2, 10, 100, -1);
  assert_int_equal(m2sed_positions_find(positions, 0)->replay_offset, 30);
  assert_int_equal(m2sed_positions_find(positions, 0)->durable_offset, 50);
  assert_int_equal(m2sed_positions_find(positions, 1)->replay_offset, 0); /* the oldest knows nothing of it */
  assert_int_equal(m2sed_positions_find(positions, 2)->replay_offset, 10);
  begin(positions, 0, 60, 100, -1); /* what is gone cannot be read again */
  assert_int_equal(m2sed_positions_find(positions, 0)->replay_offset, 60);
  m2sed_positions_free(positions);
}

/* Redis has sequences only up to 30: read again from there, but nothing of that is lost or new. */
static void test_rewind(void **state) {
  (void)state;
  const struct m2sed_position trained[] = {{0, 50}, {1, 20}};
  struct m2sed_positions *positions = restored(trained, 2, NULL);
  m2sed_positions_find(positions, 0)->rewind_offset = 30;
  m2sed_positions_find(positions, 1)->rewind_offset = 40;
  struct m2sed_start start = begin(positions, 0, 0, 100, -1);
  assert_true(start.offset == 30 && start.again == 20 && start.lost == 0 && !start.new_log);
  const struct m2sed_partition *partition = m2sed_positions_find(positions, 0);
  assert_true(partition->rewound_until == 50 && partition->durable_offset == 50 &&
              partition->trained_offset == 30);
  start = begin(positions, 1, 0, 100, -1); /* Redis is ahead, as after a crash of ours */
  assert_true(start.offset == 20 && start.again == 0);
  /* On the way retention takes what is to be read again, and then more than that. */
  start = begin(positions, 0, 45, 100, 30);
  assert_true(start.offset == 45 && start.again == 5 && start.lost == 0);
  start = begin(positions, 0, 57, 100, 45);
  assert_true(start.offset == 57 && start.again == 0 && start.lost == 7);
  m2sed_positions_free(positions);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_first_start),
      cmocka_unit_test(test_goes_on_where_it_was),
      cmocka_unit_test(test_lost_events_are_counted),
      cmocka_unit_test(test_a_topic_made_anew),
      cmocka_unit_test(test_comes_back),
      cmocka_unit_test(test_a_topic_made_anew_and_grown),
      cmocka_unit_test(test_another_cluster),
      cmocka_unit_test(test_encode_and_restore),
      cmocka_unit_test(test_raise_keeps_the_first_log),
      cmocka_unit_test(test_durable),
      cmocka_unit_test(test_oldest),
      cmocka_unit_test(test_rewind),
      cmocka_unit_test(test_damaged_json),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
