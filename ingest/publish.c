#include "ingest/publish.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/keys.h"
#include "ingest/lua.h"

struct m2se_publisher {
  struct m2se_redis *redis;
  int item_script;
  char prefix[M2SE_KEY_PREFIX_MAX + 1];
  char user_ttl[12]; /* decimal; "0": none */
  enum m2se_vector_type type;
  uint8_t encoded[M2SE_VECTOR_DIM_MAX * sizeof(float)]; /* scratch */
};

int m2se_publisher_new(struct m2se_publisher **out, struct m2se_redis *redis,
                       const struct m2se_publish_settings *settings, struct m2se_error *error) {
  if (m2se_key_check_prefix(settings->prefix, error))
    return M2SE_EINVAL;
  struct m2se_publisher *publisher = calloc(1, sizeof *publisher);
  if (!publisher)
    return m2se_error_set(error, M2SE_ENOMEM, "publishing: out of memory");
  publisher->redis = redis;
  publisher->type = settings->vector_type;
  publisher->item_script = m2se_redis_add_script(redis, m2se_lua_publish_item);
  if (publisher->item_script < 0) {
    free(publisher);
    return m2se_error_set(error, M2SE_EINVAL, "the connection has no room for another script");
  }
  snprintf(publisher->prefix, sizeof publisher->prefix, "%s", settings->prefix);
  snprintf(publisher->user_ttl, sizeof publisher->user_ttl, "%u", settings->user_ttl_seconds);
  *out = publisher;
  return 0;
}

void m2se_publisher_free(struct m2se_publisher *publisher) {
  free(publisher);
}

static struct m2se_redis_argument word(const char *text) {
  return (struct m2se_redis_argument){text, strlen(text)};
}

enum { ARGUMENTS_MAX = 14 };
struct command {
  struct m2se_redis_argument arguments[ARGUMENTS_MAX];
  uint32_t count;
};

/* Sends them as one group with one callback, at its end. */
static int send_group(struct m2se_publisher *publisher, const struct command *commands, uint32_t count,
                      m2se_redis_callback *callback, void *context) {
  uint32_t arguments = 0;
  size_t bytes = 0;
  for (uint32_t i = 0; i < count; i++) {
    arguments += commands[i].count;
    for (uint32_t j = 0; j < commands[i].count; j++)
      bytes += commands[i].arguments[j].size;
  }
  if (!m2se_redis_has_room(publisher->redis, count, arguments, bytes))
    return M2SE_ELIMIT;
  int code = 0;
  for (uint32_t i = 0; i < count && !code; i++) {
    bool last = i == count - 1;
    code = m2se_redis_send(publisher->redis, commands[i].arguments, commands[i].count, last ? callback : NULL,
                           last ? context : NULL);
  }
  return code;
}

int m2se_publish_user(struct m2se_publisher *publisher, const struct m2se_user_vector *user,
                      m2se_redis_callback *callback, void *context) {
  if (!m2se_vector_encode(publisher->type, user->vector, user->dim, publisher->encoded))
    return M2SE_ERANGE;
  struct m2se_key key;
  m2se_key_build(&key, publisher->prefix, M2SE_KEY_USER, user->user_id, user->user_id_size);
  char epoch[24], step[24], n[12], event_ms[24], ends_ms[24];
  snprintf(epoch, sizeof epoch, "%" PRIu64, user->epoch);
  snprintf(step, sizeof step, "%" PRIu64, user->step);
  snprintf(n, sizeof n, "%" PRIu32, user->sequence_count);
  snprintf(event_ms, sizeof event_ms, "%" PRId64, user->event_time_ms);
  snprintf(ends_ms, sizeof ends_ms, "%" PRId64, user->ends_ms);
  bool with_sequence = user->ends_ms > 0, ends = with_sequence || strcmp(publisher->user_ttl, "0");
  const struct m2se_redis_argument key_argument = {key.bytes, key.size};
  const struct command commands[] = {{{word("HSET"),
                                       key_argument,
                                       word("v"),
                                       {publisher->encoded, m2se_vector_bytes(publisher->type, user->dim)},
                                       word("epoch"),
                                       word(epoch),
                                       word("step"),
                                       word(step),
                                       word("n"),
                                       word(n),
                                       word("event_ms"),
                                       word(event_ms)},
                                      12},
                                     {{word(with_sequence ? "PEXPIREAT" : "EXPIRE"), key_argument,
                                       word(with_sequence ? ends_ms : publisher->user_ttl)},
                                      3}};
  return send_group(publisher, commands, ends ? 2 : 1, callback, context);
}

