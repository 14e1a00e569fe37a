// Settings: parsing, rules, errors, environment, printing, and the documentation in configs/m2sed.yaml.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/config.h"

static struct m2sed_config config;
static struct m2se_error error;

static int parse(const char *text) {
  m2sed_config_defaults(&config);
  memset(&error, 0, sizeof error);
  return m2sed_config_parse(&config, text, strlen(text), "file.yaml", &error);
}

static void expect_refusal(const char *text, int code, const char *message) {
  if (parse(text) != code || strcmp(error.text, message) != 0)
    fail_msg("%s\ngave %d '%s', not %d '%s'", text, error.code, error.text, code, message);
}

static void test_values(void **state) {
  (void)state;
  assert_int_equal(parse("kafka:\n  brokers: a:1,b:2\n  start: latest\n"
                         "train: {batch: 64, learning_rate: 1e-2, item_bias: no, targets: last}\n"
                         "redis:\n  prefix: \"\"\nmodel:\n"),
                   0);
  assert_string_equal(config.kafka_brokers, "a:1,b:2");
  assert_int_equal(m2sed_config_start(&config), M2SED_START_LATEST);
  assert_int_equal(config.train_batch, 64);
  assert_true(config.train_learning_rate == 0.01);
  assert_false(config.train_item_bias);
  assert_int_equal(config.train_targets, M2SED_TARGETS_LAST);
  assert_string_equal(config.redis_prefix, "");
  assert_int_equal(config.model_hidden, 64); /* not named: its default */
  assert_int_equal(m2sed_config_check(&config, &error), 0);
}

static void test_empty_texts(void **state) {
  (void)state;
  assert_int_equal(parse(""), 0);
  assert_int_equal(parse("# nothing\n"), 0);
  assert_int_equal(parse("---\n"), 0);
  assert_int_equal(parse("{}"), 0);
}

static void test_properties(void **state) {
  (void)state;
  assert_int_equal(parse("kafka:\n  properties:\n    fetch.wait.max.ms: 10\n    sasl.password: 'a b'\n"), 0);
  assert_int_equal(config.kafka_property_count, 2);
  assert_string_equal(config.kafka_properties[0].name, "fetch.wait.max.ms");
  assert_string_equal(config.kafka_properties[0].value, "10");
  assert_string_equal(config.kafka_properties[1].value, "a b");
  assert_int_equal(m2sed_config_set(&config, "kafka.properties.sasl.password", "c", "here", &error), 0);
  assert_int_equal(config.kafka_property_count, 2);
  assert_string_equal(config.kafka_properties[1].value, "c");
}

static void test_refusals(void **state) {
  (void)state;
  expect_refusal("kafka:\n  broker: a:1\n", M2SE_EMISSING,
                 "file.yaml:2: kafka.broker: no such setting; the nearest is kafka.brokers");
  expect_refusal("train:\n  batch: 1\ntemperature: 2\n", M2SE_EMISSING,
                 "file.yaml:3: temperature: no such setting; the nearest is model.temperature");
  expect_refusal("train:\n  temperature: 2\n", M2SE_EMISSING,
                 "file.yaml:2: train.temperature: no such setting; the nearest is model.temperature");
  expect_refusal("train:\n  batch: 12.5\n", M2SE_ETYPE,
                 "file.yaml:2: train.batch: must be a whole number, not '12.5'");
  expect_refusal("train: {batch: -1}", M2SE_ETYPE,
                 "file.yaml:1: train.batch: must be a whole number, not '-1'");
  expect_refusal("train: {batch: 0}", M2SE_ERANGE, "file.yaml:1: train.batch: must be 1 to 65536");
  expect_refusal("train: {batch: 99999999999999999999}", M2SE_ERANGE,
                 "file.yaml:1: train.batch: must be 1 to 65536");
  expect_refusal("model: {temperature: nan}", M2SE_ETYPE,
                 "file.yaml:1: model.temperature: must be a number, not 'nan'");
  expect_refusal("model: {temperature: 1e400}", M2SE_ERANGE,
                 "file.yaml:1: model.temperature: must be 0.001 to 10");
  expect_refusal("train: {item_bias: maybe}", M2SE_ETYPE,
                 "file.yaml:1: train.item_bias: must be true or false, not 'maybe'");
  expect_refusal("log: {level: loud}", M2SE_ETYPE,
                 "file.yaml:1: log.level: must be one of debug|info|warn|error, not 'loud'");
  expect_refusal("kafka: {group: \"\"}", M2SE_ERANGE,
                 "file.yaml:1: kafka.group: must be 1 to 249 bytes long");
  expect_refusal("kafka: {group: \"a\\tb\"}", M2SE_ETYPE, "file.yaml:1: kafka.group: has control characters");
  expect_refusal("kafka:\n  group: a\n  group: b\n", M2SE_EFORMAT, "file.yaml:3: kafka.group: comes twice");
  expect_refusal("kafka:\n  group:\n", M2SE_EFORMAT,
                 "file.yaml:2: kafka.group: has no value (write \"\" for an empty one)");
  expect_refusal("kafka:\n  group: [a]\n", M2SE_EFORMAT, "file.yaml:2: a list, where no setting takes one");
  expect_refusal("kafka: &a\n  group: b\n", M2SE_EFORMAT, "file.yaml:1: anchors and tags are not used here");
  expect_refusal("kafka:\n  group: *a\n", M2SE_EFORMAT, "file.yaml:2: anchors and tags are not used here");
  expect_refusal("hello", M2SE_EFORMAT, "file.yaml:1: sections are expected, such as \"kafka:\"");
  expect_refusal("a: {b: {c: {d: 1}}}", M2SE_EFORMAT, "file.yaml:1: nested too deep");
  expect_refusal("---\nkafka: {group: a}\n---\nkafka: {group: b}\n", M2SE_EFORMAT,
                 "file.yaml:3: a second document in one file");
  assert_int_equal(parse("kafka: {group: \x01}"), M2SE_EFORMAT);
  assert_int_equal(parse("kafka: [\n"), M2SE_EFORMAT);
  assert_int_equal(parse("kafka: {group: \"\\0\"}"), M2SE_EFORMAT);
}

