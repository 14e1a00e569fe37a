#include "model/encoder/encoder.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/files/json.h"
#include "model/kernels/kernels.h"
#include "model/network/arena.h"
#include "model/network/blas_door.h"

struct linear {
  float *weight, *bias; /* [out, in], [out]; of a LayerNorm: gamma, beta */
};

struct layer {
  struct linear qkv; /* [3 hidden, hidden]: queries, keys, values */
  struct linear output, up, down;
  struct linear norm1, norm2;
};

struct m2se_encoder {
  struct m2se_encoder_shape shape;
  float *memory;
  size_t bytes;
  struct layer layers[]; /* [shape.layers] */
};

struct m2se_encoder_scratch {
  uint32_t rows_max, len_max;
  float *x;         /* [rows_max, hidden]: the residual stream */
  float *y;         /* [rows_max, hidden]: pre-norm only, LayerNorm of x */
  float *t;         /* [rows_max, hidden]: attention's output; picked rows; what down gives */
  float *wide;      /* [rows_max, max(3 hidden, ffn)] */
  float *lse;       /* [len_max, heads]: the attention kernel fills it, nobody reads it */
  float *attention; /* the kernel's own */
  uint32_t *places; /* [len_max]: the last key that each query of a sequence sees */
};

/* ---- loading ---- */

int m2se_encoder_configure(struct m2se_encoder_shape *shape, const struct m2se_json *config,
                           struct m2se_error *error) {
  const struct {
    const char *key;
    uint32_t max, *number;
  } numbers[] = {{"num_hidden_layers", 96, &shape->layers},
                 {"hidden_size", 8192, &shape->hidden},
                 {"num_attention_heads", 128, &shape->heads},
                 {"intermediate_size", 32768, &shape->ffn}};
  int code = 0;
  for (size_t i = 0; !code && i < sizeof(numbers) / sizeof(*numbers); i++)
    code = m2se_folder_setting(config, numbers[i].key, *numbers[i].number, 1, numbers[i].max,
                               numbers[i].number, error);
  if (!code && shape->hidden % shape->heads)
    code = m2se_error_set(error, M2SE_ERANGE, "num_attention_heads: %u does not divide hidden_size %u",
                          shape->heads, shape->hidden);
  double eps = shape->eps;
  const struct m2se_json *value = m2se_folder_member(config, "layer_norm_eps");
  if (!code && value)
    code = m2se_json_as_double(value, "layer_norm_eps", &eps, error);
  if (!code && !(eps >= 0 && eps <= 1))
    code = m2se_error_set(error, M2SE_ERANGE, "layer_norm_eps: %g, not 0 to 1", eps);
  shape->eps = (float)eps;
  const char *activation = shape->activation == M2SE_GELU ? "gelu" : "quick_gelu";
  value = m2se_folder_member(config, "hidden_act");
  if (!code && value)
    code = m2se_json_as_string(value, "hidden_act", &activation, NULL, error);
  if (!code && strcmp(activation, "gelu") != 0 && strcmp(activation, "quick_gelu") != 0)
    code = m2se_error_set(error, M2SE_ERANGE, "hidden_act: '%.40s', not gelu or quick_gelu", activation);
  shape->activation = code || !strcmp(activation, "gelu") ? M2SE_GELU : M2SE_QUICK_GELU;
  return code;
}

static void lay_out(struct m2se_encoder *e, struct m2se_arena *arena) {
  const size_t h = e->shape.hidden, f = e->shape.ffn;
  for (uint32_t i = 0; i < e->shape.layers; i++) {
    struct layer *layer = &e->layers[i];
    const struct {
      struct linear *linear;
      size_t weights, biases;
    } parts[] = {{&layer->qkv, 3 * h * h, 3 * h}, {&layer->output, h * h, h}, {&layer->up, f * h, f},
                 {&layer->down, h * f, h},        {&layer->norm1, h, h},      {&layer->norm2, h, h}};
    for (size_t p = 0; p < sizeof(parts) / sizeof(*parts); p++) {
      M2SE_TAKE(arena, parts[p].linear->weight, parts[p].weights);
      M2SE_TAKE(arena, parts[p].linear->bias, parts[p].biases);
    }
  }
}

