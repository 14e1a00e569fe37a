/* hiredis 0.14 on libuv. hiredis asks for readiness (add/del read/write); a poll handle gives it. Where a
 * link ends is one place, link_end; hiredis frees its context in its own time, at the latest after the
 * callback it is in. */
#include "ingest/redis_link.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <uv.h>

enum { TICKS_PER_TIMEOUT = 4 };

struct m2se_redis_link {
  struct uv_loop_s *loop;
  const struct m2se_redis_uri *uri;
  struct m2se_redis_peer *peer;
  const struct m2se_redis_link_callbacks *callbacks;
  void *context;
  uint32_t attempt;

  redisAsyncContext *hiredis; /* NULL before the address is known and after the end */
  uv_poll_t poll;
  int poll_events;
  uv_timer_t timer;
  uv_getaddrinfo_t lookup;
  uint32_t handles; /* of poll, timer, lookup: what the loop still holds */

  bool ready, ended;
  uint32_t awaited; /* replies of any kind still to come */
  uint32_t scripts_awaited;
  uint32_t guards_asked;
  uint32_t idle_ticks; /* of the timer, in a row, with replies awaited and none coming */
  char address[320];
  char client_id[24];
};

static void release_handle(struct m2se_redis_link *link) {
  assert(link->handles > 0);
  if (--link->handles > 0)
    return;
  void (*closed)(void *) = link->callbacks->closed;
  void *context = link->context;
  free(link);
  closed(context);
}

static void on_handle_closed(uv_handle_t *handle) {
  release_handle(handle->data);
}

static void link_end(struct m2se_redis_link *link, const char *why) {
  if (link->ended)
    return;
  link->ended = true;
  if (link->hiredis)
    redisAsyncFree(link->hiredis); /* comes back through on_cleanup, now or after the callback under way */
  uv_cancel((uv_req_t *)&link->lookup); /* if it is under way; a lookup that has begun answers later */
  uv_close((uv_handle_t *)&link->timer, on_handle_closed);
  link->callbacks->gone(link->context, why);
}

/* ---- what hiredis asks of an event loop ---- */
static void on_poll(uv_poll_t *handle, int status, int events);

static void update_poll(struct m2se_redis_link *link) {
  int result =
      link->poll_events ? uv_poll_start(&link->poll, link->poll_events, on_poll) : uv_poll_stop(&link->poll);
  assert(result == 0); /* fails only for handles that are closing */
  (void)result;
}

static void on_poll(uv_poll_t *handle, int status, int events) {
  struct m2se_redis_link *link = handle->data;
  /* An error stops the poll and says nothing of reading or writing: hiredis learns it from the socket itself.
   */
  if (status)
    events = link->poll_events;
  if (link->hiredis && (events & UV_READABLE))
    redisAsyncHandleRead(link->hiredis);
  if (link->hiredis && (events & UV_WRITABLE))
    redisAsyncHandleWrite(link->hiredis);
  if (status && link->hiredis)
    update_poll(link);
}

static void change_poll(struct m2se_redis_link *link, int add, int remove) {
  int events = (link->poll_events | add) & ~remove;
  if (events != link->poll_events) {
    link->poll_events = events;
    update_poll(link);
  }
}

static void on_add_read(void *link) {
  change_poll(link, UV_READABLE, 0);
}
static void on_del_read(void *link) {
  change_poll(link, 0, UV_READABLE);
}
static void on_add_write(void *link) {
  change_poll(link, UV_WRITABLE, 0);
}
static void on_del_write(void *link) {
  change_poll(link, 0, UV_WRITABLE);
}

/* hiredis frees its context right after this: because we asked, or because the connection failed. */
static void on_cleanup(void *data) {
  struct m2se_redis_link *link = data;
  char why[512];
  snprintf(why, sizeof why, "%s %s: %s", link->ready ? "connection lost to" : "cannot connect to",
           link->address, link->hiredis->err ? link->hiredis->errstr : "closed");
  link->hiredis = NULL;
  uv_close((uv_handle_t *)&link->poll, on_handle_closed);
  link_end(link, why);
}

