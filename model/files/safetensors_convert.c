/* Reading: from the dtypes of files to those that we compute with. Elements are fetched with memcpy because a
 * foreign file need not align them. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "model/files/safetensors.h"
#include "model/files/safetensors_header.h"

static int wrong_dtype(const struct m2se_safetensors *file, const struct m2se_tensor *tensor,
                       const char *wanted, struct m2se_error *error) {
  return m2se_error_set(error, M2SE_ETYPE, "%s: tensor \"%s\": dtype %s where %s is needed",
                        m2se_safetensors_label(file), tensor->name, m2se_dtype_name(tensor->dtype), wanted);
}

static int out_of_range(const struct m2se_safetensors *file, const struct m2se_tensor *tensor,
                        uint64_t element, const char *wanted, struct m2se_error *error) {
  return m2se_error_set(error, M2SE_ERANGE, "%s: tensor \"%s\": element %" PRIu64 " does not fit in %s",
                        m2se_safetensors_label(file), tensor->name, element, wanted);
}

static float float_from_bits(uint32_t bits) {
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

/* IEEE half: 1 sign, 5 exponent (bias 15), 10 fraction bits. Every one is a float. */
static float float_from_half(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  uint32_t exponent = half >> 10 & 0x1fu;
  uint32_t fraction = half & 0x3ffu;
  if (exponent == 0x1f) {
    return float_from_bits(sign | 0x7f800000u | fraction << 13);
  }
  if (exponent == 0) {
    float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return float_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

static void convert_16(const struct m2se_tensor *tensor, float *out) {
  const uint8_t *bytes = tensor->data;
  for (uint64_t i = 0; i < tensor->count; i++) {
    uint16_t word;
    memcpy(&word, bytes + i * sizeof word, sizeof word);
    out[i] = tensor->dtype == M2SE_F16 ? float_from_half(word) : float_from_bits((uint32_t)word << 16);
  }
}

/* The first element that is finite, but not as a float; count if there is none. */
static uint64_t convert_f64(const struct m2se_tensor *tensor, float *out) {
  const uint8_t *bytes = tensor->data;
  for (uint64_t i = 0; i < tensor->count; i++) {
    double number;
    memcpy(&number, bytes + i * sizeof number, sizeof number);
    out[i] = (float)number;
    if (isfinite(number) && !isfinite(out[i])) {
      return i;
    }
  }
  return tensor->count;
}

int m2se_safetensors_read_f32(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                              const uint64_t *shape, float *out, struct m2se_error *error) {
  const struct m2se_tensor *tensor = NULL;
  int code = m2se_safetensors_require(file, name, rank, shape, &tensor, error);
  if (code) {
    return code;
  }
  uint64_t bad;
  switch (tensor->dtype) {
  case M2SE_F32:
    if (tensor->bytes > 0) {
      memcpy(out, tensor->data, tensor->bytes);
    }
    return 0;
  case M2SE_F16:
  case M2SE_BF16:
    convert_16(tensor, out);
    return 0;
  case M2SE_F64:
    bad = convert_f64(tensor, out);
    return bad == tensor->count ? 0 : out_of_range(file, tensor, bad, "a float", error);
  default:
    return wrong_dtype(file, tensor, "F32, F16, BF16 or F64", error);
  }
}

/* Element i of any integer dtype; false if int64 cannot hold it. */
static bool integer_at(const struct m2se_tensor *tensor, uint64_t i, int64_t *number) {
  const uint8_t *element = (const uint8_t *)tensor->data + i * m2se_dtype_size(tensor->dtype);
  switch (tensor->dtype) {
#define M2SE_FETCH(name, type)                                                                               \
  case M2SE_##name: {                                                                                        \
    type fetched;                                                                                            \
    memcpy(&fetched, element, sizeof fetched);                                                               \
    *number = (int64_t)fetched;                                                                              \
    return true;                                                                                             \
  }
    M2SE_FETCH(I8, int8_t)
    M2SE_FETCH(U8, uint8_t)
    M2SE_FETCH(I16, int16_t)
    M2SE_FETCH(U16, uint16_t)
    M2SE_FETCH(I32, int32_t)
    M2SE_FETCH(U32, uint32_t)
    M2SE_FETCH(I64, int64_t)
#undef M2SE_FETCH
  default: { /* U64: integer_dtype has let through no other */
    uint64_t fetched;
    memcpy(&fetched, element, sizeof fetched);
    *number = (int64_t)fetched;
    return fetched <= INT64_MAX;
  }
  }
}

static bool integer_dtype(enum m2se_dtype dtype) {
  switch (dtype) {
  case M2SE_I8:
  case M2SE_U8:
  case M2SE_I16:
  case M2SE_U16:
  case M2SE_I32:
  case M2SE_U32:
  case M2SE_I64:
  case M2SE_U64:
    return true;
  default:
    return false;
  }
}

static int require_integers(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                            const uint64_t *shape, const struct m2se_tensor **tensor,
                            struct m2se_error *error) {
  int code = m2se_safetensors_require(file, name, rank, shape, tensor, error);
  if (!code && !integer_dtype((*tensor)->dtype)) {
    code = wrong_dtype(file, *tensor, "an integer type", error);
  }
  return code;
}

int m2se_safetensors_read_i32(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                              const uint64_t *shape, int32_t *out, struct m2se_error *error) {
  const struct m2se_tensor *tensor = NULL;
  int code = require_integers(file, name, rank, shape, &tensor, error);
  for (uint64_t i = 0; !code && i < tensor->count; i++) {
    int64_t number = 0;
    if (!integer_at(tensor, i, &number) || number < INT32_MIN || number > INT32_MAX) {
      code = out_of_range(file, tensor, i, "32 bits with a sign", error);
    } else {
      out[i] = (int32_t)number;
    }
  }
  return code;
}

int m2se_safetensors_read_i64(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                              const uint64_t *shape, int64_t *out, struct m2se_error *error) {
  const struct m2se_tensor *tensor = NULL;
  int code = require_integers(file, name, rank, shape, &tensor, error);
  for (uint64_t i = 0; !code && i < tensor->count; i++) {
    if (!integer_at(tensor, i, &out[i])) {
      code = out_of_range(file, tensor, i, "64 bits with a sign", error);
    }
  }
  return code;
}

int m2se_safetensors_read_u8(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                             const uint64_t *shape, uint8_t *out, struct m2se_error *error) {
  const struct m2se_tensor *tensor = NULL;
  int code = m2se_safetensors_require(file, name, rank, shape, &tensor, error);
  if (code) {
    return code;
  }
  if (tensor->dtype != M2SE_U8 && tensor->dtype != M2SE_BOOL) {
    return wrong_dtype(file, tensor, "U8 or BOOL", error);
  }
  if (tensor->bytes > 0) {
    memcpy(out, tensor->data, tensor->bytes);
  }
  return 0;
}
