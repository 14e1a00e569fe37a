/* Requests to forget a user, one at a time, each in its own moment: nothing new is taken, what is under way
 * comes to its end (so that no answer of Redis or of the server brings anything of the user back), sequence
 * and vector go from Redis, then the trainer hears of it, behind every event that was taken before.
 *
 * A checkpoint has the request if and only if the trainer's snapshot has: none is finished between the moment
 * the snapshot was asked for and the moment it came, when the loop's part is written down. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "daemon/loop_state.h"

enum state {
  NONE,
  TAKEN,    /* waits for its moment */
  DELETING, /* Redis has not answered */
  DELETED,  /* the trainer is to hear of it */
  REFUSED   /* its dead letter is under way */
};

struct m2sed_erasure {
  enum state state;
  int32_t partition;
  int64_t offset, until_ms;
  uint32_t user_size;
  char user[M2SE_ID_BYTES_MAX + 1];
};

int m2sed_erasure_new(struct m2sed_loop *loop) {
  loop->erasure = calloc(1, sizeof *loop->erasure);
  return loop->erasure ? 0 : M2SE_ENOMEM;
}

void m2sed_erasure_free(struct m2sed_loop *loop) {
  free(loop->erasure);
}

bool m2sed_erasure_busy(const struct m2sed_loop *loop) {
  return loop->erasure->state != NONE;
}

bool m2sed_erasure_deletes(const struct m2sed_loop *loop) {
  return loop->erasure->state == DELETING || loop->erasure->state == DELETED;
}

/* One that is taken waits for a snapshot that was asked for; consumption does not wait with it. */
bool m2sed_erasure_blocks(const struct m2sed_loop *loop) {
  return loop->phase == M2SED_PHASE_RUNNING &&
         (m2sed_erasure_deletes(loop) || (loop->erasure->state == TAKEN && !m2sed_checkpointer_waits(loop)));
}

int64_t m2sed_erasure_start(struct m2sed_loop *loop, const struct m2se_kafka_start *at) {
  if (at->partition >= M2SED_ERASURES_PARTITIONS_MAX) {
    M2SED_LOG(loop->log, ERROR, "the topic has too many partitions, this one is not read",
              M2SED_S("topic", loop->config->kafka_erasures), M2SED_I("partition", at->partition));
    return M2SE_KAFKA_HOLD;
  }
  uint64_t lost;
  int64_t offset = m2sed_erasures_begin(m2sed_positions_erasures(loop->positions), at->partition, at->low,
                                        at->high, &lost);
  if (lost)
    M2SED_LOG(loop->log, ERROR, "requests to forget users were removed by retention before they were read",
              M2SED_I("partition", at->partition), M2SED_U("lost", lost));
  M2SED_LOG(loop->log, INFO, "partition starts", M2SED_S("topic", loop->config->kafka_erasures),
            M2SED_I("partition", at->partition), M2SED_I("offset", offset), M2SED_I("end", at->high));
  return offset;
}

void m2sed_erasure_take(struct m2sed_loop *loop, const struct m2se_kafka_record *record) {
  struct m2sed_erasure *erasure = loop->erasure;
  assert(erasure->state == NONE);
  struct m2se_refusal refusal;
  erasure->partition = record->partition;
  erasure->offset = record->offset;
  erasure->until_ms = record->timestamp_ms > 0 ? record->timestamp_ms : loop->now_ms;
  m2se_kafka_pause(loop->kafka, M2SE_KAFKA_ERASURES, -1);
  if (m2se_validate_id(record->key, record->key_size, "key of a request to forget", &refusal)) {
    loop->counts.refused[refusal.rule]++;
    erasure->state = REFUSED;
    m2sed_letters_send(loop, record, NULL, "decode", m2se_rule_name(refusal.rule), refusal.text);
    return;
  }
  erasure->user_size = (uint32_t)record->key_size;
  memcpy(erasure->user, record->key, record->key_size);
  erasure->state = TAKEN;
}

/* Nothing is under way that could write to Redis or go to the trainer later. */
static bool is_quiet(const struct m2sed_loop *loop) {
  return loop->events_first == loop->events_end && loop->requests_first == loop->requests_end &&
         !m2sed_sweep_reads(loop);
}

static void on_erased(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_loop *loop = context;
  (void)reply;
  if (status == M2SE_EIO)
    return; /* closed before an answer: it is read again after the restart */
  if (status)
    M2SED_LOG(loop->log, WARN, "a user could not be forgotten, trying again", M2SED_S("why", error));
  loop->erasure->state = status ? TAKEN : DELETED;
  m2sed_loop_wake(loop);
}

static void delete_user(struct m2sed_loop *loop) {
  struct m2sed_erasure *erasure = loop->erasure;
  erasure->state = DELETING;
  int code = m2se_publish_user_erase(loop->publisher, erasure->user, erasure->user_size, on_erased, loop);
  if (code)
    erasure->state = TAKEN;
  if (code && code != M2SE_ELIMIT)
    m2sed_loop_fail(loop, code, "forgetting a user: %s", m2se_error_text(code));
}

static void finish(struct m2sed_loop *loop) {
  loop->erasure->state = NONE;
  m2se_kafka_resume(loop->kafka, M2SE_KAFKA_ERASURES, -1);
  m2sed_loop_wake(loop);
}

static void forget(struct m2sed_loop *loop) {
  const struct m2sed_erasure *erasure = loop->erasure;
  uint64_t user_hash = XXH3_64bits(erasure->user, erasure->user_size);
  m2sed_loop_to_trainer(loop,
                        &(struct m2sed_train_message){.kind = M2SED_TRAIN_FORGET, .user_hash = user_hash});
  m2sed_erasures_done(m2sed_positions_erasures(loop->positions), erasure->partition, erasure->offset,
                      user_hash, erasure->until_ms);
  loop->counts.erasures++;
  m2sed_marker_move(loop); /* older data of Redis is noticed from here on */
  M2SED_LOG(loop->log, INFO, "user forgotten", M2SED_I("partition", erasure->partition),
            M2SED_I("offset", erasure->offset)); /* and the log does not say who */
  finish(loop);
}

void m2sed_erasure_advance(struct m2sed_loop *loop) {
  struct m2sed_erasure *erasure = loop->erasure;
  bool may = loop->phase == M2SED_PHASE_RUNNING && !loop->failure && !m2sed_checkpointer_waits(loop);
  if (erasure->state == TAKEN && may && is_quiet(loop)) {
    delete_user(loop);
  } else if (erasure->state == DELETED && may) {
    forget(loop);
  } else if (erasure->state == REFUSED && m2sed_letters_open(loop) == 0 && may) {
    m2sed_erasures_pass(m2sed_positions_erasures(loop->positions), erasure->partition, erasure->offset);
    finish(loop);
  }
}
