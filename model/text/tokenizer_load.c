/* The files of a model's folder become a tokenizer. What they ask for and is not supported is refused, with
 * the field's name: ids that are slightly wrong would never be noticed. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/file.h"
#include "model/text/tokenizer_json.h"
#include "model/text/tokenizer_parts.h"
#include "model/text/unicode.h"

/* Numbers as reals: "no limit" is written as 10^30. */
#define LIMITS                                                                                               \
  ((struct m2se_json_limits){.bytes_max = 32 << 20, .depth_max = 64, .values_max = 2000000, .all_real = true})

/* A JSON file that may be missing: *root is NULL then. */
static int read_optional(const char *folder, const char *name, struct m2se_json **root,
                         struct m2se_error *error) {
  struct m2se_error reason = {0};
  int code = m2se_file_read_json(folder, name, &LIMITS, root, &reason);
  if (code == 0 || code == M2SE_EMISSING) {
    return 0;
  }
  return m2se_error_set(error, code, "%s", reason.text);
}

/* ---- Special tokens ---- */

/* A token that must be in the vocabulary. */
static int find_token(const struct m2se_tokenizer *t, const char *token, uint32_t *id,
                      struct m2se_error *error) {
  *id = m2se_trie_find(&t->words, token, strlen(token));
  return *id != M2SE_TRIE_NONE
             ? 0
             : m2se_error_set(error, M2SE_EMISSING, "the vocabulary lacks \"%.40s\"", token);
}

/* A token that is looked for in what the normaliser makes of a text: it is normalised itself. */
static int add_normalized(struct m2se_tokenizer *t, const char *token, size_t size, uint32_t id) {
  struct m2se_tokenizer_scratch *scratch = m2se_tokenizer_scratch_new();
  char *bytes = malloc(4 * M2SE_CHARACTERS_MAX);
  size_t length = 0;
  int code = scratch && bytes ? 0 : M2SE_ENOMEM;
  if (!code) {
    size_t count = t->kind == M2SE_TOKENIZER_BPE ? m2se_bpe_normalize(scratch, token, size)
                                                 : m2se_wordpiece_normalize(t, scratch, token, size);
    for (size_t i = 0; i < count; i++) {
      length += m2se_unicode_encode(scratch->characters[i], bytes + length);
    }
  }
  if (!code && length > 0) {
    code = m2se_trie_add(&t->added_normal, bytes, length, id);
  }
  free(bytes);
  m2se_tokenizer_scratch_free(scratch);
  return code;
}

/* A token that is looked for in texts: as they come, or normalised. */
static int add_token(struct m2se_tokenizer *t, const char *token, size_t size, uint32_t id, bool normalized,
                     struct m2se_error *error) {
  int code = m2se_tokens_name(t, token, size, id, error);
  if (code || size == 0) {
    return code;
  }
  code = normalized ? add_normalized(t, token, size, id) : m2se_trie_add(&t->added_raw, token, size, id);
  return code ? m2se_error_set(error, code, "no room for the added token \"%.40s\"", token) : 0;
}

static int read_added_token(struct m2se_tokenizer *t, const struct m2se_json *entry,
                            struct m2se_error *error) {
  static const char *const unsupported[] = {"single_word", "lstrip", "rstrip"};
  const char *content = NULL;
  size_t size = 0;
  uint64_t id = 0;
  bool normalized = true, is_set = false;
  int code = m2se_json_as_string(m2se_json_get(entry, "content"), "content", &content, &size, error);
  code = code ? code : m2se_json_as_uint64(m2se_json_get(entry, "id"), "id", &id, error);
  code = code ? code : m2se_read_bool(entry, "normalized", &normalized, error);
  for (size_t i = 0; i < 3 && !code; i++) {
    code = m2se_read_bool(entry, unsupported[i], &is_set, error);
    if (!code && is_set) {
      code = m2se_error_set(error, M2SE_ERANGE, "%s is true: not supported", unsupported[i]);
    }
  }
  id = id < UINT32_MAX ? id : UINT32_MAX - 1; /* refused as too large */
  return code ? code : add_token(t, content, size, (uint32_t)id, normalized, error);
}

