// What a helper that was taken over may say, and a request that is no request: whatever is taken for valid
// stays within the shared memory.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/pictures/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition) {
  if (!condition)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct m2sed_pictures_request request = {0};
  size_t request_size = size < sizeof request ? size : sizeof request;
  memcpy(&request, data, request_size);
  if (!m2sed_pictures_request_is_valid(&request, request_size))
    return 0;
  require(request.size <= M2SED_PICTURES_PIXELS_AT);
  require(M2SED_PICTURES_PIXELS_AT + (uint64_t)4 * request.pixels_max <= M2SED_PICTURES_MEMORY);
  struct m2sed_pictures_reply reply = {0};
  size_t reply_size = size - request_size;
  memcpy(&reply, data + request_size, reply_size < sizeof reply ? reply_size : sizeof reply);
  if (!m2sed_pictures_reply_is_valid(&reply, reply_size, &request))
    return 0;
  require(reply.number == request.number && reply.reason < M2SED_PICTURE_REASON_COUNT);
  require((uint64_t)reply.width * reply.height * reply.channels <= (uint64_t)4 * request.pixels_max);
  require(strlen(reply.detail) < sizeof reply.detail);
  require((reply.reason == M2SED_PICTURE_OK) == (reply.channels != 0));
  return 0;
}
