/* The serving thread: epochs, blocks of items, users in order, the evaluation's numbers. What it sends is
 * compared with vectors that the test encodes itself. ThreadSanitizer runs this too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/server_rig.h"

/* ---- tests ---- */

static void test_epochs(void **unused) {
  (void)unused;
  static struct server_rig rig;
  server_rig_open(&rig, 0, true);
  server_rig_start(&rig);
  server_rig_send_items(&rig, 0, 12);
  assert_int_equal(ASK(&rig, 1, 2)->count, 0); /* no weights yet */
  server_rig_begin_epoch(&rig);
  server_rig_assert_items(&rig, FIRST_EPOCH);
  assert_int_equal(ASK(&rig, 1, 2)->count, 0); /* its vectors are not written yet */
  server_rig_finish_epoch(&rig);
  ASSERT_USER(&rig, ASK(&rig, 1, 2), FIRST_EPOCH, 1, 2);
  ASSERT_USER(&rig, ASK(&rig, 1, 3, 20, 2), FIRST_EPOCH, 1, 2); /* bare, and never heard of */
  ASSERT_USER(&rig, ASK(&rig, 0, 1, 2, 4, 5, 3, 6, 7), FIRST_EPOCH, 2, 4, 5, 6, 7); /* newest 5 */
  assert_int_equal(ASK(&rig, 3, 20)->count, 0);

  server_rig_train(&rig, 0, 100);
  server_rig_begin_epoch(&rig);
  assert_true(rig.announced == FIRST_EPOCH + 1);
  uint64_t before = rig.steps[0];
  assert_true(rig.steps[1] > before);
  server_rig_assert_items(&rig, FIRST_EPOCH + 1);
  const struct answer *old = ASK(&rig, 1, 2);
  assert_true(old->epoch == FIRST_EPOCH && old->step == before); /* until the new one is written */
  assert_memory_equal(old->vector, rig.answers[2].vector, rig.dim * sizeof(float));
  server_rig_finish_epoch(&rig);
  ASSERT_USER(&rig, ASK(&rig, 1, 2), FIRST_EPOCH + 1, 1, 2);
  server_rig_stop(&rig);
  server_rig_close(&rig);
}

/* Items that come, change and go while there are epochs. */
static void test_items_change(void **unused) {
  (void)unused;
  static struct server_rig rig;
  server_rig_open(&rig, 0, true);
  server_rig_start(&rig);
  server_rig_send_items(&rig, 0, 8);
  server_rig_begin_epoch(&rig);
  server_rig_finish_epoch(&rig);
  server_rig_encode_items(&rig);
  server_rig_send_items(&rig, 8, 9); /* a new one: the very next user knows it */
  const struct answer *answer = ASK(&rig, 1, 8);
  server_rig_encode_items(&rig);
  ASSERT_USER(&rig, answer, FIRST_EPOCH, 1, 8);
  RIG_WAIT_UNTIL(server_rig_pump(&rig), rig.times[0][8] > 0)
  server_rig_assert_items(&rig, FIRST_EPOCH); /* once, although it was encoded out of turn */

  server_rig_train(&rig, 0, 60);
  server_rig_begin_epoch(&rig); /* now there are two */
  server_rig_send_record(&rig, rig_record(5, 2));
  RIG_WAIT_UNTIL(server_rig_pump(&rig), rig.times[0][5] == 2 && rig.times[1][5] == 2)
  server_rig_encode_items(&rig);
  server_rig_assert_near(rig.vectors[1][5], rig.expected[5], rig.dim);
  server_rig_finish_epoch(&rig);
  ASSERT_USER(&rig, ASK(&rig, 1, 5), FIRST_EPOCH + 1, 1, 5);

  struct m2sed_item_record *deleted = rig_record(5, 2);
  deleted->deleted = true;
  server_rig_send_record(&rig, deleted);
  ASSERT_USER(&rig, ASK(&rig, 1, 5), FIRST_EPOCH + 1, 1);
  assert_int_equal(ASK(&rig, 5)->count, 0);
  server_rig_begin_epoch(&rig);
  assert_int_equal(rig.times[2][5], 0);
  assert_int_equal(rig.times[2][8], 1);
  server_rig_send_record(&rig, rig_record(5, 1)); /* it comes back */
  server_rig_encode_items(&rig);
  RIG_WAIT_UNTIL(server_rig_pump(&rig), rig.times[2][5] == 1 && rig.times[1][5] == 3)
  server_rig_finish_epoch(&rig);
  ASSERT_USER(&rig, ASK(&rig, 1, 5), FIRST_EPOCH + 2, 1, 5);
  assert_int_equal(rig.times[0][8], 1);
  server_rig_stop(&rig);
  server_rig_close(&rig);
}

