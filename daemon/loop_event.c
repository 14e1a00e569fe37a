/* The way of one interaction, from top to bottom:
 *
 *   m2sed_loop_take_event    a record is taken: decoded, checked; a dead letter if it breaks a rule
 *   on_sequence              Redis has appended it once; what comes back gives context and sequence
 *   post_ready               the trainer hears of it: one message a record, in the order of its partition
 *   m2sed_loop_request_user  the server makes a vector (and ranks the item first: prequential evaluation)
 *   m2sed_loop_user_served   the vector has come, and is written to Redis
 *   on_published             Redis has it: readers see it
 *
 * Records wait in loop->events for the first reply (or for Kafka's word about their dead letter), users in
 * loop->requests for the vector and the second one. */
#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "daemon/loop_state.h"

/* ---- what identifies a record ---- */

/* What event_digest sums: XXH3-64 of topic, 0x00, partition and offset in little-endian. */
static uint64_t digest_of(const struct m2se_kafka_record *record) {
  uint8_t bytes[256 + 1 + 4 + 8];
  size_t size = strlen(record->topic_name);
  assert(size <= 256);
  memcpy(bytes, record->topic_name, size);
  bytes[size++] = 0;
  for (int i = 0; i < 4; i++)
    bytes[size++] = (uint8_t)((uint32_t)record->partition >> 8 * i);
  for (int i = 0; i < 8; i++)
    bytes[size++] = (uint8_t)((uint64_t)record->offset >> 8 * i);
  return XXH3_64bits(bytes, size);
}

/* First position of the partition that may come again after a crash. */
static uint64_t durable_position(const struct m2sed_loop *loop, const struct m2sed_partition *partition) {
  if (loop->options.new_log)
    return m2sed_position_make(partition->epoch,
                               0); /* a trial may repeat that log from its beginning (ops/run) */
  return m2sed_position_make(partition->epoch, partition->replay_offset);
}

/* ---- the trainer ---- */

static struct m2sed_event *oldest_event(struct m2sed_loop *loop) {
  return loop->events_first < loop->events_end
             ? &loop->events[loop->events_first & (loop->events_capacity - 1)]
             : NULL;
}

/* What is ready and whose turn it is: the trainer hears of records in the order of their partition. */
static void post_ready(struct m2sed_loop *loop) {
  struct m2sed_event *event;
  while ((event = oldest_event(loop)) && event->ready && loop->events_first < m2sed_marker_verified(loop)) {
    m2sed_loop_to_trainer(loop, &event->message);
    struct m2sed_partition *partition = m2sed_positions_find(loop->positions, event->message.at.partition);
    uint64_t position = event->message.at.position;
    int64_t following = (int64_t)(position & M2SED_OFFSET_MASK) + 1;
    if (partition && partition->epoch == position >> M2SED_EPOCH_BITS &&
        following > partition->trained_offset)
      partition->trained_offset = following;
    loop->events_first++;
  }
}

void m2sed_loop_events_verified(struct m2sed_loop *loop) {
  post_ready(loop);
  m2sed_loop_wake(loop); /* there may be room again */
}

bool m2sed_loop_forget_events(struct m2sed_loop *loop) {
  for (uint64_t i = loop->events_first; i < loop->events_end; i++)
    if (!loop->events[i & (loop->events_capacity - 1)].ready)
      return false;
  loop->events_first = loop->events_end;
  return true;
}

static void event_done(struct m2sed_event *event, enum m2sed_outcome outcome) {
  assert(!event->ready);
  event->message.outcome = outcome;
  event->ready = true;
  post_ready(event->loop);
  if (m2sed_erasure_blocks(event->loop))
    m2sed_loop_wake(event->loop); /* it waits for the last of them */
}

void m2sed_loop_letter_confirmed(struct m2sed_loop *loop, struct m2sed_event *event) {
  assert(event->loop == loop);
  event_done(event, M2SED_DEAD_LETTER);
  m2sed_loop_wake(loop); /* there may be room again */
}

/* ---- the sequence ---- */

static uint32_t slots_of(struct m2sed_loop *loop, const struct m2se_sequence *sequence,
                         struct m2se_sequence_span span, uint32_t slots[M2SED_CONTEXT_MAX]) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < span.count; i++) {
    const struct m2se_sequence_entry *entry = &sequence->entries[span.first + i];
    uint32_t slot = m2sed_loop_slot(loop, entry->item_id, entry->item_id_size);
    if (slot != M2SED_SLOT_NONE)
      slots[count++] = slot;
  }
  return count;
}

