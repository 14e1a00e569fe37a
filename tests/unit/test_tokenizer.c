// Tokenizers: ids of hard texts as PyPI's `tokenizers` has them, what no such file can hold, damaged folders,
// time.
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

#include "model/files/json.h"
#include "model/text/tokenizer.h"
#include "tests/unit/fail_nth.h"

#define FIXTURES M2SED_TEST_SOURCE_DIR "/tests/fixtures/tokenizers"
enum { IDS = 100000, MODELS = 4 };

static const char *const models[MODELS] = {"bert-uncased", "bert-cased", "clip", "clip-files"};
static struct m2se_tokenizer *tokenizers[MODELS];
static struct m2se_tokenizer_scratch *scratch;
static uint32_t ids[IDS];

static int set_up(void **state) {
  (void)state;
  scratch = m2se_tokenizer_scratch_new();
  for (size_t i = 0; i < MODELS; i++) {
    char folder[512];
    struct m2se_error error = {0};
    snprintf(folder, sizeof folder, FIXTURES "/%s", models[i]);
    if (m2se_tokenizer_load(&tokenizers[i], folder, &error)) {
      fail_msg("%s", error.text);
    }
  }
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  for (size_t i = 0; i < MODELS; i++) {
    m2se_tokenizer_free(tokenizers[i]);
  }
  m2se_tokenizer_scratch_free(scratch);
  return 0;
}

static uint32_t encode(size_t model, const char *text, size_t size) {
  return m2se_tokenizer_encode(tokenizers[model], scratch, text, size, IDS, ids, NULL);
}

// The tokens of a text between the first and the last, with blanks between them.
static const char *tokens(size_t model, const char *text, size_t size) {
  static char line[4096];
  uint32_t count = encode(model, text, size);
  size_t used = 0;
  line[0] = '\0';
  for (uint32_t i = 1; i + 1 < count; i++) {
    size_t length;
    const char *token = m2se_tokenizer_token(tokenizers[model], ids[i], &length);
    assert_int_equal(strlen(token), length);
    used += (size_t)snprintf(line + used, sizeof line - used, "%s%s", i > 1 ? " " : "", token);
    assert_true(used < sizeof line);
  }
  return line;
}

// ---- Against the reference ----

static void check_row(const struct m2se_json *row) {
  const char *text = NULL;
  size_t size = 0;
  assert_int_equal(m2se_json_as_string(m2se_json_get(row, "text"), "text", &text, &size, NULL), 0);
  for (size_t i = 0; i < MODELS; i++) {
    const struct m2se_json *wanted = m2se_json_get(row, models[i]);
    uint32_t count = encode(i, text, size);
    if (count != m2se_json_size(wanted)) {
      fail_msg("%s \"%s\": %u ids instead of %zu", models[i], text, count, m2se_json_size(wanted));
    }
    for (uint32_t j = 0; j < count; j++) {
      uint64_t id = 0;
      assert_int_equal(m2se_json_as_uint64(m2se_json_at(wanted, j), "id", &id, NULL), 0);
      if (ids[j] != id) {
        fail_msg("%s \"%s\": id %u is %u instead of %u", models[i], text, j, ids[j], (uint32_t)id);
      }
    }
  }
}

static void test_goldens(void **state) {
  (void)state;
  FILE *file = fopen(FIXTURES "/goldens.jsonl", "re");
  assert_non_null(file);
  char *line = NULL;
  size_t room = 0, rows = 0;
  for (ssize_t size; (size = getline(&line, &room, file)) > 0; rows++) {
    struct m2se_json_limits limits = M2SE_JSON_LIMITS_DEFAULT;
    struct m2se_json *row = NULL;
    limits.nul_allowed = true;
    assert_int_equal(m2se_json_parse(&row, line, (size_t)size, &limits, NULL), 0);
    check_row(row);
    m2se_json_free(row);
  }
  free(line);
  fclose(file);
  assert_true(rows >= 200);
}

// ---- What the reference cannot be asked ----

