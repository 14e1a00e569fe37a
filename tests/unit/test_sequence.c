/* The rolling sequence: the blob's rules one by one, and the Lua script against a reference held in memory,
 * through replays, duplicates, crashes and a server that refuses. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "ingest/lua.h"
#include "ingest/sequence.h"
#include "redis_rig.h"

/* ---- reading a blob ---- */

/* Two partitions (7: next 12, 9: next 2^63 + 1) and three entries: "a" (7, 10), "bc" with a hash (9, 2^63),
 * "a" (7, 11). */
static const uint8_t sample[] = {
    1, 2,   0,   3, 0,   0, 0, 95,                              /* */
    0, 0,   0,   7, 0,   0, 0, 0,  0, 0,   0,   12,             /* */
    0, 0,   0,   9, 128, 0, 0, 0,  0, 0,   0,   1,              /* */
    0, 0,   0,   0, 0,   0, 0, 0,  0, 10,  0,   0,  0, 0, 0, 5, /* entry 0 at 32 */
    1, 'a',                                                     /* */
    1, 1,   128, 0, 0,   0, 0, 0,  0, 0,   1,   2,  3, 4, 5, 6, /* entry 1 at 50 */
    9, 8,   7,   6, 5,   4, 3, 2,  2, 'b', 'c',                 /* */
    0, 0,   0,   0, 0,   0, 0, 0,  0, 11,  0,   0,  0, 0, 0, 6, /* entry 2 at 77 */
    1, 'd',                                                     /* */
};

static void test_parse(void **state) {
  (void)state;
  static struct m2se_sequence sequence;
  struct m2se_error error = {0};
  assert_int_equal(sizeof sample, 95);
  if (m2se_sequence_parse(&sequence, sample, sizeof sample, &error))
    fail_msg("%s", error.text);
  assert_int_equal(sequence.partition_count, 2);
  assert_int_equal(sequence.partitions[0].partition, 7);
  assert_int_equal(sequence.partitions[0].next_position, 12);
  assert_true(sequence.partitions[1].next_position == (1ull << 63) + 1);
  assert_int_equal(sequence.entry_count, 3);
  const struct m2se_sequence_entry *entry = &sequence.entries[1];
  assert_int_equal(entry->partition, 9);
  assert_true(entry->position == 1ull << 63);
  assert_int_equal(entry->event_time_ms, 0x010203040506);
  assert_true(entry->has_event_hash);
  assert_true(entry->event_hash == 0x0908070605040302);
  assert_int_equal(entry->item_id_size, 2);
  assert_memory_equal(entry->item_id, "bc", 2);
  assert_false(sequence.entries[0].has_event_hash);
  assert_int_equal(sequence.entries[2].event_time_ms, 6);

  struct m2se_sequence_span span = m2se_sequence_latest(&sequence, 2);
  assert_true(span.first == 1 && span.count == 2);
  span = m2se_sequence_latest(&sequence, 50);
  assert_true(span.first == 0 && span.count == 3);
  span = m2se_sequence_context(&sequence, 7, 11, 50);
  assert_true(span.first == 0 && span.count == 2);
  span = m2se_sequence_context(&sequence, 7, 11, 1);
  assert_true(span.first == 1 && span.count == 1);
  span = m2se_sequence_context(&sequence, 7, 10, 50);
  assert_true(span.count == 0);
  span = m2se_sequence_context(&sequence, 7, 12, 50); /* a duplicate, left out */
  assert_true(span.first == 0 && span.count == 3);
  span = m2se_sequence_context(&sequence, 3, 1, 50);
  assert_true(span.count == 3);
  assert_int_equal(m2se_sequence_find(&sequence, 7, 11), 2);
  assert_int_equal(m2se_sequence_find(&sequence, 9, 11), 3);
  assert_int_equal(m2se_sequence_find(&sequence, 7, 5), 3);

  assert_int_equal(m2se_sequence_parse(&sequence, NULL, 0, &error), 0);
  assert_int_equal(sequence.entry_count, 0);
}

static void check_damage(size_t at, uint8_t value, const char *complaint) {
  static struct m2se_sequence sequence;
  uint8_t copy[sizeof sample];
  memcpy(copy, sample, sizeof sample);
  copy[at] = value;
  struct m2se_error error = {0};
  assert_int_equal(m2se_sequence_parse(&sequence, copy, sizeof copy, &error), M2SE_EFORMAT);
  if (!strstr(error.text, complaint))
    fail_msg("byte %zu = %u: %s", at, value, error.text);
  assert_int_equal(sequence.entry_count, 0);
}

