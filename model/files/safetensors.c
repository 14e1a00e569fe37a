/* Reading: open, find, check. What is in a tensor is converted in safetensors_convert.c. */
#include "model/files/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/files/safetensors_header.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are given out as they lie in the file");
_Static_assert(sizeof(size_t) == 8, "files of many GB are mapped as one piece");

#define LENGTH_BYTES 8

struct m2se_safetensors {
  char label[M2SE_LABEL_MAX + 1];
  void *map; /* NULL: the caller's memory */
  size_t map_bytes;
  struct m2se_header header;
};

static int read_contents(struct m2se_safetensors *file, const uint8_t *bytes, size_t size,
                         struct m2se_error *error) {
  if (size < LENGTH_BYTES) {
    return m2se_error_set(error, M2SE_EFORMAT, "%zu bytes, shorter than the 8 of the header length", size);
  }
  uint64_t header_bytes = 0;
  memcpy(&header_bytes, bytes, LENGTH_BYTES);
  if (header_bytes > size - LENGTH_BYTES) {
    return m2se_error_set(error, M2SE_EFORMAT, "header of %" PRIu64 " bytes, but only %zu follow",
                          header_bytes, size - LENGTH_BYTES);
  }
  const uint8_t *data = bytes + LENGTH_BYTES + header_bytes;
  uint64_t data_bytes = size - LENGTH_BYTES - header_bytes;
  int code =
      m2se_header_parse(&file->header, (const char *)bytes + LENGTH_BYTES, header_bytes, data_bytes, error);
  if (code) {
    return code;
  }
  for (uint32_t i = 0; i < file->header.count; i++) {
    file->header.tensors[i].data = data + file->header.tensors[i].offset;
  }
  return 0;
}

static int map_file(struct m2se_safetensors *file, const char *path, struct m2se_error *error) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hold us */
  if (fd < 0) {
    return m2se_error_set(error, M2SE_EIO, "open: %s", strerrordesc_np(errno));
  }
  int code = 0;
  struct stat status;
  if (fstat(fd, &status) != 0) {
    code = m2se_error_set(error, M2SE_EIO, "fstat: %s", strerrordesc_np(errno));
  } else if (!S_ISREG(status.st_mode)) {
    code = m2se_error_set(error, M2SE_EIO, "not a regular file");
  } else if (status.st_size > 0) { /* an empty one cannot be mapped, and is refused for its size */
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
      code = m2se_error_set(error, M2SE_EIO, "mmap: %s", strerrordesc_np(errno));
    } else {
      file->map = map;
      file->map_bytes = (size_t)status.st_size;
    }
  }
  close(fd);
  return code;
}

static struct m2se_safetensors *new_file(const char *label, struct m2se_error *error) {
  struct m2se_safetensors *file = calloc(1, sizeof *file);
  if (!file) {
    m2se_error_set(error, M2SE_ENOMEM, "%s: no memory to open it", m2se_label(label));
    return NULL;
  }
  snprintf(file->label, sizeof file->label, "%s", m2se_label(label));
  return file;
}

static int finish_open(struct m2se_safetensors **out, struct m2se_safetensors *file, int code,
                       struct m2se_error *error) {
  if (code) {
    m2se_error_prefix(error, code, "%s", file->label);
    m2se_safetensors_close(file);
    return code;
  }
  *out = file;
  return 0;
}

int m2se_safetensors_open(struct m2se_safetensors **file, const char *path, struct m2se_error *error) {
  *file = NULL;
  struct m2se_safetensors *opened = new_file(path, error);
  if (!opened) {
    return M2SE_ENOMEM;
  }
  int code = map_file(opened, path, error);
  if (!code) {
    code = read_contents(opened, opened->map, opened->map_bytes, error);
  }
  return finish_open(file, opened, code, error);
}

int m2se_safetensors_from_memory(struct m2se_safetensors **file, const void *bytes, size_t size,
                                 const char *label, struct m2se_error *error) {
  *file = NULL;
  struct m2se_safetensors *opened = new_file(label, error);
  if (!opened) {
    return M2SE_ENOMEM;
  }
  return finish_open(file, opened, read_contents(opened, bytes, size, error), error);
}

void m2se_safetensors_close(struct m2se_safetensors *file) {
  if (!file) {
    return;
  }
  m2se_header_free(&file->header);
  if (file->map) {
    munmap(file->map, file->map_bytes);
  }
  free(file);
}

