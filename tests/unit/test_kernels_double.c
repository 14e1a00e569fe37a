/* The scalar table in double: its forward kernels against the equations written out, its backward kernels
 * against central differences. The vector tables are compared with it, in float, by test_kernels.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above first */
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels_data.h"

static const struct m2se_kernels *k;

/* ---- central differences ---- */
static double weighted_sum(const double *weight, const double *x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++)
    sum += weight[i] * x[i];
  return sum;
}

/* The derivative of f(arg) with respect to each x[i], which f reads, against `gradient`: |difference| /
 * |gradient| below 1e-6, both over all of x (a gradient that should vanish: below 1e-7). */
static void check_gradient(const char *what, double *x, const double *gradient, size_t n,
                           double (*f)(void *arg), void *arg) {
  double norm = 0, error = 0;
  for (size_t i = 0; i < n; i++) {
    const double kept = x[i], step = 2e-5;
    x[i] = kept + step;
    const double up = f(arg);
    x[i] = kept - step;
    const double down = f(arg);
    x[i] = kept;
    const double difference = (up - down) / (2 * step) - gradient[i];
    norm += gradient[i] * gradient[i];
    error += difference * difference;
  }
  if (!(sqrt(error) <= 1e-6 * sqrt(norm) + 1e-9))
    fail_msg("gradient of %s: error %.3g beside %.3g", what, sqrt(error), sqrt(norm));
}

/* x[n] about its mean, divided by its standard deviation: LayerNorm written out. */
static void normal_by_definition(double *out, const double *x, size_t n, double eps) {
  double mean = 0, variance = 0;
  for (size_t i = 0; i < n; i++)
    mean += x[i] / (double)n;
  for (size_t i = 0; i < n; i++)
    variance += (x[i] - mean) * (x[i] - mean) / (double)n;
  for (size_t i = 0; i < n; i++)
    out[i] = (x[i] - mean) / sqrt(variance + eps);
}

static double mask(const struct m2se_dropout *drop, uint64_t index) {
  double one = 1;
  k->dropout(&one, 1, drop, index);
  return one;
}

static void assert_near(double got, double want) {
  if (!(fabs(got - want) <= 1e-11 * (1 + fabs(want))))
    fail_msg("%.17g, expected %.17g", got, want);
}

/* ---- pooling ---- */
struct pool {
  double rows[5 * 7], w[7], e[7], alpha[5], weight[7];
};

static double pool_value(void *arg) {
  struct pool *p = arg;
  k->pool_forward(p->e, p->alpha, p->rows, 5, 7, p->w);
  return weighted_sum(p->weight, p->e, 7);
}

static void fill(void *p, size_t bytes) {
  double *x = p;
  for (size_t i = 0; i < bytes / sizeof(*x); i++)
    x[i] = data_number();
}

static void test_pool(void **state) {
  (void)state;
  struct pool p;
  fill(&p, sizeof(p));
  pool_value(&p);
  double share[5], total = 0;
  for (size_t j = 0; j < 5; j++)
    total += share[j] = exp(weighted_sum(p.w, p.rows + 7 * j, 7));
  for (size_t i = 0; i < 7; i++) {
    double e = 0;
    for (size_t j = 0; j < 5; j++)
      e += share[j] / total * p.rows[7 * j + i];
    assert_near(p.e[i], e);
  }
  double dw[7] = {0};
  k->pool_backward(dw, p.rows, p.alpha, p.weight, 5, 7);
  check_gradient("pooling weights", p.w, dw, 7, pool_value, &p);
}

/* ---- experts ---- */
enum { ROWS = 4, EXPERTS = 3, H = 6, WIDTH = EXPERTS * H, STEP = WIDTH + EXPERTS };
static const double eps = 1e-3;
static const uint32_t row_ids[ROWS] = {9, 2, 70000, 3};

struct experts {
  double raw[ROWS * STEP], bias[WIDTH], gamma[WIDTH], beta[WIDTH], weight[ROWS * H];
  double y[ROWS * STEP], z[ROWS * H], rstd[ROWS * EXPERTS];
};

static double experts_value(void *arg) {
  struct experts *p = arg;
  const struct m2se_dropout drop = data_dropout(0.3);
  memcpy(p->y, p->raw, sizeof(p->y));
  k->experts_forward(p->z, p->rstd, p->y, p->bias, p->gamma, p->beta, ROWS, EXPERTS, H, eps, &drop, 40);
  return weighted_sum(p->weight, p->z, ROWS * H);
}

