/* A small model and a mini-batch for it, drawn from its seed: items with several rows, with one modality, and
 * sequences of many lengths. Nothing is allocated. */
#ifndef M2SED_TESTS_MODEL_SAMPLE_H
#define M2SED_TESTS_MODEL_SAMPLE_H

#include "model/m2se.h"

enum {
  SAMPLE_ITEMS_MAX = 130, /* more than one block of items */
  SAMPLE_SEQUENCES_MAX = 400,
  SAMPLE_LENGTH_MAX = 12, /* of model_sample_config; another config may have longer ones */
  SAMPLE_D_MAX = 64,
  SAMPLE_ROWS_MAX = 3, /* of an item's modality */
  SAMPLE_POSITIONS_MAX = SAMPLE_SEQUENCES_MAX * SAMPLE_LENGTH_MAX,
};

struct model_sample {
  struct m2se_config config;
  struct m2se_limits limits; /* exactly the mini-batch's */
  struct m2se_batch batch;
  struct m2se_item_input items[SAMPLE_ITEMS_MAX];
  m2se_real rows[2][SAMPLE_ITEMS_MAX * SAMPLE_ROWS_MAX * SAMPLE_D_MAX];
  uint32_t seq_ptr[SAMPLE_SEQUENCES_MAX + 1], seq_items[SAMPLE_POSITIONS_MAX], target[SAMPLE_SEQUENCES_MAX];
};

/* A small shape, no dropout or augmentation; the rest by default. */
struct m2se_config model_sample_config(void);
/* Sequences of every length from length_min to max_len, in turn. */
void model_sample_make(struct model_sample *sample, const struct m2se_config *config, uint32_t items,
                       uint32_t sequences, uint32_t length_min);
/* Fails the test if there is no memory. */
struct m2se_learner *model_sample_learner(const struct model_sample *sample);
/* Every parameter, residual and bias random, so that none of them is without effect. */
void model_sample_shake(struct m2se_learner *learner, uint64_t seed);

#endif
