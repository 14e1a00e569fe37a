/* Partitions: given by the group or found by metadata, started, read, paused, taken away.
 *
 * The life of one: ours (its low and high are asked) -> started (the owner said where; it is put into
 * librdkafka's assignment) -> not ours. Between the second and the third it can go back to the question when
 * its offset is out of range. The group is answered at once, with an assignment of nothing: partitions join
 * it one by one as they are started, so that a slow question holds up no other member.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

enum { ITEMS_AGAIN_MS = 30000, RETRY_MS_MIN = 100, RETRY_MS_MAX = 5000 };

/* ---- the table ---- */

struct m2se_kafka_partition *m2se_kafka_partition_of(const struct m2se_kafka *kafka,
                                                     enum m2se_kafka_topic topic, int32_t partition) {
  const struct m2se_kafka_topic_state *state = &kafka->topics[topic];
  return partition >= 0 && partition < state->partition_count ? state->partitions[partition] : NULL;
}

/* The same, made if needed; NULL: out of memory, told. */
static struct m2se_kafka_partition *make_partition(struct m2se_kafka *kafka, enum m2se_kafka_topic topic,
                                                   int32_t partition) {
  assert(partition >= 0);
  struct m2se_kafka_topic_state *state = &kafka->topics[topic];
  if (partition >= state->partition_count) {
    size_t count = (size_t)partition + 1;
    struct m2se_kafka_partition **larger = realloc(state->partitions, count * sizeof(void *));
    if (!larger) {
      m2se_kafka_out_of_memory(kafka);
      return NULL;
    }
    for (size_t i = (size_t)state->partition_count; i < count; i++)
      larger[i] = NULL;
    state->partitions = larger;
    state->partition_count = partition + 1;
  }
  if (!state->partitions[partition]) {
    state->partitions[partition] = calloc(1, sizeof **state->partitions);
    if (state->partitions[partition])
      state->partitions[partition]->pause = state->pause;
    else
      m2se_kafka_out_of_memory(kafka);
  }
  return state->partitions[partition];
}

/* Which of our topics; M2SE_KAFKA_TOPICS: none. */
static enum m2se_kafka_topic topic_named(const struct m2se_kafka *kafka,
                                         const struct m2se_kafka_reader *reader, const char *name) {
  for (int i = 0; i < M2SE_KAFKA_TOPICS; i++)
    if (kafka->topics[i].reader == reader && !strcmp(kafka->topics[i].name, name))
      return i;
  return M2SE_KAFKA_TOPICS;
}

static rd_kafka_topic_partition_list_t *
list_of_one(const struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition, int64_t offset) {
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(list, kafka->topics[topic].name, partition)->offset = offset;
  return list;
}

static void report_error(struct m2se_kafka *kafka, rd_kafka_t *handle, rd_kafka_error_t *error,
                         const char *what) {
  if (!error)
    return;
  m2se_kafka_report(kafka, handle, rd_kafka_error_code(error), "%s: %s", what, rd_kafka_error_string(error));
  rd_kafka_error_destroy(error);
}

static void set_paused(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition,
                       bool paused) {
  rd_kafka_topic_partition_list_t *list = list_of_one(kafka, topic, partition, RD_KAFKA_OFFSET_INVALID);
  rd_kafka_t *handle = kafka->topics[topic].reader->handle;
  rd_kafka_resp_err_t code =
      paused ? rd_kafka_pause_partitions(handle, list) : rd_kafka_resume_partitions(handle, list);
  if (!code)
    code = list->elems[0].err;
  if (code)
    m2se_kafka_report(kafka, handle, code, "%s: %s", paused ? "pause" : "resume", rd_kafka_err2str(code));
  rd_kafka_topic_partition_list_destroy(list);
}

/* ---- questions ---- */

static bool put_question(struct m2se_kafka *kafka, struct m2se_kafka_question question) {
  struct m2se_kafka_question *copy = malloc(sizeof *copy);
  if (!copy) {
    m2se_kafka_out_of_memory(kafka);
    return false;
  }
  *copy = question;
  m2se_kafka_helper_put(kafka->helper, copy);
  return true;
}

