/* The door to Redis against a real server: what it promises when the server refuses, dies, hangs, forgets. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "redis_rig.h"

/* ---- a log of answers, each checked to come in order ---- */
struct answers {
  uint32_t count, wrong, failed, lost;
  char last[256];
};
struct expected {
  struct answers *answers;
  uint32_t number;
};

static void on_echo(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct expected *expected = context;
  struct answers *answers = expected->answers;
  if (status == M2SE_EIO) {
    answers->lost++;
  } else if (status) {
    answers->failed++;
    snprintf(answers->last, sizeof answers->last, "%s", error);
  } else {
    size_t size;
    snprintf(answers->last, sizeof answers->last, "%s", m2se_redis_reply_bytes(reply, &size));
    answers->wrong += strtoul(answers->last, NULL, 10) != expected->number;
  }
  answers->wrong += expected->number != answers->count;
  answers->count++;
  free(expected);
}

static struct expected *expect(struct answers *answers, uint32_t number) {
  struct expected *expected = malloc(sizeof *expected);
  assert_non_null(expected);
  *expected = (struct expected){answers, number};
  return expected;
}

static int send_words(struct redis_rig *rig, m2se_redis_callback *callback, void *context, uint32_t count,
                      const char **words) {
  struct m2se_redis_argument arguments[16];
  for (uint32_t i = 0; i < count; i++)
    arguments[i] = (struct m2se_redis_argument){words[i], strlen(words[i])};
  return m2se_redis_send(rig->redis, arguments, count, callback, context);
}

/* "SET last N" and "ECHO N" for begin <= N < end; the answers must come as N = begin, ... */
static void send_numbers(struct redis_rig *rig, struct answers *answers, uint32_t begin, uint32_t end) {
  for (uint32_t i = begin; i < end; i++) {
    char number[16];
    snprintf(number, sizeof number, "%u", i);
    assert_int_equal(send_words(rig, NULL, NULL, 3, (const char *[]){"SET", "last", number}), 0);
    assert_int_equal(send_words(rig, on_echo, expect(answers, i), 2, (const char *[]){"ECHO", number}), 0);
  }
}

static void assert_all(const struct answers *answers, uint32_t count) {
  assert_int_equal(answers->count, count);
  assert_int_equal(answers->wrong, 0);
  assert_int_equal(answers->failed, 0);
  assert_int_equal(answers->lost, 0);
}

/* ---- replies ---- */
struct kinds {
  uint32_t answered;
};

static void on_binary(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct kinds *kinds = context;
  assert_int_equal(status, 0);
  assert_null(error);
  size_t size;
  const char *bytes = m2se_redis_reply_bytes(reply, &size);
  assert_int_equal(m2se_redis_reply_type(reply), M2SE_REDIS_BYTES);
  assert_int_equal(size, 6);
  assert_memory_equal(bytes, "a\0\r\n\xff ", 6);
  kinds->answered++;
}

static void on_array(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct kinds *kinds = context;
  assert_int_equal(status, 0);
  assert_null(error);
  assert_int_equal(m2se_redis_reply_type(reply), M2SE_REDIS_ARRAY);
  assert_int_equal(m2se_redis_reply_count(reply), 3);
  assert_int_equal(m2se_redis_reply_integer(m2se_redis_reply_element(reply, 0)), 42);
  assert_int_equal(m2se_redis_reply_type(m2se_redis_reply_element(reply, 0)), M2SE_REDIS_INTEGER);
  size_t size;
  assert_string_equal(m2se_redis_reply_bytes(m2se_redis_reply_element(reply, 1), &size), "text");
  assert_int_equal(m2se_redis_reply_type(m2se_redis_reply_element(reply, 2)), M2SE_REDIS_NIL);
  kinds->answered++;
}

static void test_replies(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct kinds kinds = {0};
  const struct m2se_redis_argument set[] = {{"SET", 3}, {"k\0{", 3}, {"a\0\r\n\xff ", 6}};
  const struct m2se_redis_argument get[] = {{"GET", 3}, {"k\0{", 3}};
  assert_int_equal(m2se_redis_send(rig->redis, set, 3, NULL, NULL), 0);
  assert_int_equal(m2se_redis_send(rig->redis, get, 2, on_binary, &kinds), 0);
  const char *script = "return {42, 'text', false}";
  assert_int_equal(send_words(rig, on_array, &kinds, 3, (const char *[]){"EVAL", script, "0"}), 0);
  rig_run_until(rig, &kinds.answered, 2);
  struct m2se_redis_status status;
  m2se_redis_get_status(rig->redis, &status);
  assert_true(status.connected);
  assert_int_equal(status.connects, 1);
  assert_int_equal(status.answered, 3);
  assert_int_equal(status.bytes, 0);
  assert_int_equal(status.resent, 0);
  assert_string_not_equal(status.server_version, "");
  assert_int_equal(rig->events[M2SE_REDIS_CONNECTED], 1);
  assert_int_equal(m2se_redis_refresh_memory(rig->redis), 0);
  while (m2se_redis_pending(rig->redis))
    rig_run_ms(rig, 5);
  m2se_redis_get_status(rig->redis, &status);
  assert_true(status.used_memory_bytes > 100000 && status.used_memory_bytes < 1000000000);
  assert_int_equal(status.maxmemory_bytes, 0);
}

