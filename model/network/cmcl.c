#include <math.h>
#include <string.h>

#include "model/network/blas_door.h"
#include "model/network/losses.h"

static uint32_t tile_end(const struct m2se_loss_run *run, uint32_t tile) {
  uint32_t end = (tile + 1) * M2SE_CMCL_TILE;
  return end < run->plan->n_sequences ? end : run->plan->n_sequences;
}

/* Where the two views of sequence j in this space stand: a from the space's own sequence, b from the other.
 */
static size_t view(const struct m2se_loss_run *run, int space, uint32_t j, bool own) {
  uint32_t anchor = run->plan->last_anchor[j];
  bool image = (space == 1) == own;
  uint32_t row = image ? run->plan->anchor_image[anchor] : run->plan->anchor_text[anchor];
  return (2 * (size_t)row + (size_t)space) * run->config->h;
}

void m2se_cmcl_gather(const struct m2se_loss_run *run, int space, uint32_t tile) {
  size_t h = run->config->h;
  m2se_real scale = (m2se_real)sqrt(1 / run->config->tau); /* on both sides of every product */
  for (uint32_t j = tile * M2SE_CMCL_TILE; j < tile_end(run, tile); j++) {
    const m2se_real *a = run->sequences->unit + view(run, space, j, true);
    const m2se_real *b = run->sequences->unit + view(run, space, j, false);
    for (size_t k = 0; k < h; k++) {
      run->work->a[j * h + k] = a[k] * scale;
      run->work->b[j * h + k] = b[k] * scale;
    }
  }
}

void m2se_cmcl_rows(const struct m2se_loss_run *run, uint32_t tile) {
  struct m2se_losses_work *w = run->work;
  size_t h = run->config->h, n = run->plan->n_sequences, ld = w->ld;
  uint32_t j0 = tile * M2SE_CMCL_TILE, j1 = tile_end(run, tile);
  m2se_gemm_nt(j1 - j0, n, h, w->a + j0 * h, h, w->b, h, 0, w->ab + j0 * ld, ld);
  m2se_gemm_nt(j1 - j0, n, h, w->a + j0 * h, h, w->a, h, 0, w->aa + j0 * ld, ld);
  m2se_gemm_nt(j1 - j0, n, h, w->b + j0 * h, h, w->b, h, 0, w->bb + j0 * ld, ld);
  for (uint32_t j = j0; j < j1; j++) {
    w->own[j] = w->ab[j * ld + j];
    w->lse_a[j] = run->kernels->cmcl_row_lse(w->ab + j * ld, w->aa + j * ld, run->plan->target, j, n);
  }
}

void m2se_cmcl_columns(const struct m2se_loss_run *run, uint32_t tile) {
  struct m2se_losses_work *w = run->work;
  uint32_t j0 = tile * M2SE_CMCL_TILE, j1 = tile_end(run, tile);
  run->kernels->cmcl_column_lse(w->lse_b + j0, w->ab, w->ld, w->bb, w->ld, run->plan->target, j0, j1,
                                run->plan->n_sequences);
}

double m2se_cmcl_loss(const struct m2se_loss_run *run) {
  const struct m2se_losses_work *w = run->work;
  double sum = 0;
  for (uint32_t j = 0; j < run->plan->n_sequences; j++) {
    sum += (double)w->lse_a[j] + (double)w->lse_b[j] - 2 * (double)w->own[j];
  }
  return sum / (2.0 * run->plan->n_sequences);
}

void m2se_cmcl_gradient(const struct m2se_loss_run *run, uint32_t tile) {
  struct m2se_losses_work *w = run->work;
  size_t h = run->config->h, n = run->plan->n_sequences, ld = w->ld;
  uint32_t j0 = tile * M2SE_CMCL_TILE, j1 = tile_end(run, tile);
  m2se_real g = (m2se_real)(run->config->lambda / (2.0 * (double)n));
  for (uint32_t j = j0; j < j1; j++) {
    run->kernels->cmcl_grad_row(w->ab + j * ld, w->aa + j * ld, w->bb + j * ld, w->lse_a, w->lse_b,
                                run->plan->target, j, n, g);
  }
  m2se_gemm_nn(j1 - j0, h, n, w->ab + j0 * ld, ld, w->b, h, 0, w->da + j0 * h, h);
  m2se_gemm_nn(j1 - j0, h, n, w->aa + j0 * ld, ld, w->a, h, 1, w->da + j0 * h, h);
  m2se_gemm_nn(j1 - j0, h, n, w->bb + j0 * ld, ld, w->b, h, 0, w->db + j0 * h, h);
}

void m2se_cmcl_finish(const struct m2se_loss_run *run, int space, uint32_t tile) {
  struct m2se_losses_work *w = run->work;
  size_t h = run->config->h, n = run->plan->n_sequences;
  uint32_t j0 = tile * M2SE_CMCL_TILE, j1 = tile_end(run, tile);
  m2se_real scale = (m2se_real)sqrt(1 / run->config->tau);
  m2se_gemm_tn(j1 - j0, h, n, w->ab + j0, w->ld, w->a, h, 1, w->db + j0 * h, h);
  for (uint32_t j = j0; j < j1; j++) {
    run->kernels->axpy(run->sequences->dunit + view(run, space, j, true), scale, w->da + j * h, h);
    run->kernels->axpy(run->sequences->dunit + view(run, space, j, false), scale, w->db + j * h, h);
  }
}