static void test_damaged(void **state) {
  (void)state;
  check_damage(0, 2, "version 2");
  check_damage(1, 255, "too few for 255 partitions");
  check_damage(2, 200, "more than 1024");
  check_damage(3, 2, "behind the last entry");
  check_damage(3, 4, "entry 3");
  check_damage(7, 96, "header says 96");
  check_damage(8, 255, "partition 0");
  check_damage(11, 9, "twice");
  check_damage(19, 11, "position"); /* next of partition 7 */
  check_damage(32, 2, "flags");
  check_damage(33, 2, "not in the header");
  check_damage(41, 11, "position"); /* the third entry must come after */
  check_damage(48, 0, "1 to 128");
  check_damage(48, 129, "1 to 128");
  check_damage(93, 2, "cut");
  for (size_t size = 1; size < sizeof sample; size++) {
    static struct m2se_sequence sequence;
    uint8_t *cut =
        malloc(size); /* exactly as long, so that a read behind it is noticed by AddressSanitizer */
    assert_non_null(cut);
    memcpy(cut, sample, size);
    if (size >= 8)
      cut[7] = (uint8_t)size;
    assert_int_equal(m2se_sequence_parse(&sequence, cut, size, NULL), M2SE_EFORMAT);
    free(cut);
  }
}

/* ---- the reference: every entry ever, and what the rules of sequence.h say ---- */
enum { USERS = 6, ENTRIES = 4000, KEEP = 20, LENGTH = 12, ID_MAX = 16 };

struct entry {
  int32_t partition;
  uint64_t position;
  uint64_t hash; /* 0: none */
  char id[ID_MAX];
};
struct user {
  struct entry entries[ENTRIES];
  uint32_t count;
};
struct event {
  uint32_t user;
  struct entry entry;
  int64_t time_ms;
  enum m2se_sequence_outcome outcome; /* the first time */
  uint32_t context_begin, context_count;
};

static uint64_t random_state;
static uint32_t random_below(uint32_t n) { /* splitmix64 */
  uint64_t z = random_state += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return (uint32_t)((z ^ z >> 31) >> 32) % n;
}

static void reference_apply(struct user *user, struct event *event) {
  uint32_t begin = user->count < KEEP ? 0 : user->count - KEEP;
  event->outcome = M2SE_SEQUENCE_NEW;
  for (uint32_t i = begin; i < user->count; i++)
    if (event->entry.hash && user->entries[i].hash == event->entry.hash)
      event->outcome = M2SE_SEQUENCE_DUPLICATE;
  event->context_count = user->count < LENGTH ? user->count : LENGTH;
  event->context_begin = user->count - event->context_count;
  if (event->outcome == M2SE_SEQUENCE_NEW)
    user->entries[user->count++] = event->entry;
}

/* ---- a run: events go to Redis, answers are compared as they come ---- */
struct run {
  struct redis_rig rig;
  struct m2se_sequencer *sequencer;
  struct user *users;
  uint32_t answered, wrong;
  uint32_t outcomes[3];
};
struct pending {
  struct run *run;
  struct event *event;
  bool replay;
};

static bool same_entry(const struct m2se_sequence_entry *got, const struct entry *wanted) {
  return got->partition == wanted->partition && got->position == wanted->position &&
         got->has_event_hash == (wanted->hash != 0) && (!wanted->hash || got->event_hash == wanted->hash) &&
         got->item_id_size == strlen(wanted->id) && !memcmp(got->item_id, wanted->id, got->item_id_size);
}

static void complain(struct run *run, const struct event *event, const char *what) {
  if (run->wrong++ < 5)
    print_message("user %u, partition %d, position %llu: %s\n", event->user, event->entry.partition,
                  (unsigned long long)event->entry.position, what);
}

