/* Status, the message that the daemon writes once a second: as a plain struct, to and from protobuf.
 *
 * DESIGN. Each message of proto/m2se.proto (which says what every field means) has one list here, from which
 * the struct, the encoder and the decoder are made; whoever shows a status (JSON, metrics, tables) loops over
 * the same lists. Any thread.
 */
#ifndef M2SE_CODEC_STATUS_H
#define M2SE_CODEC_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ingest/codec.h"

/* X(type, name): type is protobuf's name of it. */
#define M2SE_STATUS_STATUS(X)                                                                                \
  X(string, instance)                                                                                        \
  X(int64, time_ms)                                                                                          \
  X(double, uptime_seconds)                                                                                  \
  X(string, version)                                                                                         \
  X(string, blas_kernel)                                                                                     \
  X(string, simd_kernel)                                                                                     \
  X(string, lineage)

#define M2SE_STATUS_PARTITION(X)                                                                             \
  X(string, topic)                                                                                           \
  X(int32, partition)                                                                                        \
  X(uint32, log_epoch)                                                                                       \
  X(int64, next_offset)                                                                                      \
  X(int64, trained_offset)                                                                                   \
  X(int64, checkpoint_offset)                                                                                \
  X(int64, low_offset)                                                                                       \
  X(int64, end_offset)                                                                                       \
  X(int64, lag)                                                                                              \
  X(bool, paused)

#define M2SE_STATUS_REFUSALS(X)                                                                              \
  X(string, rule)                                                                                            \
  X(uint64, count)

#define M2SE_STATUS_EVENTS(X)                                                                                \
  X(uint64, received)                                                                                        \
  X(uint64, trained)                                                                                         \
  X(uint64, skipped_no_context)                                                                              \
  X(uint64, skipped_no_features)                                                                             \
  X(uint64, skipped_duplicate)                                                                               \
  X(uint64, skipped_guard)                                                                                   \
  X(uint64, dead_lettered)                                                                                   \
  X(uint64, digest)                                                                                          \
  X(uint64, replayed)                                                                                        \
  X(uint64, lost)                                                                                            \
  X(uint64, items_received)                                                                                  \
  X(uint64, items_deleted)                                                                                   \
  X(uint64, items_dead_lettered)                                                                             \
  X(uint64, in_flight)                                                                                       \
  X(double, per_second)                                                                                      \
  X(int64, newest_event_ms)                                                                                  \
  X(uint64, parked)                                                                                          \
  X(uint64, unparked)                                                                                        \
  X(uint64, parking_dropped)                                                                                 \
  X(uint64, erasures)                                                                                        \
  X(uint64, skipped_erased)                                                                                  \
  X(uint64, skipped_training_off)

#define M2SE_STATUS_TRAINING(X)                                                                              \
  X(uint64, step)                                                                                            \
  X(uint64, steps_applied)                                                                                   \
  X(uint64, steps_refused)                                                                                   \
  X(double, loss)                                                                                            \
  X(double, nip_text)                                                                                        \
  X(double, nip_image)                                                                                       \
  X(double, cmcl_text)                                                                                       \
  X(double, cmcl_image)                                                                                      \
  X(double, loss_mean)                                                                                       \
  X(double, gradient_norm)                                                                                   \
  X(double, learning_rate)                                                                                   \
  X(uint32, fresh)                                                                                           \
  X(uint32, replayed)                                                                                        \
  X(uint32, waiting)                                                                                         \
  X(double, step_ms)                                                                                         \
  X(double, examples_per_second)                                                                             \
  X(double, last_step_age_seconds)                                                                           \
  X(uint64, refused_in_a_row)                                                                                \
  X(uint64, rollbacks)                                                                                       \
  X(uint64, replay_taken_away)                                                                               \
  X(uint32, backlog)

#define M2SE_STATUS_RESERVOIR(X)                                                                             \
  X(uint64, size)                                                                                            \
  X(uint64, capacity)                                                                                        \
  X(uint64, seen)

#define M2SE_STATUS_SERVING(X)                                                                               \
  X(uint64, epoch)                                                                                           \
  X(uint64, epoch_step)                                                                                      \
  X(uint64, steps_behind)                                                                                    \
  X(double, epoch_age_seconds)                                                                               \
  X(double, epoch_publish_ms)                                                                                \
  X(uint64, users_published)                                                                                 \
  X(uint64, items_published)                                                                                 \
  X(uint64, users_waiting)                                                                                   \
  X(uint32, vector_dim)

#define M2SE_STATUS_METRICS(X)                                                                               \
  X(double, hr10)                                                                                            \
  X(double, ndcg10)                                                                                          \
  X(double, mrr)

