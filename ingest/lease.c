#include "ingest/lease.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>
#include <xxhash.h>

#include "ingest/keys.h"
#include "ingest/lua.h"
#include "ingest/redis_uri.h"

struct m2se_lease {
  struct m2se_redis *redis;
  struct m2se_lease_settings settings;
  int script;
  struct m2se_key key;
  char tag[32]; /* "m2sed-HASH-" */
  bool asked, released;
  uint64_t fence; /* 0: not held */
  uint32_t expelled;
  char owner[128], fence_text[24];
  char connection_name[32 + 24]; /* tag and fence_text */
};

static bool ended(struct m2se_lease *lease, int status, const char *error) {
  if (status && status != M2SE_EIO)
    lease->settings.failed(lease->settings.context, error);
  return status != 0;
}

static void on_answer(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2se_lease *lease = context;
  const struct m2se_lease_settings *settings = &lease->settings;
  lease->asked = false;
  if (ended(lease, status, error) || lease->released)
    return;
  assert(m2se_redis_reply_count(reply) == 2);
  uint64_t fence = (uint64_t)m2se_redis_reply_integer(m2se_redis_reply_element(reply, 0));
  int64_t left_ms = m2se_redis_reply_integer(m2se_redis_reply_element(reply, 1));
  bool was_held = lease->fence != 0;
  if (fence && !was_held) {
    lease->fence = fence;
    snprintf(lease->fence_text, sizeof lease->fence_text, "%" PRIu64, fence);
    snprintf(lease->connection_name, sizeof lease->connection_name, "%s%s", lease->tag, lease->fence_text);
  }
  if (fence && fence == lease->fence)
    settings->held(settings->context, fence);
  else if (was_held)
    settings->lost(settings->context);
  else
    settings->others(settings->context, left_ms);
}

static void call(struct m2se_lease *lease, uint64_t floor, uint32_t lease_ms) {
  char floor_text[24], ms_text[24];
  int floor_size = snprintf(floor_text, sizeof floor_text, "%" PRIu64, floor);
  int ms_size = snprintf(ms_text, sizeof ms_text, "%" PRIu32, lease_ms);
  const struct m2se_redis_argument arguments[] = {{lease->owner, strlen(lease->owner)},
                                                  {lease->fence ? "1" : "0", 1},
                                                  {floor_text, (size_t)floor_size},
                                                  {ms_text, (size_t)ms_size}};
  int code = m2se_redis_call(lease->redis, lease->script, lease->key.bytes, lease->key.size, arguments, 4,
                             on_answer, lease);
  if (code)
    ended(lease, code, m2se_error_text(code));
  else
    lease->asked = true;
}

void m2se_lease_ask(struct m2se_lease *lease, uint64_t floor) {
  if (!lease->asked && !lease->released)
    call(lease, floor, lease->settings.lease_ms);
}

void m2se_lease_release(struct m2se_lease *lease) {
  if (lease->released)
    return;
  lease->released = true;
  if (lease->fence)
    call(lease, 0, 0);
}

bool m2se_lease_idle(const struct m2se_lease *lease) {
  return m2se_redis_pending(lease->redis) == 0;
}

/* ---- the connections of the owner ---- */

const char *m2se_lease_connection_name(const struct m2se_lease *lease) {
  assert(lease->fence);
  return lease->connection_name;
}

static uint32_t on_guard_ask(void *context, struct m2se_redis_argument *arguments) {
  static const char script[] = "local held = redis.call('HMGET', KEYS[1], 'owner', 'fence') "
                               "return held[1] == ARGV[1] and held[2] == ARGV[2] and 1 or 0";
  const struct m2se_lease *lease = context;
  arguments[0] = (struct m2se_redis_argument){"EVAL", 4};
  arguments[1] = (struct m2se_redis_argument){script, sizeof script - 1};
  arguments[2] = (struct m2se_redis_argument){"1", 1};
  arguments[3] = (struct m2se_redis_argument){lease->key.bytes, lease->key.size};
  arguments[4] = (struct m2se_redis_argument){lease->owner, strlen(lease->owner)};
  arguments[5] = (struct m2se_redis_argument){lease->fence_text, strlen(lease->fence_text)};
  return 6;
}

static enum m2se_redis_verdict on_guard_judge(void *context, const struct m2se_redis_reply *reply) {
  (void)context;
  return m2se_redis_reply_integer(reply) == 1 ? M2SE_REDIS_PASS : M2SE_REDIS_BAR;
}

