#include <math.h>

#include "model/network/params.h"

void m2se_config_defaults(struct m2se_config *config) {
  *config = (struct m2se_config){.d = 0,
                                 .da = 64,
                                 .h = 64,
                                 .experts = 8,
                                 .layers = 2,
                                 .heads = 2,
                                 .ffn = 256,
                                 .max_len = 50,
                                 .tau = 0.2,
                                 .lambda = 0.01,
                                 .dropout = 0.2,
                                 .sequence_dropout_max = 0.2,
                                 .mixup_max = 0.5,
                                 .targets = M2SE_TARGETS_ALL,
                                 .item_residual = true,
                                 .item_bias = true,
                                 .seed = 1,
                                 .learning_rate = 3e-3,
                                 .residual_learning_rate = 1e-2,
                                 .bias_learning_rate = 1e-2,
                                 .clip_norm = 5,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .epsilon = 1e-8};
}

struct range {
  const char *name;
  double value, low, high;
};

int m2se_config_check(const struct m2se_config *c, struct m2se_error *error) {
  const struct range ranges[] = {
      {"d", c->d, 1, 4096},
      {"da", c->da, 1, 4096},
      {"h", c->h, 1, 1024},
      {"experts", c->experts, 1, 64},
      {"layers", c->layers, 1, M2SE_LAYERS_MAX},
      {"heads", c->heads, 1, 64},
      {"ffn", c->ffn, 1, 8192},
      {"max_len", c->max_len, 1, 1024},
      {"tau", c->tau, 1e-3, 100},
      {"lambda", c->lambda, 0, 1e6},
      {"dropout", c->dropout, 0, 0.99},
      {"sequence_dropout_max", c->sequence_dropout_max, 0, 1},
      {"mixup_max", c->mixup_max, 0, 1},
      {"learning_rate", c->learning_rate, 0, 1e6},
      {"residual_learning_rate", c->residual_learning_rate, 0, 1e6},
      {"bias_learning_rate", c->bias_learning_rate, 0, 1e6},
      {"clip_norm", c->clip_norm, 0, 1e12},
      {"loss_max", c->loss_max, 0, 1e12},
      {"beta1", c->beta1, 0, 0.999999},
      {"beta2", c->beta2, 0, 0.999999},
      {"epsilon", c->epsilon, 1e-16, 1},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    const struct range *r = &ranges[i];
    if (!(r->value >= r->low && r->value <= r->high)) { /* a NaN fails too */
      return m2se_error_set(error, M2SE_EINVAL, "%s is %g, must be %g..%g", r->name, r->value, r->low,
                            r->high);
    }
  }
  if (c->h % c->heads != 0) {
    return m2se_error_set(error, M2SE_EINVAL, "h is %u, must be a multiple of heads (%u)", c->h, c->heads);
  }
  return 0;
}
