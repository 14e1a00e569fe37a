// What a stranger sends to the HTTP server and we read ourselves: the target, and behind a line's end the
// Accept header. Refused with a reason, or all that is promised of a request holds.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition) {
  if (!condition)
    abort();
}

static char *text_of(const uint8_t *data, size_t size) {
  char *text = malloc(size + 1); // of exactly that size: a read past the end is seen
  require(text != NULL);
  memcpy(text, data, size);
  text[size] = '\0';
  return text;
}

// The id, percent-encoded wherever that is allowed, means the same.
static void encode_again(const struct m2sed_http_request *request) {
  static const char digits[] = "0123456789abcdef";
  char target[16 + 3 * M2SE_ID_BYTES_MAX] = "/recommend/";
  size_t size = strlen(target);
  for (uint32_t i = 0; i < request->user_size; i++) {
    uint8_t byte = (uint8_t)request->user[i];
    target[size++] = '%';
    target[size++] = digits[byte >> 4];
    target[size++] = digits[byte & 15];
  }
  target[size] = '\0';
  struct m2sed_http_request again;
  unsigned refusal;
  require(m2sed_http_parse_target(&again, target, &refusal) == NULL);
  require(again.path == M2SED_HTTP_RECOMMEND && again.user_size == request->user_size);
  require(strcmp(again.user, request->user) == 0 && again.best == M2SED_HTTP_BEST_DEFAULT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
  size_t target_size = end ? (size_t)(end - data) : size;
  char *target = text_of(data, target_size);
  struct m2sed_http_request request;
  unsigned refusal = 0;
  const char *why = m2sed_http_parse_target(&request, target, &refusal);
  if (why) {
    require(refusal == 400 || refusal == 404);
  } else if (request.path == M2SED_HTTP_RECOMMEND) {
    require(request.user_size >= 1 && request.user_size <= M2SE_ID_BYTES_MAX);
    require(strlen(request.user) == request.user_size);
    require(m2se_validate_id(request.user, request.user_size, "user", NULL) == 0);
    require(request.best >= 1 && request.best <= M2SED_HTTP_BEST_MAX);
    encode_again(&request);
  } else {
    require(request.path < M2SED_HTTP_RECOMMEND && target[0] == '/');
  }
  free(target);
  if (end) {
    char *accept = text_of(end + 1, size - target_size - 1);
    bool protobuf = m2sed_http_prefers_protobuf(accept);
    require(!protobuf || strlen(accept) >= strlen("application/protobuf"));
    free(accept);
  }
  return 0;
}
