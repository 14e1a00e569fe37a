#include "daemon/notify.h"

#include <inttypes.h>
#include <stdio.h>

#include <systemd/sd-daemon.h>

void m2sed_notify_ready(void) {
  sd_notify(0, "READY=1");
}

void m2sed_notify_stopping(void) {
  sd_notify(0, "STOPPING=1");
}

void m2sed_notify_alive(const char *state, uint64_t step, uint64_t events) {
  char text[160];
  snprintf(text, sizeof text, "WATCHDOG=1\nSTATUS=%s, %" PRIu64 " events learned, step %" PRIu64, state,
           events, step);
  sd_notify(0, text);
}
