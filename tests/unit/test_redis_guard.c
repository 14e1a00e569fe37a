/* Guards of a connection (redis.h) on a real server: nothing that waits is sent before all of them let it. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "redis_rig.h"

/* A guard that appends its letter to the list "order" and then judges as it is told to. */
struct keeper {
  struct m2se_redis_guard guard;
  enum m2se_redis_verdict verdict;
  uint32_t asked, judged;
  bool silent;
  const char *key; /* of the list */
};

static uint32_t on_ask(void *context, struct m2se_redis_argument *arguments) {
  struct keeper *keeper = context;
  keeper->asked++;
  if (keeper->silent)
    return 0;
  arguments[0] = (struct m2se_redis_argument){"RPUSH", 5};
  arguments[1] = (struct m2se_redis_argument){keeper->key, strlen(keeper->key)};
  arguments[2] = (struct m2se_redis_argument){keeper->guard.name, 1};
  return 3;
}

static enum m2se_redis_verdict on_judge(void *context, const struct m2se_redis_reply *reply) {
  struct keeper *keeper = context;
  assert_int_equal(m2se_redis_reply_type(reply), M2SE_REDIS_INTEGER);
  keeper->judged++;
  return keeper->verdict;
}

static void add(struct redis_rig *rig, struct keeper *keeper, const char *name) {
  *keeper = (struct keeper){.guard = {name, on_ask, on_judge, keeper}, .verdict = M2SE_REDIS_PASS};
  keeper->key = "order";
  m2se_redis_add_guard(rig->redis, &keeper->guard);
}

/* A group without answers of its own, then one command with an answer. */
struct answer {
  struct redis_rig *rig;
  uint32_t answered, dropped, closed;
  const char *send_again; /* when dropped */
};

static void push(struct redis_rig *rig, const char *letter, m2se_redis_callback *callback, void *context) {
  const struct m2se_redis_argument arguments[] = {{"RPUSH", 5}, {"order", 5}, {letter, strlen(letter)}};
  assert_int_equal(m2se_redis_send(rig->redis, arguments, 3, callback, context), 0);
}

static void on_answer(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct answer *answer = context;
  assert_true((status == 0) == (reply != NULL) && (status == 0) == (error == NULL));
  if (status == M2SE_EDROPPED) {
    answer->dropped++;
    if (answer->send_again)
      push(answer->rig, answer->send_again, on_answer, answer);
  } else if (status == M2SE_EIO) {
    answer->closed++;
  } else {
    assert_int_equal(status, 0);
    answer->answered++;
  }
}

static const char *order(struct redis_rig *rig) {
  return rig_admin(rig, "EVAL return(table.concat(redis.call('LRANGE','order',0,-1))) 0");
}

/* In order, each after the answer of the one before, ahead of what waits; on every connection. */
static void test_pass(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, &(struct m2se_redis_settings){.name = "somebody-7"});
  struct keeper a, b, c;
  add(rig, &a, "a");
  add(rig, &b, "b");
  add(rig, &c, "c");
  b.silent = true;
  struct answer answer = {.rig = rig};
  push(rig, "1", NULL, NULL);
  push(rig, "2", on_answer, &answer);
  rig_run_until(rig, &answer.answered, 1);
  assert_string_equal(order(rig), "ac12");
  assert_non_null(strstr(rig_admin(rig, "CLIENT LIST"), " name=somebody-7 "));

  rig_admin(rig, "CLIENT KILL TYPE normal");
  rig_run_until(rig, &rig->events[M2SE_REDIS_LOST], 1);
  push(rig, "3", on_answer, &answer);
  rig_run_until(rig, &answer.answered, 2);
  assert_string_equal(order(rig), "ac12ac3");
  assert_int_equal(a.asked + b.asked + c.asked, 6);
  assert_int_equal(a.judged + b.judged + c.judged, 4);
  assert_int_equal(answer.dropped, 0);
}

