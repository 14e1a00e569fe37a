#include "daemon/pictures/pictures.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/openat2.h>

static int refuse(struct m2se_error *error, enum m2sed_picture_reason reason, const char *detail) {
  (void)m2se_error_set(error, M2SE_EFORMAT, "%s: %s: %s", m2sed_picture_reason_name(reason),
                       m2sed_picture_reason_text(reason), detail);
  return reason;
}

/* Of a failed open: whose fault is it? */
static int refuse_open(struct m2se_error *error, int number) {
  switch (number) {
  case ENOENT:
  case ENOTDIR:
  case ENAMETOOLONG:
    return refuse(error, M2SED_PICTURE_NOT_FOUND, strerror(number));
  case EXDEV:
  case ELOOP:
    return refuse(error, M2SED_PICTURE_OUTSIDE, strerror(number));
  case ENXIO:
  case EISDIR:
    return refuse(error, M2SED_PICTURE_NOT_A_FILE, strerror(number));
  case EMFILE:
  case ENFILE:
  case ENOMEM:
  case ENOSYS:
    return m2se_error_set(error, M2SE_EIO, "pictures: open: %s", strerror(number));
  default:
    return refuse(error, M2SED_PICTURE_UNREADABLE, strerror(number));
  }
}

/* O_NONBLOCK: a pipe is opened without waiting for its other end, then refused. */
enum { OPEN_FLAGS = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC };

/* The root is the operator's: that it is not there is no picture's fault. */
static int open_beneath(const char *root, const char *path, int *fd, struct m2se_error *error) {
  int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) {
    return m2se_error_set(error, M2SE_EIO, "pictures: root %s: %s", root, strerror(errno));
  }
  struct open_how how = {.flags = OPEN_FLAGS,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  *fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof how);
  int number = errno;
  close(folder);
  return *fd < 0 ? refuse_open(error, number) : 0;
}

/* *size holds what fits; on return what was there. */
static bool read_all(int fd, uint8_t *bytes, size_t *size) {
  size_t got = 0;
  while (got < *size) {
    ssize_t n = read(fd, bytes + got, *size - got);
    if (n < 0 && errno != EINTR) {
      return false;
    }
    if (n == 0) {
      break; /* it was cut meanwhile */
    }
    got += n > 0 ? (size_t)n : 0;
  }
  *size = got;
  return true;
}

static int read_opened(int fd, uint32_t bytes_max, uint8_t **bytes, size_t *size, struct m2se_error *error) {
  struct stat about;
  if (fstat(fd, &about) != 0) {
    return refuse(error, M2SED_PICTURE_UNREADABLE, strerror(errno));
  }
  if (!S_ISREG(about.st_mode)) {
    return refuse(error, M2SED_PICTURE_NOT_A_FILE, "not a regular file");
  }
  if (about.st_size > bytes_max) {
    (void)m2se_error_set(error, M2SE_ELIMIT, "too_large: %lld bytes, at most %u are allowed",
                         (long long)about.st_size, bytes_max);
    return M2SED_PICTURE_TOO_LARGE;
  }
  *size = (size_t)about.st_size;
  *bytes = malloc(*size + 1);
  if (!*bytes) {
    return m2se_error_set(error, M2SE_ENOMEM, "pictures: no memory for a file of %zu bytes", *size);
  }
  if (!read_all(fd, *bytes, size)) {
    int number = errno;
    free(*bytes);
    *bytes = NULL;
    return refuse(error, M2SED_PICTURE_UNREADABLE, strerror(number));
  }
  return 0;
}

/* *fd: closed by the caller if 0 is returned. */
static int open_file(const char *root, const char *path, int *fd, struct m2se_error *error) {
  if (root && root[0] == '\0') {
    return refuse(error, M2SED_PICTURE_NO_ROOT, "features.image_root");
  }
  if (path[0] == '\0') {
    return refuse(error, M2SED_PICTURE_NOT_FOUND, "the path is empty");
  }
  if (root) {
    return open_beneath(root, path, fd, error);
  }
  *fd = open(path, OPEN_FLAGS);
  return *fd < 0 ? refuse_open(error, errno) : 0;
}

int m2sed_picture_file_look(const char *root, const char *path, uint64_t *size, int64_t *changed_ns,
                            struct m2se_error *error) {
  int fd;
  int reason = open_file(root, path, &fd, error);
  if (reason != 0) {
    return reason;
  }
  struct stat about;
  if (fstat(fd, &about) != 0) {
    reason = refuse(error, M2SED_PICTURE_UNREADABLE, strerror(errno));
  } else {
    *size = (uint64_t)about.st_size;
    *changed_ns = (int64_t)about.st_mtim.tv_sec * 1000000000 + about.st_mtim.tv_nsec;
  }
  close(fd);
  return reason;
}

int m2sed_picture_file_read(const char *root, const char *path, uint32_t bytes_max, uint8_t **bytes,
                            size_t *size, struct m2se_error *error) {
  *bytes = NULL;
  *size = 0;
  int fd;
  int reason = open_file(root, path, &fd, error);
  if (reason != 0) {
    return reason;
  }
  reason = read_opened(fd, bytes_max, bytes, size, error);
  close(fd);
  return reason;
}
