/* m2se_grad MODEL.safetensors BATCH.safetensors OUT.safetensors: one forward and backward pass without
 * dropout or update, for comparison with another implementation (model/README.md). Exit 65 and one line on
 * stderr if a file is malformed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "model/blas.h"
#include "model/files/safetensors.h"
#include "model/m2se_files.h"
#include "model/network/learner.h"

struct input {
  struct m2se_safetensors *batch;
  struct m2se_learner *learner;
  uint32_t items, sequences, positions;
  float *rows[2], *log_q, *bias, *residual[2];
  int32_t *row_ptr[2], *seq_items, *seq_ptr, *target, *pos_target;
  uint8_t *swap;
  struct m2se_item_input *item;
};

/* All that was taken, freed together at the end: one allocation a tensor of the two files. */
static void *taken[32];
static size_t taken_count;

static void *take(size_t count, size_t bytes) {
  void *p = calloc(count ? count : 1, bytes);
  if (!p || taken_count == sizeof taken / sizeof *taken) {
    fprintf(stderr, "m2se_grad: out of memory\n");
    exit(EX_OSERR);
  }
  taken[taken_count++] = p;
  return p;
}

static int read_i32(const struct m2se_safetensors *file, const char *name, uint64_t count, bool optional,
                    int32_t **out, uint64_t *found, struct m2se_error *error) {
  const struct m2se_tensor *tensor;
  if (optional && !m2se_safetensors_find(file, name)) {
    return 0;
  }
  int result = m2se_safetensors_require(file, name, 1, &count, &tensor, error);
  if (result < 0) {
    return result;
  }
  *out = take(tensor->count, sizeof **out);
  if (found) {
    *found = tensor->count;
  }
  return m2se_safetensors_read_i32(file, name, 1, &count, *out, error);
}

static int read_f32(const struct m2se_safetensors *file, const char *name, uint64_t rows, uint64_t width,
                    bool optional, float **out, struct m2se_error *error) {
  uint64_t shape[2] = {rows, width};
  uint32_t rank = width ? 2 : 1;
  const struct m2se_tensor *tensor;
  if (optional && !m2se_safetensors_find(file, name)) {
    return 0;
  }
  int result = m2se_safetensors_require(file, name, rank, shape, &tensor, error);
  if (result < 0) {
    return result;
  }
  *out = take(tensor->count, sizeof **out);
  result = m2se_safetensors_read_f32(file, name, rank, shape, *out, error);
  for (uint64_t i = 0; result == 0 && i < tensor->count; i++) {
    if (!isfinite((*out)[i])) {
      result =
          m2se_error_set(error, M2SE_ENUMERIC, "%s: element %llu is not finite", name, (unsigned long long)i);
    }
  }
  return result;
}

/* Rows and offsets of one modality; the offsets must climb from 0 to the number of rows. */
static int read_rows(struct input *in, int m, uint32_t d, struct m2se_error *error) {
  static const char *const names[2][2] = {{"text_rows", "text_ptr"}, {"image_rows", "image_ptr"}};
  uint64_t count;
  int result = read_i32(in->batch, names[m][1], m == 0 ? M2SE_ANY : in->items + 1ull, false, &in->row_ptr[m],
                        &count, error);
  if (result < 0) {
    return result;
  }
  if (m == 0) {
    if (count < 2) {
      return m2se_error_set(error, M2SE_EFORMAT, "text_ptr: no items");
    }
    in->items = (uint32_t)count - 1;
  }
  if ((result = read_f32(in->batch, names[m][0], M2SE_ANY, d, false, &in->rows[m], error)) < 0) {
    return result;
  }
  int64_t rows = (int64_t)m2se_safetensors_find(in->batch, names[m][0])->shape[0];
  for (uint32_t i = 0; i < in->items; i++) {
    if (in->row_ptr[m][0] != 0 || in->row_ptr[m][i + 1] < in->row_ptr[m][i] ||
        in->row_ptr[m][in->items] != rows) {
      return m2se_error_set(error, M2SE_EFORMAT, "%s: must climb from 0 to the %lld rows (item %u)",
                            names[m][1], (long long)rows, i);
    }
  }
  return 0;
}

