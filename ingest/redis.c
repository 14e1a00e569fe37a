#include "ingest/redis.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "ingest/redis_link.h"

enum {
  RECONNECT_MS_MIN = 50,
  RECONNECT_MS_MAX = 2000,
  RETRY_MS_MIN = 10,
  RETRY_MS_MAX = 500,
  ALARM_MS = 1000,
  ARGUMENTS_MAX = 64
};

struct command {
  char *bytes; /* the whole command in Redis' protocol */
  size_t size;
  int32_t script;            /* or -1 */
  uint32_t sha_at, first_at; /* of a call: where in bytes the script's name and ARGV[1] stand */
  m2se_redis_callback *callback;
  void *context;
};

struct m2se_redis {
  struct uv_loop_s *loop;
  struct m2se_redis_uri uri;
  struct m2se_redis_settings settings;
  struct m2se_redis_peer peer;

  /* The queue: head .. next - 1 sent and unanswered, next .. tail - 1 not sent. Counts since the start; the
   * place of n in the array is n % commands_max. sent_until: everything before it has been sent at least
   * once. */
  struct command *commands;
  uint64_t head, next, tail, sent_until;
  size_t bytes;
  bool full;

  struct m2se_redis_link *link; /* NULL while waiting to connect */
  bool ready, barred;
  uint32_t links_open; /* not closed yet; more than one while old ones still close */
  uint32_t attempts;   /* failed in a row */
  char outage_text[256];

  /* Going back: replies still to come for commands that will be sent again; then a pause, if pausing. */
  uint32_t stale;
  bool pausing, reload_scripts;
  uint32_t refusals; /* in a row, without a success between */
  uv_timer_t timer;  /* the end of a pause, or of the wait before connecting */

  char group_error[256]; /* of commands without a callback: for the next one with a callback */

  bool closing, closed;
  void (*on_closed)(void *context);
  void *closed_context;
  struct m2se_redis_status status;
};

static void connect_now(struct m2se_redis *redis);
static void pump(struct m2se_redis *redis);

static struct command *at(struct m2se_redis *redis, uint64_t number) {
  return &redis->commands[number % redis->settings.commands_max];
}

static void tell(struct m2se_redis *redis, enum m2se_redis_event event, const char *text) {
  if (redis->settings.event)
    redis->settings.event(redis->settings.event_context, event, text);
}

static void note_error(struct m2se_redis *redis, const char *text) {
  snprintf(redis->status.last_error, sizeof redis->status.last_error, "%s", text);
}

/* ---- answers ---- */

/* Takes the head off the queue and answers it. */
static void deliver(struct m2se_redis *redis, int status, const struct m2se_redis_reply *reply,
                    const char *error) {
  struct command command = *at(redis, redis->head);
  redis->head++;
  redis->bytes -= command.size;
  redis->status.answered++;
  free(command.bytes);
  if (!command.callback) {
    if (status && !redis->group_error[0])
      snprintf(redis->group_error, sizeof redis->group_error, "%s", error);
    return;
  }
  char group_error[sizeof redis->group_error];
  if (!status && redis->group_error[0]) {
    memcpy(group_error, redis->group_error, sizeof group_error);
    status = M2SE_EFORMAT;
    error = group_error;
    reply = NULL;
  }
  redis->group_error[0] = 0; /* before the callback, which may send and close */
  command.callback(command.context, status, reply, error);
}

static void tell_room(struct m2se_redis *redis) {
  if (redis->full && !redis->closing && m2se_redis_pending(redis) <= redis->settings.commands_max / 2 &&
      redis->bytes <= redis->settings.bytes_max / 2) {
    redis->full = false;
    tell(redis, M2SE_REDIS_ROOM, "");
  }
}

static void on_pause_over(uv_timer_t *timer) {
  struct m2se_redis *redis = timer->data;
  redis->pausing = false;
  if (redis->link)
    pump(redis);
  else
    connect_now(redis);
}

