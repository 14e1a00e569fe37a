/* One physical connection of the door (redis.h): finds the address, connects, logs in, loads the scripts,
 * carries bytes there and replies back in order, notices when it is dead. It never tries twice: the door
 * makes a new one. hiredis and its life with libuv are in redis_link.c only. Thread of the loop.
 */
#ifndef M2SE_REDIS_LINK_H
#define M2SE_REDIS_LINK_H

#include "ingest/redis.h"
#include "ingest/redis_uri.h"

struct m2se_redis_link;

enum { M2SE_REDIS_SCRIPTS_MAX = 8 };
struct m2se_redis_script {
  const char *source;
  char sha[40]; /* as Redis named it */
};

/* Kept by the door from one link to the next. */
struct m2se_redis_peer {
  struct m2se_redis_script scripts[M2SE_REDIS_SCRIPTS_MAX];
  uint32_t script_count;
  struct m2se_redis_guard guards[M2SE_REDIS_GUARDS_MAX];
  uint32_t guard_count;
  const char *name;   /* of the settings */
  char run_id[41];    /* of the server's process; "" before the first link */
  char client_id[24]; /* of the newest link there; decimal */
  char version[32];
};

struct m2se_redis_link_callbacks {
  void (*drop)(void *context);                   /* a guard wants it; before ready(); may end the link */
  void (*bar)(void *context, const char *guard); /* a guard wants it; gone() follows */
  void (*ready)(void *context);
  void (*reply)(void *context, const struct m2se_redis_reply *reply); /* one for each send, in order */
  void (*gone)(void *context, const char *why); /* the last but closed; no send from here on */
  void (*closed)(void *context);                /* no handle left on the loop; the link is freed */
};

/* Begins; what follows comes through the callbacks, from the loop. peer and callbacks outlive the link.
 * M2SE_EIO or M2SE_ENOMEM: not even begun; no callback comes. attempt chooses among the addresses of a name.
 */
int m2se_redis_link_open(struct m2se_redis_link **link, struct uv_loop_s *loop,
                         const struct m2se_redis_uri *uri, struct m2se_redis_peer *peer, uint32_t timeout_ms,
                         uint32_t attempt, const struct m2se_redis_link_callbacks *callbacks, void *context,
                         struct m2se_error *error);
/* Ends it from this side: gone() is called before this returns. Outcomes of what was sent are unknown. */
void m2se_redis_link_drop(struct m2se_redis_link *link, const char *why);

/* A whole command, copied. Only after ready() and before gone(). M2SE_EIO: it is ending. */
int m2se_redis_link_send(struct m2se_redis_link *link, const char *command, size_t size);
/* Loads the scripts once more; calls sent after this find them. */
void m2se_redis_link_load_scripts(struct m2se_redis_link *link);

#endif
