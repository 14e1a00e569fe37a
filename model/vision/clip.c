#include "model/vision/clip.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/encoder/encoder.h"
#include "model/files/file.h"
#include "model/files/json.h"
#include "model/kernels/kernels.h"
#include "model/network/blas_door.h"

enum { CHANNELS = 3, LEGACY_END = 2 };

/* What the towers have in common. */
struct tower {
  struct m2se_encoder *encoder; /* NULL: not loaded */
  float *positions;             /* [rows of the longest sequence, hidden] */
  float *gamma, *beta;          /* the LayerNorm behind the last layer */
  float *projection;            /* [dim, hidden] */
};

struct m2se_clip {
  uint32_t dim;
  struct tower text, vision;
  struct m2se_encoder_shape text_shape, vision_shape;
  uint32_t ids, len_max, end;        /* of texts; end: id of the end of a text, LEGACY_END: the largest id */
  uint32_t image_size, patch_size;   /* of pictures */
  float *words;                      /* [ids, text hidden] */
  float *patches;                    /* [vision hidden, 3 patch_size^2] */
  float *class_row;                  /* [vision hidden] */
  float *before_gamma, *before_beta; /* the LayerNorm before the vision tower's first layer */
};

struct m2se_clip_scratch {
  enum m2se_clip_towers tower;
  uint32_t items;
  struct m2se_encoder_scratch *encoder;
  uint32_t *ptr, *pick; /* [items + 1], [items] */
  float *patches;       /* [items, patches, 3 patch_size^2] */
};

/* ---- configuration ---- */

static int read_text_config(struct m2se_clip *clip, const struct m2se_json *config,
                            struct m2se_error *error) {
  struct m2se_encoder_shape *shape = &clip->text_shape;
  *shape = (struct m2se_encoder_shape){.layers = 12, .hidden = 512, .heads = 8, .ffn = 2048, .eps = 1e-5f};
  shape->pre_norm = shape->causal = true;
  shape->activation = M2SE_QUICK_GELU;
  int code = m2se_encoder_configure(shape, config, error);
  if (!code)
    code = m2se_folder_setting(config, "vocab_size", 49408, 3, 1 << 22, &clip->ids, error);
  if (!code)
    code = m2se_folder_setting(config, "max_position_embeddings", 77, 2, 4096, &clip->len_max, error);
  if (!code)
    code = m2se_folder_setting(config, "eos_token_id", 49407, 0, clip->ids - 1, &clip->end, error);
  return code ? m2se_error_prefix(error, code, "text_config") : 0;
}

static int read_vision_config(struct m2se_clip *clip, const struct m2se_json *config,
                              struct m2se_error *error) {
  struct m2se_encoder_shape *shape = &clip->vision_shape;
  uint32_t channels = CHANNELS;
  *shape = (struct m2se_encoder_shape){.layers = 12, .hidden = 768, .heads = 12, .ffn = 3072, .eps = 1e-5f};
  shape->pre_norm = true;
  shape->activation = M2SE_QUICK_GELU;
  int code = m2se_encoder_configure(shape, config, error);
  if (!code)
    code = m2se_folder_setting(config, "num_channels", CHANNELS, CHANNELS, CHANNELS, &channels, error);
  if (!code)
    code = m2se_folder_setting(config, "image_size", 224, 1, 1024, &clip->image_size, error);
  if (!code)
    code = m2se_folder_setting(config, "patch_size", 32, 1, clip->image_size, &clip->patch_size, error);
  return code ? m2se_error_prefix(error, code, "vision_config") : 0;
}

static int is_clip(const struct m2se_json *config, struct m2se_error *error) {
  const char *type = "clip";
  const struct m2se_json *value = m2se_folder_member(config, "model_type");
  int code = value ? m2se_json_as_string(value, "model_type", &type, NULL, error) : 0;
  if (!code && strcmp(type, "clip") != 0)
    code = m2se_error_set(error, M2SE_ERANGE, "model_type: '%.40s', not clip", type);
  return code;
}