static void test_broken_utf8(void **state) {
  (void)state;
  static const struct {
    const char *broken, *mended;
  } cases[] = {
      {"a\xFF"
       "b",
       "a\uFFFDb"},
      {"\xC3", "\uFFFD"},                               // cut off
      {"\xE2\x82", "\uFFFD"},                           // one for what began as a character
      {"\xE2\x28\xA1", "\uFFFD(\uFFFD"},                // the second byte is one of its own
      {"\xC0\xAF", "\uFFFD\uFFFD"},                     // overlong
      {"\xE0\x80\xAF", "\uFFFD\uFFFD\uFFFD"},           //
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},           // a surrogate
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"}, // beyond U+10FFFF
      {"\xF0\x9F\x98", "\uFFFD"},                       //
      {"\xF0\x9F\x98z\x80", "\uFFFDz\uFFFD"},           //
      {"[MA\xFFSK] [MASK]", "[MA\uFFFDSK] [MASK]"},     //
      {"<|endoftext|>\xFE<|endoftext|>", "<|endoftext|>\uFFFD<|endoftext|>"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    for (size_t model = 0; model < MODELS; model++) {
      char mended[4096];
      snprintf(mended, sizeof mended, "%s", tokens(model, cases[i].mended, strlen(cases[i].mended)));
      assert_string_equal(tokens(model, cases[i].broken, strlen(cases[i].broken)), mended);
    }
  }
}

static void test_cut(void **state) {
  (void)state;
  uint32_t whole[IDS];
  static const char text[] = "the model of an item [MASK] the model of an item";
  for (size_t model = 0; model < MODELS; model++) {
    bool truncated = true;
    uint32_t count =
        m2se_tokenizer_encode(tokenizers[model], scratch, text, strlen(text), IDS, whole, &truncated);
    assert_false(truncated);
    for (uint32_t max = 2; max <= count + 1; max++) {
      ids[max < count ? max : count] = 77;
      uint32_t got =
          m2se_tokenizer_encode(tokenizers[model], scratch, text, strlen(text), max, ids, &truncated);
      assert_int_equal(got, max < count ? max : count);
      assert_int_equal(truncated, max < count);
      assert_int_equal(ids[got], 77); // nothing behind the end
      assert_memory_equal(ids, whole, (got - 1) * sizeof ids[0]);
      assert_int_equal(ids[got - 1], m2se_tokenizer_last_id(tokenizers[model]));
    }
  }
}

// Beyond what is read: told, and no character is read in part.
static void test_too_long(void **state) {
  (void)state;
  size_t size = M2SE_TOKENIZER_TEXT_BYTES_MAX + 1;
  char *text = malloc(size);
  memset(text, ' ', size);
  memcpy(text + size - 3, "\xE2\x82\xAC", 3); // its last byte is one too many
  for (size_t model = 0; model < MODELS; model++) {
    bool truncated = false;
    assert_int_equal(m2se_tokenizer_encode(tokenizers[model], scratch, text, size, IDS, ids, &truncated), 2);
    assert_true(truncated);
  }
  free(text);
}

static void test_limits_of_the_folder(void **state) {
  (void)state;
  static const uint32_t limits[MODELS] = {128, 64, 77, 77};
  for (size_t model = 0; model < MODELS; model++) {
    size_t length;
    assert_int_equal(m2se_tokenizer_max_ids(tokenizers[model]), limits[model]);
    assert_int_equal(m2se_tokenizer_kind(tokenizers[model]),
                     model < 2 ? M2SE_TOKENIZER_WORDPIECE : M2SE_TOKENIZER_BPE);
    assert_int_equal(encode(model, "", 0), 2);
    assert_int_equal(ids[0], m2se_tokenizer_first_id(tokenizers[model]));
    assert_null(m2se_tokenizer_token(tokenizers[model], m2se_tokenizer_ids(tokenizers[model]), &length));
    uint32_t count = m2se_tokenizer_ids(tokenizers[model]);
    assert_true(count > 500 && m2se_tokenizer_bytes(tokenizers[model]) < (size_t)count * 200 + 20000);
  }
}

// ---- Linear time ----

// Steps for the text made of `unit` again and again.
static double steps_for(size_t model, const char *unit, size_t size) {
  char *text = malloc(size);
  for (size_t i = 0; i < size; i++) {
    text[i] = unit[i % strlen(unit)];
  }
  uint64_t before = m2se_tokenizer_scratch_steps(scratch);
  encode(model, text, size);
  free(text);
  return (double)(m2se_tokenizer_scratch_steps(scratch) - before);
}

