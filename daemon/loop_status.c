/* The Status message: what can be known, gathered once a second, to its topic and to Redis. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "daemon/loop_state.h"
#include "model/blas.h"

enum { USER_BITS = 1 << 16, PARTITIONS_MAX = 1024, RATE_SECONDS = 5, ARENA_BYTES = 8 << 20 };

struct m2sed_status_state {
  uint64_t users[USER_BITS / 64];  /* a bit for each hash: the zeros tell how many users there were */
  uint64_t received[RATE_SECONDS]; /* at the last seconds, for the rate */
  uint32_t seconds;
  double turn_ms_max;   /* since the last status */
  double recent_weight; /* decaying sums of the newest evaluated events, and what they were computed from */
  struct m2sed_prequential recent, before;
  struct m2se_status_partition partitions[PARTITIONS_MAX];
  struct m2se_status_freshness freshness[M2SED_STAGE_COUNT];
  struct m2se_status_refusals refused[M2SE_RULE_COUNT_OF_ALL];
  const char *reasons[M2SED_STATUS_REASONS];
  char pause_reason[M2SED_PAUSE_BYTES_MAX + 64];
  char guard_reason[128];
  struct m2se_redis_status redis;
  uint64_t published;
  struct m2se_status newest; /* points into this struct and into the loop */
};

int m2sed_status_new(struct m2sed_loop *loop) {
  if (loop->status) /* a standby has it already */
    return 0;
  loop->status = calloc(1, sizeof *loop->status);
  return loop->status ? m2se_arena_new(&loop->status_arena, ARENA_BYTES) : M2SE_ENOMEM;
}

void m2sed_status_free(struct m2sed_loop *loop) {
  free(loop->status);
}

void m2sed_status_count_user(struct m2sed_loop *loop, uint64_t user_hash) {
  loop->status->users[user_hash % USER_BITS / 64] |= UINT64_C(1) << user_hash % 64;
}

void m2sed_status_count_turn(struct m2sed_loop *loop, double ms) {
  if (loop->status && ms > loop->status->turn_ms_max)
    loop->status->turn_ms_max = ms;
}

/* Linear counting: good to some percent up to a few times the number of bits. */
static uint64_t estimate_users(const struct m2sed_status_state *state) {
  uint32_t zeros = USER_BITS;
  for (uint32_t i = 0; i < USER_BITS / 64; i++)
    zeros -= (uint32_t)__builtin_popcountll(state->users[i]);
  return zeros ? (uint64_t)llround(-USER_BITS * log((double)zeros / USER_BITS)) : USER_BITS;
}

/* ---- parts of the message ---- */

static void fill_events(struct m2sed_loop *loop, struct m2se_status_events *events) {
  struct m2sed_status_state *state = loop->status;
  const struct m2sed_trainer_counters *counters = &loop->last_step.counters;
  const struct m2sed_counts *counts = &loop->counts;
  uint32_t kept = state->seconds < RATE_SECONDS ? state->seconds : RATE_SECONDS;
  uint64_t before = kept ? state->received[(state->seconds - kept) % RATE_SECONDS] : counts->received;
  state->received[state->seconds++ % RATE_SECONDS] = counts->received;
  uint32_t refused = 0;
  for (uint32_t rule = 0; rule < M2SE_RULE_COUNT_OF_ALL; rule++)
    if (counts->refused[rule])
      state->refused[refused++] = (struct m2se_status_refusals){.rule = m2se_rule_name((enum m2se_rule)rule),
                                                                .count = counts->refused[rule]};
  *events = (struct m2se_status_events){.received = counts->received,
                                        .trained = counters->trained_events,
                                        .skipped_no_context = counters->skipped_no_context,
                                        .skipped_no_features = counters->skipped_no_features,
                                        .skipped_duplicate = counters->skipped_duplicate,
                                        .skipped_guard = counters->skipped_guard,
                                        .dead_lettered = counters->dead_lettered,
                                        .digest = counters->event_digest,
                                        .replayed = counts->replayed,
                                        .lost = counts->lost,
                                        .items_received = counts->items_received,
                                        .items_deleted = counts->items_deleted,
                                        .items_dead_lettered = counts->items_dead_lettered,
                                        .in_flight = loop->events_end - loop->events_first,
                                        .per_second = kept ? (double)(counts->received - before) / kept : 0,
                                        .newest_event_ms = loop->newest_event_ms,
                                        .parked = loop->last_step.parked,
                                        .unparked = counters->unparked,
                                        .parking_dropped = counters->parking_dropped,
                                        .erasures = counts->erasures,
                                        .skipped_erased = counters->skipped_erased,
                                        .skipped_training_off = counters->skipped_training_off,
                                        .refused = state->refused,
                                        .refused_count = refused};
}