static void experts_by_definition(double *z, const struct experts *p, size_t r) {
  const struct m2se_dropout drop = data_dropout(0.3);
  double total = 0;
  memset(z, 0, H * sizeof(*z));
  for (size_t o = 0; o < EXPERTS; o++)
    total += exp(p->raw[r * STEP + WIDTH + o]);
  for (size_t o = 0; o < EXPERTS; o++) {
    double t[H], normal[H];
    for (size_t i = 0; i < H; i++)
      t[i] = (p->raw[r * STEP + o * H + i] + p->bias[o * H + i]) * mask(&drop, (40 + r) * WIDTH + o * H + i);
    normal_by_definition(normal, t, H, eps);
    for (size_t i = 0; i < H; i++)
      z[i] +=
          exp(p->raw[r * STEP + WIDTH + o]) / total * (normal[i] * p->gamma[o * H + i] + p->beta[o * H + i]);
  }
}

static void test_experts(void **state) {
  (void)state;
  struct experts p;
  const struct m2se_dropout drop = data_dropout(0.3);
  fill(&p, sizeof(p));
  experts_value(&p);
  for (size_t r = 0; r < ROWS; r++) {
    double z[H];
    experts_by_definition(z, &p, r);
    for (size_t i = 0; i < H; i++)
      assert_near(p.z[r * H + i], z[i]);
  }
  double dbias[WIDTH] = {0}, dgamma[WIDTH] = {0}, dbeta[WIDTH] = {0}, dy[ROWS * STEP];
  k->experts_backward(p.y, dbias, dgamma, dbeta, p.weight, p.rstd, p.gamma, p.beta, ROWS, EXPERTS, H, &drop,
                      40);
  memcpy(dy, p.y, sizeof(dy));
  check_gradient("experts' product", p.raw, dy, ROWS * STEP, experts_value, &p);
  check_gradient("experts' bias", p.bias, dbias, WIDTH, experts_value, &p);
  check_gradient("experts' gamma", p.gamma, dgamma, WIDTH, experts_value, &p);
  check_gradient("experts' beta", p.beta, dbeta, WIDTH, experts_value, &p);
}

/* ---- residual and LayerNorm ---- */
struct addnorm {
  double sub[ROWS * H], bias[H], residual[ROWS * H], gamma[H], beta[H], weight[ROWS * H];
  double y[ROWS * H], xhat[ROWS * H], rstd[ROWS];
  const uint32_t *ids;
};

static double addnorm_value(void *arg) {
  struct addnorm *p = arg;
  const struct m2se_dropout drop = data_dropout(0.3);
  k->addnorm_forward(p->y, p->xhat, p->rstd, p->sub, p->bias, p->residual, p->gamma, p->beta, ROWS, H, eps,
                     &drop, p->ids, 11);
  return weighted_sum(p->weight, p->y, ROWS * H);
}

static void check_addnorm(const uint32_t *ids) {
  struct addnorm p;
  const struct m2se_dropout drop = data_dropout(0.3);
  fill(&p, offsetof(struct addnorm, y));
  p.ids = ids;
  addnorm_value(&p);
  for (size_t r = 0; r < ROWS; r++) {
    double t[H], normal[H];
    for (size_t i = 0; i < H; i++)
      t[i] = p.residual[r * H + i] +
             (p.sub[r * H + i] + p.bias[i]) * mask(&drop, (ids ? ids[r] : 11 + r) * (uint64_t)H + i);
    normal_by_definition(normal, t, H, eps);
    for (size_t i = 0; i < H; i++)
      assert_near(p.y[r * H + i], normal[i] * p.gamma[i] + p.beta[i]);
  }
  double dresidual[ROWS * H], dsub[ROWS * H], dgamma[H] = {0}, dbeta[H] = {0}, dbias[H] = {0};
  k->addnorm_backward(dresidual, dsub, dgamma, dbeta, dbias, p.weight, p.xhat, p.rstd, p.gamma, ROWS, H,
                      &drop, ids, 11);
  check_gradient("addnorm's residual", p.residual, dresidual, ROWS * H, addnorm_value, &p);
  check_gradient("addnorm's branch", p.sub, dsub, ROWS * H, addnorm_value, &p);
  check_gradient("addnorm's gamma", p.gamma, dgamma, H, addnorm_value, &p);
  check_gradient("addnorm's beta", p.beta, dbeta, H, addnorm_value, &p);
  check_gradient("addnorm's bias", p.bias, dbias, H, addnorm_value, &p);
}

