#include <math.h>
#include <string.h>

#include "model/network/blas_door.h"
#include "model/network/losses.h"

enum { NIP_PANEL_MAX = 32, GUESS_CANDIDATES_MIN = 64 };

/* Whether this CPU's own products take this width; else cblas does. */
static bool has_own_products(const struct m2se_loss_run *run) {
  return run->kernels->nip_panel && run->config->h % run->kernels->nip_panel == 0;
}

void m2se_losses_carve(struct m2se_losses_work *work, struct m2se_arena *arena,
                       const struct m2se_config *config, const struct m2se_limits *limits) {
  size_t n = limits->items, h = config->h, b = limits->sequences;
  for (int m = 0; m < 2; m++) {
    struct m2se_nip_work *w = &work->nip[m];
    M2SE_TAKE(arena, w->candidate, n);
    M2SE_TAKE(arena, w->compact, n);
    M2SE_TAKE(arena, w->anchor, limits->positions);
    M2SE_TAKE(arena, w->unit, n * h);
    M2SE_TAKE(arena, w->panels, (n + NIP_PANEL_MAX) * h);
    M2SE_TAKE(arena, w->w, n);
    M2SE_TAKE(arena, w->own_w, n);
    M2SE_TAKE(arena, w->dunit, M2SE_SHARDS * n * h);
    M2SE_TAKE(arena, w->dw, M2SE_SHARDS * n);
    M2SE_TAKE(arena, w->loss, M2SE_SHARDS);
  }
  work->ld = b + 16; /* not a power of two: columns would share cache sets */
  M2SE_TAKE(arena, work->a, b * h);
  M2SE_TAKE(arena, work->b, b * h);
  M2SE_TAKE(arena, work->da, b * h);
  M2SE_TAKE(arena, work->db, b * h);
  M2SE_TAKE(arena, work->ab, b * work->ld);
  M2SE_TAKE(arena, work->aa, b * work->ld);
  M2SE_TAKE(arena, work->bb, b * work->ld);
  M2SE_TAKE(arena, work->lse_a, b);
  M2SE_TAKE(arena, work->lse_b, b);
  M2SE_TAKE(arena, work->own, b);
}

size_t m2se_nip_scratch(const struct m2se_limits *limits, const struct m2se_config *config) {
  return 2 * M2SE_NIP_TILE * ((size_t)limits->items + 2 * (size_t)config->h);
}

void m2se_nip_begin(const struct m2se_loss_run *run, int modality, const m2se_real *bias,
                    const m2se_real *log_q) {
  const struct m2se_plan *plan = run->plan;
  struct m2se_nip_work *w = &run->work->nip[modality];
  size_t h = run->config->h;
  w->candidates = 0;
  for (uint32_t u = 0; u < plan->n_candidates; u++) {
    uint32_t item = plan->candidate[u];
    w->compact[u] = -1;
    if (run->items->modality[modality].compact[item] < 0) {
      continue; /* no rows of this modality: neither anchor nor candidate */
    }
    uint32_t c = w->candidates++;
    w->compact[u] = (int32_t)c;
    w->candidate[c] = u;
    memcpy(w->unit + c * h, run->items->unit + (2 * (size_t)item + (size_t)modality) * h,
           h * sizeof *w->unit);
    w->own_w[c] = (bias ? bias[item] : 0) - (log_q ? log_q[item] : 0);
    w->w[c] = w->own_w[c];
    if (run->config->targets == M2SE_TARGETS_LAST) {
      w->w[c] += (m2se_real)log((double)plan->candidate_count[u]);
    }
  }
  if (has_own_products(run)) {
    run->kernels->nip_pack(w->panels, w->unit, w->candidates, h);
  }
  w->anchors = 0;
  for (uint32_t a = 0; a < plan->n_anchors; a++) {
    if (w->compact[plan->candidate_of[plan->pos_target[plan->anchor[a]]]] >= 0) {
      w->anchor[w->anchors++] = a;
    }
  }
}

/* logits [rows, candidates] = m unit^T. */
static void logits_forward(const struct m2se_loss_run *run, const struct m2se_nip_work *w, m2se_real *logits,
                           const m2se_real *m, size_t rows) {
  size_t h = run->config->h, n = w->candidates;
  if (has_own_products(run)) {
    run->kernels->nip_logits(logits, n, m, rows, w->panels, n, h);
  } else {
    m2se_gemm_nt(rows, n, h, m, h, w->unit, h, 0, logits, n);
  }
}