static int read_added_tokens(struct m2se_tokenizer *t, const struct m2se_json *list,
                             struct m2se_error *error) {
  size_t count = 0;
  int code = list ? m2se_json_as_array(list, "added_tokens", &count, error) : 0;
  for (size_t i = 0; i < count && !code; i++) {
    code = read_added_token(t, m2se_json_at(list, i), error);
    code = code ? m2se_error_prefix(error, code, "added_tokens[%zu]", i) : 0;
  }
  return code;
}

/* ---- tokenizer.json ---- */

static int read_wordpiece(struct m2se_tokenizer *t, const struct m2se_json *root, struct m2se_error *error) {
  const struct m2se_json *model = m2se_json_get(root, "model");
  const char *unknown = NULL, *prefix = NULL;
  int64_t characters_max = 0;
  int code = m2se_read_bert_normalizer(t, root, error);
  code = code ? code : m2se_tokens_read_object(t, m2se_json_get(model, "vocab"), error);
  code =
      code ? code
           : m2se_json_as_string(m2se_json_get(model, "unk_token"), "model.unk_token", &unknown, NULL, error);
  code = code ? code
              : m2se_json_as_string(m2se_json_get(model, "continuing_subword_prefix"),
                                    "model.continuing_subword_prefix", &prefix, NULL, error);
  code = code ? code
              : m2se_json_as_int64(m2se_json_get(model, "max_input_chars_per_word"),
                                   "model.max_input_chars_per_word", &characters_max, error);
  if (!code && (characters_max < 1 || characters_max > M2SE_WORD_CHARACTERS_MAX)) {
    code = m2se_error_set(error, M2SE_ERANGE, "model.max_input_chars_per_word is not within 1..%d",
                          M2SE_WORD_CHARACTERS_MAX);
  }
  if (!code && strcmp(prefix, "##") != 0) {
    code = m2se_error_set(error, M2SE_ERANGE,
                          "model.continuing_subword_prefix \"%.40s\", only \"##\" is supported", prefix);
  }
  t->word_characters_max = (uint32_t)characters_max;
  return code ? code : find_token(t, unknown, &t->unknown_id, error);
}

static int read_bpe(struct m2se_tokenizer *t, const struct m2se_json *root, struct m2se_error *error) {
  const struct m2se_json *model = m2se_json_get(root, "model");
  const struct m2se_json *unknown = m2se_json_get(model, "unk_token");
  const char *token = NULL;
  int code = m2se_read_clip_options(t, root, error);
  code = code ? code : m2se_tokens_read_object(t, m2se_json_get(model, "vocab"), error);
  code = code ? code : m2se_merges_read_array(t, m2se_json_get(model, "merges"), error);
  if (!code && unknown && m2se_json_type(unknown) != M2SE_JSON_NULL) {
    code = m2se_json_as_string(unknown, "model.unk_token", &token, NULL, error);
    code = code ? code : find_token(t, token, &t->unknown_id, error);
  }
  return code;
}

static int read_tokenizer_json(struct m2se_tokenizer *t, const struct m2se_json *root,
                               struct m2se_error *error) {
  const char *type = NULL;
  int code = m2se_json_as_string(m2se_json_get(m2se_json_get(root, "model"), "type"), "model.type", &type,
                                 NULL, error);
  if (code) {
    return code;
  }
  if (strcmp(type, "WordPiece") == 0) {
    t->kind = M2SE_TOKENIZER_WORDPIECE;
    code = read_wordpiece(t, root, error);
  } else if (strcmp(type, "BPE") == 0) {
    t->kind = M2SE_TOKENIZER_BPE;
    code = read_bpe(t, root, error);
  } else {
    code =
        m2se_error_set(error, M2SE_ERANGE, "model.type \"%.40s\", neither \"WordPiece\" nor \"BPE\"", type);
  }
  code = code ? code : read_added_tokens(t, m2se_json_get(root, "added_tokens"), error);
  return code ? code : m2se_read_first_and_last(t, m2se_json_get(root, "post_processor"), error);
}

/* ---- The files from before tokenizer.json ---- */

