#include "model/vision/resize.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/encoder/folder.h"
#include "model/files/file.h"
#include "model/files/json.h"

enum { CHANNELS = 3, FRACTION_BITS = 32 - 8 - 2, BICUBIC = 3 };

/* Of each output pixel of the crop, along one axis: the input pixels that it is made of, and their weights.
 */
struct axis {
  uint32_t *first, *count; /* [size] */
  int32_t *weights;        /* [size, taps_max] */
  uint32_t taps_max;
  uint32_t begin, end; /* the input pixels that any of them needs */
};

struct m2se_resizer {
  uint32_t size, shortest, pixels_max, side_max;
  float mean[CHANNELS], std[CHANNELS];
  struct axis across, down;
  uint8_t *line;   /* [side_max, 3]: a line of the input, on white */
  uint8_t *narrow; /* [side_max, size, 3]: after the horizontal pass */
  uint8_t *square; /* [size, size, 3] */
  double *taps;    /* [taps_max] */
};

/* ---- configuration ---- */

/* "size": 224, or an object with one of the keys. */
static int read_size(const struct m2se_json *config, const char *name, const char *key, uint32_t *size,
                     struct m2se_error *error) {
  const struct m2se_json *value = m2se_folder_member(config, name);
  if (value && m2se_json_type(value) != M2SE_JSON_OBJECT)
    return m2se_folder_setting(config, name, *size, 1, 4096, size, error);
  int code = m2se_folder_setting(value, key, *size, 1, 4096, size, error);
  return code ? m2se_error_prefix(error, code, "%s", name) : 0;
}

static int read_numbers(const struct m2se_json *config, const char *name, float numbers[CHANNELS],
                        struct m2se_error *error) {
  const struct m2se_json *value = m2se_folder_member(config, name);
  if (!value)
    return 0;
  if (m2se_json_size(value) != CHANNELS)
    return m2se_error_set(error, M2SE_ERANGE, "%s: not three numbers", name);
  for (size_t c = 0; c < CHANNELS; c++) {
    double number;
    int code = m2se_json_as_double(m2se_json_at(value, c), name, &number, error);
    if (code)
      return code;
    numbers[c] = (float)number;
  }
  return 0;
}

/* A step that is left out would need code that is not here. */
static int check_steps(const struct m2se_json *config, struct m2se_error *error) {
  static const char *const steps[] = {"do_resize", "do_center_crop", "do_rescale", "do_normalize"};
  for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
    bool done = true;
    const struct m2se_json *value = m2se_folder_member(config, steps[i]);
    int code = value ? m2se_json_as_bool(value, steps[i], &done, error) : 0;
    if (code)
      return code;
    if (!done)
      return m2se_error_set(error, M2SE_ERANGE, "%s: false, a step that cannot be left out", steps[i]);
  }
  return 0;
}

static int configure(struct m2se_resizer *r, const struct m2se_json *config, struct m2se_error *error) {
  uint32_t filter = BICUBIC, crop = r->size;
  double factor = 1.0 / 255;
  const struct m2se_json *value = m2se_folder_member(config, "rescale_factor");
  int code = check_steps(config, error);
  if (!code)
    code = m2se_folder_setting(config, "resample", BICUBIC, 0, 5, &filter, error);
  if (!code && filter != BICUBIC)
    code = m2se_error_set(error, M2SE_ERANGE, "resample: %u, not %d (bicubic)", filter, BICUBIC);
  if (!code)
    code = read_size(config, "size", "shortest_edge", &r->shortest, error);
  if (!code)
    code = read_size(config, "crop_size", "height", &crop, error);
  if (!code && (crop != r->size || r->shortest < r->size))
    code = m2se_error_set(error, M2SE_ERANGE, "crop_size %u of size %u: the model takes %u", crop,
                          r->shortest, r->size);
  if (!code && value)
    code = m2se_json_as_double(value, "rescale_factor", &factor, error);
  if (!code && fabs(factor - 1.0 / 255) > 1e-9)
    code = m2se_error_set(error, M2SE_ERANGE, "rescale_factor: %g, not 1/255", factor);
  if (!code)
    code = read_numbers(config, "image_mean", r->mean, error);
  if (!code)
    code = read_numbers(config, "image_std", r->std, error);
  for (size_t c = 0; !code && c < CHANNELS; c++)
    if (!(r->std[c] > 0))
      code = m2se_error_set(error, M2SE_ERANGE, "image_std: not three numbers above 0");
  return code;
}

