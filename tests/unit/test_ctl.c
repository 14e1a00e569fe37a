/* m2sectl's parts without servers: forms for people, the picture of a status, lines that become records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/ctl/produce_line.h"
#include "daemon/ctl/status_view.h"
#include "daemon/text.h"

/* ---- text ---- */

static void expect_text(struct m2sed_text *text, const char *wanted) {
  assert_false(text->failed);
  assert_string_equal(text->data ? text->data : "", wanted);
  assert_int_equal(text->size, strlen(wanted));
  m2sed_text_clear(text);
}

static void test_numbers(void **state) {
  (void)state;
  struct m2sed_text text = {0};
  const struct {
    uint64_t count;
    const char *wanted;
  } counts[] = {{0, "0"},
                {7, "7"},
                {999, "999"},
                {1000, "1,000"},
                {123456, "123,456"},
                {UINT64_MAX, "18,446,744,073,709,551,615"}};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    m2sed_text_add_count(&text, counts[i].count);
    expect_text(&text, counts[i].wanted);
  }
  const struct {
    uint64_t bytes;
    const char *wanted;
  } sizes[] = {{0, "0 B"},           {1023, "1023 B"},
               {1024, "1.0 KiB"},    {150 << 10, "150 KiB"},
               {3 << 20, "3.0 MiB"}, {UINT64_MAX, "16777216 TiB"}};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    m2sed_text_add_bytes_size(&text, sizes[i].bytes);
    expect_text(&text, sizes[i].wanted);
  }
  const struct {
    double seconds;
    const char *wanted;
  } spans[] = {{-3, "0.0s"},      {0, "0.0s"},      {59.94, "59.9s"},  {60, "1m 00s"},
               {3599, "59m 59s"}, {3723, "1h 02m"}, {90000, "1d 01h"}, {1e300, "?"}};
  for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
    m2sed_text_add_seconds(&text, spans[i].seconds);
    expect_text(&text, spans[i].wanted);
  }
  m2sed_text_add_time(&text, INT64_C(883612800999));
  expect_text(&text, "1998-01-01T00:00:00Z");
  m2sed_text_add_time(&text, INT64_MAX);
  assert_true(text.size > 0);
  m2sed_text_free(&text);
}

static void test_foreign(void **state) {
  (void)state;
  struct m2sed_text text = {0};
  const char odd[] = "a\x1b[2J\tb\x7f\xc2\x9b \xc3\xa9\xe2\x98\x82\0c\xc2";
  m2sed_text_add_foreign(&text, odd, sizeof odd - 1);
  expect_text(&text, "a?[2J?b?? \xc3\xa9\xe2\x98\x82?c?");
  m2sed_text_add_foreign(&text, "", 0);
  expect_text(&text, "");
  m2sed_text_free(&text);
}

static void test_bars(void **state) {
  (void)state;
  struct m2sed_text text = {0};
  m2sed_text_add_bars(&text, NULL, 0);
  expect_text(&text, "");
  m2sed_text_add_bars(&text, (const double[]){0, 0}, 2);
  expect_text(&text, "▁▁");
  m2sed_text_add_bars(&text, (const double[]){0, 0.001, 3.5, 7, -1}, 5);
  expect_text(&text, "▁▂▅█▁");
  m2sed_text_free(&text);
}

/* ---- status ---- */

static void test_fit(void **state) {
  (void)state;
  struct m2sed_text panel = {0}, out = {0};
  m2sed_status_fit(&out, &panel, 5, 5);
  expect_text(&out, "");
  m2sed_text_add(&panel, "abcdef\n▁▂▃▄▅▆\n\nlast");
  m2sed_status_fit(&out, &panel, 9, 5);
  expect_text(&out, "abcde\033[K\n▁▂▃▄▅\033[K\n\033[K\nlast\033[K\n");
  m2sed_status_fit(&out, &panel, 2, 100);
  expect_text(&out, "abcdef\033[K\n▁▂▃▄▅▆\033[K\n");
  m2sed_text_free(&panel);
  m2sed_text_free(&out);
}

static void test_history(void **state) {
  (void)state;
  struct m2sed_status_history history = {0};
  for (int second = 0; second < M2SED_STATUS_SECONDS + 5; second++) {
    const struct m2se_status status = {.events.per_second = second,
                                       .prequential.model_recent.hr10 = 0.001 * second};
    m2sed_status_remember(&history, &status);
  }
  assert_int_equal(history.count, M2SED_STATUS_SECONDS);
  for (uint32_t i = 0; i < history.count; i++) {
    assert_true(history.events_per_second[i] == i + 5);
    assert_true(history.hr10[i] == 0.001 * (i + 5));
  }
}

static void test_stale(void **state) {
  (void)state;
  const struct m2se_status status = {.time_ms = 1000000};
  assert_false(m2sed_status_is_stale(&status, 1000000 + M2SED_STATUS_STALE_MS));
  assert_true(m2sed_status_is_stale(&status, 1000001 + M2SED_STATUS_STALE_MS));
  assert_false(m2sed_status_is_stale(&status, 0)); /* the daemon's clock may be ahead of ours */
}

