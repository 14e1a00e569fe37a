#include "model/network/model_file.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/m2se_files.h"
#include "model/network/weights.h"

#define MODEL_FORMAT "m2se"
#define OPTIMIZER_FORMAT "m2se-optimizer"
#define VERSION "1"

/* The numbers of the metadata, with the ranges that m2se_config_check narrows further. */
static const struct {
  const char *key;
  size_t field;
} sizes[] = {{"d", offsetof(struct m2se_config, d)},
             {"da", offsetof(struct m2se_config, da)},
             {"h", offsetof(struct m2se_config, h)},
             {"experts", offsetof(struct m2se_config, experts)},
             {"layers", offsetof(struct m2se_config, layers)},
             {"heads", offsetof(struct m2se_config, heads)},
             {"ffn", offsetof(struct m2se_config, ffn)},
             {"max_len", offsetof(struct m2se_config, max_len)}},
  reals[] = {{"tau", offsetof(struct m2se_config, tau)},
             {"lambda", offsetof(struct m2se_config, lambda)},
             {"dropout", offsetof(struct m2se_config, dropout)}};
enum { SIZES = sizeof sizes / sizeof *sizes, REALS = sizeof reals / sizeof *reals };

static uint32_t *size_of(struct m2se_config *config, size_t i) {
  return (uint32_t *)((char *)config + sizes[i].field);
}

static double *real_of(struct m2se_config *config, size_t i) {
  return (double *)((char *)config + reals[i].field);
}

/* ---- what the files hold ---- */

struct m2se_learned m2se_learned_of(const struct m2se_learner *learner, uint32_t slots) {
  return (struct m2se_learned){.config = &learner->config,
                               .list = &learner->list,
                               .flat = learner->params.flat,
                               .adam_m = learner->adam_m,
                               .adam_v = learner->adam_v,
                               .table = learner->table,
                               .slots = slots,
                               .step = learner->step};
}

