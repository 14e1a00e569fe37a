#include "model/text/bert.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/encoder/encoder.h"
#include "model/files/file.h"
#include "model/files/json.h"
#include "model/kernels/kernels.h"

enum { POSITIONS_MAX = 8192, VOCABULARY_MAX = 1 << 22, TYPES_MAX = 64 };

struct m2se_bert {
  struct m2se_encoder *encoder;
  uint32_t dim, ids, len_max;
  enum m2se_pooling pooling;
  bool normalizes;
  float *words;        /* [ids, dim] */
  float *positions;    /* [len_max, dim], the vector of token type 0 added to each */
  float *gamma, *beta; /* [dim]: the LayerNorm of the input */
};

struct m2se_bert_scratch {
  struct m2se_encoder_scratch *encoder;
  const float **words; /* [rows_max]: each row's word vector */
  uint32_t *places;    /* [rows_max]: and its place in its text */
  float *rstd;         /* [rows_max] */
  uint32_t *ptr;       /* [rows_max + 1]: the pack's texts, counted from its first row */
  uint32_t *pick;      /* [rows_max]: zeros, the place of [CLS] */
};

/* ---- configuration ---- */

static int check_type(const struct m2se_json *config, struct m2se_error *error) {
  static const char *const wanted[][2] = {{"model_type", "bert"}, {"position_embedding_type", "absolute"}};
  for (size_t i = 0; i < 2; i++) {
    const char *found = wanted[i][1];
    const struct m2se_json *value = m2se_folder_member(config, wanted[i][0]);
    int code = value ? m2se_json_as_string(value, wanted[i][0], &found, NULL, error) : 0;
    if (code)
      return code;
    if (strcmp(found, wanted[i][1]) != 0)
      return m2se_error_set(error, M2SE_ERANGE, "%s: '%.40s', not %s", wanted[i][0], found, wanted[i][1]);
  }
  return 0;
}

static int read_config(struct m2se_bert *bert, const char *folder, struct m2se_encoder_shape *shape,
                       uint32_t *types, struct m2se_error *error) {
  struct m2se_json *config;
  *shape = (struct m2se_encoder_shape){.layers = 12, .hidden = 768, .heads = 12, .ffn = 3072, .eps = 1e-12f};
  int code = m2se_file_read_json(folder, "config.json", NULL, &config, error);
  if (code)
    return code;
  code = check_type(config, error);
  if (!code)
    code = m2se_encoder_configure(shape, config, error);
  if (!code)
    code = m2se_folder_setting(config, "vocab_size", 30522, 1, VOCABULARY_MAX, &bert->ids, error);
  if (!code)
    code =
        m2se_folder_setting(config, "max_position_embeddings", 512, 2, POSITIONS_MAX, &bert->len_max, error);
  if (!code)
    code = m2se_folder_setting(config, "type_vocab_size", 2, 1, TYPES_MAX, types, error);
  bert->dim = shape->hidden;
  m2se_json_free(config);
  return code ? m2se_error_prefix(error, code, "%s/config.json", folder) : 0;
}

static bool is_true(const struct m2se_json *object, const char *key) {
  bool truth = false;
  return !m2se_json_as_bool(m2se_json_get(object, key), key, &truth, NULL) && truth;
}

/* sentence-transformers' folder for the pooling: one of its modes is true, or, in newer ones, named. */
static int read_pooling(struct m2se_bert *bert, const char *folder, struct m2se_error *error) {
  static const char name[] = "1_Pooling/config.json";
  struct m2se_json *config;
  bert->pooling = M2SE_POOLING_MEAN;
  int code = m2se_file_read_json(folder, name, NULL, &config, error);
  if (code)
    return code == M2SE_EMISSING ? 0 : code;
  const char *mode = "";
  const struct m2se_json *named = m2se_folder_member(config, "pooling_mode");
  if (named)
    code = m2se_json_as_string(named, "pooling_mode", &mode, NULL, error);
  if (!code && (!strcmp(mode, "cls") || is_true(config, "pooling_mode_cls_token")))
    bert->pooling = M2SE_POOLING_CLS;
  else if (!code && strcmp(mode, "mean") != 0 && !is_true(config, "pooling_mode_mean_tokens"))
    code = m2se_error_set(error, M2SE_ERANGE, "neither the mean nor the first token is taken");
  m2se_json_free(config);
  return code ? m2se_error_prefix(error, code, "%s/%s", folder, name) : 0;
}