static void test_classes(void **state) {
  (void)state;
  assert_int_equal(m2se_redis_classify("LOADING Redis is loading"), M2SE_REDIS_CLASS_RETRY);
  assert_int_equal(m2se_redis_classify("BUSY Redis is busy"), M2SE_REDIS_CLASS_RETRY);
  assert_int_equal(m2se_redis_classify("BUSYGROUP exists"), M2SE_REDIS_CLASS_ERROR);
  assert_int_equal(m2se_redis_classify("READONLY You can't"), M2SE_REDIS_CLASS_DROP);
  assert_int_equal(m2se_redis_classify("OOM command not allowed"), M2SE_REDIS_CLASS_ALARM);
  assert_int_equal(m2se_redis_classify("WRONGTYPE Operation"), M2SE_REDIS_CLASS_ERROR);
  assert_int_equal(m2se_redis_classify("ERR unknown command"), M2SE_REDIS_CLASS_ERROR);
  assert_int_equal(m2se_redis_classify(""), M2SE_REDIS_CLASS_ERROR);
}

/* ---- connections that end ---- */
static void test_killed_connections(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct answers answers = {0};
  uint32_t sent = 0;
  while (sent < 30000) {
    send_numbers(rig, &answers, sent, sent + 1500);
    sent += 1500;
    rig_run_until(rig, &answers.count, sent - 1000);
    rig_admin(rig, "CLIENT KILL TYPE normal");
  }
  rig_run_until(rig, &answers.count, sent);
  assert_all(&answers, sent);
  assert_string_equal(rig_admin(rig, "GET last"), "29999");
  struct m2se_redis_status status;
  m2se_redis_get_status(rig->redis, &status);
  assert_true(status.connects > 10);
  assert_true(status.resent > 0);
  assert_true(rig->events[M2SE_REDIS_LOST] > 10);
}

static void test_server_that_comes_late(void **state) {
  struct redis_rig *rig = *state;
  char uri[128];
  snprintf(uri, sizeof uri, "%s", m2se_redis_child_uri(rig->child));
  rig_kill_server(rig);
  rig_connect(rig, uri, NULL);
  struct answers answers = {0};
  send_numbers(rig, &answers, 0, 100);
  rig_run_ms(rig, 300);
  assert_int_equal(answers.count, 0);
  assert_true(rig->events[M2SE_REDIS_LOST] >= 1);
  assert_non_null(strstr(rig->event_text, "redis.sock"));
  struct m2se_redis_status status;
  m2se_redis_get_status(rig->redis, &status);
  assert_false(status.connected);
  assert_int_equal(status.waiting, 200);
  rig_start_server(rig);
  rig_run_until(rig, &answers.count, 100);
  assert_all(&answers, 100);
}

static void test_server_killed(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct answers answers = {0};
  for (uint32_t round = 0; round < 3; round++) {
    send_numbers(rig, &answers, round * 1000, round * 1000 + 1000);
    rig_run_until(rig, &answers.count, round * 1000 + 300);
    rig_kill_server(rig);
    rig_run_ms(rig, 60);
    rig_start_server(rig);
  }
  rig_run_until(rig, &answers.count, 3000);
  assert_all(&answers, 3000);
  assert_string_equal(rig_admin(rig, "GET last"), "2999");
}