/* More than a block of items came while the next epoch waited to be written: its first users do not miss
 * them. */
static void test_awaited_items(void **unused) {
  (void)unused;
  static struct server_rig rig;
  server_rig_open(&rig, 0, true);
  server_rig_start(&rig);
  server_rig_send_items(&rig, 0, 3);
  server_rig_begin_epoch(&rig);
  server_rig_finish_epoch(&rig);
  server_rig_begin_epoch(&rig);
  server_rig_send_items(&rig, 4, SLOTS);
  server_rig_finish_epoch(&rig);
  const uint32_t slots[] = {2, SLOTS - 2, SLOTS - 1};
  struct m2sed_serve_message message = server_rig_user(&rig, 3, slots);
  server_rig_send(&rig, &message);
  RIG_WAIT_UNTIL(server_rig_pump(&rig), rig.answer_count == rig.asked)
  server_rig_encode_items(&rig);
  server_rig_assert_user(&rig, &rig.answers[0], FIRST_EPOCH + 1, 3, slots);
  RIG_WAIT_UNTIL(server_rig_pump(&rig), rig.times[1][SLOTS - 3] == 1)
  server_rig_stop(&rig);
  server_rig_assert_items(&rig, FIRST_EPOCH + 1);
  server_rig_close(&rig);
}

static void test_not_finite(void **unused) {
  (void)unused;
  static struct server_rig rig;
  const float rows[RIG_D] = {1, 2, INFINITY, 4, 5, 6};
  server_rig_open(&rig, 0, true);
  server_rig_start(&rig);
  server_rig_send_items(&rig, 0, 3);
  server_rig_send_record(&rig, m2sed_item_record_new(4, "bad", 3, RIG_D, rows, 1, rows, 1));
  server_rig_begin_epoch(&rig);
  assert_int_equal(rig.times[0][4], 0);
  assert_int_equal(rig.times[0][2], 1);
  server_rig_finish_epoch(&rig);
  server_rig_encode_items(&rig);
  ASSERT_USER(&rig, ASK(&rig, 4, 1, 4, 2, 4), FIRST_EPOCH, 1, 2);
  assert_int_equal(ASK(&rig, 4)->count, 0);
  server_rig_stop(&rig);
  server_rig_close(&rig);
}

static void test_count_term(void **unused) {
  (void)unused;
  for (int bias = 0; bias <= 1; bias++) {
    static struct server_rig rig;
    server_rig_open(&rig, 0.25, bias);
    server_rig_start(&rig);
    server_rig_send_items(&rig, 0, SLOTS);
    server_rig_train(&rig, 0, 80);
    server_rig_begin_epoch(&rig);
    server_rig_assert_items(&rig, FIRST_EPOCH);
    assert_true(rig.vectors[0][1][STATE] != rig.vectors[0][2][STATE]);
    server_rig_finish_epoch(&rig);
    const struct answer *answer = ASK(&rig, 1, 2);
    ASSERT_USER(&rig, answer, FIRST_EPOCH, 1, 2);
    assert_true(answer->vector[STATE] == 1);
    server_rig_stop(&rig);
    server_rig_close(&rig);
  }
}

