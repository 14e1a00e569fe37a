#include "ingest/redis_uri.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

/* Percent-decodes text..end into out[capacity], NUL-terminated. */
static int decode(char *out, size_t capacity, const char *text, const char *end, const char *part,
                  struct m2se_error *error) {
  size_t size = 0;
  while (text < end) {
    char c = *text++;
    if (c == '%') {
      int high = text < end ? hex_digit(text[0]) : -1;
      int low = text + 1 < end ? hex_digit(text[1]) : -1;
      if (high < 0 || low < 0 || (high | low) == 0)
        return m2se_error_set(error, M2SE_EINVAL,
                              "redis uri: the %s has a '%%' that is not followed by two hex digits", part);
      c = (char)(high << 4 | low);
      text += 2;
    }
    if (size + 1 >= capacity)
      return m2se_error_set(error, M2SE_EINVAL, "redis uri: the %s is longer than %zu bytes", part,
                            capacity - 1);
    out[size++] = c;
  }
  out[size] = 0;
  return 0;
}

static int parse_number(uint32_t *number, const char *text, const char *end, uint32_t max, const char *part,
                        struct m2se_error *error) {
  uint32_t value = 0;
  const char *at = text;
  for (; at < end && *at >= '0' && *at <= '9' && value <= max; at++)
    value = value * 10 + (uint32_t)(*at - '0');
  if (at == text || at < end || value > max)
    return m2se_error_set(error, M2SE_EINVAL, "redis uri: the %s must be a number up to %u", part, max);
  *number = value;
  return 0;
}

static int parse_host(struct m2se_redis_uri *uri, const char *text, const char *end,
                      struct m2se_error *error) {
  const char *host = text, *host_end, *colon;
  if (host < end && *host == '[') { /* an IPv6 address has colons of its own */
    host++;
    host_end = memchr(host, ']', (size_t)(end - host));
    if (!host_end)
      return m2se_error_set(error, M2SE_EINVAL, "redis uri: the host begins with '[' and has no ']'");
    colon = host_end + 1;
    if (colon < end && *colon != ':')
      return m2se_error_set(error, M2SE_EINVAL, "redis uri: after ']' only a port may follow");
  } else {
    colon = memchr(text, ':', (size_t)(end - text));
    host_end = colon = colon ? colon : end;
  }
  if (host == host_end)
    return m2se_error_set(error, M2SE_EINVAL, "redis uri: the host is empty");
  if (decode(uri->host, sizeof uri->host, host, host_end, "host", error))
    return M2SE_EINVAL;
  if (colon < end) {
    uint32_t port;
    if (parse_number(&port, colon + 1, end, 65535, "port", error))
      return M2SE_EINVAL;
    uri->port = (uint16_t)port;
  }
  return uri->port ? 0 : m2se_error_set(error, M2SE_EINVAL, "redis uri: the port must not be 0");
}

/* [[user]:]password before the '@'. */
static int parse_login(struct m2se_redis_uri *uri, const char *text, const char *end,
                       struct m2se_error *error) {
  const char *colon = memchr(text, ':', (size_t)(end - text));
  if (!colon)
    return m2se_error_set(error, M2SE_EINVAL, "redis uri: before '@' comes user:password or :password");
  if (decode(uri->user, sizeof uri->user, text, colon, "user", error) ||
      decode(uri->password, sizeof uri->password, colon + 1, end, "password", error))
    return M2SE_EINVAL;
  if (!uri->password[0])
    return m2se_error_set(error, M2SE_EINVAL, "redis uri: the password is empty");
  return 0;
}

int m2se_redis_uri_parse(struct m2se_redis_uri *uri, const char *text, struct m2se_error *error) {
  memset(uri, 0, sizeof *uri);
  uri->port = 6379;
  if (!strncmp(text, "rediss://", 9))
    return m2se_error_set(error, M2SE_EINVAL, "redis uri: TLS (rediss://) is not supported; use a tunnel");
  uri->is_unix = !strncmp(text, "unix://", 7);
  if (!uri->is_unix && strncmp(text, "redis://", 8) != 0)
    return m2se_error_set(error, M2SE_EINVAL, "redis uri: it must begin with redis:// or unix://");
  const char *at = strstr(text, "://") + 3;
  const char *end = at + strlen(at);
  /* A password may hold a '/' or '@' as it is: the last '@' before the query ends it. */
  const char *query = uri->is_unix ? strrchr(at, '?') : NULL;
  const char *stop = query ? query : end;
  const char *login = memrchr(at, '@', (size_t)(stop - at));
  if (login) {
    if (parse_login(uri, at, login, error))
      return M2SE_EINVAL;
    at = login + 1;
  }
  if (uri->is_unix) {
    if (query && strncmp(query, "?db=", 4) != 0)
      return m2se_error_set(error, M2SE_EINVAL, "redis uri: after '?' only db=N may follow");
    if (query && parse_number(&uri->database, query + 4, end, 1000000, "database", error))
      return M2SE_EINVAL;
    if (at == stop || *at != '/')
      return m2se_error_set(error, M2SE_EINVAL,
                            "redis uri: the path of the socket must be absolute: unix:///path");
    return decode(uri->path, sizeof uri->path, at, stop, "path of the socket", error);
  }
  const char *slash = memchr(at, '/', (size_t)(end - at));
  if (parse_host(uri, at, slash ? slash : end, error))
    return M2SE_EINVAL;
  if (slash && slash + 1 < end)
    return parse_number(&uri->database, slash + 1, end, 1000000, "database", error);
  return 0;
}

void m2se_redis_uri_describe(const struct m2se_redis_uri *uri, char text[320]) {
  if (uri->is_unix)
    snprintf(text, 320, "%s", uri->path);
  else
    snprintf(text, 320, strchr(uri->host, ':') ? "[%s]:%u" : "%s:%u", uri->host, uri->port);
}