/* A special token's text in tokenizer_config.json, a string or an object, or else its usual one. */
static int special_token(const struct m2se_json *config, const char *key, const char **token,
                         bool *normalized, struct m2se_error *error) {
  const struct m2se_json *entry = m2se_json_get(config, key);
  *normalized = false;
  if (!entry || m2se_json_type(entry) == M2SE_JSON_NULL) {
    return 0;
  }
  if (m2se_json_type(entry) == M2SE_JSON_OBJECT) {
    int code = m2se_read_bool(entry, "normalized", normalized, error);
    return code ? code : m2se_json_as_string(m2se_json_get(entry, "content"), key, token, NULL, error);
  }
  return m2se_json_as_string(entry, key, token, NULL, error);
}

struct special {
  const char *key, *token;
  uint32_t *id; /* NULL: may be missing, and is looked for all the same */
};

static int read_specials(struct m2se_tokenizer *t, const struct m2se_json *config,
                         const struct special *specials, size_t count, struct m2se_error *error) {
  int code = 0;
  for (size_t i = 0; i < count && !code; i++) {
    const char *token = specials[i].token;
    bool normalized = false;
    uint32_t id = 0;
    code = special_token(config, specials[i].key, &token, &normalized, error);
    code = code ? m2se_error_prefix(error, code, "tokenizer_config.json") : 0;
    if (!code && !specials[i].id && m2se_trie_find(&t->words, token, strlen(token)) == M2SE_TRIE_NONE) {
      continue;
    }
    code = code ? code : find_token(t, token, &id, error);
    code = code ? code : add_token(t, token, strlen(token), id, normalized, error);
    if (!code && specials[i].id) {
      *specials[i].id = id;
    }
  }
  return code;
}

static int read_vocab_txt(struct m2se_tokenizer *t, const char *folder, const struct m2se_json *config,
                          struct m2se_error *error) {
  const struct special specials[] = {{"unk_token", "[UNK]", &t->unknown_id},
                                     {"sep_token", "[SEP]", &t->last_id},
                                     {"pad_token", "[PAD]", NULL},
                                     {"cls_token", "[CLS]", &t->first_id},
                                     {"mask_token", "[MASK]", NULL}};
  t->kind = M2SE_TOKENIZER_WORDPIECE;
  t->word_characters_max = 100;
  t->clean = t->chinese = t->lower = true;
  int code = m2se_tokens_read_lines(t, folder, error);
  code = code ? code : m2se_read_bool(config, "do_lower_case", &t->lower, error);
  t->strip_accents = t->lower;
  code = code ? code : m2se_read_bool(config, "strip_accents", &t->strip_accents, error);
  code = code ? code : m2se_read_bool(config, "tokenize_chinese_chars", &t->chinese, error);
  return code ? code : read_specials(t, config, specials, 5, error);
}

static int read_vocab_json(struct m2se_tokenizer *t, const char *folder, const struct m2se_json *config,
                           struct m2se_error *error) {
  const struct special specials[] = {{"unk_token", "<|endoftext|>", &t->unknown_id},
                                     {"bos_token", "<|startoftext|>", &t->first_id},
                                     {"eos_token", "<|endoftext|>", &t->last_id}};
  struct m2se_json *vocabulary = NULL;
  t->kind = M2SE_TOKENIZER_BPE;
  t->specials_in_split = true;
  int code = m2se_file_read_json(folder, "vocab.json", &LIMITS, &vocabulary, error);
  if (!code) {
    code = m2se_tokens_read_object(t, vocabulary, error);
    code = code ? m2se_error_prefix(error, code, "vocab.json") : 0;
  }
  m2se_json_free(vocabulary);
  code = code ? code : m2se_merges_read_lines(t, folder, error);
  return code ? code : read_specials(t, config, specials, 3, error);
}

/* ---- The folder ---- */

/* Lowers *limit to a number of a file, if it is there. */
static int lower_limit(const struct m2se_json *object, const char *key, double *limit, bool *found,
                       struct m2se_error *error) {
  const struct m2se_json *value = m2se_json_get(object, key);
  double number = 0;
  *found = value && m2se_json_type(value) != M2SE_JSON_NULL;
  if (!*found) {
    return 0;
  }
  int code = m2se_json_as_double(value, key, &number, error);
  if (!code && number < 2) {
    code = m2se_error_set(error, M2SE_ERANGE, "%s is less than 2", key);
  }
  *limit = !code && number < *limit ? number : *limit;
  return code;
}

