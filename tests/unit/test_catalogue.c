// The catalogue: ids to slots and back, its limit, the state of items.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/catalogue.h"
#include "model/error.h"

static void test_slots(void **state) {
  (void)state;
  struct m2sed_catalogue *catalogue = m2sed_catalogue_new(1000);
  assert_non_null(catalogue);
  uint32_t slot, size;
  bool added;
  char id[32];
  for (uint32_t i = 0; i < 1000; i++) {
    int length = snprintf(id, sizeof id, "item-%u", i * 7);
    assert_int_equal(m2sed_catalogue_find(catalogue, id, (size_t)length), M2SED_SLOT_NONE);
    assert_int_equal(m2sed_catalogue_add(catalogue, id, (size_t)length, &slot, &added), 0);
    assert_true(added);
    assert_int_equal(slot, i);
  }
  assert_int_equal(m2sed_catalogue_count(catalogue), 1000);
  for (uint32_t i = 0; i < 1000; i++) {
    int length = snprintf(id, sizeof id, "item-%u", i * 7);
    assert_int_equal(m2sed_catalogue_add(catalogue, id, (size_t)length, &slot, &added), 0);
    assert_false(added);
    assert_int_equal(slot, i);
    assert_int_equal(m2sed_catalogue_find(catalogue, id, (size_t)length), i);
    assert_string_equal(m2sed_catalogue_id(catalogue, i, &size), id);
    assert_int_equal(size, length);
  }
  assert_int_equal(m2sed_catalogue_add(catalogue, "more", 4, &slot, &added), M2SE_ELIMIT);
  assert_int_equal(m2sed_catalogue_find(catalogue, "item-7x", 6), 1); /* the size counts, not the NUL */
  m2sed_catalogue_free(catalogue);
}

static void test_longest_id(void **state) {
  (void)state;
  struct m2sed_catalogue *catalogue = m2sed_catalogue_new(2);
  char id[M2SED_ITEM_ID_MAX];
  memset(id, 'x', sizeof id);
  uint32_t slot, size;
  bool added;
  assert_int_equal(m2sed_catalogue_add(catalogue, id, sizeof id, &slot, &added), 0);
  assert_int_equal(m2sed_catalogue_find(catalogue, id, sizeof id - 1), M2SED_SLOT_NONE);
  assert_int_equal(strlen(m2sed_catalogue_id(catalogue, slot, &size)), sizeof id);
  m2sed_catalogue_free(catalogue);
}

static void test_states(void **state) {
  (void)state;
  struct m2sed_catalogue *catalogue = m2sed_catalogue_new(4);
  uint32_t a, b;
  bool added;
  assert_int_equal(m2sed_catalogue_add(catalogue, "a", 1, &a, &added), 0);
  assert_int_equal(m2sed_catalogue_add(catalogue, "b", 1, &b, &added), 0);
  assert_int_equal(m2sed_catalogue_state(catalogue, a), M2SED_ITEM_BARE);
  m2sed_catalogue_set_state(catalogue, a, M2SED_ITEM_FEATURES);
  m2sed_catalogue_set_state(catalogue, a, M2SED_ITEM_FEATURES);
  m2sed_catalogue_set_state(catalogue, b, M2SED_ITEM_FEATURES);
  assert_int_equal(m2sed_catalogue_featured(catalogue), 2);
  m2sed_catalogue_set_state(catalogue, a, M2SED_ITEM_DELETED);
  assert_int_equal(m2sed_catalogue_featured(catalogue), 1);
  assert_int_equal(m2sed_catalogue_state(catalogue, a), M2SED_ITEM_DELETED);
  m2sed_catalogue_free(catalogue);
  m2sed_catalogue_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_slots),
      cmocka_unit_test(test_longest_id),
      cmocka_unit_test(test_states),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
