/* Requests to forget a user: how far their topic has been done, and who asked lately.
 *
 * DESIGN. There is no order between two topics, so a request is understood by its time T, the timestamp that
 * Kafka's record has: everything of the user is removed when it is done, and an event whose record is not
 * younger than T and comes only later (the daemon lags behind, or reads again after a crash) is left out.
 * For that the newest requests are remembered, M2SED_ERASURES_KEPT of them, the oldest going first. Both are
 * in the checkpoint (as JSON): they must not be ahead of what the trainer has forgotten.
 * No I/O, no clock. Thread: the loop's.
 */
#ifndef M2SED_ERASURES_H
#define M2SED_ERASURES_H

#include <stdbool.h>
#include <stdint.h>

#include "model/files/json.h"

enum { M2SED_ERASURES_KEPT = 4096, M2SED_ERASURES_PARTITIONS_MAX = 64 };

struct m2sed_erasures_partition {
  int32_t partition;
  int64_t next_offset;  /* requests before it are done */
  bool started, behind; /* behind: some of those that it had when it was started are not done */
};

struct m2sed_erasures {
  struct m2sed_erasures_partition partitions[M2SED_ERASURES_PARTITIONS_MAX];
  uint32_t partition_count;
  uint64_t users[M2SED_ERASURES_KEPT]; /* XXH3-64 of the ids */
  int64_t until_ms[M2SED_ERASURES_KEPT];
  uint32_t first, count; /* used as a ring */
  int64_t newest_ms;     /* of all until_ms */
};

/* All zero is the beginning. */

/* A partition whose log holds low..high-1 is about to be read. Returns where: after what is done; at the
 * first request if nothing is known, or if the log is another one (what is done lies beyond its end). *lost:
 * requests that retention had removed. Asserts number < M2SED_ERASURES_PARTITIONS_MAX. */
int64_t m2sed_erasures_begin(struct m2sed_erasures *erasures, int32_t number, int64_t low, int64_t high,
                             uint64_t *lost);
void m2sed_erasures_end(struct m2sed_erasures *erasures, int32_t number);    /* what it had is done */
void m2sed_erasures_revoke(struct m2sed_erasures *erasures, int32_t number); /* it went away */
bool m2sed_erasures_behind(const struct m2sed_erasures *erasures);
/* Grows with each request that is done; another log begins anew. */
uint64_t m2sed_erasures_progress(const struct m2sed_erasures *erasures);
/* Another cluster: nothing of its log has been read. Who asked is still remembered. */
void m2sed_erasures_new_log(struct m2sed_erasures *erasures);

/* The request at that offset, of that time, is done. */
void m2sed_erasures_done(struct m2sed_erasures *erasures, int32_t number, int64_t offset, uint64_t user_hash,
                         int64_t until_ms);
/* Nothing had to be done for it. */
void m2sed_erasures_pass(struct m2sed_erasures *erasures, int32_t number, int64_t offset);
/* Did the user ask to be forgotten at that time or later? */
bool m2sed_erasures_cover(const struct m2sed_erasures *erasures, uint64_t user_hash, int64_t timestamp_ms);

/* Members "erasures" and "erased" of the writer's object, and back. A value without them has none.
 * M2SE_EFORMAT. */
void m2sed_erasures_write(const struct m2sed_erasures *erasures, struct m2se_json_writer *writer);
int m2sed_erasures_read(struct m2sed_erasures *erasures, const struct m2se_json *root,
                        struct m2se_error *error);

#endif
