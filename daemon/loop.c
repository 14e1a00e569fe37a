#include "daemon/loop.h"

#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "daemon/loop_state.h"
#include "daemon/notify.h"
#include "daemon/signals.h"

enum {
  RECORDS_A_TURN = 256, /* then the other work of a turn gets its chance */
  TICK_MS = 100,
  PAUSE_AFTER_MS = 2000 /* without room for so long: Kafka is told, so that it keeps the membership alive */
};

struct m2sed_loop_handles {
  uv_loop_t uv;
  uv_async_t wake; /* from Kafka's threads, the trainer, the server */
  uv_idle_t again; /* runs while more is to be taken than one turn allows */
  uv_timer_t tick, second;
  uv_signal_t terminate, interrupt, checkpoint, resume;
};

struct uv_loop_s *m2sed_loop_uv(struct m2sed_loop *loop) {
  return &loop->handles->uv;
}

void m2sed_loop_wake(struct m2sed_loop *loop) {
  uv_async_send(&loop->handles->wake);
}

void m2sed_loop_fail(struct m2sed_loop *loop, int code, const char *format, ...) {
  assert(code < 0);
  if (loop->failure)
    return;
  char text[sizeof loop->failure_text.text];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  loop->failure = m2se_error_set(&loop->failure_text, code, "%s", text);
  M2SED_LOG(loop->log, ERROR, "failed, stopping in order", M2SED_S("code", m2se_error_name(code)),
            M2SED_S("why", loop->failure_text.text));
  m2sed_loop_wake(loop);
}

static int64_t wall_clock_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Every event under way becomes a message to the trainer. It takes them between two steps, so there may be
 * many as long as the backlog is sure to have room for all that came since its last report. */
static bool trainer_has_room(const struct m2sed_loop *loop) {
  if (!loop->engine_started)
    return true;
  uint64_t under_way = loop->events_end - loop->events_first;
  bool backlog_has_room =
      loop->last_step.waiting + 2 * (uint64_t)M2SED_TRAINER_RING <= (uint64_t)loop->config->train_backlog;
  return under_way + m2sed_ring_used(m2sed_trainer_input(loop->trainer)) <
         (backlog_has_room || !loop->config->train_enabled ? M2SED_TRAINER_RING : M2SED_TRAINER_RING_FULL);
}

bool m2sed_loop_has_room(const struct m2sed_loop *loop) {
  return loop->to_trainer.count == 0 && loop->to_server.count == 0 &&
         loop->events_end - loop->events_first < loop->events_capacity && trainer_has_room(loop) &&
         loop->requests_end - loop->requests_first < M2SED_REQUESTS_FOR_EVENTS &&
         !m2se_redis_is_full(loop->redis) && !m2sed_letters_full(loop) && !m2sed_erasure_blocks(loop) &&
         !m2sed_marker_busy(loop);
}

/* Which consumers may hand over records now. The group's is polled while it is paused too, to stay a member.
 */
static unsigned what_to_read(struct m2sed_loop *loop, bool room) {
  unsigned what = 0;
  if (loop->phase <= M2SED_PHASE_RUNNING && room && !m2sed_features_full(loop))
    what |= M2SE_KAFKA_READ_ITEMS;
  bool wanted = loop->phase == M2SED_PHASE_RUNNING && !loop->garbage.open && !loop->pause.holds &&
                !m2sed_erasures_behind(m2sed_positions_erasures(loop->positions)) &&
                (room || loop->full_since_ms == 0 || loop->now_ms - loop->full_since_ms < PAUSE_AFTER_MS);
  if (wanted && loop->interactions_paused) {
    m2se_kafka_resume(loop->kafka, M2SE_KAFKA_INTERACTIONS, -1);
    loop->interactions_paused = false;
  } else if (!wanted && !loop->interactions_paused) {
    m2se_kafka_pause(loop->kafka, M2SE_KAFKA_INTERACTIONS, -1);
    loop->interactions_paused = true;
  }
  if (m2sed_marker_known(loop) && (room || loop->interactions_paused))
    what |= M2SE_KAFKA_READ_GROUP;
  return what;
}

static void on_idle(uv_idle_t *idle);

static void read_kafka(struct m2sed_loop *loop) {
  if (!loop->kafka)
    return;
  bool room = m2sed_loop_has_room(loop);
  loop->full_since_ms = room ? 0 : loop->full_since_ms ? loop->full_since_ms : loop->now_ms;
  bool more = m2se_kafka_poll(loop->kafka, what_to_read(loop, room), RECORDS_A_TURN);
  /* Without room there is nothing to hurry for: what makes room wakes the loop. */
  if (more && m2sed_loop_has_room(loop) && loop->phase <= M2SED_PHASE_RUNNING)
    uv_idle_start(&loop->handles->again, on_idle);
  else
    uv_idle_stop(&loop->handles->again);
}