static void test_server_that_hangs(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, &(struct m2se_redis_settings){.timeout_ms = 200});
  struct answers answers = {0};
  send_numbers(rig, &answers, 0, 10);
  rig_run_until(rig, &answers.count, 10);
  kill(m2se_redis_child_pid(rig->child), SIGSTOP);
  send_numbers(rig, &answers, 10, 20);
  int64_t begin = rig_now_ms();
  rig_run_until(rig, &rig->events[M2SE_REDIS_LOST], 1);
  assert_true(rig_now_ms() - begin >= 150);
  assert_non_null(strstr(rig->event_text, "no answer"));
  send_numbers(rig, &answers, 20, 30); /* what hangs in the old connection must not overwrite these */
  rig_run_ms(rig, 700);
  kill(m2se_redis_child_pid(rig->child), SIGCONT);
  rig_run_until(rig, &answers.count, 30);
  assert_all(&answers, 30);
  rig_run_ms(rig, 100);
  assert_string_equal(rig_admin(rig, "GET last"), "29");
  /* Because the new connection has ended the old one before it sent anything. */
  assert_non_null(strstr(rig_admin(rig, "INFO commandstats"), "cmdstat_client|kill:"));
}

static void test_tcp(void **state) {
  struct redis_rig *rig = *state;
  /* A free port: of a range of its own, by chance, until one works. */
  uint32_t port = 0;
  for (uint32_t attempt = 0; attempt < 50 && !port; attempt++) {
    uint32_t candidate = 20000 + ((uint32_t)getpid() * 31 + attempt * 997) % 10000;
    if (!strcmp(rig_admin(rig, "CONFIG SET port %u", candidate), "OK"))
      port = candidate;
  }
  assert_true(port > 0);
  char uri[64];
  snprintf(uri, sizeof uri, "redis://localhost:%u/3", port);
  rig_connect(rig, uri, NULL);
  struct answers answers = {0};
  send_numbers(rig, &answers, 0, 100);
  rig_run_until(rig, &answers.count, 100);
  assert_all(&answers, 100);
  assert_string_equal(rig_admin(rig, "SELECT 3"), "OK");
  assert_string_equal(rig_admin(rig, "GET last"), "99");
  rig_close(rig);

  assert_string_equal(rig_admin(rig, "CONFIG SET port 0"), "OK");
  snprintf(uri, sizeof uri, "redis://127.0.0.1:%u", port);
  rig_connect(rig, uri, NULL);
  rig_run_until(rig, &rig->events[M2SE_REDIS_LOST], 1);
  assert_non_null(strstr(rig->event_text, "refused"));
  rig_close(rig);

  rig_connect(rig, "redis://name.invalid:1",
              NULL); /* closed while the name is looked up, or after that failed */
  rig_run_ms(rig, 1);
}

/* ---- limits ---- */
static void test_full(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, &(struct m2se_redis_settings){.commands_max = 64, .window = 8, .bytes_max = 8000});
  struct answers answers = {0};
  uint32_t sent = 0;
  while (!m2se_redis_is_full(rig->redis) && sent < 64) {
    send_numbers(rig, &answers, sent, sent + 1);
    sent++;
  }
  assert_int_equal(m2se_redis_pending(rig->redis), 48);
  for (; m2se_redis_pending(rig->redis) < 64; sent++)
    send_numbers(rig, &answers, sent, sent + 1);
  assert_int_equal(send_words(rig, NULL, NULL, 1, (const char *[]){"PING"}), M2SE_ELIMIT);
  rig_run_until(rig, &rig->events[M2SE_REDIS_ROOM], 1);
  assert_false(m2se_redis_is_full(rig->redis));
  rig_run_until(rig, &answers.count, sent);
  assert_all(&answers, sent);

  static char big[7000];
  memset(big, 'x', sizeof big);
  const struct m2se_redis_argument set[] = {{"SET", 3}, {"k", 1}, {big, sizeof big}};
  assert_int_equal(m2se_redis_send(rig->redis, set, 3, NULL, NULL), 0);
  assert_true(m2se_redis_is_full(rig->redis));
  assert_int_equal(m2se_redis_send(rig->redis, set, 3, NULL, NULL), M2SE_ELIMIT);
  rig_run_until(rig, &rig->events[M2SE_REDIS_ROOM], 2);
}

/* ---- refusals ---- */
static void test_out_of_memory(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct answers answers = {0};
  send_numbers(rig, &answers, 0, 10);
  rig_run_until(rig, &answers.count, 10);
  rig_admin(rig, "CONFIG SET maxmemory 1");
  send_numbers(rig, &answers, 10, 20);
  rig_run_until(rig, &rig->events[M2SE_REDIS_REFUSED], 1);
  rig_run_ms(rig, 200);
  assert_int_equal(answers.count, 10);
  assert_non_null(strstr(rig->event_text, "OOM"));
  struct m2se_redis_status status;
  m2se_redis_get_status(rig->redis, &status);
  assert_true(status.refused && status.connected);
  assert_true(status.replies[M2SE_REDIS_CLASS_ALARM] >= 1 && status.replies[M2SE_REDIS_CLASS_ALARM] <= 3);
  assert_int_equal(status.connects, 1);
  rig_admin(rig, "CONFIG SET maxmemory 0");
  rig_run_until(rig, &answers.count, 20);
  assert_all(&answers, 20);
  assert_int_equal(rig->events[M2SE_REDIS_RESUMED], 1);
  assert_string_equal(rig_admin(rig, "GET last"), "19");
}

