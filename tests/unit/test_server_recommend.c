/* The best items for a user: the right ones in the right order, of one epoch, in slices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/server_recommend.h"
#include "tests/unit/server_rig.h"

static float product(const float *x, const float *y, uint32_t n) {
  float sum = 0;
  for (uint32_t i = 0; i < n; i++)
    sum += x[i] * y[i];
  return sum;
}

static bool has(const uint32_t *slots, uint32_t count, uint32_t slot) {
  for (uint32_t i = 0; i < count; i++)
    if (slots[i] == slot)
      return true;
  return false;
}

/* The answer is as good as any: its scores are right and fall, and no item that was left out is better. */
static void assert_best(const struct m2sed_ranking *ranking, const float *user, const float *vectors,
                        const bool *candidate, uint32_t slots, uint32_t stride, uint32_t dim) {
  const float tolerance = 1e-4F; /* sums of other orders */
  uint32_t candidates = 0;
  for (uint32_t slot = 0; slot < slots; slot++)
    candidates += candidate[slot] && !has(ranking->seen, ranking->seen_count, slot);
  assert_int_equal(ranking->count, candidates < ranking->wanted ? candidates : ranking->wanted);
  for (uint32_t i = 0; i < ranking->count; i++) {
    uint32_t slot = ranking->slots[i];
    assert_true(slot < slots && candidate[slot] && !has(ranking->seen, ranking->seen_count, slot));
    assert_false(has(ranking->slots, i, slot));
    float wrong = ranking->scores[i] - product(user, vectors + (size_t)slot * stride, dim);
    assert_true(wrong > -tolerance && wrong < tolerance);
    assert_true(i == 0 || ranking->scores[i] <= ranking->scores[i - 1]);
  }
  for (uint32_t slot = 0; slot < slots; slot++)
    if (candidate[slot] && !has(ranking->seen, ranking->seen_count, slot) &&
        !has(ranking->slots, ranking->count, slot))
      assert_true(product(user, vectors + (size_t)slot * stride, dim) <=
                  ranking->scores[ranking->count - 1] + tolerance);
}

/* ---- through the thread ---- */

static void rank(struct server_rig *rig, struct m2sed_ranking *ranking) {
  uint32_t before = rig->ranked_count;
  const struct m2sed_serve_message message = {.kind = M2SED_SERVE_RECOMMEND, .ranking = ranking};
  server_rig_send(rig, &message);
  RIG_WAIT_UNTIL(server_rig_pump(rig), rig->ranked_count > before)
  assert_ptr_equal(rig->ranked, ranking);
}

static void assert_ranked(struct server_rig *rig, const struct m2sed_ranking *ranking, uint64_t epoch) {
  float user[DIM_MAX];
  bool candidate[SLOTS];
  server_rig_encode_items(rig);
  server_rig_encode_user(rig, ranking->sequence_count, ranking->sequence, user);
  for (uint32_t slot = 0; slot < SLOTS; slot++)
    candidate[slot] = server_rig_featurised(rig, slot);
  assert_true(ranking->epoch == epoch);
  assert_best(ranking, user, &rig->expected[0][0], candidate, SLOTS, DIM_MAX, rig->dim);
}

static void test_thread(void **unused) {
  (void)unused;
  static struct server_rig rig;
  static struct m2sed_ranking ranking;
  server_rig_open(&rig, 0, true);
  server_rig_start(&rig);
  ranking = (struct m2sed_ranking){.wanted = 10, .sequence_count = 2, .sequence = {1, 2}};
  server_rig_send_items(&rig, 0, 60);
  rank(&rig, &ranking);
  assert_true(ranking.count == 0 && ranking.epoch == 0); /* no weights yet */
  server_rig_begin_epoch(&rig);
  server_rig_finish_epoch(&rig);

  rank(&rig, &ranking);
  assert_int_equal(ranking.count, 10);
  assert_ranked(&rig, &ranking, FIRST_EPOCH);
  ranking.seen_count = 3; /* of the best before, one never heard of */
  memcpy(ranking.seen, (uint32_t[]){ranking.slots[0], ranking.slots[4], 140}, 3 * sizeof(uint32_t));
  rank(&rig, &ranking);
  assert_ranked(&rig, &ranking, FIRST_EPOCH);
  ranking.wanted = 100; /* more than there are */
  rank(&rig, &ranking);
  assert_int_equal(ranking.count, 59 - 2);
  assert_ranked(&rig, &ranking, FIRST_EPOCH);

  struct m2sed_item_record *deleted = rig_record(ranking.slots[0], 2);
  deleted->deleted = true;
  server_rig_send_record(&rig, deleted);
  rank(&rig, &ranking);
  assert_int_equal(ranking.count, 59 - 3);
  assert_ranked(&rig, &ranking, FIRST_EPOCH);
  ranking.sequence_count = 1;
  ranking.sequence[0] = 3; /* has no features */
  rank(&rig, &ranking);
  assert_true(ranking.count == 0 && ranking.epoch == FIRST_EPOCH);
  server_rig_stop(&rig);
  server_rig_close(&rig);
}

