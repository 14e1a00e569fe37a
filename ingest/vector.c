#include "ingest/vector.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "vectors go out as they lie in memory");

enum { BLOCK = 8 };

const char *m2se_vector_type_name(enum m2se_vector_type type) {
  return type == M2SE_VECTOR_FLOAT16 ? "float16" : "float32";
}

size_t m2se_vector_bytes(enum m2se_vector_type type, uint32_t dim) {
  return (size_t)dim * (type == M2SE_VECTOR_FLOAT16 ? sizeof(uint16_t) : sizeof(float));
}

/* ---- float16, without instructions for it ---- */

static uint16_t half_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
  uint32_t exponent = bits >> 23 & 0xff, fraction = bits & 0x7fffff;
  if (exponent == 0xff)
    return (uint16_t)(sign | 0x7c00 | (fraction ? 0x200 | fraction >> 13 : 0));
  if (exponent < 102) /* below half of the smallest number there is */
    return sign;
  /* How many of the 24 bits go: 13, and more where the result has less than 11. A carry out of the fraction
   * raises the exponent, as it should, up to infinity. */
  uint32_t lost = exponent < 113 ? 126 - exponent : 13;
  uint32_t whole = fraction | 0x800000, result = whole >> lost;
  if (exponent >= 113)
    result += (exponent - 113) << 10;
  uint32_t rest = whole & ((1U << lost) - 1), tie = 1U << (lost - 1);
  result += rest > tie || (rest == tie && (result & 1));
  return (uint16_t)(sign | (result < 0x7c00 ? result : 0x7c00));
}

static float float_of(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
  if (exponent == 0) {
    float value = ldexpf((float)fraction, -24);
    return sign ? -value : value;
  }
  uint32_t bits = sign | (exponent == 0x1f ? 0xffU : exponent + 112) << 23 | fraction << 13;
  if (exponent == 0x1f && fraction)
    bits |= 0x400000; /* quiet, as the CPU makes it */
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* ---- float16, with them; how many were done ---- */

#if defined(__x86_64__)
bool m2se_vector_has_f16c(void) {
  static atomic_int
      answer; /* 0: not asked yet; cpuid is slow in a virtual machine, and this runs per vector */
  if (!atomic_load_explicit(&answer, memory_order_relaxed)) {
    unsigned a, b, c = 0, d;
    bool has = __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    atomic_store_explicit(&answer, has ? 1 : -1, memory_order_relaxed);
  }
  return atomic_load_explicit(&answer, memory_order_relaxed) > 0;
}

__attribute__((target("avx,f16c"))) static uint32_t to_half_f16c(const float *from, uint16_t *to,
                                                                 uint32_t count) {
  uint32_t i = 0;
  for (; i + BLOCK <= count; i += BLOCK) {
    __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128((__m128i *)(void *)(to + i), halves);
  }
  return i;
}

__attribute__((target("avx,f16c"))) static uint32_t from_half_f16c(const uint16_t *from, float *to,
                                                                   uint32_t count) {
  uint32_t i = 0;
  for (; i + BLOCK <= count; i += BLOCK)
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + i))));
  return i;
}
#else
bool m2se_vector_has_f16c(void) {
  return false;
}

static uint32_t to_half_f16c(const float *from, uint16_t *to, uint32_t count) {
  (void)from, (void)to, (void)count;
  return 0;
}

static uint32_t from_half_f16c(const uint16_t *from, float *to, uint32_t count) {
  (void)from, (void)to, (void)count;
  return 0;
}
#endif

void m2se_vector_to_half(const float *from, uint16_t *to, uint32_t count, bool f16c) {
  for (uint32_t i = f16c ? to_half_f16c(from, to, count) : 0; i < count; i++)
    to[i] = half_of(from[i]);
}

void m2se_vector_from_half(const uint16_t *from, float *to, uint32_t count, bool f16c) {
  for (uint32_t i = f16c ? from_half_f16c(from, to, count) : 0; i < count; i++)
    to[i] = float_of(from[i]);
}

/* ---- vectors ---- */

bool m2se_vector_encode(enum m2se_vector_type type, const float *vector, uint32_t dim, void *bytes) {
  assert(dim > 0 && dim <= M2SE_VECTOR_DIM_MAX);
  uint16_t halves[M2SE_VECTOR_DIM_MAX];
  bool finite = true;
  if (type == M2SE_VECTOR_FLOAT32) {
    for (uint32_t i = 0; i < dim; i++)
      finite = finite && isfinite(vector[i]);
    memcpy(bytes, vector, m2se_vector_bytes(type, dim));
    return finite;
  }
  m2se_vector_to_half(vector, halves, dim, m2se_vector_has_f16c());
  for (uint32_t i = 0; i < dim; i++)
    finite = finite && (halves[i] & 0x7c00) != 0x7c00;
  memcpy(bytes, halves, m2se_vector_bytes(type, dim));
  return finite;
}

bool m2se_vector_decode(const void *bytes, size_t size, uint32_t dim, float *vector) {
  uint16_t halves[M2SE_VECTOR_DIM_MAX];
  if (dim == 0 || dim > M2SE_VECTOR_DIM_MAX)
    return false;
  if (size == m2se_vector_bytes(M2SE_VECTOR_FLOAT32, dim)) {
    memcpy(vector, bytes, size);
    return true;
  }
  if (size != m2se_vector_bytes(M2SE_VECTOR_FLOAT16, dim))
    return false;
  memcpy(halves, bytes, size);
  m2se_vector_from_half(halves, vector, dim, m2se_vector_has_f16c());
  return true;
}
