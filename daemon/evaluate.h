/* Prequential evaluation: before an event counts, where did the model, and where did plain popularity, rank
 * its item?
 *
 * DESIGN. Candidates are all items that have a vector. The rank of the target is 1 + how many score higher +
 * half of the others that score the same. HR@10: rank <= 10. NDCG@10: 1 / log2(1 + rank) if rank <= 10. MRR:
 * 1 / rank. "unseen": the items of the context are no candidates; if the target is among them, the event
 * counts as missed. Popularity is the number of events so far. Both are judged on the same events and
 * candidates. One thread at a time.
 */
#ifndef M2SED_EVALUATE_H
#define M2SED_EVALUATE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/messages.h"
#include "model/m2se.h"

struct m2sed_evaluation;

int m2sed_evaluation_new(struct m2sed_evaluation **evaluation, uint32_t items_max, uint32_t dim,
                         struct m2se_error *error);
void m2sed_evaluation_free(struct m2sed_evaluation *evaluation);

/* An event to be judged, or only counted. */
struct m2sed_judged_event {
  const float *user; /* [dim]: vector of the context; NULL: not judged */
  uint32_t target;   /* if judged, a candidate */
  uint32_t context_count;
  const uint32_t *context; /* slots */
};
/* Ranks `count` events (at most M2SED_JUDGED_MAX; together because reading the items' vectors costs more than
 * using them) with vectors [slots, dim] where candidate[slot]. Each one counts for popularity once it and
 * those before it have been ranked, judged or not: the numbers do not depend on how events are put together.
 */
enum { M2SED_JUDGED_MAX = 64 };
void m2sed_evaluation_judge(struct m2sed_evaluation *evaluation, const struct m2sed_judged_event *events,
                            uint32_t count, const float *vectors, const bool *candidate, uint32_t slots);
const struct m2sed_prequential *m2sed_evaluation_sums(const struct m2sed_evaluation *evaluation);

#endif