static int read_modules(struct m2se_bert *bert, const char *folder, struct m2se_error *error) {
  struct m2se_json *modules;
  bert->normalizes = true;
  int code = m2se_file_read_json(folder, "modules.json", NULL, &modules, error);
  if (code)
    return code == M2SE_EMISSING ? 0 : code;
  bert->normalizes = false;
  for (size_t i = 0; i < m2se_json_size(modules); i++) {
    static const char normalize[] = ".Normalize";
    const char *type = "";
    size_t length = 0;
    const struct m2se_json *value = m2se_json_get(m2se_json_at(modules, i), "type");
    if (m2se_json_as_string(value, "type", &type, &length, NULL) == 0 && length >= sizeof(normalize) - 1)
      bert->normalizes |= !strcmp(type + length - (sizeof(normalize) - 1), normalize);
  }
  m2se_json_free(modules);
  return 0;
}

/* ---- loading ---- */

static int read_embeddings(struct m2se_bert *bert, struct m2se_folder *folder, uint32_t types,
                           struct m2se_error *error) {
  static const char word[] = "embeddings.word_embeddings", position[] = "embeddings.position_embeddings";
  static const char type[] = "embeddings.token_type_embeddings", norm[] = "embeddings.LayerNorm";
  const size_t n = bert->dim;
  float *first = m2se_floats_new(types * n);
  bert->words = m2se_floats_new(bert->ids * n);
  bert->positions = m2se_floats_new(bert->len_max * n);
  bert->gamma = m2se_floats_new(n);
  bert->beta = m2se_floats_new(n);
  int code = 0;
  if (!first || !bert->words || !bert->positions || !bert->gamma || !bert->beta)
    code = m2se_error_set(error, M2SE_ENOMEM, "no memory for %u word vectors of %u", bert->ids, bert->dim);
  if (!code)
    code = m2se_folder_read_matrix(folder, word, ".weight", bert->ids, n, bert->words, error);
  if (!code)
    code = m2se_folder_read_matrix(folder, position, ".weight", bert->len_max, n, bert->positions, error);
  if (!code)
    code = m2se_folder_read_matrix(folder, type, ".weight", types, n, first, error);
  if (!code)
    code = m2se_folder_read_vector(folder, norm, ".weight", n, bert->gamma, error);
  if (!code)
    code = m2se_folder_read_vector(folder, norm, ".bias", n, bert->beta, error);
  if (!code)
    m2se_kernels_best()->add_bias(bert->positions, n, first, bert->len_max, n);
  free(first);
  return code;
}

static int load(struct m2se_bert *bert, const char *path, struct m2se_error *error) {
  static const char *const prefixes[] = {"", "bert.", "model.", "0.auto_model."};
  static const char *const ignored[] = {"pooler.", "cls."};
  struct m2se_encoder_shape shape;
  uint32_t types = 1;
  struct m2se_folder *folder = NULL;
  int code = read_config(bert, path, &shape, &types, error);
  if (!code)
    code = read_pooling(bert, path, error);
  if (!code)
    code = read_modules(bert, path, error);
  if (!code)
    code = m2se_folder_open(&folder, path, error);
  if (!code)
    code = m2se_folder_choose_prefix(folder, prefixes, sizeof(prefixes) / sizeof(*prefixes),
                                     "embeddings.word_embeddings.weight", error);
  if (!code)
    code = read_embeddings(bert, folder, types, error);
  if (!code)
    code = m2se_encoder_load(&bert->encoder, &shape, folder, M2SE_NAMES_BERT, "encoder.layer.", error);
  if (!code)
    code = m2se_folder_finish(folder, ignored, sizeof(ignored) / sizeof(*ignored), error);
  m2se_folder_close(folder);
  return code;
}

int m2se_bert_load(struct m2se_bert **bert, const char *folder, struct m2se_error *error) {
  *bert = NULL;
  struct m2se_bert *b = calloc(1, sizeof(*b));
  if (!b)
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a model");
  int code = load(b, folder, error);
  if (code) {
    m2se_bert_free(b);
    return code;
  }
  *bert = b;
  return 0;
}

void m2se_bert_free(struct m2se_bert *bert) {
  if (!bert)
    return;
  m2se_encoder_free(bert->encoder);
  free(bert->words);
  free(bert->positions);
  free(bert->gamma);
  free(bert->beta);
  free(bert);
}

uint32_t m2se_bert_dim(const struct m2se_bert *bert) {
  return bert->dim;
}

uint32_t m2se_bert_len_max(const struct m2se_bert *bert) {
  return bert->len_max;
}

uint32_t m2se_bert_ids(const struct m2se_bert *bert) {
  return bert->ids;
}

size_t m2se_bert_bytes(const struct m2se_bert *bert) {
  const size_t rows = (size_t)bert->ids + bert->len_max + 2;
  return m2se_encoder_bytes(bert->encoder) + rows * bert->dim * sizeof(float);
}

enum m2se_pooling m2se_bert_pooling(const struct m2se_bert *bert) {
  return bert->pooling;
}

bool m2se_bert_normalizes(const struct m2se_bert *bert) {
  return bert->normalizes;
}

