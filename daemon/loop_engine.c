/* Trainer and server: made once the feature width is known, and what they answer. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "daemon/item_record.h"
#include "daemon/loop_state.h"

static struct m2se_config model_config(const struct m2sed_loop *loop) {
  const struct m2sed_config *c = loop->config;
  struct m2se_config model;
  m2se_config_defaults(&model);
  model.d = loop->feature_dim;
  model.da = (uint32_t)c->model_attention;
  model.h = (uint32_t)c->model_hidden;
  model.experts = (uint32_t)c->model_experts;
  model.layers = (uint32_t)c->model_layers;
  model.heads = (uint32_t)c->model_heads;
  model.ffn = (uint32_t)c->model_ffn;
  model.max_len = (uint32_t)c->sequence_length;
  model.tau = c->model_temperature;
  model.lambda = c->model_lambda;
  model.dropout = c->model_dropout;
  model.sequence_dropout_max = c->model_sequence_dropout;
  model.mixup_max = c->model_mixup;
  model.targets = c->train_targets == M2SED_TARGETS_ALL ? M2SE_TARGETS_ALL : M2SE_TARGETS_LAST;
  model.item_residual = c->train_item_residual;
  model.item_bias = c->train_item_bias;
  model.seed = c->model_seed;
  model.learning_rate = c->train_learning_rate;
  model.residual_learning_rate = c->train_residual_learning_rate;
  model.bias_learning_rate = c->train_bias_learning_rate;
  model.clip_norm = c->train_clip_norm;
  model.loss_max = c->train_loss_max;
  return model;
}

static int make_trainer(struct m2sed_loop *loop, const struct m2se_config *model, struct m2se_error *error) {
  const struct m2sed_config *c = loop->config;
  const struct m2sed_train_settings settings = {
      .off = !c->train_enabled,
      .batch = (uint32_t)c->train_batch,
      .threads = (uint32_t)c->train_threads,
      .nice = (int32_t)c->train_nice,
      .batch_ms = (int64_t)(c->train_batch_seconds * 1000),
      .backlog = (uint32_t)c->train_backlog,
      /* A backfill has time. */
      .shrink = c->train_overload == M2SED_OVERLOAD_SHRINK && !loop->options.until_end,
      .replay_ratio = c->train_replay_ratio,
      .reservoir_capacity = (uint32_t)c->train_reservoir,
      .parking = (uint32_t)c->train_parking,
      .parking_events = c->train_parking_events,
      .epoch_steps = (uint32_t)c->serve_epoch_steps,
      .gradient_norm_max = c->train_gradient_norm_max,
      .over_guess_max = c->train_over_guess_max,
      .guard_rollback = (uint32_t)c->train_guard_rollback,
      .popularity_half_life_seconds = c->serve_popularity_half_life_seconds,
      .items_max = (uint32_t)c->model_items_max,
      .rows_max = (uint32_t)c->model_rows_max,
      .ring_capacity = M2SED_TRAINER_RING};
  int code = m2sed_trainer_new(&loop->trainer, model, &settings, loop->exchange, loop->restored, error);
  return code ? m2se_error_prefix(error, code, "trainer") : 0;
}

static int make_server(struct m2sed_loop *loop, const struct m2se_config *model, struct m2se_error *error) {
  const struct m2sed_config *c = loop->config;
  const struct m2sed_serve_settings settings = {.popularity_weight = c->serve_popularity_weight,
                                                .popularity_prior = c->serve_popularity_kappa,
                                                .evaluate = c->serve_evaluate,
                                                .recommend = c->http_listen[0] != '\0',
                                                .items_max = (uint32_t)c->model_items_max,
                                                .ring_capacity = M2SED_SERVER_RING,
                                                .first_epoch = 1};
  int code = m2sed_server_new(&loop->server, model, &settings, loop->exchange, error);
  return code ? m2se_error_prefix(error, code, "server") : 0;
}

static void wake(void *arg) {
  m2sed_loop_wake(arg);
}

int m2sed_loop_make_engine(struct m2sed_loop *loop, struct m2se_error *error) {
  assert(loop->feature_dim && !loop->trainer);
  const struct m2se_config model = model_config(loop);
  int code = m2se_config_check(&model, error);
  if (!code)
    code = m2sed_exchange_new(&loop->exchange, &model, (uint32_t)loop->config->model_items_max, error);
  if (!code)
    code = make_trainer(loop, &model, error);
  if (!code)
    code = make_server(loop, &model, error);
  if (code)
    return code;
  m2sed_checkpoint_state_free(loop->restored);
  loop->restored = NULL;
  const struct m2sed_notify notify = {wake, loop};
  m2sed_ring_on_room(m2sed_trainer_input(loop->trainer), notify);
  m2sed_ring_on_message(m2sed_trainer_output(loop->trainer), notify);
  m2sed_ring_on_room(m2sed_server_input(loop->server), notify);
  m2sed_ring_on_message(m2sed_server_output(loop->server), notify);
  m2sed_outbox_init(&loop->to_trainer, m2sed_trainer_input(loop->trainer),
                    sizeof(struct m2sed_train_message));
  m2sed_outbox_init(&loop->to_server, m2sed_server_input(loop->server), sizeof(struct m2sed_serve_message));
  m2sed_loop_start_engine(loop);
  return loop->failure;
}

