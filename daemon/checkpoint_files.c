#include "daemon/checkpoint_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

const char *const m2sed_checkpoint_file_names[M2SED_CHECKPOINT_FILES] = {
    [M2SED_FILE_MODEL] = "model.safetensors",
    [M2SED_FILE_OPTIMIZER] = "optimizer.safetensors",
    [M2SED_FILE_STATE] = "state.safetensors",
};

static int failed(struct m2se_error *error, const char *path, const char *what) {
  return m2se_error_set(error, M2SE_EIO, "%s: %s: %s", path, what, strerror(errno));
}

/* A generation without one of its files is damaged; one whose file cannot be opened may be good. */
static int open_failed(struct m2se_error *error, const char *path) {
  return m2se_error_set(error, errno == ENOENT ? M2SE_EFORMAT : M2SE_EIO, "%s: open: %s", path,
                        strerror(errno));
}

int m2sed_path_format(char *path, struct m2se_error *error, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int length = vsnprintf(path, M2SED_PATH_BYTES, format, args);
  va_end(args);
  if (length < 0 || length >= M2SED_PATH_BYTES) {
    return m2se_error_set(error, M2SE_ELIMIT, "%s: the path is too long", path);
  }
  return 0;
}

void m2sed_generation_name(char *name, size_t size, uint64_t generation) {
  snprintf(name, size, "gen-%010" PRIu64, generation);
}

int m2sed_generation_path(char *path, const char *dir, uint64_t generation, const char *file,
                          struct m2se_error *error) {
  char name[32];
  m2sed_generation_name(name, sizeof name, generation);
  return m2sed_path_format(path, error, "%s/%s%s%s", dir, name, file != NULL ? "/" : "",
                           file != NULL ? file : "");
}

static void format_sum(XXH128_hash_t hash, uint64_t bytes, struct m2sed_file_sum *sum) {
  sum->bytes = bytes;
  snprintf(sum->xxh3_128, sizeof sum->xxh3_128, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64,
           (uint64_t)hash.low64);
}

void m2sed_memory_sum(const void *data, size_t bytes, struct m2sed_file_sum *sum) {
  format_sum(XXH3_128bits(data, bytes), bytes, sum);
}

int m2sed_file_sum(const char *path, struct m2sed_file_sum *sum, struct m2se_error *error) {
  enum { CHUNK = 1 << 20 };
  int code = 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return open_failed(error, path);
  }
  char *chunk = malloc(CHUNK);
  XXH3_state_t *state = XXH3_createState();
  if (chunk == NULL || state == NULL) {
    code = m2se_error_set(error, M2SE_ENOMEM, "%s: checksum", path);
  } else {
    XXH3_128bits_reset(state);
  }
  uint64_t bytes = 0;
  while (code == 0) {
    ssize_t n = read(fd, chunk, CHUNK);
    if (n > 0) {
      XXH3_128bits_update(state, chunk, (size_t)n);
      bytes += (uint64_t)n;
    } else if (n == 0) {
      format_sum(XXH3_128bits_digest(state), bytes, sum);
      break;
    } else if (errno != EINTR) {
      code = failed(error, path, "read");
    }
  }
  XXH3_freeState(state);
  free(chunk);
  close(fd);
  return code;
}

int m2sed_file_read(const char *path, size_t bytes_max, char **text, size_t *length,
                    struct m2se_error *error) {
  struct stat status;
  *text = NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return failed(error, path, "open");
  }
  int code = fstat(fd, &status) == 0 ? 0 : failed(error, path, "stat");
  if (code == 0 && (!S_ISREG(status.st_mode) || (uint64_t)status.st_size > bytes_max)) {
    code = m2se_error_set(error, M2SE_ELIMIT, "%s: not a file of at most %zu bytes", path, bytes_max);
  }
  char *buffer = code == 0 ? malloc((size_t)status.st_size + 1) : NULL;
  if (code == 0 && buffer == NULL) {
    code = m2se_error_set(error, M2SE_ENOMEM, "%s: reading", path);
  }
  size_t done = 0;
  while (code == 0 && done < (size_t)status.st_size) {
    ssize_t n = read(fd, buffer + done, (size_t)status.st_size - done);
    if (n > 0) {
      done += (size_t)n;
    } else if (n == 0) {
      break; /* cut while we read: what is missing will be noticed by whoever parses it */
    } else if (errno != EINTR) {
      code = failed(error, path, "read");
    }
  }
  close(fd);
  if (code < 0) {
    free(buffer);
    return code;
  }
  buffer[done] = '\0';
  *text = buffer;
  *length = done;
  return 0;
}

int m2sed_file_write(const char *path, const char *text, size_t length, struct m2se_error *error) {
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) {
    return failed(error, path, "open");
  }
  int code = 0;
  for (size_t done = 0; code == 0 && done < length;) {
    ssize_t n = write(fd, text + done, length - done);
    if (n >= 0) {
      done += (size_t)n;
    } else if (errno != EINTR) {
      code = failed(error, path, "write");
    }
  }
  if (code == 0 && fsync(fd) != 0) {
    code = failed(error, path, "fsync");
  }
  if (close(fd) != 0 && code == 0) {
    code = failed(error, path, "close");
  }
  return code;
}

int m2sed_directory_sync(const char *path, struct m2se_error *error) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    return failed(error, path, "open");
  }
  int code = fsync(fd) == 0 ? 0 : failed(error, path, "fsync");
  close(fd);
  return code;
}

int m2sed_directory_remove(const char *path, struct m2se_error *error) {
  DIR *directory = opendir(path);
  if (directory == NULL) {
    return failed(error, path, "opendir");
  }
  struct dirent *entry;
  while ((entry = readdir(directory)) != NULL) {
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      /* What cannot be removed makes rmdir fail, which says so. */
      unlinkat(dirfd(directory), entry->d_name, 0);
    }
  }
  closedir(directory);
  return rmdir(path) == 0 ? 0 : failed(error, path, "rmdir");
}
