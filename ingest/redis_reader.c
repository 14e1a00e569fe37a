#include "ingest/redis_reader.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <hiredis/hiredis.h>

#include "ingest/redis_uri.h"

enum { ITEMS_AT_ONCE = 256 };

struct m2se_redis_reader {
  redisContext *hiredis;
  char prefix[M2SE_KEY_PREFIX_MAX + 1];
  char address[320];
  redisReply *reply;  /* of the newest call: what the views point into */
  float *vectors[2];  /* aligned copies: a reply's bytes are not */
  size_t capacity[2]; /* floats */
  uint32_t dim;       /* of the model that was read; 0: none was */
};

/* The connection is of no more use after an error of its own. */
static int fail(struct m2se_redis_reader *reader, struct m2se_error *error) {
  const char *why = reader->hiredis->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK)
                        ? "no answer in time"
                        : reader->hiredis->errstr;
  return m2se_error_set(error, M2SE_EIO, "redis %s: %s", reader->address, why);
}

/* The next reply into reader->reply. An error in it is M2SE_EIO, but for a key of a foreign type. */
static int take_reply(struct m2se_redis_reader *reader, struct m2se_error *error) {
  if (reader->reply)
    freeReplyObject(reader->reply);
  reader->reply = NULL;
  void *reply = NULL;
  if (redisGetReply(reader->hiredis, &reply) != REDIS_OK || !reply)
    return fail(reader, error);
  reader->reply = reply;
  if (reader->reply->type != REDIS_REPLY_ERROR)
    return 0;
  int code = strncmp(reader->reply->str, "WRONGTYPE", 9) ? M2SE_EIO : M2SE_EFORMAT;
  return m2se_error_set(error, code, "redis %s: %s", reader->address, reader->reply->str);
}

static int append(struct m2se_redis_reader *reader, int count, const char **words, const size_t *sizes,
                  struct m2se_error *error) {
  return redisAppendCommandArgv(reader->hiredis, count, words, sizes) == REDIS_OK ? 0 : fail(reader, error);
}

static int ask(struct m2se_redis_reader *reader, int count, const char **words, const size_t *sizes,
               struct m2se_error *error) {
  int code = append(reader, count, words, sizes, error);
  return code ? code : take_reply(reader, error);
}

int m2se_redis_reader_open(struct m2se_redis_reader **out, const char *uri_text, const char *prefix,
                           uint32_t timeout_ms, struct m2se_error *error) {
  struct m2se_redis_uri uri;
  if (m2se_key_check_prefix(prefix, error) || m2se_redis_uri_parse(&uri, uri_text, error))
    return M2SE_EINVAL;
  struct m2se_redis_reader *reader = calloc(1, sizeof *reader);
  if (!reader)
    return m2se_error_set(error, M2SE_ENOMEM, "redis: out of memory");
  snprintf(reader->prefix, sizeof reader->prefix, "%s", prefix);
  m2se_redis_uri_describe(&uri, reader->address);
  struct timeval timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
  reader->hiredis = uri.is_unix ? redisConnectUnixWithTimeout(uri.path, timeout)
                                : redisConnectWithTimeout(uri.host, uri.port, timeout);
  int code = 0;
  if (!reader->hiredis)
    code = m2se_error_set(error, M2SE_ENOMEM, "redis: out of memory");
  else if (reader->hiredis->err || redisSetTimeout(reader->hiredis, timeout) != REDIS_OK)
    code = m2se_error_set(error, M2SE_EIO, "cannot connect to redis %s: %s", reader->address,
                          reader->hiredis->errstr);
  if (!code && uri.password[0])
    code = uri.user[0] ? ask(reader, 3, (const char *[]){"AUTH", uri.user, uri.password}, NULL, error)
                       : ask(reader, 2, (const char *[]){"AUTH", uri.password}, NULL, error);
  char database[16];
  snprintf(database, sizeof database, "%u", uri.database);
  if (!code && uri.database)
    code = ask(reader, 2, (const char *[]){"SELECT", database}, NULL, error);
  if (!code)
    code = ask(reader, 1, (const char *[]){"PING"}, NULL, error);
  if (code)
    m2se_redis_reader_close(reader);
  else
    *out = reader;
  return code;
}

