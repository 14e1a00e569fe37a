/* standby.lease_seconds: waiting until the lease is ours, keeping it, and the end when it is lost. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/fence.h"
#include "daemon/loop_state.h"
#include "daemon/notify.h"
#include "ingest/lease.h"

enum {
  ASK_MS_MAX = 500, /* while another one holds it */
  TICK_MS = 100,    /* of m2sed_standby_tick */
  RELEASE_TICKS_MAX = 10,
  SILENCE_MS = 3000
};

struct m2sed_standby {
  struct m2se_lease *lease;
  int64_t lease_ms, asked_ms;
  int64_t heard_ms;          /* the newest answer; 0: none */
  int64_t others_renewed_ms; /* when the one before last did, as far as we know; 0: there was none */
  int64_t takeover_ms;       /* 0: not yet */
  uint32_t unanswered_ticks; /* in a row, with a question open */
  bool expelled, releasing, closing, closed;
};

void m2sed_loop_fenced(struct m2sed_loop *loop, const char *why) {
  if (loop->stop_at_once)
    return;
  M2SED_LOG(loop->log, ERROR, "not the active daemon any more: ending at once", M2SED_U("fence", loop->fence),
            M2SED_S("why", why));
  loop->stop_at_once = true;
  uv_stop(m2sed_loop_uv(loop));
}

/* ---- answers of the lease ---- */

static void on_held(void *context, uint64_t fence) {
  struct m2sed_loop *loop = context;
  struct m2sed_standby *standby = loop->standby;
  standby->heard_ms = loop->now_ms;
  if (loop->fence)
    return;
  loop->fence = fence;
  M2SED_LOG(loop->log, INFO, "the lease is ours", M2SED_U("fence", fence),
            M2SED_I("waited_ms", loop->now_ms - loop->started_ms));
  m2se_lease_expel(standby->lease);
}

static void on_others(void *context, int64_t left_ms) {
  struct m2sed_loop *loop = context;
  struct m2sed_standby *standby = loop->standby;
  if (!standby->others_renewed_ms)
    M2SED_LOG(loop->log, INFO, "standby: another daemon is active", M2SED_I("lease_left_ms", left_ms));
  standby->heard_ms = loop->now_ms;
  standby->others_renewed_ms = loop->now_ms - (standby->lease_ms - left_ms);
}

static void on_lost(void *context) {
  m2sed_loop_fenced(context, "another daemon has the lease, or Redis has lost it");
}

static void on_expelled(void *context, uint32_t count) {
  struct m2sed_loop *loop = context;
  loop->standby->expelled = true;
  if (count)
    M2SED_LOG(loop->log, WARN, "connections of the daemon before were ended", M2SED_U("count", count));
}

static void on_failed(void *context, const char *why) {
  m2sed_loop_fail(context, M2SE_EIO, "lease: %s", why);
}

/* ---- life ---- */