static void on_result(void *context, const struct m2se_sequence_result *result) {
  struct pending *pending = context;
  struct run *run = pending->run;
  const struct event *event = pending->event;
  const struct user *user = &run->users[event->user];
  run->answered++;
  if (result->status) {
    complain(run, event, result->error);
    free(pending);
    return;
  }
  run->outcomes[result->outcome]++;
  /* What was sent again after a lost answer comes back as a replay: but for that, the outcome is the
   * reference's. */
  bool as_wanted = result->outcome == event->outcome ||
                   (event->outcome == M2SE_SEQUENCE_NEW && result->outcome == M2SE_SEQUENCE_REPLAY);
  if (!as_wanted || (pending->replay && result->outcome == M2SE_SEQUENCE_NEW))
    complain(run, event, "the outcome differs");
  struct m2se_sequence_span span =
      m2se_sequence_context(result->sequence, event->entry.partition, event->entry.position, LENGTH);
  if (span.count != event->context_count)
    complain(run, event, "the context has another length");
  else
    for (uint32_t i = 0; i < span.count; i++)
      if (!same_entry(&result->sequence->entries[span.first + i], &user->entries[event->context_begin + i]))
        complain(run, event, "the context differs");
  if (event->outcome == M2SE_SEQUENCE_NEW) {
    uint32_t found = m2se_sequence_find(result->sequence, event->entry.partition, event->entry.position);
    if (found == result->sequence->entry_count ||
        !same_entry(&result->sequence->entries[found], &event->entry) ||
        result->sequence->entries[found].event_time_ms != event->time_ms)
      complain(run, event, "its entry is not there, or differs");
  }
  free(pending);
}

static void send_event(struct run *run, struct event *event, bool replay, uint64_t durable_position) {
  struct pending *pending = malloc(sizeof *pending);
  assert_non_null(pending);
  *pending = (struct pending){run, event, replay};
  char user_id[16];
  snprintf(user_id, sizeof user_id, "user{%u}", event->user);
  const struct m2se_sequence_event given = {
      .user_id = user_id,
      .user_id_size = (uint32_t)strlen(user_id),
      .item_id = event->entry.id,
      .item_id_size = (uint32_t)strlen(event->entry.id),
      .partition = event->entry.partition,
      .position = event->entry.position,
      .event_time_ms = event->time_ms,
      .has_event_hash = event->entry.hash != 0,
      .event_hash = event->entry.hash,
      .durable_position = durable_position,
  };
  assert_int_equal(m2se_sequencer_apply(run->sequencer, &given, on_result, pending), 0);
}

static void run_connect(struct run *run, uint32_t keep, uint32_t ttl_seconds) {
  rig_connect(&run->rig, NULL, NULL);
  struct m2se_error error = {0};
  const struct m2se_sequencer_settings settings = {.prefix = "t:", .keep = keep, .ttl_seconds = ttl_seconds};
  if (m2se_sequencer_new(&run->sequencer, run->rig.redis, &settings, &error))
    fail_msg("%s", error.text);
}

static void run_close(struct run *run) {
  rig_close(&run->rig);
  m2se_sequencer_free(run->sequencer);
  run->sequencer = NULL;
}

static int set_up(void **state) {
  struct run *run = calloc(1, sizeof *run);
  assert_non_null(run);
  run->users = calloc(USERS, sizeof *run->users);
  assert_non_null(run->users);
  rig_start(&run->rig);
  *state = run;
  return 0;
}

static int tear_down(void **state) {
  struct run *run = *state;
  if (run->sequencer)
    run_close(run);
  rig_stop(&run->rig);
  free(run->users);
  free(run);
  return 0;
}

/* An event of this partition, with the position after *position, some left out; now and then with a hash used
 * before. */
static void make_event(struct event *event, uint32_t user, int32_t partition, uint64_t *position,
                       uint32_t number) {
  *position += 1 + (random_below(4) == 0 ? random_below(1000) : 0);
  if (random_below(200) == 0)
    *position = ((*position >> 48) + 1) << 48; /* a new log epoch */
  *event = (struct event){.user = user, .time_ms = (int64_t)number * 1000};
  event->entry.partition = partition;
  event->entry.position = *position;
  if (random_below(3) > 0)
    event->entry.hash = (uint64_t)user << 32 | (1 + number / 40 + random_below(30));
  snprintf(event->entry.id, ID_MAX, "i%u", random_below(100));
}

/* One partition (as Kafka's keys make it), crashes at any moment: what was not in a checkpoint comes again.
 */
