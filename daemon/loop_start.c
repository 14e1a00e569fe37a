/* What is made before the first turn: the state of the newest checkpoint, the connections, and the callbacks
 * of Kafka, through which everything else begins. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <uv.h>

#include "daemon/loop_state.h"

enum {
  QUERY_MS = 2000, /* one question to Kafka before the loop runs */
  TURN_MS = 1000,
  END_QUERIES_MAX = 20, /* --until-end gives up if Kafka stays away; the daemon itself waits for it */
  PARTITIONS_MAX = 16384
};

/* ---- callbacks of Kafka ---- */

static bool on_record(void *arg, const struct m2se_kafka_record *record) {
  struct m2sed_loop *loop = arg;
  if (loop->failure || loop->phase > M2SED_PHASE_RUNNING)
    return false; /* not counted as taken: it is read again after the restart */
  if (record->topic == M2SE_KAFKA_ERASURES) {
    m2sed_erasure_take(loop, record);
    return false; /* one at a time */
  }
  if (record->topic == M2SE_KAFKA_ITEMS)
    m2sed_loop_take_item(loop, record);
  else
    m2sed_loop_take_event(loop, record);
  return !loop->failure && !loop->garbage.open && m2sed_loop_has_room(loop);
}

static void look_at_cluster(struct m2sed_loop *loop) {
  const char *cluster_id = m2se_kafka_cluster_id(loop->kafka);
  if (!cluster_id || loop->options.new_log || !m2sed_positions_set_cluster(loop->positions, cluster_id))
    return;
  M2SED_LOG(loop->log, WARN, "another Kafka cluster than before: its logs are read from their beginning",
            M2SED_S("cluster_id", cluster_id), M2SED_U("log_epoch", m2sed_positions_epoch(loop->positions)));
}

/* Its log is a new one, so theirs are too: what they were to go on with is something else. */
static void restart_others(struct m2sed_loop *loop) {
  for (uint32_t i = 0; i < m2sed_positions_count(loop->positions); i++) {
    struct m2sed_partition *partition = m2sed_positions_at(loop->positions, i);
    if (!partition->started || partition->epoch == m2sed_positions_epoch(loop->positions))
      continue;
    partition->started = false;
    m2se_kafka_restart(loop->kafka, M2SE_KAFKA_INTERACTIONS, partition->partition);
  }
}

static int64_t start_interactions(struct m2sed_loop *loop, const struct m2se_kafka_start *at) {
  struct m2sed_start start;
  int code = m2sed_positions_begin(loop->positions, at->partition, at->low, at->high, at->by_policy,
                                   at->wanted, &start);
  if (code) {
    m2sed_loop_fail(loop, code, "starting partition %d: %s", at->partition, m2se_error_text(code));
    return M2SE_KAFKA_HOLD;
  }
  if (start.new_log) {
    M2SED_LOG(loop->log, WARN, "the topic was made anew: its log is read from the beginning",
              M2SED_I("partition", at->partition), M2SED_I("end", at->high),
              M2SED_U("log_epoch", m2sed_positions_epoch(loop->positions)));
    restart_others(loop);
  }
  loop->counts.lost += start.lost;
  if (start.lost) {
    M2SED_LOG(loop->log, ERROR, "events were removed by retention before they were read",
              M2SED_I("partition", at->partition), M2SED_U("lost", start.lost),
              M2SED_I("first_kept", at->low));
    if (loop->config->kafka_on_lost == M2SED_ON_LOST_STOP) {
      m2sed_loop_fail(
          loop, M2SE_ERANGE,
          "partition %d of %s: %llu events were removed before they were read (kafka.on_lost: stop)",
          at->partition, loop->config->kafka_interactions, (unsigned long long)start.lost);
      return M2SE_KAFKA_HOLD;
    }
  }
  if (start.again)
    M2SED_LOG(loop->log, WARN, "events are read again for their sequences",
              M2SED_I("partition", at->partition), M2SED_U("events", start.again));
  M2SED_LOG(loop->log, INFO, "partition starts", M2SED_S("topic", loop->config->kafka_interactions),
            M2SED_I("partition", at->partition), M2SED_I("offset", start.offset), M2SED_I("end", at->high));
  loop->counts.rebalances++;
  return start.offset;
}

static int64_t on_start(void *arg, const struct m2se_kafka_start *start) {
  struct m2sed_loop *loop = arg;
  if (start->topic == M2SE_KAFKA_ITEMS)
    return start->low; /* state, not history: always all that is there */
  look_at_cluster(loop);
  return start->topic == M2SE_KAFKA_ERASURES ? m2sed_erasure_start(loop, start)
                                             : start_interactions(loop, start);
}

