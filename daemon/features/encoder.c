#include "daemon/features/encoder.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "model/blas.h"
#include "model/encoder/folder.h"
#include "model/text/bert.h"
#include "model/text/tokenizer.h"
#include "model/vision/clip.h"
#include "model/vision/resize.h"
#include "model/vision/words.h"

enum { ROWS_MAX = 1024 /* tokens that BERT computes at once */ };

struct m2sed_encoder {
  struct m2se_tokenizer *tokenizer;
  struct m2se_tokenizer_scratch *tokens;
  struct m2se_bert *bert;
  struct m2se_bert_scratch *bert_scratch;
  struct m2se_clip *clip; /* NULL: no pictures */
  struct m2se_clip_scratch *clip_scratch;
  struct m2se_resizer *resizer;
  struct m2se_words *words;
  uint32_t max_ids, words_per_image;
  float *numbers, *picture; /* [3, size, size], [dim of CLIP] */
  uint32_t ids[M2SED_SIDE_TEXTS_MAX * M2SE_TOKENIZER_IDS_MAX];
  char joined[M2SE_WORDS_BEST_MAX * (M2SE_WORD_BYTES_MAX + 1)];
  uint8_t models[M2SED_CONTENT_KINDS][M2SED_MODEL_BYTES];
};

static int encode_texts(void *self, const struct m2sed_embed_text *texts, uint32_t count, float *rows,
                        struct m2se_error *error) {
  struct m2sed_encoder *e = self;
  uint32_t ptr[M2SED_SIDE_TEXTS_MAX + 1] = {0};
  assert(count <= M2SED_SIDE_TEXTS_MAX);
  for (uint32_t i = 0; i < count; i++)
    ptr[i + 1] = ptr[i] + m2se_tokenizer_encode(e->tokenizer, e->tokens, texts[i].data, texts[i].size,
                                                e->max_ids, e->ids + ptr[i], NULL);
  return m2se_bert_encode(e->bert, e->bert_scratch, e->ids, ptr, count, m2se_bert_pooling(e->bert),
                          m2se_bert_normalizes(e->bert), rows, error);
}

static int encode_picture(void *self, const struct m2sed_picture *picture, float *row,
                          struct m2se_error *error) {
  struct m2sed_encoder *e = self;
  m2se_resize_normalized(e->resizer, picture->pixels, picture->width, picture->height, picture->channels,
                         e->numbers);
  int code = m2se_clip_encode_images(e->clip, e->clip_scratch, e->numbers, 1, true, e->picture, error);
  if (code)
    return code;
  struct m2se_word_score best[M2SE_WORDS_BEST_MAX];
  uint32_t count = m2se_words_best(e->words, e->picture, e->words_per_image, best);
  struct m2sed_embed_text text = {e->joined, 0};
  text.size = m2se_words_join(e->words, best, count, e->joined, sizeof e->joined);
  return encode_texts(e, &text, 1, row, error);
}

struct m2sed_embedder m2sed_encoder_embedder(struct m2sed_encoder *encoder) {
  return (struct m2sed_embedder){encoder, m2se_bert_dim(encoder->bert), encode_texts,
                                 encoder->clip ? encode_picture : NULL};
}

void m2sed_encoder_models(const struct m2sed_encoder *encoder,
                          uint8_t models[M2SED_CONTENT_KINDS][M2SED_MODEL_BYTES]) {
  memcpy(models, encoder->models, sizeof encoder->models);
}

/* Adds to a name what it depends on, too. */
static void extend_name(uint8_t name[M2SED_MODEL_BYTES], const void *more, size_t size) {
  char text[M2SED_MODEL_BYTES + M2SE_WORD_BYTES_MAX];
  uint8_t digest[M2SED_DIGEST_BYTES];
  assert(size <= M2SE_WORD_BYTES_MAX);
  memcpy(text, name, M2SED_MODEL_BYTES);
  memcpy(text + M2SED_MODEL_BYTES, more, size);
  m2sed_store_digest(&(struct m2sed_content){M2SED_CONTENT_TEXT, text, M2SED_MODEL_BYTES + size}, digest);
  memcpy(name, digest, M2SED_MODEL_BYTES);
}

static int load_text_model(struct m2sed_encoder *e, const char *folder, struct m2se_error *error) {
  char digest[M2SE_FOLDER_DIGEST];
  int code = m2se_blas_check(error);
  code = code ? code : m2se_tokenizer_load(&e->tokenizer, folder, error);
  code = code ? code : m2se_bert_load(&e->bert, folder, error);
  code = code ? code : m2se_folder_digest(folder, digest, error);
  if (code)
    return code;
  if (m2se_tokenizer_ids(e->tokenizer) > m2se_bert_ids(e->bert))
    return m2se_error_set(error, M2SE_ERANGE, "%s: the tokenizer has %u ids, the model %u", folder,
                          m2se_tokenizer_ids(e->tokenizer), m2se_bert_ids(e->bert));
  uint32_t tokens = m2se_tokenizer_max_ids(e->tokenizer), model = m2se_bert_len_max(e->bert);
  e->max_ids = tokens < model ? tokens : model;
  e->tokens = m2se_tokenizer_scratch_new();
  e->bert_scratch = m2se_bert_scratch_new(e->bert, ROWS_MAX, e->max_ids);
  if (!e->tokens || !e->bert_scratch)
    return m2se_error_set(error, M2SE_ENOMEM, "%s: out of memory", folder);
  extend_name(e->models[M2SED_CONTENT_TEXT], digest, strlen(digest));
  return 0;
}