static void test_crashes(void **state) {
  struct run *run = *state;
  enum { EVENTS = 6000 };
  static struct event events[EVENTS];
  random_state = 1;
  uint64_t position =
      (uint64_t)3 << 48 | 0x7fffffffff00; /* crosses into the sign bit of the offset's bytes */
  run_connect(run, KEEP, 1000);
  uint32_t next = 0, highest = 0, durable = 0, sent = 0;
  for (uint32_t crash = 0; crash < 60; crash++) {
    uint32_t end = next + 1 + random_below(400);
    for (; next < end && next < EVENTS; next++) {
      if (next == highest) {
        make_event(&events[next], random_below(USERS), 5, &position, next);
        reference_apply(&run->users[events[next].user], &events[next]);
        highest++;
      }
      uint64_t durable_position = durable < highest ? events[durable].entry.position : 0;
      send_event(run, &events[next], next < highest - 1, durable_position);
      sent++;
      if (random_below(100) == 0) { /* a checkpoint: of what has been answered */
        rig_run_until(&run->rig, &run->answered, sent);
        durable = next + 1 < highest ? next + 1 : highest;
      }
    }
    rig_run_until(&run->rig, &run->answered, sent);
    if (random_below(4) == 0) {
      run_close(run);
      run_connect(run, KEEP, 1000);
    }
    next = durable;
  }
  assert_int_equal(run->wrong, 0);
  assert_true(highest > 1000);
  assert_true(run->outcomes[M2SE_SEQUENCE_REPLAY] > 1000);
  assert_true(run->outcomes[M2SE_SEQUENCE_DUPLICATE] > 200);
}

/* A server that now and then refuses, forgets scripts, ends connections. First with several partitions a
 * user. When answers are lost with a connection, the events are sent again, and the place of a duplicate,
 * which has no entry, is known among its own partition's entries only: so then each user has one, as Kafka's
 * keys make it. */
static void test_refusals(void **state) {
  struct run *run = *state;
  enum { EVENTS = 6000, ONE_PARTITION_FROM = 2000 };
  static struct event events[EVENTS];
  random_state = 2;
  uint64_t positions[5] = {0};
  run_connect(run, KEEP, 0);
  for (uint32_t i = 0; i < EVENTS; i++) {
    uint32_t user = random_below(USERS), partition = i < ONE_PARTITION_FROM ? random_below(5) : user % 5;
    make_event(&events[i], user, (int32_t)partition, &positions[partition], i);
    reference_apply(&run->users[user], &events[i]);
    send_event(run, &events[i], false, 0); /* what is in flight may go out again after a lost connection */
    if (i % 200 == 199) {
      /* Out of memory for a moment, while the pipeline is full: some are refused and others behind them are
       * not. */
      rig_admin(&run->rig, "CONFIG SET maxmemory 1");
      rig_run_ms(&run->rig, random_below(3));
      rig_admin(&run->rig, "CONFIG SET maxmemory 0");
      if (i % 1000 == 999 && i > ONE_PARTITION_FROM)
        rig_admin(&run->rig, "CLIENT KILL TYPE normal");
      if (i % 600 == 599)
        rig_admin(&run->rig, "SCRIPT FLUSH");
    }
    if (i % 2000 == 1999)
      rig_run_until(&run->rig, &run->answered, i + 1);
  }
  rig_run_until(&run->rig, &run->answered, EVENTS);
  assert_int_equal(run->wrong, 0);
  struct m2se_redis_status status;
  m2se_redis_get_status(run->rig.redis, &status);
  assert_true(status.connects > 1);
  assert_true(status.resent > 0);
  assert_true(status.replies[M2SE_REDIS_CLASS_ALARM] + status.replies[M2SE_REDIS_CLASS_RETRY] > 0);
}

/* ---- single rules of the script ---- */
struct last {
  uint32_t answered, failed, outcomes[3];
  uint32_t entry_count, partition_count;
  char error[256];
};

static void on_last(void *context, const struct m2se_sequence_result *result) {
  struct last *last = context;
  last->answered++;
  if (result->status) {
    last->failed++;
    snprintf(last->error, sizeof last->error, "%s", result->error);
    return;
  }
  last->outcomes[result->outcome]++;
  last->entry_count = result->sequence->entry_count;
  last->partition_count = result->sequence->partition_count;
}

static void apply(struct run *run, struct last *last, int32_t partition, uint64_t position, uint64_t hash,
                  uint64_t durable_position) {
  const struct m2se_sequence_event event = {.user_id = "u",
                                            .user_id_size = 1,
                                            .item_id = "item",
                                            .item_id_size = 4,
                                            .partition = partition,
                                            .position = position,
                                            .event_time_ms = 1,
                                            .has_event_hash = hash != 0,
                                            .event_hash = hash,
                                            .durable_position = durable_position};
  assert_int_equal(m2se_sequencer_apply(run->sequencer, &event, on_last, last), 0);
}