static void on_end(void *arg, enum m2se_kafka_topic topic, int32_t number, int64_t high) {
  struct m2sed_loop *loop = arg;
  (void)high;
  if (topic == M2SE_KAFKA_ITEMS) {
    loop->item_partitions_ended++;
    return;
  }
  if (topic == M2SE_KAFKA_ERASURES) {
    m2sed_erasures_end(m2sed_positions_erasures(loop->positions), number);
    return;
  }
  struct m2sed_partition *partition = m2sed_positions_find(loop->positions, number);
  assert(partition);
  partition->ended = true;
}

static void on_revoked(void *arg, enum m2se_kafka_topic topic, int32_t number, bool lost) {
  struct m2sed_loop *loop = arg;
  if (topic == M2SE_KAFKA_ERASURES)
    m2sed_erasures_revoke(m2sed_positions_erasures(loop->positions), number);
  struct m2sed_partition *partition =
      topic == M2SE_KAFKA_INTERACTIONS ? m2sed_positions_find(loop->positions, number) : NULL;
  if (!partition)
    return;
  partition->started = false;
  /* A name of its own: the limit on repeated lines would hide it among those that go in order. */
  if (lost)
    M2SED_LOG(loop->log, WARN, "partition lost", M2SED_I("partition", number));
  else
    M2SED_LOG(loop->log, INFO, "partition goes", M2SED_I("partition", number));
}

static void on_delivered(void *arg, const struct m2se_kafka_delivery *delivery) {
  struct m2sed_loop *loop = arg;
  loop->counts.delivery_failures += delivery->code != 0;
  m2sed_letters_delivered(loop, delivery);
}

static void on_error(void *arg, enum m2se_kafka_error_class class, const char *text) {
  struct m2sed_loop *loop = arg;
  loop->counts.kafka_errors++;
  snprintf(loop->kafka_error, sizeof loop->kafka_error, "%s", text);
  if (class == M2SE_KAFKA_FATAL)
    m2sed_loop_fail(loop, M2SE_EIO, "Kafka: %s", text);
  else if (class == M2SE_KAFKA_ALARM)
    M2SED_LOG(loop->log, ERROR, "Kafka needs attention", M2SED_S("why", text));
  else
    M2SED_LOG(loop->log, WARN, "Kafka", M2SED_S("why", text));
}

static void on_log(void *arg, int level, const char *text) {
  struct m2sed_loop *loop = arg;
  if (level <= 4)
    M2SED_LOG(loop->log, WARN, "librdkafka", M2SED_S("text", text));
  else
    M2SED_LOG(loop->log, DEBUG, "librdkafka", M2SED_S("text", text));
}

static void on_kafka_wake(void *arg) {
  m2sed_loop_wake(arg);
}

/* ---- Kafka ---- */

static int connect_kafka(struct m2sed_loop *loop, struct m2se_error *error) {
  const struct m2sed_config *c = loop->config;
  struct m2se_kafka_property properties[M2SED_PROPERTIES_MAX];
  for (uint32_t i = 0; i < c->kafka_property_count; i++)
    properties[i] = (struct m2se_kafka_property){c->kafka_properties[i].name, c->kafka_properties[i].value};
  int64_t start = m2sed_config_start(c);
  const struct m2se_kafka_settings settings = {
      .brokers = c->kafka_brokers,
      .client_id = c->daemon_instance,
      .group = c->kafka_group,
      .topics = {[M2SE_KAFKA_INTERACTIONS] = c->kafka_interactions,
                 [M2SE_KAFKA_ERASURES] = c->kafka_erasures[0] ? c->kafka_erasures : NULL,
                 [M2SE_KAFKA_ITEMS] = c->kafka_items},
      .start = start == M2SED_START_EARLIEST ? M2SE_KAFKA_EARLIEST
               : start == M2SED_START_LATEST ? M2SE_KAFKA_LATEST
                                             : M2SE_KAFKA_TIMESTAMP,
      .start_ms = start,
      .properties = properties,
      .property_count = c->kafka_property_count};
  const struct m2se_kafka_callbacks callbacks = {.arg = loop,
                                                 .wake = on_kafka_wake,
                                                 .record = on_record,
                                                 .start = on_start,
                                                 .end = on_end,
                                                 .revoked = on_revoked,
                                                 .delivered = on_delivered,
                                                 .error = on_error,
                                                 .log = on_log};
  int code = m2se_kafka_new(&loop->kafka, &settings, &callbacks, error);
  if (code)
    return m2se_error_prefix(error, code, "kafka");
  m2se_kafka_pause(loop->kafka, M2SE_KAFKA_INTERACTIONS, -1);
  loop->interactions_paused = true;
  return 0;
}