void m2se_lease_add_guard(struct m2se_lease *lease, struct m2se_redis *redis) {
  assert(lease->fence);
  m2se_redis_add_guard(redis, &(struct m2se_redis_guard){"the lease", on_guard_ask, on_guard_judge, lease});
}

/* ---- ending the connections of others ---- */

static void on_killed(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  (void)context, (void)status, (void)reply, (void)error; /* it has gone by itself meanwhile: as good */
}

static void on_expelled(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  (void)reply;
  struct m2se_lease *lease = context;
  if (!ended(lease, status, error))
    lease->settings.expelled(lease->settings.context, lease->expelled);
}

static void kill_client(struct m2se_lease *lease, const char *line) {
  const char *id = line + strlen("id=");
  const struct m2se_redis_argument arguments[] = {
      {"CLIENT", 6}, {"KILL", 4}, {"ID", 2}, {id, strspn(id, "0123456789")}};
  int code = m2se_redis_send(lease->redis, arguments, 4, on_killed, lease);
  if (code)
    ended(lease, code, m2se_error_text(code));
  else
    lease->expelled++;
}

/* A line a client: "id=7 addr=... name=m2sed-HASH-3 ...". */
static void on_list(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2se_lease *lease = context;
  if (ended(lease, status, error))
    return;
  char wanted[sizeof lease->tag + 8];
  snprintf(wanted, sizeof wanted, " name=%s", lease->tag);
  size_t size;
  const char *line = m2se_redis_reply_bytes(reply, &size);
  while (*line) {
    const char *end = line + strcspn(line, "\n");
    const char *name = strstr(line, wanted);
    if (!strncmp(line, "id=", 3) && name && name < end &&
        strtoull(name + strlen(wanted), NULL, 10) < lease->fence)
      kill_client(lease, line);
    line = *end ? end + 1 : end;
  }
  int code = m2se_redis_send(lease->redis, &(struct m2se_redis_argument){"PING", 4}, 1, on_expelled, lease);
  if (code)
    ended(lease, code, m2se_error_text(code));
}

void m2se_lease_expel(struct m2se_lease *lease) {
  assert(lease->fence);
  lease->expelled = 0;
  const struct m2se_redis_argument arguments[] = {{"CLIENT", 6}, {"LIST", 4}};
  int code = m2se_redis_send(lease->redis, arguments, 2, on_list, lease);
  if (code)
    ended(lease, code, m2se_error_text(code));
}

/* ---- life ---- */

int m2se_lease_new(struct m2se_lease **out, struct uv_loop_s *loop,
                   const struct m2se_lease_settings *settings, struct m2se_error *error) {
  assert(settings->lease_ms && settings->owner[0]);
  struct m2se_redis_uri uri;
  int code = m2se_redis_uri_parse(&uri, settings->uri, error);
  if (code)
    return code;
  struct m2se_lease *lease = calloc(1, sizeof *lease);
  if (!lease)
    return m2se_error_set(error, M2SE_ENOMEM, "lease");
  const struct m2se_redis_settings connection = {.uri = settings->uri, .timeout_ms = settings->timeout_ms};
  code = m2se_redis_new(&lease->redis, loop, &connection, error);
  if (code) {
    free(lease);
    return code;
  }
  lease->settings = *settings;
  lease->script = m2se_redis_add_script(lease->redis, m2se_lua_lease);
  m2se_key_build(&lease->key, settings->prefix, M2SE_KEY_LEASE, NULL, 0);
  /* A client's name takes no more than printable ASCII; a prefix may be anything. */
  snprintf(lease->tag, sizeof lease->tag, "m2sed-%016" PRIx64 "-",
           (uint64_t)XXH3_64bits_withSeed(settings->prefix, strlen(settings->prefix), uri.database));
  snprintf(lease->owner, sizeof lease->owner, "%s", settings->owner);
  lease->settings.uri = lease->settings.prefix = lease->settings.owner = NULL; /* the caller's strings */
  *out = lease;
  return 0;
}

void m2se_lease_close(struct m2se_lease *lease, void (*closed)(void *context), void *context) {
  lease->released = true;
  m2se_redis_close(lease->redis, closed, context);
}

void m2se_lease_free(struct m2se_lease *lease) {
  if (!lease)
    return;
  m2se_redis_free(lease->redis);
  free(lease);
}
