/* Do the threads answer? Decides whether the service manager is told that the daemon is alive.
 *
 * DESIGN. Each thread counts its beats: one whenever it has done a piece of work (a message taken, a step, a
 * batch of users, a block of items). Once a second the loop looks at the counters. A thread is silent while
 * it neither beats nor sleeps, and stuck once it has been so for more than the bound. A thread that sleeps
 * waits for the loop, and the loop is what asks. Seconds are those that the loop saw pass, so a process that
 * was stopped and goes on is not taken for stuck. Pure: no clock, no thread. Thread: the loop's.
 */
#ifndef M2SED_WATCHDOG_H
#define M2SED_WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

enum { M2SED_WATCHDOG_SECONDS = 15 }; /* the bound if the service manager names no time */

enum m2sed_watched { M2SED_WATCHED_TRAINER, M2SED_WATCHED_SERVER, M2SED_WATCHED_COUNT };

struct m2sed_pulse {
  uint64_t beats;
  bool idle; /* sleeps, has not begun, or has ended */
};

struct m2sed_watchdog {
  uint32_t bound_seconds;
  struct {
    uint64_t beats;
    uint32_t silent_seconds;
  } threads[M2SED_WATCHED_COUNT];
};

/* service_us: after so long without a sign of life the service manager ends the daemon; the bound is half of
 * it, at least 1 s. 0: nobody does. */
void m2sed_watchdog_init(struct m2sed_watchdog *watchdog, uint64_t service_us);
/* Call once a second. NULL: all answer; else what is wrong, for people (a literal). */
const char *m2sed_watchdog_second(struct m2sed_watchdog *watchdog,
                                  const struct m2sed_pulse pulses[M2SED_WATCHED_COUNT]);

#endif
