// Interactions as producers may write them: protobuf, JSON, Confluent's frame, and everything that is
// refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec_rig.h"
#include "ingest/codec.h"
#include "proto/m2se.pb-c.h"

#define TIME_MS INT64_C(1700000000123)
enum { NO_RECORD_TIME = -1 };

static struct m2se_arena arena;
static struct m2se_interaction decoded;

static int make_arena(void **state) {
  (void)state;
  return m2se_arena_new(&arena, M2SE_INTERACTION_ARENA_BYTES);
}

static int free_arena(void **state) {
  (void)state;
  m2se_arena_free(&arena);
  return 0;
}

static int decode(const void *value, size_t size, int64_t record_time_ms, struct m2se_refusal *refusal) {
  uint8_t *copy = exact_copy(value, size);
  int code = m2se_interaction_decode(&decoded, &arena, copy, size, record_time_ms, refusal);
  destroy_copy(copy, size);
  return code;
}

static void accept(const void *value, size_t size) {
  struct m2se_refusal refusal = {.text = ""};
  int code = decode(value, size, NO_RECORD_TIME, &refusal);
  if (code)
    fail_msg("refused: %s", refusal.text);
}

static void refuse(const void *value, size_t size, enum m2se_rule rule, const char *why) {
  struct m2se_refusal refusal;
  check_refusal(decode(value, size, NO_RECORD_TIME, &refusal), &refusal, rule, why);
  assert_int_equal(decode(value, size, NO_RECORD_TIME, NULL), M2SE_EFORMAT); // who cares not why
}

static void check_decoded(const char *user, const char *item, const char *event, const char *kind) {
  check_bytes(decoded.user_id, user);
  check_bytes(decoded.item_id, item);
  check_bytes(decoded.event_id, event);
  check_bytes(decoded.kind, kind);
  assert_true(decoded.event_time_ms == TIME_MS);
}

/* protobuf-c's own bytes. */
static size_t pack(uint8_t *out, const char *user, const char *item, int64_t time_ms) {
  M2se__V1__Interaction message = M2SE__V1__INTERACTION__INIT;
  message.user_id = (char *)(uintptr_t)user;
  message.item_id = (char *)(uintptr_t)item;
  message.event_time_ms = time_ms;
  return m2se__v1__interaction__pack(&message, out);
}

/* ---- protobuf ---- */

static void test_protobuf(void **state) {
  (void)state;
  M2se__V1__Interaction message = M2SE__V1__INTERACTION__INIT;
  message.user_id = (char *)(uintptr_t) "u\xC3\xA4 1";
  message.item_id = (char *)(uintptr_t) "film-7";
  message.event_id = (char *)(uintptr_t) "e/1";
  message.kind = (char *)(uintptr_t) "view";
  message.event_time_ms = TIME_MS;
  uint8_t value[256], own[256];
  size_t size = m2se__v1__interaction__pack(&message, value);
  accept(value, size);
  check_decoded("u\xC3\xA4 1", "film-7", "e/1", "view");
  assert_int_equal(m2se_interaction_encode(&decoded, own, sizeof own), size);
  assert_memory_equal(own, value, size);
  own[0] = 0xEE;
  assert_int_equal(m2se_interaction_encode(&decoded, own, size - 1), size); // no room: nothing is written
  assert_int_equal(own[0], 0xEE);
  assert_int_equal(m2se_interaction_encode(&decoded, NULL, 0), size);

  accept(value, pack(value, "u", "i", TIME_MS));
  check_decoded("u", "i", "", "");
}

/* Every beginning of a message is decoded or refused, and none is taken for the whole. */
static void test_cut_protobuf(void **state) {
  (void)state;
  uint8_t value[64];
  size_t size = pack(value, "user", "item", TIME_MS);
  for (size_t i = 0; i < size; i++)
    assert_int_equal(decode(value, i, NO_RECORD_TIME, NULL), M2SE_EFORMAT);
}