static bool is_to_end(const struct m2sed_loop *loop) {
  return loop->stop_asked || loop->stop_at_once || loop->failure;
}

/* A question blocks; before the next one signals and HTTP have their turn. */
static void turn_for(struct m2sed_loop *loop, uint64_t ms) {
  uv_loop_t *uv = m2sed_loop_uv(loop);
  uv_update_time(uv);
  for (uint64_t end = uv_now(uv) + ms; uv_now(uv) < end && !is_to_end(loop);)
    uv_run(uv, UV_RUN_ONCE);
}

/* Asks until there is an answer, it is time to give up, or somebody wants us to stop. */
static int ask_ends(struct m2sed_loop *loop, const char *topic, struct m2se_kafka_end *ends,
                    struct m2se_error *error) {
  for (int asked = 1;; asked++) {
    m2sed_standby_renew(loop);
    int code = m2se_kafka_query_ends(loop->kafka, topic, ends, PARTITIONS_MAX, QUERY_MS, error);
    if (code != M2SE_EIO || (loop->options.until_end && asked == END_QUERIES_MAX))
      return code;
    M2SED_LOG(loop->log, WARN, "waiting for Kafka", M2SED_S("topic", topic), M2SED_S("why", error->text));
    turn_for(loop, TURN_MS);
    if (is_to_end(loop))
      return code;
  }
}

static int ask_interactions(struct m2sed_loop *loop, struct m2se_kafka_end *ends, struct m2se_error *error) {
  int count = ask_ends(loop, loop->config->kafka_interactions, ends, error);
  if (count < 0)
    return count;
  loop->interaction_partitions = (uint32_t)count;
  for (int i = 0; i < count; i++) {
    int code = m2sed_positions_set_until(loop->positions, ends[i].partition, ends[i].high);
    if (code)
      return m2se_error_set(error, code, "partition %d: %s", ends[i].partition, m2se_error_text(code));
  }
  return 0;
}

static int ask_kafka(struct m2sed_loop *loop, struct m2se_error *error) {
  struct m2se_kafka_end *ends = malloc(PARTITIONS_MAX * sizeof *ends);
  if (!ends)
    return m2se_error_set(error, M2SE_ENOMEM, "partitions of the topics");
  int count = ask_ends(loop, loop->config->kafka_items, ends, error);
  if (count == M2SE_EMISSING)
    M2SED_LOG(loop->log, WARN, "there is no items topic yet", M2SED_S("topic", loop->config->kafka_items));
  int code = count == M2SE_EMISSING || count >= 0 ? 0 : count;
  if (!code && loop->options.until_end)
    code = ask_interactions(loop, ends, error);
  /* Only now: between the questions the loop turns, and must not find the items read and no partition to wait
   * for. */
  loop->item_partitions = count > 0 ? count : 0;
  free(ends);
  return loop->stop_asked ? 0 : code;
}

/* ---- Redis ---- */

static void on_redis_event(void *context, enum m2se_redis_event event, const char *text) {
  struct m2sed_loop *loop = context;
  switch (event) {
  case M2SE_REDIS_CONNECTED:
    M2SED_LOG(loop->log, INFO, "Redis is there", M2SED_S("version", text));
    break;
  case M2SE_REDIS_LOST:
    M2SED_LOG(loop->log, WARN, "Redis is away", M2SED_S("why", text));
    break;
  case M2SE_REDIS_REFUSED:
    M2SED_LOG(loop->log, ERROR, "Redis refuses, trying again", M2SED_S("why", text));
    break;
  case M2SE_REDIS_RESUMED:
    M2SED_LOG(loop->log, INFO, "Redis takes commands again", M2SED_S("why", text));
    break;
  case M2SE_REDIS_BARRED:
    m2sed_loop_fenced(loop, "another daemon has the lease, or Redis has lost it");
    break;
  case M2SE_REDIS_ROOM:
    break;
  }
  m2sed_loop_wake(loop);
}

