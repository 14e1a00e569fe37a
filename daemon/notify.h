/* What a service manager is told (sd_notify); nothing happens without one. One thread. */
#ifndef M2SED_NOTIFY_H
#define M2SED_NOTIFY_H

#include <stdint.h>

void m2sed_notify_ready(void);
void m2sed_notify_stopping(void);
/* After so long without a sign of life we are ended; 0: no watchdog. */
uint64_t m2sed_notify_watchdog_us(void);
/* One line of what is going on, and, unless `stuck` says what does not work, that the daemon is alive: call
 * at least twice in the watchdog's time. */
void m2sed_notify_alive(const char *state, uint64_t step, uint64_t events, const char *stuck);

#endif