static void test_fields_of_protobuf(void **state) {
  (void)state;
  uint8_t value[512];
  size_t size = pack(value, "u", "i", TIME_MS);
  // Unknown fields of every type: number 100 as varint, fixed64, bytes (no text), fixed32.
  static const uint8_t unknown[] = "\xA0\x06\x96\x01"
                                   "\xA1\x06\x01\x02\x03\x04\x05\x06\x07\x08"
                                   "\xA2\x06\x03\xFF\x00\xFF"
                                   "\xA5\x06\x01\x02\x03\x04";
  memcpy(value + size, unknown, sizeof unknown - 1);
  accept(value, size + sizeof unknown - 1);
  check_decoded("u", "i", "", "");
  memcpy(value + size, "\x0A\x02u2", 4); // the last of several counts
  accept(value, size + 4);
  check_decoded("u2", "i", "", "");

  static const struct {
    const char *bytes;
    size_t size;
    enum m2se_rule rule;
    const char *why;
  } broken[] = {
      {"\x08\x01", 2, M2SE_RULE_FORMAT, "a field of another type"},      // user_id as a number
      {"\x1A\x01x", 3, M2SE_RULE_FORMAT, "a field of another type"},     // event_time_ms as a string
      {"\x19\1\2\3\4\5\6\7\10", 9, M2SE_RULE_FORMAT, "of another type"}, // and as fixed64
      {"\x0A\x01\xFF", 3, M2SE_RULE_TEXT, "user_id: not valid UTF-8"},
      {"\x2A\x02\xC3\x28", 4, M2SE_RULE_TEXT, "kind: not valid UTF-8"},
      {"\x0A\x02u\0", 4, M2SE_RULE_TEXT, "user_id: holds a NUL"},
      {"\x0A\x05u", 3, M2SE_RULE_FORMAT, "Interaction: broken at byte 13"}, // longer than the message
      {"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 11, M2SE_RULE_FORMAT, "broken at byte 13"},
      {"\x18\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 12, M2SE_RULE_FORMAT, "broken at byte 13"},
      {"\x00\x01", 2, M2SE_RULE_FORMAT, "broken at byte 13"},                 // field 0
      {"\xA3\x06\xA4\x06", 4, M2SE_RULE_FORMAT, "broken at byte 13"},         // a group
      {"\xF8\xFF\xFF\xFF\x7F\x01", 6, M2SE_RULE_FORMAT, "broken at byte 13"}, // a field number over 2^29
      {"\xA0", 1, M2SE_RULE_FORMAT, "broken at byte 13"},
      {"\xA1\x06\x01\x02", 4, M2SE_RULE_FORMAT, "broken at byte 13"},
  };
  for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
    size = pack(value, "u", "i", TIME_MS);
    memcpy(value + size, broken[i].bytes, broken[i].size);
    refuse(value, size + broken[i].size, broken[i].rule, broken[i].why);
  }
}

static void test_memory(void **state) {
  (void)state;
  // Two bytes a field, and protobuf-c keeps every unknown one.
  static uint8_t value[M2SE_INTERACTION_BYTES_MAX];
  size_t size = pack(value, "u", "i", TIME_MS);
  for (; size + 2 <= sizeof value; size += 2)
    memcpy(value + size, "\x30\x01", 2);
  refuse(value, size, M2SE_RULE_MEMORY, "decoding takes more than 262144 bytes");
  accept(value, pack(value, "u", "i", TIME_MS)); // the arena is good again
}

/* ---- JSON ---- */

static void test_json(void **state) {
  (void)state;
  static const char *const same[] = {
      "{\"user_id\":\"\xC3\xA4\",\"item_id\":\"i\",\"event_time_ms\":1700000000123,\"event_id\":\"e\","
      "\"kind\":\"buy\"}",
      "{\"userId\":\"\\u00e4\",\"itemId\":\"\\u0069\",\"eventTimeMs\":\"1700000000123\",\"eventId\":\"e\","
      "\"kind\":\"buy\"}",
      " \t\r\n{ \"kind\" : \"buy\" , \"item_id\" : \"i\", \"userId\":\"\xC3\xA4\", \"event_id\":\"e\",\n"
      "\"event_time_ms\" : 1.700000000123e12 }\r\n",
      // unknown names, and a few of protobuf's own
      "{\"user_id\":\"\xC3\xA4\",\"item_id\":\"i\",\"event_time_ms\":1700000000123,\"event_id\":\"e\","
      "\"kind\":\"buy\",\"price\":1.5,\"userid\":7,\"\":null,\"page\":{\"a\":[[[{\"b\":[1,2]}]]]},\"x\":[]}",
  };
  for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
    accept(same[i], strlen(same[i]));
    check_decoded("\xC3\xA4", "i", "e", "buy");
  }
  const char *plain = "{\"user_id\":\"u\",\"item_id\":\"i\",\"event_time_ms\":1700000000123,\"kind\":null}";
  accept(plain, strlen(plain));
  check_decoded("u", "i", "", "");
  for (size_t i = 0; i < strlen(plain); i++) // every beginning is refused
    assert_int_equal(decode(plain, i, NO_RECORD_TIME, NULL), M2SE_EFORMAT);
}