static int read_config(struct m2se_resizer *r, const char *folder, struct m2se_error *error) {
  static const char name[] = "preprocessor_config.json";
  static const float mean[CHANNELS] = {0.48145466f, 0.4578275f, 0.40821073f};
  static const float std[CHANNELS] = {0.26862954f, 0.26130258f, 0.27577711f};
  struct m2se_json *config;
  r->shortest = r->size;
  memcpy(r->mean, mean, sizeof(mean));
  memcpy(r->std, std, sizeof(std));
  int code = m2se_file_read_json(folder, name, NULL, &config, error);
  if (code)
    return code == M2SE_EMISSING ? 0 : code;
  code = configure(r, config, error);
  m2se_json_free(config);
  return code ? m2se_error_prefix(error, code, "%s/%s", folder, name) : 0;
}

/* ---- memory ---- */

/* The longest stretch of input that the crop can need along one axis: the crop is as long as the shortest
 * edge at most, which is the root of pixels_max at most, and the filter reaches two output pixels beyond it.
 */
static uint32_t longest_stretch(const struct m2se_resizer *r) {
  const double side = sqrt((double)r->pixels_max);
  return (uint32_t)(side * (1 + 10.0 / r->shortest)) + 8;
}

/* Taps of an output pixel when so many input pixels become one. */
static uint32_t taps_for(double scale) {
  return 2 * (uint32_t)ceil(2 * fmax(scale, 1)) + 1;
}

static bool axis_new(struct axis *axis, uint32_t size, uint32_t taps_max) {
  axis->taps_max = taps_max;
  axis->first = calloc(size, sizeof(*axis->first));
  axis->count = calloc(size, sizeof(*axis->count));
  axis->weights = calloc((size_t)size * taps_max, sizeof(*axis->weights));
  return axis->first && axis->count && axis->weights;
}

static void axis_free(struct axis *axis) {
  free(axis->first);
  free(axis->count);
  free(axis->weights);
}

int m2se_resizer_new(struct m2se_resizer **resizer, const char *folder, uint32_t image_size,
                     uint32_t pixels_max, struct m2se_error *error) {
  *resizer = NULL;
  struct m2se_resizer *r = calloc(1, sizeof(*r));
  if (!r)
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a picture");
  r->size = image_size;
  r->pixels_max = pixels_max;
  int code = read_config(r, folder, error);
  if (code) {
    m2se_resizer_free(r);
    return code;
  }
  r->side_max = longest_stretch(r);
  /* The longer edge is scaled by the shorter one's factor, rounded down to a whole length. */
  const uint32_t taps_max = taps_for(2 * sqrt((double)pixels_max) / r->shortest);
  const bool axes = axis_new(&r->across, image_size, taps_max) & axis_new(&r->down, image_size, taps_max);
  r->line = calloc(r->side_max, CHANNELS);
  r->narrow = calloc((size_t)r->side_max * image_size, CHANNELS);
  r->square = calloc((size_t)image_size * image_size, CHANNELS);
  r->taps = calloc(taps_max, sizeof(*r->taps));
  if (!axes || !r->line || !r->narrow || !r->square || !r->taps) {
    m2se_resizer_free(r);
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a picture of %u pixels", pixels_max);
  }
  *resizer = r;
  return 0;
}

void m2se_resizer_free(struct m2se_resizer *resizer) {
  if (!resizer)
    return;
  axis_free(&resizer->across);
  axis_free(&resizer->down);
  free(resizer->line);
  free(resizer->narrow);
  free(resizer->square);
  free(resizer->taps);
  free(resizer);
}

/* ---- resizing ---- */