void m2se_kafka_ask_first(struct m2se_kafka *kafka) {
  put_question(kafka, (struct m2se_kafka_question){.ask = M2SE_KAFKA_ASK_CLUSTER});
  if (kafka->topics[M2SE_KAFKA_ITEMS].name)
    put_question(kafka, (struct m2se_kafka_question){.ask = M2SE_KAFKA_ASK_ITEMS, .topic = M2SE_KAFKA_ITEMS});
}

static void ask_start(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition,
                      struct m2se_kafka_partition *state) {
  state->serial = ++kafka->serial;
  bool by_time = topic != M2SE_KAFKA_ITEMS && kafka->start == M2SE_KAFKA_TIMESTAMP && state->wanted < 0;
  put_question(kafka, (struct m2se_kafka_question){.ask = M2SE_KAFKA_ASK_START,
                                                   .topic = topic,
                                                   .partition = partition,
                                                   .serial = state->serial,
                                                   .since_ms = by_time ? kafka->start_ms : -1});
}

void m2se_kafka_refresh(struct m2se_kafka *kafka) {
  if (kafka->refreshing || kafka->closing)
    return;
  for (int topic = 0; topic < M2SE_KAFKA_TOPICS; topic++)
    for (int32_t i = 0; i < kafka->topics[topic].partition_count; i++) {
      const struct m2se_kafka_partition *state = kafka->topics[topic].partitions[i];
      if (state && state->started &&
          put_question(kafka, (struct m2se_kafka_question){.ask = M2SE_KAFKA_ASK_REFRESH,
                                                           .topic = topic,
                                                           .partition = i,
                                                           .serial = state->serial,
                                                           .since_ms = -1}))
        kafka->refreshing++;
    }
}

bool m2se_kafka_watermarks(const struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition,
                           int64_t *low, int64_t *high) {
  const struct m2se_kafka_partition *state = m2se_kafka_partition_of(kafka, topic, partition);
  if (!state || !state->started)
    return false;
  *low = state->low;
  *high = state->high;
  return true;
}

/* ---- start and end ---- */

static void end_if_read(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition,
                        struct m2se_kafka_partition *state, int64_t position) {
  if (state->ended || !state->started || position < state->end)
    return;
  state->ended = true;
  if (kafka->callbacks.end)
    kafka->callbacks.end(kafka->callbacks.arg, topic, partition, state->end);
}

static void begin_reading(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition,
                          struct m2se_kafka_partition *state, int64_t offset) {
  state->next = offset;
  state->wanted = -1;
  rd_kafka_topic_partition_list_t *list = list_of_one(kafka, topic, partition, offset);
  rd_kafka_t *handle = kafka->topics[topic].reader->handle;
  rd_kafka_error_t *error = rd_kafka_incremental_assign(handle, list);
  rd_kafka_topic_partition_list_destroy(list);
  state->assigned = !error;
  report_error(kafka, handle, error, "assigning a partition");
}

static void start(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition,
                  struct m2se_kafka_partition *state, const struct m2se_kafka_range *range) {
  state->low = range->low;
  state->high = range->high;
  int64_t wanted = state->wanted;
  if (wanted >= range->low && wanted <= range->high) { /* it was there after all, or is now */
    begin_reading(kafka, topic, partition, state, wanted);
    return;
  }
  struct m2se_kafka_start at = {.topic = topic,
                                .partition = partition,
                                .low = range->low,
                                .high = range->high,
                                .by_policy = range->low,
                                .wanted = wanted};
  if (topic != M2SE_KAFKA_ITEMS && kafka->start == M2SE_KAFKA_LATEST)
    at.by_policy = range->high;
  if (topic != M2SE_KAFKA_ITEMS && kafka->start == M2SE_KAFKA_TIMESTAMP && wanted < 0)
    at.by_policy = range->by_time;
  int64_t offset = kafka->callbacks.start(kafka->callbacks.arg, &at);
  assert(offset >= 0 || offset == M2SE_KAFKA_HOLD);
  state->started = offset >= 0;
  if (!state->started)
    return;
  state->ended = false;
  state->end = range->high;
  begin_reading(kafka, topic, partition, state, offset);
  if (offset == state->end) /* beyond it, it will come back */
    end_if_read(kafka, topic, partition, state, offset);
}

