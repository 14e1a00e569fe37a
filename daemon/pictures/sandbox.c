#include "daemon/pictures/sandbox.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <seccomp.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

static int limit(int resource, rlim_t most) {
  struct rlimit both = {most, most};
  return setrlimit(resource, &both) == 0 ? 0 : -errno;
}

#ifndef SANITIZED
static int filter_calls(void) {
  static const int allowed[] = {SCMP_SYS(read),   SCMP_SYS(write),      SCMP_SYS(brk),
                                SCMP_SYS(munmap), SCMP_SYS(mremap),     SCMP_SYS(madvise),
                                SCMP_SYS(exit),   SCMP_SYS(exit_group), SCMP_SYS(setitimer)};
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (!filter) {
    return -ENOMEM;
  }
  int status = 0;
  for (size_t i = 0; i < sizeof allowed / sizeof *allowed && status == 0; i++) {
    status = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
  }
  if (status == 0) { /* memory of its own, never to be executed */
    status =
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                         SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
  }
  if (status == 0) {
    status = seccomp_load(filter);
  }
  seccomp_release(filter);
  return status;
}
#endif

int m2sed_sandbox_enter(unsigned first_closed) {
  int status = close_range(first_closed, ~0U, 0) == 0 ? 0 : -errno;
  status = status ? status : limit(RLIMIT_CORE, 0);
  status = status ? status : limit(RLIMIT_CPU, M2SED_SANDBOX_CPU_SECONDS);
  status = status ? status : limit(RLIMIT_FSIZE, 0);
  status = status ? status : limit(RLIMIT_NOFILE, 0);
  status = status ? status : limit(RLIMIT_NPROC, 0);
#ifndef SANITIZED
  status = status ? status : limit(RLIMIT_AS, M2SED_SANDBOX_MEMORY_MAX);
#endif
  if (status == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    status = -errno;
  }
#ifndef SANITIZED
  status = status ? status : filter_calls();
#endif
  return status;
}

void m2sed_sandbox_timer(unsigned cpu_ms) {
  struct itimerval once = {.it_value = {cpu_ms / 1000, (suseconds_t)(cpu_ms % 1000) * 1000}};
  setitimer(ITIMER_PROF, &once, NULL);
}