/* The model's own: as many positions as it has. */
static int read_positions(const struct m2se_tokenizer *t, const char *folder, double *limit,
                          struct m2se_error *error) {
  struct m2se_json *root = NULL;
  bool found = false;
  int code = read_optional(folder, "config.json", &root, error);
  if (code) {
    return code;
  }
  code = lower_limit(root, "max_position_embeddings", limit, &found, error);
  if (!code && !found) {
    const struct m2se_json *text = m2se_json_get(root, "text_config");
    code = lower_limit(text, "max_position_embeddings", limit, &found, error);
  }
  m2se_json_free(root);
  if (!found && t->kind == M2SE_TOKENIZER_BPE) {
    *limit = 77; /* what CLIP's configuration leaves out because it is the usual one */
  }
  return code ? m2se_error_prefix(error, code, "%s/config.json", folder) : 0;
}

/* The one place that decides how many ids a text may have (tokenizer.h has the rule). */
static int read_max_ids(struct m2se_tokenizer *t, const char *folder, const struct m2se_json *config,
                        struct m2se_error *error) {
  static const char sentences[] = "sentence_bert_config.json";
  struct m2se_json *root = NULL;
  double limit = M2SE_TOKENIZER_IDS_MAX;
  bool found = false;
  int code = read_positions(t, folder, &limit, error);
  code = code ? code : read_optional(folder, sentences, &root, error);
  if (!code) {
    code = lower_limit(root, "max_seq_length", &limit, &found, error);
    code = code ? m2se_error_prefix(error, code, "%s/%s", folder, sentences) : 0;
  }
  m2se_json_free(root);
  if (!code && !found) {
    code = lower_limit(config, "model_max_length", &limit, &found, error);
    code = code ? m2se_error_prefix(error, code, "%s/tokenizer_config.json", folder) : 0;
  }
  t->max_ids = (uint32_t)limit;
  return code;
}

static int read_folder(struct m2se_tokenizer *t, const char *folder, struct m2se_error *error) {
  struct m2se_json *config = NULL, *root = NULL;
  struct m2se_error reason = {0};
  int code = read_optional(folder, "tokenizer_config.json", &config, error);
  code = code ? code : read_optional(folder, "tokenizer.json", &root, error);
  if (!code && root) {
    code = read_tokenizer_json(t, root, error);
    code = code ? m2se_error_prefix(error, code, "%s/tokenizer.json", folder) : 0;
  } else if (!code) {
    code = read_vocab_txt(t, folder, config, &reason);
    if (code == M2SE_EMISSING && t->ids == 0) {
      code = read_vocab_json(t, folder, config, &reason);
    }
    if (code == M2SE_EMISSING && t->ids == 0) {
      code = m2se_error_set(
          error, code, "%s: neither tokenizer.json nor vocab.txt nor vocab.json with merges.txt", folder);
    } else if (code) {
      code = m2se_error_set(error, code, "%s: %s", folder, reason.text);
    }
  }
  code = code ? code : read_max_ids(t, folder, config, error);
  m2se_json_free(config);
  m2se_json_free(root);
  return code;
}

int m2se_tokenizer_load(struct m2se_tokenizer **tokenizer, const char *folder, struct m2se_error *error) {
  struct m2se_tokenizer *t = calloc(1, sizeof(*t));
  *tokenizer = NULL;
  if (!t) {
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a tokenizer");
  }
  t->unknown_id = M2SE_TRIE_NONE;
  int code = read_folder(t, folder, error);
  if (code) {
    m2se_tokenizer_free(t);
    return code;
  }
  if (t->kind == M2SE_TOKENIZER_BPE) {
    m2se_tokens_find_bytes(t);
  } else {
    t->continuing_node = m2se_trie_step(&t->words, M2SE_TRIE_ROOT, '#');
    if (t->continuing_node != M2SE_TRIE_NONE) {
      t->continuing_node = m2se_trie_step(&t->words, t->continuing_node, '#');
    }
  }
  *tokenizer = t;
  return 0;
}
