/* From a partition that is ours to one that is read: its low and high are asked, the owner says where to
 * start, and librdkafka gets that offset. An offset that turns out to be out of range goes the same way
 * again.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

enum {
  ITEMS_AGAIN_MS = 30000,
  ERASURES_AGAIN_MS = 5000,
  RETRY_MS_MIN = 100,
  RETRY_MS_MAX = 5000,
  QUIET_MS = 1000
};

/* ---- questions ---- */

/* With room for so many partitions; NULL: out of memory, told. */
static struct m2se_kafka_question *new_question(struct m2se_kafka *kafka, enum m2se_kafka_ask ask,
                                                enum m2se_kafka_topic topic, uint32_t partitions_max) {
  struct m2se_kafka_question *question =
      calloc(1, sizeof *question + partitions_max * sizeof question->asked[0]);
  if (!question) {
    m2se_kafka_out_of_memory(kafka);
    return NULL;
  }
  question->ask = ask;
  question->topic = topic;
  bool by_time = topic != M2SE_KAFKA_ITEMS && kafka->start == M2SE_KAFKA_TIMESTAMP;
  question->since_ms = ask == M2SE_KAFKA_ASK_START && by_time ? kafka->start_ms : -1;
  return question;
}

static void add_partition(struct m2se_kafka_question *question,
                          const struct m2se_kafka_partition *partition) {
  question->asked[question->count++] =
      (struct m2se_kafka_asked){.partition = partition->number, .serial = partition->serial};
}

/* False: there was nothing to ask. */
static bool put_question(struct m2se_kafka *kafka, struct m2se_kafka_question *question) {
  if (question->count == 0) {
    free(question);
    return false;
  }
  m2se_kafka_helper_put(kafka->helper, question);
  return true;
}

void m2se_kafka_ask_first(struct m2se_kafka *kafka) {
  struct m2se_kafka_question *question = new_question(kafka, M2SE_KAFKA_ASK_CLUSTER, 0, 0);
  if (question)
    m2se_kafka_helper_put(kafka->helper, question);
  bool items = kafka->topics[M2SE_KAFKA_ITEMS].name != NULL;
  question = items ? new_question(kafka, M2SE_KAFKA_ASK_ITEMS, M2SE_KAFKA_ITEMS, 0) : NULL;
  if (question)
    m2se_kafka_helper_put(kafka->helper, question);
  bool erasures = kafka->topics[M2SE_KAFKA_ERASURES].name != NULL;
  question = erasures ? new_question(kafka, M2SE_KAFKA_ASK_ITEMS, M2SE_KAFKA_ERASURES, 0) : NULL;
  if (question)
    m2se_kafka_helper_put(kafka->helper, question);
}

static void refresh_topic(struct m2se_kafka *kafka, enum m2se_kafka_topic topic) {
  const struct m2se_kafka_topic_state *state = &kafka->topics[topic];
  struct m2se_kafka_question *question =
      new_question(kafka, M2SE_KAFKA_ASK_REFRESH, topic, (uint32_t)state->partition_count);
  for (int32_t i = 0; question && i < state->partition_count; i++)
    if (state->partitions[i] && state->partitions[i]->started)
      add_partition(question, state->partitions[i]);
  if (question && put_question(kafka, question))
    kafka->refreshing++;
}

void m2se_kafka_refresh(struct m2se_kafka *kafka) {
  if (kafka->refreshing || kafka->closing)
    return;
  for (int topic = 0; topic < M2SE_KAFKA_TOPICS; topic++)
    if (kafka->topics[topic].partition_count)
      refresh_topic(kafka, topic);
}

bool m2se_kafka_watermarks(const struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t number,
                           int64_t *low, int64_t *high) {
  const struct m2se_kafka_partition *state = m2se_kafka_partition_of(kafka, topic, number);
  if (!state || !state->started)
    return false;
  *low = state->low;
  *high = state->high;
  return true;
}

/* ---- start ---- */

