/* What others read from Redis: vectors of users and items, the model's epoch, the status. Every call queues
 * idempotent commands with the door (redis.h) and may be repeated after a crash. Thread of the loop.
 *
 * A reader takes user:{u} and, of item:{i}, the vector whose epoch is the user's: so all items have the
 * vector of an epoch before the first user has one of it.
 */
#ifndef M2SE_PUBLISH_H
#define M2SE_PUBLISH_H

#include "ingest/redis.h"
#include "ingest/vector.h"

struct m2se_publisher;

struct m2se_publish_settings {
  const char *prefix;        /* of the keys; copied */
  uint32_t user_ttl_seconds; /* sliding; 0: none */
  enum m2se_vector_type vector_type;
};

/* Registers its script with the door; create it before the loop runs. M2SE_EINVAL, M2SE_ENOMEM. */
int m2se_publisher_new(struct m2se_publisher **publisher, struct m2se_redis *redis,
                       const struct m2se_publish_settings *settings, struct m2se_error *error);
void m2se_publisher_free(
    struct m2se_publisher *publisher); /* after the door has been closed; NULL is allowed */

/* All return 0; M2SE_ELIMIT (pause and call again; what was
 * queued does no harm when it comes again), M2SE_ENOMEM, M2SE_EIO (closed).
 * callback (may be NULL: then an error goes to the callback of the next command) comes once, when all of the
 * call is acknowledged; its reply is that of the last command.
 * A vector with a component that is not finite as its type is refused: M2SE_ERANGE, nothing is queued. */

struct m2se_user_vector {
  const char *user_id;
  uint32_t user_id_size;
  const float *vector; /* [dim] */
  uint32_t dim;
  uint64_t epoch, step;
  uint32_t sequence_count; /* n */
  int64_t event_time_ms;   /* of the newest event in the sequence */
  int64_t
      ends_ms; /* when its sequence ends, by Redis' clock; <= 0: user_ttl_seconds from now, if that is set */
};
int m2se_publish_user(struct m2se_publisher *publisher, const struct m2se_user_vector *user,
                      m2se_redis_callback *callback, void *context);

/* Puts the vector of `epoch` beside that of the epoch before: the stored current one becomes the previous
 * one; if one of the two stored is of this epoch already, it is replaced in its place. */
int m2se_publish_item(struct m2se_publisher *publisher, const char *item_id, uint32_t item_id_size,
                      const float *vector, uint32_t dim, uint64_t epoch, m2se_redis_callback *callback,
                      void *context);
/* Item and neighbours. */
int m2se_publish_item_delete(struct m2se_publisher *publisher, const char *item_id, uint32_t item_id_size,
                             m2se_redis_callback *callback, void *context);
/* Sequence and vector of a user. */
int m2se_publish_user_erase(struct m2se_publisher *publisher, const char *user_id, uint32_t user_id_size,
                            m2se_redis_callback *callback, void *context);

/* type: of the vectors of this epoch. Those of the one before may have the other one, after a restart with
 * another setting; the length of each vector tells, dim being that of the model. */
struct m2se_published_model {
  uint64_t epoch, step;
  enum m2se_vector_type type; /* of the publisher; not looked at when publishing */
  uint32_t dim;
  char lineage[65];
};
int m2se_publish_model(struct m2se_publisher *publisher, const struct m2se_published_model *model,
                       m2se_redis_callback *callback, void *context);
/* The encoded Status. */
int m2se_publish_status(struct m2se_publisher *publisher, const void *status, size_t size,
                        m2se_redis_callback *callback, void *context);

#endif
