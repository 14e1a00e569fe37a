// Status both ways: every field of every list comes back, whatever is missing has its default, texts that
// other programs left broken stay readable.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "codec_rig.h"
#include "ingest/codec_status.h"
#include "proto/m2se.pb-c.h"

static struct m2se_arena arena, other;

static int make_arenas(void **state) {
  (void)state;
  int code = m2se_arena_new(&arena, M2SE_INTERACTION_ARENA_BYTES);
  return code ? code : m2se_arena_new(&other, M2SE_INTERACTION_ARENA_BYTES);
}

static int free_arenas(void **state) {
  (void)state;
  m2se_arena_free(&arena);
  m2se_arena_free(&other);
  return 0;
}

/* ---- a status in which no two fields are alike, and its comparison, from the same lists as the codec ----
 */

static uint64_t counter;
static char names[512][16];

static const char *next_name(void) {
  assert_true(counter < 512);
  snprintf(names[counter], sizeof names[counter], "n\xC3\xA4me %u", (unsigned)counter);
  return names[counter++];
}

// 64-bit numbers with a high and a low half, both signs
#define NEXT_uint64 (UINT64_MAX - counter++)
#define NEXT_int64 (INT64_MIN + (int64_t)counter++)
#define NEXT_uint32 (UINT32_MAX - (uint32_t)counter++)
#define NEXT_int32 (INT32_MIN + (int32_t)counter++)
#define NEXT_double (-1.0 / (double)(1 + counter++))
#define NEXT_bool true
#define NEXT_string next_name()
#define FILL(type, name) plain->name = NEXT_##type;

#define SAME_NUMBER(a, b) assert_true((a) == (b))
#define SAME_uint64 SAME_NUMBER
#define SAME_int64 SAME_NUMBER
#define SAME_uint32 SAME_NUMBER
#define SAME_int32 SAME_NUMBER
#define SAME_double SAME_NUMBER
#define SAME_bool SAME_NUMBER
#define SAME_string assert_string_equal
#define COMPARE(type, name) SAME_##type(plain->name, back->name);

#define PART(part, PART)                                                                                     \
  static void fill_##part(struct m2se_status_##part *plain) {                                                \
    M2SE_STATUS_##PART(FILL)                                                                                 \
  }                                                                                                          \
  static void compare_##part(const struct m2se_status_##part *plain,                                         \
                             const struct m2se_status_##part *back) {                                        \
    M2SE_STATUS_##PART(COMPARE)                                                                              \
  }
#define SINGLE_PARTS(X)                                                                                      \
  X(events, EVENTS)                                                                                          \
  X(training, TRAINING)                                                                                      \
  X(reservoir, RESERVOIR)                                                                                    \
  X(serving, SERVING)                                                                                        \
  X(redis, REDIS)                                                                                            \
  X(kafka, KAFKA)                                                                                            \
  X(checkpoint, CHECKPOINT)                                                                                  \
  X(catalogue, CATALOGUE)                                                                                    \
  X(process, PROCESS)                                                                                        \
  X(lease, LEASE)                                                                                            \
  X(features, FEATURES)
SINGLE_PARTS(PART)
PART(partition, PARTITION)
PART(refusals, REFUSALS)
PART(metrics, METRICS)
PART(freshness, FRESHNESS)

static const char *const reasons[] = {"catalogue is being read", "", "Redis says \xE2\x80\xA6"};
static struct m2se_status_partition partitions[2];
static struct m2se_status_refusals refused[3];
static struct m2se_status_freshness freshness[2];
static const double bounds[] = {0.5, 1, 1e6};
static const uint64_t counts[] = {1, 0, UINT64_MAX, 7};

static void fill(struct m2se_status *status) {
  counter = 0;
  *status = (struct m2se_status){.state = M2SE_STATE_DRAINING,
                                 .reasons = reasons,
                                 .reason_count = 3,
                                 .partitions = partitions,
                                 .partition_count = 2,
                                 .freshness = freshness,
                                 .freshness_count = 2};
  struct m2se_status *plain = status;
  M2SE_STATUS_STATUS(FILL)
#define FILL_MEMBER(part, PART) fill_##part(&status->part);
  SINGLE_PARTS(FILL_MEMBER)
  status->events.refused = refused;
  status->events.refused_count = 3;
  status->prequential.events = NEXT_uint64;
  status->prequential.skipped = NEXT_uint64;
#define FILL_METRICS(name) fill_metrics(&status->prequential.name);
  M2SE_STATUS_PREQUENTIAL(FILL_METRICS)
  for (int i = 0; i < 2; i++) {
    fill_partition(&partitions[i]);
    fill_freshness(&freshness[i]);
  }
  for (int i = 0; i < 3; i++)
    fill_refusals(&refused[i]);
  freshness[1].bound_ms = bounds; // the first has no histogram
  freshness[1].count = counts;
  freshness[1].bound_count = 3;
}

