// A picture from a stranger, as the helper decodes it: pixels within what was allowed, or a reason. Found
// here before it is found in the sandbox.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/pictures/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition) {
  if (!condition)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  enum { PIXELS_MAX = 1 << 16 };
  if (size < 1)
    return 0;
  uint8_t *pixels = malloc((size_t)4 * PIXELS_MAX); // of exactly that size: a write past the end is seen
  require(pixels != NULL);
  struct m2sed_pictures_request request = {
      .number = 1, .size = (uint32_t)size, .pixels_max = PIXELS_MAX, .cpu_ms_max = 1};
  struct m2sed_pictures_reply reply;
  m2sed_decode(data, size, PIXELS_MAX, pixels, &reply);
  reply.number = 1;
  require(m2sed_pictures_reply_is_valid(&reply, sizeof reply, &request));
  uint64_t sum = 0;
  for (size_t i = 0; i < (size_t)reply.width * reply.height * reply.channels; i++)
    sum += pixels[i];
  require(sum <= UINT64_C(255) * 4 * PIXELS_MAX);
  free(pixels);
  return 0;
}
