// The HTTP server on a loop: addresses, answers at once and later, an end in the middle, many that say
// nothing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/http.h"

enum { LATER_MS = 50 };

struct rig {
  uv_loop_t loop;
  struct m2sed_http *http;
  uv_async_t arrived; /* the client has all that came */
  uv_timer_t later;
  struct m2sed_http_exchange *waiting;
  bool never; /* questions are left without an answer */
  uint32_t asked;
  const char *request;
  char received[4096];
  bool done;
};

static void on_request(void *context, const struct m2sed_http_request *request,
                       struct m2sed_http_exchange *exchange) {
  struct rig *rig = context;
  rig->asked++;
  if (request->path == M2SED_HTTP_LIVEZ)
    m2sed_http_answer_text(exchange, 200, "alive\n");
  else
    rig->waiting = exchange;
}

static void on_later(uv_timer_t *timer) {
  struct rig *rig = timer->data;
  if (rig->waiting && !rig->never)
    m2sed_http_answer(rig->waiting, &(struct m2sed_http_answer){200, "text/x", "later", 5});
  rig->waiting = rig->never ? rig->waiting : NULL;
}

static void on_arrived(uv_async_t *async) {
  struct rig *rig = async->data;
  rig->done = true;
}

static int make(struct rig *rig, const char *listen_on, struct m2se_error *error) {
  const struct m2sed_http_settings settings = {.listen = listen_on, .handler = on_request, .context = rig};
  return m2sed_http_new(&rig->http, &rig->loop, &settings, error);
}

static void open_rig(struct rig *rig, const char *listen_on) {
  struct m2se_error error;
  memset(rig, 0, sizeof *rig);
  signal(SIGPIPE, SIG_IGN);
  assert_int_equal(uv_loop_init(&rig->loop), 0);
  assert_int_equal(uv_async_init(&rig->loop, &rig->arrived, on_arrived), 0);
  assert_int_equal(uv_timer_init(&rig->loop, &rig->later), 0);
  rig->arrived.data = rig->later.data = rig;
  assert_int_equal(uv_timer_start(&rig->later, on_later, LATER_MS, LATER_MS), 0);
  assert_int_equal(make(rig, listen_on, &error), 0);
  assert_int_equal(m2sed_http_start(rig->http, &error), 0);
}

static void close_rig(struct rig *rig) {
  m2sed_http_stop(rig->http);
  uv_close((uv_handle_t *)&rig->arrived, NULL);
  uv_close((uv_handle_t *)&rig->later, NULL);
  uv_run(&rig->loop, UV_RUN_DEFAULT);
  m2sed_http_free(rig->http);
  assert_int_equal(uv_loop_close(&rig->loop), 0);
}

static int connect_to(const struct rig *rig) {
  const char *port = strrchr(m2sed_http_address(rig->http), ':') + 1;
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0);
  return fd;
}

/* All that comes until the end of the connection. */
static void *client_main(void *arg) {
  struct rig *rig = arg;
  int fd = connect_to(rig);
  size_t size = 0;
  ssize_t got = write(fd, rig->request, strlen(rig->request));
  while (got > 0 && size + 1 < sizeof rig->received) {
    got = read(fd, rig->received + size, sizeof rig->received - 1 - size);
    size += got > 0 ? (size_t)got : 0;
  }
  rig->received[size] = '\0';
  close(fd);
  uv_async_send(&rig->arrived);
  return NULL;
}

static pthread_t ask(struct rig *rig, const char *request) {
  pthread_t client;
  rig->request = request;
  rig->done = false;
  assert_int_equal(pthread_create(&client, NULL, client_main, rig), 0);
  return client;
}

static const char *answer(struct rig *rig, const char *request) {
  pthread_t client = ask(rig, request);
  while (!rig->done)
    uv_run(&rig->loop, UV_RUN_ONCE);
  pthread_join(client, NULL);
  return rig->received;
}

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

static void addresses(void **unused) {
  struct rig rig;
  struct m2se_error error;
  (void)unused;
  const char *bad[] = {"",
                       "127.0.0.1",
                       "127.0.0.1:",
                       "127.0.0.1:x",
                       "127.0.0.1:99999",
                       "[::1]",
                       "127.0.0.1:-1",
                       "no.such.host.invalid:1",
                       "::1"};
  memset(&rig, 0, sizeof rig);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    int code = make(&rig, bad[i], &error);
    assert_true(code == M2SE_EINVAL || code == M2SE_EIO);
    assert_non_null(strstr(error.text, "http.listen"));
    assert_null(rig.http);
  }
  const char *good[] = {"127.0.0.1:0", ":0", "localhost:0", "0.0.0.0:00"};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    open_rig(&rig, good[i]);
    assert_null(strstr(m2sed_http_address(rig.http), ":0"));
    close_rig(&rig);
  }
}

