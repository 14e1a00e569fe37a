#include "daemon/server_judge.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE = 256, SLICE = 4 };

struct queued_event {
  uint32_t target, context_count;
  uint32_t context[M2SED_CONTEXT_MAX];
};

struct m2sed_judge {
  struct m2sed_evaluation *evaluation;
  struct queued_event events[QUEUE]; /* a circle */
  uint32_t first, count;
  uint32_t seq_ptr[SLICE + 1];
  uint32_t seq_items[SLICE * M2SED_CONTEXT_MAX];
  float *vectors; /* [SLICE, dim] */
};

int m2sed_judge_new(struct m2sed_judge **judge, const struct m2sed_catalogue_view *view,
                    struct m2se_error *error) {
  *judge = NULL;
  struct m2sed_judge *j = calloc(1, sizeof *j);
  if (j == NULL) {
    return m2se_error_set(error, M2SE_ENOMEM, "the evaluation");
  }
  int code = m2sed_evaluation_new(&j->evaluation, view->items_max, view->dim, error);
  j->vectors = code == 0 ? calloc((size_t)SLICE * view->dim, sizeof(float)) : NULL;
  if (code == 0 && j->vectors == NULL) {
    code = m2se_error_set(error, M2SE_ENOMEM, "the evaluation");
  }
  if (code < 0) {
    m2sed_judge_free(j);
    return code;
  }
  *judge = j;
  return 0;
}

void m2sed_judge_free(struct m2sed_judge *judge) {
  if (judge != NULL) {
    m2sed_evaluation_free(judge->evaluation);
    free(judge->vectors);
    free(judge);
  }
}

/* Packs the known items of the context; returns how many, 0: the event cannot be judged. */
static uint32_t pack_context(struct m2sed_judge *judge, const struct m2sed_table *table, uint32_t row,
                             const struct queued_event *event) {
  uint32_t position = judge->seq_ptr[row];
  if (table->copy != NULL && table->encoded[event->target]) {
    for (uint32_t i = 0; i < event->context_count; i++) {
      if (table->encoded[event->context[i]]) {
        judge->seq_items[position++] = event->context[i];
      }
    }
  }
  judge->seq_ptr[row + 1] = position;
  return position - judge->seq_ptr[row];
}

/* The `count` oldest: they are ranked, or (rank = false) only counted. Returns how many could be ranked. */
static uint32_t settle(struct m2sed_judge *judge, const struct m2sed_table *table,
                       const struct m2sed_catalogue_view *view, uint32_t count, bool rank) {
  struct m2sed_judged_event events[SLICE];
  uint32_t rows = 0;
  assert(count <= SLICE && count <= judge->count);
  for (uint32_t i = 0; i < count; i++) {
    const struct queued_event *queued = &judge->events[(judge->first + i) % QUEUE];
    events[i] = (struct m2sed_judged_event){
        .target = queued->target, .context_count = queued->context_count, .context = queued->context};
    if (pack_context(judge, table, rows, queued) > 0) {
      events[i].user = rank ? judge->vectors + (size_t)rows * view->dim : NULL;
      rows++;
    }
  }
  if (rank && rows > 0) {
    m2se_server_users(view->encoder, table->copy->weights, table->states, judge->seq_ptr, judge->seq_items,
                      rows, judge->vectors);
  }
  m2sed_evaluation_judge(judge->evaluation, events, count, table->vectors, table->encoded, view->slots);
  judge->first = (judge->first + count) % QUEUE;
  judge->count -= count;
  return rows;
}

bool m2sed_judge_add(struct m2sed_judge *judge, const struct m2sed_table *table,
                     const struct m2sed_catalogue_view *view, const struct m2sed_serve_message *message) {
  assert(message->target < view->items_max && message->context_count <= M2SED_CONTEXT_MAX);
  bool left_out = judge->count == QUEUE && settle(judge, table, view, 1, false) > 0;
  struct queued_event *event = &judge->events[(judge->first + judge->count++) % QUEUE];
  event->target = message->target;
  event->context_count = message->context_count;
  memcpy(event->context, message->context, message->context_count * sizeof event->context[0]);
  return left_out;
}

bool m2sed_judge_work(struct m2sed_judge *judge, const struct m2sed_table *table,
                      const struct m2sed_catalogue_view *view) {
  uint32_t count = judge->count < SLICE ? judge->count : SLICE;
  settle(judge, table, view, count, true);
  return count > 0;
}

const struct m2sed_prequential *m2sed_judge_sums(const struct m2sed_judge *judge) {
  return m2sed_evaluation_sums(judge->evaluation);
}