void m2se_redis_reader_close(struct m2se_redis_reader *reader) {
  if (!reader)
    return;
  if (reader->reply)
    freeReplyObject(reader->reply);
  if (reader->hiredis)
    redisFree(reader->hiredis);
  free(reader->vectors[0]);
  free(reader->vectors[1]);
  free(reader);
}

/* GET of a key, the bytes in reader->reply. */
static int get(struct m2se_redis_reader *reader, const struct m2se_key *key, struct m2se_error *error) {
  int code = ask(reader, 2, (const char *[]){"GET", key->bytes}, (size_t[]){3, key->size}, error);
  if (code)
    return code;
  if (reader->reply->type == REDIS_REPLY_NIL)
    return m2se_error_set(error, M2SE_EMISSING, "redis %s: there is no key %s", reader->address, key->bytes);
  if (reader->reply->type != REDIS_REPLY_STRING)
    return m2se_error_set(error, M2SE_EFORMAT, "redis %s: key %s: not a string", reader->address, key->bytes);
  return 0;
}

int m2se_redis_read_sequence(struct m2se_redis_reader *reader, const char *user_id, uint32_t user_id_size,
                             struct m2se_sequence *sequence, struct m2se_error *error) {
  struct m2se_key key;
  m2se_key_build(&key, reader->prefix, M2SE_KEY_SEQUENCE, user_id, user_id_size);
  int code = get(reader, &key, error);
  if (!code) {
    code = m2se_sequence_parse(sequence, reader->reply->str, reader->reply->len, error);
    if (code)
      m2se_error_prefix(error, code, "redis %s: key %s", reader->address, key.bytes);
  }
  return code;
}

/* ---- hashes ---- */
struct fields { /* the answer of HMGET, and its key for messages */
  struct m2se_redis_reader *reader;
  const char *key;
  const char *const *names;
};

static const redisReply *field(const struct fields *fields, uint32_t index) {
  const redisReply *value = fields->reader->reply->element[index];
  return value->type == REDIS_REPLY_STRING ? value : NULL;
}

static int damaged(const struct fields *fields, uint32_t index, const char *rule, struct m2se_error *error) {
  return m2se_error_set(error, M2SE_EFORMAT, "redis %s: key %s, field %s: %s", fields->reader->address,
                        fields->key, fields->names[index], rule);
}

static int read_number(const struct fields *fields, uint32_t index, uint64_t *number,
                       struct m2se_error *error) {
  const redisReply *value = field(fields, index);
  char *end = NULL;
  errno = 0;
  if (value && value->str[0] >= '0' && value->str[0] <= '9')
    *number = strtoull(value->str, &end, 10);
  if (!end || errno || end != value->str + value->len)
    return damaged(fields, index, "it must be a whole number", error);
  return 0;
}

static int read_number_32(const struct fields *fields, uint32_t index, uint32_t *number,
                          struct m2se_error *error) {
  uint64_t wide = 0;
  int code = read_number(fields, index, &wide, error);
  if (!code && wide > UINT32_MAX)
    code = damaged(fields, index, "it must be less than 2^32", error);
  *number = (uint32_t)wide;
  return code;
}

static int read_vector(const struct fields *fields, uint32_t index, uint32_t place, const float **vector,
                       uint32_t *dim, struct m2se_error *error) {
  struct m2se_redis_reader *reader = fields->reader;
  const redisReply *value = field(fields, index);
  size_t count = reader->dim ? reader->dim : value ? value->len / sizeof(float) : 0;
  if (!value || count == 0 || count > M2SE_VECTOR_DIM_MAX)
    return damaged(fields, index, "it must be a vector", error);
  if (count > reader->capacity[place]) {
    free(reader->vectors[place]);
    reader->vectors[place] = malloc(count * sizeof(float));
    reader->capacity[place] = reader->vectors[place] ? count : 0;
    if (!reader->vectors[place])
      return m2se_error_set(error, M2SE_ENOMEM, "redis: out of memory");
  }
  if (!m2se_vector_decode(value->str, value->len, (uint32_t)count, reader->vectors[place]))
    return damaged(fields, index, "a vector has 4 or 2 bytes a number, as many as the model says", error);
  *vector = reader->vectors[place];
  *dim = (uint32_t)count;
  return 0;
}

