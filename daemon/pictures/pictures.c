#include "daemon/pictures/pictures.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/pictures/protocol.h"
#include "daemon/pictures/sandbox.h"

enum {
  HELPER_PICTURES_MAX = 100, /* then it is replaced, so that nothing it leaks or keeps grows */
  CPU_MS_MAX = M2SED_SANDBOX_CPU_SECONDS * 1000 / HELPER_PICTURES_MAX,
  KEPT_BYTES_MAX = 8 << 20, /* shared memory that stays taken between pictures */
  FREE_DESCRIPTOR = 16,     /* above all that the helper knows by number */
};

struct m2sed_pictures {
  struct m2sed_pictures_options options;
  char helper[PATH_MAX];
  int shared, socket; /* socket -1: no helper runs */
  uint8_t *memory;    /* [M2SED_PICTURES_MEMORY], see protocol.h */
  pid_t pid;
  uint32_t asked;    /* of this helper */
  size_t pixels_end; /* shared memory is taken up to here */
  struct m2sed_pictures_counters counters;
};

/* What waiting for the helper came to. */
enum answer { ANSWERED, DIED, SILENT };

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int set_options(struct m2sed_pictures *pictures, const struct m2sed_pictures_options *options,
                       struct m2se_error *error) {
  struct m2sed_pictures_options *own = &pictures->options;
  *own = options ? *options : (struct m2sed_pictures_options){0};
  own->bytes_max = own->bytes_max ? own->bytes_max : M2SED_PICTURES_BYTES_MAX;
  own->pixels_max = own->pixels_max ? own->pixels_max : M2SED_PICTURES_PIXELS_MAX;
  own->cpu_ms_max = own->cpu_ms_max ? own->cpu_ms_max : 1500;
  own->wall_ms_max = own->wall_ms_max ? own->wall_ms_max : 10000;
  if (own->bytes_max > M2SED_PICTURES_BYTES_MAX || own->pixels_max > M2SED_PICTURES_PIXELS_MAX ||
      own->cpu_ms_max > CPU_MS_MAX || own->wall_ms_max > INT_MAX) {
    return m2se_error_set(error, M2SE_EINVAL, "pictures: a limit beyond what the helper is made for");
  }
  char *path = pictures->helper;
  size_t length;
  if (own->helper) {
    length = strlen(own->helper);
    if (length >= sizeof pictures->helper) {
      return m2se_error_set(error, M2SE_ELIMIT, "pictures: the helper's path is too long");
    }
    memcpy(path, own->helper, length);
  } else {
    static const char name[] = "m2sed_pictures";
    ssize_t found = readlink("/proc/self/exe", path, sizeof pictures->helper - sizeof name - 1);
    const char *slash = found > 0 ? memrchr(path, '/', (size_t)found) : NULL;
    if (!slash) {
      return m2se_error_set(error, M2SE_EIO, "pictures: this program's own path is unknown: %s",
                            strerror(errno));
    }
    length = (size_t)(slash + 1 - path);
    memcpy(path + length, name, sizeof name);
    length += sizeof name - 1;
  }
  path[length] = '\0';
  if (access(path, X_OK) != 0) {
    return m2se_error_set(error, M2SE_EMISSING, "pictures: %s: %s", path, strerror(errno));
  }
  return 0;
}