/* ---- answers ---- */

static void take_partition(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition) {
  struct m2se_kafka_partition *state = make_partition(kafka, topic, partition);
  if (!state || state->ours)
    return;
  state->ours = true;
  state->wanted = -1;
  ask_start(kafka, topic, partition, state);
}

static void ask_again(struct m2se_kafka *kafka, const struct m2se_kafka_question *answer, int64_t delay_ms) {
  struct m2se_kafka_question again = *answer;
  again.due_ms = m2se_kafka_now_ms() + delay_ms;
  put_question(kafka, again);
}

/* Goes on until it succeeds. Reported at the second failure in a row (one alone is often a leader that has
 * just changed, a topic just made), the fourth, eighth ... */
static void retry(struct m2se_kafka *kafka, struct m2se_kafka_question *answer) {
  answer->attempt++;
  if (answer->attempt > 1 && (answer->attempt & (answer->attempt - 1)) == 0) {
    const char *topic = kafka->topics[answer->topic].name, *why = rd_kafka_err2str(answer->code);
    if (answer->ask == M2SE_KAFKA_ASK_CLUSTER)
      m2se_kafka_report(kafka, NULL, answer->code, "no answer from the cluster yet");
    else if (answer->ask == M2SE_KAFKA_ASK_ITEMS)
      m2se_kafka_report(kafka, NULL, answer->code, "topic %s: its partitions: %s", topic, why);
    else
      m2se_kafka_report(kafka, NULL, answer->code, "topic %s, partition %d: its offsets: %s", topic,
                        answer->partition, why);
  }
  int64_t delay_ms = (int64_t)RETRY_MS_MIN << (answer->attempt < 8 ? answer->attempt : 8);
  ask_again(kafka, answer, delay_ms < RETRY_MS_MAX ? delay_ms : RETRY_MS_MAX);
}

static void take_items(struct m2se_kafka *kafka, struct m2se_kafka_question *answer) {
  for (int32_t i = 0; i < answer->partitions; i++)
    take_partition(kafka, M2SE_KAFKA_ITEMS, i);
  answer->attempt = 0;
  ask_again(kafka, answer, ITEMS_AGAIN_MS); /* partitions can be added */
}

static void take_answer(struct m2se_kafka *kafka, struct m2se_kafka_question *answer) {
  struct m2se_kafka_partition *state = m2se_kafka_partition_of(kafka, answer->topic, answer->partition);
  bool valid = state && state->ours && state->serial == answer->serial;
  kafka->reachable = !answer->code;
  switch (answer->ask) {
  case M2SE_KAFKA_ASK_REFRESH:
    kafka->refreshing--;
    if (valid && !answer->code) {
      state->low = answer->range.low;
      state->high = answer->range.high;
    }
    break;
  case M2SE_KAFKA_ASK_START:
    if (valid && answer->code)
      retry(kafka, answer);
    else if (valid)
      start(kafka, answer->topic, answer->partition, state, &answer->range);
    break;
  case M2SE_KAFKA_ASK_ITEMS:
    if (answer->code)
      retry(kafka, answer);
    else
      take_items(kafka, answer);
    break;
  case M2SE_KAFKA_ASK_CLUSTER:
    if (answer->code)
      retry(kafka, answer);
    break;
  }
}

void m2se_kafka_take_answers(struct m2se_kafka *kafka) {
  struct m2se_kafka_question *answer = m2se_kafka_helper_answers(kafka->helper);
  if (answer && !kafka->cluster_id)
    kafka->cluster_id = m2se_kafka_helper_cluster(kafka->helper);
  while (answer) {
    struct m2se_kafka_question *next = answer->next;
    if (!kafka->closing)
      take_answer(kafka, answer);
    free(answer);
    answer = next;
  }
}

