#include "model/files/file.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All of the stream, at most bytes_max bytes: the buffer doubles, so that pipes and odd files do as well. */
static int read_all(FILE *stream, size_t bytes_max, char **text, size_t *size, struct m2se_error *error) {
  size_t room = 4096, used = 0;
  char *buffer = malloc(room);
  while (buffer) {
    used += fread(buffer + used, 1, room - used - 1, stream);
    if (ferror(stream)) {
      free(buffer);
      return m2se_error_set(error, M2SE_EIO, "cannot read: %s", strerror(errno));
    }
    if (used > bytes_max) {
      free(buffer);
      return m2se_error_set(error, M2SE_ELIMIT, "more than %zu bytes", bytes_max);
    }
    if (feof(stream)) {
      buffer[used] = '\0';
      *text = buffer;
      *size = used;
      return 0;
    }
    room *= 2;
    char *larger = realloc(buffer, room);
    if (!larger) {
      free(buffer);
    }
    buffer = larger;
  }
  return m2se_error_set(error, M2SE_ENOMEM, "no memory for a file of %zu bytes or more", used);
}

int m2se_file_read(const char *folder, const char *name, size_t bytes_max, char **text, size_t *size,
                   struct m2se_error *error) {
  char path[PATH_MAX];
  *text = NULL;
  *size = 0;
  if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) >= sizeof(path)) {
    return m2se_error_set(error, M2SE_ELIMIT, "%s/%s: a path that is too long", folder, name);
  }
  FILE *stream = fopen(path, "rbe");
  if (!stream) {
    int code = errno == ENOENT || errno == ENOTDIR ? M2SE_EMISSING : M2SE_EIO;
    return m2se_error_set(error, code, "%s: %s", path, strerror(errno));
  }
  int code = read_all(stream, bytes_max, text, size, error);
  (void)fclose(stream);
  return code ? m2se_error_prefix(error, code, "%s", path) : 0;
}

int m2se_file_read_json(const char *folder, const char *name, const struct m2se_json_limits *limits,
                        struct m2se_json **root, struct m2se_error *error) {
  struct m2se_json_limits standard = M2SE_JSON_LIMITS_DEFAULT;
  limits = limits ? limits : &standard;
  char *text = NULL;
  size_t size = 0;
  *root = NULL;
  int code = m2se_file_read(folder, name, limits->bytes_max, &text, &size, error);
  if (code) {
    return code;
  }
  code = m2se_json_parse(root, text, size, limits, error);
  free(text);
  return code ? m2se_error_prefix(error, code, "%s/%s", folder, name) : 0;
}
