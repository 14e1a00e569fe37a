#include "daemon/watchdog.h"

#include <stddef.h>

static const char *const stuck_texts[M2SED_WATCHED_COUNT] = {
    [M2SED_WATCHED_TRAINER] = "the training thread does not answer",
    [M2SED_WATCHED_SERVER] = "the serving thread does not answer"};

void m2sed_watchdog_init(struct m2sed_watchdog *watchdog, uint64_t service_us) {
  uint64_t half = service_us / 2000000;
  *watchdog = (struct m2sed_watchdog){.bound_seconds = M2SED_WATCHDOG_SECONDS};
  if (service_us > 0)
    watchdog->bound_seconds = half < 1 ? 1 : half < UINT32_MAX ? (uint32_t)half : UINT32_MAX;
}

const char *m2sed_watchdog_second(struct m2sed_watchdog *watchdog,
                                  const struct m2sed_pulse pulses[M2SED_WATCHED_COUNT]) {
  const char *stuck = NULL;
  for (int i = 0; i < M2SED_WATCHED_COUNT; i++) {
    uint32_t *silent = &watchdog->threads[i].silent_seconds;
    bool quiet = !pulses[i].idle && pulses[i].beats == watchdog->threads[i].beats;
    watchdog->threads[i].beats = pulses[i].beats;
    *silent = !quiet ? 0 : *silent < UINT32_MAX ? *silent + 1 : *silent;
    if (!stuck && *silent > watchdog->bound_seconds)
      stuck = stuck_texts[i];
  }
  return stuck;
}