/* Takes the answer of HMGET with `count` fields; M2SE_EMISSING if the hash is not there. */
static int take_fields(const struct fields *fields, uint32_t count, struct m2se_error *error) {
  int code = take_reply(fields->reader, error);
  if (code)
    return m2se_error_prefix(error, code, "key %s", fields->key);
  const redisReply *reply = fields->reader->reply;
  bool some = false;
  for (uint32_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
    some = some || reply->element[i]->type == REDIS_REPLY_STRING;
  if (!some || reply->elements != count)
    return m2se_error_set(error, M2SE_EMISSING, "redis %s: there is no key %s", fields->reader->address,
                          fields->key);
  return 0;
}

static int append_fields(const struct fields *fields, size_t key_size, uint32_t count,
                         struct m2se_error *error) {
  const char *words[8] = {"HMGET", fields->key};
  size_t sizes[8] = {5, key_size};
  assert(count + 2 <= 8);
  for (uint32_t i = 0; i < count; i++) {
    words[i + 2] = fields->names[i];
    sizes[i + 2] = strlen(fields->names[i]);
  }
  return append(fields->reader, (int)count + 2, words, sizes, error);
}

int m2se_redis_read_user(struct m2se_redis_reader *reader, const char *user_id, uint32_t user_id_size,
                         struct m2se_user_vector *user, struct m2se_error *error) {
  static const char *const names[] = {"v", "epoch", "step", "n", "event_ms"};
  struct m2se_key key;
  m2se_key_build(&key, reader->prefix, M2SE_KEY_USER, user_id, user_id_size);
  const struct fields fields = {reader, key.bytes, names};
  memset(user, 0, sizeof *user);
  uint64_t event_ms = 0;
  int code = append_fields(&fields, key.size, 5, error);
  code = code ? code : take_fields(&fields, 5, error);
  code = code ? code : read_vector(&fields, 0, 0, &user->vector, &user->dim, error);
  code = code ? code : read_number(&fields, 1, &user->epoch, error);
  code = code ? code : read_number(&fields, 2, &user->step, error);
  code = code ? code : read_number_32(&fields, 3, &user->sequence_count, error);
  code = code ? code : read_number(&fields, 4, &event_ms, error);
  user->event_time_ms = (int64_t)event_ms;
  return code;
}

static const char *const item_fields[] = {"v", "epoch", "v_prev", "epoch_prev"};

static int take_item(const struct fields *fields, struct m2se_item_vectors *item, struct m2se_error *error) {
  memset(item, 0, sizeof *item);
  int code = take_fields(fields, 4, error);
  code = code ? code : read_vector(fields, 0, 0, &item->vector, &item->dim, error);
  code = code ? code : read_number(fields, 1, &item->epoch, error);
  if (code || !field(fields, 3))
    return code;
  code = read_vector(fields, 2, 1, &item->previous, &item->previous_dim, error);
  return code ? code : read_number(fields, 3, &item->previous_epoch, error);
}

int m2se_redis_read_item(struct m2se_redis_reader *reader, const char *item_id, uint32_t item_id_size,
                         struct m2se_item_vectors *item, struct m2se_error *error) {
  struct m2se_key key;
  m2se_key_build(&key, reader->prefix, M2SE_KEY_ITEM, item_id, item_id_size);
  const struct fields fields = {reader, key.bytes, item_fields};
  int code = append_fields(&fields, key.size, 4, error);
  return code ? code : take_item(&fields, item, error);
}

int m2se_redis_read_items(struct m2se_redis_reader *reader, const char *const *item_ids, uint32_t count,
                          void (*visit)(void *context, uint32_t index, const struct m2se_item_vectors *item),
                          void *context, struct m2se_error *error) {
  int first_code = 0; /* all answers are taken, or the next call would get them */
  for (uint32_t begin = 0; begin < count && !first_code; begin += ITEMS_AT_ONCE) {
    uint32_t end = count - begin < ITEMS_AT_ONCE ? count : begin + ITEMS_AT_ONCE;
    struct m2se_key key;
    const struct fields fields = {reader, key.bytes, item_fields};
    for (uint32_t i = begin; i < end; i++) {
      m2se_key_build(&key, reader->prefix, M2SE_KEY_ITEM, item_ids[i], strlen(item_ids[i]));
      int code = append_fields(&fields, key.size, 4, error);
      if (code)
        return code;
    }
    for (uint32_t i = begin; i < end; i++) {
      m2se_key_build(&key, reader->prefix, M2SE_KEY_ITEM, item_ids[i], strlen(item_ids[i]));
      struct m2se_item_vectors item;
      int code = take_item(&fields, &item, first_code ? NULL : error);
      if (code == M2SE_EIO && !reader->reply) /* the connection is gone */
        return code;
      if (!first_code && (!code || code == M2SE_EMISSING))
        visit(context, i, code ? NULL : &item);
      else if (!first_code)
        first_code = code;
    }
  }
  return first_code;
}

int m2se_redis_read_model(struct m2se_redis_reader *reader, struct m2se_published_model *model,
                          struct m2se_error *error) {
  static const char *const names[] = {"epoch", "step", "dim", "lineage", "type"};
  struct m2se_key key;
  m2se_key_build(&key, reader->prefix, M2SE_KEY_MODEL, NULL, 0);
  const struct fields fields = {reader, key.bytes, names};
  memset(model, 0, sizeof *model);
  int code = append_fields(&fields, key.size, 5, error);
  code = code ? code : take_fields(&fields, 5, error);
  code = code ? code : read_number(&fields, 0, &model->epoch, error);
  code = code ? code : read_number(&fields, 1, &model->step, error);
  code = code ? code : read_number_32(&fields, 2, &model->dim, error);
  if (code)
    return code;
  const redisReply *lineage = field(&fields, 3);
  if (!lineage || lineage->len >= sizeof model->lineage)
    return damaged(&fields, 3, "it must have less than 65 bytes", error);
  memcpy(model->lineage, lineage->str, lineage->len);
  const redisReply *type = field(&fields, 4); /* not there: written by a version that knew float32 only */
  model->type = type && !strcmp(type->str, m2se_vector_type_name(M2SE_VECTOR_FLOAT16)) ? M2SE_VECTOR_FLOAT16
                                                                                       : M2SE_VECTOR_FLOAT32;
  reader->dim = model->dim;
  return 0;
}

int m2se_redis_read_status(struct m2se_redis_reader *reader, const void **status, size_t *size,
                           struct m2se_error *error) {
  struct m2se_key key;
  m2se_key_build(&key, reader->prefix, M2SE_KEY_STATUS, NULL, 0);
  int code = get(reader, &key, error);
  if (!code) {
    *status = reader->reply->str;
    *size = reader->reply->len;
  }
  return code;
}

int m2se_redis_read_ids(struct m2se_redis_reader *reader, enum m2se_key_kind kind,
                        bool (*visit)(void *context, const char *id, uint32_t id_size), void *context,
                        struct m2se_error *error) {
  struct m2se_key pattern;
  m2se_key_pattern(&pattern, reader->prefix, kind);
  char cursor[24] = "0";
  do {
    int code =
        ask(reader, 6, (const char *[]){"SCAN", cursor, "MATCH", pattern.bytes, "COUNT", "512"}, NULL, error);
    if (code)
      return code;
    const redisReply *reply = reader->reply;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING || reply->element[0]->len >= sizeof cursor ||
        reply->element[1]->type != REDIS_REPLY_ARRAY)
      return m2se_error_set(error, M2SE_EIO, "redis %s: SCAN gave an unexpected answer", reader->address);
    memcpy(cursor, reply->element[0]->str, reply->element[0]->len + 1);
    for (size_t i = 0; i < reply->element[1]->elements; i++) {
      const redisReply *key = reply->element[1]->element[i];
      char id[M2SE_ID_BYTES_MAX + 1];
      uint32_t id_size;
      if (m2se_key_parse(reader->prefix, kind, key->str, key->len, id, &id_size) &&
          !visit(context, id, id_size))
        return 0;
    }
  } while (strcmp(cursor, "0") != 0);
  return 0;
}

int m2se_redis_read_version(struct m2se_redis_reader *reader, char version[32], struct m2se_error *error) {
  int code = ask(reader, 2, (const char *[]){"INFO", "server"}, NULL, error);
  if (code)
    return code;
  const char *found =
      reader->reply->type == REDIS_REPLY_STRING ? strstr(reader->reply->str, "redis_version:") : NULL;
  size_t size = found ? strcspn(found + 14, "\r\n") : 0;
  if (size == 0 || size >= 32)
    return m2se_error_set(error, M2SE_EFORMAT, "redis %s: INFO names no version", reader->address);
  memcpy(version, found + 14, size);
  version[size] = 0;
  return 0;
}