static void test_addnorm(void **state) {
  (void)state;
  check_addnorm(NULL);
  check_addnorm(row_ids);
}

/* ---- input of the layers ---- */
struct embed {
  double z[ROWS * H], position[2 * H], gamma[H], beta[H], weight[ROWS * H];
  double y[ROWS * H], xhat[ROWS * H], rstd[ROWS];
};

static const uint32_t places[ROWS] = {0, 1, 1, 0};

static double embed_value(void *arg) {
  struct embed *p = arg;
  const struct m2se_dropout drop = data_dropout(0.3);
  const double *rows[ROWS];
  for (size_t r = 0; r < ROWS; r++)
    rows[r] = p->z + r * H;
  k->embed_forward(p->y, p->xhat, p->rstd, rows, places, p->position, p->gamma, p->beta, ROWS, H, eps, &drop,
                   6);
  return weighted_sum(p->weight, p->y, ROWS * H);
}

static void test_embed(void **state) {
  (void)state;
  struct embed p;
  const struct m2se_dropout drop = data_dropout(0.3);
  fill(&p, sizeof(p));
  embed_value(&p);
  for (size_t r = 0; r < ROWS; r++) {
    double t[H], normal[H];
    for (size_t i = 0; i < H; i++)
      t[i] = p.z[r * H + i] + p.position[places[r] * H + i];
    normal_by_definition(normal, t, H, eps);
    for (size_t i = 0; i < H; i++)
      assert_near(p.y[r * H + i], (normal[i] * p.gamma[i] + p.beta[i]) * mask(&drop, (6 + r) * H + i));
  }
  double ds[ROWS * H], dposition[2 * H] = {0}, dgamma[H] = {0}, dbeta[H] = {0};
  memcpy(ds, p.weight, sizeof(ds));
  k->embed_backward(ds, dposition, dgamma, dbeta, p.xhat, p.rstd, places, p.gamma, ROWS, H, &drop, 6);
  check_gradient("embed's rows", p.z, ds, ROWS * H, embed_value, &p);
  check_gradient("embed's positions", p.position, dposition, 2 * H, embed_value, &p);
  check_gradient("embed's gamma", p.gamma, dgamma, H, embed_value, &p);
  check_gradient("embed's beta", p.beta, dbeta, H, embed_value, &p);
}

/* ---- GELU ---- */
struct gelu {
  double u[ROWS * H], bias[H], weight[ROWS * H], sum[ROWS * H], a[ROWS * H];
};

static double gelu_value(void *arg) {
  struct gelu *p = arg;
  memcpy(p->sum, p->u, sizeof(p->sum));
  k->gelu_forward(p->a, p->sum, p->bias, ROWS, H);
  return weighted_sum(p->weight, p->a, ROWS * H);
}

static void test_gelu(void **state) {
  (void)state;
  struct gelu p;
  fill(&p, sizeof(p));
  for (size_t i = 0; i < ROWS * H; i++)
    p.u[i] *= 4;
  gelu_value(&p);
  double du[ROWS * H], dbias[H] = {0}, a[ROWS * H];
  memcpy(a, p.a, sizeof(a));
  for (size_t i = 0; i < ROWS * H; i++)
    assert_near(p.a[i], p.sum[i] * 0.5 * (1 + erf(p.sum[i] / sqrt(2))));
  memcpy(du, p.weight, sizeof(du));
  k->gelu_backward(du, p.sum, dbias, ROWS, H);
  assert_memory_equal(p.sum, a, sizeof(a));
  check_gradient("gelu", p.u, du, ROWS * H, gelu_value, &p);
  check_gradient("gelu's bias", p.bias, dbias, H, gelu_value, &p);
}

