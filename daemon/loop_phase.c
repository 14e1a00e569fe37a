/* From starting to stopped. Each phase waits for what must be over before the next may begin. */
#include <assert.h>

#include "daemon/loop_state.h"
#include "daemon/notify.h"

enum {
  DRAIN_MS_MAX =
      10000, /* events that Redis does not answer for are left: they are read again after the restart */
  CLOSE_MS_MAX = 10000
};

const char *m2sed_phase_name(enum m2sed_phase phase) {
  static const char *const names[] = {"standby", "items",  "running", "draining", "flushing", "sweeping",
                                      "trainer", "server", "kafka",   "redis",    "closed"};
  return names[phase];
}

static void enter(struct m2sed_loop *loop, enum m2sed_phase phase) {
  assert(phase > loop->phase);
  M2SED_LOG(loop->log, DEBUG, "phase", M2SED_S("from", m2sed_phase_name(loop->phase)),
            M2SED_S("to", m2sed_phase_name(phase)), M2SED_I("after_ms", loop->now_ms - loop->phase_since_ms));
  loop->phase = phase;
  loop->phase_since_ms = loop->now_ms;
}

static bool items_are_read(const struct m2sed_loop *loop) {
  return loop->item_partitions >= 0 && loop->item_partitions_ended >= loop->item_partitions;
}

/* --until-end: has every partition come to where it ended when we started? */
static bool at_the_end(struct m2sed_loop *loop) {
  uint32_t ended = 0;
  for (uint32_t i = 0; i < m2sed_positions_count(loop->positions); i++)
    ended += m2sed_positions_at(loop->positions, i)->ended;
  return ended >= loop->interaction_partitions && !m2sed_marker_busy(loop);
}

static bool nothing_under_way(const struct m2sed_loop *loop) {
  return loop->events_first == loop->events_end && loop->requests_first == loop->requests_end &&
         loop->to_trainer.count == 0 && loop->to_server.count == 0 && m2sed_letters_open(loop) == 0;
}

static void start_running(struct m2sed_loop *loop) {
  M2SED_LOG(loop->log, INFO, "items are read, interactions begin",
            M2SED_U("items", m2sed_catalogue_count(loop->catalogue)),
            M2SED_U("with_features", m2sed_catalogue_featured(loop->catalogue)),
            M2SED_U("feature_dim", loop->feature_dim));
  loop->running_since_ms = loop->now_ms;
  m2sed_loop_start_engine(loop);
  m2sed_loop_to_trainer(loop, &(struct m2sed_train_message){.kind = M2SED_TRAIN_CATALOGUE});
  m2sed_loop_to_server(loop, &(struct m2sed_serve_message){.kind = M2SED_SERVE_CATALOGUE});
  enter(loop, M2SED_PHASE_RUNNING);
  m2sed_notify_ready();
}

static void begin_drain(struct m2sed_loop *loop) {
  m2sed_features_stop(loop);
  m2se_kafka_pause(loop->kafka, M2SE_KAFKA_INTERACTIONS, -1);
  loop->interactions_paused = true;
  enter(loop, M2SED_PHASE_DRAINING);
  m2sed_notify_stopping();
}

static void stop_trainer(struct m2sed_loop *loop) {
  if (!loop->engine_started) {
    enter(loop, M2SED_PHASE_SERVER);
    return;
  }
  m2sed_loop_to_trainer(loop, &(struct m2sed_train_message){.kind = M2SED_TRAIN_STOP});
  enter(loop, M2SED_PHASE_TRAINER);
}

static void drained(struct m2sed_loop *loop) {
  double seconds = 1e-3 * (double)(loop->now_ms - loop->running_since_ms);
  if (loop->running_since_ms)
    M2SED_LOG(loop->log, INFO, "no more interactions are taken", M2SED_U("events", loop->counts.received),
              M2SED_R("seconds", seconds),
              M2SED_R("per_second", (double)loop->counts.received / (seconds > 1e-3 ? seconds : 1e-3)));
  if (loop->options.until_end && !loop->stop_asked && !loop->failure && loop->engine_started) {
    m2sed_loop_to_trainer(loop, &(struct m2sed_train_message){.kind = M2SED_TRAIN_FLUSH});
    enter(loop, M2SED_PHASE_FLUSHING);
  } else {
    stop_trainer(loop);
  }
}