static void compare(const struct m2se_status *plain, const struct m2se_status *back) {
  M2SE_STATUS_STATUS(COMPARE)
  assert_int_equal(plain->state, back->state);
#define COMPARE_MEMBER(part, PART) compare_##part(&plain->part, &back->part);
  SINGLE_PARTS(COMPARE_MEMBER)
  assert_true(plain->prequential.events == back->prequential.events);
  assert_true(plain->prequential.skipped == back->prequential.skipped);
#define COMPARE_METRICS(name) compare_metrics(&plain->prequential.name, &back->prequential.name);
  M2SE_STATUS_PREQUENTIAL(COMPARE_METRICS)
  assert_int_equal(plain->reason_count, back->reason_count);
  for (uint32_t i = 0; i < plain->reason_count; i++)
    assert_string_equal(plain->reasons[i], back->reasons[i]);
  assert_int_equal(plain->partition_count, back->partition_count);
  for (uint32_t i = 0; i < plain->partition_count; i++)
    compare_partition(&plain->partitions[i], &back->partitions[i]);
  assert_int_equal(plain->events.refused_count, back->events.refused_count);
  for (uint32_t i = 0; i < plain->events.refused_count; i++)
    compare_refusals(&plain->events.refused[i], &back->events.refused[i]);
  assert_int_equal(plain->freshness_count, back->freshness_count);
  for (uint32_t i = 0; i < plain->freshness_count; i++) {
    const struct m2se_status_freshness *ours = &plain->freshness[i], *theirs = &back->freshness[i];
    compare_freshness(ours, theirs);
    assert_int_equal(ours->bound_count, theirs->bound_count);
    if (!ours->count)
      continue;
    assert_memory_equal(ours->bound_ms, theirs->bound_ms, ours->bound_count * sizeof(double));
    assert_memory_equal(ours->count, theirs->count, (ours->bound_count + 1) * sizeof(uint64_t));
  }
}

/* Encodes with one arena, decodes with the other. */
static void there_and_back(const struct m2se_status *status, struct m2se_status *back) {
  const void *bytes;
  size_t size;
  struct m2se_refusal refusal = {.text = ""};
  assert_int_equal(m2se_status_encode(status, &arena, &bytes, &size), 0);
  uint8_t *copy = exact_copy(bytes, size);
  int code = m2se_status_decode(back, &other, copy, size, &refusal);
  destroy_copy(copy, size);
  if (code)
    fail_msg("refused: %s", refusal.text);
}

/* ---- the tests ---- */

static void test_every_field(void **state) {
  (void)state;
  static struct m2se_status status, back;
  fill(&status);
  there_and_back(&status, &back);
  compare(&status, &back);
}

/* The lists of codec_status.h know every field of the messages: a field that the .proto gained and the list
 * did not would get lost without this. */
static void test_no_field_is_forgotten(void **state) {
  (void)state;
#define ONE(type, name) +1
  static const struct {
    const ProtobufCMessageDescriptor *descriptor;
    unsigned fields;
  } messages[] = {
      {&m2se__v1__status__descriptor, M2SE_STATUS_STATUS(ONE) + 16},
      {&m2se__v1__events__descriptor, M2SE_STATUS_EVENTS(ONE) + 1},
      {&m2se__v1__freshness__descriptor, M2SE_STATUS_FRESHNESS(ONE) + 2},
      {&m2se__v1__partition__descriptor, M2SE_STATUS_PARTITION(ONE)},
      {&m2se__v1__refusals__descriptor, M2SE_STATUS_REFUSALS(ONE)},
      {&m2se__v1__training__descriptor, M2SE_STATUS_TRAINING(ONE)},
      {&m2se__v1__reservoir__descriptor, M2SE_STATUS_RESERVOIR(ONE)},
      {&m2se__v1__serving__descriptor, M2SE_STATUS_SERVING(ONE)},
      {&m2se__v1__metrics__descriptor, M2SE_STATUS_METRICS(ONE)},
      {&m2se__v1__redis__descriptor, M2SE_STATUS_REDIS(ONE)},
      {&m2se__v1__kafka__descriptor, M2SE_STATUS_KAFKA(ONE)},
      {&m2se__v1__checkpoint__descriptor, M2SE_STATUS_CHECKPOINT(ONE)},
      {&m2se__v1__catalogue__descriptor, M2SE_STATUS_CATALOGUE(ONE)},
      {&m2se__v1__process__descriptor, M2SE_STATUS_PROCESS(ONE)},
      {&m2se__v1__lease__descriptor, M2SE_STATUS_LEASE(ONE)},
      {&m2se__v1__features__descriptor, M2SE_STATUS_FEATURES(ONE)},
#define ONE_METRICS(name) +1
      {&m2se__v1__prequential__descriptor, M2SE_STATUS_PREQUENTIAL(ONE_METRICS) + 2},
  };
  for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++)
    if (messages[i].descriptor->n_fields != messages[i].fields)
      fail_msg("%s: %u fields, the list has %u", messages[i].descriptor->name,
               messages[i].descriptor->n_fields, messages[i].fields);
}

