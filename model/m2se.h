/* M²SE: the network and its training step.
 *
 * DESIGN. A `struct m2se_learner` owns everything that training changes: the parameters, Adam's moments, the
 * item table (residuals, biases) and the workspace, all taken at creation from the stated maxima; a step
 * allocates nothing. It knows no thread: the caller lends workers through `struct m2se_workers`, and the work
 * is cut into numbered tasks whose division depends on the mini-batch alone, so that 1, 2 or 4 workers give
 * the same bits. What serves (m2se_serve.h) works on a `struct m2se_weights`, an immutable copy.
 *
 * Equations: MP4SR, arXiv 2303.11879, and model/README.md, which also lists where we deviate.
 * Errors: negative codes of model/error.h; a call that fails changes nothing unless it says otherwise.
 * Thread: one at a time per object; objects are independent of one another.
 */
#ifndef M2SE_H
#define M2SE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"
#include "model/real.h"

enum m2se_targets { M2SE_TARGETS_LAST = 0, M2SE_TARGETS_ALL = 1 };

/* What is learned. The first block is the shape: it is in the weights file and cannot change on the way. */
struct m2se_config {
  uint32_t d;       /* feature width, 1..4096 */
  uint32_t da;      /* attention pooling width */
  uint32_t h;       /* hidden width, a multiple of heads */
  uint32_t experts; /* O */
  uint32_t layers;
  uint32_t heads;
  uint32_t ffn;     /* feed-forward width */
  uint32_t max_len; /* L, positions */

  double tau;     /* temperature, > 0 */
  double lambda;  /* weight of CMCL */
  double dropout; /* 0 <= p < 1 */

  double sequence_dropout_max; /* rho ~ U(0, this), 0.2 */
  double mixup_max;            /* p ~ U(0, this), 0.5 */
  enum m2se_targets targets;
  bool item_residual;
  bool item_bias;
  uint64_t seed;

  double learning_rate;
  double residual_learning_rate; /* of the residuals' sparse Adam */
  double bias_learning_rate;     /* of the biases' sparse Adam */
  double clip_norm; /* of the global gradient norm, residuals and biases included; 0: no clipping */
  double loss_max;  /* a step whose loss is larger changes nothing; 0: no such limit */
  double beta1, beta2, epsilon;
};

/* The paper's sizes and Adam's constants with the stream defaults of model.md. d is left 0: the features say
 * it. */
void m2se_config_defaults(struct m2se_config *config);
/* 0, or M2SE_EINVAL with the field and its range in `error`. */
int m2se_config_check(const struct m2se_config *config, struct m2se_error *error);

/* Largest mini-batch that a learner or server will be given; memory follows from it. */
struct m2se_limits {
  uint32_t sequences; /* of a mini-batch */
  uint32_t positions; /* of all its sequences together */
  uint32_t items;     /* distinct items of a mini-batch */
  uint32_t rows;      /* rows of one modality over those items */
  uint32_t catalogue; /* slots of the item table (residuals and biases); 0 if both are off */
  uint32_t workers;   /* at most this many lent at a time; scratch is taken for each */
};

/* Workers lent by the caller. run() calls task(arg, t, w) once for each t in 0..tasks-1, on any thread, in
 * any order, with w the number (0..count-1) of the worker that runs it, and returns when all are done. */
struct m2se_workers {
  uint32_t count;
  void (*run)(void *pool, void (*task)(void *arg, uint32_t t, uint32_t w), void *arg, uint32_t tasks);
  void *pool;
};
/* One worker: the calling thread. */
struct m2se_workers m2se_workers_serial(void);

struct m2se_rows {
  const m2se_real *data; /* [count, d], borrowed for the call; may be NULL if count is 0 */
  uint32_t count;
};

struct m2se_item_input {
  struct m2se_rows text, image; /* at least one of them has rows */
  uint32_t slot;                /* row of the item table; ignored when residuals and biases are off */
};

/* A mini-batch as it comes, before augmentation. Sequences are packed, oldest item first. All borrowed for
 * the call. */
struct m2se_batch {
  uint32_t n_items; /* distinct items, each once */
  const struct m2se_item_input *items;
  uint32_t n_sequences;
  const uint32_t
      *seq_ptr; /* [n_sequences + 1]: positions of sequence j are seq_ptr[j]..seq_ptr[j+1]-1, 1..L of them */
  const uint32_t *seq_items; /* [positions]: index into items */
  const uint32_t *target;    /* [n_sequences]: the item that follows the sequence */
  const int32_t *pos_target; /* [positions], used with M2SE_TARGETS_ALL: item that follows position p, -1:
                                none. NULL: within a sequence every position is followed by the next one. The
                                last one's is target[j]. */
  const m2se_real *log_q;    /* [n_items] or NULL: logarithm of the sampling probability, model.md */
};

