#include "daemon/http_metrics.h"

#include <inttypes.h>
#include <string.h>

/* Prometheus wants seconds and bytes, and "_total" behind what only rises. */
#define MS 1e-3

/* X(type, name, scale, member of the status, help); m2sed_ goes before the name. */
#define METRICS(X)                                                                                           \
  X(gauge, uptime_seconds, 1, uptime_seconds, "Time since the start of the process.")                        \
  X(counter, received_total, 1, events.received, "Interactions taken from Kafka.")                           \
  X(counter, replayed_total, 1, events.replayed, "Interactions read again after a restart; counted once.")   \
  X(counter, lost_total, 1, events.lost, "Interactions removed by retention before they were read.")         \
  X(counter, items_received_total, 1, events.items_received, "Records of the items topic.")                  \
  X(counter, items_deleted_total, 1, events.items_deleted, "Deletions among them.")                          \
  X(counter, items_dead_lettered_total, 1, events.items_dead_lettered, "Items gone to the dead letters.")    \
  X(gauge, in_flight_events, 1, events.in_flight, "Interactions whose Redis call is not answered.")          \
  X(gauge, newest_event_timestamp_seconds, MS, events.newest_event_ms, "Event time of the newest one.")      \
  X(counter, erasures_total, 1, events.erasures, "Users forgotten because they asked for it.")               \
  X(gauge, parked_events, 1, events.parked, "Interactions that wait for features of their items.")           \
  X(counter, unparked_total, 1, events.unparked, "Interactions for which the features came late.")           \
  X(counter, parking_dropped_total, 1, events.parking_dropped, "Interactions for which they did not.")       \
  X(counter, steps_total, 1, training.step, "Training steps of the lineage.")                                \
  X(counter, steps_applied_total, 1, training.steps_applied, "Training steps since the start.")              \
  X(counter, steps_refused_total, 1, training.steps_refused, "Training steps left out by the guard.")        \
  X(gauge, loss, 1, training.loss, "Loss of the last step.")                                                 \
  X(gauge, loss_mean, 1, training.loss_mean, "Decaying mean of the loss.")                                   \
  X(gauge, gradient_norm, 1, training.gradient_norm, "Norm of the last gradient, before clipping.")          \
  X(gauge, learning_rate, 1, training.learning_rate, "Learning rate of the last step.")                      \
  X(gauge, fresh_examples, 1, training.fresh, "New examples of the last mini-batch.")                        \
  X(gauge, replayed_examples, 1, training.replayed, "Examples of the last mini-batch from the reservoir.")   \
  X(gauge, waiting_examples, 1, training.waiting, "New examples that wait for a mini-batch.")                \
  X(gauge, step_seconds, MS, training.step_ms, "Duration of the last step.")                                 \
  X(gauge, last_step_age_seconds, 1, training.last_step_age_seconds, "Time since the last step.")            \
  X(gauge, steps_refused_in_a_row, 1, training.refused_in_a_row, "Newest steps that were not well.")         \
  X(counter, rollbacks_total, 1, training.rollbacks, "Times that the weights went back.")                    \
  X(counter, replay_taken_away_total, 1, training.replay_taken_away, "Replay left out, being behind.")       \
  X(gauge, backlog_capacity_examples, 1, training.backlog, "Most new examples that may wait.")               \
  X(gauge, reservoir_examples, 1, reservoir.size, "Examples kept for replay.")                               \
  X(gauge, reservoir_capacity_examples, 1, reservoir.capacity, "Most examples kept for replay.")             \
  X(gauge, epoch, 1, serving.epoch, "Epoch of the vectors that readers see.")                                \
  X(gauge, epoch_steps_behind, 1, serving.steps_behind, "Training steps since its weights.")                 \
  X(gauge, epoch_age_seconds, 1, serving.epoch_age_seconds, "Time since it was published.")                  \
  X(gauge, epoch_publish_seconds, MS, serving.epoch_publish_ms, "From copied weights to the last vector.")   \
  X(counter, users_published_total, 1, serving.users_published, "User vectors written to Redis.")            \
  X(counter, items_published_total, 1, serving.items_published, "Item vectors written to Redis.")            \
  X(gauge, users_waiting, 1, serving.users_waiting, "Users whose vector is being made.")                     \
  X(counter, evaluated_total, 1, prequential.events, "Interactions ranked before they were learned.")        \
  X(counter, evaluations_skipped_total, 1, prequential.skipped, "Interactions not ranked for lack of time.") \
  X(gauge, redis_connected, 1, redis.connected, "1: Redis is there.")                                        \
  X(gauge, redis_in_flight_commands, 1, redis.in_flight, "Commands sent and not answered.")                  \
  X(gauge, redis_waiting_commands, 1, redis.waiting, "Commands not sent yet.")                               \
  X(counter, redis_reconnects_total, 1, redis.reconnects, "Connections made anew.")                          \
  X(counter, redis_commands_total, 1, redis.commands, "Commands answered.")                                  \
  X(gauge, redis_memory_used_bytes, 1, redis.memory_used_bytes, "Memory that Redis uses.")                   \
  X(gauge, redis_memory_max_bytes, 1, redis.memory_max_bytes, "Its limit; 0: none.")                         \
  X(gauge, kafka_reachable, 1, kafka.reachable, "1: a broker answers.")                                      \
  X(gauge, kafka_unsent_messages, 1, kafka.unsent, "Messages whose delivery is not known.")                  \
  X(counter, kafka_delivery_failures_total, 1, kafka.delivery_failures, "Messages not delivered.")           \
  X(counter, kafka_errors_total, 1, kafka.errors, "Errors that the client reported.")                        \
  X(counter, kafka_rebalances_total, 1, kafka.rebalances, "Partitions that were assigned.")                  \
  X(gauge, checkpoint_generation, 1, checkpoint.generation, "Newest complete checkpoint; 0: none.")          \
  X(gauge, checkpoint_step, 1, checkpoint.step, "Training step of it.")                                      \
  X(gauge, checkpoint_age_seconds, 1, checkpoint.age_seconds, "Time since it was complete.")                 \
  X(gauge, checkpoint_size_bytes, 1, checkpoint.bytes, "Bytes of it.")                                       \
  X(gauge, checkpoint_duration_seconds, MS, checkpoint.duration_ms, "How long writing it took.")             \
  X(gauge, checkpoint_stall_seconds, MS, checkpoint.stall_ms, "How long copying it held up training.")       \
  X(counter, checkpoints_total, 1, checkpoint.written, "Checkpoints written.")                               \
  X(counter, checkpoint_failures_total, 1, checkpoint.failures, "Checkpoints that failed.")                  \
  X(gauge, items, 1, catalogue.items, "Item ids known.")                                                     \
  X(gauge, items_with_features, 1, catalogue.featurised, "Items that have feature rows.")                    \
  X(gauge, items_capacity, 1, catalogue.capacity, "Most items that the catalogue takes.")                    \
  X(gauge, users_active, 1, catalogue.users_active, "Users seen since the start, an estimate.")              \
  X(gauge, resident_memory_bytes, 1, process.resident_bytes, "Resident memory of the process.")              \
  X(counter, cpu_seconds_total, 1, process.cpu_seconds, "Processor time of the process.")                    \
  X(gauge, loop_delay_seconds, MS, process.loop_delay_ms, "Longest turn of the loop in the last second.")    \
  X(gauge, trainer_ring_messages, 1, process.trainer_ring, "Messages that wait for the trainer.")            \
  X(gauge, server_ring_messages, 1, process.server_ring, "Messages that wait for the serving thread.")       \
  X(gauge, lease_fence, 1, lease.fence, "Fencing number of the lease; 0: standby, or no lease.")             \
  X(gauge, lease_age_seconds, 1, lease.age_seconds, "Time since Redis last told of the lease.")              \
  X(gauge, lease_takeover_seconds, MS, lease.takeover_ms, "How long the take-over took; 0: there was none.") \
  X(gauge, features_pending_items, 1, features.pending, "Items that wait for rows.")                         \
  X(gauge, features_waiting, 1, features.waiting, "Texts and pictures that are still to be computed.")       \
  X(gauge, features_refused, 1, features.refused, "Texts and pictures that were given up, in the store.")    \
  X(gauge, features_store_bytes, 1, features.bytes, "Size of the store of feature rows.")                    \
  X(counter, features_texts_total, 1, features.texts, "Texts computed.")                                     \
  X(counter, features_pictures_total, 1, features.pictures, "Pictures computed.")                            \
  X(counter, features_retries_total, 1, features.retries, "Attempts that failed and are repeated.")          \
  X(counter, features_helpers_total, 1, features.helpers_started, "Processes started that decode pictures.") \
  X(counter, features_helper_errors_total, 1, features.helper_errors, "Times that none could be started.")   \
  X(counter, features_store_errors_total, 1, features.store_errors, "Times that the store refused.")

