// What strangers may ask of the HTTP server, and how the status looks to Prometheus.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/http_metrics.h"
#include "daemon/http_request.h"

static unsigned parse(struct m2sed_http_request *request, const char *target) {
  unsigned refusal = 200;
  const char *why = m2sed_http_parse_target(request, target, &refusal);
  assert_int_equal(why != NULL, refusal != 200);
  return refusal;
}

static void paths(void **state) {
  struct m2sed_http_request request;
  (void)state;
  const struct {
    const char *target;
    enum m2sed_http_path path;
  } good[] = {{"/", M2SED_HTTP_PAGE},
              {"/?x", M2SED_HTTP_PAGE},
              {"/metrics", M2SED_HTTP_METRICS},
              {"/livez", M2SED_HTTP_LIVEZ},
              {"/readyz?", M2SED_HTTP_READYZ},
              {"/status", M2SED_HTTP_STATUS},
              {"/status?t=1", M2SED_HTTP_STATUS}};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    assert_int_equal(parse(&request, good[i].target), 200);
    assert_int_equal(request.path, good[i].path);
  }
  const char *unknown[] = {
      "",  "status",     "//",          "/statu",         "/status/",  "/Status",           "/metricsx",
      "*", "/recommend", "/recommend/", "/recommend/a/b", "/%73tatus", "http://host/status"};
  for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
    assert_int_equal(parse(&request, unknown[i]), 404);
}

static void users(void **state) {
  struct m2sed_http_request request;
  (void)state;
  assert_int_equal(parse(&request, "/recommend/42"), 200);
  assert_string_equal(request.user, "42");
  assert_int_equal(request.best, 10);
  assert_int_equal(parse(&request, "/recommend/a%20b%2Fc%3fd+%c3%A9%25?k=7"), 200);
  assert_string_equal(request.user, "a b/c?d+é%");
  assert_int_equal(request.user_size, 11);
  assert_int_equal(request.best, 7);

  char longest[16 + 3 * M2SE_ID_BYTES_MAX + 4] = "/recommend/";
  for (int i = 0; i < M2SE_ID_BYTES_MAX; i++)
    memcpy(longest + strlen(longest), "%41", 4);
  assert_int_equal(parse(&request, longest), 200);
  assert_int_equal(request.user_size, M2SE_ID_BYTES_MAX);
  memcpy(longest + strlen(longest), "A", 2);
  assert_int_equal(parse(&request, longest), 400);

  const char *bad[] = {"/recommend/%",    "/recommend/a%4", "/recommend/%g1",
                       "/recommend/%1g",  "/recommend/%00", "/recommend/a%0A",
                       "/recommend/\x7f", "/recommend/%ff", "/recommend/%c2%80"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    assert_int_equal(parse(&request, bad[i]), 400);
}

static void queries(void **state) {
  struct m2sed_http_request request;
  (void)state;
  assert_int_equal(parse(&request, "/recommend/u?k=100"), 200);
  assert_int_equal(request.best, 100);
  assert_int_equal(parse(&request, "/recommend/u?k=001"), 200);
  assert_int_equal(request.best, 1);
  assert_int_equal(parse(&request, "/recommend/u?"), 200);
  assert_int_equal(request.best, 10);
  const char *bad[] = {"k",    "k=",  "k=0", "k=101",  "k=-1", "k=1&k=2",
                       "k=1x", "K=1", "n=1", "k=0001", "k=1?", "k=%31"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    char target[64] = "/recommend/u?";
    memcpy(target + strlen(target), bad[i], strlen(bad[i]) + 1);
    assert_int_equal(parse(&request, target), 400);
  }
}

static void accept(void **state) {
  (void)state;
  const char *protobuf[] = {"application/x-protobuf",
                            "application/protobuf",
                            "Application/VND.google.protobuf",
                            "text/html, application/x-protobuf;q=0.9",
                            "application/json;q=0.5,application/x-protobuf; Q=0.51",
                            "application/json; q=0, application/x-protobuf ;charset=x; q=0.001",
                            " ,, \tapplication/x-protobuf\t",
                            "*/*;q=0.1, application/x-protobuf"};
  const char *json[] = {"",
                        "*/*",
                        "application/json",
                        "application/x-protobuf;q=0",
                        "application/x-protobuf;q=0.0005, */*;q=0.001",
                        "application/x-protobuf, application/json",
                        "application/x-protobuf, */*",
                        "application/x-protobuffer",
                        "x application/x-protobuf",
                        "text/html",
                        "application/x-protobuf;q=0.2, application/*;q=0.3",
                        ";",
                        ",",
                        "application/x-protobuf;q="};
  assert_false(m2sed_http_prefers_protobuf(NULL));
  for (size_t i = 0; i < sizeof protobuf / sizeof protobuf[0]; i++)
    assert_true(m2sed_http_prefers_protobuf(protobuf[i]));
  for (size_t i = 0; i < sizeof json / sizeof json[0]; i++)
    assert_false(m2sed_http_prefers_protobuf(json[i]));
}

static void metrics(void **state) {
  const double bounds[] = {1, 1000};
  const uint64_t counts[] = {3, 4, 5};
  const struct m2se_status_freshness freshness = {
      .stage = "vector", .sum_ms = 1500, .bound_ms = bounds, .count = counts, .bound_count = 2};
  const struct m2se_status_partition partition = {.topic = "a\"b\\c\nd", .partition = 7, .lag = 12};
  const struct m2se_status status = {.state = M2SE_STATE_RUNNING,
                                     .freshness = &freshness,
                                     .freshness_count = 1,
                                     .partitions = &partition,
                                     .partition_count = 1,
                                     .events = {.received = UINT64_MAX, .trained = 9},
                                     .training = {.step_ms = 250, .loss = 0.5},
                                     .redis = {.connected = true},
                                     .prequential = {.model = {.hr10 = 0.25}, .popularity = {.hr10 = 0.125}}};
  struct m2sed_text text = {0};
  (void)state;
  m2sed_metrics_write(&text, &status);
  assert_false(text.failed);
  const char *lines[] = {"\nm2sed_received_total 18446744073709551615\n", /* exact */
                         "\nm2sed_events_total{outcome=\"trained\"} 9\n",
                         "\nm2sed_step_seconds 0.25\n",
                         "\nm2sed_loss 0.5\n",
                         "\nm2sed_redis_connected 1\n",
                         "\nm2sed_state{state=\"running\"} 1\n",
                         "\nm2sed_state{state=\"paused\"} 0\n",
                         "\nm2sed_hr10{ranker=\"model\"} 0.25\n",
                         "\nm2sed_hr10{ranker=\"popularity\"} 0.125\n",
                         "\nm2sed_partition_lag_records{topic=\"a\\\"b\\\\c\\nd\",partition=\"7\"} 12\n",
                         "\nm2sed_freshness_seconds_bucket{stage=\"vector\",le=\"0.001\"} 3\n",
                         "\nm2sed_freshness_seconds_bucket{stage=\"vector\",le=\"1\"} 7\n",
                         "\nm2sed_freshness_seconds_bucket{stage=\"vector\",le=\"+Inf\"} 12\n",
                         "\nm2sed_freshness_seconds_sum{stage=\"vector\"} 1.5\n",
                         "\nm2sed_freshness_seconds_count{stage=\"vector\"} 12\n"};
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
    assert_non_null(strstr(text.data, lines[i]));
  m2sed_text_free(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(paths), cmocka_unit_test(users),
                                     cmocka_unit_test(queries), cmocka_unit_test(accept),
                                     cmocka_unit_test(metrics)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