/* Bicubic, a = -0.5. */
static double bicubic(double x) {
  x = fabs(x);
  if (x < 1)
    return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/* The weights for output pixels offset .. offset + size of the `out` that `in` input pixels become. */
static void axis_set(struct axis *axis, double *taps, uint32_t in, uint64_t out, uint64_t offset,
                     uint32_t size) {
  const double scale = (double)in / (double)out, reach = fmax(scale, 1), support = 2 * reach;
  axis->begin = in;
  axis->end = 0;
  assert(taps_for(scale) <= axis->taps_max);
  for (uint32_t i = 0; i < size; i++) {
    const double center = ((double)(offset + i) + 0.5) * scale;
    const int64_t low = (int64_t)(center - support + 0.5), high = (int64_t)(center + support + 0.5);
    const uint32_t first = low < 0 ? 0 : (uint32_t)low, end = high > in ? in : (uint32_t)high;
    double sum = 0;
    for (uint32_t t = 0; t < end - first; t++)
      sum += taps[t] = bicubic((t + first - center + 0.5) / reach);
    for (uint32_t t = 0; t < end - first; t++) {
      const double fixed = taps[t] / sum * (1 << FRACTION_BITS);
      axis->weights[(size_t)i * axis->taps_max + t] = (int32_t)(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    }
    axis->first[i] = first;
    axis->count[i] = end - first;
    axis->begin = first < axis->begin ? first : axis->begin;
    axis->end = end > axis->end ? end : axis->end;
  }
}

static uint8_t clip_8(int32_t sum) {
  sum >>= FRACTION_BITS;
  return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* line = n pixels, what is transparent on white */
static void on_white(uint8_t *line, const uint8_t *pixels, uint32_t n, uint32_t channels) {
  if (channels == CHANNELS) {
    memcpy(line, pixels, (size_t)n * CHANNELS);
    return;
  }
  for (uint32_t i = 0; i < n; i++, pixels += 4, line += CHANNELS)
    for (size_t c = 0; c < CHANNELS; c++)
      line[c] = (uint8_t)((pixels[c] * pixels[3] + 255 * (255 - pixels[3]) + 127) / 255);
}

static void across_line(const struct m2se_resizer *r, uint8_t *out, const uint8_t *line) {
  for (uint32_t i = 0; i < r->size; i++, out += CHANNELS) {
    const int32_t *w = r->across.weights + (size_t)i * r->across.taps_max;
    const uint8_t *p = line + (size_t)(r->across.first[i] - r->across.begin) * CHANNELS;
    int32_t sum[CHANNELS] = {1 << (FRACTION_BITS - 1), 1 << (FRACTION_BITS - 1), 1 << (FRACTION_BITS - 1)};
    for (uint32_t t = 0; t < r->across.count[i]; t++, p += CHANNELS)
      for (size_t c = 0; c < CHANNELS; c++)
        sum[c] += p[c] * w[t];
    for (size_t c = 0; c < CHANNELS; c++)
      out[c] = clip_8(sum[c]);
  }
}

static void down_columns(const struct m2se_resizer *r, uint8_t *square) {
  const size_t row = (size_t)r->size * CHANNELS;
  for (uint32_t i = 0; i < r->size; i++, square += row) {
    const int32_t *w = r->down.weights + (size_t)i * r->down.taps_max;
    const uint8_t *p = r->narrow + (r->down.first[i] - r->down.begin) * row;
    for (size_t x = 0; x < row; x++) {
      int32_t sum = 1 << (FRACTION_BITS - 1);
      for (uint32_t t = 0; t < r->down.count[i]; t++)
        sum += p[t * row + x] * w[t];
      square[x] = clip_8(sum);
    }
  }
}

void m2se_resize(struct m2se_resizer *r, const uint8_t *pixels, uint32_t width, uint32_t height,
                 uint32_t channels, uint8_t *square) {
  assert(width > 0 && height > 0 && (uint64_t)width * height <= r->pixels_max);
  assert(channels == CHANNELS || channels == CHANNELS + 1);
  const uint32_t shorter = width < height ? width : height, longer = width < height ? height : width;
  const uint64_t other = (uint64_t)r->shortest * longer / shorter;
  const uint64_t out_width = width < height ? r->shortest : other;
  const uint64_t out_height = width < height ? other : r->shortest;
  axis_set(&r->across, r->taps, width, out_width, (out_width - r->size) / 2, r->size);
  axis_set(&r->down, r->taps, height, out_height, (out_height - r->size) / 2, r->size);
  const uint32_t columns = r->across.end - r->across.begin, rows = r->down.end - r->down.begin;
  assert(columns <= r->side_max && rows <= r->side_max);
  for (uint32_t y = 0; y < rows; y++) {
    const size_t at = ((size_t)(r->down.begin + y) * width + r->across.begin) * channels;
    on_white(r->line, pixels + at, columns, channels);
    across_line(r, r->narrow + (size_t)y * r->size * CHANNELS, r->line);
  }
  down_columns(r, square);
}

void m2se_resize_normalized(struct m2se_resizer *r, const uint8_t *pixels, uint32_t width, uint32_t height,
                            uint32_t channels, float *numbers) {
  m2se_resize(r, pixels, width, height, channels, r->square);
  for (size_t c = 0; c < CHANNELS; c++)
    for (size_t i = 0; i < (size_t)r->size * r->size; i++)
      *numbers++ = ((float)r->square[i * CHANNELS + c] / 255 - r->mean[c]) / r->std[c];
}
