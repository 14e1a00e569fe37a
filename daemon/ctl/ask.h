/* Questions to Redis, answered before the program goes on: the door of ingest/redis.h on a loop of its own.
 *
 * Send any number of commands, then wait for all of them; callbacks run inside m2sed_ask_wait (or, with
 * M2SE_EIO, inside m2sed_ask_close, so that their contexts must live until then).
 */
#ifndef M2SED_CTL_ASK_H
#define M2SED_CTL_ASK_H

#include "daemon/config.h"
#include "ingest/keys.h"
#include "ingest/redis.h"

struct m2sed_ask;

/* Connects in the background. M2SE_EINVAL, M2SE_ENOMEM, M2SE_EIO (no event loop). */
int m2sed_ask_open(struct m2sed_ask **ask, const struct m2sed_config *config, struct m2se_error *error);
void m2sed_ask_close(struct m2sed_ask *ask); /* NULL: nothing */

/* As m2se_redis_send; waits for room where there is none. */
int m2sed_ask_send(struct m2sed_ask *ask, const struct m2se_redis_argument *arguments, uint32_t count,
                   m2se_redis_callback *callback, void *context, struct m2se_error *error);
/* 0: all answered. M2SE_EIO: Redis cannot be reached, refuses (text: its words), or is silent for
 * redis.timeout_ms; or the user interrupted. What is unanswered stays on its way: a later wait may get it. */
int m2sed_ask_wait(struct m2sed_ask *ask, struct m2se_error *error);

/* Runs the connection until that time or an interrupt, so that it mends itself meanwhile. */
void m2sed_ask_run_until_ns(struct m2sed_ask *ask, uint64_t monotonic_ns);

/* The words of a command: a NUL-terminated one, and a key. */
struct m2se_redis_argument m2sed_ask_word(const char *word);
struct m2se_redis_argument m2sed_ask_key(const struct m2se_key *key);

#endif