/* ---- the group ---- */

static void drop_partition(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition,
                           struct m2se_kafka_partition *state, bool lost) {
  if (state->held) {
    rd_kafka_message_destroy(state->held);
    if (!kafka->closing)
      set_paused(kafka, topic, partition, false); /* else it still is when it comes back */
  }
  bool was_started = state->started;
  *state = (struct m2se_kafka_partition){.pause = state->pause, .serial = state->serial, .next = state->next};
  if (was_started && kafka->callbacks.revoked)
    kafka->callbacks.revoked(kafka->callbacks.arg, topic, partition, lost);
}

void m2se_kafka_drop(struct m2se_kafka *kafka, const struct m2se_kafka_reader *reader) {
  bool lost = reader == &kafka->readers[M2SE_KAFKA_GROUP_READER]; /* or the group would have revoked it */
  for (int topic = 0; topic < M2SE_KAFKA_TOPICS; topic++)
    for (int32_t i = 0; i < kafka->topics[topic].partition_count; i++)
      if (kafka->topics[topic].reader == reader && kafka->topics[topic].partitions[i])
        drop_partition(kafka, topic, i, kafka->topics[topic].partitions[i], lost);
}

static void on_assigned(struct m2se_kafka *kafka, rd_kafka_t *handle,
                        const rd_kafka_topic_partition_list_t *list) {
  rd_kafka_topic_partition_list_t *nothing = rd_kafka_topic_partition_list_new(0);
  report_error(kafka, handle, rd_kafka_incremental_assign(handle, nothing), "joining the group");
  rd_kafka_topic_partition_list_destroy(nothing);
  for (int i = 0; i < list->cnt && !kafka->closing; i++) {
    enum m2se_kafka_topic topic =
        topic_named(kafka, &kafka->readers[M2SE_KAFKA_GROUP_READER], list->elems[i].topic);
    if (topic < M2SE_KAFKA_TOPICS)
      take_partition(kafka, topic, list->elems[i].partition);
  }
}

static void on_revoked(struct m2se_kafka *kafka, rd_kafka_t *handle,
                       const rd_kafka_topic_partition_list_t *list) {
  bool lost = rd_kafka_assignment_lost(handle);
  rd_kafka_topic_partition_list_t *assigned = rd_kafka_topic_partition_list_new(list->cnt);
  for (int i = 0; i < list->cnt; i++) {
    const char *name = list->elems[i].topic;
    int32_t partition = list->elems[i].partition;
    enum m2se_kafka_topic topic = topic_named(kafka, &kafka->readers[M2SE_KAFKA_GROUP_READER], name);
    struct m2se_kafka_partition *state =
        topic < M2SE_KAFKA_TOPICS ? m2se_kafka_partition_of(kafka, topic, partition) : NULL;
    if (!state)
      continue;
    if (state->assigned)
      rd_kafka_topic_partition_list_add(assigned, name, partition);
    drop_partition(kafka, topic, partition, state, lost);
  }
  report_error(kafka, handle, rd_kafka_incremental_unassign(handle, assigned), "giving partitions back");
  rd_kafka_topic_partition_list_destroy(assigned);
}

static void on_rebalance(rd_kafka_t *handle, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t *list,
                         void *opaque) {
  struct m2se_kafka *kafka = opaque;
  if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
    on_assigned(kafka, handle, list);
  else if (code == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS)
    on_revoked(kafka, handle, list);
  else {
    m2se_kafka_report(kafka, handle, code, "rebalance: %s", rd_kafka_err2str(code));
    rd_kafka_assign(handle, NULL);
  }
}

static void on_commit(rd_kafka_t *handle, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t *list,
                      void *opaque) {
  (void)list;
  if (code && code != RD_KAFKA_RESP_ERR__NO_OFFSET)
    m2se_kafka_report(opaque, handle, code, "commit: %s", rd_kafka_err2str(code));
}

