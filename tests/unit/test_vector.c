/* float16: the CPU's instructions and our own code agree bit for bit, and both round as IEEE 754 says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ingest/vector.h"

enum { HALVES = 1 << 16 };

static uint16_t half(float value, bool f16c) {
  float values[8] = {value, value, value, value, value, value, value, value};
  uint16_t halves[8];
  m2se_vector_to_half(values, halves, 8, f16c);
  return halves[5];
}

static float with_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void test_known(void **state) {
  (void)state;
  static const struct {
    float value;
    uint16_t half;
  } known[] = {{0.0F, 0x0000},
               {-0.0F, 0x8000},
               {1.0F, 0x3c00},
               {-2.0F, 0xc000},
               {65504.0F, 0x7bff},
               {65519.996F, 0x7bff},
               {65520.0F, 0x7c00},
               {-1e30F, 0xfc00},
               {0x1p-14F, 0x0400},
               {0x1p-24F, 0x0001},
               {0x1p-25F, 0x0000},        /* a tie: to even */
               {0x1.000002p-25F, 0x0001}, /* just above it */
               {0x1.8p-24F, 0x0002},      /* a tie: to even */
               {0x1.ff8p-15F, 0x03ff},
               {0x1.ffcp-15F, 0x0400},    /* a tie that carries into the normal numbers */
               {1.0F + 0x1p-11F, 0x3c00}, /* ties */
               {1.0F + 3 * 0x1p-11F, 0x3c02},
               {1.0F + 0x1.002p-11F, 0x3c01},
               {0x1p-140F, 0x0000},
               {INFINITY, 0x7c00}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    assert_int_equal(half(known[i].value, false), known[i].half);
    assert_int_equal(half(known[i].value, m2se_vector_has_f16c()), known[i].half);
  }
  assert_true((half(NAN, false) & 0x7c00) == 0x7c00 && (half(NAN, false) & 0x3ff) != 0);
}

/* Every float16 there and back, with and without instructions. */
static void test_all_halves(void **state) {
  (void)state;
  static uint16_t halves[HALVES], back[HALVES];
  static float floats[HALVES], other[HALVES];
  for (uint32_t i = 0; i < HALVES; i++)
    halves[i] = (uint16_t)i;
  m2se_vector_from_half(halves, floats, HALVES, false);
  m2se_vector_from_half(halves, other, HALVES, m2se_vector_has_f16c());
  assert_memory_equal(floats, other, sizeof floats);
  m2se_vector_to_half(floats, back, HALVES, false);
  for (uint32_t i = 0; i < HALVES; i++)
    if (!isnan(floats[i]))
      assert_int_equal(back[i], i);
  assert_true(floats[0x3555] == 0x1.554p-2F);
}

/* What lies between the halves: every 4099th float of all there are. */
static void test_same(void **state) {
  (void)state;
  if (!m2se_vector_has_f16c())
    skip();
  enum { COUNT = 1024 };
  float values[COUNT];
  uint16_t plain[COUNT], fast[COUNT];
  uint32_t filled = 0;
  for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 4099) {
    values[filled++] = with_bits((uint32_t)bits);
    if (filled < COUNT)
      continue;
    filled = 0;
    m2se_vector_to_half(values, plain, COUNT, false);
    m2se_vector_to_half(values, fast, COUNT, true);
    assert_memory_equal(plain, fast, sizeof plain);
  }
}

static void test_vectors(void **state) {
  (void)state;
  float vector[13], back[13];
  uint8_t bytes[1 + sizeof vector];
  for (int i = 0; i < 13; i++)
    vector[i] = (float)i - 6.125F;
  for (int type = M2SE_VECTOR_FLOAT32; type <= M2SE_VECTOR_FLOAT16; type++) {
    size_t size = m2se_vector_bytes((enum m2se_vector_type)type, 13);
    assert_int_equal(size, type == M2SE_VECTOR_FLOAT32 ? 52 : 26);
    assert_true(m2se_vector_encode((enum m2se_vector_type)type, vector, 13, bytes + 1));
    memset(back, 0, sizeof back);
    assert_true(m2se_vector_decode(bytes + 1, size, 13, back));
    assert_memory_equal(vector, back, sizeof vector);
    assert_false(m2se_vector_decode(bytes + 1, size, 12, back));
    assert_false(m2se_vector_decode(bytes + 1, size - 1, 13, back));
    assert_false(m2se_vector_decode(bytes + 1, 0, 0, back));
  }
  vector[12] = 70000;
  assert_true(m2se_vector_encode(M2SE_VECTOR_FLOAT32, vector, 13, bytes));
  assert_false(m2se_vector_encode(M2SE_VECTOR_FLOAT16, vector, 13, bytes));
  vector[12] = NAN;
  assert_false(m2se_vector_encode(M2SE_VECTOR_FLOAT32, vector, 13, bytes));
  assert_false(m2se_vector_encode(M2SE_VECTOR_FLOAT16, vector, 13, bytes));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_known), cmocka_unit_test(test_all_halves),
                                     cmocka_unit_test(test_same), cmocka_unit_test(test_vectors)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