/* The thread ends while questions wait: nothing is lost but answers. */
static void test_stop(void **unused) {
  (void)unused;
  static struct server_rig rig;
  static struct m2sed_ranking rankings[M2SED_RANKINGS_MAX];
  server_rig_open(&rig, 0, true);
  server_rig_start(&rig);
  server_rig_send_items(&rig, 0, 60);
  server_rig_begin_epoch(&rig);
  server_rig_finish_epoch(&rig);
  for (int i = 0; i < M2SED_RANKINGS_MAX; i++) {
    rankings[i] = (struct m2sed_ranking){.wanted = 1, .sequence_count = 1, .sequence = {1}};
    server_rig_send(&rig,
                    &(struct m2sed_serve_message){.kind = M2SED_SERVE_RECOMMEND, .ranking = &rankings[i]});
  }
  server_rig_stop(&rig);
  assert_true(rig.ranked_count <= M2SED_RANKINGS_MAX);
  server_rig_close(&rig);
}

/* ---- in slices ---- */

enum { MANY = 200000 };

struct large {
  struct server_rig rig; /* for its encoder and weights */
  struct m2sed_catalogue_view view;
  struct m2sed_table table;
  struct m2sed_recommender recommender;
  float user[DIM_MAX];
};

static void fill(struct m2sed_table *table, uint32_t dim, uint32_t seed) {
  for (size_t i = 0; i < (size_t)MANY * dim; i++) {
    seed = seed * 1664525 + 1013904223;
    table->vectors[i] = (float)(seed >> 8) / (1 << 23) - 1;
  }
}

static void open_large(struct large *large) {
  server_rig_open(&large->rig, 0, true);
  uint32_t dim = large->rig.dim;
  large->view = (struct m2sed_catalogue_view){
      .encoder = large->rig.encoder, .items_max = MANY, .slots = MANY, .state_floats = STATE, .dim = dim};
  large->table = (struct m2sed_table){.copy = &large->rig.reference,
                                      .epoch = 7,
                                      .step = 70,
                                      .states = calloc((size_t)MANY * STATE, sizeof(float)),
                                      .vectors = calloc((size_t)MANY * dim, sizeof(float)),
                                      .encoded = calloc(MANY, sizeof(bool))};
  for (uint32_t slot = 0; slot < MANY; slot++)
    large->table.encoded[slot] = slot % 3 != 0;
  for (uint32_t i = 0; i < 2 * STATE; i++)
    large->table.states[STATE + i] = (float)i / STATE; /* slots 1 and 2 */
  fill(&large->table, dim, 1);
  m2se_server_users(large->rig.encoder, large->rig.reference.weights, large->table.states, (uint32_t[]){0, 2},
                    (uint32_t[]){1, 2}, 1, large->user);
  assert_int_equal(m2sed_recommender_init(&large->recommender, dim), 0);
}

static void close_large(struct large *large) {
  m2sed_recommender_deinit(&large->recommender);
  free(large->table.states);
  free(large->table.vectors);
  free(large->table.encoded);
  server_rig_close(&large->rig);
}

static void test_slices(void **unused) {
  (void)unused;
  static struct large large;
  static struct m2sed_ranking one, two;
  struct m2sed_ranking *done;
  open_large(&large);
  assert_false(m2sed_recommender_work(&large.recommender, &large.table, &large.view, &done));
  one = two = (struct m2sed_ranking){.wanted = 100, .sequence_count = 4, .sequence = {0, 1, 3, 2}};
  m2sed_recommender_add(&large.recommender, &one);
  m2sed_recommender_add(&large.recommender, &two);
  int turns = 1;
  for (; m2sed_recommender_work(&large.recommender, &large.table, &large.view, &done) && !done; turns++)
    ;
  assert_true(turns > 2);
  assert_ptr_equal(done, &one);
  assert_true(one.epoch == 7 && one.step == 70);
  assert_best(&one, large.user, large.table.vectors, large.table.encoded, MANY, large.rig.dim, large.rig.dim);

  /* Another epoch half-way through the second: all of it is of that one. */
  assert_true(m2sed_recommender_work(&large.recommender, &large.table, &large.view, &done) && !done);
  fill(&large.table, large.rig.dim, 2);
  large.table.epoch = 8;
  while (!done)
    assert_true(m2sed_recommender_work(&large.recommender, &large.table, &large.view, &done));
  assert_ptr_equal(done, &two);
  assert_true(two.epoch == 8);
  assert_best(&two, large.user, large.table.vectors, large.table.encoded, MANY, large.rig.dim, large.rig.dim);
  assert_false(m2sed_recommender_work(&large.recommender, &large.table, &large.view, &done));
  close_large(&large);
}

/* Of equal scores the lower slot comes first, also when the list is full. */
static void test_ties(void **unused) {
  (void)unused;
  static struct large large;
  static struct m2sed_ranking ranking;
  struct m2sed_ranking *done = NULL;
  open_large(&large);
  memset(large.table.vectors, 0, (size_t)MANY * large.rig.dim * sizeof(float));
  ranking =
      (struct m2sed_ranking){.wanted = 3, .sequence_count = 1, .sequence = {1}, .seen_count = 1, .seen = {2}};
  m2sed_recommender_add(&large.recommender, &ranking);
  while (!done)
    assert_true(m2sed_recommender_work(&large.recommender, &large.table, &large.view, &done));
  assert_int_equal(ranking.count, 3);
  assert_memory_equal(ranking.slots, ((uint32_t[]){1, 4, 5}), 3 * sizeof(uint32_t));
  close_large(&large);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_thread), cmocka_unit_test(test_stop),
                                     cmocka_unit_test(test_slices), cmocka_unit_test(test_ties)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