static void start(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition,
                  const struct m2se_kafka_asked *range) {
  partition->low = range->low;
  partition->high = range->high;
  int64_t wanted = partition->wanted;
  if (wanted >= range->low && wanted <= range->high) { /* it was there after all, or is now */
    m2se_kafka_partition_assign(kafka, partition, wanted);
    return;
  }
  struct m2se_kafka_start at = {.topic = partition->topic,
                                .partition = partition->number,
                                .low = range->low,
                                .high = range->high,
                                .by_policy = range->low,
                                .wanted = wanted};
  if (partition->topic != M2SE_KAFKA_ITEMS && kafka->start == M2SE_KAFKA_LATEST)
    at.by_policy = range->high;
  if (partition->topic != M2SE_KAFKA_ITEMS && kafka->start == M2SE_KAFKA_TIMESTAMP && wanted < 0)
    at.by_policy = range->by_time;
  int64_t offset = kafka->callbacks.start(kafka->callbacks.arg, &at);
  assert(offset >= 0 || offset == M2SE_KAFKA_HOLD);
  partition->started = offset >= 0;
  if (!partition->started)
    return;
  partition->ended = false;
  partition->end = range->high;
  m2se_kafka_partition_assign(kafka, partition, offset);
  if (offset == partition->end) /* beyond it, it will come back */
    m2se_kafka_partition_end_if_read(kafka, partition, offset);
}

static void take_partition(struct m2se_kafka *kafka, struct m2se_kafka_question *question, int32_t number) {
  struct m2se_kafka_partition *partition = m2se_kafka_partition_make(kafka, question->topic, number);
  if (!partition || partition->ours)
    return;
  partition->ours = true;
  partition->wanted = -1;
  partition->serial = ++kafka->serial;
  add_partition(question, partition);
}

void m2se_kafka_take_partitions(struct m2se_kafka *kafka, enum m2se_kafka_topic topic,
                                const rd_kafka_topic_partition_list_t *list) {
  struct m2se_kafka_question *question =
      new_question(kafka, M2SE_KAFKA_ASK_START, topic, (uint32_t)list->cnt);
  for (int i = 0; question && i < list->cnt; i++)
    if (!strcmp(list->elems[i].topic, kafka->topics[topic].name))
      take_partition(kafka, question, list->elems[i].partition);
  if (question)
    put_question(kafka, question);
}

static void ask_start(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition, int64_t wanted) {
  partition->wanted = wanted;
  partition->serial = ++kafka->serial; /* what was asked before is void */
  struct m2se_kafka_question *question = new_question(kafka, M2SE_KAFKA_ASK_START, partition->topic, 1);
  if (!question)
    return;
  if (wanted >= 0)
    question->since_ms = -1; /* where it would have begun no longer matters */
  add_partition(question, partition);
  put_question(kafka, question);
}

void m2se_kafka_start_again(struct m2se_kafka *kafka, struct m2se_kafka_partition *partition,
                            int64_t wanted) {
  m2se_kafka_partition_unassign(kafka, partition);
  ask_start(kafka, partition, wanted);
}

void m2se_kafka_restart(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t number) {
  struct m2se_kafka_partition *partition = m2se_kafka_partition_of(kafka, topic, number);
  if (!partition || !partition->ours)
    return; /* it will be started when it comes */
  m2se_kafka_partition_let_go(kafka, partition);
  if (partition->assigned)
    m2se_kafka_partition_unassign(kafka, partition);
  ask_start(kafka, partition, -1);
}

/* ---- answers ---- */

/* Reported at the second failure in a row (one alone is often a leader that has just changed, a topic just
 * made), the fourth, eighth ...; and not for each of a hundred partitions. */
static void report_failure(struct m2se_kafka *kafka, const struct m2se_kafka_question *answer) {
  uint32_t attempt = answer->attempt;
  if (attempt < 2 || (attempt & (attempt - 1)) != 0 || m2se_kafka_now_ms() < kafka->quiet_ms)
    return;
  kafka->quiet_ms = m2se_kafka_now_ms() + QUIET_MS;
  const char *topic = kafka->topics[answer->topic].name, *why = rd_kafka_err2str(answer->code);
  if (answer->ask == M2SE_KAFKA_ASK_CLUSTER)
    m2se_kafka_report(kafka, NULL, answer->code, "no answer from the cluster yet");
  else if (answer->ask == M2SE_KAFKA_ASK_ITEMS)
    m2se_kafka_report(kafka, NULL, answer->code, "topic %s: its partitions: %s", topic, why);
  else
    m2se_kafka_report(kafka, NULL, answer->code, "topic %s, partition %d and perhaps others: its offsets: %s",
                      topic, answer->asked[0].partition, why);
}

static void ask_later(struct m2se_kafka *kafka, struct m2se_kafka_question *question, int64_t delay_ms) {
  question->due_ms = m2se_kafka_now_ms() + delay_ms;
  m2se_kafka_helper_put(kafka->helper, question);
}

