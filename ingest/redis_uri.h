/* Where Redis is: redis://[[user]:password@]host[:port][/db] or unix://[[user]:password@]/path[?db=N]. Pure;
 * any thread. Errors name the part that is wrong and never show the password. */
#ifndef M2SE_REDIS_URI_H
#define M2SE_REDIS_URI_H

#include <stdbool.h>
#include <stdint.h>

#include "model/error.h"

struct m2se_redis_uri {
  bool is_unix;
  char host[256];     /* of TCP: name or address, without brackets */
  uint16_t port;      /* 6379 unless given */
  char path[108];     /* of unix */
  char user[128];     /* "": none given */
  char password[512]; /* "": none given */
  uint32_t database;
};

int m2se_redis_uri_parse(struct m2se_redis_uri *uri, const char *text, struct m2se_error *error);
/* "host:port" or the path: for messages. */
void m2se_redis_uri_describe(const struct m2se_redis_uri *uri, char text[320]);

#endif