static void test_read_only(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct answers answers = {0};
  rig_admin(rig, "REPLICAOF 127.0.0.1 1");
  send_numbers(rig, &answers, 0, 10);
  rig_run_until(rig, &rig->events[M2SE_REDIS_LOST], 3);
  assert_int_equal(answers.count, 0);
  assert_non_null(strstr(rig->event_text, "READONLY"));
  rig_admin(rig, "REPLICAOF NO ONE");
  rig_run_until(rig, &answers.count, 10);
  assert_all(&answers, 10);
}

/* A script that refuses by chance: whatever is refused, answers come in order and the last value is that of
 * the last call, although a call behind a refused one has run before it. */
static const char chaos[] = "local n = redis.call('INCR', 'calls')\n"
                            "if n * 2654435761 % 4294967296 < 4294967296 / 50 then\n"
                            "  return redis.error_reply('BUSY by chance')\n"
                            "end\n"
                            "redis.call('SET', KEYS[1], ARGV[2])\n"
                            "return ARGV[2]";

static void test_refused_in_the_middle(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  int script = m2se_redis_add_script(rig->redis, chaos);
  assert_int_equal(script, 0);
  struct answers answers = {0};
  for (uint32_t i = 0; i < 2000; i++) {
    char number[16];
    snprintf(number, sizeof number, "%u", i);
    const struct m2se_redis_argument argument = {number, strlen(number)};
    assert_int_equal(
        m2se_redis_call(rig->redis, script, "key", 3, &argument, 1, on_echo, expect(&answers, i)), 0);
    if (i % 500 == 499) {
      rig_run_until(rig, &answers.count, i - 300);
      rig_admin(rig, "SCRIPT FLUSH");
      assert_true(strtoul(rig_admin(rig, "GET key"), NULL, 10) >= answers.count - 1);
    }
  }
  rig_run_until(rig, &answers.count, 2000);
  assert_all(&answers, 2000);
  assert_string_equal(rig_admin(rig, "GET key"), "1999");
  struct m2se_redis_status status;
  m2se_redis_get_status(rig->redis, &status);
  assert_true(status.replies[M2SE_REDIS_CLASS_RETRY] > 10);
  assert_int_equal(status.connects, 1);
}

static void test_busy_server(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  rig_admin(rig, "CONFIG SET busy-reply-threshold 20");
  struct answers answers = {0};
  send_numbers(rig, &answers, 0, 10);
  rig_run_until(rig, &answers.count, 10);
  /* Another process keeps the server busy with a script until it is told to stop. */
  pid_t busy = fork();
  if (busy == 0) {
    char socket[128];
    snprintf(socket, sizeof socket, "%s", m2se_redis_child_uri(rig->child) + 7);
    if (!freopen("/dev/null", "w", stdout))
      _exit(126);
    execlp("redis-cli", "redis-cli", "-s", socket, "EVAL", "while true do end", "0", (char *)NULL);
    _exit(127);
  }
  rig_run_ms(rig, 200);
  send_numbers(rig, &answers, 10, 20);
  rig_run_until(rig, &rig->events[M2SE_REDIS_REFUSED], 1);
  assert_non_null(strstr(rig->event_text, "BUSY"));
  assert_int_equal(answers.count, 10);
  assert_string_equal(rig_admin(rig, "SCRIPT KILL"), "OK");
  rig_run_until(rig, &answers.count, 20);
  assert_all(&answers, 20);
  kill(busy, SIGKILL);
  waitpid(busy, NULL, 0);
}

/* ---- errors, groups, logging in ---- */
static void test_errors_and_groups(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct answers answers = {0};
  rig_admin(rig, "SET text x");
  send_words(rig, on_echo, expect(&answers, 0), 3, (const char *[]){"HGET", "text", "f"});
  rig_run_until(rig, &answers.count, 1);
  assert_int_equal(answers.failed, 1);
  assert_non_null(strstr(answers.last, "WRONGTYPE"));
  /* The first of a group fails: its end tells it. The next group is its own. */
  send_words(rig, NULL, NULL, 4, (const char *[]){"HSET", "text", "f", "1"});
  send_words(rig, NULL, NULL, 2, (const char *[]){"GET", "text"});
  send_words(rig, on_echo, expect(&answers, 1), 2, (const char *[]){"ECHO", "1"});
  send_words(rig, on_echo, expect(&answers, 2), 2, (const char *[]){"ECHO", "2"});
  rig_run_until(rig, &answers.count, 3);
  assert_int_equal(answers.failed, 2);
  assert_string_equal(answers.last, "2");
  assert_int_equal(answers.wrong, 0);
}