static int make_shared_memory(struct m2sed_pictures *pictures, struct m2se_error *error) {
  int made = memfd_create("m2sed_pictures", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (made >= 0) {
    pictures->shared = fcntl(made, F_DUPFD_CLOEXEC, FREE_DESCRIPTOR);
    close(made);
  }
  /* Sealed: a helper that made it shorter would kill whoever reads it. */
  if (pictures->shared < 0 || ftruncate(pictures->shared, M2SED_PICTURES_MEMORY) != 0 ||
      fcntl(pictures->shared, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return m2se_error_set(error, M2SE_EIO, "pictures: shared memory: %s", strerror(errno));
  }
  void *memory = mmap(NULL, M2SED_PICTURES_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, pictures->shared, 0);
  if (memory == MAP_FAILED) {
    return m2se_error_set(error, M2SE_ENOMEM, "pictures: shared memory: %s", strerror(errno));
  }
  pictures->memory = memory;
  return 0;
}

int m2sed_pictures_open(struct m2sed_pictures **out, const struct m2sed_pictures_options *options,
                        struct m2se_error *error) {
  *out = NULL;
  struct m2sed_pictures *pictures = calloc(1, sizeof *pictures);
  if (!pictures) {
    return m2se_error_set(error, M2SE_ENOMEM, "pictures: out of memory");
  }
  pictures->shared = pictures->socket = -1;
  int code = set_options(pictures, options, error);
  code = code ? code : make_shared_memory(pictures, error);
  if (code != 0) {
    m2sed_pictures_close(pictures);
    return code;
  }
  *out = pictures;
  return 0;
}

/* Ends the helper and returns how it ended, as waitpid tells it. */
static int end_helper(struct m2sed_pictures *pictures) {
  int status = 0;
  if (pictures->socket >= 0) {
    close(pictures->socket);
    pictures->socket = -1;
    kill(pictures->pid, SIGKILL); /* of one that has died already nothing changes: it is not reaped yet */
    while (waitpid(pictures->pid, &status, 0) < 0 && errno == EINTR) {
    }
    pictures->pixels_end = M2SED_PICTURES_MEMORY; /* who knows what it wrote */
  }
  return status;
}

void m2sed_pictures_close(struct m2sed_pictures *pictures) {
  if (pictures) {
    end_helper(pictures);
    if (pictures->memory) {
      munmap(pictures->memory, M2SED_PICTURES_MEMORY);
    }
    if (pictures->shared >= 0) {
      close(pictures->shared);
    }
    free(pictures);
  }
}

/* theirs: the helper's end of the socket. Signals, descriptors, environment: nothing of ours goes along. */
static int spawn(struct m2sed_pictures *pictures, int theirs) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  int status = posix_spawn_file_actions_init(&actions);
  if (status != 0) {
    return status;
  }
  status = posix_spawnattr_init(&attributes);
  if (status == 0) {
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    for (int standard = 0; standard <= 2 && status == 0; standard++) {
      status = posix_spawn_file_actions_addopen(&actions, standard, "/dev/null", O_RDWR, 0);
    }
    status = status ? status : posix_spawn_file_actions_adddup2(&actions, theirs, M2SED_PICTURES_SOCKET);
    status =
        status ? status : posix_spawn_file_actions_adddup2(&actions, pictures->shared, M2SED_PICTURES_SHARED);
    status = status ? status : posix_spawn_file_actions_addclosefrom_np(&actions, M2SED_PICTURES_SHARED + 1);
    char *arguments[] = {pictures->helper, NULL}, *environment[] = {NULL};
    status =
        status ? status
               : posix_spawn(&pictures->pid, pictures->helper, &actions, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_destroy(&actions);
  return status;
}

/* Waits for a message of the helper: its size is *size. */
static enum answer receive(struct m2sed_pictures *pictures, struct m2sed_pictures_reply *reply,
                           size_t *size) {
  int64_t deadline = now_ms() + pictures->options.wall_ms_max;
  for (;;) {
    int64_t left = deadline - now_ms();
    struct pollfd wait = {.fd = pictures->socket, .events = POLLIN};
    int ready = poll(&wait, 1, left > 0 ? (int)left : 0);
    if (ready == 0) {
      return SILENT;
    }
    if (ready > 0) {
      ssize_t got = recv(pictures->socket, reply, sizeof *reply, MSG_DONTWAIT);
      if (got > 0) {
        *size = (size_t)got;
        return ANSWERED;
      }
      if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        return DIED;
      }
    }
  }
}

static int start_helper(struct m2sed_pictures *pictures, struct m2se_error *error) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return m2se_error_set(error, M2SE_EIO, "pictures: socketpair: %s", strerror(errno));
  }
  int theirs = fcntl(ends[1], F_DUPFD_CLOEXEC, FREE_DESCRIPTOR);
  int status = theirs < 0 ? errno : spawn(pictures, theirs);
  close(ends[1]);
  if (theirs >= 0) {
    close(theirs);
  }
  if (status != 0) {
    close(ends[0]);
    return m2se_error_set(error, M2SE_EIO, "pictures: %s: %s", pictures->helper, strerror(status));
  }
  pictures->socket = ends[0];
  pictures->asked = 0;
  pictures->counters.helpers_started++;
  struct m2sed_pictures_reply hello;
  size_t size = 0;
  if (receive(pictures, &hello, &size) != ANSWERED || size != sizeof hello || hello.number != 0 ||
      hello.reason != M2SED_PICTURE_OK) {
    bool told = size == sizeof hello && memchr(hello.detail, '\0', sizeof hello.detail);
    end_helper(pictures);
    return m2se_error_set(error, M2SE_EIO, "pictures: %s did not start: %s", pictures->helper,
                          told ? hello.detail : "no word from it");
  }
  return 0;
}

/* Sends the request to a helper, a new one if none runs or the old one is gone. */
static int send_request(struct m2sed_pictures *pictures, struct m2sed_pictures_request *request,
                        struct m2se_error *error) {
  if (pictures->asked >= HELPER_PICTURES_MAX) {
    end_helper(pictures);
  }
  for (int attempt = 0; attempt < 2; attempt++) {
    int code = pictures->socket < 0 ? start_helper(pictures, error) : 0;
    if (code != 0) {
      return code;
    }
    request->number = ++pictures->asked;
    if (send(pictures->socket, request, sizeof *request, MSG_NOSIGNAL) == (ssize_t)sizeof *request) {
      return 0;
    }
    end_helper(pictures); /* somebody killed it meanwhile */
  }
  return m2se_error_set(error, M2SE_EIO, "pictures: %s takes no requests", pictures->helper);
}