static int read_linear(struct m2se_folder *folder, const char *name, struct linear to, size_t out, size_t in,
                       struct m2se_error *error) {
  int code = m2se_folder_read_matrix(folder, name, ".weight", out, in, to.weight, error);
  return code ? code : m2se_folder_read_vector(folder, name, ".bias", out, to.bias, error);
}

static int read_norm(struct m2se_folder *folder, const char *name, struct linear to, size_t n,
                     struct m2se_error *error) {
  int code = m2se_folder_read_vector(folder, name, ".weight", n, to.weight, error);
  return code ? code : m2se_folder_read_vector(folder, name, ".bias", n, to.bias, error);
}

static int read_layer(struct m2se_encoder *e, uint32_t i, struct m2se_folder *folder, enum m2se_naming naming,
                      const char *stem, struct m2se_error *error) {
  static const char *const names[][8] = {
      [M2SE_NAMES_BERT] = {"attention.self.query", "attention.self.key", "attention.self.value",
                           "attention.output.dense", "intermediate.dense", "output.dense",
                           "attention.output.LayerNorm", "output.LayerNorm"},
      [M2SE_NAMES_CLIP] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
                           "mlp.fc1", "mlp.fc2", "layer_norm1", "layer_norm2"},
  };
  const size_t h = e->shape.hidden, f = e->shape.ffn;
  const struct layer *layer = &e->layers[i];
  const struct {
    struct linear to;
    size_t out, in; /* in 0: a LayerNorm */
  } parts[8] = {{layer->qkv, h, h},
                {{layer->qkv.weight + h * h, layer->qkv.bias + h}, h, h},
                {{layer->qkv.weight + 2 * h * h, layer->qkv.bias + 2 * h}, h, h},
                {layer->output, h, h},
                {layer->up, f, h},
                {layer->down, h, f},
                {layer->norm1, h, 0},
                {layer->norm2, h, 0}};
  int code = 0;
  for (size_t p = 0; !code && p < 8; p++) {
    char name[128];
    snprintf(name, sizeof(name), "%s%u.%s", stem, i, names[naming][p]);
    code = parts[p].in ? read_linear(folder, name, parts[p].to, parts[p].out, parts[p].in, error)
                       : read_norm(folder, name, parts[p].to, parts[p].out, error);
  }
  return code;
}

int m2se_encoder_load(struct m2se_encoder **encoder, const struct m2se_encoder_shape *shape,
                      struct m2se_folder *folder, enum m2se_naming naming, const char *stem,
                      struct m2se_error *error) {
  *encoder = NULL;
  struct m2se_arena arena = {0};
  struct m2se_encoder *e = calloc(1, sizeof(*e) + shape->layers * sizeof(struct layer));
  if (e) {
    e->shape = *shape;
    lay_out(e, &arena);
    e->bytes = arena.used;
    e->memory = m2se_floats_new(arena.used / sizeof(float));
  }
  if (!e || !e->memory) {
    m2se_encoder_free(e);
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for a model's weights, %zu bytes", arena.used);
  }
  arena = (struct m2se_arena){.base = (char *)e->memory};
  lay_out(e, &arena);
  int code = 0;
  for (uint32_t i = 0; !code && i < shape->layers; i++)
    code = read_layer(e, i, folder, naming, stem, error);
  if (code) {
    m2se_encoder_free(e);
    return code;
  }
  *encoder = e;
  return 0;
}

void m2se_encoder_free(struct m2se_encoder *encoder) {
  if (encoder)
    free(encoder->memory);
  free(encoder);
}

const struct m2se_encoder_shape *m2se_encoder_shape(const struct m2se_encoder *encoder) {
  return &encoder->shape;
}

size_t m2se_encoder_bytes(const struct m2se_encoder *encoder) {
  return encoder->bytes;
}

/* ---- scratch ---- */

static size_t widest(const struct m2se_encoder_shape *shape) {
  return shape->ffn > 3 * shape->hidden ? shape->ffn : 3 * (size_t)shape->hidden;
}

