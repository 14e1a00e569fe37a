/* What model.safetensors and optimizer.safetensors hold: one list for writing and for reading.
 *
 * DESIGN. A list names each tensor of a file and points to where it stands in memory: in a snapshot, which is
 * written, or in a learner, which is read into. metadata: model.safetensors has the shape, tau, lambda,
 * dropout and the step; optimizer.safetensors the step and the number of item slots.
 */
#ifndef M2SE_MODEL_FILE_H
#define M2SE_MODEL_FILE_H

#include "model/files/safetensors.h"
#include "model/network/learner.h"

/* Both files' contents in memory. */
struct m2se_learned {
  const struct m2se_config *config;
  const struct m2se_tensor_list *list;
  m2se_real *flat, *adam_m, *adam_v;
  struct m2se_item_table table;
  uint32_t slots; /* rows of the table in use */
  uint64_t step;
};

/* Where a learner has them. */
struct m2se_learned m2se_learned_of(const struct m2se_learner *learner, uint32_t slots);

enum {
  M2SE_FILE_TENSORS_MAX = 2 * M2SE_PARAMETERS_MAX + 7,
  M2SE_FILE_METADATA_MAX = 16,
};

struct m2se_file_list {
  uint32_t tensor_count, metadata_count;
  struct m2se_tensor tensors[M2SE_FILE_TENSORS_MAX];
  char names[M2SE_FILE_TENSORS_MAX][64];
  struct m2se_metadata metadata[M2SE_FILE_METADATA_MAX];
  char values[M2SE_FILE_METADATA_MAX][32];
};

void m2se_file_list_model(struct m2se_file_list *list, const struct m2se_learned *learned);
void m2se_file_list_optimizer(struct m2se_file_list *list, const struct m2se_learned *learned);

#endif
