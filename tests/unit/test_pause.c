// An operator's pause: a file that says who and why, and what is read from one that something else has
// written.
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

#include "daemon/pause.h"

static char folder[] = "/tmp/m2sed-pause-XXXXXX";
static char path[sizeof folder + 8];

static void write_file(const char *bytes, size_t size) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

static void expect_note(const char *note) {
  struct m2sed_pause pause;
  memset(&pause, 'x', sizeof pause);
  m2sed_pause_read(folder, &pause);
  assert_true(pause.holds);
  assert_string_equal(pause.note, note);
}

static void expect_none(const char *directory) {
  struct m2sed_pause pause = {.holds = true, .note = "of before"};
  m2sed_pause_read(directory, &pause);
  assert_false(pause.holds);
  assert_string_equal(pause.note, "");
}

static void test_set_read_clear(void **state) {
  (void)state;
  struct m2se_error error = {0};
  expect_none(folder);
  assert_int_equal(m2sed_pause_set(folder, "a long reason, by somebody", &error), 0);
  expect_note("a long reason, by somebody");
  assert_int_equal(m2sed_pause_set(folder, "shorter", &error), 0); /* nothing of the longer one is left */
  expect_note("shorter");
  assert_int_equal(m2sed_pause_clear(folder, &error), 0);
  expect_none(folder);
  assert_int_equal(m2sed_pause_clear(folder, &error), M2SE_EMISSING);
  assert_non_null(strstr(error.text, "not paused"));
}

static void test_whatever_the_file_holds(void **state) {
  (void)state;
  write_file("", 0);
  expect_note("");
  write_file("no end of line", 14);
  expect_note("no end of line");
  write_file("first\nsecond\n", 13);
  expect_note("first");
  write_file("a\x1b[2J\tb\0c\x7f d\xc3\xa9\n", 15);
  expect_note("a[2Jbc d\xc3\xa9");
  char large[M2SED_PAUSE_BYTES_MAX + 50];
  memset(large, 'w', sizeof large);
  write_file(large, sizeof large);
  char cut[M2SED_PAUSE_BYTES_MAX + 1];
  memset(cut, 'w', M2SED_PAUSE_BYTES_MAX);
  cut[M2SED_PAUSE_BYTES_MAX] = '\0';
  expect_note(cut);
  assert_int_equal(unlink(path), 0);
}

/* What is there and cannot be read holds: nothing is consumed by mistake. */
static void test_unreadable_holds(void **state) {
  (void)state;
  assert_int_equal(mkdir(path, 0700), 0); /* opens, and cannot be read, for root too */
  expect_note("");
  struct m2se_error error = {0};
  assert_int_equal(m2sed_pause_set(folder, "x", &error), M2SE_EIO);
  assert_non_null(strstr(error.text, path));
  assert_int_equal(m2sed_pause_clear(folder, &error), M2SE_EIO);
  assert_int_equal(rmdir(path), 0);
  assert_int_equal(symlink(path, path), 0); /* does not even open */
  expect_note("");
  assert_int_equal(m2sed_pause_clear(folder, &error), 0);
}

static void test_no_folder(void **state) {
  (void)state;
  struct m2se_error error = {0};
  char missing[sizeof path + 8], *large = malloc(5000);
  snprintf(missing, sizeof missing, "%s/none", folder);
  expect_none(missing);
  assert_int_equal(m2sed_pause_set(missing, "x", &error), M2SE_EIO);
  assert_int_equal(m2sed_pause_clear(missing, &error), M2SE_EMISSING);
  assert_non_null(large);
  memset(large, 'd', 4999);
  large[4999] = '\0';
  expect_none(large);
  assert_int_equal(m2sed_pause_set(large, "x", &error), M2SE_ELIMIT);
  assert_int_equal(m2sed_pause_clear(large, &error), M2SE_ELIMIT);
  free(large);
}

int main(void) {
  if (!mkdtemp(folder))
    return 1;
  snprintf(path, sizeof path, "%s/paused", folder);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_set_read_clear),
      cmocka_unit_test(test_whatever_the_file_holds),
      cmocka_unit_test(test_unreadable_holds),
      cmocka_unit_test(test_no_folder),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  rmdir(folder);
  return failed;
}