static void dead_letter_late(struct m2sed_loop *loop, struct m2sed_event *event, const char *reason) {
  uint32_t item_size;
  const char *item = m2sed_catalogue_id(loop->catalogue, event->message.item, &item_size);
  const struct m2sed_position at = event->message.at;
  const struct m2se_interaction interaction = {.user_id = {event->user, event->user_size},
                                               .item_id = {item, item_size},
                                               .event_id = {event->event_id, event->event_id_size},
                                               .kind = {"", 0},
                                               .event_time_ms = event->message.event_time_ms};
  uint8_t value[1024];
  const struct m2se_kafka_record record = {.topic = M2SE_KAFKA_INTERACTIONS,
                                           .topic_name = loop->config->kafka_interactions,
                                           .partition = at.partition,
                                           .offset = (int64_t)(at.position & M2SED_OFFSET_MASK),
                                           .timestamp_ms = event->produced_ms,
                                           .key = event->user,
                                           .key_size = event->user_size,
                                           .value = value,
                                           .value_size =
                                               m2se_interaction_encode(&interaction, value, sizeof value)};
  assert(record.value_size <= sizeof value);
  loop->counts.dead_lettered++;
  m2sed_letters_send(loop, &record, event, "sequence", "stored_sequence", reason);
}

/* The context of an event is what stood before it, on a replay too; the outcome follows from that. */
static enum m2sed_outcome outcome_of(const struct m2sed_event *event,
                                     const struct m2se_sequence_result *result) {
  const struct m2sed_position at = event->message.at;
  if (result->outcome == M2SE_SEQUENCE_DUPLICATE)
    return M2SED_DUPLICATE;
  if (result->outcome == M2SE_SEQUENCE_REPLAY &&
      m2se_sequence_find(result->sequence, at.partition, at.position) == result->sequence->entry_count)
    return M2SED_NO_CONTEXT; /* its entry has been dropped, and with it the context */
  return event->message.context_count ? M2SED_TEACHES : M2SED_NO_CONTEXT;
}

static void on_sequence(void *context, const struct m2se_sequence_result *result) {
  struct m2sed_event *event = context;
  struct m2sed_loop *loop = event->loop;
  struct m2sed_train_message *message = &event->message;
  if (result->status == M2SE_EIO)
    return; /* closed before an answer: the record is read again after the restart */
  if (result->status) {
    dead_letter_late(loop, event, result->error);
    return;
  }
  m2sed_freshness_add(&loop->freshness, M2SED_STAGE_SEQUENCE, loop->now_ms, event->produced_ms);
  message->context_count =
      slots_of(loop, result->sequence,
               m2se_sequence_context(result->sequence, message->at.partition, message->at.position,
                                     (uint32_t)loop->config->sequence_length),
               message->context);
  enum m2sed_outcome outcome = outcome_of(event, result);
  loop->counts.replayed += result->outcome == M2SE_SEQUENCE_REPLAY && !event->again;
  /* A backfill without training makes every user's vector once, at its end. */
  bool at_the_end = loop->options.until_end && !loop->config->train_enabled;
  if (outcome != M2SED_DUPLICATE && !at_the_end) { /* else nothing has changed for the user */
    struct m2sed_serve_message request = {.evaluate = loop->config->serve_evaluate && !event->again,
                                          .target = message->item};
    request.context_count = message->context_count;
    memcpy(request.context, message->context, sizeof request.context);
    m2sed_loop_request_user(loop, &request, event->user, event->user_size, result->sequence,
                            event->produced_ms, 0);
  }
  event_done(event, outcome);
}

/* ---- the vector ---- */

static void release_requests(struct m2sed_loop *loop) {
  while (loop->requests_first < loop->requests_answered &&
         loop->requests[loop->requests_first & (M2SED_REQUESTS - 1)].done)
    loop->requests_first++;
  if (m2sed_erasure_blocks(loop))
    m2sed_loop_wake(loop); /* it waits for the last of them */
}

void m2sed_loop_request_user(struct m2sed_loop *loop, struct m2sed_serve_message *message, const char *user,
                             uint32_t user_size, const struct m2se_sequence *sequence, int64_t produced_ms,
                             int64_t ends_ms) {
  assert(loop->requests_end - loop->requests_first < M2SED_REQUESTS);
  assert(user_size >= 1 && user_size <= M2SE_ID_BYTES_MAX);
  uint32_t keep = (uint32_t)loop->config->sequence_keep;
  struct m2sed_request *request = &loop->requests[loop->requests_end & (M2SED_REQUESTS - 1)];
  *request = (struct m2sed_request){
      .loop = loop, .user_size = (uint8_t)user_size, .produced_ms = produced_ms, .ends_ms = ends_ms};
  memcpy(request->user, user, user_size);
  request->sequence_count = sequence->entry_count < keep ? sequence->entry_count : keep;
  if (sequence->entry_count)
    request->event_time_ms = sequence->entries[sequence->entry_count - 1].event_time_ms;
  message->kind = M2SED_SERVE_USER;
  message->user_hash = XXH3_64bits(user, user_size);
  message->tag = loop->requests_end++;
  message->sequence_count =
      slots_of(loop, sequence, m2se_sequence_latest(sequence, (uint32_t)loop->config->sequence_length),
               message->sequence);
  m2sed_loop_to_server(loop, message);
}