bool m2se_clip_is_folder(const char *folder) {
  struct m2se_json *config;
  if (m2se_file_read_json(folder, "config.json", NULL, &config, NULL))
    return false;
  const bool clip = m2se_folder_member(config, "model_type") && !is_clip(config, NULL);
  m2se_json_free(config);
  return clip;
}

static int read_config(struct m2se_clip *clip, const char *folder, struct m2se_error *error) {
  struct m2se_json *config;
  int code = m2se_file_read_json(folder, "config.json", NULL, &config, error);
  if (code)
    return code;
  code = is_clip(config, error);
  if (!code) /* the towers' own projection_dim is not what CLIP uses */
    code = m2se_folder_setting(config, "projection_dim", 512, 1, 8192, &clip->dim, error);
  if (!code)
    code = read_text_config(clip, m2se_folder_member(config, "text_config"), error);
  if (!code)
    code = read_vision_config(clip, m2se_folder_member(config, "vision_config"), error);
  m2se_json_free(config);
  return code ? m2se_error_prefix(error, code, "%s/config.json", folder) : 0;
}

/* ---- loading ---- */

static uint32_t patch_count(const struct m2se_clip *clip) {
  assert(clip->patch_size > 0);
  const uint32_t side = clip->image_size / clip->patch_size;
  return side * side;
}

static size_t patch_numbers(const struct m2se_clip *clip) {
  return (size_t)CHANNELS * clip->patch_size * clip->patch_size;
}

/* Memory for n floats, and the tensor of this rank and shape read into it. */
static int take_tensor(float **to, struct m2se_folder *folder, const char *name, uint32_t rank,
                       const uint64_t *shape, struct m2se_error *error) {
  uint64_t n = 1;
  for (uint32_t i = 0; i < rank; i++)
    n *= shape[i];
  *to = m2se_floats_new(n);
  if (!*to)
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for tensor '%s'", name);
  return m2se_folder_read(folder, name, rank, shape, *to, error);
}

struct wanted {
  float **to;
  const char *name;
  uint64_t shape[4];
};

static int take_tensors(struct m2se_folder *folder, const struct wanted *wanted, size_t count,
                        struct m2se_error *error) {
  int code = 0;
  for (size_t i = 0; !code && i < count; i++) {
    uint32_t rank = 0;
    while (rank < 4 && wanted[i].shape[rank])
      rank++;
    code = take_tensor(wanted[i].to, folder, wanted[i].name, rank, wanted[i].shape, error);
  }
  return code;
}

static int load_text(struct m2se_clip *clip, struct m2se_folder *folder, struct m2se_error *error) {
  struct tower *t = &clip->text;
  const uint64_t h = clip->text_shape.hidden;
  const struct wanted wanted[] = {
      {&clip->words, "text_model.embeddings.token_embedding.weight", {clip->ids, h}},
      {&t->positions, "text_model.embeddings.position_embedding.weight", {clip->len_max, h}},
      {&t->gamma, "text_model.final_layer_norm.weight", {h}},
      {&t->beta, "text_model.final_layer_norm.bias", {h}},
      {&t->projection, "text_projection.weight", {clip->dim, h}},
  };
  int code = take_tensors(folder, wanted, sizeof(wanted) / sizeof(*wanted), error);
  return code ? code
              : m2se_encoder_load(&t->encoder, &clip->text_shape, folder, M2SE_NAMES_CLIP,
                                  "text_model.encoder.layers.", error);
}

