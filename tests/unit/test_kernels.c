/* Every vector table against the scalar one: odd widths, row lengths that leave a tail, watched buffers; the
 * same bits however the rows are cut up; and the cases whose result must be exact. Whether the scalar table's
 * gradients are right is the business of test_kernels_double.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above first */
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test_kernels.h"

#ifdef __x86_64__
const struct m2se_kernels *m2se_kernels_wide(void); /* 16 lanes without AVX-512: built for this test */
#endif

const struct m2se_kernels *k;
const struct m2se_kernels *scalar;

struct pair pair_new(size_t n, float scale) {
  struct pair p = {.got = data_new(n, scale), .n = n};
  p.want = data_copy(p.got, n);
  return p;
}

void pair_check(struct pair p, float tolerance, const char *what) {
  for (size_t i = 0; i < p.n; i++)
    if (!(fabsf(p.got[i] - p.want[i]) <= tolerance * (1 + fabsf(p.want[i]))))
      fail_msg("%s %s[%zu of %zu]: %.9g, expected %.9g", k->name, what, i, p.n, (double)p.got[i],
               (double)p.want[i]);
  data_free(p.got, p.n);
  data_free(p.want, p.n);
}

void pair_check_bits(struct pair p, const char *what) {
  for (size_t i = 0; i < p.n; i++)
    if (memcmp(p.got + i, p.want + i, sizeof(float)) != 0)
      fail_msg("%s %s[%zu of %zu]: %.9g, expected exactly %.9g", k->name, what, i, p.n, (double)p.got[i],
               (double)p.want[i]);
  data_free(p.got, p.n);
  data_free(p.want, p.n);
}

const size_t widths[WIDTHS] = {1,  2,  3,  5,  7,  8,  9,  13,  15,  16,  17,
                               24, 31, 32, 33, 63, 64, 65, 100, 128, 131, 256};

/* ---- randomness ---- */
static void test_threefry_known_answers(void **state) {
  (void)state;
  /* The first is a published vector of Random123 (threefry4x32, 20 rounds); the others are what that library
   * gives for the patterns of its other vectors with the last counter word 0, as it always is here. */
  static const struct {
    struct m2se_stream stream;
    uint64_t block;
    uint32_t words[4];
  } known[] = {
      {{{0, 0, 0, 0}, 0}, 0, {0x9c6ca96a, 0xe17eae66, 0xfc10ecd4, 0x5256a7d8}},
      {{{~0u, ~0u, ~0u, ~0u}, ~0u}, ~0ull, {0xf148720e, 0x6182cf79, 0xdf54f98a, 0xc06124f5}},
      {{{0xa4093822, 0x299f31d0, 0x082efa98, 0xec4e6c89}, 0x13198a2e},
       0x85a308d3243f6a88ull,
       {0x08c622a7, 0x4f8ebb10, 0x74ebcee7, 0x3612fa6d}},
  };
  for (size_t i = 0; i < COUNT(known); i++) {
    uint32_t out[4];
    k->random_blocks(out, &known[i].stream, known[i].block, 1);
    assert_memory_equal(out, known[i].words, sizeof(out));
  }
}

static void test_random_blocks(void **state) {
  (void)state;
  const struct m2se_stream stream = {.key = {1, 2, 3, 4}, .purpose = 9};
  const uint64_t firsts[] = {0, 5, (1ull << 32) - 7, ~0ull - 30};
  for (size_t f = 0; f < COUNT(firsts); f++)
    for (size_t n = 1; n <= 37; n += 6) {
      uint32_t got[4 * 37 + 1], want[4 * 37];
      got[4 * n] = 4711;
      k->random_blocks(got, &stream, firsts[f], n);
      for (size_t i = 0; i < n; i++)
        scalar->random_blocks(want + 4 * i, &stream, firsts[f] + i, 1);
      assert_memory_equal(got, want, 16 * n);
      assert_int_equal(got[4 * n], 4711);
    }
}

