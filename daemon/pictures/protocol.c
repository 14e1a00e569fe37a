#include "daemon/pictures/protocol.h"

#include <assert.h>
#include <string.h>

static const struct {
  const char *name, *text;
} reasons[] = {
#define ROW(number, NAME, name, text) [number] = {name, text},
    M2SED_PICTURE_REASONS(ROW)
#undef ROW
};

const char *m2sed_picture_reason_name(int reason) {
  assert(reason >= 0 && reason < M2SED_PICTURE_REASON_COUNT);
  return reasons[reason].name;
}

const char *m2sed_picture_reason_text(int reason) {
  assert(reason >= 0 && reason < M2SED_PICTURE_REASON_COUNT);
  return reasons[reason].text;
}

bool m2sed_pictures_request_is_valid(const struct m2sed_pictures_request *request, size_t size) {
  return size == sizeof *request && request->number >= 1 && request->size >= 1 &&
         request->size <= M2SED_PICTURES_BYTES_MAX && request->pixels_max >= 1 &&
         request->pixels_max <= M2SED_PICTURES_PIXELS_MAX && request->cpu_ms_max >= 1;
}

bool m2sed_pictures_reply_is_valid(const struct m2sed_pictures_reply *reply, size_t size,
                                   const struct m2sed_pictures_request *request) {
  if (size != sizeof *reply || reply->number != request->number ||
      !memchr(reply->detail, '\0', sizeof reply->detail)) {
    return false;
  }
  if (reply->reason != M2SED_PICTURE_OK) { /* those that decoding can find */
    return reply->reason >= M2SED_PICTURE_TOO_MANY_PIXELS && reply->reason <= M2SED_PICTURE_TOO_MUCH_MEMORY &&
           reply->width == 0 && reply->height == 0 && reply->channels == 0;
  }
  return reply->width >= 1 && reply->height >= 1 && (reply->channels == 3 || reply->channels == 4) &&
         (uint64_t)reply->width * reply->height <= request->pixels_max;
}
