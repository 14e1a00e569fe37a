/* Prequential evaluation against the same numbers computed in the plainest way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/evaluate.h"
#include "model/random.h"

enum { SLOTS = 40, ITEMS_MAX = 50, DIM = 3, EVENTS = 500, CONTEXT = 6 };

struct sample {
  float vectors[SLOTS * DIM], users[EVENTS * DIM];
  bool candidate[SLOTS], judged[EVENTS];
  uint32_t target[EVENTS], context_count[EVENTS], context[EVENTS][CONTEXT];
};

static uint32_t draw(uint32_t purpose, uint64_t index, uint32_t n) {
  return (uint32_t)m2se_random_below(11, 0, purpose, index, n);
}

/* Small whole numbers: scores are exact, and many are the same. */
static void make_sample(struct sample *s) {
  memset(s, 0, sizeof *s);
  for (uint32_t i = 0; i < SLOTS * DIM; i++) {
    s->vectors[i] = (float)draw(1, i, 5) - 2;
  }
  for (uint32_t i = 0; i < EVENTS * DIM; i++) {
    s->users[i] = (float)draw(2, i, 5) - 2;
  }
  for (uint32_t i = 0; i < SLOTS; i++) {
    s->candidate[i] = i % 9 != 4;
  }
  for (uint32_t n = 0; n < EVENTS; n++) {
    s->target[n] = draw(3, n, draw(4, n, 2) ? SLOTS : 6); /* some items are popular */
    s->context_count[n] = draw(5, n, CONTEXT + 1);
    for (uint32_t i = 0; i < s->context_count[n]; i++) {
      s->context[n][i] = draw(6, n * CONTEXT + i, SLOTS); /* items may come twice */
    }
    s->judged[n] = s->context_count[n] > 0 && s->candidate[s->target[n]] && draw(7, n, 4) > 0;
  }
}

/* ---- the plainest way ---- */

static bool in_context(const struct sample *s, uint32_t n, uint32_t slot) {
  for (uint32_t i = 0; i < s->context_count[n]; i++) {
    if (s->context[n][i] == slot) {
      return true;
    }
  }
  return false;
}

/* Rank of the target among candidates, half of those that score the same before it; 0: it is left out. */
static double rank_of(const struct sample *s, uint32_t n, const double *scores, bool unseen) {
  double rank = 1;
  if (unseen && in_context(s, n, s->target[n])) {
    return 0;
  }
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    if (!s->candidate[slot] || slot == s->target[n] || (unseen && in_context(s, n, slot))) {
      continue;
    }
    rank += scores[slot] > scores[s->target[n]] ? 1 : scores[slot] == scores[s->target[n]] ? 0.5 : 0;
  }
  return rank;
}

static void add(double rank, double *hr10, double *ndcg10, double *mrr) {
  if (rank == 0) {
    return;
  }
  *hr10 += rank <= 10;
  *ndcg10 += rank <= 10 ? log(2) / log(1 + rank) : 0;
  if (mrr != NULL) {
    *mrr += 1 / rank;
  }
}

static struct m2sed_prequential naive(const struct sample *s) {
  struct m2sed_prequential sums = {0};
  double counts[SLOTS] = {0}, scores[SLOTS];
  for (uint32_t n = 0; n < EVENTS; n++) {
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
      scores[slot] = 0;
      for (uint32_t k = 0; k < DIM; k++) {
        scores[slot] += (double)s->users[n * DIM + k] * (double)s->vectors[slot * DIM + k];
      }
    }
    if (s->judged[n]) {
      sums.events++;
      add(rank_of(s, n, scores, false), &sums.hr10, &sums.ndcg10, &sums.mrr);
      add(rank_of(s, n, scores, true), &sums.hr10_unseen, &sums.ndcg10_unseen, NULL);
      add(rank_of(s, n, counts, false), &sums.popularity_hr10, &sums.popularity_ndcg10, &sums.popularity_mrr);
      add(rank_of(s, n, counts, true), &sums.popularity_hr10_unseen, &sums.popularity_ndcg10_unseen, NULL);
    }
    counts[s->target[n]]++;
  }
  return sums;
}

