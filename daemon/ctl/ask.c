#include "daemon/ctl/ask.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "daemon/ctl/ctl.h"

enum { TICK_MS = 50 };

struct m2sed_ask {
  uv_loop_t loop;
  uv_timer_t tick; /* so that a wait looks up now and then */
  struct m2se_redis *redis;
  uint32_t timeout_ms;
  bool in_trouble;
  char trouble[256]; /* why it is in trouble */
};

static void on_event(void *context, enum m2se_redis_event event, const char *text) {
  struct m2sed_ask *ask = context;
  if (event == M2SE_REDIS_LOST || event == M2SE_REDIS_REFUSED) {
    ask->in_trouble = true;
    snprintf(ask->trouble, sizeof ask->trouble, "%s", text);
  } else if (event == M2SE_REDIS_CONNECTED || event == M2SE_REDIS_RESUMED) {
    ask->in_trouble = false;
  }
}

static void on_tick(uv_timer_t *timer) {
  (void)timer;
}

static void on_closed(void *context) {
  struct m2sed_ask *ask = context;
  uv_close((uv_handle_t *)&ask->tick, NULL);
}

int m2sed_ask_open(struct m2sed_ask **ask, const struct m2sed_config *config, struct m2se_error *error) {
  struct m2sed_ask *a = *ask = calloc(1, sizeof *a);
  if (!a)
    return m2se_error_set(error, M2SE_ENOMEM, "a connection to Redis");
  a->timeout_ms = (uint32_t)config->redis_timeout_ms;
  int code = uv_loop_init(&a->loop);
  if (code) {
    free(a);
    *ask = NULL;
    return m2se_error_set(error, M2SE_EIO, "event loop: %s", uv_strerror(code));
  }
  const struct m2se_redis_settings settings = {
      .uri = config->redis_uri, .timeout_ms = a->timeout_ms, .event = on_event, .event_context = a};
  code = m2se_redis_new(&a->redis, &a->loop, &settings, error);
  if (code) {
    uv_loop_close(&a->loop);
    free(a);
    *ask = NULL;
    return code;
  }
  uv_timer_init(&a->loop, &a->tick);
  uv_timer_start(&a->tick, on_tick, TICK_MS, TICK_MS);
  return 0;
}

void m2sed_ask_close(struct m2sed_ask *ask) {
  if (!ask)
    return;
  m2se_redis_close(ask->redis, on_closed, ask);
  uv_run(&ask->loop, UV_RUN_DEFAULT);
  m2se_redis_free(ask->redis);
  int left = uv_loop_close(&ask->loop);
  assert(left == 0);
  (void)left;
  free(ask);
}

/* Runs the loop until at most `pending` commands are unanswered. */
static int run_down_to(struct m2sed_ask *ask, uint32_t pending, struct m2se_error *error) {
  uint32_t before = m2se_redis_pending(ask->redis);
  uint64_t deadline_ns = m2sed_ctl_monotonic_ns() + ask->timeout_ms * UINT64_C(1000000);
  while (m2se_redis_pending(ask->redis) > pending) {
    uv_run(&ask->loop, UV_RUN_ONCE);
    if (m2sed_ctl_interrupted())
      return m2se_error_set(error, M2SE_EIO, "interrupted");
    if (ask->in_trouble)
      return m2se_error_set(error, M2SE_EIO, "Redis: %s", ask->trouble);
    uint32_t left = m2se_redis_pending(ask->redis);
    uint64_t now_ns = m2sed_ctl_monotonic_ns();
    if (left < before)
      deadline_ns = now_ns + ask->timeout_ms * UINT64_C(1000000);
    else if (now_ns > deadline_ns)
      return m2se_error_set(error, M2SE_EIO, "Redis: no answer within %u ms", ask->timeout_ms);
    before = left;
  }
  return 0;
}

int m2sed_ask_send(struct m2sed_ask *ask, const struct m2se_redis_argument *arguments, uint32_t count,
                   m2se_redis_callback *callback, void *context, struct m2se_error *error) {
  int code = m2se_redis_is_full(ask->redis) ? run_down_to(ask, m2se_redis_pending(ask->redis) / 2, error) : 0;
  if (code)
    return code;
  code = m2se_redis_send(ask->redis, arguments, count, callback, context);
  return code ? m2se_error_set(error, code, "a command to Redis: %s", m2se_error_text(code)) : 0;
}

int m2sed_ask_wait(struct m2sed_ask *ask, struct m2se_error *error) {
  return run_down_to(ask, 0, error);
}

void m2sed_ask_run_until_ns(struct m2sed_ask *ask, uint64_t monotonic_ns) {
  while (!m2sed_ctl_interrupted() && m2sed_ctl_monotonic_ns() < monotonic_ns)
    uv_run(&ask->loop, UV_RUN_ONCE);
}

struct m2se_redis_argument m2sed_ask_word(const char *word) {
  return (struct m2se_redis_argument){word, strlen(word)};
}

struct m2se_redis_argument m2sed_ask_key(const struct m2se_key *key) {
  return (struct m2se_redis_argument){key->bytes, key->size};
}