/* Back to the head: what was sent behind it is sent again, after its replies have come and gone. */
static void go_back(struct m2se_redis *redis, enum m2se_redis_class class, const char *text) {
  redis->stale = (uint32_t)(redis->next - redis->head) - 1;
  redis->next = redis->head;
  redis->refusals++;
  note_error(redis, text);
  uint64_t pause_ms = ALARM_MS;
  if (class == M2SE_REDIS_CLASS_RETRY) {
    uint32_t doublings = redis->refusals - 1 < 10 ? redis->refusals - 1 : 10;
    pause_ms = (uint64_t)RETRY_MS_MIN << doublings;
    pause_ms = pause_ms < RETRY_MS_MAX ? pause_ms : RETRY_MS_MAX;
    if (!strncmp(text, "NOSCRIPT ", 9)) {
      redis->reload_scripts = true;
      pause_ms = redis->refusals == 1 ? 0 : pause_ms;
    } else if (!strncmp(text, "TRYAGAIN ", 9) && redis->refusals == 1) {
      pause_ms = 0; /* an earlier command was refused; this one only has to come after it */
    }
  }
  if (pause_ms) {
    redis->pausing = true;
    uv_timer_start(&redis->timer, on_pause_over, pause_ms, 0);
  }
  if (!redis->status.refused) {
    redis->status.refused = true;
    tell(redis, M2SE_REDIS_REFUSED, text);
  }
}

static void on_reply(void *context, const struct m2se_redis_reply *reply) {
  struct m2se_redis *redis = context;
  if (redis->stale) {
    if (--redis->stale == 0)
      pump(redis);
    return;
  }
  assert(redis->head < redis->next);
  size_t size;
  const char *text = m2se_redis_reply_bytes(reply, &size);
  bool is_error = m2se_redis_reply_type(reply) == M2SE_REDIS_ERROR;
  enum m2se_redis_class class = is_error ? m2se_redis_classify(text) : M2SE_REDIS_CLASS_OK;
  redis->status.replies[class]++;
  if (class == M2SE_REDIS_CLASS_DROP) {
    m2se_redis_link_drop(redis->link, text);
    return;
  }
  if (class == M2SE_REDIS_CLASS_RETRY || class == M2SE_REDIS_CLASS_ALARM) {
    go_back(redis, class, text);
  } else {
    redis->refusals = 0;
    redis->attempts =
        0; /* not before: a server that takes connections and then refuses all is no better than none */
    if (redis->status.refused) {
      redis->status.refused = false;
      tell(redis, M2SE_REDIS_RESUMED, "");
    }
    if (is_error)
      note_error(redis, text);
    deliver(redis, is_error ? M2SE_EFORMAT : 0, is_error ? NULL : reply, is_error ? text : NULL);
    tell_room(redis);
  }
  pump(redis);
}

/* ---- connecting ---- */
static void wait_to_connect(struct m2se_redis *redis, const char *why) {
  note_error(redis, why);
  if (strcmp(why, redis->outage_text) != 0) { /* once for an outage, and again if the reason changes */
    snprintf(redis->outage_text, sizeof redis->outage_text, "%s", why);
    tell(redis, M2SE_REDIS_LOST, why);
  }
  if (redis->closing) /* told so inside the callback */
    return;
  uint32_t doublings = redis->attempts < 10 ? redis->attempts : 10;
  uint64_t pause_ms = (uint64_t)RECONNECT_MS_MIN << doublings;
  redis->attempts++;
  uv_timer_start(&redis->timer, on_pause_over, pause_ms < RECONNECT_MS_MAX ? pause_ms : RECONNECT_MS_MAX, 0);
}

static void on_ready(void *context) {
  struct m2se_redis *redis = context;
  redis->ready = true;
  redis->outage_text[0] = 0;
  redis->status.connects++;
  tell(redis, M2SE_REDIS_CONNECTED, redis->peer.version);
  pump(redis);
}

static void on_gone(void *context, const char *why) {
  struct m2se_redis *redis = context;
  redis->link = NULL;
  redis->ready = false;
  redis->next = redis->head; /* outcomes unknown: all again */
  redis->stale = 0;
  redis->reload_scripts = false; /* every link loads them */
  redis->pausing = false;        /* the wait before connecting stands for it */
  if (!redis->closing && !redis->barred)
    wait_to_connect(redis, why);
}

