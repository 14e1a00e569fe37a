/* The weights on disk: model.safetensors and optimizer.safetensors (model/README.md has the tensors).
 *
 * model.safetensors opens in Python's safetensors and PyTorch as it is. optimizer.safetensors holds Adam's
 * moments under m.NAME and v.NAME, the item table (items.residual [slots, 2h], items.bias [slots], their
 * moments likewise, items.updates U32 [slots]) and in its metadata the step and the slots. Nothing
 * half-loaded: a file that fails leaves the learner as it was. Errors name the file, the tensor or metadata
 * key, and the rule. Blocks on the disk: not for the loop thread.
 */
#ifndef M2SE_FILES_H
#define M2SE_FILES_H

#include "model/m2se.h"

/* A consistent copy of all that a learner's files hold, so that writing can go on while training does. */
struct m2se_snapshot;
int m2se_snapshot_new(struct m2se_snapshot **snapshot, const struct m2se_config *config, uint32_t catalogue,
                      struct m2se_error *error);
void m2se_snapshot_free(struct m2se_snapshot *snapshot);
/* Copies; slots: rows of the item table in use. Training thread. */
void m2se_snapshot_take(struct m2se_snapshot *snapshot, const struct m2se_learner *learner, uint32_t slots);
/* The other way: the learner is what it was then, but for its step number, which goes on so that no draw is
 * made twice. Rows of the item table that came into use since start again from zero. Same shape, residuals
 * and biases; training thread. */
void m2se_snapshot_restore(const struct m2se_snapshot *snapshot, struct m2se_learner *learner);
bool m2se_snapshot_finite(const struct m2se_snapshot *snapshot);
uint64_t m2se_snapshot_step(const struct m2se_snapshot *snapshot);

/* Each writes one file and fsyncs it. Any thread. */
int m2se_snapshot_write_model(const struct m2se_snapshot *snapshot, const char *path,
                              struct m2se_error *error);
int m2se_snapshot_write_optimizer(const struct m2se_snapshot *snapshot, const char *path,
                                  struct m2se_error *error);

/* The shape, tau, lambda and dropout that a weights file states in its metadata; the rest of config is left
 * alone, after an error all of it. */
int m2se_model_read_config(const char *path, struct m2se_config *config, struct m2se_error *error);
/* Weights only (optimizer_path NULL: moments and item table zero, step 0) or both, which must be of one step.
 * The shape must be the learner's, residuals and biases on or off as there; float32 only, nothing missing,
 * nothing besides. *slots: rows of the item table that came, at most the learner's catalogue. */
int m2se_learner_load(struct m2se_learner *learner, const char *model_path, const char *optimizer_path,
                      uint32_t *slots, struct m2se_error *error);

#endif