void m2se_kafka_set_group_callbacks(rd_kafka_conf_t *conf) {
  rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
  rd_kafka_conf_set_offset_commit_cb(conf, on_commit);
}

int m2se_kafka_subscribe(struct m2se_kafka *kafka, struct m2se_error *error) {
  struct m2se_kafka_reader *group = &kafka->readers[M2SE_KAFKA_GROUP_READER];
  if (!group->handle)
    return 0;
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(2);
  for (int i = 0; i < M2SE_KAFKA_TOPICS; i++)
    if (kafka->topics[i].reader == group)
      rd_kafka_topic_partition_list_add(list, kafka->topics[i].name, RD_KAFKA_PARTITION_UA);
  rd_kafka_resp_err_t code = rd_kafka_subscribe(group->handle, list);
  rd_kafka_topic_partition_list_destroy(list);
  return code ? m2se_error_set(error, M2SE_EINVAL, "subscribing: %s", rd_kafka_err2str(code)) : 0;
}

void m2se_kafka_commit(struct m2se_kafka *kafka, const struct m2se_kafka_offset *offsets, uint32_t count) {
  rd_kafka_t *handle = kafka->readers[M2SE_KAFKA_GROUP_READER].handle;
  if (!handle || !count)
    return;
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
  for (uint32_t i = 0; i < count; i++) {
    assert(kafka->topics[offsets[i].topic].reader == &kafka->readers[M2SE_KAFKA_GROUP_READER]);
    rd_kafka_topic_partition_list_add(list, kafka->topics[offsets[i].topic].name, offsets[i].partition)
        ->offset = offsets[i].offset;
  }
  rd_kafka_resp_err_t code = rd_kafka_commit(handle, list, 1);
  if (code)
    m2se_kafka_report(kafka, handle, code, "commit: %s", rd_kafka_err2str(code));
  rd_kafka_topic_partition_list_destroy(list);
}

/* ---- records ---- */

uint32_t m2se_kafka_record_headers(const struct m2se_kafka_record *record, struct m2se_kafka_header *headers,
                                   uint32_t max) {
  rd_kafka_headers_t *theirs;
  if (rd_kafka_message_headers(record->message, &theirs))
    return 0;
  uint32_t count = (uint32_t)rd_kafka_header_cnt(theirs);
  for (uint32_t i = 0; i < count && i < max; i++)
    rd_kafka_header_get_all(theirs, i, &headers[i].name, &headers[i].value, &headers[i].size);
  return count;
}

static void hand_over(struct m2se_kafka *kafka, enum m2se_kafka_topic topic,
                      struct m2se_kafka_partition *state, rd_kafka_message_t *message) {
  rd_kafka_timestamp_type_t kind;
  int64_t timestamp_ms = rd_kafka_message_timestamp(message, &kind);
  const struct m2se_kafka_record record = {.topic = topic,
                                           .topic_name = kafka->topics[topic].name,
                                           .partition = message->partition,
                                           .offset = message->offset,
                                           .timestamp_ms =
                                               kind == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? -1 : timestamp_ms,
                                           .key = message->key,
                                           .key_size = message->key_len,
                                           .value = message->payload,
                                           .value_size = message->len,
                                           .message = message};
  state->next = message->offset + 1;
  if (!kafka->callbacks.record(kafka->callbacks.arg, &record))
    kafka->stopped = true;
  end_if_read(kafka, topic, message->partition, state, state->next);
  rd_kafka_message_destroy(message);
}

static void out_of_range(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition,
                         struct m2se_kafka_partition *state, int64_t offset) {
  rd_kafka_t *handle = kafka->topics[topic].reader->handle;
  rd_kafka_topic_partition_list_t *list = list_of_one(kafka, topic, partition, RD_KAFKA_OFFSET_INVALID);
  report_error(kafka, handle, rd_kafka_incremental_unassign(handle, list), "leaving an offset out of range");
  rd_kafka_topic_partition_list_destroy(list);
  state->assigned = false;
  state->wanted = offset > state->next ? offset : state->next; /* the log may be sparse before it */
  ask_start(kafka, topic, partition, state);
}

