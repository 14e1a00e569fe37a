#include "model/files/safetensors_header.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define METADATA_KEY "__metadata__"

const char *m2se_dtype_name(enum m2se_dtype dtype) {
  switch (dtype) {
#define M2SE_DTYPE_NAME(name, size)                                                                          \
  case M2SE_##name:                                                                                          \
    return #name;
    M2SE_DTYPES(M2SE_DTYPE_NAME)
#undef M2SE_DTYPE_NAME
  }
  assert(!"a dtype of the list");
  return "";
}

size_t m2se_dtype_size(enum m2se_dtype dtype) {
  switch (dtype) {
#define M2SE_DTYPE_SIZE(name, size)                                                                          \
  case M2SE_##name:                                                                                          \
    return size;
    M2SE_DTYPES(M2SE_DTYPE_SIZE)
#undef M2SE_DTYPE_SIZE
  }
  assert(!"a dtype of the list");
  return 0;
}

static bool dtype_named(const char *name, enum m2se_dtype *dtype) {
#define M2SE_DTYPE_MATCH(known, size)                                                                        \
  if (strcmp(name, #known) == 0) {                                                                           \
    *dtype = M2SE_##known;                                                                                   \
    return true;                                                                                             \
  }
  M2SE_DTYPES(M2SE_DTYPE_MATCH)
#undef M2SE_DTYPE_MATCH
  return false;
}

const char *m2se_label(const char *path) {
  size_t length = strlen(path);
  return length > M2SE_LABEL_MAX ? path + length - M2SE_LABEL_MAX : path;
}

int m2se_tensor_measure(struct m2se_tensor *tensor, struct m2se_error *error) {
  uint64_t count = 1;
  uint64_t bytes = 0;
  bool overflow = false;
  for (uint32_t i = 0; i < tensor->rank; i++) {
    overflow |= __builtin_mul_overflow(count, tensor->shape[i], &count);
  }
  overflow |= __builtin_mul_overflow(count, (uint64_t)m2se_dtype_size(tensor->dtype), &bytes);
  if (overflow) {
    return m2se_error_set(error, M2SE_EFORMAT, "shape: its product does not fit in 64 bits");
  }
  tensor->count = count;
  tensor->bytes = bytes;
  return 0;
}

/* The format's own numbers are stricter than JSON's: 3, but neither 3.0 nor "3". */
static int read_size(const struct m2se_json *value, const char *what, uint64_t *number,
                     struct m2se_error *error) {
  if (!value || m2se_json_type(value) != M2SE_JSON_INTEGER) {
    return m2se_error_set(error, M2SE_EFORMAT, "%s: %s where a whole number is needed", what,
                          m2se_json_type_name(value));
  }
  return m2se_json_as_uint64(value, what, number, error) ? M2SE_EFORMAT : 0; /* negative */
}

static int read_dtype(struct m2se_tensor *tensor, const struct m2se_json *entry, struct m2se_error *error) {
  const char *name = NULL;
  if (m2se_json_as_string(m2se_json_get(entry, "dtype"), "dtype", &name, NULL, error)) {
    return M2SE_EFORMAT;
  }
  if (!dtype_named(name, &tensor->dtype)) {
    return m2se_error_set(error, M2SE_EFORMAT, "dtype: \"%.40s\" is not known", name);
  }
  return 0;
}

static int read_shape(struct m2se_tensor *tensor, const struct m2se_json *entry, struct m2se_error *error) {
  const struct m2se_json *shape = m2se_json_get(entry, "shape");
  size_t rank = 0;
  if (m2se_json_as_array(shape, "shape", &rank, error)) {
    return M2SE_EFORMAT;
  }
  if (rank > M2SE_TENSOR_RANK_MAX) {
    return m2se_error_set(error, M2SE_ELIMIT, "shape: rank %zu, more than %d", rank, M2SE_TENSOR_RANK_MAX);
  }
  tensor->rank = (uint32_t)rank;
  for (uint32_t i = 0; i < tensor->rank; i++) {
    int code = read_size(m2se_json_at(shape, i), "shape", &tensor->shape[i], error);
    if (code) {
      return code;
    }
  }
  return m2se_tensor_measure(tensor, error);
}

static int read_offsets(struct m2se_tensor *tensor, const struct m2se_json *entry, uint64_t data_bytes,
                        struct m2se_error *error) {
  const struct m2se_json *offsets = m2se_json_get(entry, "data_offsets");
  size_t size = 0;
  if (m2se_json_as_array(offsets, "data_offsets", &size, error)) {
    return M2SE_EFORMAT;
  }
  if (size != 2) {
    return m2se_error_set(error, M2SE_EFORMAT, "data_offsets: %zu numbers where 2 are needed", size);
  }
  uint64_t end = 0;
  int code = read_size(m2se_json_at(offsets, 0), "data_offsets", &tensor->offset, error);
  if (!code) {
    code = read_size(m2se_json_at(offsets, 1), "data_offsets", &end, error);
  }
  if (code) {
    return code;
  }
  if (tensor->offset > end) {
    return m2se_error_set(error, M2SE_EFORMAT, "data_offsets: %" PRIu64 " is after %" PRIu64, tensor->offset,
                          end);
  }
  if (end > data_bytes) {
    return m2se_error_set(error, M2SE_EFORMAT,
                          "data_offsets: end at %" PRIu64 ", but there are only %" PRIu64 " bytes of data",
                          end, data_bytes);
  }
  if (end - tensor->offset != tensor->bytes) {
    return m2se_error_set(error, M2SE_EFORMAT,
                          "data_offsets: %" PRIu64 " bytes, but shape and dtype %s need %zu",
                          end - tensor->offset, m2se_dtype_name(tensor->dtype), tensor->bytes);
  }
  return 0;
}

static int read_entry(struct m2se_tensor *tensor, const struct m2se_json_iterator *member,
                      uint64_t data_bytes, struct m2se_error *error) {
  if (member->key_length == 0) {
    return m2se_error_set(error, M2SE_EFORMAT, "a tensor has an empty name");
  }
  if (member->key_length > M2SE_TENSOR_NAME_MAX) {
    return m2se_error_set(error, M2SE_ELIMIT, "tensor \"%.60s...\": a name of %zu bytes, more than %d",
                          member->key, member->key_length, M2SE_TENSOR_NAME_MAX);
  }
  *tensor = (struct m2se_tensor){.name = member->key};
  /* Members that the format does not name are passed over, as its other readers do. */
  int code = m2se_json_as_object(member->value, "its entry", error) ? M2SE_EFORMAT : 0;
  code = code ? code : read_dtype(tensor, member->value, error);
  code = code ? code : read_shape(tensor, member->value, error);
  code = code ? code : read_offsets(tensor, member->value, data_bytes, error);
  if (code) {
    m2se_error_prefix(error, code, "tensor \"%s\"", member->key);
  }
  return code;
}

static int check_metadata(const struct m2se_json *metadata, struct m2se_error *error) {
  if (m2se_json_as_object(metadata, METADATA_KEY, error)) {
    return M2SE_EFORMAT;
  }
  struct m2se_json_iterator member = {0};
  while (m2se_json_next(metadata, &member)) {
    if (m2se_json_type(member.value) != M2SE_JSON_STRING) {
      return m2se_error_set(error, M2SE_EFORMAT, METADATA_KEY ": \"%.100s\": %s where a string is needed",
                            member.key, m2se_json_type_name(member.value));
    }
  }
  return 0;
}

/* By place in the data; an empty tensor before one that begins where it lies; else any fixed order. */
static int compare_places(const void *left, const void *right) {
  const struct m2se_tensor *a = left;
  const struct m2se_tensor *b = right;
  if (a->offset != b->offset) {
    return a->offset < b->offset ? -1 : 1;
  }
  if (a->bytes != b->bytes) {
    return a->bytes < b->bytes ? -1 : 1;
  }
  return strcmp(a->name, b->name);
}

static int check_cover(const struct m2se_header *header, uint64_t data_bytes, struct m2se_error *error) {
  uint64_t covered = 0;
  for (uint32_t i = 0; i < header->count; i++) {
    const struct m2se_tensor *tensor = &header->tensors[i];
    if (tensor->offset != covered) {
      return m2se_error_set(error, M2SE_EFORMAT,
                            "tensor \"%s\": data_offsets: begin at %" PRIu64
                            ", but the tensors before it end at %" PRIu64 " (%s)",
                            tensor->name, tensor->offset, covered,
                            tensor->offset > covered ? "a hole" : "an overlap");
    }
    covered += tensor->bytes;
  }
  if (covered != data_bytes) {
    return m2se_error_set(error, M2SE_EFORMAT, "%" PRIu64 " bytes of data after the last tensor%s%s%s",
                          data_bytes - covered, header->count ? " \"" : "",
                          header->count ? header->tensors[header->count - 1].name : "",
                          header->count ? "\"" : "");
  }
  return 0;
}

static int read_tensors(struct m2se_header *header, uint64_t data_bytes, struct m2se_error *error) {
  size_t size = m2se_json_size(header->json);
  if (size > M2SE_TENSORS_MAX) {
    return m2se_error_set(error, M2SE_ELIMIT, "%zu tensors, more than %d", size, M2SE_TENSORS_MAX);
  }
  header->tensors = calloc(size + 1, sizeof *header->tensors); /* + 1: an empty file is not a failure */
  if (!header->tensors) {
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for the list of %zu tensors", size);
  }
  struct m2se_json_iterator member = {0};
  while (m2se_json_next(header->json, &member)) {
    int code = 0;
    if (strcmp(member.key, METADATA_KEY) == 0) {
      header->metadata = member.value;
      code = check_metadata(member.value, error);
    } else {
      code = read_entry(&header->tensors[header->count++], &member, data_bytes, error);
    }
    if (code) {
      return code;
    }
  }
  qsort(header->tensors, header->count, sizeof *header->tensors, compare_places);
  return check_cover(header, data_bytes, error);
}

int m2se_header_parse(struct m2se_header *header, const char *text, size_t size, uint64_t data_bytes,
                      struct m2se_error *error) {
  *header = (struct m2se_header){0};
  if (size > M2SE_HEADER_BYTES_MAX) {
    return m2se_error_set(error, M2SE_ELIMIT, "header of %zu bytes, more than %u", size,
                          M2SE_HEADER_BYTES_MAX);
  }
  if (size == 0 || text[0] != '{') {
    return m2se_error_set(error, M2SE_EFORMAT, "header: does not begin with '{'");
  }
  /* A tensor of the highest rank counts as 16 values. */
  struct m2se_json_limits limits = {
      .bytes_max = M2SE_HEADER_BYTES_MAX, .depth_max = 8, .values_max = 17 * M2SE_TENSORS_MAX};
  int code = m2se_json_parse(&header->json, text, size, &limits, error);
  if (code) {
    return m2se_error_prefix(error, code, "header");
  }
  code = read_tensors(header, data_bytes, error);
  if (code) {
    if (error) {
      error->code = code; /* what JSON calls missing or of another type, is here a broken format */
    }
    m2se_header_free(header);
  }
  return code;
}

void m2se_header_free(struct m2se_header *header) {
  free(header->tensors);
  m2se_json_free(header->json);
  *header = (struct m2se_header){0};
}