static void fill_training(const struct m2sed_loop *loop, struct m2se_status *status) {
  const struct m2sed_trained_message *step = &loop->last_step;
  status->training = (struct m2se_status_training){
      .step = step->step,
      .steps_applied = loop->counts.steps_applied,
      .steps_refused = loop->counts.steps_refused,
      .loss = step->loss,
      .nip_text = step->nip_text,
      .nip_image = step->nip_image,
      .cmcl_text = step->cmcl_text,
      .cmcl_image = step->cmcl_image,
      .loss_mean = loop->loss_mean,
      .gradient_norm = step->gradient_norm,
      .learning_rate = step->learning_rate,
      .fresh = step->fresh,
      .replayed = step->replayed,
      .waiting = step->waiting,
      .step_ms = step->step_ms,
      .examples_per_second = step->step_ms > 0 ? 1000 * (step->fresh + step->replayed) / step->step_ms : 0,
      .last_step_age_seconds = loop->last_step_ms ? (double)(loop->now_ms - loop->last_step_ms) / 1000 : 0,
      .refused_in_a_row = step->counters.refused_in_a_row,
      .rollbacks = step->counters.rollbacks,
      .replay_taken_away = step->counters.replay_taken_away,
      .backlog = (uint32_t)loop->config->train_backlog};
  status->reservoir = (struct m2se_status_reservoir){
      .size = step->reservoir_size, .capacity = loop->config->train_reservoir, .seen = step->reservoir_seen};
}

static void fill_serving(const struct m2sed_loop *loop, struct m2se_status_serving *serving) {
  *serving = (struct m2se_status_serving){
      .epoch = loop->epoch,
      .epoch_step = loop->epoch_step,
      .steps_behind = loop->last_step.step > loop->epoch_step ? loop->last_step.step - loop->epoch_step : 0,
      .epoch_age_seconds = loop->epoch ? (double)(loop->now_ms - loop->epoch_since_ms) / 1000 : 0,
      .epoch_publish_ms = loop->epoch_publish_ms,
      .users_published = loop->counts.users_published,
      .items_published = loop->counts.items_published,
      .users_waiting = loop->requests_end - loop->requests_answered,
      .vector_dim = loop->server ? m2sed_server_dim(loop->server) : 0};
}

static struct m2se_status_metrics metrics(double hr10, double ndcg10, double mrr, double events) {
  if (!(events > 0))
    return (struct m2se_status_metrics){0};
  return (struct m2se_status_metrics){.hr10 = hr10 / events, .ndcg10 = ndcg10 / events, .mrr = mrr / events};
}

/* Sums of the newest thousand events or so, each older one weighing less. */
static void follow_recent(struct m2sed_status_state *state, const struct m2sed_prequential *now) {
  double fade = pow(0.999, (double)(now->events - state->before.events));
  const double *sums = &now->hr10, *before = &state->before.hr10;
  double *recent = &state->recent.hr10;
  for (size_t i = 0; i < (sizeof *now - offsetof(struct m2sed_prequential, hr10)) / sizeof(double); i++)
    recent[i] = fade * recent[i] + sums[i] - before[i];
  state->recent_weight = fade * state->recent_weight + (double)(now->events - state->before.events);
  state->before = *now;
}

