/* A vector of M2SE_LANES floats and the few operations that GCC's vector extensions cannot say, for AVX2, for
 * AVX-512 and, without either (the tests run 16 lanes on any CPU that way), lane by lane.
 *
 * Arithmetic is written with operators and v_fma: the file is compiled with -ffp-contract=off, so a product
 * is fused into a sum only where the source says so, and two inlined copies of one expression cannot round
 * differently. */
#ifndef M2SE_KERNELS_VECTOR_ISA_H
#define M2SE_KERNELS_VECTOR_ISA_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if M2SE_LANES == 16 && defined(__AVX512F__)
#define ISA_AVX512
#elif M2SE_LANES == 8 && defined(__AVX2__)
#define ISA_AVX2
#endif
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define LANES ((size_t)M2SE_LANES)
#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * M2SE_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * M2SE_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * M2SE_LANES)));

/* x - 0 and not x + 0, which would lose the sign of -0. */
INLINE vf v_set(float x) {
  return x - (vf){0};
}

INLINE vu vu_set(uint32_t x) {
  return x + (vu){0};
}

INLINE vu vu_lane_numbers(void) {
  vu lanes;
  for (size_t i = 0; i < LANES; i++)
    lanes[i] = (uint32_t)i;
  return lanes;
}

INLINE vf v_load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof(v));
  return v;
}

INLINE void v_store(float *p, vf v) {
  memcpy(p, &v, sizeof(v));
}

/* ---- masks: `vm` holds one truth value a lane ---- */
#ifdef ISA_AVX512

typedef __mmask16 vm;

INLINE vm vm_from_bits(uint32_t bits) {
  return (vm)bits;
}

INLINE uint32_t vm_bits(vm m) {
  return m;
}

INLINE vm vm_first(size_t n) {
  return (vm)((1u << n) - 1);
}

INLINE vm vm_equal(vu a, vu b) {
  return _mm512_cmpeq_epu32_mask((__m512i)a, (__m512i)b);
}

/* a > b; values below 2^31 */
INLINE vm vm_above(vu a, vu b) {
  return _mm512_cmpgt_epu32_mask((__m512i)a, (__m512i)b);
}

/* a < b; false if either is NaN */
INLINE vm vm_less(vf a, vf b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
}

/* a where m, else b */
INLINE vf v_select(vm m, vf a, vf b) {
  return (vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a);
}

/* a where m, else 0, whatever a is there */
INLINE vf v_where(vm m, vf a) {
  return (vf)_mm512_maskz_mov_ps(m, (__m512)a);
}

INLINE vf v_where_not(vm m, vf a) {
  return (vf)_mm512_maskz_mov_ps((vm)~m, (__m512)a);
}

#else

typedef vi vm;

INLINE vm vm_from_bits(uint32_t bits) {
  const vu lane_bit = vu_set(1) << vu_lane_numbers();
  return (vm)((vu_set(bits) & lane_bit) == lane_bit);
}

INLINE uint32_t vm_bits(vm m) {
#ifdef ISA_AVX2
  return (uint32_t)_mm256_movemask_ps((__m256)m);
#else
  uint32_t bits = 0;
  for (size_t i = 0; i < LANES; i++)
    bits |= ((uint32_t)m[i] & 1u) << i;
  return bits;
#endif
}

INLINE vm vm_first(size_t n) {
  return (vm)((vi)vu_lane_numbers() < (int32_t)n - (vi){0});
}

INLINE vm vm_equal(vu a, vu b) {
  return (vm)(a == b);
}

/* a > b; values below 2^31 */
INLINE vm vm_above(vu a, vu b) {
  return (vm)((vi)a > (vi)b);
}

/* a < b; false if either is NaN */
INLINE vm vm_less(vf a, vf b) {
  return (vm)(a < b);
}

/* a where m, else b */
INLINE vf v_select(vm m, vf a, vf b) {
#ifdef ISA_AVX2
  return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
#else
  return (vf)((m & (vi)a) | (~m & (vi)b));
#endif
}

/* a where m, else 0, whatever a is there */
INLINE vf v_where(vm m, vf a) {
  return (vf)(m & (vi)a);
}

INLINE vf v_where_not(vm m, vf a) {
  return (vf)(~m & (vi)a);
}

#endif

/* ---- the first n lanes, 1 <= n <= LANES: nothing beyond is read or written; lanes that are not read are 0
 * ---- */
INLINE vf v_load_n(const float *p, size_t n) {
  if (n == LANES)
    return v_load(p);
#if defined(ISA_AVX512)
  return (vf)_mm512_maskz_loadu_ps(vm_first(n), p);
#elif defined(ISA_AVX2)
  return (vf)_mm256_maskload_ps(p, (__m256i)vm_first(n));
#else
  vf v = {0};
  for (size_t i = 0; i < n; i++)
    v[i] = p[i];
  return v;
#endif
}

INLINE vu vu_load_n(const uint32_t *p, size_t n) {
  vu v = {0};
  if (n == LANES) {
    memcpy(&v, p, sizeof(v));
    return v;
  }
#if defined(ISA_AVX512)
  v = (vu)_mm512_maskz_loadu_epi32(vm_first(n), p);
#elif defined(ISA_AVX2)
  v = (vu)_mm256_maskload_epi32((const int *)p, (__m256i)vm_first(n));
#else
  for (size_t i = 0; i < n; i++)
    v[i] = p[i];
#endif
  return v;
}