static void test_time(void **state) {
  (void)state;
  static const char *const units[] = {"a",
                                      "a ",
                                      ".",
                                      "\xCC\x81\xCC\xA3",
                                      "[MASK",
                                      "<|endoftext|",
                                      "'s",
                                      "\xFF",
                                      "b",
                                      "0",
                                      "the model ",
                                      "\xE4\xBD\xA0",
                                      "ab",
                                      "[MASK]",
                                      "##",
                                      "q\xCC\x87\xCC\xA3",
                                      "antidisestablishmentarianis"};
  for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
    for (size_t model = 0; model < MODELS; model++) {
      double quarter = steps_for(model, units[i], M2SE_TOKENIZER_TEXT_BYTES_MAX / 4);
      double whole = steps_for(model, units[i], M2SE_TOKENIZER_TEXT_BYTES_MAX);
      // Four times, and for the heap of one long piece its logarithm; squares would make it 16.
      assert_true(quarter > 1000 && whole < 5 * quarter);
      assert_true(whole < 150.0 * M2SE_TOKENIZER_TEXT_BYTES_MAX);
    }
  }
}

// ---- Damaged folders ----

static char folder[64];

static void put_file(const char *name, const char *text) {
  char path[160];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  if (!text) {
    unlink(path);
    return;
  }
  FILE *file = fopen(path, "we");
  assert_non_null(file);
  assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
  assert_int_equal(fclose(file), 0);
}

static void check_refused(int code, const char *words) {
  struct m2se_tokenizer *tokenizer = NULL;
  struct m2se_error error = {0};
  int got = m2se_tokenizer_load(&tokenizer, folder, &error);
  if (got != code || !strstr(error.text, words) || !strstr(error.text, folder)) {
    fail_msg("%d \"%s\" where %d \"%s\" was expected", got, error.text, code, words);
  }
  assert_null(tokenizer);
}

#define BERT_HEAD                                                                                            \
  "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
#define BERT_MODEL                                                                                           \
  "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\","          \
  "\"max_input_chars_per_word\":100,\"vocab\":{\"[UNK]\":0,\"[CLS]\":1,\"[SEP]\":2,\"a\":3}},"
#define BERT_POST                                                                                            \
  "\"post_processor\":{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",2],\"cls\":[\"[CLS]\",1]}}"

static void test_damaged_json(void **state) {
  (void)state;
  static const struct {
    const char *text, *words;
    int code;
  } cases[] = {
      {"{", "tokenizer.json: line 1", M2SE_EFORMAT},
      {"{}", "tokenizer.json: model.type", M2SE_EMISSING},
      {"{\"model\":{\"type\":\"Unigram\"}}", "model.type \"Unigram\"", M2SE_ERANGE},
      {"{\"model\":{\"type\":\"WordPiece\"}}", "normalizer: type", M2SE_EMISSING},
      {"{\"normalizer\":{\"type\":\"NFC\"},\"model\":{\"type\":\"WordPiece\"}}", "normalizer: type \"NFC\"",
       M2SE_ERANGE},
      {BERT_HEAD "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":-1}}}", "token \"a\": id", M2SE_ERANGE},
      {BERT_HEAD "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":99999999}}}", "\"a\", id", M2SE_ELIMIT},
      {BERT_HEAD "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":1,\"b\":1}}}", "both \"a\" and \"b\"",
       M2SE_EFORMAT},
      {BERT_HEAD BERT_MODEL "\"x\":0}", "post_processor: type", M2SE_EMISSING},
      {BERT_HEAD BERT_MODEL "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",9],\"sep\":[]}}",
       "post_processor: cls[1]: no token", M2SE_ERANGE},
      {BERT_HEAD BERT_MODEL "\"post_processor\":{\"type\":\"ByteLevel\"}}",
       "post_processor: type \"ByteLevel\"", M2SE_ERANGE},
      {BERT_HEAD BERT_MODEL "\"added_tokens\":[{\"id\":3,\"content\":\"b\"}]," BERT_POST,
       "added_tokens[0]: id 3 is both", M2SE_EFORMAT},
      {BERT_HEAD BERT_MODEL "\"added_tokens\":[{\"id\":4,\"content\":\"b\",\"lstrip\":true}]," BERT_POST,
       "added_tokens[0]: lstrip", M2SE_ERANGE},
      {"{\"model\":{\"type\":\"BPE\"}}", "model: end_of_word_suffix", M2SE_EMISSING},
      {"{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"fuse_unk\":true}}", "model: fuse_unk",
       M2SE_ERANGE},
      {"{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\"},\"normalizer\":{\"type\":\"NFC\"}}",
       "normalizer: type \"NFC\"", M2SE_ERANGE},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    put_file("tokenizer.json", cases[i].text);
    check_refused(cases[i].code, cases[i].words);
  }
  struct m2se_tokenizer *tokenizer = NULL;
  put_file("tokenizer.json", BERT_HEAD BERT_MODEL BERT_POST); // the parts above are sound
  assert_int_equal(m2se_tokenizer_load(&tokenizer, folder, NULL), 0);
  assert_int_equal(m2se_tokenizer_max_ids(tokenizer), 512);
  m2se_tokenizer_free(tokenizer);
  put_file("config.json", "{\"max_position_embeddings\":1}");
  check_refused(M2SE_ERANGE, "max_position_embeddings is less than 2");
  put_file("config.json", NULL);
  put_file("tokenizer.json", NULL);
}