static void test_dropout(void **state) {
  (void)state;
  const struct m2se_dropout drop = data_dropout(0.2);
  const uint64_t firsts[] = {0, 1, 15, 16, 100, 127, 128, 200, (1ull << 39) - 3};
  for (size_t f = 0; f < COUNT(firsts); f++)
    for (size_t i = 0; i < WIDTHS; i++) {
      struct pair x = pair_new(widths[i], 3);
      k->dropout(x.got, x.n, &drop, firsts[f]);
      scalar->dropout(x.want, x.n, &drop, firsts[f]);
      pair_check_bits(x, "dropout");
    }
  /* 0.2 of the elements go, whatever they were; the others are scaled. */
  enum { N = 100000 };
  float *x = data_new(N, 0);
  for (size_t i = 0; i < N; i++)
    x[i] = i % 2 ? INFINITY : 1;
  k->dropout(x, N, &drop, 12345);
  size_t gone = 0;
  for (size_t i = 0; i < N; i++) {
    assert_true(x[i] == 0 || x[i] == (i % 2 ? INFINITY : drop.scale));
    gone += x[i] == 0;
  }
  assert_in_range(gone, N / 5 - N / 100, N / 5 + N / 100);
  data_free(x, N);

  const struct m2se_dropout none = data_dropout(0);
  struct pair same = pair_new(100, 1);
  k->dropout(same.got, same.n, &none, 3);
  pair_check_bits(same, "no dropout");
}

/* ---- plain vectors ---- */
static void test_vectors(void **state) {
  (void)state;
  for (size_t i = 0; i < WIDTHS; i++) {
    const size_t n = widths[i], rows = 7, ld = n + 3;
    struct pair x = pair_new(n, 1), y = pair_new(n, 1), m = pair_new(rows * ld, 1);
    struct pair sum = pair_new(1, 0);
    sum.got[0] = k->dot(x.got, y.got, n);
    sum.want[0] = scalar->dot(x.want, y.want, n);
    pair_check(sum, 3e-6f, "dot");
    assert_true(fabs(k->sum_squares(x.got, n) - scalar->sum_squares(x.want, n)) <= 1e-12 * (double)n);
    k->axpy(y.got, 0.3f, x.got, n);
    scalar->axpy(y.want, 0.3f, x.want, n);
    k->add(y.got, x.got, n);
    scalar->add(y.want, x.want, n);
    k->add_bias(m.got, ld, x.got, rows, n);
    scalar->add_bias(m.want, ld, x.want, rows, n);
    k->column_sum(y.got, m.got, ld, rows, n);
    scalar->column_sum(y.want, m.want, ld, rows, n);
    pair_check(x, 0, "x");
    pair_check(y, 3e-7f, "axpy, add, column_sum");
    pair_check(m, 0, "add_bias");
  }
  float bad[19] = {0};
  bad[18] = NAN;
  assert_false(isfinite(k->sum_squares(bad, 19)));
  bad[18] = -INFINITY;
  assert_false(isfinite(k->sum_squares(bad, 19)));
}

static void test_adam(void **state) {
  (void)state;
  for (size_t i = 0; i < WIDTHS; i++) {
    const size_t n = widths[i];
    struct pair p = pair_new(n, 1), m = pair_new(n, 1), v = pair_new(n, 1), g = pair_new(n, 1);
    for (size_t j = 0; j < n; j++)
      v.got[j] = v.want[j] = fabsf(v.want[j]);
    k->adam(p.got, m.got, v.got, g.got, n, 0.5f, 1e-2f, 0.9f, 0.999f, 0.1f, 0.001f, 1e-8f);
    scalar->adam(p.want, m.want, v.want, g.want, n, 0.5f, 1e-2f, 0.9f, 0.999f, 0.1f, 0.001f, 1e-8f);
    pair_check(p, 1e-6f, "p");
    pair_check(m, 3e-7f, "m");
    pair_check(v, 3e-7f, "v");
    pair_check(g, 0, "g");
  }
}