/* The server numbers its epochs from above those that readers may have seen, so it waits for Redis to say. */
void m2sed_loop_start_engine(struct m2sed_loop *loop) {
  if (loop->engine_started || !loop->trainer || !loop->epoch_known)
    return;
  if (loop->phase > M2SED_PHASE_RUNNING)
    return; /* told to stop meanwhile: the end goes on without threads */
  struct m2se_error error = {0};
  m2sed_server_set_first_epoch(loop->server, loop->redis_epoch + 1);
  int code = m2sed_trainer_start(loop->trainer, &error);
  if (!code) {
    loop->engine_started = true;
    code = m2sed_server_start(loop->server, &error);
    loop->server_stopped = code < 0;
  }
  if (code)
    m2sed_loop_fail(loop, code, "starting the threads: %s", error.text);
  else if (!loop->last_step.step)
    m2sed_checkpointer_ask(
        loop); /* fresh weights: from the first moment on there is something to come back to */
}

void m2sed_loop_to_trainer(struct m2sed_loop *loop, const struct m2sed_train_message *message) {
  if (loop->phase >=
      M2SED_PHASE_TRAINER) { /* it was told to stop: what comes now is read again after the restart */
    m2sed_item_record_release(message->record);
    return;
  }
  if (m2sed_outbox_put(&loop->to_trainer, message))
    m2sed_loop_fail(loop, M2SE_ENOMEM, "queue of the trainer: out of memory");
}

void m2sed_loop_to_server(struct m2sed_loop *loop, const struct m2sed_serve_message *message) {
  if (loop->phase >= M2SED_PHASE_SERVER) {
    m2sed_item_record_release(message->record);
    return;
  }
  if (m2sed_outbox_put(&loop->to_server, message))
    m2sed_loop_fail(loop, M2SE_ENOMEM, "queue of the server: out of memory");
}

/* ---- answers ---- */

static const char *left_out_text(enum m2se_left_out left_out) {
  switch (left_out) {
  case M2SE_LEFT_OUT_NOT_FINITE:
    return "loss or gradient is not finite";
  case M2SE_LEFT_OUT_LOSS:
    return "the loss is above train.loss_max";
  case M2SE_LEFT_OUT_GRADIENT:
    return "the gradient is above train.gradient_norm_max";
  case M2SE_LEFT_OUT_NOT:
    break;
  }
  return "";
}

void m2sed_guard_reason(const struct m2sed_loop *loop, char *text, size_t size) {
  const struct m2sed_trained_message *step = &loop->last_step;
  if (step->left_out)
    snprintf(text, size, "training steps are left out: %s", left_out_text(step->left_out));
  else if (step->over_guess > 0)
    snprintf(text, size, "the loss is far above that of a guess (train.over_guess_max)");
  else
    snprintf(text, size, "no training step has been well since the guard acted");
}

static void take_step(struct m2sed_loop *loop, const struct m2sed_trained_message *message) {
  if (loop->last_step.step && message->counters.rollbacks > loop->last_step.counters.rollbacks)
    M2SED_LOG(loop->log, ERROR, "weights went back to the last good ones", M2SED_U("step", message->step),
              M2SED_U("refused_in_a_row", message->counters.refused_in_a_row));
  loop->last_step = *message;
  loop->last_step_ms = loop->now_ms;
  loop->counts.steps_applied += message->applied;
  loop->counts.steps_refused += !message->applied;
  if (message->applied)
    loop->loss_mean = loop->loss_mean == 0 ? message->loss : 0.98 * loop->loss_mean + 0.02 * message->loss;
  else
    M2SED_LOG(loop->log, WARN, "training step left out", M2SED_U("step", message->step),
              M2SED_S("why", left_out_text(message->left_out)), M2SED_R("over_guess", message->over_guess),
              M2SED_R("loss", message->loss), M2SED_R("gradient_norm", message->gradient_norm));
}

static void take_trained(struct m2sed_loop *loop, const struct m2sed_trained_message *message) {
  switch (message->kind) {
  case M2SED_TRAINED_STEP:
    take_step(loop, message);
    return;
  case M2SED_TRAINED_SNAPSHOT:
    m2sed_checkpointer_take(loop, message->snapshot, message->stall_ms);
    break;
  case M2SED_TRAINED_FLUSHED:
    loop->flushed = true;
    loop->flushed_step = message->step;
    break;
  case M2SED_TRAINED_STOPPED:
    loop->trainer_stopped = true;
    break;
  }
  /* These carry the counters of the moment, but no step: the losses stay those of the last one. */
  loop->last_step.counters = message->counters;
  loop->last_step.step = message->step;
  loop->last_step.waiting = message->waiting;
  loop->last_step.parked = message->parked;
  loop->last_step.reservoir_size = message->reservoir_size;
  loop->last_step.reservoir_seen = message->reservoir_seen;
}

static void take_served(struct m2sed_loop *loop, const struct m2sed_served_message *message) {
  switch (message->kind) {
  case M2SED_SERVED_USER:
    m2sed_loop_user_served(loop, message);
    break;
  case M2SED_SERVED_ITEMS:
    m2sed_loop_items_served(loop, message);
    break;
  case M2SED_SERVED_EPOCH:
    m2sed_loop_epoch_served(loop, message);
    break;
  case M2SED_SERVED_RECOMMEND:
    m2sed_loop_recommended(message->ranking);
    break;
  case M2SED_SERVED_STOPPED:
    loop->server_stopped = true;
    break;
  }
}

void m2sed_loop_take_answers(struct m2sed_loop *loop) {
  struct m2sed_ring *trained = m2sed_trainer_output(loop->trainer),
                    *served = m2sed_server_output(loop->server);
  const void *message;
  while ((message = m2sed_ring_peek(trained, 0))) {
    take_trained(loop, message);
    m2sed_ring_release(trained);
  }
  /* Each answer may become up to 64 commands for Redis; while it is full they wait here, and the server
   * behind them. */
  while (!m2se_redis_is_full(loop->redis) && (message = m2sed_ring_peek(served, 0))) {
    take_served(loop, message);
    m2sed_ring_release(served);
  }
}
