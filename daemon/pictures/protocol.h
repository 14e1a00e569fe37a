/* What passes between m2sed_pictures and the process that started it.
 *
 * Descriptor 3 of the helper is a SOCK_SEQPACKET socket, so that a message arrives whole or not at all;
 * descriptor 4 is shared memory of M2SED_PICTURES_MEMORY bytes, sealed against resizing:
 *
 *     0                              the picture as it came, request.size bytes
 *     M2SED_PICTURES_PIXELS_AT       its pixels [height, width, channels]
 *
 * The parent sends a request, the helper answers with one reply, then waits for the next; the end of the
 * socket ends it. Both are of one build and one machine: native byte order. Neither believes the other: each
 * checks what it got with the function below and ends the other (or itself) when it is wrong.
 */
#ifndef M2SED_PICTURES_PROTOCOL_H
#define M2SED_PICTURES_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/pictures/pictures.h"

enum {
  M2SED_PICTURES_SOCKET = 3,
  M2SED_PICTURES_SHARED = 4,
  M2SED_PICTURES_PIXELS_AT = M2SED_PICTURES_BYTES_MAX,
  M2SED_PICTURES_MEMORY = M2SED_PICTURES_PIXELS_AT + 4 * M2SED_PICTURES_PIXELS_MAX,
  M2SED_PICTURES_DETAIL_MAX = 112,
};

struct m2sed_pictures_request {
  uint32_t number; /* of the request; the reply repeats it */
  uint32_t size;   /* 1 to M2SED_PICTURES_BYTES_MAX */
  uint32_t pixels_max;
  uint32_t cpu_ms_max;
};

struct m2sed_pictures_reply {
  uint32_t number;
  uint32_t reason;
  uint32_t width, height, channels;       /* 0 unless the reason is OK */
  char detail[M2SED_PICTURES_DETAIL_MAX]; /* NUL-terminated; not OK: what was wrong */
};

/* size: of the message as it was received. */
bool m2sed_pictures_request_is_valid(const struct m2sed_pictures_request *request, size_t size);
bool m2sed_pictures_reply_is_valid(const struct m2sed_pictures_reply *reply, size_t size,
                                   const struct m2sed_pictures_request *request);

#endif
