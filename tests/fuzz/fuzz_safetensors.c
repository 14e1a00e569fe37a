// A safetensors file, as anything may have written it: refused with a reason, or all of it is readable within
// its bounds, and written again it says the same.
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/files/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ELEMENTS_MAX 4096 // of a tensor that is converted; the conversions do not depend on it

// Every conversion either works or says why not; the sanitizers watch what it touches.
static void convert(const struct m2se_safetensors *file, const struct m2se_tensor *tensor) {
  int64_t *out = calloc(tensor->count + 1, sizeof *out);
  struct m2se_error errors[4] = {0};
  assert(out);
  int codes[4] = {
      m2se_safetensors_read_f32(file, tensor->name, tensor->rank, tensor->shape, (float *)out, &errors[0]),
      m2se_safetensors_read_i32(file, tensor->name, tensor->rank, tensor->shape, (int32_t *)out, &errors[1]),
      m2se_safetensors_read_i64(file, tensor->name, tensor->rank, tensor->shape, out, &errors[2]),
      m2se_safetensors_read_u8(file, tensor->name, tensor->rank, tensor->shape, (uint8_t *)out, &errors[3]),
  };
  for (int i = 0; i < 4; i++) {
    assert(codes[i] == 0 || codes[i] == M2SE_ETYPE || codes[i] == M2SE_ERANGE);
    assert(codes[i] == errors[i].code && (codes[i] == 0) == (errors[i].text[0] == '\0'));
  }
  free(out);
}

// The tensors lie in the data part one behind the other and are found by their names.
static void check(const struct m2se_safetensors *file, const uint8_t *bytes, size_t size) {
  uint64_t end = 0;
  for (uint32_t i = 0; i < m2se_safetensors_count(file); i++) {
    const struct m2se_tensor *tensor = m2se_safetensors_at(file, i);
    assert(tensor->offset == end && tensor->bytes == tensor->count * m2se_dtype_size(tensor->dtype));
    end += tensor->bytes;
    const uint8_t *place = tensor->data;
    assert(tensor->bytes == 0 || (place >= bytes + 8 && place + tensor->bytes <= bytes + size));
    assert(m2se_safetensors_find(file, tensor->name) == tensor);
    if (tensor->count <= ELEMENTS_MAX) {
      convert(file, tensor);
    }
  }
}

static void check_same(const struct m2se_safetensors *file, const struct m2se_safetensors *copy) {
  assert(m2se_safetensors_count(copy) == m2se_safetensors_count(file));
  for (uint32_t i = 0; i < m2se_safetensors_count(file); i++) {
    const struct m2se_tensor *tensor = m2se_safetensors_at(file, i);
    const struct m2se_tensor *other = m2se_safetensors_find(copy, tensor->name);
    assert(other && other->dtype == tensor->dtype && other->rank == tensor->rank);
    assert(memcmp(other->shape, tensor->shape, sizeof tensor->shape) == 0);
    assert(other->bytes == tensor->bytes && memcmp(other->data, tensor->data, tensor->bytes) == 0);
  }
  const struct m2se_json *metadata = m2se_safetensors_metadata_all(file);
  struct m2se_json_iterator member = {0};
  while (m2se_json_next(metadata, &member)) {
    const char *text = m2se_safetensors_metadata(copy, member.key);
    assert(text && strcmp(text, m2se_safetensors_metadata(file, member.key)) == 0);
  }
}

static void write_again(const struct m2se_safetensors *file) {
  uint32_t count = m2se_safetensors_count(file);
  const struct m2se_json *all = m2se_safetensors_metadata_all(file);
  struct m2se_tensor *tensors = calloc(count + 1, sizeof *tensors);
  struct m2se_metadata *metadata = calloc(m2se_json_size(all) + 1, sizeof *metadata);
  assert(tensors && metadata);
  struct m2se_safetensors_content content = {.tensors = tensors, .metadata = metadata};
  for (; content.tensor_count < count; content.tensor_count++) {
    tensors[content.tensor_count] = *m2se_safetensors_at(file, content.tensor_count);
  }
  struct m2se_json_iterator member = {0};
  while (m2se_json_next(all, &member)) {
    metadata[content.metadata_count++] =
        (struct m2se_metadata){member.key, m2se_safetensors_metadata(file, member.key)};
  }
  int fd = memfd_create("copy", MFD_CLOEXEC);
  assert(fd >= 0 && m2se_safetensors_write_fd(fd, "copy", &content, NULL) == 0);
  off_t size = lseek(fd, 0, SEEK_END);
  void *bytes = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
  assert(bytes != MAP_FAILED);
  struct m2se_safetensors *copy = NULL;
  assert(m2se_safetensors_from_memory(&copy, bytes, (size_t)size, "copy", NULL) == 0);
  check_same(file, copy);
  m2se_safetensors_close(copy);
  munmap(bytes, (size_t)size);
  close(fd);
  free(metadata);
  free(tensors);
}

static void try(const uint8_t *bytes, size_t size) {
  struct m2se_safetensors *file = NULL;
  struct m2se_error error = {0};
  int code = m2se_safetensors_from_memory(&file, bytes, size, "input", &error);
  if (code) {
    assert(!file && error.code == code && error.text[0]);
    assert(code == M2SE_EFORMAT || code == M2SE_ELIMIT);
    return;
  }
  check(file, bytes, size);
  write_again(file);
  m2se_safetensors_close(file);
}

// The input is a file; and, so that a header may grow, also a header up to the first NUL and then data.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  try(data, size);
  uint8_t *bytes = malloc(8 + size);
  assert(bytes);
  uint64_t header_size = strnlen((const char *)data, size);
  size_t data_start = header_size + (header_size < size);
  memcpy(bytes, &header_size, 8);
  memcpy(bytes + 8, data, header_size);
  memcpy(bytes + 8 + header_size, data + data_start, size - data_start);
  try(bytes, 8 + header_size + size - data_start);
  free(bytes);
  return 0;
}