static int read_batch(struct input *in, struct m2se_config *config, struct m2se_error *error) {
  const struct m2se_safetensors *f = in->batch;
  uint64_t count = 0;
  int r = read_rows(in, 0, config->d, error);
  r = r < 0 ? r : read_rows(in, 1, config->d, error);
  r = r < 0 ? r : read_i32(f, "seq_items", M2SE_ANY, false, &in->seq_items, &count, error);
  in->positions = (uint32_t)count;
  r = r < 0 ? r : read_i32(f, "target", M2SE_ANY, false, &in->target, &count, error);
  in->sequences = (uint32_t)count;
  r = r < 0 ? r : read_i32(f, "seq_ptr", in->sequences + 1ull, false, &in->seq_ptr, NULL, error);
  r = r < 0 ? r : read_i32(f, "pos_target", in->positions, true, &in->pos_target, NULL, error);
  if (r < 0) {
    return r;
  }
  uint64_t positions = in->positions;
  in->swap = take(in->positions, 1);
  r = m2se_safetensors_read_u8(f, "swap", 1, &positions, in->swap, error);
  r = r < 0 ? r : read_f32(f, "log_q", in->items, 0, true, &in->log_q, error);
  r = r < 0 ? r : read_f32(f, "item_bias", in->items, 0, true, &in->bias, error);
  r = r < 0 ? r : read_f32(f, "residual_text", in->items, config->h, true, &in->residual[0], error);
  r = r < 0 ? r : read_f32(f, "residual_image", in->items, config->h, true, &in->residual[1], error);
  if (r < 0) {
    return r;
  }
  for (uint32_t p = 0; p < in->positions; p++) {
    if (in->swap[p] > 1) {
      return m2se_error_set(error, M2SE_EFORMAT, "swap: entry %u is %u, must be 0 or 1", p, in->swap[p]);
    }
  }
  for (uint32_t j = 0; j <= in->sequences; j++) {
    if (in->seq_ptr[j] < 0 || (uint32_t)in->seq_ptr[j] > in->positions ||
        (j == in->sequences && (uint32_t)in->seq_ptr[j] != in->positions)) {
      return m2se_error_set(error, M2SE_EFORMAT, "seq_ptr: entry %u is %d, of %u positions", j,
                            in->seq_ptr[j], in->positions);
    }
  }
  config->targets = in->pos_target ? M2SE_TARGETS_ALL : M2SE_TARGETS_LAST;
  config->item_bias = in->bias != NULL;
  config->item_residual = in->residual[0] || in->residual[1];
  return 0;
}

static int load_learner(struct input *in, const struct m2se_config *config, const char *model_path,
                        struct m2se_error *error) {
  struct m2se_limits limits = {.sequences = in->sequences,
                               .positions = in->positions,
                               .items = in->items,
                               .workers = 1,
                               .catalogue = in->items};
  limits.rows = (uint32_t)(in->row_ptr[0][in->items] > in->row_ptr[1][in->items] ? in->row_ptr[0][in->items]
                                                                                 : in->row_ptr[1][in->items]);
  int result = m2se_learner_new(&in->learner, config, &limits, error);
  uint32_t slots;
  result = result < 0 ? result : m2se_learner_load(in->learner, model_path, NULL, &slots, error);
  size_t h = config->h;
  for (uint32_t i = 0; result == 0 && i < in->items; i++) {
    for (size_t m = 0; m < 2 && config->item_residual; m++) {
      if (in->residual[m]) {
        memcpy(in->learner->table.residual + (2 * i + m) * h, in->residual[m] + i * h, h * sizeof(float));
      }
    }
    if (config->item_bias) {
      in->learner->table.bias[i] = in->bias[i];
    }
  }
  in->item = take(in->items, sizeof *in->item);
  for (uint32_t i = 0; i < in->items; i++) {
    in->item[i].slot = i;
    for (int m = 0; m < 2; m++) {
      struct m2se_rows *rows = m == 0 ? &in->item[i].text : &in->item[i].image;
      rows->data = in->rows[m] + (size_t)in->row_ptr[m][i] * config->d;
      rows->count = (uint32_t)(in->row_ptr[m][i + 1] - in->row_ptr[m][i]);
    }
  }
  return result;
}

/* One modality's half of the residuals' gradients. */
static float *half(const struct input *in, size_t h, size_t m) {
  float *out = take(in->items * h, sizeof *out);
  for (size_t i = 0; i < in->items; i++) {
    memcpy(out + i * h, m2se_learner_gradient_residual(in->learner) + (2 * i + m) * h, h * sizeof *out);
  }
  return out;
}

