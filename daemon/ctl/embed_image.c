/* m2sectl embed-image, words: what a CLIP makes of pictures. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "daemon/pictures/pictures.h"
#include "model/blas.h"
#include "model/encoder/folder.h"
#include "model/files/json.h"
#include "model/files/safetensors.h"
#include "model/vision/clip.h"
#include "model/vision/resize.h"
#include "model/vision/words.h"

enum { WORDS_STANDARD = 15 };

struct embed {
  struct m2se_clip *clip;
  struct m2se_clip_scratch *scratch;
  struct m2se_resizer *resizer;
  struct m2sed_pictures *pictures;
  struct m2se_words *words; /* NULL: the answer is the vector */
  uint32_t best_count;
  bool normalize;
  float *numbers, *vector; /* [3, size, size], [dim] */
};

/* ---- answers ---- */

static void put_vector(struct m2se_json_writer *writer, const struct embed *e) {
  m2se_json_put_array(writer, "vector");
  for (uint32_t i = 0; i < m2se_clip_dim(e->clip); i++)
    m2se_json_put_double(writer, NULL, e->vector[i]);
  m2se_json_put_end(writer);
}

static void put_words(struct m2se_json_writer *writer, const struct embed *e) {
  struct m2se_word_score best[M2SE_WORDS_BEST_MAX];
  const uint32_t count = m2se_words_best(e->words, e->vector, e->best_count, best);
  m2se_json_put_array(writer, "words");
  for (uint32_t i = 0; i < count; i++) {
    m2se_json_put_object(writer, NULL);
    m2se_json_put_text(writer, "word", m2se_words_at(e->words, best[i].word));
    m2se_json_put_double(writer, "score", best[i].score);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
}

/* One line: the vector of the numbers at hand or its words, or what was wrong. */
static int show(const struct embed *e, const char *file, int code, const struct m2se_error *error) {
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  m2se_json_put_object(writer, NULL);
  m2se_json_put_text(writer, "file", file);
  if (code)
    m2se_json_put_text(writer, "error", error->text);
  else if (e->words)
    put_words(writer, e);
  else
    put_vector(writer, e);
  m2se_json_put_end(writer);
  int status = m2sed_ctl_show_json(writer);
  return !status && code ? EX_DATAERR : status;
}

/* From the file to the vector. 0, a reason (positive) or an error. */
static int embed_file(struct embed *e, const char *file, struct m2se_error *error) {
  struct m2sed_picture picture;
  int code = m2sed_pictures_decode_file(e->pictures, NULL, file, &picture, error);
  if (code)
    return code;
  m2se_resize_normalized(e->resizer, picture.pixels, picture.width, picture.height, picture.channels,
                         e->numbers);
  return m2se_clip_encode_images(e->clip, e->scratch, e->numbers, 1, e->normalize, e->vector, error);
}

static int each_file(struct m2sed_ctl *ctl, struct embed *e) {
  struct m2se_error error = {0};
  int worst = 0;
  int code = m2sed_pictures_open(&e->pictures, NULL, &error);
  if (!code)
    code = m2se_resizer_new(&e->resizer, ctl->values[M2SED_CTL_MODEL], m2se_clip_image_size(e->clip),
                            M2SED_PICTURES_PIXELS_MAX, &error);
  if (code)
    return m2sed_ctl_fail_error(&error);
  for (uint32_t i = 0; i < ctl->argument_count; i++) {
    const char *file = ctl->arguments[i];
    code = embed_file(e, file, &error);
    int status = show(e, file, code, &error);
    if (status && status != EX_DATAERR)
      return status;
    worst = status ? status : worst;
  }
  return worst;
}

static int each_ready_picture(struct m2sed_ctl *ctl, struct embed *e) {
  const char *path = ctl->values[M2SED_CTL_PIXEL_VALUES];
  assert(e->numbers); /* load() took it */
  const uint64_t size = m2se_clip_image_size(e->clip), numbers = 3 * size * size;
  struct m2se_error error = {0};
  struct m2se_safetensors *file;
  const struct m2se_tensor *tensor;
  if (m2se_safetensors_open(&file, path, &error))
    return m2sed_ctl_fail_error(&error);
  int status = 0;
  if (m2se_safetensors_require(file, "pixel_values", 4, (uint64_t[]){M2SE_ANY, 3, size, size}, &tensor,
                               &error))
    status = m2sed_ctl_fail_error(&error);
  else if (tensor->dtype != M2SE_F32)
    status =
        m2sed_ctl_fail(EX_DATAERR, "%s: pixel_values is %s, not F32", path, m2se_dtype_name(tensor->dtype));
  for (uint64_t i = 0; !status && i < tensor->shape[0]; i++) {
    memcpy(e->numbers, (const char *)tensor->data + i * numbers * sizeof(float), numbers * sizeof(float));
    int code = m2se_clip_encode_images(e->clip, e->scratch, e->numbers, 1, e->normalize, e->vector, &error);
    status = show(e, path, code, &error);
  }
  m2se_safetensors_close(file);
  return status;
}

/* ---- start and end ---- */

static int load(const struct m2sed_ctl *ctl, struct embed *e) {
  struct m2se_error error = {0};
  if (!m2sed_ctl_has(ctl, M2SED_CTL_MODEL))
    return m2sed_ctl_fail(EX_USAGE, "%s needs --model DIR", ctl->command->words);
  if (m2se_blas_check(&error) ||
      m2se_clip_load(&e->clip, ctl->values[M2SED_CTL_MODEL], M2SE_CLIP_VISION, &error))
    return m2sed_ctl_fail_error(&error);
  const size_t size = m2se_clip_image_size(e->clip);
  e->scratch = m2se_clip_scratch_new(e->clip, M2SE_CLIP_VISION, 1);
  e->numbers = m2se_floats_new(3 * size * size);
  e->vector = m2se_floats_new(m2se_clip_dim(e->clip));
  return e->scratch && e->numbers && e->vector ? 0 : m2sed_ctl_fail(EX_OSERR, "out of memory");
}

static void give_back(struct embed *e) {
  m2sed_pictures_close(e->pictures);
  m2se_resizer_free(e->resizer);
  m2se_words_free(e->words);
  m2se_clip_scratch_free(e->scratch);
  m2se_clip_free(e->clip);
  free(e->numbers);
  free(e->vector);
}

int m2sed_ctl_embed_image(struct m2sed_ctl *ctl) {
  struct embed e = {.normalize = !m2sed_ctl_has(ctl, M2SED_CTL_NO_NORMALIZE)};
  const bool ready = m2sed_ctl_has(ctl, M2SED_CTL_PIXEL_VALUES);
  if (ready == (ctl->argument_count > 0))
    return m2sed_ctl_fail(EX_USAGE, "embed-image takes either files or --pixel-values FILE");
  int status = load(ctl, &e);
  if (!status)
    status = ready ? each_ready_picture(ctl, &e) : each_file(ctl, &e);
  give_back(&e);
  return status;
}

/* The dictionary's vectors. */
static int load_words(const struct m2sed_ctl *ctl, struct embed *e) {
  struct m2se_error error = {0};
  const char *templates[M2SE_WORD_TEMPLATES_MAX + 1];
  const char *given = ctl->values[M2SED_CTL_TEMPLATES];
  char *parts = given ? strdup(given) : NULL;
  uint32_t count = parts ? m2se_words_cut_templates(parts, templates) : 0;
  int code = m2se_words_load(&e->words, ctl->values[M2SED_CTL_MODEL], ctl->values[M2SED_CTL_WORDS], templates,
                             count, &error);
  free(parts);
  if (code)
    return m2sed_ctl_fail_error(&error);
  if (m2se_words_dim(e->words) != m2se_clip_dim(e->clip))
    return m2sed_ctl_fail(EX_DATAERR, "the kept vectors are %u wide, the model's %u",
                          m2se_words_dim(e->words), m2se_clip_dim(e->clip));
  return 0;
}

int m2sed_ctl_words(struct m2sed_ctl *ctl) {
  struct embed e = {.normalize = true};
  uint64_t count = WORDS_STANDARD;
  if (!m2sed_ctl_has(ctl, M2SED_CTL_WORDS))
    return m2sed_ctl_fail(EX_USAGE, "words needs --words FILE");
  int status = m2sed_ctl_whole(ctl, M2SED_CTL_NEWEST, M2SE_WORDS_BEST_MAX, &count);
  e.best_count = (uint32_t)count;
  if (!status)
    status = load(ctl, &e);
  if (!status)
    status = load_words(ctl, &e);
  if (!status)
    status = each_file(ctl, &e);
  give_back(&e);
  return status;
}