static void turn(struct m2sed_loop *loop) {
  if (loop->phase == M2SED_PHASE_CLOSED || loop->phase == M2SED_PHASE_STANDBY)
    return;
  uint64_t begin = uv_hrtime();
  loop->now_ms = wall_clock_ms();
  if (loop->engine_started) {
    m2sed_outbox_flush(&loop->to_trainer);
    m2sed_outbox_flush(&loop->to_server);
    m2sed_loop_take_answers(loop);
  }
  m2sed_features_advance(loop);
  m2sed_erasure_advance(loop);
  read_kafka(loop);
  m2sed_marker_advance(loop);
  m2sed_loop_advance(loop);
  m2sed_status_count_turn(loop, (double)(uv_hrtime() - begin) * 1e-6);
}

static void on_wake(uv_async_t *async) {
  turn(async->loop->data);
}

static void on_idle(uv_idle_t *idle) {
  turn(idle->loop->data);
}

static void on_tick(uv_timer_t *timer) {
  struct m2sed_loop *loop = timer->loop->data;
  turn(loop);
  loop->now_ms = wall_clock_ms();
  m2sed_standby_tick(loop);
  if (loop->phase == M2SED_PHASE_CLOSED || loop->phase == M2SED_PHASE_STANDBY)
    return;
  m2sed_letters_tick(loop);
  m2sed_sweep_tick(loop);
  m2sed_checkpointer_tick(loop);
}

/* True: it has changed. */
static bool look_for_pause(struct m2sed_loop *loop) {
  bool before = loop->pause.holds;
  m2sed_pause_read(loop->config->checkpoint_dir, &loop->pause);
  if (loop->pause.holds != before)
    M2SED_LOG(loop->log, INFO, before ? "an operator lets consumption go on" : "paused by an operator",
              M2SED_S("note", loop->pause.note));
  return loop->pause.holds != before;
}

static void look_at_threads(struct m2sed_loop *loop) {
  struct m2sed_pulse pulses[M2SED_WATCHED_COUNT] = {{.idle = true}, {.idle = true}};
  if (loop->engine_started && !loop->trainer_stopped)
    pulses[M2SED_WATCHED_TRAINER] = m2sed_trainer_pulse(loop->trainer);
  if (loop->engine_started && !loop->server_stopped)
    pulses[M2SED_WATCHED_SERVER] = m2sed_server_pulse(loop->server);
  const char *before = loop->stuck;
  loop->stuck = m2sed_watchdog_second(&loop->watchdog, pulses);
  if (loop->stuck && loop->stuck != before)
    M2SED_LOG(loop->log, ERROR, "stuck", M2SED_S("what", loop->stuck),
              M2SED_U("seconds", loop->watchdog.bound_seconds));
  else if (before && !loop->stuck)
    M2SED_LOG(loop->log, INFO, "not stuck any more", M2SED_S("what", before));
}

static void on_second(uv_timer_t *timer) {
  struct m2sed_loop *loop = timer->loop->data;
  if (look_for_pause(loop))
    turn(loop);
  if (loop->phase == M2SED_PHASE_CLOSED)
    return;
  look_at_threads(loop);
  m2sed_notify_alive(m2sed_phase_name(loop->phase), loop->last_step.step,
                     loop->last_step.counters.trained_events, loop->stuck);
  if (loop->phase == M2SED_PHASE_STANDBY) {
    if (loop->status)
      m2sed_status_publish(loop);
  } else if (loop->phase < M2SED_PHASE_KAFKA) {
    m2se_kafka_refresh(loop->kafka);
    m2sed_marker_move(loop); /* when no events come, it is still looked after */
    if (loop->status)
      m2sed_status_publish(loop);
  }
  m2sed_loop_http_second(loop);
}

static void on_signal(uv_signal_t *signal, int number) {
  struct m2sed_loop *loop = signal->loop->data;
  if (number == SIGUSR1) {
    M2SED_LOG(loop->log, INFO, "checkpoint asked for", M2SED_S("by", "SIGUSR1"));
    if (loop->checkpointer)
      m2sed_checkpointer_ask(loop);
    return;
  }
  if (number == SIGHUP) {
    M2SED_LOG(loop->log, INFO, "told to go on", M2SED_S("by", "SIGHUP"));
    m2sed_garbage_close(&loop->garbage);
    turn(loop);
    return;
  }
  M2SED_LOG(loop->log, INFO, loop->stop_asked ? "told twice: ending at once" : "told to stop: draining",
            M2SED_S("by", number == SIGTERM ? "SIGTERM" : "SIGINT"));
  if (loop->stop_asked) {
    loop->stop_at_once = true;
    uv_stop(signal->loop);
    return;
  }
  loop->stop_asked = true;
  turn(loop);
}

