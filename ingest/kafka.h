/* Kafka: the one door to librdkafka (2.0.2), for the daemon's loop and for tools.
 *
 * DESIGN. A client has up to three handles: a group consumer (interactions, erasures), a plain consumer
 * (items, every partition from its beginning), a producer. It never waits on the network in the caller's
 * thread: librdkafka's threads call `wake` (the owner sends itself a uv_async), m2se_kafka_poll then hands
 * everything over through the owner's callbacks, and what librdkafka can only do by blocking (low and high
 * offsets, metadata, offsets for times, destroying a handle) is done by one helper thread, whose answers come
 * out of m2se_kafka_poll as well. Positions are the owner's: when a partition is assigned, its low and high
 * offsets are asked first, then the owner says where to start, and that offset is set explicitly; committed
 * offsets are written for monitors and never read.
 *
 * Thread: all functions from one thread (the loop), and all callbacks come on it, from inside
 * m2se_kafka_poll, except `wake`. Callbacks may call every function here but poll, close and free. Errors:
 * negative codes of model/error.h.
 */
#ifndef M2SE_KAFKA_H
#define M2SE_KAFKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

enum m2se_kafka_topic { M2SE_KAFKA_INTERACTIONS, M2SE_KAFKA_ERASURES, M2SE_KAFKA_ITEMS, M2SE_KAFKA_TOPICS };

enum m2se_kafka_start_policy { M2SE_KAFKA_EARLIEST, M2SE_KAFKA_LATEST, M2SE_KAFKA_TIMESTAMP };

struct m2se_kafka_property {
  const char *name, *value;
};

/* Everything is copied. */
struct m2se_kafka_settings {
  const char *brokers;   /* "host:port,host:port" */
  const char *client_id; /* NULL: "m2sed" */
  const char *group;     /* needed with interactions */
  /* Names; NULL: not read. Without any the client only produces. Erasures need interactions: they share the
   * group. */
  const char *topics[M2SE_KAFKA_TOPICS];
  enum m2se_kafka_start_policy start; /* of partitions of the group that have no position yet */
  int64_t start_ms;                   /* M2SE_KAFKA_TIMESTAMP */
  bool ordered_producer;              /* idempotent: no repeats, no reordering (tools that write events) */
  /* kafka.properties: any property of librdkafka but those that this file must own, which are refused by
   * name. */
  const struct m2se_kafka_property *properties;
  uint32_t property_count;
};

/* A record. Everything borrowed for the duration of the callback. */
struct m2se_kafka_record {
  enum m2se_kafka_topic topic;
  const char *topic_name;
  int32_t partition;
  int64_t offset;
  int64_t timestamp_ms; /* as the producer or broker set it; -1: none */
  const void *key;      /* NULL: none */
  size_t key_size;
  const void *value; /* NULL: a deletion */
  size_t value_size;
  void *message; /* private */
};

struct m2se_kafka_header {
  const char *name;
  const void *value; /* NULL: none */
  size_t size;
};
/* Headers of a record, in their order; at most `max`, returns how many there are. Borrowed as the record. */
uint32_t m2se_kafka_record_headers(const struct m2se_kafka_record *record, struct m2se_kafka_header *headers,
                                   uint32_t max);

/* A partition that is about to be read. */
struct m2se_kafka_start {
  enum m2se_kafka_topic topic;
  int32_t partition;
  int64_t low, high; /* first offset that is kept, and the one that the next record would get, a moment ago */
  int64_t by_policy; /* where the settings would start it: low, high, or the first record of that time; items:
                        low */
  int64_t wanted; /* -1: newly assigned. Else this offset was asked for and the log no longer (wanted < low:
                     the records wanted..low-1 are lost) or not yet (wanted > high: another log) has it */
};

enum m2se_kafka_error_class {
  M2SE_KAFKA_RETRY, /* librdkafka goes on trying by itself */
  M2SE_KAFKA_ALARM, /* so too, but somebody must act: authorization, a topic that is not there, TLS */
  M2SE_KAFKA_FATAL  /* this client will do nothing any more: stop */
};