/* ---- ours ---- */

static struct m2sed_prequential ours(const struct sample *s, uint32_t together) {
  struct m2sed_evaluation *evaluation;
  struct m2se_error error;
  struct m2sed_judged_event events[M2SED_JUDGED_MAX];
  assert_int_equal(m2sed_evaluation_new(&evaluation, ITEMS_MAX, DIM, &error), 0);
  for (uint32_t n = 0; n < EVENTS;) {
    uint32_t count = 0;
    for (; count < together && n < EVENTS; n++) {
      events[count++] = (struct m2sed_judged_event){.user = s->judged[n] ? s->users + n * DIM : NULL,
                                                    .target = s->target[n],
                                                    .context_count = s->context_count[n],
                                                    .context = s->context[n]};
    }
    m2sed_evaluation_judge(evaluation, events, count, s->vectors, s->candidate, SLOTS);
  }
  struct m2sed_prequential sums = *m2sed_evaluation_sums(evaluation);
  m2sed_evaluation_free(evaluation);
  return sums;
}

static void assert_close(double a, double b) {
  if (!(fabs(a - b) < 1e-9)) {
    fail_msg("%.12g and %.12g", a, b);
  }
}

static void test_against_naive(void **unused) {
  (void)unused;
  static struct sample s;
  make_sample(&s);
  struct m2sed_prequential expected = naive(&s);
  assert_true(expected.events > 200 && expected.events < EVENTS);
  assert_true(expected.hr10_unseen < expected.hr10 && expected.popularity_hr10 > expected.hr10);
  const uint32_t together[] = {1, 2, 7, M2SED_JUDGED_MAX};
  for (int i = 0; i < 4; i++) {
    struct m2sed_prequential sums = ours(&s, together[i]);
    assert_true(sums.events == expected.events);
    assert_close(sums.hr10, expected.hr10);
    assert_close(sums.ndcg10, expected.ndcg10);
    assert_close(sums.mrr, expected.mrr);
    assert_close(sums.hr10_unseen, expected.hr10_unseen);
    assert_close(sums.ndcg10_unseen, expected.ndcg10_unseen);
    assert_close(sums.popularity_hr10, expected.popularity_hr10);
    assert_close(sums.popularity_ndcg10, expected.popularity_ndcg10);
    assert_close(sums.popularity_mrr, expected.popularity_mrr);
    assert_close(sums.popularity_hr10_unseen, expected.popularity_hr10_unseen);
    assert_close(sums.popularity_ndcg10_unseen, expected.popularity_ndcg10_unseen);
  }
}

/* One candidate alone, and a target that all others tie with: by hand. */
static void test_by_hand(void **unused) {
  (void)unused;
  struct m2sed_evaluation *evaluation;
  struct m2se_error error;
  const float vectors[5 * DIM] = {0}, user[DIM] = {1, 1, 1};
  const bool all[5] = {true, true, true, true, true}, alone[5] = {false, false, true, false, false};
  const uint32_t context[] = {0};
  const struct m2sed_judged_event event = {.user = user, .target = 2, .context_count = 1, .context = context};
  assert_int_equal(m2sed_evaluation_new(&evaluation, 5, DIM, &error), 0);
  m2sed_evaluation_judge(evaluation, &event, 1, vectors, alone, 5);
  assert_close(m2sed_evaluation_sums(evaluation)->mrr, 1);
  assert_close(m2sed_evaluation_sums(evaluation)->ndcg10_unseen, 1);
  m2sed_evaluation_judge(evaluation, &event, 1, vectors, all, 5); /* 4 others the same: rank 3; unseen 2.5 */
  assert_close(m2sed_evaluation_sums(evaluation)->mrr, 1 + 1.0 / 3);
  assert_close(m2sed_evaluation_sums(evaluation)->ndcg10_unseen, 1 + 1 / log2(3.5));
  assert_close(m2sed_evaluation_sums(evaluation)->popularity_mrr, 2); /* the first one was counted */
  m2sed_evaluation_free(evaluation);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_naive),
      cmocka_unit_test(test_by_hand),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
