/* Blocking reads of what the daemon keeps in Redis, for m2sectl and at the daemon's start: never from its
 * loop. One connection, one thread at a time. Vectors come as floats of this machine; what breaks a rule (a
 * vector of another size, a number that is none) is M2SE_EFORMAT with key and field named. Once the model has
 * been read, vectors have its width and may be float16; until then they are float32 of any width. */
#ifndef M2SE_REDIS_READER_H
#define M2SE_REDIS_READER_H

#include "ingest/keys.h"
#include "ingest/publish.h"
#include "ingest/redis.h"
#include "ingest/sequence.h"

struct m2se_redis_reader;

/* uri as in redis.h, prefix of the keys. M2SE_EINVAL, M2SE_EIO (no server, refused: the text says which),
 * M2SE_ENOMEM. */
int m2se_redis_reader_open(struct m2se_redis_reader **reader, const char *uri, const char *prefix,
                           uint32_t timeout_ms, struct m2se_error *error);
void m2se_redis_reader_close(struct m2se_redis_reader *reader); /* NULL is allowed */

/* Each returns 0, M2SE_EMISSING (no such key), M2SE_EFORMAT, M2SE_EIO, M2SE_ENOMEM. Views and arrays belong
 * to the reader and live until its next call. */

/* sequence: all entries stored; show the `keep` newest (m2se_sequence_latest). */
int m2se_redis_read_sequence(struct m2se_redis_reader *reader, const char *user_id, uint32_t user_id_size,
                             struct m2se_sequence *sequence, struct m2se_error *error);

/* user_id is NULL in the result; vector is [dim]. */
int m2se_redis_read_user(struct m2se_redis_reader *reader, const char *user_id, uint32_t user_id_size,
                         struct m2se_user_vector *user, struct m2se_error *error);

struct m2se_item_vectors {
  const float *vector, *previous; /* [dim] each; previous is NULL if there is none */
  uint32_t dim;                   /* of vector */
  uint32_t previous_dim;
  uint64_t epoch, previous_epoch;
};
int m2se_redis_read_item(struct m2se_redis_reader *reader, const char *item_id, uint32_t item_id_size,
                         struct m2se_item_vectors *item, struct m2se_error *error);
/* Many at once (pipelined): visit(context, index, item or NULL if missing) in order. The first damaged one
 * ends it. */
int m2se_redis_read_items(struct m2se_redis_reader *reader, const char *const *item_ids, uint32_t count,
                          void (*visit)(void *context, uint32_t index, const struct m2se_item_vectors *item),
                          void *context, struct m2se_error *error);

int m2se_redis_read_model(struct m2se_redis_reader *reader, struct m2se_published_model *model,
                          struct m2se_error *error);
/* The encoded Status. */
int m2se_redis_read_status(struct m2se_redis_reader *reader, const void **status, size_t *size,
                           struct m2se_error *error);

/* Calls visit for the id of every key of a kind that has ids (SCAN: each at least once, perhaps more than
 * once). visit may return false to end it. It must not use the reader. */
int m2se_redis_read_ids(struct m2se_redis_reader *reader, enum m2se_key_kind kind,
                        bool (*visit)(void *context, const char *id, uint32_t id_size), void *context,
                        struct m2se_error *error);

/* PING, and the server's version. */
int m2se_redis_read_version(struct m2se_redis_reader *reader, char version[32], struct m2se_error *error);

#endif
