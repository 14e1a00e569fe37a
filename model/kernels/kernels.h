/* The element-wise and row-wise operations of M2SE: everything of a step that is not a matrix product.
 *
 * DESIGN. One table of functions for each instruction set, chosen once at run time (kernels_best); the scalar
 * table is the plain reading of each equation, the fallback on a CPU without AVX2, the only one of the double
 * build, and the reference of the tests. The vector tables (AVX2, AVX-512) are one source compiled twice.
 *
 * - Matrices are row-major; `ld` is the distance between rows in elements where it can differ from the width.
 * - Nothing here needs aligned pointers; widths are arbitrary (heads of 5 columns, 1 expert, 3 columns).
 * - `d`-prefixed arguments are gradients. "+=" in a comment: added to; "=": overwritten.
 * - Same inputs, same bits: results depend neither on the thread nor on the alignment of a pointer nor on
 *   how a caller splits the rows over calls, except sums over rows (biases, gamma, beta, dw), which are in
 *   row order, one after the other, so that splitting the rows of one accumulator over successive calls
 *   gives the same bits. Tables differ from one another by rounding only (an exponential below 2^-126 is 0
 *   in a vector table); dropout masks are the same.
 * - NaN and infinity go on to whatever depends on them, except through an element dropped or left out.
 * - Pure: no allocation, no state, any thread.
 */
#ifndef M2SE_KERNELS_H
#define M2SE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/real.h"

/* Counter-based randomness: Threefry4x32-20 (Salmon et al., SC'11). A draw is a function of (seed, step,
 * purpose, index). key = {seed low, seed high, step low, step high}; counter = {block low, block high,
 * purpose, 0}. */
struct m2se_stream {
  uint32_t key[4];
  uint32_t purpose;
};

/* Inverted dropout over an index space: element e is kept if its 16-bit draw is >= threshold and is then
 * multiplied by scale = 65536 / (65536 - threshold), else it is zero. threshold = round(p * 65536); 0 means
 * no dropout. Element e belongs to group g = e / 128, half-word w = (e / 16) % 8, lane l = e % 16: its draw
 * is half-word w (word w / 2, low half first) of block 16 g + l. So 16 neighbours are 16 lanes of a vector,
 * on every CPU alike. */
struct m2se_dropout {
  struct m2se_stream stream;
  uint32_t threshold;
  m2se_real scale;
};

struct m2se_kernels {
  const char *name; /* "scalar", "avx2", "avx512" */

  /* ---- randomness ---- */
  /* out[i] = the four words of block first + i, i < n: out[4n]. */
  void (*random_blocks)(uint32_t *out, const struct m2se_stream *stream, uint64_t first, size_t n);
  /* x[i] *= mask(first + i), in place, i < n. drop->threshold 0: nothing happens. Its own derivative. */
  void (*dropout)(m2se_real *x, size_t n, const struct m2se_dropout *drop, uint64_t first);

  /* ---- plain vectors ---- */
  m2se_real (*dot)(const m2se_real *x, const m2se_real *y, size_t n);
  void (*axpy)(m2se_real *y, m2se_real a, const m2se_real *x, size_t n); /* y += a x */
  void (*add)(m2se_real *y, const m2se_real *x, size_t n);               /* y += x */
  /* y[r] += bias[n] for each row; y has rows of ld elements. */
  void (*add_bias)(m2se_real *y, size_t ld, const m2se_real *bias, size_t rows, size_t n);
  /* dbias[n] += sum over rows of dy. */
  void (*column_sum)(m2se_real *dbias, const m2se_real *dy, size_t ld, size_t rows, size_t n);
  /* Sum of squares, accumulated in double; a NaN or infinity in x comes out as not finite. */
  double (*sum_squares)(const m2se_real *x, size_t n);

  /* ---- attention pooling over the rows of one item (model/README.md, Items) ---- */
  /* s_j = rows_j . w; alpha = softmax(s) [count]; e = sum_j alpha_j rows_j [d]. count >= 1. */
  void (*pool_forward)(m2se_real *e, m2se_real *alpha, const m2se_real *rows, size_t count, size_t d,
                       const m2se_real *w);
  /* dalpha_j = de . rows_j; ds_j = alpha_j (dalpha_j - sum_k alpha_k dalpha_k); dw[d] += sum_j ds_j rows_j.
   */
  void (*pool_backward)(m2se_real *dw, const m2se_real *rows, const m2se_real *alpha, const m2se_real *de,
                        size_t count, size_t d);