/* Every state has its name and number in the .proto. */
static void test_states(void **state) {
  (void)state;
  static const char *const lower[] = {"unknown",  "starting", "running", "paused",
                                      "draining", "failed",   "standby"};
#define STATE_PAIR(name) {M2SE_STATE_##name, "STATE_" #name},
  static const struct {
    int value;
    const char *name;
  } states[] = {M2SE_STATES(STATE_PAIR)};
  assert_int_equal(m2se__v1__state__descriptor.n_values, sizeof states / sizeof states[0]);
  for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&m2se__v1__state__descriptor, (int)i);
    assert_non_null(value);
    assert_int_equal(states[i].value, i);
    assert_string_equal(value->name, states[i].name);
    assert_string_equal(m2se_state_name((enum m2se_state)i), lower[i]);
  }
  struct m2se_status back; // of a version that knows more
  assert_int_equal(m2se_status_decode(&back, &other, "\x40\x63", 2, NULL), 0);
  assert_string_equal(m2se_state_name(back.state), "unknown");
}

/* An empty message: zeros, and strings that can be printed. */
static void test_nothing(void **state) {
  (void)state;
  static struct m2se_status nothing, back;
  memset(&back, 0xEE, sizeof back);
  assert_int_equal(m2se_status_decode(&back, &other, "", 0, NULL), 0);
  assert_int_equal(back.reason_count + back.partition_count + back.freshness_count, 0);
  assert_int_equal(back.events.refused_count, 0);
  assert_string_equal(back.instance, "");
  assert_string_equal(back.redis.last_error, "");
  assert_string_equal(back.kafka.cluster_id, "");
  assert_string_equal(back.checkpoint.last_error, "");
  assert_true(back.training.loss == 0 && back.prequential.model_recent.mrr == 0);

  // What is NULL when it is written is "" when it is read.
  const char *const reason[] = {NULL};
  nothing.reasons = reason;
  nothing.reason_count = 1;
  there_and_back(&nothing, &back);
  assert_string_equal(back.reasons[0], "");
  assert_string_equal(back.lineage, "");
}

static void test_not_finite(void **state) {
  (void)state;
  static struct m2se_status status, back;
  status.training.loss = NAN;
  status.training.gradient_norm = -INFINITY;
  there_and_back(&status, &back);
  assert_true(isnan(back.training.loss) && back.training.gradient_norm == -INFINITY);
}

static void test_broken_texts(void **state) {
  (void)state;
  static struct m2se_status status, back;
  const char *const reason[] = {"ok", "\xFF\xFE", "cut \xE2\x80"};
  status.reasons = reason;
  status.reason_count = 3;
  status.instance = "\xC3\xA4\x80\xC3\xA4";
  status.redis.last_error = "ERR \xC3";
  there_and_back(&status, &back);
  assert_string_equal(back.reasons[0], "ok");
  assert_string_equal(back.reasons[1], "??");
  assert_string_equal(back.reasons[2], "cut ??");
  assert_string_equal(back.instance, "\xC3\xA4?\xC3\xA4");
  assert_string_equal(back.redis.last_error, "ERR ?");
}