const char *m2se_safetensors_label(const struct m2se_safetensors *file) {
  return file->label;
}

uint32_t m2se_safetensors_count(const struct m2se_safetensors *file) {
  return file->header.count;
}

const struct m2se_tensor *m2se_safetensors_at(const struct m2se_safetensors *file, uint32_t index) {
  assert(index < file->header.count);
  return &file->header.tensors[index];
}

const struct m2se_tensor *m2se_safetensors_find(const struct m2se_safetensors *file, const char *name) {
  for (uint32_t i = 0; i < file->header.count; i++) { /* hundreds at most, looked up once each */
    if (strcmp(file->header.tensors[i].name, name) == 0) {
      return &file->header.tensors[i];
    }
  }
  return NULL;
}

/* "[3,any,64]" */
static void describe_shape(char *text, size_t capacity, uint32_t rank, const uint64_t *shape) {
  size_t used = (size_t)snprintf(text, capacity, "[");
  for (uint32_t i = 0; i < rank && used < capacity; i++) {
    const char *comma = i ? "," : "";
    used += (size_t)(shape[i] == M2SE_ANY
                         ? snprintf(text + used, capacity - used, "%sany", comma)
                         : snprintf(text + used, capacity - used, "%s%" PRIu64, comma, shape[i]));
  }
  if (used < capacity) {
    snprintf(text + used, capacity - used, "]");
  }
}

int m2se_safetensors_require(const struct m2se_safetensors *file, const char *name, uint32_t rank,
                             const uint64_t *shape, const struct m2se_tensor **tensor,
                             struct m2se_error *error) {
  assert(rank <= M2SE_TENSOR_RANK_MAX);
  const struct m2se_tensor *found = m2se_safetensors_find(file, name);
  if (!found) {
    return m2se_error_set(error, M2SE_EMISSING, "%s: tensor \"%s\": missing", file->label, name);
  }
  bool same = found->rank == rank;
  for (uint32_t i = 0; same && i < rank; i++) {
    same = shape[i] == M2SE_ANY || found->shape[i] == shape[i];
  }
  if (!same) {
    char has[64];
    char wanted[64];
    describe_shape(has, sizeof has, found->rank, found->shape);
    describe_shape(wanted, sizeof wanted, rank, shape);
    return m2se_error_set(error, M2SE_ESHAPE, "%s: tensor \"%s\": shape %s where %s is needed", file->label,
                          name, has, wanted);
  }
  *tensor = found;
  return 0;
}

/* ---- metadata ---- */

const struct m2se_json *m2se_safetensors_metadata_all(const struct m2se_safetensors *file) {
  return file->header.metadata;
}

const char *m2se_safetensors_metadata(const struct m2se_safetensors *file, const char *key) {
  const char *text = NULL;
  m2se_json_as_string(m2se_json_get(file->header.metadata, key), key, &text, NULL, NULL);
  return text;
}

int m2se_safetensors_metadata_uint(const struct m2se_safetensors *file, const char *key, uint64_t min,
                                   uint64_t max, uint64_t *number, struct m2se_error *error) {
  uint64_t value = 0;
  int code = m2se_json_as_uint64(m2se_json_get(file->header.metadata, key), key, &value, error);
  if (!code && (value < min || value > max)) {
    code = m2se_error_set(error, M2SE_ERANGE, "%s: %" PRIu64 " is outside %" PRIu64 "..%" PRIu64, key, value,
                          min, max);
  }
  if (code) {
    return m2se_error_prefix(error, code, "%s: metadata", file->label);
  }
  *number = value;
  return 0;
}

int m2se_safetensors_metadata_real(const struct m2se_safetensors *file, const char *key, double min,
                                   double max, double *number, struct m2se_error *error) {
  const char *text = NULL;
  int code = m2se_json_as_string(m2se_json_get(file->header.metadata, key), key, &text, NULL, error);
  if (code) {
    return m2se_error_prefix(error, code, "%s: metadata", file->label);
  }
  char *end = NULL;
  double value = strtod(text, &end);
  if (end == text || *end != '\0' || !isfinite(value)) {
    code = m2se_error_set(error, M2SE_ETYPE, "%s: \"%.40s\" is not a finite number", key, text);
  } else if (value < min || value > max) {
    code = m2se_error_set(error, M2SE_ERANGE, "%s: %g is outside %g..%g", key, value, min, max);
  }
  if (code) {
    return m2se_error_prefix(error, code, "%s: metadata", file->label);
  }
  *number = value;
  return 0;
}