static void test_refused_json(void **state) {
  (void)state;
  static const struct {
    const char *members;
    enum m2se_rule rule;
    const char *why;
  } broken[] = {
      {"\"user_id\":7", M2SE_RULE_FORMAT, "user_id: whole number where a string is needed"},
      {"\"user_id\":[\"u\"]", M2SE_RULE_FORMAT, "user_id: array"},
      {"\"user_id\":true", M2SE_RULE_FORMAT, "user_id: bool"},
      {"\"user_id\":null", M2SE_RULE_ID, "user_id: missing or empty"},
      {"\"user_id\":\"u\",\"userId\":\"u\"", M2SE_RULE_FORMAT, "both user_id and userId"},
      {"\"user_id\":\"u\",\"user_id\":\"u\"", M2SE_RULE_FORMAT, "line 1"},
      {"\"user_id\":\"\\u0000\"", M2SE_RULE_FORMAT, "line 1"},
      {"\"user_id\":\"\xFF\"", M2SE_RULE_FORMAT, "line 1"},
      {"\"user_id\":\"\\ud800\"", M2SE_RULE_FORMAT, "line 1"},
      {"\"user_id\":\"a\\tb\"", M2SE_RULE_ID, "user_id: control character U+0009"},
      {"\"user_id\":\"u\",\"event_time_ms\":\"soon\"", M2SE_RULE_FORMAT, "event_time_ms: \"soon\""},
      {"\"user_id\":\"u\",\"event_time_ms\":\"\"", M2SE_RULE_FORMAT, "event_time_ms"},
      {"\"user_id\":\"u\",\"event_time_ms\":1.5", M2SE_RULE_FORMAT, "event_time_ms: 1.5"},
      {"\"user_id\":\"u\",\"event_time_ms\":false", M2SE_RULE_FORMAT, "event_time_ms: bool"},
      {"\"user_id\":\"u\",\"event_time_ms\":{}", M2SE_RULE_FORMAT, "event_time_ms: object"},
      {"\"user_id\":\"u\",\"event_time_ms\":9223372036854775808", M2SE_RULE_FORMAT, "line 1"},
      {"\"user_id\":\"u\",\"event_time_ms\":\"9223372036854775808\"", M2SE_RULE_FORMAT, "64 bits"},
      {"\"user_id\":\"u\",\"x\":NaN", M2SE_RULE_FORMAT, "line 1"},
      {"\"user_id\":\"u\",", M2SE_RULE_FORMAT, "line 1"},
      {"\"user_id\":\"u\"} {\"x\":1", M2SE_RULE_FORMAT, "line 1"},
      {"\"user_id\":\"u\",\"x\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
       M2SE_RULE_MEMORY, "nested more than 32"},
  };
  for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
    char text[512];
    int size = snprintf(text, sizeof text, "{\"item_id\":\"i\",%s}", broken[i].members);
    refuse(text, (size_t)size, broken[i].rule, broken[i].why);
  }
  refuse("{}", 2, M2SE_RULE_ID, "user_id: missing");
}