static void test_refused(void **state) {
  (void)state;
  static struct m2se_status status, back;
  struct m2se_refusal refusal;
  static const struct {
    const char *bytes;
    size_t size;
    enum m2se_rule rule;
    const char *why;
  } broken[] = {
      {"\x0A\x01", 2, M2SE_RULE_FORMAT, "not a protobuf Status: broken at byte 0"},
      {"\x0A\x01\xFF", 3, M2SE_RULE_TEXT, "instance: not valid UTF-8"},
      {"\x5A\x02\x08", 3, M2SE_RULE_FORMAT, "not a protobuf Status"},
      {"\x5A\x04\x8A\x01\x01\x08", 6, M2SE_RULE_FORMAT, "not a protobuf Refusals"}, // three deep
      {"\x50\x01", 2, M2SE_RULE_FORMAT, "a field of another type"},
  };
  for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
    check_refusal(m2se_status_decode(&back, &other, broken[i].bytes, broken[i].size, &refusal), &refusal,
                  broken[i].rule, broken[i].why);

  // Every beginning, with reads past it seen by AddressSanitizer; where a field ends it is a Status with
  // less.
  fill(&status);
  const void *bytes;
  size_t size, good = 0;
  assert_int_equal(m2se_status_encode(&status, &arena, &bytes, &size), 0);
  for (size_t i = 0; i < size; i++) {
    uint8_t *copy = exact_copy(bytes, i);
    good += m2se_status_decode(&back, &other, copy, i, NULL) == 0;
    destroy_copy(copy, i);
  }
  assert_in_range(good, 20, 30);
}

/* A histogram whose lists don't fit together is none. */
static void test_histogram(void **state) {
  (void)state;
  M2se__V1__Freshness stage = M2SE__V1__FRESHNESS__INIT, *stages[] = {&stage};
  M2se__V1__Status message = M2SE__V1__STATUS__INIT;
  double bound_ms[] = {1, 2};
  uint64_t count[] = {3, 4, 5};
  uint8_t packed[128];
  struct m2se_status back;
  stage.bound_ms = bound_ms;
  stage.count = count;
  stage.n_bound_ms = 2;
  message.freshness = stages;
  message.n_freshness = 1;
  for (size_t n = 0; n <= 3; n++) {
    stage.n_count = n;
    assert_int_equal(
        m2se_status_decode(&back, &other, packed, m2se__v1__status__pack(&message, packed), NULL), 0);
    assert_int_equal(back.freshness[0].bound_count, n == 3 ? 2 : 0);
    assert_int_equal(back.freshness[0].count != NULL, n == 3);
  }
}

/* Hundreds of partitions fit; more than the arena holds is said, not written past. */
static void test_memory(void **state) {
  (void)state;
  enum { PARTITIONS = 400 };
  static struct m2se_status_partition many[8 * PARTITIONS];
  static struct m2se_status status, back;
  fill(&status);
  for (int i = 0; i < 8 * PARTITIONS; i++)
    many[i] =
        (struct m2se_status_partition){.topic = "interactions", .partition = i, .next_offset = INT64_MAX};
  status.partitions = many;
  status.partition_count = PARTITIONS;
  there_and_back(&status, &back);
  compare(&status, &back);
  const void *bytes;
  size_t size;
  status.partition_count = 8 * PARTITIONS;
  assert_int_equal(m2se_status_encode(&status, &arena, &bytes, &size), M2SE_ENOMEM);

  fill(&status);
  struct m2se_refusal refusal;
  int codes[2] = {M2SE_ENOMEM, M2SE_EFORMAT};
  for (size_t room = 1; (codes[0] || codes[1]) && room < 1 << 16; room += 16) {
    struct m2se_arena small;
    assert_int_equal(m2se_arena_new(&small, room), 0);
    codes[0] = m2se_status_encode(&status, &small, &bytes, &size);
    assert_true(codes[0] == 0 || codes[0] == M2SE_ENOMEM);
    assert_int_equal(m2se_status_encode(&status, &arena, &bytes, &size), 0);
    codes[1] = m2se_status_decode(&back, &small, bytes, size, &refusal);
    if (codes[1])
      check_refusal(codes[1], &refusal, M2SE_RULE_MEMORY, "decoding takes more than");
    else
      compare(&status, &back);
    m2se_arena_free(&small);
  }
  assert_int_equal(codes[0], 0);
  assert_int_equal(codes[1], 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_field), cmocka_unit_test(test_no_field_is_forgotten),
      cmocka_unit_test(test_states),      cmocka_unit_test(test_nothing),
      cmocka_unit_test(test_not_finite),  cmocka_unit_test(test_broken_texts),
      cmocka_unit_test(test_refused),     cmocka_unit_test(test_histogram),
      cmocka_unit_test(test_memory),
  };
  return cmocka_run_group_tests(tests, make_arenas, free_arenas);
}
