#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

enum { FREE_MS_MAX = 5000 };

/* ---- life ---- */

static void on_event(rd_kafka_t *handle, void *opaque) {
  (void)handle;
  struct m2se_kafka *kafka = opaque;
  kafka->callbacks.wake(kafka->callbacks.arg);
}

static void watch(struct m2se_kafka *kafka, rd_kafka_queue_t *queue) {
  if (kafka->callbacks.wake)
    rd_kafka_queue_cb_event_enable(queue, on_event, kafka);
}

static int open_reader(struct m2se_kafka *kafka, int which, const struct m2se_kafka_settings *settings,
                       struct m2se_error *error) {
  struct m2se_kafka_reader *reader = &kafka->readers[which];
  bool wanted = false;
  for (int i = 0; i < M2SE_KAFKA_TOPICS; i++)
    wanted = wanted || kafka->topics[i].reader == reader;
  if (!wanted)
    return 0;
  enum m2se_kafka_kind kind =
      which == M2SE_KAFKA_GROUP_READER ? M2SE_KAFKA_KIND_GROUP : M2SE_KAFKA_KIND_ITEMS;
  int code = m2se_kafka_handle_new(&reader->handle, kafka, kind, settings, error);
  if (code)
    return code;
  rd_kafka_poll_set_consumer(reader->handle);
  rd_kafka_set_log_queue(reader->handle, NULL);
  reader->queue = rd_kafka_queue_get_consumer(reader->handle);
  watch(kafka, reader->queue);
  return 0;
}

static int open_producer(struct m2se_kafka *kafka, const struct m2se_kafka_settings *settings,
                         struct m2se_error *error) {
  int code = m2se_kafka_handle_new(&kafka->producer, kafka, M2SE_KAFKA_KIND_PRODUCER, settings, error);
  if (code)
    return code;
  rd_kafka_set_log_queue(kafka->producer, NULL);
  kafka->producer_queue = rd_kafka_queue_get_main(kafka->producer);
  watch(kafka, kafka->producer_queue);
  return 0;
}

static int check(const struct m2se_kafka_settings *settings, struct m2se_error *error) {
  if (!settings->brokers || !settings->brokers[0])
    return m2se_error_set(error, M2SE_EINVAL, "brokers: empty");
  if (settings->topics[M2SE_KAFKA_ERASURES] && !settings->topics[M2SE_KAFKA_INTERACTIONS])
    return m2se_error_set(error, M2SE_EINVAL, "erasures: cannot be read without interactions");
  if (settings->topics[M2SE_KAFKA_INTERACTIONS] && (!settings->group || !settings->group[0]))
    return m2se_error_set(error, M2SE_EINVAL, "group: empty, but interactions are read");
  for (int i = 0; i < M2SE_KAFKA_TOPICS; i++)
    if (settings->topics[i] && !settings->topics[i][0])
      return m2se_error_set(error, M2SE_EINVAL, "the name of a topic is empty");
  return 0;
}

static int open_all(struct m2se_kafka *kafka, const struct m2se_kafka_settings *settings,
                    struct m2se_error *error) {
  char *names[M2SE_KAFKA_TOPICS] = {0};
  for (int i = 0; i < M2SE_KAFKA_TOPICS; i++) {
    if (!settings->topics[i])
      continue;
    struct m2se_kafka_topic_state *topic = &kafka->topics[i];
    topic->reader =
        &kafka->readers[i == M2SE_KAFKA_ITEMS ? M2SE_KAFKA_ITEMS_READER : M2SE_KAFKA_GROUP_READER];
    topic->name = names[i] = strdup(settings->topics[i]);
    if (!topic->name)
      return m2se_error_set(error, M2SE_ENOMEM, "a client of Kafka");
  }
  int code = open_producer(kafka, settings, error);
  for (int which = 0; which < 2 && !code; which++)
    code = open_reader(kafka, which, settings, error);
  if (!code)
    code = m2se_kafka_helper_new(&kafka->helper, kafka->producer,
                                 kafka->readers[M2SE_KAFKA_ITEMS_READER].handle
                                     ? kafka->readers[M2SE_KAFKA_ITEMS_READER].handle
                                     : kafka->readers[M2SE_KAFKA_GROUP_READER].handle,
                                 names, kafka->callbacks.wake, kafka->callbacks.arg, error);
  if (!code && !kafka->topics[M2SE_KAFKA_ERASURES].name) /* else when it is known whether they are there */
    code = m2se_kafka_subscribe(kafka, error);
  return code;
}