static void test_pool(void **state) {
  (void)state;
  const size_t counts[] = {1, 2, 5, 15, 16, 17, 70};
  const size_t dims[] = {3, 64, 100, 384, 768};
  for (size_t c = 0; c < COUNT(counts); c++)
    for (size_t i = 0; i < COUNT(dims); i++) {
      const size_t count = counts[c], d = dims[i];
      struct pair e = pair_new(d, 1), alpha = pair_new(count, 1), rows = pair_new(count * d, 1);
      struct pair w = pair_new(d, 0.3f), de = pair_new(d, 0.3f), dw = pair_new(d, 1);
      k->pool_forward(e.got, alpha.got, rows.got, count, d, w.got);
      scalar->pool_forward(e.want, alpha.want, rows.want, count, d, w.want);
      k->pool_backward(dw.got, rows.got, alpha.got, de.got, count, d);
      scalar->pool_backward(dw.want, rows.want, alpha.want, de.want, count, d);
      pair_check(e, 5e-6f, "e");
      pair_check(alpha, 5e-6f, "alpha");
      pair_check(dw, 1e-5f, "dw");
      pair_check(rows, 0, "rows");
      pair_check(w, 0, "w");
      pair_check(de, 0, "de");
    }
}

static void test_unit(void **state) {
  (void)state;
  for (size_t i = 0; i < WIDTHS; i++) {
    const size_t n = widths[i], rows = 5, ldx = n + 1, ldu = n + 2, ldd = n + 5;
    struct pair x = pair_new(rows * ldx, 2), u = pair_new(rows * ldu, 1), inv = pair_new(rows, 1);
    struct pair du = pair_new(rows * ldd, 1), dx = pair_new(rows * ldx, 1);
    for (size_t j = 0; j < n; j++)
      x.got[2 * ldx + j] = x.want[2 * ldx + j] = 0;
    k->unit_forward(u.got, ldu, inv.got, x.got, ldx, rows, n);
    scalar->unit_forward(u.want, ldu, inv.want, x.want, ldx, rows, n);
    assert_true(inv.got[2] == 1e8f);
    for (size_t j = 0; j < n; j++)
      assert_true(u.got[2 * ldu + j] == 0);
    k->unit_backward(dx.got, ldx, du.got, ldd, u.got, ldu, inv.got, rows, n);
    scalar->unit_backward(dx.want, ldx, du.want, ldd, u.want, ldu, inv.want, rows, n);
    k->unit_backward(du.got, ldd, du.got, ldd, u.got, ldu, inv.got, rows, n); /* in place */
    scalar->unit_backward(du.want, ldd, du.want, ldd, u.want, ldu, inv.want, rows, n);
    pair_check(x, 0, "x");
    pair_check(u, 1e-6f, "unit");
    pair_check(inv, 1e-6f, "inv");
    pair_check(dx, 5e-6f, "dx");
    pair_check(du, 5e-6f, "dx in place");
  }
}

/* ---- GELU and exp, against the C library in double ---- */
static void test_gelu_accuracy(void **state) {
  (void)state;
  enum { N = 20001 };
  float *u = data_new(N, 0), *a = data_new(N, 0), *da = data_new(N, 0), *zero = data_new(N, 0),
        *x = data_new(N, 0);
  for (size_t i = 0; i < N; i++) {
    x[i] = u[i] = ((float)i - N / 2) * 1.5e-3f;
    da[i] = 1;
  }
  x[0] = u[0] = -1e30f;
  x[1] = u[1] = 1e30f;
  x[2] = u[2] = -40;
  k->gelu_forward(a, u, zero, 1, N);
  for (size_t i = 0; i < N; i++) {
    double want = x[i] * 0.5 * erfc(-(double)x[i] / sqrt(2));
    if (!(fabs(a[i] - want) <= 3e-7 * fmax(fabs(want), fmin(1, 1 / fabs((double)x[i]))) + 1e-37))
      fail_msg("gelu(%.9g) = %.9g, not %.9g", (double)x[i], (double)a[i], want);
  }
  k->gelu_backward(da, u, zero, 1, N);
  for (size_t i = 0; i < N; i++) {
    double want = 0.5 * erfc(-(double)x[i] / sqrt(2)) + x[i] * exp(-0.5 * x[i] * x[i]) / sqrt(8 * atan(1));
    if (!(fabs(da[i] - want) <= 3e-7))
      fail_msg("gelu'(%.9g) = %.9g, not %.9g", (double)x[i], (double)da[i], want);
    assert_true(u[i] == a[i]);
    assert_true(zero[i] == da[i]);
  }
  u[7] = NAN;
  k->gelu_forward(a, u, zero, 1, N);
  assert_true(isnan(a[7]) && isfinite(a[6]) && isfinite(a[8]));
  data_free(u, N);
  data_free(a, N);
  data_free(da, N);
  data_free(zero, N);
  data_free(x, N);
}

