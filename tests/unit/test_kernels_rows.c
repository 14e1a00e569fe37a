/* GELU, LayerNorm with its surroundings, attention; and the division of rows over calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above first */
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "test_kernels.h"

void test_gelu(void **state) {
  (void)state;
  for (size_t i = 0; i < WIDTHS; i++) {
    const size_t n = widths[i], rows = 5;
    struct pair a = pair_new(rows * n, 1), u = pair_new(rows * n, 3), bias = pair_new(n, 1);
    struct pair da = pair_new(rows * n, 1), dbias = pair_new(n, 1);
    k->gelu_forward(a.got, u.got, bias.got, rows, n);
    scalar->gelu_forward(a.want, u.want, bias.want, rows, n);
    k->gelu_backward(da.got, u.got, dbias.got, rows, n);
    scalar->gelu_backward(da.want, u.want, dbias.want, rows, n);
    pair_check(a, 5e-7f, "a");
    pair_check(u, 5e-7f, "u");
    pair_check(da, 5e-7f, "da");
    pair_check(dbias, 2e-6f, "dbias");
    pair_check(bias, 0, "bias");
  }
}

void test_inference(void **state) {
  (void)state;
  for (size_t i = 0; i < WIDTHS; i++)
    for (int form = 0; form < 3; form++) { /* sum kept; y over x; nothing added */
      const size_t n = widths[i], rows = 5;
      struct pair x = pair_new(rows * n, 3), y = pair_new(rows * n, 1), sub = pair_new(rows * n, 1);
      struct pair bias = pair_new(n, 1), gamma = pair_new(n, 1), beta = pair_new(n, 1);
      struct pair erf = pair_new(rows * n, 6), quick = pair_new(rows * n, 6);
      struct pair *out = form == 1 ? &x : &y;
      k->norm_infer(out->got, x.got, form == 2 ? NULL : sub.got, bias.got, gamma.got, beta.got, rows, n,
                    1e-2f);
      scalar->norm_infer(out->want, x.want, form == 2 ? NULL : sub.want, bias.want, gamma.want, beta.want,
                         rows, n, 1e-2f);
      k->gelu_infer(erf.got, bias.got, rows, n);
      scalar->gelu_infer(erf.want, bias.want, rows, n);
      k->quick_gelu_infer(quick.got, bias.got, rows, n);
      scalar->quick_gelu_infer(quick.want, bias.want, rows, n);
      pair_check(x, 2e-5f, "sum");
      pair_check(y, 2e-5f, "norm");
      pair_check(erf, 5e-7f, "gelu");
      pair_check(quick, 1e-6f, "quick gelu");
      pair_check(sub, 0, "sub");
      pair_check(bias, 0, "bias");
      pair_check(gamma, 0, "gamma");
      pair_check(beta, 0, "beta");
    }
}

/* ---- LayerNorm and its surroundings ---- */
void test_experts(void **state) {
  (void)state;
  const struct m2se_dropout drop = data_dropout(0.2);
  const size_t shapes[][2] = {{1, 64}, {8, 64}, {3, 5}, {5, 13}, {8, 24}, {17, 100}, {70, 3}, {2, 1}};
  for (size_t s = 0; s < COUNT(shapes); s++) {
    const size_t o = shapes[s][0], h = shapes[s][1], rows = 6, width = o * h;
    /* One column only has no variance: a larger eps keeps 1 / sqrt(eps) comparable. */
    const float eps = h == 1 ? 1.0f : 1e-12f;
    struct pair z = pair_new(rows * h, 1), rstd = pair_new(rows * o, 1), y = pair_new(rows * (width + o), 1);
    struct pair bias = pair_new(width, 1), gamma = pair_new(width, 1), beta = pair_new(width, 1);
    struct pair dbias = pair_new(width, 1), dgamma = pair_new(width, 1), dbeta = pair_new(width, 1);
    struct pair dz = pair_new(rows * h, 1);
    k->experts_forward(z.got, rstd.got, y.got, bias.got, gamma.got, beta.got, rows, o, h, eps, &drop, 1001);
    scalar->experts_forward(z.want, rstd.want, y.want, bias.want, gamma.want, beta.want, rows, o, h, eps,
                            &drop, 1001);
    pair_check(z, 2e-5f, "z");
    struct pair xhat = {.got = data_copy(y.got, y.n), .want = data_copy(y.want, y.n), .n = y.n};
    pair_check(xhat, 2e-5f, "xhat and gates");
    /* From the same place on: a small variance makes rstd, and with it any difference so far, large. */
    memcpy(y.got, y.want, y.n * sizeof(float));
    struct pair root = {
        .got = data_copy(rstd.got, rstd.n), .want = data_copy(rstd.want, rstd.n), .n = rstd.n};
    pair_check(root, 2e-5f, "rstd");
    memcpy(rstd.got, rstd.want, rstd.n * sizeof(float));
    k->experts_backward(y.got, dbias.got, dgamma.got, dbeta.got, dz.got, rstd.got, gamma.got, beta.got, rows,
                        o, h, &drop, 1001);
    scalar->experts_backward(y.want, dbias.want, dgamma.want, dbeta.want, dz.want, rstd.want, gamma.want,
                             beta.want, rows, o, h, &drop, 1001);
    pair_check(y, 1e-5f, "dY");
    pair_check(dbias, 1e-5f, "dbias");
    pair_check(dgamma, 1e-5f, "dgamma");
    pair_check(dbeta, 1e-5f, "dbeta");
    pair_check(rstd, 0, "rstd");
    pair_check(bias, 0, "bias");
    pair_check(gamma, 0, "gamma");
    pair_check(beta, 0, "beta");
    pair_check(dz, 0, "dz");
  }
}