/* ---- frames, and which format ---- */

static void check_frame(const char *front, size_t front_size, const void *payload, size_t size) {
  uint8_t value[512];
  memcpy(value, front, front_size);
  memcpy(value + front_size, payload, size);
  accept(value, front_size + size);
  check_decoded("u", "i", "", "");
}

static void test_frame(void **state) {
  (void)state;
  uint8_t packed[64];
  size_t size = pack(packed, "u", "i", TIME_MS);
  const char *json = "{\"user_id\":\"u\",\"item_id\":\"i\",\"event_time_ms\":1700000000123}";
  const char *spaced = "\n {\"user_id\":\"u\",\"item_id\":\"i\",\"event_time_ms\":1700000000123}";
  check_frame("\0\0\0\0\x07\0", 6, packed, size);                          // the first message
  check_frame("\0\0\0\0\x07\x02\x04", 7, packed, size);                    // [2]
  check_frame("\0\xFF\xFF\xFF\xFF\x06\x02\x80\x01\x04", 10, packed, size); // [1, 64, 2]
  check_frame("\0\0\0\0\x07", 5, json, strlen(json));
  check_frame("\0\0\0\0\x07", 5, spaced, strlen(spaced));
  static const struct {
    const char *bytes;
    size_t size;
    enum m2se_rule rule;
    const char *why;
  } broken[] = {
      {"\0", 1, M2SE_RULE_FORMAT, "a Confluent frame of only 1 bytes"},
      {"\0\0\0\0\x07", 5, M2SE_RULE_FORMAT, "a Confluent frame of only 5 bytes"},
      {"\0\0\0\0\x07\0", 6, M2SE_RULE_ID, "user_id: missing"},
      {"\0\0\0\0\x07\x01\x02", 7, M2SE_RULE_FORMAT, "a broken message index"}, // a negative count
      {"\0\0\0\0\x07\x22\x02", 7, M2SE_RULE_FORMAT, "a broken message index"}, // one of 17
      {"\0\0\0\0\x07\x04\x02", 7, M2SE_RULE_FORMAT, "a broken message index"}, // one of two
      {"\0\0\0\0\x07\x02\x80", 7, M2SE_RULE_FORMAT, "a broken message index"},
      {"\0\0\0\0\x07\x02\x80\x80\x80\x80\x80\x01", 12, M2SE_RULE_FORMAT, "a broken message index"},
      {"\0\0\0\0\x07\x80\x01\x02", 8, M2SE_RULE_FORMAT, "a broken message index"},
      {"\0\0\0\0\x07\0\0\0\0\0\x07\0", 12, M2SE_RULE_FORMAT, "broken at byte 0"}, // a frame in a frame
      {"\0\0\0\0\x07{\"user_id\"}", 16, M2SE_RULE_FORMAT, "line 1"},
      {"\0\0\0\0\x07\n{\"user_id\"}", 17, M2SE_RULE_FORMAT, "line 2"},
  };
  uint8_t many[5 + 1 + 64 + sizeof packed] = {0, 0, 0, 0, 7, 0x80}; // as if 64 indexes followed
  memset(many + 6, 2, 64);
  memcpy(many + 70, packed, size);
  refuse(many, 70 + size, M2SE_RULE_FORMAT, "a broken message index");
  for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
    refuse(broken[i].bytes, broken[i].size, broken[i].rule, broken[i].why);
}

