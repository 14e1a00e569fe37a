// Pictures of all kinds through the helper process, against the pixels that Pillow reads; what the helper may
// do.
#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "daemon/pictures/pictures.h"
#include "tests/unit/pictures_rig.h"

static void check_pixels(struct m2sed_pictures *pictures, const char *name) {
  char path[1024];
  snprintf(path, sizeof path, M2SE_FIXTURES "/%s.pixels", name);
  size_t expected_size;
  uint8_t *expected = pictures_rig_read(path, &expected_size);
  struct m2sed_picture picture;
  struct m2se_error error = {0};
  int reason = m2sed_pictures_decode_file(pictures, M2SE_PICTURES, name, &picture, &error);
  if (reason != 0) {
    fail_msg("%s: %s", name, error.text);
  }
  uint32_t shape[3];
  assert_true(expected_size > sizeof shape);
  memcpy(shape, expected, sizeof shape);
  assert_int_equal(picture.width, shape[0]);
  assert_int_equal(picture.height, shape[1]);
  assert_int_equal(picture.channels, shape[2]);
  size_t size = (size_t)shape[0] * shape[1] * shape[2];
  assert_int_equal(expected_size, sizeof shape + size);
  for (size_t i = 0; i < size; i++) {
    if (picture.pixels[i] != expected[sizeof shape + i]) {
      fail_msg("%s: byte %zu is %u, not %u", name, i, picture.pixels[i], expected[sizeof shape + i]);
    }
  }
  free(expected);
}

static void test_pixels_are_pillows(void **state) {
  (void)state;
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  DIR *folder = opendir(M2SE_PICTURES);
  assert_non_null(folder);
  uint64_t count = 0;
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (entry->d_name[0] != '.') {
      check_pixels(pictures, entry->d_name);
      count++;
    }
  }
  closedir(folder);
  assert_true(count >= 40);
  struct m2sed_pictures_counters counters = m2sed_pictures_count(pictures);
  assert_int_equal(counters.by_reason[M2SED_PICTURE_OK], count);
  assert_int_equal(counters.helpers_started, 1);
  m2sed_pictures_close(pictures);
}

// Any byte of a picture may be another one, and it may end anywhere: pixels or a reason, and the next one is
// read.
static void test_bytes_are_changed_and_cut(void **state) {
  (void)state;
  static const char *const names[] = {"420.jpg", "progressive.jpg", "palette-transparent.png", "alpha.webp"};
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
    char path[1024];
    snprintf(path, sizeof path, M2SE_PICTURES "/%s", names[n]);
    size_t size;
    uint8_t *bytes = pictures_rig_read(path, &size);
    struct m2sed_picture picture;
    for (size_t at = 0; at < size; at += 3) {
      uint8_t was = bytes[at];
      bytes[at] ^= 0x55;
      int reason = m2sed_pictures_decode(pictures, bytes, size, &picture, NULL);
      assert_in_range(reason, 0, M2SED_PICTURE_DAMAGED);
      assert_int_equal(reason == 0, picture.pixels != NULL);
      bytes[at] = was;
      assert_in_range(m2sed_pictures_decode(pictures, bytes, at, &picture, NULL), 1, M2SED_PICTURE_DAMAGED);
    }
    assert_int_equal(m2sed_pictures_decode(pictures, bytes, size, &picture, NULL), 0);
    free(bytes);
  }
  m2sed_pictures_close(pictures);
}