/* The loop is slow: the server waits, and all answers come, in order (take_message checks it). */
static void test_many_users(void **unused) {
  (void)unused;
  enum { USERS = 900 };
  static struct server_rig rig;
  server_rig_open(&rig, 0, true);
  server_rig_start(&rig);
  server_rig_send_items(&rig, 0, 20);
  server_rig_begin_epoch(&rig);
  server_rig_finish_epoch(&rig);
  server_rig_encode_items(&rig);
  for (uint32_t n = 0; n < USERS; n++) {
    const uint32_t slots[] = {n % 3, 4 + n % 7, 12 + n % 5};
    struct m2sed_serve_message message = server_rig_user(&rig, 1 + n % 3, slots);
    server_rig_send(&rig, &message);
    if (n % 100 == 50) {
      server_rig_send_record(&rig, rig_record(19, 1 + n)); /* blocks of items between them */
    }
  }
  RIG_WAIT_UNTIL(server_rig_pump(&rig), rig.answer_count == USERS)
  for (uint32_t n = 0; n < USERS; n += 37) {
    const uint32_t slots[] = {n % 3, 4 + n % 7, 12 + n % 5};
    server_rig_assert_user(&rig, &rig.answers[n], FIRST_EPOCH, 1 + n % 3, slots);
  }
  server_rig_stop(&rig);
  server_rig_close(&rig);
}

/* ---- the evaluation ---- */

/* The sums come with the answers, and the evaluation when nobody waits for one. */
static void ask_for_sums(struct server_rig *rig, uint64_t events) {
  for (uint32_t i = 0; i < 500 && rig->sums.events != events; i++) {
    ASK(rig, 1);
  }
}

static double rank_of(const double *scores, const bool *candidate, uint32_t target) {
  double rank = 1;
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    if (candidate[slot] && slot != target) {
      rank += scores[slot] > scores[target] ? 1 : scores[slot] == scores[target] ? 0.5 : 0;
    }
  }
  return rank;
}

static void add_event(struct server_rig *rig, const struct m2sed_serve_message *message, const double *counts,
                      struct m2sed_prequential *sums) {
  bool candidate[SLOTS], unseen[SLOTS];
  uint32_t known[RIG_LENGTH], known_count = 0;
  double scores[SLOTS];
  float user[DIM_MAX];
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    candidate[slot] = unseen[slot] = server_rig_featurised(rig, slot);
  }
  for (uint32_t i = 0; i < message->context_count; i++) {
    if (candidate[message->context[i]]) {
      known[known_count++] = message->context[i];
    }
    unseen[message->context[i]] = false;
  }
  if (known_count == 0 || !candidate[message->target]) {
    return;
  }
  server_rig_encode_user(rig, known_count, known, user);
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    scores[slot] = 0;
    for (uint32_t k = 0; k < rig->dim; k++) {
      scores[slot] += (double)user[k] * (double)rig->expected[slot][k];
    }
  }
  double rank = rank_of(scores, candidate, message->target),
         popular = rank_of(counts, candidate, message->target);
  sums->events++;
  sums->hr10 += rank <= 10;
  sums->mrr += 1 / rank;
  sums->popularity_hr10 += popular <= 10;
  sums->popularity_mrr += 1 / popular;
  if (unseen[message->target]) {
    rank = rank_of(scores, unseen, message->target);
    popular = rank_of(counts, unseen, message->target);
    sums->ndcg10_unseen += rank <= 10 ? 1 / log2(1 + rank) : 0;
    sums->popularity_ndcg10_unseen += popular <= 10 ? 1 / log2(1 + popular) : 0;
  }
}

static void test_evaluation(void **unused) {
  (void)unused;
  enum { EVENTS = 300 };
  static struct server_rig rig;
  static struct rig_stream stream;
  struct m2sed_prequential expected = {0};
  double counts[SLOTS] = {0};
  rig_stream_make(&stream, EVENTS);
  server_rig_open(&rig, 0, true);
  server_rig_start(&rig);
  server_rig_send_items(&rig, 0, SLOTS);
  server_rig_train(&rig, 0, 200);
  server_rig_begin_epoch(&rig);
  server_rig_finish_epoch(&rig);
  server_rig_encode_items(&rig);
  for (uint32_t n = 0; n < EVENTS; n++) {
    struct m2sed_train_message event = rig_event(&stream, n);
    struct m2sed_serve_message message = server_rig_user(&rig, 1, &event.item);
    message.evaluate = true;
    message.target = event.item;
    message.context_count = event.context_count;
    memcpy(message.context, event.context, sizeof message.context);
    server_rig_send(&rig, &message);
    add_event(&rig, &message, counts, &expected);
    counts[message.target]++;
    if (n % 4 == 3) { /* never more than fit into its queue: the evaluation is not left out */
      RIG_WAIT_UNTIL(server_rig_pump(&rig), rig.answer_count == rig.asked)
    }
  }
  ask_for_sums(&rig, expected.events);
  assert_true(m2sed_server_evaluations_skipped(rig.server) == 0);
  assert_true(expected.events > 250);
  assert_true(rig.sums.events == expected.events);
  const double pairs[][2] = {{rig.sums.hr10, expected.hr10},
                             {rig.sums.mrr, expected.mrr},
                             {rig.sums.ndcg10_unseen, expected.ndcg10_unseen},
                             {rig.sums.popularity_hr10, expected.popularity_hr10},
                             {rig.sums.popularity_mrr, expected.popularity_mrr},
                             {rig.sums.popularity_ndcg10_unseen, expected.popularity_ndcg10_unseen}};
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
    if (!(fabs(pairs[i][0] - pairs[i][1]) < 1e-9)) {
      fail_msg("sum %zu: %.12g and %.12g", i, pairs[i][0], pairs[i][1]);
    }
  }
  server_rig_stop(&rig);
  server_rig_close(&rig);
}