static void fill_prequential(struct m2sed_loop *loop, struct m2se_status_prequential *out) {
  const struct m2sed_prequential *all = &loop->prequential;
  struct m2sed_status_state *state = loop->status;
  follow_recent(state, all);
  const struct m2sed_prequential *recent = &state->recent;
  double n = (double)all->events, w = state->recent_weight;
  out->events = all->events;
  out->skipped = loop->server ? m2sed_server_evaluations_skipped(loop->server) : 0;
  out->model = metrics(all->hr10, all->ndcg10, all->mrr, n);
  out->model_unseen = metrics(all->hr10_unseen, all->ndcg10_unseen, 0, n);
  out->popularity = metrics(all->popularity_hr10, all->popularity_ndcg10, all->popularity_mrr, n);
  out->popularity_unseen = metrics(all->popularity_hr10_unseen, all->popularity_ndcg10_unseen, 0, n);
  /* As readers are served: with or without what the user has seen. */
  bool unseen = loop->config->serve_exclude_seen;
  out->model_recent = metrics(unseen ? recent->hr10_unseen : recent->hr10,
                              unseen ? recent->ndcg10_unseen : recent->ndcg10, recent->mrr, w);
  out->popularity_recent = metrics(unseen ? recent->popularity_hr10_unseen : recent->popularity_hr10,
                                   unseen ? recent->popularity_ndcg10_unseen : recent->popularity_ndcg10,
                                   recent->popularity_mrr, w);
}

static void fill_freshness(struct m2sed_loop *loop, struct m2se_status *status) {
  struct m2se_status_freshness *out = loop->status->freshness;
  for (int stage = 0; stage < M2SED_STAGE_COUNT; stage++)
    out[stage] = (struct m2se_status_freshness){
        .stage = m2sed_stage_names[stage],
        .sum_ms = loop->freshness.sum_ms[stage],
        .p50_ms = m2sed_freshness_quantile(&loop->freshness, (enum m2sed_stage)stage, loop->now_ms, 0.5),
        .p99_ms = m2sed_freshness_quantile(&loop->freshness, (enum m2sed_stage)stage, loop->now_ms, 0.99),
        .bound_ms = m2sed_freshness_bounds_ms,
        .count = loop->freshness.counts[stage],
        .bound_count = M2SED_FRESHNESS_BOUNDS};
  status->freshness = out;
  status->freshness_count = M2SED_STAGE_COUNT;
}

static void fill_partitions(struct m2sed_loop *loop, struct m2se_status *status) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < m2sed_positions_count(loop->positions) && count < PARTITIONS_MAX; i++) {
    const struct m2sed_partition *partition = m2sed_positions_at(loop->positions, i);
    if (!partition->started)
      continue;
    int64_t low = 0, high = partition->next_offset;
    m2se_kafka_watermarks(loop->kafka, M2SE_KAFKA_INTERACTIONS, partition->partition, &low, &high);
    loop->status->partitions[count++] = (struct m2se_status_partition){
        .topic = loop->config->kafka_interactions,
        .partition = partition->partition,
        .log_epoch = partition->epoch,
        .next_offset = partition->next_offset,
        .trained_offset = partition->trained_offset,
        .checkpoint_offset = partition->durable_offset,
        .low_offset = low,
        .end_offset = high > partition->next_offset ? high : partition->next_offset,
        .lag = high > partition->next_offset ? high - partition->next_offset : 0,
        .paused = loop->interactions_paused};
  }
  status->partitions = loop->status->partitions;
  status->partition_count = count;
}