struct m2se_kafka_delivery {
  void *opaque; /* of the message */
  int code; /* 0, M2SE_EIO: gave up after message.timeout.ms or refused for good, M2SE_ELIMIT: too large */
  const char *why; /* librdkafka's text when code is not 0 */
  const char *topic;
  int32_t partition;
  int64_t offset;
};

enum { M2SE_KAFKA_HOLD = -1 }; /* from `start`: don't read this partition until it is assigned again */

/* NULL is allowed for `end`, `delivered`, `error`, `log`, and for `wake` where the owner polls by timer. */
struct m2se_kafka_callbacks {
  void *arg;
  /* Something to poll for. From threads of librdkafka and the helper: only wakes the loop, takes no lock of
   * it. */
  void (*wake)(void *arg);
  /* One record, in the order of its partition. It is taken in any case; false: hand over no more in this
   * poll. */
  bool (*record)(void *arg, const struct m2se_kafka_record *record);
  /* Where to start a partition: an offset (low <= offset <= high, else it will come back with `wanted`), or
   * M2SE_KAFKA_HOLD. */
  int64_t (*start)(void *arg, const struct m2se_kafka_start *start);
  /* Once after each start: every record before `high` of that start has been handed over (offsets may be
   * sparse). */
  void (*end)(void *arg, enum m2se_kafka_topic topic, int32_t partition, int64_t high);
  /* A started partition goes away; no record of it comes any more. lost: another member may have it already.
   */
  void (*revoked)(void *arg, enum m2se_kafka_topic topic, int32_t partition, bool lost);
  void (*delivered)(void *arg, const struct m2se_kafka_delivery *delivery);
  void (*error)(void *arg, enum m2se_kafka_error_class class, const char *text);
  void (*log)(void *arg, int level,
              const char *text); /* level as in syslog: 3 error, 4 warning, 6 info, 7 debug */
};

struct m2se_kafka;

/* Connects in the background: brokers that are down are no error here. M2SE_EINVAL (a setting or property,
 * named), M2SE_ENOMEM, M2SE_EIO (threads). */
int m2se_kafka_new(struct m2se_kafka **kafka, const struct m2se_kafka_settings *settings,
                   const struct m2se_kafka_callbacks *callbacks, struct m2se_error *error);

/* ---- Reading ---- */

enum { M2SE_KAFKA_READ_GROUP = 1, M2SE_KAFKA_READ_ITEMS = 2 }; /* bits of `what` */

/* Hands over what has come: records of the handles named in `what`, at most records_max, and everything else
 * (deliveries, assignments, errors). Never blocks. True: stopped at the limit or by the owner, more may wait
 * and `wake` will not tell: poll again when there is room. Call after each wake and on a timer of 100..250
 * ms, even when nothing is wanted: with the group's handle left out for max.poll.interval.ms (5 min) the
 * group throws the client out. To take nothing for longer than a moment, pause. */
bool m2se_kafka_poll(struct m2se_kafka *kafka, unsigned what, uint32_t records_max);

/* Partition -1: all of the topic, those assigned later too. Holds from the next poll on; nothing is lost or
 * repeated. */
void m2se_kafka_pause(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition);
void m2se_kafka_resume(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition);

/* A partition of ours is started once more: its low and high are asked again, then `start` is called as for
 * one newly assigned (wanted -1). No record comes in between. For a log that is not the one it was. */
void m2se_kafka_restart(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition);

struct m2se_kafka_offset {
  enum m2se_kafka_topic topic; /* of the group */
  int32_t partition;
  int64_t offset; /* of the next record */
};
/* Commits to the group for partitions that are ours, once a second and not in the middle of a rebalance, and
 * when the client is closed; a failure comes as an error, at most an alarm. For monitors only. */