/* Why pictures were refused: X(label and member of features, without "picture_") */
#define PICTURE_REASONS(X)                                                                                   \
  X(too_large)                                                                                               \
  X(too_many_pixels)                                                                                         \
  X(too_complex)                                                                                             \
  X(not_a_picture)                                                                                           \
  X(unsupported)                                                                                             \
  X(damaged)                                                                                                 \
  X(too_much_memory)                                                                                         \
  X(timeout)                                                                                                 \
  X(crashed)                                                                                                 \
  X(not_found)                                                                                               \
  X(outside)                                                                                                 \
  X(not_a_file)                                                                                              \
  X(unreadable)                                                                                              \
  X(no_root)

/* What became of an interaction, over the lineage: X(label, member of events) */
#define OUTCOMES(X)                                                                                          \
  X(trained, trained)                                                                                        \
  X(no_context, skipped_no_context)                                                                          \
  X(no_features, skipped_no_features)                                                                        \
  X(duplicate, skipped_duplicate)                                                                            \
  X(guard, skipped_guard)                                                                                    \
  X(dead_letter, dead_lettered)                                                                              \
  X(erased, skipped_erased)                                                                                  \
  X(training_off, skipped_training_off)

/* Of a partition: X(name, member, help) */
#define PARTITION_METRICS(X)                                                                                 \
  X(partition_lag_records, lag, "Records that the partition holds and that were not taken yet.")             \
  X(partition_next_offset, next_offset, "Offset of the next record to be taken.")                            \
  X(partition_trained_offset, trained_offset, "Records before it were handed to the trainer.")               \
  X(partition_checkpoint_offset, checkpoint_offset, "Records before it are in the newest checkpoint.")       \
  X(partition_end_offset, end_offset, "Offset that the next record of the partition will get.")