static int load_vision(struct m2se_clip *clip, struct m2se_folder *folder, struct m2se_error *error) {
  struct tower *t = &clip->vision;
  const uint64_t h = clip->vision_shape.hidden, p = clip->patch_size;
  const struct wanted wanted[] = {
      {&clip->class_row, "vision_model.embeddings.class_embedding", {h}},
      {&clip->patches, "vision_model.embeddings.patch_embedding.weight", {h, CHANNELS, p, p}},
      {&t->positions, "vision_model.embeddings.position_embedding.weight", {patch_count(clip) + 1, h}},
      {&clip->before_gamma, "vision_model.pre_layrnorm.weight", {h}}, /* so it is spelt */
      {&clip->before_beta, "vision_model.pre_layrnorm.bias", {h}},
      {&t->gamma, "vision_model.post_layernorm.weight", {h}},
      {&t->beta, "vision_model.post_layernorm.bias", {h}},
      {&t->projection, "visual_projection.weight", {clip->dim, h}},
  };
  int code = take_tensors(folder, wanted, sizeof(wanted) / sizeof(*wanted), error);
  return code ? code
              : m2se_encoder_load(&t->encoder, &clip->vision_shape, folder, M2SE_NAMES_CLIP,
                                  "vision_model.encoder.layers.", error);
}

static int load(struct m2se_clip *clip, const char *path, enum m2se_clip_towers towers,
                struct m2se_error *error) {
  static const char *const prefixes[] = {"", "clip.", "model."};
  const char *ignored[] = {"logit_scale", "text_model.", "text_projection.", "vision_model.",
                           "visual_projection."};
  struct m2se_folder *folder;
  int code = read_config(clip, path, error);
  if (code)
    return code;
  code = m2se_folder_open(&folder, path, error);
  if (code)
    return code;
  const bool text = towers & M2SE_CLIP_TEXT, vision = towers & M2SE_CLIP_VISION;
  code = m2se_folder_choose_prefix(folder, prefixes, sizeof(prefixes) / sizeof(*prefixes),
                                   vision ? "visual_projection.weight" : "text_projection.weight", error);
  if (!code && text)
    code = load_text(clip, folder, error);
  if (!code && vision)
    code = load_vision(clip, folder, error);
  /* A tower that is not wanted may be there; of one that is, every tensor must have its place. */
  if (text)
    ignored[1] = ignored[2] = ignored[0];
  if (vision)
    ignored[3] = ignored[4] = ignored[0];
  if (!code)
    code = m2se_folder_finish(folder, ignored, sizeof(ignored) / sizeof(*ignored), error);
  m2se_folder_close(folder);
  return code;
}

int m2se_clip_load(struct m2se_clip **clip, const char *folder, enum m2se_clip_towers towers,
                   struct m2se_error *error) {
  *clip = NULL;
  struct m2se_clip *c = calloc(1, sizeof(*c));
  if (!c)
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a model");
  int code = load(c, folder, towers, error);
  if (code) {
    m2se_clip_free(c);
    return code;
  }
  *clip = c;
  return 0;
}

static void free_tower(struct tower *tower) {
  m2se_encoder_free(tower->encoder);
  free(tower->positions);
  free(tower->gamma);
  free(tower->beta);
  free(tower->projection);
}

void m2se_clip_free(struct m2se_clip *clip) {
  if (!clip)
    return;
  free_tower(&clip->text);
  free_tower(&clip->vision);
  free(clip->words);
  free(clip->patches);
  free(clip->class_row);
  free(clip->before_gamma);
  free(clip->before_beta);
  free(clip);
}

uint32_t m2se_clip_dim(const struct m2se_clip *clip) {
  return clip->dim;
}

uint32_t m2se_clip_image_size(const struct m2se_clip *clip) {
  return clip->image_size;
}

uint32_t m2se_clip_len_max(const struct m2se_clip *clip) {
  return clip->len_max;
}

uint32_t m2se_clip_ids(const struct m2se_clip *clip) {
  return clip->ids;
}

size_t m2se_clip_bytes(const struct m2se_clip *clip) {
  size_t bytes = 0;
  if (clip->text.encoder)
    bytes += m2se_encoder_bytes(clip->text.encoder) +
             ((size_t)clip->ids + clip->len_max + clip->dim + 2) * clip->text_shape.hidden * sizeof(float);
  if (clip->vision.encoder)
    bytes +=
        m2se_encoder_bytes(clip->vision.encoder) +
        (patch_numbers(clip) + patch_count(clip) + clip->dim + 6) * clip->vision_shape.hidden * sizeof(float);
  return bytes;
}

/* ---- encoding ---- */