struct m2se_losses {
  double nip_text, nip_image, cmcl_text, cmcl_image, total;
  double over_guess; /* how much the larger one of the next-item losses is above that of a guess, which is the
                        logarithm of the number of its candidates; below 0 where something was learned. 0 if
                        there were fewer than 64: of few, bad luck says little */
};

/* Why a step changed nothing. */
enum m2se_left_out {
  M2SE_LEFT_OUT_NOT,
  M2SE_LEFT_OUT_NOT_FINITE, /* loss or gradient */
  M2SE_LEFT_OUT_LOSS,       /* above loss_max */
  M2SE_LEFT_OUT_GRADIENT    /* above gradient_norm_max */
};

struct m2se_step_result {
  struct m2se_losses losses;
  double gradient_norm; /* before clipping */
  uint32_t positions;   /* that were left after sequence random dropout */
  uint32_t anchors;     /* positions with a target */
  bool applied;         /* false: nothing was changed, left_out says why */
  enum m2se_left_out left_out;
  double flops; /* multiply and add counted as two, of the matrix products, from the shapes */
};

struct m2se_learner;

/* Fresh weights drawn from config->seed. M2SE_ENOMEM, M2SE_EINVAL. *learner is freed with m2se_learner_free.
 */
int m2se_learner_new(struct m2se_learner **learner, const struct m2se_config *config,
                     const struct m2se_limits *limits, struct m2se_error *error);
void m2se_learner_free(struct m2se_learner *learner);

/* One training step: augment, forward, backward, clip, Adam. gradient_norm_max > 0: a larger norm leaves the
 * weights as they are (result->applied false), as does a loss above loss_max and anything not finite; the
 * step number advances in every case, so that the draws of the next step are the same whether or
 * not this one was applied. M2SE_EINVAL for a batch beyond the limits or with an index out of range: nothing
 * changed, the step number neither. */
int m2se_learner_step(struct m2se_learner *learner, const struct m2se_batch *batch,
                      const struct m2se_workers *workers, double gradient_norm_max,
                      struct m2se_step_result *result, struct m2se_error *error);

uint64_t m2se_learner_step_number(const struct m2se_learner *learner);
const struct m2se_config *m2se_learner_config(const struct m2se_learner *learner);
/* The settings that may change between steps: learning rates, clip_norm and loss_max, taken from config.
 */
void m2se_learner_set_rates(struct m2se_learner *learner, const struct m2se_config *config);
/* An item left the catalogue: its slot starts again from zero. */
void m2se_learner_reset_slot(struct m2se_learner *learner, uint32_t slot);
/* Bytes taken at creation. */
size_t m2se_learner_bytes(const struct m2se_learner *learner);
/* All parameters finite? (A pass over the weights; for checkpoints.) */
bool m2se_learner_finite(const struct m2se_learner *learner);

/* The gradients without a step, for m2se_grad and the tests: no dropout, no augmentation; swap [positions] or
 * NULL. Fills the losses; m2se_learner_gradient_* then read what was computed, until the next call. */
int m2se_learner_gradient(struct m2se_learner *learner, const struct m2se_batch *batch, const uint8_t *swap,
                          const struct m2se_workers *workers, struct m2se_losses *losses,
                          struct m2se_error *error);
/* Flat, in the order of the tensor list (network/params.h); and per item of the batch: [n_items, 2h] (text,
 * image), [n_items]. */
const m2se_real *m2se_learner_gradient_flat(const struct m2se_learner *learner);
const m2se_real *m2se_learner_gradient_residual(const struct m2se_learner *learner);
const m2se_real *m2se_learner_gradient_bias(const struct m2se_learner *learner);
/* The vectors that serving would publish: user_vectors [n_sequences, 2h], item_vectors [n_items, 2h],
 * caller's memory. */
void m2se_learner_gradient_vectors(const struct m2se_learner *learner, m2se_real *user_vectors,
                                   m2se_real *item_vectors);

/* ---- an immutable copy for serving ---- */

/* Parameters and item table of one moment. Filled by the training thread, then handed over and read only. */
struct m2se_weights;
int m2se_weights_new(struct m2se_weights **weights, const struct m2se_config *config, uint32_t catalogue,
                     struct m2se_error *error);
void m2se_weights_free(struct m2se_weights *weights);
/* Copies the learner's parameters and the first `slots` rows of its item table. Same shape, and the same of
 * residuals and biases. */
void m2se_weights_copy(struct m2se_weights *weights, const struct m2se_learner *learner, uint32_t slots);
uint64_t m2se_weights_step(const struct m2se_weights *weights);

#endif
