/* What a mini-batch comes to: the positions left after augmentation, and how they are cut into tiles and
 * shards.
 *
 * DESIGN. Everything the parallel phases need to know is decided here, once a step, by one thread, from the
 * mini-batch alone; so the division of work, and with it the order of every sum, does not depend on the
 * number of workers. tile   consecutive whole sequences, about TILE positions: what stays in the cache
 * together shard  consecutive tiles; each has its own gradient sums, added up in the order of the shards A
 * position p of a tile over positions [p0,p1) has two rows, its text sequence's p0 + p and its image
 * sequence's p1 + p: the rows of a tile are 2 p0 .. 2 p1 - 1, without gaps. Anchors (positions with a target)
 * have rows of their own by the same rule.
 */
#ifndef M2SE_PLAN_H
#define M2SE_PLAN_H

#include "model/m2se.h"
#include "model/network/arena.h"

enum { M2SE_SHARDS = 16, M2SE_TILE_POSITIONS = 256 };

struct m2se_plan {
  uint32_t n_items, n_sequences, n_positions, n_anchors, n_candidates, n_tiles;
  uint32_t *seq_ptr;     /* [n_sequences + 1] */
  uint32_t *item;        /* [n_positions] */
  uint8_t *swap;         /* [n_positions] */
  int32_t *pos_target;   /* [n_positions], item or -1 */
  uint32_t *in_sequence; /* [n_positions]: place within the sequence */
  uint32_t *tiles;       /* [n_tiles + 1]: first sequence of each */
  uint32_t *tile_anchor; /* [n_tiles + 1]: first anchor of each */
  uint32_t shard_tile[M2SE_SHARDS + 1];
  uint32_t *anchor;                     /* [n_anchors]: its position, ascending */
  uint32_t *anchor_row;                 /* [2 n_anchors], in anchor-row order: its row among all rows */
  uint32_t *anchor_text, *anchor_image; /* [n_anchors]: its two anchor rows */
  uint32_t *last_anchor;                /* [n_sequences] */
  uint32_t *target;                     /* [n_sequences]: item */
  uint32_t *candidate;                  /* [n_candidates]: item, in order of first occurrence */
  int32_t *candidate_of;                /* [n_items]: or -1 */
  uint32_t *candidate_count;            /* [n_candidates]: anchors that have it as target */
  uint32_t *use_ptr, *use_row;          /* item i occurs in rows use_row[use_ptr[i]..]: row << 1 | image */
  uint32_t *cursor;                     /* [n_items]: scratch */
};

void m2se_plan_carve(struct m2se_plan *plan, struct m2se_arena *arena, const struct m2se_limits *limits);

/* Indices, lengths and limits; M2SE_EINVAL says which sequence or item breaks what. */
int m2se_batch_check(const struct m2se_batch *batch, const struct m2se_config *config,
                     const struct m2se_limits *limits, struct m2se_error *error);

/* augment: sequence random dropout and mixup drawn from (seed, step). Otherwise swap (or NULL) is taken as it
 * is. */
void m2se_plan_make(struct m2se_plan *plan, const struct m2se_batch *batch, const struct m2se_config *config,
                    uint64_t step, bool augment, const uint8_t *swap);

/* Positions of tile t: first and one past the last. */
static inline uint32_t m2se_tile_begin(const struct m2se_plan *plan, uint32_t t) {
  return plan->seq_ptr[plan->tiles[t]];
}

#endif