/* Many wait: users are answered, the evaluation is left out and says so. */
static void test_evaluation_under_load(void **unused) {
  (void)unused;
  static struct server_rig rig;
  server_rig_open(&rig, 0, true);
  server_rig_start(&rig);
  server_rig_send_items(&rig, 0, 20);
  server_rig_begin_epoch(&rig);
  server_rig_finish_epoch(&rig);
  const uint32_t slots[] = {1, 2};
  uint32_t sent = 0;
  while (m2sed_server_evaluations_skipped(rig.server) == 0) {
    assert_true(sent++ < 1500);
    struct m2sed_serve_message message = server_rig_user(&rig, 2, slots);
    message.evaluate = true;
    message.target = 2;
    message.context_count = 1;
    message.context[0] = 1;
    server_rig_send(&rig, &message);
  }
  RIG_WAIT_UNTIL(server_rig_pump(&rig), rig.answer_count == rig.asked)
  ask_for_sums(&rig, sent - m2sed_server_evaluations_skipped(rig.server));
  assert_true(rig.sums.events + m2sed_server_evaluations_skipped(rig.server) == sent);
  server_rig_stop(&rig);
  server_rig_close(&rig);
}

static void test_settings(void **unused) {
  (void)unused;
  struct m2se_config config = rig_config();
  struct m2sed_exchange *exchange;
  struct m2sed_server *server;
  struct m2se_error error;
  assert_int_equal(m2sed_exchange_new(&exchange, &config, SLOTS, &error), 0);
  const struct m2sed_serve_settings good = {
      .popularity_prior = 1, .items_max = SLOTS, .ring_capacity = 4, .first_epoch = 1};
#define REFUSED(field, value)                                                                                \
  do {                                                                                                       \
    struct m2sed_serve_settings settings = good;                                                             \
    settings.field = value;                                                                                  \
    assert_int_equal(m2sed_server_new(&server, &config, &settings, exchange, &error), M2SE_EINVAL);          \
    assert_non_null(strstr(error.text, #field));                                                             \
    assert_null(server);                                                                                     \
  } while (0)
  REFUSED(items_max, 0);
  REFUSED(ring_capacity, 0);
  REFUSED(popularity_weight, -1);
  REFUSED(popularity_weight, NAN);
  assert_int_equal(m2sed_server_new(&server, &config, &good, exchange, &error), 0);
  /* Never started: what waits is given back (the leak checker sees it). */
  struct m2sed_serve_message *message = m2sed_ring_claim(m2sed_server_input(server));
  *message = (struct m2sed_serve_message){.kind = M2SED_SERVE_ITEM, .record = rig_record(0, 1)};
  m2sed_ring_publish(m2sed_server_input(server));
  m2sed_server_join(server);
  m2sed_server_free(server);
  m2sed_server_free(NULL);
  m2sed_exchange_free(exchange);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_epochs),        cmocka_unit_test(test_items_change),
      cmocka_unit_test(test_awaited_items), cmocka_unit_test(test_not_finite),
      cmocka_unit_test(test_count_term),    cmocka_unit_test(test_many_users),
      cmocka_unit_test(test_evaluation),    cmocka_unit_test(test_evaluation_under_load),
      cmocka_unit_test(test_settings),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
