/* Checkpoints: the trainer's snapshot, written by a thread of libuv's pool, then the log may forget what it
 * covers. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "daemon/loop_state.h"

struct m2sed_checkpointer {
  uv_work_t work;
  bool writing;
  bool asked;                              /* the trainer owes a snapshot */
  int64_t due_ms;                          /* when the next one is asked for */
  struct m2sed_checkpoint_state *snapshot; /* being written */
  struct m2sed_checkpoint_state *next;     /* came meanwhile */
  char *next_data;

  /* Of the one being written. The thread reads and fills these and touches nothing else of ours. */
  const char *dir;
  struct m2sed_checkpoint_info info;
  char *loop_data;
  uint64_t generation, bytes, begun_ns, took_ns;
  uint64_t loaded, first; /* generations: before this process, and its own first; 0: none */
  int code;
  struct m2se_error error;
  struct m2sed_position *oldest; /* positions of the oldest generation that is left */
  uint32_t oldest_count;

  /* Of the newest good one. */
  struct m2se_status_checkpoint done;
  int64_t done_ms;
  char last_error[512];
};

int m2sed_checkpointer_new(struct m2sed_loop *loop) {
  loop->checkpointer = calloc(1, sizeof *loop->checkpointer);
  if (!loop->checkpointer)
    return M2SE_ENOMEM;
  loop->checkpointer->due_ms = loop->now_ms + (int64_t)loop->config->checkpoint_every_seconds * 1000;
  if (loop->restored) {
    loop->checkpointer->loaded = loop->checkpointer->done.generation = loop->restored->generation;
    loop->checkpointer->done.step = loop->restored->step;
    loop->checkpointer->done_ms = loop->now_ms;
  }
  return 0;
}

void m2sed_checkpointer_free(struct m2sed_loop *loop) {
  if (!loop->checkpointer)
    return;
  assert(!loop->checkpointer->writing);
  free(loop->checkpointer);
}

void m2sed_checkpointer_ask(struct m2sed_loop *loop) {
  struct m2sed_checkpointer *checkpointer = loop->checkpointer;
  if (checkpointer->asked || !loop->engine_started || loop->phase >= M2SED_PHASE_TRAINER)
    return;
  if (m2sed_erasure_deletes(loop)) { /* a moment later */
    checkpointer->due_ms = loop->now_ms;
    return;
  }
  checkpointer->asked = true;
  m2sed_loop_to_trainer(loop, &(struct m2sed_train_message){.kind = M2SED_TRAIN_CHECKPOINT});
}

void m2sed_checkpointer_tick(struct m2sed_loop *loop) {
  struct m2sed_checkpointer *checkpointer = loop->checkpointer;
  if (loop->now_ms < checkpointer->due_ms || checkpointer->writing || m2sed_erasure_deletes(loop))
    return;
  checkpointer->due_ms = loop->now_ms + (int64_t)loop->config->checkpoint_every_seconds * 1000;
  m2sed_checkpointer_ask(loop);
}

bool m2sed_checkpointer_waits(const struct m2sed_loop *loop) {
  return loop->checkpointer->asked;
}

bool m2sed_checkpointer_busy(const struct m2sed_loop *loop) {
  return loop->checkpointer->writing || loop->checkpointer->next;
}

/* ---- in a thread of the pool ---- */

static void write_snapshot(uv_work_t *work) {
  struct m2sed_checkpointer *checkpointer = work->data;
  checkpointer->begun_ns = uv_hrtime();
  checkpointer->code =
      m2sed_checkpoint_write(checkpointer->dir, checkpointer->snapshot, &checkpointer->info,
                             &checkpointer->generation, &checkpointer->bytes, &checkpointer->error);
  checkpointer->took_ns = uv_hrtime() - checkpointer->begun_ns;
  if (checkpointer->code == 0)
    checkpointer->code = m2sed_checkpoint_oldest(checkpointer->dir, &checkpointer->oldest,
                                                 &checkpointer->oldest_count, &checkpointer->error);
}

/* ---- back on the loop ---- */

/* Committed offsets are for those who watch the lag: a restart takes its positions from the checkpoint. */
static void commit(struct m2sed_loop *loop, const struct m2sed_checkpoint_state *snapshot) {
  m2sed_positions_set_durable(loop->positions, snapshot->positions, snapshot->position_count);
  m2sed_positions_set_oldest(loop->positions, loop->checkpointer->oldest, loop->checkpointer->oldest_count);
  for (uint32_t i = 0; i < snapshot->position_count; i++) {
    const struct m2sed_partition *partition =
        m2sed_positions_find(loop->positions, snapshot->positions[i].partition);
    if (!partition || !partition->started ||
        partition->epoch != snapshot->positions[i].position >> M2SED_EPOCH_BITS)
      continue;
    const struct m2se_kafka_offset offset = {.topic = M2SE_KAFKA_INTERACTIONS,
                                             .partition = partition->partition,
                                             .offset = partition->durable_offset};
    m2se_kafka_commit(loop->kafka, &offset, 1);
  }
}