static void expect_breach(const char *text, const char *start) {
  assert_int_equal(parse(text), 0);
  if (!m2sed_config_check(&config, &error) || strncmp(error.text, start, strlen(start)) != 0)
    fail_msg("%s gave '%s'", text, error.text);
}

static void test_checks(void **state) {
  (void)state;
  expect_breach("kafka: {start: sometimes}", "kafka.start: must be earliest, latest");
  expect_breach("kafka: {start: -5}", "kafka.start: must be");
  expect_breach("kafka: {items: interactions}", "kafka: two topics have the name 'interactions'");
  expect_breach("sequence: {keep: 50}", "sequence.keep: must be more than sequence.length (50)");
  expect_breach("model: {heads: 3}", "model.hidden: must be a multiple of model.heads (3)");
  expect_breach("redis: {prefix: 'a{b}'}", "redis.prefix");
  assert_int_equal(parse("kafka: {start: 1700000000000}"), 0);
  assert_int_equal(m2sed_config_check(&config, &error), 0);
  assert_int_equal(m2sed_config_start(&config), 1700000000000);
}

static void test_environment(void **state) {
  (void)state;
  m2sed_config_defaults(&config);
  char path[] = "PATH=/bin", cache[] = "M2SED_CACHE=x", brokers[] = "M2SED_KAFKA_BROKERS=z:9";
  char ratio[] = "M2SED_TRAIN_REPLAY_RATIO=1.5";
  char *good[] = {path, cache, brokers, ratio, NULL};
  assert_int_equal(m2sed_config_parse_environment(&config, good, &error), 0);
  assert_string_equal(config.kafka_brokers, "z:9");
  assert_true(config.train_replay_ratio == 1.5);
  char *unknown[] = {(char *)"M2SED_KAFKA_BROKER=z", NULL};
  assert_int_equal(m2sed_config_parse_environment(&config, unknown, &error), M2SE_EMISSING);
  assert_string_equal(
      error.text,
      "environment M2SED_KAFKA_BROKER: kafka.broker: no such setting; the nearest is kafka.brokers");
  char *wrong[] = {(char *)"M2SED_TRAIN_BATCH=many", NULL};
  assert_int_equal(m2sed_config_parse_environment(&config, wrong, &error), M2SE_ETYPE);
}

static void test_print_reads_back(void **state) {
  (void)state;
  assert_int_equal(parse("kafka: {group: 'it''s: \"q\" # \\ x', start: '-', properties: {a.b: '{c}', d: e,\n"
                         "  f: \"g\\n h\\t\\N\\L\\P\\x7f \"}}\n"
                         "redis: {uri: 'unix:///run/r.sock?db=1', prefix: ''}\n"
                         "train: {learning_rate: 0.1, replay_ratio: 0.30000000000000004, overload: shrink}\n"
                         "model: {seed: 1000000000000000}\n"),
                   0);
  char *text = m2sed_config_print(&config);
  struct m2sed_config *copy = malloc(sizeof *copy);
  assert_non_null(text);
  assert_non_null(copy);
  m2sed_config_defaults(copy);
  if (m2sed_config_parse(copy, text, strlen(text), "printed", &error))
    fail_msg("%s", error.text);
  assert_memory_equal(copy, &config, sizeof config);
  free(copy);
  free(text);
}

static void test_documentation(void **state) {
  (void)state;
  FILE *file = fopen(M2SED_TEST_SOURCE_DIR "/configs/m2sed.yaml", "rb");
  assert_non_null(file);
  static char documented[65536];
  size_t size = fread(documented, 1, sizeof documented - 1, file);
  fclose(file);
  documented[size] = 0;
  m2sed_config_defaults(&config);
  char *text = m2sed_config_print(&config);
  assert_string_equal(documented, text); /* else: m2sed --print-config > configs/m2sed.yaml */
  free(text);
  assert_int_equal(m2sed_config_check(&config, &error), 0);
}

static void test_load(void **state) {
  (void)state;
  char *none[] = {NULL};
  assert_int_equal(m2sed_config_load(&config, "/nonexistent/m2sed.yaml", none, &error), M2SE_EIO);
  assert_non_null(strstr(error.text, "/nonexistent/m2sed.yaml: "));
  assert_int_equal(m2sed_config_load(&config, M2SED_TEST_SOURCE_DIR "/configs/m2sed.yaml", none, &error), 0);
  assert_int_equal(m2sed_config_load(&config, NULL, none, &error), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_values),
      cmocka_unit_test(test_empty_texts),
      cmocka_unit_test(test_properties),
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_checks),
      cmocka_unit_test(test_environment),
      cmocka_unit_test(test_print_reads_back),
      cmocka_unit_test(test_documentation),
      cmocka_unit_test(test_load),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
