#include "ingest/redis_child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ingest/redis_reader.h"

enum { POLL_MS = 10 };

struct m2se_redis_child {
  pid_t pid; /* 0: it has ended */
  char directory[PATH_MAX];
  char socket[sizeof((struct sockaddr_un *)0)->sun_path];
  char uri[sizeof((struct sockaddr_un *)0)->sun_path + 8];
};

static void pause_ms(long ms) {
  nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int set_up_directory(struct m2se_redis_child *child, const char *directory, struct m2se_error *error) {
  if (mkdir(directory, 0700) && errno != EEXIST)
    return m2se_error_set(error, M2SE_EIO, "redis-server: cannot make %s: %s", directory, strerror(errno));
  if (!realpath(directory, child->directory))
    return m2se_error_set(error, M2SE_EIO, "redis-server: %s: %s", directory, strerror(errno));
  if ((size_t)snprintf(child->socket, sizeof child->socket, "%s/redis.sock", child->directory) >=
      sizeof child->socket)
    return m2se_error_set(error, M2SE_ELIMIT,
                          "redis-server: the path of the socket in %s would be longer than %zu bytes",
                          directory, sizeof child->socket - 1);
  /* In a URI, '%' and '?' have meanings of their own; nobody needs them in this path. */
  if (strpbrk(child->socket, "%?@"))
    return m2se_error_set(error, M2SE_EINVAL,
                          "redis-server: its directory must not have '%%', '?' or '@' in its path");
  snprintf(child->uri, sizeof child->uri, "unix://%s", child->socket);
  return 0;
}

/* The lock goes to the server, which holds it until its last process has ended. Two servers on one
 * append-only file would destroy it. */
static int take_lock(struct m2se_redis_child *child, int64_t deadline_ms, int *lock,
                     struct m2se_error *error) {
  char path[PATH_MAX + 16];
  snprintf(path, sizeof path, "%s/redis.lock", child->directory);
  *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (*lock < 0)
    return m2se_error_set(error, M2SE_EIO, "redis-server: cannot open %s: %s", path, strerror(errno));
  while (flock(*lock, LOCK_EX | LOCK_NB)) {
    if (errno != EWOULDBLOCK || now_ms() >= deadline_ms) {
      m2se_error_set(error, M2SE_EIO, "redis-server: %s: %s", path,
                     errno == EWOULDBLOCK ? "held by another server, which does not end" : strerror(errno));
      close(*lock);
      return M2SE_EIO;
    }
    pause_ms(POLL_MS);
  }
  return 0;
}

/* In the child between fork and exec: only calls that are safe there. Writes errno to report if exec fails.
 */
static void become_server(struct m2se_redis_child *child, const char *const *arguments, pid_t parent,
                          int lock, int log, int report) {
  int devnull = open("/dev/null", O_RDONLY);
  setpgid(0, 0); /* Ctrl-C in the terminal is for the daemon, which needs Redis for its last writes */
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() == parent && devnull >= 0 && dup2(devnull, 0) >= 0 && dup2(log, 1) >= 0 &&
      dup2(log, 2) >= 0 && chdir(child->directory) == 0 && fcntl(lock, F_SETFD, 0) == 0)
    execvp(arguments[0], (char *const *)(const void *)arguments);
  int why = errno;
  while (write(report, &why, sizeof why) < 0 && errno == EINTR)
    continue;
  _Exit(127);
}