static int make(struct m2sed_loop *loop, struct m2se_error *error) {
  const struct m2sed_config *c = loop->config;
  struct m2sed_standby *standby = loop->standby = calloc(1, sizeof *standby);
  uint64_t random;
  if (!standby || getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
    return m2se_error_set(error, M2SE_ENOMEM, "standby");
  char owner[128];
  snprintf(owner, sizeof owner, "%.80s/%ld/%016" PRIx64, c->daemon_instance, (long)getpid(), random);
  standby->lease_ms = (int64_t)c->standby_lease_seconds * 1000;
  const uint64_t timeout_ms = c->redis_timeout_ms < c->standby_lease_seconds * 1000
                                  ? c->redis_timeout_ms
                                  : c->standby_lease_seconds * 1000;
  const struct m2se_lease_settings settings = {.uri = c->redis_uri,
                                               .prefix = c->redis_prefix,
                                               .owner = owner,
                                               .lease_ms = (uint32_t)standby->lease_ms,
                                               .timeout_ms = (uint32_t)timeout_ms,
                                               .held = on_held,
                                               .others = on_others,
                                               .lost = on_lost,
                                               .expelled = on_expelled,
                                               .failed = on_failed,
                                               .context = loop};
  int code = m2se_lease_new(&standby->lease, m2sed_loop_uv(loop), &settings, error);
  if (code)
    return m2se_error_prefix(error, code, "lease");
  if (m2sed_status_new(loop))
    return m2se_error_set(error, M2SE_ENOMEM, "standby");
  return m2sed_loop_http_new(loop, error);
}

int m2sed_standby_wait(struct m2sed_loop *loop, struct m2se_error *error) {
  if (loop->config->standby_lease_seconds) {
    int code = make(loop, error);
    if (code)
      return code;
    m2sed_notify_ready();
    while (!loop->standby->expelled && !loop->stop_asked && !loop->stop_at_once && !loop->failure)
      uv_run(m2sed_loop_uv(loop), UV_RUN_ONCE);
    if (!loop->standby->expelled) {
      *error = loop->failure_text;
      return loop->failure;
    }
  }
  loop->phase = M2SED_PHASE_ITEMS;
  return 0;
}

/* Once: the items are read, and a partition has started. */
static void look_for_work(struct m2sed_loop *loop) {
  struct m2sed_standby *standby = loop->standby;
  if (standby->takeover_ms || loop->phase != M2SED_PHASE_RUNNING)
    return;
  bool started = false;
  for (uint32_t i = 0; i < m2sed_positions_count(loop->positions); i++)
    started |= m2sed_positions_at(loop->positions, i)->started;
  if (!started)
    return;
  int64_t since_ms = standby->others_renewed_ms ? standby->others_renewed_ms : loop->started_ms;
  standby->takeover_ms = loop->now_ms > since_ms ? loop->now_ms - since_ms : 1;
  M2SED_LOG(loop->log, INFO, "active: interactions are read", M2SED_U("fence", loop->fence),
            M2SED_I("takeover_ms", standby->takeover_ms));
}

/* Redis may only be away from here: then another daemon is active by now, and must not wait for the
 * partitions that we hold. Ticks are counted, not time: a loop that was held up has answers to read first. */
static void end_if_cut_off(struct m2sed_loop *loop) {
  struct m2sed_standby *standby = loop->standby;
  bool waits =
      loop->fence && !m2se_lease_idle(standby->lease); /* a standby may wait for as long as it takes */
  standby->unanswered_ticks = waits ? standby->unanswered_ticks + 1 : 0;
  if ((int64_t)standby->unanswered_ticks * TICK_MS > 3 * standby->lease_ms)
    m2sed_loop_fenced(loop, "Redis has not answered for three times standby.lease_seconds");
}

void m2sed_standby_status(const struct m2sed_loop *loop, struct m2se_status_lease *status) {
  const struct m2sed_standby *standby = loop->standby;
  if (!standby)
    return;
  *status = (struct m2se_status_lease){
      .role = loop->phase == M2SED_PHASE_STANDBY ? "standby" : "active",
      .fence = loop->fence,
      .seconds = (double)standby->lease_ms / 1000,
      .age_seconds = standby->heard_ms ? (double)(loop->now_ms - standby->heard_ms) / 1000 : 0,
      .takeover_ms = (double)standby->takeover_ms};
}

const char *m2sed_standby_reason(const struct m2sed_loop *loop) {
  const struct m2sed_standby *standby = loop->standby;
  if (loop->now_ms - (standby->heard_ms ? standby->heard_ms : loop->started_ms) > SILENCE_MS)
    return "Redis does not answer";
  return standby->others_renewed_ms ? "another daemon is active" : "the lease is asked for";
}

static void on_closed(void *arg) {
  struct m2sed_loop *loop = arg;
  loop->standby->closed = true;
  m2sed_loop_end(loop);
}

void m2sed_standby_tick(struct m2sed_loop *loop) {
  struct m2sed_standby *standby = loop->standby;
  if (!standby || standby->closing)
    return;
  if (standby->releasing) {
    standby->closing = m2se_lease_idle(standby->lease) || ++standby->unanswered_ticks > RELEASE_TICKS_MAX;
    if (standby->closing)
      m2se_lease_close(standby->lease, on_closed, loop);
    return;
  }
  look_for_work(loop);
  end_if_cut_off(loop);
  int64_t every_ms = standby->lease_ms / 3;
  if (!loop->fence && every_ms > ASK_MS_MAX)
    every_ms = ASK_MS_MAX;
  if (loop->now_ms - standby->asked_ms < every_ms)
    return;
  standby->asked_ms = loop->now_ms;
  struct m2sed_fence newest = {0};
  struct m2se_error error = {0};
  if (!loop->fence && m2sed_fence_newest(loop->config->checkpoint_dir, &newest, &error))
    m2sed_loop_fail(loop, error.code, "%s", error.text);
  else
    m2se_lease_ask(standby->lease, newest.number);
}

void m2sed_standby_renew(struct m2sed_loop *loop) {
  enum { TURNS_MAX = 5 };
  if (!loop->standby)
    return;
  loop->standby->asked_ms = loop->now_ms;
  m2se_lease_ask(loop->standby->lease, loop->fence);
  for (int i = 0; i < TURNS_MAX && !m2se_lease_idle(loop->standby->lease) && !loop->stop_at_once; i++)
    uv_run(m2sed_loop_uv(loop), UV_RUN_ONCE);
}

const char *m2sed_standby_connection_name(const struct m2sed_loop *loop) {
  return loop->standby ? m2se_lease_connection_name(loop->standby->lease) : NULL;
}

void m2sed_standby_add_guard(struct m2sed_loop *loop) {
  if (loop->standby)
    m2se_lease_add_guard(loop->standby->lease, loop->redis);
}

/* Under the lease its number; without, one more than the last one, if standby was ever on here: what a daemon
 * of that time still writes does not count. */
int m2sed_standby_begin(struct m2sed_loop *loop, struct m2se_error *error) {
  const char *dir = loop->config->checkpoint_dir;
  struct m2sed_fence fence;
  int code = m2sed_fence_newest(dir, &fence, error);
  if (code || (!loop->standby && !fence.number))
    return code;
  loop->fence = loop->standby ? loop->fence : fence.number + 1;
  fence.number = loop->fence;
  fence.from = loop->restored ? loop->restored->generation : 0;
  code = m2sed_fence_begin(dir, &fence, error);
  if (code == M2SE_EDROPPED)
    m2sed_loop_fenced(loop, error->text);
  return code;
}

bool m2sed_standby_close(struct m2sed_loop *loop) {
  struct m2sed_standby *standby = loop->standby;
  if (!standby || !standby->lease || standby->closed)
    return true;
  if (!standby->releasing) {
    standby->releasing = true;
    standby->unanswered_ticks = 0;
    m2se_lease_release(standby->lease);
  }
  return false; /* goes on in m2sed_standby_tick */
}

void m2sed_standby_free(struct m2sed_loop *loop) {
  if (loop->standby)
    m2se_lease_free(loop->standby->lease);
  free(loop->standby);
}
