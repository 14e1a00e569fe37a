#include "daemon/evaluate.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "model/kernels/kernels.h"

struct m2sed_evaluation {
  const struct m2se_kernels *kernels;
  uint32_t items_max, dim;
  uint32_t *events; /* [items_max]: so far, per item */
  struct m2sed_prequential sums;
};

int m2sed_evaluation_new(struct m2sed_evaluation **evaluation, uint32_t items_max, uint32_t dim,
                         struct m2se_error *error) {
  *evaluation = calloc(1, sizeof **evaluation);
  if (*evaluation != NULL) {
    (*evaluation)->events = calloc(items_max, sizeof(uint32_t));
  }
  if (*evaluation == NULL || (*evaluation)->events == NULL) {
    m2sed_evaluation_free(*evaluation);
    *evaluation = NULL;
    return m2se_error_set(error, M2SE_ENOMEM, "the evaluation of %u items", items_max);
  }
  (*evaluation)->kernels = m2se_kernels_best();
  (*evaluation)->items_max = items_max;
  (*evaluation)->dim = dim;
  return 0;
}

void m2sed_evaluation_free(struct m2sed_evaluation *evaluation) {
  if (evaluation != NULL) {
    free(evaluation->events);
    free(evaluation);
  }
}

/* How many candidates score higher than the target, and how many the same, itself included. */
struct standing {
  uint32_t higher, same;
};

static double standing_rank(struct standing standing) {
  assert(standing.same >= 1);
  return 1 + standing.higher + (standing.same - 1) / 2.0;
}

static double hit(double rank) {
  return rank <= 10 ? 1 : 0;
}

static double gain(double rank) {
  return rank <= 10 ? 1 / log2(1 + rank) : 0;
}

/* ---- the model ---- */

static void rank_vectors(const struct m2sed_evaluation *evaluation, const struct m2sed_judged_event *events,
                         uint32_t count, const float *vectors, const bool *candidate, uint32_t slots,
                         const float *target_scores, struct standing *standings) {
  uint32_t dim = evaluation->dim;
  for (uint32_t slot = 0; slot < slots; slot++) {
    if (!candidate[slot]) {
      continue;
    }
    const float *vector = vectors + (size_t)slot * dim;
    for (uint32_t i = 0; i < count; i++) {
      if (events[i].user == NULL) {
        continue;
      }
      float score = evaluation->kernels->dot(events[i].user, vector, dim);
      standings[i].higher += score > target_scores[i];
      standings[i].same += score == target_scores[i];
    }
  }
}

/* ---- both ---- */

static bool context_repeats(const struct m2sed_judged_event *event, uint32_t place) {
  for (uint32_t i = 0; i < place; i++) {
    if (event->context[i] == event->context[place]) {
      return true;
    }
  }
  return false;
}

/* Takes the items of the context out of both standings. False: the target is one of them. */
static bool leave_out_context(const struct m2sed_evaluation *evaluation,
                              const struct m2sed_judged_event *event, const float *vectors,
                              const bool *candidate, float target_score, struct standing *model,
                              struct standing *popularity) {
  for (uint32_t i = 0; i < event->context_count; i++) {
    uint32_t slot = event->context[i];
    if (slot == event->target) {
      return false;
    }
    if (!candidate[slot] || context_repeats(event, i)) {
      continue;
    }
    float score =
        evaluation->kernels->dot(event->user, vectors + (size_t)slot * evaluation->dim, evaluation->dim);
    model->higher -= score > target_score;
    model->same -= score == target_score;
    popularity->higher -= evaluation->events[slot] > evaluation->events[event->target];
    popularity->same -= evaluation->events[slot] == evaluation->events[event->target];
  }
  return true;
}

static struct standing rank_popularity(const struct m2sed_evaluation *evaluation, uint32_t target,
                                       const bool *candidate, uint32_t slots) {
  const uint32_t *events = evaluation->events;
  uint32_t own = events[target], higher = 0, same = 0;
  for (uint32_t slot = 0; slot < slots; slot++) {
    higher += candidate[slot] & (events[slot] > own);
    same += candidate[slot] & (events[slot] == own);
  }
  return (struct standing){higher, same};
}

static void add_ranks(struct m2sed_evaluation *evaluation, const struct m2sed_judged_event *event,
                      const float *vectors, const bool *candidate, uint32_t slots, float target_score,
                      struct standing model) {
  struct m2sed_prequential *sums = &evaluation->sums;
  struct standing popularity = rank_popularity(evaluation, event->target, candidate, slots);
  double rank = standing_rank(model), popularity_rank = standing_rank(popularity);
  sums->events++;
  sums->hr10 += hit(rank);
  sums->ndcg10 += gain(rank);
  sums->mrr += 1 / rank;
  sums->popularity_hr10 += hit(popularity_rank);
  sums->popularity_ndcg10 += gain(popularity_rank);
  sums->popularity_mrr += 1 / popularity_rank;
  if (leave_out_context(evaluation, event, vectors, candidate, target_score, &model, &popularity)) {
    sums->hr10_unseen += hit(standing_rank(model));
    sums->ndcg10_unseen += gain(standing_rank(model));
    sums->popularity_hr10_unseen += hit(standing_rank(popularity));
    sums->popularity_ndcg10_unseen += gain(standing_rank(popularity));
  }
}

void m2sed_evaluation_judge(struct m2sed_evaluation *evaluation, const struct m2sed_judged_event *events,
                            uint32_t count, const float *vectors, const bool *candidate, uint32_t slots) {
  float target_scores[M2SED_JUDGED_MAX] = {0};
  struct standing standings[M2SED_JUDGED_MAX] = {0};
  uint32_t judged = 0;
  assert(count <= M2SED_JUDGED_MAX && slots <= evaluation->items_max);
  for (uint32_t i = 0; i < count; i++) {
    assert(events[i].target < evaluation->items_max);
    if (events[i].user != NULL) {
      assert(events[i].target < slots && candidate[events[i].target]);
      /* By the same function as the others' scores, so that the target is the same as itself. */
      const float *vector = vectors + (size_t)events[i].target * evaluation->dim;
      target_scores[i] = evaluation->kernels->dot(events[i].user, vector, evaluation->dim);
      judged++;
    }
  }
  if (judged > 0) {
    rank_vectors(evaluation, events, count, vectors, candidate, slots, target_scores, standings);
  }
  for (uint32_t i = 0; i < count; i++) {
    if (events[i].user != NULL) {
      add_ranks(evaluation, &events[i], vectors, candidate, slots, target_scores[i], standings[i]);
    }
    evaluation->events[events[i].target]++;
  }
}

const struct m2sed_prequential *m2sed_evaluation_sums(const struct m2sed_evaluation *evaluation) {
  return &evaluation->sums;
}
