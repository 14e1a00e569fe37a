/* A process that can do nothing but compute and talk on the descriptors it has. */
#ifndef M2SED_PICTURES_SANDBOX_H
#define M2SED_PICTURES_SANDBOX_H

enum {
  M2SED_SANDBOX_MEMORY_MAX = 512 << 20, /* bytes of address space */
  M2SED_SANDBOX_CPU_SECONDS = 600,      /* in a whole life; per picture: m2sed_sandbox_timer */
};

/* Closes every descriptor from first_closed on; limits memory, processor time, files and processes; then only
 * read, write, memory, the timer and the end are left, anything else kills the process (SIGSYS). There is no
 * way back. 0, or a negative error number of the system. In a build with sanitizers, which need more, memory
 * is not limited and system calls are not filtered. */
int m2sed_sandbox_enter(unsigned first_closed);

/* The process dies (SIGPROF) when it has used so much processor time from now on; 0: no longer. */
void m2sed_sandbox_timer(unsigned cpu_ms);

#endif