/* dm [rows, h] =, dunit [candidates, h] +=, from the gradient of the logits. */
static void logits_backward(const struct m2se_loss_run *run, const struct m2se_nip_work *w,
                            const m2se_real *grad, const m2se_real *m, size_t rows, m2se_real *dm,
                            m2se_real *dunit) {
  size_t h = run->config->h, n = w->candidates;
  if (has_own_products(run)) {
    run->kernels->nip_anchors(dm, grad, n, w->unit, rows, n, h);
    run->kernels->nip_candidates(dunit, grad, n, m, rows, n, h);
  } else {
    m2se_gemm_nn(rows, h, n, grad, n, w->unit, h, 0, dm, h);
    m2se_gemm_tn(n, h, rows, grad, n, m, h, 1, dunit, h);
  }
}

void m2se_nip_shard(const struct m2se_loss_run *run, int modality, uint32_t shard, m2se_real *scratch) {
  const struct m2se_plan *plan = run->plan;
  struct m2se_nip_work *w = &run->work->nip[modality];
  size_t h = run->config->h, candidates = w->candidates, column = (size_t)modality * h;
  uint32_t first = (uint32_t)((uint64_t)w->anchors * shard / M2SE_SHARDS);
  uint32_t last = (uint32_t)((uint64_t)w->anchors * (shard + 1) / M2SE_SHARDS);
  m2se_real *dunit = w->dunit + shard * candidates * h, *dw = w->dw + shard * candidates;
  m2se_real inv_tau = (m2se_real)(1 / run->config->tau);
  m2se_real g = w->anchors ? (m2se_real)(1.0 / w->anchors) : 0;
  m2se_real *m = scratch, *dm = m + 2 * M2SE_NIP_TILE * h, *logits = dm + 2 * M2SE_NIP_TILE * h;
  memset(dunit, 0, candidates * h * sizeof *dunit);
  memset(dw, 0, candidates * sizeof *dw);
  w->loss[shard] = 0;
  for (uint32_t t = first; t < last; t += M2SE_NIP_TILE) {
    uint32_t rows = last - t < M2SE_NIP_TILE ? last - t : M2SE_NIP_TILE;
    for (uint32_t r = 0; r < 2 * rows; r++) {
      uint32_t a = w->anchor[t + r / 2], row = r % 2 ? plan->anchor_image[a] : plan->anchor_text[a];
      const m2se_real *unit = run->sequences->unit + row * 2 * h + column;
      for (size_t k = 0; k < h; k++) {
        m[r * h + k] = unit[k] * inv_tau;
      }
    }
    logits_forward(run, w, logits, m, 2 * rows);
    for (uint32_t r = 0; r < rows; r++) {
      uint32_t a = w->anchor[t + r];
      size_t y = (size_t)w->compact[plan->candidate_of[plan->pos_target[plan->anchor[a]]]];
      w->loss[shard] += run->kernels->nip_row(logits + 2 * r * candidates, logits + (2 * r + 1) * candidates,
                                              w->w, candidates, y, w->own_w[y], g, dw);
    }
    logits_backward(run, w, logits, m, 2 * rows, dm, dunit);
    for (uint32_t r = 0; r < 2 * rows; r++) {
      uint32_t a = w->anchor[t + r / 2], row = r % 2 ? plan->anchor_image[a] : plan->anchor_text[a];
      run->kernels->axpy(run->sequences->dunit + row * 2 * h + column, inv_tau, dm + r * h, h);
    }
  }
}

double m2se_nip_loss(const struct m2se_loss_run *run, int modality) {
  const struct m2se_nip_work *w = &run->work->nip[modality];
  double sum = 0;
  for (uint32_t s = 0; s < M2SE_SHARDS; s++) {
    sum += w->loss[s];
  }
  return w->anchors ? sum / w->anchors : 0;
}

double m2se_nip_over_guess(const struct m2se_loss_run *run) {
  double most = -INFINITY;
  for (int m = 0; m < 2; m++) {
    const struct m2se_nip_work *w = &run->work->nip[m];
    uint32_t choices = run->config->targets == M2SE_TARGETS_LAST ? w->anchors : w->candidates;
    if (w->candidates >= GUESS_CANDIDATES_MIN) {
      most = fmax(most, m2se_nip_loss(run, m) - log(choices));
    }
  }
  return isinf(most) ? 0 : most;
}

m2se_real m2se_nip_candidate(const struct m2se_loss_run *run, int modality, uint32_t candidate,
                             m2se_real *dunit) {
  const struct m2se_nip_work *w = &run->work->nip[modality];
  int32_t c = w->compact[candidate];
  size_t h = run->config->h;
  m2se_real dw = 0;
  for (size_t s = 0; s < M2SE_SHARDS && c >= 0; s++) {
    run->kernels->add(dunit, w->dunit + (s * w->candidates + (size_t)c) * h, h);
    dw += w->dw[s * w->candidates + (size_t)c];
  }
  return dw;
}