static void on_bar(void *context, const char *guard) {
  struct m2se_redis *redis = context;
  redis->barred = true;
  tell(redis, M2SE_REDIS_BARRED, guard);
}

static void on_drop(void *context) {
  struct m2se_redis *redis = context;
  /* What the callbacks send belongs to what comes later. */
  for (uint64_t end = redis->tail; redis->head < end && !redis->closing;) {
    redis->next = redis->head + 1;
    deliver(redis, M2SE_EDROPPED, NULL, "given up: a guard of the connection to Redis said so");
  }
  redis->group_error[0] = 0; /* of a group whose end was not there: what comes next begins another */
  tell_room(redis);
}

static void finish_close(struct m2se_redis *redis) {
  if (redis->closed && redis->links_open == 0 && redis->on_closed)
    redis->on_closed(redis->closed_context);
}

static void on_link_closed(void *context) {
  struct m2se_redis *redis = context;
  redis->links_open--;
  finish_close(redis);
}

static const struct m2se_redis_link_callbacks link_callbacks = {.ready = on_ready,
                                                                .reply = on_reply,
                                                                .gone = on_gone,
                                                                .closed = on_link_closed,
                                                                .drop = on_drop,
                                                                .bar = on_bar};

static void connect_now(struct m2se_redis *redis) {
  struct m2se_error error = {0};
  if (m2se_redis_link_open(&redis->link, redis->loop, &redis->uri, &redis->peer, redis->settings.timeout_ms,
                           redis->attempts, &link_callbacks, redis, &error))
    wait_to_connect(redis, error.text);
  else
    redis->links_open++;
}

/* ---- sending ---- */

/* Sends what the connection and the window allow. After a refusal one command at a time, until one succeeds.
 */
static void pump(struct m2se_redis *redis) {
  if (!redis->ready || redis->stale || redis->pausing || redis->closing)
    return;
  if (redis->reload_scripts) {
    redis->reload_scripts = false;
    m2se_redis_link_load_scripts(redis->link);
  }
  uint64_t window = redis->refusals ? 1 : redis->settings.window;
  while (redis->next < redis->tail && redis->next - redis->head < window) {
    struct command *command = at(redis, redis->next);
    if (command->script >= 0) {
      memcpy(command->bytes + command->sha_at, redis->peer.scripts[command->script].sha, 40);
      command->bytes[command->first_at] = redis->next == redis->head ? '1' : '0';
    }
    if (m2se_redis_link_send(redis->link, command->bytes, command->size))
      return; /* the link is ending: on_gone follows */
    redis->next++;
    if (redis->next > redis->sent_until)
      redis->sent_until = redis->next;
    else
      redis->status.resent++;
  }
}

/* Puts a number and CR LF; returns behind it. */
static char *put_line(char *to, char mark, size_t number) {
  char digits[20];
  int count = 0;
  do
    digits[count++] = (char)('0' + number % 10);
  while (number /= 10);
  *to++ = mark;
  while (count)
    *to++ = digits[--count];
  *to++ = '\r';
  *to++ = '\n';
  return to;
}

static char *put_bulk(char *to, const void *bytes, size_t size) {
  to = put_line(to, '$', size);
  if (size)
    memcpy(to, bytes, size);
  to += size;
  *to++ = '\r';
  *to++ = '\n';
  return to;
}

/* No more than this once they are in Redis' protocol. */
static size_t size_bound(uint32_t commands, uint32_t arguments, size_t bytes) {
  return bytes + (size_t)(commands + arguments) * 26;
}

bool m2se_redis_has_room(const struct m2se_redis *redis, uint32_t commands, uint32_t arguments,
                         size_t bytes) {
  size_t bound = size_bound(commands, arguments, bytes);
  return redis->tail - redis->head + commands <= redis->settings.commands_max &&
         bound <= redis->settings.bytes_max && redis->bytes <= redis->settings.bytes_max - bound;
}