/* The helper is gone: was it its time, or the picture? */
static int reason_of_death(struct m2sed_pictures *pictures, struct m2se_error *error) {
  int status = end_helper(pictures);
  int signal_number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  if (signal_number == SIGPROF || signal_number == SIGXCPU) {
    (void)m2se_error_set(error, M2SE_ELIMIT, "more than %u ms of processor time",
                         pictures->options.cpu_ms_max);
    return M2SED_PICTURE_TIMEOUT;
  }
  (void)m2se_error_set(error, M2SE_EFORMAT, "the helper died of it: %s %d",
                       signal_number ? "signal" : "status",
                       signal_number ? signal_number : WEXITSTATUS(status));
  return M2SED_PICTURE_CRASHED;
}

/* The picture lies in the shared memory. */
static int ask(struct m2sed_pictures *pictures, size_t size, struct m2sed_picture *picture,
               struct m2se_error *error) {
  struct m2sed_pictures_request request = {.size = (uint32_t)size,
                                           .pixels_max = pictures->options.pixels_max,
                                           .cpu_ms_max = pictures->options.cpu_ms_max};
  int code = send_request(pictures, &request, error);
  if (code != 0) {
    return code;
  }
  struct m2sed_pictures_reply reply;
  size_t reply_size = 0;
  switch (receive(pictures, &reply, &reply_size)) {
  case DIED:
    return reason_of_death(pictures, error);
  case SILENT:
    end_helper(pictures);
    (void)m2se_error_set(error, M2SE_ELIMIT, "more than %u ms", pictures->options.wall_ms_max);
    return M2SED_PICTURE_TIMEOUT;
  case ANSWERED:
    break;
  }
  if (!m2sed_pictures_reply_is_valid(&reply, reply_size, &request)) {
    end_helper(pictures);
    (void)m2se_error_set(error, M2SE_EFORMAT, "the helper's answer makes no sense");
    return M2SED_PICTURE_CRASHED;
  }
  if (reply.reason != M2SED_PICTURE_OK) {
    pictures->pixels_end = M2SED_PICTURES_MEMORY; /* half a picture may lie there */
    (void)m2se_error_set(error, M2SE_EFORMAT, "%s", reply.detail);
    return (int)reply.reason;
  }
  *picture = (struct m2sed_picture){.width = reply.width,
                                    .height = reply.height,
                                    .channels = reply.channels,
                                    .pixels = pictures->memory + M2SED_PICTURES_PIXELS_AT};
  pictures->pixels_end = M2SED_PICTURES_PIXELS_AT + (size_t)reply.width * reply.height * reply.channels;
  return 0;
}

/* Gives back what a large picture has taken. */
static void release_memory(struct m2sed_pictures *pictures) {
  if (pictures->pixels_end > M2SED_PICTURES_PIXELS_AT + (size_t)KEPT_BYTES_MAX) {
    fallocate(pictures->shared, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, M2SED_PICTURES_MEMORY);
    pictures->pixels_end = 0;
  }
}

int m2sed_pictures_decode(struct m2sed_pictures *pictures, const void *bytes, size_t size,
                          struct m2sed_picture *picture, struct m2se_error *error) {
  *picture = (struct m2sed_picture){0};
  release_memory(pictures);
  int reason;
  if (size == 0) {
    reason = M2SED_PICTURE_NOT_A_PICTURE;
    (void)m2se_error_set(error, M2SE_EFORMAT, "nothing in it");
  } else if (size > pictures->options.bytes_max) {
    reason = M2SED_PICTURE_TOO_LARGE;
    (void)m2se_error_set(error, M2SE_ELIMIT, "%zu bytes, at most %u are allowed", size,
                         pictures->options.bytes_max);
  } else {
    memcpy(pictures->memory, bytes, size);
    reason = ask(pictures, size, picture, error);
  }
  if (reason >= 0) {
    pictures->counters.by_reason[reason]++;
  }
  if (reason > 0) {
    (void)m2se_error_prefix(error, M2SE_EFORMAT, "%s", m2sed_picture_reason_name(reason));
  }
  return reason;
}

int m2sed_pictures_decode_file(struct m2sed_pictures *pictures, const char *root, const char *path,
                               struct m2sed_picture *picture, struct m2se_error *error) {
  uint8_t *bytes;
  size_t size;
  *picture = (struct m2sed_picture){0};
  int reason = m2sed_picture_file_read(root, path, pictures->options.bytes_max, &bytes, &size, error);
  if (reason == 0) {
    reason = m2sed_pictures_decode(pictures, bytes, size, picture, error);
    free(bytes);
  } else if (reason > 0) {
    pictures->counters.by_reason[reason]++;
  }
  return reason;
}

struct m2sed_pictures_counters m2sed_pictures_count(const struct m2sed_pictures *pictures) {
  return pictures->counters;
}