static void on_timer(uv_timer_t *timer) {
  struct m2se_redis_link *link = timer->data;
  /* Ticks are counted, not time: if the loop itself was held up, replies may be waiting in the socket. */
  if (link->awaited == 0 && link->ready)
    link->idle_ticks = 0;
  else if (++link->idle_ticks > TICKS_PER_TIMEOUT) {
    char why[512];
    snprintf(why, sizeof why, "%s %s: no answer for %u ms",
             link->ready ? "connection dropped to" : "cannot connect to", link->address,
             (unsigned)(uv_timer_get_repeat(timer) * TICKS_PER_TIMEOUT));
    link_end(link, why);
  }
}

/* ---- logging in ---- */
static void send_arguments(struct m2se_redis_link *link, redisCallbackFn *callback, int count,
                           const char **words, const size_t *sizes) {
  if (redisAsyncCommandArgv(link->hiredis, callback, link, count, words, sizes) == REDIS_OK)
    link->awaited++;
}

static void send_words(struct m2se_redis_link *link, redisCallbackFn *callback, int count,
                       const char **words) {
  send_arguments(link, callback, count, words, NULL);
}

/* Counts the reply. false: it is none (the connection is going down), or comes after the end. */
static bool take_reply(struct m2se_redis_link *link, const redisReply *reply) {
  if (!reply || link->ended)
    return false;
  assert(link->awaited > 0);
  link->awaited--;
  link->idle_ticks = 0;
  return true;
}

/* An error of a step without which nothing works. */
static bool failed(struct m2se_redis_link *link, const redisReply *reply, const char *step) {
  if (reply->type != REDIS_REPLY_ERROR)
    return false;
  char why[512];
  snprintf(why, sizeof why, "cannot use %s: %s: %s", link->address, step, reply->str);
  link_end(link, why);
  return true;
}

static void on_login(redisAsyncContext *hiredis, void *reply, void *data) {
  (void)hiredis;
  if (take_reply(data, reply))
    failed(data, reply, "logging in");
}

static void on_ignored(redisAsyncContext *hiredis, void *reply, void *data) {
  (void)hiredis;
  take_reply(data, reply);
}

static void on_client_id(redisAsyncContext *hiredis, void *data, void *context) {
  (void)hiredis;
  struct m2se_redis_link *link = context;
  const redisReply *reply = data;
  if (take_reply(link, reply) && reply->type == REDIS_REPLY_INTEGER)
    snprintf(link->client_id, sizeof link->client_id, "%lld", reply->integer);
}

static void on_script(redisAsyncContext *hiredis, void *data, void *context) {
  (void)hiredis;
  struct m2se_redis_link *link = context;
  const redisReply *reply = data;
  if (!take_reply(link, reply) || failed(link, reply, "loading a script"))
    return;
  assert(link->scripts_awaited > 0 && link->scripts_awaited <= link->peer->script_count);
  struct m2se_redis_script *script = &link->peer->scripts[link->peer->script_count - link->scripts_awaited--];
  if (reply->type == REDIS_REPLY_STRING && reply->len == sizeof script->sha)
    memcpy(script->sha, reply->str, reply->len);
  else
    link_end(link, "SCRIPT LOAD gave an unexpected answer");
}

void m2se_redis_link_load_scripts(struct m2se_redis_link *link) {
  if (link->scripts_awaited) /* on their way already */
    return;
  link->scripts_awaited = link->peer->script_count;
  for (uint32_t i = 0; i < link->peer->script_count; i++)
    send_words(link, on_script, 3, (const char *[]){"SCRIPT", "LOAD", link->peer->scripts[i].source});
}

static void on_ping(redisAsyncContext *hiredis, void *reply, void *context) {
  (void)hiredis;
  struct m2se_redis_link *link = context;
  if (!take_reply(link, reply) || failed(link, reply, "PING")) /* LOADING is told here at the latest */
    return;
  link->ready = true;
  link->callbacks->ready(link->context);
}

/* ---- guards ---- */
static void ask_guards(struct m2se_redis_link *link);

static void on_guard(redisAsyncContext *hiredis, void *data, void *context) {
  (void)hiredis;
  struct m2se_redis_link *link = context;
  const redisReply *reply = data;
  assert(link->guards_asked > 0);
  const struct m2se_redis_guard *guard = &link->peer->guards[link->guards_asked - 1];
  if (!take_reply(link, reply) || failed(link, reply, guard->name))
    return;
  enum m2se_redis_verdict verdict = guard->judge(guard->context, (const struct m2se_redis_reply *)reply);
  if (verdict == M2SE_REDIS_BAR) {
    link->callbacks->bar(link->context, guard->name);
    link_end(link, guard->name);
    return;
  }
  if (verdict == M2SE_REDIS_DROP)
    link->callbacks->drop(link->context);
  if (!link->ended)
    ask_guards(link);
}