/* Everything zero, as of a daemon that has just begun: nothing is divided by it. */
static void test_empty_status(void **state) {
  (void)state;
  struct m2se_status status = {.instance = "x",
                               .version = "",
                               .blas_kernel = "",
                               .simd_kernel = "",
                               .redis.last_error = "",
                               .kafka.last_error = "",
                               .checkpoint.last_error = ""};
  const struct m2sed_status_history history = {0};
  const struct m2sed_status_view view = {.status = &status, .history = &history};
  struct m2sed_text text = {0};
  m2sed_status_add_panel(&text, &view);
  assert_non_null(strstr(text.data, "0 received"));
  assert_null(strstr(text.data, "nan"));
  assert_null(strstr(text.data, "left out"));
  m2sed_text_clear(&text);
  m2sed_status_add_line(&text, &view);
  assert_null(strchr(text.data, '\n'));
  m2sed_text_free(&text);
}

/* What an operator asks for at night: each count is on the panel once it is not zero. */
static void test_troubled_status(void **state) {
  (void)state;
  struct m2se_status status = {.instance = "x",
                               .version = "",
                               .blas_kernel = "",
                               .simd_kernel = "",
                               .redis.last_error = "",
                               .kafka.last_error = "",
                               .checkpoint.last_error = "",
                               .reasons = (const char *[]){"training steps are left out: the loss"},
                               .reason_count = 1,
                               .events = {.skipped_no_context = 11,
                                          .skipped_no_features = 12,
                                          .skipped_duplicate = 13,
                                          .skipped_guard = 14,
                                          .dead_lettered = 15,
                                          .skipped_erased = 16,
                                          .skipped_training_off = 17,
                                          .parked = 18,
                                          .unparked = 19,
                                          .parking_dropped = 20},
                               .training = {.waiting = 21,
                                            .backlog = 5000,
                                            .steps_refused = 22,
                                            .refused_in_a_row = 3,
                                            .rollbacks = 1,
                                            .replay_taken_away = 24},
                               .prequential.skipped = 25,
                               .features = {.items = 26, .pending = 27, .waiting = 28, .refused = 29}};
  const struct m2sed_status_view view = {.status = &status};
  struct m2sed_text text = {0};
  m2sed_status_add_panel(&text, &view);
  const char *wanted[] = {
      "! training steps are left out: the loss\n",
      "left out: 11 without context, 12 without features, 13 repeated, 14 guarded, 15 bad, "
      "16 of users to be forgotten, 17 while training was off\n",
      "parked: 18 wait for features of their items, for 19 they came, 20 given up\n",
      "21 waiting of at most 5,000   reservoir ",
      "guard       22 steps REFUSED   3 not well in a row   weights went back 1 time\n",
      "overload    24 replayed examples were left out to catch up\n",
      "(25 more skipped)\n",
      "features    26 items, 27 pending   28 texts and pictures wait, 29 refused\n"};
  for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
    if (!strstr(text.data, wanted[i]))
      fail_msg("'%s' is not in\n%s", wanted[i], text.data);
  m2sed_text_free(&text);
}

/* ---- lines ---- */

static int convert(struct m2sed_line_codec *codec, const char *line, struct m2sed_line_record *record,
                   struct m2se_refusal *refusal) {
  static char copy[4096];
  size_t size = strlen(line);
  assert_true(size < sizeof copy);
  memcpy(copy, line, size + 1);
  return m2sed_line_convert(codec, copy, size, 77, record, refusal);
}

/* What the daemon will make of a record. */
static void expect_interaction(const struct m2sed_line_record *record, const char *user, const char *item,
                               int64_t time_ms, const char *event_id, const char *kind) {
  struct m2se_arena arena;
  struct m2se_interaction interaction;
  assert_int_equal(m2se_arena_new(&arena, M2SE_INTERACTION_ARENA_BYTES), 0);
  assert_int_equal(m2se_interaction_decode(&interaction, &arena, record->value, record->value_size, 0, NULL),
                   0);
  assert_string_equal(interaction.user_id.data, user);
  assert_string_equal(interaction.item_id.data, item);
  assert_int_equal(interaction.event_time_ms, time_ms);
  assert_string_equal(interaction.event_id.data, event_id);
  assert_string_equal(interaction.kind.data, kind);
  assert_int_equal(record->key_size, strlen(user));
  assert_memory_equal(record->key, user, record->key_size);
  m2se_arena_free(&arena);
}

static void expect_refused(struct m2sed_line_codec *codec, const char *line, enum m2se_rule rule) {
  struct m2sed_line_record record;
  struct m2se_refusal refusal;
  assert_int_equal(convert(codec, line, &record, &refusal), M2SE_EFORMAT);
  assert_string_equal(m2se_rule_name(refusal.rule), m2se_rule_name(rule));
  assert_true(refusal.text[0] != '\0');
}