static void fill_doors(struct m2sed_loop *loop, struct m2se_status *status) {
  struct m2se_redis_status *redis = &loop->status->redis;
  m2se_redis_get_status(loop->redis, redis);
  status->redis = (struct m2se_status_redis){.connected = redis->connected,
                                             .in_flight = redis->in_flight,
                                             .waiting = redis->waiting,
                                             .reconnects = redis->connects ? redis->connects - 1 : 0,
                                             .errors_retry = redis->replies[M2SE_REDIS_CLASS_RETRY] +
                                                             redis->replies[M2SE_REDIS_CLASS_DROP],
                                             .errors_alarm = redis->replies[M2SE_REDIS_CLASS_ALARM],
                                             .errors_other = redis->replies[M2SE_REDIS_CLASS_ERROR],
                                             .last_error = redis->last_error,
                                             .memory_used_bytes = redis->used_memory_bytes,
                                             .memory_max_bytes = redis->maxmemory_bytes,
                                             .commands = redis->answered};
  status->kafka = (struct m2se_status_kafka){.cluster_id = m2se_kafka_cluster_id(loop->kafka),
                                             .reachable = m2se_kafka_reachable(loop->kafka),
                                             .unsent = m2se_kafka_unsent(loop->kafka),
                                             .delivery_failures = loop->counts.delivery_failures,
                                             .errors = loop->counts.kafka_errors,
                                             .last_error = loop->kafka_error,
                                             .rebalances = loop->counts.rebalances};
}

