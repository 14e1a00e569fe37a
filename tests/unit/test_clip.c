/* CLIP: small models against transformers' float64, and folders with something wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above first */
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "encoder_rig.h"
#include "model/vision/clip.h"

static struct m2se_clip *load(const char *folder, enum m2se_clip_towers towers) {
  struct m2se_clip *clip;
  struct m2se_error error;
  if (m2se_clip_load(&clip, folder, towers, &error))
    fail_msg("%s", error.text);
  return clip;
}

static void check(const char *name, enum m2se_clip_towers tower, enum m2se_clip_towers loaded, uint32_t items,
                  bool normalize) {
  struct m2se_safetensors *file = rig_expected(name);
  struct m2se_clip *clip = load(rig_folder(name), loaded);
  const bool text = tower == M2SE_CLIP_TEXT;
  size_t count, numbers, n = m2se_clip_dim(clip);
  uint32_t *ids = rig_numbers(file, "ids", NULL), *ptr = rig_numbers(file, "ptr", &count);
  float *want = rig_floats(file, text ? "text" : "image", &numbers);
  float *pixels = rig_floats(file, "pixel_values", NULL), *got = calloc(numbers, sizeof *got);
  count = text ? count - 1 : 3;
  assert_int_equal(numbers, count * n);
  if (normalize)
    rig_normalise(want, count, n);
  struct m2se_clip_scratch *s = m2se_clip_scratch_new(clip, tower, items);
  int code = text ? m2se_clip_encode_texts(clip, s, ids, ptr, (uint32_t)count, normalize, got, NULL)
                  : m2se_clip_encode_images(clip, s, pixels, (uint32_t)count, normalize, got, NULL);
  assert_int_equal(code, 0);
  rig_close(got, want, numbers, text ? "text" : "image");
  m2se_clip_scratch_free(s);
  m2se_clip_free(clip);
  m2se_safetensors_close(file);
  free(ids);
  free(ptr);
  free(want);
  free(pixels);
  free(got);
}

static void test_against_transformers(void **state) {
  (void)state;
  static const char *const names[] = {"clip_quick", "clip_gelu"};
  for (uint32_t i = 0; i < 2; i++)
    for (uint32_t items = 1; items <= 5; items++) {
      check(names[i], M2SE_CLIP_TEXT, M2SE_CLIP_BOTH, items, true);
      check(names[i], M2SE_CLIP_VISION, M2SE_CLIP_BOTH, items, true);
      check(names[i], M2SE_CLIP_TEXT, M2SE_CLIP_TEXT, items, false);
      check(names[i], M2SE_CLIP_VISION, M2SE_CLIP_VISION, items, false);
    }
}

static void test_folder_says(void **state) {
  (void)state;
  struct m2se_clip *clip = load(rig_folder("clip_gelu"), M2SE_CLIP_BOTH);
  assert_int_equal(m2se_clip_dim(clip), 10);
  assert_int_equal(m2se_clip_image_size(clip), 12);
  assert_int_equal(m2se_clip_len_max(clip), 9);
  assert_int_equal(m2se_clip_ids(clip), 60);
  m2se_clip_free(clip);
  assert_true(m2se_clip_is_folder(rig_folder("clip_gelu")));
  assert_false(m2se_clip_is_folder(rig_folder("bert")));
  assert_false(m2se_clip_is_folder(rig_folder("nothing")));
}

static void refused(const char *folder, enum m2se_clip_towers towers, int code, const char *part) {
  struct m2se_error error = {0};
  struct m2se_clip *clip;
  assert_int_equal(m2se_clip_load(&clip, folder, towers, &error), code);
  assert_null(clip);
  if (!strstr(error.text, part))
    fail_msg("'%s' does not say '%s'", error.text, part);
}

#define PATCHES "vision_model.embeddings.patch_embedding.weight"
#define KEY "text_model.encoder.layers.1.self_attn.k_proj.weight"

static void test_refusals(void **state) {
  (void)state;
  const char *folder = rig_damaged("clip_gelu", (struct rig_damage){.leave_out = KEY});
  refused(folder, M2SE_CLIP_BOTH, M2SE_EMISSING, KEY);
  m2se_clip_free(load(folder, M2SE_CLIP_VISION)); /* the other tower is whole */
  folder = rig_damaged("clip_gelu", (struct rig_damage){.reshape = PATCHES});
  refused(folder, M2SE_CLIP_VISION, M2SE_ESHAPE, PATCHES);
  m2se_clip_free(load(folder, M2SE_CLIP_TEXT));
  refused(rig_damaged("clip_gelu", (struct rig_damage){.poison = PATCHES}), M2SE_CLIP_BOTH, M2SE_ENUMERIC,
          PATCHES);
}

static void test_configurations(void **state) {
  (void)state;
  static const struct {
    const char *config, *part;
    int code;
  } cases[] = {
      {"{\"model_type\": \"bert\"}", "bert", M2SE_ERANGE},
      {"{\"vision_config\": {\"patch_size\": 0}}", "vision_config: patch_size", M2SE_ERANGE},
      {"{\"vision_config\": {\"num_channels\": 4}}", "num_channels", M2SE_ERANGE},
      {"{\"text_config\": {\"hidden_act\": \"relu\"}}", "text_config: hidden_act", M2SE_ERANGE},
      {"{\"text_config\": {\"eos_token_id\": 50000}}", "eos_token_id", M2SE_ERANGE},
      {"{}", "token_embedding", M2SE_ESHAPE}, /* ViT-B/32's sizes */
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    refused(rig_damaged("clip_gelu", (struct rig_damage){.config = cases[i].config}), M2SE_CLIP_BOTH,
            cases[i].code, cases[i].part);
}

static int teardown(void **state) {
  (void)state;
  rig_remove();
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_transformers),
      cmocka_unit_test(test_folder_says),
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_configurations),
  };
  return cmocka_run_group_tests(tests, NULL, teardown);
}