void test_addnorm(void **state) {
  (void)state;
  const struct m2se_dropout drop = data_dropout(0.2);
  const uint32_t ids[6] = {3, 1, 4, 1000000, 5, 9};
  for (size_t i = 1; i < WIDTHS; i++)
    for (int form = 0; form < 3;
         form++) { /* apart; y over residual and xhat over sub; y over sub, with row ids */
      const size_t n = widths[i], rows = 6;
      const uint32_t *row_ids = form == 2 ? ids : NULL;
      struct pair res = pair_new(rows * n, 1), sub = pair_new(rows * n, 1), y = pair_new(rows * n, 1);
      struct pair xhat = pair_new(rows * n, 1), rstd = pair_new(rows, 1), bias = pair_new(n, 1);
      struct pair gamma = pair_new(n, 1), beta = pair_new(n, 1), dbias = pair_new(n, 1),
                  dgamma = pair_new(n, 1);
      struct pair dbeta = pair_new(n, 1), dres = pair_new(rows * n, 1), dsub = pair_new(rows * n, 1);
      struct pair *out = form == 0 ? &y : form == 1 ? &res : &sub;
      struct pair *normal = form == 1 ? &sub : &xhat;
      k->addnorm_forward(out->got, normal->got, rstd.got, sub.got, bias.got, res.got, gamma.got, beta.got,
                         rows, n, 1e-2f, &drop, row_ids, 77);
      scalar->addnorm_forward(out->want, normal->want, rstd.want, sub.want, bias.want, res.want, gamma.want,
                              beta.want, rows, n, 1e-2f, &drop, row_ids, 77);
      struct pair *dy = form == 0 ? &y : &dres; /* dresidual may be dy */
      k->addnorm_backward(dres.got, dsub.got, dgamma.got, dbeta.got, dbias.got, dy->got, normal->got,
                          rstd.got, gamma.got, rows, n, &drop, row_ids, 77);
      scalar->addnorm_backward(dres.want, dsub.want, dgamma.want, dbeta.want, dbias.want, dy->want,
                               normal->want, rstd.want, gamma.want, rows, n, &drop, row_ids, 77);
      pair_check(res, 2e-5f, "residual or y");
      pair_check(sub, 2e-5f, "sub or xhat or y");
      pair_check(y, 2e-5f, "y");
      pair_check(xhat, 2e-5f, "xhat");
      pair_check(rstd, 2e-6f, "rstd");
      pair_check(dres, 5e-5f, "dresidual");
      pair_check(dsub, 5e-5f, "dsub");
      pair_check(dgamma, 5e-5f, "dgamma");
      pair_check(dbeta, 5e-5f, "dbeta");
      pair_check(dbias, 5e-5f, "dbias");
      pair_check(bias, 0, "bias");
      pair_check(gamma, 0, "gamma");
      pair_check(beta, 0, "beta");
    }
}

