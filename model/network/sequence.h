/* The transformer over the packed sequences of a tile, both of its mixed sequences at once; and back.
 *
 * DESIGN. All arrays are by row (plan.h says which row a position has); those of the last layer, from its
 * queries on, are by anchor row, since only anchors need its output. When every position is an anchor the two
 * are the same numbers. Saved from forward to backward: what each layer's products and norms need; the GELU
 * is computed again. Equations: model/README.md, Sequences.
 */
#ifndef M2SE_SEQUENCE_H
#define M2SE_SEQUENCE_H

#include "model/kernels/kernels.h"
#include "model/network/params.h"
#include "model/network/plan.h"

struct m2se_layer_work {
  m2se_real *x;             /* [rows, h]: input */
  m2se_real *q;             /* [anchor rows, h]: queries' input of the last layer (x gathered) */
  m2se_real *qkv;           /* [rows, 3h]; in a last layer the first h columns are by anchor row */
  m2se_real *lse;           /* [rows, heads] */
  m2se_real *context;       /* [rows, h] */
  m2se_real *xhat1, *rstd1; /* [rows, h], [rows] */
  m2se_real *mid;           /* [rows, h]: between attention and feed-forward */
  m2se_real *u;             /* [rows, ffn] */
  m2se_real *xhat2, *rstd2;
};

struct m2se_sequences {
  m2se_real *xhat0, *rstd0; /* of the embedding */
  struct m2se_layer_work layer[M2SE_LAYERS_MAX];
  m2se_real *hidden;       /* [anchor rows, h]: output of the last layer */
  m2se_real *m;            /* [anchor rows, 2h]: projected, text space then image space */
  m2se_real *unit, *dunit; /* [anchor rows, 2h] */
  m2se_real *inv;          /* [anchor rows, 2] */
  m2se_real *dx;           /* [rows, h]: gradient of the embedded states, by row */
};

/* Scratch of one worker for a tile. */
struct m2se_sequence_scratch {
  const m2se_real **z;    /* [rows] */
  uint32_t *position;     /* [rows] */
  m2se_real *a, *da;      /* [rows, ffn] */
  m2se_real *y, *dy, *dq; /* [rows, h] */
  m2se_real *dqkv;        /* [rows, 3h] */
  m2se_real *dm;          /* [rows, 2h] */
  m2se_real *attention;
};

/* Dropout of the step, by place; thresholds 0: none. */
struct m2se_dropouts {
  struct m2se_dropout experts[2], embed;
  struct {
    struct m2se_dropout attention, output, ffn;
  } layer[M2SE_LAYERS_MAX];
};

struct m2se_sequence_run { /* what a tile's functions work with */
  const struct m2se_config *config;
  const struct m2se_kernels *kernels;
  const struct m2se_plan *plan;
  const struct m2se_params *params;
  const struct m2se_dropouts *drop;
  struct m2se_sequences *work;
};

uint32_t m2se_tile_rows_max(const struct m2se_config *config);
void m2se_sequences_carve(struct m2se_sequences *work, struct m2se_arena *arena,
                          const struct m2se_config *config, uint32_t positions, bool gradients);
void m2se_sequence_scratch_carve(struct m2se_sequence_scratch *scratch, struct m2se_arena *arena,
                                 const struct m2se_config *config);

/* state [items, 2h] -> m, unit of the tile's anchors. */
void m2se_tile_forward(const struct m2se_sequence_run *run, uint32_t tile, const m2se_real *state,
                       struct m2se_sequence_scratch *scratch);
/* dunit -> dx of the tile's rows; grad += of everything from `position` on. */
void m2se_tile_backward(const struct m2se_sequence_run *run, uint32_t tile, struct m2se_params *grad,
                        struct m2se_sequence_scratch *scratch);

#endif