  /* ---- mixture of experts, after the product Y = e [W;W3]^T: y rows of O*h + O elements ---- */
  /* In: y raw. E_k = LayerNorm_k(dropout(y_k + bias_k)), g = softmax(y_gate) (no bias), z = sum_k g_k E_k [h]
   * per row. Out: in y, the first O*h become the normalised xhat (before gamma, beta), the last O become g.
   * rstd[rows, O]. Dropout index of (row r, column c < O*h): (first_row + r) * O*h + c. bias, gamma, beta:
   * [O, h]. */
  void (*experts_forward)(m2se_real *z, m2se_real *rstd, m2se_real *y, const m2se_real *bias,
                          const m2se_real *gamma, const m2se_real *beta, size_t rows, size_t experts,
                          size_t h, m2se_real eps, const struct m2se_dropout *drop, uint64_t first_row);
  /* In: dz [rows,h], y as experts_forward left it. Out: y becomes dY, the gradient of the product (both
   * parts); dbias, dgamma, dbeta += . */
  void (*experts_backward)(m2se_real *y, m2se_real *dbias, m2se_real *dgamma, m2se_real *dbeta,
                           const m2se_real *dz, const m2se_real *rstd, const m2se_real *gamma,
                           const m2se_real *beta, size_t rows, size_t experts, size_t h,
                           const struct m2se_dropout *drop, uint64_t first_row);

  /* ---- LayerNorm with what stands around it ---- */
  /* s = residual + dropout(sub + bias); xhat = (s - mean) / sqrt(var + eps); y = xhat gamma + beta. [rows,n]
   * each, rstd[rows]. Dropout index of (r, c): (first_row + r) * n + c; with row_ids not NULL: row_ids[r] * n
   * + c. y may be residual or sub; xhat may be sub. */
  void (*addnorm_forward)(m2se_real *y, m2se_real *xhat, m2se_real *rstd, const m2se_real *sub,
                          const m2se_real *bias, const m2se_real *residual, const m2se_real *gamma,
                          const m2se_real *beta, size_t rows, size_t n, m2se_real eps,
                          const struct m2se_dropout *drop, const uint32_t *row_ids, uint64_t first_row);
  /* ds = LayerNorm backward of dy; dresidual = ds; dsub = dropout(ds); dgamma, dbeta, dbias += . dresidual
   * may be dy. */
  void (*addnorm_backward)(m2se_real *dresidual, m2se_real *dsub, m2se_real *dgamma, m2se_real *dbeta,
                           m2se_real *dbias, const m2se_real *dy, const m2se_real *xhat,
                           const m2se_real *rstd, const m2se_real *gamma, size_t rows, size_t n,
                           const struct m2se_dropout *drop, const uint32_t *row_ids, uint64_t first_row);
  /* The input of the layers: s = z[r] + position[pos[r]]; y = dropout(xhat gamma + beta). z[r]: a pointer per
   * row. */
  void (*embed_forward)(m2se_real *y, m2se_real *xhat, m2se_real *rstd, const m2se_real *const *z,
                        const uint32_t *pos, const m2se_real *position, const m2se_real *gamma,
                        const m2se_real *beta, size_t rows, size_t n, m2se_real eps,
                        const struct m2se_dropout *drop, uint64_t first_row);
  /* ds = LayerNorm backward of dropout(dy), written in place over dy; dposition[pos[r]] += ds; dgamma, dbeta
   * +=. */
  void (*embed_backward)(m2se_real *dy, m2se_real *dposition, m2se_real *dgamma, m2se_real *dbeta,
                         const m2se_real *xhat, const m2se_real *rstd, const uint32_t *pos,
                         const m2se_real *gamma, size_t rows, size_t n, const struct m2se_dropout *drop,
                         uint64_t first_row);