static void test_damaged_lines(void **state) {
  (void)state;
  check_refused(M2SE_EMISSING, "neither tokenizer.json nor vocab.txt");
  put_file("vocab.txt", "[UNK]\n[CLS]\n");
  check_refused(M2SE_EMISSING, "the vocabulary lacks \"[SEP]\"");
  put_file("vocab.txt", "[UNK]\n[CLS]\n[SEP]\n\xFF\n");
  check_refused(M2SE_EFORMAT, "vocab.txt line 4");
  put_file("vocab.txt", NULL);
  put_file("vocab.json", "{\"a\":0,\"b</w>\":1,\"ab</w>\":2,\"<|startoftext|>\":3,\"<|endoftext|>\":4}");
  check_refused(M2SE_EMISSING, "merges.txt");
  put_file("merges.txt", "#version: 0.2\na b</w>\na c\n");
  check_refused(M2SE_EMISSING, "merges.txt line 3: \"a\" and \"c\"");
  put_file("merges.txt", "#version: 0.2\na b</w>\na  c\n");
  check_refused(M2SE_EFORMAT, "merges.txt line 3");
  put_file("merges.txt", "#version: 0.2\na b</w>\n");
  struct m2se_tokenizer *tokenizer = NULL;
  assert_int_equal(m2se_tokenizer_load(&tokenizer, folder, NULL), 0);
  // 'c' is in no vocabulary: the unknown token, which is the last one too.
  assert_int_equal(m2se_tokenizer_encode(tokenizer, scratch, "AB ac", 5, IDS, ids, NULL), 5);
  static const uint32_t expected[] = {3, 2, 0, 4, 4};
  assert_memory_equal(ids, expected, sizeof expected);
  m2se_tokenizer_free(tokenizer);
  put_file("merges.txt", NULL);
  put_file("vocab.json", NULL);
}

// Every allocation of a load fails once: nothing is left behind, and the next load works.
static void test_no_memory(void **state) {
  (void)state;
  put_file("tokenizer.json", BERT_HEAD BERT_MODEL "\"added_tokens\":[{\"id\":4,\"content\":\"B\"},{\"id\":5,"
                                                  "\"content\":\"C\",\"normalized\":false}]," BERT_POST);
  long before = fail_nth_outstanding;
  bool failed = true;
  for (long n = 1; failed; n++) {
    struct m2se_tokenizer *tokenizer = NULL;
    struct m2se_error error = {0};
    fail_nth_start(n);
    int code = m2se_tokenizer_load(&tokenizer, folder, &error);
    failed = fail_nth_stop();
    assert_true(failed ? code == M2SE_ENOMEM && error.code == code && !tokenizer : code == 0);
    m2se_tokenizer_free(tokenizer);
    assert_int_equal(fail_nth_outstanding, before);
    assert_true(failed || n > 20);
  }
  put_file("tokenizer.json", NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_goldens),
      cmocka_unit_test(test_broken_utf8),
      cmocka_unit_test(test_cut),
      cmocka_unit_test(test_too_long),
      cmocka_unit_test(test_limits_of_the_folder),
      cmocka_unit_test(test_time),
      cmocka_unit_test(test_damaged_json),
      cmocka_unit_test(test_damaged_lines),
      cmocka_unit_test(test_no_memory),
  };
  snprintf(folder, sizeof folder, "/tmp/m2se-tokenizer-XXXXXX");
  if (!mkdtemp(folder)) {
    return 1;
  }
  int failed = cmocka_run_group_tests(tests, set_up, tear_down);
  rmdir(folder);
  return failed;
}