static void note_success(struct m2sed_loop *loop) {
  struct m2sed_checkpointer *checkpointer = loop->checkpointer;
  commit(loop, checkpointer->snapshot);
  loop->counts.checkpoints++;
  checkpointer->done.generation = checkpointer->generation;
  checkpointer->first = checkpointer->first ? checkpointer->first : checkpointer->generation;
  checkpointer->done.step = checkpointer->snapshot->step;
  checkpointer->done.bytes = checkpointer->bytes;
  checkpointer->done.duration_ms = (double)checkpointer->took_ns * 1e-6;
  checkpointer->done_ms = loop->now_ms;
  M2SED_LOG(loop->log, INFO, "checkpoint written", M2SED_U("generation", checkpointer->generation),
            M2SED_U("step", checkpointer->snapshot->step),
            M2SED_U("trained_events", checkpointer->snapshot->counters.trained_events),
            M2SED_U("bytes", checkpointer->bytes), M2SED_R("ms", checkpointer->done.duration_ms));
}

static void note_failure(struct m2sed_loop *loop, bool last) {
  struct m2sed_checkpointer *checkpointer = loop->checkpointer;
  if (checkpointer->code == M2SE_EDROPPED) {
    m2sed_loop_fenced(loop, checkpointer->error.text);
    return;
  }
  loop->counts.checkpoint_failures++;
  memcpy(checkpointer->last_error, checkpointer->error.text, sizeof checkpointer->last_error);
  M2SED_LOG(loop->log, ERROR, "checkpoint failed, the one before stays",
            M2SED_S("why", checkpointer->error.text));
  if (last)
    m2sed_loop_fail(loop, checkpointer->code, "the last checkpoint: %s", checkpointer->error.text);
}

static void begin(struct m2sed_loop *loop, struct m2sed_checkpoint_state *snapshot, char *loop_data);

static void after_write(uv_work_t *work, int status) {
  struct m2sed_checkpointer *checkpointer = work->data;
  struct m2sed_loop *loop = work->loop->data;
  assert(status == 0); /* nobody cancels it */
  checkpointer->writing = false;
  free(checkpointer->loop_data);
  checkpointer->loop_data = NULL;
  if (checkpointer->code == 0)
    note_success(loop);
  else
    note_failure(loop, loop->trainer_stopped && !checkpointer->next);
  free(checkpointer->oldest);
  checkpointer->oldest = NULL;
  m2sed_trainer_return_snapshot(loop->trainer, checkpointer->snapshot);
  checkpointer->snapshot = NULL;
  struct m2sed_checkpoint_state *next = checkpointer->next;
  checkpointer->next = NULL;
  if (next)
    begin(loop, next, checkpointer->next_data);
  m2sed_loop_wake(loop);
}

static void begin(struct m2sed_loop *loop, struct m2sed_checkpoint_state *snapshot, char *loop_data) {
  struct m2sed_checkpointer *checkpointer = loop->checkpointer;
  checkpointer->loop_data = loop_data;
  checkpointer->snapshot = snapshot;
  checkpointer->dir = loop->config->checkpoint_dir;
  checkpointer->info = (struct m2sed_checkpoint_info){.lineage = loop->lineage,
                                                      .topic = loop->config->kafka_interactions,
                                                      .created_ms = loop->now_ms,
                                                      .loop_data = (const uint8_t *)checkpointer->loop_data,
                                                      .loop_bytes = strlen(checkpointer->loop_data),
                                                      .keep = (uint32_t)loop->config->checkpoint_keep,
                                                      .loaded = checkpointer->loaded,
                                                      .first = checkpointer->first,
                                                      .fence = loop->fence};
  checkpointer->work.data = checkpointer;
  checkpointer->writing = true;
  int code = uv_queue_work(m2sed_loop_uv(loop), &checkpointer->work, write_snapshot, after_write);
  assert(code == 0);
}

void m2sed_checkpointer_take(struct m2sed_loop *loop, struct m2sed_checkpoint_state *snapshot,
                             double stall_ms) {
  struct m2sed_checkpointer *checkpointer = loop->checkpointer;
  checkpointer->done.stall_ms = stall_ms;
  checkpointer->asked = false;
  m2sed_marker_move(loop);     /* Redis is not behind the checkpoint */
  assert(!checkpointer->next); /* the trainer has two: one is being written, one may wait */
  /* Now, not when it is written: what is done of the erasures is what the snapshot has (loop_erasure.c). */
  char *loop_data = m2sed_positions_encode(loop->positions);
  if (!loop_data) {
    m2sed_trainer_return_snapshot(loop->trainer, snapshot);
    m2sed_loop_fail(loop, M2SE_ENOMEM, "a checkpoint: out of memory");
  } else if (checkpointer->writing) {
    checkpointer->next = snapshot;
    checkpointer->next_data = loop_data;
  } else {
    begin(loop, snapshot, loop_data);
  }
}

void m2sed_checkpointer_status(const struct m2sed_loop *loop, struct m2se_status_checkpoint *status) {
  const struct m2sed_checkpointer *checkpointer = loop->checkpointer;
  if (!checkpointer)
    return;
  *status = checkpointer->done;
  status->age_seconds = checkpointer->done_ms ? (double)(loop->now_ms - checkpointer->done_ms) / 1000 : 0;
  status->written = loop->counts.checkpoints;
  status->failures = loop->counts.checkpoint_failures;
  status->last_error = checkpointer->last_error;
}