  /* ---- feed-forward: exact GELU, a = u Phi(u) ---- */
  /* u += bias; a = gelu(u). [rows,n]. */
  void (*gelu_forward)(m2se_real *a, m2se_real *u, const m2se_real *bias, size_t rows, size_t n);
  /* u as gelu_forward left it. da becomes du = da gelu'(u); u becomes gelu(u) again (the product for dW needs
   * it); dbias += column sums of du. */
  void (*gelu_backward)(m2se_real *da, m2se_real *u, m2se_real *dbias, size_t rows, size_t n);

  /* ---- causal multi-head attention of one sequence ---- */
  /* Query r (of nq) sits at position q_pos[r] and sees keys 0..q_pos[r]; q_pos NULL: r itself (nq == len).
   * q [nq, ldq], k and v [len, ldkv], heads side by side, each dh wide. s = q.k / sqrt(dh), p = softmax(s),
   * out [nq, ldo] = dropout(p) v. lse [nq, heads] = log sum exp of s, kept for backward.
   * Dropout index of (query r, head a, key j): ((row_id[r]) * heads + a) * stride + j, row_id[r] = row_ids ?
   * row_ids[r] : first_row + r; stride is a multiple of 16, >= len. scratch: attention_scratch(len_max, dh)
   * elements. */
  void (*attention_forward)(m2se_real *out, size_t ldo, m2se_real *lse, const m2se_real *q, size_t ldq,
                            const m2se_real *k, const m2se_real *v, size_t ldkv, const uint32_t *q_pos,
                            size_t nq, size_t len, size_t heads, size_t dh, const struct m2se_dropout *drop,
                            const uint32_t *row_ids, uint64_t first_row, size_t stride, m2se_real *scratch);
  /* dq [nq, ldq] =, dk and dv [len, ldkv] =, from dout [nq, ldo]; all inputs as in forward, out and lse as it
   * left them. */
  void (*attention_backward)(m2se_real *dq, m2se_real *dk, m2se_real *dv, const m2se_real *dout,
                             const m2se_real *out, size_t ldo, const m2se_real *lse, const m2se_real *q,
                             size_t ldq, const m2se_real *k, const m2se_real *v, size_t ldkv,
                             const uint32_t *q_pos, size_t nq, size_t len, size_t heads, size_t dh,
                             const struct m2se_dropout *drop, const uint32_t *row_ids, uint64_t first_row,
                             size_t stride, m2se_real *scratch);

  /* ---- cosines ---- */
  /* inv[r] = 1 / max(|x_r|, 1e-8); unit_r = x_r inv[r]. x rows of ldx, unit rows of ldu. */
  void (*unit_forward)(m2se_real *unit, size_t ldu, m2se_real *inv, const m2se_real *x, size_t ldx,
                       size_t rows, size_t n);
  /* dx_r = (dunit_r - (dunit_r . unit_r) unit_r) inv[r]; a row with inv >= 1e8 (a zero vector) gets dx =
   * dunit inv. dx may be dunit. */
  void (*unit_backward)(m2se_real *dx, size_t lddx, const m2se_real *dunit, size_t ldd, const m2se_real *unit,
                        size_t ldu, const m2se_real *inv, size_t rows, size_t n);

