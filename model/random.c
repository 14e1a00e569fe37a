#include "model/random.h"

#include <math.h>

#include "model/kernels/kernels.h"

static void draw(uint32_t out[4], uint64_t seed, uint64_t step, uint32_t purpose, uint64_t block) {
  struct m2se_stream stream = {
      .key = {(uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)step, (uint32_t)(step >> 32)},
      .purpose = purpose};
  m2se_kernels_scalar()->random_blocks(out, &stream, block, 1);
}

uint32_t m2se_random_u32(uint64_t seed, uint64_t step, uint32_t purpose, uint64_t index) {
  uint32_t words[4];
  draw(words, seed, step, purpose, index);
  return words[0];
}

uint64_t m2se_random_below(uint64_t seed, uint64_t step, uint32_t purpose, uint64_t index, uint64_t n) {
  uint32_t words[4];
  draw(words, seed, step, purpose, index);
  uint64_t x = (uint64_t)words[0] | (uint64_t)words[1] << 32;
  return (uint64_t)(((unsigned __int128)x * n) >> 64);
}

double m2se_random_unit(uint64_t seed, uint64_t step, uint32_t purpose, uint64_t index) {
  return m2se_random_u32(seed, step, purpose, index) * 0x1p-32;
}

double m2se_random_normal(uint64_t seed, uint64_t step, uint32_t purpose, uint64_t index) {
  uint32_t words[4];
  draw(words, seed, step, purpose, index);
  double u = (words[0] + 1.0) * 0x1p-32; /* (0, 1]: its logarithm is finite */
  double v = words[1] * 0x1p-32;
  return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}
