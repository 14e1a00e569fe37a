#include "tests/unit/model_sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "model/network/learner.h"
#include "model/random.h"

enum { PURPOSE_ROWS = 1000, PURPOSE_SEQUENCES = 1002, PURPOSE_SHAKE };

static uint32_t below(uint64_t seed, uint32_t purpose, uint64_t index, uint32_t n) {
  return (uint32_t)m2se_random_below(seed, 0, purpose, index, n);
}

static void make_items(struct model_sample *s, uint32_t items, uint64_t seed) {
  uint32_t used[2] = {0, 0};
  for (uint32_t i = 0; i < items; i++) {
    uint32_t counts[2] = {1 + i % SAMPLE_ROWS_MAX, 1 + (i / 2) % SAMPLE_ROWS_MAX};
    counts[0] = i % 7 == 3 ? 0 : counts[0];
    counts[1] = i % 7 == 5 ? 0 : counts[1];
    s->items[i] = (struct m2se_item_input){.slot = items - 1 - i};
    for (uint32_t m = 0; m < 2; m++) {
      m2se_real *rows = s->rows[m] + used[m] * s->config.d;
      for (uint32_t k = 0; k < counts[m] * s->config.d; k++) {
        rows[k] =
            (m2se_real)m2se_random_normal(seed, 0, PURPOSE_ROWS + m, (uint64_t)used[m] * s->config.d + k);
      }
      used[m] += counts[m];
      *(m == 0 ? &s->items[i].text : &s->items[i].image) = (struct m2se_rows){rows, counts[m]};
    }
  }
  s->limits.items = s->limits.catalogue = items;
  s->limits.rows = used[0] > used[1] ? used[0] : used[1];
}

struct m2se_config model_sample_config(void) {
  struct m2se_config config;
  m2se_config_defaults(&config);
  config.d = 20;
  config.da = 6;
  config.h = 12;
  config.experts = 3;
  config.heads = 3;
  config.ffn = 16;
  config.max_len = SAMPLE_LENGTH_MAX;
  config.dropout = config.sequence_dropout_max = config.mixup_max = 0;
  return config;
}

void model_sample_make(struct model_sample *s, const struct m2se_config *config, uint32_t items,
                       uint32_t sequences, uint32_t length_min) {
  uint64_t seed = config->seed;
  assert_true(items <= SAMPLE_ITEMS_MAX && sequences <= SAMPLE_SEQUENCES_MAX && config->d <= SAMPLE_D_MAX);
  memset(s, 0, sizeof *s);
  s->config = *config;
  make_items(s, items, seed);
  for (uint32_t j = 0; j < sequences; j++) {
    uint32_t at = s->seq_ptr[j], length = length_min + j % (config->max_len - length_min + 1);
    assert_true(at + length <= SAMPLE_POSITIONS_MAX);
    for (uint32_t p = at; p < at + length; p++) {
      s->seq_items[p] = below(seed, PURPOSE_SEQUENCES, p, items);
    }
    s->seq_ptr[j + 1] = at + length;
    s->target[j] = below(seed, PURPOSE_SEQUENCES, SAMPLE_POSITIONS_MAX + j, items);
  }
  s->limits.sequences = sequences;
  s->limits.positions = s->seq_ptr[sequences];
  s->limits.workers = 1;
  s->batch = (struct m2se_batch){.n_items = items,
                                 .items = s->items,
                                 .n_sequences = sequences,
                                 .seq_ptr = s->seq_ptr,
                                 .seq_items = s->seq_items,
                                 .target = s->target};
}

struct m2se_learner *model_sample_learner(const struct model_sample *s) {
  struct m2se_learner *learner;
  struct m2se_error error;
  if (m2se_learner_new(&learner, &s->config, &s->limits, &error) < 0) {
    fail_msg("%s", error.text);
  }
  return learner;
}

static void shake(m2se_real *x, size_t count, double scale, uint64_t seed, uint64_t first) {
  for (size_t k = 0; k < count; k++) {
    x[k] += (m2se_real)(scale * m2se_random_normal(seed, 1, PURPOSE_SHAKE, first + k));
  }
}

void model_sample_shake(struct m2se_learner *l, uint64_t seed) {
  size_t n = l->list.elements, catalogue = l->limits.catalogue, h2 = 2 * (size_t)l->config.h;
  shake(l->params.flat, n, 0.2, seed, 0);
  if (l->config.item_residual) {
    shake(l->table.residual, catalogue * h2, 0.5, seed, n);
  }
  if (l->config.item_bias) {
    shake(l->table.bias, catalogue, 0.5, seed, n + catalogue * h2);
  }
}