static void test_limits_are_the_callers(void **state) {
  (void)state;
  struct m2sed_pictures_options options = {.pixels_max = 23 * 14 - 1};
  struct m2sed_pictures *pictures = pictures_rig_open(&options);
  pictures_rig_expect_file(pictures, M2SE_PICTURES, "420.jpg", M2SED_PICTURE_TOO_MANY_PIXELS);
  pictures_rig_expect_file(pictures, M2SE_PICTURES, "rgba.png", M2SED_PICTURE_TOO_MANY_PIXELS);
  pictures_rig_expect_file(pictures, M2SE_PICTURES, "lossy.webp", M2SED_PICTURE_TOO_MANY_PIXELS);
  m2sed_pictures_close(pictures);
  options = (struct m2sed_pictures_options){.bytes_max = 100};
  pictures = pictures_rig_open(&options);
  pictures_rig_expect_file(pictures, M2SE_PICTURES, "420.jpg", M2SED_PICTURE_TOO_LARGE);
  uint8_t bytes[101] = {0};
  struct m2sed_picture picture;
  assert_int_equal(m2sed_pictures_decode(pictures, bytes, 101, &picture, NULL), M2SED_PICTURE_TOO_LARGE);
  assert_int_equal(m2sed_pictures_decode(pictures, bytes, 100, &picture, NULL), M2SED_PICTURE_NOT_A_PICTURE);
  assert_int_equal(m2sed_pictures_decode(pictures, bytes, 0, &picture, NULL), M2SED_PICTURE_NOT_A_PICTURE);
  m2sed_pictures_close(pictures);
}

static void test_options_out_of_range(void **state) {
  (void)state;
  static const struct m2sed_pictures_options options[] = {{.bytes_max = M2SED_PICTURES_BYTES_MAX + 1},
                                                          {.pixels_max = M2SED_PICTURES_PIXELS_MAX + 1},
                                                          {.cpu_ms_max = 6001},
                                                          {.wall_ms_max = UINT32_MAX}};
  struct m2sed_pictures *pictures;
  struct m2se_error error = {0};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    assert_int_equal(m2sed_pictures_open(&pictures, &options[i], &error), M2SE_EINVAL);
    assert_null(pictures);
  }
  struct m2sed_pictures_options missing = {.helper = "no/such/helper"};
  assert_int_equal(m2sed_pictures_open(&pictures, &missing, &error), M2SE_EMISSING);
  assert_non_null(strstr(error.text, "no/such/helper"));
}

static void test_the_helper_is_caged(void **state) {
  (void)state;
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  check_pixels(pictures, "420.jpg");
  pid_t helper = pictures_rig_child();
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd", (int)helper);
  DIR *folder = opendir(path);
  assert_non_null(folder);
  for (struct dirent *entry; (entry = readdir(folder));) {
    if (entry->d_name[0] != '.') {
      assert_in_range(strtol(entry->d_name, NULL, 10), 0, 4);
    }
  }
  closedir(folder);
  snprintf(path, sizeof path, "/proc/%d/environ", (int)helper);
  size_t size;
  free(pictures_rig_read(path, &size));
  assert_int_equal(size, 0);
  snprintf(path, sizeof path, "/proc/%d/status", (int)helper);
  char *status = (char *)pictures_rig_read(path, &size);
  assert_non_null(strstr(status, "NoNewPrivs:\t1"));
#ifndef M2SED_SANITIZED
  assert_non_null(strstr(status, "Seccomp:\t2"));
#endif
  free(status);
  m2sed_pictures_close(pictures);
}

// Whoever killed it while it was idle: the next picture starts another.
static void test_a_helper_killed_while_idle_is_replaced(void **state) {
  (void)state;
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  for (uint64_t n = 1; n <= 3; n++) {
    check_pixels(pictures, "rgba.png");
    assert_int_equal(m2sed_pictures_count(pictures).helpers_started, n);
    kill(pictures_rig_child(), SIGKILL);
    usleep(50000);
  }
  assert_int_equal(m2sed_pictures_count(pictures).by_reason[M2SED_PICTURE_CRASHED], 0);
  m2sed_pictures_close(pictures);
}

static void test_helpers_are_replaced_after_100_pictures(void **state) {
  (void)state;
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  for (int i = 0; i < 201; i++) {
    check_pixels(pictures, "palette.png");
  }
  assert_int_equal(m2sed_pictures_count(pictures).helpers_started, 3);
  m2sed_pictures_close(pictures);
}