static void test_tsv(void **state) {
  (void)state;
  struct m2sed_line_codec codec = {.tsv = true};
  struct m2sed_line_record record;
  assert_int_equal(m2sed_line_codec_init(&codec), 0);
  assert_int_equal(convert(&codec, "u\ti\t5", &record, NULL), 0);
  expect_interaction(&record, "u", "i", 5, "", "");
  assert_int_equal(convert(&codec, "the user\tthe item\t253402300799999\te\tbuy", &record, NULL), 0);
  expect_interaction(&record, "the user", "the item", M2SE_EVENT_TIME_MS_MAX, "e", "buy");
  assert_int_equal(convert(&codec, "u\ti\t5\t\tview", &record, NULL), 0);
  expect_interaction(&record, "u", "i", 5, "", "view");
  expect_refused(&codec, "", M2SE_RULE_FORMAT);
  expect_refused(&codec, "u\ti", M2SE_RULE_FORMAT);
  expect_refused(&codec, "u\ti\t5\te\tk\t", M2SE_RULE_FORMAT);
  expect_refused(&codec, "u\ti\t", M2SE_RULE_TIME);
  expect_refused(&codec, "u\ti\t5.0", M2SE_RULE_TIME);
  expect_refused(&codec, "u\ti\t-5", M2SE_RULE_TIME);
  expect_refused(&codec, "u\ti\t9223372036854775808", M2SE_RULE_TIME);
  expect_refused(&codec, "\ti\t5", M2SE_RULE_ID);
  expect_refused(&codec, "u\t\x01\t5", M2SE_RULE_ID);
  expect_refused(&codec, "u\t\xff\t5", M2SE_RULE_TEXT);
  char nul[] = "u\ti\t5\0";
  struct m2se_refusal refusal;
  assert_int_equal(m2sed_line_convert(&codec, nul, sizeof nul - 1, 77, &record, &refusal), M2SE_EFORMAT);
  codec.now = true;
  assert_int_equal(convert(&codec, "u\ti\t5", &record, NULL), 0);
  expect_interaction(&record, "u", "i", 77, "", "");
  m2sed_line_codec_free(&codec);
}

static void test_json(void **state) {
  (void)state;
  struct m2sed_line_codec codec = {.tsv = false};
  struct m2sed_line_record record;
  assert_int_equal(m2sed_line_codec_init(&codec), 0);
  assert_int_equal(
      convert(&codec, "{\"user_id\":\"u\",\"item_id\":\"i\",\"event_time_ms\":5}", &record, NULL), 0);
  expect_interaction(&record, "u", "i", 5, "", "");
  /* Without a time: that of sending. */
  assert_int_equal(convert(&codec, "{\"user_id\":\"u\",\"item_id\":\"i\"}", &record, NULL), 0);
  expect_interaction(&record, "u", "i", 77, "", "");
  expect_refused(&codec, "{\"user_id\":\"u\"", M2SE_RULE_FORMAT);
  expect_refused(&codec, "{\"user_id\":\"u\"}", M2SE_RULE_ID);
  m2sed_line_codec_free(&codec);
}

static void test_items(void **state) {
  (void)state;
  struct m2sed_line_codec codec = {.items = true, .dim = 2};
  struct m2sed_line_record record;
  struct m2se_arena arena;
  struct m2se_item item;
  assert_int_equal(m2sed_line_codec_init(&codec), 0);
  assert_int_equal(m2se_arena_new(&arena, M2SE_ITEM_ARENA_BYTES), 0);
  /* base64 of 1.0f, -2.0f */
  assert_int_equal(convert(&codec,
                           "{\"item_id\":\"i\",\"title\":\"T\",\"texts\":[\"a\",\"b\"],"
                           "\"text_rows\":{\"dim\":2,\"data\":\"AACAPwAAAMA=\"}}",
                           &record, NULL),
                   0);
  assert_int_equal(m2se_item_decode(&item, &arena, record.value, record.value_size, 0, NULL), 0);
  assert_string_equal(item.item_id.data, "i");
  assert_string_equal(item.title.data, "T");
  assert_int_equal(item.text_count, 2);
  assert_int_equal(item.text_rows.count, 1);
  assert_true(item.text_rows.data[0] == 1 && item.text_rows.data[1] == -2);
  assert_int_equal(record.key_size, 1);
  assert_memory_equal(record.key, "i", 1);
  expect_refused(&codec, "{\"item_id\":\"i\",\"text_rows\":{\"dim\":1,\"data\":\"AACAPwAAAMA=\"}}",
                 M2SE_RULE_DIM);
  m2se_arena_free(&arena);
  m2sed_line_codec_free(&codec);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_numbers),      cmocka_unit_test(test_foreign),
      cmocka_unit_test(test_bars),         cmocka_unit_test(test_fit),
      cmocka_unit_test(test_history),      cmocka_unit_test(test_stale),
      cmocka_unit_test(test_empty_status), cmocka_unit_test(test_troubled_status),
      cmocka_unit_test(test_tsv),          cmocka_unit_test(test_json),
      cmocka_unit_test(test_items)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