static int connect_redis(struct m2sed_loop *loop, struct m2se_error *error) {
  const struct m2sed_config *c = loop->config;
  const struct m2se_redis_settings settings = {.uri = c->redis_uri,
                                               .timeout_ms = (uint32_t)c->redis_timeout_ms,
                                               .name = m2sed_standby_connection_name(loop),
                                               .event = on_redis_event,
                                               .event_context = loop};
  int code = m2se_redis_new(&loop->redis, m2sed_loop_uv(loop), &settings, error);
  if (!code)
    m2sed_standby_add_guard(loop);
  const struct m2se_sequencer_settings sequences = {.prefix = c->redis_prefix,
                                                    .keep = (uint32_t)c->sequence_keep,
                                                    .ttl_seconds = (uint32_t)c->sequence_ttl_seconds};
  if (!code)
    code = m2se_sequencer_new(&loop->sequencer, loop->redis, &sequences, error);
  const struct m2se_publish_settings publishing = {.prefix = c->redis_prefix,
                                                   .user_ttl_seconds = (uint32_t)c->sequence_ttl_seconds,
                                                   .vector_type =
                                                       (enum m2se_vector_type)c->serve_vector_type};
  if (!code)
    code = m2se_publisher_new(&loop->publisher, loop->redis, &publishing, error);
  if (code)
    return m2se_error_prefix(error, code, "redis");
  m2sed_loop_ask_epoch(loop);
  return m2sed_marker_begin(loop, error);
}

/* ---- the newest checkpoint ---- */

static void on_refused(void *arg, uint64_t generation, const char *why) {
  struct m2sed_loop *loop = arg;
  M2SED_LOG(loop->log, ERROR, "checkpoint cannot be used", M2SED_U("generation", generation),
            M2SED_S("why", why));
}

static int new_lineage(struct m2sed_loop *loop, struct m2se_error *error) {
  uint8_t bytes[8];
  if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
    return m2se_error_set(error, M2SE_EIO, "random name of the lineage: %s", strerror(errno));
  for (size_t i = 0; i < sizeof bytes; i++)
    snprintf(loop->lineage + 2 * i, 3, "%02x", bytes[i]);
  return 0;
}

static int take_state(struct m2sed_loop *loop, struct m2se_error *error) {
  const struct m2sed_checkpoint_state *state = loop->restored;
  memcpy(loop->lineage, state->lineage, sizeof loop->lineage);
  loop->last_step.step = state->step;
  loop->last_step.counters = state->counters;
  loop->last_step.waiting = state->waiting_count;
  loop->feature_dim = state->config.d;
  if (state->item_count > loop->config->model_items_max)
    return m2se_error_set(error, M2SE_ELIMIT, "model.items_max: the checkpoint has %u items",
                          state->item_count);
  for (uint32_t slot = 0; slot < state->item_count; slot++) {
    uint32_t given;
    bool added;
    int code = m2sed_catalogue_add(loop->catalogue, state->items[slot].id, strlen(state->items[slot].id),
                                   &given, &added);
    if (code || !added)
      return m2se_error_set(error, code ? code : M2SE_EFORMAT, "item %u of the checkpoint: %s", slot,
                            code ? m2se_error_text(code) : "comes twice");
  }
  int code = m2sed_positions_restore(loop->positions, state->positions, state->position_count,
                                     state->loop_data, state->loop_bytes, error);
  struct m2sed_position *oldest = NULL;
  uint32_t count;
  if (!code)
    code = m2sed_checkpoint_oldest(loop->config->checkpoint_dir, &oldest, &count, error);
  if (!code)
    m2sed_positions_set_oldest(loop->positions, oldest, count);
  free(oldest);
  return code;
}

/* The newest good one, or M2SE_EMISSING: there is none, or all were damaged and the operator lets them go. */
static int find_checkpoint(struct m2sed_loop *loop, struct m2se_error *error) {
  const char *dir = loop->config->checkpoint_dir;
  int code = m2sed_checkpoint_load(&loop->restored, dir, on_refused, loop, error);
  if (code != M2SE_EFORMAT)
    return code;
  if (!loop->config->checkpoint_init_if_empty)
    return m2se_error_prefix(error, code,
                             "--init-if-empty sets them aside and begins with fresh weights, but first look "
                             "whether a copy is elsewhere");
  code = m2sed_checkpoint_set_aside(dir, error);
  if (code)
    return code;
  M2SED_LOG(loop->log, ERROR,
            "all checkpoints are damaged: set aside as bad-gen-N, all that was learned is lost",
            M2SED_S("folder", dir));
  return M2SE_EMISSING;
}

