/* Messages until their delivery is known. The client keeps a list of its own, so that each gets its one
 * answer even if librdkafka is left behind. */
#include <assert.h>
#include <stdlib.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

static void unlink_unsent(struct m2se_kafka *kafka, struct m2se_kafka_unsent *unsent) {
  if (unsent->next)
    unsent->next->previous = unsent->previous;
  if (unsent->previous)
    unsent->previous->next = unsent->next;
  else
    kafka->unsent = unsent->next;
  kafka->unsent_count--;
}

static struct m2se_kafka_unsent *link_unsent(struct m2se_kafka *kafka, void *opaque) {
  struct m2se_kafka_unsent *unsent = malloc(sizeof *unsent);
  if (!unsent)
    return NULL;
  *unsent = (struct m2se_kafka_unsent){.next = kafka->unsent, .opaque = opaque};
  if (kafka->unsent)
    kafka->unsent->previous = unsent;
  kafka->unsent = unsent;
  kafka->unsent_count++;
  return unsent;
}

static rd_kafka_headers_t *copy_headers(const struct m2se_kafka_message *message) {
  if (!message->header_count)
    return NULL;
  rd_kafka_headers_t *headers = rd_kafka_headers_new(message->header_count);
  for (uint32_t i = 0; i < message->header_count; i++) {
    const struct m2se_kafka_header *header = &message->headers[i];
    rd_kafka_header_add(headers, header->name, -1, header->value, (ssize_t)header->size);
  }
  return headers;
}

static int refused(rd_kafka_error_t *why, const char *topic, struct m2se_error *error) {
  int code;
  switch (rd_kafka_error_code(why)) {
  case RD_KAFKA_RESP_ERR__QUEUE_FULL:
    code = M2SE_ELIMIT;
    break;
  case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    code = M2SE_ERANGE;
    break;
  case RD_KAFKA_RESP_ERR__INVALID_ARG:
  case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
  case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    code = M2SE_EINVAL;
    break;
  default:
    code = M2SE_EIO;
  }
  m2se_error_set(error, code, "topic %s: %s", topic, rd_kafka_error_string(why));
  rd_kafka_error_destroy(why);
  return code;
}

int m2se_kafka_produce(struct m2se_kafka *kafka, const struct m2se_kafka_message *message,
                       struct m2se_error *error) {
  if (kafka->closing)
    return m2se_error_set(error, M2SE_EIO, "topic %s: the client is closing", message->topic);
  if (!message->topic[0])
    return m2se_error_set(error, M2SE_EINVAL, "a message: its topic is empty");
  struct m2se_kafka_unsent *unsent = link_unsent(kafka, message->opaque);
  if (!unsent)
    return m2se_error_set(error, M2SE_ENOMEM, "topic %s: a message", message->topic);
  rd_kafka_headers_t *headers = copy_headers(message);
  rd_kafka_vu_t parts[8] = {
      {.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = message->topic},
      {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = message->partition},
      {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {.ptr = (void *)message->key, .size = message->key_size}},
      {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {.ptr = (void *)message->value, .size = message->value_size}},
      {.vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = message->timestamp_ms},
      {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
      {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = unsent}};
  size_t count = 7;
  if (headers)
    parts[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers};
  rd_kafka_error_t *why = rd_kafka_produceva(kafka->producer, parts, count);
  if (!why)
    return 0;
  if (headers)
    rd_kafka_headers_destroy(headers);
  unlink_unsent(kafka, unsent);
  free(unsent);
  return refused(why, message->topic, error);
}

static void deliver(struct m2se_kafka *kafka, struct m2se_kafka_unsent *unsent,
                    struct m2se_kafka_delivery *delivery) {
  unlink_unsent(kafka, unsent);
  delivery->opaque = unsent->opaque;
  free(unsent);
  if (kafka->callbacks.delivered)
    kafka->callbacks.delivered(kafka->callbacks.arg, delivery);
}

static void on_delivery(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque) {
  (void)handle;
  struct m2se_kafka_delivery delivery = {
      .topic = rd_kafka_topic_name(message->rkt), .partition = message->partition, .offset = message->offset};
  if (message->err) {
    delivery.code = message->err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ? M2SE_ELIMIT : M2SE_EIO;
    delivery.why = rd_kafka_err2str(message->err);
  }
  deliver(opaque, message->_private, &delivery);
}

void m2se_kafka_set_producer_callbacks(rd_kafka_conf_t *conf) {
  rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
}

void m2se_kafka_give_up_unsent(struct m2se_kafka *kafka) {
  while (kafka->unsent) {
    assert(!kafka->unsent->previous);
    struct m2se_kafka_delivery delivery = {
        .code = M2SE_EIO, .why = "the client was closed before an answer came", .topic = "", .partition = -1};
    deliver(kafka, kafka->unsent, &delivery);
  }
}

uint32_t m2se_kafka_unsent(const struct m2se_kafka *kafka) {
  return kafka->unsent_count;
}

bool m2se_kafka_flush(struct m2se_kafka *kafka, int timeout_ms) {
  if (kafka->producer)
    rd_kafka_flush(kafka->producer, timeout_ms);
  return kafka->unsent_count == 0;
}
