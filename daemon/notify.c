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

uint64_t m2sed_notify_watchdog_us(void) {
  uint64_t us = 0;
  return sd_watchdog_enabled(0, &us) > 0 ? us : 0;
}

void m2sed_notify_alive(const char *state, uint64_t step, uint64_t events, const char *stuck) {
  char text[256];
  snprintf(text, sizeof text, "%sSTATUS=%s%s%s, %" PRIu64 " events learned, step %" PRIu64,
           stuck ? "" : "WATCHDOG=1\n", state, stuck ? ": " : "", stuck ? stuck : "", events, step);
  sd_notify(0, text);
}