static void test_passwords(void **state) {
  struct redis_rig *rig = *state;
  rig_admin(rig, "ACL SETUSER anna on >p%%40ss/w@rd ~* +@all");
  const char *path = m2se_redis_child_uri(rig->child) + 7;
  char uri[256];
  snprintf(uri, sizeof uri, "unix://anna:wrong@%s", path);
  rig_connect(rig, uri, NULL);
  rig_run_until(rig, &rig->events[M2SE_REDIS_LOST], 1);
  assert_non_null(strstr(rig->event_text, "WRONGPASS"));
  assert_null(strstr(rig->event_text, "wrong@"));
  rig_close(rig);
  snprintf(uri, sizeof uri, "unix://anna:p%%2540ss/w%%40rd@%s?db=2", path);
  rig_connect(rig, uri, NULL);
  struct answers answers = {0};
  send_numbers(rig, &answers, 0, 10);
  rig_run_until(rig, &answers.count, 10);
  assert_all(&answers, 10);
  rig_close(rig);
  /* Not permitted to write: an alarm, until it is. Nor to see INFO or kill clients: no harm. */
  rig_admin(rig, "ACL SETUSER anna -set -info -client");
  rig_connect(rig, uri, NULL);
  answers = (struct answers){0};
  send_numbers(rig, &answers, 0, 10);
  rig_run_until(rig, &rig->events[M2SE_REDIS_REFUSED], 1);
  assert_non_null(strstr(rig->event_text, "NOPERM"));
  rig_admin(rig, "ACL SETUSER anna +set");
  rig_run_until(rig, &answers.count, 10);
  assert_all(&answers, 10);
}

static void test_close_with_commands_waiting(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct answers answers = {0};
  send_numbers(rig, &answers, 0, 100);
  rig_run_until(rig, &answers.count, 100);
  send_numbers(rig, &answers, 100, 1000);
  rig_close(rig);
  assert_int_equal(answers.count, 1000);
  assert_int_equal(answers.wrong, 0);
  assert_int_equal(answers.lost, 900);
}

struct closer {
  struct redis_rig *rig;
  uint32_t calls;
};

static void on_closed_inside(void *context) {
  struct closer *closer = context;
  closer->rig->closed = true;
}

static void on_answer_close(void *context, int status, const struct m2se_redis_reply *reply,
                            const char *error) {
  (void)reply;
  (void)error;
  struct closer *closer = context;
  closer->calls++;
  if (closer->calls == 1) {
    assert_int_equal(status, 0);
    m2se_redis_close(closer->rig->redis, on_closed_inside, closer);
    assert_int_equal(send_words(closer->rig, NULL, NULL, 1, (const char *[]){"PING"}), M2SE_EIO);
  } else {
    assert_int_equal(status, M2SE_EIO);
  }
}

static void test_close_inside_a_callback(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct closer closer = {.rig = rig};
  rig->closed = false;
  for (int i = 0; i < 10; i++)
    send_words(rig, on_answer_close, &closer, 1, (const char *[]){"PING"});
  rig_run_until(rig, &closer.calls, 10);
  rig_run_ms(rig, 20);
  assert_true(rig->closed);
  m2se_redis_free(rig->redis);
  rig->redis = NULL;
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, rig_set_up, rig_tear_down)

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  int status = rig_check_server();
  if (status)
    return status;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_classes),
      WITH_SERVER(test_replies),
      WITH_SERVER(test_killed_connections),
      WITH_SERVER(test_server_that_comes_late),
      WITH_SERVER(test_server_killed),
      WITH_SERVER(test_server_that_hangs),
      WITH_SERVER(test_tcp),
      WITH_SERVER(test_full),
      WITH_SERVER(test_out_of_memory),
      WITH_SERVER(test_read_only),
      WITH_SERVER(test_refused_in_the_middle),
      WITH_SERVER(test_busy_server),
      WITH_SERVER(test_errors_and_groups),
      WITH_SERVER(test_passwords),
      WITH_SERVER(test_close_with_commands_waiting),
      WITH_SERVER(test_close_inside_a_callback),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