/* An error, or something to know, about one partition. */
static void take_notice(struct m2se_kafka *kafka, struct m2se_kafka_reader *reader,
                        enum m2se_kafka_topic topic, struct m2se_kafka_partition *state,
                        const rd_kafka_message_t *message) {
  bool reading = state && state->assigned;
  if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
    if (reading && !state->held)
      end_if_read(kafka, topic, message->partition, state, message->offset);
  } else if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET) {
    if (reading)
      out_of_range(kafka, topic, message->partition, state, message->offset);
  } else {
    m2se_kafka_report(kafka, reader->handle, message->err, "%s", rd_kafka_message_errstr(message));
  }
}

/* True: a record was handed over. */
static bool take_message(struct m2se_kafka *kafka, struct m2se_kafka_reader *reader,
                         rd_kafka_message_t *message) {
  enum m2se_kafka_topic topic =
      message->rkt ? topic_named(kafka, reader, rd_kafka_topic_name(message->rkt)) : M2SE_KAFKA_TOPICS;
  struct m2se_kafka_partition *state =
      topic < M2SE_KAFKA_TOPICS ? m2se_kafka_partition_of(kafka, topic, message->partition) : NULL;
  if (message->err) {
    take_notice(kafka, reader, topic, state, message);
  } else if (state && state->assigned && message->offset >= state->next) {
    if (!state->pause) {
      hand_over(kafka, topic, state, message);
      return true;
    }
    /* librdkafka pauses only now: it goes on after the last record that it gave, and before the first one it
     * would not know which that is. */
    assert(!state->held);
    state->held = message;
    set_paused(kafka, topic, message->partition, true);
    return false;
  }
  rd_kafka_message_destroy(message);
  return false;
}

/* Undoes pauses that the owner no longer wants, the record in hand first. */
static void resume_wanted(struct m2se_kafka *kafka, struct m2se_kafka_reader *reader, uint32_t *left) {
  reader->to_resume = false; /* until a callback resumes more */
  for (int topic = 0; topic < M2SE_KAFKA_TOPICS; topic++) {
    if (kafka->topics[topic].reader != reader)
      continue;
    for (int32_t i = 0; i < kafka->topics[topic].partition_count; i++) {
      struct m2se_kafka_partition *state = kafka->topics[topic].partitions[i];
      if (!state || state->pause || !state->held)
        continue;
      if (!*left || kafka->stopped) {
        reader->to_resume = true;
        return;
      }
      rd_kafka_message_t *message = state->held;
      state->held = NULL;
      set_paused(kafka, topic, i, false);
      hand_over(kafka, topic, state, message);
      (*left)--;
    }
  }
}

void m2se_kafka_read(struct m2se_kafka *kafka, struct m2se_kafka_reader *reader, uint32_t *left) {
  if (!reader->handle)
    return;
  if (reader->to_resume)
    resume_wanted(kafka, reader, left);
  while (*left && !kafka->stopped) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(reader->handle, 0);
    if (!message)
      return;
    if (take_message(kafka, reader, message))
      (*left)--;
  }
}

/* ---- pause ---- */

static void wish(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition, bool pause) {
  struct m2se_kafka_topic_state *state = &kafka->topics[topic];
  assert(state->name);
  if (partition >= 0) {
    struct m2se_kafka_partition *one = make_partition(kafka, topic, partition);
    if (one)
      one->pause = pause;
  } else {
    state->pause = pause;
    for (int32_t i = 0; i < state->partition_count; i++)
      if (state->partitions[i])
        state->partitions[i]->pause = pause;
  }
  if (!pause)
    state->reader->to_resume = true;
}

void m2se_kafka_pause(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition) {
  wish(kafka, topic, partition, true);
}

void m2se_kafka_resume(struct m2se_kafka *kafka, enum m2se_kafka_topic topic, int32_t partition) {
  wish(kafka, topic, partition, false);
}