INLINE void v_store_n(float *p, vf v, size_t n) {
  if (n == LANES) {
    v_store(p, v);
    return;
  }
#if defined(ISA_AVX512)
  _mm512_mask_storeu_ps(p, vm_first(n), (__m512)v);
#elif defined(ISA_AVX2)
  _mm256_maskstore_ps(p, (__m256i)vm_first(n), (__m256)v);
#else
  for (size_t i = 0; i < n; i++)
    p[i] = v[i];
#endif
}

/* ---- arithmetic ---- */
/* a b + c, rounded once */
INLINE vf v_fma(vf a, vf b, vf c) {
#if defined(ISA_AVX512)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(ISA_AVX2)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  for (size_t i = 0; i < LANES; i++)
    c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#endif
}

/* The larger; b if either is NaN. */
INLINE vf v_max(vf a, vf b) {
#if defined(ISA_AVX512)
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(ISA_AVX2)
  return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return v_select((vm)(a > b), a, b);
#endif
}

/* The smaller; b if either is NaN. */
INLINE vf v_min(vf a, vf b) {
#if defined(ISA_AVX512)
  return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(ISA_AVX2)
  return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return v_select((vm)(a < b), a, b);
#endif
}

INLINE vf v_abs(vf a) {
  return (vf)((vu)a & 0x7fffffffu);
}

INLINE vf v_sqrt(vf a) {
#if defined(ISA_AVX512)
  return (vf)_mm512_sqrt_ps((__m512)a);
#elif defined(ISA_AVX2)
  return (vf)_mm256_sqrt_ps((__m256)a);
#else
  for (size_t i = 0; i < LANES; i++)
    a[i] = sqrtf(a[i]);
  return a;
#endif
}

/* ---- over the lanes, in a fixed order (halves, quarters, ...) ---- */
#ifdef __AVX2__
INLINE float sum_8(__m256 a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

INLINE float max_8(__m256 a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
#endif

INLINE float v_sum(vf a) {
#if defined(ISA_AVX512)
  __m256 high = _mm512_extractf32x8_ps((__m512)a, 1);
  return sum_8(_mm256_add_ps(_mm512_castps512_ps256((__m512)a), high));
#elif defined(ISA_AVX2)
  return sum_8((__m256)a);
#else
  for (size_t half = LANES / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; i++)
      a[i] += a[i + half];
  return a[0];
#endif
}

/* a without NaN */
INLINE float v_largest(vf a) {
#if defined(ISA_AVX512)
  __m256 high = _mm512_extractf32x8_ps((__m512)a, 1);
  return max_8(_mm256_max_ps(_mm512_castps512_ps256((__m512)a), high));
#elif defined(ISA_AVX2)
  return max_8((__m256)a);
#else
  for (size_t i = 1; i < LANES; i++)
    a[0] = a[i] > a[0] ? a[i] : a[0];
  return a[0];
#endif
}

/* ---- t[column LANES + row] = factor src[row ld + column] for a block of up to LANES rows; missing rows are
 * 0 ---- */
#ifdef __AVX2__
/* 8 rows by 8 columns, of which `rows` and `columns` are there; t rows of ldt. */
INLINE void transpose_8(float *t, size_t ldt, const float *src, size_t ld, size_t rows, size_t columns,
                        __m256 factor) {
  __m256 a[8], b[8];
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)columns), lanes);
  for (size_t i = 0; i < 8; i++) {
    a[i] = _mm256_setzero_ps();
    if (i < rows)
      a[i] = columns < 8 ? _mm256_maskload_ps(src + i * ld, there) : _mm256_loadu_ps(src + i * ld);
    a[i] = _mm256_mul_ps(a[i], factor);
  }
  for (size_t i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (size_t i = 0; i < 8; i += 4)
    for (size_t k = 0; k < 2; k++) {
      a[i + 2 * k] = _mm256_shuffle_ps(b[i + k], b[i + k + 2], 0x44);
      a[i + 2 * k + 1] = _mm256_shuffle_ps(b[i + k], b[i + k + 2], 0xee);
    }
  for (size_t i = 0; i < 4; i++) {
    b[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
    b[i + 4] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
  }
  for (size_t i = 0; i < 8 && i < columns; i++)
    _mm256_storeu_ps(t + i * ldt, b[i]);
}

INLINE void v_transpose(float *t, const float *src, size_t ld, size_t rows, size_t columns, float factor) {
  const __m256 f = _mm256_set1_ps(factor);
  for (size_t r = 0; r < LANES; r += 8)
    for (size_t c = 0; c < columns; c += 8)
      transpose_8(t + c * LANES + r, LANES, src + r * ld + c, ld, rows > r ? rows - r : 0, columns - c, f);
}
#else
INLINE void v_transpose(float *t, const float *src, size_t ld, size_t rows, size_t columns, float factor) {
  for (size_t c = 0; c < columns; c++)
    for (size_t r = 0; r < LANES; r++)
      t[c * LANES + r] = r < rows ? factor * src[r * ld + c] : 0;
}
#endif

#endif