/* The kernels of finished models are right by definition; they have no gradient. */
static void test_inference(void **state) {
  (void)state;
  struct gelu p;
  double gamma[H], beta[H], quick[ROWS * H], y[ROWS * H];
  fill(&p, sizeof(p));
  fill(gamma, sizeof(gamma));
  fill(beta, sizeof(beta));
  memcpy(p.sum, p.u, sizeof(p.sum));
  memcpy(quick, p.u, sizeof(quick));
  memcpy(p.a, p.u, sizeof(p.a));
  k->gelu_infer(p.sum, p.bias, ROWS, H);
  k->quick_gelu_infer(quick, p.bias, ROWS, H);
  k->norm_infer(y, p.a, p.weight, p.bias, gamma, beta, ROWS, H, eps);
  for (size_t r = 0; r < ROWS; r++) {
    double t[H], normal[H];
    for (size_t i = 0; i < H; i++) {
      const double x = p.u[r * H + i] + p.bias[i];
      assert_near(p.sum[r * H + i], x * 0.5 * (1 + erf(x / sqrt(2))));
      assert_near(quick[r * H + i], x / (1 + exp(-1.702 * x)));
      t[i] = x + p.weight[r * H + i];
      assert_near(p.a[r * H + i], t[i]);
    }
    normal_by_definition(normal, t, H, eps);
    for (size_t i = 0; i < H; i++)
      assert_near(y[r * H + i], normal[i] * gamma[i] + beta[i]);
  }
}

/* ---- attention ---- */
enum { LEN = 6, HEADS = 2, DH = 3, WIDE = HEADS * DH, STRIDE = 16 };

struct attention {
  double q[LEN * WIDE], key[LEN * WIDE], v[LEN * WIDE], weight[LEN * WIDE];
  double out[LEN * WIDE], lse[LEN * HEADS], scratch[1024];
  const uint32_t *pos, *ids;
  size_t nq;
};

static double attention_value(void *arg) {
  struct attention *p = arg;
  const struct m2se_dropout drop = data_dropout(0.3);
  k->attention_forward(p->out, WIDE, p->lse, p->q, WIDE, p->key, p->v, WIDE, p->pos, p->nq, LEN, HEADS, DH,
                       &drop, p->ids, 31, STRIDE, p->scratch);
  return weighted_sum(p->weight, p->out, p->nq * WIDE);
}

/* out of query r, head a */
static void attention_by_definition(double out[DH], const struct attention *p, size_t r, size_t a) {
  const struct m2se_dropout drop = data_dropout(0.3);
  const size_t pos = p->pos ? p->pos[r] : r;
  const uint64_t row = p->ids ? p->ids[r] : 31 + r;
  double weight[LEN], total = 0;
  for (size_t j = 0; j <= pos; j++)
    total += weight[j] =
        exp(weighted_sum(p->q + r * WIDE + a * DH, p->key + j * WIDE + a * DH, DH) / sqrt((double)DH));
  memset(out, 0, DH * sizeof(*out));
  for (size_t j = 0; j <= pos; j++)
    for (size_t i = 0; i < DH; i++)
      out[i] += weight[j] / total * mask(&drop, (row * HEADS + a) * STRIDE + j) * p->v[j * WIDE + a * DH + i];
  assert_near(p->lse[r * HEADS + a], log(total));
}

static void check_attention(size_t nq, const uint32_t *pos, const uint32_t *ids) {
  struct attention p;
  const struct m2se_dropout drop = data_dropout(0.3);
  assert_true(m2se_attention_scratch(LEN, DH) <= sizeof(p.scratch) / sizeof(*p.scratch));
  fill(&p, offsetof(struct attention, pos));
  p.pos = pos;
  p.ids = ids;
  p.nq = nq;
  attention_value(&p);
  for (size_t r = 0; r < nq; r++)
    for (size_t a = 0; a < HEADS; a++) {
      double out[DH];
      attention_by_definition(out, &p, r, a);
      for (size_t i = 0; i < DH; i++)
        assert_near(p.out[r * WIDE + a * DH + i], out[i]);
    }
  double dq[LEN * WIDE], dk[LEN * WIDE], dv[LEN * WIDE];
  k->attention_backward(dq, dk, dv, p.weight, p.out, WIDE, p.lse, p.q, WIDE, p.key, p.v, WIDE, pos, nq, LEN,
                        HEADS, DH, &drop, ids, 31, STRIDE, p.scratch);
  check_gradient("queries", p.q, dq, nq * WIDE, attention_value, &p);
  check_gradient("keys", p.key, dk, LEN * WIDE, attention_value, &p);
  check_gradient("values", p.v, dv, LEN * WIDE, attention_value, &p);
}

