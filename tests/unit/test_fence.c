/* The fence of a checkpoint folder: which one holds, what a damaged one does, and which generations count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint_rig.h"
#include "daemon/fence.h"

static int set_up(void **state) {
  struct checkpoint_rig *rig = calloc(1, sizeof *rig);
  assert_non_null(rig);
  rig_start(rig);
  *state = rig;
  return 0;
}

static int tear_down(void **state) {
  rig_stop(*state);
  free(*state);
  return 0;
}

static const char *fence_file(const struct checkpoint_rig *rig, const char *name) {
  static char path[256];
  snprintf(path, sizeof path, "%s/%s", rig->dir, name);
  return path;
}

static int begin(struct checkpoint_rig *rig, uint64_t number, uint64_t from) {
  struct m2se_error error;
  return m2sed_fence_begin(rig->dir, &(struct m2sed_fence){number, from}, &error);
}

static void assert_newest(struct checkpoint_rig *rig, uint64_t number, uint64_t from) {
  struct m2sed_fence fence;
  struct m2se_error error = {0};
  if (m2sed_fence_newest(rig->dir, &fence, &error))
    fail_msg("%s", error.text);
  assert_int_equal(fence.number, number);
  assert_int_equal(fence.from, from);
}

static void test_rises(void **state) {
  struct checkpoint_rig *rig = *state;
  assert_newest(rig, 0, 0);
  assert_int_equal(begin(rig, 3, 17), 0);
  assert_newest(rig, 3, 17);
  assert_int_equal(begin(rig, 3, 20), M2SE_EDROPPED);
  assert_int_equal(begin(rig, 2, 20), M2SE_EDROPPED);
  assert_newest(rig, 3, 17);
  assert_int_equal(begin(rig, 10000000000, 1), 0); /* more digits than the names are padded to */
  assert_newest(rig, 10000000000, 1);
  assert_int_equal(rig_entries(rig->dir), 1); /* lower ones are gone, and nothing half-made is left */

  struct m2sed_fence fence;
  struct m2se_error error;
  assert_int_equal(m2sed_fence_newest("/nonexistent/folder", &fence, &error), 0);
  assert_int_equal(fence.number, 0);
  assert_int_equal(m2sed_fence_begin("/nonexistent/folder", &(struct m2sed_fence){1, 0}, &error), M2SE_EIO);
}

/* Which generation it stands for is not known: nobody may go on. */
static void assert_damaged(struct checkpoint_rig *rig, const char *text) {
  rig_overwrite(fence_file(rig, "fence-0000000004"), text, strlen(text));
  struct m2sed_fence fence;
  struct m2se_error error = {0};
  assert_int_equal(m2sed_fence_newest(rig->dir, &fence, &error), M2SE_EFORMAT);
  assert_non_null(strstr(error.text, "fence-0000000004"));
  struct m2sed_checkpoint_state *loaded;
  assert_int_equal(rig_load(rig, &loaded), M2SE_EFORMAT);
  assert_null(loaded);
  assert_int_equal(m2sed_checkpoint_write(rig->dir, &rig->state, &rig->info, NULL, NULL, &error),
                   M2SE_EFORMAT);
}

static void test_damaged(void **state) {
  struct checkpoint_rig *rig = *state;
  uint64_t generation = rig_write(rig);
  rig->info.fence = 4;
  assert_int_equal(begin(rig, 4, generation), 0);
  const char *good = "goes on from generation 1\n";
  assert_int_equal(generation, 1);
  for (size_t size = 0; size < strlen(good); size++) {
    char cut[64];
    snprintf(cut, sizeof cut, "%.*s", (int)size, good);
    assert_damaged(rig, cut);
  }
  assert_damaged(rig, "goes on from generation x\n");
  assert_damaged(rig, "goes on from generation 99999999999999999999\n");
  assert_damaged(rig, "goes on from generation -1\n");
  assert_damaged(rig, "goes on from generation 1\nmore");
  rig_overwrite(fence_file(rig, "fence-0000000004"), good, strlen(good));
  assert_newest(rig, 4, 1);
  rig_write(rig);
}

static void test_foreign_names(void **state) {
  struct checkpoint_rig *rig = *state;
  assert_int_equal(begin(rig, 5, 2), 0);
  static const char *const names[] = {"fence-",   "fence-7.tmp.12", "fence-0000000009~",
                                      "fence- 8", "xfence-0009",    "fence-+9",
                                      "fences",   ".fence-9",       "fence-99999999999999999999999"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    rig_overwrite(fence_file(rig, names[i]), "goes on from generation 9\n", 26);
  assert_newest(rig, 5, 2);
  assert_int_equal(begin(rig, 6, 3), 0);
  assert_newest(rig, 6, 3);
}

/* What a replaced daemon still writes does not count, however new it is; what came before it went on does. */
static void test_which_generations_count(void **state) {
  struct checkpoint_rig *rig = *state;
  uint64_t first = rig_write(rig);
  rig->info.fence = 1;
  assert_int_equal(begin(rig, 1, first), 0);
  uint64_t second = rig_write(rig);
  struct m2sed_checkpoint_state *loaded;
  assert_int_equal(rig_load(rig, &loaded), 0);
  assert_int_equal(loaded->generation, second);
  assert_int_equal(loaded->fence, 1);
  m2sed_checkpoint_state_free(loaded);

  /* Fence 2 has read the first one only; the old one writes once more, as if it did not see the file. */
  rig->info.fence = 0;
  rig_advance(rig);
  uint64_t late = rig_write(rig);
  assert_int_equal(begin(rig, 2, first), 0);
  rig->refused_count = 0;
  assert_int_equal(rig_load(rig, &loaded), 0);
  assert_int_equal(loaded->generation, first);
  m2sed_checkpoint_state_free(loaded);
  assert_int_equal(rig->refused_count, 2);
  assert_int_equal(rig->refused[0], late);
  assert_int_equal(rig->refused[1], second);

  /* It sees the file: nothing new is there, and nothing half-made. */
  uint32_t entries = rig_entries(rig->dir);
  struct m2se_error error = {0};
  rig->info.fence = 1;
  assert_int_equal(m2sed_checkpoint_write(rig->dir, &rig->state, &rig->info, NULL, NULL, &error),
                   M2SE_EDROPPED);
  assert_non_null(strstr(error.text, "fence 2; ours is 1"));
  assert_int_equal(rig_entries(rig->dir), entries);

  rig->info.fence = 2;
  uint64_t third = rig_write(rig);
  assert_true(third > late);
  assert_int_equal(rig_load(rig, &loaded), 0);
  assert_int_equal(loaded->generation, third);
  m2sed_checkpoint_state_free(loaded);
}

#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_RIG(test_rises),
      WITH_RIG(test_damaged),
      WITH_RIG(test_foreign_names),
      WITH_RIG(test_which_generations_count),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
