// What a process in the sandbox can do no longer, each tried by a child of its own.
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "daemon/pictures/sandbox.h"
#include "tests/unit/pictures_rig.h"

enum { ALLOWED = 42, FIRST_CLOSED = 3 };
static int secret; /* a descriptor the child should not keep */

/* How a child ended that entered the sandbox and called: ALLOWED, or minus the signal. */
static int end_of(void (*action)(void)) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    if (m2sed_sandbox_enter(FIRST_CLOSED) != 0) {
      _exit(1);
    }
    action();
    _exit(ALLOWED);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void do_open(void) {
  open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}
static void do_open_own(void) {
  open("/proc/self/status", O_RDONLY | O_CLOEXEC);
}
static void do_create(void) {
  open("made", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
}
static void do_socket(void) {
  socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}
static void do_fork(void) {
  if (fork() == 0) {
    _exit(ALLOWED);
  }
}
static void do_execute(void) {
  char name[] = "true", *arguments[] = {name, NULL};
  execv("/bin/true", arguments);
}
static void do_kill(void) {
  kill(getppid(), 0);
}
static void do_signal(void) {
  signal(SIGPROF, SIG_IGN);
}
static void do_trace(void) {
  ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}
static void do_map_code(void) {
  mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void do_map_file(void) {
  mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 0, 0);
}
static void do_limit(void) {
  struct rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_AS, &more);
}

static void test_forbidden(void **state) {
  (void)state;
#ifdef M2SED_SANITIZED
  skip();
#endif
  void (*const actions[])(void) = {do_open, do_open_own, do_create, do_socket,   do_fork,     do_execute,
                                   do_kill, do_signal,   do_trace,  do_map_code, do_map_file, do_limit};
  for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
    if (end_of(actions[i]) != -SIGSYS) {
      fail_msg("action %zu was not stopped", i);
    }
  }
}

static void check(bool condition) {
  if (!condition) {
    _exit(1);
  }
}

static void use_memory(void) {
#ifndef M2SED_SANITIZED
  check(malloc((size_t)M2SED_SANDBOX_MEMORY_MAX) == NULL);
#endif
  char *block = malloc(64 << 20);
  check(block != NULL);
  memset(block, 1, 64 << 20);
  block = realloc(block, 128 << 20);
  check(block != NULL && block[(64 << 20) - 1] == 1);
  free(block);
  for (int i = 0; i < 1000; i++) {
    check(malloc(1000) != NULL); // from the heap, which grows
  }
}

static void use_descriptors(void) {
  char byte = 'x';
  check(secret >= FIRST_CLOSED && write(secret, &byte, 1) < 0); // closed
}

static void use_time(void) {
  m2sed_sandbox_timer(50);
  for (volatile uint64_t i = 0;; i++) {
  }
}

static void use_time_in_time(void) {
  m2sed_sandbox_timer(50);
  m2sed_sandbox_timer(0);
  for (volatile uint64_t i = 0; i < UINT64_C(200000000); i++) {
  }
}

static void test_allowed(void **state) {
  (void)state;
  assert_int_equal(end_of(use_memory), ALLOWED);
  int ends[2];
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  secret = ends[1];
  assert_int_equal(end_of(use_descriptors), ALLOWED);
  close(ends[0]);
  close(ends[1]);
}

static void test_time(void **state) {
  (void)state;
  assert_int_equal(end_of(use_time), -SIGPROF);
  assert_int_equal(end_of(use_time_in_time), ALLOWED);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forbidden),
      cmocka_unit_test(test_allowed),
      cmocka_unit_test(test_time),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