static void add_metadata(struct m2se_file_list *list, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add_metadata(struct m2se_file_list *list, const char *key, const char *format, ...) {
  assert(list->metadata_count < M2SE_FILE_METADATA_MAX);
  char *value = list->values[list->metadata_count];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(value, sizeof list->values[0], format, arguments);
  va_end(arguments);
  list->metadata[list->metadata_count++] = (struct m2se_metadata){key, value};
}

/* With as many digits as it takes to read the same number back. */
static void add_real(struct m2se_file_list *list, const char *key, double number) {
  char text[32];
  int digits = 15;
  do {
    snprintf(text, sizeof text, "%.*g", digits, number);
  } while (strtod(text, NULL) != number && digits++ < 17);
  add_metadata(list, key, "%s", text);
}

/* The next tensor, of one dimension; the caller says if it has more. */
static struct m2se_tensor *add_tensor(struct m2se_file_list *list, enum m2se_dtype dtype, const char *prefix,
                                      const char *name, uint64_t length, const void *data) {
  assert(list->tensor_count < M2SE_FILE_TENSORS_MAX);
  char *full = list->names[list->tensor_count];
  snprintf(full, sizeof list->names[0], "%s%s", prefix, name);
  struct m2se_tensor *tensor = &list->tensors[list->tensor_count++];
  *tensor = (struct m2se_tensor){.name = full, .dtype = dtype, .rank = 1, .shape = {length}, .data = data};
  return tensor;
}

static void add_parameters(struct m2se_file_list *list, const struct m2se_tensor_list *parameters,
                           const char *prefix, const m2se_real *flat) {
  for (uint32_t i = 0; i < parameters->count; i++) {
    const struct m2se_parameter *p = &parameters->tensors[i];
    struct m2se_tensor *tensor = add_tensor(list, M2SE_F32, prefix, p->name, 0, flat + p->offset);
    tensor->rank = p->rank;
    memcpy(tensor->shape, p->shape, sizeof p->shape);
  }
}

void m2se_file_list_model(struct m2se_file_list *list, const struct m2se_learned *learned) {
  struct m2se_config config = *learned->config;
  list->tensor_count = list->metadata_count = 0;
  add_metadata(list, "format", MODEL_FORMAT);
  add_metadata(list, "version", VERSION);
  for (size_t i = 0; i < SIZES; i++) {
    add_metadata(list, sizes[i].key, "%" PRIu32, *size_of(&config, i));
  }
  for (size_t i = 0; i < REALS; i++) {
    add_real(list, reals[i].key, *real_of(&config, i));
  }
  add_metadata(list, "step", "%" PRIu64, learned->step);
  add_parameters(list, learned->list, "", learned->flat);
}

void m2se_file_list_optimizer(struct m2se_file_list *list, const struct m2se_learned *learned) {
  const struct m2se_config *config = learned->config;
  const struct m2se_item_table *table = &learned->table;
  static const char *const prefixes[] = {"", "m.", "v."};
  const m2se_real *const residuals[] = {table->residual, table->residual_m, table->residual_v};
  const m2se_real *const biases[] = {table->bias, table->bias_m, table->bias_v};
  list->tensor_count = list->metadata_count = 0;
  add_metadata(list, "format", OPTIMIZER_FORMAT);
  add_metadata(list, "version", VERSION);
  add_metadata(list, "step", "%" PRIu64, learned->step);
  add_metadata(list, "slots", "%" PRIu32, learned->slots);
  add_parameters(list, learned->list, "m.", learned->adam_m);
  add_parameters(list, learned->list, "v.", learned->adam_v);
  for (int k = 0; k < 3; k++) {
    if (config->item_residual) {
      struct m2se_tensor *tensor =
          add_tensor(list, M2SE_F32, prefixes[k], "items.residual", learned->slots, residuals[k]);
      tensor->rank = 2;
      tensor->shape[1] = 2 * (uint64_t)config->h;
    }
    if (config->item_bias) {
      add_tensor(list, M2SE_F32, prefixes[k], "items.bias", learned->slots, biases[k]);
    }
  }
  if (config->item_residual || config->item_bias) {
    add_tensor(list, M2SE_U32, "", "items.updates", learned->slots, table->touched);
  }
}

/* ---- reading ---- */

static int check_format(const struct m2se_safetensors *file, const char *wanted, struct m2se_error *error) {
  const char *format = m2se_safetensors_metadata(file, "format");
  const char *version = m2se_safetensors_metadata(file, "version");
  if (!format || strcmp(format, wanted) != 0 || !version || strcmp(version, VERSION) != 0) {
    return m2se_error_set(error, M2SE_EFORMAT,
                          "%s: metadata: format %.40s, version %.40s where %s, %s is needed",
                          m2se_safetensors_label(file), format ? format : "missing",
                          version ? version : "missing", wanted, VERSION);
  }
  return 0;
}

/* From an open model file, to a configuration that is otherwise the default one. */
static int read_config(const struct m2se_safetensors *file, struct m2se_config *config,
                       struct m2se_error *error) {
  m2se_config_defaults(config);
  int code = check_format(file, MODEL_FORMAT, error);
  for (size_t i = 0; code == 0 && i < SIZES; i++) {
    uint64_t number = 0;
    code = m2se_safetensors_metadata_uint(file, sizes[i].key, 1, UINT32_MAX, &number, error);
    *size_of(config, i) = (uint32_t)number;
  }
  for (size_t i = 0; code == 0 && i < REALS; i++) {
    code = m2se_safetensors_metadata_real(file, reals[i].key, -1e300, 1e300, real_of(config, i), error);
  }
  if (code == 0 && (code = m2se_config_check(config, error)) < 0) {
    return m2se_error_prefix(error, code, "%s: metadata", m2se_safetensors_label(file));
  }
  return code;
}

int m2se_model_read_config(const char *path, struct m2se_config *config, struct m2se_error *error) {
  struct m2se_safetensors *file;
  struct m2se_config stated;
  int code = m2se_safetensors_open(&file, path, error);
  if (code < 0) {
    return code;
  }
  code = read_config(file, &stated, error);
  m2se_safetensors_close(file);
  for (size_t i = 0; code == 0 && i < SIZES; i++) {
    *size_of(config, i) = *size_of(&stated, i);
  }
  for (size_t i = 0; code == 0 && i < REALS; i++) {
    *real_of(config, i) = *real_of(&stated, i);
  }
  return code;
}

static int wrong(const struct m2se_safetensors *file, const struct m2se_tensor *tensor, int code,
                 const char *what, struct m2se_error *error) {
  return m2se_error_set(error, code, "%s: tensor \"%s\": %s", m2se_safetensors_label(file), tensor->name,
                        what);
}

/* Finite, and second moments not negative: a square root is taken of them. */
static int check_numbers(const struct m2se_safetensors *file, const struct m2se_tensor *tensor,
                         struct m2se_error *error) {
  bool squares = strncmp(tensor->name, "v.", 2) == 0;
  for (uint64_t i = 0; i < tensor->count; i++) {
    float x;
    memcpy(&x, (const char *)tensor->data + i * sizeof x, sizeof x); /* a file need not align them */
    if (!isfinite(x) || (squares && x < 0)) {
      return m2se_error_set(error, M2SE_ENUMERIC, "%s: tensor \"%s\": element %" PRIu64 " is %g, must be %s",
                            m2se_safetensors_label(file), tensor->name, i, (double)x,
                            squares ? "finite and not negative" : "finite");
    }
  }
  return 0;
}

/* The file has the tensors of the list, all of the right shape and type, and no other. */
static int check_tensors(const struct m2se_safetensors *file, const struct m2se_file_list *list,
                         struct m2se_error *error) {
  for (uint32_t i = 0; i < list->tensor_count; i++) {
    const struct m2se_tensor *wanted = &list->tensors[i], *found = NULL;
    int code = m2se_safetensors_require(file, wanted->name, wanted->rank, wanted->shape, &found, error);
    if (code == 0 && found->dtype != wanted->dtype) {
      char what[64];
      snprintf(what, sizeof what, "dtype %s where %s is needed", m2se_dtype_name(found->dtype),
               m2se_dtype_name(wanted->dtype));
      code = wrong(file, found, M2SE_ETYPE, what, error);
    }
    if (code == 0 && wanted->dtype == M2SE_F32) {
      code = check_numbers(file, found, error);
    }
    if (code < 0) {
      return code;
    }
  }
  for (uint32_t i = 0; i < m2se_safetensors_count(file); i++) {
    const struct m2se_tensor *found = m2se_safetensors_at(file, i);
    uint32_t k = 0;
    while (k < list->tensor_count && strcmp(list->tensors[k].name, found->name) != 0) {
      k++;
    }
    if (k == list->tensor_count) {
      return wrong(file, found, M2SE_EFORMAT, "is not part of this model", error);
    }
  }
  return 0;
}

/* After check_tensors. The list points into the learner. */
static void copy_tensors(const struct m2se_safetensors *file, const struct m2se_file_list *list) {
  for (uint32_t i = 0; i < list->tensor_count; i++) {
    const struct m2se_tensor *found = m2se_safetensors_find(file, list->tensors[i].name);
    if (found->bytes > 0) {
      memcpy((void *)list->tensors[i].data, found->data, found->bytes);
    }
  }
}

struct load {
  struct m2se_safetensors *model, *optimizer;
  struct m2se_learned into;
  struct m2se_file_list model_list, optimizer_list;
};

static int check_model(struct load *load, struct m2se_error *error) {
  const char *label = m2se_safetensors_label(load->model);
  struct m2se_config stated;
  int code = read_config(load->model, &stated, error);
  if (code < 0) {
    return code;
  }
  struct m2se_config wanted = *load->into.config;
  for (size_t i = 0; i < SIZES; i++) {
    if (*size_of(&stated, i) != *size_of(&wanted, i)) {
      return m2se_error_set(error, M2SE_ESHAPE, "%s: metadata: %s is %" PRIu32 " where %" PRIu32 " is needed",
                            label, sizes[i].key, *size_of(&stated, i), *size_of(&wanted, i));
    }
  }
  m2se_file_list_model(&load->model_list, &load->into);
  return check_tensors(load->model, &load->model_list, error);
}

/* Sets the step and the slots that came. A model that says of which step it is must be of the same. */
static int check_optimizer(struct load *load, uint32_t catalogue, struct m2se_error *error) {
  const char *label = m2se_safetensors_label(load->optimizer);
  uint64_t slots = 0, model_step = 0;
  int code = check_format(load->optimizer, OPTIMIZER_FORMAT, error);
  code = code < 0
             ? code
             : m2se_safetensors_metadata_uint(load->optimizer, "step", 0, INT64_MAX, &load->into.step, error);
  code =
      code < 0 ? code : m2se_safetensors_metadata_uint(load->optimizer, "slots", 0, catalogue, &slots, error);
  if (code == 0 && m2se_safetensors_metadata(load->model, "step")) {
    code = m2se_safetensors_metadata_uint(load->model, "step", 0, INT64_MAX, &model_step, error);
    if (code == 0 && model_step != load->into.step) {
      code = m2se_error_set(error, M2SE_EFORMAT, "%s: of step %" PRIu64 ", but %s of step %" PRIu64, label,
                            load->into.step, m2se_safetensors_label(load->model), model_step);
    }
  }
  if (code < 0) {
    return code;
  }
  load->into.slots = (uint32_t)slots;
  m2se_file_list_optimizer(&load->optimizer_list, &load->into);
  return check_tensors(load->optimizer, &load->optimizer_list, error);
}

/* Both files are right: from here on nothing fails. */
static void take_over(struct m2se_learner *l, const struct load *load) {
  copy_tensors(load->model, &load->model_list);
  memset(l->adam_m, 0, l->list.elements * sizeof *l->adam_m);
  memset(l->adam_v, 0, l->list.elements * sizeof *l->adam_v);
  for (uint32_t slot = 0; slot < l->limits.catalogue; slot++) {
    m2se_learner_reset_slot(l, slot);
  }
  if (load->optimizer) {
    copy_tensors(load->optimizer, &load->optimizer_list);
  }
  l->step = load->into.step;
}

int m2se_learner_load(struct m2se_learner *l, const char *model_path, const char *optimizer_path,
                      uint32_t *slots, struct m2se_error *error) {
  *slots = 0;
  struct load *load = calloc(1, sizeof *load);
  if (!load) {
    return m2se_error_set(error, M2SE_ENOMEM, "%s: no memory to load it", model_path);
  }
  load->into = m2se_learned_of(l, 0);
  load->into.step = 0;
  int code = m2se_safetensors_open(&load->model, model_path, error);
  code = code < 0 ? code : check_model(load, error);
  if (code == 0 && optimizer_path) {
    code = m2se_safetensors_open(&load->optimizer, optimizer_path, error);
    code = code < 0 ? code : check_optimizer(load, l->limits.catalogue, error);
  }
  if (code == 0) {
    take_over(l, load);
    *slots = load->into.slots;
  }
  m2se_safetensors_close(load->model);
  m2se_safetensors_close(load->optimizer);
  free(load);
  return code;
}
