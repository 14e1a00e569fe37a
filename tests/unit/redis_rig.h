/* For tests against a real redis-server: a private one in a directory that goes with it, a loop, and a second
 * connection through which a test does to the server what it wants. */
#ifndef REDIS_RIG_H
#define REDIS_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "ingest/redis.h"
#include "ingest/redis_child.h"

struct uv_loop_s;
struct redisContext;

struct redis_rig {
  char directory[64];
  struct m2se_redis_child *child;
  struct redisContext *admin;
  struct uv_loop_s *loop;
  struct m2se_redis *redis; /* of rig_connect */
  bool closed;
  uint32_t events[M2SE_REDIS_ROOM + 1];
  char event_text[512]; /* of the newest LOST, REFUSED or BARRED */
};

/* 77, for the test's exit status, if there is no redis-server here; else 0. */
int rig_check_server(void);

void rig_start(struct redis_rig *rig); /* directory, server, loop; no connection of the door */
void rig_stop(struct redis_rig *rig);  /* closes the door too, and asserts that the loop is left empty */
/* The same for a test of its own: *state is the rig. */
int rig_set_up(void **state);
int rig_tear_down(void **state);
void rig_start_server(struct redis_rig *rig);
void rig_end_server(struct redis_rig *rig);  /* it writes its data first */
void rig_kill_server(struct redis_rig *rig); /* SIGKILL */

/* settings may be NULL; uri NULL: that of the server. */
void rig_connect(struct redis_rig *rig, const char *uri, const struct m2se_redis_settings *settings);
void rig_close(struct redis_rig *rig);

/* Runs the loop until *done is at least wanted, at most for a while: then fails. */
void rig_run_until(struct redis_rig *rig, const uint32_t *done, uint32_t wanted);
void rig_run_ms(struct redis_rig *rig, uint32_t ms);

/* One command through the second connection, words separated by blanks; the answer as text, valid until the
 * next. */
const char *rig_admin(struct redis_rig *rig, const char *format, ...) __attribute__((format(printf, 2, 3)));

int64_t rig_now_ms(void);

#endif
