#include "model/network/params.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "model/random.h"

/* One row a tensor: name, first to third extent (0: not there; symbols of struct extents), init, where its
 * view goes. */
enum extent { NONE, ONE, D, DA, H, O, L, F };
struct row {
  const char *name;
  enum extent shape[3];
  enum m2se_init init;
  size_t field; /* offset of the pointer in its struct */
};

#define MODALITY(f) offsetof(struct m2se_modality_params, f)
#define LAYER(f) offsetof(struct m2se_layer_params, f)
#define GLOBAL(f) offsetof(struct m2se_params, f)

static const struct row modality_rows[] = {
    {"pool.w1.weight", {DA, D}, M2SE_INIT_NORMAL, MODALITY(pool_w1)},
    {"pool.w1.bias", {DA}, M2SE_INIT_ZERO, MODALITY(pool_w1_bias)},
    {"pool.w2.weight", {ONE, DA}, M2SE_INIT_NORMAL, MODALITY(pool_w2)},
    {"pool.w2.bias", {ONE}, M2SE_INIT_ZERO, MODALITY(pool_w2_bias)},
    {"moe.experts.weight", {O, H, D}, M2SE_INIT_NORMAL, MODALITY(experts)},
    {"moe.gate.weight", {O, D}, M2SE_INIT_ZERO, MODALITY(gate)}, /* right behind the experts: one product */
    {"moe.experts.bias", {O, H}, M2SE_INIT_ZERO, MODALITY(experts_bias)},
    {"moe.norms.weight", {O, H}, M2SE_INIT_ONE, MODALITY(norms_weight)},
    {"moe.norms.bias", {O, H}, M2SE_INIT_ZERO, MODALITY(norms_bias)},
};
static const struct row embed_rows[] = {
    {"position.weight", {L, H}, M2SE_INIT_NORMAL, GLOBAL(position)},
    {"embed_norm.weight", {H}, M2SE_INIT_ONE, GLOBAL(embed_norm_weight)},
    {"embed_norm.bias", {H}, M2SE_INIT_ZERO, GLOBAL(embed_norm_bias)},
};
static const struct row layer_rows[] = {
    {"attention.query.weight", {H, H}, M2SE_INIT_NORMAL, LAYER(query)},
    {"attention.key.weight", {H, H}, M2SE_INIT_NORMAL, LAYER(key)},
    {"attention.value.weight", {H, H}, M2SE_INIT_NORMAL, LAYER(value)},
    {"attention.query.bias", {H}, M2SE_INIT_ZERO, LAYER(query_bias)},
    {"attention.key.bias", {H}, M2SE_INIT_ZERO, LAYER(key_bias)},
    {"attention.value.bias", {H}, M2SE_INIT_ZERO, LAYER(value_bias)},
    {"attention.output.weight", {H, H}, M2SE_INIT_NORMAL, LAYER(output)},
    {"attention.output.bias", {H}, M2SE_INIT_ZERO, LAYER(output_bias)},
    {"attention_norm.weight", {H}, M2SE_INIT_ONE, LAYER(attention_norm_weight)},
    {"attention_norm.bias", {H}, M2SE_INIT_ZERO, LAYER(attention_norm_bias)},
    {"ffn.up.weight", {F, H}, M2SE_INIT_NORMAL, LAYER(up)},
    {"ffn.up.bias", {F}, M2SE_INIT_ZERO, LAYER(up_bias)},
    {"ffn.down.weight", {H, F}, M2SE_INIT_NORMAL, LAYER(down)},
    {"ffn.down.bias", {H}, M2SE_INIT_ZERO, LAYER(down_bias)},
    {"ffn_norm.weight", {H}, M2SE_INIT_ONE, LAYER(ffn_norm_weight)},
    {"ffn_norm.bias", {H}, M2SE_INIT_ZERO, LAYER(ffn_norm_bias)},
};
static const struct row project_rows[] = {
    {"project.text.weight", {H, H}, M2SE_INIT_NORMAL, GLOBAL(project_text)},
    {"project.image.weight", {H, H}, M2SE_INIT_NORMAL, GLOBAL(project_image)},
    {"project.text.bias", {H}, M2SE_INIT_ZERO, GLOBAL(project_text_bias)},
    {"project.image.bias", {H}, M2SE_INIT_ZERO, GLOBAL(project_image_bias)},
};
#define ROWS(array) (sizeof(array) / sizeof *(array))
_Static_assert(2 * ROWS(modality_rows) + ROWS(embed_rows) + M2SE_LAYERS_MAX * ROWS(layer_rows) +
                       ROWS(project_rows) ==
                   M2SE_PARAMETERS_MAX,
               "M2SE_PARAMETERS_MAX follows from the tables");