static void test_files_beneath_the_root(void **state) {
  (void)state;
  char root[] = "/tmp/m2sed-pictures-XXXXXX", path[128];
  assert_non_null(mkdtemp(root));
  assert_int_equal(chdir(root), 0);
  assert_int_equal(mkdir("in", 0755), 0);
  assert_int_equal(mkdir("in/folder", 0755), 0);
  pictures_rig_write("in/text.jpg", "<svg/>", 6);
  pictures_rig_write("secret", "x", 1);
  assert_int_equal(symlink("text.jpg", "in/link.jpg"), 0);
  assert_int_equal(symlink("../secret", "in/secret.jpg"), 0);
  assert_int_equal(symlink("folder", "in/folders"), 0);
  assert_int_equal(mkfifo("in/pipe.jpg", 0644), 0);
  pictures_rig_write("in/folder/empty.jpg", "", 0);
  snprintf(path, sizeof path, "%s/secret", root);
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  pictures_rig_expect_file(pictures, "in", "text.jpg", M2SED_PICTURE_NOT_A_PICTURE);
  pictures_rig_expect_file(pictures, "in", "folder/../text.jpg", M2SED_PICTURE_NOT_A_PICTURE);
  pictures_rig_expect_file(pictures, "in", "folder/empty.jpg", M2SED_PICTURE_NOT_A_PICTURE);
  pictures_rig_expect_file(pictures, "in", "../secret", M2SED_PICTURE_OUTSIDE);
  pictures_rig_expect_file(pictures, "in", "folder/../../secret", M2SED_PICTURE_OUTSIDE);
  pictures_rig_expect_file(pictures, "in", path, M2SED_PICTURE_OUTSIDE);
  pictures_rig_expect_file(pictures, "in", "/proc/self/exe", M2SED_PICTURE_OUTSIDE);
  pictures_rig_expect_file(pictures, "in", "link.jpg", M2SED_PICTURE_OUTSIDE);
  pictures_rig_expect_file(pictures, "in", "secret.jpg", M2SED_PICTURE_OUTSIDE);
  pictures_rig_expect_file(pictures, "in", "folders/empty.jpg", M2SED_PICTURE_OUTSIDE);
  pictures_rig_expect_file(pictures, "in", "pipe.jpg", M2SED_PICTURE_NOT_A_FILE);
  pictures_rig_expect_file(pictures, "in", "folder", M2SED_PICTURE_NOT_A_FILE);
  pictures_rig_expect_file(pictures, "in", "none.jpg", M2SED_PICTURE_NOT_FOUND);
  pictures_rig_expect_file(pictures, "in", "text.jpg/none.jpg", M2SED_PICTURE_NOT_FOUND);
  pictures_rig_expect_file(pictures, "in", "", M2SED_PICTURE_NOT_FOUND);
  pictures_rig_expect_file(pictures, "", "text.jpg", M2SED_PICTURE_NO_ROOT);
  // The operator's own paths lead where they lead.
  pictures_rig_expect_file(pictures, NULL, "in/secret.jpg", M2SED_PICTURE_NOT_A_PICTURE);
  pictures_rig_expect_file(pictures, NULL, "/dev/zero", M2SED_PICTURE_NOT_A_FILE);
  struct m2sed_picture picture;
  struct m2se_error error = {0};
  assert_int_equal(m2sed_pictures_decode_file(pictures, "nowhere", "x", &picture, &error), M2SE_EIO);
  assert_non_null(strstr(error.text, "nowhere"));
  struct m2sed_pictures_counters counters = m2sed_pictures_count(pictures);
  assert_int_equal(counters.by_reason[M2SED_PICTURE_OUTSIDE], 7);
  assert_int_equal(counters.by_reason[M2SED_PICTURE_NOT_A_FILE], 3);
  m2sed_pictures_close(pictures);
  pictures_rig_remove(root);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pixels_are_pillows),
      cmocka_unit_test(test_bytes_are_changed_and_cut),
      cmocka_unit_test(test_limits_are_the_callers),
      cmocka_unit_test(test_options_out_of_range),
      cmocka_unit_test(test_the_helper_is_caged),
      cmocka_unit_test(test_a_helper_killed_while_idle_is_replaced),
      cmocka_unit_test(test_helpers_are_replaced_after_100_pictures),
      cmocka_unit_test(test_files_beneath_the_root),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