static void test_lengths(void **state) {
  struct run *run = *state;
  run_connect(run, 10, 0);
  struct last last = {0};
  for (uint32_t i = 0; i < 100; i++)
    apply(run, &last, 0, i, 0, UINT64_MAX);
  rig_run_until(&run->rig, &last.answered, 100);
  assert_in_range(last.entry_count, 10, 17);
  assert_string_equal(rig_admin(&run->rig, "TTL t:seq:u"), "-1");
  for (uint32_t i = 100; i < 1500; i++)
    apply(run, &last, 0, i, 0, 100);
  rig_run_until(&run->rig, &last.answered, 1500);
  assert_int_equal(last.entry_count, M2SE_SEQUENCE_ENTRIES_MAX);
  for (uint32_t i = 1500; i < 1508; i++)
    apply(run, &last, 0, i, 0, 1490);
  rig_run_until(&run->rig, &last.answered, 1508);
  assert_in_range(last.entry_count, 28, 35);
  assert_int_equal(last.outcomes[M2SE_SEQUENCE_NEW], 1508);
  assert_int_equal(last.failed, 0);
}

static void test_time_to_live(void **state) {
  struct run *run = *state;
  run_connect(run, 10, 500);
  struct last last = {0};
  const uint64_t hashes[] = {7, 7, 0};
  for (uint32_t i = 0; i < 3; i++) { /* new, duplicate, and below: replay; each renews it */
    apply(run, &last, 0, i < 2 ? i : 0, hashes[i], 0);
    rig_run_until(&run->rig, &last.answered, i + 1);
    assert_in_range(strtoul(rig_admin(&run->rig, "TTL t:seq:u"), NULL, 10), 490, 500);
    rig_admin(&run->rig, "EXPIRE t:seq:u 100");
  }
  assert_true(last.outcomes[0] == 1 && last.outcomes[1] == 1 && last.outcomes[2] == 1);
}

static void test_duplicates(void **state) {
  struct run *run = *state;
  run_connect(run, 10, 0);
  struct last last = {0};
  apply(run, &last, 0, 100, 77, 0);
  apply(run, &last, 0, 105, 77, 0); /* duplicate */
  apply(run, &last, 1, 50, 77, 0);  /* also from another partition */
  apply(run, &last, 0, 105, 77, 0); /* replayed: a duplicate again */
  apply(run, &last, 0, 100, 77, 0); /* replayed: the original is none */
  apply(run, &last, 0, 106, 0, 0);
  rig_run_until(&run->rig, &last.answered, 6);
  assert_true(last.outcomes[0] == 2 && last.outcomes[1] == 1 && last.outcomes[2] == 3);
  assert_int_equal(last.entry_count, 2);
  assert_int_equal(last.partition_count, 2);
}

static void test_many_partitions(void **state) {
  struct run *run = *state;
  run_connect(run, 400, 0);
  struct last last = {0};
  for (int32_t i = 0; i < 255; i++)
    apply(run, &last, i * 1000000, 5, 0, 0);
  apply(run, &last, 7, 5, 0, 0); /* the 256th: the oldest entry and its partition give way */
  rig_run_until(&run->rig, &last.answered, 256);
  assert_int_equal(last.failed, 0);
  assert_int_equal(last.partition_count, 255);
  assert_int_equal(last.entry_count, 255);
  apply(run, &last, 7, 5, 0, 0);
  apply(run, &last, 1000000, 5, 0, 0);
  rig_run_until(&run->rig, &last.answered, 258);
  assert_int_equal(last.outcomes[M2SE_SEQUENCE_REPLAY], 2);
  assert_int_equal(last.outcomes[M2SE_SEQUENCE_NEW], 256);
}

static void set_blob(struct run *run, const void *blob, size_t size) {
  redisReply *reply = redisCommand(run->rig.admin, "SET t:seq:u %b", blob, size);
  assert_non_null(reply);
  assert_string_equal(reply->str, "OK");
  freeReplyObject(reply);
}