/* Calls visit for each tensor in the order of the flat array. base: the struct whose field points to it. */
struct visitor {
  void (*visit)(void *arg, const struct row *row, const char *prefix, void *base);
  void *arg;
};

static void visit_rows(const struct visitor *v, const struct row *rows, size_t count, const char *prefix,
                       void *base) {
  for (size_t i = 0; i < count; i++) {
    v->visit(v->arg, &rows[i], prefix, base);
  }
}

static void visit_all(const struct visitor *v, uint32_t layers, struct m2se_params *params) {
  visit_rows(v, modality_rows, ROWS(modality_rows), "text.", &params->modality[0]);
  visit_rows(v, modality_rows, ROWS(modality_rows), "image.", &params->modality[1]);
  visit_rows(v, embed_rows, ROWS(embed_rows), "", params);
  for (uint32_t l = 0; l < layers; l++) {
    char prefix[24];
    snprintf(prefix, sizeof prefix, "layers.%u.", l);
    visit_rows(v, layer_rows, ROWS(layer_rows), prefix, &params->layer[l]);
  }
  visit_rows(v, project_rows, ROWS(project_rows), "", params);
}

struct list_maker {
  struct m2se_tensor_list *list;
  uint64_t extents[F + 1];
};

static void add_tensor(void *arg, const struct row *row, const char *prefix, void *base) {
  (void)base;
  struct list_maker *maker = arg;
  struct m2se_tensor_list *list = maker->list;
  assert(list->count < M2SE_PARAMETERS_MAX);
  struct m2se_parameter *t = &list->tensors[list->count++];
  snprintf(t->name, sizeof t->name, "%s%s", prefix, row->name);
  t->init = row->init;
  t->rank = 0;
  t->count = 1;
  for (int i = 0; i < 3 && row->shape[i] != NONE; i++) {
    t->shape[t->rank++] = maker->extents[row->shape[i]];
    t->count *= maker->extents[row->shape[i]];
  }
  t->offset = list->elements;
  list->elements += t->count;
}

void m2se_tensor_list_make(struct m2se_tensor_list *list, const struct m2se_config *c) {
  struct list_maker maker = {.list = list};
  uint64_t extents[] = {[NONE] = 0, [ONE] = 1,        [D] = c->d,       [DA] = c->da,
                        [H] = c->h, [O] = c->experts, [L] = c->max_len, [F] = c->ffn};
  memcpy(maker.extents, extents, sizeof extents);
  memset(list, 0, sizeof *list);
  struct m2se_params none;
  visit_all(&(struct visitor){add_tensor, &maker}, c->layers, &none);
  list->sequence_start = list->tensors[2 * ROWS(modality_rows)].offset;
}

struct viewer {
  const struct m2se_tensor_list *list;
  uint32_t next;
  m2se_real *flat;
};

static void set_view(void *arg, const struct row *row, const char *prefix, void *base) {
  (void)prefix;
  struct viewer *viewer = arg;
  m2se_real *p = viewer->flat + viewer->list->tensors[viewer->next++].offset;
  memcpy((char *)base + row->field, &p, sizeof p);
}

void m2se_params_view(struct m2se_params *params, const struct m2se_tensor_list *list, m2se_real *flat) {
  struct viewer viewer = {list, 0, flat};
  uint32_t layers =
      (uint32_t)((list->count - 2 * ROWS(modality_rows) - ROWS(embed_rows) - ROWS(project_rows)) /
                 ROWS(layer_rows));
  memset(params, 0, sizeof *params);
  params->flat = flat;
  visit_all(&(struct visitor){set_view, &viewer}, layers, params);
}

void m2se_params_init(const struct m2se_tensor_list *list, m2se_real *flat, uint64_t seed) {
  for (uint32_t i = 0; i < list->count; i++) {
    const struct m2se_parameter *t = &list->tensors[i];
    for (size_t k = 0; k < t->count; k++) {
      m2se_real *p = &flat[t->offset + k];
      *p = t->init == M2SE_INIT_ONE ? 1 : 0;
      if (t->init == M2SE_INIT_NORMAL) {
        *p = (m2se_real)(0.02 * m2se_random_normal(seed, 0, M2SE_RANDOM_INIT, t->offset + k));
      }
    }
  }
}