void m2se_kafka_commit(struct m2se_kafka *kafka, const struct m2se_kafka_offset *offsets, uint32_t count);

/* ---- What the log holds ---- */

/* Asks low and high of all started partitions again, in the background; for lag, about once a second. A call
 * while one is under way does nothing. */
void m2se_kafka_refresh(struct m2se_kafka *kafka);
/* Newest known low and high of a started partition. False: it is not started. */
bool m2se_kafka_watermarks(const struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition,
                           int64_t *low, int64_t *high);
/* NULL until a broker has been reached. Owned by the client, constant once known. */
const char *m2se_kafka_cluster_id(const struct m2se_kafka *kafka);
/* The last question of the helper thread was answered. */
bool m2se_kafka_reachable(const struct m2se_kafka *kafka);

/* Blocks, up to timeout_ms, for before the loop runs: ends of every partition of a topic. Fills at most
 * `max`, returns the number of partitions, or M2SE_EMISSING (no such topic), M2SE_EIO (no answer). */
struct m2se_kafka_end {
  int32_t partition;
  int64_t low, high;
};
int m2se_kafka_query_ends(struct m2se_kafka *kafka, const char *topic_name, struct m2se_kafka_end *ends,
                          uint32_t max, int timeout_ms, struct m2se_error *error);

/* ---- Making topics ---- */

struct m2se_kafka_new_topic {
  const char *name;
  uint32_t partitions, replication; /* 0: as the broker does by default (Kafka 2.4 or newer) */
  bool compacted;                   /* the newest record of a key stays for ever */
};
/* Blocks, up to timeout_ms and a second: for tools, with a client that only produces. Sets *made to whether
 * it was this call that made the topic: one that is there is left as it is. M2SE_EINVAL (refused, and why),
 * M2SE_EIO (no answer; the mock cluster can't do it). */
int m2se_kafka_create_topic(struct m2se_kafka *kafka, const struct m2se_kafka_new_topic *topic,
                            int timeout_ms, bool *made, struct m2se_error *error);

/* ---- Writing ---- */

struct m2se_kafka_message {
  const char *topic;
  int32_t partition; /* -1: by the key, as Java's producer does (murmur2); without a key any */
  const void *key;
  size_t key_size;
  const void *value; /* NULL: a deletion */
  size_t value_size;
  int64_t timestamp_ms; /* 0: now */
  const struct m2se_kafka_header *headers;
  uint32_t header_count;
  void *opaque; /* comes back in `delivered` */
};
/* Copies everything and returns at once. 0: `delivered` will be called exactly once (from a later poll, flush
 * or free). Else it won't: M2SE_ELIMIT (the queue is full: after some deliveries, again), M2SE_ERANGE
 * (larger than message.max.bytes), M2SE_EINVAL (bad topic), M2SE_EIO. */
int m2se_kafka_produce(struct m2se_kafka *kafka, const struct m2se_kafka_message *message,
                       struct m2se_error *error);
/* Messages whose delivery is not known yet. */
uint32_t m2se_kafka_unsent(const struct m2se_kafka *kafka);
/* Blocks until all are delivered or timeout_ms is over; calls `delivered`. True: none left. For tools and the
 * very end. */
bool m2se_kafka_flush(struct m2se_kafka *kafka, int timeout_ms);

/* ---- The end ---- */

/* Begins to leave: commits on their way go out, partitions are revoked, the group is left, handles are
 * destroyed. Unsent messages get the same time (their `delivered` says what became of them). Go on polling
 * until m2se_kafka_closed; no record comes any more. After timeout_ms what does not end is left behind, with
 * its memory and threads. */
void m2se_kafka_close(struct m2se_kafka *kafka, int timeout_ms);
bool m2se_kafka_closed(const struct m2se_kafka *kafka);
/* After closed: frees. Else closes first, blocking up to 5 s. NULL: nothing. `wake` is never called once this
 * returns. */
void m2se_kafka_free(struct m2se_kafka *kafka);

#endif
