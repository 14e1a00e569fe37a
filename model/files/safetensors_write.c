/* Writing: the header is made and checked whole, then everything goes out in order. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/files/safetensors.h"
#include "model/files/safetensors_header.h"
#include "model/files/utf8.h"

#define ALIGNMENT 8 /* of the data part, and so of tensors that are written widest first */

/* What the JSON text could not carry back to the reader's checks, because it would look different there. */
static int check_tensor(const struct m2se_tensor *tensor, struct m2se_error *error) {
  assert(tensor->name && tensor->rank <= M2SE_TENSOR_RANK_MAX);
  if (!m2se_utf8_valid(tensor->name, strlen(tensor->name))) {
    return m2se_error_set(error, M2SE_EFORMAT, "tensor \"%.*s\": name is not UTF-8", M2SE_TENSOR_NAME_MAX,
                          tensor->name);
  }
  if (strcmp(tensor->name, "__metadata__") == 0) {
    return m2se_error_set(error, M2SE_EFORMAT, "tensor \"%s\": name is the metadata's", tensor->name);
  }
  for (uint32_t i = 0; i < tensor->rank; i++) {
    if (tensor->shape[i] > INT64_MAX) {
      return m2se_error_set(error, M2SE_EFORMAT, "tensor \"%.*s\": shape: larger than 2^63 - 1",
                            M2SE_TENSOR_NAME_MAX, tensor->name);
    }
  }
  return 0;
}

static int put_tensor(struct m2se_json_writer *json, const struct m2se_tensor *source, uint64_t *offset,
                      struct m2se_error *error) {
  struct m2se_tensor tensor = *source;
  int code = check_tensor(&tensor, error);
  if (code) {
    return code;
  }
  uint64_t end = 0;
  code = m2se_tensor_measure(&tensor, error);
  if (!code && (__builtin_add_overflow(*offset, tensor.bytes, &end) || end > INT64_MAX)) {
    code = m2se_error_set(error, M2SE_EFORMAT, "data_offsets: more than 2^63 - 1 bytes");
  }
  if (code) {
    return m2se_error_prefix(error, code, "tensor \"%.*s\"", M2SE_TENSOR_NAME_MAX, tensor.name);
  }
  assert(tensor.data || tensor.bytes == 0);
  m2se_json_put_object(json, tensor.name);
  m2se_json_put_text(json, "dtype", m2se_dtype_name(tensor.dtype));
  m2se_json_put_array(json, "shape");
  for (uint32_t i = 0; i < tensor.rank; i++) {
    m2se_json_put_int64(json, NULL, (int64_t)tensor.shape[i]);
  }
  m2se_json_put_end(json);
  m2se_json_put_array(json, "data_offsets");
  m2se_json_put_int64(json, NULL, (int64_t)*offset);
  m2se_json_put_int64(json, NULL, (int64_t)end);
  m2se_json_put_end(json);
  m2se_json_put_end(json);
  *offset = end;
  return 0;
}

static int put_metadata(struct m2se_json_writer *json, const struct m2se_metadata *metadata, uint32_t count,
                        struct m2se_error *error) {
  m2se_json_put_object(json, "__metadata__");
  for (uint32_t i = 0; i < count; i++) {
    const char *key = metadata[i].key;
    const char *value = metadata[i].value;
    if (!m2se_utf8_valid(key, strlen(key)) || !m2se_utf8_valid(value, strlen(value))) {
      return m2se_error_set(error, M2SE_EFORMAT, "metadata \"%.100s\": not UTF-8", key);
    }
    m2se_json_put_text(json, key, value);
  }
  m2se_json_put_end(json);
  return 0;
}

/* The header's text: *text, to be freed also after an error, of *size bytes, padded with blanks to align the
 * data. */
