#include "daemon/http_request.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* ---- the target ---- */

static const char *const names[M2SED_HTTP_PATHS] = {"/", "/metrics", "/livez", "/readyz", "/status", NULL};
static const char recommend[] = "/recommend/";

static int hex_digit(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

/* false: a '%' without two digits behind it, or more than the id may have. */
static bool decode_user(struct m2sed_http_request *request, const char *text, size_t size) {
  request->user_size = 0;
  for (size_t i = 0; i < size; i++) {
    char c = text[i];
    if (c == '%') {
      int high = i + 2 < size ? hex_digit(text[i + 1]) : -1, low = high >= 0 ? hex_digit(text[i + 2]) : -1;
      if (low < 0)
        return false;
      c = (char)(high << 4 | low);
      i += 2;
    }
    if (request->user_size == M2SE_ID_BYTES_MAX)
      return false;
    request->user[request->user_size++] = c;
  }
  request->user[request->user_size] = '\0';
  return true;
}

/* k=1..100 and nothing else. */
static bool read_query(struct m2sed_http_request *request, const char *query) {
  request->best = M2SED_HTTP_BEST_DEFAULT;
  if (!*query)
    return true;
  if (strncmp(query, "k=", 2) != 0)
    return false;
  const char *digits = query + 2;
  size_t count = strspn(digits, "0123456789");
  if (!count || count > 3 || digits[count])
    return false;
  request->best = 0;
  for (size_t i = 0; i < count; i++)
    request->best = request->best * 10 + (uint32_t)(digits[i] - '0');
  return request->best >= 1 && request->best <= M2SED_HTTP_BEST_MAX;
}

const char *m2sed_http_parse_target(struct m2sed_http_request *request, const char *target,
                                    unsigned *refusal) {
  *request = (struct m2sed_http_request){0};
  size_t size = strcspn(target, "?");
  const char *query = target[size] ? target + size + 1 : "";
  for (int path = 0; path < M2SED_HTTP_RECOMMEND; path++)
    if (strlen(names[path]) == size && memcmp(names[path], target, size) == 0) {
      request->path = (enum m2sed_http_path)path;
      return NULL;
    }
  size_t prefix = sizeof recommend - 1;
  if (size <= prefix || memcmp(target, recommend, prefix) != 0 ||
      memchr(target + prefix, '/', size - prefix)) {
    *refusal = 404;
    return "there are /, /metrics, /livez, /readyz, /status, /recommend/USER?k=10\n";
  }
  request->path = M2SED_HTTP_RECOMMEND;
  if (!decode_user(request, target + prefix, size - prefix) ||
      m2se_validate_id(request->user, request->user_size, "user", NULL)) {
    *refusal = 400;
    return "the user: UTF-8, 1..128 bytes, without control characters, percent-encoded\n";
  }
  if (!read_query(request, query)) {
    *refusal = 400;
    return "the query: k=1 .. k=100, or none\n";
  }
  return NULL;
}

/* ---- Accept ---- */

/* q of "; q=0.5" among the parameters of a media range, in thousandths; 1000 without one, 0 if it is none. */
static int quality(const char *parameters, size_t size) {
  for (size_t i = 0; i + 1 < size; i++) {
    bool starts = i == 0 || strchr("; \t", parameters[i - 1]);
    if (!starts || tolower((unsigned char)parameters[i]) != 'q' || parameters[i + 1] != '=')
      continue;
    const char *value = parameters + i + 2;
    size_t left = size - i - 2;
    if (value[0] == '1')
      return 1000;
    int thousandths = 0;
    for (size_t k = 2, weight = 100; value[0] == '0' && k < left && weight > 0; k++, weight /= 10) {
      if (!isdigit((unsigned char)value[k]))
        break;
      thousandths += (value[k] - '0') * (int)weight;
    }
    return thousandths;
  }
  return 1000;
}

static bool is_range(const char *text, size_t size, const char *range) {
  return strlen(range) == size && strncasecmp(text, range, size) == 0;
}

static bool is_protobuf(const char *text, size_t size) {
  return is_range(text, size, "application/x-protobuf") || is_range(text, size, "application/protobuf") ||
         is_range(text, size, "application/vnd.google.protobuf");
}

bool m2sed_http_prefers_protobuf(const char *accept) {
  static const char blanks[] = " \t";
  int protobuf = 0, json = 0;
  for (const char *at = accept ? accept : ""; *at;) {
    at += strspn(at, " \t,");
    size_t size = strcspn(at, ","), type = strcspn(at, ";,"), end = type;
    while (end > 0 && strchr(blanks, at[end - 1]))
      end--;
    int q = type < size ? quality(at + type + 1, size - type - 1) : 1000;
    if (is_protobuf(at, end))
      protobuf = q > protobuf ? q : protobuf;
    else if (is_range(at, end, "application/json") || is_range(at, end, "application/*") ||
             is_range(at, end, "*/*"))
      json = q > json ? q : json;
    at += size;
  }
  return protobuf > json;
}