static void add_head(struct m2sed_text *text, const char *name, const char *type, const char *help) {
  m2sed_text_add(text, "# HELP m2sed_%s %s\n# TYPE m2sed_%s %s\n", name, help, name, type);
}

static void add_real(struct m2sed_text *text, double value) {
  m2sed_text_add(text, " %.10g\n", value);
}

static void add_whole(struct m2sed_text *text, uint64_t value) {
  m2sed_text_add(text, " %" PRIu64 "\n", value);
}

/* NAME="text", the text as the format wants it. */
static void add_label(struct m2sed_text *text, const char *name, const char *value) {
  m2sed_text_add(text, "%s=\"", name);
  for (const char *at = value ? value : ""; *at;) {
    size_t plain = strcspn(at, "\\\"\n");
    m2sed_text_add_bytes(text, at, plain);
    at += plain;
    if (*at)
      m2sed_text_add(text, *at == '\n' ? "\\n" : "\\%c", *at);
    at += *at != '\0';
  }
  m2sed_text_add(text, "\"");
}

/* Whole numbers stay exact unless they are scaled. */
#define ADD_VALUE(text, scale, value)                                                                        \
  ((scale) == 1 ? _Generic((value), double                                                                   \
                           : add_real, default                                                               \
                           : add_whole)((text), (value))                                                     \
                : add_real((text), (scale) * (double)(value)))