static int open_handles(struct m2sed_loop *loop, struct m2se_error *error) {
  struct m2sed_loop_handles *handles = loop->handles;
  int code = uv_loop_init(&handles->uv);
  if (code)
    return m2se_error_set(error, M2SE_EIO, "event loop: %s", uv_strerror(code));
  handles->uv.data = loop;
  code = uv_async_init(&handles->uv, &handles->wake, on_wake);
  code = code ? code : uv_idle_init(&handles->uv, &handles->again);
  uv_timer_init(&handles->uv, &handles->tick);
  uv_timer_init(&handles->uv, &handles->second);
  uv_timer_start(&handles->tick, on_tick, TICK_MS, TICK_MS);
  uv_timer_start(&handles->second, on_second, 1000, 1000);
  const struct {
    uv_signal_t *handle;
    int number;
  } signals[] = {{&handles->terminate, SIGTERM},
                 {&handles->interrupt, SIGINT},
                 {&handles->checkpoint, SIGUSR1},
                 {&handles->resume, SIGHUP}};
  for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
    code = code ? code : uv_signal_init(&handles->uv, signals[i].handle);
    code = code ? code : uv_signal_start(signals[i].handle, on_signal, signals[i].number);
  }
  m2sed_signals_release();
  return code ? m2se_error_set(error, M2SE_EIO, "event loop: %s", uv_strerror(code)) : 0;
}

static void close_handle(uv_handle_t *handle, void *arg) {
  (void)arg;
  if (!uv_is_closing(handle))
    uv_close(handle, NULL);
}

void m2sed_loop_end(struct m2sed_loop *loop) {
  m2sed_signals_hold(); /* closed handles give the signals their default action back */
  m2sed_loop_http_stop(loop);
  if (!m2sed_standby_close(loop))
    return; /* it comes back here */
  /* Kafka and Redis have gone before, so that all handles left are ours. */
  uv_walk(&loop->handles->uv, close_handle, NULL);
}

static void on_redis_given_up(void *arg) {
  m2sed_loop_end(arg);
}

/* The start failed half-way: what was opened is closed again, so that the loop comes to its end. */
static void give_up(struct m2sed_loop *loop) {
  loop->phase = M2SED_PHASE_CLOSED;
  m2sed_loop_http_stop(loop); /* its answers look at what goes now */
  m2se_kafka_free(loop->kafka);
  loop->kafka = NULL;
  if (loop->redis)
    m2se_redis_close(loop->redis, on_redis_given_up, loop);
  else
    m2sed_loop_end(loop);
}

static void summarize(const struct m2sed_loop *loop, struct m2sed_loop_summary *summary) {
  struct m2se_status_checkpoint checkpoint = {0};
  m2sed_checkpointer_status(loop, &checkpoint);
  *summary = (struct m2sed_loop_summary){.received = loop->counts.received,
                                         .trained_events = loop->last_step.counters.trained_events,
                                         .step = loop->last_step.step,
                                         .generation = checkpoint.generation,
                                         .epoch = loop->epoch,
                                         .seconds = (double)(wall_clock_ms() - loop->started_ms) / 1000};
}

int m2sed_loop_run(const struct m2sed_loop_options *options, struct m2sed_loop_summary *summary,
                   struct m2se_error *error) {
  struct m2sed_loop *loop = calloc(1, sizeof *loop);
  struct m2sed_loop_handles *handles = calloc(1, sizeof *handles);
  if (!loop || !handles) {
    free(loop);
    free(handles);
    return m2se_error_set(error, M2SE_ENOMEM, "the loop");
  }
  loop->handles = handles;
  loop->options = *options;
  loop->config = options->config;
  loop->log = options->log;
  loop->started_ms = loop->now_ms = loop->phase_since_ms = wall_clock_ms();
  m2sed_watchdog_init(&loop->watchdog, m2sed_notify_watchdog_us());
  look_for_pause(loop);
  int code = open_handles(loop, error);
  if (!code)
    code = m2sed_standby_wait(loop, error);
  bool waited_in_vain = loop->phase == M2SED_PHASE_STANDBY;
  if (!code && !waited_in_vain)
    code = m2sed_loop_start(loop, error);
  if (!code && !waited_in_vain)
    turn(loop);
  else
    give_up(loop);
  if (!loop->stop_at_once) /* while it started */
    uv_run(&handles->uv, UV_RUN_DEFAULT);
  if (loop->stop_at_once)
    return 1; /* threads and connections end with the process */
  if (!code) {
    summarize(loop, summary);
    code = loop->failure;
    if (code)
      *error = loop->failure_text;
  }
  m2sed_loop_free_parts(loop);
  int left = uv_loop_close(&handles->uv);
  assert(left == 0);
  free(handles);
  free(loop);
  return code;
}