/* The next one; behind the last, what makes the link ready. */
static void ask_guards(struct m2se_redis_link *link) {
  while (link->guards_asked < link->peer->guard_count) {
    const struct m2se_redis_guard *guard = &link->peer->guards[link->guards_asked++];
    struct m2se_redis_argument arguments[M2SE_REDIS_GUARD_ARGUMENTS];
    const char *words[M2SE_REDIS_GUARD_ARGUMENTS];
    size_t sizes[M2SE_REDIS_GUARD_ARGUMENTS];
    uint32_t count = guard->ask(guard->context, arguments);
    assert(count <= M2SE_REDIS_GUARD_ARGUMENTS);
    for (uint32_t i = 0; i < count; i++) {
      words[i] = arguments[i].bytes;
      sizes[i] = arguments[i].size;
    }
    if (count) {
      send_arguments(link, on_guard, (int)count, words, sizes);
      return;
    }
  }
  m2se_redis_link_load_scripts(link);
  send_words(link, on_ping, 1, (const char *[]){"PING"});
}

/* The value of "name:value\r\n" in what INFO says; out is "" if there is none. */
static void find_info(const char *text, const char *name, char *out, size_t capacity) {
  const char *at = strstr(text, name);
  size_t size = at ? strcspn(at + strlen(name), "\r\n") : 0;
  if (size >= capacity)
    size = 0;
  if (size)
    memcpy(out, at + strlen(name), size);
  out[size] = 0;
}

static void on_info(redisAsyncContext *hiredis, void *data, void *context) {
  (void)hiredis;
  struct m2se_redis_link *link = context;
  const redisReply *reply = data;
  if (!take_reply(link, reply))
    return;
  struct m2se_redis_peer *peer = link->peer;
  char run_id[sizeof peer->run_id] = "";
  if (reply->type == REDIS_REPLY_STRING) { /* else not permitted: fine, we only know less */
    find_info(reply->str, "run_id:", run_id, sizeof run_id);
    find_info(reply->str, "redis_version:", peer->version, sizeof peer->version);
  }
  /* What the link before sent may still wait unread in the server, behind what we send now: old values would
   * then overwrite new ones. So that link is ended there first, if it is the same process (numbers begin
   * again in a new one). */
  if (run_id[0] && !strcmp(run_id, peer->run_id) && peer->client_id[0])
    send_words(link, on_ignored, 4, (const char *[]){"CLIENT", "KILL", "ID", peer->client_id});
  memcpy(peer->run_id, run_id, sizeof run_id);
  memcpy(peer->client_id, link->client_id, sizeof link->client_id);
  ask_guards(link);
}

static int begin(struct m2se_redis_link *link, const char *numeric_host, struct m2se_error *error) {
  const struct m2se_redis_uri *uri = link->uri;
  redisAsyncContext *hiredis =
      uri->is_unix ? redisAsyncConnectUnix(uri->path) : redisAsyncConnect(numeric_host, uri->port);
  if (!hiredis)
    return m2se_error_set(error, M2SE_ENOMEM, "cannot connect to %s: out of memory", link->address);
  int result = hiredis->err ? 0 : uv_poll_init(link->loop, &link->poll, hiredis->c.fd);
  if (hiredis->err || result) {
    m2se_error_set(error, M2SE_EIO, "cannot connect to %s: %s", link->address,
                   hiredis->err ? hiredis->errstr : uv_strerror(result));
    redisAsyncFree(hiredis);
    return M2SE_EIO;
  }
  link->hiredis = hiredis;
  link->handles++;
  link->poll.data = link;
  hiredis->ev.data = link;
  hiredis->ev.addRead = on_add_read;
  hiredis->ev.delRead = on_del_read;
  hiredis->ev.addWrite = on_add_write;
  hiredis->ev.delWrite = on_del_write;
  hiredis->ev.cleanup = on_cleanup;
  /* These are sent as soon as the connection stands. */
  if (uri->password[0] && uri->user[0])
    send_words(link, on_login, 3, (const char *[]){"AUTH", uri->user, uri->password});
  else if (uri->password[0])
    send_words(link, on_login, 2, (const char *[]){"AUTH", uri->password});
  char database[16];
  snprintf(database, sizeof database, "%u", uri->database);
  if (uri->database)
    send_words(link, on_login, 2, (const char *[]){"SELECT", database});
  const char *name = link->peer->name ? link->peer->name : "m2sed";
  send_words(link, link->peer->name ? on_login : on_ignored, 3, (const char *[]){"CLIENT", "SETNAME", name});
  send_words(link, on_client_id, 2, (const char *[]){"CLIENT", "ID"});
  send_words(link, on_info, 2, (const char *[]){"INFO", "server"});
  return 0;
}