static void fill_process(struct m2sed_loop *loop, struct m2se_status *status) {
  uv_rusage_t usage;
  size_t resident = 0;
  double seconds = 0;
  uv_resident_set_memory(&resident);
  if (uv_getrusage(&usage) == 0)
    seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
              (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
  bool engine = loop->engine_started;
  status->process = (struct m2se_status_process){
      .resident_bytes = resident,
      .cpu_seconds = seconds,
      .loop_delay_ms = loop->status->turn_ms_max,
      .train_threads = (uint32_t)loop->config->train_threads,
      .trainer_ring =
          engine ? m2sed_ring_used(m2sed_trainer_input(loop->trainer)) + loop->to_trainer.count : 0,
      .server_ring = engine ? m2sed_ring_used(m2sed_server_input(loop->server)) + loop->to_server.count : 0};
  loop->status->turn_ms_max = 0;
  status->catalogue = (struct m2se_status_catalogue){.items = m2sed_catalogue_count(loop->catalogue),
                                                     .featurised = m2sed_catalogue_featured(loop->catalogue),
                                                     .capacity = loop->config->model_items_max,
                                                     .users_active = estimate_users(loop->status),
                                                     .complete = loop->phase > M2SED_PHASE_ITEMS};
}

/* What is not as it should be, for people. */
static uint32_t find_reasons(struct m2sed_loop *loop, const struct m2se_status *status,
                             const char **reasons) {
  const char *letters = m2sed_letters_reason(loop);
  snprintf(loop->status->pause_reason, sizeof loop->status->pause_reason,
           "consumption is paused by an operator: %s", loop->pause.note);
  m2sed_guard_reason(loop, loop->status->guard_reason, sizeof loop->status->guard_reason);
  const struct {
    bool holds;
    const char *text;
  } all[M2SED_STATUS_REASONS] = {
      {loop->failure != 0, loop->failure_text.text},
      {loop->stuck != NULL, loop->stuck},
      {!status->redis.connected, "Redis is not connected"},
      {status->redis.connected && loop->status->redis.refused, "Redis refuses commands"},
      {!status->kafka.reachable, "Kafka does not answer"},
      {loop->phase == M2SED_PHASE_ITEMS && loop->item_partitions_ended < loop->item_partitions,
       "the items topic is being read"},
      {loop->phase == M2SED_PHASE_ITEMS && loop->item_partitions_ended >= loop->item_partitions &&
           !loop->trainer,
       "no item has feature rows yet"},
      {loop->phase == M2SED_PHASE_RUNNING && loop->interactions_paused && !letters && !loop->garbage.open &&
           !loop->pause.holds && !m2sed_erasures_behind(m2sed_positions_erasures(loop->positions)),
       "consumption is paused: something is slow"},
      {loop->garbage.open, "consumption is paused: most of what came was garbage (kafka.garbage_share); "
                           "SIGHUP or a restart makes it go on"},
      {loop->phase == M2SED_PHASE_RUNNING && m2sed_erasures_behind(m2sed_positions_erasures(loop->positions)),
       "requests to forget users are done before consumption goes on"},
      {loop->pause.holds, loop->status->pause_reason},
      {status->training.refused_in_a_row > 0, loop->status->guard_reason},
      {m2sed_features_reason(loop) != NULL, m2sed_features_reason(loop)},
      {loop->phase == M2SED_PHASE_ITEMS && !m2sed_features_settled(loop), "features of items are computed"},
      {m2sed_marker_catching_up(loop), "sequences that Redis has lost are made again from the log"},
      {letters != NULL, letters}};
  uint32_t count = 0;
  for (uint32_t i = 0; i < M2SED_STATUS_REASONS; i++)
    if (all[i].holds)
      reasons[count++] = all[i].text;
  return count;
}

static enum m2se_state state_of(const struct m2sed_loop *loop) {
  if (loop->failure)
    return M2SE_STATE_FAILED;
  if (loop->phase == M2SED_PHASE_STANDBY)
    return M2SE_STATE_STANDBY;
  if (loop->phase == M2SED_PHASE_ITEMS)
    return M2SE_STATE_STARTING;
  if (loop->phase == M2SED_PHASE_RUNNING)
    return loop->interactions_paused ? M2SE_STATE_PAUSED : M2SE_STATE_RUNNING;
  return M2SE_STATE_DRAINING;
}

static void send_status(struct m2sed_loop *loop, const struct m2se_status *status) {
  const void *bytes;
  size_t size;
  if (m2se_status_encode(status, &loop->status_arena, &bytes, &size)) {
    M2SED_LOG(loop->log, WARN, "status is too large", M2SED_U("partitions", status->partition_count));
    return;
  }
  if (loop->config->kafka_status[0]) {
    const struct m2se_kafka_message message = {.topic = loop->config->kafka_status,
                                               .partition = -1,
                                               .key = loop->config->daemon_instance,
                                               .key_size = strlen(loop->config->daemon_instance),
                                               .value = bytes,
                                               .value_size = size};
    m2se_kafka_produce(loop->kafka, &message, NULL); /* a status that cannot be sent is soon out of date */
  }
  /* Nothing piles up while Redis is away. */
  if (status->redis.connected && !m2se_redis_is_full(loop->redis)) {
    m2se_publish_status(loop->publisher, bytes, size, NULL, NULL);
    m2se_redis_refresh_memory(loop->redis);
  }
}

/* What a standby can say, for HTTP only: the topic and Redis have the status of the active daemon. */
static void fill_standby(struct m2sed_loop *loop, struct m2se_status *status) {
  loop->status->reasons[0] = m2sed_standby_reason(loop);
  status->reason_count = 1;
}

static void fill(struct m2sed_loop *loop, struct m2se_status *status) {
  fill_events(loop, &status->events);
  fill_training(loop, status);
  fill_serving(loop, &status->serving);
  fill_prequential(loop, &status->prequential);
  fill_freshness(loop, status);
  fill_partitions(loop, status);
  fill_doors(loop, status);
  fill_process(loop, status);
  m2sed_checkpointer_status(loop, &status->checkpoint);
  status->reason_count = find_reasons(loop, status, loop->status->reasons);
}

void m2sed_status_publish(struct m2sed_loop *loop) {
  struct m2se_status status = {.instance = loop->config->daemon_instance,
                               .time_ms = loop->now_ms,
                               .uptime_seconds = (double)(loop->now_ms - loop->started_ms) / 1000,
                               .version = M2SED_VERSION,
                               .blas_kernel = m2se_blas_kernel(),
                               .simd_kernel = m2se_simd_kernel(),
                               .lineage = loop->lineage,
                               .state = state_of(loop)};
  bool standby = loop->phase == M2SED_PHASE_STANDBY;
  (standby ? fill_standby : fill)(loop, &status);
  m2sed_standby_status(loop, &status.lease);
  m2sed_features_status(loop, &status.features);
  status.reasons = loop->status->reasons;
  loop->status->newest = status;
  loop->status->published++;
  if (!standby)
    send_status(loop, &status);
}

const struct m2se_status *m2sed_status_newest(const struct m2sed_loop *loop, uint64_t *number) {
  *number = loop->status ? loop->status->published : 0;
  return *number ? &loop->status->newest : NULL;
}
