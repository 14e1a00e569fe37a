#include "daemon/signals.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>

static void change(int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGUSR1);
  int failed = pthread_sigmask(how, &set, NULL);
  assert(failed == 0);
}

void m2sed_signals_hold(void) {
  change(SIG_BLOCK);
}

void m2sed_signals_release(void) {
  change(SIG_UNBLOCK);
}
