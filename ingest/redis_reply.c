/* Replies, and what an error in one asks for. */
#include <assert.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "ingest/redis.h"

static const redisReply *open_reply(const struct m2se_redis_reply *reply) {
  return (const redisReply *)(const void *)reply;
}

enum m2se_redis_type m2se_redis_reply_type(const struct m2se_redis_reply *reply) {
  switch (open_reply(reply)->type) {
  case REDIS_REPLY_INTEGER:
    return M2SE_REDIS_INTEGER;
  case REDIS_REPLY_STRING:
  case REDIS_REPLY_STATUS:
    return M2SE_REDIS_BYTES;
  case REDIS_REPLY_ARRAY:
    return M2SE_REDIS_ARRAY;
  case REDIS_REPLY_ERROR:
    return M2SE_REDIS_ERROR;
  default:
    return M2SE_REDIS_NIL;
  }
}

int64_t m2se_redis_reply_integer(const struct m2se_redis_reply *reply) {
  const redisReply *r = open_reply(reply);
  return r->type == REDIS_REPLY_INTEGER ? r->integer : 0;
}

const char *m2se_redis_reply_bytes(const struct m2se_redis_reply *reply, size_t *size) {
  const redisReply *r = open_reply(reply);
  bool has = r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS || r->type == REDIS_REPLY_ERROR;
  *size = has ? r->len : 0;
  return has ? r->str : "";
}

size_t m2se_redis_reply_count(const struct m2se_redis_reply *reply) {
  const redisReply *r = open_reply(reply);
  return r->type == REDIS_REPLY_ARRAY ? r->elements : 0;
}

const struct m2se_redis_reply *m2se_redis_reply_element(const struct m2se_redis_reply *reply, size_t index) {
  const redisReply *r = open_reply(reply);
  assert(index < m2se_redis_reply_count(reply));
  return (const struct m2se_redis_reply *)(const void *)r->element[index];
}

enum m2se_redis_class m2se_redis_classify(const char *error_text) {
  static const struct {
    const char *prefix;
    enum m2se_redis_class class;
  } table[] = {
      {"LOADING ", M2SE_REDIS_CLASS_RETRY},
      {"BUSY ", M2SE_REDIS_CLASS_RETRY},
      {"TRYAGAIN ", M2SE_REDIS_CLASS_RETRY},
      {"NOSCRIPT ", M2SE_REDIS_CLASS_RETRY},
      {"CLUSTERDOWN ", M2SE_REDIS_CLASS_RETRY},
      {"NOREPLICAS ", M2SE_REDIS_CLASS_RETRY},
      {"READONLY ", M2SE_REDIS_CLASS_DROP},
      {"MASTERDOWN ", M2SE_REDIS_CLASS_DROP},
      {"OOM ", M2SE_REDIS_CLASS_ALARM},
      {"MISCONF ", M2SE_REDIS_CLASS_ALARM},
      {"NOPERM ", M2SE_REDIS_CLASS_ALARM},
      {"NOAUTH ", M2SE_REDIS_CLASS_ALARM},
      {"WRONGPASS ", M2SE_REDIS_CLASS_ALARM},
      {"MOVED ",
       M2SE_REDIS_CLASS_ALARM}, /* a node of a cluster: the configuration must name another server */
      {"ASK ", M2SE_REDIS_CLASS_ALARM},
      /* NOPERM, as Redis 7 says it of a command inside a script */
      {"ERR The user executing the script can't ", M2SE_REDIS_CLASS_ALARM},
  };
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (!strncmp(error_text, table[i].prefix, strlen(table[i].prefix)))
      return table[i].class;
  return M2SE_REDIS_CLASS_ERROR;
}
