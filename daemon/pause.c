#include "daemon/pause.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static int make_path(char path[PATH_BYTES], const char *directory, struct m2se_error *error) {
  if (snprintf(path, PATH_BYTES, "%s/paused", directory) >= PATH_BYTES)
    return m2se_error_set(error, M2SE_ELIMIT, "%s: the path is too long", directory);
  return 0;
}

void m2sed_pause_read(const char *directory, struct m2sed_pause *pause) {
  char path[PATH_BYTES], line[M2SED_PAUSE_BYTES_MAX];
  *pause = (struct m2sed_pause){.holds = false};
  if (make_path(path, directory, NULL))
    return;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    pause->holds = errno != ENOENT && errno != ENOTDIR;
    return;
  }
  pause->holds = true;
  ssize_t size = read(fd, line, sizeof line);
  close(fd);
  for (ssize_t i = 0, used = 0; i < size && line[i] != '\n'; i++)
    if ((unsigned char)line[i] >= ' ' && line[i] != 0x7f)
      pause->note[used++] = line[i];
}

int m2sed_pause_set(const char *directory, const char *note, struct m2se_error *error) {
  char path[PATH_BYTES];
  int code = make_path(path, directory, error);
  if (code)
    return code;
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0)
    return m2se_error_set(error, M2SE_EIO, "%s: open: %s", path, strerror(errno));
  ssize_t length = (ssize_t)strlen(note);
  bool written = write(fd, note, (size_t)length) == length && write(fd, "\n", 1) == 1 && fsync(fd) == 0;
  int reason = errno;
  close(fd);
  return written ? 0 : m2se_error_set(error, M2SE_EIO, "%s: write: %s", path, strerror(reason));
}

int m2sed_pause_clear(const char *directory, struct m2se_error *error) {
  char path[PATH_BYTES];
  int code = make_path(path, directory, error);
  if (code)
    return code;
  if (unlink(path) == 0)
    return 0;
  if (errno == ENOENT || errno == ENOTDIR)
    return m2se_error_set(error, M2SE_EMISSING, "%s: consumption is not paused", path);
  return m2se_error_set(error, M2SE_EIO, "%s: unlink: %s", path, strerror(errno));
}