static void on_lookup(uv_getaddrinfo_t *lookup, int status, struct addrinfo *addresses) {
  struct m2se_redis_link *link = lookup->data;
  if (!link->ended) {
    struct m2se_error error = {0};
    if (status) {
      m2se_error_set(&error, M2SE_EIO, "cannot connect to %s: %s", link->address, uv_strerror(status));
    } else {
      uint32_t count = 0;
      for (struct addrinfo *a = addresses; a; a = a->ai_next)
        count++;
      struct addrinfo *chosen = addresses;
      for (uint32_t skip = count ? link->attempt % count : 0; skip; skip--)
        chosen = chosen->ai_next;
      char numeric[64] = "";
      if (chosen && chosen->ai_family == AF_INET)
        uv_ip4_name((const struct sockaddr_in *)(const void *)chosen->ai_addr, numeric, sizeof numeric);
      else if (chosen)
        uv_ip6_name((const struct sockaddr_in6 *)(const void *)chosen->ai_addr, numeric, sizeof numeric);
      begin(link, numeric, &error);
    }
    if (error.code)
      link_end(link, error.text);
  }
  uv_freeaddrinfo(addresses);
  release_handle(link);
}

int m2se_redis_link_open(struct m2se_redis_link **out, struct uv_loop_s *loop,
                         const struct m2se_redis_uri *uri, struct m2se_redis_peer *peer, uint32_t timeout_ms,
                         uint32_t attempt, const struct m2se_redis_link_callbacks *callbacks, void *context,
                         struct m2se_error *error) {
  struct m2se_redis_link *link = calloc(1, sizeof *link);
  if (!link)
    return m2se_error_set(error, M2SE_ENOMEM, "cannot connect: out of memory");
  link->loop = loop;
  link->uri = uri;
  link->peer = peer;
  link->callbacks = callbacks;
  link->context = context;
  link->attempt = attempt;
  link->lookup.data = link;
  m2se_redis_uri_describe(uri, link->address);
  int code = 0;
  if (uri->is_unix) {
    code = begin(link, NULL, error);
  } else { /* a name server may be slow: not on the loop */
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int result = uv_getaddrinfo(loop, &link->lookup, on_lookup, uri->host, NULL, &hints);
    if (result)
      code = m2se_error_set(error, M2SE_EIO, "cannot connect to %s: %s", link->address, uv_strerror(result));
    else
      link->handles++;
  }
  if (code) {
    free(link);
    return code;
  }
  uv_timer_init(loop, &link->timer);
  link->timer.data = link;
  link->handles++;
  uint64_t tick_ms = timeout_ms / TICKS_PER_TIMEOUT ? timeout_ms / TICKS_PER_TIMEOUT : 1;
  uv_timer_start(&link->timer, on_timer, tick_ms, tick_ms);
  *out = link;
  return 0;
}

void m2se_redis_link_drop(struct m2se_redis_link *link, const char *why) {
  link_end(link, why);
}

/* ---- commands of the door ---- */
static void on_reply(redisAsyncContext *hiredis, void *reply, void *context) {
  (void)hiredis;
  struct m2se_redis_link *link = context;
  if (take_reply(link, reply))
    link->callbacks->reply(link->context, (const struct m2se_redis_reply *)reply);
}

int m2se_redis_link_send(struct m2se_redis_link *link, const char *command, size_t size) {
  if (link->ended || redisAsyncFormattedCommand(link->hiredis, on_reply, link, command, size) != REDIS_OK)
    return M2SE_EIO;
  link->awaited++;
  return 0;
}
