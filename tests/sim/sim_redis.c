/* A fake of ingest/redis.h: the door and the server behind it. The door's promise is kept and used to the
 * full: replies in order, but commands run again after a lost connection, and later ones before one that was
 * refused.
 */
#include "ingest/redis.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"
#include "tests/sim/sim_store.h"

enum { QUEUE_MAX = 16384, FULL = 12288, SCRIPTS_MAX = 8 };

struct command {
  struct sim_words words;
  const char *script; /* NULL: an ordinary command */
  m2se_redis_callback *callback;
  void *context;
  struct m2se_redis_reply *reply; /* it has run */
};

struct m2se_redis {
  struct command queue[QUEUE_MAX]; /* a ring */
  uint64_t first, run, end;        /* first: unanswered; run: the next to run */
  const char *scripts[SCRIPTS_MAX];
  int script_count;
  struct m2se_redis_guard guards[M2SE_REDIS_GUARDS_MAX];
  uint32_t guard_count;
  m2se_redis_event_callback *event;
  void *event_context;
  int64_t away_until_ms;
  bool connected, closed;
  void (*on_closed)(void *context);
  void *closed_context;
};
static struct m2se_redis *door; /* of this life */

/* ---- replies ---- */

enum m2se_redis_type m2se_redis_reply_type(const struct m2se_redis_reply *reply) {
  return reply ? reply->type : M2SE_REDIS_NIL;
}
int64_t m2se_redis_reply_integer(const struct m2se_redis_reply *reply) {
  return reply && reply->type == M2SE_REDIS_INTEGER ? reply->integer : 0;
}
const char *m2se_redis_reply_bytes(const struct m2se_redis_reply *reply, size_t *size) {
  bool has = reply && (reply->type == M2SE_REDIS_BYTES || reply->type == M2SE_REDIS_ERROR);
  *size = has ? reply->size : 0;
  return has ? reply->bytes : "";
}
size_t m2se_redis_reply_count(const struct m2se_redis_reply *reply) {
  return reply && reply->type == M2SE_REDIS_ARRAY ? reply->count : 0;
}
const struct m2se_redis_reply *m2se_redis_reply_element(const struct m2se_redis_reply *reply, size_t index) {
  return index < m2se_redis_reply_count(reply) ? reply->elements[index] : NULL;
}

/* ---- the door ---- */

int m2se_redis_new(struct m2se_redis **redis, struct uv_loop_s *loop,
                   const struct m2se_redis_settings *settings, struct m2se_error *error) {
  (void)loop, (void)error;
  door = *redis = calloc(1, sizeof *door);
  assert(door);
  door->event = settings->event;
  door->event_context = settings->event_context;
  return 0;
}

static struct command *at(struct m2se_redis *redis, uint64_t index) {
  return &redis->queue[index % QUEUE_MAX];
}

static void forget(struct command *command) {
  free(command->words.memory);
  sim_reply_free(command->reply);
  *command = (struct command){0};
}

static int put(struct m2se_redis *redis, const char *script, const struct m2se_redis_argument *arguments,
               uint32_t count, m2se_redis_callback *callback, void *context) {
  if (redis->closed)
    return M2SE_EIO;
  if (redis->end - redis->first == QUEUE_MAX)
    return M2SE_ELIMIT;
  struct command *command = at(redis, redis->end++);
  command->script = script;
  command->callback = callback;
  command->context = context;
  sim_words_copy(&command->words, arguments, count);
  return 0;
}

int m2se_redis_send(struct m2se_redis *redis, const struct m2se_redis_argument *arguments, uint32_t count,
                    m2se_redis_callback *callback, void *context) {
  return put(redis, NULL, arguments, count, callback, context);
}

int m2se_redis_add_script(struct m2se_redis *redis, const char *source) {
  assert(redis->script_count < SCRIPTS_MAX);
  redis->scripts[redis->script_count] = source;
  return redis->script_count++;
}

int m2se_redis_call(struct m2se_redis *redis, int script, const void *key, size_t key_size,
                    const struct m2se_redis_argument *arguments, uint32_t count,
                    m2se_redis_callback *callback, void *context) {
  struct m2se_redis_argument all[SIM_WORDS_MAX] = {{key, key_size}, {"1", 1}}; /* [1] is ARGV[1] */
  assert(count + 2 <= SIM_WORDS_MAX);
  memcpy(all + 2, arguments, count * sizeof *arguments);
  return put(redis, redis->scripts[script], all, count + 2, callback, context);
}

void m2se_redis_add_guard(struct m2se_redis *redis, const struct m2se_redis_guard *guard) {
  assert(redis->guard_count < M2SE_REDIS_GUARDS_MAX);
  redis->guards[redis->guard_count++] = *guard;
}

bool m2se_redis_is_full(const struct m2se_redis *redis) {
  return redis->end - redis->first >= FULL;
}
bool m2se_redis_has_room(const struct m2se_redis *redis, uint32_t commands, uint32_t arguments,
                         size_t bytes) {
  (void)arguments, (void)bytes;
  return QUEUE_MAX - (redis->end - redis->first) >= commands;
}
uint32_t m2se_redis_pending(const struct m2se_redis *redis) {
  return (uint32_t)(redis->end - redis->first);
}
void m2se_redis_get_status(const struct m2se_redis *redis, struct m2se_redis_status *status) {
  *status = (struct m2se_redis_status){.connected = redis->connected, .waiting = m2se_redis_pending(redis)};
}
int m2se_redis_refresh_memory(struct m2se_redis *redis) {
  (void)redis;
  return 0;
}