/* Given up: what was under way and what was not, in order; not what their callbacks send. */
static void test_drop(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, &(struct m2se_redis_settings){.commands_max = 8, .window = 2});
  struct keeper a, b;
  add(rig, &a, "a");
  add(rig, &b, "b");
  struct answer answer = {.rig = rig};
  push(rig, "1", on_answer, &answer);
  rig_run_until(rig, &answer.answered, 1);

  kill(m2se_redis_child_pid(rig->child), SIGKILL); /* the answers of what was sent never come */
  push(rig, "2", NULL, NULL);
  push(rig, "3", on_answer, &answer);
  push(rig, "4", NULL, NULL);
  push(rig, "5", on_answer, &answer);
  push(rig, "6", on_answer, &answer);
  push(rig, "7", NULL, NULL); /* a group without an end */
  assert_true(m2se_redis_is_full(rig->redis));
  rig_run_until(rig, &rig->events[M2SE_REDIS_LOST], 1);
  a.verdict = M2SE_REDIS_DROP;
  answer.send_again = "8";
  rig_end_server(rig);
  rig_start_server(rig);
  rig_run_until(rig, &answer.answered, 4);
  assert_int_equal(answer.dropped, 3);
  assert_string_equal(order(rig), "ab1ab888");
  assert_int_equal(b.judged, 2); /* the next guard is asked all the same */
  assert_int_equal(rig->events[M2SE_REDIS_ROOM], 1);
  assert_int_equal(rig->events[M2SE_REDIS_CONNECTED], 2);

  struct m2se_redis_status status;
  m2se_redis_get_status(rig->redis, &status);
  assert_int_equal(status.bytes, 0);
  assert_int_equal(status.in_flight + status.waiting, 0);
  assert_int_equal(answer.closed, 0);
}

static void on_answer_close(void *context, int status, const struct m2se_redis_reply *reply,
                            const char *error) {
  struct answer *answer = context;
  on_answer(context, status, reply, error);
  if (status == M2SE_EDROPPED)
    m2se_redis_close(answer->rig->redis, NULL, NULL);
}

static void test_close_while_dropping(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct keeper a, b;
  add(rig, &a, "a");
  add(rig, &b, "b");
  a.verdict = M2SE_REDIS_DROP;
  struct answer answer = {.rig = rig};
  push(rig, "1", on_answer, &answer);
  push(rig, "2", on_answer_close, &answer);
  push(rig, "3", on_answer, &answer);
  rig_run_until(rig, &answer.closed, 1);
  assert_int_equal(answer.dropped, 2);
  rig_run_ms(rig, 50);
  m2se_redis_free(rig->redis);
  rig->redis = NULL;
  assert_int_equal(b.asked, 0);
  assert_string_equal(order(rig), "a");
}

static void test_bar(void **state) {
  struct redis_rig *rig = *state;
  rig_connect(rig, NULL, NULL);
  struct keeper a, b, c;
  add(rig, &a, "a");
  add(rig, &b, "b");
  add(rig, &c, "c");
  b.verdict = M2SE_REDIS_BAR;
  struct answer answer = {.rig = rig};
  push(rig, "1", on_answer, &answer);
  rig_run_until(rig, &rig->events[M2SE_REDIS_BARRED], 1);
  assert_string_equal(rig->event_text, "b");
  rig_run_ms(rig, 300); /* it does not try again */
  assert_string_equal(order(rig), "ab");
  assert_int_equal(c.asked, 0);
  assert_int_equal(rig->events[M2SE_REDIS_BARRED], 1);
  assert_int_equal(rig->events[M2SE_REDIS_LOST] + rig->events[M2SE_REDIS_CONNECTED], 0);
  assert_int_equal(m2se_redis_pending(rig->redis), 1);
  assert_int_equal(answer.answered + answer.dropped, 0);
  rig_close(rig);
  assert_int_equal(answer.closed, 1);
  assert_string_equal(order(rig), "ab");
}

/* An error is no answer: all is asked again on the next connection. */
static void test_error(void **state) {
  struct redis_rig *rig = *state;
  rig_admin(rig, "SET text 1");
  rig_connect(rig, NULL, NULL);
  struct keeper a, b;
  add(rig, &a, "a");
  add(rig, &b, "b");
  b.key = "text";
  struct answer answer = {.rig = rig};
  push(rig, "1", on_answer, &answer);
  rig_run_until(rig, &rig->events[M2SE_REDIS_LOST], 1);
  assert_non_null(strstr(rig->event_text, "b: WRONGTYPE"));
  rig_run_ms(rig, 100);
  assert_int_equal(answer.answered + b.judged, 0);
  rig_admin(rig, "DEL order text");
  rig_run_until(rig, &answer.answered, 1);
  assert_string_equal(order(rig), "a1");
  assert_true(a.judged >= 2);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, rig_set_up, rig_tear_down)

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  int status = rig_check_server();
  if (status)
    return status;
  const struct CMUnitTest tests[] = {
      WITH_SERVER(test_pass), WITH_SERVER(test_drop),  WITH_SERVER(test_close_while_dropping),
      WITH_SERVER(test_bar),  WITH_SERVER(test_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
