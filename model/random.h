/* Random draws as functions of (seed, step, purpose, index): Threefry4x32-20, no state (kernels/kernels.h).
 * What a draw is for is one list, here, so that no two uses share numbers. Any thread. */
#ifndef M2SE_RANDOM_H
#define M2SE_RANDOM_H

#include <stdint.h>

enum m2se_random_purpose {
  M2SE_RANDOM_INIT = 1,         /* first weights; index: place in the flat parameters; step 0 */
  M2SE_RANDOM_RATES,            /* rho and p of a step: index 0 and 1 */
  M2SE_RANDOM_SEQUENCE_DROPOUT, /* index: position of the mini-batch */
  M2SE_RANDOM_MIXUP,            /* index: position that stayed */
  M2SE_RANDOM_RESIDUAL,         /* index: item of the mini-batch */
  M2SE_RANDOM_REPLAY,           /* index: which replayed example of the step */
  M2SE_RANDOM_RESERVOIR,        /* index: how many examples the reservoir saw; step 0 */
  M2SE_RANDOM_DROPOUT = 64      /* + place in the network (network/dropout.h); up to 16 a layer */
};

uint32_t m2se_random_u32(uint64_t seed, uint64_t step, uint32_t purpose, uint64_t index);
/* Uniform in 0..n-1; n >= 1; bias below n / 2^64. */
uint64_t m2se_random_below(uint64_t seed, uint64_t step, uint32_t purpose, uint64_t index, uint64_t n);
/* Uniform in [0, 1). */
double m2se_random_unit(uint64_t seed, uint64_t step, uint32_t purpose, uint64_t index);
/* Standard normal (Box-Muller). */
double m2se_random_normal(uint64_t seed, uint64_t step, uint32_t purpose, uint64_t index);

#endif