static struct m2sed_request *request_at(struct m2sed_loop *loop, uint64_t tag) {
  return &loop->requests[tag & (M2SED_REQUESTS - 1)];
}

static void on_published(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_request *request = context;
  struct m2sed_loop *loop = request->loop;
  (void)reply;
  request->done = true;
  if (status == 0) {
    loop->counts.users_published++;
    m2sed_freshness_add(&loop->freshness, M2SED_STAGE_VECTOR, loop->now_ms, request->produced_ms);
    for (uint64_t tag = request->covers; tag; tag = request_at(loop, tag)->covers)
      m2sed_freshness_add(&loop->freshness, M2SED_STAGE_VECTOR, loop->now_ms,
                          request_at(loop, tag)->produced_ms);
  } else if (status != M2SE_EIO) {
    M2SED_LOG(loop->log, WARN, "user vector refused by Redis",
              M2SED_B("user", request->user, request->user_size), M2SED_S("why", error));
  }
  release_requests(loop);
}

/* The vector of an earlier request shows this one's sequence too: readable once Redis has acknowledged it. */
static void covered(struct m2sed_loop *loop, const struct m2sed_served_message *message) {
  struct m2sed_request *request = request_at(loop, message->tag),
                       *by = request_at(loop, message->covered_tag);
  request->done = true;
  if (message->covered_tag >= loop->requests_first && !by->done) {
    request->covers = by->covers;
    by->covers = message->tag;
  } else {
    m2sed_freshness_add(&loop->freshness, M2SED_STAGE_VECTOR, loop->now_ms, request->produced_ms);
  }
  release_requests(loop);
}

void m2sed_loop_user_served(struct m2sed_loop *loop, const struct m2sed_served_message *message) {
  assert(message->tag == loop->requests_answered && loop->requests_answered < loop->requests_end);
  assert(message->sequence_tag >= message->tag && message->sequence_tag < loop->requests_end);
  loop->requests_answered++;
  struct m2sed_request *request = request_at(loop, message->tag);
  const struct m2sed_request *shown = request_at(loop, message->sequence_tag);
  loop->prequential = message->prequential;
  if (message->covered) {
    covered(loop, message);
    return;
  }
  if (!message->count) { /* no epoch yet, or no item of the sequence has features */
    request->done = true;
    release_requests(loop);
    return;
  }
  const struct m2se_user_vector vector = {.user_id = request->user,
                                          .user_id_size = request->user_size,
                                          .vector = message->vectors,
                                          .dim = message->dim,
                                          .epoch = message->epoch,
                                          .step = message->step,
                                          .sequence_count = shown->sequence_count,
                                          .event_time_ms = shown->event_time_ms,
                                          .ends_ms = shown->ends_ms};
  int code = m2se_publish_user(loop->publisher, &vector, on_published, request);
  if (code == M2SE_ERANGE)
    M2SED_LOG(loop->log, WARN, "user vector out of the range of its type: the one before stays",
              M2SED_B("user", request->user, request->user_size));
  else if (code) /* room was checked before: only memory is left */
    m2sed_loop_fail(loop, code, "publishing a user vector: %s", m2se_error_text(code));
  if (code) {
    request->done = true;
    release_requests(loop);
  }
}

/* ---- the record ---- */

static struct m2sed_event *add_event(struct m2sed_loop *loop, const struct m2se_kafka_record *record,
                                     const struct m2sed_partition *partition) {
  assert(loop->events_end - loop->events_first < loop->events_capacity);
  struct m2sed_event *event = &loop->events[loop->events_end++ & (loop->events_capacity - 1)];
  *event = (struct m2sed_event){.loop = loop, .produced_ms = record->timestamp_ms};
  event->message.kind = M2SED_TRAIN_EVENT;
  event->message.at =
      (struct m2sed_position){record->partition, m2sed_position_make(partition->epoch, record->offset)};
  event->message.digest = digest_of(record);
  return event;
}