/* A picture's row depends on both models, the words, what stands around them and how many are taken. */
static void name_image_model(struct m2sed_encoder *e, const char *digest, const char *templates) {
  uint8_t *name = e->models[M2SED_CONTENT_PICTURE];
  memcpy(name, e->models[M2SED_CONTENT_TEXT], M2SED_MODEL_BYTES);
  extend_name(name, digest, strlen(digest));
  extend_name(name, templates, strlen(templates));
  extend_name(name, &e->words_per_image, sizeof e->words_per_image);
  for (uint32_t i = 0; i < m2se_words_count(e->words); i++)
    extend_name(name, m2se_words_at(e->words, i), strlen(m2se_words_at(e->words, i)));
  memcpy(e->models[M2SED_CONTENT_PATH], name, M2SED_MODEL_BYTES);
}

static int load_words(struct m2sed_encoder *e, const struct m2sed_encoder_settings *settings,
                      struct m2se_error *error) {
  const char *templates[M2SE_WORD_TEMPLATES_MAX + 1];
  char *text = strdup(settings->templates);
  if (!text)
    return m2se_error_set(error, M2SE_ENOMEM, "%s: out of memory", settings->words);
  uint32_t count = m2se_words_cut_templates(text, templates);
  int code = m2se_words_load(&e->words, settings->image_model, settings->words, templates, count, error);
  free(text);
  return code;
}

static int load_image_model(struct m2sed_encoder *e, const struct m2sed_encoder_settings *settings,
                            struct m2se_error *error) {
  const char *folder = settings->image_model;
  char digest[M2SE_FOLDER_DIGEST];
  int code = load_words(e, settings, error);
  code = code ? code : m2se_clip_load(&e->clip, folder, M2SE_CLIP_VISION, error);
  code = code ? code : m2se_folder_digest(folder, digest, error);
  uint32_t size = code ? 0 : m2se_clip_image_size(e->clip);
  code = code ? code : m2se_resizer_new(&e->resizer, folder, size, M2SED_PICTURES_PIXELS_MAX, error);
  if (code)
    return code;
  if (m2se_words_dim(e->words) != m2se_clip_dim(e->clip))
    return m2se_error_set(error, M2SE_ESHAPE, "%s: the words' vectors are %u wide, the model's %u", folder,
                          m2se_words_dim(e->words), m2se_clip_dim(e->clip));
  e->clip_scratch = m2se_clip_scratch_new(e->clip, M2SE_CLIP_VISION, 1);
  e->numbers = m2se_floats_new(3 * (size_t)size * size);
  e->picture = m2se_floats_new(m2se_clip_dim(e->clip));
  if (!e->clip_scratch || !e->numbers || !e->picture)
    return m2se_error_set(error, M2SE_ENOMEM, "%s: out of memory", folder);
  name_image_model(e, digest, settings->templates);
  return 0;
}

int m2sed_encoder_new(struct m2sed_encoder **out, const struct m2sed_encoder_settings *settings,
                      struct m2se_error *error) {
  *out = NULL;
  struct m2sed_encoder *e = calloc(1, sizeof *e);
  if (!e)
    return m2se_error_set(error, M2SE_ENOMEM, "features: out of memory");
  e->words_per_image =
      settings->words_per_image < M2SE_WORDS_BEST_MAX ? settings->words_per_image : M2SE_WORDS_BEST_MAX;
  int code = load_text_model(e, settings->text_model, error);
  if (code == 0 && settings->image_model[0])
    code = load_image_model(e, settings, error);
  if (code) {
    m2sed_encoder_free(e);
    return code;
  }
  *out = e;
  return 0;
}

void m2sed_encoder_free(struct m2sed_encoder *e) {
  if (!e)
    return;
  m2se_bert_scratch_free(e->bert_scratch);
  m2se_bert_free(e->bert);
  m2se_tokenizer_scratch_free(e->tokens);
  m2se_tokenizer_free(e->tokenizer);
  m2se_clip_scratch_free(e->clip_scratch);
  m2se_clip_free(e->clip);
  m2se_resizer_free(e->resizer);
  m2se_words_free(e->words);
  free(e->numbers);
  free(e->picture);
  free(e);
}