/* Both kinds of commands: head stands before arguments. Returns the new command, for the caller to complete,
 * in *out. */
static int enqueue(struct m2se_redis *redis, const struct m2se_redis_argument *head, uint32_t head_count,
                   const struct m2se_redis_argument *arguments, uint32_t count, m2se_redis_callback *callback,
                   void *context, struct command **out) {
  if (redis->closing)
    return M2SE_EIO;
  size_t bytes_in = 0;
  for (uint32_t i = 0; i < head_count; i++)
    bytes_in += head[i].size;
  for (uint32_t i = 0; i < count; i++)
    bytes_in += arguments[i].size;
  if (!m2se_redis_has_room(redis, 1, head_count + count, bytes_in)) {
    redis->full = true;
    return M2SE_ELIMIT;
  }
  size_t capacity = size_bound(1, head_count + count, bytes_in);
  char *bytes = malloc(capacity + 1);
  if (!bytes)
    return M2SE_ENOMEM;
  char *to = put_line(bytes, '*', head_count + count);
  for (uint32_t i = 0; i < head_count; i++)
    to = put_bulk(to, head[i].bytes, head[i].size);
  for (uint32_t i = 0; i < count; i++)
    to = put_bulk(to, arguments[i].bytes, arguments[i].size);
  *to = 0; /* hiredis looks for the command's name with string functions */
  struct command *command = at(redis, redis->tail++);
  *command = (struct command){.bytes = bytes, .size = (size_t)(to - bytes), .script = -1};
  command->callback = callback;
  command->context = context;
  redis->bytes += command->size;
  if (m2se_redis_pending(redis) >= redis->settings.commands_max / 4 * 3 ||
      redis->bytes >= redis->settings.bytes_max / 4 * 3)
    redis->full = true;
  *out = command;
  return 0;
}

int m2se_redis_send(struct m2se_redis *redis, const struct m2se_redis_argument *arguments, uint32_t count,
                    m2se_redis_callback *callback, void *context) {
  assert(count >= 1 && count <= ARGUMENTS_MAX);
  struct command *command;
  int code = enqueue(redis, arguments, count, NULL, 0, callback, context, &command);
  if (!code)
    pump(redis);
  return code;
}

int m2se_redis_add_script(struct m2se_redis *redis, const char *source) {
  if (redis->peer.script_count == M2SE_REDIS_SCRIPTS_MAX)
    return M2SE_ELIMIT;
  redis->peer.scripts[redis->peer.script_count].source = source;
  return (int)redis->peer.script_count++;
}

void m2se_redis_add_guard(struct m2se_redis *redis, const struct m2se_redis_guard *guard) {
  assert(redis->peer.guard_count < M2SE_REDIS_GUARDS_MAX);
  redis->peer.guards[redis->peer.guard_count++] = *guard;
}

int m2se_redis_call(struct m2se_redis *redis, int script, const void *key, size_t key_size,
                    const struct m2se_redis_argument *arguments, uint32_t count,
                    m2se_redis_callback *callback, void *context) {
  assert(script >= 0 && (uint32_t)script < redis->peer.script_count && count <= ARGUMENTS_MAX);
  static const char unnamed[40] = {0};
  const struct m2se_redis_argument head[] = {
      {"EVALSHA", 7}, {unnamed, 40}, {"1", 1}, {key, key_size}, {"0", 1}};
  struct command *command;
  int code = enqueue(redis, head, 5, arguments, count, callback, context, &command);
  if (code)
    return code;
  command->script = script;
  /* "*N CRLF $7 CRLF EVALSHA CRLF $40 CRLF" sha "CRLF $1 CRLF 1 CRLF $" size "CRLF" key "CRLF $1 CRLF" flag
   */
  const char *start = command->bytes;
  const char *sha = (const char *)memchr(start, '\n', command->size) + 1 + 4 + 9 + 5;
  const char *key_line_end = memchr(sha + 40 + 2 + 4 + 3, '\n', 24);
  command->sha_at = (uint32_t)(sha - start);
  command->first_at = (uint32_t)(key_line_end + 1 + key_size + 2 + 4 - start);
  assert(command->bytes[command->first_at] == '0');
  pump(redis);
  return 0;
}