static void add_plain(struct m2sed_text *text, const struct m2se_status *status) {
#define ADD_METRIC(type, name, scale, member, help)                                                          \
  add_head(text, #name, #type, help);                                                                        \
  m2sed_text_add(text, "m2sed_" #name);                                                                      \
  ADD_VALUE(text, scale, status->member);
  METRICS(ADD_METRIC)
#undef ADD_METRIC
}

static void add_about(struct m2sed_text *text, const struct m2se_status *status) {
  add_head(text, "info", "gauge", "Always 1; the labels say what runs.");
  m2sed_text_add(text, "m2sed_info{");
  const struct {
    const char *name, *value;
  } labels[] = {{"instance_name", status->instance},
                {"version", status->version},
                {"blas_kernel", status->blas_kernel},
                {"simd_kernel", status->simd_kernel},
                {"lineage", status->lineage}};
  for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++) {
    m2sed_text_add(text, i ? "," : "");
    add_label(text, labels[i].name, labels[i].value);
  }
  m2sed_text_add(text, "} 1\n");
  add_head(text, "state", "gauge", "1 for the state that the daemon is in.");
#define ADD_STATE(name)                                                                                      \
  m2sed_text_add(text, "m2sed_state{");                                                                      \
  add_label(text, "state", m2se_state_name(M2SE_STATE_##name));                                              \
  m2sed_text_add(text, "} %d\n", status->state == M2SE_STATE_##name);
  M2SE_STATES(ADD_STATE)
#undef ADD_STATE
  add_head(text, "reasons", "gauge", "How many things are not as they should be.");
  m2sed_text_add(text, "m2sed_reasons");
  add_whole(text, status->reason_count);
}

static void add_pictures(struct m2sed_text *text, const struct m2se_status_features *features) {
  add_head(text, "pictures_refused_total", "counter", "Pictures that were refused, by reason.");
#define ADD_REASON(reason)                                                                                   \
  m2sed_text_add(text, "m2sed_pictures_refused_total{reason=\"" #reason "\"}");                              \
  add_whole(text, features->picture_##reason);
  PICTURE_REASONS(ADD_REASON)
#undef ADD_REASON
}

static void add_events(struct m2sed_text *text, const struct m2se_status_events *events) {
  add_head(text, "events_total", "counter", "Interactions of the lineage by outcome.");
#define ADD_OUTCOME(label, member)                                                                           \
  m2sed_text_add(text, "m2sed_events_total{outcome=\"" #label "\"}");                                        \
  add_whole(text, events->member);
  OUTCOMES(ADD_OUTCOME)
#undef ADD_OUTCOME
  if (events->refused_count)
    add_head(text, "refused_total", "counter", "Dead letters by the rule that they broke.");
  for (uint32_t i = 0; i < events->refused_count; i++) {
    m2sed_text_add(text, "m2sed_refused_total{");
    add_label(text, "rule", events->refused[i].rule);
    m2sed_text_add(text, "}");
    add_whole(text, events->refused[i].count);
  }
}

static void add_redis_errors(struct m2sed_text *text, const struct m2se_status_redis *redis) {
  add_head(text, "redis_errors_total", "counter", "Errors of Redis by what is done about them.");
  m2sed_text_add(text, "m2sed_redis_errors_total{class=\"retry\"}");
  add_whole(text, redis->errors_retry);
  m2sed_text_add(text, "m2sed_redis_errors_total{class=\"alarm\"}");
  add_whole(text, redis->errors_alarm);
  m2sed_text_add(text, "m2sed_redis_errors_total{class=\"other\"}");
  add_whole(text, redis->errors_other);
}

static void add_partitions(struct m2sed_text *text, const struct m2se_status *status) {
  if (!status->partition_count)
    return;
#define ADD_PARTITION_METRIC(name, member, help)                                                             \
  add_head(text, #name, "gauge", help);                                                                      \
  for (uint32_t i = 0; i < status->partition_count; i++) {                                                   \
    m2sed_text_add(text, "m2sed_" #name "{");                                                                \
    add_label(text, "topic", status->partitions[i].topic);                                                   \
    m2sed_text_add(text, ",partition=\"%" PRId32 "\"} %" PRId64 "\n", status->partitions[i].partition,       \
                   status->partitions[i].member);                                                            \
  }
  PARTITION_METRICS(ADD_PARTITION_METRIC)
#undef ADD_PARTITION_METRIC
}

/* One mean of the model and of popularity, on the same interactions. */
static void add_ranking(struct m2sed_text *text, const char *name, const char *help, double model,
                        double popularity) {
  add_head(text, name, "gauge", help);
  m2sed_text_add(text, "m2sed_%s{ranker=\"model\"}", name);
  add_real(text, model);
  m2sed_text_add(text, "m2sed_%s{ranker=\"popularity\"}", name);
  add_real(text, popularity);
}

static void add_prequential(struct m2sed_text *text, const struct m2se_status_prequential *all) {
#define ADD_RANKING(member, words)                                                                           \
  add_ranking(text, #member, words " before learning, mean since the start.", all->model.member,             \
              all->popularity.member);                                                                       \
  add_ranking(text, #member "_recent", words " before learning, mean of the newest interactions.",           \
              all->model_recent.member, all->popularity_recent.member);
  ADD_RANKING(hr10, "HR@10")
  ADD_RANKING(ndcg10, "NDCG@10")
  ADD_RANKING(mrr, "MRR")
#undef ADD_RANKING
}

static void add_freshness(struct m2sed_text *text, const struct m2se_status *status) {
  if (!status->freshness_count)
    return;
  add_head(text, "freshness_seconds", "histogram", "From the producer's timestamp to the end of a stage.");
  for (uint32_t s = 0; s < status->freshness_count; s++) {
    const struct m2se_status_freshness *stage = &status->freshness[s];
    uint64_t sum = 0;
    for (uint32_t k = 0; stage->count && k <= stage->bound_count; k++) {
      m2sed_text_add(text, "m2sed_freshness_seconds_bucket{");
      add_label(text, "stage", stage->stage);
      if (k < stage->bound_count)
        m2sed_text_add(text, ",le=\"%.10g\"}", stage->bound_ms[k] * MS);
      else
        m2sed_text_add(text, ",le=\"+Inf\"}");
      add_whole(text, sum += stage->count[k]);
    }
    m2sed_text_add(text, "m2sed_freshness_seconds_sum{");
    add_label(text, "stage", stage->stage);
    m2sed_text_add(text, "} %.10g\nm2sed_freshness_seconds_count{", stage->sum_ms * MS);
    add_label(text, "stage", stage->stage);
    m2sed_text_add(text, "}");
    add_whole(text, sum);
  }
}

void m2sed_metrics_write(struct m2sed_text *text, const struct m2se_status *status) {
  add_about(text, status);
  add_plain(text, status);
  add_events(text, &status->events);
  add_pictures(text, &status->features);
  add_redis_errors(text, &status->redis);
  add_partitions(text, status);
  add_prequential(text, &status->prequential);
  add_freshness(text, status);
}
