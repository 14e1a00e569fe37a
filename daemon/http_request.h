/* What a client may ask of the HTTP server: its target ("/recommend/42?k=5") and Accept header, read and
 * checked. Both come from strangers. No state, any thread. */
#ifndef M2SED_HTTP_REQUEST_H
#define M2SED_HTTP_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "ingest/validate.h"

enum { M2SED_HTTP_BEST_DEFAULT = 10, M2SED_HTTP_BEST_MAX = 100 };

enum m2sed_http_path {
  M2SED_HTTP_PAGE,      /* / */
  M2SED_HTTP_METRICS,   /* /metrics */
  M2SED_HTTP_LIVEZ,     /* /livez */
  M2SED_HTTP_READYZ,    /* /readyz */
  M2SED_HTTP_STATUS,    /* /status */
  M2SED_HTTP_RECOMMEND, /* /recommend/USER?k=N; USER is percent-decoded */
  M2SED_HTTP_PATHS
};

struct m2sed_http_request {
  enum m2sed_http_path path;
  bool protobuf;                    /* the client likes it better than JSON; the caller of parse fills it */
  uint32_t best;                    /* RECOMMEND: 1..M2SED_HTTP_BEST_MAX */
  uint32_t user_size;               /* RECOMMEND: a valid id */
  char user[M2SE_ID_BYTES_MAX + 1]; /* NUL-terminated */
};

/* NULL and the request filled (but for protobuf); or why not, a static line, with *refusal the HTTP status:
 * 400 or 404. A query means something to /recommend only; elsewhere it is passed over. */
const char *m2sed_http_parse_target(struct m2sed_http_request *request, const char *target,
                                    unsigned *refusal);

/* Does this Accept header (NULL: none) rank protobuf above JSON? Names of protobuf: application/x-protobuf,
 * application/protobuf, application/vnd.google.protobuf. A tie goes to JSON. */
bool m2sed_http_prefers_protobuf(const char *accept);

#endif