#define M2SE_STATUS_FRESHNESS(X)                                                                             \
  X(string, stage)                                                                                           \
  X(double, sum_ms)                                                                                          \
  X(double, p50_ms)                                                                                          \
  X(double, p99_ms)

#define M2SE_STATUS_REDIS(X)                                                                                 \
  X(bool, connected)                                                                                         \
  X(uint64, in_flight)                                                                                       \
  X(uint64, waiting)                                                                                         \
  X(uint64, reconnects)                                                                                      \
  X(uint64, errors_retry)                                                                                    \
  X(uint64, errors_alarm)                                                                                    \
  X(uint64, errors_other)                                                                                    \
  X(string, last_error)                                                                                      \
  X(uint64, memory_used_bytes)                                                                               \
  X(uint64, memory_max_bytes)                                                                                \
  X(uint64, commands)

#define M2SE_STATUS_KAFKA(X)                                                                                 \
  X(string, cluster_id)                                                                                      \
  X(bool, reachable)                                                                                         \
  X(uint64, unsent)                                                                                          \
  X(uint64, delivery_failures)                                                                               \
  X(uint64, errors)                                                                                          \
  X(string, last_error)                                                                                      \
  X(uint64, rebalances)

#define M2SE_STATUS_CHECKPOINT(X)                                                                            \
  X(uint64, generation)                                                                                      \
  X(uint64, step)                                                                                            \
  X(double, age_seconds)                                                                                     \
  X(uint64, bytes)                                                                                           \
  X(double, duration_ms)                                                                                     \
  X(double, stall_ms)                                                                                        \
  X(uint64, written)                                                                                         \
  X(uint64, failures)                                                                                        \
  X(string, last_error)

#define M2SE_STATUS_LEASE(X)                                                                                 \
  X(string, role)                                                                                            \
  X(uint64, fence)                                                                                           \
  X(double, seconds)                                                                                         \
  X(double, age_seconds)                                                                                     \
  X(double, takeover_ms)

#define M2SE_STATUS_FEATURES(X)                                                                              \
  X(uint64, items)                                                                                           \
  X(uint64, pending)                                                                                         \
  X(uint64, contents)                                                                                        \
  X(uint64, waiting)                                                                                         \
  X(uint64, refused)                                                                                         \
  X(uint64, bytes)                                                                                           \
  X(uint64, texts)                                                                                           \
  X(uint64, pictures)                                                                                        \
  X(uint64, results)                                                                                         \
  X(uint64, retries)                                                                                         \
  X(uint64, helpers_started)                                                                                 \
  X(uint64, helper_errors)                                                                                   \
  X(uint64, store_errors)                                                                                    \
  X(uint64, picture_too_large)                                                                               \
  X(uint64, picture_too_many_pixels)                                                                         \
  X(uint64, picture_too_complex)                                                                             \
  X(uint64, picture_not_a_picture)                                                                           \
  X(uint64, picture_unsupported)                                                                             \
  X(uint64, picture_damaged)                                                                                 \
  X(uint64, picture_too_much_memory)                                                                         \
  X(uint64, picture_timeout)                                                                                 \
  X(uint64, picture_crashed)                                                                                 \
  X(uint64, picture_not_found)                                                                               \
  X(uint64, picture_outside)                                                                                 \
  X(uint64, picture_not_a_file)                                                                              \
  X(uint64, picture_unreadable)                                                                              \
  X(uint64, picture_no_root)

#define M2SE_STATUS_CATALOGUE(X)                                                                             \
  X(uint64, items)                                                                                           \
  X(uint64, featurised)                                                                                      \
  X(uint64, capacity)                                                                                        \
  X(uint64, users_active)                                                                                    \
  X(bool, complete)

#define M2SE_STATUS_PROCESS(X)                                                                               \
  X(uint64, resident_bytes)                                                                                  \
  X(double, cpu_seconds)                                                                                     \
  X(double, loop_delay_ms)                                                                                   \
  X(uint32, train_threads)                                                                                   \
  X(uint64, trainer_ring)                                                                                    \
  X(uint64, server_ring)

/* Types of the lists in C. Strings: NUL-terminated UTF-8, NULL counts as "". */
#define M2SE_STATUS_TYPE_uint64 uint64_t
#define M2SE_STATUS_TYPE_int64 int64_t
#define M2SE_STATUS_TYPE_uint32 uint32_t
#define M2SE_STATUS_TYPE_int32 int32_t
#define M2SE_STATUS_TYPE_double double
#define M2SE_STATUS_TYPE_bool bool
#define M2SE_STATUS_TYPE_string const char *
#define M2SE_STATUS_MEMBER(type, name) M2SE_STATUS_TYPE_##type name;