/* A line feed is also the tag of user_id, and a brace or a blank may be its length. */
static void test_line_feed(void **state) {
  (void)state;
  char user[M2SE_ID_BYTES_MAX + 1];
  uint8_t value[512];
  // Lengths that are a brace or a blank, and an id that starts with a brace: protobuf all the same.
  static const uint8_t lengths[] = {'{', ' ', '\n', '\r', '\t'};
  for (size_t i = 0; i < sizeof lengths; i++) {
    memset(user, '{', sizeof user);
    user[lengths[i]] = 0;
    size_t size = pack(value, user, "i", TIME_MS);
    assert_int_equal(value[0], '\n');
    assert_int_equal(value[1], lengths[i]);
    accept(value, size);
    check_decoded(user, "i", "", "");
  }
  // JSON of a length that protobuf would take as one id of 123 bytes.
  const char *json =
      "\n{\"user_id\":\"u\",\"item_id\":\"i\",\"event_time_ms\":1700000000123,\"more\":\"%*s\"}";
  int size = snprintf((char *)value, sizeof value, json, 125 - 70, "");
  assert_int_equal(size, 125);
  accept(value, (size_t)size);
  check_decoded("u", "i", "", "");
  // It is JSON, so what is wrong is said of JSON.
  refuse("\n{\"user_id\":7}", 14, M2SE_RULE_FORMAT, "user_id: whole number");
  refuse("\n{\"user_id\":", 12, M2SE_RULE_FORMAT, "Interaction");
  refuse(" {\"user_id\":", 12, M2SE_RULE_FORMAT, "line 1");
}

static void test_neither(void **state) {
  (void)state;
  static const char *const values[] = {"u,i,1700000000123", "[{\"user_id\":\"u\"}]", "\"u\"", "null",
                                       "\xEF\xBB\xBF{\"user_id\":\"u\",\"item_id\":\"i\"}"};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
    refuse(values[i], strlen(values[i]), M2SE_RULE_FORMAT, "Interaction");
  static const char *const blanks[] = {" ", "\n", "\r\n\t "};
  for (size_t i = 0; i < sizeof blanks / sizeof blanks[0]; i++)
    refuse(blanks[i], strlen(blanks[i]), M2SE_RULE_FORMAT, "Interaction");
}

/* ---- the rules ---- */

static void test_size(void **state) {
  (void)state;
  struct m2se_refusal refusal;
  assert_int_equal(m2se_interaction_decode(&decoded, &arena, NULL, 0, TIME_MS, &refusal), M2SE_EFORMAT);
  assert_int_equal(refusal.rule, M2SE_RULE_SIZE);
  refuse("", 0, M2SE_RULE_SIZE, "an empty value");

  size_t size = M2SE_INTERACTION_BYTES_MAX;
  char *text = malloc(size + 2);
  assert_non_null(text);
  int length =
      snprintf(text, size, "{\"user_id\":\"u\",\"item_id\":\"i\",\"event_time_ms\":1700000000123,\"x\":\"");
  memset(text + length, 'x', size + 1 - (size_t)length);
  memcpy(text + size - 2, "\"}", 2);
  accept(text, size);
  check_decoded("u", "i", "", "");
  memcpy(text + size - 2, "x\"}", 3);
  refuse(text, size + 1, M2SE_RULE_SIZE, "65537 bytes, at most 65536");
  free(text);
}

static void test_ids(void **state) {
  (void)state;
  uint8_t value[512];
  char id[M2SE_ID_BYTES_MAX + 2];
  memset(id, 'x', sizeof id);
  id[M2SE_ID_BYTES_MAX] = 0;
  accept(value, pack(value, id, id, TIME_MS));
  check_decoded(id, id, "", "");
  id[M2SE_ID_BYTES_MAX] = 'x';
  id[M2SE_ID_BYTES_MAX + 1] = 0;
  refuse(value, pack(value, id, "i", TIME_MS), M2SE_RULE_ID, "user_id: 129 bytes, at most 128");
  refuse(value, pack(value, "u", id, TIME_MS), M2SE_RULE_ID, "item_id: 129 bytes");
  refuse(value, pack(value, "", "i", TIME_MS), M2SE_RULE_ID, "user_id: missing");
  refuse(value, pack(value, "u", "", TIME_MS), M2SE_RULE_ID, "item_id: missing");
  refuse(value, pack(value, "u", "i\x7F", TIME_MS), M2SE_RULE_ID, "item_id: control character U+007F");
  size_t size = pack(value, "u", "i", TIME_MS);
  memcpy(value + size, "\x22\x01\x1F", 3);
  refuse(value, size + 3, M2SE_RULE_ID, "event_id: control character U+001F");
  memcpy(value + size, "\x2A\x01\n", 3);
  refuse(value, size + 3, M2SE_RULE_ID, "kind: control character U+000A");
}