struct m2se_clip_scratch *m2se_clip_scratch_new(const struct m2se_clip *clip, enum m2se_clip_towers tower,
                                                uint32_t items) {
  const bool text = tower == M2SE_CLIP_TEXT;
  const struct m2se_encoder *encoder = text ? clip->text.encoder : clip->vision.encoder;
  assert(tower != M2SE_CLIP_BOTH && encoder && items > 0);
  const uint32_t len = text ? clip->len_max : patch_count(clip) + 1;
  struct m2se_clip_scratch *s = calloc(1, sizeof(*s));
  if (!s)
    return NULL;
  s->tower = tower;
  s->items = items;
  s->encoder = m2se_encoder_scratch_new(encoder, items * len, len);
  s->ptr = calloc((size_t)items + 1, sizeof(*s->ptr));
  s->pick = calloc(items, sizeof(*s->pick));
  s->patches = m2se_floats_new(text ? 0 : (size_t)items * patch_count(clip) * patch_numbers(clip));
  if (s->encoder && s->ptr && s->pick && s->patches)
    return s;
  m2se_clip_scratch_free(s);
  return NULL;
}

void m2se_clip_scratch_free(struct m2se_clip_scratch *scratch) {
  if (!scratch)
    return;
  m2se_encoder_scratch_free(scratch->encoder);
  free(scratch->ptr);
  free(scratch->pick);
  free(scratch->patches);
  free(scratch);
}

/* From the picked rows of the last layer to vectors. */
static int finish(const struct m2se_clip *clip, const struct tower *tower, struct m2se_clip_scratch *s,
                  uint32_t count, bool normalize, float *vectors, struct m2se_error *error) {
  const struct m2se_kernels *k = m2se_kernels_best();
  const struct m2se_encoder_shape *shape = m2se_encoder_shape(tower->encoder);
  const size_t h = shape->hidden, n = clip->dim;
  float *x = m2se_encoder_rows(s->encoder);
  k->norm_infer(x, x, NULL, NULL, tower->gamma, tower->beta, count, h, shape->eps);
  m2se_gemm_nt(count, n, h, x, h, tower->projection, h, 0, vectors, n);
  for (uint32_t i = 0; i < count; i++, vectors += n) {
    const double squares = k->sum_squares(vectors, n);
    if (!isfinite(squares))
      return m2se_error_set(error, M2SE_ENUMERIC, "a vector is not finite");
    const float length = normalize ? (float)fmax(sqrt(squares), 1e-12) : 1;
    for (size_t j = 0; j < n; j++)
      vectors[j] /= length;
  }
  return 0;
}

/* The place of a text's end as transformers finds it: the first one, or in models that name no real end the
 * first of the largest ids. */
static uint32_t end_of(const struct m2se_clip *clip, const uint32_t *ids, uint32_t count) {
  uint32_t place = 0;
  for (uint32_t i = 0; i < count; i++) {
    assert(ids[i] < clip->ids);
    if (clip->end == LEGACY_END ? ids[i] > ids[place] : ids[i] == clip->end) {
      place = i;
      if (clip->end != LEGACY_END)
        break;
    }
  }
  return place;
}

static int encode_texts(const struct m2se_clip *clip, struct m2se_clip_scratch *s, const uint32_t *ids,
                        const uint32_t *ptr, uint32_t count, bool normalize, float *vectors,
                        struct m2se_error *error) {
  const size_t h = clip->text_shape.hidden;
  float *x = m2se_encoder_rows(s->encoder);
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t len = ptr[i + 1] - ptr[i];
    const uint32_t *text = ids + ptr[i];
    s->ptr[i + 1] = s->ptr[i] + len;
    s->pick[i] = end_of(clip, text, len);
    for (uint32_t r = 0; r < len; r++, x += h) {
      memcpy(x, clip->words + text[r] * h, h * sizeof(*x));
      m2se_kernels_best()->add(x, clip->text.positions + r * h, h);
    }
  }
  m2se_encoder_run(clip->text.encoder, s->encoder, s->ptr, count, s->pick);
  return finish(clip, &clip->text, s, count, normalize, vectors, error);
}