/* ---- life ---- */
int m2se_redis_new(struct m2se_redis **out, struct uv_loop_s *loop,
                   const struct m2se_redis_settings *settings, struct m2se_error *error) {
  struct m2se_redis *redis = calloc(1, sizeof *redis);
  if (!redis)
    return m2se_error_set(error, M2SE_ENOMEM, "redis: out of memory");
  redis->loop = loop;
  redis->settings = *settings;
  redis->peer.name = settings->name;
  redis->settings.uri = NULL; /* the caller's string, with a password in it */
  if (!redis->settings.commands_max)
    redis->settings.commands_max = 16384;
  if (!redis->settings.bytes_max)
    redis->settings.bytes_max = (size_t)64 << 20;
  if (!redis->settings.window)
    redis->settings.window = 2048;
  if (!redis->settings.timeout_ms)
    redis->settings.timeout_ms = 5000;
  int code = m2se_redis_uri_parse(&redis->uri, settings->uri, error);
  if (!code) {
    redis->commands = calloc(redis->settings.commands_max, sizeof *redis->commands);
    if (!redis->commands)
      code = m2se_error_set(error, M2SE_ENOMEM, "redis: out of memory");
  }
  if (code) {
    free(redis);
    return code;
  }
  uv_timer_init(loop, &redis->timer);
  redis->timer.data = redis;
  /* From the loop, so that scripts can be added first and no callback comes before this has returned. */
  uv_timer_start(&redis->timer, on_pause_over, 0, 0);
  *out = redis;
  return 0;
}

static void on_timer_closed(uv_handle_t *handle) {
  struct m2se_redis *redis = handle->data;
  redis->closed = true;
  finish_close(redis);
}

void m2se_redis_close(struct m2se_redis *redis, void (*closed)(void *context), void *context) {
  assert(!redis->closing);
  redis->closing = true;
  redis->on_closed = closed;
  redis->closed_context = context;
  if (redis->link)
    m2se_redis_link_drop(redis->link, "closed");
  uv_timer_stop(&redis->timer);
  while (redis->head < redis->tail)
    deliver(redis, M2SE_EIO, NULL, "the connection to Redis was closed before an answer came");
  uv_close((uv_handle_t *)&redis->timer, on_timer_closed);
}

void m2se_redis_free(struct m2se_redis *redis) {
  if (!redis)
    return;
  assert(redis->closed && redis->links_open == 0);
  free(redis->commands);
  free(redis);
}

bool m2se_redis_is_full(const struct m2se_redis *redis) {
  return redis->full;
}

uint32_t m2se_redis_pending(const struct m2se_redis *redis) {
  return (uint32_t)(redis->tail - redis->head);
}

void m2se_redis_get_status(const struct m2se_redis *redis, struct m2se_redis_status *status) {
  *status = redis->status;
  status->connected = redis->ready;
  status->in_flight = (uint32_t)(redis->next - redis->head);
  status->waiting = (uint32_t)(redis->tail - redis->next);
  status->bytes = redis->bytes;
  memcpy(status->server_version, redis->peer.version, sizeof status->server_version);
}

static uint64_t find_number(const char *text, const char *name) {
  const char *found = strstr(text, name);
  return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

static void on_memory(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  (void)error;
  struct m2se_redis *redis = context;
  if (status)
    return;
  size_t size;
  const char *text = m2se_redis_reply_bytes(reply, &size);
  redis->status.used_memory_bytes = find_number(text, "\nused_memory:");
  redis->status.maxmemory_bytes = find_number(text, "\nmaxmemory:");
}

int m2se_redis_refresh_memory(struct m2se_redis *redis) {
  return m2se_redis_send(redis, (const struct m2se_redis_argument[]){{"INFO", 4}, {"memory", 6}}, 2,
                         on_memory, redis);
}