int m2se_publish_item(struct m2se_publisher *publisher, const char *item_id, uint32_t item_id_size,
                      const float *vector, uint32_t dim, uint64_t epoch, m2se_redis_callback *callback,
                      void *context) {
  if (!m2se_vector_encode(publisher->type, vector, dim, publisher->encoded))
    return M2SE_ERANGE;
  struct m2se_key key;
  m2se_key_build(&key, publisher->prefix, M2SE_KEY_ITEM, item_id, item_id_size);
  char decimal[24];
  snprintf(decimal, sizeof decimal, "%" PRIu64, epoch);
  const struct m2se_redis_argument arguments[] = {
      {publisher->encoded, m2se_vector_bytes(publisher->type, dim)}, word(decimal)};
  return m2se_redis_call(publisher->redis, publisher->item_script, key.bytes, key.size, arguments, 2,
                         callback, context);
}

/* One command a key: in a cluster they may live on different nodes. */
static int unlink_keys(struct m2se_publisher *publisher, const enum m2se_key_kind kinds[2], const char *id,
                       uint32_t id_size, m2se_redis_callback *callback, void *context) {
  struct m2se_key keys[2];
  struct command commands[2];
  for (int i = 0; i < 2; i++) {
    m2se_key_build(&keys[i], publisher->prefix, kinds[i], id, id_size);
    commands[i] = (struct command){{word("UNLINK"), {keys[i].bytes, keys[i].size}}, 2};
  }
  return send_group(publisher, commands, 2, callback, context);
}

int m2se_publish_item_delete(struct m2se_publisher *publisher, const char *item_id, uint32_t item_id_size,
                             m2se_redis_callback *callback, void *context) {
  static const enum m2se_key_kind kinds[2] = {M2SE_KEY_ITEM, M2SE_KEY_NEAR};
  return unlink_keys(publisher, kinds, item_id, item_id_size, callback, context);
}

int m2se_publish_user_erase(struct m2se_publisher *publisher, const char *user_id, uint32_t user_id_size,
                            m2se_redis_callback *callback, void *context) {
  static const enum m2se_key_kind kinds[2] = {M2SE_KEY_SEQUENCE, M2SE_KEY_USER};
  return unlink_keys(publisher, kinds, user_id, user_id_size, callback, context);
}

int m2se_publish_model(struct m2se_publisher *publisher, const struct m2se_published_model *model,
                       m2se_redis_callback *callback, void *context) {
  struct m2se_key key;
  m2se_key_build(&key, publisher->prefix, M2SE_KEY_MODEL, NULL, 0);
  char epoch[24], step[24], dim[12];
  snprintf(epoch, sizeof epoch, "%" PRIu64, model->epoch);
  snprintf(step, sizeof step, "%" PRIu64, model->step);
  snprintf(dim, sizeof dim, "%" PRIu32, model->dim);
  const struct command command = {{word("HSET"),
                                   {key.bytes, key.size},
                                   word("epoch"),
                                   word(epoch),
                                   word("step"),
                                   word(step),
                                   word("dim"),
                                   word(dim),
                                   word("type"),
                                   word(m2se_vector_type_name(publisher->type)),
                                   word("metric"),
                                   word("ip"),
                                   word("lineage"),
                                   word(model->lineage)},
                                  14};
  return send_group(publisher, &command, 1, callback, context);
}

int m2se_publish_status(struct m2se_publisher *publisher, const void *status, size_t size,
                        m2se_redis_callback *callback, void *context) {
  struct m2se_key key;
  m2se_key_build(&key, publisher->prefix, M2SE_KEY_STATUS, NULL, 0);
  const struct command command = {{word("SET"), {key.bytes, key.size}, {status, size}}, 3};
  return send_group(publisher, &command, 1, callback, context);
}
