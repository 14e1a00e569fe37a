#include "redis_rig.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>
#include <uv.h>

enum { PATIENCE_MS = 30000 };

int64_t rig_now_ms(void) {
  return (int64_t)(uv_hrtime() / 1000000);
}

int rig_check_server(void) {
  struct redis_rig rig = {.directory = "/tmp/m2se-redis-XXXXXX"};
  struct m2se_error error = {0};
  if (!mkdtemp(rig.directory))
    return 1;
  int code = m2se_redis_child_start(&rig.child, rig.directory, PATIENCE_MS, &error);
  if (code == M2SE_EMISSING)
    print_message("skipped: %s\n", error.text);
  else if (code)
    print_message("%s\n", error.text);
  m2se_redis_child_stop(rig.child, PATIENCE_MS, &error);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", rig.directory);
  return system(command) || (code && code != M2SE_EMISSING) ? 1 : code ? 77 : 0;
}

void rig_start_server(struct redis_rig *rig) {
  struct m2se_error error = {0};
  if (m2se_redis_child_start(&rig->child, rig->directory, PATIENCE_MS, &error))
    fail_msg("%s", error.text);
  rig->admin = redisConnectUnix(m2se_redis_child_uri(rig->child) + 7);
  assert_non_null(rig->admin);
  assert_int_equal(rig->admin->err, 0);
}

void rig_end_server(struct redis_rig *rig) {
  redisFree(rig->admin);
  rig->admin = NULL;
  assert_int_equal(m2se_redis_child_stop(rig->child, PATIENCE_MS, NULL), 0);
  rig->child = NULL;
}

void rig_kill_server(struct redis_rig *rig) {
  kill(m2se_redis_child_pid(rig->child), SIGKILL);
  rig_end_server(rig);
}

void rig_start(struct redis_rig *rig) {
  memset(rig, 0, sizeof *rig);
  snprintf(rig->directory, sizeof rig->directory, "/tmp/m2se-redis-XXXXXX");
  assert_non_null(mkdtemp(rig->directory));
  rig->loop = malloc(sizeof *rig->loop);
  assert_non_null(rig->loop);
  assert_int_equal(uv_loop_init(rig->loop), 0);
  rig_start_server(rig);
}

void rig_stop(struct redis_rig *rig) {
  rig_close(rig);
  assert_int_equal(uv_loop_close(rig->loop), 0);
  free(rig->loop);
  if (rig->admin)
    redisFree(rig->admin);
  assert_int_equal(m2se_redis_child_stop(rig->child, PATIENCE_MS, NULL), 0);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", rig->directory);
  assert_int_equal(system(command), 0);
}

static void on_event(void *context, enum m2se_redis_event event, const char *text) {
  struct redis_rig *rig = context;
  rig->events[event]++;
  if (event == M2SE_REDIS_LOST || event == M2SE_REDIS_REFUSED || event == M2SE_REDIS_BARRED)
    snprintf(rig->event_text, sizeof rig->event_text, "%s", text);
}

void rig_connect(struct redis_rig *rig, const char *uri, const struct m2se_redis_settings *settings) {
  struct m2se_redis_settings used = {0};
  if (settings)
    used = *settings;
  used.uri = uri ? uri : m2se_redis_child_uri(rig->child);
  used.event = on_event;
  used.event_context = rig;
  struct m2se_error error = {0};
  memset(rig->events, 0, sizeof rig->events);
  if (m2se_redis_new(&rig->redis, rig->loop, &used, &error))
    fail_msg("%s", error.text);
}

static void on_closed(void *context) {
  struct redis_rig *rig = context;
  rig->closed = true;
}

void rig_close(struct redis_rig *rig) {
  if (!rig->redis)
    return;
  rig->closed = false;
  m2se_redis_close(rig->redis, on_closed, rig);
  assert_int_equal(uv_run(rig->loop, UV_RUN_DEFAULT), 0);
  assert_true(rig->closed);
  m2se_redis_free(rig->redis);
  rig->redis = NULL;
}

static void on_time(uv_timer_t *timer) {
  *(bool *)timer->data = true;
}

static void run(struct redis_rig *rig, const uint32_t *done, uint32_t wanted, uint32_t ms, bool *timed_out) {
  uv_timer_t timer;
  *timed_out = false;
  uv_timer_init(rig->loop, &timer);
  timer.data = timed_out;
  uv_timer_start(&timer, on_time, ms, 0);
  while (!*timed_out && !(done && *done >= wanted))
    uv_run(rig->loop, UV_RUN_ONCE);
  uv_close((uv_handle_t *)&timer, NULL);
  uv_run(rig->loop, UV_RUN_NOWAIT);
}

void rig_run_until(struct redis_rig *rig, const uint32_t *done, uint32_t wanted) {
  bool timed_out;
  run(rig, done, wanted, PATIENCE_MS, &timed_out);
  if (timed_out)
    fail_msg("waited too long: %u of %u", *done, wanted);
}

void rig_run_ms(struct redis_rig *rig, uint32_t ms) {
  bool timed_out;
  run(rig, NULL, 0, ms, &timed_out);
}

const char *rig_admin(struct redis_rig *rig, const char *format, ...) {
  static char text[65536]; /* one test at a time */
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  const char *words[32];
  int count = 0;
  for (char *save, *word = strtok_r(line, " ", &save); word; word = strtok_r(NULL, " ", &save))
    words[count++] = word;
  redisReply *reply = redisCommandArgv(rig->admin, count, words, NULL);
  if (!reply)
    fail_msg("%s: %s", words[0], rig->admin->errstr);
  text[0] = 0;
  if (reply->type == REDIS_REPLY_INTEGER)
    snprintf(text, sizeof text, "%lld", reply->integer);
  else if (reply->type == REDIS_REPLY_NIL)
    snprintf(text, sizeof text, "(nil)");
  else if (reply->type != REDIS_REPLY_ARRAY)
    snprintf(text, sizeof text, "%s", reply->str);
  freeReplyObject(reply);
  return text;
}

int rig_set_up(void **state) {
  struct redis_rig *rig = calloc(1, sizeof *rig);
  assert_non_null(rig);
  rig_start(rig);
  *state = rig;
  return 0;
}

int rig_tear_down(void **state) {
  rig_stop(*state);
  free(*state);
  return 0;
}