/* ---- encoding ---- */

struct m2se_bert_scratch *m2se_bert_scratch_new(const struct m2se_bert *bert, uint32_t rows_max,
                                                uint32_t len_max) {
  assert(len_max <= bert->len_max);
  struct m2se_bert_scratch *s = calloc(1, sizeof(*s));
  if (!s)
    return NULL;
  s->encoder = m2se_encoder_scratch_new(bert->encoder, rows_max, len_max);
  s->words = calloc(rows_max, sizeof(*s->words));
  s->places = calloc(rows_max, sizeof(*s->places));
  s->rstd = calloc(rows_max, sizeof(*s->rstd));
  s->ptr = calloc((size_t)rows_max + 1, sizeof(*s->ptr));
  s->pick = calloc(rows_max, sizeof(*s->pick));
  if (s->encoder && s->words && s->places && s->rstd && s->ptr && s->pick)
    return s;
  m2se_bert_scratch_free(s);
  return NULL;
}

void m2se_bert_scratch_free(struct m2se_bert_scratch *scratch) {
  if (!scratch)
    return;
  m2se_encoder_scratch_free(scratch->encoder);
  free(scratch->words);
  free(scratch->places);
  free(scratch->rstd);
  free(scratch->ptr);
  free(scratch->pick);
  free(scratch);
}

/* x = LayerNorm(word + position + type 0) of every id of a pack. */
static void embed(const struct m2se_bert *bert, struct m2se_bert_scratch *s, const uint32_t *ids,
                  uint32_t count) {
  static const struct m2se_dropout none = {.threshold = 0};
  const size_t n = bert->dim;
  const uint32_t rows = s->ptr[count];
  for (uint32_t i = 0; i < count; i++)
    for (uint32_t r = s->ptr[i]; r < s->ptr[i + 1]; r++) {
      assert(ids[r] < bert->ids);
      s->words[r] = bert->words + ids[r] * n;
      s->places[r] = r - s->ptr[i];
    }
  m2se_kernels_best()->embed_forward(m2se_encoder_rows(s->encoder), m2se_encoder_spare(s->encoder), s->rstd,
                                     s->words, s->places, bert->positions, bert->gamma, bert->beta, rows, n,
                                     m2se_encoder_shape(bert->encoder)->eps, &none, 0);
}

/* One text's vector from its rows of the last layer. */
static int pool(float *vector, const float *rows, uint32_t count, size_t n, bool normalize,
                struct m2se_error *error) {
  const struct m2se_kernels *k = m2se_kernels_best();
  memset(vector, 0, n * sizeof(*vector));
  for (uint32_t r = 0; r < count; r++)
    k->axpy(vector, 1.0f / (float)count, rows + r * n, n);
  const double squares = k->sum_squares(vector, n);
  if (!isfinite(squares))
    return m2se_error_set(error, M2SE_ENUMERIC, "a text's vector is not finite");
  if (normalize) {
    const float length = (float)fmax(sqrt(squares), 1e-12);
    for (size_t i = 0; i < n; i++)
      vector[i] /= length;
  }
  return 0;
}

int m2se_bert_encode(const struct m2se_bert *bert, struct m2se_bert_scratch *scratch, const uint32_t *ids,
                     const uint32_t *ptr, uint32_t count, enum m2se_pooling pooling, bool normalize,
                     float *vectors, struct m2se_error *error) {
  const uint32_t rows_max = m2se_encoder_rows_max(scratch->encoder);
  const size_t n = bert->dim;
  const float *x = m2se_encoder_rows(scratch->encoder);
  const bool cls = pooling == M2SE_POOLING_CLS;
  for (uint32_t first = 0, last; first < count; first = last) {
    for (last = first; last < count && ptr[last + 1] - ptr[first] <= rows_max; last++)
      scratch->ptr[last + 1 - first] = ptr[last + 1] - ptr[first];
    assert(last > first); /* a text of more than rows_max ids */
    embed(bert, scratch, ids + ptr[first], last - first);
    m2se_encoder_run(bert->encoder, scratch->encoder, scratch->ptr, last - first, cls ? scratch->pick : NULL);
    for (uint32_t i = 0; i < last - first; i++) {
      const uint32_t row = cls ? i : scratch->ptr[i];
      const uint32_t rows = cls ? 1 : scratch->ptr[i + 1] - row;
      int code = pool(vectors + (first + i) * n, x + row * n, rows, n, normalize, error);
      if (code)
        return code;
    }
  }
  return 0;
}

double m2se_bert_flops(const struct m2se_bert *bert, const uint32_t *ptr, uint32_t count,
                       enum m2se_pooling pooling) {
  return m2se_encoder_flops(bert->encoder, ptr, count, pooling == M2SE_POOLING_CLS);
}
