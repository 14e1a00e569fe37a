#include "daemon/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int m2sed_folder_make(const char *path, struct m2se_error *error) {
  char part[PATH_MAX];
  size_t size = strlen(path);
  if (!size || size >= sizeof part)
    return m2se_error_set(error, M2SE_ELIMIT, "the name of a folder is empty or too long");
  memcpy(part, path, size + 1);
  for (size_t i = 1; i <= size; i++) {
    if (part[i] != '/' && part[i])
      continue;
    part[i] = 0;
    if (mkdir(part, 0777) && errno != EEXIST)
      return m2se_error_set(error, M2SE_EIO, "%s: %s", part, strerror(errno));
    part[i] = '/';
  }
  struct stat status;
  if (stat(path, &status) || !S_ISDIR(status.st_mode))
    return m2se_error_set(error, M2SE_EIO, "%s: %s", path, strerror(ENOTDIR));
  return 0;
}

int m2sed_folder_write(const char *path, const char *text, struct m2se_error *error) {
  char temporary[PATH_MAX];
  if ((size_t)snprintf(temporary, sizeof temporary, "%s.tmp", path) >= sizeof temporary)
    return m2se_error_set(error, M2SE_ELIMIT, "the name of a file is too long");
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0)
    return m2se_error_set(error, M2SE_EIO, "%s: %s", temporary, strerror(errno));
  size_t size = strlen(text);
  ssize_t written = write(fd, text, size);
  int failed = written == (ssize_t)size ? 0 : written < 0 ? errno : ENOSPC;
  if (close(fd) && !failed)
    failed = errno;
  if (!failed && rename(temporary, path))
    failed = errno;
  if (!failed)
    return 0;
  unlink(temporary);
  return m2se_error_set(error, M2SE_EIO, "%s: %s", path, strerror(failed));
}
