/* Generations of the daemon's state on disk: DIR/gen-NNNNNNNNNN/, complete or not there at all.
 *
 * DESIGN. A generation is written to DIR/gen-NNNNNNNNNN.tmp.PID, each file fsynced, MANIFEST.json (sizes and
 * XXH3-128 checksums of the others) last; then renamed and the parent fsynced. Loading takes the newest whose
 * sizes and checksums hold, which has no file that we do not know, and whose content makes sense, else the
 * one before. What cannot be written or read is an error with file and errno, and leaves older generations
 * alone. Everything here blocks on the disk: not for the loop thread.
 */
#ifndef M2SED_CHECKPOINT_H
#define M2SED_CHECKPOINT_H

#include "daemon/messages.h"
#include "model/m2se.h"
#include "model/m2se_files.h"

/* An example as it waits, or rests in the reservoir. */
struct m2sed_example {
  uint64_t user_hash;
  uint64_t digest;
  struct m2sed_position at;
  int64_t event_time_ms;
  uint64_t arrival; /* its number among all events taken */
  uint32_t item;
  uint32_t context_count;
  uint8_t closes;                      /* not 0: the last one of its mini-batch, however small that is */
  uint32_t context[M2SED_CONTEXT_MAX]; /* slots, oldest first */
};

struct m2sed_checkpoint_item {
  char id[129];
  double popularity; /* decayed count as of popularity_ms */
  int64_t popularity_ms;
};

/* Newest events that the guard left out: enough to find what was wrong with them. */
enum { M2SED_SKIPPED_MAX = 4096 };

/* All state as of the last message taken. Made by the trainer (weights set, directory empty) or by
 * m2sed_checkpoint_load (weights NULL: they are in the files of `directory`). */
struct m2sed_checkpoint_state {
  struct m2se_config
      config; /* load fills what decides the shape and the random draws: sizes, tau, lambda,
                 dropout (to 9 digits), targets, item_residual, item_bias, seed; the rest is zero */
  struct m2se_snapshot *weights;
  char directory[4096];
  uint64_t step;
  struct m2sed_trainer_counters counters;

  struct m2sed_position *positions; /* next position to be read, one a partition, ascending */
  uint32_t position_count;

  struct m2sed_example *waiting; /* in the order of arrival */
  uint32_t waiting_count;

  struct m2sed_example *parked; /* in the order of arrival */
  uint32_t parked_count;

  struct m2sed_position *skipped; /* by the guard, oldest first; at most M2SED_SKIPPED_MAX */
  uint32_t skipped_count;

  struct m2sed_example *reservoir;
  uint32_t reservoir_count;
  uint64_t reservoir_seen;

  struct m2sed_checkpoint_item *items; /* by slot */
  uint32_t item_count;
  int64_t newest_event_ms; /* INT64_MIN: no event yet */

  /* Filled by load only. */
  uint64_t generation, fence; /* fence: see struct m2sed_checkpoint_info */
  char lineage[64];
  uint8_t *loop_data;
  size_t loop_bytes;
};

/* What only the loop knows. All borrowed for the call. */
struct m2sed_checkpoint_info {
  const char *lineage;      /* random name given when the first weights were drawn; 1..63 bytes */
  const char *topic;        /* of the interactions */
  int64_t created_ms;       /* since 1970 */
  const uint8_t *loop_data; /* opaque rows of the loop (its table of log epochs) */
  size_t loop_bytes;
  uint32_t keep; /* generations kept, 1.. */
  /* The one that this process loaded, and the first that it wrote (0: none). Those between could not be
   * loaded: they do not count as kept. */
  uint64_t loaded, first;
  uint64_t fence; /* of the writer (fence.h); 0: it has none */
};

/* Writes the next generation, then removes all but the newest `keep`; what cannot be removed stays until the
 * next time. dir must be there. A state that is not finite is refused (M2SE_ENUMERIC); so is a fence lower
 * than that of the folder (M2SE_EDROPPED): another daemon has gone on. *generation and *bytes (of all files)
 * may be NULL. */
int m2sed_checkpoint_write(const char *dir, const struct m2sed_checkpoint_state *state,
                           const struct m2sed_checkpoint_info *info, uint64_t *generation, uint64_t *bytes,
                           struct m2se_error *error);

/* The newest good generation. M2SE_EMISSING: there is none at all, the directory too may be missing;
 * M2SE_EFORMAT: some exist, and the contents of none are good; M2SE_EIO: nor could all be read; or no memory.
 * refused (may be NULL) is told of each one
 * passed over and why. *state is freed with m2sed_checkpoint_state_free. */
int m2sed_checkpoint_load(struct m2sed_checkpoint_state **state, const char *dir,
                          void (*refused)(void *arg, uint64_t generation, const char *why), void *arg,
                          struct m2se_error *error);
/* Next positions in the oldest generation that might still be loaded: no restart reads from before them. None
 * (*positions NULL, *count 0) if there is no generation. *positions is freed with free(). */
int m2sed_checkpoint_oldest(const char *dir, struct m2sed_position **positions, uint32_t *count,
                            struct m2se_error *error);
void m2sed_checkpoint_state_free(struct m2sed_checkpoint_state *state); /* of load; NULL is allowed */

/* Calls all generations "bad-gen-N": nobody loads them, and an operator may still look at them. Call with the
 * lock held. */
int m2sed_checkpoint_set_aside(const char *dir, struct m2se_error *error);

/* Removes what interrupted writers left (gen-*.tmp.*). Call with the lock held, before the first write. */
int m2sed_checkpoint_clean(const char *dir, struct m2se_error *error);

/* ---- for operators ---- */
/* Generation numbers, ascending; *generations is freed with free(). A directory that is not there has none.
 */
int m2sed_checkpoint_list(const char *dir, uint64_t **generations, uint32_t *count, struct m2se_error *error);
/* The text of MANIFEST.json, NUL-terminated, freed with free(). */
int m2sed_checkpoint_manifest(const char *dir, uint64_t generation, char **text, size_t *length,
                              struct m2se_error *error);
/* Makes a copy of a generation the newest, and calls those between "undone-gen-N", which nobody loads: their
 * positions are ahead of what is read again from now on. Call with the lock held. M2SE_EMISSING: there is no
 * such generation, M2SE_EINVAL: it is the newest; else it is damaged, or the disk. */
int m2sed_checkpoint_roll_back(const char *dir, uint64_t generation, uint64_t *copy,
                               struct m2se_error *error);
/* Sizes and checksums of every file, and that all is understood. */
int m2sed_checkpoint_verify(const char *dir, uint64_t generation, struct m2se_error *error);

#endif
