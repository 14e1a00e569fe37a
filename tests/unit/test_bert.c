/* BERT: small models against transformers' float64, other names and files, and folders with something wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above first */
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "encoder_rig.h"
#include "model/text/bert.h"

static struct m2se_bert *load(const char *folder) {
  struct m2se_bert *bert;
  struct m2se_error error;
  if (m2se_bert_load(&bert, folder, &error))
    fail_msg("%s", error.text);
  return bert;
}

/* A fixture, its texts packed as densely as rows_max allows. */
static void check(const char *name, enum m2se_pooling pooling, const char *expected, bool normalize,
                  uint32_t rows_max) {
  struct m2se_safetensors *file = rig_expected(name);
  struct m2se_bert *bert = load(rig_folder(name));
  size_t count, numbers, n = m2se_bert_dim(bert);
  uint32_t *ids = rig_numbers(file, "ids", NULL), *ptr = rig_numbers(file, "ptr", &count);
  float *want = rig_floats(file, expected, &numbers);
  count--;
  assert_int_equal(numbers, count * n);
  if (normalize)
    rig_normalise(want, count, n);
  float *got = calloc(numbers, sizeof *got);
  struct m2se_bert_scratch *scratch = m2se_bert_scratch_new(bert, rows_max, m2se_bert_len_max(bert));
  assert_int_equal(m2se_bert_encode(bert, scratch, ids, ptr, (uint32_t)count, pooling, normalize, got, NULL),
                   0);
  rig_close(got, want, numbers, expected);
  m2se_bert_scratch_free(scratch);
  m2se_bert_free(bert);
  m2se_safetensors_close(file);
  free(ids);
  free(ptr);
  free(want);
  free(got);
}

static void test_against_transformers(void **state) {
  (void)state;
  static const char *const names[] = {"bert", "bert_renamed"};
  static const uint32_t rows[] = {20, 27, 1000}; /* one long text at a time; some; all */
  for (int form = 0; form < 12; form++) {
    const bool normalize = form % 2 == 0;
    check(names[form / 6], M2SE_POOLING_MEAN, "mean", normalize, rows[form / 2 % 3]);
    check(names[form / 6], M2SE_POOLING_CLS, "cls", normalize, rows[form / 2 % 3]);
  }
}

static void test_folder_says(void **state) {
  (void)state;
  struct m2se_bert *bert = load(rig_folder("bert"));
  assert_int_equal(m2se_bert_pooling(bert), M2SE_POOLING_MEAN);
  assert_true(m2se_bert_normalizes(bert));
  assert_int_equal(m2se_bert_dim(bert), 12);
  assert_int_equal(m2se_bert_len_max(bert), 20);
  assert_int_equal(m2se_bert_ids(bert), 50);
  m2se_bert_free(bert);
  bert = load(rig_folder("bert_renamed"));
  assert_int_equal(m2se_bert_pooling(bert), M2SE_POOLING_CLS);
  assert_false(m2se_bert_normalizes(bert));
  m2se_bert_free(bert);
}

static void refused(const char *folder, int code, const char *part) {
  struct m2se_error error = {0};
  struct m2se_bert *bert;
  assert_int_equal(m2se_bert_load(&bert, folder, &error), code);
  assert_null(bert);
  if (!strstr(error.text, part))
    fail_msg("'%s' does not say '%s'", error.text, part);
}

#define QUERY "encoder.layer.1.attention.self.query.weight"
#define NORM "encoder.layer.0.output.LayerNorm.bias"

static void test_damaged_weights(void **state) {
  (void)state;
  refused(rig_damaged("bert", (struct rig_damage){.leave_out = QUERY}), M2SE_EMISSING, QUERY);
  refused(rig_damaged("bert", (struct rig_damage){.leave_out = NORM}), M2SE_EMISSING, NORM);
  refused(rig_damaged("bert", (struct rig_damage){.leave_out = "embeddings.word_embeddings.weight"}),
          M2SE_EMISSING, "word_embeddings");
  refused(rig_damaged("bert", (struct rig_damage){.rename = QUERY}), M2SE_EMISSING, QUERY);
  refused(rig_damaged("bert", (struct rig_damage){.reshape = QUERY}), M2SE_ESHAPE, QUERY);
  refused(rig_damaged("bert", (struct rig_damage){.retype = QUERY}), M2SE_ETYPE, QUERY);
  refused(rig_damaged("bert", (struct rig_damage){.poison = NORM}), M2SE_ENUMERIC, NORM);
  refused(rig_damaged("bert", (struct rig_damage){.cut_bytes = 1}), M2SE_EFORMAT, "model.safetensors");
}

/* A model of one layer has no place for the second one's tensors. */
static void test_configurations(void **state) {
  (void)state;
#define SIZES                                                                                                \
  "\"hidden_size\": 12, \"intermediate_size\": 20, \"vocab_size\": 50, \"max_position_embeddings\": 20"
  static const struct {
    const char *config, *part;
    int code;
  } cases[] = {
      {"{" SIZES ", \"num_attention_heads\": 2, \"num_hidden_layers\": 1}", "encoder.layer.1", M2SE_EFORMAT},
      {"{" SIZES ", \"num_attention_heads\": 2, \"num_hidden_layers\": 3}", "encoder.layer.2", M2SE_EMISSING},
      {"{" SIZES ", \"num_attention_heads\": 5}", "num_attention_heads: 5", M2SE_ERANGE},
      {"{" SIZES ", \"num_attention_heads\": 0}", "num_attention_heads: 0", M2SE_ERANGE},
      {"{\"hidden_size\": 12.5}", "hidden_size", M2SE_ERANGE},
      {"{\"model_type\": \"roberta\"}", "roberta", M2SE_ERANGE},
      {"{\"position_embedding_type\": \"relative_key\"}", "relative_key", M2SE_ERANGE},
      {"{\"hidden_act\": \"relu\"}", "relu", M2SE_ERANGE},
      {"{\"layer_norm_eps\": -1}", "layer_norm_eps", M2SE_ERANGE},
      {"{", "config.json", M2SE_EFORMAT},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    refused(rig_damaged("bert", (struct rig_damage){.config = cases[i].config}), cases[i].code,
            cases[i].part);
  /* null is as good as nothing */
  m2se_bert_free(load(rig_damaged(
      "bert",
      (struct rig_damage){.config = "{" SIZES ", \"num_attention_heads\": 2, \"num_hidden_layers\": 2, "
                                    "\"type_vocab_size\": null, \"position_embedding_type\": null}"})));
  refused("/nonexistent/folder", M2SE_EMISSING, "/nonexistent/folder/config.json");
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
      cmocka_unit_test(test_damaged_weights),
      cmocka_unit_test(test_configurations),
  };
  return cmocka_run_group_tests(tests, NULL, teardown);
}
