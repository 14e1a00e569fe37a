#include "daemon/server_recommend.h"

#include <assert.h>
#include <stdlib.h>

#include "model/kernels/kernels.h"

enum { SLICE_FLOATS = 1 << 20 }; /* read at a time, about 4 MiB: some tenths of a millisecond */

int m2sed_recommender_init(struct m2sed_recommender *recommender, uint32_t dim) {
  *recommender = (struct m2sed_recommender){.vector = calloc(dim, sizeof(float))};
  return recommender->vector ? 0 : M2SE_ENOMEM;
}

void m2sed_recommender_deinit(struct m2sed_recommender *recommender) {
  free(recommender->vector);
}

void m2sed_recommender_add(struct m2sed_recommender *recommender, struct m2sed_ranking *ranking) {
  assert(recommender->count < M2SED_RANKINGS_MAX);
  assert(ranking->wanted >= 1 && ranking->wanted <= M2SED_RANKING_MAX);
  assert(ranking->sequence_count <= M2SED_CONTEXT_MAX && ranking->seen_count <= M2SED_SEEN_MAX);
  ranking->count = 0;
  ranking->epoch = ranking->step = 0;
  recommender->waiting[(recommender->first + recommender->count++) % M2SED_RANKINGS_MAX] = ranking;
}

/* The user's vector. false: no item of the sequence has a state. */
static bool begin(struct m2sed_recommender *recommender, const struct m2sed_table *table,
                  const struct m2sed_catalogue_view *view, struct m2sed_ranking *ranking) {
  uint32_t items[M2SED_CONTEXT_MAX], span[2] = {0, 0};
  for (uint32_t i = 0; i < ranking->sequence_count; i++) {
    assert(ranking->sequence[i] < view->items_max);
    if (table->encoded[ranking->sequence[i]])
      items[span[1]++] = ranking->sequence[i];
  }
  recommender->begun = true;
  recommender->epoch = ranking->epoch = table->epoch;
  recommender->next_slot = 0;
  ranking->step = table->step;
  ranking->count = 0;
  if (span[1] == 0)
    return false;
  m2se_server_users(view->encoder, table->copy->weights, table->states, span, items, 1, recommender->vector);
  return m2sed_vector_finite(recommender->vector, view->dim);
}

static bool is_seen(const struct m2sed_ranking *ranking, uint32_t slot) {
  for (uint32_t i = 0; i < ranking->seen_count; i++)
    if (ranking->seen[i] == slot)
      return true;
  return false;
}

/* Slots come in rising order, so that of equal scores the lower slot stays in front. */
static void consider(struct m2sed_ranking *ranking, uint32_t slot, float score) {
  bool full = ranking->count == ranking->wanted;
  if ((full && !(score > ranking->scores[ranking->count - 1])) || is_seen(ranking, slot))
    return;
  uint32_t at = full ? ranking->count - 1 : ranking->count++;
  for (; at > 0 && score > ranking->scores[at - 1]; at--) {
    ranking->scores[at] = ranking->scores[at - 1];
    ranking->slots[at] = ranking->slots[at - 1];
  }
  ranking->scores[at] = score;
  ranking->slots[at] = slot;
}

static void rank_slice(struct m2sed_recommender *recommender, const struct m2sed_table *table,
                       const struct m2sed_catalogue_view *view, struct m2sed_ranking *ranking) {
  const struct m2se_kernels *kernels = m2se_kernels_best();
  uint32_t slice = SLICE_FLOATS / view->dim, left = view->slots - recommender->next_slot;
  uint32_t end = recommender->next_slot + (left < slice ? left : slice);
  for (uint32_t slot = recommender->next_slot; slot < end; slot++)
    if (table->encoded[slot])
      consider(ranking, slot,
               kernels->dot(recommender->vector, table->vectors + (size_t)slot * view->dim, view->dim));
  recommender->next_slot = end;
}

bool m2sed_recommender_work(struct m2sed_recommender *recommender, const struct m2sed_table *table,
                            const struct m2sed_catalogue_view *view, struct m2sed_ranking **done) {
  *done = NULL;
  if (recommender->count == 0)
    return false;
  struct m2sed_ranking *ranking = recommender->waiting[recommender->first];
  bool possible = table->copy != NULL;
  assert(!possible || table->vectors);
  if (possible && (!recommender->begun || recommender->epoch != table->epoch))
    possible = begin(recommender, table, view, ranking);
  if (possible)
    rank_slice(recommender, table, view, ranking);
  if (possible && recommender->next_slot < view->slots)
    return true;
  recommender->begun = false;
  recommender->first = (recommender->first + 1) % M2SED_RANKINGS_MAX;
  recommender->count--;
  *done = ranking;
  return true;
}