void test_embed(void **state) {
  (void)state;
  const struct m2se_dropout drop = data_dropout(0.2);
  const uint32_t pos[6] = {2, 0, 1, 0, 2, 2};
  for (size_t i = 1; i < WIDTHS; i++) {
    const size_t n = widths[i], rows = 6;
    struct pair z = pair_new(rows * n, 1), place = pair_new(3 * n, 1), y = pair_new(rows * n, 1);
    struct pair xhat = pair_new(rows * n, 1), rstd = pair_new(rows, 1), gamma = pair_new(n, 1),
                beta = pair_new(n, 1);
    struct pair dplace = pair_new(3 * n, 1), dgamma = pair_new(n, 1), dbeta = pair_new(n, 1);
    const float *rows_got[6], *rows_want[6];
    for (size_t r = 0; r < rows; r++) {
      rows_got[r] = z.got + (5 - r) * n;
      rows_want[r] = z.want + (5 - r) * n;
    }
    k->embed_forward(y.got, xhat.got, rstd.got, rows_got, pos, place.got, gamma.got, beta.got, rows, n, 1e-2f,
                     &drop, 3);
    scalar->embed_forward(y.want, xhat.want, rstd.want, rows_want, pos, place.want, gamma.want, beta.want,
                          rows, n, 1e-2f, &drop, 3);
    struct pair forward = {.got = data_copy(y.got, y.n), .want = data_copy(y.want, y.n), .n = y.n};
    pair_check(forward, 2e-5f, "y");
    k->embed_backward(y.got, dplace.got, dgamma.got, dbeta.got, xhat.got, rstd.got, pos, gamma.got, rows, n,
                      &drop, 3);
    scalar->embed_backward(y.want, dplace.want, dgamma.want, dbeta.want, xhat.want, rstd.want, pos,
                           gamma.want, rows, n, &drop, 3);
    pair_check(y, 5e-5f, "ds");
    pair_check(dplace, 5e-5f, "dposition");
    pair_check(dgamma, 5e-5f, "dgamma");
    pair_check(dbeta, 5e-5f, "dbeta");
    pair_check(xhat, 2e-5f, "xhat");
    pair_check(rstd, 2e-6f, "rstd");
    pair_check(z, 0, "z");
    pair_check(place, 0, "position");
    pair_check(gamma, 0, "gamma");
    pair_check(beta, 0, "beta");
  }
}

/* ---- attention ---- */
static void compare_attention(size_t len, size_t heads, size_t dh, const uint32_t *q_pos,
                              const uint32_t *row_ids, size_t nq, double p) {
  const struct m2se_dropout drop = data_dropout(p);
  const size_t width = heads * dh, ldq = width + 1, ldkv = 2 * width + 3, ldo = width + 2, stride = 64;
  const size_t scratch_n = m2se_attention_scratch(len, dh);
  struct pair q = pair_new(nq * ldq, 1), key = pair_new(len * ldkv, 1), v = pair_new(len * ldkv, 1);
  struct pair out = pair_new(nq * ldo, 1), lse = pair_new(nq * heads, 1), dout = pair_new(nq * ldo, 1);
  struct pair dq = pair_new(nq * ldq, 1), dk = pair_new(len * ldkv, 1), dv = pair_new(len * ldkv, 1);
  float *scratch = data_new(scratch_n, 1);
  k->attention_forward(out.got, ldo, lse.got, q.got, ldq, key.got, v.got, ldkv, q_pos, nq, len, heads, dh,
                       &drop, row_ids, 21, stride, scratch);
  scalar->attention_forward(out.want, ldo, lse.want, q.want, ldq, key.want, v.want, ldkv, q_pos, nq, len,
                            heads, dh, &drop, row_ids, 21, stride, scratch);
  k->attention_backward(dq.got, dk.got, dv.got, dout.got, out.got, ldo, lse.got, q.got, ldq, key.got, v.got,
                        ldkv, q_pos, nq, len, heads, dh, &drop, row_ids, 21, stride, scratch);
  scalar->attention_backward(dq.want, dk.want, dv.want, dout.want, out.want, ldo, lse.want, q.want, ldq,
                             key.want, v.want, ldkv, q_pos, nq, len, heads, dh, &drop, row_ids, 21, stride,
                             scratch);
  pair_check(out, 3e-6f, "out");
  pair_check(lse, 3e-6f, "lse");
  pair_check(dq, 5e-6f, "dq");
  pair_check(dk, 5e-6f, "dk");
  pair_check(dv, 5e-6f, "dv");
  pair_check(q, 0, "q");
  pair_check(key, 0, "k");
  pair_check(v, 0, "v");
  pair_check(dout, 0, "dout");
  data_free(scratch, scratch_n);
}

