/* For tests of checkpoints: a directory that goes with the test, and a small state with every field in use.
 */
#ifndef CHECKPOINT_RIG_H
#define CHECKPOINT_RIG_H

#include "daemon/checkpoint.h"

enum { RIG_ITEMS = 4, RIG_POSITIONS = 3, RIG_WAITING = 2, RIG_RESERVOIR = 3, RIG_REFUSED_MAX = 16 };

struct checkpoint_rig {
  char dir[64];
  struct m2se_learner *learner;
  struct m2sed_checkpoint_state state;
  struct m2sed_checkpoint_info info;
  struct m2sed_position positions[RIG_POSITIONS];
  struct m2sed_example waiting[RIG_WAITING], reservoir[RIG_RESERVOIR];
  struct m2sed_checkpoint_item items[RIG_ITEMS];

  /* What rig_load was told. */
  uint32_t refused_count;
  uint64_t refused[RIG_REFUSED_MAX];
  char refused_why[512]; /* of the newest */
};

void rig_start(struct checkpoint_rig *rig); /* directory and state */
void rig_stop(struct checkpoint_rig *rig);
/* Trains one step, so that the next generation is another one. */
void rig_advance(struct checkpoint_rig *rig);

/* m2sed_checkpoint_write, which must succeed; returns the generation. */
uint64_t rig_write(struct checkpoint_rig *rig);
/* m2sed_checkpoint_load, noting what was refused; the code. */
int rig_load(struct checkpoint_rig *rig, struct m2sed_checkpoint_state **loaded);

/* DIR/gen-NNNNNNNNNN/FILE (file NULL: the directory), in a static buffer. */
const char *rig_path(const struct checkpoint_rig *rig, uint64_t generation, const char *file);
/* A whole file, NUL-terminated, to be freed. */
char *rig_read(const char *path, size_t *size);
void rig_overwrite(const char *path, const void *bytes, size_t size);
void rig_remove_tree(const char *dir);
uint32_t rig_entries(const char *dir); /* of a directory, without . and .. */

/* Replaces `from`, which must be there, by `to` in the manifest and makes its checksum hold again. */
void rig_edit_manifest(const struct checkpoint_rig *rig, uint64_t generation, const char *from,
                       const char *to);

#endif