struct m2se_encoder_scratch *m2se_encoder_scratch_new(const struct m2se_encoder *encoder, uint32_t rows_max,
                                                      uint32_t len_max) {
  const struct m2se_encoder_shape *shape = &encoder->shape;
  const size_t h = shape->hidden, head = h / shape->heads;
  assert(rows_max >= len_max && len_max > 0);
  struct m2se_encoder_scratch *s = NULL;
  struct m2se_arena arena = {0};
  for (int pass = 0; pass < 2; pass++) { /* measure, then carve */
    struct m2se_encoder_scratch *to = s ? s : &(struct m2se_encoder_scratch){0};
    m2se_arena_take(&arena, 1, sizeof(*s));
    M2SE_TAKE(&arena, to->x, rows_max * h);
    M2SE_TAKE(&arena, to->y, rows_max * h);
    M2SE_TAKE(&arena, to->t, rows_max * h);
    M2SE_TAKE(&arena, to->wide, rows_max * widest(shape));
    M2SE_TAKE(&arena, to->lse, (size_t)len_max * shape->heads);
    M2SE_TAKE(&arena, to->attention, m2se_attention_scratch(len_max, head));
    M2SE_TAKE(&arena, to->places, len_max);
    if (s)
      break;
    s = (struct m2se_encoder_scratch *)m2se_floats_new(arena.used / sizeof(float));
    if (!s)
      return NULL;
    arena = (struct m2se_arena){.base = (char *)s};
  }
  s->rows_max = rows_max;
  s->len_max = len_max;
  return s;
}

void m2se_encoder_scratch_free(struct m2se_encoder_scratch *scratch) {
  free(scratch);
}

uint32_t m2se_encoder_rows_max(const struct m2se_encoder_scratch *scratch) {
  return scratch->rows_max;
}

float *m2se_encoder_rows(struct m2se_encoder_scratch *scratch) {
  return scratch->x;
}

float *m2se_encoder_spare(struct m2se_encoder_scratch *scratch) {
  return scratch->t;
}

/* ---- running ---- */

/* What a call works on. */
struct run {
  const struct m2se_encoder_shape *shape;
  struct m2se_encoder_scratch *s;
  const struct m2se_kernels *k;
  const uint32_t *ptr;
  uint32_t count;
};

/* Queries, keys and values of all rows of `from`; with pick those of all rows but only the picked rows'
 * queries, which stand at the start. */
static void project(const struct run *run, const struct layer *layer, const float *from,
                    const uint32_t *pick) {
  const size_t h = run->shape->hidden, rows = run->ptr[run->count];
  float *wide = run->s->wide, *t = run->s->t;
  const float *w = layer->qkv.weight, *b = layer->qkv.bias;
  if (!pick) {
    m2se_gemm_nt(rows, 3 * h, h, from, h, w, h, 0, wide, 3 * h);
    run->k->add_bias(wide, 3 * h, b, rows, 3 * h);
    return;
  }
  for (uint32_t s = 0; s < run->count; s++)
    memcpy(t + s * h, from + (run->ptr[s] + pick[s]) * h, h * sizeof(float));
  m2se_gemm_nt(run->count, h, h, t, h, w, h, 0, wide, 3 * h);
  run->k->add_bias(wide, 3 * h, b, run->count, h);
  m2se_gemm_nt(rows, 2 * h, h, from, h, w + h * h, h, 0, wide + h, 3 * h);
  run->k->add_bias(wide + h, 3 * h, b + h, rows, 2 * h);
}

/* t = attention of what stands in wide: a row for each query. */
static void attend(const struct run *run, const uint32_t *pick) {
  static const struct m2se_dropout none = {.threshold = 0};
  const size_t h = run->shape->hidden, heads = run->shape->heads;
  struct m2se_encoder_scratch *s = run->s;
  for (uint32_t i = 0; i < run->count; i++) {
    const uint32_t first = run->ptr[i], len = run->ptr[i + 1] - first;
    const uint32_t query = pick ? i : first, queries = pick ? 1 : len;
    for (uint32_t r = 0; r < queries; r++)
      s->places[r] = !run->shape->causal ? len - 1 : pick ? pick[i] : r;
    const float *keys = s->wide + first * 3 * h + h;
    run->k->attention_forward(s->t + query * h, h, s->lse, s->wide + query * 3 * h, 3 * h, keys, keys + h,
                              3 * h, s->places, queries, len, heads, h / heads, &none, NULL, 0,
                              (len + 15) / 16 * 16, s->attention);
  }
}

