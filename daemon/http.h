/* The HTTP server, on the loop: the one door to libmicrohttpd.
 *
 * DESIGN. It is there for a few friendly clients and must not care about many unfriendly ones. At most
 * M2SED_HTTP_CONNECTIONS are open, each with a fixed memory. A connection that has not brought a whole
 * request, or not taken its answer, M2SED_HTTP_PATIENCE_MS after its beginning (or after the answer before)
 * is cut; when all but M2SED_HTTP_SPARE are in use, each new one costs the one that takes longest its place.
 * GET and HEAD only.
 *
 * Thread: the loop's. SIGPIPE must be ignored.
 */
#ifndef M2SED_HTTP_H
#define M2SED_HTTP_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/http_request.h"
#include "model/error.h"

enum {
  M2SED_HTTP_CONNECTIONS = 256,
  M2SED_HTTP_CONNECTION_BYTES = 16 << 10, /* request line and headers must fit; beside it, the answer */
  M2SED_HTTP_SPARE = 64,
  M2SED_HTTP_PATIENCE_MS = 30000
};

struct uv_loop_s;
struct m2sed_http;
struct m2sed_http_exchange; /* a request that wants its answer */

/* Called from the loop for each request that could be read. Answer now or later, exactly once; the exchange
 * is gone with the answer. `request` lives inside the call. */
typedef void m2sed_http_handler(void *context, const struct m2sed_http_request *request,
                                struct m2sed_http_exchange *exchange);

struct m2sed_http_settings {
  const char *listen; /* HOST:PORT, [HOST]:PORT, :PORT for all addresses; port 0: a free one */
  m2sed_http_handler *handler;
  void (*worked)(void *context, double ms); /* the loop was busy with it for so long; may be NULL */
  void *context;
};

/* Reads the address. M2SE_EINVAL: not one; M2SE_EIO: its host is not known; M2SE_ENOMEM. */
int m2sed_http_new(struct m2sed_http **http, struct uv_loop_s *loop,
                   const struct m2sed_http_settings *settings, struct m2se_error *error);
/* Listens. M2SE_EIO (the address is in use, ...): may be called again. */
int m2sed_http_start(struct m2sed_http *http, struct m2se_error *error);
/* HOST:PORT that it listens on. */
const char *m2sed_http_address(const struct m2sed_http *http);

struct m2sed_http_answer {
  unsigned status;  /* 200, ... */
  const char *type; /* of the body: "text/plain", ... */
  const void *body; /* copied */
  size_t size;
};
void m2sed_http_answer(struct m2sed_http_exchange *exchange, const struct m2sed_http_answer *answer);
/* A short text of one line, "\n" included. */
void m2sed_http_answer_text(struct m2sed_http_exchange *exchange, unsigned status, const char *text);

/* Answers what waits with 503, closes all connections; the handles on the loop close in its next turn. */
void m2sed_http_stop(struct m2sed_http *http);
void m2sed_http_free(struct m2sed_http *http); /* stopped, and the handles are closed; NULL is allowed */

#endif