static void in_use(void **unused) {
  static struct rig rig, second;
  struct m2se_error error;
  char address[64];
  (void)unused;
  open_rig(&rig, "127.0.0.1:0");
  strncpy(address, m2sed_http_address(rig.http), sizeof address - 1);
  address[sizeof address - 1] = '\0';
  second.loop = rig.loop;
  assert_int_equal(make(&second, address, &error), 0);
  assert_int_equal(m2sed_http_start(second.http, &error), M2SE_EIO);
  assert_non_null(strstr(error.text, "Address already in use"));
  m2sed_http_free(second.http);
  close_rig(&rig);
  open_rig(&rig, address);
  close_rig(&rig);
}

static void answers(void **unused) {
  static struct rig rig;
  (void)unused;
  open_rig(&rig, "127.0.0.1:0");
  assert_non_null(strstr(answer(&rig, GET("/livez")), "HTTP/1.1 200 OK\r\n"));
  assert_non_null(strstr(rig.received, "\r\n\r\nalive\n"));
  assert_non_null(strstr(answer(&rig, GET("/recommend/a")), "HTTP/1.1 200 OK\r\n"));
  assert_non_null(strstr(rig.received, "\r\n\r\nlater"));
  assert_int_equal(rig.asked, 2);
  assert_non_null(strstr(answer(&rig, GET("/recommend/%")), "HTTP/1.1 400 "));
  assert_non_null(strstr(answer(&rig, GET("/other")), "HTTP/1.1 404 "));
  assert_non_null(
      strstr(answer(&rig, "POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), " 405 "));
  assert_non_null(
      strstr(answer(&rig, "GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), " 400 "));
  assert_int_equal(rig.asked, 2); /* none of these came through */
  const char *head = answer(&rig, "HEAD /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  assert_non_null(strstr(head, "Content-Length: 6\r\n"));
  assert_null(strstr(head, "alive"));
  /* Three on one connection, the one in the middle waits. */
  const char *three = answer(
      &rig,
      "GET /livez HTTP/1.1\r\nHost: a\r\n\r\nGET /recommend/a HTTP/1.1\r\nHost: a\r\n\r\n" GET("/livez"));
  const char *later = strstr(three, "\r\n\r\nlater");
  assert_true(later && strstr(three, "\r\n\r\nalive") < later && strstr(later, "\r\n\r\nalive"));
  close_rig(&rig);
}

/* It stops while somebody waits for an answer. */
static void stopped(void **unused) {
  static struct rig rig;
  (void)unused;
  open_rig(&rig, "127.0.0.1:0");
  rig.never = true;
  pthread_t client = ask(&rig, GET("/recommend/a"));
  while (!rig.waiting)
    uv_run(&rig.loop, UV_RUN_ONCE);
  m2sed_http_stop(rig.http);
  pthread_join(client, NULL);
  assert_non_null(strstr(rig.received, "HTTP/1.1 503 "));
  assert_non_null(strstr(rig.received, "stopping"));
  close_rig(&rig); /* stops it again */
}

/* More than there is room for say nothing; who says something is heard. */
static void silent(void **unused) {
  static struct rig rig;
  static int clients[3 * M2SED_HTTP_CONNECTIONS];
  enum { COUNT = sizeof clients / sizeof clients[0] };
  (void)unused;
  open_rig(&rig, "127.0.0.1:0");
  for (int i = 0; i < COUNT; i++)
    clients[i] = connect_to(&rig);
  assert_non_null(strstr(answer(&rig, GET("/livez")), "alive"));
  uint32_t left = 0;
  for (int i = 0; i < COUNT; i++) {
    char byte;
    left += recv(clients[i], &byte, 1, MSG_DONTWAIT) < 0; /* else: it was cut */
    close(clients[i]);
  }
  assert_in_range(left, M2SED_HTTP_CONNECTIONS / 2, M2SED_HTTP_CONNECTIONS);
  assert_non_null(strstr(answer(&rig, GET("/livez")), "alive"));
  close_rig(&rig);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(addresses), cmocka_unit_test(in_use),
                                     cmocka_unit_test(answers), cmocka_unit_test(stopped),
                                     cmocka_unit_test(silent)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
