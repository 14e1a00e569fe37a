/* The two objectives over the unit vectors of anchors and items: values and gradients in one pass.
 *
 * DESIGN. NIP, per modality: anchors against the distinct targets (candidates). In the `last` objective the
 * examples that share a target are one candidate whose terms count as often; the anchor's own counts once:
 * that is the paper's exclusion. A tile of anchors is multiplied with the candidates, turned into its
 * gradient in place and multiplied back, so that no [anchors, candidates] matrix is stored. CMCL, per space:
 * rows need row sums, columns need column sums, so its three [B, B] products are kept for the step.
 * Equations: model/README.md, Loss.
 */
#ifndef M2SE_LOSSES_H
#define M2SE_LOSSES_H

#include "model/network/items.h"
#include "model/network/sequence.h"

enum { M2SE_NIP_TILE = 32, M2SE_CMCL_TILE = 64 };

struct m2se_nip_work { /* of one modality */
  uint32_t candidates, anchors;
  uint32_t *candidate;   /* [candidates]: among the plan's */
  int32_t *compact;      /* [plan candidates]: or -1 */
  uint32_t *anchor;      /* [anchors] */
  m2se_real *unit;       /* [candidates, h] */
  m2se_real *panels;     /* unit, packed for the products */
  m2se_real *w, *own_w;  /* [candidates] */
  m2se_real *dunit, *dw; /* [SHARDS, candidates, h], [SHARDS, candidates] */
  double *loss;          /* [SHARDS] */
};

struct m2se_losses_work {
  struct m2se_nip_work nip[2];
  m2se_real *a, *b, *ab, *aa, *bb; /* CMCL of one space: [B, h] scaled units, [B, ld] products */
  m2se_real *lse_a, *lse_b, *own;  /* [B] */
  m2se_real *da, *db;              /* [B, h] */
  size_t ld;
};

struct m2se_loss_run {
  const struct m2se_config *config;
  const struct m2se_kernels *kernels;
  const struct m2se_plan *plan;
  const struct m2se_items *items;
  struct m2se_sequences *sequences;
  struct m2se_losses_work *work;
};

void m2se_losses_carve(struct m2se_losses_work *work, struct m2se_arena *arena,
                       const struct m2se_config *config, const struct m2se_limits *limits);
/* Elements of scratch that a worker needs for m2se_nip_shard. */
size_t m2se_nip_scratch(const struct m2se_limits *limits, const struct m2se_config *config);

/* Lists anchors and candidates. bias, log_q: [items] or NULL. */
void m2se_nip_begin(const struct m2se_loss_run *run, int modality, const m2se_real *bias,
                    const m2se_real *log_q);
/* One shard of the anchors: loss, gradients of its anchors' units (+=) and of all candidates (the shard's own
 * array). */
void m2se_nip_shard(const struct m2se_loss_run *run, int modality, uint32_t shard, m2se_real *scratch);
double m2se_nip_loss(const struct m2se_loss_run *run, int modality);
/* The larger one of the losses above that of a guess: m2se.h. */
double m2se_nip_over_guess(const struct m2se_loss_run *run);
/* Adds candidate u's gradient, shard after shard: dunit[h] +=, returns that of its bias. */
m2se_real m2se_nip_candidate(const struct m2se_loss_run *run, int modality, uint32_t candidate,
                             m2se_real *dunit);

/* The phases of one space, each over tiles of M2SE_CMCL_TILE sequences. */
void m2se_cmcl_gather(const struct m2se_loss_run *run, int space, uint32_t tile);
void m2se_cmcl_rows(const struct m2se_loss_run *run, uint32_t tile);
void m2se_cmcl_columns(const struct m2se_loss_run *run, uint32_t tile);
void m2se_cmcl_gradient(const struct m2se_loss_run *run, uint32_t tile);
void m2se_cmcl_finish(const struct m2se_loss_run *run, int space, uint32_t tile);
double m2se_cmcl_loss(const struct m2se_loss_run *run); /* after columns */

#endif
