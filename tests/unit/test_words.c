/* A dictionary's words: against transformers' cosines, and the file that keeps their vectors. */
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
#include "model/files/file.h"
#include "model/vision/words.h"

enum { WORDS = 11, PICTURES = 3, DIM = 10 };

static char folder[] = "/tmp/m2se-words-XXXXXX";
static const char *const two[] = {"a photo of a {}", "{}!"};

static const char *in_folder(const char *name) {
  static char path[600];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void write_file(const char *name, const char *bytes, size_t size) {
  FILE *file = fopen(in_folder(name), "w");
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

static int setup(void **state) {
  (void)state;
  static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json", "words.txt"};
  assert_non_null(mkdtemp(folder));
  for (size_t i = 0; i < 4; i++) {
    char *bytes;
    size_t size;
    assert_int_equal(m2se_file_read(rig_folder("words"), names[i], 1 << 20, &bytes, &size, NULL), 0);
    write_file(names[i], bytes, size);
    free(bytes);
  }
  return 0;
}

static int teardown(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -r %s", folder);
  return system(command);
}

static struct m2se_words *load(const char *dictionary, const char *const *templates, uint32_t count) {
  char path[600];
  struct m2se_words *words;
  struct m2se_error error;
  snprintf(path, sizeof path, "%s", in_folder(dictionary));
  if (m2se_words_load(&words, folder, path, templates, count, &error))
    fail_msg("%s", error.text);
  return words;
}

static void check_scores(const struct m2se_words *words, const char *expected) {
  struct m2se_safetensors *file = rig_expected("words");
  float *pictures = rig_floats(file, "pictures", NULL), *want = rig_floats(file, expected, NULL);
  assert_int_equal(m2se_words_count(words), WORDS);
  for (size_t p = 0; p < PICTURES; p++) {
    struct m2se_word_score best[WORDS + 5];
    assert_int_equal(m2se_words_best(words, pictures + p * DIM, WORDS + 5, best), WORDS);
    for (size_t i = 0; i < WORDS; i++) {
      assert_true(fabsf(best[i].score - want[p * WORDS + best[i].word]) <= 1e-5f);
      assert_true(i == 0 || best[i].score <= best[i - 1].score);
    }
    struct m2se_word_score few[3];
    assert_int_equal(m2se_words_best(words, pictures + p * DIM, 3, few), 3);
    for (size_t i = 0; i < 3; i++)
      assert_int_equal(few[i].word, best[i].word);
  }
  m2se_safetensors_close(file);
  free(pictures);
  free(want);
}

static void test_against_transformers(void **state) {
  (void)state;
  struct m2se_words *words = load("words.txt", NULL, 0);
  check_scores(words, "alone");
  assert_true(m2se_words_computed(words) && m2se_words_kept(words));
  assert_string_equal(m2se_words_at(words, 1), "dog");
  assert_string_equal(m2se_words_at(words, 2), "small black dog");
  const struct m2se_word_score best[] = {{2, 0}, {0, 0}};
  char text[2 * (M2SE_WORD_BYTES_MAX + 1)];
  assert_int_equal(m2se_words_join(words, best, 2, text, sizeof text), 19);
  assert_string_equal(text, "small black dog cat");
  m2se_words_free(words);
  words = load("words.txt", two, 2);
  check_scores(words, "two");
  assert_true(m2se_words_computed(words));
  m2se_words_free(words);
}

/* Twice the same: read. A damaged file, or a model that is no longer the same: made anew. */
static void test_kept(void **state) {
  (void)state;
  struct m2se_words *words = load("words.txt", two, 2);
  assert_false(m2se_words_computed(words));
  check_scores(words, "two");
  m2se_words_free(words);
  write_file("modules.json", "[]", 2); /* one of the files that the model's digest covers */
  words = load("words.txt", two, 2);
  assert_true(m2se_words_computed(words) && m2se_words_kept(words));
  m2se_words_free(words);
  words = load("words.txt", NULL, 0);
  assert_true(m2se_words_computed(words));
  m2se_words_free(words);
  char command[160];
  snprintf(command, sizeof command, "for f in %s/words-*; do truncate -s -1 $f; done", folder);
  assert_int_equal(system(command), 0);
  words = load("words.txt", NULL, 0);
  assert_true(m2se_words_computed(words));
  check_scores(words, "alone");
  m2se_words_free(words);
}

static void test_refusals(void **state) {
  (void)state;
  static const struct {
    const char *text, *part;
    int code;
  } cases[] = {{"cat\n\xff\n", "line 2", M2SE_EFORMAT}, {" \n\r\n", "no words", M2SE_EMISSING}};
  static const char *const gapless[] = {"a photo"};
  struct m2se_error error;
  struct m2se_words *words;
  char path[600];
  snprintf(path, sizeof path, "%s", in_folder("bad.txt"));
  for (size_t i = 0; i < 2; i++) {
    write_file("bad.txt", cases[i].text, strlen(cases[i].text));
    assert_int_equal(m2se_words_load(&words, folder, path, NULL, 0, &error), cases[i].code);
    assert_null(words);
    if (!strstr(error.text, cases[i].part) || !strstr(error.text, path))
      fail_msg("'%s' does not say '%s'", error.text, cases[i].part);
  }
  char line[M2SE_WORD_BYTES_MAX + 1];
  memset(line, 'x', sizeof line);
  write_file("bad.txt", line, sizeof line);
  assert_int_equal(m2se_words_load(&words, folder, path, NULL, 0, &error), M2SE_ELIMIT);
  assert_int_equal(m2se_words_load(&words, folder, path, gapless, 1, &error), M2SE_EINVAL);
  assert_int_equal(m2se_words_load(&words, folder, "/nonexistent/words.txt", NULL, 0, &error), M2SE_EMISSING);
}

static void test_cut_templates(void **state) {
  (void)state;
  const char *templates[M2SE_WORD_TEMPLATES_MAX + 1];
  char none[] = "", pair[] = "a {}|{} b", five[] = "{}|{}|{}|{}|{}";
  assert_int_equal(m2se_words_cut_templates(none, templates), 0);
  assert_int_equal(m2se_words_cut_templates(pair, templates), 2);
  assert_string_equal(templates[0], "a {}");
  assert_string_equal(templates[1], "{} b");
  assert_int_equal(m2se_words_cut_templates(five, templates), M2SE_WORD_TEMPLATES_MAX + 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_transformers),
      cmocka_unit_test(test_kept),
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_cut_templates),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
