#include "daemon/http.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum { BACKLOG = 1024, SWEEP_MS = 1000, ADDRESS_BYTES = NI_MAXHOST + 16 };

/* One for each connection, made and freed with it; requests on it come one after the other. */
struct m2sed_http_exchange {
  struct m2sed_http *http;
  struct m2sed_http_exchange *before, *after;
  struct MHD_Connection *connection;
  int64_t since_ms; /* it came, or its last request was over */
  struct m2sed_http_request request;
  const char *refused; /* why the target cannot be read; NULL: it was */
  unsigned refusal, status;
  bool begun;                    /* its headers were looked at */
  bool cut;                      /* it is about to go */
  bool suspended;                /* waits for m2sed_http_answer */
  struct MHD_Response *response; /* the answer, until MHD has taken it */
};

struct m2sed_http {
  uv_loop_t *loop;
  struct m2sed_http_settings settings;
  struct sockaddr_storage address;
  socklen_t address_size;
  char text[ADDRESS_BYTES];
  struct MHD_Daemon *daemon;                /* NULL: does not listen */
  uv_poll_t poll;                           /* on MHD's epoll */
  uv_timer_t again, sweep;                  /* MHD has more to do; cuts connections */
  struct m2sed_http_exchange *first, *last; /* by since_ms */
  uint32_t connections;
  bool stopping;
};

/* ---- answers ---- */

static void on_again(uv_timer_t *timer);

static const char page_policy[] =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