  /* ---- losses ---- */
  /* NIP's products of a tile of anchors with all candidates. nip_panel: the multiple that h must be of, else,
   * and if it is 0 (the scalar table has none of the four), a general product does the work. logits and grad
   * are [rows, ld], ld >= candidates.
   *   pack        panels = unit [candidates, h] rearranged, ceil(candidates / nip_panel) * nip_panel * h
   * floats logits      logits = m [rows, h] unit^T anchors     dm [rows, h] = grad unit candidates  dunit
   * [candidates, h] += grad^T m */
  size_t nip_panel;
  void (*nip_pack)(m2se_real *panels, const m2se_real *unit, size_t candidates, size_t h);
  void (*nip_logits)(m2se_real *logits, size_t ld, const m2se_real *m, size_t rows, const m2se_real *panels,
                     size_t candidates, size_t h);
  void (*nip_anchors)(m2se_real *dm, const m2se_real *grad, size_t ld, const m2se_real *unit, size_t rows,
                      size_t candidates, size_t h);
  void (*nip_candidates)(m2se_real *dunit, const m2se_real *grad, size_t ld, const m2se_real *m, size_t rows,
                         size_t candidates, size_t h);
  /* One anchor of NIP (model/README.md, Loss and Beyond the paper). l1, l2 [C]: the logits sim/tau of m and
   * m' with each candidate; w [C]: what is added to both (bias - log q, and the logarithm of the count in the
   * `last` objective); y: the anchor's own candidate, for which own_w stands instead of w[y] in both sums.
   * With w_y = own_w:
   *
   *   lse_all = log sum_u (e^{l1_u + w_u} + e^{l2_u + w_u}), lse_own = log(e^{l1_y + w_y} + e^{l2_y + w_y})
   *
   * Returns lse_all - lse_own; l1, l2 become its gradient times g (p_u, minus the own share at y), and, if dw
   * is not NULL, dw[u] += the sum of the two (at y: the gradient of own_w). With C == 1 all are exactly zero.
   */
  m2se_real (*nip_row)(m2se_real *l1, m2se_real *l2, const m2se_real *w, size_t candidates, size_t y,
                       m2se_real own_w, m2se_real g, m2se_real *dw);
  /* lse of row j of the contrast a -> b: over j' of ab[j'] where same-target others are left out, and of
   * aa[j'] where they and j itself are left out. ab, aa: row j of the two products, already divided by tau.
   */
  m2se_real (*cmcl_row_lse)(const m2se_real *ab, const m2se_real *aa, const uint32_t *target, size_t j,
                            size_t n);
  /* The same for b -> a of columns j0..j1-1: ab [n, ldab] is read down its columns, bb [n, ldbb] along rows
   * j0..j1-1. lse[j - j0]. */
  void (*cmcl_column_lse)(m2se_real *lse, const m2se_real *ab, size_t ldab, const m2se_real *bb, size_t ldbb,
                          const uint32_t *target, size_t j0, size_t j1, size_t n);
  /* Row j of the gradients, in place; ab, aa, bb at j':
   *
   *   ab = g (e^{ab - lse_a[j]} + e^{ab - lse_b[j']} - 2 [j' == j])
   *   aa = g (e^{aa - lse_a[j]} + e^{aa - lse_a[j']}), bb alike with lse_b
   *
   * Left-out entries (and j' == j in aa, bb) become 0. */
  void (*cmcl_grad_row)(m2se_real *ab, m2se_real *aa, m2se_real *bb, const m2se_real *lse_a,
                        const m2se_real *lse_b, const uint32_t *target, size_t j, size_t n, m2se_real g);

  /* ---- finished models (encoder/): nothing is kept for a backward pass; [rows,n] each ---- */
  /* x += sub + bias; y = LayerNorm(x) gamma + beta. sub NULL (then bias is not read): x stays as it is. y may
   * be x. */
  void (*norm_infer)(m2se_real *y, m2se_real *x, const m2se_real *sub, const m2se_real *bias,
                     const m2se_real *gamma, const m2se_real *beta, size_t rows, size_t n, m2se_real eps);
  /* u = gelu(u + bias), the exact one. */
  void (*gelu_infer)(m2se_real *u, const m2se_real *bias, size_t rows, size_t n);
  /* u = t / (1 + e^(-1.702 t)), t = u + bias: CLIP's GELU. */
  void (*quick_gelu_infer)(m2se_real *u, const m2se_real *bias, size_t rows, size_t n);

  /* ---- optimiser ---- */
  /* g' = g * clip; m = b1 m + (1 - b1) g'; v = b2 v + (1 - b2) g'^2; p -= lr (m / c1) / (sqrt(v / c2) + eps).
   */
  void (*adam)(m2se_real *p, m2se_real *m, m2se_real *v, const m2se_real *g, size_t n, m2se_real clip,
               m2se_real lr, m2se_real b1, m2se_real b2, m2se_real c1, m2se_real c2, m2se_real eps);
};

/* Elements of scratch that attention_forward / attention_backward need for sequences up to len_max. */
size_t m2se_attention_scratch(size_t len_max, size_t dh);

/* The best table this CPU can run; never NULL. */
const struct m2se_kernels *m2se_kernels_best(void);
/* By name; NULL if unknown or this CPU cannot run it. */
const struct m2se_kernels *m2se_kernels_named(const char *name);
const struct m2se_kernels *m2se_kernels_scalar(void);

#endif