void test_attention(void **state) {
  (void)state;
  const size_t shapes[][2] = {{2, 32}, {1, 64}, {4, 16}, {3, 5}, {1, 3}, {5, 13}, {2, 8}, {1, 100}, {8, 24}};
  const size_t lengths[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 50, 64};
  for (size_t s = 0; s < COUNT(shapes); s++)
    for (size_t i = 0; i < COUNT(lengths); i++)
      compare_attention(lengths[i], shapes[s][0], shapes[s][1], NULL, NULL, lengths[i], i % 2 ? 0.2 : 0);
  const uint32_t some[] = {3, 0, 17, 16, 9, 9};
  const uint32_t ids[] = {100, 7, 2000000000, 3, 8, 1};
  compare_attention(18, 2, 32, some, NULL, COUNT(some), 0.2);
  compare_attention(18, 3, 5, some, ids, COUNT(some), 0.2);
  const uint32_t last[] = {49};
  compare_attention(50, 2, 32, last, ids, 1, 0.5);
}

/* ---- the same bits for any division of the rows ---- */
/* Runs on rows 0..cut-1 and cut..rows-1, on buffers that are shifted by one element against each other. */
static void check_division(size_t rows, size_t cut, size_t n, size_t experts) {
  const struct m2se_dropout drop = data_dropout(0.2);
  const size_t width = experts * n;
  struct pair y = pair_new(rows * (width + experts), 1), z = pair_new(rows * n, 1),
              rstd = pair_new(rows * experts, 1);
  struct pair v[11]; /* bias, gamma, beta; then the sums over rows */
  for (size_t i = 0; i < COUNT(v); i++)
    v[i] = pair_new(width, 1);
  struct pair a = pair_new(rows * n, 1), b = pair_new(rows * n, 1), c = pair_new(rows * n, 1),
              d = pair_new(rows * n, 1);
  for (int side = 0; side < 2; side++) {
    /* the one side in one call, the other in two */
#define SIDE(p) (side ? (p).want : (p).got)
    const size_t parts[3] = {0, side ? cut : rows, rows};
    for (int part = 0; part < 1 + side; part++) {
      const size_t r = parts[part], m = parts[part + 1] - r;
      k->experts_forward(SIDE(z) + r * n, SIDE(rstd) + r * experts, SIDE(y) + r * (width + experts),
                         SIDE(v[0]), SIDE(v[1]), SIDE(v[2]), m, experts, n, 1e-12f, &drop, 5 + r);
      k->addnorm_forward(SIDE(a) + r * n, SIDE(b) + r * n, SIDE(c) + r, SIDE(z) + r * n, SIDE(v[0]),
                         SIDE(d) + r * n, SIDE(v[1]), SIDE(v[2]), m, n, 1e-12f, &drop, NULL, 9 + r);
      k->gelu_forward(SIDE(d) + r * n, SIDE(a) + r * n, SIDE(v[0]), m, n);
    }
    for (int part = 0; part < 1 + side; part++) {
      const size_t r = parts[part], m = parts[part + 1] - r;
      k->gelu_backward(SIDE(d) + r * n, SIDE(a) + r * n, SIDE(v[3]), m, n);
      k->addnorm_backward(SIDE(d) + r * n, SIDE(a) + r * n, SIDE(v[4]), SIDE(v[5]), SIDE(v[6]),
                          SIDE(d) + r * n, SIDE(b) + r * n, SIDE(c) + r, SIDE(v[1]), m, n, &drop, NULL,
                          9 + r);
      k->experts_backward(SIDE(y) + r * (width + experts), SIDE(v[7]), SIDE(v[8]), SIDE(v[9]),
                          SIDE(a) + r * n, SIDE(rstd) + r * experts, SIDE(v[1]), SIDE(v[2]), m, experts, n,
                          &drop, 5 + r);
      k->column_sum(SIDE(v[10]), SIDE(d) + r * n, n, m, n);
    }
#undef SIDE
  }
  pair_check_bits(y, "experts");
  pair_check_bits(z, "z");
  pair_check_bits(rstd, "rstd");
  for (size_t i = 0; i < COUNT(v); i++)
    pair_check_bits(v[i], "sums over rows");
  pair_check_bits(a, "a");
  pair_check_bits(b, "b");
  pair_check_bits(c, "c");
  pair_check_bits(d, "d");
}

void test_division_of_rows(void **state) {
  (void)state;
  for (size_t i = 1; i < WIDTHS; i++)
    check_division(9, 4, widths[i], 3);
}