static void test_attention(void **state) {
  (void)state;
  const uint32_t pos[4] = {5, 0, 3, 3};
  check_attention(LEN, NULL, NULL);
  check_attention(4, pos, row_ids);
}

/* ---- cosines ---- */
struct unit {
  double x[ROWS * H], weight[ROWS * H], unit[ROWS * H], inv[ROWS];
};

static double unit_value(void *arg) {
  struct unit *p = arg;
  k->unit_forward(p->unit, H, p->inv, p->x, H, ROWS, H);
  return weighted_sum(p->weight, p->unit, ROWS * H);
}

static void test_unit(void **state) {
  (void)state;
  struct unit p;
  fill(&p, sizeof(p));
  unit_value(&p);
  for (size_t r = 0; r < ROWS; r++)
    for (size_t i = 0; i < H; i++)
      assert_near(p.unit[r * H + i], p.x[r * H + i] / sqrt(weighted_sum(p.x + r * H, p.x + r * H, H)));
  double dx[ROWS * H];
  k->unit_backward(dx, H, p.weight, H, p.unit, H, p.inv, ROWS, H);
  check_gradient("unit vectors", p.x, dx, ROWS * H, unit_value, &p);
}

/* ---- NIP ---- */
enum { CANDIDATES = 9, OWN = 4 };

struct nip {
  double l1[CANDIDATES], l2[CANDIDATES], w[CANDIDATES], own_w;
};

/* The loss times 0.7 by its definition. */
static double nip_value(void *arg) {
  const struct nip *p = arg;
  double all = 0, own = 0;
  for (size_t u = 0; u < CANDIDATES; u++) {
    const double w = u == OWN ? p->own_w : p->w[u];
    const double share = exp(p->l1[u] + w) + exp(p->l2[u] + w);
    all += share;
    own = u == OWN ? share : own;
  }
  return 0.7 * (log(all) - log(own));
}

static void test_nip(void **state) {
  (void)state;
  struct nip p;
  fill(&p, sizeof(p));
  double d1[CANDIDATES], d2[CANDIDATES], dw[CANDIDATES] = {0};
  memcpy(d1, p.l1, sizeof(d1));
  memcpy(d2, p.l2, sizeof(d2));
  assert_near(0.7 * k->nip_row(d1, d2, p.w, CANDIDATES, OWN, p.own_w, 0.7, dw), nip_value(&p));
  check_gradient("l1", p.l1, d1, CANDIDATES, nip_value, &p);
  check_gradient("l2", p.l2, d2, CANDIDATES, nip_value, &p);
  check_gradient("weights", p.w, dw, OWN, nip_value, &p);
  check_gradient("weights", p.w + OWN + 1, dw + OWN + 1, CANDIDATES - OWN - 1, nip_value, &p);
  check_gradient("own weight", &p.own_w, dw + OWN, 1, nip_value, &p);
}

/* ---- CMCL ---- */
enum { N = 6 };
static const uint32_t targets[N] = {1, 2, 1, 3, 2, 2};

struct cmcl {
  double ab[N * N], aa[N * N], bb[N * N];
};

/* 0.3 sum_j (lse_a[j] - ab[j][j] + lse_b[j] - ab[j][j]) by its definition; lse_a, lse_b [N] come out too. */
static double cmcl_sum(const struct cmcl *p, double *lse_a, double *lse_b) {
  double sum = 0;
  for (size_t j = 0; j < N; j++) {
    double a = 0, b = 0;
    for (size_t i = 0; i < N; i++) {
      if (targets[i] == targets[j] && i != j)
        continue;
      a += exp(p->ab[j * N + i]) + (i == j ? 0 : exp(p->aa[j * N + i]));
      b += exp(p->ab[i * N + j]) + (i == j ? 0 : exp(p->bb[j * N + i]));
    }
    lse_a[j] = log(a);
    lse_b[j] = log(b);
    sum += lse_a[j] + lse_b[j] - 2 * p->ab[j * N + j];
  }
  return 0.3 * sum;
}

/* aa and bb are products of a matrix with its transpose: [j][i] is as [i][j], of which the upper triangle is
 * the one that is moved. */
static double cmcl_value(void *arg) {
  struct cmcl *p = arg;
  double lse_a[N], lse_b[N];
  for (size_t j = 0; j < N; j++)
    for (size_t i = 0; i < j; i++) {
      p->aa[j * N + i] = p->aa[i * N + j];
      p->bb[j * N + i] = p->bb[i * N + j];
    }
  return cmcl_sum(p, lse_a, lse_b);
}