static void refuse_event(struct m2sed_loop *loop, struct m2sed_event *event,
                         const struct m2se_kafka_record *record, const char *stage, const char *rule,
                         const char *reason) {
  if (event->again) {
    event_done(event, M2SED_DEAD_LETTER);
    return;
  }
  loop->counts.dead_lettered++;
  m2sed_letters_send(loop, record, event, stage, rule, reason);
}

/* The arena's memory is good until the next record: what outlives it is copied into the event. */
static void fill_event(struct m2sed_event *event, const struct m2se_interaction *interaction) {
  event->message.event_time_ms = interaction->event_time_ms;
  event->message.user_hash = XXH3_64bits(interaction->user_id.data, interaction->user_id.size);
  event->user_size = (uint8_t)interaction->user_id.size;
  memcpy(event->user, interaction->user_id.data, interaction->user_id.size);
  event->event_id_size = (uint8_t)interaction->event_id.size;
  memcpy(event->event_id, interaction->event_id.data, interaction->event_id.size);
}

/* Was it garbage? If most is, nothing more is taken until somebody has looked. */
static void watch_garbage(struct m2sed_loop *loop, bool bad) {
  if (!m2sed_garbage_count(&loop->garbage, bad))
    return;
  M2SED_LOG(loop->log, ERROR,
            "most of what comes is garbage: consumption pauses; SIGHUP or a restart makes it go on",
            M2SED_U("dead_letters", loop->garbage.bad_count), M2SED_U("of_the_last", loop->garbage.window));
  if (loop->options.until_end) /* nobody is there to say so */
    m2sed_loop_fail(loop, M2SE_EFORMAT, "%u of the last %u interactions were garbage (kafka.garbage_share)",
                    loop->garbage.bad_count, loop->garbage.window);
}

void m2sed_loop_take_event(struct m2sed_loop *loop, const struct m2se_kafka_record *record) {
  struct m2sed_partition *partition = m2sed_positions_find(loop->positions, record->partition);
  assert(partition && partition->started);
  if (record->offset >= partition->until)
    return; /* came after the start: not ours to take with --until-end */
  struct m2sed_event *event = add_event(loop, record, partition);
  partition->next_offset = record->offset + 1;
  event->again = record->offset < partition->rewound_until;
  event->produced_ms = event->again ? -1 : record->timestamp_ms; /* how old it is says nothing of us */
  loop->counts.received += !event->again;
  m2sed_freshness_add(&loop->freshness, M2SED_STAGE_CONSUMED, loop->now_ms, event->produced_ms);

  struct m2se_interaction interaction;
  struct m2se_refusal refusal;
  bool bad = m2se_interaction_decode(&interaction, &loop->interaction_arena, record->value,
                                     record->value_size, record->timestamp_ms, &refusal) != 0;
  if (!event->again)
    watch_garbage(loop, bad);
  if (bad) {
    loop->counts.refused[refusal.rule] += !event->again;
    refuse_event(loop, event, record, "decode", m2se_rule_name(refusal.rule), refusal.text);
    return;
  }
  fill_event(event, &interaction);
  if (m2sed_erasures_cover(m2sed_positions_erasures(loop->positions), event->message.user_hash,
                           record->timestamp_ms)) {
    event_done(event, M2SED_ERASED);
    return;
  }
  event->message.item = m2sed_loop_slot(loop, interaction.item_id.data, (uint32_t)interaction.item_id.size);
  if (event->message.item == M2SED_SLOT_NONE) {
    refuse_event(loop, event, record, "catalogue", "items_max", "the catalogue is full (model.items_max)");
    return;
  }
  if (event->message.event_time_ms > loop->newest_event_ms)
    loop->newest_event_ms = event->message.event_time_ms;
  m2sed_status_count_user(loop, event->message.user_hash);

  const struct m2se_sequence_event call = {.user_id = event->user,
                                           .user_id_size = event->user_size,
                                           .item_id = interaction.item_id.data,
                                           .item_id_size = (uint32_t)interaction.item_id.size,
                                           .partition = event->message.at.partition,
                                           .position = event->message.at.position,
                                           .event_time_ms = event->message.event_time_ms,
                                           .has_event_hash = event->event_id_size > 0,
                                           .event_hash = XXH3_64bits(event->event_id, event->event_id_size),
                                           .durable_position = durable_position(loop, partition)};
  int code = m2se_sequencer_apply(loop->sequencer, &call, on_sequence, event);
  if (code) /* room was checked before: only memory is left. What follows is not taken, so that no gap arises.
             */
    m2sed_loop_fail(loop, code, "applying an event: %s", m2se_error_text(code));
}