static int make_header(const struct m2se_safetensors_content *content, char **text, size_t *size,
                       struct m2se_error *error) {
  struct m2se_json_writer *json = m2se_json_writer_new(0);
  uint64_t data_bytes = 0;
  int code = 0;
  m2se_json_put_object(json, NULL);
  if (content->metadata_count > 0) {
    code = put_metadata(json, content->metadata, content->metadata_count, error);
  }
  for (uint32_t i = 0; !code && i < content->tensor_count; i++) {
    code = put_tensor(json, &content->tensors[i], &data_bytes, error);
  }
  if (code) {
    m2se_json_writer_free(json);
    return code;
  }
  m2se_json_put_end(json);
  size_t length = 0;
  char *made = m2se_json_finish(json, &length);
  *size = (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  *text = made ? realloc(made, *size) : NULL;
  if (!*text) {
    free(made);
    return m2se_error_set(error, M2SE_ENOMEM, "no memory for the header");
  }
  memset(*text + length, ' ', *size - length);
  struct m2se_header header;
  code = m2se_header_parse(&header, *text, *size, data_bytes, error);
  m2se_header_free(&header);
  return code;
}

static int system_error(const char *call, struct m2se_error *error) {
  int reason = errno;
  return m2se_error_set(error, M2SE_EIO, "%s: %s (%s)", call, strerrordesc_np(reason),
                        strerrorname_np(reason));
}

/* The kernel takes at most 2 GB a call, signals interrupt, disks fill up half-way. */
static int write_all(int fd, const void *bytes, size_t size, struct m2se_error *error) {
  const char *next = bytes;
  while (size > 0) {
    ssize_t written = write(fd, next, size);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      errno = written < 0 ? errno : ENOSPC; /* nothing taken, and no reason given */
      return system_error("write", error);
    }
    next += written;
    size -= (size_t)written;
  }
  return 0;
}

static int write_contents(int fd, const struct m2se_safetensors_content *content, const char *header,
                          uint64_t size, struct m2se_error *error) {
  int code = write_all(fd, &size, sizeof size, error); /* little-endian, as the machine (safetensors.c) */
  code = code ? code : write_all(fd, header, size, error);
  for (uint32_t i = 0; !code && i < content->tensor_count; i++) {
    struct m2se_tensor tensor = content->tensors[i];
    code = m2se_tensor_measure(&tensor, error);
    code = code ? code : write_all(fd, tensor.data, tensor.bytes, error);
  }
  return code;
}

int m2se_safetensors_write_fd(int fd, const char *label, const struct m2se_safetensors_content *content,
                              struct m2se_error *error) {
  char *header = NULL;
  size_t size = 0;
  int code = make_header(content, &header, &size, error);
  code = code ? code : write_contents(fd, content, header, size, error);
  free(header);
  return code ? m2se_error_prefix(error, code, "%s", m2se_label(label)) : 0;
}

static int write_path(const char *path, const struct m2se_safetensors_content *content, const char *header,
                      size_t size, bool sync, struct m2se_error *error) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) {
    return system_error("open", error);
  }
  struct stat status;
  bool is_regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  int code = write_contents(fd, content, header, size, error);
  if (!code && sync && fsync(fd) != 0) {
    code = system_error("fsync", error);
  }
  /* Some file systems report a full disk only here. After EINTR the descriptor is closed all the same. */
  if (close(fd) != 0 && errno != EINTR && !code) {
    code = system_error("close", error);
  }
  if (code && is_regular) { /* devices can be written to as well, but are never removed */
    unlink(path);
  }
  return code;
}

int m2se_safetensors_write(const char *path, const struct m2se_safetensors_content *content, bool sync,
                           struct m2se_error *error) {
  char *header = NULL;
  size_t size = 0;
  int code = make_header(content, &header, &size, error); /* first: bad content leaves the old file alone */
  code = code ? code : write_path(path, content, header, size, sync, error);
  free(header);
  return code ? m2se_error_prefix(error, code, "%s", m2se_label(path)) : 0;
}
