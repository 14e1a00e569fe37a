/* A user asked to be forgotten: what is kept of examples is dropped. What the weights have learned from them
 * stays in the weights. */
#include "daemon/learning_state.h"

static bool is_of_user(void *arg, const struct m2sed_example *example) {
  return example->user_hash == *(const uint64_t *)arg;
}

void m2sed_learning_forget(struct m2sed_learning *learning, uint64_t user_hash) {
  uint32_t dropped = m2sed_batcher_forget(learning->batcher, user_hash);
  dropped += m2sed_parking_release(&learning->parking, is_of_user, &user_hash);
  learning->counters.skipped_erased += dropped;
  m2sed_reservoir_forget(&learning->reservoir, user_hash);
}
