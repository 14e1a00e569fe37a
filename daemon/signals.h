/* The signals that people and service managers send: SIGTERM, SIGINT, SIGHUP, SIGUSR1. Without a handler each
 * ends the process half-way, so they wait from before main until the loop hears them, and again once it does
 * not any more. Threads made while they are held never take one. */
#ifndef M2SED_SIGNALS_H
#define M2SED_SIGNALS_H

void m2sed_signals_hold(void);    /* the calling thread, and those that it starts from now on */
void m2sed_signals_release(void); /* main thread: what came meanwhile is delivered now */

#endif