/* And nothing will be: no epoch comes. */
static bool nothing_was_learned(const struct m2sed_loop *loop) {
  return !loop->config->train_enabled && loop->flushed_step == 0;
}

/* Readers see the vectors of the flushed weights. Nothing to wait for if no item has features. */
static bool last_epoch_is_published(const struct m2sed_loop *loop) {
  return loop->flushed && loop->epoch > 0 && loop->epoch_step >= loop->flushed_step && loop->next_epoch == 0;
}

static void stop_server(struct m2sed_loop *loop) {
  m2sed_trainer_join(loop->trainer);
  m2sed_loop_to_server(loop, &(struct m2sed_serve_message){.kind = M2SED_SERVE_STOP});
  enter(loop, M2SED_PHASE_SERVER);
}

static void leave_kafka(struct m2sed_loop *loop) {
  if (loop->engine_started)
    m2sed_server_join(loop->server);
  m2sed_status_publish(loop);
  m2se_kafka_close(loop->kafka, CLOSE_MS_MAX);
  enter(loop, M2SED_PHASE_KAFKA);
}

static void on_redis_closing(void *arg) {
  struct m2sed_loop *loop = arg;
  enter(loop, M2SED_PHASE_CLOSED);
  m2sed_loop_end(loop);
}

static bool waited_too_long(const struct m2sed_loop *loop) {
  return loop->now_ms - loop->phase_since_ms > DRAIN_MS_MAX;
}

void m2sed_loop_advance(struct m2sed_loop *loop) {
  bool stop = loop->stop_asked || loop->failure;
  switch (loop->phase) {
  case M2SED_PHASE_STANDBY:
    break;
  case M2SED_PHASE_ITEMS:
    if (stop)
      begin_drain(loop);
    else if (items_are_read(loop) && loop->trainer && loop->epoch_known && m2sed_features_settled(loop))
      start_running(loop);
    else if (loop->options.until_end && items_are_read(loop) && !loop->trainer)
      m2sed_loop_fail(loop, M2SE_EMISSING,
                      "no item has feature rows, and model.feature_dim is 0: there is nothing to learn from");
    break;
  case M2SED_PHASE_RUNNING:
    if (stop || (loop->options.until_end && at_the_end(loop) && !m2sed_erasure_busy(loop)))
      begin_drain(loop);
    break;
  case M2SED_PHASE_DRAINING:
    if (nothing_under_way(loop)) {
      drained(loop);
    } else if (stop && waited_too_long(loop)) {
      M2SED_LOG(loop->log, WARN, "stopping with work under way",
                M2SED_U("events", loop->events_end - loop->events_first),
                M2SED_U("users", loop->requests_end - loop->requests_first),
                M2SED_U("dead_letters", m2sed_letters_open(loop)));
      drained(loop);
    }
    break;
  case M2SED_PHASE_FLUSHING:
    if (stop || (loop->flushed && nothing_was_learned(loop)))
      stop_trainer(loop);
    else if (last_epoch_is_published(loop)) {
      m2sed_sweep_everybody(loop);
      enter(loop, M2SED_PHASE_SWEEPING);
    }
    break;
  case M2SED_PHASE_SWEEPING:
    if (stop || (m2sed_sweep_is_done(loop) && nothing_under_way(loop)))
      stop_trainer(loop);
    break;
  case M2SED_PHASE_TRAINER:
    if (loop->trainer_stopped && !m2sed_checkpointer_busy(loop))
      stop_server(loop);
    break;
  case M2SED_PHASE_SERVER:
    if (!loop->engine_started || loop->server_stopped)
      leave_kafka(loop);
    break;
  case M2SED_PHASE_KAFKA:
    if (m2se_kafka_closed(loop->kafka))
      enter(loop, M2SED_PHASE_REDIS);
    break;
  case M2SED_PHASE_REDIS:
    if (!loop->redis_closing && (m2se_redis_pending(loop->redis) == 0 || waited_too_long(loop))) {
      loop->redis_closing = true;
      m2se_redis_close(loop->redis, on_redis_closing, loop);
    }
    break;
  case M2SED_PHASE_CLOSED:
    break;
  }
}