static int spawn(struct m2se_redis_child *child, int lock, struct m2se_error *error) {
  const char *arguments[] = {"redis-server",
                             "--port",
                             "0",
                             "--unixsocket",
                             child->socket,
                             "--unixsocketperm",
                             "700",
                             "--dir",
                             child->directory,
                             "--daemonize",
                             "no",
                             "--logfile",
                             "redis.log",
                             "--save",
                             "",
                             "--appendonly",
                             "yes",
                             "--appendfsync",
                             "everysec",
                             "--maxmemory-policy",
                             "noeviction",
                             "--hash-max-listpack-value",
                             "8192",
                             NULL};
  char path[PATH_MAX + 16];
  snprintf(path, sizeof path, "%s/redis.log", child->directory);
  int log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  int report[2] = {-1, -1};
  pid_t parent = getpid();
  pid_t pid = log < 0 || pipe2(report, O_CLOEXEC) ? -1 : fork();
  if (pid == 0)
    become_server(child, arguments, parent, lock, log, report[1]);
  int why = errno;
  if (log >= 0)
    close(log);
  if (report[1] >= 0)
    close(report[1]);
  ssize_t size = 0;
  if (pid > 0)
    while ((size = read(report[0], &why, sizeof why)) < 0 && errno == EINTR)
      continue;
  if (report[0] >= 0)
    close(report[0]);
  if (pid > 0 && size == 0) { /* exec closed the pipe */
    child->pid = pid;
    return 0;
  }
  if (pid > 0)
    waitpid(pid, NULL, 0);
  if (pid > 0 && why == ENOENT)
    return m2se_error_set(error, M2SE_EMISSING,
                          "redis-server is not in PATH (Debian: apt install redis-server)");
  return m2se_error_set(error, M2SE_EIO, "redis-server cannot be started: %s", strerror(why));
}

/* Adds the last line of the server's log to the error. */
static int fail_with_log(const struct m2se_redis_child *child, const char *what, struct m2se_error *error) {
  char path[PATH_MAX + 16], text[400] = "";
  snprintf(path, sizeof path, "%s/redis.log", child->directory);
  FILE *file = fopen(path, "re");
  while (file && fgets(text, sizeof text, file))
    continue;
  if (file)
    fclose(file);
  text[strcspn(text, "\n")] = 0;
  return m2se_error_set(error, M2SE_EIO, "redis-server %s; the end of its log: %s", what, text);
}

int m2se_redis_child_start(struct m2se_redis_child **out, const char *directory, uint32_t timeout_ms,
                           struct m2se_error *error) {
  struct m2se_redis_child *child = calloc(1, sizeof *child);
  if (!child)
    return m2se_error_set(error, M2SE_ENOMEM, "redis-server: out of memory");
  int64_t deadline_ms = now_ms() + timeout_ms;
  int lock = -1;
  int code = set_up_directory(child, directory, error);
  code = code ? code : take_lock(child, deadline_ms, &lock, error);
  if (!code) {
    unlink(child->socket); /* of a server that was killed */
    code = spawn(child, lock, error);
    close(lock);
  }
  while (!code) { /* until it answers */
    struct m2se_redis_reader *reader;
    struct m2se_error not_yet;
    if (!m2se_redis_reader_open(&reader, child->uri, "", 1000, &not_yet)) {
      m2se_redis_reader_close(reader);
      *out = child;
      return 0;
    }
    if (!m2se_redis_child_alive(child))
      code = fail_with_log(child, "has ended at once", error);
    else if (now_ms() >= deadline_ms)
      code = fail_with_log(child, "does not answer", error);
    else
      pause_ms(POLL_MS);
  }
  if (m2se_redis_child_alive(child)) {
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
  }
  free(child);
  return code;
}

const char *m2se_redis_child_uri(const struct m2se_redis_child *child) {
  return child->uri;
}

int m2se_redis_child_pid(const struct m2se_redis_child *child) {
  return child->pid;
}

bool m2se_redis_child_alive(struct m2se_redis_child *child) {
  if (child->pid && waitpid(child->pid, NULL, WNOHANG) != 0) /* ended, or not ours any more */
    child->pid = 0;
  return child->pid != 0;
}

int m2se_redis_child_stop(struct m2se_redis_child *child, uint32_t timeout_ms, struct m2se_error *error) {
  if (!child)
    return 0;
  int64_t deadline_ms = now_ms() + timeout_ms;
  int code = 0;
  if (m2se_redis_child_alive(child))
    kill(child->pid, SIGTERM); /* it writes its append-only file, then ends */
  while (m2se_redis_child_alive(child)) {
    if (!code && now_ms() >= deadline_ms) {
      code =
          m2se_error_set(error, M2SE_EIO, "redis-server did not end within %u ms and was killed", timeout_ms);
      kill(child->pid, SIGKILL);
    }
    pause_ms(POLL_MS);
  }
  free(child);
  return code;
}