/* cmcl_grad_row with all norms 0 and g = 1/2 gives exp itself. */
static void exp_through_table(float *x, size_t n) {
  float *zero = data_new(n, 0), *aa = data_new(n, 0), *bb = data_new(n, 0);
  uint32_t *target = malloc(n * sizeof(*target));
  assert_non_null(target);
  for (size_t i = 0; i < n; i++)
    target[i] = (uint32_t)i;
  k->cmcl_grad_row(x, aa, bb, zero, zero, target, n - 1, n, 0.5f);
  free(target);
  data_free(zero, n);
  data_free(aa, n);
  data_free(bb, n);
}

static void test_exp_accuracy(void **state) {
  (void)state;
  enum { N = 30001 };
  float *x = data_new(N + 1, 0), *e = data_new(N + 1, 0);
  for (size_t i = 0; i < N; i++)
    x[i] = e[i] = -87.33f + (float)i * ((87.33f + 87.6f) / N); /* twice the result must be finite as well */
  exp_through_table(e, N + 1);
  for (size_t i = 0; i < N; i++) {
    double want = exp((double)x[i]);
    if (!(fabs(e[i] - want) <= 2e-7 * want))
      fail_msg("exp(%.9g) = %.9g, not %.9g", (double)x[i], (double)e[i], want);
  }
  data_free(x, N + 1);
  data_free(e, N + 1);

  float special[] = {0, -0.0f, -INFINITY, -1e30f, -104, -110, 89, 1e9f, INFINITY, NAN, -1e-30f, 0};
  exp_through_table(special, COUNT(special));
  assert_true(special[0] == 1 && special[1] == 1 && special[10] == 1);
  for (size_t i = 2; i < 6; i++)
    assert_true(special[i] == 0);
  for (size_t i = 6; i < 9; i++)
    assert_true(special[i] == INFINITY);
  assert_true(isnan(special[9]));
}

static int run(const struct m2se_kernels *table) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_threefry_known_answers),
      cmocka_unit_test(test_random_blocks),
      cmocka_unit_test(test_dropout),
      cmocka_unit_test(test_vectors),
      cmocka_unit_test(test_adam),
      cmocka_unit_test(test_pool),
      cmocka_unit_test(test_unit),
      cmocka_unit_test(test_gelu_accuracy),
      cmocka_unit_test(test_gelu),
      cmocka_unit_test(test_inference),
      cmocka_unit_test(test_exp_accuracy),
      cmocka_unit_test(test_experts),
      cmocka_unit_test(test_addnorm),
      cmocka_unit_test(test_embed),
      cmocka_unit_test(test_attention),
      cmocka_unit_test(test_nip),
      cmocka_unit_test(test_nip_alone),
      cmocka_unit_test(test_nip_extremes),
      cmocka_unit_test(test_nip_products),
      cmocka_unit_test(test_cmcl),
      cmocka_unit_test(test_cmcl_alone),
      cmocka_unit_test(test_division_of_rows),
  };
  k = table;
  return cmocka_run_group_tests_name(table->name, tests, NULL, NULL);
}

int main(void) {
  scalar = m2se_kernels_scalar();
  int failed = run(scalar);
  const char *const names[] = {"avx2", "avx512"};
  for (size_t i = 0; i < COUNT(names); i++) {
    const struct m2se_kernels *table = m2se_kernels_named(names[i]);
    if (table)
      failed += run(table);
    else
      printf("skipped: this CPU cannot run the %s table\n", names[i]);
  }
#ifdef __x86_64__
  if (m2se_kernels_named("avx2"))
    failed += run(m2se_kernels_wide());
#endif
  return failed != 0;
}