static void run_layer(const struct run *run, const struct layer *layer, const uint32_t *pick) {
  const size_t h = run->shape->hidden, f = run->shape->ffn;
  const float eps = run->shape->eps;
  const bool pre = run->shape->pre_norm;
  struct m2se_encoder_scratch *s = run->s;
  const struct m2se_kernels *k = run->k;
  const size_t rows = pick ? run->count : run->ptr[run->count];
  const struct linear *n1 = &layer->norm1, *n2 = &layer->norm2;
  if (pre)
    k->norm_infer(s->y, s->x, NULL, NULL, n1->weight, n1->bias, run->ptr[run->count], h, eps);
  project(run, layer, pre ? s->y : s->x, pick);
  attend(run, pick);
  for (uint32_t i = 0; pick && i < run->count; i++) /* a row never moves to a later place */
    memmove(s->x + i * h, s->x + (run->ptr[i] + pick[i]) * h, h * sizeof(float));
  m2se_gemm_nt(rows, h, h, s->t, h, layer->output.weight, h, 0, s->wide, h);
  if (pre)
    k->norm_infer(s->y, s->x, s->wide, layer->output.bias, n2->weight, n2->bias, rows, h, eps);
  else
    k->norm_infer(s->x, s->x, s->wide, layer->output.bias, n1->weight, n1->bias, rows, h, eps);
  m2se_gemm_nt(rows, f, h, pre ? s->y : s->x, h, layer->up.weight, h, 0, s->wide, f);
  if (run->shape->activation == M2SE_GELU)
    k->gelu_infer(s->wide, layer->up.bias, rows, f);
  else
    k->quick_gelu_infer(s->wide, layer->up.bias, rows, f);
  m2se_gemm_nt(rows, h, f, s->wide, f, layer->down.weight, f, 0, s->t, h);
  if (pre) {
    k->add(s->x, s->t, rows * h);
    k->add_bias(s->x, h, layer->down.bias, rows, h);
  } else {
    k->norm_infer(s->x, s->x, s->t, layer->down.bias, n2->weight, n2->bias, rows, h, eps);
  }
}

void m2se_encoder_run(const struct m2se_encoder *encoder, struct m2se_encoder_scratch *scratch,
                      const uint32_t *ptr, uint32_t count, const uint32_t *pick) {
  assert(ptr[0] == 0 && ptr[count] <= scratch->rows_max);
  for (uint32_t i = 0; i < count; i++) {
    assert(ptr[i] < ptr[i + 1] && ptr[i + 1] - ptr[i] <= scratch->len_max);
    assert(!pick || pick[i] < ptr[i + 1] - ptr[i]);
  }
  const struct run run = {&encoder->shape, scratch, m2se_kernels_best(), ptr, count};
  for (uint32_t i = 0; i < encoder->shape.layers; i++)
    run_layer(&run, &encoder->layers[i], i + 1 == encoder->shape.layers ? pick : NULL);
}

double m2se_encoder_flops(const struct m2se_encoder *encoder, const uint32_t *ptr, uint32_t count,
                          bool picked) {
  const double h = encoder->shape.hidden, f = encoder->shape.ffn, rows = ptr[count];
  double pairs = 0;
  for (uint32_t i = 0; i < count; i++)
    pairs += (double)(ptr[i + 1] - ptr[i]) * (ptr[i + 1] - ptr[i]);
  const double layer = 2 * rows * (4 * h * h + 2 * h * f) + 4 * pairs * h;
  const double last =
      picked ? 2 * rows * 2 * h * h + 2 * count * (2 * h * h + 2 * h * f) + 4 * rows * h : layer;
  return (encoder->shape.layers - 1) * layer + last;
}
