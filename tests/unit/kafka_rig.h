/* For tests of the Kafka client against the mock: a cluster, and clients that check on every callback what
 * the contract promises: records come without gap or repeat from where the partition was started, end comes
 * once and not early, nothing comes of a partition that has gone, deliveries come once. */
#ifndef KAFKA_RIG_H
#define KAFKA_RIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ingest/kafka.h"
#include "ingest/kafka_mock.h"

enum { RIG_PARTITIONS = 4, RIG_MESSAGES = 1 << 15, RIG_BY_POLICY = -2, RIG_ALL = 1 << 30 };

struct rig_partition {
  bool started, ended, paused;
  uint32_t starts, ends, revokes, lost;
  struct m2se_kafka_start start; /* the newest */
  int64_t at;                    /* where the test wants it: RIG_BY_POLICY, M2SE_KAFKA_HOLD, or an offset */
  int64_t at_wanted;             /* the same when it comes back as out of range */
  int64_t first, next;           /* handed over since the newest start: first .. next - 1 */
};

struct rig_client {
  struct m2se_kafka *kafka;
  struct rig_partition partitions[M2SE_KAFKA_TOPICS][RIG_PARTITIONS];
  uint32_t records, starts, ends, revokes, delivered, failed, given_up, logs;
  uint32_t errors[M2SE_KAFKA_FATAL + 1];
  char error_text[M2SE_KAFKA_FATAL + 1][512];
  atomic_uint wakes;
  uint32_t take_max; /* of records in one poll; more are refused by the record callback */
  uint32_t taken;
  unsigned what;
  bool sparse; /* offsets may be missing: transactions leave gaps */
  bool (*on_record)(struct rig_client *client, const struct m2se_kafka_record *record);
  void (*on_revoked)(struct rig_client *client, enum m2se_kafka_topic topic, int32_t partition);
  uint8_t pending[RIG_MESSAGES]; /* by number of the message: 1 sent, 2 delivered */
  uint32_t messages;
  int32_t last_partition;
  int64_t last_offset;
};

int64_t rig_now_ms(void);

struct m2se_kafka_mock *rig_mock(const char *topic, uint32_t partitions);

/* Reads the named topics (NULL: not), all at RIG_BY_POLICY until the test says otherwise. */
struct rig_client *rig_open(const char *brokers, const char *interactions, const char *items);
/* The same with settings of the test's own. */
struct rig_client *rig_open_with(const struct m2se_kafka_settings *settings);
void rig_close(struct rig_client *client); /* asserts that everything sent was answered */

/* Polls the clients (up to two; NULL: none) until the condition holds; fails after half a minute. */
#define RIG_UNTIL(client, other, condition)                                                                  \
  do {                                                                                                       \
    int64_t rig_limit_ms = rig_now_ms() + 30000;                                                             \
    while (!(condition)) {                                                                                   \
      rig_step(client);                                                                                      \
      rig_step(other);                                                                                       \
      if (rig_now_ms() > rig_limit_ms)                                                                       \
        fail_msg("%s:%d: not within half a minute: %s", __FILE__, __LINE__, #condition);                     \
    }                                                                                                        \
  } while (0)
void rig_step(struct rig_client *client); /* one poll; waits 1 ms if nothing more is there at once */
void rig_run_ms(struct rig_client *client, int64_t ms);

/* Pauses so that the client checks it too; partition -1: all. */
void rig_pause(struct rig_client *client, enum m2se_kafka_topic topic, int32_t partition, bool pause);

/* Sends `count` records whose value is their number in the partition, from `first` on; waits for delivery. */
void rig_fill(struct rig_client *client, const char *topic, int32_t partition, int64_t first, uint32_t count);
int rig_send(struct rig_client *client, const struct m2se_kafka_message *message);

#endif
