/* Pictures as CLIP takes them: Pillow's bytes, transparency, and configurations that are refused. */
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
#include <unistd.h>

#include "encoder_rig.h"
#include "model/vision/resize.h"

enum { SIZE = 12, PIXELS_MAX = 2000 };

static void test_pillow(void **state) {
  (void)state;
  struct m2se_error error;
  struct m2se_resizer *resizer;
  struct m2se_safetensors *file = rig_expected("resize");
  if (m2se_resizer_new(&resizer, rig_folder("resize"), SIZE, PIXELS_MAX, &error))
    fail_msg("%s", error.text);
  uint32_t seen = 0;
  for (uint32_t i = 0; i < m2se_safetensors_count(file); i++) {
    const struct m2se_tensor *in = m2se_safetensors_at(file, i);
    if (strncmp(in->name, "pixels.", 7) != 0)
      continue;
    char name[64];
    uint8_t square[SIZE * SIZE * 3];
    snprintf(name, sizeof name, "square.%s", in->name + 7);
    const struct m2se_tensor *want = m2se_safetensors_find(file, name);
    assert_non_null(want);
    m2se_resize(resizer, in->data, (uint32_t)in->shape[1], (uint32_t)in->shape[0], (uint32_t)in->shape[2],
                square);
    for (size_t k = 0; k < sizeof square; k++)
      if (square[k] != ((const uint8_t *)want->data)[k])
        fail_msg("%s: byte %zu is %u, not %u", name, k, square[k], ((const uint8_t *)want->data)[k]);
    seen++;
  }
  assert_int_equal(seen, 7);
  m2se_resizer_free(resizer);
  m2se_safetensors_close(file);
}

/* The longest and the thinnest picture that the limit allows stay within the memory taken. */
static void test_extreme_shapes(void **state) {
  (void)state;
  static const uint32_t sizes[] = {1, 3, SIZE, 64};
  static const uint32_t shapes[][2] = {{PIXELS_MAX, 1}, {1, PIXELS_MAX}, {44, 45}, {45, 44}, {2, 1000},
                                       {25, 40},        {29, 57},        {31, 61}, {1, 1}};
  uint8_t *pixels = malloc(PIXELS_MAX * 4);
  memset(pixels, 200, PIXELS_MAX * 4);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct m2se_resizer *resizer;
    assert_int_equal(m2se_resizer_new(&resizer, "/nonexistent", sizes[i], PIXELS_MAX, NULL), 0);
    const size_t n = (size_t)sizes[i] * sizes[i];
    float *numbers = malloc(3 * n * sizeof *numbers);
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
      m2se_resize_normalized(resizer, pixels, shapes[k][0], shapes[k][1], 3, numbers);
      for (size_t p = 0; p < n; p++) /* a plain picture stays plain; CLIP's own mean and deviation */
        assert_true(fabs(numbers[p] - (200.0 / 255 - 0.48145466) / 0.26862954) < 1e-5);
    }
    free(numbers);
    m2se_resizer_free(resizer);
  }
  free(pixels);
}

static void test_refusals(void **state) {
  (void)state;
  static const struct {
    const char *config, *part;
  } cases[] = {
      {"{\"resample\": 2}", "resample"},
      {"{\"do_center_crop\": false}", "do_center_crop"},
      {"{\"crop_size\": 13, \"size\": 13}", "crop_size"},
      {"{\"crop_size\": {\"height\": 12}, \"size\": {\"shortest_edge\": 11}}", "crop_size"},
      {"{\"crop_size\": 12, \"size\": 12, \"image_std\": [1, 0, 1]}", "image_std"},
      {"{\"crop_size\": 12, \"size\": 12, \"image_mean\": [1, 1]}", "image_mean"},
      {"{\"crop_size\": 12, \"size\": 12, \"rescale_factor\": 1}", "rescale_factor"},
  };
  char folder[] = "/tmp/m2se-resize-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct m2se_error error = {0};
    struct m2se_resizer *resizer;
    FILE *file = fopen(path, "w");
    fputs(cases[i].config, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(m2se_resizer_new(&resizer, folder, SIZE, PIXELS_MAX, &error), M2SE_ERANGE);
    assert_null(resizer);
    if (!strstr(error.text, cases[i].part) || !strstr(error.text, path))
      fail_msg("'%s' does not name %s and %s", error.text, path, cases[i].part);
  }
  unlink(path);
  rmdir(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pillow),
      cmocka_unit_test(test_extreme_shapes),
      cmocka_unit_test(test_refusals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