/* Until it succeeds. */
static void retry(struct m2se_kafka *kafka, struct m2se_kafka_question *answer) {
  answer->attempt++;
  report_failure(kafka, answer);
  int64_t delay_ms = (int64_t)RETRY_MS_MIN << (answer->attempt < 8 ? answer->attempt : 8);
  ask_later(kafka, answer, delay_ms < RETRY_MS_MAX ? delay_ms : RETRY_MS_MAX);
}

static void take_items(struct m2se_kafka *kafka, struct m2se_kafka_question *answer) {
  struct m2se_kafka_question *question =
      new_question(kafka, M2SE_KAFKA_ASK_START, M2SE_KAFKA_ITEMS, (uint32_t)answer->partitions);
  for (int32_t i = 0; question && i < answer->partitions; i++)
    take_partition(kafka, question, i);
  if (question)
    put_question(kafka, question);
  answer->attempt = 0;
  ask_later(kafka, answer, ITEMS_AGAIN_MS); /* partitions can be added */
}

/* Are they there? If not, they may come. */
static void take_erasures(struct m2se_kafka *kafka, struct m2se_kafka_question *answer) {
  if (!m2se_kafka_is_answer(answer->code)) {
    retry(kafka, answer);
    return;
  }
  kafka->erasures_there = answer->code == 0;
  if (kafka->erasures_there || !kafka->subscribed) {
    struct m2se_error error;
    kafka->subscribed = true;
    if (m2se_kafka_subscribe(kafka, &error))
      m2se_kafka_report(kafka, NULL, RD_KAFKA_RESP_ERR__FATAL, "%s", error.text);
    if (!kafka->erasures_there && kafka->callbacks.log)
      kafka->callbacks.log(kafka->callbacks.arg, 4, "the topic of erasures is not there (yet)");
  }
  if (kafka->erasures_there)
    free(answer);
  else
    ask_later(kafka, answer, ERASURES_AGAIN_MS);
}

/* Starts what can be started; the rest is asked again. */
static void take_start(struct m2se_kafka *kafka, struct m2se_kafka_question *answer) {
  uint32_t failed = 0;
  for (uint32_t i = 0; i < answer->count; i++) {
    struct m2se_kafka_asked asked = answer->asked[i];
    struct m2se_kafka_partition *partition = m2se_kafka_partition_of(kafka, answer->topic, asked.partition);
    if (!partition->ours || partition->serial != asked.serial)
      continue;
    if (asked.code)
      answer->asked[failed++] = asked;
    else
      start(kafka, partition, &asked);
  }
  answer->count = failed;
  if (failed)
    retry(kafka, answer);
  else
    free(answer);
}

static void take_refresh(struct m2se_kafka *kafka, struct m2se_kafka_question *answer) {
  kafka->refreshing--;
  for (uint32_t i = 0; i < answer->count; i++) {
    const struct m2se_kafka_asked *asked = &answer->asked[i];
    struct m2se_kafka_partition *partition = m2se_kafka_partition_of(kafka, answer->topic, asked->partition);
    if (asked->code || partition->serial != asked->serial)
      continue;
    partition->low = asked->low;
    partition->high = asked->high;
  }
  free(answer);
}

/* Frees the answer, or asks it again. */
static void take_answer(struct m2se_kafka *kafka, struct m2se_kafka_question *answer) {
  kafka->reachable = m2se_kafka_is_answer(answer->code);
  if (answer->ask == M2SE_KAFKA_ASK_START)
    take_start(kafka, answer);
  else if (answer->ask == M2SE_KAFKA_ASK_REFRESH)
    take_refresh(kafka, answer);
  else if (answer->topic == M2SE_KAFKA_ERASURES)
    take_erasures(kafka, answer);
  else if (answer->code)
    retry(kafka, answer);
  else if (answer->ask == M2SE_KAFKA_ASK_ITEMS)
    take_items(kafka, answer);
  else
    free(answer);
}

void m2se_kafka_take_answers(struct m2se_kafka *kafka) {
  struct m2se_kafka_question *answer = m2se_kafka_helper_answers(kafka->helper);
  if (answer && !kafka->cluster_id)
    kafka->cluster_id = m2se_kafka_helper_cluster(kafka->helper);
  while (answer) {
    struct m2se_kafka_question *next = answer->next;
    if (kafka->closing)
      free(answer);
    else
      take_answer(kafka, answer);
    answer = next;
  }
}
