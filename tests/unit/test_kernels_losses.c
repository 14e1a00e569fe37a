/* NIP and CMCL rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above first */
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "test_kernels.h"

void test_nip(void **state) {
  (void)state;
  for (size_t i = 0; i < WIDTHS; i++)
    for (int with_dw = 0; with_dw < 2; with_dw++) {
      const size_t c = widths[i], y = c / 3;
      struct pair l1 = pair_new(c, 14), l2 = pair_new(c, 14), w = pair_new(c, 3), dw = pair_new(c, 1);
      struct pair loss = pair_new(1, 0);
      loss.got[0] = k->nip_row(l1.got, l2.got, w.got, c, y, 0.5f, 0.1f, with_dw ? dw.got : NULL);
      loss.want[0] = scalar->nip_row(l1.want, l2.want, w.want, c, y, 0.5f, 0.1f, with_dw ? dw.want : NULL);
      pair_check(loss, 2e-6f, "loss");
      pair_check(l1, 2e-7f, "dl1");
      pair_check(l2, 2e-7f, "dl2");
      pair_check(w, 0, "w");
      pair_check(dw, 5e-7f, "dw");
    }
}

/* One candidate has nothing to be told from: exactly no loss and no gradient, whatever the numbers. */
void test_nip_alone(void **state) {
  (void)state;
  for (int i = 0; i < 200; i++) {
    float l1 = 15 * data_number(), l2 = 15 * data_number(), w = 3 * data_number(), dw = 0.25f;
    assert_true(k->nip_row(&l1, &l2, &w, 1, 0, 3 * data_number(), 0.3f, &dw) == 0);
    assert_true(l1 == 0 && l2 == 0 && dw == 0.25f);
  }
}

/* Logits far apart, and a broken one, which must not be hidden. */
void test_nip_extremes(void **state) {
  (void)state;
  float l1[20] = {0}, l2[20] = {0}, w[20] = {0};
  l1[0] = 300;
  l1[3] = -300;
  l2[3] = -310;
  const float loss = k->nip_row(l1, l2, w, 20, 3, 0, 1, NULL);
  assert_true(fabsf(loss - 600) < 1e-3f);
  assert_true(fabsf(l1[0] - 1) < 1e-6f && fabsf(l1[3] + 1) < 1e-4f && isfinite(l2[3]));
  float bad[20] = {0};
  bad[11] = NAN;
  assert_true(isnan(k->nip_row(bad, l2, w, 20, 3, 0, 1, NULL)));
}

/* The plain sums that NIP's three products stand for; every shape has a rest in rows, candidates or both. */
static void plain_products(const struct pair *logits, const struct pair *dm, const struct pair *dunit,
                           const float *m, const float *unit, const float *grad, const size_t shape[3]) {
  const size_t rows = shape[0], candidates = shape[1], h = shape[2];
  for (size_t r = 0; r < rows; r++)
    for (size_t x = 0; x < h; x++)
      dm->want[r * h + x] = 0; /* overwritten; dunit is added to */
  for (size_t r = 0; r < rows; r++)
    for (size_t c = 0; c < candidates; c++) {
      double sum = 0;
      for (size_t x = 0; x < h; x++) {
        sum += (double)m[r * h + x] * unit[c * h + x];
        dm->want[r * h + x] += grad[r * (candidates + 3) + c] * unit[c * h + x];
        dunit->want[c * h + x] += grad[r * (candidates + 3) + c] * m[r * h + x];
      }
      logits->want[r * (candidates + 3) + c] = (float)sum;
    }
}

void test_nip_products(void **state) {
  (void)state;
  static const size_t shapes[][3] = {{1, 1, 1}, {4, 16, 1}, {6, 33, 2}, {64, 300, 2}, {7, 129, 4}, {3, 2, 3}};
  for (size_t i = 0; i < COUNT(shapes) && k->nip_panel; i++) {
    const size_t shape[3] = {shapes[i][0], shapes[i][1], shapes[i][2] * k->nip_panel};
    const size_t rows = shape[0], n = shape[1], h = shape[2], ld = n + 3;
    const size_t panels_size = (n + k->nip_panel - 1) / k->nip_panel * k->nip_panel * h;
    float *m = data_new(rows * h, 1), *unit = data_new(n * h, 1), *grad = data_new(rows * ld, 1);
    float *panels = data_new(panels_size, 1);
    struct pair logits = pair_new(rows * ld, 1), dm = pair_new(rows * h, 1), dunit = pair_new(n * h, 1);
    plain_products(&logits, &dm, &dunit, m, unit, grad, shape);
    k->nip_pack(panels, unit, n, h);
    k->nip_logits(logits.got, ld, m, rows, panels, n, h);
    k->nip_anchors(dm.got, grad, ld, unit, rows, n, h);
    k->nip_candidates(dunit.got, grad, ld, m, rows, n, h);
    pair_check(logits, 2e-5f, "logits");
    pair_check(dm, 2e-5f, "dm");
    pair_check(dunit, 2e-5f, "dunit");
    data_free(m, rows * h);
    data_free(unit, n * h);
    data_free(grad, rows * ld);
    data_free(panels, panels_size);
  }
}