static void test_time(void **state) {
  (void)state;
  uint8_t value[64];
  struct m2se_refusal refusal;
  assert_int_equal(decode(value, pack(value, "u", "i", 5), TIME_MS, NULL), 0); // its own time goes first
  assert_true(decoded.event_time_ms == 5);
  size_t size = pack(value, "u", "i", 0);
  assert_int_equal(decode(value, size, TIME_MS, NULL), 0); // else the record's
  assert_true(decoded.event_time_ms == TIME_MS);
  static const char *const without[] = {"{\"user_id\":\"u\",\"item_id\":\"i\"}",
                                        "{\"user_id\":\"u\",\"item_id\":\"i\",\"event_time_ms\":0}",
                                        "{\"user_id\":\"u\",\"item_id\":\"i\",\"eventTimeMs\":\"0\"}",
                                        "{\"user_id\":\"u\",\"item_id\":\"i\",\"event_time_ms\":null}"};
  for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
    assert_int_equal(decode(without[i], strlen(without[i]), TIME_MS, NULL), 0);
    assert_true(decoded.event_time_ms == TIME_MS);
    refuse(without[i], strlen(without[i]), M2SE_RULE_TIME, "missing, and the record has no timestamp");
  }
  assert_int_equal(decode(value, size, 0, &refusal), M2SE_EFORMAT);
  assert_int_equal(refusal.rule, M2SE_RULE_TIME);
  assert_int_equal(decode(value, size, M2SE_EVENT_TIME_MS_MAX + 1, &refusal), M2SE_EFORMAT);
  assert_int_equal(refusal.rule, M2SE_RULE_TIME);
  // A wrong time is not mended by the record's.
  size = pack(value, "u", "i", -TIME_MS);
  assert_int_equal(decode(value, size, TIME_MS, &refusal), M2SE_EFORMAT);
  assert_string_equal(refusal.text, "event_time_ms: -1700000000123 is out of range");
  accept(value, pack(value, "u", "i", M2SE_EVENT_TIME_MS_MAX));
  refuse(value, pack(value, "u", "i", M2SE_EVENT_TIME_MS_MAX + 1), M2SE_RULE_TIME, "is out of range");
  refuse(value, pack(value, "u", "i", INT64_MIN), M2SE_RULE_TIME, "is out of range");
}

static void test_arena(void **state) {
  (void)state;
  struct m2se_arena small;
  assert_int_equal(m2se_arena_new(&small, 100), 0);
  uint8_t *first = m2se_arena_take(&small, 1), *second = m2se_arena_take(&small, 80);
  assert_true(first == small.data && second == first + 16);
  assert_null(m2se_arena_take(&small, 5));
  assert_null(m2se_arena_take(&small, SIZE_MAX));
  assert_non_null(m2se_arena_take(&small, 4)); // to the last byte
  assert_null(m2se_arena_take(&small, 1));
  assert_non_null(m2se_arena_take(&small, 0));
  m2se_arena_free(&small);
  m2se_arena_free(&small);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_protobuf), cmocka_unit_test(test_cut_protobuf),
      cmocka_unit_test(test_memory),   cmocka_unit_test(test_fields_of_protobuf),
      cmocka_unit_test(test_json),     cmocka_unit_test(test_refused_json),
      cmocka_unit_test(test_frame),    cmocka_unit_test(test_line_feed),
      cmocka_unit_test(test_neither),  cmocka_unit_test(test_size),
      cmocka_unit_test(test_ids),      cmocka_unit_test(test_time),
      cmocka_unit_test(test_arena),
  };
  return cmocka_run_group_tests(tests, make_arena, free_arena);
}
