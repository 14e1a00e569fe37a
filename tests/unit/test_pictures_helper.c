// A helper that was taken over, crashes or hangs costs one picture, and nothing it says is believed
// unchecked.
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "daemon/pictures/protocol.h"
#include "tests/unit/pictures_rig.h"

static int ask(struct m2sed_pictures *pictures, const char *what, struct m2sed_picture *picture,
               struct m2se_error *error) {
  return m2sed_pictures_decode(pictures, what, strlen(what), picture, error);
}

static void test_taken_over(void **state) {
  (void)state;
  struct m2sed_pictures_options options = {.helper = M2SED_FAKE_HELPER, .wall_ms_max = 200};
  struct m2sed_pictures *pictures = pictures_rig_open(&options);
  struct m2sed_picture picture;
  struct m2se_error error = {0};
  static const char crashes[] = "aewpzcnsrtmd";
  for (const char *what = crashes; *what; what++) {
    char text[2] = {*what, '\0'};
    int reason = ask(pictures, text, &picture, &error);
    if (reason != M2SED_PICTURE_CRASHED) {
      fail_msg("'%s': %d %s", text, reason, error.text);
    }
    assert_null(picture.pixels);
    assert_int_equal(ask(pictures, "good", &picture, &error), 0);
    assert_int_equal(picture.width, 2);
  }
  assert_int_equal(ask(pictures, "hang", &picture, &error), M2SED_PICTURE_TIMEOUT);
  assert_int_equal(ask(pictures, "false size", &picture, &error), 0);
  assert_int_equal(picture.height, 1); // it could not cut it
  assert_int_equal(picture.pixels[2 * 3 - 1], 0);
  assert_int_equal(ask(pictures, "line", &picture, &error), M2SED_PICTURE_DAMAGED);
  assert_string_equal(error.text, "damaged: ??[31m?");
  struct m2sed_pictures_counters counters = m2sed_pictures_count(pictures);
  assert_int_equal(counters.by_reason[M2SED_PICTURE_CRASHED], strlen(crashes));
  assert_int_equal(counters.by_reason[M2SED_PICTURE_TIMEOUT], 1);
  assert_int_equal(counters.by_reason[M2SED_PICTURE_OK], strlen(crashes) + 1);
  assert_int_equal(counters.helpers_started, strlen(crashes) + 2);
  m2sed_pictures_close(pictures);
}

// That the program cannot be started is no picture's fault.
static void test_no_helper(void **state) {
  (void)state;
  static const char *const helpers[] = {"/bin/false", "/etc"};
  for (size_t i = 0; i < 2; i++) {
    struct m2sed_pictures_options options = {.helper = helpers[i]};
    struct m2sed_pictures *pictures = pictures_rig_open(&options);
    struct m2sed_picture picture;
    struct m2se_error error = {0};
    assert_int_equal(ask(pictures, "x", &picture, &error), M2SE_EIO);
    assert_non_null(strstr(error.text, helpers[i]));
    struct m2sed_pictures_counters counters = m2sed_pictures_count(pictures);
    for (int reason = 0; reason < M2SED_PICTURE_REASON_COUNT; reason++) {
      assert_int_equal(counters.by_reason[reason], 0);
    }
    m2sed_pictures_close(pictures);
  }
}

static void test_reasons_have_names(void **state) {
  (void)state;
  for (int reason = 0; reason < M2SED_PICTURE_REASON_COUNT; reason++) {
    assert_non_null(m2sed_picture_reason_name(reason));
    assert_non_null(m2sed_picture_reason_text(reason));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_taken_over),
      cmocka_unit_test(test_no_helper),
      cmocka_unit_test(test_reasons_have_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