static void close_queue(rd_kafka_queue_t **queue) {
  if (!*queue)
    return;
  rd_kafka_queue_cb_event_enable(*queue, NULL, NULL);
  rd_kafka_queue_destroy(*queue);
  *queue = NULL;
}

static void free_memory(struct m2se_kafka *kafka) {
  for (int i = 0; i < M2SE_KAFKA_TOPICS; i++) {
    struct m2se_kafka_topic_state *topic = &kafka->topics[i];
    for (int32_t k = 0; k < topic->partition_count; k++)
      free(topic->partitions[k]);
    free(topic->partitions);
    free(topic->name);
  }
  free(kafka->cluster_id);
  free(kafka);
}

/* Of a client that was never handed out: nothing has been asked or sent, so that nothing here blocks long. */
static void give_up(struct m2se_kafka *kafka) {
  if (kafka->helper)
    m2se_kafka_helper_end(kafka->helper, true);
  close_queue(&kafka->producer_queue);
  if (kafka->producer)
    rd_kafka_destroy(kafka->producer);
  for (int i = 0; i < 2; i++) {
    close_queue(&kafka->readers[i].queue);
    if (kafka->readers[i].handle)
      rd_kafka_destroy_flags(kafka->readers[i].handle, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
  }
  free_memory(kafka);
}

int m2se_kafka_new(struct m2se_kafka **out, const struct m2se_kafka_settings *settings,
                   const struct m2se_kafka_callbacks *callbacks, struct m2se_error *error) {
  int code = check(settings, error);
  if (code)
    return code;
  assert(!settings->topics[M2SE_KAFKA_INTERACTIONS] || (callbacks->record && callbacks->start));
  assert(!settings->topics[M2SE_KAFKA_ITEMS] || (callbacks->record && callbacks->start));
  struct m2se_kafka *kafka = calloc(1, sizeof *kafka);
  if (!kafka)
    return m2se_error_set(error, M2SE_ENOMEM, "a client of Kafka");
  kafka->callbacks = *callbacks;
  kafka->start = settings->start;
  kafka->start_ms = settings->start_ms;
  code = open_all(kafka, settings, error);
  if (code) {
    give_up(kafka);
    return code;
  }
  m2se_kafka_ask_first(kafka);
  *out = kafka;
  return 0;
}

const char *m2se_kafka_cluster_id(const struct m2se_kafka *kafka) {
  return kafka->cluster_id;
}

bool m2se_kafka_reachable(const struct m2se_kafka *kafka) {
  return kafka->reachable;
}

/* ---- the end ---- */

static void doom(struct m2se_kafka *kafka, rd_kafka_t **handle, rd_kafka_queue_t **queue) {
  close_queue(queue);
  m2se_kafka_helper_destroy(kafka->helper, *handle);
  *handle = NULL;
}

static void close_reader(struct m2se_kafka *kafka, struct m2se_kafka_reader *reader, bool patient) {
  if (!reader->handle)
    return;
  rd_kafka_message_t *message;
  while ((message = rd_kafka_consumer_poll(reader->handle, 0))) /* partitions are revoked in here */
    rd_kafka_message_destroy(message);
  if (rd_kafka_consumer_closed(reader->handle) || reader->refused || !patient) {
    m2se_kafka_drop(kafka, reader);
    doom(kafka, &reader->handle, &reader->queue);
  }
}

static void close_producer(struct m2se_kafka *kafka, bool patient) {
  if (!kafka->producer)
    return;
  if (kafka->unsent_count && !patient && !kafka->purged) {
    rd_kafka_purge(kafka->producer,
                   RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
    kafka->purged = true;
  }
  if (kafka->unsent_count == 0)
    doom(kafka, &kafka->producer, &kafka->producer_queue);
}

static void advance_close(struct m2se_kafka *kafka) {
  int64_t now_ms = m2se_kafka_now_ms();
  bool patient = now_ms < kafka->patience_ms, too_late = now_ms >= kafka->deadline_ms;
  for (int i = 0; i < 2; i++)
    close_reader(kafka, &kafka->readers[i], patient);
  close_producer(kafka, patient);
  bool gone = !kafka->readers[0].handle && !kafka->readers[1].handle && !kafka->producer &&
              m2se_kafka_helper_idle(kafka->helper);
  if (!gone && !too_late)
    return;
  for (int i = 0; i < 2; i++)
    close_queue(&kafka->readers[i].queue);
  close_queue(&kafka->producer_queue);
  m2se_kafka_helper_end(kafka->helper, gone);
  kafka->helper = NULL;
  kafka->producer = kafka->readers[0].handle = kafka->readers[1].handle = NULL; /* left behind, if any */
  m2se_kafka_give_up_unsent(kafka);
  kafka->closed = true;
}

void m2se_kafka_close(struct m2se_kafka *kafka, int timeout_ms) {
  if (kafka->closing)
    return;
  kafka->closing = true;
  int64_t now_ms = m2se_kafka_now_ms();
  kafka->deadline_ms = now_ms + timeout_ms;
  kafka->patience_ms = now_ms + timeout_ms / 4 * 3; /* then what has not ended is made to */
  m2se_kafka_helper_forget(kafka->helper);
  m2se_kafka_send_commits(kafka);
  for (int i = 0; i < 2; i++) {
    struct m2se_kafka_reader *reader = &kafka->readers[i];
    rd_kafka_error_t *why =
        reader->handle ? rd_kafka_consumer_close_queue(reader->handle, reader->queue) : NULL;
    reader->refused = why != NULL;
    if (why)
      rd_kafka_error_destroy(why);
  }
}

bool m2se_kafka_closed(const struct m2se_kafka *kafka) {
  return kafka->closed;
}

void m2se_kafka_free(struct m2se_kafka *kafka) {
  if (!kafka)
    return;
  assert(!kafka->polling);
  m2se_kafka_close(kafka, FREE_MS_MAX);
  while (!kafka->closed) {
    m2se_kafka_poll(kafka, 0, 0);
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  free_memory(kafka);
}

/* ---- poll ---- */

static uint32_t read_all(struct m2se_kafka *kafka, unsigned what, uint32_t left) {
  /* In turns, or a flood of one would leave nothing of the limit to the other. */
  kafka->items_first = !kafka->items_first;
  for (int i = 0; i < 2; i++) {
    int which = (i == 0) == kafka->items_first ? M2SE_KAFKA_ITEMS_READER : M2SE_KAFKA_GROUP_READER;
    unsigned bit = which == M2SE_KAFKA_ITEMS_READER ? M2SE_KAFKA_READ_ITEMS : M2SE_KAFKA_READ_GROUP;
    if (what & bit)
      m2se_kafka_read(kafka, &kafka->readers[which], &left);
  }
  return left;
}

bool m2se_kafka_poll(struct m2se_kafka *kafka, unsigned what, uint32_t records_max) {
  assert(!kafka->polling);
  if (kafka->closed)
    return false;
  kafka->polling = true;
  kafka->stopped = false;
  m2se_kafka_take_answers(kafka);
  if (kafka->producer)
    rd_kafka_poll(kafka->producer, 0);
  uint32_t left = records_max;
  if (kafka->closing)
    advance_close(kafka);
  else
    left = read_all(kafka, what, records_max);
  kafka->polling = false;
  return !kafka->closing && (kafka->stopped || left == 0);
}
