/* What the HTTP server answers. Texts of the status are made when somebody asks, once for each status. */
#include <stdlib.h>
#include <string.h>

#include "daemon/http.h"
#include "daemon/http_metrics.h"
#include "daemon/http_page.h"
#include "daemon/loop_state.h"
#include "daemon/status_json.h"
#include "model/files/json.h"

enum { TRY_AGAIN_SECONDS = 5 };

struct m2sed_loop_http {
  struct m2sed_http *server;
  bool listening;
  uint32_t seconds;             /* without listening */
  uint64_t metrics_of, json_of; /* number of the status that these texts show */
  struct m2sed_text metrics;
  char *json;
  size_t json_size;
};

static const char json_type[] = "application/json", protobuf_type[] = "application/x-protobuf";

/* ---- what can be asked ---- */

static void answer(struct m2sed_http_exchange *exchange, const char *type, const void *body, size_t size) {
  m2sed_http_answer(exchange, &(struct m2sed_http_answer){200, type, body, size});
}

static void no_memory(struct m2sed_http_exchange *exchange) {
  m2sed_http_answer_text(exchange, 500, "out of memory\n");
}

static void answer_readyz(const struct m2se_status *status, struct m2sed_http_exchange *exchange) {
  if (status->state == M2SE_STATE_RUNNING && !status->reason_count) {
    m2sed_http_answer_text(exchange, 200, "ready\n");
    return;
  }
  struct m2sed_text text = {0};
  m2sed_text_add(&text, "%s\n", m2se_state_name(status->state));
  for (uint32_t i = 0; i < status->reason_count; i++)
    m2sed_text_add(&text, "%s\n", status->reasons[i]);
  m2sed_http_answer_text(exchange, 503, text.failed ? "out of memory\n" : text.data);
  m2sed_text_free(&text);
}

static void answer_metrics(struct m2sed_loop_http *http, const struct m2se_status *status, uint64_t number,
                           struct m2sed_http_exchange *exchange) {
  if (http->metrics_of != number) {
    m2sed_text_clear(&http->metrics);
    m2sed_metrics_write(&http->metrics, status);
    http->metrics_of = http->metrics.failed ? 0 : number;
  }
  if (http->metrics_of)
    answer(exchange, M2SED_METRICS_TYPE, http->metrics.data, http->metrics.size);
  else
    no_memory(exchange);
}

static void answer_json(struct m2sed_loop_http *http, const struct m2se_status *status, uint64_t number,
                        struct m2sed_http_exchange *exchange) {
  if (http->json_of != number) {
    struct m2se_json_writer *writer = m2se_json_writer_new(0);
    m2se_json_put_object(writer, NULL);
    m2sed_status_put_json(writer, status);
    m2se_json_put_end(writer);
    free(http->json);
    http->json = m2se_json_finish(writer, &http->json_size);
    http->json_of = http->json ? number : 0;
  }
  if (http->json_of)
    answer(exchange, json_type, http->json, http->json_size);
  else
    no_memory(exchange);
}

static void answer_protobuf(struct m2sed_loop *loop, const struct m2se_status *status,
                            struct m2sed_http_exchange *exchange) {
  const void *bytes;
  size_t size;
  if (m2se_status_encode(status, &loop->status_arena, &bytes, &size))
    no_memory(exchange);
  else
    answer(exchange, protobuf_type, bytes, size);
}

static void on_request(void *context, const struct m2sed_http_request *request,
                       struct m2sed_http_exchange *exchange) {
  struct m2sed_loop *loop = context;
  uint64_t number;
  const struct m2se_status *status = m2sed_status_newest(loop, &number);
  if (request->path == M2SED_HTTP_LIVEZ)
    m2sed_http_answer_text(exchange, 200, "alive\n");
  else if (request->path == M2SED_HTTP_PAGE)
    answer(exchange, "text/html; charset=utf-8", m2sed_http_page, strlen(m2sed_http_page));
  else if (!status)
    m2sed_http_answer_text(exchange, 503, "starting\n");
  else if (request->path == M2SED_HTTP_READYZ)
    answer_readyz(status, exchange);
  else if (request->path == M2SED_HTTP_METRICS)
    answer_metrics(loop->http, status, number, exchange);
  else if (request->path == M2SED_HTTP_STATUS && request->protobuf)
    answer_protobuf(loop, status, exchange);
  else if (request->path == M2SED_HTTP_STATUS)
    answer_json(loop->http, status, number, exchange);
  else if (loop->phase == M2SED_PHASE_STANDBY)
    m2sed_http_answer_text(exchange, 503, "standby\n");
  else
    m2sed_loop_recommend(loop, request, exchange);
}

/* ---- start and end ---- */

static void on_worked(void *context, double ms) {
  m2sed_status_count_turn(context, ms);
}

static void listen_now(struct m2sed_loop *loop) {
  struct m2se_error error = {0};
  struct m2sed_loop_http *http = loop->http;
  http->seconds = 0;
  http->listening = m2sed_http_start(http->server, &error) == 0;
  if (http->listening)
    M2SED_LOG(loop->log, INFO, "HTTP is there", M2SED_S("address", m2sed_http_address(http->server)));
  else
    M2SED_LOG(loop->log, ERROR, "no HTTP, trying again", M2SED_S("why", error.text));
}

int m2sed_loop_http_new(struct m2sed_loop *loop, struct m2se_error *error) {
  if (!loop->config->http_listen[0] || loop->http) /* a standby has it already */
    return 0;
  loop->http = calloc(1, sizeof *loop->http);
  if (!loop->http || m2sed_recommendations_new(loop))
    return m2se_error_set(error, M2SE_ENOMEM, "the HTTP server");
  const struct m2sed_http_settings settings = {
      .listen = loop->config->http_listen, .handler = on_request, .worked = on_worked, .context = loop};
  int code = m2sed_http_new(&loop->http->server, m2sed_loop_uv(loop), &settings, error);
  if (!code)
    listen_now(loop);
  return code;
}

void m2sed_loop_http_second(struct m2sed_loop *loop) {
  struct m2sed_loop_http *http = loop->http;
  if (!http || loop->phase == M2SED_PHASE_CLOSED)
    return;
  m2sed_recommendations_expire(loop, false);
  if (!http->listening && ++http->seconds >= TRY_AGAIN_SECONDS)
    listen_now(loop);
}

void m2sed_loop_http_stop(struct m2sed_loop *loop) {
  if (!loop->http || !loop->http->server)
    return;
  m2sed_recommendations_expire(loop, true);
  m2sed_http_stop(loop->http->server);
}

void m2sed_loop_http_free(struct m2sed_loop *loop) {
  struct m2sed_loop_http *http = loop->http;
  if (!http)
    return;
  m2sed_http_free(http->server);
  m2sed_recommendations_free(loop);
  m2sed_text_free(&http->metrics);
  free(http->json);
  free(http);
}