struct contrast {
  size_t n, ld;
  struct pair ab, aa, bb, lse_a, lse_b;
  uint32_t *target;
};

static struct contrast contrast_new(size_t n, uint32_t targets) {
  struct contrast c = {.n = n, .ld = n + 5};
  c.ab = pair_new(n * c.ld, 12);
  c.aa = pair_new(n * c.ld, 12);
  c.bb = pair_new(n * c.ld, 12);
  c.lse_a = pair_new(n, 0);
  c.lse_b = pair_new(n, 0);
  c.target = malloc(n * sizeof(*c.target));
  assert_non_null(c.target);
  for (size_t i = 0; i < n; i++)
    c.target[i] = data_next() % targets;
  return c;
}

/* Norms with the table under test, columns in two parts. */
static void contrast_norms(struct contrast *c) {
  for (size_t j = 0; j < c->n; j++)
    c->lse_a.got[j] = k->cmcl_row_lse(c->ab.got + j * c->ld, c->aa.got + j * c->ld, c->target, j, c->n);
  const size_t cut = c->n / 3;
  k->cmcl_column_lse(c->lse_b.got, c->ab.got, c->ld, c->bb.got, c->ld, c->target, 0, cut, c->n);
  k->cmcl_column_lse(c->lse_b.got + cut, c->ab.got, c->ld, c->bb.got, c->ld, c->target, cut, c->n, c->n);
}

void test_cmcl(void **state) {
  (void)state;
  for (size_t i = 0; i < WIDTHS; i++) {
    const size_t n = widths[i];
    struct contrast c = contrast_new(n, (uint32_t)n / 2 + 1);
    contrast_norms(&c);
    for (size_t j = 0; j < n; j++)
      c.lse_a.want[j] = scalar->cmcl_row_lse(c.ab.want + j * c.ld, c.aa.want + j * c.ld, c.target, j, n);
    scalar->cmcl_column_lse(c.lse_b.want, c.ab.want, c.ld, c.bb.want, c.ld, c.target, 0, n, n);
    struct pair whole = {.got = data_new(n, 0), .want = data_copy(c.lse_b.got, n), .n = n};
    k->cmcl_column_lse(whole.got, c.ab.got, c.ld, c.bb.got, c.ld, c.target, 0, n, n);
    pair_check_bits(whole, "lse_b in one call and in two");
    for (size_t j = 0; j < n; j++) {
      const size_t at = j * c.ld;
      k->cmcl_grad_row(c.ab.got + at, c.aa.got + at, c.bb.got + at, c.lse_a.got, c.lse_b.got, c.target, j, n,
                       0.1f);
      scalar->cmcl_grad_row(c.ab.want + at, c.aa.want + at, c.bb.want + at, c.lse_a.want, c.lse_b.want,
                            c.target, j, n, 0.1f);
    }
    pair_check(c.ab, 1e-6f, "dab");
    pair_check(c.aa, 1e-6f, "daa");
    pair_check(c.bb, 1e-6f, "dbb");
    pair_check(c.lse_a, 1e-6f, "lse_a");
    pair_check(c.lse_b, 1e-6f, "lse_b");
    free(c.target);
  }
}

/* All examples share one target: nothing to contrast with, exactly no loss and no gradient. */
void test_cmcl_alone(void **state) {
  (void)state;
  for (size_t i = 0; i < WIDTHS; i++) {
    const size_t n = widths[i];
    struct contrast c = contrast_new(n, 1);
    contrast_norms(&c);
    for (size_t j = 0; j < n; j++) {
      const size_t at = j * c.ld;
      assert_true(c.lse_a.got[j] == c.ab.got[at + j]);
      assert_true(c.lse_b.got[j] == c.ab.got[at + j]);
      k->cmcl_grad_row(c.ab.got + at, c.aa.got + at, c.bb.got + at, c.lse_a.got, c.lse_b.got, c.target, j, n,
                       0.1f);
      for (size_t u = 0; u < n; u++)
        assert_true(c.ab.got[at + u] == 0 && c.aa.got[at + u] == 0 && c.bb.got[at + u] == 0);
    }
    free(c.target);
    struct pair *all[] = {&c.ab, &c.aa, &c.bb, &c.lse_a, &c.lse_b};
    for (size_t u = 0; u < COUNT(all); u++) {
      data_free(all[u]->got, all[u]->n);
      data_free(all[u]->want, all[u]->n);
    }
  }
}