int m2se_clip_encode_texts(const struct m2se_clip *clip, struct m2se_clip_scratch *scratch,
                           const uint32_t *ids, const uint32_t *ptr, uint32_t count, bool normalize,
                           float *vectors, struct m2se_error *error) {
  assert(scratch->tower == M2SE_CLIP_TEXT);
  int code = 0;
  for (uint32_t first = 0; !code && first < count; first += scratch->items) {
    const uint32_t some = count - first < scratch->items ? count - first : scratch->items;
    code = encode_texts(clip, scratch, ids, ptr + first, some, normalize, vectors + (size_t)first * clip->dim,
                        error);
  }
  return code;
}

/* A picture's patches, each a row: channel, then line, then column, as the weights have them. */
static void cut(const struct m2se_clip *clip, float *patches, const float *pixels) {
  const size_t p = clip->patch_size, size = clip->image_size, side = size / p;
  for (size_t py = 0; py < side; py++)
    for (size_t px = 0; px < side; px++)
      for (size_t c = 0; c < CHANNELS; c++)
        for (size_t y = 0; y < p; y++, patches += p)
          memcpy(patches, pixels + (c * size + py * p + y) * size + px * p, p * sizeof(*patches));
}

static int encode_images(const struct m2se_clip *clip, struct m2se_clip_scratch *s, const float *pixels,
                         uint32_t count, bool normalize, float *vectors, struct m2se_error *error) {
  const struct m2se_kernels *k = m2se_kernels_best();
  const size_t h = clip->vision_shape.hidden, n = patch_count(clip), numbers = patch_numbers(clip);
  float *x = m2se_encoder_rows(s->encoder), *embedded = m2se_encoder_spare(s->encoder);
  for (uint32_t i = 0; i < count; i++)
    cut(clip, s->patches + i * n * numbers,
        pixels + (size_t)i * CHANNELS * clip->image_size * clip->image_size);
  m2se_gemm_nt(count * n, h, numbers, s->patches, numbers, clip->patches, numbers, 0, embedded, h);
  for (uint32_t i = 0; i < count; i++) {
    float *rows = x + i * (n + 1) * h;
    memcpy(rows, clip->class_row, h * sizeof(*x));
    memcpy(rows + h, embedded + i * n * h, n * h * sizeof(*x));
    k->add(rows, clip->vision.positions, (n + 1) * h);
    s->ptr[i + 1] = (i + 1) * (uint32_t)(n + 1);
    s->pick[i] = 0;
  }
  k->norm_infer(x, x, NULL, NULL, clip->before_gamma, clip->before_beta, count * (n + 1), h,
                clip->vision_shape.eps);
  m2se_encoder_run(clip->vision.encoder, s->encoder, s->ptr, count, s->pick);
  return finish(clip, &clip->vision, s, count, normalize, vectors, error);
}

int m2se_clip_encode_images(const struct m2se_clip *clip, struct m2se_clip_scratch *scratch,
                            const float *pixels, uint32_t count, bool normalize, float *vectors,
                            struct m2se_error *error) {
  assert(scratch->tower == M2SE_CLIP_VISION);
  const size_t numbers = (size_t)CHANNELS * clip->image_size * clip->image_size;
  int code = 0;
  for (uint32_t first = 0; !code && first < count; first += scratch->items) {
    const uint32_t some = count - first < scratch->items ? count - first : scratch->items;
    code = encode_images(clip, scratch, pixels + first * numbers, some, normalize,
                         vectors + (size_t)first * clip->dim, error);
  }
  return code;
}

double m2se_clip_image_flops(const struct m2se_clip *clip, uint32_t count) {
  const double h = clip->vision_shape.hidden;
  const uint32_t ptr[] = {0, patch_count(clip) + 1};
  return count * (m2se_encoder_flops(clip->vision.encoder, ptr, 1, true) +
                  2 * h * ((double)patch_count(clip) * (double)patch_numbers(clip) + clip->dim));
}