void m2sed_http_answer(struct m2sed_http_exchange *exchange, const struct m2sed_http_answer *answer) {
  assert(!exchange->response);
  exchange->status = answer->status;
  /* MHD does not write to the body that it copies. Without memory the connection is closed. */
  exchange->response =
      MHD_create_response_from_buffer(answer->size, (void *)(uintptr_t)answer->body, MHD_RESPMEM_MUST_COPY);
  if (exchange->response) {
    MHD_add_response_header(exchange->response, "Content-Type", answer->type);
    MHD_add_response_header(exchange->response, "Cache-Control", "no-store");
    MHD_add_response_header(exchange->response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(exchange->response, "Content-Security-Policy", page_policy);
    if (answer->status == MHD_HTTP_METHOD_NOT_ALLOWED)
      MHD_add_response_header(exchange->response, "Allow", "GET, HEAD");
    if (answer->status == MHD_HTTP_SERVICE_UNAVAILABLE)
      MHD_add_response_header(exchange->response, "Retry-After", "1");
  }
  if (exchange->suspended) {
    exchange->suspended = false;
    MHD_resume_connection(exchange->connection);
    uv_timer_start(&exchange->http->again, on_again, 0, 0); /* MHD's epoll does not tell of it */
  }
}

void m2sed_http_answer_text(struct m2sed_http_exchange *exchange, unsigned status, const char *text) {
  m2sed_http_answer(exchange,
                    &(struct m2sed_http_answer){status, "text/plain; charset=utf-8", text, strlen(text)});
}

/* ---- MHD's callbacks ---- */

static struct m2sed_http_exchange *exchange_of(struct MHD_Connection *connection) {
  return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void append(struct m2sed_http *http, struct m2sed_http_exchange *exchange) {
  exchange->since_ms = (int64_t)uv_now(http->loop);
  exchange->before = http->last;
  exchange->after = NULL;
  *(http->last ? &http->last->after : &http->first) = exchange;
  http->last = exchange;
}

static void take_out(struct m2sed_http *http, struct m2sed_http_exchange *exchange) {
  *(exchange->before ? &exchange->before->after : &http->first) = exchange->after;
  *(exchange->after ? &exchange->after->before : &http->last) = exchange->before;
}

/* MHD has no call for it, but notices. */
static void shut(struct MHD_Connection *connection) {
  shutdown(MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd, SHUT_RDWR);
}

/* Those that began before: all, or the first one only. */
static void cut(struct m2sed_http *http, int64_t begin_ms, bool all) {
  bool done = false;
  for (struct m2sed_http_exchange *exchange = http->first; exchange && !done; exchange = exchange->after) {
    if (exchange->since_ms >= begin_ms)
      return;
    if (exchange->cut || exchange->suspended)
      continue;
    exchange->cut = true;
    shut(exchange->connection);
    done = !all;
  }
}

/* A connection comes or goes. */
static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what) {
  struct m2sed_http *http = arg;
  struct m2sed_http_exchange *exchange = *context;
  if (what == MHD_CONNECTION_NOTIFY_STARTED) {
    if (http->connections + M2SED_HTTP_SPARE >= M2SED_HTTP_CONNECTIONS)
      cut(http, INT64_MAX, false);
    *context = exchange = calloc(1, sizeof *exchange);
    if (!exchange) {
      shut(connection);
      return;
    }
    exchange->http = http;
    exchange->connection = connection;
    append(http, exchange);
    http->connections++;
  } else if (exchange) {
    assert(!exchange->suspended);
    take_out(http, exchange);
    http->connections--;
    free(exchange);
  }
}

/* The target as it came: MHD would decode it in place, and "%00" cut it. */
static void *on_target(void *arg, const char *target, struct MHD_Connection *connection) {
  struct m2sed_http_exchange *exchange = exchange_of(connection);
  (void)arg;
  if (exchange)
    exchange->refused = m2sed_http_parse_target(&exchange->request, target, &exchange->refusal);
  return exchange;
}

static size_t leave_encoded(void *arg, struct MHD_Connection *connection, char *text) {
  (void)arg;
  (void)connection;
  return strlen(text);
}

static const char *header(const struct m2sed_http_exchange *exchange, const char *name) {
  return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

/* An answer given here, when only the headers are there, closes the connection: nothing of a body is read. */
static void look_at_headers(struct m2sed_http_exchange *exchange, const char *method) {
  const char *length = header(exchange, MHD_HTTP_HEADER_CONTENT_LENGTH);
  exchange->begun = true;
  if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
    m2sed_http_answer_text(exchange, MHD_HTTP_METHOD_NOT_ALLOWED, "GET and HEAD only\n");
  else if ((length && strcmp(length, "0") != 0) || header(exchange, MHD_HTTP_HEADER_TRANSFER_ENCODING))
    m2sed_http_answer_text(exchange, MHD_HTTP_BAD_REQUEST, "a request has no body\n");
}

static void ask(struct m2sed_http_exchange *exchange) {
  struct m2sed_http *http = exchange->http;
  if (http->stopping) {
    m2sed_http_answer_text(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "stopping\n");
    return;
  }
  if (exchange->refused) {
    m2sed_http_answer_text(exchange, exchange->refusal, exchange->refused);
    return;
  }
  exchange->request.protobuf = m2sed_http_prefers_protobuf(header(exchange, MHD_HTTP_HEADER_ACCEPT));
  http->settings.handler(http->settings.context, &exchange->request, exchange);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **context) {
  struct m2sed_http_exchange *exchange = *context;
  (void)arg;
  (void)url;
  (void)version;
  (void)upload;
  (void)upload_size;
  if (!exchange)
    return MHD_NO;
  if (!exchange->begun) {
    look_at_headers(exchange, method);
    if (!exchange->status)
      return MHD_YES; /* once more when the request is whole */
  } else if (!exchange->status) {
    ask(exchange);
    if (!exchange->status) {
      exchange->suspended = true;
      MHD_suspend_connection(connection);
      return MHD_YES;
    }
  }
  if (!exchange->response)
    return MHD_NO;
  enum MHD_Result result = MHD_queue_response(connection, exchange->status, exchange->response);
  MHD_destroy_response(exchange->response);
  exchange->response = NULL;
  return result;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode how) {
  struct m2sed_http_exchange *exchange = *context;
  struct m2sed_http *http = arg;
  (void)connection;
  (void)how;
  if (!exchange)
    return;
  if (exchange->response)
    MHD_destroy_response(exchange->response);
  exchange->response = NULL;
  exchange->status = 0;
  exchange->begun = false;
  take_out(http, exchange);
  append(http, exchange);
  *context = NULL;
}

static void on_log(void *arg, const char *format, va_list arguments) {
  (void)arg;
  (void)format;
  (void)arguments; /* what strangers do wrong is no matter for the log */
}

/* ---- on the loop ---- */

static void run(struct m2sed_http *http) {
  uint64_t begin = uv_hrtime();
  MHD_UNSIGNED_LONG_LONG wait;
  MHD_run(http->daemon);
  /* There are no time limits of MHD's: it waits for its epoll, or has work left. */
  if (MHD_get_timeout(http->daemon, &wait) == MHD_YES)
    uv_timer_start(&http->again, on_again, wait, 0);
  else
    uv_timer_stop(&http->again);
  if (http->settings.worked)
    http->settings.worked(http->settings.context, (double)(uv_hrtime() - begin) * 1e-6);
}

static void on_again(uv_timer_t *timer) {
  run(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
  (void)status;
  (void)events;
  run(poll->data);
}

static void on_sweep(uv_timer_t *timer) {
  struct m2sed_http *http = timer->data;
  cut(http, (int64_t)uv_now(http->loop) - M2SED_HTTP_PATIENCE_MS, true);
}

/* ---- start and end ---- */

static bool is_port(const char *text) {
  size_t digits = strspn(text, "0123456789");
  return digits >= 1 && digits <= 5 && !text[digits] && strtoul(text, NULL, 10) <= UINT16_MAX;
}

static int read_address(struct m2sed_http *http, struct m2se_error *error) {
  const char *listen = http->settings.listen, *colon = strrchr(listen, ':');
  bool brackets = listen[0] == '[' && colon && colon > listen + 1 && colon[-1] == ']';
  size_t size = colon ? (size_t)(colon - listen) : 0;
  char host[ADDRESS_BYTES];
  if (!colon || !is_port(colon + 1) || size >= sizeof host)
    return m2se_error_set(error, M2SE_EINVAL, "http.listen: '%s' is not HOST:PORT", listen);
  snprintf(host, sizeof host, "%.*s", (int)(brackets ? size - 2 : size), listen + brackets);
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
  struct addrinfo *found = NULL;
  int code = getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, &found);
  if (code)
    return m2se_error_set(error, M2SE_EIO, "http.listen: '%s': %s", listen, gai_strerror(code));
  memcpy(&http->address, found->ai_addr, found->ai_addrlen);
  http->address_size = found->ai_addrlen;
  freeaddrinfo(found);
  return 0;
}

int m2sed_http_new(struct m2sed_http **http, struct uv_loop_s *loop,
                   const struct m2sed_http_settings *settings, struct m2se_error *error) {
  *http = calloc(1, sizeof **http);
  if (!*http)
    return m2se_error_set(error, M2SE_ENOMEM, "the HTTP server");
  (*http)->settings = *settings;
  (*http)->loop = loop;
  int code = read_address(*http, error);
  if (code) {
    free(*http);
    *http = NULL;
  }
  return code;
}

static int failed(int socket, const char *listen, struct m2se_error *error) {
  int code = errno;
  if (socket >= 0)
    close(socket);
  return m2se_error_set(error, M2SE_EIO, "http.listen %s: %s", listen, strerror(code));
}

/* MHD's own listening says no more than that it failed. */
static int open_socket(struct m2sed_http *http, int *out, struct m2se_error *error) {
  const char *listen_on = http->settings.listen;
  int yes = 1;
  int fd = socket(http->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) ||
      bind(fd, (const struct sockaddr *)&http->address, http->address_size) || listen(fd, BACKLOG))
    return failed(fd, listen_on, error);
  struct sockaddr_storage bound = {0};
  socklen_t size = sizeof bound;
  char host[NI_MAXHOST], port[16];
  if (getsockname(fd, (struct sockaddr *)&bound, &size) ||
      getnameinfo((const struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV))
    return failed(fd, listen_on, error);
  snprintf(http->text, sizeof http->text, bound.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
  *out = fd;
  return 0;
}

int m2sed_http_start(struct m2sed_http *http, struct m2se_error *error) {
  assert(!http->daemon);
  int listening = -1;
  int code = open_socket(http, &listening, error);
  if (code)
    return code;
  http->daemon = MHD_start_daemon(
      MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, http,
      MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, listening,
      MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_CONNECTION_LIMIT, (unsigned)M2SED_HTTP_CONNECTIONS,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)M2SED_HTTP_CONNECTION_BYTES, MHD_OPTION_NOTIFY_CONNECTION,
      on_connection, http, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_URI_LOG_CALLBACK,
      on_target, http, MHD_OPTION_UNESCAPE_CALLBACK, leave_encoded, NULL, MHD_OPTION_END);
  if (!http->daemon)
    return failed(listening, http->settings.listen, error);
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  code = uv_poll_init(http->loop, &http->poll, info->epoll_fd);
  if (code) {
    MHD_stop_daemon(http->daemon);
    http->daemon = NULL;
    return m2se_error_set(error, M2SE_EIO, "http.listen %s: %s", http->settings.listen, uv_strerror(code));
  }
  uv_timer_init(http->loop, &http->again);
  uv_timer_init(http->loop, &http->sweep);
  http->poll.data = http->again.data = http->sweep.data = http;
  uv_poll_start(&http->poll, UV_READABLE, on_poll);
  uv_timer_start(&http->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
  return 0;
}

const char *m2sed_http_address(const struct m2sed_http *http) {
  return http->text;
}

void m2sed_http_stop(struct m2sed_http *http) {
  if (!http->daemon)
    return;
  http->stopping = true;
  for (struct m2sed_http_exchange *exchange = http->first; exchange; exchange = exchange->after)
    if (exchange->suspended)
      m2sed_http_answer_text(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "stopping\n");
  MHD_run(http->daemon); /* no connection may be suspended when it stops */
  uv_poll_stop(&http->poll);
  uv_close((uv_handle_t *)&http->poll, NULL);
  uv_close((uv_handle_t *)&http->again, NULL);
  uv_close((uv_handle_t *)&http->sweep, NULL);
  MHD_stop_daemon(http->daemon);
  http->daemon = NULL;
}

void m2sed_http_free(struct m2sed_http *http) {
  assert(!http || !http->daemon);
  free(http);
}
