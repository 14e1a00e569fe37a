#include "daemon/lock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int m2sed_lock_take(struct m2sed_lock *lock, const char *directory, bool shared, struct m2se_error *error) {
  char path[4096];
  lock->fd = -1;
  if (snprintf(path, sizeof path, "%s/lock", directory) >= (int)sizeof path) {
    return m2se_error_set(error, M2SE_ELIMIT, "%s: the path is too long", directory);
  }
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    return m2se_error_set(error, M2SE_EIO, "%s: open: %s", path, strerror(errno));
  }
  /* flock, because it belongs to the open file: fcntl locks vanish when any descriptor of the file is closed.
   */
  if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    int reason = errno;
    char pid[32] = "";
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    close(fd);
    pid[n > 0 ? n : 0] = '\0';
    pid[strcspn(pid, "\n")] = '\0';
    if (reason == EWOULDBLOCK) {
      return m2se_error_set(error, M2SE_EIO, "%s: held by another daemon, process %s", path,
                            pid[0] != '\0' ? pid : "unknown");
    }
    return m2se_error_set(error, M2SE_EIO, "%s: flock: %s", path, strerror(reason));
  }
  char text[32];
  int length = shared ? 0 : snprintf(text, sizeof text, "%ld\n", (long)getpid());
  if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length) {
    int reason = errno;
    close(fd);
    return m2se_error_set(error, M2SE_EIO, "%s: write: %s", path, strerror(reason));
  }
  lock->fd = fd;
  return 0;
}

void m2sed_lock_release(struct m2sed_lock *lock) {
  if (lock->fd >= 0) {
    /* The file stays: removing it would let two daemons hold locks on two files of the same name. */
    close(lock->fd);
    lock->fd = -1;
  }
}
