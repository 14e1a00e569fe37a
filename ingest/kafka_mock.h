/* A Kafka cluster inside this process, for trials and tests: librdkafka's mock.
 *
 * It listens on loopback, on ports that the system chooses; other processes may use it. What it holds ends
 * with the process, offsets begin at 0 each time, and a partition keeps about 5 MiB: the oldest records then
 * go. No topic administration, no offsets for times, no transactions read committed, no TLS. Any one thread.
 */
#ifndef M2SE_KAFKA_MOCK_H
#define M2SE_KAFKA_MOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "model/error.h"

struct m2se_kafka_mock;

/* M2SE_EIO with the reason. */
int m2se_kafka_mock_new(struct m2se_kafka_mock **mock, uint32_t brokers, struct m2se_error *error);
int m2se_kafka_mock_create_topic(struct m2se_kafka_mock *mock, const char *topic, uint32_t partitions,
                                 struct m2se_error *error);
/* As if the topic were not there; hidden false: there again. (One that nobody created is made when it is
 * asked for.) */
void m2se_kafka_mock_hide_topic(struct m2se_kafka_mock *mock, const char *topic, bool hidden);
/* All brokers stop answering and listening, or do so again; what they hold stays. */
void m2se_kafka_mock_set_up(struct m2se_kafka_mock *mock, bool up);

/* Requests by their number in Kafka's protocol, and its error codes. */
enum {
  M2SE_KAFKA_MOCK_PRODUCE = 0,
  M2SE_KAFKA_MOCK_FETCH = 1,
  M2SE_KAFKA_MOCK_LIST_OFFSETS = 2,
  M2SE_KAFKA_MOCK_OFFSET_COMMIT = 8,
  M2SE_KAFKA_MOCK_HEARTBEAT = 12
};
/* The next `count` requests of that kind get this error for an answer. */
void m2se_kafka_mock_fail(struct m2se_kafka_mock *mock, int16_t request, int16_t error_code, uint32_t count);

/* "127.0.0.1:PORT,…"; owned by the mock. */
const char *m2se_kafka_mock_brokers(const struct m2se_kafka_mock *mock);
/* All clients of this process should be closed before. NULL: nothing. */
void m2se_kafka_mock_free(struct m2se_kafka_mock *mock);

#endif
