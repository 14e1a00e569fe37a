#include "model/text/tokenizer_json.h"

#include <string.h>

int m2se_read_bool(const struct m2se_json *object, const char *key, bool *truth, struct m2se_error *error) {
  const struct m2se_json *value = m2se_json_get(object, key);
  return value && m2se_json_type(value) != M2SE_JSON_NULL ? m2se_json_as_bool(value, key, truth, error) : 0;
}

/* object.key must be this string. */
static int expect(const struct m2se_json *object, const char *key, const char *wanted, const char *where,
                  struct m2se_error *error) {
  const char *string = NULL;
  int code = m2se_json_as_string(m2se_json_get(object, key), key, &string, NULL, error);
  if (!code && strcmp(string, wanted) != 0) {
    code = m2se_error_set(error, M2SE_ERANGE, "%s \"%.80s\", only \"%s\" is supported", key, string, wanted);
  }
  return code ? m2se_error_prefix(error, code, "%s", where) : 0;
}

/* object.key must be this truth value, which it also is if it is not there. */
static int expect_bool(const struct m2se_json *object, const char *key, bool wanted, bool usual,
                       const char *where, struct m2se_error *error) {
  bool truth = usual;
  int code = m2se_read_bool(object, key, &truth, error);
  if (!code && truth != wanted) {
    code = m2se_error_set(error, M2SE_ERANGE, "%s is %s: not supported", key, truth ? "true" : "false");
  }
  return code ? m2se_error_prefix(error, code, "%s", where) : 0;
}

/* A step of a Sequence, whose list is called `list`; NULL if it is not there. */
static const struct m2se_json *step(const struct m2se_json *sequence, const char *list, size_t index) {
  return m2se_json_at(m2se_json_get(sequence, list), index);
}

static int expect_steps(const struct m2se_json *sequence, const char *list, size_t count, const char *where,
                        struct m2se_error *error) {
  int code = expect(sequence, "type", "Sequence", where, error);
  if (!code && m2se_json_size(m2se_json_get(sequence, list)) != count) {
    code = m2se_error_set(error, M2SE_ERANGE, "%s: not a Sequence of %zu steps", where, count);
  }
  return code;
}

int m2se_read_bert_normalizer(struct m2se_tokenizer *t, const struct m2se_json *root,
                              struct m2se_error *error) {
  const struct m2se_json *normalizer = m2se_json_get(root, "normalizer");
  const struct m2se_json *splitter = m2se_json_get(root, "pre_tokenizer");
  int code = expect(normalizer, "type", "BertNormalizer", "normalizer", error);
  code = code ? code : expect(splitter, "type", "BertPreTokenizer", "pre_tokenizer", error);
  if (code) {
    return code;
  }
  t->clean = t->chinese = t->lower = true;
  code = m2se_read_bool(normalizer, "clean_text", &t->clean, error);
  code = code ? code : m2se_read_bool(normalizer, "handle_chinese_chars", &t->chinese, error);
  code = code ? code : m2se_read_bool(normalizer, "lowercase", &t->lower, error);
  t->strip_accents = t->lower; /* what null means */
  code = code ? code : m2se_read_bool(normalizer, "strip_accents", &t->strip_accents, error);
  return code ? m2se_error_prefix(error, code, "normalizer") : 0;
}

/* The pattern that splits a text into pieces: CLIP's, with or without its special tokens. */
static int read_pattern(struct m2se_tokenizer *t, const struct m2se_json *split, struct m2se_error *error) {
  static const char plain[] = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
  static const char specials[] = "<\\|startoftext\\|>|<\\|endoftext\\|>|";
  const size_t skip = sizeof(specials) - 1;
  const char *pattern = NULL;
  int code = expect(split, "type", "Split", "pre_tokenizer step 0", error);
  code = code ? code : expect(split, "behavior", "Removed", "pre_tokenizer step 0", error);
  code = code ? code : expect_bool(split, "invert", true, false, "pre_tokenizer step 0", error);
  code = code ? code
              : m2se_json_as_string(m2se_json_get(m2se_json_get(split, "pattern"), "Regex"),
                                    "pre_tokenizer step 0: pattern.Regex", &pattern, NULL, error);
  if (code) {
    return code;
  }
  t->specials_in_split = strncmp(pattern, specials, skip) == 0;
  if (strcmp(pattern + (t->specials_in_split ? skip : 0), plain) != 0) {
    code = m2se_error_set(error, M2SE_ERANGE, "pre_tokenizer step 0: the pattern is not CLIP's");
  }
  return code;
}

/* The model's options that the merging here knows one value of. */
static int expect_model(const struct m2se_json *model, struct m2se_error *error) {
  const struct m2se_json *dropout = m2se_json_get(model, "dropout");
  const struct m2se_json *prefix = m2se_json_get(model, "continuing_subword_prefix");
  static const char *const off[] = {"fuse_unk", "byte_fallback", "ignore_merges"};
  int code = expect(model, "end_of_word_suffix", "</w>", "model", error);
  for (size_t i = 0; i < 3 && !code; i++) {
    code = expect_bool(model, off[i], false, false, "model", error);
  }
  if (!code && dropout && m2se_json_type(dropout) != M2SE_JSON_NULL) {
    code = m2se_error_set(error, M2SE_ERANGE, "model.dropout: not supported");
  }
  if (!code && prefix && m2se_json_type(prefix) != M2SE_JSON_NULL) {
    code = expect(model, "continuing_subword_prefix", "", "model", error);
  }
  return code;
}