static int load_checkpoint(struct m2sed_loop *loop, struct m2se_error *error) {
  const char *dir = loop->config->checkpoint_dir;
  int code = m2sed_checkpoint_clean(dir, error);
  if (!code)
    code = find_checkpoint(loop, error);
  if (code == M2SE_EMISSING) {
    if (!loop->config->checkpoint_init_if_empty)
      return m2se_error_set(
          error, code,
          "%s: no checkpoint is there; --init-if-empty (or checkpoint.init_if_empty) begins with "
          "fresh weights",
          dir);
    code = new_lineage(loop, error);
    M2SED_LOG(loop->log, INFO, "no checkpoint: beginning with fresh weights",
              M2SED_S("lineage", loop->lineage));
  } else if (!code) {
    code = take_state(loop, error);
    M2SED_LOG(loop->log, INFO, "going on from a checkpoint",
              M2SED_U("generation", loop->restored->generation), M2SED_U("step", loop->restored->step),
              M2SED_U("trained_events", loop->restored->counters.trained_events),
              M2SED_S("lineage", loop->lineage));
  }
  if (!code)
    code = m2sed_standby_begin(loop, error);
  if (code)
    return code;
  if (loop->options.new_log) {
    m2sed_positions_raise(loop->positions);
    m2sed_erasures_new_log(m2sed_positions_erasures(loop->positions));
  }
  uint32_t wanted = (uint32_t)loop->config->model_feature_dim;
  if (wanted && loop->feature_dim && wanted != loop->feature_dim)
    return m2se_error_set(error, M2SE_EINVAL,
                          "model.feature_dim is %u, but the checkpoint was learned with %u", wanted,
                          loop->feature_dim);
  loop->feature_dim = wanted ? wanted : loop->feature_dim;
  return 0;
}

/* ---- all of it ---- */

static int take_memory(struct m2sed_loop *loop, struct m2se_error *error) {
  loop->item_partitions = -1;
  loop->events_capacity = 16;
  while (loop->events_capacity < loop->config->redis_in_flight)
    loop->events_capacity *= 2;
  loop->events = calloc(loop->events_capacity, sizeof *loop->events);
  loop->requests = calloc(M2SED_REQUESTS, sizeof *loop->requests);
  loop->sequence = calloc(1, sizeof *loop->sequence);
  loop->catalogue = m2sed_catalogue_new((uint32_t)loop->config->model_items_max);
  loop->positions = m2sed_positions_new();
  if (!loop->events || !loop->requests || !loop->sequence || !loop->catalogue || !loop->positions ||
      m2se_arena_new(&loop->interaction_arena, M2SE_INTERACTION_ARENA_BYTES) ||
      m2se_arena_new(&loop->item_arena, M2SE_ITEM_ARENA_BYTES) || m2sed_letters_new(loop) ||
      m2sed_erasure_new(loop) || m2sed_sweep_new(loop) || m2sed_marker_new(loop) ||
      m2sed_garbage_init(&loop->garbage, (uint32_t)loop->config->kafka_garbage_window,
                         loop->config->kafka_garbage_share))
    return m2se_error_set(error, M2SE_ENOMEM, "the loop");
  return 0;
}

int m2sed_loop_start(struct m2sed_loop *loop, struct m2se_error *error) {
  int code = take_memory(loop, error);
  if (!code)
    code = load_checkpoint(loop, error);
  if (!code && (m2sed_checkpointer_new(loop) || m2sed_status_new(loop)))
    code = m2se_error_set(error, M2SE_ENOMEM, "the loop");
  if (!code)
    code = m2sed_loop_http_new(loop, error);
  if (!code)
    code = m2sed_features_new(loop, error);
  if (!code && loop->feature_dim)
    code = m2sed_loop_make_engine(loop, error);
  if (!code)
    code = connect_redis(loop, error);
  if (!code)
    code = connect_kafka(loop, error);
  if (!code)
    code = ask_kafka(loop, error);
  return code;
}

void m2sed_loop_free_parts(struct m2sed_loop *loop) {
  m2sed_features_free(loop);
  m2se_kafka_free(loop->kafka);
  m2se_publisher_free(loop->publisher);
  m2se_sequencer_free(loop->sequencer);
  m2se_redis_free(loop->redis);
  m2sed_standby_free(loop);
  m2sed_checkpointer_free(loop);
  m2sed_trainer_free(loop->trainer);
  m2sed_server_free(loop->server);
  m2sed_exchange_free(loop->exchange);
  m2sed_outbox_free(&loop->to_trainer);
  m2sed_outbox_free(&loop->to_server);
  m2sed_checkpoint_state_free(loop->restored);
  m2sed_letters_free(loop);
  m2sed_erasure_free(loop);
  m2sed_marker_free(loop);
  m2sed_sweep_free(loop);
  m2sed_loop_http_free(loop);
  m2sed_status_free(loop);
  m2sed_catalogue_free(loop->catalogue);
  m2sed_positions_free(loop->positions);
  m2sed_garbage_deinit(&loop->garbage);
  m2se_arena_free(&loop->interaction_arena);
  m2se_arena_free(&loop->item_arena);
  m2se_arena_free(&loop->status_arena);
  free(loop->events);
  free(loop->requests);
  free(loop->sequence);
}