/* ---- a moment passes ---- */

static void run(struct command *command, bool all_answered) {
  command->words.words[1] =
      command->script ? (struct sim_word){all_answered ? "1" : "0", 1} : command->words.words[1];
  struct m2se_redis_reply *reply = command->script ? sim_store_script(command->script, &command->words)
                                                   : sim_store_command(&command->words);
  sim_reply_free(command->reply);
  command->reply = reply;
}

/* Everything unanswered is sent again. */
static void go_back(struct m2se_redis *redis) {
  for (uint64_t i = redis->first; i < redis->end; i++) {
    sim_reply_free(at(redis, i)->reply);
    at(redis, i)->reply = NULL;
  }
  redis->run = redis->first;
}

static void lose_connection(struct m2se_redis *redis, const char *why) {
  sim_trace("redis: %s, %llu of %llu unanswered commands have run", why,
            (unsigned long long)(redis->run - redis->first), (unsigned long long)(redis->end - redis->first));
  go_back(redis);
  redis->connected = false;
  redis->away_until_ms = sim->now_ms + (int64_t)sim_draw(400);
  redis->event(redis->event_context, M2SE_REDIS_LOST, "simulated");
}

static void ask_guards(struct m2se_redis *redis) {
  for (uint32_t i = 0; i < redis->guard_count; i++) {
    struct m2se_redis_argument arguments[M2SE_REDIS_GUARD_ARGUMENTS];
    struct sim_words words;
    sim_words_copy(&words, arguments, redis->guards[i].ask(redis->guards[i].context, arguments));
    struct m2se_redis_reply *reply = sim_store_command(&words);
    sim_store_answered(NULL, &words, reply);
    enum m2se_redis_verdict verdict = redis->guards[i].judge(redis->guards[i].context, reply);
    assert(verdict == M2SE_REDIS_PASS);
    sim_reply_free(reply);
    free(words.memory);
  }
}

/* One is refused, some after it run all the same; then all from it on are sent again. */
static void refuse(struct m2se_redis *redis) {
  uint64_t refused = redis->run, end = redis->end - refused > 12 ? refused + 12 : redis->end;
  sim_trace("redis: a command is refused, %llu after it run", (unsigned long long)(end - refused - 1));
  for (uint64_t i = refused + 1; i < end; i++)
    run(at(redis, i), false);
  for (uint64_t i = refused; i < end; i++) {
    sim_reply_free(at(redis, i)->reply);
    at(redis, i)->reply = NULL;
  }
}

static bool is_refusal(const struct m2se_redis_reply *reply) {
  return reply->type == M2SE_REDIS_ERROR && strncmp(reply->bytes, "TRYAGAIN", 8) == 0;
}

static void run_some(struct m2se_redis *redis) {
  for (uint64_t count = sim_draw(40); count > 0 && redis->run < redis->end; count--) {
    if (sim_chance(sim->faults.refused))
      refuse(redis);
    struct command *command = at(redis, redis->run);
    run(command, redis->run == redis->first);
    if (is_refusal(command->reply))
      return; /* once more, when more is answered */
    redis->run++;
  }
}

static void answer_some(struct m2se_redis *redis) {
  for (uint64_t count = sim_draw(40); count > 0 && redis->first < redis->run; count--) {
    struct command done = *at(redis, redis->first);
    *at(redis, redis->first++) = (struct command){0};
    sim_store_answered(done.script, &done.words, done.reply);
    bool error = done.reply->type == M2SE_REDIS_ERROR;
    if (error)
      sim_trace("redis: error %s", done.reply->bytes);
    if (done.callback)
      done.callback(done.context, error ? M2SE_EFORMAT : 0, error ? NULL : done.reply,
                    error ? done.reply->bytes : NULL);
    forget(&done);
  }
}

void sim_redis_turn(void) {
  if (!door)
    return;
  if (door->closed) {
    struct m2se_redis *redis = door;
    door = NULL;
    redis->on_closed(redis->closed_context);
    return;
  }
  if (sim_store_maybe_crash())
    lose_connection(door, "it crashed and lost data");
  if (door->connected && sim_chance(sim->faults.connection_lost))
    lose_connection(door, "connection lost");
  if (!door->connected && sim->now_ms >= door->away_until_ms) {
    ask_guards(door);
    if (sim_chance(sim->faults.connection_lost *
                   5)) { /* behind the answer, before anything waiting is sent */
      door->away_until_ms = sim->now_ms + (int64_t)sim_draw(400);
      return;
    }
    door->connected = true;
    door->event(door->event_context, M2SE_REDIS_CONNECTED, "simulated");
  }
  if (!door->connected)
    return;
  run_some(door);
  if (sim_chance(700))
    answer_some(door);
}

void m2se_redis_close(struct m2se_redis *redis, void (*closed)(void *context), void *context) {
  redis->closed = true;
  redis->on_closed = closed;
  redis->closed_context = context;
  while (redis->first < redis->end) {
    struct command left = *at(redis, redis->first);
    *at(redis, redis->first++) = (struct command){0};
    if (left.callback)
      left.callback(left.context, M2SE_EIO, NULL, NULL);
    forget(&left);
  }
}

void m2se_redis_free(struct m2se_redis *redis) {
  free(redis);
}