int m2se_read_clip_options(struct m2se_tokenizer *t, const struct m2se_json *root, struct m2se_error *error) {
  static const char *const steps[] = {"NFC", "Replace", "Lowercase"};
  const struct m2se_json *normalizer = m2se_json_get(root, "normalizer");
  const struct m2se_json *splitter = m2se_json_get(root, "pre_tokenizer");
  int code = expect_model(m2se_json_get(root, "model"), error);
  code = code ? code : expect_steps(normalizer, "normalizers", 3, "normalizer", error);
  for (size_t i = 0; i < 3 && !code; i++) {
    code = expect(step(normalizer, "normalizers", i), "type", steps[i], "normalizer step", error);
  }
  const struct m2se_json *replace = step(normalizer, "normalizers", 1);
  code =
      code ? code
           : expect(m2se_json_get(replace, "pattern"), "Regex", "\\s+", "normalizer step 1: pattern", error);
  code = code ? code : expect(replace, "content", " ", "normalizer step 1", error);
  code = code ? code : expect_steps(splitter, "pretokenizers", 2, "pre_tokenizer", error);
  code = code ? code : read_pattern(t, step(splitter, "pretokenizers", 0), error);
  const struct m2se_json *bytes = step(splitter, "pretokenizers", 1);
  code = code ? code : expect(bytes, "type", "ByteLevel", "pre_tokenizer step 1", error);
  code = code ? code : expect_bool(bytes, "add_prefix_space", false, true, "pre_tokenizer step 1", error);
  return code ? code : expect_bool(bytes, "use_regex", true, true, "pre_tokenizer step 1", error);
}

/* An id that has a token. */
static int check_id(const struct m2se_tokenizer *t, const struct m2se_json *value, const char *what,
                    uint32_t *id, struct m2se_error *error) {
  uint64_t number = 0;
  int code = m2se_json_as_uint64(value, what, &number, error);
  if (!code && (number >= t->ids || t->tokens[number].begin == SIZE_MAX)) {
    code = m2se_error_set(error, M2SE_ERANGE, "%s: no token has this id", what);
  }
  *id = code ? 0 : (uint32_t)number;
  return code;
}

/* Step `index` of a template: a special token with one id. */
static int read_template_token(const struct m2se_tokenizer *t, const struct m2se_json *post, size_t index,
                               uint32_t *id, struct m2se_error *error) {
  const struct m2se_json *place =
      m2se_json_get(m2se_json_at(m2se_json_get(post, "single"), index), "SpecialToken");
  const char *name = NULL;
  int code = m2se_json_as_string(m2se_json_get(place, "id"), "single[].SpecialToken.id", &name, NULL, error);
  if (code) {
    return code;
  }
  const struct m2se_json *ids =
      m2se_json_get(m2se_json_get(m2se_json_get(post, "special_tokens"), name), "ids");
  if (m2se_json_size(ids) != 1) {
    return m2se_error_set(error, M2SE_ERANGE, "special_tokens[\"%.40s\"].ids: not one id", name);
  }
  return check_id(t, m2se_json_at(ids, 0), "special_tokens[].ids[0]", id, error);
}

static int read_template(struct m2se_tokenizer *t, const struct m2se_json *post, struct m2se_error *error) {
  const struct m2se_json *single = m2se_json_get(post, "single");
  const struct m2se_json *sequence = m2se_json_get(m2se_json_at(single, 1), "Sequence");
  if (m2se_json_size(single) != 3 || !sequence) {
    return m2se_error_set(error, M2SE_ERANGE, "single: not a special token, the text and a special token");
  }
  int code = read_template_token(t, post, 0, &t->first_id, error);
  return code ? code : read_template_token(t, post, 2, &t->last_id, error);
}

int m2se_read_first_and_last(struct m2se_tokenizer *t, const struct m2se_json *post,
                             struct m2se_error *error) {
  const char *type = NULL;
  int code = m2se_json_as_string(m2se_json_get(post, "type"), "type", &type, NULL, error);
  if (!code && strcmp(type, "TemplateProcessing") == 0) {
    code = read_template(t, post, error);
  } else if (!code && (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0)) {
    code = check_id(t, m2se_json_at(m2se_json_get(post, "cls"), 1), "cls[1]", &t->first_id, error);
    code =
        code ? code : check_id(t, m2se_json_at(m2se_json_get(post, "sep"), 1), "sep[1]", &t->last_id, error);
  } else if (!code) {
    code = m2se_error_set(error, M2SE_ERANGE,
                          "type \"%.40s\" is none of TemplateProcessing, BertProcessing, "
                          "RobertaProcessing",
                          type);
  }
  return code ? m2se_error_prefix(error, code, "post_processor") : 0;
}