static void test_cmcl(void **state) {
  (void)state;
  struct cmcl p, d;
  fill(&p, sizeof(p));
  double want_a[N], want_b[N], lse_a[N], lse_b[N];
  cmcl_value(&p); /* makes aa and bb symmetric */
  cmcl_sum(&p, want_a, want_b);
  for (size_t j = 0; j < N; j++)
    lse_a[j] = k->cmcl_row_lse(p.ab + j * N, p.aa + j * N, targets, j, N);
  k->cmcl_column_lse(lse_b, p.ab, N, p.bb, N, targets, 0, 2, N);
  k->cmcl_column_lse(lse_b + 2, p.ab, N, p.bb, N, targets, 2, N, N);
  d = p;
  for (size_t j = 0; j < N; j++) {
    assert_near(lse_a[j], want_a[j]);
    assert_near(lse_b[j], want_b[j]);
    k->cmcl_grad_row(d.ab + j * N, d.aa + j * N, d.bb + j * N, lse_a, lse_b, targets, j, N, 0.3);
  }
  check_gradient("a b", p.ab, d.ab, N * N, cmcl_value, &p);
  for (size_t j = 0; j < N; j++) {
    assert_true(d.aa[j * N + j] == 0 && d.bb[j * N + j] == 0);
    for (size_t i = 0; i < j; i++)
      assert_true(d.aa[j * N + i] == d.aa[i * N + j] && d.bb[j * N + i] == d.bb[i * N + j]);
    /* a pair is there twice: moving both moves the sum by what one of them says */
    check_gradient("a a", p.aa + j * N + j, d.aa + j * N + j, N - j, cmcl_value, &p);
    check_gradient("b b", p.bb + j * N + j, d.bb + j * N + j, N - j, cmcl_value, &p);
  }
}

/* ---- the rest ---- */
static void test_adam(void **state) {
  (void)state;
  double p = 0.5, m = 0.2, v = 0.04;
  const double g = -3;
  k->adam(&p, &m, &v, &g, 1, 0.5, 1e-2, 0.9, 0.99, 0.19, 0.0199, 1e-8);
  assert_near(m, 0.9 * 0.2 + 0.1 * -1.5);
  assert_near(v, 0.99 * 0.04 + 0.01 * 2.25);
  assert_near(p, 0.5 - 1e-2 * (0.03 / 0.19) / (sqrt(0.0621 / 0.0199) + 1e-8));
}

static void test_vectors(void **state) {
  (void)state;
  double x[6] = {1, 2, 3, 4, 5, 6}, y[3] = {10, 20, 30};
  assert_true(k->dot(x, y, 3) == 140);
  assert_true(k->sum_squares(x, 6) == 91);
  k->axpy(y, 2, x + 3, 3); /* 18 30 42 */
  k->add(y, x, 3);         /* 19 32 45 */
  assert_true(y[0] == 19 && y[1] == 32 && y[2] == 45);
  k->add_bias(x, 3, y, 2, 2); /* the third column stays */
  assert_true(x[0] == 20 && x[1] == 34 && x[2] == 3 && x[3] == 23 && x[4] == 37 && x[5] == 6);
  k->column_sum(y, x, 3, 2, 2);
  assert_true(y[0] == 62 && y[1] == 103 && y[2] == 45);
}

static void test_tables(void **state) {
  (void)state;
  assert_ptr_equal(m2se_kernels_named("scalar"), k);
  assert_ptr_equal(m2se_kernels_best(), k); /* the vector tables are for float */
  assert_null(m2se_kernels_named("avx2"));
  assert_null(m2se_kernels_named("AVX2"));
  assert_string_equal(k->name, "scalar");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pool),      cmocka_unit_test(test_experts), cmocka_unit_test(test_addnorm),
      cmocka_unit_test(test_embed),     cmocka_unit_test(test_gelu),    cmocka_unit_test(test_attention),
      cmocka_unit_test(test_unit),      cmocka_unit_test(test_nip),     cmocka_unit_test(test_cmcl),
      cmocka_unit_test(test_adam),      cmocka_unit_test(test_vectors), cmocka_unit_test(test_tables),
      cmocka_unit_test(test_inference),
  };
  k = m2se_kernels_scalar();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