static void test_damaged_in_redis(void **state) {
  struct run *run = *state;
  run_connect(run, 1, 0);
  static const struct {
    size_t at;
    uint8_t value;
    const char *complaint;
  } cases[] = {
      {0, 9, "version 9"}, {7, 94, "header says 94"}, {32, 3, "breaks the layout"}, {48, 100, "breaks"}};
  struct last last = {0};
  for (uint32_t i = 0; i < 4; i++) {
    uint8_t copy[sizeof sample];
    memcpy(copy, sample, sizeof sample);
    copy[cases[i].at] = cases[i].value;
    set_blob(run, copy, sizeof copy);
    apply(run, &last, 7, 3, 0, 0); /* a replay looks at all entries */
    rig_run_until(&run->rig, &last.answered, i + 1);
    assert_int_equal(last.failed, i + 1);
    if (!strstr(last.error, cases[i].complaint))
      fail_msg("%s", last.error);
    redisReply *reply = redisCommand(run->rig.admin, "GET t:seq:u");
    assert_non_null(reply);
    assert_int_equal(reply->len, sizeof copy);
    assert_memory_equal(reply->str, copy, sizeof copy);
    freeReplyObject(reply);
  }
  set_blob(run, "", 0);
  apply(run, &last, 7, 3, 0, 0);
  set_blob(run, "\1\0\0", 3);
  apply(run, &last, 7, 3, 0, 0);
  rig_run_until(&run->rig, &last.answered, 6);
  rig_admin(&run->rig, "DEL t:seq:u");
  rig_admin(&run->rig, "HSET t:seq:u a b");
  apply(run, &last, 7, 3, 0, 0);
  rig_run_until(&run->rig, &last.answered, 7);
  assert_non_null(strstr(last.error, "WRONGTYPE"));
  assert_int_equal(last.failed, 7);
}

/* A key that goes away while events of its user are on their way must not stop the line. */
static void test_erased_in_flight(void **state) {
  struct run *run = *state;
  run_connect(run, 10, 0);
  struct last last = {0};
  for (uint32_t i = 0; i < 100; i++) {
    const struct m2se_redis_argument unlink_key[] = {{"UNLINK", 6}, {"t:seq:u", 7}};
    apply(run, &last, 0, i, 0, 0);
    if (i % 10 == 9)
      assert_int_equal(m2se_redis_send(run->rig.redis, unlink_key, 2, NULL, NULL), 0);
  }
  rig_run_until(&run->rig, &last.answered, 100);
  assert_int_equal(last.failed, 0);
  assert_int_equal(last.outcomes[M2SE_SEQUENCE_NEW], 100);
}

/* The script's guard: behind an unanswered event of the same user that has not been applied, the next one
 * must wait. */
static void check_guard(struct run *run, char first, const char *after, size_t after_size,
                        const char *wanted) {
  redisReply *reply = redisCommand(
      run->rig.admin, "EVAL %s 1 t:seq:g %b %b %b %b %b item %b 10 0 %b %b", m2se_lua_sequence, &first,
      (size_t)1, "\0\0\0\1", (size_t)4, "\0\0\0\0\0\0\0\5", (size_t)8, "\0\0\0\0\0\0\0\6", (size_t)8,
      "\0\0\0\0\0\0", (size_t)6, "", (size_t)0, "\0\0\0\0\0\0\0\0", (size_t)8, after, after_size);
  assert_non_null(reply);
  if (wanted)
    assert_memory_equal(reply->str, wanted, strlen(wanted));
  else
    assert_int_equal(reply->type, REDIS_REPLY_ARRAY);
  freeReplyObject(reply);
}

static void test_guard(void **state) {
  struct run *run = *state;
  static const char before[] = "\0\0\0\1\0\0\0\0\0\0\0\4", elsewhere[] = "\0\0\0\2\0\0\0\0\0\0\0\4";
  check_guard(run, '0', before, 12, "TRYAGAIN");
  check_guard(run, '0', elsewhere, 12, "TRYAGAIN");
  assert_string_equal(rig_admin(&run->rig, "EXISTS t:seq:g"), "0");
  check_guard(run, '1', before, 12, NULL); /* the one before has been answered, whatever became of it */
  check_guard(run, '0', before, 12, NULL); /* next is 6 now */
  check_guard(run, '0', elsewhere, 12, "TRYAGAIN");
  check_guard(run, '0', "", 0, NULL);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  int status = rig_check_server();
  if (status)
    return status;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_parse),
      cmocka_unit_test(test_damaged),
      WITH_SERVER(test_crashes),
      WITH_SERVER(test_refusals),
      WITH_SERVER(test_lengths),
      WITH_SERVER(test_time_to_live),
      WITH_SERVER(test_duplicates),
      WITH_SERVER(test_many_partitions),
      WITH_SERVER(test_damaged_in_redis),
      WITH_SERVER(test_erased_in_flight),
      WITH_SERVER(test_guard),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
