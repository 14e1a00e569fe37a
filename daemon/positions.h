/* Where the daemon is in the logs of the interactions topic, and which log that is.
 *
 * DESIGN. Offsets compare only within one log, so a position is (log epoch, offset). The epoch belongs to the
 * topic; it is raised when the cluster has another id, when an offset that was stored lies beyond the end of
 * its partition (the topic was deleted and made again), or when the caller knows that the log is new (the
 * embedded broker forgets everything). A partition whose stored position is of an older epoch starts at the
 * first record of the new log: nothing of it has been read; so when the epoch rises, partitions that are
 * being read are started again. A new log whose every partition has grown beyond the stored offsets cannot be
 * told from the old one. What the trainer has not seen (the place where a partition began) is kept as JSON in
 * the checkpoint, beside the trainer's positions. No I/O, no clock. Thread: the loop's.
 */
#ifndef M2SED_POSITIONS_H
#define M2SED_POSITIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/erasures.h"
#include "daemon/messages.h"
#include "model/error.h"

enum { M2SED_EPOCH_BITS = 48 };
#define M2SED_OFFSET_MASK ((UINT64_C(1) << M2SED_EPOCH_BITS) - 1)

struct m2sed_partition {
  int32_t partition;
  uint32_t epoch;         /* of its log */
  bool started;           /* assigned to us, being read */
  bool ended;             /* all that it held when it was started has been taken */
  int64_t next_offset;    /* of the next record to be taken; -1: never started */
  int64_t trained_offset; /* everything before has been handed to the trainer */
  int64_t durable_offset; /* everything before is in a checkpoint, or was before we began */
  int64_t replay_offset;  /* nothing before is read again, whichever generation a restart finds good */
  int64_t rewind_offset;  /* the next start is not behind this: Redis has sequences only up to it */
  int64_t rewound_until;  /* records before this have been taken before */
  int64_t until;          /* INT64_MAX, or --until-end: records from here on are left */
};

struct m2sed_positions;

struct m2sed_positions *m2sed_positions_new(void); /* NULL: out of memory */
void m2sed_positions_free(struct m2sed_positions *positions);

/* What a checkpoint knew: the trainer's positions, and the bytes of m2sed_positions_encode (none: size 0).
 * M2SE_EFORMAT, M2SE_ENOMEM. */
int m2sed_positions_restore(struct m2sed_positions *positions, const struct m2sed_position *trained,
                            uint32_t count, const void *bytes, size_t size, struct m2se_error *error);
/* NUL-terminated JSON, freed by the caller; NULL: out of memory. */
char *m2sed_positions_encode(const struct m2sed_positions *positions);

/* Says which cluster this is. Returns true if it is another one than before: the epoch was raised. */
bool m2sed_positions_set_cluster(struct m2sed_positions *positions, const char *cluster_id);
/* The caller knows that the log is new. The first log of all keeps epoch 0. */
void m2sed_positions_raise(struct m2sed_positions *positions);
uint32_t m2sed_positions_epoch(const struct m2sed_positions *positions);

struct m2sed_start {
  int64_t offset; /* where to begin */
  uint64_t lost;  /* records that retention had removed before they were read */
  uint64_t again; /* records that have been taken before and come once more (rewind_offset) */
  bool new_log;   /* the stored position lay beyond the end: the epoch was raised. Partitions started before,
                     whose epoch is lower, are the caller's to start again */
};
/* A partition is about to be read, whose log holds low..high-1; by_policy: where one without a position
 * begins; wanted: an offset that the broker no longer or not yet has, or -1. M2SE_ENOMEM, M2SE_ELIMIT. */
int m2sed_positions_begin(struct m2sed_positions *positions, int32_t partition, int64_t low, int64_t high,
                          int64_t by_policy, int64_t wanted, struct m2sed_start *start);

/* --until-end: records of the partition from this offset on are left. M2SE_ENOMEM, M2SE_ELIMIT. */
int m2sed_positions_set_until(struct m2sed_positions *positions, int32_t partition, int64_t until);

/* NULL: never heard of. Pointers stay valid until the next restore or begin. */
struct m2sed_partition *m2sed_positions_find(struct m2sed_positions *positions, int32_t partition);
uint32_t m2sed_positions_count(const struct m2sed_positions *positions);
struct m2sed_partition *m2sed_positions_at(struct m2sed_positions *positions, uint32_t index);

/* A checkpoint with these trainer positions is complete: they are durable now. */
void m2sed_positions_set_durable(struct m2sed_positions *positions, const struct m2sed_position *trained,
                                 uint32_t count);

/* Those of the oldest generation that is kept. A partition that it does not have may be read again from its
 * first record. */
void m2sed_positions_set_oldest(struct m2sed_positions *positions, const struct m2sed_position *oldest,
                                uint32_t count);

/* Of the topic of erasures. Kept and restored with ours; another cluster has another log of it too. */
struct m2sed_erasures *m2sed_positions_erasures(struct m2sed_positions *positions);

uint64_t m2sed_position_make(uint32_t epoch, int64_t offset);

#endif