/* Values of m2se.v1.State. */
#define M2SE_STATES(X) X(UNKNOWN) X(STARTING) X(RUNNING) X(PAUSED) X(DRAINING) X(FAILED) X(STANDBY)
enum m2se_state {
#define M2SE_STATE_ENUM(name) M2SE_STATE_##name,
  M2SE_STATES(M2SE_STATE_ENUM)
#undef M2SE_STATE_ENUM
};
const char *m2se_state_name(enum m2se_state state); /* "running"; static */

struct m2se_status_partition {
  M2SE_STATUS_PARTITION(M2SE_STATUS_MEMBER)
};
struct m2se_status_refusals {
  M2SE_STATUS_REFUSALS(M2SE_STATUS_MEMBER)
};
struct m2se_status_events {
  M2SE_STATUS_EVENTS(M2SE_STATUS_MEMBER)
  const struct m2se_status_refusals *refused;
  uint32_t refused_count;
};
struct m2se_status_training {
  M2SE_STATUS_TRAINING(M2SE_STATUS_MEMBER)
};
struct m2se_status_reservoir {
  M2SE_STATUS_RESERVOIR(M2SE_STATUS_MEMBER)
};
struct m2se_status_serving {
  M2SE_STATUS_SERVING(M2SE_STATUS_MEMBER)
};
struct m2se_status_metrics {
  M2SE_STATUS_METRICS(M2SE_STATUS_MEMBER)
};
struct m2se_status_prequential {
  uint64_t events, skipped;
#define M2SE_STATUS_PREQUENTIAL(X)                                                                           \
  X(model) X(model_unseen) X(popularity) X(popularity_unseen) X(model_recent) X(popularity_recent)
#define M2SE_STATUS_METRICS_MEMBER(name) struct m2se_status_metrics name;
  M2SE_STATUS_PREQUENTIAL(M2SE_STATUS_METRICS_MEMBER)
};
struct m2se_status_freshness {
  M2SE_STATUS_FRESHNESS(M2SE_STATUS_MEMBER)
  const double *bound_ms; /* [bound_count], rising */
  const uint64_t *count;  /* [bound_count + 1] */
  uint32_t bound_count;
};
struct m2se_status_redis {
  M2SE_STATUS_REDIS(M2SE_STATUS_MEMBER)
};
struct m2se_status_kafka {
  M2SE_STATUS_KAFKA(M2SE_STATUS_MEMBER)
};
struct m2se_status_checkpoint {
  M2SE_STATUS_CHECKPOINT(M2SE_STATUS_MEMBER)
};
struct m2se_status_catalogue {
  M2SE_STATUS_CATALOGUE(M2SE_STATUS_MEMBER)
};
struct m2se_status_process {
  M2SE_STATUS_PROCESS(M2SE_STATUS_MEMBER)
};
struct m2se_status_features {
  M2SE_STATUS_FEATURES(M2SE_STATUS_MEMBER)
};
struct m2se_status_lease {
  M2SE_STATUS_LEASE(M2SE_STATUS_MEMBER)
};

/* All pointers are the owner's when encoding, the arena's when decoded. */
struct m2se_status {
  M2SE_STATUS_STATUS(M2SE_STATUS_MEMBER)
  enum m2se_state state;
  const char *const *reasons;
  const struct m2se_status_partition *partitions;
  const struct m2se_status_freshness *freshness;
  uint32_t reason_count, partition_count, freshness_count;
  struct m2se_status_events events;
  struct m2se_status_training training;
  struct m2se_status_reservoir reservoir;
  struct m2se_status_serving serving;
  struct m2se_status_prequential prequential;
  struct m2se_status_redis redis;
  struct m2se_status_kafka kafka;
  struct m2se_status_checkpoint checkpoint;
  struct m2se_status_catalogue catalogue;
  struct m2se_status_process process;
  struct m2se_status_lease lease;
  struct m2se_status_features features;
};

/* Protobuf bytes, in the arena (emptied first; good until its next use). What is not UTF-8
 * in a string becomes '?'. M2SE_ENOMEM: the arena is full (M2SE_INTERACTION_ARENA_BYTES holds hundreds of
 * partitions). */
int m2se_status_encode(const struct m2se_status *status, struct m2se_arena *arena, const void **bytes,
                       size_t *size);
/* M2SE_EFORMAT: not a Status (or more than the arena holds). Parts that the message lacks are zero, strings
 * "". */
int m2se_status_decode(struct m2se_status *status, struct m2se_arena *arena, const void *bytes, size_t size,
                       struct m2se_refusal *refusal);

#endif
