/* Threefry4x32-20 and the dropout masks drawn from it, one block at a time.
 *
 * Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC'11). */
#include "model/kernels/kernels_scalar.h"

static uint32_t rotate_left(uint32_t x, unsigned bits) {
  return (x << bits) | (x >> (32 - bits));
}

/* out[4] = Threefry4x32-20 of the counter {block low, block high, purpose, 0}. */
static void threefry_block(uint32_t out[4], const struct m2se_stream *stream, uint64_t block) {
  static const uint8_t rotation[8][2] = {{10, 26}, {11, 21}, {13, 27}, {23, 5},
                                         {6, 20},  {17, 11}, {25, 10}, {18, 20}};
  const uint32_t *key = stream->key;
  const uint32_t schedule[5] = {key[0], key[1], key[2], key[3],
                                0x1BD11BDAu ^ key[0] ^ key[1] ^ key[2] ^ key[3]};
  uint32_t x0 = (uint32_t)block + schedule[0];
  uint32_t x1 = (uint32_t)(block >> 32) + schedule[1];
  uint32_t x2 = stream->purpose + schedule[2];
  uint32_t x3 = schedule[3];
  for (uint32_t round = 0; round < 20; round++) {
    const uint8_t *bits = rotation[round % 8];
    /* A round mixes the pairs (0, 1), (2, 3) or, every second time, (0, 3), (2, 1). */
    uint32_t *a = round % 2 == 0 ? &x1 : &x3;
    uint32_t *b = round % 2 == 0 ? &x3 : &x1;
    x0 += *a;
    *a = rotate_left(*a, bits[0]) ^ x0;
    x2 += *b;
    *b = rotate_left(*b, bits[1]) ^ x2;
    if (round % 4 == 3) {
      uint32_t injection = round / 4 + 1;
      x0 += schedule[injection % 5];
      x1 += schedule[(injection + 1) % 5];
      x2 += schedule[(injection + 2) % 5];
      x3 += schedule[(injection + 3) % 5] + injection;
    }
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

void m2se_scalar_random_blocks(uint32_t *out, const struct m2se_stream *stream, uint64_t first, size_t n) {
  for (size_t i = 0; i < n; i++)
    threefry_block(out + 4 * i, stream, first + i);
}

m2se_real m2se_draws_factor(struct m2se_draws *draws, uint64_t index) {
  const struct m2se_dropout *drop = draws->drop;
  if (drop->threshold == 0)
    return 1;
  uint64_t group = index / 128;
  if (!draws->loaded || draws->group != group) {
    m2se_scalar_random_blocks(draws->words, &drop->stream, 16 * group, 16);
    draws->group = group;
    draws->loaded = true;
  }
  size_t half = (index / 16) % 8;
  size_t lane = index % 16;
  uint32_t draw = (draws->words[4 * lane + half / 2] >> (half % 2 * 16)) & 0xffffu;
  return draw >= drop->threshold ? drop->scale : 0;
}

void m2se_scalar_dropout(m2se_real *x, size_t n, const struct m2se_dropout *drop, uint64_t first) {
  if (drop->threshold == 0)
    return;
  struct m2se_draws draws = {.drop = drop};
  for (size_t i = 0; i < n; i++) {
    m2se_real factor = m2se_draws_factor(&draws, first + i);
    x[i] = factor == 0 ? 0 : x[i] * factor; /* not x * 0: a dropped infinity is gone, not NaN */
  }
}