enum { OUT_MAX = M2SE_PARAMETERS_MAX + 16 };

static void add(struct m2se_safetensors_content *content, struct m2se_tensor *tensors, const char *name,
                uint64_t rows, uint64_t width, const void *data) {
  tensors[content->tensor_count++] = (struct m2se_tensor){
      .name = name, .dtype = M2SE_F32, .rank = width ? 2 : 1, .shape = {rows, width}, .data = data};
}

static int write_out(const struct input *in, const struct m2se_losses *losses, const char *path,
                     struct m2se_error *error) {
  static struct m2se_tensor tensors[OUT_MAX];
  static char names[M2SE_PARAMETERS_MAX][64];
  struct m2se_safetensors_content content = {.tensors = tensors};
  const struct m2se_learner *l = in->learner;
  uint64_t h = l->config.h;
  float values[5] = {(float)losses->nip_text, (float)losses->nip_image, (float)losses->cmcl_text,
                     (float)losses->cmcl_image, (float)losses->total};
  static const char *const loss_names[] = {"loss_nip_text", "loss_nip_image", "loss_cmcl_text",
                                           "loss_cmcl_image", "loss"};
  for (int i = 0; i < 5; i++) {
    add(&content, tensors, loss_names[i], 1, 0, &values[i]);
  }
  float *users = take(in->sequences * 2 * h, sizeof *users), *items = take(in->items * 2 * h, sizeof *items);
  m2se_learner_gradient_vectors(l, users, items);
  add(&content, tensors, "user_vectors", in->sequences, 2 * h, users);
  add(&content, tensors, "item_vectors", in->items, 2 * h, items);
  if (in->residual[0]) {
    add(&content, tensors, "grad.residual_text", in->items, h, half(in, h, 0));
  }
  if (in->residual[1]) {
    add(&content, tensors, "grad.residual_image", in->items, h, half(in, h, 1));
  }
  if (in->bias) {
    add(&content, tensors, "grad.item_bias", in->items, 0, m2se_learner_gradient_bias(l));
  }
  for (uint32_t t = 0; t < l->list.count; t++) {
    const struct m2se_parameter *p = &l->list.tensors[t];
    snprintf(names[t], sizeof names[t], "grad.%s", p->name);
    add(&content, tensors, names[t], 0, 0, m2se_learner_gradient_flat(l) + p->offset);
    tensors[content.tensor_count - 1].rank = p->rank;
    memcpy(tensors[content.tensor_count - 1].shape, p->shape, sizeof p->shape);
  }
  return m2se_safetensors_write(path, &content, false, error);
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: m2se_grad MODEL.safetensors BATCH.safetensors OUT.safetensors\n");
    return EX_USAGE;
  }
  struct input in = {0};
  struct m2se_error error = {0};
  struct m2se_config config;
  struct m2se_losses losses;
  m2se_config_defaults(&config);
  int result = m2se_blas_check(&error);
  result = result < 0 ? result : m2se_model_read_config(argv[1], &config, &error);
  config.dropout = 0;
  result = result < 0 ? result : m2se_safetensors_open(&in.batch, argv[2], &error);
  result = result < 0 ? result : read_batch(&in, &config, &error);
  result = result < 0 ? result : load_learner(&in, &config, argv[1], &error);
  if (result == 0) {
    struct m2se_batch batch = {.n_items = in.items,
                               .items = in.item,
                               .n_sequences = in.sequences,
                               .seq_ptr = (uint32_t *)in.seq_ptr,
                               .seq_items = (uint32_t *)in.seq_items,
                               .target = (uint32_t *)in.target,
                               .pos_target = in.pos_target,
                               .log_q = in.log_q};
    struct m2se_workers serial = m2se_workers_serial();
    result = m2se_learner_gradient(in.learner, &batch, in.swap, &serial, &losses, &error);
  }
  result = result < 0 ? result : write_out(&in, &losses, argv[3], &error);
  if (result < 0) {
    fprintf(stderr, "m2se_grad: %s\n", error.text);
  }
  m2se_learner_free(in.learner);
  while (taken_count > 0) {
    free(taken[--taken_count]);
  }
  m2se_safetensors_close(in.batch);
  return result < 0 ? EX_DATAERR : EX_OK;
}
